/* SRL on gathered rows: the surrogate of a batch, the terms on it, and the way back to own rows. */
#include "loss/srl.h"

#include "dist/memory.h"
#include "dist/random.h"
#include "loss/pairwise.h"
#include "loss/rows.h"
#include "model/gemm.h"

#include <math.h>
#include <string.h>

#define SMALLEST_NORM 1e-12
#define PANEL 48 /* own rows at once */

struct srl {
  struct srl_options options;
  int features;
  enum dtype dtype;
  size_t bytes; /* of the block of memory */
  struct rows_memory memory;

  /* State, one array: see srl_state. */
  double *running, *tracked, *epoch_sum, *epoch_count;
  size_t state_count;

  void *points;             /* [points, features] REAL                                                  */
  double *sum, *count;      /* [bins, features], [bins] of the batch, side by side: they travel together */
  int *bin_of, *place_of;   /* [bins] the bin of each place, -1 or the place of each bin                 */
  double *centre, *grad;    /* [places, features] c, and the gradient with respect to it                 */
  double *inverse;          /* [places] 1 / |mean of the batch|, or 0 where the row is a stored one      */
  double *cosine;           /* [places] with the next one                                                */
  void *centre_real;        /* [places, features] REAL c                                                 */
  void *scores;             /* [points or panel, places] REAL                                            */
  void *panel, *panel_grad; /* [panel, features] REAL q, and its gradient                                */
  int places;               /* bins that have a row                                                      */
};

void srl_options_default(struct srl_options *options) {
  *options = (struct srl_options){.temperature = 0.1,
                                  .weight_contrastive = 1e-4,
                                  .weight_enveloping = 1e-2,
                                  .weight_homogeneity = 1e-4,
                                  .homogeneity = SRL_ATTRACT,
                                  .spread = 0.1,
                                  .momentum = 0.9,
                                  .first_bin = 0,
                                  .bin_width = 1,
                                  .bins = 101,
                                  .points = 1000};
}

static enum status check_options(const struct srl_options *options, int targets) {
  const double finite[] = {options->weight_contrastive, options->weight_enveloping, options->weight_homogeneity,
                           options->spread, options->first_bin};
  static const char *const names[] = {"contrastive weight", "enveloping weight", "homogeneity weight", "spread",
                                      "first bin"};
  REQUIRE(targets == 1, ERR_ARGUMENT, "SRL puts one label into bins; these have %d components", targets);
  REQUIRE(options->temperature > 0 && isfinite(options->temperature), ERR_ARGUMENT,
          "SRL's temperature is %g; give a finite one > 0", options->temperature);
  for (size_t i = 0; i < sizeof finite / sizeof *finite; i++)
    REQUIRE(isfinite(finite[i]), ERR_ARGUMENT, "SRL's %s is %g; give a finite number", names[i], finite[i]);
  REQUIRE(options->homogeneity >= SRL_ATTRACT && options->homogeneity <= SRL_PAPER, ERR_ARGUMENT,
          "SRL has no homogeneity %d", (int)options->homogeneity);
  REQUIRE(options->momentum >= 0 && options->momentum < 1, ERR_ARGUMENT, "SRL's momentum is %g; give 0 <= momentum < 1",
          options->momentum);
  REQUIRE(options->bin_width > 0 && isfinite(options->bin_width), ERR_ARGUMENT,
          "SRL's bins are %g wide; give a finite width > 0", options->bin_width);
  REQUIRE(options->bins >= 1, ERR_ARGUMENT, "SRL has %d bins; give at least 1", options->bins);
  REQUIRE(options->points >= 1, ERR_ARGUMENT, "SRL has %d points; give at least 1", options->points);
  return STATUS_OK;
}

