/* Statistics by bucket of labels: collected, joined over ranks, smoothed, and turned into tables. */
#include "loss/fds.h"

#include "dist/memory.h"

#include <math.h>
#include <string.h>

#define LEAST_VARIANCE 1e-10 /* of a bucket's features together, as published */

/* Mean and variance, or sum of squared deviations, [slots, features]. */
struct moments {
  double *mean, *square;
};

struct fds {
  struct fds_options options;
  struct label_window window, squares; /* its squares: for the variances of means */
  int64_t buckets, features;
  struct moments running, last, smoothed; /* [buckets, features]; square holds variances              */
  double *by_squares;                     /* [buckets, features], for distributions                   */
  double *tracked;                        /* [buckets] rows seen                                      */
  double epochs;                          /* start_update, and one more for each update after it      */

  /* Of the epoch that is collected.  Slot 0 is below the first bucket, slot b + 1 bucket b, then what lies above. */
  int64_t slots;
  double *count; /* [slots] */
  struct moments seen;
  double *total;            /* [slots] rows of all ranks                  */
  int ranks;                /*                                            */
  double *record, *records; /* [1 + 2 features], of one rank and of all   */
  int64_t *one;             /* [ranks] ones                               */
};

/* --- options ------------------------------------------------------------------------------------------------ */

enum status fds_task_by_name(const char *name, enum fds_task *task) {
  static const char *const names[] = {"ages", "depth", "sts"};
  for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
    if (strcmp(name, names[i]) == 0) {
      *task = (enum fds_task)i;
      return STATUS_OK;
    }
  return fail(ERR_ARGUMENT, "there is no smoothing of features for \"%s\"; use ages, depth or sts", name);
}

void fds_options_default(enum fds_task task, struct fds_options *options) {
  *options = (struct fds_options){.task = task,
                                  .last = 99,
                                  .width = 1,
                                  .kernel = LABEL_GAUSSIAN,
                                  .kernel_size = 5,
                                  .kernel_sigma = 2,
                                  .momentum = 0.9,
                                  .start_smooth = 1,
                                  .clip_low = 0.1,
                                  .clip_high = 10,
                                  .in_place = true};
  if (task == FDS_AGES)
    return;
  options->width = 0.1;
  options->first = task == FDS_DEPTH ? 7 : 0;
  options->last = task == FDS_DEPTH ? 99 : 49;
  options->clip_low = task == FDS_DEPTH ? 0.2 : 0.5;
  options->clip_high = task == FDS_DEPTH ? 5 : 2;
  options->snapshot = options->whole_buckets = task == FDS_DEPTH;
  options->in_place = task == FDS_STS;
}

static enum status check(const struct fds_options *options) {
  int64_t least = -FDS_MOST_BUCKETS, most = FDS_MOST_BUCKETS;
  REQUIRE(options->first >= least && options->last <= most && options->first <= options->last, ERR_ARGUMENT,
          "buckets %lld to %lld of labels cannot be had; give two numbers between -%d and %d, the lower one first",
          (long long)options->first, (long long)options->last, FDS_MOST_BUCKETS, FDS_MOST_BUCKETS);
  REQUIRE(isfinite(options->width) && options->width > 0, ERR_ARGUMENT,
          "a bucket of labels cannot be %g wide; give a width above 0", options->width);
  REQUIRE(options->momentum == FDS_CUMULATIVE || (options->momentum >= 0 && options->momentum < 1), ERR_ARGUMENT,
          "a momentum of %g makes no running statistics; give 0 to below 1, or none", options->momentum);
  REQUIRE(options->clip_low > 0 && options->clip_low <= options->clip_high && isfinite(options->clip_high),
          ERR_ARGUMENT, "ratios of variances cannot be clipped to %g .. %g; give two numbers above 0, the lower first",
          options->clip_low, options->clip_high);
  REQUIRE(options->start_update >= 0 && options->start_smooth >= options->start_update, ERR_ARGUMENT,
          "features cannot be smoothed from epoch %lld on when their statistics begin in epoch %lld; smooth from that "
          "epoch on or later",
          (long long)options->start_smooth, (long long)options->start_update);
  REQUIRE(!options->distributions || options->task == FDS_AGES, ERR_ARGUMENT,
          "distributions of features are smoothed by the rules of ages alone; give these buckets, with any width");
  return STATUS_OK;
}

