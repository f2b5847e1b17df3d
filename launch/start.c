/* Initial parameters, and the encoder of an earlier run. */
#include "launch/start.h"

#include "launch/run_folder.h"
#include "model/initial.h"

#include <math.h>
#include <string.h>

static enum status load_initial(struct trainer *trainer) {
  char note[1024];
  TRY(parameters_load(trainer->config.init, net_parameters(trainer->net), net_buffers(trainer->net),
                      trainer->ops->parameter_dtype, note, sizeof note));
  if (note[0] != '\0')
    log_line(&trainer->session->log, "%s", note);
  return STATUS_OK;
}

/* ---- the second of two stages --------------------------------------------------------------- */

static enum status check_same(const char *path, const char *option, const char *then, const char *now) {
  REQUIRE(strcmp(then, now) == 0, ERR_ARGUMENT,
          "--stage2: the encoder in %s was trained with --%s %s, this model has %s; give the same", path, option,
          then[0] != '\0' ? then : "\"\"", now[0] != '\0' ? now : "\"\"");
  return STATUS_OK;
}

/* Shapes are compared when parameters are copied; this is what they do not show. */
static enum status check_model(const char *path, const struct model_description *then,
                               const struct model_description *now) {
  TRY(check_same(path, "model", then->name, now->name));
  REQUIRE(then->probabilistic == now->probabilistic, ERR_ARGUMENT,
          "--stage2: the features of the encoder in %s %s variances; %s --probabilistic", path,
          then->probabilistic ? "have" : "have no", then->probabilistic ? "add" : "drop");
  if (model_is_for_images(now))
    return check_same(path, "normalise", then->normalise, now->normalise);
  TRY(check_same(path, "hidden", then->hidden, now->hidden));
  return check_same(path, "activation", then->activation, now->activation);
}

/* Both are of the same rows if they are of the same data; sums over them may round otherwise. */
static bool is_near(const struct array *then, const double *now, const double *scale, int count) {
  if (then == NULL || now == NULL)
    return then == NULL && now == NULL;
  if (then->type != ARRAY_F64 || then->rank != 1 || then->shape[0] != count)
    return false;
  for (int i = 0; i < count; i++)
    if (!(fabs(((const double *)then->data)[i] - now[i]) <= 1e-6 * scale[i]))
      return false;
  return true;
}

static enum status check_table(const struct trainer *trainer, const struct opened_checkpoint *opened) {
  const struct dataset *dataset = trainer->dataset;
  const double *mean = dataset_mean(dataset), *std = dataset_std(dataset);
  int inputs = dataset_features(dataset);
  REQUIRE(strcmp(opened->feature_names, trainer->feature_names) == 0, ERR_ARGUMENT,
          "--stage2: %s has other feature columns, or in another order, than the encoder in %s was trained on; import "
          "it with the same columns",
          trainer->config.word[0], opened->file->path);
  REQUIRE(is_near(opened->mean, mean, std, inputs) && is_near(opened->std, std, std, inputs), ERR_ARGUMENT,
          "--stage2: the training rows of %s have other means or deviations than those that the encoder in %s was "
          "trained on; use the same data, or --init to begin anew on others",
          trainer->config.word[0], opened->file->path);
  return STATUS_OK;
}

/* Parameters or buffers that stand before the head. */
static struct parameters of_encoder(struct parameters own) {
  if (own.head < own.count)
    own.elements = own.list[own.head].offset;
  own.count = own.head;
  return own;
}

static enum status load_stage1(struct trainer *trainer) {
  char path[PATH_MAX];
  struct opened_checkpoint opened;
  enum status status;
  TRY(run_checkpoint_path(trainer->config.stage2, "best", path));
  TRY(checkpoint_open(path, &opened));
  TRY_GOTO(check_model(path, &opened.model, &trainer->model), out);
  if (!model_is_for_images(&trainer->model))
    TRY_GOTO(check_table(trainer, &opened), out);
  TRY_GOTO(checkpoint_restore(&opened, of_encoder(net_parameters(trainer->net)), of_encoder(net_buffers(trainer->net)),
                              NULL, trainer->ops->parameter_dtype),
           out);
  log_line(&trainer->session->log, "second stage: the encoder of %s after %lld epochs, a head drawn anew", path,
           (long long)opened.progress.epoch);
out:
  checkpoint_close(&opened);
  return status;
}

enum status start_parameters(struct trainer *trainer) {
  const struct config *config = &trainer->config;
  REQUIRE(strcmp(config->freeze, "none") == 0 || config->init != NULL || config->stage2 != NULL, ERR_ARGUMENT,
          "--freeze %s would keep an encoder as it was drawn; give a trained one by --stage2 RUN or --init FILE",
          config->freeze);
  if (config->stage2 != NULL)
    return load_stage1(trainer);
  return config->init != NULL ? load_initial(trainer) : STATUS_OK;
}
