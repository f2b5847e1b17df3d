/* The judge: deaths first, then silence, then storage, then collectives that wait. */
#include "dist/watch_judge.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MOST_NAMED = 4 }; /* what else there is, is counted */

/* What is lost together shows one by one: within so long.  Words come once a second. */
#define TOGETHER_SECONDS 0.15
#define BEAT_SECONDS 1.5

/* From then on what a rank has said last is no longer taken for what it does. */
#define STALE_SECONDS 3

/* Those that have timeouts of their own for what is in flight on a device speak first: they know more. */
#define PRECEDENCE_SECONDS 2

struct text {
  char *words;
  size_t bytes, used;
};

static void add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *text, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text->words + text->used, text->bytes - text->used, format, arguments);
  va_end(arguments);
  if (length > 0)
    text->used += (size_t)length < text->bytes - text->used ? (size_t)length : text->bytes - text->used - 1;
}

/* ---- words ---------------------------------------------------------------------------------- */

static int count_of(const bool *which, int size) {
  int count = 0;
  for (int rank = 0; rank < size; rank++)
    count += which[rank];
  return count;
}

/* The end of the run of ranks of one host that begins at `first`. */
static int run_end(const struct watch_rank *ranks, int size, const bool *which, int first) {
  int end = first + 1;
  while (end < size && which[end] && strcmp(ranks[end].host, ranks[first].host) == 0)
    end++;
  return end;
}

void watch_list(const struct watch_rank *ranks, int size, const bool *which, char *words, size_t bytes) {
  struct text text = {words, bytes, 0};
  int runs = 0, left = count_of(which, size);
  add(&text, left == 1 ? "rank " : "ranks ");
  for (int first = 0; first < size; first++) {
    if (!which[first])
      continue;
    int end = run_end(ranks, size, which, first);
    if (runs++ == MOST_NAMED) {
      add(&text, " and %d more", left);
      return;
    }
    add(&text, "%s%d", runs > 1 ? ", " : "", first);
    if (end > first + 1)
      add(&text, "-%d", end - 1);
    add(&text, " (%s)", ranks[first].host);
    left -= end - first;
    first = end - 1;
  }
}

static bool is_stale(const struct watch_rank *rank, double now) {
  return now - rank->heard > STALE_SECONDS;
}

/* "rank 3 (host2: waits for data for 20 s), ...", each with what it does. */
static void list_doings(const struct watch_rank *ranks, int size, const bool *which, double now, struct text *text) {
  int named = 0, left = count_of(which, size);
  for (int rank = 0; rank < size && left > 0; rank++) {
    if (!which[rank])
      continue;
    if (named++ == MOST_NAMED) {
      add(text, " and %d more", left);
      return;
    }
    add(text, "%srank %d (%s", named > 1 ? ", " : "", rank, ranks[rank].host);
    if (ranks[rank].waits_for > 0)
      add(text, ": in collective %llu, %s,", (unsigned long long)ranks[rank].waits_for, ranks[rank].collective);
    else
      add(text, ": %s", ranks[rank].doing);
    add(text, " for %.0f s", now - ranks[rank].since);
    if (is_stale(&ranks[rank], now))
      add(text, ", and nothing was heard of it for %.0f", now - ranks[rank].heard);
    add(text, ")");
    left--;
  }
}

/* ---- processes that have ended -------------------------------------------------------------- */

