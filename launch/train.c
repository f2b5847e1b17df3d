/* The training loop. */
#include "launch/train.h"

#include "dist/comm_device.h"
#include "dist/memory.h"
#include "dist/pulse.h"
#include "launch/heads.h"
#include "launch/options.h"
#include "launch/preflight.h"
#include "launch/rank_times.h"
#include "launch/run_folder.h"
#include "launch/signals.h"
#include "launch/staging.h"
#include "launch/start.h"
#include "version.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What lives as long as one call of train(). */
struct loop {
  struct trainer *trainer;
  const struct train_observer *observer;
  struct metrics_log *metrics; /* rank 0 */
  bool stopped;
  /* Of the epoch under way, on this rank, for people: */
  double epoch_began, data_wait;
  double steps_began, stood_before; /* of the clock and of pulse_stood_seconds(), less what checkpoints took */
  struct rank_times times;
  char slow[160]; /* of the last epoch: a rank that stands out */
  int64_t samples;
  double last_validation;
  struct device_images_counts decoded; /* on this rank, until the epoch began */
  double told;                         /* samples of an epoch, of all ranks   */
  struct gradients_seconds spent;      /* of all epochs, on this rank         */
};

/* ---- a value that is not finite ------------------------------------------------------------ */

/* The first rank's value that is not finite, as a sentence on all ranks. */
static enum status report_nonfinite(struct trainer *trainer) {
  long long step = (long long)trainer->progress.step;
  struct comm *comm = trainer->session->comm;
  struct gradients_value value = {0};
  enum status status = gradients_finish(trainer->gradients, &value);
  if (value.nonfinite != NULL)
    status =
        fail(ERR_NUMERIC, "step %lld: %s of sample %lld on rank %d is not finite; lower --lr, or give --clip a value",
             step, value.nonfinite, (long long)value.sample, comm_rank(comm));
  else if (status == ERR_NUMERIC) /* ConR's sentence, which names no step: the one below does */
    status = STATUS_OK;
  TRY(comm_agree(comm, status));
  return comm_agree(comm, fail(ERR_NUMERIC,
                               "step %lld: the loss or its gradient is not finite; lower --lr, or give --clip a "
                               "value",
                               step));
}

/* ---- one step ------------------------------------------------------------------------------ */

/* What a step adds up over ranks beside the gradients: whole numbers first, whose sum has one value in any order. */
enum step_sum { SUM_BAD, SUM_STOP, SUM_REGRESSION, SUM_NOISE, SUM_RECONSTRUCTION, STEP_SUMS };

/* All that the device does in a step, with the update.  What is not finite is noticed afterwards: the run ends then,
 * and nothing of it is kept. */
static enum status queue_work(void *context) {
  struct trainer *trainer = context;
  struct parameters own = net_learned(trainer->net);
  const double *factor;
  TRY(gradients_compute(trainer->gradients));
  TRY(gradients_clip(trainer->gradients, trainer->config.clip, &factor));
  TRY(optim_update(trainer->optim, own.data, own.gradients, factor));
  return gradients_end(trainer->gradients);
}

/* First what changes from step to step: the batch and the learning rate.  The rest may be one graph. */
static enum status queue_step(struct trainer *trainer, const struct batch *batch, struct train_step *step) {
  step->lr = schedule_lr(&trainer->schedule, step->step);
  TRY(gradients_begin(trainer->gradients, batch));
  TRY(optim_begin(trainer->optim, step->lr));
  return step_graphs_run(trainer->graphs, gradients_key(trainer->gradients), queue_work, trainer);
}

/* Wait for the step; losses over all ranks. */
static enum status finish_step(struct trainer *trainer, struct train_step *step, double sums[STEP_SUMS]) {
  struct gradients_value value;
  TRY(gradients_finish(trainer->gradients, &value));
  sums[SUM_REGRESSION] = value.regression;
  sums[SUM_NOISE] = value.noise_gradient;
  sums[SUM_RECONSTRUCTION] = value.reconstruction;
  sums[SUM_BAD] = value.bad;
  sums[SUM_STOP] = signals_stop_asked();
  TRY(comm_sum(comm_for(trainer->session->comm, "sum of the step's losses"), F64, sums,
               value.of_all_ranks ? SUM_REGRESSION : STEP_SUMS));
  step->loss_regression = sums[SUM_REGRESSION];
  step->loss_conr = value.conr;
  step->loss_reconstruction = sums[SUM_RECONSTRUCTION];
  memcpy(step->regularisers, value.regularisers, sizeof step->regularisers);
  step->loss = step->loss_regression + (trainer->config.conr ? trainer->config.conr_beta * step->loss_conr : 0) +
               value.regularisers_total + trainer->config.reconstruct * step->loss_reconstruction;
  step->grad_norm = sqrt(value.squares);
  step->noise_gradient = sums[SUM_NOISE];
  objective_update(trainer->objective, step->noise_gradient);
  step->noise_scale = objective_noise_scale(trainer->objective);
  return step_graphs_finish(trainer->graphs);
}

/* NaN (null in the file) without Balanced MSE. */
static double metric_noise(const struct trainer *trainer) {
  double scale = objective_noise_scale(trainer->objective);
  return scale != 0 ? scale : NAN;
}