static void lay_out(struct srl *srl) {
  struct rows_memory *memory = &srl->memory;
  size_t bins = (size_t)srl->options.bins, points = (size_t)srl->options.points, features = (size_t)srl->features;
  size_t real = dtype_size(srl->dtype), rows = points > PANEL ? points : PANEL;
  srl->state_count = 2 * (bins * features + bins);
  srl->running = rows_piece(memory, srl->state_count * sizeof(double));
  srl->sum = rows_piece(memory, (bins * features + bins) * sizeof(double));
  if (srl->running != NULL) {
    srl->tracked = srl->running + bins * features;
    srl->epoch_sum = srl->tracked + bins;
    srl->epoch_count = srl->epoch_sum + bins * features;
    srl->count = srl->sum + bins * features;
  }
  srl->points = rows_piece(memory, points * features * real);
  srl->bin_of = rows_piece(memory, bins * sizeof *srl->bin_of);
  srl->place_of = rows_piece(memory, bins * sizeof *srl->place_of);
  srl->centre = rows_piece(memory, bins * features * sizeof *srl->centre);
  srl->grad = rows_piece(memory, bins * features * sizeof *srl->grad);
  srl->inverse = rows_piece(memory, bins * sizeof *srl->inverse);
  srl->cosine = rows_piece(memory, bins * sizeof *srl->cosine);
  srl->centre_real = rows_piece(memory, bins * features * real);
  srl->scores = rows_piece(memory, rows * bins * real);
  srl->panel = rows_piece(memory, PANEL * features * real);
  srl->panel_grad = rows_piece(memory, PANEL * features * real);
}

static void draw_points(struct srl *srl) {
  struct random_key key = random_key(srl->options.seed, RANDOM_POINTS, 0);
  int64_t features = srl->features;
  for (int64_t i = 0; i < srl->options.points; i++) {
    void *point = rows_at(srl->dtype, srl->points, i * features);
    bool finite;
    for (int64_t k = 0; k < features; k++)
      dtype_put(srl->dtype, srl->panel, k, random_normal(key, (uint64_t)i, (uint64_t)k));
    row_normalise(srl->dtype, srl->features, srl->panel, point, &finite);
  }
}

enum status srl_create(const struct srl_options *options, int features, int targets, enum dtype dtype,
                       struct srl **out) {
  *out = NULL;
  TRY(rows_check_widths("SRL", features, targets, dtype));
  TRY(check_options(options, targets));
  struct srl *srl;
  TRY(memory_alloc_zero(sizeof *srl, (void **)&srl));
  srl->options = *options;
  srl->features = features;
  srl->dtype = dtype;
  lay_out(srl);
  srl->bytes = srl->memory.used;
  enum status status = memory_alloc_zero(srl->bytes, (void **)&srl->memory.block);
  if (status != STATUS_OK) {
    srl_destroy(&srl);
    return status;
  }
  srl->memory.used = 0;
  lay_out(srl);
  draw_points(srl);
  *out = srl;
  return STATUS_OK;
}

void srl_destroy(struct srl **srl) {
  if (*srl == NULL)
    return;
  rows_release(&(*srl)->memory);
  memory_free((void **)srl);
}

void srl_state(struct srl *srl, double **values, size_t *count) {
  *values = srl->running;
  *count = srl->state_count;
}

void *srl_points(struct srl *srl) {
  return srl->points;
}

size_t srl_bytes(const struct srl *srl) {
  return srl->bytes;
}

void srl_end_epoch(struct srl *srl) {
  int64_t features = srl->features;
  for (int64_t bin = 0; bin < srl->options.bins; bin++) {
    double kept = srl->tracked[bin] != 0 ? srl->options.momentum : 0, count = srl->epoch_count[bin];
    for (int64_t k = bin * features; k < (bin + 1) * features && count > 0; k++)
      srl->running[k] = kept * srl->running[k] + (1 - kept) * srl->epoch_sum[k] / count;
    srl->tracked[bin] = srl->tracked[bin] != 0 || count > 0;
  }
  memset(srl->epoch_sum, 0, (size_t)(srl->options.bins * features + srl->options.bins) * sizeof(double));
}

/* ---- bins ---- */

/* The nearest bin; outside 0 .. bins-1 for a label that has none. */
static double bin_of_label(const struct srl *srl, double label) {
  return floor((label - srl->options.first_bin) / srl->options.bin_width + 0.5);
}

static int64_t own_bin(const struct srl *srl, const struct gathered *gathered, int64_t own) {
  return (int64_t)bin_of_label(srl, dtype_get(srl->dtype, gathered->labels, gathered->first + own));
}

