/* What a run begins with, unless it goes on: drawn parameters, those of a file (--init), or the encoder of an earlier
 * run (--stage2).
 *
 *     TRY(start_parameters(trainer));        rank 0; train.c gives the others what rank 0 has
 */
#ifndef CONR_LAUNCH_START_H
#define CONR_LAUNCH_START_H

#include "launch/trainer.h"

/* Put them into the trainer's network, which holds drawn ones, and say in the log what was taken from where.
 *
 * --stage2: encoder and running statistics of a conr checkpoint; the head stays as it was drawn.  The model must be the
 * same but for its head and the size of images, a table must have the same columns, standardised alike: an encoder is a
 * function of what it was trained on.
 *
 * Rank 0.  ERR_FILE, ERR_FORMAT: the file is missing, damaged or another network's.  ERR_ARGUMENT: another model or
 * table, or a frozen encoder that nothing was loaded into. */
enum status start_parameters(struct trainer *trainer);

#endif
