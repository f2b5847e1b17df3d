/* conr bench loss: time of the ConR loss and its gradient, beside the machine's own matrix-product rate; with
 * --regularisers of the others too, and of a plain L1 loss, beside dense ConR in the same run.
 *
 * Labels are drawn from the age counts of the AgeDB-DIR training split; predictions are labels with Gaussian
 * errors of mean size 7 years, as those of a trained model are; features are normal.  Each measurement is the best of
 * --repeat; the matrix product is measured anew beside each.  On a GPU features have the type of a network's values
 * there, and lie where it would have made them. */
#include "dist/comm_device.h"
#include "dist/memory.h"
#include "dist/random.h"
#include "launch/bench.h"
#include "loss/conr.h"
#include "loss/loss_ops.h"
#include "loss/objective.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#define MOST_SIZES 32

/* Training samples of each age from 0 on. */
static const int age_counts[] = {0,   1,   0,   4,   2,   2,   4,   5,   4,   2,   5,   8,   6,   8,   9,   15,  18,
                                 28,  60,  50,  101, 103, 123, 152, 199, 224, 215, 244, 287, 253, 325, 256, 318, 278,
                                 302, 353, 287, 310, 322, 261, 326, 260, 296, 265, 221, 282, 227, 229, 251, 207, 257,
                                 227, 250, 190, 198, 234, 167, 183, 186, 153, 185, 147, 178, 158, 133, 171, 117, 117,
                                 155, 90,  156, 85,  115, 96,  78,  98,  49,  44,  46,  26,  31,  26,  24,  19,  15,
                                 20,  13,  10,  7,   7,   7,   7,   5,   5,   3,   3,   2,   1,   2,   1,   2,   1};

struct bench {
  struct session *session;
  const struct config *config;
  const struct ops *ops;
  const struct loss_ops *losses; /* NULL on the host */
  int64_t *rows_of_rank;
  float *features, *labels, *predictions, *grad; /* [rows, dim], [rows], [rows], [rows, dim]: this rank's share */
  void *there[4];                                /* the same on the device; NULL on the host */
  int64_t rows, rows_global;
  int dim;
  double dense_seconds; /* of ConR */
};

struct measurement {
  double seconds, gflops, gemm_gflops, computed_share;
  size_t extra_bytes;
  struct conr_result result;
};

/* An age with the frequencies of the table. */
static float draw_age(struct random_key key, uint64_t row) {
  int total = 0, ages = (int)(sizeof age_counts / sizeof *age_counts), age = 0;
  for (int i = 0; i < ages; i++)
    total += age_counts[i];
  double left = random_uniform(key, row, 0) * total;
  while (age < ages - 1 && left >= age_counts[age])
    left -= age_counts[age++];
  return (float)age;
}

/* The arrays to the device; the gradient has no content yet. */
static enum status upload(struct bench *bench) {
  struct device *device = bench->ops->device;
  size_t count = (size_t)bench->rows * (size_t)bench->dim, value = dtype_size(bench->ops->dtype);
  void *const here[] = {bench->features, bench->labels, bench->predictions, bench->grad};
  const size_t bytes[] = {count * value, (size_t)bench->rows * sizeof(float), (size_t)bench->rows * sizeof(float),
                          count * value};
  if (device == NULL)
    return STATUS_OK;
  TRY(loss_ops_open(device, &bench->losses));
  if (bench->ops->dtype == BF16)
    bench_shorten(bench->features, count);
  for (int i = 0; i < 4; i++) {
    TRY(device_alloc(device, bytes[i], &bench->there[i]));
    if (i < 3)
      TRY(device_copy(device, bench->there[i], here[i], bytes[i]));
  }
  return device_wait(device);
}