/* --- life --------------------------------------------------------------------------------------------------- */

static enum status make_numbers(int64_t rows, int64_t columns, double value, double **out) {
  TRY(memory_alloc((size_t)(rows * columns) * sizeof **out, (void **)out));
  for (int64_t i = 0; i < rows * columns; i++)
    (*out)[i] = value;
  return STATUS_OK;
}

static enum status make_moments(int64_t rows, int64_t columns, double square, struct moments *out) {
  TRY(make_numbers(rows, columns, 0, &out->mean));
  return make_numbers(rows, columns, square, &out->square);
}

/* What distributions have beside: V begins with 1. */
static enum status make_distributions(struct fds *fds) {
  const struct moments all[] = {fds->running, fds->last, fds->smoothed};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    for (int64_t at = 0; at < fds->buckets * fds->features; at++)
      all[i].mean[at] = at % fds->features < fds->features / 2 ? 0 : 1;
  fds->squares.size = fds->window.size;
  for (int i = 0; i < fds->window.size; i++)
    fds->squares.value[i] = fds->window.value[i] * fds->window.value[i];
  return make_numbers(fds->buckets, fds->features, 0, &fds->by_squares);
}

static enum status make_all(struct fds *fds) {
  int64_t buckets = fds->buckets, features = fds->features, record = 1 + 2 * features;
  TRY(make_moments(buckets, features, 1, &fds->running));
  TRY(make_moments(buckets, features, 1, &fds->last));
  TRY(make_moments(buckets, features, 1, &fds->smoothed));
  TRY(make_moments(fds->slots, features, 0, &fds->seen));
  TRY(make_numbers(buckets, 1, 0, &fds->tracked));
  TRY(make_numbers(fds->slots, 1, 0, &fds->count));
  TRY(make_numbers(fds->slots, 1, 0, &fds->total));
  TRY(make_numbers(1, record, 0, &fds->record));
  TRY(make_numbers(fds->ranks, record, 0, &fds->records));
  TRY(memory_alloc((size_t)fds->ranks * sizeof *fds->one, (void **)&fds->one));
  for (int rank = 0; rank < fds->ranks; rank++)
    fds->one[rank] = 1;
  return STATUS_OK;
}

enum status fds_create(const struct fds_options *options, int64_t features, int ranks, struct fds **out) {
  struct fds *fds;
  enum status status;
  *out = NULL;
  TRY(check(options));
  REQUIRE(!options->distributions || features % 2 == 0, ERR_ARGUMENT,
          "%lld features are no means with as many variances; give an even number", (long long)features);
  TRY(memory_alloc_zero(sizeof *fds, (void **)&fds));
  fds->options = *options;
  fds->buckets = options->last - options->first + 1;
  fds->slots = fds->buckets + 2;
  fds->features = features;
  fds->ranks = ranks;
  fds->epochs = (double)options->start_update;
  TRY_GOTO(label_window_make(options->kernel, options->kernel_size, options->kernel_sigma, WINDOW_BY_SUM, &fds->window),
           failed);
  TRY_GOTO(label_window_check(&fds->window, fds->buckets), failed);
  TRY_GOTO(make_all(fds), failed);
  if (options->distributions)
    TRY_GOTO(make_distributions(fds), failed);
  *out = fds;
  return STATUS_OK;
failed:
  fds_destroy(&fds);
  return status;
}

void fds_destroy(struct fds **fds) {
  struct fds *own = *fds;
  if (own == NULL)
    return;
  double **const numbers[] = {&own->records,         &own->record,    &own->total,       &own->count,
                              &own->tracked,         &own->seen.mean, &own->seen.square, &own->smoothed.mean,
                              &own->smoothed.square, &own->last.mean, &own->last.square, &own->running.mean,
                              &own->running.square,  &own->by_squares};
  memory_free((void **)&own->one);
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    memory_free((void **)numbers[i]);
  memory_free((void **)fds);
}