static bool died(const struct watch_rank *ranks, int size, double now, bool *which, struct text *text) {
  bool long_enough = false;
  int first = -1;
  for (int rank = size - 1; rank >= 0; rank--) {
    which[rank] = ranks[rank].closed;
    first = which[rank] ? rank : first;
    long_enough = long_enough || (which[rank] && now - ranks[rank].heard >= TOGETHER_SECONDS);
  }
  if (!long_enough)
    return false;
  bool one = count_of(which, size) == 1;
  watch_list(ranks, size, which, text->words, text->bytes);
  text->used = strlen(text->words);
  if (one && ranks[first].waits_for > 0)
    add(text, " has died in collective %llu (%s)", (unsigned long long)ranks[first].waits_for, ranks[first].collective);
  else if (one)
    add(text, " has died; its last word was that it %s", ranks[first].doing);
  else
    add(text, " have died");
  add(text, "; look on %s for what killed %s: its own last words, or the kernel's about memory (dmesg)",
      ranks[first].host, one ? "it" : "them");
  return true;
}

/* ---- silence -------------------------------------------------------------------------------- */

static bool is_watched(const struct watch_rank *rank) {
  return rank->known && !rank->left && !rank->closed;
}

/* Is all of the host that we know of silent? */
static bool is_host_silent(const struct watch_rank *ranks, int size, const bool *which, const char *host) {
  for (int rank = 0; rank < size; rank++)
    if (strcmp(ranks[rank].host, host) == 0 && !which[rank] && is_watched(&ranks[rank]))
      return false;
  return true;
}

static bool silent(const struct watch_rank *ranks, int size, double now, double limit, bool *which, struct text *text) {
  double longest = 0;
  int first = -1;
  for (int rank = size - 1; rank >= 0; rank--) {
    bool judged = is_watched(&ranks[rank]) && !ranks[rank].traced;
    double seconds = judged ? now - ranks[rank].heard : 0;
    which[rank] = judged && seconds > limit - BEAT_SECONDS;
    first = which[rank] ? rank : first;
    longest = seconds > longest ? seconds : longest;
  }
  if (longest <= limit)
    return false;
  bool one = count_of(which, size) == 1;
  add(text, "nothing has been heard for %.0f s of ", longest);
  watch_list(ranks, size, which, text->words + text->used, text->bytes - text->used);
  text->used += strlen(text->words + text->used);
  if (is_host_silent(ranks, size, which, ranks[first].host))
    add(text, ": the host is down or cut off, or the process%s stopped; look whether %s answers",
        one ? " is" : "es are", ranks[first].host);
  else
    add(text, ", while other ranks of the host answer: %s stopped, or the machine has no time for %s; look on %s",
        one ? "it is" : "they are", one ? "it" : "them", ranks[first].host);
  add(text, " (CONR_WATCH_SECONDS allows more than %g)", limit);
  return true;
}

/* ---- storage -------------------------------------------------------------------------------- */

static bool stalled(const struct watch_rank *ranks, int size, double now, double limit, bool *which,
                    struct text *text) {
  double longest = 0;
  for (int rank = 0; rank < size; rank++) {
    bool judged = is_watched(&ranks[rank]) && !ranks[rank].traced;
    double seconds = judged ? ranks[rank].unanswered : 0;
    which[rank] = judged && seconds > limit - BEAT_SECONDS;
    longest = seconds > longest ? seconds : longest;
  }
  if (longest <= limit)
    return false;
  add(text, "storage has not answered for %.0f s, which is asked by ", longest);
  list_doings(ranks, size, which, now, text);
  add(text,
      "; look there whether the disk or the file server works, then resume; CONR_STORAGE_TIMEOUT allows more than "
      "%g s",
      limit);
  return true;
}

/* ---- collectives ---------------------------------------------------------------------------- */

/* May it be waited for? */
static bool takes_part(const struct watch_rank *rank) {
  return is_watched(rank) && !rank->aside;
}

static void allow_more(struct text *text, double limit) {
  add(text, "; CONR_COMM_TIMEOUT allows more than %g s", limit);
}

/* The rank in the earliest collective of those that have waited too long; -1 = none.  Later ones wait for the same. */
static int longest_waiter(const struct watch_rank *ranks, int size, double now, double limit) {
  int found = -1;
  for (int rank = 0; rank < size; rank++)
    if (is_watched(&ranks[rank]) && ranks[rank].waits_for > 0 && now - ranks[rank].since > limit &&
        (found < 0 || ranks[rank].waits_for < ranks[found].waits_for))
      found = rank;
  return found;
}

