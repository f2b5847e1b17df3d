/* What an import says of its table: counts, and a histogram per target. */
#include "io/import_report.h"

#include "dist/memory.h"
#include "io/h5.h"

#include <math.h>
#include <string.h>

#define EQUAL_BINS 20
#define BAR_COLUMNS 50
#define BLOCK_BYTES ((size_t)1 << 20)

enum status import_report_set_text(char **owned, const char *text) {
  memory_free((void **)owned);
  TRY(memory_alloc(strlen(text) + 1, (void **)owned));
  strcpy(*owned, text);
  return STATUS_OK;
}

enum status import_report_create(const char *output_path, struct import_report **out) {
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  enum status status = import_report_set_text(&(*out)->output_path, output_path);
  if (status != STATUS_OK)
    import_report_destroy(out);
  return status;
}

void import_report_destroy(struct import_report **report) {
  if (*report == NULL)
    return;
  for (int k = 0; k < (*report)->target_count; k++)
    memory_free((void **)&(*report)->targets[k].name);
  memory_free((void **)&(*report)->targets);
  memory_free((void **)&(*report)->constant_name);
  memory_free((void **)&(*report)->output_path);
  memory_free((void **)report);
}

/* The training labels of a block of rows are given to `add`, [rows, K]. */
typedef void label_function(struct import_report *report, const double *label);

static enum status each_block(struct import_report *report, const struct h5_dataset *targets,
                              const struct h5_dataset *split, int64_t block_rows, double *labels, uint8_t *splits,
                              label_function *add) {
  for (int64_t first = 0; first < targets->shape[0]; first += block_rows) {
    int64_t rows = targets->shape[0] - first < block_rows ? targets->shape[0] - first : block_rows;
    TRY(h5_dataset_read(targets, first, rows, ARRAY_F64, labels));
    TRY(h5_dataset_read(split, first, rows, ARRAY_U8, splits));
    for (int64_t i = 0; i < rows; i++)
      if (splits[i] == SPLIT_TRAIN)
        add(report, labels + i * report->target_count);
  }
  return STATUS_OK;
}

/* First look: range and mean. */
static void add_to_range(struct import_report *report, const double *label) {
  for (int k = 0; k < report->target_count; k++) {
    struct import_histogram *target = &report->targets[k];
    target->minimum = fmin(target->minimum, label[k]);
    target->maximum = fmax(target->maximum, label[k]);
    target->mean += label[k] / (double)report->split_rows[SPLIT_TRAIN];
    target->whole = target->whole && label[k] == floor(label[k]);
  }
}

/* Equal bins over the range; whole numbers get a whole width, so that no bin holds more values than another. */
static void place_bins(struct import_histogram *target) {
  double range = target->maximum - target->minimum;
  target->first = target->minimum;
  target->bins = range > 0 ? EQUAL_BINS : 1;
  target->width = range > 0 ? range / EQUAL_BINS : 1;
  if (target->whole && range < 1e15) {
    target->width = ceil((range + 1) / EQUAL_BINS);
    target->bins = (int)ceil((range + 1) / target->width);
  }
}

/* Second look: counts. */
static void add_to_bins(struct import_report *report, const double *label) {
  for (int k = 0; k < report->target_count; k++) {
    struct import_histogram *target = &report->targets[k];
    int bin = (int)((label[k] - target->first) / target->width);
    target->count[bin < target->bins ? bin : target->bins - 1]++;
  }
}

static enum status count_open_targets(struct import_report *report, struct h5_dataset *targets,
                                      struct h5_dataset *split) {
  double *labels = NULL;
  uint8_t *splits = NULL;
  enum status status;
  int64_t block_rows = h5_dataset_block_rows(targets, BLOCK_BYTES);
  TRY_GOTO(memory_alloc((size_t)block_rows * (size_t)report->target_count * sizeof *labels, (void **)&labels), out);
  TRY_GOTO(memory_alloc((size_t)block_rows, (void **)&splits), out);
  TRY_GOTO(each_block(report, targets, split, block_rows, labels, splits, add_to_range), out);
  for (int k = 0; k < report->target_count; k++)
    place_bins(&report->targets[k]);
  TRY_GOTO(each_block(report, targets, split, block_rows, labels, splits, add_to_bins), out);
out:
  memory_free((void **)&splits);
  memory_free((void **)&labels);
  return status;
}

