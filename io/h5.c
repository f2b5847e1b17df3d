/* HDF5 calls with a status: files and datasets.  Attributes are in h5_attribute.c. */
#include "io/h5.h"

#include "dist/memory.h"
#include "dist/pulse.h"
#include "io/h5_internal.h"
#include "io/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* deflate, the strongest of the usual filters, cannot shrink data by more than this. */
#define MOST_COMPRESSION 1032

/* Below this a claim larger than what is stored is harmless (and may be an unwritten, all-zero dataset). */
#define HARMLESS_BYTES ((double)(64 << 20))

static enum status file_alloc(const char *path, struct h5_file **out) {
  struct h5_file *file = NULL;
  TRY(memory_alloc_zero(sizeof *file + strlen(path) + 1, (void **)&file));
  memcpy(file->path, path, strlen(path) + 1);
  file->id = H5I_INVALID_HID;
  file->sink.file = -1;
  *out = file;
  /* HDF5 prints its error stack unless told not to; the sentences are ours. */
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  return STATUS_OK;
}

/* What can be said before HDF5 is asked. */
static enum status check_readable(const char *path) {
  struct stat entry;
  REQUIRE(stat(path, &entry) == 0, ERR_FILE, "cannot open %s: %s; check the path", path, strerror(errno));
  REQUIRE(!S_ISDIR(entry.st_mode), ERR_FILE, "cannot open %s: it is a directory; give an HDF5 file", path);
  REQUIRE(S_ISREG(entry.st_mode), ERR_FILE, "cannot open %s: it is not a regular file", path);
  REQUIRE(entry.st_size > 0, ERR_FORMAT, "%s is empty (0 bytes); it was never written to the end, make it again", path);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  REQUIRE(file >= 0, ERR_FILE, "cannot open %s: %s", path, strerror(errno));
  bool locked = flock(file, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  close(file);
  REQUIRE(!locked, ERR_FILE, "cannot open %s: another program is writing it; wait until it has closed the file", path);
  return STATUS_OK;
}

enum status h5_open(const char *path, struct h5_file **out) {
  *out = NULL;
  struct h5_file *file;
  pulse_storage_asked();
  enum status status = check_readable(path);
  pulse_storage_answered();
  TRY(status);
  TRY(file_alloc(path, &file));
  hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(access, true, true); /* some cluster file systems have no locks */
#endif
  pulse_storage_asked();
  file->id = H5Fopen(path, H5F_ACC_RDONLY, access);
  pulse_storage_answered();
  H5Pclose(access);
  if (file->id < 0) {
    memory_free((void **)&file);
    return fail(ERR_FORMAT, "%s is not an HDF5 file, or it is damaged or cut short; make it again", path);
  }
  *out = file;
  return STATUS_OK;
}

enum status h5_create(const struct durable *durable, struct h5_file **out) {
  *out = NULL;
  struct h5_file *file;
  enum status status;
  TRY(file_alloc(durable->path, &file));
  hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  file->writing = true;
  file->sink.file = storage_open(durable->temporary, O_RDWR | O_TRUNC);
  REQUIRE_GOTO(file->sink.file >= 0, out, ERR_FILE, "cannot write %s: %s", durable->path, strerror(errno));
  TRY_GOTO(h5_sink_select(access, &file->sink), out);
  /* The 1.8 format guards its structures with checksums and allows attributes beyond 64 KiB. */
  H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18);
  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
  hid_t creation = H5Pcreate(H5P_FILE_CREATE);
  H5Pset_obj_track_times(creation, false); /* of the root group: equal content, equal bytes */
  file->id = H5Fcreate(durable->temporary, H5F_ACC_TRUNC, creation, access);
  H5Pclose(creation);
  REQUIRE_GOTO(file->id >= 0, out, ERR_FILE, "cannot write %s: HDF5 refuses to create it", durable->path);
  *out = file;
  file = NULL;
out:
  H5Pclose(access);
  if (file != NULL && file->sink.file >= 0)
    close(file->sink.file);
  memory_free((void **)&file);
  return status;
}

