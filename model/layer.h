/* For those who write layers and network builders: what a net is made of.
 *
 * A builder (mlp.c, resnet.c) describes a net from input to output; each call adds an operation that reads the value
 * the one before made, unless net_continue_from() says otherwise:
 *
 *     TRY(net_begin(ops, &input, capacity, &net));
 *     TRY_GOTO(net_add_conv(net, "conv1", &conv), out);          the name of a layer is the prefix of its parameters
 *     TRY_GOTO(net_add_norm(net, "bn1", NO_VALUE, true), out);   with relu
 *     int shortcut = net_last(net);
 *     TRY_GOTO(net_add_conv(net, "conv2", &conv), out);
 *     TRY_GOTO(net_add_norm(net, "bn2", shortcut, true), out);   relu(norm + shortcut)
 *     TRY_GOTO(net_add_average_pool(net), out);
 *     TRY_GOTO(net_begin_head(net), out);                        what was made last are the features
 *     TRY_GOTO(net_add_linear(net, "fc", 1), out);
 *     TRY_GOTO(net_plan(net), out);                              takes the memory; nothing can be added any more
 *
 * A kind of operation is a table of functions (linear.c, conv.c, norm.c, pool.c, ...).  The net runs the list forward,
 * then backward in reverse, and calls the hooks; a kind sees one operation and the pointers it works on.
 *
 * Memory (net_plan.c): a value lives until the backward pass has read it.  A value that two operations read gets two
 * gradients, which the operation that made it adds up.  Gradients share one arena, each for the time between the
 * operation that writes it and the one that reads it last; where an operation is the only reader of a value that its
 * maker's backward pass does not need, the gradient takes the value's own place. */
#ifndef CONR_MODEL_LAYER_H
#define CONR_MODEL_LAYER_H

#include "model/net.h"

#define NET_MAX_LAYERS 512
#define NET_MAX_OPERATIONS (3 * NET_MAX_LAYERS)
#define NET_MAX_WIDTH (1 << 24)
#define NO_VALUE (-1)

/* [rows, height, width, channels]; number 0 is what the net reads, number i + 1 what operation i makes. */
struct value {
  int64_t height, width, channels;
  int readers;         /* operations that read it                                                       */
  bool needs_gradient; /* something that learns stands before it                                        */
  void *data;          /* [capacity, ...], inside net->values; NULL for number 0                        */
  int gradients;       /* so far planned: 0 to 2                                                        */
  int gradient[2];     /* numbers of planned buffers (net_plan.c)                                       */
};

struct operation;

struct operation_kind {
  const char *name;
  /* Fill operation->output from operation->input (and operation->shortcut). */
  enum status (*forward)(struct net *net, struct operation *operation, const struct pass *pass);
  /* Fill the gradients of the operation's parameters.  NULL = it has none. */
  enum status (*backward_parameters)(struct net *net, struct operation *operation, const void *grad_output);
  /* Fill the gradient of the input. */
  enum status (*backward_data)(struct net *net, struct operation *operation, const void *grad_output, void *grad_input);
  bool adds_gradients;        /* takes the second gradient of its output from operation->grad_more itself          */
  bool gradient_over_input;   /* grad_input may be the memory of the input                                        */
  bool gradient_over_output;  /* grad_input may be grad_output                                                    */
  bool gradient_for_shortcut; /* it leaves the gradient of the shortcut where its output's was                    */
  bool gradient_of_shortcut;  /* backward_data fills that of the shortcut too, operation->grad_shortcut           */
  bool can_be_wide;           /* it heeds operation->wide                                                         */
};

struct operation {
  const struct operation_kind *kind;
  int reads, also_reads;       /* values: input, shortcut or NO_VALUE                                            */
  int64_t width_in, width_out; /* numbers in a row of input and output                                         */
  const void *input;           /* the memory of value `reads`, or the caller's; borrowed                         */
  const void *shortcut;        /* that of value `also_reads`                                                     */
  void *output;                /* inside net->values                                                             */
  bool wide;                   /* the output and its gradient are of the parameters' type: that of the last one   */
  bool reads_output;           /* backward reads the output                                                      */
  bool overwrites;             /* output may be the memory of the input: backward does not read the input        */
  bool in_place;               /* it is: nobody else needs the input either                                      */
  int first_parameter;         /* index of the first of its parameters, which follow one another                 */
  int parameter_count;
  int first_buffer; /* likewise of net_buffers() */
  double flops;     /* of products, forward, one row; backward costs as much for each of its two parts */

