/* The distinct texts of a column, up to a limit: the categories it would have.
 *
 *     struct value_set set = {0};
 *     TRY(value_set_add(&set, "F"));
 *     if (!set.full) {
 *       value_set_sort(&set);
 *       int64_t category = value_set_find(&set, "F");
 *     }
 *     value_set_free(&set);
 *
 * All functions are local. */
#ifndef CONR_IO_VALUE_SET_H
#define CONR_IO_VALUE_SET_H

#include "dist/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One-hot columns for more than this would drown the rest of a table. */
#define VALUE_SET_MOST 1000

/* Longer texts are prose, not categories. */
#define VALUE_SET_MOST_BYTES 200

struct value_set {
  bool full; /* a value was refused: there are more, or longer ones, than the limits */
  size_t count;
  char **value;  /* [count], owned; in order of arrival, or sorted by bytes */
  int32_t *slot; /* hash table of indices, -1 = empty; gone once sorted     */
};

/* Add a text unless it is there; once full, nothing is kept any more. */
enum status value_set_add(struct value_set *set, const char *text);

/* Sort by bytes; no value may be added afterwards. */
void value_set_sort(struct value_set *set);

/* The index of a text in a sorted set, -1 when it is not there. */
int64_t value_set_find(const struct value_set *set, const char *text);

void value_set_free(struct value_set *set);

#endif
