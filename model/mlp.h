/* Multi-layer perceptron: the network for tables.
 *
 *     struct mlp_spec spec = {.inputs = 8, .hidden_count = 2, .hidden = (int64_t[]){128, 64},
 *                             .activation = ACTIVATION_RELU, .dropout = 0.1, .outputs = 1};
 *     TRY(mlp_create(ops, &spec, capacity_rows, &net));
 *
 * Each hidden layer is linear, activation, dropout; the head is linear.  Parameters: layer0.weight [hidden0, inputs],
 * layer0.bias [hidden0], layer1.weight, ...; the last layer is the head.  The features are the last hidden activation
 * after its dropout, just as the head reads them (the inputs, when there is no hidden layer).
 *
 * Features may be distributions (net.h), as VIR has them for images; for tables this is our reading.  The last hidden
 * activations are then the means, a linear layer "variance" that reads the same as the last hidden one makes the
 * variances, by softplus, and what is drawn from them goes through the dropout. */
#ifndef CONR_MODEL_MLP_H
#define CONR_MODEL_MLP_H

#include "model/net.h"

struct mlp_spec {
  int64_t inputs;        /* columns of the table                 */
  int hidden_count;      /* 0 = linear regression                */
  const int64_t *hidden; /* [hidden_count] widths, from the input on */
  enum activation activation;
  double dropout;     /* share dropped after each hidden activation, 0 <= dropout < 1 */
  bool probabilistic; /* features are distributions: at least one hidden layer */
  int64_t outputs;    /* columns of the target                */
};

/* Build the net for at most capacity_rows rows in a pass.  ERR_ARGUMENT names the value that is out of range;
 * ERR_MEMORY.  Local. */
enum status mlp_create(const struct ops *ops, const struct mlp_spec *spec, int64_t capacity_rows, struct net **out);

#endif
