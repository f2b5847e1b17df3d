/* A study: lines (methods, say) x seeds of training runs, each in a folder of its own, and their test errors.
 *
 *     struct study study;
 *     TRY(study_begin(session, config, &study));                   local, as what follows until study_run()
 *     TRY(study_add(&study, "l1", -1));
 *     TRY(study_add(&study, "l1+conr", 0));                        its difference is taken from the first
 *     TRY(study_check(&study));                                    mistakes are told before anything is trained
 *     TRY(study_run(&study));                                      collective
 *     if (study_is_complete(&study)) ... study.result is told (compare_table.h) ...
 *     study_end(&study);                                           also after a failure
 *
 * Runs go through one after another, each on all ranks, in config->output/LINE/seedS.  A run that is done is not
 * repeated, and one that was stopped goes on: the same command again is how a study is resumed.  --share K/N leaves
 * most runs to other jobs, and the table to the same command without it. */
#ifndef CONR_LAUNCH_STUDY_H
#define CONR_LAUNCH_STUDY_H

#include "launch/compare_table.h"
#include "launch/config.h"
#include "launch/session.h"

#include <limits.h>

#define STUDY_MOST_LINES 256

struct study {
  struct session *session;     /* borrowed */
  const struct config *config; /* borrowed */
  const char *benchmark;       /* of the recipes */
  const char *methods;         /* of the recipe, for all lines; NULL: each has the one of its name */
  /* What a line changes in the options of its runs; NULL = nothing.  `line` counts as they were added. */
  void (*adjust)(const void *context, int line, struct config *run);
  const void *context; /* borrowed */
  struct compare_result result;
  int64_t share, shares; /* 1 of 1: all runs are this job's */
  bool stopped;          /* by a signal */
};

/* By --output, --recipe, --seed, --seeds, --share and those of the groups. */
enum status study_begin(struct session *session, const struct config *config, struct study *study);
void study_end(struct study *study);

/* name: also that of its folder.  against: the line that its difference is taken from; -1: none. */
enum status study_add(struct study *study, const char *name, int against);

/* Mistakes in the options of any line. */
enum status study_check(const struct study *study);

/* Train what is not yet trained; then, unless it was stopped or is a share, fill study->result.
 * A line that cannot be trained, as options and data are, is told in its `refused`; ERR_ARGUMENT when none can.
 * Collective; failures as of train(). */
enum status study_run(struct study *study);

/* Is there a table to tell?  Same value. */
bool study_is_complete(const struct study *study);

/* Where a run lies. */
enum status study_folder(const struct study *study, int line, int seed, char folder[PATH_MAX]);

#endif