static enum status fill(struct bench *bench) {
  int rank = comm_rank(bench->session->comm), size = comm_size(bench->session->comm);
  int64_t first = bench->rows_global * rank / size;
  struct random_key key = random_key((uint64_t)bench->config->seed, RANDOM_TEST, 0);
  bench->rows = bench->rows_global * (rank + 1) / size - first;
  size_t bytes = (size_t)bench->rows * (size_t)bench->dim * sizeof(float);
  TRY(bench_ops(bench->session, bench->config, &bench->ops));
  REQUIRE(bench->ops->dtype != F64, ERR_ARGUMENT, "conr bench loss measures f32, tf32 and bf16, not f64");
  TRY(memory_alloc((size_t)size * sizeof *bench->rows_of_rank, (void **)&bench->rows_of_rank));
  for (int r = 0; r < size; r++)
    bench->rows_of_rank[r] = bench->rows_global * (r + 1) / size - bench->rows_global * r / size;
  TRY(memory_alloc(bytes, (void **)&bench->features));
  TRY(memory_alloc(bytes, (void **)&bench->grad));
  TRY(memory_alloc((size_t)bench->rows * sizeof(float), (void **)&bench->labels));
  TRY(memory_alloc((size_t)bench->rows * sizeof(float), (void **)&bench->predictions));
#pragma omp parallel for
  for (int64_t i = 0; i < bench->rows; i++) {
    uint64_t row = (uint64_t)(first + i);
    bench->labels[i] = draw_age(key, row);
    /* Mean absolute error of a normal deviate: sigma sqrt(2/pi). */
    bench->predictions[i] = bench->labels[i] + (float)(7 * sqrt(M_PI / 2) * random_normal(key, row, 1));
    for (int k = 0; k < bench->dim; k++)
      bench->features[i * bench->dim + k] = (float)random_normal(key, row, 2 + (uint64_t)k);
  }
  return upload(bench);
}

static void release(struct bench *bench) {
  for (int i = 3; i >= 0 && bench->ops != NULL; i--)
    device_free(bench->ops->device, &bench->there[i]);
  memory_free((void **)&bench->rows_of_rank);
  memory_free((void **)&bench->features);
  memory_free((void **)&bench->grad);
  memory_free((void **)&bench->labels);
  memory_free((void **)&bench->predictions);
}

/* Either of the two. */
struct loss {
  struct conr *host;
  struct conr_device *device;
};

static enum status create_loss(struct bench *bench, const struct conr_options *options, struct loss *loss) {
  if (bench->losses != NULL)
    return bench->losses->conr_create(bench->ops->device, bench->session->data, bench->ops->precision, bench->dim, 1,
                                      options, &loss->device);
  return (enum status)conr_create(bench->session->mpi, bench->dim, 1, CONR_F32, options, &loss->host);
}

static void destroy_loss(struct bench *bench, struct loss *loss) {
  if (bench->losses != NULL)
    bench->losses->conr_destroy(&loss->device);
  conr_destroy(&loss->host);
}

static enum status run_loss(struct bench *bench, struct loss *loss, struct conr_result *result) {
  bool here = bench->losses == NULL;
  struct conr_batch batch = {.rows = bench->rows,
                             .features = here ? bench->features : bench->there[0],
                             .labels = here ? bench->labels : bench->there[1],
                             .predictions = here ? bench->predictions : bench->there[2],
                             .rows_of_rank = bench->rows_of_rank};
  if (here)
    return (enum status)conr_loss(loss->host, &batch, bench->grad, result);
  TRY(bench->losses->conr_loss(loss->device, &batch, 1, bench->there[3]));
  return bench->losses->conr_result(loss->device, result);
}

static enum status time_loss(struct bench *bench, struct loss *loss, struct measurement *out) {
  if (bench->losses != NULL) /* the first call chooses kernels and takes memory */
    TRY(run_loss(bench, loss, &out->result));
  out->seconds = INFINITY;
  for (int64_t repeat = 0; repeat < bench->config->repeat; repeat++) {
    TRY(comm_barrier(bench->session->comm));
    double began = log_seconds();
    TRY(run_loss(bench, loss, &out->result));
    double seconds = log_seconds() - began;
    TRY(comm_max_f64(bench->session->comm, &seconds, 1)); /* the slowest rank is the time */
    out->seconds = fmin(out->seconds, seconds);
  }
  return STATUS_OK;
}

/* One path at one size.  Extra memory: the most held during the calls beyond the caller's own arrays. */
static enum status measure(struct bench *bench, const struct conr_options *options, struct measurement *out) {
  struct comm *comm = bench->session->comm;
  struct device *device = bench->ops->device;
  struct loss loss = {0};
  enum status status;
  TRY(comm_agree(comm, bench_gemm(bench->ops, &out->gemm_gflops)));
  memory_peak_reset();
  size_t before = device_bytes(device);
  TRY_GOTO(create_loss(bench, options, &loss), out);
  TRY_GOTO(time_loss(bench, &loss, out), out);
  out->extra_bytes = (device == NULL ? memory_peak() : device_bytes(device)) - before;
  out->gflops = out->result.gemm_flops / out->seconds / 1e9;
  out->computed_share = out->result.computed_share;
out:
  if (status == STATUS_OK || status_agreed()) /* collective: not after a failure of this rank alone */
    destroy_loss(bench, &loss);
  return status;
}

