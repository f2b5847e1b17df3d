/* Every stored run of feature distribution smoothing, epoch by epoch, its rows shared by the ranks in several ways.
 *
 *   rank_golden_fds        prints "golden fds.h5: N cases run, ..." on rank 0; exits non-zero on any misfit
 *   rank_golden_fds vir    those of distributions, which are some of the cases of vir.h5: prints "distributions: N" */
#include "dist/comm.h"
#include "loss/fds.h"
#include "model/ops.h"
#include "tests/conr_cases.h"
#include "tests/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(call)                                         \
  do {                                                      \
    if ((call) != STATUS_OK) {                              \
      fprintf(stderr, "%s: %s\n", #call, status_message()); \
      MPI_Abort(MPI_COMM_WORLD, 1);                         \
    }                                                       \
  } while (0)

static int misfits;

static void expect(const char *name, const char *what, enum dtype dtype, int epoch, double error) {
  int rank, size;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (error <= 2e-5) /* the reference works in float32 */
    return;
  printf("MISFIT %s %s on rank %d of %d: %s of epoch %d, error %g\n", name, dtype_name(dtype), rank, size, what, epoch,
         error);
  misfits++;
}

/* A stored array of an epoch; depth maps [images, channels, height, width] come with a row for each pixel. */
static struct golden_array read_rows(const struct golden_file *file, const char *name, int epoch, const char *what) {
  char path[300];
  snprintf(path, sizeof path, "epoch%d/%s", epoch, what);
  struct golden_array stored = golden_read(file, name, path);
  if (stored.rank < 4)
    return stored;
  int64_t channels = stored.shape[1], places = stored.shape[2] * stored.shape[3];
  double *rows = malloc((size_t)stored.count * sizeof *rows);
  for (int64_t i = 0; i < stored.count; i++)
    rows[(i / (channels * places) * places + i % places) * channels + i / places % channels] = stored.data[i];
  memcpy(stored.data, rows, (size_t)stored.count * sizeof *rows);
  free(rows);
  return stored;
}

static struct fds_options read_options(const struct golden_file *file, const char *name) {
  struct fds_options options;
  char kind[32], kernel[32];
  golden_text(file, name, "kind", "?", kind, sizeof kind);
  bool distributions = strcmp(kind, "smoothing") == 0;
  fds_options_default(strcmp(kind, "nyud2") == 0  ? FDS_DEPTH
                      : strcmp(kind, "stsb") == 0 ? FDS_STS
                                                  : FDS_AGES,
                      &options);
  CHECK(label_kernel_by_name(golden_text(file, name, "kernel", "?", kernel, sizeof kernel), &options.kernel));
  options.first = (int64_t)golden_number(file, name, "bucket_start", NAN);
  options.last = (int64_t)golden_number(file, name, "bucket_num", NAN) - 1;
  options.width = options.task == FDS_STS ? 5 / (double)(options.last + 1) : options.width;
  options.kernel_size = (int)golden_number(file, name, "ks", NAN);
  options.kernel_sigma = golden_number(file, name, "sigma", NAN);
  options.momentum = golden_number(file, name, "momentum", NAN);
  if (golden_number(file, name, "momentum_is_none", 0) != 0)
    options.momentum = FDS_CUMULATIVE;
  options.start_update = (int64_t)golden_number(file, name, "start_update", NAN);
  options.start_smooth = (int64_t)golden_number(file, name, "start_smooth", NAN);
  options.snapshot = golden_number(file, name, "aliased_last_epoch", distributions) == 0;
  options.distributions = distributions;
  return options;
}

/* From smoothed encodings to sampled ones, and the slopes of encodings from those of samples. */
static void *check_samples(const struct golden_file *file, const char *name, int64_t features, enum dtype dtype,
                           int epoch, const void *encoding) {
  struct golden_array eps = read_rows(file, name, epoch, "eps"), stored = read_rows(file, name, epoch, "z"),
                      grad_z = read_rows(file, name, epoch, "grad_z");
  int64_t half = features / 2, rows = eps.count / half;
  void *noise = golden_buffer(&eps, dtype), *z = golden_buffer(&stored, dtype), *grad = golden_buffer(&grad_z, dtype),
       *gradients = malloc((size_t)(rows * features) * dtype_size(dtype));
  memset(z, 0, (size_t)stored.count * dtype_size(dtype));
  CHECK(ops_host(dtype)->sample_forward(rows, half, encoding, noise, z));
  expect(name, "sampled encodings", dtype, epoch, golden_array_error(dtype, stored.count, z, stored.data));
  CHECK(ops_host(dtype)->sample_backward(rows, half, encoding, noise, grad, gradients));
  free(noise);
  free(z);
  free(grad);
  golden_free(&eps);
  golden_free(&stored);
  golden_free(&grad_z);
  return gradients;
}

static void *read_gradients(const struct golden_file *file, const char *name, enum dtype dtype, int epoch) {
  struct golden_array grad_out = read_rows(file, name, epoch, "grad_out");
  void *gradients = golden_buffer(&grad_out, dtype);
  golden_free(&grad_out);
  return gradients;
}

/* Smoothing of the whole batch and the way back: the edges come from all of its rows. */
static void check_batch(const struct golden_file *file, const char *name, const struct fds *fds, int64_t features,
                        enum dtype dtype, int epoch) {
  const struct ops *ops = ops_host(dtype);
  const struct fds_options *options = fds_options_of(fds);
  const char *label_name = options->task == FDS_DEPTH ? "batch_depth" : "batch_labels";
  struct golden_array x = read_rows(file, name, epoch, "batch_features"),
                      labels = read_rows(file, name, epoch, label_name);
  struct golden_array smoothed = read_rows(file, name, epoch, "batch_smoothed"),
                      grad_in = read_rows(file, name, epoch, "grad_in");
  void *values = golden_buffer(&x, dtype), *gradients, *own_labels = golden_buffer(&labels, dtype);
  size_t numbers = (size_t)(fds_buckets(fds) * features) * dtype_size(dtype);
  void *scale = malloc(numbers), *shift = malloc(numbers);
  int32_t *bucket = malloc((size_t)labels.count * sizeof *bucket);
  struct fds_edges edges = {false, false};
  for (int64_t i = 0; i < labels.count; i++)
    fds_look_for_edges(fds, labels.data[i], &edges);
  CHECK(fds_assign(fds, dtype, labels.count, own_labels, edges, bucket));
  fds_tables(fds, dtype, scale, shift);
  if (fds_smooths(fds, epoch))
    CHECK(ops->move_rows(labels.count, features, bucket, scale, shift, values, values));
  gradients = options->distributions ? check_samples(file, name, features, dtype, epoch, values)
                                     : read_gradients(file, name, dtype, epoch);
  if (fds_smooths(fds, epoch))
    CHECK(ops->move_rows(labels.count, features, bucket, scale, NULL, gradients, gradients));
  expect(name, "smoothed features", dtype, epoch, golden_array_error(dtype, x.count, values, smoothed.data));
  expect(name, "gradient", dtype, epoch, golden_array_error(dtype, x.count, gradients, grad_in.data));
  struct golden_array *arrays[] = {&x, &labels, &smoothed, &grad_in};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    golden_free(arrays[i]);
  void *blocks[] = {values, gradients, own_labels, scale, shift, bucket};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    free(blocks[i]);
}

/* Files tell the counter of an epoch under this name. */
static void check_counter(const struct golden_file *file, const char *name, struct fds *fds, enum dtype dtype,
                          int epoch, const char *counter) {
  struct state_array states[FDS_STATES];
  size_t count = fds_states(fds, states);
  char attribute[64];
  snprintf(attribute, sizeof attribute, "epoch%d/%s", epoch, counter);
  bool found = false;
  for (size_t i = 0; i < count; i++)
    if (strcmp(states[i].name, "fds/epochs") == 0) {
      found = true;
      expect(name, "epoch counter", dtype, epoch,
             golden_scalar_error(states[i].values[0], golden_number(file, name, attribute, NAN)));
    }
  expect(name, "an epoch counter", dtype, epoch, found ? 0 : INFINITY);
}

static void check_state(const struct golden_file *file, const char *name, struct fds *fds, enum dtype dtype,
                        int epoch) {
  static const char *const stored_names[][2] = {{"fds/running_mean", "after_running_mean"},
                                                {"fds/running_var", "after_running_var"},
                                                {"fds/smoothed_mean", "after_smoothed_mean_last_epoch"},
                                                {"fds/smoothed_var", "after_smoothed_var_last_epoch"},
                                                {"fds/last_mean", "after_running_mean_last_epoch"},
                                                {"fds/last_var", "after_running_var_last_epoch"},
                                                {"fds/tracked", "after_num_samples_tracked"}};
  struct state_array states[FDS_STATES];
  size_t count = fds_states(fds, states), compared = 0, wanted = fds_options_of(fds)->snapshot ? 7 : 5;
  for (size_t i = 0; i < count; i++) {
    for (size_t k = 0; k < sizeof stored_names / sizeof *stored_names; k++) {
      if (strcmp(states[i].name, stored_names[k][0]) != 0)
        continue;
      struct golden_array stored = read_rows(file, name, epoch, stored_names[k][1]);
      double error = stored.count == (int64_t)states[i].count
                         ? golden_array_error(F64, stored.count, states[i].values, stored.data)
                         : INFINITY;
      expect(name, states[i].name, dtype, epoch, error);
      golden_free(&stored);
      compared++;
    }
  }
  expect(name, "number of states", dtype, epoch, compared == wanted ? 0 : INFINITY);
}

/* This rank's share of the epoch's rows, in two pieces. */
static void collect(const struct golden_file *file, const char *name, struct fds *fds, struct comm *comm,
                    int64_t features, enum dtype dtype, enum share share, int epoch) {
  const char *label_name = fds_options_of(fds)->task == FDS_DEPTH ? "all_depth" : "all_labels";
  struct golden_array x = read_rows(file, name, epoch, "all_features"),
                      labels = read_rows(file, name, epoch, label_name);
  char *values = golden_buffer(&x, dtype), *own_labels = golden_buffer(&labels, dtype);
  int64_t rows_of_rank[comm_size(comm)];
  int64_t first = conr_share(share, labels.count, comm_rank(comm), comm_size(comm), rows_of_rank);
  int64_t rows = rows_of_rank[comm_rank(comm)], half = rows / 3;
  size_t row_bytes = (size_t)features * dtype_size(dtype), label_bytes = dtype_size(dtype);
  for (int piece = 0; piece < 2; piece++) {
    int64_t from = first + piece * half, count = piece == 0 ? half : rows - half;
    CHECK(fds_collect(fds, dtype, count, values + (size_t)from * row_bytes, dtype,
                      own_labels + (size_t)from * label_bytes));
  }
  CHECK(fds_update(fds, comm, epoch));
  free(values);
  free(own_labels);
  golden_free(&x);
  golden_free(&labels);
}

static void check(const struct golden_file *file, const char *name, struct comm *comm, enum dtype dtype,
                  enum share share) {
  struct fds_options options = read_options(file, name);
  int64_t features = (int64_t)golden_number(file, name, "feature_dim", NAN) * (options.distributions ? 2 : 1);
  int epochs = (int)golden_number(file, name, "epochs", NAN);
  struct fds *fds;
  CHECK(fds_create(&options, features, comm_size(comm), &fds));
  for (int epoch = 0; epoch < epochs; epoch++) {
    check_batch(file, name, fds, features, dtype, epoch);
    if (options.distributions) /* as it is for the batch: before the update */
      check_counter(file, name, fds, dtype, epoch, "epoch_counter");
    if (!fds_collects(fds, epoch))
      continue;
    collect(file, name, fds, comm, features, dtype, share, epoch);
    check_state(file, name, fds, dtype, epoch);
    if (!options.distributions)
      check_counter(file, name, fds, dtype, epoch, "fds_epoch_counter");
  }
  fds_destroy(&fds);
}

static void check_all(const struct golden_file *file, const char *name, struct comm *comm) {
  for (enum dtype dtype = F32; dtype <= F64; dtype++)
    for (enum share share = SHARE_EVEN; share < SHARES; share++)
      check(file, name, comm, dtype, share);
}

static bool is_smoothing(const struct golden_file *file, const char *name) {
  char kind[32];
  return strcmp(golden_text(file, name, "kind", "?", kind, sizeof kind), "smoothing") == 0;
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  bool distributions = argc > 1 && strcmp(argv[1], "vir") == 0;
  int any, checked = 0;
  struct comm *comm;
  CHECK(comm_create(MPI_COMM_WORLD, &comm));
  struct golden_file *file = golden_open(distributions ? "vir.h5" : "fds.h5");
  for (int i = 0; i < golden_case_count(file); i++) {
    const char *name = golden_case_name(file, i);
    if (distributions && !is_smoothing(file, name))
      continue;
    check_all(file, name, comm);
    golden_ran(file);
    checked++;
  }
  if (comm_rank(comm) == 0 && distributions)
    printf("distributions: %d\n", checked);
  else if (comm_rank(comm) == 0)
    golden_report(file);
  golden_close(&file);
  comm_destroy(&comm);
  MPI_Allreduce(&misfits, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return any != 0;
}