/* NaN (null in the file) when it is off. */
static double metric_regulariser(const struct trainer *trainer, enum regulariser which, double value) {
  return trainer->regularisers.on[which] ? value : NAN;
}

static double metric_reconstruction(const struct trainer *trainer, double value) {
  return trainer->config.reconstruct > 0 ? value : NAN;
}

#define METRICS_REGULARISERS(trainer, values, count)                                                              \
  metric_real("loss_ranksim",                                                                                     \
              metric_regulariser(trainer, REGULARISER_RANKSIM, (values)[REGULARISER_RANKSIM] / (count))),         \
      metric_real("loss_rnc", metric_regulariser(trainer, REGULARISER_RNC, (values)[REGULARISER_RNC] / (count))), \
      metric_real("loss_accon",                                                                                   \
                  metric_regulariser(trainer, REGULARISER_ACCON, (values)[REGULARISER_ACCON] / (count))),         \
      metric_real("loss_srl", metric_regulariser(trainer, REGULARISER_SRL, (values)[REGULARISER_SRL] / (count)))

static enum status log_step(struct loop *loop, const struct train_step *step, double seconds) {
  int64_t every = loop->trainer->config.log_steps;
  if (every == 0 || step->step % every != 0)
    return STATUS_OK;
  return metrics_log_write(
      loop->metrics, metric_text("event", "step"), metric_integer("epoch", step->epoch),
      metric_integer("step", step->step), metric_real("loss", step->loss),
      metric_real("loss_regression", step->loss_regression), metric_real("loss_conr", step->loss_conr),
      METRICS_REGULARISERS(loop->trainer, step->regularisers, 1),
      metric_real("loss_reconstruction", metric_reconstruction(loop->trainer, step->loss_reconstruction)),
      metric_real("grad_norm", step->grad_norm), metric_real("noise_scale", metric_noise(loop->trainer)),
      metric_real("lr", step->lr), metric_real("seconds", seconds));
}

/* "3 min" */
static const char *duration(double seconds, char *buffer, size_t bytes) {
  if (seconds < 100)
    snprintf(buffer, bytes, "%.0f s", seconds);
  else if (seconds < 6000)
    snprintf(buffer, bytes, "%.0f min", seconds / 60);
  else
    snprintf(buffer, bytes, "%.1f h", seconds / 3600);
  return buffer;
}

/* " (conr 3.9126, rnc 4.1)": means of the epoch so far, without coefficients. */
static const char *shown_terms(const struct trainer *trainer, char *buffer, size_t bytes) {
  double rows = trainer->progress.rows_sum > 0 ? (double)trainer->progress.rows_sum : 1;
  size_t used = 0;
  buffer[0] = '\0';
  if (trainer->config.conr)
    used += (size_t)snprintf(buffer, bytes, "conr %.4f", trainer->progress.conr_sum / rows);
  for (int i = 0; i < REGULARISERS && used < bytes; i++)
    if (trainer->regularisers.on[i])
      used += (size_t)snprintf(buffer + used, bytes - used, "%s%s %.4f", used > 0 ? ", " : "",
                               regulariser_name((enum regulariser)i), trainer->regulariser_sums[i] / rows);
  if (trainer->config.reconstruct > 0 && used < bytes)
    snprintf(buffer + used, bytes - used, "%sreconstruction %.4f", used > 0 ? ", " : "",
             trainer->reconstruction_sum / rows);
  return buffer;
}

static void show_progress(struct loop *loop, bool final) {
  struct trainer *trainer = loop->trainer;
  const struct progress *progress = &trainer->progress;
  int64_t steps = sampler_steps(&trainer->sampler), epochs = trainer->config.epochs;
  double elapsed = log_seconds() - loop->epoch_began;
  double rate = elapsed > 0 ? (double)loop->samples / elapsed : 0;
  double left = rate > 0 ? ((double)epochs * (double)trainer->sampler.rows -
                            (double)progress->epoch * (double)trainer->sampler.rows - (double)progress->rows_sum) /
                               rate
                         : 0;
  double rows = progress->rows_sum > 0 ? (double)progress->rows_sum : 1;
  char terms[160], of_loss[170] = "", validation[64] = "", best[32] = "", waiting[40] = "", remaining[32];
  if (shown_terms(trainer, terms, sizeof terms)[0] != '\0')
    snprintf(of_loss, sizeof of_loss, " (%s)", terms);
  if (progress->best_epoch >= 0)
    snprintf(best, sizeof best, " (best %.4f)", progress->best_value);
  if (!isnan(loop->last_validation))
    snprintf(validation, sizeof validation, "  val %s %.4f%s", trainer->config.select, loop->last_validation, best);
  if (elapsed > 0 && loop->data_wait > 0.01 * elapsed)
    snprintf(waiting, sizeof waiting, ", waits %.0f %% for data", 100 * loop->data_wait / elapsed);
  log_progress(&trainer->session->log, final,
               "epoch %lld/%lld step %lld/%lld  loss %.4f%s%s  %.0f samples/s%s%s, %s left",
               (long long)progress->epoch + (progress->epoch < epochs), (long long)epochs,
               (long long)progress->epoch_step, (long long)steps, progress->loss_sum / rows, of_loss, validation, rate,
               waiting, loop->slow, duration(left, remaining, sizeof remaining));
}

