/* Rows of a table: from the file by pread, or from memory of the host. */
#include "io/table_inputs.h"

#include "dist/memory.h"
#include "io/read_at.h"

#include <limits.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

/* Plain inputs are read by runs of up to this many bytes, other inputs in blocks of about as many. */
#define READ_BYTES ((size_t)1 << 20)

static enum status open_stored(struct table_inputs *table, const struct dataset_layout *layout) {
  struct h5_dataset *stored = &table->stored;
  TRY(dataset_layout_require(layout, "inputs", stored));
  REQUIRE(stored->rank == 2, ERR_FORMAT, "\"inputs\" in %s has %d dimension%s; it must be [rows, features]",
          table->path, stored->rank, stored->rank == 1 ? "" : "s");
  REQUIRE(stored->shape[0] > 0, ERR_FORMAT, "\"inputs\" in %s has no rows", table->path);
  REQUIRE(stored->shape[1] > 0 && stored->shape[1] <= INT_MAX / 8, ERR_FORMAT,
          "\"inputs\" in %s has %lld features; it must have 1 to %d", table->path, (long long)stored->shape[1],
          INT_MAX / 8);
  table->rows = stored->shape[0];
  table->features = (int)stored->shape[1];
  return STATUS_OK;
}

static enum status read_statistic(const struct dataset_layout *layout, int features, const char *name, double **out) {
  struct h5_dataset dataset = {0};
  enum status status;
  const char *path = h5_path(layout->file);
  TRY_GOTO(dataset_layout_require(layout, name, &dataset), out);
  REQUIRE_GOTO(dataset.rank == 1 && dataset.shape[0] == features, out, ERR_FORMAT,
               "\"%s\" in %s must be [features], here %d numbers", name, path, features);
  TRY_GOTO(memory_alloc((size_t)features * sizeof **out, (void **)out), out);
  TRY_GOTO(h5_dataset_read(&dataset, 0, features, ARRAY_F64, *out), out);
out:
  h5_dataset_close(&dataset);
  return status;
}

static enum status read_standardisation(struct table_inputs *table, const struct dataset_layout *layout) {
  const char *path = table->path;
  bool has_mean = h5_exists(layout->file, "standardise/mean"), has_std = h5_exists(layout->file, "standardise/std");
  if (!has_mean && !has_std)
    return STATUS_OK;
  REQUIRE(has_mean && has_std, ERR_FORMAT, "%s has \"standardise/%s\" but no \"standardise/%s\"; give both or neither",
          path, has_mean ? "mean" : "std", has_mean ? "std" : "mean");
  TRY(read_statistic(layout, table->features, "standardise/mean", &table->mean));
  TRY(read_statistic(layout, table->features, "standardise/std", &table->std));
  for (int i = 0; i < table->features; i++) {
    REQUIRE(isfinite(table->mean[i]), ERR_FORMAT, "\"standardise/mean\" in %s is %g for feature %d; it must be finite",
            path, table->mean[i], i);
    REQUIRE(isfinite(table->std[i]) && table->std[i] > 0, ERR_FORMAT,
            "\"standardise/std\" in %s is %g for feature %d; it must be finite and above 0", path, table->std[i], i);
  }
  return STATUS_OK;
}

/* Put the caller's standardisation in place of the file's. */
static enum status standardise_as(struct table_inputs *table, const struct standardisation *as) {
  REQUIRE(as->features == table->features, ERR_FORMAT, "%s has %d features, but the model was trained on %d",
          table->path, table->features, as->features);
  memory_free((void **)&table->mean);
  memory_free((void **)&table->std);
  if (as->mean == NULL)
    return STATUS_OK;
  size_t bytes = (size_t)as->features * sizeof(double);
  TRY(memory_alloc(bytes, (void **)&table->mean));
  TRY(memory_alloc(bytes, (void **)&table->std));
  memcpy(table->mean, as->mean, bytes);
  memcpy(table->std, as->std, bytes);
  return STATUS_OK;
}

/* A descriptor of our own, and room for one run of rows. */
static enum status open_plain(struct table_inputs *table) {
  size_t row_bytes = (size_t)table->features * array_type_bytes(table->stored.nearest);
  table->scratch_rows = row_bytes < READ_BYTES ? (int64_t)(READ_BYTES / row_bytes) : 1;
  TRY(memory_alloc((size_t)table->scratch_rows * row_bytes, (void **)&table->scratch));
  return read_at_open(table->path, table->offset, table->rows * (int64_t)row_bytes, &table->file);
}

enum status table_inputs_open(const struct dataset_layout *layout, const char *path, enum dtype dtype,
                              const struct standardisation *as, struct table_inputs *out) {
  *out = (struct table_inputs){.path = path, .dtype = dtype, .file = -1};
  pthread_mutex_init(&out->lock, NULL);
  TRY(open_stored(out, layout));
  TRY(read_standardisation(out, layout));
  TRY(dataset_layout_names(layout, "feature_names", "feature", out->features, &out->feature_names));
  if (as != NULL)
    TRY(standardise_as(out, as));
  return h5_dataset_is_plain(&out->stored, &out->offset) ? open_plain(out) : STATUS_OK;
}

size_t table_inputs_shared_bytes(const struct table_inputs *table) {
  return table->file >= 0 ? 0 : (size_t)table->rows * (size_t)table->features * dtype_size(table->dtype);
}

