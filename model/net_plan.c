/* Where everything that a net works on lies in memory.
 *
 * Gradients of values are planned like this.  Each reading of a value by an operation yields a gradient that lives from
 * that operation's turn in the backward pass to the turn of the operation that made the value.  Going backward through
 * the list, each such gradient is given a planned buffer: a new one, the one its operation got its own gradient in
 * (where the kind can work in place, and for shortcuts, whose gradient is the same), or the memory of the value itself.
 * Then the planned buffers are placed in one arena so that those alive at one time do not overlap: largest first, each
 * at the lowest place that is free. */
#include "model/layer.h"

#include "dist/memory.h"

#include <string.h>

#define ALIGNMENT 64 /* bytes: one cache line, one vector */

/* Take zeroed memory of the net's device and count it. */
static enum status take(struct net *net, size_t bytes, void **out) {
  TRY(device_alloc_zero(net->ops->device, bytes, out));
  net->bytes += bytes;
  return STATUS_OK;
}

/* Of a buffer [capacity, width]; at most 2^58. */
static size_t rows_bytes(const struct net *net, size_t width, size_t element_bytes) {
  size_t bytes = (size_t)net->capacity * width * element_bytes;
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static size_t value_bytes(const struct net *net, int value) {
  return rows_bytes(net, (size_t)value_width(&net->value[value]), dtype_size(net_value_dtype(net, value)));
}

static struct operation *maker(const struct net *net, int value) {
  return value == 0 ? NULL : &net->operations[value - 1];
}

/* --- values ------------------------------------------------------------------------------------------------- */

static void count_readers(struct net *net) {
  for (int i = 0; i < net->operation_count; i++) {
    const struct operation *operation = &net->operations[i];
    bool learns = operation->parameter_count > 0 || net->value[operation->reads].needs_gradient;
    net->value[operation->reads].readers++;
    if (operation->also_reads != NO_VALUE) {
      net->value[operation->also_reads].readers++;
      learns = learns || net->value[operation->also_reads].needs_gradient;
    }
    net->value[i + 1].needs_gradient = learns;
  }
}

/* Is the memory of what this operation reads its own to change: not the caller's inputs, nor the features (which the
 * head may be given from elsewhere), nor anybody else's? */
static bool owns_input(const struct net *net, int index) {
  const struct operation *operation = &net->operations[index], *before = maker(net, operation->reads);
  return before != NULL && operation->reads != net->features && net->value[operation->reads].readers == 1 &&
         !before->reads_output;
}

static enum status plan_values(struct net *net) {
  size_t bytes = 0;
  for (int i = 0; i < net->operation_count; i++) {
    net->operations[i].in_place = net->operations[i].overwrites && owns_input(net, i);
    bytes += net->operations[i].in_place ? 0 : value_bytes(net, i + 1);
    REQUIRE(bytes < (size_t)1 << 60, ERR_MEMORY,
            "the activations of %lld rows are beyond any memory; use more ranks, a smaller batch or a smaller model",
            (long long)net->capacity);
  }
  TRY(take(net, bytes, &net->values));
  char *next = net->values;
  for (int i = 0; i < net->operation_count; i++) {
    struct operation *operation = &net->operations[i];
    operation->input = net->value[operation->reads].data;
    operation->shortcut = operation->also_reads == NO_VALUE ? NULL : net->value[operation->also_reads].data;
    operation->output = operation->in_place ? net->value[operation->reads].data : next;
    net->value[i + 1].data = operation->output;
    next += operation->in_place ? 0 : value_bytes(net, i + 1);
  }
  return STATUS_OK;
}

static enum status plan_masks(struct net *net) {
  size_t bytes = 0;
  for (int i = 0; i < net->operation_count; i++)
    bytes += rows_bytes(net, net->operations[i].mask_width, 1);
  TRY(take(net, bytes, (void **)&net->masks));
  uint8_t *next = net->masks;
  for (int i = 0; i < net->operation_count; i++) {
    net->operations[i].mask = next;
    next += rows_bytes(net, net->operations[i].mask_width, 1);
  }
  return STATUS_OK;
}

/* --- gradients of values ------------------------------------------------------------------------------------ */

/* A gradient in the arena, alive in the turns first <= i <= last of the operations (last comes first). */
struct planned {
  size_t bytes, offset;
  int first, last;
  void *place; /* the memory of a value instead of the arena, or NULL */
};

struct plan {
  struct planned *buffer; /* [2 * operations] */
  int count;
};

/* The gradient of `value` will lie in buffer `number`, until the maker's turn. */
static enum status assign(struct net *net, struct plan *plan, int value, int number) {
  struct value *of = &net->value[value];
  REQUIRE(of->gradients < 2, ERR_BUG, "more than two operations of the network read value %d", value);
  of->gradient[of->gradients++] = number;
  if (value - 1 < plan->buffer[number].first)
    plan->buffer[number].first = value - 1;
  return STATUS_OK;
}

static int add_buffer(struct net *net, struct plan *plan, int value, int turn, void *place) {
  plan->buffer[plan->count] =
      (struct planned){.bytes = value_bytes(net, value), .first = turn, .last = turn, .place = place};
  return plan->count++;
}

/* Buffers for the gradients that operation `turn` writes. */
static enum status plan_turn(struct net *net, struct plan *plan, int turn) {
  struct operation *operation = &net->operations[turn];
  struct value *made = &net->value[turn + 1];
  int own = made->gradients > 0 ? made->gradient[0] : -1;
  bool needed = operation->also_reads != NO_VALUE && net->value[operation->also_reads].needs_gradient;
  bool spreads = needed && !operation->kind->gradient_of_shortcut;
  REQUIRE(!spreads || (own >= 0 && operation->kind->gradient_for_shortcut), ERR_BUG, "a %s cannot have a shortcut here",
          operation->kind->name);
  if (spreads)
    TRY(assign(net, plan, operation->also_reads, own));
  else if (needed)
    TRY(assign(net, plan, operation->also_reads, add_buffer(net, plan, operation->also_reads, turn, NULL)));
  if (!net->value[operation->reads].needs_gradient)
    return STATUS_OK;
  int number;
  if (operation->kind->gradient_over_input && owns_input(net, turn))
    number = add_buffer(net, plan, operation->reads, turn, net->value[operation->reads].data);
  else if (operation->kind->gradient_over_output && own >= 0 && !spreads && operation->width_in == operation->width_out)
    number = own;
  else
    number = add_buffer(net, plan, operation->reads, turn, NULL);
  return assign(net, plan, operation->reads, number);
}

static bool overlap(const struct planned *a, const struct planned *b) {
  return a->first <= b->last && b->first <= a->last;
}

/* The lowest offset at which `buffer` meets none of those placed (marked done) that live at the same time. */
static size_t lowest_place(const struct plan *plan, const bool *done, int number) {
  const struct planned *buffer = &plan->buffer[number];
  size_t offset = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (int i = 0; i < plan->count; i++) {
      const struct planned *other = &plan->buffer[i];
      if (!done[i] || !overlap(buffer, other) || offset + buffer->bytes <= other->offset ||
          other->offset + other->bytes <= offset)
        continue;
      offset = other->offset + other->bytes;
      moved = true;
    }
  }
  return offset;
}

