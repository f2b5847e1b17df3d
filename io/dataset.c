/* A table: metadata on every rank, labels (and inputs that are not plain) once a host. */
#include "io/dataset.h"

#include "dist/memory.h"
#include "io/dataset_layout.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

/* Plain inputs are read by runs of up to this many bytes, other inputs in blocks of about as many. */
#define READ_BYTES ((size_t)1 << 20)

/* Written by one rank of a host, read by all of them.  Behind it: targets, weights, split ids. */
struct labels {
  int64_t split_first[SPLIT_COUNT + 1]; /* where each split's ids begin */
  uint64_t hash;
};

struct dataset {
  char *path;
  struct comm *comm; /* borrowed: must outlive this; NULL = one process */
  enum dtype dtype;
  struct dataset_layout layout; /* its file is closed after dataset_open */
  struct labels *labels;        /* the communicator's, or owned without one; so are the arrays below */
  double *targets;              /* [rows, K], in the block of labels */
  double *weights;              /* [rows], there too; NULL when the file has none */
  int64_t *split_ids;           /* [rows], there too: ids of train, validation, test, each in file order */
  void *inputs;                 /* [rows, features] dtype, standardised; NULL when they are read from the file */
  int file;                     /* plain inputs: descriptor, -1 otherwise */
  int64_t offset;               /* plain inputs: first byte in the file   */
  char *scratch;                /* one run of stored rows                 */
  int64_t scratch_rows;
};

const char *split_name(enum split split) {
  static const char *const names[] = {"training", "validation", "test"};
  return names[split];
}

static bool is_node_root(const struct dataset *dataset) {
  return dataset->comm == NULL || comm_node_rank(dataset->comm) == 0;
}

static enum status agree(const struct dataset *dataset, enum status status) {
  return dataset->comm == NULL ? status : comm_agree(dataset->comm, status);
}

/* Do all ranks see these numbers?  A stale copy on one host would otherwise hang or, worse, train.  Collective. */
static enum status same_everywhere(const struct dataset *dataset, const int64_t *values, size_t count) {
  int64_t bounds[16]; /* the largest of each value and of its complement */
  if (dataset->comm == NULL)
    return STATUS_OK;
  for (size_t i = 0; i < count; i++) {
    bounds[2 * i] = values[i];
    bounds[2 * i + 1] = ~values[i];
  }
  TRY(comm_max_i64(dataset->comm, bounds, 2 * count));
  for (size_t i = 0; i < count; i++)
    REQUIRE(bounds[2 * i] == ~bounds[2 * i + 1], ERR_FORMAT,
            "%s is not the same file on all hosts; copy it again or use a shared folder", dataset->path);
  return STATUS_OK;
}

/* Memory of the host when there is a communicator.  Collective then. */
static enum status host_alloc(const struct dataset *dataset, size_t bytes, void **out) {
  if (dataset->comm == NULL)
    return memory_alloc(bytes, out);
  return comm_agree(dataset->comm, comm_node_alloc(dataset->comm, bytes, out));
}

/* One place for the standardisation, so that all ways of reading give the same bits. */
static double standardised(const struct dataset *dataset, int feature, double value) {
  const struct dataset_layout *layout = &dataset->layout;
  return layout->mean == NULL ? value : (value - layout->mean[feature]) / layout->std[feature];
}

/* rows of float64 or float32 values -> dtype, standardised. */
static void convert(const struct dataset *dataset, enum array_type type, const void *values, int64_t rows, void *out) {
  int features = dataset->layout.features;
  for (int64_t row = 0; row < rows; row++) {
    for (int feature = 0; feature < features; feature++) {
      int64_t i = row * features + feature;
      double value = type == ARRAY_F32 ? (double)((const float *)values)[i] : ((const double *)values)[i];
      value = standardised(dataset, feature, value);
      if (dataset->dtype == F32)
        ((float *)out)[i] = (float)value;
      else
        ((double *)out)[i] = value;
    }
  }
}