/* The next batch, NULL after the last. */
static enum status next_batch(struct loop *loop, struct batch **batch) {
  double waited;
  const char *before = pulse_doing("waits for data");
  TRY(loader_next(loop->trainer->loader, batch, &waited));
  pulse_doing(before);
  loop->data_wait += waited;
  return STATUS_OK;
}

static void count_step(struct loop *loop, const struct train_step *step, int64_t rows) {
  struct progress *progress = &loop->trainer->progress;
  progress->step++;
  progress->epoch_step++;
  progress->loss_sum += step->loss * (double)rows;
  progress->conr_sum += step->loss_conr * (double)rows;
  for (int i = 0; i < REGULARISERS; i++)
    loop->trainer->regulariser_sums[i] += step->regularisers[i] * (double)rows;
  loop->trainer->reconstruction_sum += step->loss_reconstruction * (double)rows;
  progress->rows_sum += rows;
  loop->samples += rows;
}

/* *batch becomes the next one: it is asked for, and sent ahead, while the device works on this one. */
static enum status run_step(struct loop *loop, struct batch **batch) {
  struct trainer *trainer = loop->trainer;
  struct train_step step = {.epoch = (*batch)->epoch, .step = trainer->progress.step};
  int64_t rows = (*batch)->rows_global;
  double sums[STEP_SUMS] = {0}, began = log_seconds();
  enum status status = queue_step(trainer, *batch, &step);
  if (status == STATUS_OK) {
    TRY(gradients_release(trainer->gradients)); /* before the loader fills its memory with another batch */
    TRY(next_batch(loop, batch));
    TRY(gradients_ahead(trainer->gradients, *batch));
    status = finish_step(trainer, &step, sums);
  }
  if (status == ERR_NUMERIC) /* all ranks see it alike: name the sample */
    return report_nonfinite(trainer);
  TRY(status);
  /* The summed numbers are the same on all ranks, so all come to the same verdict. */
  if (sums[SUM_BAD] > 0 || !isfinite(step.loss) || !isfinite(step.grad_norm) || !isfinite(step.noise_scale))
    return report_nonfinite(trainer);
  count_step(loop, &step, rows);
  pulse_steady(true);
  loop->stopped = sums[SUM_STOP] > 0;
  if (loop->observer != NULL)
    loop->observer->step(loop->observer->context, trainer, &step);
  status = log_step(loop, &step, log_seconds() - began);
  show_progress(loop, false);
  return status;
}

/* ---- checkpoints --------------------------------------------------------------------------- */

/* Rank 0 writes; all learn how it went. */
static enum status save(struct trainer *trainer, bool best) {
  enum status status = STATUS_OK;
  if (comm_rank(trainer->session->comm) == 0) {
    const double *mean = dataset_mean(trainer->dataset), *std = dataset_std(trainer->dataset);
    struct checkpoint checkpoint = {.parameters = net_parameters(trainer->net),
                                    .buffers = net_buffers(trainer->net),
                                    .optim = trainer->optim,
                                    .states = trainer->states,
                                    .state_count = trainer->state_count,
                                    .progress = trainer->progress,
                                    .model = trainer->model,
                                    .input_features = dataset_features(trainer->dataset),
                                    .mean = mean,
                                    .std = std,
                                    .feature_names = trainer->feature_names,
                                    .target_names = trainer->target_names,
                                    .data_hash = dataset_hash(trainer->dataset),
                                    .options = trainer->options_text,
                                    .made_by = "conr " CONR_VERSION " " CONR_COMMIT};
    const char *before = pulse_doing("writes the checkpoint");
    status = run_folder_save(trainer->config.output, &checkpoint, best);
    pulse_doing(before);
  }
  return comm_agree(comm_for(trainer->session->comm, "agreement on the checkpoint"), status);
}

/* Options that may differ between a run and its continuation: they change where it ends or what is
 * shown, not what a step computes.  --epochs is one unless the schedule, or the experts' coefficients, depend on it. */
static bool may_change(const struct config *config, const char *name) {
  static const char *const names[] = {
      "output", "force",      "resume",    "quiet",   "threads", "patience", "log-steps", "checkpoint-steps",
      "init",   "stage2",     "bucket-mb", "workers", "cache",   "device",   "comm",      "graphs",
      "stage",  "stage-clean"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(name, names[i]) == 0)
      return true;
  return strcmp(name, "epochs") == 0 && strcmp(config->schedule, "cosine") != 0 && !heads_are_experts(config);
}

/* Numbers may be written otherwise than they were. */
static bool is_same_value(const char *then, const char *now) {
  char *end_then, *end_now;
  double a = strtod(then, &end_then), b = strtod(now, &end_now);
  bool numbers = end_then != then && *end_then == '\0' && end_now != now && *end_now == '\0';
  return strcmp(then, now) == 0 || (numbers && a == b);
}