/* Offsets of all buffers that need the arena; its size. */
static enum status place_buffers(struct plan *plan, size_t *bytes) {
  bool *done;
  TRY(memory_alloc_zero((size_t)plan->count, (void **)&done));
  *bytes = 0;
  for (;;) {
    int largest = -1;
    for (int i = 0; i < plan->count; i++)
      if (!done[i] && plan->buffer[i].place == NULL &&
          (largest < 0 || plan->buffer[i].bytes > plan->buffer[largest].bytes))
        largest = i;
    if (largest < 0)
      break;
    struct planned *buffer = &plan->buffer[largest];
    buffer->offset = lowest_place(plan, done, largest);
    done[largest] = true;
    if (buffer->offset + buffer->bytes > *bytes)
      *bytes = buffer->offset + buffer->bytes;
  }
  memory_free((void **)&done);
  return STATUS_OK;
}

/* The memory of gradient `which` of what operation `turn` makes. */
static void *gradient_of(const struct net *net, const struct plan *plan, int value, int which) {
  const struct planned *buffer = &plan->buffer[net->value[value].gradient[which]];
  return buffer->place != NULL ? buffer->place : (char *)net->arena + buffer->offset;
}

/* The gradient that operation `turn` writes for what it reads: the value's first or second one, whichever is its. */
static void connect(struct net *net, const struct plan *plan) {
  int written[NET_MAX_OPERATIONS + 1] = {0}; /* per value */
  for (int turn = net->operation_count - 1; turn >= 0; turn--) {
    struct operation *operation = &net->operations[turn];
    const struct value *made = &net->value[turn + 1];
    if (made->gradients > 0)
      operation->grad_output = gradient_of(net, plan, turn + 1, 0);
    if (made->gradients > 1)
      operation->grad_more = gradient_of(net, plan, turn + 1, 1);
    if (operation->also_reads != NO_VALUE && net->value[operation->also_reads].needs_gradient) {
      void *gradient = gradient_of(net, plan, operation->also_reads, written[operation->also_reads]++);
      operation->grad_shortcut = operation->kind->gradient_of_shortcut ? gradient : NULL;
    }
    if (net->value[operation->reads].needs_gradient)
      operation->grad_input = gradient_of(net, plan, operation->reads, written[operation->reads]++);
  }
}

