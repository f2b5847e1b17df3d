/* Rows of an image import from an HDF5 file of images: labels, splits, weights, names and paths as they are. */
#include "io/import_rows.h"

#include "dist/memory.h"
#include "io/h5.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

static enum status open_column(struct h5_file *file, const char *name, int64_t rows, struct h5_dataset *out) {
  TRY(h5_dataset_open(file, name, out));
  REQUIRE(out->content == H5_INTEGERS || out->content == H5_FLOATS, ERR_FORMAT, "\"%s\" in %s must hold numbers", name,
          h5_path(file));
  REQUIRE(out->rank >= 1 && (rows < 0 || out->shape[0] == rows), ERR_FORMAT, "\"%s\" in %s has %lld rows, not %lld",
          name, h5_path(file), out->rank >= 1 ? (long long)out->shape[0] : 1, (long long)rows);
  return STATUS_OK;
}

static enum status read_targets(struct h5_file *file, struct import_rows *rows) {
  struct h5_dataset targets;
  const char *path = h5_path(file);
  enum status status;
  TRY_GOTO(open_column(file, "targets", -1, &targets), out);
  REQUIRE_GOTO(targets.rank <= 2 && targets.shape[0] > 0, out, ERR_FORMAT,
               "\"targets\" in %s must have shape [rows] or [rows, targets]", path);
  int64_t count = h5_dataset_row_count(&targets);
  REQUIRE_GOTO(count >= 1 && count <= INT_MAX / 8, out, ERR_FORMAT, "\"targets\" in %s has %lld numbers a row", path,
               (long long)count);
  rows->count = targets.shape[0];
  rows->target_count = (int)count;
  TRY_GOTO(memory_alloc((size_t)(rows->count * count) * sizeof *rows->targets, (void **)&rows->targets), out);
  TRY_GOTO(h5_dataset_read(&targets, 0, rows->count, ARRAY_F64, rows->targets), out);
  for (int64_t i = 0; i < rows->count * count; i++)
    REQUIRE_GOTO(isfinite(rows->targets[i]), out, ERR_FORMAT,
                 "\"targets\" in %s is %g at row %lld; every target must be finite", path, rows->targets[i],
                 (long long)(i / count));
out:
  h5_dataset_close(&targets);
  return status;
}

static enum status read_weights(struct h5_file *file, struct import_rows *rows) {
  struct h5_dataset weights;
  enum status status;
  if (!h5_exists(file, "weights"))
    return STATUS_OK;
  TRY_GOTO(open_column(file, "weights", rows->count, &weights), out);
  REQUIRE_GOTO(h5_dataset_row_count(&weights) == 1, out, ERR_FORMAT, "\"weights\" in %s must be one number a row",
               h5_path(file));
  TRY_GOTO(memory_alloc((size_t)rows->count * sizeof *rows->weights, (void **)&rows->weights), out);
  TRY_GOTO(h5_dataset_read(&weights, 0, rows->count, ARRAY_F64, rows->weights), out);
  for (int64_t i = 0; i < rows->count; i++)
    REQUIRE_GOTO(isfinite(rows->weights[i]) && rows->weights[i] >= 0, out, ERR_FORMAT,
                 "\"weights\" in %s is %g at row %lld; a weight must be finite and not negative", h5_path(file),
                 rows->weights[i], (long long)i);
out:
  h5_dataset_close(&weights);
  return status;
}

/* As int64, so that 256 is not mistaken for 0; the room for it becomes `number`. */
static enum status read_split(struct h5_file *file, struct import_rows *rows) {
  struct h5_dataset split;
  enum status status;
  TRY_GOTO(open_column(file, "split", rows->count, &split), out);
  REQUIRE_GOTO(h5_dataset_row_count(&split) == 1 && split.content == H5_INTEGERS, out, ERR_FORMAT,
               "\"split\" in %s must be one whole number a row", h5_path(file));
  TRY_GOTO(memory_alloc((size_t)rows->count, (void **)&rows->split), out);
  TRY_GOTO(memory_alloc((size_t)rows->count * sizeof *rows->number, (void **)&rows->number), out);
  TRY_GOTO(h5_dataset_read(&split, 0, rows->count, ARRAY_I64, rows->number), out);
  for (int64_t i = 0; i < rows->count; i++) {
    REQUIRE_GOTO(rows->number[i] >= 0 && rows->number[i] < SPLIT_COUNT, out, ERR_FORMAT,
                 "\"split\" in %s is %lld at row %lld; it must be 0 (train), 1 (validation) or 2 (test)", h5_path(file),
                 (long long)rows->number[i], (long long)i);
    rows->split[i] = (uint8_t)rows->number[i];
    rows->number[i] = i;
  }
out:
  h5_dataset_close(&split);
  return status;
}

static enum status read_names(struct h5_file *file, struct import_rows *rows) {
  struct h5_texts names;
  bool found;
  TRY(h5_read_text(file, "source", &rows->source, &found));
  TRY(h5_read_texts(file, "target_names", &names));
  if (names.count > 0) {
    rows->target_names = names.text;
    REQUIRE(names.count == (size_t)rows->target_count, ERR_FORMAT, "\"target_names\" in %s has %zu names, not %d",
            h5_path(file), names.count, rows->target_count);
  } else {
    const size_t width = 24;
    TRY(memory_alloc((size_t)rows->target_count * (sizeof(char *) + width), (void **)&rows->target_names));
    for (int k = 0; k < rows->target_count; k++) {
      rows->target_names[k] = (char *)(rows->target_names + rows->target_count) + (size_t)k * width;
      snprintf(rows->target_names[k], width, rows->target_count > 1 ? "target%d" : "target", k);
    }
  }
  TRY(h5_read_texts(file, "paths", &names));
  rows->path = names.count > 0 ? names.text : NULL;
  REQUIRE(names.count == 0 || names.count == (size_t)rows->count, ERR_FORMAT, "\"paths\" in %s has %zu rows, not %lld",
          h5_path(file), names.count, (long long)rows->count);
  return STATUS_OK;
}

static enum status read_labels(struct h5_file *file, struct import_rows *rows) {
  TRY(read_targets(file, rows));
  TRY(read_weights(file, rows));
  TRY(read_split(file, rows));
  return read_names(file, rows);
}

/* Which version of the file it is; reading all of it would take as long as converting it. */
static enum status identify(const char *path, uint32_t *checksum) {
  struct stat entry;
  REQUIRE(stat(path, &entry) == 0, ERR_FILE, "cannot open %s: %s", path, strerror(errno));
  int64_t facts[] = {entry.st_size, entry.st_mtim.tv_sec, entry.st_mtim.tv_nsec};
  *checksum = (uint32_t)crc32(0, (const unsigned char *)facts, sizeof facts);
  return STATUS_OK;
}

enum status import_rows_read_h5(const char *path, struct import_rows **out) {
  struct h5_file *file = NULL;
  struct import_rows *rows = NULL;
  enum status status;
  *out = NULL;
  TRY_GOTO(memory_alloc_zero(sizeof *rows, (void **)&rows), out);
  TRY_GOTO(identify(path, &rows->checksum), out);
  TRY_GOTO(h5_open(path, &file), out);
  TRY_GOTO(read_labels(file, rows), out);
  *out = rows;
  rows = NULL;
out:
  h5_close(&file);
  import_rows_destroy(&rows);
  return status;
}
