/* Least, median and most of each time. */
#include "launch/rank_times.h"

#include "dist/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static struct rank_spread spread_of(double *values, int size) {
  qsort(values, (size_t)size, sizeof *values, compare);
  return (struct rank_spread){values[0], values[(size - 1) / 2], values[size - 1]};
}

static double busy(const struct rank_times *times) {
  return times->data + times->compute;
}

struct rank_summary rank_times_summary(const struct rank_times *all, int size) {
  struct rank_summary summary = {0};
  double values[size > 0 ? size : 1];
  if (size < 1)
    return summary;
  for (int rank = 0; rank < size; rank++)
    values[rank] = all[rank].data;
  summary.data = spread_of(values, size);
  for (int rank = 0; rank < size; rank++)
    values[rank] = all[rank].compute;
  summary.compute = spread_of(values, size);
  for (int rank = 0; rank < size; rank++)
    values[rank] = all[rank].wait;
  summary.wait = spread_of(values, size);
  for (int rank = 0; rank < size; rank++) {
    values[rank] = busy(&all[rank]);
    if (values[rank] > busy(&all[summary.slow_rank]))
      summary.slow_rank = rank;
  }
  const struct rank_times *slow = &all[summary.slow_rank];
  snprintf(summary.slow_host, sizeof summary.slow_host, "%s", slow->host);
  summary.slow_seconds = busy(slow);
  summary.median_seconds = spread_of(values, size).median;
  double excess = summary.slow_seconds - summary.median_seconds;
  summary.stands_out =
      excess > 0.2 * summary.median_seconds && excess > 0.1 * (busy(slow) + slow->wait) && excess > 0.5;
  return summary;
}

enum status rank_times_gather(struct comm *comm, const struct rank_times *own, struct rank_summary *out) {
  struct rank_times *all = NULL;
  enum status status = memory_alloc((size_t)comm_size(comm) * sizeof *all, (void **)&all);
  TRY_GOTO(comm_agree(comm, status), out);
  TRY_GOTO(comm_gather_each(comm_for(comm, "gather of the epoch's times"), own, sizeof *own, all), out);
  *out = rank_times_summary(all, comm_size(comm));
out:
  memory_free((void **)&all);
  return status;
}

const char *rank_times_words(const struct rank_summary *summary, char *buffer, size_t bytes) {
  buffer[0] = '\0';
  if (summary->stands_out)
    snprintf(buffer, bytes, ", rank %d (%s) is slow: %.1f s for data and compute, median %.1f s", summary->slow_rank,
             summary->slow_host, summary->slow_seconds, summary->median_seconds);
  return buffer;
}
