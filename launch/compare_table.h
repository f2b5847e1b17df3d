/* The result of a comparison: errors of methods over seeds, their spread, and paired tests of their differences.
 *
 * Methods are compared seed by seed: a seed gives the same initial parameters, order and draws to each, so that the
 * difference of two methods is tested by Student's t-test for pairs, two-sided.  p is the probability of a mean
 * difference at least as large if there were none; below 0.05 a difference is called one, else seed noise. */
#ifndef CONR_LAUNCH_COMPARE_TABLE_H
#define CONR_LAUNCH_COMPARE_TABLE_H

#include "dist/status.h"
#include "loss/metrics.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* One line of the comparison: a method, with or without the one that is added. */
struct compare_method {
  char name[128];               /* "lds+conr"                                           */
  int against;                  /* the line that its difference is taken from; -1: none */
  char refused[512];            /* why it was not trained; "" when it was             */
  int runs;                     /* seeds that are done                                */
  struct metrics_table *tables; /* [seeds]; those of the done ones         */
  bool *done;                   /* [seeds]                                 */
};

struct compare_result {
  const char *data; /* the file */
  const char *part; /* "test"   */
  int64_t first_seed;
  int seeds, methods;
  struct compare_method *method;
};

struct paired {
  int pairs;
  double mean, p; /* p is NaN with fewer than two pairs */
};

/* Of two series [count]: a[i] - b[i].  Local. */
struct paired paired_test(const double *a, const double *b, int count);

/* Mean and standard deviation (NaN of fewer than two) of a method's MAE in a group of rows, over the seeds that are done
 * and have rows there; returns how many these are. */
int compare_table_mean(const struct compare_result *result, const struct compare_method *method, int group,
                       double *mean, double *spread);

/* Aligned text: the errors, then the differences. */
void compare_table_print(const struct compare_result *result, FILE *out);

/* One line for each method, group and seed: method,seed,group,count,mae,rmse,gmean,bmae,pearson. */
enum status compare_table_csv(const struct compare_result *result, const char *path);

/* The object that launch/README.md describes.  *out is a new reference.  ERR_MEMORY. */
enum status compare_table_json(const struct compare_result *result, json_t **out);

#endif
