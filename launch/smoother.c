/* From options and labels to the rows of a table. */
#include "launch/smoother.h"

#include "dist/host_copy.h"
#include "dist/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BUCKETS 10000 /* that labels by themselves may lead to */

struct smoother {
  struct fds *fds;
  struct device *device;         /* borrowed: of the net              */
  enum dtype dtype;              /* of labels and tables              */
  const struct dataset *dataset; /* borrowed                          */
  struct sampler sampler;
  bool outside;             /* labels lie outside the buckets, in the manner of ages        */
  int64_t tables_epoch;     /* whose tables the device has; -1 = none                       */
  int32_t *bucket_here;     /* [views * rows] pinned; on the host the same as bucket        */
  int32_t *bucket;          /* in the memory of the net                                     */
  void *scale, *shift;      /* [buckets, features] likewise                                 */
  struct smoothing current; /* of the batch begun last */
  bool smooths;
};

/* --- options ------------------------------------------------------------------------------------------------ */

static enum status task_of(const struct config *config, struct fds_options *options) {
  enum fds_task task;
  TRY(fds_task_by_name(config->fds_task, &task));
  fds_options_default(task, options);
  return STATUS_OK;
}

/* The buckets of all training labels: what ages begin with when nobody says which ones. */
static enum status buckets_of_labels(const struct dataset *dataset, double width, int64_t *first, int64_t *last) {
  const int64_t *ids = dataset_split_ids(dataset, SPLIT_TRAIN);
  const double *labels = dataset_target(dataset);
  double low = labels[ids[0]], high = low;
  for (int64_t i = 0; i < dataset_split_rows(dataset, SPLIT_TRAIN); i++) {
    low = fmin(low, labels[ids[i]]);
    high = fmax(high, labels[ids[i]]);
  }
  REQUIRE((high - low) / width < MOST_BUCKETS && fmax(fabs(low), fabs(high)) / width < FDS_MOST_BUCKETS, ERR_ARGUMENT,
          "--fds would make %.6g buckets of labels, which go from %g to %g; give a larger --fds-bucket-width than %g",
          (high - low) / width + 1, low, high, width);
  *first = (int64_t)floor(low / width);
  *last = (int64_t)floor(high / width);
  return STATUS_OK;
}

enum status smoother_resolve(struct config *config, const struct dataset *dataset, struct smoother_texts *texts) {
  struct fds_options options;
  if (!config->fds)
    return STATUS_OK;
  REQUIRE(dataset_targets(dataset) == 1, ERR_ARGUMENT,
          "--fds puts labels into buckets along one axis, but those of %s have %d components; drop it", config->word[0],
          dataset_targets(dataset));
  TRY(task_of(config, &options));
  if (config->fds_bucket_width == 0)
    config->fds_bucket_width = options.width;
  if (strcmp(config->fds_storage, "auto") == 0)
    config->fds_storage = options.snapshot ? "snapshot" : "alias";
  if (strcmp(config->fds_zero_variance, "auto") == 0)
    config->fds_zero_variance = options.whole_buckets ? "bucket" : "feature";
  snprintf(texts->clip, sizeof texts->clip, "%g,%g", options.clip_low, options.clip_high);
  if (config->fds_clip == NULL)
    config->fds_clip = texts->clip;
  if (config->fds_buckets != NULL)
    return STATUS_OK;
  if (options.task == FDS_AGES)
    TRY(buckets_of_labels(dataset, config->fds_bucket_width, &options.first, &options.last));
  snprintf(texts->buckets, sizeof texts->buckets, "%lld,%lld", (long long)options.first, (long long)options.last);
  config->fds_buckets = texts->buckets;
  return STATUS_OK;
}

/* "0.1,10" */
static enum status parse_clip(const char *text, struct fds_options *options) {
  char rest;
  REQUIRE(sscanf(text, "%lf,%lf%c", &options->clip_low, &options->clip_high, &rest) == 2, ERR_ARGUMENT,
          "--fds-clip wants two numbers such as 0.1,10, not \"%s\"", text);
  return STATUS_OK;
}

static enum status parse_momentum(const char *text, struct fds_options *options) {
  char rest;
  options->momentum = FDS_CUMULATIVE;
  if (strcmp(text, "none") == 0)
    return STATUS_OK;
  REQUIRE(sscanf(text, "%lf%c", &options->momentum, &rest) == 1 && options->momentum >= 0 && options->momentum < 1,
          ERR_ARGUMENT, "--fds-momentum wants a number from 0 to below 1, or none, not \"%s\"", text);
  return STATUS_OK;
}

static enum status parse_buckets(const char *text, struct fds_options *options) {
  int64_t bounds[2];
  int count;
  TRY(config_integers("fds-buckets", text, -FDS_MOST_BUCKETS, FDS_MOST_BUCKETS, 2, bounds, &count));
  REQUIRE(count == 2 && bounds[0] <= bounds[1], ERR_ARGUMENT,
          "--fds-buckets wants the first and the last one, such as 3,99, not \"%s\"", text);
  options->first = bounds[0];
  options->last = bounds[1];
  return STATUS_OK;
}

static enum status options_of(const struct config *config, struct fds_options *options) {
  TRY(task_of(config, options));
  TRY(parse_buckets(config->fds_buckets, options));
  TRY(parse_clip(config->fds_clip, options));
  TRY(parse_momentum(config->fds_momentum, options));
  TRY(label_kernel_by_name(config->fds_kernel, &options->kernel));
  options->width = config->fds_bucket_width;
  options->kernel_size = (int)config->fds_size;
  options->kernel_sigma = config->fds_sigma;
  options->start_update = config->fds_start_update;
  options->start_smooth = config->fds_start_smooth;
  options->snapshot = strcmp(config->fds_storage, "snapshot") == 0;
  options->whole_buckets = strcmp(config->fds_zero_variance, "bucket") == 0;
  options->distributions = config->probabilistic;
  return STATUS_OK;
}