static enum status plan_gradients(struct net *net) {
  struct plan plan = {0};
  size_t bytes;
  enum status status;
  TRY(memory_alloc(2 * (size_t)(net->operation_count + 1) * sizeof *plan.buffer, (void **)&plan.buffer));
  for (int turn = net->operation_count - 1; turn >= 0; turn--)
    TRY_GOTO(plan_turn(net, &plan, turn), out);
  TRY_GOTO(place_buffers(&plan, &bytes), out);
  TRY_GOTO(take(net, bytes, &net->arena), out);
  connect(net, &plan);
out:
  memory_free((void **)&plan.buffer);
  return status;
}

/* --- batch norm --------------------------------------------------------------------------------------------- */

static enum status plan_norms(struct net *net) {
  size_t numbers = 0, most = 0;
  for (int i = 0; i < net->operation_count; i++) {
    size_t own = norm_place(net, &net->operations[i], NULL);
    numbers += own;
    most = own > most ? own : most;
  }
  TRY(take(net, numbers * sizeof *net->norm_values, (void **)&net->norm_values));
  TRY(take(net, most * sizeof *net->statistics, (void **)&net->statistics));
  double *next = net->norm_values;
  for (int i = 0; i < net->operation_count; i++)
    next += norm_place(net, &net->operations[i], next);
  return STATUS_OK;
}

/* Predictions are of the parameters' type, whatever values are. */
static enum status widen_last(struct net *net) {
  struct operation *last = &net->operations[net->operation_count - 1];
  REQUIRE(last->kind->can_be_wide || net->ops->dtype == net->ops->parameter_dtype, ERR_BUG,
          "the network ends in \"%s\", whose results are %s alone and predictions are %s", last->kind->name,
          dtype_name(net->ops->dtype), dtype_name(net->ops->parameter_dtype));
  last->wide = true;
  return STATUS_OK;
}

enum status net_can_smooth(struct net *net) {
  REQUIRE(net->features > 0, ERR_ARGUMENT,
          "features can be smoothed only after a hidden layer: without one they are the inputs");
  return net->smoothed != NULL ? STATUS_OK : take(net, value_bytes(net, net->features), &net->smoothed);
}

enum status net_plan(struct net *net) {
  REQUIRE(net->head >= 0 && net->head < net->operation_count, ERR_BUG, "the network was built without a head");
  size_t real = dtype_size(net->ops->parameter_dtype);
  TRY(take(net, net->parameters.elements * real, &net->data));
  TRY(take(net, net->parameters.elements * real, &net->gradients));
  TRY(take(net, net->buffers.elements * real, &net->buffer_data));
  TRY(widen_last(net));
  count_readers(net);
  TRY(plan_values(net));
  TRY(plan_masks(net));
  TRY(plan_gradients(net));
  TRY(plan_norms(net));
  net->planned = true;
  return STATUS_OK;
}
