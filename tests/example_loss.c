/* How another program uses libconr: the global ConR loss and its feature gradient, from any MPI program.
 *
 *     cc example_loss.c $(pkg-config --cflags --libs conr) && mpirun -n 3 ./a.out
 *
 * Twelve samples in two views, shared unevenly by the ranks; prints the loss, which does not depend on the number of
 * ranks, and the norm of the whole gradient. */
#include <conr.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define ROWS 24
#define FEATURES 4

/* Made-up numbers: what a network would have computed for row i. */
static double feature_of(int row, int k) {
  return sin(1.0 + 0.7 * row * (k + 1)) + 0.1 * (row % 12);
}

int main(int argc, char **argv) {
  int rank, size;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);

  /* Uneven shares: rank r gets rows first .. last-1. */
  int first = ROWS * rank * rank / (size * size), last = ROWS * (rank + 1) * (rank + 1) / (size * size);
  int rows = last - first;
  double features[ROWS * FEATURES], labels[ROWS], predictions[ROWS], gradient[ROWS * FEATURES];
  for (int i = 0; i < rows; i++) {
    int sample = (first + i) % 12; /* rows 12 .. 23 are the second views */
    labels[i] = 20 + 3 * sample;
    predictions[i] = labels[i] + 4 * cos(2.0 * (first + i));
    for (int k = 0; k < FEATURES; k++)
      features[i * FEATURES + k] = feature_of(first + i, k);
  }

  struct conr_options options;
  struct conr_result result;
  struct conr *conr = NULL;
  struct conr_batch batch = {.rows = rows, .features = features, .labels = labels, .predictions = predictions};
  conr_options_default(&options);
  options.w = 4;
  options.t = 0.2;
  if (conr_create(MPI_COMM_WORLD, FEATURES, 1, CONR_F64, &options, &conr) != 0 ||
      conr_loss(conr, &batch, gradient, &result) != 0) {
    fprintf(stderr, "%s\n", conr_error());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  conr_destroy(&conr);

  double squares = 0;
  for (int i = 0; i < rows * FEATURES; i++)
    squares += gradient[i] * gradient[i];
  MPI_Allreduce(MPI_IN_PLACE, &squares, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  if (rank == 0)
    printf("loss %.12f, gradient norm %.12f, %lld of %lld rows are anchors\n", result.loss, sqrt(squares),
           (long long)result.active_anchors, (long long)result.rows);
  MPI_Finalize();
  return 0;
}
