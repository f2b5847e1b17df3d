/* A network: built once into a list of operations with fixed shapes, then run forward and backward.
 *
 *     struct net *net;
 *     TRY(mlp_create(ops, &spec, capacity_rows, &net));                      a builder: mlp.h
 *     TRY(net_initialise(net, seed));
 *     for each step:
 *       TRY(net_forward(net, inputs, rows, &pass));
 *       ... a loss reads net_predictions() and net_features(), writes their gradients ...
 *       TRY(net_backward(net, grad_predictions, grad_features, &hooks));
 *       ... an optimiser (optim.h) updates net_parameters().data from .gradients ...
 *     net_destroy(&net);
 *
 * A net is an encoder and a head.  The features are what the head reads: the last hidden activation, after its
 * dropout.  Whoever changes features on the way (feature smoothing) calls the halves itself:
 *
 *     TRY(net_forward_encoder(net, inputs, rows, &pass));
 *     ... smooth net_features() into `smoothed` ...
 *     TRY(net_forward_head(net, smoothed));
 *     TRY(net_backward_head(net, grad_predictions, &hooks));
 *     ... turn net_feature_gradient(), the gradient of `smoothed`, into that of the features, in place ...
 *     TRY(net_backward_encoder(net, grad_features, &hooks));
 *
 * All memory is taken when the net is built; a step allocates nothing.  Buffers are row-major, of the dtype of the
 * ops, in their memory.  A net knows neither ranks nor losses: gradients are those of the rows it was given, and the
 * hooks tell the caller when one is complete, so that it can be sent while the rest is computed.
 *
 * All functions are local.  One thread at a time. */
#ifndef CONR_MODEL_NET_H
#define CONR_MODEL_NET_H

#include "model/ops.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct net;

#define PARAMETER_NAME_BYTES 64
#define PARAMETER_MAX_RANK 4

/* A named slice of the parameter buffer, and of every buffer laid out like it (gradients, optimiser states). */
struct parameter {
  char name[PARAMETER_NAME_BYTES]; /* "layer0.weight", "layer0.bias", ...; the last layer is the head        */
  size_t offset, count;            /* elements                                                               */
  int rank;
  int64_t shape[PARAMETER_MAX_RANK]; /* linear weight: [out, in]; bias: [out]; beyond `rank`: 1              */
  int64_t fan_in;                    /* inputs of one unit of the layer it belongs to                        */
};

/* All parameters of a net, slices in ascending order and without gaps.  Borrowed from the net. */
struct parameters {
  void *data;      /* [elements] */
  void *gradients; /* [elements], overwritten by each backward pass */
  size_t elements;
  int count;
  const struct parameter *list; /* [count] */
};

/* How a forward pass is meant.  Only training with dropout reads more than `training`. */
struct pass {
  bool training; /* false: dropout is the identity                                                  */
  uint64_t seed;
  int64_t epoch;
  const int64_t *samples; /* [rows / views] sample ids, borrowed until the head has run; rows are stacked by view:
                             row r is view r / (rows / views) of sample samples[r % (rows / views)]          */
  int views;              /* 0 counts as 1                                                                   */
};

/* What backward tells its caller; either function may be NULL, and so may a pointer to this.  A status other than
 * STATUS_OK ends the backward pass and is returned by it. */
struct net_hooks {
  void *context;
  /* The gradient of parameter `index` is complete.  Once per parameter and backward pass, from the last parameter to
   * the first, also when there are no rows. */
  enum status (*gradient_ready)(void *context, size_t index);
  /* Between operations, so that messages can make progress. */
  enum status (*progress)(void *context);
};

void net_destroy(struct net **net);

/* --- parameters --------------------------------------------------------------------------------------------- */

struct parameters net_parameters(const struct net *net);

/* Draw all parameters: uniform in +-1/sqrt(fan_in), weights and biases alike.  A value depends on the seed, the index
 * of its parameter and its place in it alone; float32 values are the rounded float64 ones. */
enum status net_initialise(struct net *net, uint64_t seed);

/* --- running ------------------------------------------------------------------------------------------------ */

/* inputs [rows, input width], 0 <= rows <= capacity; borrowed until the backward pass is over.
 * ERR_ARGUMENT when rows exceed the capacity, do not divide into views, or dropout lacks its samples. */
enum status net_forward(struct net *net, const void *inputs, int64_t rows, const struct pass *pass);

/* Gradients of all parameters, summed over the rows of the last forward pass.
 * grad_predictions  [rows, output width], read only
 * grad_features     [rows, feature width], added to what the head sends back; NULL = none.  A net without hidden
 *                   layer has no features of its own (they are the inputs): ERR_ARGUMENT unless NULL
 * The gradient of the inputs is not computed.  With 0 rows all gradients become 0 and the hooks are still called.
 * ERR_BUG without a forward pass before it. */
enum status net_backward(struct net *net, const void *grad_predictions, const void *grad_features,
                         const struct net_hooks *hooks);

/* The halves of net_forward().  features [rows, feature width] is read instead of net_features() by the head and its
 * backward pass, borrowed until then; NULL = net_features(). */
enum status net_forward_encoder(struct net *net, const void *inputs, int64_t rows, const struct pass *pass);
enum status net_forward_head(struct net *net, const void *features);

/* The halves of net_backward().  The first fills net_feature_gradient(), the second adds grad_features to it (NULL =
 * nothing) and goes on from there. */
enum status net_backward_head(struct net *net, const void *grad_predictions, const struct net_hooks *hooks);
enum status net_backward_encoder(struct net *net, const void *grad_features, const struct net_hooks *hooks);

/* Results of the last pass, borrowed until the next: [rows, feature width], [rows, output width]. */
const void *net_features(const struct net *net);
const void *net_predictions(const struct net *net);

/* Gradient of what the head read, [rows, feature width]; valid between the two backward halves, when it may be
 * changed in place.  NULL in a net without hidden layer. */
void *net_feature_gradient(struct net *net);

/* --- figures ------------------------------------------------------------------------------------------------ */

const struct ops *net_ops(const struct net *net);
int64_t net_input_width(const struct net *net);
int64_t net_feature_width(const struct net *net);
int64_t net_output_width(const struct net *net);
int64_t net_capacity(const struct net *net);

/* Floating-point operations of the matrix products for one row (a multiply-add is two): forward, or forward and
 * backward. */
double net_flops_per_row(const struct net *net, bool training);

/* Bytes of parameters, gradients, activations and work space. */
size_t net_bytes(const struct net *net);

#endif
