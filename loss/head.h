/* What the outputs of a network's head mean: predictions as they are, several experts, or a distribution.
 *
 *     struct head head = {.kind = HEAD_EXPERTS, .targets = 1, .uvote = uvote_default(2)};
 *     net with head_outputs(&head) outputs a row; head_weights(&head) weights a sample
 *     TRY(head_answer(&head, NULL, UVOTE_MINVAR, F32, rows, outputs, NULL, predictions, spread));
 *     deviation = head_deviation(&head, spread[i]);
 *
 *     values      [K]         the predictions themselves
 *     experts     [2, E, K]   uvote.h: locations and log scales, answered by a vote
 *     evidential  [3, K]      evidential.h: a normal-inverse-gamma distribution, answered by its mean
 *
 * All functions are local. */
#ifndef CONR_LOSS_HEAD_H
#define CONR_LOSS_HEAD_H

#include "loss/loss_ops.h"

enum head_kind { HEAD_VALUES, HEAD_EXPERTS, HEAD_EVIDENTIAL };

struct head {
  enum head_kind kind;
  int targets;                  /* components of a label, K */
  struct uvote uvote;           /* HEAD_EXPERTS             */
  struct evidential evidential; /* HEAD_EVIDENTIAL          */
};

/* "values", "experts", "evidential".  An unknown name is ERR_ARGUMENT and lists them. */
const char *head_name(enum head_kind kind);
enum status head_by_name(const char *name, enum head_kind *kind);

int head_outputs(const struct head *head); /* numbers of a row                                */
int head_weights(const struct head *head); /* of a sample, which its loss takes: one an expert */

/* Do answers come with how far they may be off? */
bool head_spreads(const struct head *head);

/* The answer to each row, and what is predicted of its error.
 * losses   of the device where the arrays lie; NULL = the host
 * vote     of experts
 * outputs  [rows, head_outputs()], dtype F32 or F64, finite
 * labels   [rows, targets]; read by UVOTE_ORACLE alone
 * answers  [rows, targets], overwritten
 * spread   likewise, for head_deviation(); NULL if not wanted, or where there is none
 * On a device: queued.  HEAD_VALUES has nothing to answer: ERR_BUG. */
enum status head_answer(const struct head *head, const struct loss_ops *losses, enum uvote_vote vote, enum dtype dtype,
                        int64_t rows, const void *outputs, const void *labels, void *answers, void *spread);

/* The standard deviation that a spread stands for: a log scale of experts, a variance of a distribution. */
double head_deviation(const struct head *head, double spread);

#endif
