/* Lines on standard error: live on a terminal, plain and rare in a file. */
#define _GNU_SOURCE /* vasprintf */
#include "dist/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PLAIN_INTERVAL_SECONDS 10.0
#define LIVE_INTERVAL_SECONDS 0.1

double log_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

struct log log_create(int rank, int size, bool quiet) {
  return (struct log){
      .rank = rank, .size = size, .quiet = quiet, .terminal = isatty(STDERR_FILENO), .last_progress_seconds = -1e9};
}

static void end_live_line(struct log *log) {
  if (log->live)
    fputc('\n', stderr);
  log->live = false;
}

/* One write for all of it: standard error is shared with the other ranks, whose lines must not end up inside ours. */
static void write_whole(const char *before, const char *format, va_list arguments, const char *after) {
  char *text = NULL;
  if (vasprintf(&text, format, arguments) < 0)
    return;
  fprintf(stderr, "%s%s%s", before, text, after);
  fflush(stderr);
  free(text);
}

void log_line(struct log *log, const char *format, ...) {
  if (log->rank != 0 || log->quiet)
    return;
  end_live_line(log);
  va_list arguments;
  va_start(arguments, format);
  write_whole("", format, arguments, "\n");
  va_end(arguments);
}

void log_progress(struct log *log, bool final, const char *format, ...) {
  if (log->rank != 0 || log->quiet)
    return;
  double now = log_seconds();
  double interval = log->terminal ? LIVE_INTERVAL_SECONDS : PLAIN_INTERVAL_SECONDS;
  if (!final && now - log->last_progress_seconds < interval)
    return;
  log->last_progress_seconds = now;
  log->live = log->terminal && !final;
  va_list arguments;
  va_start(arguments, format);
  write_whole(log->terminal ? "\r\033[K" : "", format, arguments, log->live ? "" : "\n");
  va_end(arguments);
}

void log_warning(struct log *log, const char *format, ...) {
  end_live_line(log);
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (log->size > 1) {
    char host[256] = "?";
    gethostname(host, sizeof host - 1);
    fprintf(stderr, "conr: warning: [rank %d/%d %s] %s\n", log->rank, log->size, host, text);
  } else {
    fprintf(stderr, "conr: warning: %s\n", text);
  }
  fflush(stderr);
}
