/* Labels counted in bins: centres, probabilities, empty bins, smoothing. */
#include "loss/label_prior.h"

#include "dist/memory.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

/* In bins of this width that cover all labels. */
static enum status make(int rows, const double *labels, double width, const struct label_smoothing *smoothing,
                        struct label_prior *prior) {
  struct label_bins bins;
  TRY(label_bins_cover(rows, labels, width, &bins));
  return label_prior_create(rows, labels, &bins, smoothing, prior);
}

static void expect(const struct label_prior *prior, int count, const double *centres, const double *probabilities) {
  cr_assert(eq(i64, prior->count, count));
  for (int i = 0; i < count; i++) {
    cr_expect(le(dbl, fabs(prior->centres[i] - centres[i]), 1e-12), "centre %d: %.17g", i, prior->centres[i]);
    cr_expect(le(dbl, fabs(prior->probabilities[i] - probabilities[i]), 1e-15), "probability %d: %.17g", i,
              prior->probabilities[i]);
  }
}

Test(label_prior, whole_numbers_are_their_own_centres_and_empty_bins_are_left_out) {
  struct label_prior prior;
  const double labels[] = {30, 3, 30, 4, 30};
  OK(make(5, labels, 1, NULL, &prior));
  expect(&prior, 3, (double[]){3, 4, 30}, (double[]){0.2, 0.2, 0.6});
  label_prior_destroy(&prior);
  cr_expect(eq(sz, memory_in_use(), 0));
}

Test(label_prior, other_labels_have_their_centres_where_labels_are_on_average) {
  struct label_prior prior;
  const double labels[] = {-0.95, 0.15, 0.05, 0.35}; /* 0.05 above their bins' beginnings */
  OK(make(4, labels, 0.1, NULL, &prior));
  expect(&prior, 4, (double[]){-0.95, 0.05, 0.15, 0.35}, (double[]){0.25, 0.25, 0.25, 0.25});
  label_prior_destroy(&prior);
}

/* Counts 2 0 0 1, window 1/2 1 1/2: 2 1 1/2 1; a bin that only neighbours fill is kept. */
Test(label_prior, smoothing_shares_counts_between_neighbours) {
  struct label_prior prior;
  struct label_smoothing smoothing = {.padding = PADDING_ZERO};
  const double labels[] = {0, 0, 3};
  OK(label_window_make(LABEL_TRIANG, 3, 1, WINDOW_BY_MAXIMUM, &smoothing.window));
  OK(make(3, labels, 1, &smoothing, &prior));
  expect(&prior, 4, (double[]){0, 1, 2, 3}, (double[]){2 / 4.5, 1 / 4.5, 0.5 / 4.5, 1 / 4.5});
  label_prior_destroy(&prior);
  smoothing.truncate = true;
  OK(make(3, labels, 1, &smoothing, &prior));
  expect(&prior, 3, (double[]){0, 1, 3}, (double[]){0.5, 0.25, 0.25});
  label_prior_destroy(&prior);
}

/* 7.5 is counted with 3.5, and does not move the centres. */
Test(label_prior, the_last_bin_takes_what_lies_above) {
  struct label_prior prior;
  const struct label_bins bins = {1, 1, 3};
  const double labels[] = {1.5, 3.5, 7.5, 2.5};
  OK(label_prior_create(4, labels, &bins, NULL, &prior));
  expect(&prior, 3, (double[]){1.5, 2.5, 3.5}, (double[]){0.25, 0.25, 0.5});
  label_prior_destroy(&prior);
}

Test(label_prior, bins_without_sense_are_refused) {
  struct label_prior prior;
  struct label_smoothing smoothing = {.padding = PADDING_ZERO};
  const double labels[] = {0.2, 0.7, 5e8};
  cr_expect(eq(int, make(2, labels, 1, NULL, &prior), ERR_ARGUMENT));
  cr_expect(eq(str, (char *)status_message(), "bins of width 1 put all labels into one; give narrower ones"));
  cr_expect(eq(int, make(3, labels, 1, NULL, &prior), ERR_ARGUMENT));
  cr_expect(ne(ptr, strstr(status_message(), "give wider bins"), NULL), "%s", status_message());
  OK(label_window_make(LABEL_TRIANG, 5, 1, WINDOW_BY_MAXIMUM, &smoothing.window));
  cr_expect(eq(int, make(2, labels, 0.5, &smoothing, &prior), ERR_ARGUMENT));
  const struct label_bins high = {2, 1, 3}, none = {0, 0, 3};
  cr_expect(eq(int, label_prior_create(2, labels, &high, NULL, &prior), ERR_ARGUMENT));
  cr_expect(eq(str, (char *)status_message(), "label 0.2 lies below the first bin, which begins at 2; begin lower"));
  cr_expect(eq(int, label_prior_create(2, labels, &none, NULL, &prior), ERR_ARGUMENT));
  cr_expect(eq(sz, memory_in_use(), 0));
}
