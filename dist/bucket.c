/* Ranges of the gradient buffer, summed as each fills. */
#include "dist/bucket.h"

#include "dist/memory.h"

struct range {
  size_t first_slice; /* the slice that completes it: slices arrive from the last to the first */
  size_t offset, count;
  struct comm_request request;
  bool in_flight;
};

struct buckets {
  struct comm *comm; /* borrowed: must outlive this */
  enum dtype dtype;
  char *gradients;     /* borrowed */
  struct range *range; /* [count], in the order they complete */
  size_t count;
  size_t next;       /* first bucket that has not been started */
  size_t next_slice; /* slices still to come in this step      */
  size_t slices;
};

/* The most elements one request may hold. */
#define MOST_ELEMENTS ((size_t)1 << 30)

/* Cut from the end; returns the number of buckets, and fills them when `range` is given. */
static size_t cut(const size_t *offsets, size_t slices, size_t elements, size_t least, struct range *range) {
  size_t count = 0, end = elements;
  for (size_t slice = slices; slice-- > 0;) {
    size_t held = end - offsets[slice];
    if (held < least && slice > 0)
      continue;
    if (range != NULL)
      range[count] = (struct range){.first_slice = slice, .offset = offsets[slice], .count = held};
    count++;
    end = offsets[slice];
  }
  return count;
}

enum status buckets_create(struct comm *comm, enum dtype dtype, void *gradients, const size_t *offsets, size_t slices,
                           size_t elements, size_t bytes, struct buckets **out) {
  *out = NULL;
  struct buckets *buckets = NULL;
  enum status status;
  size_t least = bytes / dtype_size(dtype) + (bytes % dtype_size(dtype) != 0);
  least = least < 1 ? 1 : least > MOST_ELEMENTS ? MOST_ELEMENTS : least;
  for (size_t slice = 0; slice < slices; slice++) {
    size_t end = slice + 1 < slices ? offsets[slice + 1] : elements;
    REQUIRE(end - offsets[slice] <= MOST_ELEMENTS, ERR_ARGUMENT,
            "one layer of %zu parameters is too large for a bucket", end - offsets[slice]);
  }
  TRY(memory_alloc_zero(sizeof *buckets, (void **)&buckets));
  buckets->comm = comm;
  buckets->dtype = dtype;
  buckets->gradients = gradients;
  buckets->slices = buckets->next_slice = slices;
  buckets->count = cut(offsets, slices, elements, least, NULL);
  TRY_GOTO(memory_alloc(buckets->count * sizeof *buckets->range, (void **)&buckets->range), failed);
  cut(offsets, slices, elements, least, buckets->range);
  *out = buckets;
  return STATUS_OK;
failed:
  buckets_destroy(&buckets);
  return status;
}

void buckets_destroy(struct buckets **buckets) {
  if (*buckets == NULL)
    return;
  memory_free((void **)&(*buckets)->range);
  memory_free((void **)buckets);
}

size_t buckets_count(const struct buckets *buckets) {
  return buckets->count;
}

enum status buckets_begin(struct buckets *buckets) {
  for (size_t i = 0; i < buckets->count; i++) {
    struct range *range = &buckets->range[i];
    REQUIRE(range->request.handle == NULL, ERR_BUG, "a step begins while gradient bucket %zu is on its way", i);
    range->in_flight = false;
  }
  buckets->next = 0;
  buckets->next_slice = buckets->slices;
  return STATUS_OK;
}

enum status buckets_ready(struct buckets *buckets, size_t slice) {
  REQUIRE(buckets->next_slice > 0, ERR_BUG, "gradient slice %zu is ready after all slices of the step", slice);
  REQUIRE(slice + 1 == buckets->next_slice, ERR_BUG, "gradient slice %zu is ready, but slice %zu was next", slice,
          buckets->next_slice - 1);
  buckets->next_slice = slice;
  if (buckets->next == buckets->count || slice != buckets->range[buckets->next].first_slice)
    return STATUS_OK;
  struct range *range = &buckets->range[buckets->next++];
  TRY(comm_sum_start(comm_for(buckets->comm, "sum of gradients"), buckets->dtype,
                     buckets->gradients + range->offset * dtype_size(buckets->dtype), range->count, &range->request));
  range->in_flight = true;
  return buckets_progress(buckets);
}

enum status buckets_progress(struct buckets *buckets) {
  for (size_t i = 0; i < buckets->next; i++) {
    struct range *range = &buckets->range[i];
    bool done = false;
    if (!range->in_flight)
      continue;
    TRY(comm_progress(buckets->comm, &range->request, &done));
    range->in_flight = !done;
  }
  return STATUS_OK;
}

enum status buckets_wait(struct buckets *buckets) {
  REQUIRE(buckets->next == buckets->count, ERR_BUG, "%zu of %zu gradient buckets were never filled",
          buckets->count - buckets->next, buckets->count);
  for (size_t i = 0; i < buckets->count; i++) {
    if (buckets->range[i].in_flight)
      TRY(comm_wait(buckets->comm, &buckets->range[i].request));
    buckets->range[i].in_flight = false;
  }
  buckets->next = 0;
  buckets->next_slice = buckets->slices;
  return STATUS_OK;
}