/* --- life --------------------------------------------------------------------------------------------------- */

static bool labels_lie_outside(const struct smoother *smoother) {
  const struct fds_options *options = fds_options_of(smoother->fds);
  const int64_t *ids = dataset_split_ids(smoother->dataset, SPLIT_TRAIN);
  for (int64_t i = 0; options->task == FDS_AGES && i < smoother->sampler.rows; i++) {
    int64_t number = fds_bucket_of(smoother->fds, dataset_target(smoother->dataset)[ids[i]]);
    if (number < options->first || number > options->last)
      return true;
  }
  return false;
}

static enum status alloc_all(struct smoother *own, struct net *net, int64_t rows) {
  size_t tables = (size_t)(fds_buckets(own->fds) * net_feature_width(net)) * dtype_size(own->dtype);
  size_t buckets = (size_t)rows * sizeof *own->bucket;
  TRY(device_alloc(own->device, tables, &own->scale));
  TRY(device_alloc(own->device, tables, &own->shift));
  TRY(device_alloc(own->device, buckets, (void **)&own->bucket));
  if (own->device != NULL)
    TRY(device_alloc_pinned(own->device, buckets, (void **)&own->bucket_here));
  return STATUS_OK;
}

enum status smoother_create(const struct config *config, const struct dataset *dataset, const struct sampler *sampler,
                            struct net *net, int views, struct smoother **out) {
  struct smoother *own;
  struct fds_options options;
  enum status status;
  *out = NULL;
  REQUIRE(net_parameters(net).count > 2, ERR_ARGUMENT,
          "--fds needs features to smooth: give --hidden at least one layer");
  TRY(options_of(config, &options));
  TRY(net_can_smooth(net));
  TRY(memory_alloc_zero(sizeof *own, (void **)&own));
  own->device = net_ops(net)->device;
  own->dtype = net_ops(net)->parameter_dtype;
  own->dataset = dataset;
  own->sampler = *sampler;
  own->tables_epoch = -1;
  int ranks = sampler->shards > 0 ? 1 : sampler->size; /* of virtual shards every rank counts all rows */
  TRY_GOTO(fds_create(&options, net_feature_width(net), ranks, &own->fds), failed);
  TRY_GOTO(alloc_all(own, net, views * sampler_most_rows(sampler)), failed);
  own->outside = labels_lie_outside(own);
  own->current = (struct smoothing){own->bucket, own->scale, own->shift};
  *out = own;
  return STATUS_OK;
failed:
  smoother_destroy(&own);
  return status;
}

void smoother_destroy(struct smoother **smoother) {
  struct smoother *own = *smoother;
  if (own == NULL)
    return;
  device_free_pinned(own->device, (void **)&own->bucket_here);
  device_free(own->device, (void **)&own->bucket);
  device_free(own->device, &own->shift);
  device_free(own->device, &own->scale);
  fds_destroy(&own->fds);
  memory_free((void **)smoother);
}

struct fds *smoother_fds(struct smoother *smoother) {
  return smoother->fds;
}

/* --- a batch ------------------------------------------------------------------------------------------------ */

static enum status send_tables(struct smoother *own) {
  struct host_copy scale = {0}, shift = {0};
  size_t bytes = (size_t)(fds_buckets(own->fds) * fds_features(own->fds)) * dtype_size(own->dtype);
  enum status status;
  TRY_GOTO(host_copy_create(own->device, own->scale, bytes, &scale), out);
  TRY_GOTO(host_copy_create(own->device, own->shift, bytes, &shift), out);
  fds_tables(own->fds, own->dtype, scale.data, shift.data);
  TRY_GOTO(host_copy_store(&scale), out);
  TRY_GOTO(host_copy_store(&shift), out);
out:
  host_copy_destroy(&shift);
  host_copy_destroy(&scale);
  return status;
}

/* Which edges occur in the global batch.  Where no label lies outside, nobody asks. */
static struct fds_edges edges_of(const struct smoother *own, const struct batch *batch) {
  const int64_t *ids = dataset_split_ids(own->dataset, SPLIT_TRAIN);
  const double *labels = dataset_target(own->dataset);
  struct fds_edges edges = {false, false};
  for (int64_t i = 0; own->outside && i < batch->rows_global && !(edges.first && edges.last); i++) {
    int64_t sample = sampler_sample(&own->sampler, batch->epoch, batch->step * own->sampler.batch + i);
    fds_look_for_edges(own->fds, labels[ids[sample]], &edges);
  }
  return edges;
}

enum status smoother_begin(struct smoother *own, int64_t epoch, const struct batch *batch) {
  int64_t rows = batch->views * batch->rows;
  int32_t *here = own->device != NULL ? own->bucket_here : own->bucket;
  own->smooths = fds_smooths(own->fds, epoch);
  if (!own->smooths)
    return STATUS_OK;
  if (own->tables_epoch != epoch)
    TRY(send_tables(own));
  own->tables_epoch = epoch;
  TRY(fds_assign(own->fds, own->dtype, rows, batch->targets, edges_of(own, batch), here));
  return own->device != NULL ? device_copy(own->device, own->bucket, here, (size_t)rows * sizeof *here) : STATUS_OK;
}

const struct smoothing *smoother_rows(const struct smoother *smoother) {
  return smoother->smooths ? &smoother->current : NULL;
}
