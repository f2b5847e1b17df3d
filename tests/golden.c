/* Golden vectors from HDF5 files, for tests of any kind. */
#include "tests/golden.h"

#include <hdf5.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 1024
#define MAX_REASONS 16

struct reason {
  char text[128];
  int count;
};

struct golden_file {
  char name[256];
  char path[PATH_BYTES];
  hid_t id;
  struct golden_names cases;
  int ran, skipped, reasons;
  struct reason reason[MAX_REASONS];
};

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fflush(stdout);
  fprintf(stderr, "golden: ");
  vfprintf(stderr, format, arguments);
  fprintf(stderr, "\n");
  fflush(stderr);
  va_end(arguments);
  abort();
}

static void *allocate(size_t bytes) {
  void *block = malloc(bytes ? bytes : 1);
  if (block == NULL)
    die("out of memory (%zu bytes)", bytes);
  return block;
}

/* ---- finding the file ---- */

static bool readable(char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool readable(char *path, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(path, PATH_BYTES, format, arguments);
  va_end(arguments);
  return length < PATH_BYTES && access(path, R_OK) == 0;
}

static bool find_above_executable(const char *name, char *path) {
  char folder[PATH_BYTES / 2];
  ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
  if (length < 0)
    return false;
  folder[length] = '\0';
  for (char *slash; (slash = strrchr(folder, '/')) != NULL;) {
    *slash = '\0';
    if (readable(path, "%s/tests/golden/%s", folder, name))
      return true;
  }
  return false;
}

static void find_file(const char *name, char *path) {
  const char *folder = getenv("GOLDEN_DIR");
  if (folder != NULL && folder[0] != '\0') {
    if (!readable(path, "%s/%s", folder, name))
      die("cannot read %s in GOLDEN_DIR=%s; unset GOLDEN_DIR or put the file there", name, folder);
    return;
  }
  if (!readable(path, "tests/golden/%s", name) && !find_above_executable(name, path))
    die("cannot read tests/golden/%s; run from the repository root or set GOLDEN_DIR", name);
}

/* ---- names of members ---- */

static bool is_group(hid_t parent, const char *name) {
  hid_t object = H5Oopen(parent, name, H5P_DEFAULT);
  bool group = object >= 0 && H5Iget_type(object) == H5I_GROUP;
  if (object >= 0)
    H5Oclose(object);
  return group;
}

static char *link_name(hid_t group, hsize_t index) {
  ssize_t length = H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, index, NULL, 0, H5P_DEFAULT);
  if (length < 0)
    die("cannot list a group");
  char *name = allocate((size_t)length + 1);
  H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, index, name, (size_t)length + 1, H5P_DEFAULT);
  return name;
}

static struct golden_names list_links(hid_t group, bool groups_only) {
  H5G_info_t info;
  if (H5Gget_info(group, &info) < 0)
    die("cannot list a group");
  struct golden_names names = {.name = allocate((size_t)info.nlinks * sizeof *names.name)};
  for (hsize_t i = 0; i < info.nlinks; i++) {
    char *name = link_name(group, i);
    if (!groups_only || is_group(group, name))
      names.name[names.count++] = name;
    else
      free(name);
  }
  return names;
}

/* ---- opening ---- */

struct golden_file *golden_open(const char *name) {
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* one sentence of ours instead of the library's stack */
  struct golden_file *file = allocate(sizeof *file);
  memset(file, 0, sizeof *file);
  snprintf(file->name, sizeof file->name, "%s", name);
  find_file(name, file->path);
  file->id = H5Fopen(file->path, H5F_ACC_RDONLY, H5P_DEFAULT);
  if (file->id < 0)
    die("%s is not a readable HDF5 file", file->path);
  file->cases = list_links(file->id, true);
  if (file->cases.count == 0)
    die("%s holds no case (no group at its root)", file->path);
  return file;
}

