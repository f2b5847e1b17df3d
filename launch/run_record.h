/* What a run folder says of its run: config.used and metrics.jsonl, as they were left by it.
 *
 *     struct run_record *record;
 *     TRY(run_record_read("run", &record));
 *     for (int64_t e = 0; e < record->epochs; e++)
 *       printf("%g %g\n", record->epoch[e][CURVE_EPOCH], record->epoch[e][CURVE_VAL_MAE]);
 *     printf("%s\n", run_record_option(record, "lr"));
 *     run_record_destroy(&record);
 *
 * A run that was killed and resumed has each epoch once: the later line counts.  Lines that cannot be read are left out
 * and counted, the last one apart when it has no end, as after a kill.  All functions are local. */
#ifndef CONR_LAUNCH_RUN_RECORD_H
#define CONR_LAUNCH_RUN_RECORD_H

#include "dist/status.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

/* Keys of the epoch lines of metrics.jsonl (launch/README.md). */
enum curve {
  CURVE_EPOCH, /* from 1 on: epochs that are done */
  CURVE_STEP,  /* the epoch's last; from 0 on     */
  CURVE_TRAIN_LOSS,
  CURVE_VAL_MAE,
  CURVE_VAL_MSE,
  CURVE_CONR,
  CURVE_RANKSIM,
  CURVE_RNC,
  CURVE_ACCON,
  CURVE_SRL,
  CURVE_RECONSTRUCTION,
  CURVE_NOISE_SCALE,
  CURVE_LR,
  CURVE_SECONDS,
  CURVE_DATA_WAIT,
  CURVE_FORWARD,
  CURVE_LOSS,
  CURVE_GATHER,
  CURVE_REGULARISERS,
  CURVE_BACKWARD,
  CURVE_REDUCE,
  CURVE_UPDATE,
  CURVE_SAMPLES,
  /* Of an epoch's seconds over the ranks: */
  CURVE_RANK_DATA_MIN,
  CURVE_RANK_DATA_MEDIAN,
  CURVE_RANK_DATA_MAX,
  CURVE_RANK_COMPUTE_MIN,
  CURVE_RANK_COMPUTE_MEDIAN,
  CURVE_RANK_COMPUTE_MAX,
  CURVE_RANK_WAIT_MIN,
  CURVE_RANK_WAIT_MEDIAN,
  CURVE_RANK_WAIT_MAX,
  CURVES
};

struct run_option {
  const char *name, *value;
};

struct run_record {
  char folder[PATH_MAX];
  char data[PATH_MAX]; /* the file that it was trained on, as it was named then; "" when not said          */
  char hash[32];       /* of it, as text                                                                  */
  char made_by[256];   /* "conr 0.1.0, commit 1a2b3c, 2026-01-31T12:00:00Z"; "" when not said                  */
  char ranks[512];     /* "4 ranks on node1, 2 threads each"                                              */
  int options;
  struct run_option *option; /* [options], borrowed from text */
  char *text;                /* of config.used                */
  int64_t epochs;
  double (*epoch)[CURVES]; /* [epochs]; NaN where a line has no number */
  int64_t damaged;         /* lines of metrics.jsonl that cannot be read                                  */
  bool torn;               /* the last one has no end, and is not among them                              */
};

/* ERR_ARGUMENT: there is no folder, or nothing of a run in it.  A file that is missing leaves its part empty. */
enum status run_record_read(const char *folder, struct run_record **out);
void run_record_destroy(struct run_record **record); /* NULL is fine */

/* The value of an option in config.used; NULL when it is not there.  Borrowed. */
const char *run_record_option(const struct run_record *record, const char *name);

/* The key in metrics.jsonl. */
const char *curve_key(enum curve curve);

#endif