static enum status check_same_option(const struct trainer *trainer, const char *name, const char *then) {
  char now[4096];
  if (may_change(&trainer->config, name))
    return STATUS_OK;
  REQUIRE(config_value(&trainer->config, name, now, sizeof now) != NULL, ERR_ARGUMENT,
          "--resume of a run that was begun with --%s, which this conr does not have; start a new run", name);
  REQUIRE(is_same_value(then, now), ERR_ARGUMENT,
          "--resume with --%s %s, but the run was begun with %s; give the same, or start a new run", name,
          now[0] != '\0' ? now : "\"\"", then[0] != '\0' ? then : "\"\"");
  return STATUS_OK;
}

/* Compare the checkpoint's options with today's, line by line. */
static enum status check_same_options(const struct trainer *trainer, const char *options) {
  for (const char *line = options; *line != '\0';) {
    size_t length = strcspn(line, "\n");
    char name[4096];
    snprintf(name, sizeof name, "%.*s", (int)length, line);
    char *then = strstr(name, " = ");
    if (then != NULL) {
      *then = '\0';
      TRY(check_same_option(trainer, name, then + 3));
    }
    line += length + (line[length] == '\n');
  }
  return STATUS_OK;
}

/* Rank 0: put the last checkpoint into the trainer. */
static enum status restore_last(struct trainer *trainer) {
  struct opened_checkpoint opened;
  char note[1024];
  enum status status;
  TRY(run_folder_open_last(trainer->config.output, &opened, note, sizeof note));
  if (note[0] != '\0')
    log_warning(&trainer->session->log, "%s", note);
  REQUIRE_GOTO(opened.data_hash == dataset_hash(trainer->dataset), out, ERR_ARGUMENT,
               "--resume with other data: %s is not what the run in %s was trained on", trainer->config.word[0],
               trainer->config.output);
  TRY_GOTO(check_same_options(trainer, opened.options), out);
  TRY_GOTO(checkpoint_restore(&opened, net_parameters(trainer->net), net_buffers(trainer->net), trainer->optim,
                              trainer->ops->parameter_dtype),
           out);
  TRY_GOTO(checkpoint_restore_states(&opened, trainer->states, trainer->state_count), out);
  trainer->progress = opened.progress;
out:
  checkpoint_close(&opened);
  return status;
}

/* Give all ranks rank 0's parameters, optimiser states, other states and progress. */
static enum status share_state(struct trainer *trainer) {
  struct session *session = trainer->session;
  struct optim_array states[OPTIM_MAX_ARRAYS];
  int count = optim_state_arrays(trainer->optim, states);
  TRY(model_share(session->data, trainer->net));
  for (int i = 0; i < count; i++)
    TRY(comm_broadcast(session->data, states[i].data, states[i].count * dtype_size(trainer->ops->parameter_dtype), 0));
  for (size_t i = 0; i < trainer->state_count; i++)
    TRY(comm_broadcast(session->comm, trainer->states[i].values, trainer->states[i].count * sizeof(double), 0));
  TRY(comm_broadcast(session->comm, &trainer->progress, sizeof trainer->progress, 0));
  optim_set_steps(trainer->optim, trainer->progress.step);
  return comm_device_wait(session->data);
}

/* ---- beginning ----------------------------------------------------------------------------- */

static enum status write_config_used(const struct trainer *trainer, const char *hosts) {
  char path[PATH_MAX], date[64], staged[STAGING_TEXT];
  FILE *file = fopen(run_path(trainer->config.output, RUN_CONFIG, path), "w");
  REQUIRE(file != NULL, ERR_FILE, "cannot write %s", path);
  time_t now = time(NULL);
  strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
  fprintf(file, "# conr %s, commit %s, %s\n", CONR_VERSION, CONR_COMMIT, date);
  fprintf(file, "# %d ranks on %s, %d threads each\n", comm_size(trainer->session->comm), hosts,
          trainer->session->threads);
  fprintf(file, "# device %s, gradients and features by %s\n", device_facts(trainer->session->device)->name,
          comm_transport(trainer->session->data));
  fprintf(file, "# data %s, hash %016" PRIx64 "\n", trainer->config.word[0], dataset_hash(trainer->dataset));
  if (staging_summary(trainer->session, staged)[0] != '\0')
    fprintf(file, "# staged: %s\n", staged);
  if (trainer->config.recipe != NULL)
    fprintf(file, "# recipe %s\n", trainer->config.recipe);
  config_write(&trainer->config, file);
  REQUIRE(fclose(file) == 0, ERR_FILE, "cannot write %s: the disk may be full", path);
  return STATUS_OK;
}

/* Rank 0 prepares the folder and finds out where to begin. */
static enum status prepare_folder(struct trainer *trainer, const char *hosts, bool *resumed) {
  const struct config *config = &trainer->config;
  char path[PATH_MAX];
  TRY(run_folder_make(config->output));
  bool found = run_folder_has_checkpoint(config->output);
  REQUIRE(!found || config->resume || config->force, ERR_ARGUMENT,
          "%s already holds a run; give --resume to go on with it, or --force to replace it", config->output);
  *resumed = found && config->resume;
  if (!*resumed) {
    /* Before anything is removed: it may be of the run that --force replaces, or not there at all. */
    TRY(start_parameters(trainer));
    TRY(run_folder_clear(config->output));
  } else {
    TRY(restore_last(trainer));
    TRY(run_folder_clear_unfinished(config->output));
    TRY(metrics_log_resume(run_path(config->output, RUN_METRICS, path), trainer->progress.step - 1));
  }
  pulse_storage_asked();
  enum status status = write_config_used(trainer, hosts);
  pulse_storage_answered();
  return status;
}

