/* What a table file must look like, checked in one place. */
#include "io/dataset_layout.h"

#include "dist/memory.h"
#include "io/dataset.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Labels are read and checked in pieces of about this many bytes. */
#define BLOCK_BYTES ((size_t)1 << 20)

static enum status check_format(struct h5_file *file) {
  char *format = NULL;
  int64_t version = 1;
  bool found;
  TRY(h5_read_text(file, "conr_format", &format, &found));
  enum status status = STATUS_OK;
  if (found && strcmp(format, "table") != 0)
    status =
        fail(ERR_FORMAT, "%s is a conr \"%s\" file, not a table; make one with conr import", h5_path(file), format);
  memory_free((void **)&format);
  TRY(status);
  TRY(h5_read_integer(file, "conr_version", &version, &found));
  REQUIRE(version == 1, ERR_FORMAT, "%s is a table of version %lld; this conr reads version 1", h5_path(file),
          (long long)version);
  return STATUS_OK;
}

static enum status open_required(struct h5_file *file, const char *name, struct h5_dataset *out) {
  REQUIRE(h5_exists(file, name), ERR_FORMAT,
          "%s has no dataset \"%s\"; a table needs \"inputs\", \"targets\" and \"split\"", h5_path(file), name);
  TRY(h5_dataset_open(file, name, out));
  REQUIRE(out->content == H5_INTEGERS || out->content == H5_FLOATS, ERR_FORMAT,
          "\"%s\" in %s holds %s; it must hold numbers", name, h5_path(file),
          out->content == H5_TEXT ? "text" : "records");
  return STATUS_OK;
}

static enum status check_rows(const struct dataset_layout *layout, const struct h5_dataset *dataset, int most_rank,
                              const char *shape) {
  REQUIRE(dataset->rank >= 1 && dataset->rank <= most_rank, ERR_FORMAT,
          "\"%s\" in %s has %d dimension%s; it must be %s", dataset->name, h5_path(layout->file), dataset->rank,
          dataset->rank == 1 ? "" : "s", shape);
  REQUIRE(dataset->shape[0] == layout->rows, ERR_FORMAT,
          "\"%s\" has %lld rows but \"inputs\" has %lld in %s; each sample needs one row in both", dataset->name,
          (long long)dataset->shape[0], (long long)layout->rows, h5_path(layout->file));
  return STATUS_OK;
}

static enum status open_inputs(struct dataset_layout *layout) {
  struct h5_dataset *inputs = &layout->inputs;
  const char *path = h5_path(layout->file);
  TRY(open_required(layout->file, "inputs", inputs));
  REQUIRE(inputs->rank == 2, ERR_FORMAT, "\"inputs\" in %s has %d dimension%s; it must be [rows, features]", path,
          inputs->rank, inputs->rank == 1 ? "" : "s");
  REQUIRE(inputs->shape[0] > 0, ERR_FORMAT, "\"inputs\" in %s has no rows", path);
  REQUIRE(inputs->shape[1] > 0 && inputs->shape[1] <= INT_MAX / 8, ERR_FORMAT,
          "\"inputs\" in %s has %lld features; it must have 1 to %d", path, (long long)inputs->shape[1], INT_MAX / 8);
  layout->rows = inputs->shape[0];
  layout->features = (int)inputs->shape[1];
  return STATUS_OK;
}

static enum status open_labels(struct dataset_layout *layout) {
  const char *path = h5_path(layout->file);
  TRY(open_required(layout->file, "targets", &layout->targets));
  TRY(check_rows(layout, &layout->targets, 2, "[rows] or [rows, targets]"));
  int64_t targets = layout->targets.rank == 2 ? layout->targets.shape[1] : 1;
  REQUIRE(targets > 0 && targets <= INT_MAX / 8, ERR_FORMAT, "\"targets\" in %s has %lld columns; it needs 1 or more",
          path, (long long)targets);
  layout->target_count = (int)targets;
  TRY(open_required(layout->file, "split", &layout->split));
  TRY(check_rows(layout, &layout->split, 1, "[rows]"));
  REQUIRE(layout->split.content == H5_INTEGERS, ERR_FORMAT,
          "\"split\" in %s holds floating-point numbers; it must hold the integers 0 (train), 1 (validation), 2 (test)",
          path);
  layout->has_weights = h5_exists(layout->file, "weights");
  if (layout->has_weights) {
    TRY(open_required(layout->file, "weights", &layout->weights));
    TRY(check_rows(layout, &layout->weights, 1, "[rows]"));
  }
  return STATUS_OK;
}

