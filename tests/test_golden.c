/* The helper behind the golden tests: what it must not let pass. */
#include "tests/golden.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <signal.h>

Test(golden, scalar_error_is_relative_above_a_floor_of_1e12) {
  cr_assert(epsilon_eq(dbl, golden_scalar_error(1001, 1000), 1e-3, 1e-15));
  cr_assert(epsilon_eq(dbl, golden_scalar_error(-1, 1), 2, 1e-15));
  cr_assert(eq(dbl, golden_scalar_error(5e-13, 0), 0));
  cr_assert(golden_scalar_error(5e-12, 0) > 1);
}

Test(golden, array_error_is_relative_to_the_largest_expected_value) {
  double expected[] = {-4, 0, 1}, got[] = {-4, 0.5, 1.25};
  float single[] = {-4, 0.5f, 1.25f};
  cr_assert(eq(dbl, golden_array_error(F64, 3, got, expected), 0.125));
  cr_assert(eq(dbl, golden_array_error(F32, 3, single, expected), 0.125));
  double zeros[] = {0, 0, 0};
  cr_assert(eq(dbl, golden_array_error(F64, 3, got, zeros), 4));
}

Test(golden, values_that_are_not_finite_match_their_like_only) {
  cr_assert(eq(dbl, golden_scalar_error(NAN, NAN), 0));
  cr_assert(eq(dbl, golden_scalar_error(-INFINITY, -INFINITY), 0));
  const double pairs[][2] = {{NAN, 1}, {1, NAN}, {INFINITY, -INFINITY}, {1, INFINITY}, {INFINITY, 1}, {NAN, INFINITY}};
  for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
    cr_expect(golden_scalar_error(pairs[i][0], pairs[i][1]) > 1e300, "pair %zu", i);
    cr_expect(golden_array_error(F64, 1, &pairs[i][0], &pairs[i][1]) > 1e300, "pair %zu", i);
  }
}

Test(golden, attributes_of_any_numeric_type_and_absent_ones_are_read) {
  struct golden_file *file = golden_open("pointwise_losses.h5");
  for (int i = 0; i < golden_case_count(file); i++) {
    const char *name = golden_case_name(file, i);
    cr_assert(golden_has(file, name, "pred") && !golden_has(file, name, "pred/x") && !golden_has(file, name, "x/y"));
    cr_assert(eq(dbl, golden_number(file, name, "no_such_attribute", -7), -7));
    double given = golden_number(file, name, "weights_given", -7); /* stored as an integer */
    cr_assert(given == 0 || given == 1, "%s: weights_given is %g", name, given);
    struct golden_names members = golden_members(file, name, "");
    cr_assert(ge(int, members.count, 5));
    golden_free_names(&members);
    golden_ran(file);
  }
  golden_close(&file);
}

Test(golden, missing_file_ends_the_test, .signal = SIGABRT) {
  golden_open("no_such_file.h5");
}

Test(golden, missing_dataset_ends_the_test, .signal = SIGABRT) {
  struct golden_file *file = golden_open("pointwise_losses.h5");
  golden_read(file, golden_case_name(file, 0), "no_such_dataset");
}

Test(golden, case_that_nobody_counted_ends_the_test, .signal = SIGABRT) {
  struct golden_file *file = golden_open("pointwise_losses.h5");
  for (int i = 1; i < golden_case_count(file); i++)
    golden_ran(file);
  golden_report(file);
}
