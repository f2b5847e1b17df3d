/* Attributes of the root group, and lists of texts. */
#include "dist/memory.h"
#include "dist/pulse.h"
#include "io/h5_internal.h"

#include <string.h>

/* A fixed-length, NUL-terminated UTF-8 string type. */
static hid_t text_type(size_t bytes) {
  hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, bytes > 0 ? bytes : 1);
  H5Tset_strpad(type, H5T_STR_NULLTERM);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

/* Takes `type` and `space` over. */
static enum status write_attribute(struct h5_file *file, const char *name, hid_t type, hid_t space, const void *data) {
  enum status status = h5_writable(file);
  if (status == STATUS_OK) {
    hid_t attribute = H5Acreate2(file->id, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool written = attribute >= 0 && H5Awrite(attribute, type, data) >= 0;
    if (attribute >= 0)
      H5Aclose(attribute);
    status = h5_writable(file);
    if (status == STATUS_OK && !written)
      status = fail(ERR_ARGUMENT, "cannot write attribute \"%s\" of %s: is it there already?", name, file->path);
  }
  H5Sclose(space);
  H5Tclose(type);
  return status;
}

enum status h5_write_text(struct h5_file *file, const char *name, const char *text) {
  return write_attribute(file, name, text_type(strlen(text) + 1), H5Screate(H5S_SCALAR), text);
}

enum status h5_write_integer(struct h5_file *file, const char *name, int64_t value) {
  return write_attribute(file, name, H5Tcopy(H5T_NATIVE_INT64), H5Screate(H5S_SCALAR), &value);
}

enum status h5_write_real(struct h5_file *file, const char *name, double value) {
  return write_attribute(file, name, H5Tcopy(H5T_NATIVE_DOUBLE), H5Screate(H5S_SCALAR), &value);
}

enum status h5_write_texts(struct h5_file *file, const char *name, const char *const *texts, size_t count) {
  size_t widest = 1;
  for (size_t i = 0; i < count; i++)
    widest = strlen(texts[i]) + 1 > widest ? strlen(texts[i]) + 1 : widest;
  char *block = NULL;
  TRY(memory_alloc_zero(widest * count, (void **)&block));
  for (size_t i = 0; i < count; i++)
    memcpy(block + i * widest, texts[i], strlen(texts[i]));
  hsize_t extent = count;
  enum status status = write_attribute(file, name, text_type(widest), H5Screate_simple(1, &extent, NULL), block);
  memory_free((void **)&block);
  return status;
}

/* Texts a block of rows at a time: all of them at the width of the longest may be more than memory holds. */
#define TEXT_ROWS 4096

/* Rows first .. first + rows - 1 of a string dataset; block [TEXT_ROWS, width]. */
static bool write_text_rows(hid_t dataset, hid_t type, hid_t space, const char *const *texts, hsize_t first,
                            hsize_t rows, size_t width, char *block) {
  memset(block, 0, TEXT_ROWS * width);
  for (hsize_t i = 0; i < rows; i++)
    memcpy(block + i * width, texts[first + i], strlen(texts[first + i]));
  hid_t memory = H5Screate_simple(1, &rows, NULL);
  H5Sselect_hyperslab(space, H5S_SELECT_SET, &first, NULL, &rows, NULL);
  bool written = H5Dwrite(dataset, type, memory, space, H5P_DEFAULT, block) >= 0;
  H5Sclose(memory);
  return written;
}

enum status h5_write_text_dataset(struct h5_file *file, const char *name, const char *const *texts, size_t count) {
  size_t width = 1;
  for (size_t i = 0; i < count; i++)
    width = strlen(texts[i]) + 1 > width ? strlen(texts[i]) + 1 : width;
  char *block = NULL;
  TRY(h5_writable(file));
  TRY(memory_alloc(TEXT_ROWS * width, (void **)&block));
  hsize_t extent = count;
  hid_t type = text_type(width), space = H5Screate_simple(1, &extent, NULL), creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_obj_track_times(creation, false); /* equal content, equal bytes */
  hid_t dataset = H5Dcreate2(file->id, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  bool written = dataset >= 0;
  for (size_t first = 0; written && first < count; first += TEXT_ROWS)
    written = write_text_rows(dataset, type, space, texts, first, count - first < TEXT_ROWS ? count - first : TEXT_ROWS,
                              width, block);
  if (dataset >= 0)
    H5Dclose(dataset);
  H5Pclose(creation);
  H5Sclose(space);
  H5Tclose(type);
  memory_free((void **)&block);
  TRY(h5_writable(file));
  REQUIRE(written, ERR_FILE, "cannot write \"%s\" in %s: HDF5 refuses", name, file->path);
  return STATUS_OK;
}

/* An attribute or string dataset being read; `is_dataset` chooses the call. */
struct source {
  hid_t id, type, space;
  bool is_dataset;
};

static void source_close(struct source *source) {
  if (source->space >= 0)
    H5Sclose(source->space);
  if (source->type >= 0)
    H5Tclose(source->type);
  if (source->id >= 0)
    source->is_dataset ? H5Dclose(source->id) : H5Aclose(source->id);
}

/* Open the attribute; *found is false when there is none. */
static enum status source_open(struct h5_file *file, const char *name, bool or_dataset, struct source *out,
                               bool *found) {
  *out = (struct source){H5I_INVALID_HID, H5I_INVALID_HID, H5I_INVALID_HID, false};
  *found = false;
  pulse_storage_asked();
  htri_t exists = H5Aexists(file->id, name);
  pulse_storage_answered();
  REQUIRE(exists >= 0, ERR_FORMAT, "%s is damaged: its attributes cannot be read", file->path);
  out->is_dataset = exists == 0;
  if (exists == 0 && !(or_dataset && h5_exists(file, name)))
    return STATUS_OK;
  pulse_storage_asked();
  out->id = out->is_dataset ? H5Dopen2(file->id, name, H5P_DEFAULT) : H5Aopen(file->id, name, H5P_DEFAULT);
  pulse_storage_answered();
  if (out->id >= 0) {
    out->type = out->is_dataset ? H5Dget_type(out->id) : H5Aget_type(out->id);
    out->space = out->is_dataset ? H5Dget_space(out->id) : H5Aget_space(out->id);
  }
  if (out->id < 0 || out->type < 0 || out->space < 0) {
    source_close(out);
    return fail(ERR_FORMAT, "attribute \"%s\" of %s is damaged", name, file->path);
  }
  *found = true;
  return STATUS_OK;
}

static herr_t source_read(const struct source *source, hid_t type, void *out) {
  return source->is_dataset ? H5Dread(source->id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out)
                            : H5Aread(source->id, type, out);
}

/* Read one number as `type` if the attribute is of `content`. */
static enum status read_number(struct h5_file *file, const char *name, enum array_type type, enum h5_content content,
                               void *out, bool *found) {
  struct source source;
  TRY(source_open(file, name, false, &source, found));
  if (!*found)
    return STATUS_OK;
  enum status status = STATUS_OK;
  *found = h5_content_of(source.type) == content && H5Sget_simple_extent_npoints(source.space) == 1;
  if (*found && source_read(&source, h5_memory_type(type), out) < 0)
    status = fail(ERR_FORMAT, "attribute \"%s\" of %s is damaged", name, file->path);
  source_close(&source);
  return status;
}

enum status h5_read_integer(struct h5_file *file, const char *name, int64_t *out, bool *found) {
  return read_number(file, name, ARRAY_I64, H5_INTEGERS, out, found);
}

enum status h5_read_real(struct h5_file *file, const char *name, double *out, bool *found) {
  return read_number(file, name, ARRAY_F64, H5_FLOATS, out, found);
}

/* Copy `count` strings, the i-th at most `limit` bytes, into one block: the pointers, then the characters. */
static enum status pack_texts(const char *const *strings, size_t count, size_t limit, struct h5_texts *out) {
  size_t bytes = count * sizeof(char *);
  for (size_t i = 0; i < count; i++)
    bytes += strnlen(strings[i], limit) + 1;
  TRY(memory_alloc(bytes, (void **)&out->text));
  char *next = (char *)(out->text + count);
  for (size_t i = 0; i < count; i++) {
    size_t length = strnlen(strings[i], limit);
    memcpy(next, strings[i], length);
    next[length] = '\0';
    out->text[i] = next;
    next += length + 1;
  }
  out->count = count;
  return STATUS_OK;
}

/* Variable-length strings: HDF5 allocates each one and takes it back. */
static enum status read_variable(const struct source *source, size_t count, struct h5_texts *out) {
  char **strings = NULL;
  const char **present = NULL; /* an empty string may come as NULL */
  enum status status;
  TRY_GOTO(memory_alloc_zero(count * sizeof *strings, (void **)&strings), out);
  TRY_GOTO(memory_alloc(count * sizeof *present, (void **)&present), out);
  if (source_read(source, source->type, strings) < 0) {
    status = ERR_FORMAT;
    goto out;
  }
  for (size_t i = 0; i < count; i++)
    present[i] = strings[i] != NULL ? strings[i] : "";
  status = pack_texts(present, count, SIZE_MAX, out);
  H5Dvlen_reclaim(source->type, source->space, H5P_DEFAULT, strings);
out:
  memory_free((void **)&present);
  memory_free((void **)&strings);
  return status;
}

static enum status read_fixed(const struct source *source, size_t count, struct h5_texts *out) {
  size_t width = H5Tget_size(source->type);
  char *block = NULL;
  const char **strings = NULL;
  enum status status;
  TRY_GOTO(memory_alloc_zero(width * count + 1, (void **)&block), out);
  TRY_GOTO(memory_alloc(count * sizeof *strings, (void **)&strings), out);
  if (source_read(source, source->type, block) < 0) {
    status = ERR_FORMAT;
    goto out;
  }
  for (size_t i = 0; i < count; i++)
    strings[i] = block + i * width;
  status = pack_texts(strings, count, width, out);
out:
  memory_free((void **)&strings);
  memory_free((void **)&block);
  return status;
}

/* Texts of an attribute (or dataset), a single one included; count 0 when there is none or it is no text. */
static enum status read_texts(struct h5_file *file, const char *name, bool or_dataset, struct h5_texts *out) {
  struct source source;
  bool found;
  *out = (struct h5_texts){0};
  TRY(source_open(file, name, or_dataset, &source, &found));
  if (!found)
    return STATUS_OK;
  enum status status = STATUS_OK;
  hssize_t count = H5Sget_simple_extent_npoints(source.space);
  /* 2^24 names of a kilobyte: more is damage. */
  bool believable = count >= 0 && count <= 1 << 24 && H5Tget_size(source.type) <= (size_t)1 << 30 &&
                    (double)count * (double)H5Tget_size(source.type) <= 0x1p34;
  if (!believable)
    status = ERR_FORMAT;
  else if (h5_content_of(source.type) == H5_TEXT && count > 0)
    status = H5Tis_variable_str(source.type) > 0 ? read_variable(&source, (size_t)count, out)
                                                 : read_fixed(&source, (size_t)count, out);
  source_close(&source);
  if (status == ERR_FORMAT)
    return fail(ERR_FORMAT, "attribute \"%s\" of %s is damaged", name, file->path);
  return status;
}

enum status h5_read_texts(struct h5_file *file, const char *name, struct h5_texts *out) {
  return read_texts(file, name, true, out);
}

enum status h5_read_text(struct h5_file *file, const char *name, char **out, bool *found) {
  struct h5_texts texts;
  TRY(read_texts(file, name, false, &texts));
  *found = texts.count == 1;
  enum status status = STATUS_OK;
  if (*found) {
    status = memory_alloc(strlen(texts.text[0]) + 1, (void **)out);
    if (status == STATUS_OK)
      strcpy(*out, texts.text[0]);
  }
  memory_free((void **)&texts.text);
  return status;
}

struct attribute_visit {
  enum status (*function)(void *context, const char *name, enum h5_content content);
  void *context;
  enum status status;
};

static herr_t visit_attribute(hid_t group, const char *name, const H5A_info_t *info, void *data) {
  (void)info;
  struct attribute_visit *visit = data;
  hid_t attribute = H5Aopen(group, name, H5P_DEFAULT);
  hid_t type = attribute < 0 ? H5I_INVALID_HID : H5Aget_type(attribute);
  if (type < 0)
    return -1;
  hid_t space = H5Aget_space(attribute);
  enum h5_content content = H5Sget_simple_extent_npoints(space) == 1 ? h5_content_of(type) : H5_OTHER;
  H5Sclose(space);
  H5Tclose(type);
  H5Aclose(attribute);
  visit->status = visit->function(visit->context, name, content);
  return visit->status == STATUS_OK ? 0 : 1;
}

enum status h5_each_attribute(struct h5_file *file,
                              enum status (*visit)(void *context, const char *name, enum h5_content content),
                              void *context) {
  struct attribute_visit state = {.function = visit, .context = context};
  hsize_t start = 0;
  herr_t visited = H5Aiterate2(file->id, H5_INDEX_NAME, H5_ITER_INC, &start, visit_attribute, &state);
  TRY(state.status);
  REQUIRE(visited >= 0, ERR_FORMAT, "%s is damaged: its attributes cannot be read", file->path);
  return STATUS_OK;
}
