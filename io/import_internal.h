/* An image import under way, and its parts: rounds over the rows, the look at every image, the writing.  Behind
 * import_images.h.  What is collective says so; all ranks then come to the same status. */
#ifndef CONR_IO_IMPORT_INTERNAL_H
#define CONR_IO_IMPORT_INTERNAL_H

#include "io/import_output.h"
#include "io/import_work.h"

#define IMPORT_REASON_BYTES 200
#define IMPORT_DEFAULT_QUALITY 95

/* Rows of a round, at most. */
#define IMPORT_ROUND_ROWS 8192

/* What a rank found out about one row, as it travels. */
struct import_verdict {
  struct import_record record;
  char reason[IMPORT_REASON_BYTES]; /* "" unless broken */
};

struct import {
  const struct import_images_options *options; /* borrowed */
  int rank, size, threads;
  struct import_rows *rows;
  struct import_source *source;
  struct import_record *records;   /* [rows] */
  int64_t *offset;                 /* [rows] from the first image; made when the records are final */
  struct import_worker **workers;  /* [threads] */
  struct import_verdict *verdicts; /* [IMPORT_ROUND_ROWS] of a round, all ranks' */
  struct import_images_report *report;
  struct import_journal *journal;  /* rank 0 */
  struct import_progress progress; /* of an earlier attempt; the same on all ranks */
  struct import_output output;
  bool stopped; /* a stop was asked for; the same on all ranks */
};

/* ---- import_rounds.c: ranks, which may be one without a communicator ---- */

/* comm_agree, comm_broadcast.  Collective. */
enum status import_agree(const struct import *import, enum status status);
enum status import_broadcast(const struct import *import, void *data, size_t bytes);

/* A line for people, from rank 0. */
void import_say(const struct import *import, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* First row of a rank's share of a round. */
int64_t import_share(int64_t count, int rank, int size);

/* A pass over the rows [done, total). */
struct import_pass {
  const char *name; /* "checking" */
  /* One row of a round that begins at `first`; on some thread of one rank. */
  enum status (*row)(struct import *import, struct import_worker *worker, int64_t first, int64_t row);
  /* After each round.  Collective. */
  enum status (*after)(struct import *import, struct import_pass *pass, int64_t first, int64_t count);
  int64_t done, total;
  double began, synced; /* seconds */
  int64_t began_at;     /* rows done at `began` */
};

/* Until the end, or until import->stopped.  Collective. */
enum status import_run_pass(struct import *import, struct import_pass *pass);

/* ---- import_check.c ---- */

/* Look at every image; then the rows and records are those that will be written.  Collective. */
enum status import_check_all(struct import *import);

/* ---- import_protocol.c ---- */

/* With a protocol: draw by it, and multiply the rows and records accordingly.  Same value. */
enum status import_apply_protocol(struct import *import);

/* ---- import_write.c ---- */

/* Write the file and put it in place.  Collective. */
enum status import_write_all(struct import *import);

#endif
