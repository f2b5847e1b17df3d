/* Lines for people: rank 0 speaks; the others only when something is wrong there.
 *
 * Progress is one live line on a terminal and a plain line every `log_interval_seconds`
 * otherwise (a log file, a Slurm output).  All on standard error, so that standard output
 * stays what a script asked for. */
#ifndef CONR_DIST_LOG_H
#define CONR_DIST_LOG_H

#include <stdbool.h>

struct log {
  int rank, size;
  bool quiet;    /* warnings and errors only                    */
  bool terminal; /* stderr is a terminal: live lines allowed    */
  bool live;     /* a live line is on screen and must be ended  */
  double last_progress_seconds;
};

/* A log for this rank; looks at the terminal once. */
struct log log_create(int rank, int size, bool quiet);

/* A line from rank 0; nothing on other ranks or when quiet. */
void log_line(struct log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Progress from rank 0: replaces the live line, or prints at most one line per 10 s elsewhere;
 * `final` always prints and ends the line. */
void log_progress(struct log *log, bool final, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A warning from whichever rank calls, with rank and host when there are several. */
void log_warning(struct log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Seconds of a monotonic clock. */
double log_seconds(void);

#endif