void golden_close(struct golden_file **file) {
  if (*file == NULL)
    return;
  golden_free_names(&(*file)->cases);
  H5Fclose((*file)->id);
  free(*file);
  *file = NULL;
}

int golden_case_count(const struct golden_file *file) {
  return file->cases.count;
}

const char *golden_case_name(const struct golden_file *file, int index) {
  if (index < 0 || index >= file->cases.count)
    die("%s has %d cases, no number %d", file->name, file->cases.count, index);
  return file->cases.name[index];
}

/* ---- objects below a case ---- */

/* "case" or "case/path" into `full`. */
static void join(const struct golden_file *file, const char *name, const char *path, char *full) {
  int length = snprintf(full, PATH_BYTES, path[0] ? "%s/%s" : "%s", name, path);
  if (length >= PATH_BYTES)
    die("%s: the path of %s is too long", file->name, name);
}

/* HDF5 wants every step of a path to exist before it answers for the last one. */
static bool exists(hid_t parent, const char *full) {
  char step[PATH_BYTES];
  snprintf(step, sizeof step, "%s", full);
  for (char *slash = strchr(step, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    if (H5Lexists(parent, step, H5P_DEFAULT) <= 0)
      return false;
    *slash = '/';
  }
  return H5Lexists(parent, full, H5P_DEFAULT) > 0;
}

static hid_t open_object(const struct golden_file *file, const char *name, const char *path) {
  char full[PATH_BYTES];
  join(file, name, path, full);
  hid_t object = exists(file->id, full) ? H5Oopen(file->id, full, H5P_DEFAULT) : -1;
  if (object < 0)
    die("%s has no %s", file->path, full);
  return object;
}

static hid_t open_dataset(const struct golden_file *file, const char *name, const char *path) {
  hid_t object = open_object(file, name, path);
  if (H5Iget_type(object) != H5I_DATASET)
    die("%s: %s/%s is not a dataset", file->path, name, path);
  return object;
}

bool golden_has(const struct golden_file *file, const char *name, const char *path) {
  char full[PATH_BYTES];
  join(file, name, path, full);
  return exists(file->id, full);
}

struct golden_names golden_members(const struct golden_file *file, const char *name, const char *path) {
  hid_t group = open_object(file, name, path);
  if (H5Iget_type(group) != H5I_GROUP)
    die("%s: %s/%s is not a group", file->path, name, path);
  struct golden_names names = list_links(group, false);
  H5Oclose(group);
  return names;
}

/* ---- datasets ---- */

static struct golden_array allocate_array(hid_t space, const char *what) {
  hsize_t shape[H5S_MAX_RANK] = {0};
  struct golden_array array = {.rank = H5Sget_simple_extent_ndims(space), .count = 1};
  if (array.rank < 0 || array.rank > GOLDEN_MAX_RANK)
    die("%s has %d dimensions, more than %d", what, array.rank, GOLDEN_MAX_RANK);
  H5Sget_simple_extent_dims(space, shape, NULL);
  for (int i = 0; i < GOLDEN_MAX_RANK; i++) {
    array.shape[i] = i < array.rank ? (int64_t)shape[i] : 1;
    array.count *= array.shape[i];
  }
  array.data = allocate((size_t)array.count * sizeof *array.data);
  return array;
}

static bool holds_float32(hid_t type) {
  return H5Tget_class(type) == H5T_FLOAT && H5Tget_size(type) == 4;
}

struct golden_array golden_read(const struct golden_file *file, const char *name, const char *path) {
  hid_t dataset = open_dataset(file, name, path), space = H5Dget_space(dataset), type = H5Dget_type(dataset);
  struct golden_array array = allocate_array(space, path);
  array.float32 = holds_float32(type);
  if (H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, array.data) < 0)
    die("%s: %s/%s cannot be read as numbers", file->path, name, path);
  H5Tclose(type);
  H5Sclose(space);
  H5Oclose(dataset);
  return array;
}

