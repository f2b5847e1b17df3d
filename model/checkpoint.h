/* Checkpoints: what a run needs to go on with the same bits, and what a prediction needs.
 *
 *     TRY(checkpoint_write(path, &checkpoint));                       rank 0
 *     TRY(checkpoint_open(path, &opened));                            rank 0; verifies the checksum
 *     TRY(checkpoint_restore(&opened, parameters, buffers, optim, dtype));
 *     TRY(checkpoint_restore_states(&opened, states, count));
 *     checkpoint_close(&opened);
 *
 * One HDF5 file: parameters by name, running statistics under "buffers/", optimiser states under "optimiser/",
 * other states of the run under "state/", standardisation of the inputs under "standardise/", and attributes.  Written aside, synced, checksummed and renamed
 * (io/array_file.h).  There is no random state: all draws are functions of (seed, epoch, sample).  Parameters and
 * states may lie on a device: they are copied on the way, and the host waits.  All functions are local. */
#ifndef CONR_MODEL_CHECKPOINT_H
#define CONR_MODEL_CHECKPOINT_H

#include "io/array_file.h"
#include "model/net.h"
#include "model/optim.h"
#include "model/state.h"

#define CHECKPOINT_VERSION 3 /* 1 and 2 are read too: without images; without heads and distributions */
#define CHECKPOINT_BUFFERS "buffers/"
#define CHECKPOINT_STATES "state/"

/* Where a run stands.  Plain numbers, copied between ranks as bytes. */
struct progress {
  int64_t epoch;        /* the epoch under way, or to begin                       */
  int64_t step;         /* updates made so far, over all epochs                   */
  int64_t epoch_step;   /* of these, in the epoch under way                       */
  int64_t best_epoch;   /* -1: none yet                                           */
  int64_t stale_epochs; /* epochs since the best one                              */
  double best_value;    /* validation figure of the best epoch                    */
  double loss_sum;      /* of the epoch under way: sum of loss x rows             */
  double conr_sum;      /* likewise, ConR without its coefficient                 */
  int64_t rows_sum;     /* rows so far in the epoch under way                     */
  int64_t finished;     /* 1: training is over                                    */
};

/* What a network was built from, as texts, to build it again. */
struct model_description {
  const char *name;        /* "mlp", "cnn", "resnet18", "resnet50"                         */
  int64_t inputs, outputs; /* columns of a table, 0 or more for images; numbers the head puts out */
  int64_t targets;         /* components of a label; 0 = as many as outputs                  */
  const char *head;        /* what the outputs mean (loss/head.h); NULL = predictions, "values" */
  const char *hidden;      /* mlp: "64,64"                                                 */
  const char *activation;  /* mlp: "relu"                                                  */
  const char *precision;   /* "f32", "f64", "tf32" or "bf16"                               */
  int64_t height, width;   /* of the images the model sees; 0 for tables                   */
  const char *normalise;   /* images: "half", "imagenet" or "none"                         */
  int64_t probabilistic;   /* 1: features are distributions (net.h)                        */
  int64_t reconstructs;    /* 1: with a decoder (reconstruction.h), for training alone: not stored */
};

struct checkpoint {
  struct parameters parameters;
  struct parameters buffers;        /* running statistics; none in an mlp */
  struct optim *optim;              /* borrowed; of all parameters, or of the last ones: a head's */
  const struct state_array *states; /* [state_count], borrowed */
  size_t state_count;
  struct progress progress;
  struct model_description model;
  int input_features;
  const double *mean, *std;  /* [input_features], or NULL when inputs are used as they are */
  const char *feature_names; /* names separated by newlines                               */
  const char *target_names;
  uint64_t data_hash;
  const char *options; /* the run's options, "name = value" lines */
  const char *made_by; /* program version and commit               */
};

/* Rank 0 only. */
enum status checkpoint_write(const char *path, const struct checkpoint *checkpoint);

/* What was read.  Texts are borrowed from `file`. */
struct opened_checkpoint {
  struct array_file *file;
  struct progress progress;
  struct model_description model;
  const struct array *mean, *std; /* float64 [inputs], or NULL */
  const char *feature_names, *target_names, *options;
  uint64_t data_hash;
};

/* Read and verify; the model described is then one that the program knows, and no larger than the file can tell.
 * ERR_FILE, ERR_FORMAT: missing, damaged, of another version; the sentence names the file. */
enum status checkpoint_open(const char *path, struct opened_checkpoint *out);
void checkpoint_close(struct opened_checkpoint *checkpoint);

/* Copy parameters and buffers, and the optimiser's states unless optim is NULL.  `parameters` may end before the last
 * of those in the file, as those of an encoder do; what is not in them stays.  ERR_FORMAT: one is missing or has
 * another shape; nothing is known to be intact then. */
enum status checkpoint_restore(const struct opened_checkpoint *checkpoint, struct parameters parameters,
                               struct parameters buffers, struct optim *optim, enum dtype dtype);

/* Copy the states of the run.  Those of the file that are not asked for stay there.  ERR_FORMAT: one is missing or has
 * another length; nothing is known to be intact then. */
enum status checkpoint_restore_states(const struct opened_checkpoint *checkpoint, const struct state_array *states,
                                      size_t count);

/* Is the array of this name in a checkpoint a parameter, and no buffer or state? */
bool checkpoint_names_parameter(const char *name);

#endif
