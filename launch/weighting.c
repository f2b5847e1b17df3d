/* From options and labels to sample weights. */
#include "launch/weighting.h"

#include "dist/memory.h"
#include "launch/heads.h"
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

static enum status read_rule(const struct config *config, double power, struct reweighting *rule) {
  double clip[2];
  *rule = reweighting_default(power);
  TRY(config_numbers("weight-clip", config->weight_clip, 2, clip));
  rule->clip_low = clip[0];
  rule->clip_high = clip[1];
  rule->lds = strcmp(config->lds, "none") != 0;
  rule->lds_truncate = config->lds_truncate;
  rule->padding = weighting_padding(config);
  return rule->lds ? weighting_window(config, &rule->window) : STATUS_OK;
}

/* ---- weights ------------------------------------------------------------------------------- */

static enum status weigh_by_bins(struct config *config, double power, int64_t rows, int targets, const double *labels,
                                 char text[WEIGHTING_TEXT], double *weights) {
  struct label_bins bins;
  struct reweighting rule;
  TRY(read_rule(config, power, &rule));
  TRY(weighting_bins(config, rows * targets, labels, &bins));
  TRY(reweighting_of_labels(&rule, &bins, rows, targets, labels, weights));
  snprintf(text, WEIGHTING_TEXT, "%.17g,%.17g,%lld", bins.low, bins.width, (long long)bins.count);
  if (strcmp(config->weight_bins, "auto") == 0)
    config->weight_bins = text;
  return STATUS_OK;
}

/* Of every expert in turn, spread among the others': [rows, experts]. */
static enum status weigh_expert(struct config *config, int64_t rows, int targets, const double *labels, double power,
                                char text[WEIGHTING_TEXT], double *one) {
  if (strcmp(config->expert_density, "counts") == 0)
    return weigh_by_bins(config, power, rows, targets, labels, text, one);
  REQUIRE(targets == 1, ERR_ARGUMENT,
          "--expert-density kernel is defined for one label, and these have %d components; use counts", targets);
  return density_power_weights(rows, labels, config->expert_bandwidth, power, one);
}

static enum status weigh_experts(struct config *config, int64_t rows, int targets, const double *labels,
                                 char text[WEIGHTING_TEXT], double *weights) {
  double powers[UVOTE_MOST_EXPERTS], *one = NULL;
  enum status status;
  TRY(heads_powers(config, powers));
  TRY(memory_alloc((size_t)rows * sizeof *one, (void **)&one));
  for (int e = 0; e < config->experts; e++) {
    TRY_GOTO(weigh_expert(config, rows, targets, labels, powers[e], text, one), out);
    for (int64_t i = 0; i < rows; i++)
      weights[i * config->experts + e] = one[i];
  }
out:
  memory_free((void **)&one);
  return status;
}

static enum status weigh(struct config *config, const struct dataset *dataset, const double *labels,
                         char text[WEIGHTING_TEXT], double *weights) {
  int64_t rows = dataset_split_rows(dataset, SPLIT_TRAIN);
  int targets = dataset_targets(dataset);
  if (heads_are_experts(config))
    return weigh_experts(config, rows, targets, labels, text, weights);
  if (by_bins(config))
    return weigh_by_bins(config, strcmp(config->weights, "inverse") == 0 ? 1 : 0.5, rows, targets, labels, text,
                         weights);
  REQUIRE(targets == 1, ERR_ARGUMENT,
          "DenseWeight is defined for one label, and those of %s have %d components; use inverse or sqrt-inverse",
          dataset_path(dataset), targets);
  return dense_weights(rows, labels, config->dense_alpha, weights);
}

/* Those of the file scale pseudo-counts, which cannot be 0. */
static enum status check_file_weights(const struct config *config, const struct dataset *dataset) {
  const int64_t *ids = dataset_split_ids(dataset, SPLIT_TRAIN);
  const double *weights = dataset_weight(dataset);
  bool used = strcmp(config->weights, "auto") == 0 || strcmp(config->weights, "file") == 0;
  if (!heads_are_evidential(config) || !used || weights == NULL)
    return STATUS_OK;
  for (int64_t i = 0; i < dataset_split_rows(dataset, SPLIT_TRAIN); i++)
    REQUIRE(weights[ids[i]] > 0, ERR_ARGUMENT,
            "--loss evidential takes weights as pseudo-counts, and that of row %lld of %s is %g; leave the row out, or "
            "give --weights none",
            (long long)ids[i], dataset_path(dataset), weights[ids[i]]);
  return STATUS_OK;
}

enum status weighting_create(struct config *config, const struct dataset *dataset, char bins[WEIGHTING_TEXT],
                             double **out) {
  bool experts = heads_are_experts(config);
  size_t rows = (size_t)dataset_split_rows(dataset, SPLIT_TRAIN) * (experts ? (size_t)config->experts : 1);
  double *labels = NULL;
  enum status status;
  *out = NULL;
  REQUIRE(strcmp(config->weights, "file") != 0 || dataset_has_weights(dataset), ERR_ARGUMENT,
          "--weights file, but %s holds none; import it with --weight-column, or choose other weights",
          dataset_path(dataset));
  TRY(check_file_weights(config, dataset));
  if (!experts && !by_bins(config) && strcmp(config->weights, "dense") != 0)
    return STATUS_OK;
  TRY_GOTO(weighting_labels(dataset, &labels), out);
  TRY_GOTO(memory_alloc(rows * sizeof **out, (void **)out), out);
  status = weigh(config, dataset, labels, bins, *out);
  if (status == ERR_ARGUMENT)
    status = experts ? fail(status, "weights of experts: %s", status_message())
                     : fail(status, "--weights %s: %s", config->weights, status_message());
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

/* "2 experts: inverse density of labels to the powers 0, 1; largest weights 1, 26.6" */
static enum status experts_summary(const struct config *config, int64_t rows, const double *weights,
                                   char summary[WEIGHTING_TEXT]) {
  double powers[UVOTE_MOST_EXPERTS];
  int experts = (int)config->experts;
  char of_powers[WEIGHTING_TEXT / 2] = "", largest[WEIGHTING_TEXT / 2] = "";
  TRY(heads_powers(config, powers));
  for (int e = 0; e < experts; e++) {
    double most = 0;
    size_t used = strlen(of_powers), taken = strlen(largest);
    for (int64_t i = 0; i < rows; i++)
      most = fmax(most, weights[i * experts + e]);
    snprintf(of_powers + used, sizeof of_powers - used, "%s%.3g", e > 0 ? ", " : "", powers[e]);
    snprintf(largest + taken, sizeof largest - taken, "%s%.4g", e > 0 ? ", " : "", most);
  }
  snprintf(summary, WEIGHTING_TEXT, "%d experts: inverse density of labels to the powers %s; largest weights %s",
           experts, of_powers, largest);
  return STATUS_OK;
}

enum status weighting_summary(const struct config *config, const struct dataset *dataset, const double *weights,
                              char summary[WEIGHTING_TEXT]) {
  int64_t rows = dataset_split_rows(dataset, SPLIT_TRAIN);
  const int64_t *ids = dataset_split_ids(dataset, SPLIT_TRAIN);
  const double *of_file = dataset_weight(dataset);
  double *sorted;
  summary[0] = '\0';
  if (heads_are_experts(config))
    return experts_summary(config, rows, weights, summary);
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
