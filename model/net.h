/* A network: built once into a list of operations with fixed shapes, then run forward and backward.
 *
 *     struct net *net;
 *     TRY(mlp_create(ops, &spec, capacity_rows, &net));                      a builder: mlp.h, resnet.h
 *     TRY(net_initialise(net, seed));
 *     for each step:
 *       TRY(net_forward(net, inputs, rows, &pass));
 *       ... a loss reads net_predictions() and net_features(), writes their gradients ...
 *       TRY(net_backward(net, grad_predictions, grad_features, &hooks));
 *       TRY(net_update_statistics(net, NULL));                               batch norm's running statistics
 *       ... an optimiser (optim.h) updates net_learned().data from .gradients ...
 *     net_destroy(&net);
 *
 * A net is an encoder and a head.  The features are what the head reads: the last hidden activation, after its
 * dropout.  A training pass may smooth them on the way (struct smoothing): the head then reads a copy that rows of a
 * table have moved.  Whoever changes features in another way calls the halves itself:
 *
 *     TRY(net_forward_encoder(net, inputs, rows, &pass));
 *     ... smooth net_features() into `smoothed` ...
 *     TRY(net_forward_head(net, smoothed));
 *     TRY(net_backward_head(net, grad_predictions, &hooks));
 *     ... turn net_feature_gradient(), the gradient of `smoothed`, into that of the features, in place ...
 *     TRY(net_backward_encoder(net, grad_features, &hooks));
 *
 * Features may be distributions (builders: `probabilistic`): the first half of them are means, the second variances,
 * net_mean_width() of each.  The head begins with draws from them in training, mean + sqrt(variance) noise, and with
 * the means in evaluation; net_features() and their gradients are the distributions, and a smoothing moves both.
 *
 * A net may reconstruct its inputs from these draws (image_net.h): in training a decoder stands beside the rest of the
 * head, and the backward pass adds what the objective loses by its error.  Evaluations leave it out.
 *
 * A batch that does not fit goes through in pieces: a forward and a backward pass for each, all but the first with
 * pass.accumulate.
 *
 * All memory is taken when the net is built (scratch memory of convolutions: in the first pass of each row count);
 * after that a step allocates nothing.  Buffers are row-major and channels-last, of the dtype of the ops, in their
 * memory.  A net knows neither ranks nor losses: gradients are those of the rows it was given, and the hooks tell the
 * caller when one is complete, so that it can be sent while the rest is computed.  The one exception is batch
 * normalisation over the rows of all ranks: see net_synchronise().
 *
 * All functions are local unless they say otherwise.  One thread at a time. */
#ifndef CONR_MODEL_NET_H
#define CONR_MODEL_NET_H

#include "dist/comm.h"
#include "model/ops.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct net;

#define PARAMETER_NAME_BYTES 64
#define PARAMETER_MAX_RANK 4

/* What a parameter starts from. */
enum initial {
  INITIAL_UNIFORM, /* uniform in +-scale                        */
  INITIAL_NORMAL,  /* normal, mean 0, standard deviation scale  */
  INITIAL_CONSTANT /* scale                                     */
};

/* A named slice of the parameter buffer, and of every buffer laid out like it (gradients, optimiser states). */
struct parameter {
  char name[PARAMETER_NAME_BYTES]; /* "layer0.weight", "layer1.0.bn1.bias", ...                              */
  size_t offset, count;            /* elements; offset: from the beginning of the net's buffer               */
  int rank;
  int64_t shape[PARAMETER_MAX_RANK]; /* linear weight: [out, in]; convolution: [out, in, kernel, kernel];
                                        of one value per channel: [channels]; beyond `rank`: 1              */
  enum initial initial;
  double scale;
};

/* All parameters of a net, or those from one on: slices in ascending order and without gaps, in the memory of its
 * device.  Borrowed from the net. */
struct parameters {
  struct device *device; /* NULL = the host */
  void *data;            /* [elements], beginning with list[0] */
  void *gradients;       /* [elements], overwritten by each backward pass; NULL for what is not learned */
  size_t elements;
  int count;
  const struct parameter *list; /* [count] */
  int head;                     /* index in `list` of the head's first parameter, and of ... */
  int output;                   /* its last layer's: what lies between them is a decoder's   */
};

