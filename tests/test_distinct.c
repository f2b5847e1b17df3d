/* Equal rows as one and a count. */
#include "loss/distinct.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

Test(distinct, rows_are_sorted_and_counted) {
  double rows[] = {2, 1, 0, 5, 2, 1, 0, 4, 2, 1, -3, 9}, copies[6];
  const double expected[] = {-3, 9, 0, 4, 0, 5, 2, 1}, counts[] = {1, 1, 1, 3};
  cr_assert(eq(i64, distinct_rows(6, 2, rows, copies), 4));
  cr_expect(eq(int, memcmp(rows, expected, sizeof expected), 0));
  cr_expect(eq(int, memcmp(copies, counts, sizeof counts), 0));
}

Test(distinct, no_rows_and_one_row) {
  double rows[] = {7}, copies[] = {0};
  cr_expect(eq(i64, distinct_rows(0, 1, rows, copies), 0));
  cr_expect(eq(i64, distinct_rows(1, 1, rows, copies), 1));
  cr_expect(rows[0] == 7 && copies[0] == 1);
}

Test(distinct, zeros_of_both_signs_are_one_label) {
  double rows[] = {0.0, -0.0}, copies[2];
  cr_expect(eq(i64, distinct_rows(2, 1, rows, copies), 1));
  cr_expect(eq(dbl, copies[0], 2));
}
