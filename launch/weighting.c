/* From options and labels to sample weights. */
#include "launch/weighting.h"

#include "dist/memory.h"
#include "loss/sample_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum status weighting_labels(const struct dataset *dataset, double **out) {
  const int64_t *ids = dataset_split_ids(dataset, SPLIT_TRAIN);
  int64_t rows = dataset_split_rows(dataset, SPLIT_TRAIN), targets = dataset_targets(dataset);
  TRY(memory_alloc((size_t)(rows * targets) * sizeof **out, (void **)out));
  for (int64_t i = 0; i < rows; i++)
    memcpy(*out + i * targets, dataset_target(dataset) + ids[i] * targets, (size_t)targets * sizeof **out);
  return STATUS_OK;
}

/* ---- options ------------------------------------------------------------------------------- */

static bool by_bins(const struct config *config) {
  return strstr(config->weights, "inverse") != NULL;
}

enum status weighting_bins(const struct config *config, int64_t n, const double *labels, struct label_bins *bins) {
  double number[3];
  if (strcmp(config->weight_bins, "auto") == 0)
    return label_bins_cover(n, labels, 1, bins);
  TRY(config_numbers("weight-bins", config->weight_bins, 3, number));
  REQUIRE(fabs(number[2]) <= LABEL_BINS_MOST && number[2] == rint(number[2]), ERR_ARGUMENT,
          "--weight-bins %s: %g is no count of bins; give LOW,WIDTH,COUNT", config->weight_bins, number[2]);
  *bins = (struct label_bins){number[0], number[1], (int64_t)number[2]};
  return STATUS_OK;
}

enum status weighting_window(const struct config *config, struct label_window *window) {
  enum label_kernel kernel;
  TRY(label_kernel_by_name(config->lds, &kernel));
  return label_window_make(kernel, (int)config->lds_size, config->lds_sigma, WINDOW_BY_MAXIMUM, window);
}

enum label_padding weighting_padding(const struct config *config) {
  return strcmp(config->lds_padding, "reflect") == 0 ? PADDING_REFLECT : PADDING_ZERO;
}

static enum status read_rule(const struct config *config, struct reweighting *rule) {
  double clip[2];
  *rule = reweighting_default(strcmp(config->weights, "inverse") == 0 ? 1 : 0.5);
  TRY(config_numbers("weight-clip", config->weight_clip, 2, clip));
  rule->clip_low = clip[0];
  rule->clip_high = clip[1];
  rule->lds = strcmp(config->lds, "none") != 0;
  rule->lds_truncate = config->lds_truncate;
  rule->padding = weighting_padding(config);
  return rule->lds ? weighting_window(config, &rule->window) : STATUS_OK;
}

/* ---- weights ------------------------------------------------------------------------------- */

static enum status weigh_by_bins(struct config *config, int64_t rows, int targets, const double *labels,
                                 char text[WEIGHTING_TEXT], double *weights) {
  struct label_bins bins;
  struct reweighting rule;
  TRY(read_rule(config, &rule));
  TRY(weighting_bins(config, rows * targets, labels, &bins));
  TRY(reweighting_of_labels(&rule, &bins, rows, targets, labels, weights));
  snprintf(text, WEIGHTING_TEXT, "%.17g,%.17g,%lld", bins.low, bins.width, (long long)bins.count);
  if (strcmp(config->weight_bins, "auto") == 0)
    config->weight_bins = text;
  return STATUS_OK;
}

static enum status weigh(struct config *config, const struct dataset *dataset, const double *labels,
                         char text[WEIGHTING_TEXT], double *weights) {
  int64_t rows = dataset_split_rows(dataset, SPLIT_TRAIN);
  int targets = dataset_targets(dataset);
  if (by_bins(config))
    return weigh_by_bins(config, rows, targets, labels, text, weights);
  REQUIRE(targets == 1, ERR_ARGUMENT,
          "DenseWeight is defined for one label, and those of %s have %d components; use inverse or sqrt-inverse",
          dataset_path(dataset), targets);
  return dense_weights(rows, labels, config->dense_alpha, weights);
}

enum status weighting_create(struct config *config, const struct dataset *dataset, char bins[WEIGHTING_TEXT],
                             double **out) {
  size_t rows = (size_t)dataset_split_rows(dataset, SPLIT_TRAIN);
  double *labels = NULL;
  enum status status;
  *out = NULL;
  REQUIRE(strcmp(config->weights, "file") != 0 || dataset_has_weights(dataset), ERR_ARGUMENT,
          "--weights file, but %s holds none; import it with --weight-column, or choose other weights",
          dataset_path(dataset));
  if (!by_bins(config) && strcmp(config->weights, "dense") != 0)
    return STATUS_OK;
  TRY_GOTO(weighting_labels(dataset, &labels), out);
  TRY_GOTO(memory_alloc(rows * sizeof **out, (void **)out), out);
  status = weigh(config, dataset, labels, bins, *out);
  if (status == ERR_ARGUMENT)
    status = fail(status, "--weights %s: %s", config->weights, status_message());
out:
  if (status != STATUS_OK)
    memory_free((void **)out);
  memory_free((void **)&labels);
  return status;
}

/* ---- what is said of them ------------------------------------------------------------------ */

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

enum status weighting_summary(const struct config *config, const struct dataset *dataset, const double *weights,
                              char summary[WEIGHTING_TEXT]) {
  int64_t rows = dataset_split_rows(dataset, SPLIT_TRAIN);
  const int64_t *ids = dataset_split_ids(dataset, SPLIT_TRAIN);
  const double *of_file = dataset_weight(dataset);
  double *sorted;
  summary[0] = '\0';
  if (strcmp(config->weights, "none") == 0 || (weights == NULL && of_file == NULL))
    return STATUS_OK;
  TRY(memory_alloc((size_t)rows * sizeof *sorted, (void **)&sorted));
  for (int64_t i = 0; i < rows; i++)
    sorted[i] = weights != NULL ? weights[i] : of_file[ids[i]];
  qsort(sorted, (size_t)rows, sizeof *sorted, compare);
  bool lds = by_bins(config) && strcmp(config->lds, "none") != 0;
  snprintf(summary, WEIGHTING_TEXT, "sample weights: %s%s%s%s; %.4g to %.4g, median %.4g",
           weights != NULL ? config->weights : "of the file", lds ? ", " : "", lds ? config->lds : "",
           lds ? " LDS" : "", sorted[0], sorted[rows - 1], (sorted[(rows - 1) / 2] + sorted[rows / 2]) / 2);
  memory_free((void **)&sorted);
  return STATUS_OK;
}
