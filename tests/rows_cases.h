/* Batches for tests of the regularisers on gathered rows, stored and random, and one way to run any method on a share.
 *
 *     struct rows_case batch = rows_case_random(40, 2, 8, 1, LABELS_AGES, 7);
 *     struct rows_outcome got = rows_run(&setting, &batch, F32, SHARE_UNEVEN, MPI_COMM_WORLD, 1.5);
 *     ... got.value and got.grad are the same on all ranks, in the order of the whole batch ...
 *     rows_outcome_free(&got); */
#ifndef CONR_TESTS_ROWS_CASES_H
#define CONR_TESTS_ROWS_CASES_H

#include "loss/accon.h"
#include "loss/ranksim.h"
#include "loss/rnc.h"
#include "loss/srl.h"
#include "tests/conr_cases.h"

/* A global batch: samples with their views side by side, as the golden files have them. */
struct rows_case {
  int64_t samples;
  int views, features, targets;
  double *feature; /* [samples, views, features] */
  double *label;   /* [samples, targets]         */
  int64_t step;
};

enum labels {
  LABELS_AGES,    /* integers with many repetitions             */
  LABELS_REAL,    /* all distinct, distances too                */
  LABELS_INTEGERS /* all distinct, many distances of a row equal */
};

/* Values are exact in float32. */
struct rows_case rows_case_random(int64_t samples, int views, int features, int targets, enum labels labels,
                                  uint64_t seed);

/* What would lose float32's digits, of 16 features or as many as are given: 60 rows far from 0, a mean of 200 norms; and
 * rows in pairs that are close, samples / 2 apart in the batch. */
struct rows_case rows_case_far(void);
struct rows_case rows_case_close(int64_t samples, int features);

/* `features` and `labels` (or `targets`) of a stored case. */
struct rows_case rows_case_load(const struct golden_file *file, const char *name);
void rows_case_free(struct rows_case *batch);

enum rows_method { ROWS_RANKSIM, ROWS_RNC, ROWS_ACCON, ROWS_SRL };

struct rows_setting {
  enum rows_method method;
  bool used_before; /* on one rank: the object has seen this batch, and half of it, before */
  struct ranksim_options ranksim;
  struct rnc_options rnc;
  struct accon_options accon;
  struct srl_options srl;
  const double *surrogate; /* [bins, features] rows that are stored; NULL: none     */
  const double *points;    /* [points, features]; NULL: those of the seed           */
};

struct rows_outcome {
  enum status status; /* of create, else of the loss */
  double value;
  double *grad;  /* [samples, views, features]: whole, the same on all ranks */
  size_t bytes;  /* of workspace */
  size_t grown;  /* bytes allocated during the call */
  double before; /* what grad held: the loss adds to it, and this has been subtracted again */
};

/* The loss of `comm`'s joint batch; each rank has some of the samples, all views of them. */
struct rows_outcome rows_run(const struct rows_setting *setting, const struct rows_case *batch, enum dtype dtype,
                             enum share share, MPI_Comm comm, double coefficient);
void rows_outcome_free(struct rows_outcome *outcome);

/* The sample and view, samples x views, of each gathered row: ranks after each other, each view by view.
 * place [samples * views] */
void rows_place(const struct rows_case *batch, int size, const int64_t *samples_of_rank, int64_t *place);

/* The same by plain loops in double, as in the papers.  grad [samples, views, features]. */
double rows_reference(const struct rows_setting *setting, const struct rows_case *batch, double coefficient,
                      double *grad);

/* Largest difference over the largest value of `wanted`. */
double rows_grad_error(const struct rows_case *batch, const double *got, const double *wanted);

#endif
