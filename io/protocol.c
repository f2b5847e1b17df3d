/* Drawing the splits of stress protocols. */
#include "io/protocol.h"

#include "dist/memory.h"
#include "dist/random.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define QUOTA_FACTOR 4
#define TEST_ROWS 50
#define VALIDATION_SHARE 0.1

static const struct rule {
  const char *name;
  bool even, aligned;
  int64_t least, most;             /* bins that take part                        */
  int64_t blind_least, blind_most; /* bins without training; least > most: none */
} rules[] = {[PROTOCOL_NONE] = {"none", false, false, 0, 0, 1, 0},
             [PROTOCOL_EXTRAPOLATION] = {"extrapolation", true, false, INT64_MIN, INT64_MAX, 1, 0},
             [PROTOCOL_INTERPOLATION] = {"interpolation", true, true, INT64_MIN, INT64_MAX, 1, 0},
             [PROTOCOL_BLIND_SPOT] = {"blind-spot", false, true, 20, 73, 47, 53}};
#define RULES ((int)(sizeof rules / sizeof *rules))

/* Draws of a bin are told apart by what they are for. */
enum purpose { DRAW_ROWS, DRAW_TEST, PURPOSES };

struct row {
  int64_t bin, row;
};

/* Rows begin .. end - 1 of the sorted ones. */
struct bin {
  int64_t bin, begin, end, quota;
  bool tested;
};

struct plan {
  const struct protocol_options *options;
  const struct rule *rule;
  struct row *rows; /* those that take part, by bin and row */
  int64_t count;
  struct bin *bins;
  int64_t bin_count;
  int64_t *drawn; /* row of each draw, in order of bins */
  int64_t drawn_count;
  uint16_t *times; /* [source rows] how often drawn */
};

enum status protocol_by_name(const char *name, enum protocol *out) {
  for (int i = 0; i < RULES; i++)
    if (strcmp(rules[i].name, name) == 0) {
      *out = (enum protocol)i;
      return STATUS_OK;
    }
  return fail(ERR_ARGUMENT, "there is no protocol \"%s\"; there are extrapolation, interpolation, blind-spot and none",
              name);
}

static double weight_of(enum protocol kind, int64_t bin) {
  double a = (double)bin;
  switch (kind) {
  case PROTOCOL_EXTRAPOLATION:
    return exp(-0.01 * (a - 50) * (a - 50));
  case PROTOCOL_INTERPOLATION:
    return exp(-0.01 * (a - 25) * (a - 25)) + exp(-0.01 * (a - 80) * (a - 80));
  default:
    return 1;
  }
}

static int by_bin(const void *a, const void *b) {
  const struct row *left = a, *right = b;
  if (left->bin != right->bin)
    return left->bin < right->bin ? -1 : 1;
  return left->row < right->row ? -1 : left->row > right->row;
}

/* A quotient within float32 rounding of a whole number counts as that number, as in loss/metrics.h. */
static int64_t bin_of(double label, double width) {
  double quotient = label / width, nearest = nearbyint(quotient);
  bool whole = fabs(quotient - nearest) <= fmin(1e-3, 4 * FLT_EPSILON * fabs(quotient));
  return (int64_t)(whole ? nearest : trunc(quotient));
}

static enum status sort_rows(struct plan *plan, int64_t rows, const double *labels) {
  TRY(memory_alloc((size_t)rows * sizeof *plan->rows, (void **)&plan->rows));
  for (int64_t i = 0; i < rows; i++) {
    REQUIRE(fabs(labels[i] / plan->options->bin_width) < 0x1p53, ERR_ARGUMENT,
            "label %g lies in no bin of %g that can be counted; give a larger --protocol-bin", labels[i],
            plan->options->bin_width);
    int64_t bin = bin_of(labels[i], plan->options->bin_width);
    if (bin >= plan->rule->least && bin <= plan->rule->most)
      plan->rows[plan->count++] = (struct row){bin, i};
  }
  qsort(plan->rows, (size_t)plan->count, sizeof *plan->rows, by_bin);
  TRY(memory_alloc((size_t)plan->count * sizeof *plan->bins, (void **)&plan->bins));
  for (int64_t i = 0; i < plan->count; i++) {
    if (i == 0 || plan->rows[i].bin != plan->rows[i - 1].bin)
      plan->bins[plan->bin_count++] = (struct bin){.bin = plan->rows[i].bin, .begin = i};
    plan->bins[plan->bin_count - 1].end = i + 1;
  }
  return STATUS_OK;
}

