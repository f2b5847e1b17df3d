/* From a head's outputs to answers. */
#include "loss/head.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {
    [HEAD_VALUES] = "values", [HEAD_EXPERTS] = "experts", [HEAD_EVIDENTIAL] = "evidential"};

const char *head_name(enum head_kind kind) {
  return names[kind];
}

enum status head_by_name(const char *name, enum head_kind *kind) {
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(names[i], name) == 0) {
      *kind = (enum head_kind)i;
      return STATUS_OK;
    }
  return fail(ERR_ARGUMENT, "unknown head \"%s\"; choose values, experts or evidential", name);
}

int head_outputs(const struct head *head) {
  return head->targets * (head->kind == HEAD_EXPERTS ? 2 * head->uvote.experts : head->kind == HEAD_EVIDENTIAL ? 3 : 1);
}

int head_weights(const struct head *head) {
  return head->kind == HEAD_EXPERTS ? head->uvote.experts : 1;
}

bool head_spreads(const struct head *head) {
  return head->kind != HEAD_VALUES;
}

enum status head_answer(const struct head *head, const struct loss_ops *losses, enum uvote_vote vote, enum dtype dtype,
                        int64_t rows, const void *outputs, const void *labels, void *answers, void *spread) {
  REQUIRE(head->kind != HEAD_VALUES, ERR_BUG, "outputs that are predictions have no other answer");
  if (losses != NULL && head->kind == HEAD_EXPERTS)
    return losses->uvote_answer(&head->uvote, vote, rows, head->targets, outputs, labels, answers, spread);
  if (losses != NULL)
    return losses->evidential_answer(&head->evidential, rows, head->targets, outputs, answers, spread);
  if (head->kind == HEAD_EXPERTS)
    uvote_answer(&head->uvote, vote, dtype, rows, head->targets, outputs, labels, answers, spread);
  else
    evidential_answer(&head->evidential, dtype, rows, head->targets, outputs, answers, spread);
  return STATUS_OK;
}

double head_deviation(const struct head *head, double spread) {
  return head->kind == HEAD_EXPERTS ? uvote_deviation(spread) : sqrt(spread);
}