/* All hosts in rank order, each once: "node1,node2". */
static enum status list_hosts(struct comm *comm, char *hosts, size_t bytes) {
  int size = comm_size(comm);
  char(*all)[256] = NULL;
  int64_t *one = NULL;
  enum status status;
  TRY_GOTO(memory_alloc((size_t)size * sizeof *all, (void **)&all), out);
  TRY_GOTO(memory_alloc((size_t)size * sizeof *one, (void **)&one), out);
  for (int rank = 0; rank < size; rank++)
    one[rank] = 1;
  char own[256] = "";
  snprintf(own, sizeof own, "%s", comm_host(comm));
  TRY_GOTO(comm_gather_rows(comm, own, one, sizeof own, all), out);
  hosts[0] = '\0';
  for (int rank = 0; rank < size; rank++) {
    bool seen = false;
    for (int before = 0; before < rank && !seen; before++)
      seen = strcmp(all[before], all[rank]) == 0;
    if (!seen && strlen(hosts) + strlen(all[rank]) + 2 < bytes)
      sprintf(hosts + strlen(hosts), "%s%s", hosts[0] ? "," : "", all[rank]);
  }
out:
  memory_free((void **)&one);
  memory_free((void **)&all);
  return status;
}

/* What --reproducible is. */
static void tell_mode(const struct trainer *trainer) {
  const struct config *config = &trainer->config;
  int most = sampler_most_shards(&trainer->sampler);
  if (!config->reproducible)
    return;
  log_line(
      &trainer->session->log,
      "reproducible: each batch in %lld virtual shards, at most %d of them on a rank, one after another on one "
      "thread; the same bits on 1 to %lld ranks of this kind of processor; %s; %.1f MB of a rank's memory hold sums "
      "of gradients",
      (long long)config->virtual_shards, most, (long long)config->virtual_shards,
      most == 1                              ? "each shard goes forward once"
      : options_feature_term(config) != NULL ? "each shard goes forward twice, for the terms on features"
                                             : "each shard goes forward once",
      (double)gradients_shard_bytes(trainer->gradients) / 1e6);
}

static enum status begin(struct loop *loop) {
  struct trainer *trainer = loop->trainer;
  struct session *session = trainer->session;
  struct log *log = &session->log;
  char hosts[4096], path[PATH_MAX], weights[WEIGHTING_TEXT] = "", left[64];
  bool resumed = false;
  enum status status = STATUS_OK;
  TRY(list_hosts(session->comm, hosts, sizeof hosts));
  if (comm_rank(session->comm) == 0) {
    if (trainer->balanced == NULL)
      status = weighting_summary(&trainer->config, trainer->dataset, trainer->weights, weights);
    if (status == STATUS_OK)
      status = prepare_folder(trainer, hosts, &resumed);
    if (status == STATUS_OK)
      status = metrics_log_open(run_path(trainer->config.output, RUN_METRICS, path), &loop->metrics);
    if (status == STATUS_OK)
      status = staging_record(session, loop->metrics, trainer->progress.step);
  }
  TRY(comm_agree(session->comm, status));
  TRY(share_state(trainer));
  log_line(log, "conr %s (%s): %d rank%s x %d thread%s on %s, seed %lld", CONR_VERSION, CONR_COMMIT, log->size,
           log->size > 1 ? "s" : "", session->threads, session->threads > 1 ? "s" : "", hosts,
           (long long)trainer->config.seed);
  log_line(log, "%s: %lld training samples, %lld for validation, %d features, %zu parameters", trainer->config.word[0],
           (long long)trainer->sampler.rows, (long long)dataset_split_rows(trainer->dataset, SPLIT_VAL),
           dataset_features(trainer->dataset), net_parameters(trainer->net).elements);
  if (strcmp(trainer->config.freeze, "none") != 0)
    log_line(log, "frozen encoder: the %zu parameters of the head learn", net_learned(trainer->net).elements);
  if (weights[0] != '\0')
    log_line(log, "%s", weights);
  if (trainer->smoother != NULL)
    log_line(log, "features are smoothed from epoch %lld on, along labels in %lld buckets (%s) of width %g",
             (long long)trainer->config.fds_start_smooth + 1, (long long)fds_buckets(smoother_fds(trainer->smoother)),
             trainer->config.fds_buckets, trainer->config.fds_bucket_width);
  objective_left_to_host(trainer->objective, left, sizeof left);
  if (left[0] != '\0')
    log_line(log, "computed on the host, for which the GPU waits once a pass: %s", left);
  tell_mode(trainer);
  if (trainer->validation == NULL)
    log_line(log, "no validation samples: there will be no best checkpoint, only the last");
  bool without = trainer->balanced != NULL || trainer->head.kind == HEAD_EXPERTS;
  if (without && strcmp(trainer->config.weights, "auto") == 0 && dataset_has_weights(trainer->dataset))
    log_line(log, "%s no sample weights: those of %s are not used",
             trainer->balanced != NULL ? "Balanced MSE takes" : "UVOTE has weights of its own and takes",
             trainer->config.word[0]);
  if (resumed)
    log_line(log, "resuming at epoch %lld, step %lld", (long long)trainer->progress.epoch + 1,
             (long long)trainer->progress.step);
  return STATUS_OK;
}