static enum status set_quotas(struct plan *plan) {
  double sum = 0;
  for (int64_t i = 0; i < plan->bin_count; i++)
    sum += weight_of(plan->options->kind, plan->bins[i].bin);
  REQUIRE(plan->count == 0 || sum > 0, ERR_ARGUMENT,
          "--protocol %s thins out labels away from bins 25, 50 or 80, and with bins of %g none lies near them; give "
          "another --protocol-bin",
          plan->rule->name, plan->options->bin_width);
  for (int64_t i = 0; i < plan->bin_count; i++) {
    double quota = floor(QUOTA_FACTOR * (double)plan->count * weight_of(plan->options->kind, plan->bins[i].bin) / sum);
    int64_t rows = plan->bins[i].end - plan->bins[i].begin;
    plan->bins[i].quota = quota < (double)rows ? (int64_t)quota : rows;
  }
  return STATUS_OK;
}

static struct random_key key_of(const struct plan *plan) {
  return random_key(plan->options->seed, RANDOM_PROTOCOL, (uint64_t)plan->options->kind);
}

/* Below n, a function of the bin, the purpose and the number of the draw. */
static int64_t draw(const struct plan *plan, int64_t bin, enum purpose purpose, int64_t number, int64_t n) {
  return (int64_t)(random_uniform(key_of(plan), (uint64_t)bin, (uint64_t)number * PURPOSES + purpose) * (double)n);
}

/* --- the steps ------------------------------------------------------------------------------------------------ */

static enum status draw_rows(struct plan *plan, int64_t rows) {
  TRY(memory_alloc((size_t)plan->count * sizeof *plan->drawn, (void **)&plan->drawn));
  TRY(memory_alloc_zero((size_t)rows * sizeof *plan->times, (void **)&plan->times));
  for (int64_t i = 0; i < plan->bin_count; i++) {
    const struct bin *bin = &plan->bins[i];
    for (int64_t k = 0; k < bin->quota; k++) {
      int64_t row = plan->rows[bin->begin + draw(plan, bin->bin, DRAW_ROWS, k, bin->end - bin->begin)].row;
      plan->drawn[plan->drawn_count++] = row;
      plan->times[row] += plan->times[row] < UINT16_MAX;
    }
  }
  return STATUS_OK;
}

static void draw_test(struct plan *plan, uint16_t *copies) {
  for (int64_t i = 0; i < plan->bin_count; i++) {
    struct bin *bin = &plan->bins[i];
    int64_t pool = 0;
    for (int64_t k = bin->begin; k < bin->end; k++) /* rows never drawn come to the front of the bin */
      if (plan->times[plan->rows[k].row] == 0) {
        struct row row = plan->rows[k];
        plan->rows[k] = plan->rows[bin->begin + pool];
        plan->rows[bin->begin + pool++] = row;
      }
    int64_t wanted = pool < TEST_ROWS ? pool : TEST_ROWS;
    bin->tested = wanted > 0 && (!plan->rule->even || pool >= TEST_ROWS);
    for (int64_t k = 0; k < wanted && bin->tested; k++)
      copies[plan->rows[bin->begin + draw(plan, bin->bin, DRAW_TEST, k, pool)].row * SPLIT_COUNT + SPLIT_TEST]++;
  }
}

/* Bins least .. most; none where least > most. */
struct range {
  int64_t least, most;
};

static struct range tested_range(const struct plan *plan) {
  struct range range = {INT64_MAX, INT64_MIN};
  for (int64_t i = 0; i < plan->bin_count; i++)
    if (plan->bins[i].tested) {
      range.least = plan->bins[i].bin < range.least ? plan->bins[i].bin : range.least;
      range.most = plan->bins[i].bin > range.most ? plan->bins[i].bin : range.most;
    }
  return range;
}

