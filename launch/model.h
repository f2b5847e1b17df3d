/* A network from the texts that describe it: options, or what a checkpoint remembers. */
#ifndef CONR_LAUNCH_MODEL_H
#define CONR_LAUNCH_MODEL_H

#include "model/checkpoint.h"

#define MOST_LAYERS 64

/* Build the network of a description on a device (NULL = the host).  capacity: rows of one pass on this rank.
 * ERR_ARGUMENT: an unknown name, or a value out of range.  Local. */
enum status model_build(struct device *device, const struct model_description *description, double dropout,
                        int64_t capacity, const struct ops **ops, struct net **out);

/* Give all ranks rank 0's parameters and buffers.  data: a communicator of the net's memory.  Collective; the host
 * waits. */
enum status model_share(struct comm *data, const struct net *net);

/* The precision that a model of this one is computed in on a device: a network that was trained with 16 bits, or on
 * tensor cores, has float32 parameters, which the host takes as they are. */
const char *model_precision(const struct device *device, const char *trained_in);

/* Does the description stand for a network of images? */
bool model_is_for_images(const struct model_description *description);

#endif
