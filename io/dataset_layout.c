/* What tables and images share, checked in one place. */
#include "io/dataset_layout.h"

#include "dist/memory.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Labels are read and checked in pieces of about this many bytes. */
#define BLOCK_BYTES ((size_t)1 << 20)

/* By what it says of itself; a file that says nothing, by what it holds. */
static enum status find_kind(struct dataset_layout *layout) {
  const char *path = h5_path(layout->file);
  char *format = NULL;
  bool found;
  enum status status = STATUS_OK;
  TRY(h5_read_text(layout->file, "conr_format", &format, &found));
  bool has_images = h5_exists(layout->file, "image_bytes") || h5_exists(layout->file, "images");
  if (!found)
    layout->kind = has_images && !h5_exists(layout->file, "inputs") ? DATASET_IMAGES : DATASET_TABLE;
  else if (strcmp(format, "table") == 0 || strcmp(format, "images") == 0)
    layout->kind = strcmp(format, "images") == 0 ? DATASET_IMAGES : DATASET_TABLE;
  else
    status = fail(ERR_FORMAT, "%s is a conr \"%s\" file, not a dataset; make one with conr import", path, format);
  memory_free((void **)&format);
  return status;
}

static enum status check_version(const struct dataset_layout *layout) {
  int64_t version = 1;
  bool found;
  TRY(h5_read_integer(layout->file, "conr_version", &version, &found));
  REQUIRE(version == 1, ERR_FORMAT, "%s is a dataset of version %lld; this conr reads version 1", h5_path(layout->file),
          (long long)version);
  return STATUS_OK;
}

enum status dataset_layout_require(const struct dataset_layout *layout, const char *name, struct h5_dataset *out) {
  static const char *const needs[] = {[DATASET_TABLE] = "a table needs \"inputs\", \"targets\" and \"split\"",
                                      [DATASET_IMAGES] =
                                          "images need \"targets\", \"split\", and \"images\" or else \"image_bytes\", "
                                          "\"image_offset\" and \"image_length\""};
  const char *path = h5_path(layout->file);
  REQUIRE(h5_exists(layout->file, name), ERR_FORMAT, "%s has no dataset \"%s\"; %s", path, name, needs[layout->kind]);
  TRY(h5_dataset_open(layout->file, name, out));
  REQUIRE(out->content == H5_INTEGERS || out->content == H5_FLOATS, ERR_FORMAT,
          "\"%s\" in %s holds %s; it must hold numbers", name, path, out->content == H5_TEXT ? "text" : "records");
  return STATUS_OK;
}

/* "feature0", "feature1", ... for a file that names nothing; one alone is just "target". */
static enum status make_names(const char *stem, int count, struct h5_texts *out) {
  size_t width = strlen(stem) + 12;
  TRY(memory_alloc((size_t)count * (sizeof *out->text + width), (void **)&out->text));
  char *names = (char *)(out->text + count);
  for (int i = 0; i < count; i++) {
    out->text[i] = names + (size_t)i * width;
    if (count > 1)
      snprintf(out->text[i], width, "%s%d", stem, i);
    else
      snprintf(out->text[i], width, "%s", stem);
  }
  out->count = (size_t)count;
  return STATUS_OK;
}

enum status dataset_layout_names(const struct dataset_layout *layout, const char *name, const char *stem, int count,
                                 struct h5_texts *out) {
  TRY(h5_read_texts(layout->file, name, out));
  if (out->count == 0)
    return make_names(stem, count, out);
  REQUIRE(out->count == (size_t)count, ERR_FORMAT, "\"%s\" in %s has %zu names, not %d", name, h5_path(layout->file),
          out->count, count);
  return STATUS_OK;
}

enum status dataset_layout_open(const char *path, struct dataset_layout *out) {
  memset(out, 0, sizeof *out);
  TRY(h5_open(path, &out->file));
  TRY(find_kind(out));
  return check_version(out);
}

static enum status check_rows(const struct dataset_layout *layout, const char *from, const struct h5_dataset *dataset,
                              int most_rank, const char *shape) {
  REQUIRE(dataset->rank >= 1 && dataset->rank <= most_rank, ERR_FORMAT,
          "\"%s\" in %s has %d dimension%s; it must be %s", dataset->name, h5_path(layout->file), dataset->rank,
          dataset->rank == 1 ? "" : "s", shape);
  REQUIRE(dataset->shape[0] == layout->rows, ERR_FORMAT,
          "\"%s\" has %lld rows but \"%s\" has %lld in %s; each sample needs one row in both", dataset->name,
          (long long)dataset->shape[0], from, (long long)layout->rows, h5_path(layout->file));
  return STATUS_OK;
}