static enum status prepare_targets(struct import_report *report, const char *const *names, int count) {
  TRY(memory_alloc_zero((size_t)count * sizeof *report->targets, (void **)&report->targets));
  report->target_count = count;
  for (int k = 0; k < count; k++) {
    report->targets[k].minimum = INFINITY;
    report->targets[k].maximum = -INFINITY;
    report->targets[k].whole = true;
    TRY(import_report_set_text(&report->targets[k].name, names[k]));
  }
  return STATUS_OK;
}

enum status import_report_count_targets(struct import_report *report, const char *path, const char *const *names,
                                        int count) {
  struct h5_file *file;
  struct h5_dataset targets = {0}, split = {0};
  enum status status;
  TRY(prepare_targets(report, names, count));
  TRY(h5_open(path, &file));
  TRY_GOTO(h5_dataset_open(file, "targets", &targets), out);
  TRY_GOTO(h5_dataset_open(file, "split", &split), out);
  TRY_GOTO(count_open_targets(report, &targets, &split), out);
out:
  h5_dataset_close(&split);
  h5_dataset_close(&targets);
  h5_close(&file);
  return status;
}

/* The edge between bins `bin` - 1 and `bin`; 0 is 0, not what rounding leaves of it. */
static double bin_edge(const struct import_histogram *target, int bin) {
  double edge = target->first + bin * target->width;
  return fabs(edge) < 1e-9 * target->width ? 0 : edge;
}

static void print_histogram(const struct import_histogram *target, int64_t rows, FILE *stream) {
  int64_t most = 1;
  for (int bin = 0; bin < target->bins; bin++)
    most = target->count[bin] > most ? target->count[bin] : most;
  fprintf(stream, "\ntarget \"%s\": %lld training labels, %g to %g, mean %.4g\n", target->name, (long long)rows,
          target->minimum, target->maximum, target->mean);
  for (int bin = 0; bin < target->bins; bin++) {
    double low = bin_edge(target, bin), high = bin_edge(target, bin + 1);
    int64_t count = target->count[bin];
    /* Any label at all shows: rare bins are what this is about. */
    int bar = (int)(BAR_COLUMNS * count / most);
    bar = count > 0 && bar == 0 ? 1 : bar;
    if (target->whole && target->width == 1)
      fprintf(stream, "  %19.10g", low);
    else
      fprintf(stream, "  %8.4g .. %-7.4g", low, target->whole ? high - 1 : high);
    fprintf(stream, " %9lld %5.1f%%  %.*s\n", (long long)count, 100.0 * (double)count / (double)rows, bar,
            "##################################################");
  }
}

/* What a protocol made of the rows. */
static void print_protocol(const struct protocol_report *protocol, FILE *stream) {
  if (protocol->tested_bins > 0)
    fprintf(stream, "  drawn from %lld, %lld and %lld different rows; %lld label bins are tested\n",
            (long long)protocol->sources[SPLIT_TRAIN], (long long)protocol->sources[SPLIT_VAL],
            (long long)protocol->sources[SPLIT_TEST], (long long)protocol->tested_bins);
}

void import_report_print_targets(const struct import_report *report, FILE *stream) {
  print_protocol(&report->protocol, stream);
  for (int k = 0; k < report->target_count; k++)
    print_histogram(&report->targets[k], report->split_rows[SPLIT_TRAIN], stream);
}

void import_report_print(const struct import_report *report, FILE *stream) {
  fprintf(stream, "%s: %lld rows, %d features (%d numeric columns, %d nominal), %d target%s\n", report->output_path,
          (long long)report->rows, report->features, report->numeric_columns, report->nominal_columns,
          report->target_count, report->target_count == 1 ? "" : "s");
  fprintf(stream, "  training %lld, validation %lld, test %lld\n", (long long)report->split_rows[SPLIT_TRAIN],
          (long long)report->split_rows[SPLIT_VAL], (long long)report->split_rows[SPLIT_TEST]);
  if (report->rows_dropped > 0)
    fprintf(stream, "  %lld rows with a missing value were left out\n", (long long)report->rows_dropped);
  if (report->values_filled > 0)
    fprintf(stream, "  %lld missing values were filled\n", (long long)report->values_filled);
  if (report->constant_features > 0)
    fprintf(stream, "  constant in training: \"%s\"%s\n", report->constant_name,
            report->constant_features > 1 ? " and others" : "");
  import_report_print_targets(report, stream);
}