static enum status read_statistic(const struct dataset_layout *layout, const char *name, double **out) {
  struct h5_dataset dataset = {0};
  enum status status;
  const char *path = h5_path(layout->file);
  TRY_GOTO(open_required(layout->file, name, &dataset), out);
  REQUIRE_GOTO(dataset.rank == 1 && dataset.shape[0] == layout->features, out, ERR_FORMAT,
               "\"%s\" in %s must be [features], here %d numbers", name, path, layout->features);
  TRY_GOTO(memory_alloc((size_t)layout->features * sizeof **out, (void **)out), out);
  TRY_GOTO(h5_dataset_read(&dataset, 0, layout->features, ARRAY_F64, *out), out);
out:
  h5_dataset_close(&dataset);
  return status;
}

static enum status read_standardisation(struct dataset_layout *layout) {
  const char *path = h5_path(layout->file);
  bool has_mean = h5_exists(layout->file, "standardise/mean"), has_std = h5_exists(layout->file, "standardise/std");
  if (!has_mean && !has_std)
    return STATUS_OK;
  REQUIRE(has_mean && has_std, ERR_FORMAT, "%s has \"standardise/%s\" but no \"standardise/%s\"; give both or neither",
          path, has_mean ? "mean" : "std", has_mean ? "std" : "mean");
  TRY(read_statistic(layout, "standardise/mean", &layout->mean));
  TRY(read_statistic(layout, "standardise/std", &layout->std));
  for (int i = 0; i < layout->features; i++) {
    REQUIRE(isfinite(layout->mean[i]), ERR_FORMAT, "\"standardise/mean\" in %s is %g for feature %d; it must be finite",
            path, layout->mean[i], i);
    REQUIRE(isfinite(layout->std[i]) && layout->std[i] > 0, ERR_FORMAT,
            "\"standardise/std\" in %s is %g for feature %d; it must be finite and above 0", path, layout->std[i], i);
  }
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

static enum status read_names(struct dataset_layout *layout, const char *name, const char *stem, int count,
                              struct h5_texts *out) {
  TRY(h5_read_texts(layout->file, name, out));
  if (out->count == 0)
    return make_names(stem, count, out);
  REQUIRE(out->count == (size_t)count, ERR_FORMAT, "\"%s\" in %s has %zu names, not %d", name, h5_path(layout->file),
          out->count, count);
  return STATUS_OK;
}

enum status dataset_layout_open(const char *path, struct dataset_layout *out) {
  bool found;
  memset(out, 0, sizeof *out);
  TRY(h5_open(path, &out->file));
  TRY(check_format(out->file));
  TRY(open_inputs(out));
  TRY(open_labels(out));
  TRY(read_standardisation(out));
  TRY(read_names(out, "feature_names", "feature", out->features, &out->feature_names));
  TRY(read_names(out, "target_names", "target", out->target_count, &out->target_names));
  return h5_read_text(out->file, "source", &out->source, &found);
}

void dataset_layout_close(struct dataset_layout *layout) {
  memory_free((void **)&layout->source);
  memory_free((void **)&layout->target_names.text);
  memory_free((void **)&layout->feature_names.text);
  memory_free((void **)&layout->std);
  memory_free((void **)&layout->mean);
  h5_dataset_close(&layout->weights);
  h5_dataset_close(&layout->split);
  h5_dataset_close(&layout->targets);
  h5_dataset_close(&layout->inputs);
  h5_close(&layout->file);
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