double golden_scalar(const struct golden_file *file, const char *name, const char *path) {
  struct golden_array array = golden_read(file, name, path);
  if (array.count != 1)
    die("%s: %s/%s has %lld elements, expected one", file->path, name, path, (long long)array.count);
  double value = array.data[0];
  golden_free(&array);
  return value;
}

struct golden_names golden_read_names(const struct golden_file *file, const char *name, const char *path) {
  hid_t dataset = open_dataset(file, name, path), space = H5Dget_space(dataset), type = H5Dget_type(dataset);
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) > 0)
    die("%s: %s/%s does not hold fixed-length texts", file->path, name, path);
  size_t width = H5Tget_size(type), count = (size_t)H5Sget_simple_extent_npoints(space);
  char *text = allocate(width * count);
  if (H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) < 0)
    die("%s: %s/%s cannot be read", file->path, name, path);
  struct golden_names names = {.count = (int)count, .name = allocate(count * sizeof *names.name)};
  for (size_t i = 0; i < count; i++) {
    names.name[i] = allocate(width + 1);
    memcpy(names.name[i], text + i * width, width);
    names.name[i][width] = '\0';
  }
  free(text);
  H5Tclose(type);
  H5Sclose(space);
  H5Oclose(dataset);
  return names;
}

void golden_free(struct golden_array *array) {
  free(array->data);
  *array = (struct golden_array){0};
}

void golden_free_names(struct golden_names *names) {
  for (int i = 0; i < names->count; i++)
    free(names->name[i]);
  free(names->name);
  *names = (struct golden_names){0};
}

/* ---- attributes ---- */

/* The attribute, or -1 if the object has none of that name. */
static hid_t open_attribute(const struct golden_file *file, const char *name, const char *attribute) {
  char path[PATH_BYTES];
  snprintf(path, sizeof path, "%s", attribute);
  char *slash = strrchr(path, '/');
  const char *last = slash ? slash + 1 : attribute;
  if (slash != NULL)
    *slash = '\0';
  hid_t object = open_object(file, name, slash ? path : "");
  hid_t id = H5Aexists(object, last) > 0 ? H5Aopen(object, last, H5P_DEFAULT) : -1;
  H5Oclose(object);
  return id;
}

bool golden_has_attribute(const struct golden_file *file, const char *name, const char *attribute) {
  hid_t id = open_attribute(file, name, attribute);
  if (id >= 0)
    H5Aclose(id);
  return id >= 0;
}

struct golden_array golden_numbers(const struct golden_file *file, const char *name, const char *attribute) {
  hid_t id = open_attribute(file, name, attribute);
  if (id < 0)
    die("%s: %s has no attribute %s", file->path, name, attribute);
  hid_t space = H5Aget_space(id), type = H5Aget_type(id);
  struct golden_array array = allocate_array(space, attribute);
  array.float32 = holds_float32(type);
  if (H5Tget_class(type) == H5T_STRING || H5Aread(id, H5T_NATIVE_DOUBLE, array.data) < 0)
    die("%s: attribute %s of %s is not a number", file->path, attribute, name);
  H5Tclose(type);
  H5Sclose(space);
  H5Aclose(id);
  return array;
}

double golden_number(const struct golden_file *file, const char *name, const char *attribute, double absent) {
  if (!golden_has_attribute(file, name, attribute))
    return absent;
  struct golden_array array = golden_numbers(file, name, attribute);
  if (array.count != 1)
    die("%s: attribute %s of %s has %lld values, expected one", file->path, attribute, name, (long long)array.count);
  double value = array.data[0];
  golden_free(&array);
  return value;
}

/* Fixed-length or variable-length, as a new string. */
static char *read_text(hid_t id, hid_t type) {
  if (H5Tis_variable_str(type) > 0) {
    char *text = NULL;
    if (H5Aread(id, type, &text) < 0 || text == NULL)
      return NULL;
    char *copy = strdup(text);
    H5free_memory(text);
    return copy;
  }
  size_t width = H5Tget_size(type);
  char *text = allocate(width + 1);
  text[width] = '\0';
  if (H5Aread(id, type, text) >= 0)
    return text;
  free(text);
  return NULL;
}

