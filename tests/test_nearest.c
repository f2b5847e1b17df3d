/* The name meant by a mistyped one. */
#include "dist/nearest.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static const char *const options[] = {"batch", "epochs", "learning-rate", "weight-decay", "lds", "fds", "seed"};
#define COUNT (sizeof options / sizeof *options)

static const char *near(const char *wanted) {
  const char *name = nearest_name(wanted, options, COUNT);
  return name != NULL ? name : "(none)";
}

Test(nearest, finds_the_name_after_one_slip_of_each_kind) {
  cr_assert(eq(str, (char *)near("batc"), "batch"), "a letter missing");
  cr_assert(eq(str, (char *)near("battch"), "batch"), "a letter too many");
  cr_assert(eq(str, (char *)near("bitch"), "batch"), "a wrong letter");
  cr_assert(eq(str, (char *)near("bacth"), "batch"), "two letters swapped");
}

Test(nearest, swapped_neighbours_are_one_edit_not_two) {
  const char *const names[] = {"abxx", "bac"};
  /* "abc" -> "bac" is one swap, and a short name allows one edit only. */
  cr_assert(eq(str, (char *)nearest_name("abc", names, 2), "bac"));
}

Test(nearest, longer_names_forgive_more) {
  cr_assert(eq(str, (char *)near("lerning-raet"), "learning-rate"));
  cr_assert(eq(str, (char *)near("wieght_decay"), "weight-decay"));
}

Test(nearest, letters_of_either_case_are_equal) {
  cr_assert(eq(str, (char *)near("SEED"), "seed"));
}

Test(nearest, offers_nothing_when_nothing_is_near) {
  cr_assert(eq(str, (char *)near("temperature"), "(none)"));
  cr_assert(eq(str, (char *)near("x"), "(none)"));
  cr_assert(eq(str, (char *)near(""), "(none)"));
  cr_assert(nearest_name("batch", options, 0) == NULL);
}

Test(nearest, the_first_of_equally_near_names_wins) {
  cr_assert(eq(str, (char *)near("ds"), "lds"));
}

Test(nearest, very_long_names_are_compared_by_their_beginnings) {
  char wanted[5000], name[5000];
  memset(wanted, 'a', sizeof wanted - 1);
  memset(name, 'a', sizeof name - 1);
  wanted[sizeof wanted - 1] = name[sizeof name - 1] = '\0';
  wanted[3] = 'b';
  const char *const names[] = {name};
  cr_assert(nearest_name(wanted, names, 1) == names[0]);
}