enum status dataset_layout_open_labels(struct dataset_layout *layout, int64_t rows, const char *from) {
  const char *path = h5_path(layout->file);
  bool found;
  layout->rows = rows;
  TRY(dataset_layout_require(layout, "targets", &layout->targets));
  TRY(check_rows(layout, from, &layout->targets, 2, "[rows] or [rows, targets]"));
  int64_t targets = layout->targets.rank == 2 ? layout->targets.shape[1] : 1;
  REQUIRE(targets > 0 && targets <= INT_MAX / 8, ERR_FORMAT, "\"targets\" in %s has %lld columns; it needs 1 or more",
          path, (long long)targets);
  layout->target_count = (int)targets;
  TRY(dataset_layout_require(layout, "split", &layout->split));
  TRY(check_rows(layout, from, &layout->split, 1, "[rows]"));
  REQUIRE(layout->split.content == H5_INTEGERS, ERR_FORMAT,
          "\"split\" in %s holds floating-point numbers; it must hold the integers 0 (train), 1 (validation), 2 (test)",
          path);
  layout->has_weights = h5_exists(layout->file, "weights");
  if (layout->has_weights) {
    TRY(dataset_layout_require(layout, "weights", &layout->weights));
    TRY(check_rows(layout, from, &layout->weights, 1, "[rows]"));
  }
  TRY(dataset_layout_names(layout, "target_names", "target", layout->target_count, &layout->target_names));
  return h5_read_text(layout->file, "source", &layout->source, &found);
}

enum status dataset_layout_close_file(struct dataset_layout *layout) {
  h5_dataset_close(&layout->weights);
  h5_dataset_close(&layout->split);
  h5_dataset_close(&layout->targets);
  return h5_close(&layout->file);
}

void dataset_layout_close(struct dataset_layout *layout) {
  memory_free((void **)&layout->source);
  memory_free((void **)&layout->target_names.text);
  (void)dataset_layout_close_file(layout);
}

static enum status check_targets(const struct dataset_layout *layout, const double *targets) {
  int count = layout->target_count;
  for (int64_t i = 0; i < layout->rows * count; i++) {
    char column[32] = "";
    if (count > 1)
      snprintf(column, sizeof column, ", column %lld", (long long)(i % count));
    REQUIRE(isfinite(targets[i]), ERR_FORMAT, "\"targets\" in %s is %g at row %lld%s; every target must be finite",
            h5_path(layout->file), targets[i], (long long)(i / count), column);
  }
  return STATUS_OK;
}

static enum status check_weights(const struct dataset_layout *layout, const double *weights) {
  for (int64_t i = 0; i < layout->rows; i++)
    REQUIRE(isfinite(weights[i]) && weights[i] >= 0, ERR_FORMAT,
            "\"weights\" in %s is %g at row %lld; a weight must be finite and not negative", h5_path(layout->file),
            weights[i], (long long)i);
  return STATUS_OK;
}

/* By blocks of int64, so that 256 is not mistaken for 0. */
static enum status read_split(const struct dataset_layout *layout, uint8_t *split) {
  int64_t block_rows = h5_dataset_block_rows(&layout->split, BLOCK_BYTES);
  int64_t *block = NULL;
  enum status status = STATUS_OK;
  TRY(memory_alloc((size_t)block_rows * sizeof *block, (void **)&block));
  for (int64_t first = 0; first < layout->rows; first += block_rows) {
    int64_t rows = layout->rows - first < block_rows ? layout->rows - first : block_rows;
    TRY_GOTO(h5_dataset_read(&layout->split, first, rows, ARRAY_I64, block), out);
    for (int64_t i = 0; i < rows; i++) {
      REQUIRE_GOTO(block[i] >= 0 && block[i] < SPLIT_COUNT, out, ERR_FORMAT,
                   "\"split\" in %s is %lld at row %lld; it must be 0 (train), 1 (validation) or 2 (test)",
                   h5_path(layout->file), (long long)block[i], (long long)(first + i));
      split[first + i] = (uint8_t)block[i];
    }
  }
out:
  memory_free((void **)&block);
  return status;
}

enum status dataset_layout_read_labels(const struct dataset_layout *layout, double *targets, double *weights,
                                       uint8_t *split) {
  TRY(h5_dataset_read(&layout->targets, 0, layout->rows, ARRAY_F64, targets));
  TRY(check_targets(layout, targets));
  if (layout->has_weights) {
    TRY(h5_dataset_read(&layout->weights, 0, layout->rows, ARRAY_F64, weights));
    TRY(check_weights(layout, weights));
  }
  return read_split(layout, split);
}