const struct fds_options *fds_options_of(const struct fds *fds) {
  return &fds->options;
}

int64_t fds_buckets(const struct fds *fds) {
  return fds->buckets;
}

int64_t fds_features(const struct fds *fds) {
  return fds->features;
}

bool fds_smooths(const struct fds *fds, int64_t epoch) {
  return epoch >= fds->options.start_smooth;
}

bool fds_collects(const struct fds *fds, int64_t epoch) {
  return epoch >= fds->options.start_update;
}

/* --- labels ------------------------------------------------------------------------------------------------- */

int64_t fds_bucket_of(const struct fds *fds, double label) {
  const struct fds_options *options = &fds->options;
  float value = (float)label;
  double low = (double)options->first - 1, high = (double)options->last + 1, width = options->width;
  double at = options->task == FDS_DEPTH ? floor((double)(value * (float)(1 / width))) : floor((double)value / width);
  at = fmin(fmax(at, low), high);
  if (options->task == FDS_DEPTH)
    return (int64_t)at;
  /* The quotient is rounded: the edges decide. */
  while (at < high && value >= (float)((at + 1) * width))
    at++;
  while (at > low && value < (float)(at * width))
    at--;
  return (int64_t)at;
}

void fds_look_for_edges(const struct fds *fds, double label, struct fds_edges *edges) {
  int64_t number = fds_bucket_of(fds, label);
  edges->first = edges->first || number == fds->options.first;
  edges->last = edges->last || number == fds->options.last;
}

static enum status check_labels(enum dtype dtype, int64_t rows, const void *labels) {
  for (int64_t row = 0; row < rows; row++)
    REQUIRE(isfinite(dtype_get(dtype, labels, row)), ERR_NUMERIC,
            "a label of %g belongs to no bucket; give every sample a finite label", dtype_get(dtype, labels, row));
  return STATUS_OK;
}

enum status fds_assign(const struct fds *fds, enum dtype dtype, int64_t rows, const void *labels,
                       struct fds_edges edges, int32_t *bucket) {
  const struct fds_options *options = &fds->options;
  bool below = options->task != FDS_AGES || edges.first, above = options->task != FDS_AGES || edges.last;
  TRY(check_labels(dtype, rows, labels));
  for (int64_t row = 0; row < rows; row++) {
    int64_t place = fds_bucket_of(fds, dtype_get(dtype, labels, row)) - options->first;
    if (place < 0)
      place = below ? 0 : -1;
    else if (place == fds->buckets)
      place = above ? fds->buckets - 1 : -1;
    bucket[row] = (int32_t)place;
  }
  return STATUS_OK;
}

/* --- tables ------------------------------------------------------------------------------------------------- */

/* (m1, v1): before the first update of the last epoch mean 0 and variance 1; then, aliased, the running ones. */
static const struct moments *last_epoch(const struct fds *fds) {
  bool updated = fds->epochs > (double)fds->options.start_update;
  return fds->options.snapshot || !updated ? &fds->last : &fds->running;
}

/* Does a bucket stay as it is, whatever its single features? */
static bool is_left_alone(const struct fds *fds, int64_t features, const double *v1, const double *v2) {
  double sum = 0;
  bool some = false;
  for (int64_t f = 0; f < features; f++) {
    sum += v1[f];
    some = some || v1[f] <= 0 || v2[f] < 0;
  }
  return sum < LEAST_VARIANCE || (some && fds->options.whole_buckets);
}

void fds_tables(const struct fds *fds, enum dtype dtype, void *scale, void *shift) {
  const struct moments *last = last_epoch(fds), *smoothed = &fds->smoothed;
  int64_t means = fds->options.distributions ? fds->features / 2 : fds->features;
  for (int64_t bucket = 0; bucket < fds->buckets; bucket++) {
    int64_t first = bucket * fds->features;
    bool alone = is_left_alone(fds, means, last->square + first, smoothed->square + first);
    for (int64_t i = first; i < first + means; i++) {
      double v1 = last->square[i], v2 = smoothed->square[i];
      bool stays = alone || v1 <= 0 || v2 < 0;
      double factor = stays ? 1 : sqrt(fmin(fmax(v2 / v1, fds->options.clip_low), fds->options.clip_high));
      dtype_put(dtype, scale, i, factor);
      dtype_put(dtype, shift, i, stays ? 0 : smoothed->mean[i] - last->mean[i] * factor);
      if (!fds->options.distributions)
        continue;
      int64_t of_variance = i + means;
      dtype_put(dtype, scale, of_variance, factor);
      dtype_put(dtype, shift, of_variance, stays ? 0 : last->mean[of_variance] * factor + smoothed->mean[of_variance]);
    }
  }
}