enum status h5_writable(const struct h5_file *file) {
  REQUIRE(file->writing, ERR_BUG, "%s was opened for reading", file->path);
  if (file->sink.error != 0)
    return durable_write_failed(file->path, file->sink.error);
  return STATUS_OK;
}

enum status h5_close(struct h5_file **file_pointer) {
  struct h5_file *file = *file_pointer;
  if (file == NULL)
    return STATUS_OK;
  enum status status = STATUS_OK;
  bool closed = H5Fclose(file->id) >= 0;
  if (file->writing) {
    status = h5_writable(file);
    if (status == STATUS_OK && !closed)
      status = fail(ERR_FILE, "cannot write %s: HDF5 could not close it", file->path);
    close(file->sink.file);
  }
  memory_free((void **)file_pointer);
  return status;
}

const char *h5_path(const struct h5_file *file) {
  return file->path;
}

bool h5_exists(const struct h5_file *file, const char *name) {
  /* H5Lexists wants every group on the way to exist. */
  char part[ARRAY_NAME_BYTES];
  size_t length = strlen(name);
  if (length >= sizeof part)
    return false;
  for (size_t i = 1; i <= length; i++) {
    if (name[i] != '/' && name[i] != '\0')
      continue;
    memcpy(part, name, i);
    part[i] = '\0';
    pulse_storage_asked();
    htri_t found = H5Lexists(file->id, part, H5P_DEFAULT);
    pulse_storage_answered();
    if (found <= 0)
      return false;
  }
  return length > 0;
}

enum h5_content h5_content_of(hid_t type) {
  switch (H5Tget_class(type)) {
  case H5T_INTEGER:
  case H5T_ENUM: /* h5py's booleans */
    return H5_INTEGERS;
  case H5T_FLOAT:
    return H5_FLOATS;
  case H5T_STRING:
    return H5_TEXT;
  default:
    return H5_OTHER;
  }
}

hid_t h5_memory_type(enum array_type type) {
  switch (type) {
  case ARRAY_U8:
    return H5T_NATIVE_UINT8;
  case ARRAY_I32:
    return H5T_NATIVE_INT32;
  case ARRAY_I64:
    return H5T_NATIVE_INT64;
  case ARRAY_F32:
    return H5T_NATIVE_FLOAT;
  case ARRAY_F64:
    return H5T_NATIVE_DOUBLE;
  }
  return H5I_INVALID_HID;
}

static enum array_type nearest_type(hid_t type) {
  size_t bytes = H5Tget_size(type);
  if (H5Tget_class(type) == H5T_FLOAT)
    return bytes <= 4 ? ARRAY_F32 : ARRAY_F64;
  bool is_signed = H5Tget_class(type) == H5T_ENUM || H5Tget_sign(type) != H5T_SGN_NONE;
  if (bytes == 1 && !is_signed)
    return ARRAY_U8;
  return bytes < 4 || (bytes == 4 && is_signed) ? ARRAY_I32 : ARRAY_I64;
}

static enum status read_shape(struct h5_dataset *dataset) {
  hsize_t extents[H5S_MAX_RANK] = {0};
  hid_t space = H5Dget_space(dataset->id);
  int rank = space < 0 || H5Sis_simple(space) <= 0 ? -1 : H5Sget_simple_extent_ndims(space);
  if (rank >= 0 && H5Sget_simple_extent_type(space) != H5S_NULL)
    H5Sget_simple_extent_dims(space, extents, NULL);
  if (space >= 0)
    H5Sclose(space);
  REQUIRE(rank >= 0, ERR_FORMAT, "\"%s\" in %s is damaged: its shape cannot be read", dataset->name,
          dataset->file->path);
  REQUIRE(rank <= ARRAY_MOST_DIMENSIONS, ERR_FORMAT, "\"%s\" in %s has %d dimensions; at most %d are understood",
          dataset->name, dataset->file->path, rank, ARRAY_MOST_DIMENSIONS);
  dataset->rank = rank;
  for (int i = 0; i < rank; i++)
    dataset->shape[i] = extents[i] > INT64_MAX ? INT64_MAX : (int64_t)extents[i];
  struct array probe; /* an array of this shape must be possible at all */
  REQUIRE(array_borrow("x", ARRAY_F64, rank, dataset->shape, NULL, &probe) == STATUS_OK, ERR_FORMAT,
          "\"%s\" in %s claims an absurd shape; the file is damaged", dataset->name, dataset->file->path);
  return STATUS_OK;
}

