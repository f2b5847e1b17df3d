/* Formulas of a step's cost, and their fit. */
#include "launch/cost_model.h"

#include <math.h>
#include <string.h>

#define RELATIVE_ERROR 0.05 /* of a measured time, beside its spread */
#define MOST_ROWS 4096

/* --- a machine ------------------------------------------------------------------------------------------------ */

/* Nodes that so many ranks take. */
static double nodes_of(double ranks, double node) {
  return ceil(ranks / node);
}

static double latency(const struct cost_machine *machine, double ranks, double crossings) {
  double inside = fmin(ranks, machine->node) - 1, nodes = nodes_of(ranks, machine->node);
  return nodes > 1 ? crossings * machine->between.latency : inside * machine->inside.latency;
}

static double ring_latency(const struct cost_machine *machine, double ranks) {
  double nodes = nodes_of(ranks, machine->node), inside = (machine->node - 1) * machine->inside.latency;
  return nodes > 1 ? nodes * (inside + machine->between.latency) : latency(machine, ranks, 0);
}

static double log_latency(const struct cost_machine *machine, double ranks) {
  double nodes = nodes_of(ranks, machine->node), inside = (machine->node - 1) * machine->inside.latency;
  return nodes > 1 ? inside + latency(machine, ranks, ceil(log2(nodes))) : latency(machine, ranks, 0);
}

/* Seconds that S bytes take around a ring. */
static double around(const struct cost_machine *machine, double ranks, double bytes) {
  double ports = machine->node * machine->between.bandwidth, inside = machine->inside.bandwidth;
  double slowest = ranks > machine->node && (machine->node == 1 || ports < inside) ? ports : inside;
  return bytes * (ranks - 1) / ranks / slowest;
}

double cost_gather_ring(const struct cost_machine *machine, double ranks, double bytes) {
  return ranks > 1 ? ring_latency(machine, ranks) + around(machine, ranks, bytes) : 0;
}

double cost_gather(const struct cost_machine *machine, double ranks, double bytes) {
  double node = machine->node;
  if (ranks <= node)
    return cost_gather_ring(machine, ranks, bytes);
  double arrives = bytes * (ranks - node) / ranks / (node * machine->between.bandwidth);
  double handed_on = bytes * (node - 1) / node / machine->inside.bandwidth;
  return log_latency(machine, ranks) + fmax(arrives, handed_on);
}

double cost_reduce(const struct cost_machine *machine, double ranks, double bytes) {
  return ranks > 1 ? 2 * (log_latency(machine, ranks) + around(machine, ranks, bytes)) : 0;
}

static void add_up(struct cost *cost) {
  cost->step = cost->compute + cost->panels + cost->gather + cost->statistics + cost->reduce;
  cost->share_gather = (cost->gather + cost->statistics) / cost->step;
  cost->share_panels = cost->panels / cost->step;
}

struct cost cost_of_step(const struct cost_machine *machine, const struct cost_work *work, double ranks, double rows) {
  double all = ranks * rows, bytes = all * (work->width * work->value_bytes + work->scalar_bytes);
  struct cost cost = {.compute = work->fixed + work->per_row * rows,
                      .panels = 6 * all * rows * work->width * work->active / machine->flops,
                      .gather = cost_gather(machine, ranks, bytes),
                      .gather_ring = cost_gather_ring(machine, ranks, bytes),
                      .statistics = cost_gather(machine, ranks, 8 * all),
                      .reduce = cost_reduce(machine, ranks, work->gradient_bytes),
                      .gathered_bytes = all * work->width * work->value_bytes};
  add_up(&cost);
  return cost;
}

/* --- fit ------------------------------------------------------------------------------------------------------ */

/* Rows of one system of equations. */
struct rows {
  int count, columns;
  double x[MOST_ROWS * LEAST_SQUARES_COLUMNS], y[MOST_ROWS], sigma[MOST_ROWS];
};

static void add_row(struct rows *rows, const double *x, double y, double spread) {
  if (rows->count == MOST_ROWS)
    return;
  memcpy(rows->x + rows->count * rows->columns, x, (size_t)rows->columns * sizeof *x);
  rows->y[rows->count] = y;
  /* Nothing is known better than the clock. */
  rows->sigma[rows->count++] = sqrt(pow(RELATIVE_ERROR * y, 2) + pow(spread, 2) + pow(1e-7, 2));
}

/* The four parameters' factors in the time of so many messages of a sample, in which a rank receives so many bytes.  The
 * ports of a node are taken for slower than its links inside. */