const char *golden_text(const struct golden_file *file, const char *name, const char *attribute, const char *absent,
                        char *buffer, size_t bytes) {
  hid_t id = open_attribute(file, name, attribute);
  if (id < 0) {
    snprintf(buffer, bytes, "%s", absent);
    return buffer;
  }
  hid_t type = H5Aget_type(id);
  char *text = H5Tget_class(type) == H5T_STRING ? read_text(id, type) : NULL;
  if (text == NULL)
    die("%s: attribute %s of %s is not a text", file->path, attribute, name);
  if (strlen(text) >= bytes)
    die("%s: attribute %s of %s does not fit into %zu bytes: %s", file->path, attribute, name, bytes, text);
  snprintf(buffer, bytes, "%s", strcmp(text, "-") == 0 ? "" : text);
  free(text);
  H5Tclose(type);
  H5Aclose(id);
  return buffer;
}

/* ---- comparing ---- */

static double element(enum dtype dtype, const void *data, int64_t i) {
  return dtype == F32 ? (double)((const float *)data)[i] : ((const double *)data)[i];
}

/* |got - expected| with equal non-finite values at distance 0 and unequal ones infinitely far apart. */
static double distance(double got, double expected) {
  if (isfinite(got) && isfinite(expected))
    return fabs(got - expected);
  bool same = isnan(got) ? isnan(expected) : got == expected;
  return same ? 0 : INFINITY;
}

void *golden_buffer(const struct golden_array *array, enum dtype dtype) {
  void *buffer = allocate((size_t)array->count * dtype_size(dtype));
  for (int64_t i = 0; i < array->count; i++) {
    if (dtype == F32)
      ((float *)buffer)[i] = (float)array->data[i];
    else
      ((double *)buffer)[i] = array->data[i];
  }
  return buffer;
}

double golden_scalar_error(double got, double expected) {
  double difference = distance(got, expected);
  if (isinf(difference))
    return difference;
  return difference <= 1e-12 ? 0 : difference / fabs(expected);
}

double golden_array_error(enum dtype dtype, int64_t count, const void *got, const double *expected) {
  double difference = 0, largest = 0;
  for (int64_t i = 0; i < count; i++) {
    difference = fmax(difference, distance(element(dtype, got, i), expected[i]));
    if (isfinite(expected[i]))
      largest = fmax(largest, fabs(expected[i]));
  }
  return largest > 0 ? difference / largest : difference;
}

/* ---- counting ---- */

void golden_ran(struct golden_file *file) {
  file->ran++;
}

void golden_skip(struct golden_file *file, const char *reason) {
  file->skipped++;
  for (int i = 0; i < file->reasons; i++)
    if (strcmp(file->reason[i].text, reason) == 0) {
      file->reason[i].count++;
      return;
    }
  if (file->reasons == MAX_REASONS)
    die("%s: more than %d different reasons for skipping", file->name, MAX_REASONS);
  struct reason *added = &file->reason[file->reasons++];
  snprintf(added->text, sizeof added->text, "%s", reason);
  added->count = 1;
}

void golden_report(const struct golden_file *file) {
  if (file->ran + file->skipped != file->cases.count)
    die("%s: %d cases, but %d were counted as run and %d as skipped", file->name, file->cases.count, file->ran,
        file->skipped);
  printf("golden %s: %d cases run, %d skipped (", file->name, file->ran, file->skipped);
  for (int i = 0; i < file->reasons; i++)
    printf("%s%d: %s", i > 0 ? "; " : "", file->reason[i].count, file->reason[i].text);
  printf(file->reasons ? ")\n" : "none)\n");
  fflush(stdout);
}