/* ---- epochs -------------------------------------------------------------------------------- */

/* The figures of an epoch; NaN (null in the file) without validation samples. */
struct validation {
  double mae, mse;
  bool best; /* the best epoch so far */
};

static enum status validate(struct loop *loop, struct validation *figures) {
  struct trainer *trainer = loop->trainer;
  struct progress *progress = &trainer->progress;
  *figures = (struct validation){NAN, NAN, false};
  if (trainer->validation == NULL)
    return STATUS_OK;
  pulse_doing("validates");
  TRY(inference_run(trainer->validation));
  enum status status = inference_errors(trainer->validation, &figures->mae, &figures->mse);
  if (status == ERR_NUMERIC) /* on all ranks */
    return comm_agree(trainer->session->comm,
                      fail(ERR_NUMERIC,
                           "epoch %lld: a validation prediction is not finite; lower --lr, or give --clip a value",
                           (long long)progress->epoch + 1));
  TRY(status);
  double value = strcmp(trainer->config.select, "mse") == 0 ? figures->mse : figures->mae;
  loop->last_validation = value;
  figures->best = progress->best_epoch < 0 || value < progress->best_value;
  if (figures->best) {
    progress->best_epoch = progress->epoch;
    progress->best_value = value;
  }
  progress->stale_epochs = figures->best ? 0 : progress->stale_epochs + 1;
  return STATUS_OK;
}

static void add_seconds(struct gradients_seconds *sum, const struct gradients_seconds *epoch) {
  for (int phase = 0; phase < STEP_PHASES; phase++)
    sum->phase[phase] += epoch->phase[phase];
  sum->again += epoch->again;
}

#define METRICS_SPREAD(name, spread)                                                                    \
  metric_real("rank_" name "_min", (spread).min), metric_real("rank_" name "_median", (spread).median), \
      metric_real("rank_" name "_max", (spread).max)

/* A GPU waits for other ranks by itself, in what the host takes for its work. */
static enum status gather_times(struct loop *loop, const struct gradients_seconds *time, struct rank_summary *ranks) {
  struct rank_times *own = &loop->times;
  double on_device = loop->trainer->session->device != NULL ? time->phase[PHASE_REDUCE] + time->gather : 0;
  on_device = fmin(on_device, own->compute);
  own->wait += on_device;
  own->compute -= on_device;
  TRY(rank_times_gather(loop->trainer->session->comm, own, ranks));
  rank_times_words(ranks, loop->slow, sizeof loop->slow);
  return STATUS_OK;
}

static enum status log_epoch(const struct loop *loop, const struct validation *figures,
                             const struct gradients_seconds *times, const struct rank_summary *ranks) {
  const struct trainer *trainer = loop->trainer;
  const struct progress *progress = &trainer->progress;
  double seconds = log_seconds() - loop->epoch_began, rows = (double)progress->rows_sum;
  struct gradients_seconds time = *times;
  bool regularises = objective_has_regularisers(trainer->objective, SIDE_BOTH);
  return metrics_log_write(
      loop->metrics, metric_text("event", "epoch"), metric_integer("epoch", progress->epoch),
      metric_integer("step", progress->step - 1), metric_real("train_loss", progress->loss_sum / rows),
      metric_real("loss_conr", progress->conr_sum / rows),
      METRICS_REGULARISERS(trainer, trainer->regulariser_sums, rows),
      metric_real("loss_reconstruction", metric_reconstruction(trainer, trainer->reconstruction_sum / rows)),
      metric_real("val_mae", figures->mae), metric_real("val_mse", figures->mse),
      metric_real("noise_scale", metric_noise(trainer)),
      metric_real("lr", schedule_lr(&trainer->schedule, progress->step - 1)), metric_real("seconds", seconds),
      metric_real("data_wait", loop->data_wait), metric_real("time_forward", time.phase[PHASE_FORWARD]),
      metric_real("time_loss", time.phase[PHASE_LOSS]), metric_real("time_gather", time.gather),
      metric_real("time_regularisers", regularises ? time.regularisers : NAN),
      metric_real("time_backward", time.phase[PHASE_BACKWARD]), metric_real("time_reduce", time.phase[PHASE_REDUCE]),
      metric_real("time_update", time.phase[PHASE_UPDATE]),
      metric_real("samples_per_second", (double)loop->samples / seconds), METRICS_SPREAD("data", ranks->data),
      METRICS_SPREAD("compute", ranks->compute), METRICS_SPREAD("wait", ranks->wait),
      metric_integer("slow_rank", ranks->slow_rank), metric_text("slow_host", ranks->slow_host));
}

