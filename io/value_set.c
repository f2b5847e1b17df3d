/* A small hash set of texts. */
#include "io/value_set.h"

#include "dist/memory.h"

#include <stdlib.h>
#include <string.h>

/* A power of two, at most half full. */
#define SLOTS 2048
_Static_assert(SLOTS >= 2 * VALUE_SET_MOST, "the table must stay sparse");

/* FNV-1a. */
static uint32_t hash(const char *text) {
  uint32_t value = 2166136261u;
  for (; *text != '\0'; text++)
    value = (value ^ (unsigned char)*text) * 16777619u;
  return value;
}

static enum status set_alloc(struct value_set *set) {
  TRY(memory_alloc(VALUE_SET_MOST * sizeof *set->value, (void **)&set->value));
  TRY(memory_alloc(SLOTS * sizeof *set->slot, (void **)&set->slot));
  memset(set->slot, 0xFF, SLOTS * sizeof *set->slot);
  return STATUS_OK;
}

/* The texts go, the mark stays. */
static void give_up(struct value_set *set) {
  value_set_free(set);
  set->full = true;
}

enum status value_set_add(struct value_set *set, const char *text) {
  if (set->full)
    return STATUS_OK;
  if (set->slot == NULL)
    TRY(set_alloc(set));
  uint32_t place = hash(text) % SLOTS;
  while (set->slot[place] >= 0) {
    if (strcmp(set->value[set->slot[place]], text) == 0)
      return STATUS_OK;
    place = (place + 1) % SLOTS;
  }
  size_t length = strlen(text);
  if (set->count == VALUE_SET_MOST || length > VALUE_SET_MOST_BYTES) {
    give_up(set);
    return STATUS_OK;
  }
  TRY(memory_alloc(length + 1, (void **)&set->value[set->count]));
  memcpy(set->value[set->count], text, length + 1);
  set->slot[place] = (int32_t)set->count++;
  return STATUS_OK;
}

static int by_bytes(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

void value_set_sort(struct value_set *set) {
  memory_free((void **)&set->slot);
  if (set->count > 0)
    qsort(set->value, set->count, sizeof *set->value, by_bytes);
}

int64_t value_set_find(const struct value_set *set, const char *text) {
  if (set->count == 0)
    return -1;
  char **found = bsearch(&text, set->value, set->count, sizeof *set->value, by_bytes);
  return found == NULL ? -1 : found - set->value;
}

void value_set_free(struct value_set *set) {
  for (size_t i = 0; i < set->count; i++)
    memory_free((void **)&set->value[i]);
  memory_free((void **)&set->value);
  memory_free((void **)&set->slot);
  set->count = 0;
}