static enum status check_filters(const struct h5_dataset *dataset, hid_t creation) {
  int filters = H5Pget_nfilters(creation);
  for (int i = 0; i < filters; i++) {
    unsigned flags, configuration;
    size_t values = 0;
    char name[64] = "";
    H5Z_filter_t filter =
        H5Pget_filter2(creation, (unsigned)i, &flags, &values, NULL, sizeof name, name, &configuration);
    REQUIRE(filter >= 0 && H5Zfilter_avail(filter) > 0, ERR_FORMAT,
            "\"%s\" in %s is compressed with filter %d%s%s, which this HDF5 library lacks; store it with gzip or plain",
            dataset->name, dataset->file->path, (int)filter, name[0] ? " " : "", name);
  }
  return STATUS_OK;
}

/* A damaged extent may ask for terabytes, or for more than lies in the file: compare it with the bytes there. */
static enum status check_stored(const struct h5_dataset *dataset, hid_t type, hid_t creation) {
  H5D_layout_t layout = H5Pget_layout(creation);
  bool is_external = layout == H5D_CONTIGUOUS && H5Pget_external_count(creation) > 0;
  if (is_external || layout == H5D_VIRTUAL)
    return STATUS_OK;
  int64_t count = 1;
  for (int i = 0; i < dataset->rank; i++)
    count *= dataset->shape[i];
  double claimed = (double)count * (double)H5Tget_size(type);
  double stored = (double)H5Dget_storage_size(dataset->id);
  /* Chunks, and whole datasets, that were never written are not stored and read as zeros. */
  bool may_be_unwritten = layout == H5D_CHUNKED || (layout == H5D_CONTIGUOUS && stored == 0);
  bool believable =
      may_be_unwritten ? claimed <= stored * MOST_COMPRESSION || claimed <= HARMLESS_BYTES : claimed == stored;
  REQUIRE(believable, ERR_FORMAT, "\"%s\" in %s claims %.0f bytes but stores %.0f; it is damaged or was never filled",
          dataset->name, dataset->file->path, claimed, stored);
  return STATUS_OK;
}

/* A chunk may not exceed a fixed extent; HDF5 checks that when it writes, and reads past its memory otherwise. */
static enum status check_chunks(const struct h5_dataset *dataset, hid_t creation) {
  hsize_t chunk[H5S_MAX_RANK], extents[H5S_MAX_RANK], most[H5S_MAX_RANK];
  if (H5Pget_layout(creation) != H5D_CHUNKED)
    return STATUS_OK;
  int rank = H5Pget_chunk(creation, H5S_MAX_RANK, chunk);
  hid_t space = H5Dget_space(dataset->id);
  bool sound = rank == dataset->rank && H5Sget_simple_extent_dims(space, extents, most) == rank;
  H5Sclose(space);
  for (int i = 0; sound && i < rank; i++)
    sound = chunk[i] > 0 && (most[i] == H5S_UNLIMITED || chunk[i] <= most[i]);
  REQUIRE(sound, ERR_FORMAT, "\"%s\" in %s is damaged: its chunks do not fit its shape", dataset->name,
          dataset->file->path);
  return STATUS_OK;
}

