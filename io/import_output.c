/* The frame of a file of images, and the images' places in it. */
#define _GNU_SOURCE /* fallocate */
#include "io/import_output.h"

#include "dist/memory.h"
#include "io/h5.h"
#include "io/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum status write_column(struct h5_file *file, const char *name, enum array_type type, int64_t rows,
                                int64_t width, const void *values) {
  struct h5_dataset dataset;
  int64_t shape[] = {rows, width};
  TRY(h5_dataset_create(file, name, type, width > 1 ? 2 : 1, shape, &dataset));
  enum status status = h5_dataset_write(&dataset, 0, rows, type, values);
  h5_dataset_close(&dataset);
  return status;
}

static enum status write_labels(struct h5_file *file, const struct import_rows *rows) {
  TRY(write_column(file, "targets", ARRAY_F64, rows->count, rows->target_count, rows->targets));
  TRY(write_column(file, "split", ARRAY_U8, rows->count, 1, rows->split));
  if (rows->weights != NULL)
    TRY(write_column(file, "weights", ARRAY_F64, rows->count, 1, rows->weights));
  if (rows->path != NULL)
    TRY(h5_write_text_dataset(file, "paths", (const char *const *)rows->path, (size_t)rows->count));
  TRY(h5_write_texts(file, "target_names", (const char *const *)rows->target_names, (size_t)rows->target_count));
  TRY(h5_write_text(file, "conr_format", "images"));
  TRY(h5_write_integer(file, "conr_version", 1));
  return rows->source != NULL ? h5_write_text(file, "source", rows->source) : STATUS_OK;
}

/* Offsets, lengths and checksums; *bytes = all images together. */
static enum status write_places(struct h5_file *file, const struct import_rows *rows,
                                const struct import_record *records, int64_t *bytes) {
  int64_t *column = NULL;
  enum status status;
  *bytes = 0;
  TRY_GOTO(memory_alloc((size_t)rows->count * sizeof *column, (void **)&column), out);
  for (int64_t i = 0; i < rows->count; i++) {
    column[i] = *bytes;
    *bytes += records[i].length;
  }
  TRY_GOTO(write_column(file, "image_offset", ARRAY_I64, rows->count, 1, column), out);
  for (int64_t i = 0; i < rows->count; i++)
    column[i] = records[i].length;
  TRY_GOTO(write_column(file, "image_length", ARRAY_I64, rows->count, 1, column), out);
  for (int64_t i = 0; i < rows->count; i++)
    column[i] = records[i].crc;
  TRY_GOTO(write_column(file, "image_checksum", ARRAY_I64, rows->count, 1, column), out);
out:
  memory_free((void **)&column);
  return status;
}

static enum status write_frame(struct h5_file *file, const struct import_images_options *options,
                               const struct import_rows *rows, const struct import_record *records, int64_t *offset) {
  struct h5_dataset images;
  TRY(write_labels(file, rows));
  if (options->layout == IMPORT_ENCODED) {
    int64_t bytes;
    TRY(write_places(file, rows, records, &bytes));
    TRY(h5_dataset_create(file, "image_bytes", ARRAY_U8, 1, &bytes, &images));
  } else {
    int64_t shape[] = {rows->count, options->height, options->width, 3};
    TRY(h5_dataset_create(file, "images", ARRAY_U8, 4, shape, &images));
  }
  *offset = h5_dataset_offset(&images);
  h5_dataset_close(&images);
  REQUIRE(*offset >= 0, ERR_BUG, "the images of %s have no place", options->output_path);
  return STATUS_OK;
}

/* Take the room now: a full disk is better met before the work than after it. */
static enum status take_room(struct import_output *output) {
  struct stat entry;
  int file = open(output->durable.temporary, O_RDWR | O_CLOEXEC);
  bool taken = file >= 0 && fstat(file, &entry) == 0 &&
               (fallocate(file, 0, 0, entry.st_size) == 0 || errno == EOPNOTSUPP || errno == ENOSYS);
  int error = errno;
  if (file >= 0)
    close(file);
  if (!taken)
    return durable_write_failed(output->durable.path, error);
  output->bytes = entry.st_size;
  return STATUS_OK;
}

enum status import_output_create(const struct import_images_options *options, const struct import_rows *rows,
                                 const struct import_record *records, struct import_output *output) {
  struct h5_file *file;
  TRY(durable_begin(options->output_path, &output->durable));
  enum status status = h5_create(&output->durable, &file);
  if (status == STATUS_OK) {
    status = write_frame(file, options, rows, records, &output->data_offset);
    enum status closed = h5_close(&file);
    status = status != STATUS_OK ? status : closed;
  }
  if (status == STATUS_OK)
    status = take_room(output);
  if (status != STATUS_OK)
    durable_abandon(&output->durable); /* it may be what fills the disk */
  return status;
}

bool import_output_is_there(const char *path, int64_t bytes, struct import_output *output) {
  struct stat entry;
  return durable_name(path, &output->durable) == STATUS_OK && stat(output->durable.temporary, &entry) == 0 &&
         S_ISREG(entry.st_mode) && entry.st_size == bytes;
}

enum status import_output_open(const char *path, struct import_output *output) {
  TRY(durable_name(path, &output->durable));
  output->file = open(output->durable.temporary, O_WRONLY | O_CLOEXEC);
  REQUIRE(output->file >= 0, ERR_FILE, "cannot write %s: %s; all ranks need it on a file system that they share", path,
          strerror(errno));
  return STATUS_OK;
}

enum status import_output_write(const struct import_output *output, int64_t offset, const uint8_t *bytes,
                                size_t count) {
  int error = storage_write(output->file, bytes, count, output->data_offset + offset);
  return error == 0 ? STATUS_OK : durable_write_failed(output->durable.path, error);
}

enum status import_output_sync(const struct import_output *output) {
  int error = storage_sync_data(output->file, 0);
  return error == 0 ? STATUS_OK : durable_write_failed(output->durable.path, error);
}

enum status import_output_close(struct import_output *output) {
  if (output->file < 0)
    return STATUS_OK;
  enum status status = import_output_sync(output);
  close(output->file);
  output->file = -1;
  return status;
}