/* All ranks look at all labels. */
static enum status check_bins(const struct srl *srl, const struct gathered *gathered) {
  const struct srl_options *options = &srl->options;
  for (int64_t row = 0; row < gathered->rows; row++) {
    double label = dtype_get(srl->dtype, gathered->labels, row), bin = bin_of_label(srl, label);
    if (!(bin >= 0 && bin < options->bins))
      return rows_agreed(fail(ERR_ARGUMENT,
                              "SRL: the label %g is outside its %d bins, which lie around %g .. %g; give bins for all "
                              "labels",
                              label, options->bins, options->first_bin,
                              options->first_bin + (options->bins - 1) * options->bin_width));
  }
  return STATUS_OK;
}

/* Sums and counts of the batch's normalised rows, over all ranks.  Collective. */
static enum status sum_bins(struct srl *srl, const struct gathered *gathered) {
  int64_t features = srl->features;
  size_t numbers = (size_t)(srl->options.bins * features + srl->options.bins);
  bool finite;
  memset(srl->sum, 0, numbers * sizeof(double));
  for (int64_t i = 0; i < gathered->own; i++) {
    int64_t bin = own_bin(srl, gathered, i);
    row_normalise(srl->dtype, srl->features, rows_element(srl->dtype, gathered->z, (gathered->first + i) * features),
                  srl->panel, &finite);
    srl->count[bin] += 1;
    for (int64_t k = 0; k < features; k++)
      srl->sum[bin * features + k] += dtype_get(srl->dtype, srl->panel, k);
  }
  return comm_sum(gathered->comm, F64, srl->sum, numbers);
}

static double dot(int64_t n, const double *a, const double *b) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++)
    sum += a[k] * b[k];
  return sum;
}

/* out = factor row, if there is one: the row has a length.  Returns 1 / its norm, or 0. */
static double unit_row(int64_t n, const double *row, double factor, double *out) {
  double norm = factor * sqrt(dot(n, row, row));
  if (!(norm > SMALLEST_NORM))
    return 0;
  for (int64_t k = 0; k < n; k++)
    out[k] = factor * row[k] / norm;
  return 1 / norm;
}

/* The unit rows of all bins that have one. */
static void make_surrogate(struct srl *srl) {
  int64_t features = srl->features;
  srl->places = 0;
  for (int bin = 0; bin < srl->options.bins; bin++) {
    double *centre = srl->centre + srl->places * features, count = srl->count[bin];
    double inverse = count > 0 ? unit_row(features, srl->sum + bin * features, 1 / count, centre) : 0;
    bool stored =
        inverse == 0 && srl->tracked[bin] != 0 && unit_row(features, srl->running + bin * features, 1, centre);
    srl->place_of[bin] = -1;
    if (inverse == 0 && !stored)
      continue;
    srl->inverse[srl->places] = inverse;
    srl->bin_of[srl->places] = bin;
    srl->place_of[bin] = srl->places++;
  }
  for (int64_t k = 0; k < srl->places * features; k++)
    dtype_put(srl->dtype, srl->centre_real, k, srl->centre[k]);
  memset(srl->grad, 0, (size_t)(srl->places * features) * sizeof(double));
}

/* ---- terms on the surrogate ---- */

static void add_scaled(int64_t n, double factor, const double *row, double *sum) {
  for (int64_t k = 0; k < n; k++)
    sum[k] += factor * row[k];
}

/* Adds to the gradient of c and to the value. */
static enum status envelope(struct srl *srl, double *value) {
  int64_t features = srl->features, places = srl->places, points = srl->options.points;
  double weight = srl->options.weight_enveloping, sum = 0;
  enum dtype dtype = srl->dtype;
  if (weight == 0 || places == 0)
    return STATUS_OK;
  TRY(gemm(dtype, GEMM_PLAIN, GEMM_TRANSPOSED, points, places, features, 1.0, srl->points, features, srl->centre_real,
           features, 0.0, srl->scores, places));
  for (int64_t i = 0; i < points; i++) {
    int64_t best = 0;
    for (int64_t b = 1; b < places; b++)
      if (dtype_get(dtype, srl->scores, i * places + b) > dtype_get(dtype, srl->scores, i * places + best))
        best = b;
    sum += dtype_get(dtype, srl->scores, i * places + best);
    for (int64_t k = 0; k < features; k++)
      srl->grad[best * features + k] -= weight / (double)points * dtype_get(dtype, srl->points, i * features + k);
  }
  *value += weight * (1 - sum / (double)points);
  return STATUS_OK;
}

