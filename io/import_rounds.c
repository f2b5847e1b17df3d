/* Rounds of an image import: between two of them ranks agree, the journal is written, a stop is noticed. */
#include "io/import_internal.h"

#include <omp.h>
#include <stdarg.h>
#include <stdio.h>

/* A round takes about this long. */
#define ROUND_SECONDS 0.5

enum status import_agree(const struct import *import, enum status status) {
  return import->options->comm == NULL ? status : comm_agree(import->options->comm, status);
}

enum status import_broadcast(const struct import *import, void *data, size_t bytes) {
  return import->options->comm == NULL ? STATUS_OK : comm_broadcast(import->options->comm, data, bytes, 0);
}

void import_say(const struct import *import, const char *format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (import->options->log != NULL)
    log_line(import->options->log, "%s", text);
}

int64_t import_share(int64_t count, int rank, int size) {
  return count * rank / size;
}

/* This rank's share of a round, by its threads.  The failure of the lowest row is the one told. */
static enum status work(struct import *import, const struct import_pass *pass, int64_t first, int64_t count) {
  int64_t begin = first + import_share(count, import->rank, import->size);
  int64_t end = first + import_share(count, import->rank + 1, import->size);
  int64_t failing = INT64_MAX;
  enum status status = STATUS_OK;
  char sentence[1024] = "";
#pragma omp parallel for schedule(dynamic, 1) num_threads(import->threads)
  for (int64_t row = begin; row < end; row++) {
    enum status own = pass->row(import, import->workers[omp_get_thread_num()], first, row);
    if (own == STATUS_OK)
      continue;
#pragma omp critical(import_work_failed)
    if (row < failing) {
      failing = row;
      status = own;
      snprintf(sentence, sizeof sentence, "%s", status_message());
    }
  }
  return status == STATUS_OK ? STATUS_OK : fail(status, "%s", sentence);
}

static void show_progress(const struct import *import, const struct import_pass *pass) {
  double seconds = log_seconds() - pass->began;
  double rate = seconds > 0 ? (double)(pass->done - pass->began_at) / seconds : 0;
  double left = rate > 0 ? (double)(pass->total - pass->done) / rate : 0;
  if (import->options->log != NULL)
    log_progress(import->options->log, pass->done == pass->total,
                 "%s images: %.0f %%, %lld of %lld, %.0f/s, %.0f s left", pass->name,
                 100 * (double)pass->done / (double)pass->total, (long long)pass->done, (long long)pass->total, rate,
                 left);
}

/* The longest time a rank took, and whether any is asked to stop. */
static enum status look_around(struct import *import, double *seconds) {
  const struct import_images_options *options = import->options;
  bool asked = options->stop_asked != NULL && options->stop_asked(options->stop_context);
  double most[2] = {*seconds, asked ? 1 : 0};
  if (options->comm != NULL)
    TRY(comm_max_f64(options->comm, most, 2));
  *seconds = most[0];
  import->stopped = most[1] > 0;
  return STATUS_OK;
}

enum status import_run_pass(struct import *import, struct import_pass *pass) {
  int64_t least = 4 * (int64_t)import->size, round_rows = 4 * least; /* the same on all ranks, whatever their threads */
  pass->began = pass->synced = log_seconds();
  pass->began_at = pass->done;
  while (pass->done < pass->total && !import->stopped) {
    round_rows = round_rows < IMPORT_ROUND_ROWS ? round_rows : IMPORT_ROUND_ROWS;
    int64_t count = pass->total - pass->done < round_rows ? pass->total - pass->done : round_rows;
    double seconds = log_seconds();
    TRY(import_agree(import, work(import, pass, pass->done, count)));
    seconds = log_seconds() - seconds;
    TRY(look_around(import, &seconds));
    TRY(pass->after(import, pass, pass->done, count));
    pass->done += count;
    show_progress(import, pass);
    if (seconds < ROUND_SECONDS / 2)
      round_rows *= 2;
    else if (seconds > 2 * ROUND_SECONDS && round_rows / 2 >= least)
      round_rows /= 2;
  }
  return STATUS_OK;
}