static void align(struct plan *plan, const double *labels) {
  struct range range = tested_range(plan);
  int64_t kept = 0;
  for (int64_t i = 0; i < plan->drawn_count && plan->rule->aligned; i++) {
    int64_t bin = bin_of(labels[plan->drawn[i]], plan->options->bin_width);
    if (bin >= range.least && bin <= range.most)
      plan->drawn[kept++] = plan->drawn[i];
  }
  plan->drawn_count = plan->rule->aligned ? kept : plan->drawn_count;
}

/* A tenth of the draws, by a permutation; what is left is training, without the sources of validation. */
static void divide(struct plan *plan, uint16_t *copies) {
  int64_t validation = (int64_t)nearbyint(VALIDATION_SHARE * (double)plan->drawn_count);
  struct random_key key = random_key(plan->options->seed, RANDOM_PROTOCOL, RULES + (uint64_t)plan->options->kind);
  for (int64_t i = 0; i < validation; i++)
    copies[plan->drawn[random_permute(key, (uint64_t)plan->drawn_count, (uint64_t)i)] * SPLIT_COUNT + SPLIT_VAL]++;
  for (int64_t i = 0; i < plan->drawn_count; i++)
    if (copies[plan->drawn[i] * SPLIT_COUNT + SPLIT_VAL] == 0)
      copies[plan->drawn[i] * SPLIT_COUNT + SPLIT_TRAIN]++;
}

static void make_blind(const struct plan *plan, const double *labels, uint16_t *copies) {
  for (int64_t i = 0; i < plan->drawn_count; i++) {
    int64_t bin = bin_of(labels[plan->drawn[i]], plan->options->bin_width);
    if (bin >= plan->rule->blind_least && bin <= plan->rule->blind_most)
      copies[plan->drawn[i] * SPLIT_COUNT + SPLIT_TRAIN] = copies[plan->drawn[i] * SPLIT_COUNT + SPLIT_VAL] = 0;
  }
}

static enum status count(const struct plan *plan, int64_t rows, const uint16_t *copies,
                         struct protocol_report *report) {
  *report = (struct protocol_report){.drawn = plan->drawn_count};
  for (int64_t i = 0; i < rows; i++)
    for (int split = 0; split < SPLIT_COUNT; split++) {
      report->rows[split] += copies[i * SPLIT_COUNT + split];
      report->sources[split] += copies[i * SPLIT_COUNT + split] > 0;
    }
  for (int64_t i = 0; i < plan->bin_count; i++)
    report->tested_bins += plan->bins[i].tested;
  REQUIRE(report->rows[SPLIT_TEST] > 0, ERR_ARGUMENT,
          "--protocol %s leaves no row for testing: %lld rows lie in %lld bins of %g; give another --protocol-bin",
          plan->rule->name, (long long)plan->count, (long long)plan->bin_count, plan->options->bin_width);
  REQUIRE(report->rows[SPLIT_TRAIN] > 0, ERR_ARGUMENT,
          "--protocol %s leaves no row for training: %lld rows lie in %lld bins of %g; give another --protocol-bin",
          plan->rule->name, (long long)plan->count, (long long)plan->bin_count, plan->options->bin_width);
  return STATUS_OK;
}

static enum status run(struct plan *plan, int64_t rows, const double *labels, uint16_t *copies,
                       struct protocol_report *report) {
  TRY(sort_rows(plan, rows, labels));
  TRY(set_quotas(plan));
  TRY(draw_rows(plan, rows));
  draw_test(plan, copies);
  align(plan, labels);
  divide(plan, copies);
  make_blind(plan, labels, copies);
  return count(plan, rows, copies, report);
}

enum status protocol_draw(const struct protocol_options *options, int64_t rows, const double *labels, uint16_t *copies,
                          struct protocol_report *report) {
  struct plan plan = {.options = options, .rule = &rules[options->kind]};
  REQUIRE(options->bin_width > 0 && isfinite(options->bin_width), ERR_ARGUMENT,
          "--protocol-bin %g is no width; give a number above 0", options->bin_width);
  enum status status = run(&plan, rows, labels, copies, report);
  memory_free((void **)&plan.times);
  memory_free((void **)&plan.drawn);
  memory_free((void **)&plan.bins);
  memory_free((void **)&plan.rows);
  return status;
}
