/* Stored trainings, step by step: the trainer itself, from the stored initial parameters, on any number of ranks.
 *
 *   rank_trajectory FOLDER       writes its data files and run folders below FOLDER (made by the caller)
 *
 * Prints "golden trajectory.h5: ..." on rank 0; exits non-zero on any misfit.  Cases of methods that are not there yet
 * are counted as skipped, by name. */
#include "dist/host_copy.h"
#include "io/array_file.h"
#include "io/h5.h"
#include "launch/train.h"
#include "tests/golden.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(call)                                         \
  do {                                                      \
    if ((call) != STATUS_OK) {                              \
      fprintf(stderr, "%s: %s\n", #call, status_message()); \
      MPI_Abort(MPI_COMM_WORLD, 1);                         \
    }                                                       \
  } while (0)

/* ---- the case's files, written by rank 0 ---------------------------------------------------- */

static void write_array(struct h5_file *file, const char *name, enum array_type type, int rank, const int64_t *shape,
                        const double *values, int64_t count) {
  struct h5_dataset dataset;
  CHECK(h5_dataset_create(file, name, type, rank, shape, &dataset));
  void *buffer = malloc((size_t)count * 8 + 1);
  for (int64_t i = 0; i < count; i++)
    if (type == ARRAY_U8)
      ((uint8_t *)buffer)[i] = (uint8_t)values[i];
    else
      ((float *)buffer)[i] = (float)values[i];
  CHECK(h5_dataset_write(&dataset, 0, shape[0], type, buffer));
  h5_dataset_close(&dataset);
  free(buffer);
}

static void write_data(const struct golden_file *golden, const char *name, const char *path) {
  struct durable durable;
  struct h5_file *file;
  struct golden_array inputs = golden_read(golden, name, "inputs"), labels = golden_read(golden, name, "labels");
  double *train = calloc((size_t)inputs.shape[0], sizeof *train); /* all rows: split 0 */
  CHECK(durable_begin(path, &durable));
  CHECK(h5_create(&durable, &file));
  write_array(file, "inputs", ARRAY_F32, 2, inputs.shape, inputs.data, inputs.count);
  write_array(file, "targets", ARRAY_F32, 1, labels.shape, labels.data, labels.count);
  write_array(file, "split", ARRAY_U8, 1, labels.shape, train, labels.count);
  if (golden_number(golden, name, "weights_given", 0) != 0) {
    struct golden_array weights = golden_read(golden, name, "weights");
    write_array(file, "weights", ARRAY_F32, 1, weights.shape, weights.data, weights.count);
    golden_free(&weights);
  }
  CHECK(h5_close(&file));
  CHECK(durable_commit(&durable));
  free(train);
  golden_free(&inputs);
  golden_free(&labels);
}

static void write_init(const struct golden_file *golden, const char *name, const char *path) {
  struct golden_names members = golden_members(golden, name, "init");
  struct array arrays[64];
  for (int i = 0; i < members.count; i++) {
    char member[300];
    snprintf(member, sizeof member, "init/%s", members.name[i]);
    struct golden_array values = golden_read(golden, name, member);
    CHECK(array_create(members.name[i], ARRAY_F64, values.rank, values.shape, &arrays[i]));
    memcpy(arrays[i].data, values.data, (size_t)values.count * sizeof(double));
    golden_free(&values);
  }
  CHECK(array_file_write(path, arrays, (size_t)members.count, NULL, 0));
  for (int i = 0; i < members.count; i++)
    array_destroy(&arrays[i]);
  golden_free_names(&members);
}

/* ---- the case's options ---------------------------------------------------------------------- */

struct words {
  char text[96][PATH_MAX];
  char *list[97];
  int count;
};

static void add(struct words *words, const char *text) {
  snprintf(words->text[words->count], PATH_MAX, "%s", text);
  words->list[words->count] = words->text[words->count];
  words->count++;
}

static void add_number(struct words *words, const struct golden_file *golden, const char *name, const char *option,
                       const char *attribute) {
  char text[64];
  if (!golden_has_attribute(golden, name, attribute))
    return;
  snprintf(text, sizeof text, "%.17g", golden_number(golden, name, attribute, NAN));
  add(words, option);
  add(words, text);
}

static void add_text(struct words *words, const struct golden_file *golden, const char *name, const char *option,
                     const char *attribute) {
  char text[64];
  if (!golden_has_attribute(golden, name, attribute))
    return;
  add(words, option);
  add(words, golden_text(golden, name, attribute, "", text, sizeof text));
}

/* "24,16" from an attribute of one or several numbers. */
static void add_list(struct words *words, const struct golden_file *golden, const char *name, const char *option,
                     const char *attribute) {
  char text[256] = "";
  struct golden_array values = golden_numbers(golden, name, attribute);
  for (int64_t i = 0; i < values.count; i++)
    sprintf(text + strlen(text), "%s%.0f", i ? "," : "", values.data[i]);
  golden_free(&values);
  add(words, option);
  add(words, text);
}

static void add_fds(struct words *words, const struct golden_file *golden, const char *name) {
  char buckets[64];
  int first = (int)golden_number(golden, name, "fds_bucket_start", NAN);
  int last = (int)golden_number(golden, name, "fds_bucket_num", NAN) - 1;
  snprintf(buckets, sizeof buckets, "%d,%d", first, last);
  add(words, "--fds");
  add(words, "--fds-buckets");
  add(words, buckets);
  add(words, "--fds-storage");
  add(words, golden_number(golden, name, "fds_aliased_last_epoch", NAN) != 0 ? "alias" : "snapshot");
  add_text(words, golden, name, "--fds-kernel", "fds_kernel");
  add_number(words, golden, name, "--fds-size", "fds_ks");
  add_number(words, golden, name, "--fds-sigma", "fds_sigma");
  add_number(words, golden, name, "--fds-momentum", "fds_momentum");
  add_number(words, golden, name, "--fds-start-update", "fds_start_update");
  add_number(words, golden, name, "--fds-start-smooth", "fds_start_smooth");
}

static void make_options(const struct golden_file *golden, const char *name, enum dtype dtype, const char *folder,
                         const char *device, struct words *words) {
  char path[PATH_MAX], optimiser[32], regulariser[32];
  golden_text(golden, name, "optimiser", "", optimiser, sizeof optimiser);
  golden_text(golden, name, "regulariser", "none", regulariser, sizeof regulariser);
  words->count = 0;
  add(words, "conr");
  add(words, "train");
  snprintf(path, sizeof path, "%s/data.h5", folder);
  add(words, path);
  add(words, "--output");
  snprintf(path, sizeof path, "%s/run", folder);
  add(words, path);
  add(words, "--init");
  snprintf(path, sizeof path, "%s/init.h5", folder);
  add(words, path);
  static const char *const fixed[] = {"--force", "--quiet", "--shuffle", "none", "--noise",     "0",
                                      "--mask",  "0",       "--threads", "1",    "--bucket-mb", "0.0005"};
  for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
    add(words, fixed[i]);
  add(words, "--precision");
  add(words, dtype_name(dtype));
  add(words, "--device");
  add(words, device);
  add_list(words, golden, name, "--hidden", "hidden");
  add_text(words, golden, name, "--activation", "activation");
  add_text(words, golden, name, "--loss", "loss_name");
  add_number(words, golden, name, "--huber-beta", "huber_beta");
  if (golden_has_attribute(golden, name, "sigma_init")) {
    add_number(words, golden, name, "--noise-scale", "sigma_init");
    add_number(words, golden, name, "--noise-lr", "sigma_lr");
  }
  add_number(words, golden, name, "--views", "views");
  add_number(words, golden, name, "--batch", "batch_size");
  add_number(words, golden, name, "--epochs", "epochs");
  add_number(words, golden, name, "--lr", "lr");
  add_number(words, golden, name, "--clip", "clip_norm");
  add_number(words, golden, name, "--weight-decay", "weight_decay");
  add_number(words, golden, name, "--warmup", "warmup_steps");
  add_text(words, golden, name, "--optimiser", "optimiser");
  if (strcmp(optimiser, "sgd") == 0) {
    add_number(words, golden, name, "--momentum", "momentum");
  } else {
    add_number(words, golden, name, "--beta1", "beta1");
    add_number(words, golden, name, "--beta2", "beta2");
    add_number(words, golden, name, "--epsilon", "eps");
  }
  if (golden_number(golden, name, "milestone_count", 0) > 0) {
    add(words, "--schedule");
    add(words, "step");
    add_list(words, golden, name, "--milestones", "milestones");
    add_number(words, golden, name, "--lr-factor", "lr_factor");
  }
  if (strcmp(regulariser, "conr") == 0) {
    add(words, "--conr");
    add_number(words, golden, name, "--conr-beta", "conr_beta");
    add_number(words, golden, name, "--conr-w", "conr_w");
    add_number(words, golden, name, "--conr-t", "conr_t");
    add_number(words, golden, name, "--conr-e", "conr_e");
    add_text(words, golden, name, "--conr-variant", "conr_variant");
    add_text(words, golden, name, "--conr-aggregate", "aggregate");
    if (golden_number(golden, name, "outer_weights", 0) != 0)
      add(words, "--conr-outer-weights");
  }
  if (strcmp(regulariser, "ranksim") == 0) {
    add(words, "--ranksim");
    add_number(words, golden, name, "--ranksim-gamma", "ranksim_gamma");
    add_number(words, golden, name, "--ranksim-lambda", "ranksim_lambda");
  }
  if (golden_number(golden, name, "fds", 0) != 0)
    add_fds(words, golden, name);
  words->list[words->count] = NULL;
}

/* The method a case needs that is not there yet, or NULL. */
static const char *missing_method(const struct golden_file *golden, const char *name) {
  char loss[32], regulariser[32];
  golden_text(golden, name, "loss_name", "", loss, sizeof loss);
  golden_text(golden, name, "regulariser", "none", regulariser, sizeof regulariser);
  if (strcmp(regulariser, "none") != 0 && strcmp(regulariser, "conr") != 0 && strcmp(regulariser, "ranksim") != 0)
    return "its regulariser is planned";
  if (strcmp(loss, "l1") != 0 && strcmp(loss, "mse") != 0 && strcmp(loss, "huber") != 0 && strcmp(loss, "bmc") != 0)
    return "its loss is planned";
  return NULL;
}

/* ---- comparison ------------------------------------------------------------------------------- */

struct judge {
  const struct golden_file *golden;
  const char *name;
  enum dtype dtype;
  int64_t steps;
  struct golden_array regression, regulariser, total, norm, lr;
  struct golden_array regression_limit, regulariser_limit, total_limit, norm_limit; /* float32 */
  bool learns_sigma;                                                                /* then also: */
  struct golden_array sigma, grad_sigma, sigma_limit;
  int64_t seen;
  int misfits;
};

static void misfit(struct judge *judge, const char *what, int64_t step, double error, double limit) {
  if (error <= limit)
    return;
  if (judge->misfits++ < 3)
    printf("MISFIT %s %s: %s at step %lld, error %g (limit %g)\n", judge->name, dtype_name(judge->dtype), what,
           (long long)step, error, limit);
}

static struct golden_array read_stored(struct judge *judge, const char *what) {
  char path[300];
  snprintf(path, sizeof path, "%s/%s", dtype_name(judge->dtype), what);
  return golden_read(judge->golden, judge->name, path);
}

static struct golden_array read_limit(struct judge *judge, const char *what) {
  char path[300];
  snprintf(path, sizeof path, "f32_tolerance/%s", what);
  return golden_read(judge->golden, judge->name, path);
}

/* Relative to max(|value|, 0.1 of the largest), as the stored tolerances were measured. */
static void compare_scalar(struct judge *judge, const char *what, const struct golden_array *stored,
                           const struct golden_array *limit, int64_t step, double got) {
  double largest = 0, value = stored->data[step];
  for (int64_t i = 0; i < stored->count; i++)
    largest = fmax(largest, fabs(stored->data[i]));
  double scale = fmax(fabs(value), 0.1 * largest);
  double error = fabs(got - value) / (scale > 0 ? scale : 1);
  misfit(judge, what, step, isnan(error) ? INFINITY : error, judge->dtype == F64 ? 1e-11 : limit->data[step]);
}

/* A flat buffer laid out like the parameters against a stored group of arrays. */
static void compare_group(struct judge *judge, const char *group, struct parameters own, void *block, int64_t step) {
  char attribute[64];
  struct host_copy copy;
  CHECK(host_copy_create(own.device, block, own.elements * dtype_size(judge->dtype), &copy));
  CHECK(host_copy_fetch(&copy));
  const char *data = copy.data;
  snprintf(attribute, sizeof attribute, "f32_tolerance_%s", group);
  double limit = judge->dtype == F64 ? 1e-11 : golden_number(judge->golden, judge->name, attribute, NAN);
  for (int i = 0; i < own.count; i++) {
    char what[256];
    snprintf(what, sizeof what, "%s/%s", group, own.list[i].name);
    struct golden_array stored = read_stored(judge, what);
    double error = stored.count == (int64_t)own.list[i].count
                       ? golden_array_error(judge->dtype, stored.count,
                                            data + own.list[i].offset * dtype_size(judge->dtype), stored.data)
                       : INFINITY;
    misfit(judge, what, step, error, limit);
    golden_free(&stored);
  }
  host_copy_destroy(&copy);
}

/* Evaluation of all rows by the network as it is now. */
static void compare_predictions(struct judge *judge, const struct trainer *trainer) {
  struct golden_array inputs = golden_read(judge->golden, judge->name, "inputs");
  struct golden_array stored = read_stored(judge, "predictions");
  double limit =
      judge->dtype == F64 ? 1e-11 : golden_number(judge->golden, judge->name, "f32_tolerance_predictions", NAN);
  int64_t rows = inputs.shape[0], width = inputs.shape[1], capacity = net_capacity(trainer->net);
  size_t real = dtype_size(judge->dtype);
  char *buffer = golden_buffer(&inputs, judge->dtype), *all = malloc((size_t)rows * real);
  struct pass pass = {.training = false, .views = 1};
  struct device *device = net_ops(trainer->net)->device;
  void *there;
  CHECK(device_alloc(device, (size_t)(rows * width) * real, &there));
  CHECK(device_copy(device, there, buffer, (size_t)(rows * width) * real));
  for (int64_t first = 0; first < rows; first += capacity) {
    int64_t count = rows - first < capacity ? rows - first : capacity;
    CHECK(net_forward(trainer->net, (char *)there + (size_t)(first * width) * real, count, &pass));
    CHECK(device_copy(device, all + (size_t)first * real, net_predictions(trainer->net), (size_t)count * real));
  }
  CHECK(device_wait(device));
  device_free(device, &there);
  misfit(judge, "predictions", judge->steps, golden_array_error(judge->dtype, rows, all, stored.data), limit);
  free(all);
  free(buffer);
  golden_free(&inputs);
  golden_free(&stored);
}

static void judge_step(void *context, const struct trainer *trainer, const struct train_step *step) {
  struct judge *judge = context;
  struct parameters own = net_parameters(trainer->net);
  int64_t s = step->step;
  judge->seen++;
  if (s >= judge->steps)
    return;
  compare_scalar(judge, "regression loss", &judge->regression, &judge->regression_limit, s, step->loss_regression);
  compare_scalar(judge, "regulariser", &judge->regulariser, &judge->regulariser_limit, s,
                 step->loss_conr + step->regularisers[REGULARISER_RANKSIM]);
  compare_scalar(judge, "loss", &judge->total, &judge->total_limit, s, step->loss);
  compare_scalar(judge, "gradient norm", &judge->norm, &judge->norm_limit, s, step->grad_norm);
  if (judge->learns_sigma) { /* its gradient belongs to the loss: the same limit */
    compare_scalar(judge, "sigma", &judge->sigma, &judge->sigma_limit, s, step->noise_scale);
    compare_scalar(judge, "gradient of sigma", &judge->grad_sigma, &judge->regression_limit, s, step->noise_gradient);
  }
  misfit(judge, "learning rate", s, golden_scalar_error(step->lr, judge->lr.data[s]), 1e-12);
  if (s == 0)
    compare_group(judge, "grad_step1", own, own.gradients, s);
  if (s == 0)
    compare_group(judge, "params_step1", own, own.data, s);
  if (s == 9)
    compare_group(judge, "params_step10", own, own.data, s);
  if (s == judge->steps - 1) {
    compare_group(judge, "params_last", own, own.data, s);
    compare_predictions(judge, trainer);
  }
}

/* What the statistics of features were in the end of the run: in its last checkpoint, against the last epoch's. */
static void compare_statistics(struct judge *judge, const char *folder) {
  static const char *const names[][2] = {{"state/fds/running_mean", "fds/running_mean"},
                                         {"state/fds/running_var", "fds/running_var"},
                                         {"state/fds/smoothed_mean", "fds/smoothed_mean_last_epoch"},
                                         {"state/fds/smoothed_var", "fds/smoothed_var_last_epoch"},
                                         {"state/fds/tracked", "fds/num_samples_tracked"}};
  char path[PATH_MAX];
  struct array_file *file;
  snprintf(path, sizeof path, "%s/run/checkpoint-last.h5", folder);
  CHECK(array_file_read(path, true, &file));
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    struct golden_array stored = read_stored(judge, names[i][1]);
    const struct array *array = array_file_find(file, names[i][0]);
    int64_t epochs = stored.shape[0], count = stored.count / epochs;
    double error = array != NULL && array_count(array) == count
                       ? golden_array_error(F64, count, array->data, stored.data + (epochs - 1) * count)
                       : INFINITY;
    misfit(judge, names[i][0], judge->steps, error, judge->dtype == F64 ? 1e-11 : 2e-5);
    golden_free(&stored);
  }
  array_file_destroy(&file);
}

