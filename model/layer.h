/* For those who write layers and network builders: what a net is made of.
 *
 * A builder (mlp.c) describes a net from input to output; each call adds an operation that reads the value the one
 * before made:
 *
 *     TRY(net_begin(ops, inputs, capacity, &net));
 *     TRY_GOTO(net_add_linear(net, "layer0", 128), out);      the name of a layer is the prefix of its parameters
 *     TRY_GOTO(net_add_activation(net, ACTIVATION_RELU), out);
 *     TRY_GOTO(net_begin_head(net), out);                     what was made last are the features
 *     TRY_GOTO(net_add_linear(net, "layer1", 1), out);
 *     TRY_GOTO(net_plan(net), out);                           takes the memory; nothing can be added any more
 *
 * A kind of operation is a table of functions (linear.c, activation.c, dropout.c).  The net runs the list forward,
 * then backward in reverse, and calls the hooks; a kind sees one operation and the pointers it works on.
 *
 * Memory: a value lives until the backward pass has read it.  Its gradient lives only from the operation after it to
 * the operation that made it, so two buffers take turns. */
#ifndef CONR_MODEL_LAYER_H
#define CONR_MODEL_LAYER_H

#include "model/net.h"

#define NET_MAX_LAYERS 512
#define NET_MAX_OPERATIONS (3 * NET_MAX_LAYERS)
#define NET_MAX_WIDTH (1 << 24)

struct operation;

struct operation_kind {
  const char *name;
  /* Fill operation->output [rows, width_out] from operation->input [rows, width_in]. */
  enum status (*forward)(struct net *net, struct operation *operation, const struct pass *pass);
  /* Fill the gradients of the operation's parameters.  NULL = it has none. */
  enum status (*backward_parameters)(struct net *net, const struct operation *operation, const void *grad_output);
  /* Fill the gradient of the input [rows, width_in]. */
  enum status (*backward_data)(struct net *net, const struct operation *operation, const void *grad_output,
                               void *grad_input);
};

struct operation {
  const struct operation_kind *kind;
  int64_t width_in, width_out;
  const void *input;   /* [capacity, width_in]: the output of the operation before, or the caller's; borrowed   */
  void *output;        /* [capacity, width_out]; inside net->values                                              */
  bool reads_output;   /* backward reads the output                                                              */
  bool overwrites;     /* output may be the memory of the input: backward does not read the input                */
  bool in_place;       /* it is: nobody else needs the input either                                              */
  int first_parameter; /* index of the first of its parameters, which follow one another                         */
  int parameter_count;
  double flops; /* of matrix products, forward, one row; backward costs as much for each of its two parts */

  enum activation activation; /* activation.c */
  double share;               /* dropout.c: probability to drop */
  int dropout_layer;          /*            number of the dropout in the net, for its draws */
  bool dropped;               /*            the last pass drew a mask */
  uint8_t *mask;              /*            [capacity, width_in], inside net->masks */
};

struct net {
  const struct ops *ops; /* borrowed: lives for ever */
  int64_t capacity;
  bool planned;

  int64_t rows;       /* of the last encoder pass; -1 before the first               */
  struct pass pass;   /* of the last encoder pass, for the head that follows         */
  const void *inputs; /* of the last encoder pass; borrowed until backward is over   */

  struct operation *operations; /* [NET_MAX_OPERATIONS] */
  int operation_count;
  int head; /* index of the head's first operation; -1 until net_begin_head() */
  int64_t input_width;
  int dropout_count;

  struct parameter *parameters; /* [2 * NET_MAX_LAYERS] */
  int parameter_count;
  size_t parameter_elements;

  void *data, *gradients;   /* [parameter_elements]                                           */
  void *values;             /* outputs of all operations                                      */
  uint8_t *masks;           /* of all dropouts                                                */
  void *value_gradients[2]; /* [capacity, widest value] each; operation i writes number i % 2 */
  size_t bytes;
};

/* --- for builders ------------------------------------------------------------------------------------------- */

/* A net without operations.  capacity >= 0 rows, 1 <= input_width <= NET_MAX_WIDTH, else ERR_ARGUMENT. */
enum status net_begin(const struct ops *ops, int64_t input_width, int64_t capacity, struct net **out);

/* Each adds one operation.  ERR_ARGUMENT for widths and shares out of range, or too many layers. */
enum status net_add_linear(struct net *net, const char *name, int64_t units);
enum status net_add_activation(struct net *net, enum activation activation);
enum status net_add_dropout(struct net *net, double share); /* 0 <= share < 1; 0 adds nothing */

/* What was added last (the inputs, if nothing was) are the features; what follows is the head. */
enum status net_begin_head(struct net *net);

/* Lay out and take the memory.  ERR_BUG without a head; ERR_MEMORY. */
enum status net_plan(struct net *net);

/* --- for kinds of operations -------------------------------------------------------------------------------- */

/* Append an operation that reads what the one before makes; all its other fields are 0. */
enum status net_add(struct net *net, const struct operation_kind *kind, int64_t width_out, struct operation **out);

/* Append a parameter "name.suffix" to the operation that was added last; shape [rank]. */
enum status net_add_parameter(struct net *net, const char *name, const char *suffix, int rank, const int64_t *shape,
                              int64_t fan_in);

int64_t net_width(const struct net *net); /* of the value made last */

/* Parameter number `which` (from 0) of an operation, or its gradient. */
void *net_parameter_data(const struct net *net, const struct operation *operation, int which);
void *net_parameter_gradient(const struct net *net, const struct operation *operation, int which);

#endif
