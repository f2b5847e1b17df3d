/* conr scale --question global-batch: does it help ConR to contrast rows with more rows?
 *
 * Runs differ in N, the rows that a row is contrasted with, and in nothing else: the optimiser's batch is that of --batch,
 * and what is missing to N are rows of earlier steps (--conr-memory).  So N grows while the noise of the gradient, its
 * steps and the rate stay, which a larger batch would change with it.
 *
 * The reference variant's constant is N less the positives (conr.h): with N it grows itself, and a trend of that variant
 * need not be one of ConR.  So each N is trained three ways, on the same seeds:
 *     paper      no constant
 *     reference  the constant as published, which grows with N
 *     held       reference, with the constant of the smallest N at every N (--conr-constant)
 * Each is compared with the smallest N of its own kind (held: with that of reference, which is the same there), paired
 * by seed. */
#ifndef CONR_LAUNCH_SCALE_QUESTION_H
#define CONR_LAUNCH_SCALE_QUESTION_H

#include "launch/config.h"
#include "launch/session.h"

/* In the folder --output: a run for each line and seed as study.h has them, question.csv (errors), question.json (all),
 * question-cost.csv, the picture question.svg and .png of errors against N; and the table on standard output.
 * On the host, where the memory is.  *stopped: by a signal; the same command goes on.
 * Collective; failures are agreed, but for those that leave ranks apart. */
enum status scale_question(struct session *session, const struct config *config, bool *stopped);

#endif