/* Ids of each split in file order, by counting. */
static void sort_by_split(const struct dataset *dataset, const uint8_t *split) {
  int64_t *first = dataset->labels->split_first, next[SPLIT_COUNT], rows = dataset->layout.rows;
  memset(first, 0, (SPLIT_COUNT + 1) * sizeof *first);
  for (int64_t i = 0; i < rows; i++)
    first[split[i] + 1]++;
  for (int i = 0; i < SPLIT_COUNT; i++)
    first[i + 1] += first[i];
  memcpy(next, first, sizeof next);
  for (int64_t i = 0; i < rows; i++)
    dataset->split_ids[next[split[i]]++] = i;
}

/* Two crc32: of the targets, and of everything else that is in memory. */
static uint64_t hash_labels(const struct dataset *dataset, const uint8_t *split) {
  const struct dataset_layout *layout = &dataset->layout;
  size_t rows = (size_t)layout->rows, features = (size_t)layout->features;
  int64_t shape[3] = {layout->rows, layout->features, layout->target_count};
  uint64_t targets =
      crc32_z(0, (const void *)dataset->targets, rows * (size_t)layout->target_count * sizeof *dataset->targets);
  uLong others = crc32_z(0, (const void *)shape, sizeof shape);
  others = crc32_z(others, split, rows);
  if (dataset->weights != NULL)
    others = crc32_z(others, (const void *)dataset->weights, rows * sizeof *dataset->weights);
  if (layout->mean != NULL) {
    others = crc32_z(others, (const void *)layout->mean, features * sizeof *layout->mean);
    others = crc32_z(others, (const void *)layout->std, features * sizeof *layout->std);
  }
  return targets << 32 | others;
}

/* The node's root reads and checks what all of them use. */
static enum status read_labels(struct dataset *dataset) {
  uint8_t *split = NULL;
  TRY(memory_alloc((size_t)dataset->layout.rows, (void **)&split));
  enum status status = dataset_layout_read_labels(&dataset->layout, dataset->targets, dataset->weights, split);
  if (status == STATUS_OK) {
    sort_by_split(dataset, split);
    dataset->labels->hash = hash_labels(dataset, split);
  }
  memory_free((void **)&split);
  return status;
}

static enum status read_inputs(struct dataset *dataset) {
  const struct h5_dataset *inputs = &dataset->layout.inputs;
  int64_t rows = dataset->layout.rows, block_rows = h5_dataset_block_rows(inputs, READ_BYTES);
  size_t features = (size_t)dataset->layout.features;
  double *block = NULL;
  enum status status = STATUS_OK;
  TRY(memory_alloc((size_t)block_rows * features * sizeof *block, (void **)&block));
  for (int64_t first = 0; status == STATUS_OK && first < rows; first += block_rows) {
    int64_t count = rows - first < block_rows ? rows - first : block_rows;
    char *out = (char *)dataset->inputs + (size_t)first * features * dtype_size(dataset->dtype);
    status = h5_dataset_read(inputs, first, count, ARRAY_F64, block);
    if (status == STATUS_OK)
      convert(dataset, ARRAY_F64, block, count, out);
  }
  memory_free((void **)&block);
  return status;
}

/* Local: the file, its metadata and, for plain inputs, a descriptor of our own. */
static enum status open_file(struct dataset *dataset, const char *path) {
  TRY(memory_alloc(strlen(path) + 1, (void **)&dataset->path));
  strcpy(dataset->path, path);
  TRY(dataset_layout_open(path, &dataset->layout));
  const struct h5_dataset *inputs = &dataset->layout.inputs;
  if (!h5_dataset_is_plain(inputs, &dataset->offset))
    return STATUS_OK;
  size_t row_bytes = (size_t)dataset->layout.features * array_type_bytes(inputs->nearest);
  dataset->scratch_rows = row_bytes < READ_BYTES ? (int64_t)(READ_BYTES / row_bytes) : 1;
  TRY(memory_alloc((size_t)dataset->scratch_rows * row_bytes, (void **)&dataset->scratch));
  dataset->file = open(path, O_RDONLY | O_CLOEXEC);
  REQUIRE(dataset->file >= 0, ERR_FILE, "cannot open %s: %s", path, strerror(errno));
  return STATUS_OK;
}

