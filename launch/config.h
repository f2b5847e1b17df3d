/* The option table: parser, --help, config files and config.used all come from it, so they cannot drift.
 *
 *     struct config config;
 *     TRY(config_parse(argc, argv, &config));        argv[1] is the command
 *     if (config.help) { config_help(config.command, stdout); return 0; }
 *
 * Precedence: command line, then --config FILE (lines "name = value", # comments), then --recipe (recipes.h), then the
 * default.
 * All functions are local; every rank parses the same arguments and comes to the same verdict. */
#ifndef CONR_LAUNCH_CONFIG_H
#define CONR_LAUNCH_CONFIG_H

#include "dist/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum command {
  COMMAND_NONE = 0,
  COMMAND_IMPORT = 1,
  COMMAND_TRAIN = 2,
  COMMAND_EVAL = 4,
  COMMAND_PREDICT = 8,
  COMMAND_INFO = 16,
  COMMAND_BENCH = 32,
  COMMAND_EXPORT = 64,
  COMMAND_RECIPES = 128,
  COMMAND_COMPARE = 256,
  COMMAND_SLURM = 512,
  COMMAND_SCALE = 1024,
  COMMAND_REPORT = 2048,
  COMMAND_CHECK = 4096
};

#define CONFIG_MOST_WORDS 4
#define CONFIG_GIVEN_WORDS 4
#define CONFIG_MOST_RUNS 8 /* conr report: words of its own (config.rest) */

/* One field per option, named as the option with '-' as '_'; help text and range stand in the table. */
struct config {
  enum command command;
  bool help;
  int words; /* positional arguments: files, or what to bench */
  const char *word[CONFIG_MOST_WORDS];
  char **rest; /* all words: slurm's are another command with its options, report's the runs; borrowed */

  const char *config, *recipe, *output;
  bool force, json, quiet;
  int64_t seed, threads;
  const char *device, *comm, *graphs;
  const char *preflight, *stage;
  bool stage_clean;

  /* import */
  const char *target, *weight_column, *split_column, *split, *drop, *missing;
  const char *images, *path_column, *layout, *on_error;
  int64_t quality;
  const char *protocol;
  double protocol_bin;

  /* train: model */
  const char *model, *hidden, *activation, *init, *stage2, *freeze, *precision, *size, *normalise, *batch_norm;
  double dropout;
  bool probabilistic;
  double reconstruct;
  /* train: objective */
  const char *loss, *weights;
  double huber_beta, focal_beta, focal_gamma;
  const char *focal_activation;
  double noise_scale, noise_lr;
  int64_t gmm, experts;
  const char *expert_powers, *expert_density, *expert_schedule, *expert_bounds;
  double expert_bandwidth, expert_lr, evidential_lambda, head_std;
  bool expert_static;
  const char *weight_bins, *weight_clip, *lds, *lds_padding;
  int64_t lds_size;
  double lds_sigma, dense_alpha;
  bool lds_truncate;
  bool conr, conr_outer_weights;
  const char *conr_variant, *conr_distance, *conr_aggregate, *conr_path;
  double conr_w, conr_t, conr_e, conr_beta;
  int64_t conr_memory, conr_constant;
  bool fds;
  const char *fds_task, *fds_buckets, *fds_kernel, *fds_momentum, *fds_storage, *fds_clip, *fds_zero_variance;
  const char *fds_collect;
  double fds_bucket_width, fds_sigma;
  int64_t fds_size, fds_start_update, fds_start_smooth;
  bool ranksim, rnc, accon, srl;
  double ranksim_gamma, ranksim_lambda, rnc_weight, rnc_t, accon_weight, accon_t, accon_range;
  const char *accon_shift, *srl_form, *srl_bins;
  double srl_contrastive, srl_enveloping, srl_homogeneity, srl_t, srl_momentum;
  int64_t srl_points;
  /* train: data */
  int64_t views, batch, micro_batch, pad, workers;
  const char *augment, *cache, *decode;
  double flip;
  bool full_decode;
  double noise, mask;
  const char *shuffle;
  /* train: optimiser */
  const char *optimiser, *schedule, *milestones;
  double lr, momentum, beta1, beta2, epsilon, weight_decay, clip, lr_factor;
  int64_t epochs, warmup;
  /* train: run */
  bool resume;
  const char *select;
  int64_t patience, log_steps, checkpoint_steps;
  bool reproducible;
  int64_t virtual_shards;
  double bucket_mb;

  /* eval, predict; export: which checkpoint */
  const char *part, *checkpoint, *vote;
  int64_t many, few;
  double bin_width;

  /* report */
  const char *data;

  /* compare */
  const char *methods, *with, *share;
  int64_t seeds;

  /* scale */
  const char *ranks, *mode, *batches, *machine, *study, *question;
  int64_t steps;
  bool predict;

  /* bench */
  const char *rows, *dim;
  bool regularisers;
  int64_t repeat;

  /* slurm */
  const char *job_name, *time, *account, *partition, *launcher;
  int64_t nodes, ranks_per_node, cores_per_rank, gpus_per_node, jobs, ahead;

  bool one_of_many; /* a run of a comparison: options are for all of them, and some have no use for some */

  uint64_t given[CONFIG_GIVEN_WORDS]; /* bit i: option i of the table was given (see config_given)      */
  void *storage;                      /* owned texts of files; freed by config_destroy                  */
};

/* Fill `config` from the defaults, --config and the arguments.  ERR_ARGUMENT for anything it does not understand,
 * with the nearest name. */
enum status config_parse(int argc, char **argv, struct config *config);
void config_destroy(struct config *config);

/* The options of one run of `conr compare`: those of the comparison, with what the recipe's methods say where it does
 * not.  To be destroyed like the other. */
enum status config_for_run(const struct config *comparison, const char *recipe, struct config *out);

/* Was the option given on the command line, or in the config file with another value than its default? */
bool config_given(const struct config *config, const char *name);

/* The first option that was given, as config_given() has it, and is none of `names`, which ends in NULL; NULL: there is
 * none. */
const char *config_given_beside(const struct config *config, const char *const *names);

/* The general help (COMMAND_NONE) or that of one command. */
void config_help(enum command command, FILE *out);

/* Every option of the command as "name = value" lines that --config can read again; --force and --resume are left out:
 * they are orders for one invocation. */
void config_write(const struct config *config, FILE *out);

/* The text of one option's value, as config_write prints it; `buffer` is returned, NULL when there is no such
 * option. */
const char *config_value(const struct config *config, const char *name, char *buffer, size_t bytes);

const char *command_name(enum command command);

/* Numbers such as "0,1,121", `count` of them; infinity ("inf") is one. */
enum status config_numbers(const char *option, const char *text, int count, double *values);

/* --share: K of N; 1 of 1 for NULL. */
enum status config_share(const char *text, int64_t *share, int64_t *shares);

/* "224" or "160x320" (height x width), 1 to 65536 each. */
enum status config_size(const char *text, int64_t *height, int64_t *width);

/* A list such as "64,64" of integers in [low, high]; at most `most`.  *count may become 0 for "". */
enum status config_integers(const char *option, const char *text, int64_t low, int64_t high, int most, int64_t *values,
                            int *count);

/* The same of numbers that rise, one at least. */
enum status config_rising(const char *option, const char *text, int64_t low, int64_t high, int most, int64_t *values,
                          int *count);

#endif
