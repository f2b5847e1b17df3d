/* Decimals that read back as the same double, and are as short as can be. */
#include "dist/decimal.h"

#include "dist/random.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

Test(decimal, is_what_people_write) {
  char text[DECIMAL_BYTES];
  cr_expect(eq(str, (char *)decimal_text(0.7, text), "0.7"));
  cr_expect(eq(str, (char *)decimal_text(1e-8, text), "1e-08"));
  cr_expect(eq(str, (char *)decimal_text(-120, text), "-120"));
  cr_expect(eq(str, (char *)decimal_text(1.0 / 3, text), "0.3333333333333333"));
  cr_expect(eq(str, (char *)decimal_text(INFINITY, text), "inf"));
}

Test(decimal, reads_back_as_the_same_bits) {
  struct random_key key = random_key(1, RANDOM_TEST, 0);
  char text[DECIMAL_BYTES];
  for (uint64_t i = 0; i < 20000; i++) {
    double value = ldexp(2 * random_uniform(key, i, 0) - 1, (int)(2000 * random_uniform(key, i, 1)) - 1000);
    double back = strtod(decimal_text(value, text), NULL);
    cr_assert(memcmp(&value, &back, sizeof value) == 0, "%s", text);
    cr_assert(strlen(text) < DECIMAL_BYTES - 1);
  }
}