static bool late(const struct watch_rank *ranks, int size, double now, double limit, int waiter, bool *which,
                 struct text *text) {
  const struct watch_rank *one = &ranks[waiter];
  bool any = false;
  for (int rank = 0; rank < size; rank++) {
    which[rank] = takes_part(&ranks[rank]) && (ranks[rank].entered < one->waits_for || is_stale(&ranks[rank], now));
    any = any || which[rank];
    if (which[rank] && ranks[rank].unhurried)
      return false;
  }
  if (!any)
    return false;
  add(text, "collective %llu (%s) has waited %.0f s for ", (unsigned long long)one->waits_for, one->collective,
      now - one->since);
  list_doings(ranks, size, which, now, text);
  add(text, "; look there for what holds it up");
  allow_more(text, limit);
  return true;
}

/* All have come, and all stand still. */
static bool stuck(const struct watch_rank *ranks, int size, double now, double limit, int waiter, struct text *text) {
  const struct watch_rank *one = &ranks[waiter];
  int other = -1;
  for (int rank = 0; rank < size; rank++) {
    if (!takes_part(&ranks[rank]))
      continue;
    if (ranks[rank].waits_for == 0 || now - ranks[rank].since <= limit)
      return false;
    if (other < 0 && (ranks[rank].waits_for != one->waits_for || strcmp(ranks[rank].collective, one->collective) != 0))
      other = rank;
  }
  add(text, "all ranks have come to collective %llu (%s), which is not over after %.0f s",
      (unsigned long long)one->waits_for, one->collective, now - one->since);
  if (other >= 0)
    add(text, ", but rank %d (%s) stands in collective %llu (%s): look whether all ranks run the same program", other,
        ranks[other].host, (unsigned long long)ranks[other].waits_for, ranks[other].collective);
  else
    add(text, ": look at the network between the hosts");
  allow_more(text, limit);
  return true;
}

/* ---- all of it ------------------------------------------------------------------------------ */

/* Some ranks are still at their first step; one stands in a debugger: then it may take as long as it likes. */
static double deadline(const struct watch_rank *ranks, int size, double seconds) {
  bool steady = true;
  for (int rank = 0; rank < size; rank++) {
    if (!is_watched(&ranks[rank]))
      continue;
    if (ranks[rank].traced)
      return 1e30;
    steady = steady && (ranks[rank].steady || ranks[rank].aside);
  }
  return (steady ? 1 : WATCH_START_FACTOR) * seconds;
}

enum watch_finding watch_judge(const struct watch_rank *ranks, int size, double now, const struct watch_limits *limits,
                               char *sentence) {
  struct text text = {sentence, WATCH_SENTENCE, 0};
  bool which[size];
  if (died(ranks, size, now, which, &text))
    return WATCH_DIED;
  if (silent(ranks, size, now, limits->silence_seconds, which, &text))
    return WATCH_SILENT;
  if (stalled(ranks, size, now, limits->storage_seconds, which, &text))
    return WATCH_STALLED;
  double limit = deadline(ranks, size, limits->deadline_seconds);
  int waiter = longest_waiter(ranks, size, now, limit + PRECEDENCE_SECONDS);
  if (waiter < 0)
    return WATCH_FINE;
  if (late(ranks, size, now, limit, waiter, which, &text))
    return WATCH_LATE;
  return stuck(ranks, size, now, limit, waiter, &text) ? WATCH_STUCK : WATCH_FINE;
}

void watch_forgive(struct watch_rank *ranks, int size, double seconds, double now) {
  for (int rank = 0; rank < size; rank++)
    ranks[rank].heard = ranks[rank].heard + seconds < now ? ranks[rank].heard + seconds : now;
}
