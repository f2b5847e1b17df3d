/* Optimisers on one flat range of parameters: Adam, AdamW and SGD with momentum, as PyTorch defines them.
 *
 *     struct optim_spec spec = optim_defaults(OPTIM_ADAM);
 *     struct parameters own = net_parameters(net);
 *     TRY(optim_create(ops, &spec, own.elements, &optim));
 *     for each step:
 *       TRY(ops->sum_squares(own.elements, own.gradients, squares));            in the memory of the ops
 *       TRY(ops->clip_factor(clip_norm, squares, factor));
 *       TRY(optim_step(optim, own.data, own.gradients, lr, factor));            optim_begin(), then optim_update()
 *     optim_destroy(&optim);
 *
 * With t = 1, 2, ... the number of the step, g the gradient times the clipping factor, all element by element:
 *
 *     adam    g += weight_decay p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
 *             p -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + epsilon)
 *     adamw   p *= 1 - lr weight_decay;  then as adam without its first term
 *     sgd     g += weight_decay p;  b = momentum b + g (b = g in the first step);  p -= lr b
 *
 * Scalars (bias corrections, 1 - b1) are computed in double.  Gradients are only read.  Ranges of parameters may have a
 * learning rate of their own, in proportion to that of the others.  All functions are local. */
#ifndef CONR_MODEL_OPTIM_H
#define CONR_MODEL_OPTIM_H

#include "model/ops.h"

#include <stddef.h>
#include <stdint.h>

struct optim;

enum optim_kind { OPTIM_ADAM, OPTIM_ADAMW, OPTIM_SGD };

struct optim_spec {
  enum optim_kind kind;
  double beta1, beta2, epsilon; /* Adam, AdamW: 0 <= beta < 1, epsilon >= 0 */
  double momentum;              /* SGD: 0 <= momentum < 1; 0 keeps no state */
  double weight_decay;          /* >= 0, of all elements alike              */
};

/* adam | adamw | sgd.  ERR_ARGUMENT lists the names. */
enum status optim_parse(const char *name, enum optim_kind *out);

/* PyTorch's: beta 0.9 and 0.999, epsilon 1e-8, momentum 0, weight decay 0 (AdamW 0.01). */
struct optim_spec optim_defaults(enum optim_kind kind);

/* For `count` elements of the parameter_dtype of `ops`; states start at 0.  ERR_ARGUMENT names the constant that is out
 * of range; ERR_MEMORY. */
enum status optim_create(const struct ops *ops, const struct optim_spec *spec, size_t count, struct optim **out);
void optim_destroy(struct optim **optim);

/* From now on elements first .. first + count - 1 learn at `factor` times the rate; to be called in ascending order of
 * ranges that do not overlap, before the first update.  ERR_BUG: ranges that do, or more than OPTIM_MOST_RATES. */
#define OPTIM_MOST_RATES 4
enum status optim_set_rate(struct optim *optim, size_t first, size_t count, double factor);

/* The host's part of an update: all that changes from one to the next goes to the memory of the ops, queued. */
enum status optim_begin(struct optim *optim, double lr);

/* The device's part, the same for all updates, so that it can be kept in a graph (dist/replay.h).  parameters [count] in
 * place, gradients [count], both in the memory of the ops; *gradient_scale, likewise, multiplies the gradients; NULL =
 * 1. */
enum status optim_update(struct optim *optim, void *parameters, const void *gradients, const double *gradient_scale);

/* Both. */
enum status optim_step(struct optim *optim, void *parameters, const void *gradients, double lr,
                       const double *gradient_scale);

/* --- checkpoints -------------------------------------------------------------------------------------------- */

#define OPTIM_MAX_ARRAYS 2

/* A state of the optimiser: `count` elements in the memory of its ops, laid out like the parameters; borrowed from the
 * optimiser, which goes on from whatever is written there. */
struct optim_array {
  const char *name; /* "moment1", "moment2" (Adam, AdamW) or "velocity" (SGD with momentum) */
  void *data;
  size_t count;
};

/* Fill `arrays` and return how many there are. */
int optim_state_arrays(struct optim *optim, struct optim_array arrays[OPTIM_MAX_ARRAYS]);

/* Updates made so far; a resumed run sets it beside the arrays. */
int64_t optim_steps(const struct optim *optim);
void optim_set_steps(struct optim *optim, int64_t steps);

#endif
