/* What a training step costs on P ranks: a model, to be fitted to measured steps and to predict others.
 *
 * A step is its own computation, a + b B/P with B samples of the global batch, and, with ConR over the N rows of all
 * ranks (views x B): panels, 6 N^2 D / P flops for features of width D when dense; one gather of records and a small one
 * of two numbers a row; and one sum of the gradients.  Nothing is overlapped.
 *
 * Messages: ranks fill M nodes of G.  A link has a latency and a bandwidth; the G ranks of a node reach other nodes by G
 * ports at once.  With S bytes in all, 1/G of a node's by each of its ranks:
 *
 *     hops, log form    (G - 1) inside + log2(M) between         ring form   M (G - 1) inside + M between
 *     gather, ring      hops + S (P - 1)/P / beta, where beta is the link inside of one node; of several the slower one
 *                       of that and the G ports together
 *     gather, log       of one node as ring; of several hops + the slower one of what comes from other nodes,
 *                       S (P - G)/P by G ports, and of what its ranks then hand on inside, S (G - 1)/G
 *     sum               2 x (hops of the log form + bytes as of the ring)
 *
 * Pure functions, all local; seconds, bytes, flops. */
#ifndef CONR_LAUNCH_COST_MODEL_H
#define CONR_LAUNCH_COST_MODEL_H

#include "launch/least_squares.h"

#include <stdbool.h>

struct cost_link {
  double latency;   /* s a hop                                  */
  double bandwidth; /* bytes/s of one rank, as they are reached */
};

struct cost_machine {
  double node; /* ranks of a node */
  struct cost_link inside, between;
  double flops; /* flop/s of a rank in the panels */
};

struct cost_work {
  double fixed, per_row; /* own computation: s, and s a row of a rank    */
  double width;          /* D                                            */
  double value_bytes;    /* of one of the D features on the wire         */
  double scalar_bytes;   /* of a record beside them                      */
  double gradient_bytes;
  double active; /* share of pairs that are computed, 1 = dense  */
};

struct cost {
  double compute, panels;
  double gather, gather_ring; /* of records; the first is what counts */
  double statistics;          /* the small gather                     */
  double reduce;
  double step;                       /* sum of all but gather_ring                          */
  double share_gather, share_panels; /* of the step: both gathers; and the panels           */
  double gathered_bytes;             /* N D values, what a rank holds of the others' and its own */
};

double cost_gather_ring(const struct cost_machine *machine, double ranks, double bytes);
double cost_gather(const struct cost_machine *machine, double ranks, double bytes);
double cost_reduce(const struct cost_machine *machine, double ranks, double bytes);

/* rows  of a rank; N = ranks x rows */
struct cost cost_of_step(const struct cost_machine *machine, const struct cost_work *work, double ranks, double rows);

/* --- fit ------------------------------------------------------------------------------------------------------ */

/* A measured step. */
struct cost_sample {
  double ranks, nodes; /* the same number on each node; of uneven nodes the largest counts  */
  double samples;      /* of a rank, B/P                                                    */
  double compute;      /* s: all but what follows                                           */
  double panels, flops;
  double gather, gather_bytes;             /* s and bytes received by a rank; 0 bytes = no ConR         */
  double reduce, gradient_bytes, messages; /* s; bytes and pieces of the sum                */
  double spread;                           /* s of the whole step between repetitions       */
};

enum cost_parameter {
  COST_FIXED,           /* s          */
  COST_SAMPLE,          /* s a sample */
  COST_PANELS_FIXED,    /* s          */
  COST_FLOP,            /* s a flop   */
  COST_LATENCY_INSIDE,  /* s a hop    */
  COST_BYTE_INSIDE,     /* s a byte   */
  COST_LATENCY_BETWEEN, /* s a hop    */
  COST_BYTE_BETWEEN,    /* s a byte, of one rank's port */
  COST_PARAMETERS
};

struct cost_fit {
  struct coefficient parameter[COST_PARAMETERS];
  /* Root mean squares of what is left, in proportion to those of what was measured; NaN: nothing to fit. */
  double compute_residual, panels_residual, network_residual;
};

/* By least squares with weights of 5 % and the spread, in three groups: computation, panels, messages. */
void cost_fit(const struct cost_sample *samples, int count, struct cost_fit *out);

/* Of a fitted model: the parts of a step like this one; gather holds both gathers, statistics is 0. */
struct cost cost_of_sample(const struct cost_fit *fit, const struct cost_sample *sample);

/* What a parameter is called, and why it has no value where it is undetermined. */
const char *cost_parameter_name(enum cost_parameter parameter);
const char *cost_parameter_needs(enum cost_parameter parameter);

#endif