/* Collective: the host's memory, and the arrays inside. */
static enum status allocate(struct dataset *dataset) {
  const struct dataset_layout *layout = &dataset->layout;
  size_t rows = (size_t)layout->rows, targets = rows * (size_t)layout->target_count;
  size_t bytes = sizeof *dataset->labels + 8 * (targets + rows + (layout->has_weights ? rows : 0));
  TRY(host_alloc(dataset, bytes, (void **)&dataset->labels));
  dataset->targets = (double *)(dataset->labels + 1);
  void *after_targets = dataset->targets + targets;
  dataset->split_ids = after_targets;
  void *after_split = dataset->split_ids + rows;
  dataset->weights = layout->has_weights ? after_split : NULL;
  if (dataset->file >= 0)
    return STATUS_OK;
  return host_alloc(dataset, rows * (size_t)layout->features * dtype_size(dataset->dtype), &dataset->inputs);
}

/* Collective: one rank a host reads, the others wait for it, whether it succeeds or not. */
static enum status fill(struct dataset *dataset) {
  enum status status = STATUS_OK;
  if (is_node_root(dataset)) {
    status = read_labels(dataset);
    if (status == STATUS_OK && dataset->inputs != NULL)
      status = read_inputs(dataset);
  }
  if (dataset->comm != NULL) {
    enum status waited = comm_node_barrier(dataset->comm);
    status = status != STATUS_OK ? status : waited;
  }
  TRY(agree(dataset, status));
  int64_t hash = (int64_t)dataset->labels->hash;
  return same_everywhere(dataset, &hash, 1);
}

/* Put the caller's standardisation in place of the file's. */
static enum status standardise_as(struct dataset *dataset, const struct standardisation *as) {
  struct dataset_layout *layout = &dataset->layout;
  if (as == NULL)
    return STATUS_OK;
  REQUIRE(as->features == layout->features, ERR_FORMAT, "%s has %d features, but the model was trained on %d",
          dataset->path, layout->features, as->features);
  memory_free((void **)&layout->mean);
  memory_free((void **)&layout->std);
  if (as->mean == NULL)
    return STATUS_OK;
  size_t bytes = (size_t)as->features * sizeof(double);
  TRY(memory_alloc(bytes, (void **)&layout->mean));
  TRY(memory_alloc(bytes, (void **)&layout->std));
  memcpy(layout->mean, as->mean, bytes);
  memcpy(layout->std, as->std, bytes);
  return STATUS_OK;
}

static enum status open_together(struct dataset *dataset, const char *path, const struct standardisation *as) {
  TRY(agree(dataset, open_file(dataset, path)));
  TRY(agree(dataset, standardise_as(dataset, as)));
  const struct dataset_layout *layout = &dataset->layout;
  int64_t shape[] = {layout->rows,        layout->features,   layout->target_count,
                     layout->has_weights, dataset->file >= 0, dataset->dtype};
  TRY(same_everywhere(dataset, shape, sizeof shape / sizeof *shape));
  TRY(allocate(dataset));
  TRY(fill(dataset));
  h5_dataset_close(&dataset->layout.weights);
  h5_dataset_close(&dataset->layout.split);
  h5_dataset_close(&dataset->layout.targets);
  h5_dataset_close(&dataset->layout.inputs);
  return h5_close(&dataset->layout.file);
}

enum status dataset_open(const char *path, struct comm *comm, enum dtype dtype, struct dataset **out) {
  return dataset_open_as(path, comm, dtype, NULL, out);
}

