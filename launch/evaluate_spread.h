/* How well what a model predicts of its errors fits them, by groups of labels; and of experts, each vote's errors.
 *
 *     TRY(spread_table_fill(inference, metrics, &table));
 *     spread_table_print(&table, stdout);
 *
 *     group         UCE        NLL       AUSE
 *     all        1.2345     3.8871    0.41702
 *     ...
 *     MAE by vote      all       many     median        few
 *     first         7.1240     6.6860     7.7250     9.5930
 *     ...
 *
 * UCE, the Gaussian NLL and AUSE are those of loss/uncertainty.h, of a group's rows and all components. */
#ifndef CONR_LAUNCH_EVALUATE_SPREAD_H
#define CONR_LAUNCH_EVALUATE_SPREAD_H

#include "launch/inference.h"

#include <jansson.h>
#include <stdio.h>

struct spread_table {
  struct {
    double uce, nll, ause; /* NaN for groups without rows, or too few */
  } row[METRICS_GROUPS];
  bool votes;                                  /* of experts */
  double mae[UVOTE_FIRST + 1][METRICS_GROUPS]; /* likewise; NaN for groups without rows */
};

/* Of an inference that was run and is measured by `metrics`; its head spreads.  It keeps its vote.
 * Collective; failures are those of all ranks. */
enum status spread_table_fill(struct inference *inference, const struct metrics *metrics, struct spread_table *table);

/* Local. */
void spread_table_print(const struct spread_table *table, FILE *out);

/* Adds "uce", "gaussian_nll", "ause" to the objects of the groups, and "votes": {"avg": {"all", ...}, ...} to `object`.
 * Local.  ERR_MEMORY. */
enum status spread_table_json(const struct spread_table *table, json_t *object);

#endif
