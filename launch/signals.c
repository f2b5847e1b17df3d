/* Blocked signals, taken when they are asked for. */
#include "launch/signals.h"

#include <signal.h>
#include <time.h>

static sigset_t stop_signals(void) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);
  return signals;
}

void signals_block(void) {
  sigset_t signals = stop_signals();
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

void signals_unblock(void) {
  sigset_t signals = stop_signals();
  pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
}

bool signals_stop_asked(void) {
  sigset_t signals = stop_signals();
  const struct timespec now = {0};
  return sigtimedwait(&signals, NULL, &now) > 0;
}