/* sign x sum of the cosines of neighbours + spread x their variance. */
static double homogeneity_of_code(struct srl *srl, double weight, double sign) {
  int64_t features = srl->features, pairs = srl->places - 1;
  double sum = 0, squares = 0, freedom = pairs > 1 ? (double)(pairs - 1) : INFINITY, spread = srl->options.spread;
  for (int64_t b = 0; b < pairs; b++) {
    const double *own = srl->centre + b * features;
    srl->cosine[b] = dot(features, own, own + features);
    sum += srl->cosine[b];
  }
  for (int64_t b = 0; b < pairs; b++) {
    const double *own = srl->centre + b * features;
    double deviation = srl->cosine[b] - sum / (double)pairs, slope = weight * (sign + spread * 2 * deviation / freedom);
    squares += deviation * deviation;
    add_scaled(features, slope, own + features, srl->grad + b * features);
    add_scaled(features, slope, own, srl->grad + (b + 1) * features);
  }
  return sign * sum + spread * squares / freedom;
}

/* Squared distances of neighbours over those of their labels. */
static double homogeneity_of_paper(struct srl *srl, double weight) {
  int64_t features = srl->features;
  double sum = 0;
  for (int64_t b = 0; b + 1 < srl->places; b++) {
    const double *own = srl->centre + b * features, *next = own + features;
    double gap = (srl->bin_of[b + 1] - srl->bin_of[b]) * srl->options.bin_width;
    for (int64_t k = 0; k < features; k++) {
      double step = next[k] - own[k];
      sum += step * step / gap;
      srl->grad[b * features + k] -= weight * 2 * step / gap;
      srl->grad[(b + 1) * features + k] += weight * 2 * step / gap;
    }
  }
  return sum;
}

static double homogeneity(struct srl *srl) {
  double weight = srl->options.weight_homogeneity;
  if (weight == 0)
    return 0;
  if (srl->options.homogeneity == SRL_PAPER)
    return weight * homogeneity_of_paper(srl, weight);
  return weight * homogeneity_of_code(srl, weight, srl->options.homogeneity == SRL_ATTRACT ? -1 : 1);
}

/* From the gradient of c_b to that of each of the bin's rows q: through norm and mean; 0 for stored rows. */
static void through_means(struct srl *srl) {
  int64_t features = srl->features;
  for (int64_t b = 0; b < srl->places; b++) {
    const double *centre = srl->centre + b * features;
    double *grad = srl->grad + b * features, along = dot(features, grad, centre);
    double factor = srl->inverse[b] > 0 ? srl->inverse[b] / srl->count[srl->bin_of[b]] : 0;
    for (int64_t k = 0; k < features; k++)
      grad[k] = factor * (grad[k] - along * centre[k]);
  }
}

/* ---- own rows ---- */

/* scores [places] of one row become weight/(M t) (softmax - 1 at the row's place).  Returns -log softmax there. */
static double contrast_row(const struct srl *srl, int64_t place, double scale, void *scores) {
  enum dtype dtype = srl->dtype;
  double t = srl->options.temperature, own = dtype_get(dtype, scores, place) / t, most = own;
  for (int64_t b = 0; b < srl->places; b++)
    most = fmax(most, dtype_get(dtype, scores, b) / t);
  double sum = exp(own - most);
  for (int64_t b = 0; b < srl->places; b++)
    sum += b != place ? exp(dtype_get(dtype, scores, b) / t - most) : 0;
  for (int64_t b = 0; b < srl->places; b++)
    dtype_put(dtype, scores, b, scale * (exp(dtype_get(dtype, scores, b) / t - most) / sum - (b == place)));
  return most + log(sum) - own;
}

