/* metrics.jsonl: one JSON object a line, one line an event, for people's scripts and for `conr report`.
 *
 *     struct metrics_log *log;
 *     TRY(metrics_log_open("run/metrics.jsonl", &log));            rank 0; the others keep NULL
 *     TRY(metrics_log_write(log, metric_text("event", "step"), metric_integer("step", 12),
 *                           metric_real("loss", 0.25)));
 *     metrics_log_close(&log);
 *
 * Lines are appended, each by one write to the file.  Real numbers have 17 digits and come back with the same bits;
 * what is not finite is written as null.  A resumed run first drops what came after its checkpoint with
 * metrics_log_resume.  All functions are local. */
#ifndef CONR_IO_METRICS_LOG_H
#define CONR_IO_METRICS_LOG_H

#include "dist/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct metrics_log;

enum metric_kind { METRIC_TEXT, METRIC_INTEGER, METRIC_REAL, METRIC_BOOLEAN };

struct metric {
  const char *key;
  enum metric_kind kind;
  const char *text; /* UTF-8; NULL is written as null */
  int64_t integer;
  double real;
  bool boolean;
};

static inline struct metric metric_text(const char *key, const char *text) {
  return (struct metric){.key = key, .kind = METRIC_TEXT, .text = text};
}

static inline struct metric metric_integer(const char *key, int64_t value) {
  return (struct metric){.key = key, .kind = METRIC_INTEGER, .integer = value};
}

static inline struct metric metric_real(const char *key, double value) {
  return (struct metric){.key = key, .kind = METRIC_REAL, .real = value};
}

static inline struct metric metric_boolean(const char *key, bool value) {
  return (struct metric){.key = key, .kind = METRIC_BOOLEAN, .boolean = value};
}

/* Open for appending; made when it does not exist. */
enum status metrics_log_open(const char *path, struct metrics_log **out);
void metrics_log_close(struct metrics_log **log);

/* Write one line.  A NULL log does nothing.  ERR_FILE: it cannot be written, a full disk for example.
 * ERR_ARGUMENT: a text that is not UTF-8. */
enum status metrics_log_write_all(struct metrics_log *log, const struct metric *metrics, size_t count);
#define metrics_log_write(log, ...)                                  \
  metrics_log_write_all((log), (const struct metric[]){__VA_ARGS__}, \
                        sizeof((const struct metric[]){__VA_ARGS__}) / sizeof(struct metric))

/* Cut the file after the last line whose "step" is at most `step`; a half-written last line goes too.  Lines before
 * the first that has a step are kept.  A file that does not exist is fine. */
enum status metrics_log_resume(const char *path, int64_t step);

#endif
