/* A point of a scaling study: steps of training on so many ranks with so large a batch, measured, kept as a file of its
 * own, and read again.
 *
 *     TRY(scale_point_measure(session, &run, ranks, &point, &stopped));        all ranks; the others wait
 *     TRY(scale_point_write(&point, "study/points/p4-b256.json"));             rank 0
 *     TRY(scale_point_read("study/points/p4-b256.json", &point, &there));
 */
#ifndef CONR_LAUNCH_SCALE_POINT_H
#define CONR_LAUNCH_SCALE_POINT_H

#include "launch/config.h"
#include "launch/session.h"

#include <jansson.h>

#define SCALE_MOST_REPEATS 1000

/* Where a step's time goes; they add up to it. */
enum scale_phase {
  SCALE_DATA,     /* waiting for the batch                                                   */
  SCALE_FORWARD,  /* forward pass                                                            */
  SCALE_LOSS,     /* regression loss, and regularisers beside ConR                           */
  SCALE_GATHER,   /* standing in gathers of rows, and thus waiting for other ranks           */
  SCALE_PANELS,   /* ConR and its gradient, from the gathered rows                           */
  SCALE_BACKWARD, /* backward pass, while gradients travel                                   */
  SCALE_REDUCE,   /* what is left to wait for of their sums                                  */
  SCALE_UPDATE,   /* the optimiser                                                           */
  SCALE_REST,     /* all else: the host between the phases, and what ranks are apart         */
  SCALE_PHASES
};

/* Numbers of a step are means over steps and ranks, of the repetition of median time; seconds is its slowest rank. */
struct scale_point {
  double ranks, batch;                          /* batch: samples of all ranks                            */
  double hosts, ranks_per_host, threads, cores; /* threads of a rank; cores of a host that a rank may use */
  double steps, repetitions;
  double seconds, seconds_least, seconds_most; /* a step; median and ends of the repetitions      */
  double samples_per_second;
  double phase[SCALE_PHASES];
  double gather_least, reduce_least; /* of the rank that waited least: the messages themselves */
  double gather_bytes, sum_bytes;    /* received in ConR's gathers; in buffers that were summed */
  double gradient_bytes, messages;   /* of the gradients' sum: bytes and pieces                */
  double rows, width, flops;         /* ConR: N, D, and flops of a rank's products; 0 without  */
  double repeat[SCALE_MOST_REPEATS]; /* [repetitions] seconds a step, in the order of measuring */
  char host_names[4096], device[128], transport[256], libraries[256];
  char version[64], commit[64], mpi[256], hdf5[32], onednn[32], date[32], data[4096];
  char *options; /* owned: the options that say what was trained, as config_write() writes them */
};

const char *scale_phase_name(enum scale_phase phase);

void scale_point_free(struct scale_point *point);

/* On the first `ranks` ranks of the session, with --steps and --repeat of the config, whose batch is that of the point.
 * Ranks beyond wait without using a core.  *stopped: by a signal; then there is no point.
 * Collective; equal arguments.  Failures are those of all ranks, but for those of one rank alone, as of train(). */
enum status scale_point_measure(struct session *session, const struct config *config, int ranks,
                                struct scale_point *out, bool *stopped);

/* The options that say what is trained, for comparison with those of a point; to be free()d.  Local. */
enum status scale_point_options(const struct config *config, char **out);

/* --- files ---------------------------------------------------------------------------------------------------- */

/* Written aside and renamed. */
enum status scale_point_write(const struct scale_point *point, const char *path);
/* *there: false when there is no such file.  ERR_FORMAT: it is none of these. */
enum status scale_point_read(const char *path, struct scale_point *out, bool *there);

/* All of the point but its options and repetitions: names and values in one order, for tables.  `text` is NULL for
 * numbers.  false behind the last. */
struct scale_field {
  const char *name;
  double number;
  const char *text;
};
bool scale_point_field(const struct scale_point *point, int index, struct scale_field *out);

/* As one JSON object: the fields, the options, and the repetitions as "repeats".  NULL without memory. */
json_t *scale_point_json(const struct scale_point *point);

#endif
