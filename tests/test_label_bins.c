/* Bins of labels. */
#include "loss/label_bins.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

static void refuses(enum status status, const char *sentence) {
  cr_expect(eq(int, status, ERR_ARGUMENT));
  cr_expect(eq(str, (char *)status_message(), (char *)sentence));
}

Test(label_bins, truncate_towards_zero_and_keep_what_is_above) {
  const struct label_bins ages = {0, 1, 121}, tenths = {0, 0.1, 50}, halves = {-2, 0.5, 8};
  cr_expect(eq(i64, label_bins_index(&ages, 0), 0));
  cr_expect(eq(i64, label_bins_index(&ages, 25.9), 25));
  cr_expect(eq(i64, label_bins_index(&ages, -0.5), 0), "as int(label) does");
  cr_expect(eq(i64, label_bins_index(&ages, -1), -1));
  cr_expect(eq(i64, label_bins_index(&ages, 120), 120));
  cr_expect(eq(i64, label_bins_index(&ages, 1e300), 120));
  cr_expect(eq(i64, label_bins_index(&halves, -2), 0));
  cr_expect(eq(i64, label_bins_index(&halves, 1.99), 7));
  for (int i = 0; i < 50; i++)
    cr_expect(eq(i64, label_bins_index(&tenths, (double)((float)i / 10)), i), "%d tenths, in float32", i);
}

Test(label_bins, cover_all_labels_and_zero) {
  static const double labels[] = {3.5, -1.25, 9.75, 2};
  struct label_bins bins;
  cr_assert(eq(int, label_bins_cover(4, labels, 0.5, &bins), STATUS_OK));
  cr_expect(eq(dbl, bins.low, -1.5));
  cr_expect(eq(i64, bins.count, 23));
  cr_expect(eq(i64, label_bins_index(&bins, -1.25), 0));
  cr_expect(eq(i64, label_bins_index(&bins, 9.75), 22));
  cr_assert(eq(int, label_bins_cover(1, labels, 1, &bins), STATUS_OK));
  cr_expect(eq(dbl, bins.low, 0));
  cr_expect(eq(i64, bins.count, 4));
}

Test(label_bins, refuse_what_holds_nothing_or_too_much) {
  struct label_bins bins;
  refuses(label_bins_cover(1, &(double){1e9}, 1, &bins),
          "labels from 0 to 1e+09 would fill 1000000001 bins of width 1, more than 10000000; give wider bins");
  refuses(label_bins_cover(1, &(double){NAN}, 1, &bins), "label nan has no bin; labels must be finite");
  refuses(label_bins_check(&(struct label_bins){0, 0, 5}), "bins of width 0 hold nothing; give one above 0");
  refuses(label_bins_check(&(struct label_bins){INFINITY, 1, 5}), "bins cannot begin at inf; give a label");
  refuses(label_bins_check(&(struct label_bins){0, 1, 0}), "0 bins cannot be had; use 1 to 10000000");
}
