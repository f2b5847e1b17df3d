/* Metrics on a GPU: what stays the same between evaluations, and the calls. */
#include "loss/metrics_cuda.h"

#include "dist/memory.h"
#include "loss/metrics_kernels.h"

#include <math.h>
#include <string.h>

/* Columns and ranks are those of metrics_kernels.h; all on the device but what is said. */
struct metrics_device {
  struct device *device;         /* borrowed: must outlive this */
  const struct metrics *metrics; /* borrowed: likewise          */
  struct metrics_places places;  /* on the host                 */
  struct metrics_shape shape;
  size_t scratch_bytes;
  int32_t *row, *first; /* of the places */
  double *labels, *predictions, *label_ranks, *prediction_ranks;
  double *sorted;           /* [rows]                     */
  void *scratch;            /* [scratch_bytes]            */
  struct metrics_bin *bins; /* [bins]                     */
  struct result {
    struct metrics_found *found; /* [METRICS_GROUPS]            */
    double *correlations;        /* [METRICS_GROUPS, targets, 2] */
  } result, result_host;         /* result_host: pinned         */
};

static size_t found_bytes(void) {
  return METRICS_GROUPS * sizeof(struct metrics_found);
}

static size_t correlation_bytes(const struct metrics_device *own) {
  return METRICS_GROUPS * (size_t)own->shape.targets * 2 * sizeof(double);
}

static void describe(struct metrics_device *own) {
  own->shape = (struct metrics_shape){.rows = own->places.rows,
                                      .bins = own->places.bins,
                                      .targets = metrics_targets(own->metrics),
                                      .rule = metrics_gmean_rule(own->metrics)};
  own->scratch_bytes = metrics_sort_bytes(own->places.rows);
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++) {
    own->shape.bins_of[group] = own->places.bins_of[group];
    own->shape.places_of[group] = metrics_places_of(&own->places, (enum metrics_group)group);
  }
}

enum { BLOCKS = 11 };

struct block {
  void **place;
  size_t bytes;
};

static void list_blocks(struct metrics_device *own, struct block out[BLOCKS]) {
  size_t rows = (size_t)own->shape.rows, column = rows * (size_t)own->shape.targets * sizeof(double);
  const struct block blocks[BLOCKS] = {{(void **)&own->row, rows * sizeof *own->row},
                                       {(void **)&own->first, (size_t)(own->shape.bins + 1) * sizeof *own->first},
                                       {(void **)&own->labels, column},
                                       {(void **)&own->predictions, column},
                                       {(void **)&own->label_ranks, 2 * column},
                                       {(void **)&own->prediction_ranks, 2 * column},
                                       {(void **)&own->sorted, rows * sizeof *own->sorted},
                                       {&own->scratch, own->scratch_bytes},
                                       {(void **)&own->bins, (size_t)own->shape.bins * sizeof *own->bins},
                                       {(void **)&own->result.found, found_bytes()},
                                       {(void **)&own->result.correlations, correlation_bytes(own)}};
  memcpy(out, blocks, sizeof blocks);
}

static enum status allocate(struct metrics_device *own) {
  struct block blocks[BLOCKS];
  list_blocks(own, blocks);
  for (int i = 0; i < BLOCKS; i++)
    TRY(device_alloc(own->device, blocks[i].bytes > 0 ? blocks[i].bytes : 1, blocks[i].place));
  TRY(device_alloc_pinned(own->device, found_bytes(), (void **)&own->result_host.found));
  return device_alloc_pinned(own->device, correlation_bytes(own), (void **)&own->result_host.correlations);
}

/* The ranks of columns among all rows and among those of each shot class. */
static enum status rank_columns(struct metrics_device *own, const double *columns, double *ranks) {
  int64_t rows = own->shape.rows, targets = own->shape.targets;
  for (int64_t k = 0; k < targets; k++)
    for (int group = METRICS_ALL; group < METRICS_GROUPS; group++) {
      struct metrics_range range = own->shape.places_of[group];
      double *to = ranks + (group == METRICS_ALL ? k : targets + k) * rows + range.first;
      TRY(metrics_ranks_launch(range.next - range.first, columns + k * rows + range.first, own->sorted, own->scratch,
                               own->scratch_bytes, to, device_main(own->device)));
    }
  return STATUS_OK;
}