/* How many samples of an epoch the host had to decode after all: once, and again when the number changes. */
static enum status tell_decoded(struct loop *loop) {
  struct trainer *trainer = loop->trainer;
  struct device_images_counts now = gradients_images(trainer->gradients);
  double sums[] = {(double)(now.samples - loop->decoded.samples), (double)(now.host - loop->decoded.host)};
  loop->decoded = now;
  if (strcmp(trainer->config.decode, "host") == 0)
    return STATUS_OK;
  TRY(comm_sum(trainer->session->comm, F64, sums, 2));
  if (sums[1] > 0 && sums[1] != loop->told)
    log_line(&trainer->session->log,
             "nvJPEG: %.0f of the epoch's %.0f samples were left to the host: PNG, or JPEGs that it does not take",
             sums[1], sums[0]);
  loop->told = sums[1];
  return STATUS_OK;
}

/* A checkpoint between steps is none of their time. */
static enum status save_aside(struct loop *loop) {
  double began = log_seconds(), stood = pulse_stood_seconds();
  TRY(save(loop->trainer, false));
  loop->steps_began += log_seconds() - began;
  loop->stood_before += pulse_stood_seconds() - stood;
  return STATUS_OK;
}

static void take_times(struct loop *loop) {
  struct rank_times *times = &loop->times;
  times->data = loop->data_wait;
  times->wait = pulse_stood_seconds() - loop->stood_before;
  times->compute = fmax(0, log_seconds() - loop->steps_began - times->data - times->wait);
  snprintf(times->host, sizeof times->host, "%s", comm_host(loop->trainer->session->comm));
}

/* Steps until the epoch ends or the run is to stop. */
static enum status run_epoch(struct loop *loop) {
  struct trainer *trainer = loop->trainer;
  struct batch *batch;
  loop->epoch_began = loop->steps_began = log_seconds();
  loop->stood_before = pulse_stood_seconds();
  loop->data_wait = 0;
  loop->samples = 0;
  pulse_doing("computes a step");
  TRY(loader_start(trainer->loader, trainer->progress.epoch, trainer->progress.epoch_step));
  TRY(next_batch(loop, &batch));
  while (batch != NULL && !loop->stopped) {
    TRY(run_step(loop, &batch));
    int64_t every = trainer->config.checkpoint_steps;
    bool last_of_epoch = trainer->progress.epoch_step == sampler_steps(&trainer->sampler);
    if (last_of_epoch) /* the epoch is complete: validate and save, and only then stop */
      break;
    if (loop->stopped || (every > 0 && trainer->progress.step % every == 0))
      TRY(save_aside(loop));
  }
  take_times(loop);
  loader_stop(trainer->loader);
  return STATUS_OK;
}

/* Are the epochs done, or is there no hope of better ones? */
static bool is_over(const struct trainer *trainer) {
  const struct progress *progress = &trainer->progress;
  int64_t patience = trainer->config.patience;
  return progress->epoch >= trainer->config.epochs || (patience > 0 && progress->stale_epochs >= patience);
}

/* The epoch's features, for the statistics that smooth those of later ones.  When the run is to stop, this is left to the
 * one that goes on (*collected is false), from a checkpoint of an epoch whose steps are done. */
static enum status collect_features(struct loop *loop, bool *collected) {
  struct trainer *trainer = loop->trainer;
  int64_t epoch = trainer->progress.epoch;
  *collected = true;
  if (trainer->collection == NULL || !fds_collects(smoother_fds(trainer->smoother), epoch))
    return STATUS_OK;
  pulse_doing("collects features");
  if (!loop->stopped)
    TRY(collection_run(trainer->collection, epoch, trainer->config.epochs, &loop->stopped));
  *collected = !loop->stopped;
  return loop->stopped ? save(trainer, false) : STATUS_OK;
}

/* Validation, then the state at the start of the next epoch, saved. */
static enum status end_epoch(struct loop *loop) {
  struct trainer *trainer = loop->trainer;
  struct progress *progress = &trainer->progress;
  struct validation figures;
  objective_end_epoch(trainer->objective);
  TRY(tell_decoded(loop));
  TRY(validate(loop, &figures));
  struct gradients_seconds time = gradients_seconds(trainer->gradients, true);
  add_seconds(&loop->spent, &time);
  struct rank_summary ranks;
  TRY(gather_times(loop, &time, &ranks));
  TRY(comm_agree(trainer->session->comm, log_epoch(loop, &figures, &time, &ranks)));
  struct progress shown = *progress;
  double shown_sums[REGULARISERS], shown_reconstruction = trainer->reconstruction_sum;
  memcpy(shown_sums, trainer->regulariser_sums, sizeof shown_sums);
  progress->epoch++;
  progress->finished = is_over(trainer);
  progress->epoch_step = 0;
  progress->loss_sum = progress->conr_sum = 0;
  memset(trainer->regulariser_sums, 0, sizeof trainer->regulariser_sums);
  trainer->reconstruction_sum = 0;
  progress->rows_sum = 0;
  TRY(save(trainer, figures.best));
  struct progress kept = *progress;
  *progress = shown;
  memcpy(trainer->regulariser_sums, shown_sums, sizeof shown_sums);
  trainer->reconstruction_sum = shown_reconstruction;
  show_progress(loop, kept.finished != 0);
  memset(trainer->regulariser_sums, 0, sizeof shown_sums);
  trainer->reconstruction_sum = 0;
  *progress = kept;
  return STATUS_OK;
}

