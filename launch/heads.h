/* What a network's outputs are taken for (loss/head.h), from the options or from what a checkpoint remembers.
 *
 *     TRY(heads_of_options(&config, targets, &head));            conr train
 *     description.outputs = head_outputs(&head);
 *     TRY(heads_of_description(&description, &head));            conr eval, conr predict
 *
 * All functions are local; every rank comes to the same. */
#ifndef CONR_LAUNCH_HEADS_H
#define CONR_LAUNCH_HEADS_H

#include "launch/config.h"
#include "loss/head.h"
#include "model/checkpoint.h"
#include "model/optim.h"

/* Does --loss ask for experts, for a distribution? */
bool heads_are_experts(const struct config *config);
bool heads_are_evidential(const struct config *config);

/* ERR_ARGUMENT: options of --loss uvote and evidential that cannot be. */
enum status heads_of_options(const struct config *config, int targets, struct head *out);

/* ERR_FORMAT: outputs that a head of that name does not have. */
enum status heads_of_description(const struct model_description *description, struct head *out);

/* By which answer experts are measured: --vote, or where it says auto, `otherwise`. */
enum status heads_vote(const struct config *config, enum uvote_vote otherwise, enum uvote_vote *out);

/* Powers of the density by which the experts' samples are weighted, [experts]. */
enum status heads_powers(const struct config *config, double *powers);

/* Log scales learn at a share of the learning rate: those of the head, which may be all that learns. */
enum status heads_set_rates(const struct config *config, const struct net *net, struct optim *optim);

#endif
