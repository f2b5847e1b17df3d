/* Edit distance over a list of names. */
#include "dist/nearest.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

/* Longer names are compared by their first characters. */
#define MOST_CHARACTERS 64

static size_t minimum(size_t a, size_t b) {
  return a < b ? a : b;
}

static bool same(char a, char b) {
  return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Optimal string alignment distance, by rows: two rows back are needed for the swap. */
static size_t distance(const char *a, size_t a_length, const char *b, size_t b_length) {
  size_t rows[3][MOST_CHARACTERS + 1];
  size_t *before = rows[0], *last = rows[1], *current = rows[2];
  for (size_t j = 0; j <= b_length; j++)
    last[j] = j;
  for (size_t i = 1; i <= a_length; i++) {
    current[0] = i;
    for (size_t j = 1; j <= b_length; j++) {
      size_t replace = last[j - 1] + (same(a[i - 1], b[j - 1]) ? 0 : 1);
      current[j] = minimum(replace, minimum(last[j], current[j - 1]) + 1);
      if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1]))
        current[j] = minimum(current[j], before[j - 2] + 1);
    }
    size_t *oldest = before;
    before = last;
    last = current;
    current = oldest;
  }
  return last[b_length];
}

const char *nearest_name(const char *wanted, const char *const *names, size_t count) {
  const char *nearest = NULL;
  size_t fewest = 0, length = strnlen(wanted, MOST_CHARACTERS);
  for (size_t i = 0; i < count; i++) {
    size_t other = strnlen(names[i], MOST_CHARACTERS);
    size_t edits = distance(wanted, length, names[i], other);
    size_t longer = length > other ? length : other;
    size_t allowed = longer < 6 ? 1 : longer / 3;
    if (edits <= allowed && edits < longer && (nearest == NULL || edits < fewest)) {
      nearest = names[i];
      fewest = edits;
    }
  }
  return nearest;
}
