/* For implementers of metrics: the order in which rows are added up, and the table from the sums. */
#ifndef CONR_LOSS_METRICS_PLACES_H
#define CONR_LOSS_METRICS_PLACES_H

#include "loss/metrics.h"
#include "loss/metrics_element.h"

struct metrics_range {
  int64_t first, next;
};

/* The evaluated rows by shot class, then bin, then row: so groups and bins are ranges of places. */
struct metrics_places {
  int64_t rows, bins; /* bins: those that have rows */
  int32_t *row;       /* [rows] the row at each place                           */
  int32_t *first;     /* [bins + 1] the first place of each bin; rows at the end */
  struct metrics_range bins_of[METRICS_GROUPS];
};

/* labels  [rows, targets]; INT32_MAX rows at most
 * ERR_NUMERIC: a label is not finite.  On failure nothing is left. */
enum status metrics_places_create(const struct metrics *metrics, enum dtype dtype, int64_t rows, const void *labels,
                                  struct metrics_places *places);
void metrics_places_free(struct metrics_places *places); /* zeroed is fine */

/* The places of a group. */
static inline struct metrics_range metrics_places_of(const struct metrics_places *places, enum metrics_group group) {
  struct metrics_range bins = places->bins_of[group];
  struct metrics_range range = {places->first[bins.first], places->first[bins.next]};
  return range;
}

int metrics_targets(const struct metrics *metrics);
enum gmean_rule metrics_gmean_rule(const struct metrics *metrics);

/* The failure that a prediction is not finite: element `at` of [rows, targets]. */
enum status metrics_bad_prediction(const struct metrics *metrics, int64_t at, double value);

/* A group's row of the table.
 * correlations  [targets, 2] of Pearson and of Spearman; not read for a group without rows, nor the sums */
void metrics_finish(const struct metrics *metrics, const struct metrics_places *places, enum metrics_group group,
                    const struct metrics_sums *sums, const double *correlations, struct metrics_row *out);

#endif