static enum status run(struct loop *loop) {
  struct trainer *trainer = loop->trainer;
  struct progress *progress = &trainer->progress;
  /* --epochs or --patience may be another one than when the checkpoint was written. */
  progress->finished = is_over(trainer);
  while (!progress->finished && !loop->stopped) {
    TRY(run_epoch(loop));
    bool over = progress->epoch_step == sampler_steps(&trainer->sampler);
    if (over)
      TRY(collect_features(loop, &over));
    if (over)
      TRY(end_epoch(loop));
  }
  return STATUS_OK;
}

/* What it has cost.  That a rank has one thread is not in it, nor that of smaller products. */
static void tell_price(const struct loop *loop) {
  const struct gradients_seconds *spent = &loop->spent;
  double all = 0;
  if (!loop->trainer->config.reproducible)
    return;
  for (int phase = 0; phase < STEP_PHASES; phase++)
    all += spent->phase[phase];
  log_line(&loop->trainer->session->log,
           "the price of --reproducible on rank 0: of %.3g s in steps %.3g s went into second forward passes, %.3g s "
           "into sums over shards, with waits for other ranks",
           all, spent->again, spent->phase[PHASE_REDUCE]);
}

static void report(const struct loop *loop, struct train_result *result) {
  const struct trainer *trainer = loop->trainer;
  const struct progress *progress = &trainer->progress;
  struct log *log = &trainer->session->log;
  char noise[64] = "";
  tell_price(loop);
  if (trainer->balanced != NULL)
    snprintf(noise, sizeof noise, "; noise scale %.6g", objective_noise_scale(trainer->objective));
  *result = (struct train_result){.stopped = loop->stopped && !progress->finished,
                                  .asked = loop->stopped,
                                  .epochs = progress->epoch,
                                  .best_epoch = progress->best_epoch,
                                  .best_value = progress->best_value};
  if (result->stopped)
    log_line(log, "stopped by a signal after step %lld, checkpoint written to %s; --resume goes on from it",
             (long long)progress->step, trainer->config.output);
  else if (progress->best_epoch >= 0)
    log_line(log, "done after %lld epochs; best validation %s %.6g in epoch %lld%s; run folder %s",
             (long long)progress->epoch, trainer->config.select, progress->best_value,
             (long long)progress->best_epoch + 1, noise, trainer->config.output);
  else
    log_line(log, "done after %lld epochs%s; run folder %s", (long long)progress->epoch, noise, trainer->config.output);
}

enum status train(struct session *session, const struct config *config, const struct train_observer *observer,
                  struct train_result *result) {
  struct loop loop = {.observer = observer, .last_validation = NAN};
  enum status status;
  *result = (struct train_result){.best_epoch = -1};
  signals_block();
  pulse_steady(false);
  pulse_doing("opens its data and network");
  TRY_GOTO(trainer_create(session, config, &loop.trainer), out);
  TRY_GOTO(preflight_require_memory(session), out);
  TRY_GOTO(begin(&loop), out);
  TRY_GOTO(run(&loop), out);
  report(&loop, result);
out:
  metrics_log_close(&loop.metrics);
  /* After a failure of this rank alone the others are not here: leave their collectives alone. */
  if (status == STATUS_OK || status_agreed() || comm_size(session->comm) == 1)
    trainer_destroy(&loop.trainer);
  return status;
}

/* ---- steps alone ---------------------------------------------------------------------------- */

/* The first batch of the epoch under way, or of the next one where that is over. */
static enum status begin_steps(struct loop *loop, int64_t whole, struct batch **batch) {
  struct trainer *trainer = loop->trainer;
  struct progress *progress = &trainer->progress;
  if (progress->epoch_step == whole) {
    objective_end_epoch(trainer->objective);
    progress->epoch = (progress->epoch + 1) % trainer->config.epochs; /* coefficients may depend on it */
    progress->epoch_step = 0;
  }
  TRY(loader_start(trainer->loader, progress->epoch, progress->epoch_step));
  return next_batch(loop, batch);
}

enum status train_steps(struct trainer *trainer, int64_t steps, struct train_time *time) {
  struct loop loop = {.trainer = trainer, .last_validation = NAN};
  const struct sampler *sampler = &trainer->sampler;
  int64_t whole = sampler->rows / sampler->batch;
  *time = (struct train_time){0};
  REQUIRE(whole > 0, ERR_ARGUMENT, "a batch of %lld samples is more than the %lld of the training split",
          (long long)sampler->batch, (long long)sampler->rows);
  while (time->steps < steps && !loop.stopped) {
    struct batch *batch;
    TRY(begin_steps(&loop, whole, &batch));
    loop.data_wait = 0;
    double began = log_seconds();
    for (; trainer->progress.epoch_step < whole && time->steps < steps && !loop.stopped; time->steps++)
      TRY(run_step(&loop, &batch));
    time->seconds += log_seconds() - began;
    time->data += loop.data_wait;
    loader_stop(trainer->loader);
  }
  time->stopped = loop.stopped;
  return STATUS_OK;
}