  /* Of the backward pass: planned once. */
  void *grad_output;     /* where the gradient of the output lies; NULL for the last operation                */
  const void *grad_more; /* a second one to be added, or NULL                                                 */
  void *grad_input;      /* NULL when nothing before learns                                                   */
  void *grad_shortcut;   /* likewise of the shortcut, of kinds that fill it                                   */

  enum activation activation; /* activation.c */
  double share;               /* dropout.c: probability to drop */
  int dropout_layer;          /*            number of the dropout in the net, for its draws */
  bool dropped;               /*            the last pass drew a mask; sample.c: noise */
  size_t mask_width;          /* dropout.c, pool.c: bytes of mask a row; sample.c: of noise */
  uint8_t *mask;              /*            [capacity, mask_width], inside net->masks */
  struct conv *conv;          /* conv.c, owned */
  bool bias;                  /*         */
  struct norm_channels norm;  /* norm.c: arrays inside net->norm_values */
  bool relu;                  /*         */
  struct pool_shape pool;     /* pool.c */
  double mean[4], std[4];     /* pixels.c: [channels] */
  double scale;               /* join.c: of the second value */
};

/* A list of named slices under construction. */
struct parameter_list {
  struct parameter *list; /* [room] */
  int count, room;
  size_t elements;
};

struct net {
  const struct ops *ops; /* borrowed: lives as long as its device */
  int64_t capacity;
  bool planned;
  struct comm *comm; /* borrowed: must outlive this; NULL = batch norm over own rows */

  int64_t rows;                         /* of the last encoder pass; -1 before the first               */
  bool used_up;                         /* its backward pass has been                                  */
  struct pass pass;                     /* of the last encoder pass, for the head that follows         */
  struct reconstruction reconstruction; /* likewise; pass.reconstruction is not looked at      */
  const void *inputs;                   /* of the last encoder pass; borrowed until backward is over   */
  bool smooths;                         /* the head of the last pass read `smoothed`                   */
  struct smoothing smoothing;           /* pass.smoothing points here                          */

  struct net_input input;
  struct operation *operations; /* [NET_MAX_OPERATIONS] */
  struct value *value;          /* [NET_MAX_OPERATIONS + 1] */
  int operation_count;
  int last;                 /* the value that the next operation reads        */
  int head;                 /* index of the head's first operation; -1 until net_begin_head() */
  int features;             /* the value the head begins with             */
  int64_t means;            /* of the features: the first so many; 0 = all of them */
  int decoder, decoder_end; /* operations of training passes alone (reconstruction.c): decoder .. decoder_end - 1 */
  int head_parameter, head_buffer; /* the first behind the encoder's         */
  int output_parameter;            /* the first behind the decoder's, if any */
  int first_learned;               /* parameter: 0, or the head's first   */
  bool evaluates;                  /* training passes of a frozen encoder */
  int dropout_count;
  bool draws; /* training passes draw by epoch and sample */

  struct parameter_list parameters, buffers;
  void *data, *gradients; /* [parameters.elements]                                                 */
  void *buffer_data;      /* [buffers.elements]                                                    */
  void *partial;          /* gradients of one operation before they are added; NULL until needed   */
  void *values;           /* of all operations                                                     */
  uint8_t *masks;         /* of dropouts and pools                                                 */
  void *arena;            /* gradients of values                                                   */
  void *smoothed;         /* a copy of the features; NULL unless net_can_smooth()                  */
  double *norm_values;    /* of batch norms                                                        */
  double *statistics;     /* to send: [largest batch norm]                                         */
  struct workspace workspace;
  size_t bytes;
};

/* --- for builders ------------------------------------------------------------------------------------------- */