enum status dataset_open_as(const char *path, struct comm *comm, enum dtype dtype, const struct standardisation *as,
                            struct dataset **out) {
  struct dataset *dataset = NULL;
  *out = NULL;
  enum status status = memory_alloc_zero(sizeof *dataset, (void **)&dataset);
  if (comm != NULL)
    status = comm_agree(comm, status);
  if (status == STATUS_OK) {
    dataset->comm = comm;
    dataset->dtype = dtype;
    dataset->file = -1;
    status = open_together(dataset, path, as);
  }
  if (status == STATUS_OK)
    *out = dataset;
  else
    dataset_close(&dataset);
  return status;
}

void dataset_close(struct dataset **dataset_pointer) {
  struct dataset *dataset = *dataset_pointer;
  if (dataset == NULL)
    return;
  if (dataset->comm == NULL) {
    memory_free(&dataset->inputs);
    memory_free((void **)&dataset->labels);
  }
  if (dataset->file >= 0)
    close(dataset->file);
  memory_free((void **)&dataset->scratch);
  dataset_layout_close(&dataset->layout);
  memory_free((void **)&dataset->path);
  memory_free((void **)dataset_pointer);
}

const char *dataset_path(const struct dataset *dataset) {
  return dataset->path;
}

enum dtype dataset_dtype(const struct dataset *dataset) {
  return dataset->dtype;
}

int64_t dataset_rows(const struct dataset *dataset) {
  return dataset->layout.rows;
}

int dataset_features(const struct dataset *dataset) {
  return dataset->layout.features;
}

int dataset_targets(const struct dataset *dataset) {
  return dataset->layout.target_count;
}

const char *dataset_feature_name(const struct dataset *dataset, int feature) {
  return dataset->layout.feature_names.text[feature];
}

const char *dataset_target_name(const struct dataset *dataset, int target) {
  return dataset->layout.target_names.text[target];
}

const char *dataset_source(const struct dataset *dataset) {
  return dataset->layout.source != NULL ? dataset->layout.source : "";
}

bool dataset_has_weights(const struct dataset *dataset) {
  return dataset->weights != NULL;
}

uint64_t dataset_hash(const struct dataset *dataset) {
  return dataset->labels->hash;
}

int64_t dataset_split_rows(const struct dataset *dataset, enum split split) {
  return dataset->labels->split_first[split + 1] - dataset->labels->split_first[split];
}

const int64_t *dataset_split_ids(const struct dataset *dataset, enum split split) {
  return dataset->split_ids + dataset->labels->split_first[split];
}

const double *dataset_target(const struct dataset *dataset) {
  return dataset->targets;
}

const double *dataset_weight(const struct dataset *dataset) {
  return dataset->weights;
}

const double *dataset_mean(const struct dataset *dataset) {
  return dataset->layout.mean;
}

const double *dataset_std(const struct dataset *dataset) {
  return dataset->layout.std;
}

enum status dataset_require_split(const struct dataset *dataset, enum split split, const char *purpose) {
  int64_t rows = dataset_split_rows(dataset, split);
  const int64_t *ids = dataset_split_ids(dataset, split);
  REQUIRE(rows > 0, ERR_FORMAT, "%s has no %s rows, needed for %s; set \"split\" to %d for some", dataset->path,
          split_name(split), purpose, (int)split);
  bool weighted = dataset->weights == NULL;
  for (int64_t i = 0; !weighted && i < rows; i++)
    weighted = dataset->weights[ids[i]] > 0;
  REQUIRE(weighted, ERR_FORMAT, "all %lld %s rows of %s have weight 0, so nothing is left for %s", (long long)rows,
          split_name(split), dataset->path, purpose);
  return STATUS_OK;
}