static enum status inspect(struct h5_dataset *dataset) {
  enum status status;
  hid_t type = H5Dget_type(dataset->id);
  hid_t creation = H5Dget_create_plist(dataset->id);
  REQUIRE_GOTO(type >= 0 && creation >= 0, out, ERR_FORMAT, "\"%s\" in %s is damaged: its type cannot be read",
               dataset->name, dataset->file->path);
  dataset->content = h5_content_of(type);
  dataset->nearest = nearest_type(type);
  size_t bytes = H5Tget_size(type);
  bool is_number = dataset->content == H5_INTEGERS || dataset->content == H5_FLOATS;
  /* Any other size is a wrong bit, and HDF5 would read past its memory. */
  REQUIRE_GOTO(!is_number || (bytes > 0 && bytes <= 16 && (bytes & (bytes - 1)) == 0), out, ERR_FORMAT,
               "\"%s\" in %s is damaged: its numbers have %zu bytes", dataset->name, dataset->file->path, bytes);
  TRY_GOTO(read_shape(dataset), out);
  TRY_GOTO(check_filters(dataset, creation), out);
  TRY_GOTO(check_chunks(dataset, creation), out);
  TRY_GOTO(check_stored(dataset, type, creation), out);
out:
  if (creation >= 0)
    H5Pclose(creation);
  if (type >= 0)
    H5Tclose(type);
  return status;
}

/* A cache that holds one band of chunks, so that reading by rows decompresses each chunk once. */
static hid_t open_with_cache(const struct h5_file *file, const char *name) {
  hid_t dataset = H5Dopen2(file->id, name, H5P_DEFAULT);
  hid_t creation = dataset < 0 ? H5I_INVALID_HID : H5Dget_create_plist(dataset);
  hsize_t chunk[H5S_MAX_RANK], extents[H5S_MAX_RANK];
  if (creation < 0)
    return dataset;
  int rank = H5Pget_layout(creation) == H5D_CHUNKED ? H5Pget_chunk(creation, H5S_MAX_RANK, chunk) : 0;
  H5Pclose(creation);
  hid_t space = H5Dget_space(dataset), type = H5Dget_type(dataset);
  double bytes = 0;
  if (rank > 0 && space >= 0 && type >= 0 && H5Sget_simple_extent_dims(space, extents, NULL) == rank) {
    bytes = (double)H5Tget_size(type) * (double)chunk[0];
    for (int i = 1; i < rank; i++) { /* whole chunks along each further dimension */
      hsize_t covered = (extents[i] + chunk[i] - 1) / chunk[i] * chunk[i];
      bytes *= (double)covered;
    }
  }
  H5Tclose(type);
  H5Sclose(space);
  if (bytes <= 1 << 20 || bytes > 1 << 30) /* 1 MiB is HDF5's own default */
    return dataset;
  hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
  H5Pset_chunk_cache(access, 12421, (size_t)bytes, 1.0);
  H5Dclose(dataset);
  dataset = H5Dopen2(file->id, name, access);
  H5Pclose(access);
  return dataset;
}

enum status h5_dataset_open(struct h5_file *file, const char *name, struct h5_dataset *out) {
  memset(out, 0, sizeof *out);
  out->file = file;
  out->id = H5I_INVALID_HID;
  REQUIRE(strlen(name) < sizeof out->name, ERR_FORMAT, "%s holds a dataset with a name of %zu characters; at most %zu",
          file->path, strlen(name), sizeof out->name - 1);
  memcpy(out->name, name, strlen(name) + 1);
  REQUIRE(h5_exists(file, name), ERR_FORMAT, "%s has no dataset \"%s\"", file->path, name);
  pulse_storage_asked();
  out->id = open_with_cache(file, name);
  pulse_storage_answered();
  REQUIRE(out->id >= 0, ERR_FORMAT, "\"%s\" in %s is not a dataset, or is damaged, or in a format of a newer HDF5",
          name, file->path);
  return inspect(out);
}

