/* Where the main thread is: a few words of memory that another thread reads. */
#include "dist/pulse.h"

#include <stdatomic.h>
#include <time.h>

static struct {
  _Atomic uint64_t entered, waits_for;
  _Atomic(const char *) collective, doing;
  atomic_bool steady, unhurried, aside;
  _Atomic uint64_t asked, answered;
  double since, stood; /* the main thread's alone */
} now = {.doing = "starts"};

/* The clock of the last tick, some milliseconds old: a fifth of the exact one's price (7 ns), twice for each collective.
 * A wait shorter than a tick counts as none or as a tick, in the right proportion: the sums are right. */
static double tick_seconds(void) {
  struct timespec tick;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &tick);
  return (double)tick.tv_sec + 1e-9 * (double)tick.tv_nsec;
}

const char *pulse_doing(const char *words) {
  const char *before = atomic_load_explicit(&now.doing, memory_order_relaxed);
  atomic_store_explicit(&now.doing, words, memory_order_relaxed);
  return before;
}

void pulse_steady(bool steady) {
  atomic_store_explicit(&now.steady, steady, memory_order_relaxed);
}

bool pulse_unhurried(bool unhurried) {
  bool before = atomic_load_explicit(&now.unhurried, memory_order_relaxed);
  atomic_store_explicit(&now.unhurried, unhurried, memory_order_relaxed);
  return before;
}

void pulse_aside(bool aside) {
  atomic_store_explicit(&now.aside, aside, memory_order_relaxed);
}

void pulse_go_on_from(uint64_t entered) {
  atomic_store_explicit(&now.entered, entered, memory_order_relaxed);
}

void pulse_storage_asked(void) {
  atomic_fetch_add_explicit(&now.asked, 1, memory_order_relaxed);
}

void pulse_storage_answered(void) {
  atomic_fetch_add_explicit(&now.answered, 1, memory_order_relaxed);
}

uint64_t pulse_start(const char *collective) {
  uint64_t number = atomic_load_explicit(&now.entered, memory_order_relaxed) + 1; /* nobody else writes it */
  atomic_store_explicit(&now.collective, collective, memory_order_relaxed);
  atomic_store_explicit(&now.entered, number, memory_order_relaxed);
  return number;
}

void pulse_wait(uint64_t number, const char *collective) {
  atomic_store_explicit(&now.collective, collective, memory_order_relaxed);
  atomic_store_explicit(&now.waits_for, number, memory_order_relaxed);
  now.since = tick_seconds();
}

uint64_t pulse_enter(const char *collective) {
  uint64_t number = pulse_start(collective);
  pulse_wait(number, collective);
  return number;
}

void pulse_leave(void) {
  now.stood += tick_seconds() - now.since;
  atomic_store_explicit(&now.waits_for, 0, memory_order_relaxed);
}

double pulse_stood_seconds(void) {
  return now.stood;
}

struct pulse pulse_read(void) {
  return (struct pulse){.entered = atomic_load_explicit(&now.entered, memory_order_relaxed),
                        .waits_for = atomic_load_explicit(&now.waits_for, memory_order_relaxed),
                        .collective = atomic_load_explicit(&now.collective, memory_order_relaxed),
                        .doing = atomic_load_explicit(&now.doing, memory_order_relaxed),
                        .asked = atomic_load_explicit(&now.asked, memory_order_relaxed),
                        .answered = atomic_load_explicit(&now.answered, memory_order_relaxed),
                        .steady = atomic_load_explicit(&now.steady, memory_order_relaxed),
                        .unhurried = atomic_load_explicit(&now.unhurried, memory_order_relaxed),
                        .aside = atomic_load_explicit(&now.aside, memory_order_relaxed)};
}