static void factors_of(const struct cost_sample *sample, double messages, double received, bool ring, double x[4]) {
  double ranks = sample->ranks, node = ceil(ranks / sample->nodes), nodes = sample->nodes;
  double all = received * ranks / (ranks - 1);
  memset(x, 0, 4 * sizeof *x);
  if (nodes == 1) {
    x[0] = messages * (ranks - 1);
    x[1] = received;
    return;
  }
  x[0] = messages * (node - 1);
  x[2] = messages * ceil(log2(nodes));
  x[3] = (ring ? received : all * (ranks - node) / ranks) / node;
}

static void gather_factors(const struct cost_sample *sample, double x[4]) {
  factors_of(sample, 2, sample->gather_bytes, false, x);
}

static void reduce_factors(const struct cost_sample *sample, double x[4]) {
  double received = 2 * sample->gradient_bytes * (sample->ranks - 1) / sample->ranks;
  factors_of(sample, 2 * sample->messages, received, true, x);
}

static double solve(const struct rows *rows, struct coefficient *out) {
  return least_squares(rows->count, rows->columns, rows->x, rows->y, rows->sigma, out);
}

void cost_fit(const struct cost_sample *samples, int count, struct cost_fit *out) {
  struct rows compute = {.columns = 2}, panels = {.columns = 2}, network = {.columns = 4};
  *out = (struct cost_fit){0};
  for (int i = 0; i < count; i++) {
    const struct cost_sample *sample = &samples[i];
    double x[4];
    add_row(&compute, (double[]){1, sample->samples}, sample->compute, sample->spread);
    if (sample->flops > 0)
      add_row(&panels, (double[]){1, sample->flops}, sample->panels, sample->spread);
    if (sample->ranks > 1 && sample->gather_bytes > 0) {
      gather_factors(sample, x);
      add_row(&network, x, sample->gather, sample->spread);
    }
    if (sample->ranks > 1) {
      reduce_factors(sample, x);
      add_row(&network, x, sample->reduce, sample->spread);
    }
  }
  out->compute_residual = solve(&compute, &out->parameter[COST_FIXED]);
  out->panels_residual = solve(&panels, &out->parameter[COST_PANELS_FIXED]);
  out->network_residual = solve(&network, &out->parameter[COST_LATENCY_INSIDE]);
}

static double sum_of(const struct cost_fit *fit, enum cost_parameter first, int columns, const double *x) {
  double sum = 0;
  for (int i = 0; i < columns; i++)
    sum += x[i] * fit->parameter[first + (unsigned)i].value;
  return sum;
}

struct cost cost_of_sample(const struct cost_fit *fit, const struct cost_sample *sample) {
  struct cost cost = {.compute = sum_of(fit, COST_FIXED, 2, (double[]){1, sample->samples})};
  double x[4];
  if (sample->flops > 0)
    cost.panels = sum_of(fit, COST_PANELS_FIXED, 2, (double[]){1, sample->flops});
  if (sample->ranks > 1 && sample->gather_bytes > 0) {
    gather_factors(sample, x);
    cost.gather = sum_of(fit, COST_LATENCY_INSIDE, 4, x);
  }
  if (sample->ranks > 1) {
    reduce_factors(sample, x);
    cost.reduce = sum_of(fit, COST_LATENCY_INSIDE, 4, x);
  }
  add_up(&cost);
  return cost;
}

const char *cost_parameter_name(enum cost_parameter parameter) {
  static const char *const names[] = {[COST_FIXED] = "step, fixed",
                                      [COST_SAMPLE] = "step, a sample of a rank",
                                      [COST_PANELS_FIXED] = "panels, fixed",
                                      [COST_FLOP] = "panels, a flop",
                                      [COST_LATENCY_INSIDE] = "hop inside a host",
                                      [COST_BYTE_INSIDE] = "byte inside a host",
                                      [COST_LATENCY_BETWEEN] = "hop between hosts",
                                      [COST_BYTE_BETWEEN] = "byte between hosts"};
  return names[parameter];
}

const char *cost_parameter_needs(enum cost_parameter parameter) {
  switch (parameter) {
  case COST_FIXED:
  case COST_SAMPLE:
    return "wants points with different numbers of samples a rank";
  case COST_PANELS_FIXED:
  case COST_FLOP:
    return "wants --conr and points with different batches";
  case COST_LATENCY_INSIDE:
  case COST_BYTE_INSIDE:
    return "wants points of several ranks on one host, of different ranks or batches";
  default:
    return "wants points on several hosts, of different ranks or batches";
  }
}
