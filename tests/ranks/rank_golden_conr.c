/* Every stored ConR case, its rows shared by the ranks in several ways, in both precisions and on both paths.
 *
 *   rank_golden_conr FILE.h5        prints "golden FILE: N cases run, ..." on rank 0; exits non-zero on any misfit */
#include "dist/comm.h"
#include "tests/conr_cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const path_names[] = {"auto", "dense", "banded"};

/* This rank's slice of a stored array. */
static void *slice(void *whole, enum dtype dtype, int64_t first, int64_t width) {
  return (char *)whole + (size_t)(first * width) * dtype_size(dtype);
}

/* One case in one precision, path and share.  Returns 1 on a misfit on this rank. */
static int check(const struct conr_case *stored, const char *name, enum dtype dtype, enum conr_path path,
                 enum share share) {
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  int64_t rows_of_rank[size], first = conr_share(share, stored->rows, rank, size, rows_of_rank);
  void *feature = golden_buffer(&stored->feature, dtype), *label = golden_buffer(&stored->label, dtype);
  void *prediction = golden_buffer(&stored->prediction, dtype), *weight = golden_buffer(&stored->weight, dtype);
  void *grad = calloc((size_t)(rows_of_rank[rank] * stored->features) + 1, dtype_size(dtype));
  struct conr_options options = stored->options;
  options.path = path;
  struct conr_batch batch = {.rows = rows_of_rank[rank],
                             .features = slice(feature, dtype, first, stored->features),
                             .labels = slice(label, dtype, first, stored->targets),
                             .predictions = slice(prediction, dtype, first, stored->targets),
                             .weights = slice(weight, dtype, first, 1),
                             .rows_of_rank = share == SHARE_EVEN ? rows_of_rank : NULL};
  struct conr *conr = NULL;
  struct conr_result result = {0};
  int bad = conr_create(MPI_COMM_WORLD, stored->features, stored->targets, dtype == F32 ? CONR_F32 : CONR_F64, &options,
                        &conr);
  bad = bad || conr_loss(conr, &batch, grad, &result);
  if (bad) {
    fprintf(stderr, "%s: %s\n", name, conr_error());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  conr_destroy(&conr);
  double loss_limit = dtype == F32 ? 2e-5 : 1e-12;
  double grad_limit = dtype == F32 ? 1e-4 : stored->grad.float32 ? 1e-7 : 1e-11;
  double loss_error = golden_scalar_error(result.loss, stored->loss);
  /* Against the largest gradient of the whole batch, not of the slice. */
  double largest = 0;
  for (int64_t i = 0; i < stored->grad.count; i++)
    largest = fmax(largest, fabs(stored->grad.data[i]));
  double grad_error = 0;
  for (int64_t i = 0; i < rows_of_rank[rank] * stored->features; i++) {
    double got = dtype == F32 ? (double)((float *)grad)[i] : ((double *)grad)[i];
    double error = fabs(got - stored->grad.data[first * stored->features + i]) / (largest > 0 ? largest : 1);
    grad_error = error > grad_error || isnan(error) ? error : grad_error;
  }
  bad = !(loss_error <= loss_limit) || !(grad_error <= grad_limit);
  if (bad)
    printf("MISFIT %s %s %s, %s on %d ranks: loss error %g (limit %g), gradient error %g (limit %g), rank %d\n", name,
           dtype_name(dtype), path_names[path], share_names[share], size, loss_error, loss_limit, grad_error,
           grad_limit, rank);
  free(feature);
  free(label);
  free(prediction);
  free(weight);
  free(grad);
  return bad;
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  int rank, misfits = 0, any;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (argc != 2) {
    fprintf(stderr, "usage: rank_golden_conr FILE.h5\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  struct golden_file *file = golden_open(argv[1]);
  for (int i = 0; i < golden_case_count(file); i++) {
    struct conr_case stored = conr_case_load(file, golden_case_name(file, i));
    for (enum dtype dtype = F32; dtype <= F64; dtype++)
      for (enum conr_path path = CONR_AUTO; path <= CONR_BANDED; path++)
        for (enum share share = SHARE_EVEN; share < SHARES; share++)
          misfits += check(&stored, golden_case_name(file, i), dtype, path, share);
    conr_case_free(&stored);
    golden_ran(file);
  }
  if (rank == 0)
    golden_report(file);
  golden_close(&file);
  MPI_Allreduce(&misfits, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return any != 0;
}