/* ---- one case --------------------------------------------------------------------------------- */

static int run_case(const struct golden_file *golden, const char *name, enum dtype dtype, const char *folder,
                    const char *device) {
  static struct words words;
  struct judge judge = {.golden = golden, .name = name, .dtype = dtype};
  struct config config;
  struct session session;
  struct train_result result;
  judge.steps = (int64_t)golden_number(golden, name, "steps", NAN);
  judge.regression = read_stored(&judge, "loss_regression");
  judge.regulariser = read_stored(&judge, "loss_regulariser");
  judge.total = read_stored(&judge, "loss_total");
  judge.norm = read_stored(&judge, "grad_norm");
  judge.lr = golden_read(golden, name, "lr");
  judge.regression_limit = read_limit(&judge, "loss_regression");
  judge.regulariser_limit = read_limit(&judge, "loss_regulariser");
  judge.total_limit = read_limit(&judge, "loss_total");
  judge.norm_limit = read_limit(&judge, "grad_norm");
  judge.learns_sigma = golden_has_attribute(golden, name, "sigma_init");
  if (judge.learns_sigma) {
    judge.sigma = read_stored(&judge, "sigma");
    judge.grad_sigma = read_stored(&judge, "grad_sigma");
    judge.sigma_limit = read_limit(&judge, "sigma");
  }
  make_options(golden, name, dtype, folder, device, &words);
  CHECK(config_parse(words.count, words.list, &config));
  CHECK(session_open(MPI_COMM_WORLD, &config, &session));
  CHECK(session_open_device(&session, &config));
  struct train_observer observer = {&judge, judge_step};
  CHECK(train(&session, &config, &observer, &result));
  session_close(&session);
  config_destroy(&config);
  misfit(&judge, "number of steps", judge.seen, judge.seen >= judge.steps ? 0 : INFINITY, 0);
  if (golden_number(golden, name, "fds", 0) != 0)
    compare_statistics(&judge, folder);
  struct golden_array *arrays[] = {
      &judge.regression,       &judge.regulariser,       &judge.total,       &judge.norm,       &judge.lr,
      &judge.regression_limit, &judge.regulariser_limit, &judge.total_limit, &judge.norm_limit, &judge.sigma,
      &judge.grad_sigma,       &judge.sigma_limit};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
    golden_free(arrays[i]);
  return judge.misfits;
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  int rank, misfits = 0, any;
  char path[PATH_MAX];
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const char *device = argc > 2 ? argv[2] : "cpu";
  if (argc < 2 || argc > 3) {
    fprintf(stderr, "usage: rank_trajectory FOLDER [cpu|cuda]\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  struct golden_file *golden = golden_open("trajectory.h5");
  for (int i = 0; i < golden_case_count(golden); i++) {
    const char *name = golden_case_name(golden, i), *missing = missing_method(golden, name);
    if (missing != NULL) {
      golden_skip(golden, missing);
      continue;
    }
    if (rank == 0) {
      snprintf(path, sizeof path, "%s/data.h5", argv[1]);
      write_data(golden, name, path);
      snprintf(path, sizeof path, "%s/init.h5", argv[1]);
      write_init(golden, name, path);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    misfits += run_case(golden, name, F32, argv[1], device);
    if (strcmp(device, "cpu") == 0) /* a GPU has no float64 */
      misfits += run_case(golden, name, F64, argv[1], device);
    golden_ran(golden);
  }
  if (rank == 0)
    golden_report(golden);
  golden_close(&golden);
  MPI_Allreduce(&misfits, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return any != 0;
}