/* The rows a net reads. */
struct net_input {
  bool pixels; /* uint8 [rows, height, width, channels]; else numbers of the dtype, [rows, channels] */
  int64_t height, width, channels;
};

/* Features on their way to the head: x * scale[b] + shift[b] for a row of bucket b, where a feature map has a row for
 * each place.  The arrays are borrowed until the backward pass is over, and lie in the memory of the net. */
struct smoothing {
  const int32_t *bucket;     /* [rows, height, width of the features]; -1 = the row stays as it is */
  const void *scale, *shift; /* [buckets, channels of the features], of the parameters' type       */
};

/* What becomes of a reconstruction of the inputs in a pass and its way back, in a net that has one. */
struct reconstruction {
  double factor;   /* times the error of a number is the objective's derivative by it: 2 W / numbers for W MSE */
  double *squares; /* the sum of the squared errors is added to it, in the memory of the ops; NULL = not wanted */
};

struct net_hooks;

/* How a forward pass is meant.  Only training with dropout or distributions reads seed, epoch, samples and views. */
struct pass {
  bool training;        /* false: no dropout or noise, batch norm uses its running statistics       */
  bool accumulate;      /* its backward pass adds to the gradients                                  */
  bool keep_statistics; /* training: what batch norm sees is not kept for net_update_statistics()   */
  uint64_t seed;
  const int64_t *epoch;   /* in the memory of the ops, borrowed until the head has run */
  const int64_t *samples; /* [rows / views] sample ids, borrowed until the head has run; rows are stacked by view:
                             row r is view r / (rows / views) of sample samples[r % (rows / views)]          */
  int views;              /* 0 counts as 1                                                                   */
  int first_view;         /* the rows' views are first_view, first_view + 1, ...                             */
  const struct smoothing *smoothing; /* NULL = none; read in training alone, by a net that net_can_smooth()  */
  const struct reconstruction *reconstruction; /* NULL: its error counts for nothing */
  const struct net_hooks *hooks; /* progress alone is called, if there is one; borrowed until the head has run; NULL =
                                    none                                                                            */
};

/* What a pass tells its caller; either function may be NULL, and so may a pointer to this.  A status other than
 * STATUS_OK ends the pass and is returned by it. */
struct net_hooks {
  void *context;
  /* The gradient of parameter `index` of net_learned() is complete.  Once per parameter and backward pass, from the
   * last parameter to the first, also when there are no rows. */
  enum status (*gradient_ready)(void *context, size_t index);
  /* Between operations, so that messages can make progress. */
  enum status (*progress)(void *context);
};

void net_destroy(struct net **net);

/* --- parameters --------------------------------------------------------------------------------------------- */

struct parameters net_parameters(const struct net *net);

/* Those that learn, and that backward passes give gradients of: all, or the head's when the encoder is frozen. */
struct parameters net_learned(const struct net *net);

/* What is stored beside the parameters and not learned: running statistics, "layer1.0.bn1.running_mean" and
 * "....running_var", both [channels].  gradients is NULL; count may be 0. */
struct parameters net_buffers(const struct net *net);

/* Draw all parameters as their `initial` says; running means become 0, variances 1.  A value depends on the seed, the
 * index of its parameter and its place in it alone; float32 values are the rounded float64 ones. */
enum status net_initialise(struct net *net, uint64_t seed);

/* From now on the layer of the outputs is drawn otherwise: weights normal with this deviation, biases 0. */
void net_start_head(struct net *net, double deviation);

/* --- running ------------------------------------------------------------------------------------------------ */

/* From now on the encoder does not learn: backward passes end at the head, and the encoder's gradients stay as they are
 * (0 in a new net).  Training passes use it as before, with dropout and the batch's own statistics, and its running
 * statistics move; or, with `evaluation`, as evaluation passes do: then it is a fixed function of the inputs.  To be
 * called before buckets and optimisers are made.  A net without hidden layer has no encoder: nothing changes. */
void net_freeze_encoder(struct net *net, bool evaluation);

/* Share batch norm's statistics of training passes among all rows of all ranks of `comm` (borrowed: must outlive the
 * net; NULL = each rank's own rows).  From then on the forward and backward passes of training are collective, also
 * for ranks without rows.  Counts may differ: means and variances are those of the joint batch. */
void net_synchronise(struct net *net, struct comm *comm);

/* Take the memory for smoothed features beside the others: [capacity, feature width].  ERR_ARGUMENT for a net without
 * hidden layer; ERR_MEMORY. */
