/* Images from files, or from an HDF5 file. */
#include "io/import_source.h"

#include "dist/memory.h"
#include "io/h5.h"
#include "io/image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

/* ---- opening -------------------------------------------------------------------------------- */

static enum status open_folder(struct import_source *source, const char *folder) {
  struct stat entry;
  REQUIRE(stat(folder, &entry) == 0, ERR_FILE,
          "cannot open the folder %s: %s; give --images the folder that the paths start from", folder, strerror(errno));
  REQUIRE(S_ISDIR(entry.st_mode), ERR_FILE, "%s is not a folder; give --images the folder that the paths start from",
          folder);
  TRY(memory_alloc(strlen(folder) + 1, (void **)&source->folder));
  strcpy(source->folder, folder);
  return STATUS_OK;
}

/* A column of int64, one number a row. */
static enum status read_numbers(struct import_source *source, const char *name, int64_t **out) {
  struct h5_dataset dataset;
  enum status status = h5_dataset_open(source->file, name, &dataset);
  if (status == STATUS_OK && (dataset.rank != 1 || dataset.content != H5_INTEGERS))
    status = fail(ERR_FORMAT, "\"%s\" in %s must be one whole number a row", name, h5_path(source->file));
  if (status == STATUS_OK && source->rows >= 0 && dataset.shape[0] != source->rows)
    status = fail(ERR_FORMAT, "\"%s\" in %s has %lld rows, not %lld", name, h5_path(source->file),
                  (long long)dataset.shape[0], (long long)source->rows);
  if (status == STATUS_OK)
    status = memory_alloc((size_t)dataset.shape[0] * sizeof **out, (void **)out);
  if (status == STATUS_OK) {
    source->rows = dataset.shape[0];
    status = h5_dataset_read(&dataset, 0, dataset.shape[0], ARRAY_I64, *out);
  }
  h5_dataset_close(&dataset);
  return status;
}

static enum status open_encoded(struct import_source *source) {
  const char *path = h5_path(source->file);
  source->kind = SOURCE_ENCODED;
  source->rows = -1;
  TRY(h5_dataset_open(source->file, "image_bytes", &source->images));
  REQUIRE(source->images.rank == 1 && source->images.content == H5_INTEGERS && source->images.nearest == ARRAY_U8,
          ERR_FORMAT, "\"image_bytes\" in %s must be a list of bytes", path);
  TRY(read_numbers(source, "image_offset", &source->offset));
  TRY(read_numbers(source, "image_length", &source->length));
  if (h5_exists(source->file, "image_checksum"))
    TRY(read_numbers(source, "image_checksum", &source->expected_crc));
  int64_t bytes = source->images.shape[0];
  for (int64_t i = 0; i < source->rows; i++)
    REQUIRE(source->length[i] > 0 && source->length[i] <= IMPORT_MOST_FILE_BYTES && source->offset[i] >= 0 &&
                source->offset[i] <= bytes - source->length[i],
            ERR_FORMAT, "row %lld of %s claims %lld bytes at %lld of \"image_bytes\", which has %lld", (long long)i,
            path, (long long)source->length[i], (long long)source->offset[i], (long long)bytes);
  return STATUS_OK;
}

static enum status open_pixels(struct import_source *source) {
  const char *path = h5_path(source->file);
  struct h5_dataset *images = &source->images;
  source->kind = SOURCE_PIXELS;
  TRY(h5_dataset_open(source->file, "images", images));
  REQUIRE(images->rank == 4 && images->shape[3] == 3 && images->content == H5_INTEGERS && images->nearest == ARRAY_U8,
          ERR_FORMAT, "\"images\" in %s must be bytes of shape [rows, height, width, 3]", path);
  REQUIRE(images->shape[1] > 0 && images->shape[2] > 0 && images->shape[1] <= IMAGE_MOST_PIXELS &&
              images->shape[2] <= IMAGE_MOST_PIXELS / images->shape[1],
          ERR_FORMAT, "\"images\" in %s have %lld x %lld pixels", path, (long long)images->shape[1],
          (long long)images->shape[2]);
  source->rows = images->shape[0];
  source->height = (int)images->shape[1];
  source->width = (int)images->shape[2];
  return STATUS_OK;
}

static enum status open_h5(struct import_source *source, const char *path) {
  TRY(h5_open(path, &source->file));
  bool encoded = h5_exists(source->file, "image_bytes"), pixels = h5_exists(source->file, "images");
  REQUIRE(encoded || pixels, ERR_FORMAT,
          "%s holds no images: neither \"image_bytes\" nor \"images\"; only files of images are converted", path);
  REQUIRE(!(encoded && pixels), ERR_FORMAT, "%s holds both \"image_bytes\" and \"images\"; it must hold one of them",
          path);
  return encoded ? open_encoded(source) : open_pixels(source);
}

enum status import_source_open(const struct import_images_options *options, struct import_source **out) {
  struct import_source *source = NULL;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *source, (void **)&source));
  source->images.id = H5I_INVALID_HID;
  enum status status = options->images_folder != NULL ? open_folder(source, options->images_folder)
                                                      : open_h5(source, options->source_path);
  if (status == STATUS_OK)
    *out = source;
  else
    import_source_close(&source);
  return status;
}

