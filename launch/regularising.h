/* The regularisers on features beside ConR as the options want them.
 *
 *     struct regularising_texts texts;
 *     TRY(regularising_resolve(&config, dataset, &texts));       fills in what depends on the labels
 *     options = regularising_options(&config);
 *
 * All functions are local; every rank knows all labels and comes to the same. */
#ifndef CONR_LAUNCH_REGULARISING_H
#define CONR_LAUNCH_REGULARISING_H

#include "io/dataset.h"
#include "launch/config.h"
#include "loss/regularisers.h"

/* What resolved options point to. */
struct regularising_texts {
  char bins[96];
};

/* Do options ask for a term that contrasts the views of a sample: ConR, RnC or ACCon? */
bool regularising_contrasts(const struct config *config);

/* Refuse options of methods that are off, and contrast without views or augmentation; to be called once --views, --noise
 * and their kin are resolved.  ERR_ARGUMENT. */
enum status regularising_check(const struct config *config, bool images);

/* --srl-bins and --accon-range from the training labels, where they were left open.  ERR_ARGUMENT: labels that cannot be
 * cut into bins. */
enum status regularising_resolve(struct config *config, const struct dataset *dataset,
                                 struct regularising_texts *texts);

/* Of resolved options. */
enum status regularising_options(const struct config *config, struct regulariser_options *out);

#endif
