/* The evaluation table, for people and for programs.
 *
 *     evaluate_table_print(&table, stdout);
 *
 *     group      count        MAE        MSE       RMSE     G-Mean       bMAE    Pearson
 *     all         2140     7.7504     100.96     10.048     4.9996     8.8298    0.85123
 *     many        1530     6.7122     73.016     8.5450     4.4099     6.7122    0.81456
 *     median       448     9.5387     142.68     11.945     6.4351     9.5973    0.87654
 *     few            0          -          -          -          -          -          -
 *
 * What the columns mean is said in loss/metrics.h; values are in label units (MSE: squared).  A value that does not
 * exist is "-" in the text and null in JSON.  Both are local. */
#ifndef CONR_LAUNCH_EVALUATE_TABLE_H
#define CONR_LAUNCH_EVALUATE_TABLE_H

#include "dist/status.h"
#include "loss/metrics.h"

#include <jansson.h>
#include <stdio.h>

void evaluate_table_print(const struct metrics_table *table, FILE *out);

/* {"all": {"count", "mae", "mse", "rmse", "gmean", "bmae", "pearson"}, "many": ..., "median": ..., "few": ...}
 * *out is a new reference: json_decref() it, or give it away with json_object_set_new().  ERR_MEMORY. */
enum status evaluate_table_json(const struct metrics_table *table, json_t **out);

#endif