void import_source_close(struct import_source **source_pointer) {
  struct import_source *source = *source_pointer;
  if (source == NULL)
    return;
  h5_dataset_close(&source->images);
  h5_close(&source->file);
  memory_free((void **)&source->expected_crc);
  memory_free((void **)&source->length);
  memory_free((void **)&source->offset);
  memory_free((void **)&source->folder);
  memory_free((void **)source_pointer);
}

/* ---- reading -------------------------------------------------------------------------------- */

static enum status blob_reserve(struct import_blob *blob, size_t bytes) {
  blob->count = bytes;
  if (bytes <= blob->capacity)
    return STATUS_OK;
  memory_free((void **)&blob->bytes);
  blob->capacity = 0;
  TRY(memory_alloc(bytes + bytes / 4, (void **)&blob->bytes));
  blob->capacity = bytes + bytes / 4;
  return STATUS_OK;
}

void import_blob_free(struct import_blob *blob) {
  memory_free((void **)&blob->bytes);
  *blob = (struct import_blob){0};
}

enum status import_source_path(const struct import_source *source, const char *path, char *out) {
  int length =
      path[0] == '/' ? snprintf(out, PATH_MAX, "%s", path) : snprintf(out, PATH_MAX, "%s/%s", source->folder, path);
  REQUIRE(length < PATH_MAX, ERR_FORMAT, "its path is too long (%d characters)", length);
  return STATUS_OK;
}

static int64_t modified_of(const struct stat *entry) {
  return (int64_t)entry->st_mtim.tv_sec * 1000000000 + entry->st_mtim.tv_nsec;
}

/* Reasons that are this process's and not the file's. */
static bool is_our_own(int error) {
  return error == EMFILE || error == ENFILE || error == ENOMEM;
}

static enum status read_open_file(int file, struct import_blob *blob) {
  struct stat entry;
  REQUIRE(fstat(file, &entry) == 0, ERR_FORMAT, "it cannot be read: %s", strerror(errno));
  REQUIRE(!S_ISDIR(entry.st_mode), ERR_FORMAT, "it is a folder");
  REQUIRE(S_ISREG(entry.st_mode), ERR_FORMAT, "it is not a regular file");
  REQUIRE(entry.st_size > 0, ERR_FORMAT, "the file is empty (0 bytes)");
  REQUIRE(entry.st_size <= IMPORT_MOST_FILE_BYTES, ERR_FORMAT, "the file has %lld bytes; an image has at most %lld",
          (long long)entry.st_size, (long long)IMPORT_MOST_FILE_BYTES);
  TRY(blob_reserve(blob, (size_t)entry.st_size));
  blob->modified = modified_of(&entry);
  for (size_t at = 0; at < blob->count;) {
    ssize_t got = read(file, blob->bytes + at, blob->count - at);
    if (got < 0 && errno == EINTR)
      continue;
    REQUIRE(got >= 0, ERR_FORMAT, "it cannot be read: %s", strerror(errno));
    REQUIRE(got > 0, ERR_FORMAT, "it became shorter while it was read");
    at += (size_t)got;
  }
  return STATUS_OK;
}

static enum status read_file(const struct import_source *source, const char *name, struct import_blob *blob) {
  char path[PATH_MAX];
  TRY(import_source_path(source, name, path));
  /* Without O_NONBLOCK, opening a pipe would wait for its other end. */
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0 && is_our_own(errno))
    return fail(ERR_FILE, "cannot open %s: %s", path, strerror(errno));
  REQUIRE(file >= 0, ERR_FORMAT, "%s", errno == ENOENT ? IMPORT_NO_SUCH_FILE : strerror(errno));
  enum status status = read_open_file(file, blob);
  close(file);
  return status;
}

static enum status read_record(const struct import_source *source, int64_t row, struct import_blob *blob) {
  bool encoded = source->kind == SOURCE_ENCODED;
  int64_t first = encoded ? source->offset[row] : row, count = encoded ? source->length[row] : 1;
  enum status status;
  TRY(blob_reserve(blob, encoded ? (size_t)count : (size_t)source->height * (size_t)source->width * 3));
#pragma omp critical(import_source_hdf5)
  status = h5_dataset_read(&source->images, first, count, ARRAY_U8, blob->bytes);
  TRY(status);
  if (source->expected_crc != NULL) {
    uint32_t crc = (uint32_t)crc32_z(0, blob->bytes, blob->count);
    REQUIRE(crc == (uint64_t)source->expected_crc[row], ERR_FORMAT, "its bytes do not agree with their checksum");
  }
  return STATUS_OK;
}

enum status import_source_read(const struct import_source *source, const struct import_rows *rows, int64_t row,
                               struct import_blob *blob) {
  return source->kind == SOURCE_FOLDER ? read_file(source, rows->path[row], blob)
                                       : read_record(source, rows->number[row], blob);
}

bool import_source_is_same(const struct import_source *source, const struct import_rows *rows, int64_t row,
                           int64_t bytes, int64_t modified) {
  char path[PATH_MAX];
  struct stat entry;
  if (source->kind != SOURCE_FOLDER)
    return true;
  return import_source_path(source, rows->path[row], path) == STATUS_OK && stat(path, &entry) == 0 &&
         S_ISREG(entry.st_mode) && entry.st_size == bytes && modified_of(&entry) == modified;
}