/* --- collecting --------------------------------------------------------------------------------------------- */

enum { ROWS_AT_ONCE = 64, FEATURES_AT_ONCE = 128 };

void fds_restart(struct fds *fds) {
  size_t numbers = (size_t)(fds->slots * fds->features) * sizeof(double);
  memset(fds->count, 0, (size_t)fds->slots * sizeof(double));
  memset(fds->seen.mean, 0, numbers);
  memset(fds->seen.square, 0, numbers);
}

/* Some features of a row, as doubles. */
static void read_features(enum dtype dtype, const void *row, int64_t first, int64_t count, double *out) {
  for (int64_t i = 0; i < count; i++)
    out[i] = dtype_get(dtype, row, first + i);
}

/* Welford's step for each row, in order: share[r] = 1 / (rows of its slot so far, this one too). */
static void add_rows(struct moments *seen, int64_t features, enum dtype dtype, int64_t rows, const char *data,
                     const int64_t *slot, const double *share, int64_t first, int64_t count) {
  double x[FEATURES_AT_ONCE];
  for (int64_t row = 0; row < rows; row++) {
    double *mean = seen->mean + slot[row] * features + first, *square = seen->square + slot[row] * features + first;
    read_features(dtype, data + (size_t)(row * features) * dtype_size(dtype), first, count, x);
    for (int64_t i = 0; i < count; i++) {
      double apart = x[i] - mean[i];
      mean[i] += apart * share[row];
      square[i] += apart * (x[i] - mean[i]);
    }
  }
}

static void collect_some(struct fds *fds, enum dtype dtype, int64_t rows, const void *data, enum dtype label_dtype,
                         const void *labels, int64_t first_label) {
  int64_t slot[ROWS_AT_ONCE], pieces = (fds->features + FEATURES_AT_ONCE - 1) / FEATURES_AT_ONCE;
  double share[ROWS_AT_ONCE];
  for (int64_t row = 0; row < rows; row++) {
    int64_t number = fds_bucket_of(fds, dtype_get(label_dtype, labels, first_label + row));
    if (fds->options.task != FDS_AGES)
      number = number < fds->options.first  ? fds->options.first
               : number > fds->options.last ? fds->options.last
                                            : number;
    slot[row] = number - fds->options.first + 1;
    share[row] = 1 / ++fds->count[slot[row]];
  }
#pragma omp parallel for schedule(static) if (rows * fds->features > 16384)
  for (int64_t piece = 0; piece < pieces; piece++) {
    int64_t first = piece * FEATURES_AT_ONCE, left = fds->features - first;
    add_rows(&fds->seen, fds->features, dtype, rows, data, slot, share, first,
             left < FEATURES_AT_ONCE ? left : FEATURES_AT_ONCE);
  }
}

enum status fds_collect(struct fds *fds, enum dtype dtype, int64_t rows, const void *features, enum dtype label_dtype,
                        const void *labels) {
  TRY(check_labels(label_dtype, rows, labels));
  for (int64_t first = 0; first < rows; first += ROWS_AT_ONCE) {
    int64_t some = rows - first < ROWS_AT_ONCE ? rows - first : ROWS_AT_ONCE;
    const char *data = (const char *)features + (size_t)(first * fds->features) * dtype_size(dtype);
    collect_some(fds, dtype, some, data, label_dtype, labels, first);
  }
  return STATUS_OK;
}

/* --- joining ------------------------------------------------------------------------------------------------ */