void h5_dataset_close(struct h5_dataset *dataset) {
  if (dataset->id > 0)
    H5Dclose(dataset->id);
  dataset->id = H5I_INVALID_HID;
}

int64_t h5_dataset_row_count(const struct h5_dataset *dataset) {
  int64_t count = 1;
  for (int i = 1; i < dataset->rank; i++)
    count *= dataset->shape[i];
  return count;
}

/* The length of a chunk along a dimension, 1 where there are none. */
static int64_t chunk_length(const struct h5_dataset *dataset, int dimension) {
  hsize_t chunk[H5S_MAX_RANK] = {0};
  hid_t creation = H5Dget_create_plist(dataset->id);
  if (creation >= 0 && H5Pget_layout(creation) == H5D_CHUNKED)
    H5Pget_chunk(creation, H5S_MAX_RANK, chunk);
  if (creation >= 0)
    H5Pclose(creation);
  return chunk[dimension] > 0 ? (int64_t)chunk[dimension] : 1;
}

int64_t h5_dataset_block_rows(const struct h5_dataset *dataset, size_t bytes) {
  int64_t row_bytes = h5_dataset_row_count(dataset) * (int64_t)sizeof(double);
  int64_t rows = row_bytes > 0 ? (int64_t)bytes / row_bytes : 1, chunk = chunk_length(dataset, 0);
  rows = rows > 0 ? rows : 1;
  return rows > chunk ? rows - rows % chunk : rows;
}

/* Select rows of the file and describe the same block in memory. */
static void select_rows(const struct h5_dataset *dataset, int64_t first, int64_t rows, hid_t *file_space,
                        hid_t *memory_space) {
  hsize_t start[ARRAY_MOST_DIMENSIONS] = {(hsize_t)first}, count[ARRAY_MOST_DIMENSIONS] = {(hsize_t)rows};
  for (int i = 1; i < dataset->rank; i++)
    count[i] = (hsize_t)dataset->shape[i];
  *file_space = H5Dget_space(dataset->id);
  *memory_space = H5Screate_simple(dataset->rank, count, NULL);
  if (dataset->rank > 0)
    H5Sselect_hyperslab(*file_space, H5S_SELECT_SET, start, NULL, count, NULL);
}

/* Does the request lie inside, and is there anything to move? */
static enum status check_rows(const struct h5_dataset *dataset, int64_t first, int64_t rows, bool *nothing) {
  int64_t most = dataset->rank == 0 ? 1 : dataset->shape[0];
  REQUIRE(first >= 0 && rows >= 0 && first <= most - rows, ERR_BUG, "rows %lld to %lld of \"%s\" in %s do not exist",
          (long long)first, (long long)(first + rows - 1), dataset->name, dataset->file->path);
  *nothing = rows == 0 || h5_dataset_row_count(dataset) == 0;
  return STATUS_OK;
}

/* Rows of one request: a few megabytes, so that a slow disk is told from one that stalls, and whole chunks. */
static int64_t request_rows(const struct h5_dataset *dataset) {
  int64_t rows = h5_dataset_block_rows(dataset, STORAGE_PIECE), chunk = chunk_length(dataset, 0);
  return rows > chunk ? rows : chunk;
}

/* And how far it reaches along the second dimension: all of it, unless the rows of a chunk are more than a request. */
static int64_t request_columns(const struct h5_dataset *dataset, int64_t rows) {
  int64_t all = dataset->rank > 1 ? dataset->shape[1] : 1, chunk = chunk_length(dataset, 1);
  int64_t column_bytes = rows * (h5_dataset_row_count(dataset) / all) * (int64_t)sizeof(double);
  int64_t columns = (int64_t)STORAGE_PIECE / column_bytes / chunk * chunk;
  if (dataset->rank < 2 || columns >= all)
    return all;
  return columns > chunk ? columns : chunk;
}

