/* Feature smoothing (loss/fds.h) in a run: what the --fds options say, and how the rows of a batch are smoothed.
 *
 *     struct smoother_texts texts;
 *     TRY(smoother_resolve(&config, dataset, &texts));      fills in the defaults, which depend on the labels
 *     struct smoother *smoother;
 *     TRY(smoother_create(&config, dataset, &sampler, net, views, &smoother));
 *     each step:
 *       TRY(smoother_begin(smoother, epoch, batch));        queued on the main stream
 *       pass.smoothing = smoother_rows(smoother);           NULL when this epoch does not smooth
 *     smoother_destroy(&smoother);
 *
 * Features that are distributions (net.h) are smoothed as such, as in VIR.
 * Every rank holds the same statistics, and knows from the order of the samples which edge buckets occur in the global
 * batch: nothing is sent in a step.  The tables of an epoch go to the device when its first batch does.  All functions
 * are local. */
#ifndef CONR_LAUNCH_SMOOTHER_H
#define CONR_LAUNCH_SMOOTHER_H

#include "io/loader.h"
#include "launch/config.h"
#include "loss/fds.h"
#include "model/net.h"

struct smoother;

/* What resolved options point to. */
struct smoother_texts {
  char buckets[48], clip[64];
};

/* Fill in the --fds options that were left open; nothing without --fds.  ERR_ARGUMENT for labels of several
 * components, or of a range that cannot be cut into buckets. */
enum status smoother_resolve(struct config *config, const struct dataset *dataset, struct smoother_texts *texts);

/* config   resolved
 * dataset, net  borrowed: must outlive this; the net takes room for smoothed features
 * sampler  of the training split, copied
 * views    of the largest batch
 * ERR_ARGUMENT for options that cannot be, or a net without features; ERR_MEMORY. */
enum status smoother_create(const struct config *config, const struct dataset *dataset, const struct sampler *sampler,
                            struct net *net, int views, struct smoother **out);
void smoother_destroy(struct smoother **smoother); /* NULL is fine */

struct fds *smoother_fds(struct smoother *smoother);

/* The rows of a batch as it lies in host memory.  epoch: whose smoothing it is, while the batch's own says how its
 * samples were drawn.  The host must have waited for the batch before. */
enum status smoother_begin(struct smoother *smoother, int64_t epoch, const struct batch *batch);

/* Of the batch begun last: buckets [views * rows].  Borrowed until the next. */
const struct smoothing *smoother_rows(const struct smoother *smoother);

#endif