/* Chan, Golub and LeVeque (1983): the moments of two sets, count first, from those of each. */
static void join(int64_t features, double *count, double *mean, double *square, double other_count,
                 const double *other_mean, const double *other_square) {
  double together = *count + other_count;
  if (other_count == 0)
    return;
  for (int64_t f = 0; f < features; f++) {
    double apart = other_mean[f] - mean[f];
    square[f] += other_square[f] + apart * apart * (*count * other_count / together);
    mean[f] = *count == 0 ? other_mean[f] : mean[f] + apart * (other_count / together);
  }
  *count = together;
}

/* One slot of all ranks, in rank order, in place of this rank's own. */
static enum status join_ranks(struct fds *fds, struct comm *comm, int64_t slot) {
  int64_t features = fds->features, length = 1 + 2 * features;
  double *mean = fds->seen.mean + slot * features, *square = fds->seen.square + slot * features;
  size_t bytes = (size_t)features * sizeof(double);
  fds->record[0] = fds->count[slot];
  memcpy(fds->record + 1, mean, bytes);
  memcpy(fds->record + 1 + features, square, bytes);
  TRY(comm_gather_rows(comm, fds->record, fds->one, (size_t)length * sizeof(double), fds->records));
  fds->count[slot] = 0;
  memset(mean, 0, bytes);
  memset(square, 0, bytes);
  for (int rank = 0; rank < fds->ranks; rank++) {
    const double *other = fds->records + rank * length;
    join(features, &fds->count[slot], mean, square, other[0], other + 1, other + 1 + features);
  }
  return STATUS_OK;
}

/* What lies outside joins the edge of that side, if that occurs. */
static void join_outside(struct fds *fds, int64_t outside, int64_t edge) {
  int64_t features = fds->features;
  if (fds->count[edge] > 0)
    join(features, &fds->count[edge], fds->seen.mean + edge * features, fds->seen.square + edge * features,
         fds->count[outside], fds->seen.mean + outside * features, fds->seen.square + outside * features);
}

static enum status check_finite(const struct fds *fds) {
  for (int64_t i = fds->features; i < (fds->slots - 1) * fds->features; i++)
    REQUIRE(isfinite(fds->seen.mean[i]) && isfinite(fds->seen.square[i]), ERR_NUMERIC,
            "a feature of a sample with a label in bucket %lld is not finite; lower --lr, or give --clip a value",
            (long long)(i / fds->features - 1 + fds->options.first));
  return STATUS_OK;
}

static enum status join_all(struct fds *fds, struct comm *comm) {
  memcpy(fds->total, fds->count, (size_t)fds->slots * sizeof(double));
  TRY(comm_sum(comm, F64, fds->total, (size_t)fds->slots));
  for (int64_t slot = 0; slot < fds->slots; slot++)
    if (fds->total[slot] > 0)
      TRY(join_ranks(fds, comm, slot));
  join_outside(fds, 0, 1);
  join_outside(fds, fds->slots - 1, fds->slots - 2);
  return comm_agree(comm, check_finite(fds));
}

/* --- the end of an epoch ------------------------------------------------------------------------------------ */

/* x, y  [buckets, features] */
static void smooth(const struct fds *fds, const double *x, double *y) {
  int64_t buckets = fds->buckets, features = fds->features, half = features / 2;
  label_window_convolve(&fds->window, PADDING_MIRROR, buckets, features, x, y);
  if (!fds->options.distributions)
    return;
  label_window_convolve(&fds->squares, PADDING_MIRROR, buckets, features, x, fds->by_squares);
  for (int64_t bucket = 0; bucket < buckets; bucket++)
    memcpy(y + bucket * features + half, fds->by_squares + bucket * features + half, (size_t)half * sizeof *y);
}

/* The running statistics, those of the epoch before, become the last epoch's, and are smoothed. */
static void update_last(struct fds *fds) {
  size_t bytes = (size_t)(fds->buckets * fds->features) * sizeof(double);
  fds->epochs++;
  if (fds->options.snapshot) {
    memcpy(fds->last.mean, fds->running.mean, bytes);
    memcpy(fds->last.square, fds->running.square, bytes);
  }
  smooth(fds, fds->running.mean, fds->smoothed.mean);
  smooth(fds, fds->running.square, fds->smoothed.square);
}