/* Everything that depends on labels alone goes to the device. */
static enum status send_labels(struct metrics_device *own, const double *labels) {
  int64_t rows = own->shape.rows, targets = own->shape.targets;
  size_t bytes = (size_t)(rows * targets) * sizeof(double);
  double *columns;
  TRY(memory_alloc(bytes, (void **)&columns));
  for (int64_t place = 0; place < rows; place++)
    for (int64_t k = 0; k < targets; k++)
      columns[k * rows + place] = labels[own->places.row[place] * targets + k];
  enum status status;
  TRY_GOTO(device_copy(own->device, own->labels, columns, bytes), out);
  TRY_GOTO(device_copy(own->device, own->row, own->places.row, (size_t)rows * sizeof *own->row), out);
  TRY_GOTO(device_copy(own->device, own->first, own->places.first, (size_t)(own->places.bins + 1) * sizeof *own->first),
           out);
  status = rank_columns(own, own->labels, own->label_ranks);
out:
  memory_free((void **)&columns);
  return status;
}

enum status metrics_device_create(struct device *device, const struct metrics *metrics, int64_t rows,
                                  const double *labels, struct metrics_device **out) {
  *out = NULL;
  struct metrics_device *own;
  enum status status;
  TRY(memory_alloc_zero(sizeof *own, (void **)&own));
  own->device = device;
  own->metrics = metrics;
  TRY_GOTO(metrics_places_create(metrics, F64, rows, labels, &own->places), failed);
  describe(own);
  TRY_GOTO(allocate(own), failed);
  TRY_GOTO(send_labels(own, labels), failed);
  *out = own;
  return STATUS_OK;
failed:
  metrics_device_destroy(&own);
  return status;
}

void metrics_device_destroy(struct metrics_device **metrics) {
  struct metrics_device *own = *metrics;
  struct block blocks[BLOCKS];
  if (own == NULL)
    return;
  device_free_pinned(own->device, (void **)&own->result_host.correlations);
  device_free_pinned(own->device, (void **)&own->result_host.found);
  list_blocks(own, blocks);
  for (int i = 0; i < BLOCKS; i++)
    device_free(own->device, blocks[i].place);
  metrics_places_free(&own->places);
  memory_free((void **)metrics);
}

static enum status queue(struct metrics_device *own, enum dtype dtype, const void *predictions) {
  struct stream *stream = device_main(own->device);
  TRY(metrics_columns_launch(dtype, &own->shape, own->row, predictions, own->predictions, stream));
  TRY(metrics_errors_launch(&own->shape, own->row, own->first, own->predictions, own->labels, own->bins,
                            own->result.found, stream));
  TRY(rank_columns(own, own->predictions, own->prediction_ranks));
  TRY(metrics_correlations_launch(&own->shape, own->predictions, own->labels, own->prediction_ranks, own->label_ranks,
                                  own->result.correlations, stream));
  TRY(device_copy(own->device, own->result_host.found, own->result.found, found_bytes()));
  return device_copy(own->device, own->result_host.correlations, own->result.correlations, correlation_bytes(own));
}

/* The sentence names the value, which is fetched for it. */
static enum status name_bad(struct metrics_device *own, enum dtype dtype, const void *predictions, int64_t at) {
  union {
    float single;
    double whole;
  } value;
  size_t bytes = dtype_size(dtype);
  TRY(device_copy(own->device, &value, (const char *)predictions + (size_t)at * bytes, bytes));
  TRY(device_wait(own->device));
  return metrics_bad_prediction(own->metrics, at, dtype == F32 ? (double)value.single : value.whole);
}

enum status metrics_device_compute(struct metrics_device *own, enum dtype dtype, const void *predictions,
                                   struct metrics_table *table) {
  REQUIRE(dtype == F32 || dtype == F64, ERR_BUG, "metrics of predictions of type %s", dtype_name(dtype));
  const struct result *result = &own->result_host;
  if (own->shape.rows > 0) {
    TRY(queue(own, dtype, predictions));
    TRY(device_wait(own->device)); /* the table is wanted */
    double bad = result->found[METRICS_ALL].bad;
    if (bad < INFINITY)
      return name_bad(own, dtype, predictions, (int64_t)bad);
  }
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++)
    metrics_finish(own->metrics, &own->places, (enum metrics_group)group, &result->found[group].sums,
                   result->correlations + group * own->shape.targets * 2, &table->row[group]);
  return STATUS_OK;
}