/* Of the selected rows. */
static void select_columns(const struct h5_dataset *dataset, int64_t first, int64_t rows, int64_t column,
                           int64_t columns, hid_t file_space, hid_t memory_space) {
  hsize_t start[ARRAY_MOST_DIMENSIONS] = {0, (hsize_t)column};
  hsize_t count[ARRAY_MOST_DIMENSIONS] = {(hsize_t)rows, (hsize_t)columns};
  for (int i = 2; i < dataset->rank; i++)
    count[i] = (hsize_t)dataset->shape[i];
  H5Sselect_hyperslab(memory_space, H5S_SELECT_SET, start, NULL, count, NULL);
  start[0] = (hsize_t)first;
  H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, count, NULL);
}

static bool read_part(const struct h5_dataset *dataset, int64_t first, int64_t rows, int64_t column, int64_t columns,
                      enum array_type type, void *out) {
  hid_t file_space, memory_space;
  select_rows(dataset, first, rows, &file_space, &memory_space);
  if (dataset->rank > 1 && columns < dataset->shape[1])
    select_columns(dataset, first, rows, column, columns, file_space, memory_space);
  pulse_storage_asked();
  herr_t got = H5Dread(dataset->id, h5_memory_type(type), memory_space, file_space, H5P_DEFAULT, out);
  pulse_storage_answered();
  H5Sclose(memory_space);
  H5Sclose(file_space);
  return got >= 0;
}

enum status h5_dataset_read(const struct h5_dataset *dataset, int64_t first, int64_t rows, enum array_type type,
                            void *out) {
  bool nothing = true;
  TRY(check_rows(dataset, first, rows, &nothing));
  REQUIRE(dataset->content == H5_INTEGERS || dataset->content == H5_FLOATS, ERR_FORMAT,
          "\"%s\" in %s holds %s; it must hold numbers", dataset->name, dataset->file->path,
          dataset->content == H5_TEXT ? "text" : "records");
  if (nothing)
    return STATUS_OK;
  int64_t most = request_rows(dataset), row_bytes = h5_dataset_row_count(dataset) * (int64_t)array_type_bytes(type);
  int64_t all = dataset->rank > 1 ? dataset->shape[1] : 1, wide = request_columns(dataset, most < rows ? most : rows);
  bool read = true;
  for (int64_t done = 0; done < rows; done += most)
    for (int64_t column = 0; read && column < all; column += wide)
      read = read_part(dataset, first + done, rows - done < most ? rows - done : most, column,
                       all - column < wide ? all - column : wide, type, (char *)out + done * row_bytes);
  REQUIRE(read, ERR_FORMAT, "cannot read \"%s\" in %s: the file is damaged or cut short", dataset->name,
          dataset->file->path);
  return STATUS_OK;
}

bool h5_dataset_is_plain(const struct h5_dataset *dataset, int64_t *offset) {
  hid_t creation = H5Dget_create_plist(dataset->id), type = H5Dget_type(dataset->id);
  bool plain = creation >= 0 && type >= 0 && H5Pget_layout(creation) == H5D_CONTIGUOUS &&
               H5Pget_external_count(creation) == 0 &&
               (H5Tequal(type, H5T_NATIVE_FLOAT) > 0 || H5Tequal(type, H5T_NATIVE_DOUBLE) > 0);
  haddr_t address = plain ? H5Dget_offset(dataset->id) : HADDR_UNDEF;
  if (creation >= 0)
    H5Pclose(creation);
  if (type >= 0)
    H5Tclose(type);
  *offset = address == HADDR_UNDEF ? -1 : (int64_t)address;
  return address != HADDR_UNDEF;
}

int64_t h5_dataset_offset(const struct h5_dataset *dataset) {
  hid_t creation = H5Dget_create_plist(dataset->id);
  bool whole = creation >= 0 && H5Pget_layout(creation) == H5D_CONTIGUOUS && H5Pget_external_count(creation) == 0;
  if (creation >= 0)
    H5Pclose(creation);
  haddr_t address = whole ? H5Dget_offset(dataset->id) : HADDR_UNDEF;
  return address == HADDR_UNDEF ? -1 : (int64_t)address;
}