/* The contrastive term of the rows in the panel, and its gradient with respect to q, [count, features]. */
static enum status contrast_panel(struct srl *srl, const struct gathered *gathered, int64_t own, int count,
                                  double *value) {
  enum dtype dtype = srl->dtype;
  int64_t features = srl->features, places = srl->places;
  double weight = srl->options.weight_contrastive / (double)gathered->rows;
  TRY(gemm(dtype, GEMM_PLAIN, GEMM_TRANSPOSED, PANEL, places, features, 1.0, srl->panel, features, srl->centre_real,
           features, 0.0, srl->scores, places));
  for (int i = 0; i < count; i++) {
    int place = srl->place_of[own_bin(srl, gathered, own + i)];
    void *scores = rows_at(dtype, srl->scores, i * places);
    if (place >= 0)
      *value += weight * contrast_row(srl, place, weight / srl->options.temperature, scores);
    else
      memset(scores, 0, (size_t)places * dtype_size(dtype));
  }
  return gemm(dtype, GEMM_PLAIN, GEMM_PLAIN, PANEL, features, places, 1.0, srl->scores, places, srl->centre_real,
              features, 0.0, srl->panel_grad, features);
}

/* Own rows own .. own+count-1, normalised; zeros below them. */
static void fill_panel(struct srl *srl, const struct gathered *gathered, int64_t own, int count, double *inverse) {
  enum dtype dtype = srl->dtype;
  int64_t features = srl->features;
  bool finite;
  for (int i = 0; i < count; i++)
    inverse[i] =
        row_normalise(dtype, srl->features, rows_element(dtype, gathered->z, (gathered->first + own + i) * features),
                      rows_at(dtype, srl->panel, i * features), &finite);
  memset(rows_at(dtype, srl->panel, count * features), 0, (size_t)((PANEL - count) * features) * dtype_size(dtype));
}

static enum status do_panel(struct srl *srl, const struct gathered *gathered, int64_t own, int count,
                            double coefficient, void *grad_own, double *value) {
  enum dtype dtype = srl->dtype;
  int64_t features = srl->features;
  double inverse[PANEL];
  fill_panel(srl, gathered, own, count, inverse);
  memset(srl->panel_grad, 0, (size_t)(PANEL * features) * dtype_size(dtype));
  if (srl->options.weight_contrastive != 0 && srl->places > 0)
    TRY(contrast_panel(srl, gathered, own, count, value));
#pragma omp parallel for schedule(static) if (features >= 256)
  for (int i = 0; i < count; i++) {
    int place = srl->place_of[own_bin(srl, gathered, own + i)];
    void *grad = rows_at(dtype, srl->panel_grad, i * features), *sum = rows_at(dtype, grad_own, (own + i) * features);
    for (int64_t k = 0; k < features && place >= 0; k++)
      dtype_put(dtype, grad, k, dtype_get(dtype, grad, k) + srl->grad[place * features + k]);
    row_through_norm(dtype, srl->features, rows_element(dtype, gathered->z, (gathered->first + own + i) * features),
                     inverse[i], grad);
    for (int64_t k = 0; k < features; k++)
      dtype_put(dtype, sum, k, dtype_get(dtype, sum, k) + coefficient * dtype_get(dtype, grad, k));
  }
  return STATUS_OK;
}

/* ---- the call ---- */

enum status srl_loss(struct srl *srl, const struct gathered *gathered, double coefficient, void *grad_own,
                     double *value) {
  double common = 0;
  TRY(rows_check(gathered, "SRL", srl->features, 1, srl->dtype));
  TRY(check_bins(srl, gathered));
  *value = 0;
  if (gathered->rows == 0)
    return STATUS_OK;
  TRY(sum_bins(srl, gathered));
  make_surrogate(srl);
  enum status status = envelope(srl, &common);
  common += homogeneity(srl);
  through_means(srl);
  for (int64_t own = 0; own < gathered->own && status == STATUS_OK; own += PANEL)
    status = do_panel(srl, gathered, own, (int)(gathered->own - own < PANEL ? gathered->own - own : PANEL), coefficient,
                      grad_own, value);
  TRY(rows_settle(gathered->comm, "SRL", status, value));
  *value += common;
  for (int64_t k = 0; k < srl->options.bins * (int64_t)srl->features; k++)
    srl->epoch_sum[k] += srl->sum[k];
  for (int bin = 0; bin < srl->options.bins; bin++)
    srl->epoch_count[bin] += srl->count[bin];
  return STATUS_OK;
}