enum status net_can_smooth(struct net *net);

/* Let batch norm's running statistics take a step towards what the training passes since the last call have seen: one
 * step for all of them, as if their rows had been one batch.  comm: of the rows of all ranks, so that all ranks keep
 * the same running statistics (collective then, also for ranks without rows; nothing is sent when they are shared by
 * net_synchronise() already); NULL = this rank's own. */
enum status net_update_statistics(struct net *net, struct comm *comm);

/* The same for a caller that adds up by itself: numbers that sum to those of all passes, and the step by the sum.
 * net_statistics() says how many there are, 0 without batch norm; net_take_statistics() writes those of the passes since
 * the last call, and forgets them.  In the memory of the ops. */
size_t net_statistics(const struct net *net);
enum status net_take_statistics(struct net *net, double *sums);
enum status net_step_statistics(struct net *net, const double *sums);

/* inputs as net_input() says, 0 <= rows <= capacity; borrowed until the backward pass is over.
 * ERR_ARGUMENT when rows exceed the capacity, do not divide into views, or dropout or noise lacks its samples. */
enum status net_forward(struct net *net, const void *inputs, int64_t rows, const struct pass *pass);

/* Gradients of all parameters, summed over the rows of the last forward pass.
 * grad_predictions  [rows, output width], read only
 * grad_features     [rows, feature width], added to what the head sends back; NULL = none.  A net without hidden
 *                   layer has no features of its own (they are the inputs), and those of a frozen encoder stay: ERR_ARGUMENT
 *                   unless NULL
 * The gradient of the inputs is not computed.  With 0 rows all gradients become 0 and the hooks are still called.
 * Once per forward pass: it uses up what that pass left.  ERR_BUG without a forward pass before it. */
enum status net_backward(struct net *net, const void *grad_predictions, const void *grad_features,
                         const struct net_hooks *hooks);

/* The same when the pass has smoothed: grad_smoothed [rows, feature width], NULL = none, is a gradient of
 * net_smoothed_features() and goes back with that of the head; grad_features is one of net_features().  Without
 * smoothing both are the same features, and both gradients are added. */
enum status net_backward_smoothed(struct net *net, const void *grad_predictions, const void *grad_features,
                                  const void *grad_smoothed, const struct net_hooks *hooks);

/* The halves of net_forward().  features [rows, feature width] is read instead of net_features() by the head and its
 * backward pass, borrowed until then; NULL = net_features(), smoothed if the pass says so. */
enum status net_forward_encoder(struct net *net, const void *inputs, int64_t rows, const struct pass *pass);
enum status net_forward_head(struct net *net, const void *features);

/* The halves of net_backward().  The first fills net_feature_gradient(), the second takes it back through the smoothing,
 * adds grad_features to it (NULL = nothing) and goes on from there. */
enum status net_backward_head(struct net *net, const void *grad_predictions, const struct net_hooks *hooks);
enum status net_backward_encoder(struct net *net, const void *grad_features, const struct net_hooks *hooks);

/* Results of the last pass, borrowed until the next: [rows, feature width], [rows, output width]. */
const void *net_features(const struct net *net);
const void *net_predictions(const struct net *net);

/* What the head has read in the last pass: smoothed if that pass has smoothed, else net_features(). */
const void *net_smoothed_features(const struct net *net);

/* Gradient of what the head read, [rows, feature width]; valid between the two backward halves, when it may be
 * changed in place.  NULL in a net without hidden layer. */
void *net_feature_gradient(struct net *net);

/* --- figures ------------------------------------------------------------------------------------------------ */

const struct ops *net_ops(const struct net *net);
struct net_input net_input(const struct net *net);
int64_t net_input_width(const struct net *net); /* numbers or pixels' bytes of one row */
int64_t net_feature_width(const struct net *net);
int64_t net_mean_width(const struct net *net); /* the first so many features are means, the others variances of these;
                                                  all of them where they are no distributions */
int64_t net_output_width(const struct net *net);
int64_t net_capacity(const struct net *net);

/* Floating-point operations of the matrix products and convolutions for one row (a multiply-add is two): forward, or
 * forward and backward. */
double net_flops_per_row(const struct net *net, bool training);

/* Bytes of parameters, gradients, activations and work space. */
size_t net_bytes(const struct net *net);

#endif