/* What the epoch says of feature f: its mean and variance; of distributions M and A, or V and B. */
static void statistics_of(const struct fds *fds, int64_t bucket, double count, int64_t f, double *mean,
                          double *variance) {
  const double *means = fds->seen.mean + (bucket + 1) * fds->features;
  const double *square = fds->seen.square + (bucket + 1) * fds->features;
  int64_t half = fds->features / 2;
  *mean = means[f];
  *variance = count > 1 ? square[f] / (count - 1) : 0;
  if (!fds->options.distributions)
    return;
  /* Not the published difference of large numbers, which rounding can make negative. */
  double spread = square[f % half] / count + (1 - 1 / count) * means[half + f % half];
  *mean = f < half ? means[f] : means[f] / count;
  *variance = f < half ? spread : count > 1 ? 2 * spread * spread / (count - 1) : 0;
}

/* Bucket `bucket` has `count` rows in this epoch, with moments in slot bucket + 1. */
static void update_bucket(struct fds *fds, int64_t bucket, double count, bool first_epoch) {
  fds->tracked[bucket] += count;
  double keep = fds->options.momentum == FDS_CUMULATIVE ? 1 - count / fds->tracked[bucket] : fds->options.momentum;
  if (first_epoch)
    keep = 0;
  for (int64_t f = 0; f < fds->features; f++) {
    double *running_mean = fds->running.mean + bucket * fds->features + f;
    double *running_var = fds->running.square + bucket * fds->features + f;
    double mean, variance;
    statistics_of(fds, bucket, count, f, &mean, &variance);
    *running_mean = (1 - keep) * mean + keep * *running_mean;
    *running_var = (1 - keep) * variance + keep * *running_var;
  }
}

/* In ascending order, so that a neighbour below is filled already: the mean of both neighbours, or the only one. */
static void fill_bucket(struct fds *fds, struct moments *moments, int64_t bucket) {
  int64_t before = bucket > 0 ? bucket - 1 : bucket + 1, after = bucket < fds->buckets - 1 ? bucket + 1 : bucket - 1;
  for (int64_t f = 0; f < fds->features; f++) {
    int64_t at = bucket * fds->features + f, low = before * fds->features + f, high = after * fds->features + f;
    moments->mean[at] = (moments->mean[low] + moments->mean[high]) / 2;
    moments->square[at] = (moments->square[low] + moments->square[high]) / 2;
  }
}

enum status fds_update(struct fds *fds, struct comm *comm, int64_t epoch) {
  bool first_epoch = epoch == fds->options.start_update;
  TRY(join_all(fds, comm));
  if ((double)epoch == fds->epochs + 1)
    update_last(fds);
  for (int64_t bucket = 0; bucket < fds->buckets; bucket++)
    if (fds->count[bucket + 1] > 0)
      update_bucket(fds, bucket, fds->count[bucket + 1], first_epoch);
  for (int64_t bucket = 0; fds->options.task == FDS_STS && fds->buckets > 1 && bucket < fds->buckets; bucket++)
    if (fds->count[bucket + 1] == 0)
      fill_bucket(fds, &fds->running, bucket);
  fds_restart(fds);
  return STATUS_OK;
}

size_t fds_states(struct fds *fds, struct state_array *states) {
  size_t numbers = (size_t)(fds->buckets * fds->features), count = 0;
  states[count++] = (struct state_array){"fds/running_mean", fds->running.mean, numbers};
  states[count++] = (struct state_array){"fds/running_var", fds->running.square, numbers};
  states[count++] = (struct state_array){"fds/smoothed_mean", fds->smoothed.mean, numbers};
  states[count++] = (struct state_array){"fds/smoothed_var", fds->smoothed.square, numbers};
  states[count++] = (struct state_array){"fds/tracked", fds->tracked, (size_t)fds->buckets};
  states[count++] = (struct state_array){"fds/epochs", &fds->epochs, 1};
  if (fds->options.snapshot) {
    states[count++] = (struct state_array){"fds/last_mean", fds->last.mean, numbers};
    states[count++] = (struct state_array){"fds/last_var", fds->last.square, numbers};
  }
  return count;
}