enum status table_inputs_allocate(struct table_inputs *table, const struct host_share *share) {
  if (table->file >= 0)
    return STATUS_OK;
  return host_share_alloc(share, table_inputs_shared_bytes(table), &table->values);
}

/* One place for the standardisation, so that all ways of reading give the same bits. */
static double standardised(const struct table_inputs *table, int feature, double value) {
  return table->mean == NULL ? value : (value - table->mean[feature]) / table->std[feature];
}

/* rows of float64 or float32 values -> dtype, standardised. */
static void convert(const struct table_inputs *table, enum array_type type, const void *values, int64_t rows,
                    void *out) {
  int features = table->features;
  for (int64_t row = 0; row < rows; row++) {
    for (int feature = 0; feature < features; feature++) {
      int64_t i = row * features + feature;
      double value = type == ARRAY_F32 ? (double)((const float *)values)[i] : ((const double *)values)[i];
      value = standardised(table, feature, value);
      if (table->dtype == F32)
        ((float *)out)[i] = (float)value;
      else
        ((double *)out)[i] = value;
    }
  }
}

enum status table_inputs_fill(struct table_inputs *table) {
  if (table->file >= 0)
    return STATUS_OK;
  int64_t rows = table->rows, block_rows = h5_dataset_block_rows(&table->stored, READ_BYTES);
  size_t features = (size_t)table->features;
  double *block = NULL;
  enum status status = STATUS_OK;
  TRY(memory_alloc((size_t)block_rows * features * sizeof *block, (void **)&block));
  for (int64_t first = 0; status == STATUS_OK && first < rows; first += block_rows) {
    int64_t count = rows - first < block_rows ? rows - first : block_rows;
    char *out = (char *)table->values + (size_t)first * features * dtype_size(table->dtype);
    status = h5_dataset_read(&table->stored, first, count, ARRAY_F64, block);
    if (status == STATUS_OK)
      convert(table, ARRAY_F64, block, count, out);
  }
  memory_free((void **)&block);
  return status;
}

void table_inputs_release_file(struct table_inputs *table) {
  h5_dataset_close(&table->stored);
}

void table_inputs_close(struct table_inputs *table, const struct host_share *share) {
  if (table->path == NULL) /* images, or never opened */
    return;
  host_share_free(share, &table->values);
  if (table->file >= 0)
    close(table->file);
  memory_free((void **)&table->scratch);
  memory_free((void **)&table->feature_names.text);
  memory_free((void **)&table->std);
  memory_free((void **)&table->mean);
  h5_dataset_close(&table->stored);
  pthread_mutex_destroy(&table->lock);
}

/* Rows that follow each other in the file, up to what the scratch holds. */
static int64_t run_length(const struct table_inputs *table, const int64_t *ids, int64_t n) {
  int64_t run = 1;
  while (run < n && run < table->scratch_rows && ids[run] == ids[0] + run)
    run++;
  return run;
}

static enum status read_plain(const struct table_inputs *table, const int64_t *ids, int64_t n, char *out) {
  enum array_type type = table->stored.nearest;
  size_t row_bytes = (size_t)table->features * array_type_bytes(type);
  size_t out_bytes = (size_t)table->features * dtype_size(table->dtype);
  for (int64_t i = 0; i < n;) {
    int64_t run = run_length(table, ids + i, n - i);
    TRY(read_at(table->file, table->path, table->offset + ids[i] * (int64_t)row_bytes, (size_t)run * row_bytes,
                table->scratch));
    convert(table, type, table->scratch, run, out + (size_t)i * out_bytes);
    i += run;
  }
  return STATUS_OK;
}

static void copy_rows(const struct table_inputs *table, const int64_t *ids, int64_t n, char *out) {
  size_t bytes = (size_t)table->features * dtype_size(table->dtype);
  for (int64_t i = 0; i < n; i++)
    memcpy(out + (size_t)i * bytes, (const char *)table->values + (size_t)ids[i] * bytes, bytes);
}

static enum status check_finite(const struct table_inputs *table, const int64_t *ids, int64_t n, const void *values) {
  int features = table->features;
  for (int64_t i = 0; i < n * features; i++) {
    double value = table->dtype == F32 ? (double)((const float *)values)[i] : ((const double *)values)[i];
    REQUIRE(isfinite(value), ERR_FORMAT, "\"inputs\" in %s is %g at row %lld, feature \"%s\"; mend or remove the row",
            table->path, value, (long long)ids[i / features], table->feature_names.text[i % features]);
  }
  return STATUS_OK;
}

enum status table_inputs_read(struct table_inputs *table, const int64_t *ids, int64_t n, void *out) {
  for (int64_t i = 0; i < n; i++)
    REQUIRE(ids[i] >= 0 && ids[i] < table->rows, ERR_BUG, "row %lld of %s was asked for; it has %lld",
            (long long)ids[i], table->path, (long long)table->rows);
  if (table->values != NULL) {
    copy_rows(table, ids, n, out);
  } else {
    pthread_mutex_lock(&table->lock);
    enum status status = read_plain(table, ids, n, out);
    pthread_mutex_unlock(&table->lock);
    TRY(status);
  }
  return check_finite(table, ids, n, out);
}
