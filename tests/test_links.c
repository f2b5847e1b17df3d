/* What is made of measured links; the measuring itself is in test_preflight.c, between hosts. */
#include "dist/links.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>

/* The other clock is 5 s ahead; messages take what is given there and back. */
static struct clock_sample sample(double sent, double there, double back) {
  return (struct clock_sample){.sent = sent, .theirs = sent + there + 5, .back = sent + there + back};
}

Test(links, the_quickest_round_trip_says_how_far_clocks_are_apart) {
  struct clock_sample samples[] = {sample(100, 0.3, 0.1), sample(101, 0.002, 0.001), sample(102, 0.0, 0.2)};
  struct clock_offset offset = clock_estimate(samples, 3);
  /* theirs - (sent + back) / 2 = 5 + (0.002 - 0.001) / 2, exact but for the rounding of numbers near 100 */
  cr_assert(fabs(offset.seconds - 5.0005) < 1e-12, "%.17g", offset.seconds);
  cr_assert(fabs(offset.bound - 0.0015) < 1e-12, "%.17g", offset.bound);
}

Test(links, the_offset_is_within_its_bound_however_unequal_the_ways) {
  for (int i = 0; i <= 10; i++) {
    double there = 0.04 * i / 10;
    struct clock_sample one = sample(7, there, 0.04 - there);
    struct clock_offset offset = clock_estimate(&one, 1);
    cr_assert(fabs(offset.seconds - 5) <= offset.bound + 1e-12, "%g there: %.17g, bound %.17g", there, offset.seconds,
              offset.bound);
  }
}

static struct link link_of(double transfer) {
  return (struct link){.measured = true, .transfer = transfer};
}

Test(links, a_slow_link_is_named_when_it_alone_is) {
  struct link links[] = {{0}, link_of(0.001), link_of(0.03), {0}, link_of(0.002)};
  cr_assert(eq(int, links_slowest(links, 5), 2));
  links[1].transfer = 0.02; /* another slow one: it is the network, not the host */
  cr_assert(eq(int, links_slowest(links, 5), -1));
}

Test(links, small_differences_and_single_links_are_not_named) {
  struct link links[] = {{0}, link_of(0.0001), link_of(0.003), link_of(0.0002)};
  cr_assert(eq(int, links_slowest(links, 4), -1), "30 times as long, but of a moment");
  cr_assert(eq(int, links_slowest(links, 2), -1), "nothing to compare with");
  cr_assert(eq(int, links_slowest(links, 1), -1), "one host");
}