enum status dataset_require_varied_targets(const struct dataset *dataset) {
  int64_t rows = dataset_split_rows(dataset, SPLIT_TRAIN);
  const int64_t *ids = dataset_split_ids(dataset, SPLIT_TRAIN);
  int targets = dataset_targets(dataset);
  for (int k = 0; rows > 0 && k < targets; k++) {
    double first = dataset->targets[ids[0] * targets + k];
    int64_t i = 1;
    while (i < rows && dataset->targets[ids[i] * targets + k] == first)
      i++;
    REQUIRE(i < rows, ERR_FORMAT,
            "target \"%s\" is %g in all %lld training rows of %s; there is nothing to learn from a constant target",
            dataset_target_name(dataset, k), first, (long long)rows, dataset->path);
  }
  return STATUS_OK;
}

/* All of `bytes` at `offset`, or a sentence. */
static enum status read_at(const struct dataset *dataset, int64_t offset, size_t bytes, char *out) {
  while (bytes > 0) {
    ssize_t got = pread(dataset->file, out, bytes, (off_t)offset);
    if (got < 0 && errno == EINTR)
      continue;
    REQUIRE(got >= 0, ERR_FILE, "cannot read %s: %s", dataset->path, strerror(errno));
    REQUIRE(got > 0, ERR_FILE, "%s was cut short while it was in use: byte %lld is gone", dataset->path,
            (long long)offset);
    out += got;
    offset += got;
    bytes -= (size_t)got;
  }
  return STATUS_OK;
}

/* Rows that follow each other in the file, up to what the scratch holds. */
static int64_t run_length(const struct dataset *dataset, const int64_t *ids, int64_t n) {
  int64_t run = 1;
  while (run < n && run < dataset->scratch_rows && ids[run] == ids[0] + run)
    run++;
  return run;
}

static enum status read_plain(const struct dataset *dataset, const int64_t *ids, int64_t n, char *out) {
  enum array_type type = dataset->layout.inputs.nearest;
  size_t row_bytes = (size_t)dataset->layout.features * array_type_bytes(type);
  size_t out_bytes = (size_t)dataset->layout.features * dtype_size(dataset->dtype);
  for (int64_t i = 0; i < n;) {
    int64_t run = run_length(dataset, ids + i, n - i);
    TRY(read_at(dataset, dataset->offset + ids[i] * (int64_t)row_bytes, (size_t)run * row_bytes, dataset->scratch));
    convert(dataset, type, dataset->scratch, run, out + (size_t)i * out_bytes);
    i += run;
  }
  return STATUS_OK;
}

static void copy_rows(const struct dataset *dataset, const int64_t *ids, int64_t n, char *out) {
  size_t bytes = (size_t)dataset->layout.features * dtype_size(dataset->dtype);
  for (int64_t i = 0; i < n; i++)
    memcpy(out + (size_t)i * bytes, (const char *)dataset->inputs + (size_t)ids[i] * bytes, bytes);
}

static enum status check_finite(const struct dataset *dataset, const int64_t *ids, int64_t n, const void *values) {
  int features = dataset->layout.features;
  for (int64_t i = 0; i < n * features; i++) {
    double value = dataset->dtype == F32 ? (double)((const float *)values)[i] : ((const double *)values)[i];
    REQUIRE(isfinite(value), ERR_FORMAT, "\"inputs\" in %s is %g at row %lld, feature \"%s\"; mend or remove the row",
            dataset->path, value, (long long)ids[i / features], dataset_feature_name(dataset, (int)(i % features)));
  }
  return STATUS_OK;
}

enum status dataset_read(struct dataset *dataset, const int64_t *ids, int64_t n, void *out) {
  for (int64_t i = 0; i < n; i++)
    REQUIRE(ids[i] >= 0 && ids[i] < dataset->layout.rows, ERR_BUG, "row %lld of %s was asked for; it has %lld",
            (long long)ids[i], dataset->path, (long long)dataset->layout.rows);
  if (dataset->inputs != NULL)
    copy_rows(dataset, ids, n, out);
  else
    TRY(read_plain(dataset, ids, n, out));
  return check_finite(dataset, ids, n, out);
}