static void print_header(const struct session *session) {
  printf("ConR, forward + gradient, on %s; gflops counts the matrix products done, gemm is a plain product in the same "
         "run\n",
         device_facts(session->device)->name);
  printf("%8s %6s %-9s %-7s %9s %8s %8s %6s %9s %10s %10s\n", "rows", "dim", "variant", "path", "seconds", "gflops",
         "gemm", "ratio", "computed", "active", "extra/NxD");
}

static void print_row(const struct bench *bench, const char *path, const struct measurement *m) {
  double rows = (double)bench->rows_global, pairs = rows * rows;
  double active = (double)(m->result.positive_pairs + m->result.negative_pairs) / pairs;
  if (!bench->config->json) {
    printf("%8lld %6d %-9s %-7s %9.4f %8.1f %8.1f %6.2f %8.1f%% %9.1f%% %10.3f\n", (long long)bench->rows_global,
           bench->dim, bench->config->conr_variant, path, m->seconds, m->gflops, m->gemm_gflops,
           m->gflops / m->gemm_gflops, 100 * m->computed_share, 100 * active,
           (double)m->extra_bytes / (rows * bench->dim * (double)dtype_size(bench->ops->dtype)));
    fflush(stdout);
    return;
  }
  json_t *object =
      json_pack("{s:I, s:i, s:s, s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:I}", "rows",
                (json_int_t)bench->rows_global, "dim", bench->dim, "variant", bench->config->conr_variant, "path", path,
                "device", device_facts(bench->ops->device)->name, "precision", precision_name(bench->ops->precision),
                "threads", bench->session->threads, "ranks", comm_size(bench->session->comm), "seconds", m->seconds,
                "gflops", m->gflops, "gemm_gflops", m->gemm_gflops, "active_share", active, "computed_share",
                m->computed_share, "extra_bytes", (json_int_t)m->extra_bytes);
  json_dumpf(object, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
  putchar('\n');
  fflush(stdout);
  json_decref(object);
}

/* --- beside ConR ---------------------------------------------------------------------------------------------- */

/* One term on the same rows, through the objective, as a training step has it. */
struct term {
  const char *name;
  int regulariser; /* -1 = L1 */
};

static enum status create_term(struct bench *bench, const struct term *term, struct objective **out) {
  struct objective_options options = {.regression = regression_default(REGRESSION_L1),
                                      .regularisers = {.ranksim = {.lambda = 2}, .rnc = {.temperature = 2}}};
  accon_options_default(&options.regularisers.accon);
  srl_options_default(&options.regularisers.srl);
  if (term->regulariser >= 0) {
    options.regularisers.on[term->regulariser] = true;
    options.regularisers.coefficient[term->regulariser] = 1;
  }
  return objective_create(bench->session->mpi, bench->session->data, bench->ops, &options, bench->dim, 1, out);
}

static enum status run_term(struct bench *bench, const struct term *term, struct objective *objective,
                            double sums[OBJECTIVE_SUMS]) {
  bool here = bench->losses == NULL;
  struct objective_batch batch = {.samples = bench->rows,
                                  .samples_global = bench->rows_global,
                                  .views = 1,
                                  .outputs = here ? bench->predictions : bench->there[2],
                                  .labels = here ? bench->labels : bench->there[1]};
  struct regulariser_share share = {.samples_of_rank = bench->rows_of_rank,
                                    .views = 1,
                                    .features = here ? bench->features : bench->there[0],
                                    .labels = batch.labels};
  void *grad = here ? (void *)bench->grad : bench->there[3];
  TRY(term->regulariser < 0 ? objective_regression(objective, &batch, grad, sums)
                            : objective_regularise(objective, SIDE_BOTH, &share, grad));
  return comm_device_wait(bench->session->data);
}

static enum status time_term(struct bench *bench, const struct term *term, struct objective *objective,
                             double sums[OBJECTIVE_SUMS], double *out) {
  TRY(run_term(bench, term, objective, sums)); /* the first call takes memory */
  *out = INFINITY;
  for (int64_t repeat = 0; repeat < bench->config->repeat; repeat++) {
    TRY(comm_barrier(bench->session->comm));
    double began = log_seconds();
    TRY(run_term(bench, term, objective, sums));
    double seconds = log_seconds() - began;
    TRY(comm_max_f64(bench->session->comm, &seconds, 1)); /* the slowest rank is the time */
    *out = fmin(*out, seconds);
  }
  return STATUS_OK;
}

static void print_term(const struct bench *bench, const struct term *term, double seconds, size_t extra) {
  double array = (double)bench->rows_global * bench->dim * (double)dtype_size(bench->ops->dtype);
  if (!bench->config->json) {
    printf("%8lld %6d %-9s %-7s %9.4f %26s %6.3f of dense ConR %10.3f\n", (long long)bench->rows_global, bench->dim,
           term->name, "-", seconds, "", seconds / bench->dense_seconds, (double)extra / array);
    fflush(stdout);
    return;
  }
  json_t *object =
      json_pack("{s:I, s:i, s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:I}", "rows", (json_int_t)bench->rows_global, "dim",
                bench->dim, "method", term->name, "device", device_facts(bench->ops->device)->name, "precision",
                precision_name(bench->ops->precision), "threads", bench->session->threads, "ranks",
                comm_size(bench->session->comm), "seconds", seconds, "of_dense_conr", seconds / bench->dense_seconds,
                "extra_bytes", (json_int_t)extra);
  json_dumpf(object, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
  putchar('\n');
  fflush(stdout);
  json_decref(object);
}

static enum status bench_term(struct bench *bench, const struct term *term) {
  struct objective *objective = NULL;
  struct device *device = bench->ops->device;
  double *sums = NULL, seconds = 0;
  enum status status;
  memory_peak_reset();
  size_t before = device_bytes(device);
  TRY_GOTO(create_term(bench, term, &objective), out);
  TRY_GOTO(comm_agree(bench->session->comm, device_alloc_zero(device, OBJECTIVE_SUMS * sizeof *sums, (void **)&sums)),
           out);
  TRY_GOTO(time_term(bench, term, objective, sums, &seconds), out);
  size_t extra = (device == NULL ? memory_peak() : device_bytes(device)) - before;
  if (comm_rank(bench->session->comm) == 0)
    print_term(bench, term, seconds, extra);
out:
  device_free(device, (void **)&sums);
  if (status == STATUS_OK || status_agreed())
    objective_destroy(&objective);
  return status;
}

static enum status bench_terms(struct bench *bench) {
  static const struct term terms[] = {{"ranksim", REGULARISER_RANKSIM},
                                      {"rnc", REGULARISER_RNC},
                                      {"accon", REGULARISER_ACCON},
                                      {"srl", REGULARISER_SRL},
                                      {"l1", -1}};
  for (size_t i = 0; i < sizeof terms / sizeof *terms; i++)
    TRY(bench_term(bench, &terms[i]));
  return STATUS_OK;
}

static enum status bench_size(struct bench *bench, bool *warm) {
  static const struct {
    enum conr_path path;
    const char *name;
  } paths[] = {{CONR_BANDED, "banded"}, {CONR_DENSE, "dense"}};
  struct conr_options options;
  const char *variant = bench->config->conr_variant;
  conr_options_default(&options);
  options.variant = strcmp(variant, "paper") == 0   ? CONR_PAPER
                    : strcmp(variant, "depth") == 0 ? CONR_DEPTH
                                                    : CONR_REFERENCE;
  TRY(comm_agree(bench->session->comm, fill(bench)));
  if (!*warm) { /* the first product of a process generates code */
    double ignored;
    TRY(comm_agree(bench->session->comm, bench_gemm(bench->ops, &ignored)));
    *warm = true;
  }
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    struct measurement measurement = {0};
    options.path = paths[i].path;
    TRY(measure(bench, &options, &measurement));
    if (paths[i].path == CONR_DENSE)
      bench->dense_seconds = measurement.seconds;
    if (comm_rank(bench->session->comm) == 0)
      print_row(bench, paths[i].name, &measurement);
  }
  return bench->config->regularisers ? bench_terms(bench) : STATUS_OK;
}

static enum status read_sizes(const struct config *config, int64_t *rows, int *row_count, int64_t *dims,
                              int *dim_count) {
  TRY(config_integers("rows", config->rows ? config->rows : "512,1024,2048,4096,8192,16384", 2, 1 << 30, MOST_SIZES,
                      rows, row_count));
  return config_integers("dim", config->dim ? config->dim : "128,512,2048", 1, 1 << 24, MOST_SIZES, dims, dim_count);
}

enum status bench_loss(struct session *session, const struct config *config) {
  int64_t rows[MOST_SIZES], dims[MOST_SIZES];
  int row_count = 0, dim_count = 0;
  bool warm = false;
  TRY(comm_agree(session->comm, read_sizes(config, rows, &row_count, dims, &dim_count)));
  if (!config->json && comm_rank(session->comm) == 0)
    print_header(session);
  for (int d = 0; d < dim_count; d++)
    for (int r = 0; r < row_count; r++) {
      struct bench bench = {.session = session, .config = config, .rows_global = rows[r], .dim = (int)dims[d]};
      enum status status = bench_size(&bench, &warm);
      release(&bench);
      TRY(status);
    }
  return STATUS_OK;
}