enum status h5_dataset_create(struct h5_file *file, const char *name, enum array_type type, int rank,
                              const int64_t *shape, struct h5_dataset *out) {
  memset(out, 0, sizeof *out);
  out->id = H5I_INVALID_HID;
  struct array checked;
  TRY(h5_writable(file));
  TRY(array_borrow(name, type, rank, shape, NULL, &checked));
  hsize_t extents[ARRAY_MOST_DIMENSIONS];
  for (int i = 0; i < rank; i++)
    extents[i] = (hsize_t)shape[i];
  hid_t space = H5Screate_simple(rank, extents, NULL);
  hid_t links = H5Pcreate(H5P_LINK_CREATE), creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);
  H5Pset_obj_track_times(creation, false); /* equal content, equal bytes */
  out->id = H5Dcreate2(file->id, name, h5_memory_type(type), space, links, creation, H5P_DEFAULT);
  H5Pclose(creation);
  H5Pclose(links);
  H5Sclose(space);
  TRY(h5_writable(file));
  REQUIRE(out->id >= 0, ERR_ARGUMENT, "cannot create \"%s\" in %s: the name is taken or is also a group", name,
          file->path);
  out->file = file;
  memcpy(out->name, checked.name, sizeof out->name);
  memcpy(out->shape, checked.shape, sizeof out->shape);
  out->rank = rank;
  out->nearest = type;
  out->content = type == ARRAY_F32 || type == ARRAY_F64 ? H5_FLOATS : H5_INTEGERS;
  return STATUS_OK;
}

enum status h5_dataset_write(const struct h5_dataset *dataset, int64_t first, int64_t rows, enum array_type type,
                             const void *data) {
  bool nothing = true;
  TRY(h5_writable(dataset->file));
  TRY(check_rows(dataset, first, rows, &nothing));
  if (nothing)
    return STATUS_OK;
  hid_t file_space, memory_space;
  select_rows(dataset, first, rows, &file_space, &memory_space);
  herr_t put = H5Dwrite(dataset->id, h5_memory_type(type), memory_space, file_space, H5P_DEFAULT, data);
  H5Sclose(memory_space);
  H5Sclose(file_space);
  TRY(h5_writable(dataset->file));
  REQUIRE(put >= 0, ERR_FILE, "cannot write \"%s\" in %s: HDF5 refuses", dataset->name, dataset->file->path);
  return STATUS_OK;
}

struct visit {
  struct h5_file *file;
  enum status (*function)(void *context, const char *name);
  void *context;
  enum status status;
};

static herr_t visit_link(hid_t group, const char *name, const H5L_info_t *info, void *data) {
  struct visit *visit = data;
  if (info->type != H5L_TYPE_HARD)
    return 0;
  hid_t object = H5Oopen(group, name, H5P_DEFAULT);
  bool is_dataset = object >= 0 && H5Iget_type(object) == H5I_DATASET;
  if (object >= 0)
    H5Oclose(object);
  visit->status =
      object < 0 ? fail(ERR_FORMAT, "\"%s\" in %s is damaged, or in a format of a newer HDF5", name, visit->file->path)
      : is_dataset ? visit->function(visit->context, name)
                   : STATUS_OK;
  return visit->status == STATUS_OK ? 0 : 1;
}

enum status h5_each_dataset(struct h5_file *file, enum status (*visit)(void *context, const char *name),
                            void *context) {
  struct visit state = {.file = file, .function = visit, .context = context};
  herr_t visited = H5Lvisit(file->id, H5_INDEX_NAME, H5_ITER_INC, visit_link, &state);
  TRY(state.status);
  REQUIRE(visited >= 0, ERR_FORMAT, "%s is damaged: its list of datasets cannot be read", file->path);
  return STATUS_OK;
}