/* A net without operations.  capacity >= 0 rows, input at least 1 x 1 x 1, else ERR_ARGUMENT. */
enum status net_begin(const struct ops *ops, const struct net_input *input, int64_t capacity, struct net **out);

/* Each adds one operation.  ERR_ARGUMENT for widths and shares out of range, or too many layers. */
enum status net_add_linear(struct net *net, const char *name, int64_t units);
enum status net_add_activation(struct net *net, enum activation activation);
enum status net_add_dropout(struct net *net, double share); /* 0 <= share < 1; 0 adds nothing */

/* (x / 255 - mean) / std of the pixels that the net reads, [channels]. */
enum status net_add_pixels(struct net *net, const double *mean, const double *std);

/* A square kernel.  Weights start normal with deviation sqrt(2 / (kernel^2 out)), a bias with 0. */
enum status net_add_conv(struct net *net, const char *name, int64_t out, int kernel, int stride, int padding,
                         bool bias);

/* Its way back, which makes larger images of smaller ones: height (h - 1) stride + kernel - 2 padding. */
enum status net_add_transposed_conv(struct net *net, const char *name, int64_t out, int kernel, int stride,
                                    int padding);

/* Batch normalisation (epsilon 1e-5, momentum 0.1), then shortcut added unless NO_VALUE, then relu if asked. */
enum status net_add_norm(struct net *net, const char *name, int shortcut, bool relu);

enum status net_add_max_pool(struct net *net, int kernel, int stride, int padding);
enum status net_add_average_pool(struct net *net); /* over all of height and width */

/* [rows, 2 width]: the value made last, then `second` times scale, both [rows, width]. */
enum status net_add_join(struct net *net, int second, double scale);

/* First of a head whose features are means, then as many variances: draws from them in training, else the means. */
enum status net_add_sample(struct net *net);

/* The value made last, and the one that the next operation is to read instead. */
int net_last(const struct net *net);
void net_continue_from(struct net *net, int value);

/* What was added last (the inputs, if nothing was) are the features; what follows is the head. */
enum status net_begin_head(struct net *net);

/* Lay out and take the memory.  ERR_BUG without a head; ERR_MEMORY. */
enum status net_plan(struct net *net);

/* --- for kinds of operations -------------------------------------------------------------------------------- */

/* Append an operation that reads what was made last; all its other fields are 0. */
enum status net_add(struct net *net, const struct operation_kind *kind, int64_t height, int64_t width, int64_t channels,
                    struct operation **out);

/* Append a parameter "name.suffix" to the operation that was added last; shape [rank]. */
enum status net_add_parameter(struct net *net, const char *name, const char *suffix, int rank, const int64_t *shape,
                              enum initial initial, double scale);
/* The same for a buffer; [count] values that start as `value`. */
enum status net_add_buffer(struct net *net, const char *name, const char *suffix, int64_t count, double value);

const struct value *net_last_value(const struct net *net);
enum dtype net_value_dtype(const struct net *net, int value); /* that of values, but of the last one the parameters' */
int64_t value_width(const struct value *value);               /* height * width * channels */

/* Parameter number `which` (from 0) of an operation, its gradient, or a buffer. */
void *net_parameter_data(const struct net *net, const struct operation *operation, int which);
void *net_parameter_gradient(const struct net *net, const struct operation *operation, int which);
void *net_buffer_data(const struct net *net, const struct operation *operation, int which);

/* Whose draws those of a pass are; layer: which of its kind in the net. */
struct unit_draw net_draw(const struct net *net, const struct pass *pass, int layer);

/* norm.c, for net.c: bytes are laid out by net_plan(). */
size_t norm_place(struct net *net, struct operation *operation, double *memory); /* numbers; memory NULL = count only */
enum status norm_update(struct net *net, struct operation *operation, struct comm *comm);
size_t norm_kept(const struct operation *operation); /* numbers of the two below: see net_take_statistics() */
enum status norm_take_kept(struct net *net, struct operation *operation, double *sums);
enum status norm_step_kept(struct net *net, struct operation *operation, const double *sums);
bool operation_is_norm(const struct operation *operation);

#endif
