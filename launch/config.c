/* The option table and what is made of it. */
#include "launch/config_internal.h"

#include "dist/decimal.h"
#include "dist/nearest.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum option_type { OPTION_FLAG, OPTION_INTEGER, OPTION_REAL, OPTION_TEXT, OPTION_CHOICE };

struct option_row {
  const char *name;
  enum option_type type;
  size_t offset;      /* of the field in struct config            */
  unsigned commands;  /* which commands take it                   */
  const char *absent; /* default, as text; NULL = none            */
  double low, high;   /* range of numbers                         */
  const char *value;  /* choices "a|b|c", or what a value stands for */
  const char *help;
};

#define IMPORT COMMAND_IMPORT
#define TRAIN (COMMAND_TRAIN | COMMAND_COMPARE | COMMAND_SCALE | COMMAND_CHECK)
#define SCALE COMMAND_SCALE
#define EVAL (COMMAND_EVAL | COMMAND_PREDICT | COMMAND_REPORT)
#define GROUPS (COMMAND_EVAL | COMMAND_COMPARE | COMMAND_SCALE | COMMAND_REPORT)
#define STAGE (COMMAND_TRAIN | COMMAND_COMPARE | COMMAND_CHECK | COMMAND_EVAL | COMMAND_PREDICT | COMMAND_BENCH)
#define BENCH COMMAND_BENCH
#define EXPORT COMMAND_EXPORT
#define FIELD(field) offsetof(struct config, field)
#define FLAG(name, field, commands, help) \
  { name, OPTION_FLAG, FIELD(field), commands, NULL, 0, 0, NULL, help }
#define INTEGER(name, field, commands, absent, low, high, help) \
  { name, OPTION_INTEGER, FIELD(field), commands, absent, low, high, "N", help }
#define REALNUM(name, field, commands, absent, low, high, help) \
  { name, OPTION_REAL, FIELD(field), commands, absent, low, high, "X", help }
#define TEXT(name, field, commands, absent, value, help) \
  { name, OPTION_TEXT, FIELD(field), commands, absent, 0, 0, value, help }
#define CHOICE(name, field, commands, absent, choices, help) \
  { name, OPTION_CHOICE, FIELD(field), commands, absent, 0, 0, choices, help }

/* clang-format off */
static const struct option_row table[] = {
  TEXT("output", output, IMPORT | TRAIN | COMMAND_PREDICT | EXPORT | COMMAND_REPORT, NULL, "PATH", "where to write: HDF5 file (import), run folder (train), .csv or .h5 (predict), .safetensors (export), folder (report; default report); also -o"),
  TEXT("config", config, TRAIN, NULL, "FILE", "read options from FILE, lines \"name = value\"; the command line wins"),
  TEXT("recipe", recipe, TRAIN, NULL, "NAME", "begin with published settings, such as agedb-dir/ldsfds+conr (conr recipes lists them); --config and the command line win"),
  FLAG("force", force, IMPORT | TRAIN | COMMAND_PREDICT | EXPORT | COMMAND_REPORT, "replace what is already at --output"),

  TEXT("target", target, IMPORT, NULL, "NAMES", "label column, or several, separated by commas (images: if not given, the only column of numbers)"),
  TEXT("weight-column", weight_column, IMPORT, NULL, "NAME", "column of sample weights"),
  TEXT("split-column", split_column, IMPORT, NULL, "NAME", "column that says train, val or test (images: if not given, the one called split)"),
  TEXT("split", split, IMPORT, "0.7,0.15,0.15", "A,B,C", "random shares for train, val, test when there is no split column"),
  CHOICE("protocol", protocol, IMPORT, "none", "none|extrapolation|interpolation|blind-spot", "draw the splits so that training lacks labels that the test has, as the 2026 review did; rows may stand in it several times"),
  REALNUM("protocol-bin", protocol_bin, IMPORT, "1", 1e-12, 1e12, "width of its label bins, in label units; labels near bin 50 (extrapolation), or 25 and 80 (interpolation), are kept, others thin out"),
  TEXT("drop", drop, IMPORT, NULL, "NAMES", "columns to leave out, separated by commas"),
  CHOICE("missing", missing, IMPORT, "error", "error|drop-row|mean", "what to do with an empty value"),
  TEXT("images", images, IMPORT, NULL, "DIR", "the rows are images: FILE.csv holds paths that start from DIR, and labels"),
  TEXT("path-column", path_column, IMPORT, NULL, "NAME", "images: column of paths (if not given, the only one that is not all numbers)"),
  CHOICE("layout", layout, IMPORT, "encoded", "encoded|pixels", "images: the files' own bytes, or decoded at --size"),
  INTEGER("quality", quality, IMPORT, "95", 1, 100, "images: of the JPEGs when pixels are converted to encoded"),
  CHOICE("on-error", on_error, IMPORT, "stop", "stop|skip", "images: what to do with missing and broken ones"),

  CHOICE("model", model, TRAIN | BENCH, "auto", "auto|mlp|cnn|resnet18|resnet50", "network; auto: mlp for a table, resnet18 for images"),
  TEXT("hidden", hidden, TRAIN, "64,64", "N,N,..", "mlp: widths of the hidden layers"),
  CHOICE("activation", activation, TRAIN, "relu", "relu|tanh|gelu", "mlp: after each hidden layer"),
  REALNUM("dropout", dropout, TRAIN, "0", 0, 0.99, "share dropped in training: of hidden units (mlp), of the features (others)"),
  FLAG("probabilistic", probabilistic, TRAIN, "give each feature a mean and a variance; the head sees draws from them in training, and the means else (VIR)"),
  REALNUM("reconstruct", reconstruct, TRAIN, "0", 0, 1e6, "coefficient of the mean squared error of input images that are decoded from those draws (resnet50, square --size of a multiple of 32); 0: no decoder; published for VIR: 0.7"),
  TEXT("size", size, IMPORT | TRAIN | BENCH, "224", "N or HxW", "images: height and width the network sees, or that --layout pixels stores"),
  CHOICE("normalise", normalise, TRAIN, "half", "half|imagenet|none", "images: (x - mean) / std of pixels in 0 to 1; half: 0.5 and 0.5; imagenet: that set's"),
  CHOICE("batch-norm", batch_norm, TRAIN, "sync", "sync|rank|shard", "statistics of batch norm: of the rows of all ranks, of each rank's own, or with --reproducible (and then the default) of each virtual shard's"),
  TEXT("init", init, TRAIN, NULL, "FILE", "initial parameters by name (layer0.weight, conv1.weight ...) from a safetensors or HDF5 file"),
  TEXT("stage2", stage2, TRAIN, NULL, "RUN", "begin with the encoder of a run's best checkpoint, or of a checkpoint, and a head drawn anew (RRT)"),
  CHOICE("freeze", freeze, TRAIN, "auto", "auto|none|encoder|probe", "what does not learn; encoder: all but the head, while batch norm and dropout go on as in training; probe: likewise, but as in evaluation; auto: encoder with --stage2, else none"),
  CHOICE("precision", precision, TRAIN | BENCH, "auto", "auto|f32|f64|tf32|bf16", "arithmetic; auto: f32, and bf16 for images on a GPU; f64, for exactness work, on the host; tf32 and bf16 (float32 parameters) on a GPU"),

  CHOICE("loss", loss, TRAIN, "l1", "l1|mse|huber|focal_l1|focal_mse|bmc|gai|bni|uvote|evidential", "regression loss; bmc, gai, bni: Balanced MSE, which takes no sample weights; uvote: several experts, each with weights of its own; evidential: VIR's head, which predicts a distribution"),
  REALNUM("huber-beta", huber_beta, TRAIN, "1", 1e-12, 1e12, "knee of the Huber loss, in label units"),
  REALNUM("focal-beta", focal_beta, TRAIN, "0.2", 1e-12, 1e12, "focal losses: slope of the activation, per label unit"),
  REALNUM("focal-gamma", focal_gamma, TRAIN, "1", 0, 1e6, "focal losses: exponent of the activation"),
  CHOICE("focal-activation", focal_activation, TRAIN, "sigmoid", "sigmoid|tanh", "focal losses: what grows with the error"),
  REALNUM("noise-scale", noise_scale, TRAIN, "1", 1e-12, 1e12, "Balanced MSE: first sigma of the noise, in label units; 10 was published for ages"),
  REALNUM("noise-lr", noise_lr, TRAIN, "0.01", 0, 1e6, "Balanced MSE: constant learning rate of sigma, by Adam; 0: it is fixed"),
  INTEGER("gmm", gmm, TRAIN, "8", 1, 64, "gai: components of the mixture that is fitted to the training labels"),
  INTEGER("experts", experts, TRAIN, "2", 1, 64, "uvote: how many"),
  TEXT("expert-powers", expert_powers, TRAIN, "auto", "R,R,..", "uvote: an expert's samples weigh the density of their labels to the power -R; auto: 0 to 1 in equal steps"),
  CHOICE("expert-density", expert_density, TRAIN, "counts", "counts|kernel", "uvote: the density is that of the labels in --weight-bins, smoothed where --lds says so, or by Gaussian kernels"),
  REALNUM("expert-bandwidth", expert_bandwidth, TRAIN, "2", 1e-12, 1e12, "uvote: standard deviation of these kernels, in label units"),
  CHOICE("expert-schedule", expert_schedule, TRAIN, "agedb", "agedb|imdb|wind", "uvote: whose coefficients the experts have as the epochs pass"),
  FLAG("expert-static", expert_static, TRAIN, "uvote: the other experts count from the first epoch on as in the last"),
  TEXT("expert-bounds", expert_bounds, TRAIN, "-5,5", "LOW,HIGH", "uvote: bounds of log scales in training"),
  REALNUM("expert-lr", expert_lr, TRAIN, "0.1", 0, 1e6, "uvote: learning rate of log scales, in proportion to --lr"),
  REALNUM("evidential-lambda", evidential_lambda, TRAIN, "0.01", 0, 1e12, "evidential: coefficient of errors that were made with much evidence"),
  REALNUM("head-std", head_std, TRAIN, "0", 0, 1e6, "weights of the layer of outputs start normal with this deviation, its biases with 0, where --init does not bring them; 0: both uniform in 1 / sqrt(features)"),
  CHOICE("vote", vote, TRAIN | EVAL, "auto", "auto|first|avg|avgvar|minvar|oracle", "uvote: how experts answer together; auto: first in validation, as published, else minvar, the least uncertain one; oracle: the nearest, for its bound"),
  CHOICE("weights", weights, TRAIN, "auto", "auto|none|file|inverse|sqrt-inverse|dense", "of samples; auto: the file's, where it has them; inverse, sqrt-inverse: by how often a label occurs in the training split; dense: DenseWeight"),
  TEXT("weight-bins", weight_bins, TRAIN, "auto", "LOW,WIDTH,COUNT", "inverse, sqrt-inverse, --loss bni or uvote: bins in which labels are counted, the last one open above; auto: of width 1, from 0 or the lowest label"),
  TEXT("weight-clip", weight_clip, TRAIN, "5,1000", "LOW,HIGH", "inverse, and uvote from power 1 on: counts are clipped to these; 0,inf leaves them as they are"),
  CHOICE("lds", lds, TRAIN, "none", "none|gaussian|triang|laplace", "inverse, sqrt-inverse, --loss bni or uvote: kernel that smooths the counts along the bins (LDS)"),
  INTEGER("lds-size", lds_size, TRAIN, "5", 1, 1023, "its size in bins, odd"),
  REALNUM("lds-sigma", lds_sigma, TRAIN, "2", 1e-6, 1e6, "gaussian, laplace: its scale in bins"),
  CHOICE("lds-padding", lds_padding, TRAIN, "zero", "zero|reflect", "counts beyond the bins: none, or those at the edge mirrored"),
  FLAG("lds-truncate", lds_truncate, TRAIN, "inverse, --loss bni: cut smoothed counts to integers, as the published code does"),
  REALNUM("dense-alpha", dense_alpha, TRAIN, "1", 0, 1e6, "dense: how much rare labels count; 0: no more than others"),
  FLAG("conr", conr, TRAIN, "add the ConR regulariser over the global batch"),
  REALNUM("conr-beta", conr_beta, TRAIN, "4", 0, 1e12, "its coefficient"),
  REALNUM("conr-w", conr_w, TRAIN, "1", 0, 1e12, "window of labels and of predictions, in label units"),
  REALNUM("conr-t", conr_t, TRAIN, "0.07", 1e-6, 1e6, "temperature"),
  REALNUM("conr-e", conr_e, TRAIN, "0.01", 0, 1e6, "strength of the push, per label unit"),
  CHOICE("conr-variant", conr_variant, TRAIN | BENCH, "paper", "paper|reference|depth", "paper, or what the published age or depth code computes"),
  CHOICE("conr-distance", conr_distance, TRAIN, "euclidean", "euclidean|manhattan|chebyshev", "for labels of several components"),
  CHOICE("conr-aggregate", conr_aggregate, TRAIN, "mean_of_log", "mean_of_log|log_of_mean", "paper variant: mean over positives outside or inside the logarithm"),
  FLAG("conr-outer-weights", conr_outer_weights, TRAIN, "paper variant: sample weights multiply the anchor's term as well"),
  INTEGER("conr-memory", conr_memory, TRAIN, "0", 0, 1073741824, "contrast a batch also with so many of the most recent rows of earlier steps, as they were then (each view is a row); on the host; 0: with itself alone"),
  INTEGER("conr-constant", conr_constant, TRAIN, "0", 0, 1073741824, "reference, depth: their constant grows with the rows that a row is contrasted with; as if they were so many; 0: as many as there are"),
  CHOICE("conr-path", conr_path, TRAIN, "auto", "auto|dense|banded", "how pairs are evaluated; the numbers are the same"),

  FLAG("fds", fds, TRAIN, "smooth the statistics of features along the labels (FDS)"),
  CHOICE("fds-task", fds_task, TRAIN, "ages", "ages|depth|sts", "published rules for labels outside the buckets, clipping, storage and empty buckets"),
  TEXT("fds-buckets", fds_buckets, TRAIN, NULL, "A,B", "first and last bucket: label / width, rounded down (default ages: those of the training labels; depth: 7,99; sts: 0,49)"),
  REALNUM("fds-bucket-width", fds_bucket_width, TRAIN, "0", 0, 1e12, "in label units; 0: 1 for ages, else 0.1"),
  CHOICE("fds-kernel", fds_kernel, TRAIN, "gaussian", "gaussian|triang|laplace", "along the buckets"),
  INTEGER("fds-size", fds_size, TRAIN, "5", 1, 1023, "of the kernel, in buckets; odd"),
  REALNUM("fds-sigma", fds_sigma, TRAIN, "2", 1e-6, 1e6, "of the kernel, in buckets"),
  INTEGER("fds-start-update", fds_start_update, TRAIN, "0", 0, 1000000000, "first epoch (0-based) whose features are collected"),
  INTEGER("fds-start-smooth", fds_start_smooth, TRAIN, "1", 0, 1000000000, "first epoch whose features are smoothed; statistics to smooth by take one more"),
  TEXT("fds-momentum", fds_momentum, TRAIN, "0.9", "X|none", "weight of earlier epochs in the statistics; none: by their number of samples"),
  CHOICE("fds-storage", fds_storage, TRAIN, "auto", "auto|alias|snapshot", "statistics that features leave: the running ones, or as they were an epoch earlier; auto: snapshot for depth"),
  TEXT("fds-clip", fds_clip, TRAIN, NULL, "A,B", "range of ratios of variances (default ages: 0.1,10; depth: 0.2,5; sts: 0.5,2)"),
  CHOICE("fds-zero-variance", fds_zero_variance, TRAIN, "auto", "auto|feature|bucket", "what a feature of variance 0 keeps as it is: itself, or its bucket; auto: bucket for depth"),
  CHOICE("fds-collect", fds_collect, TRAIN, "train", "train|eval", "features are collected in a training pass, as published, or in one of evaluation"),

  FLAG("ranksim", ranksim, TRAIN, "add RankSim: similarities of features rank as distances of labels do"),
  REALNUM("ranksim-gamma", ranksim_gamma, TRAIN, "100", 0, 1e12, "its coefficient, which its gradient is not linear in"),
  REALNUM("ranksim-lambda", ranksim_lambda, TRAIN, "2", 1e-12, 1e12, "how far the interpolation of ranks reaches"),
  FLAG("rnc", rnc, TRAIN, "add Rank-N-Contrast: distances of features are ordered as those of labels"),
  REALNUM("rnc-weight", rnc_weight, TRAIN, "1", 0, 1e12, "its coefficient"),
  REALNUM("rnc-t", rnc_t, TRAIN, "2", 1e-6, 1e6, "temperature"),
  FLAG("accon", accon, TRAIN, "add ACCon: angles between features are as wide as labels are far apart"),
  REALNUM("accon-weight", accon_weight, TRAIN, "1", 0, 1e12, "its coefficient"),
  REALNUM("accon-t", accon_t, TRAIN, "0.05", 1e-6, 1e6, "temperature"),
  REALNUM("accon-range", accon_range, TRAIN, "0", 0, 1e12, "distance of labels that is half a turn; 0: the range of the training labels"),
  CHOICE("accon-shift", accon_shift, TRAIN, "published", "published|consistent", "exponents of positives alone are shifted, as published, or all alike"),
  FLAG("srl", srl, TRAIN, "add SRL: a curve of features along the labels envelops the sphere, evenly"),
  REALNUM("srl-contrastive", srl_contrastive, TRAIN, "0.0001", 0, 1e12, "coefficient of its contrastive term"),
  REALNUM("srl-enveloping", srl_enveloping, TRAIN, "0.01", 0, 1e12, "of its enveloping term"),
  REALNUM("srl-homogeneity", srl_homogeneity, TRAIN, "0.0001", 0, 1e12, "of its homogeneity"),
  CHOICE("srl-form", srl_form, TRAIN, "attract", "attract|repel|paper", "of the homogeneity: neighbours attract (published code for ages), repel (for texts), or as in the paper"),
  REALNUM("srl-t", srl_t, TRAIN, "0.1", 1e-6, 1e6, "temperature of the contrastive term"),
  TEXT("srl-bins", srl_bins, TRAIN, "auto", "LOW,WIDTH,COUNT", "labels of its bins: the first, their distance, how many; auto: of width 1 over the training labels"),
  INTEGER("srl-points", srl_points, TRAIN, "1000", 1, 1000000, "unit vectors that are to be enveloped"),
  REALNUM("srl-momentum", srl_momentum, TRAIN, "0.9", 0, 0.9999999, "of the curve over the epochs"),

  INTEGER("views", views, TRAIN, NULL, 1, 3, "augmented copies of a sample in a step: 1; 2: all terms on both; 3: contrastive terms on two, the others on the third (default 2 with --conr, --rnc or --accon, else 1)"),
  REALNUM("noise", noise, TRAIN, NULL, 0, 100, "augmentation: Gaussian noise on standardised features, standard deviation (default 0.05 with 2 or 3 views, else 0)"),
  REALNUM("mask", mask, TRAIN, NULL, 0, 1, "augmentation: probability that a feature is replaced by its mean (default 0.05 with 2 or 3 views, else 0)"),
  CHOICE("augment", augment, TRAIN | BENCH, "crop", "none|crop|strong", "images: crop: shifted window and mirror; strong: window of any size, mirror, colours, grey"),
  INTEGER("pad", pad, TRAIN | BENCH, NULL, 0, 65536, "images, crop: black pixels around the image before the window is cut (default a 14th of --size)"),
  REALNUM("flip", flip, TRAIN | BENCH, "0.5", 0, 1, "images: probability of a mirror image; 0 where left and right mean something"),
  FLAG("full-decode", full_decode, TRAIN | EVAL | BENCH, "images: decode large JPEGs at full size, not at the nearest reduced one"),
  CHOICE("decode", decode, TRAIN | BENCH, "host", "host|nvjpeg", "images: who decodes the JPEGs of training: threads of the host; nvjpeg: the GPU, at full size, and resizes and augments them too"),
  CHOICE("cache", cache, TRAIN, "auto", "auto|on|off", "images: keep them decoded in memory shared by the ranks of a host; auto: when they fit"),
  INTEGER("workers", workers, TRAIN | EVAL | BENCH, "0", 0, 1024, "images: threads of a rank that decode; 0: as many as --threads"),
  CHOICE("shuffle", shuffle, TRAIN, "random", "random|none", "order of the samples in an epoch"),
  INTEGER("batch", batch, TRAIN | EVAL | BENCH, "64", 1, 1073741824, "samples in the global batch, shared by all ranks"),

  INTEGER("micro-batch", micro_batch, TRAIN, "0", 0, 1073741824, "most samples a rank's network holds at a time; 0: all of its batch"),
  INTEGER("epochs", epochs, TRAIN, "100", 1, 1000000000, "passes over the training split"),
  CHOICE("optimiser", optimiser, TRAIN, "adam", "adam|adamw|sgd", "update rule"),
  REALNUM("lr", lr, TRAIN, "0.001", 0, 1e6, "learning rate"),
  REALNUM("momentum", momentum, TRAIN, "0.9", 0, 0.9999999, "sgd"),
  REALNUM("beta1", beta1, TRAIN, "0.9", 0, 0.9999999, "adam, adamw"),
  REALNUM("beta2", beta2, TRAIN, "0.999", 0, 0.9999999, "adam, adamw"),
  REALNUM("epsilon", epsilon, TRAIN, "1e-8", 0, 1, "adam, adamw"),
  REALNUM("weight-decay", weight_decay, TRAIN, "0", 0, 1e6, "coupled (adam, sgd) or decoupled (adamw)"),
  REALNUM("clip", clip, TRAIN, "0", 0, 1e12, "largest gradient norm; 0 = no clipping"),
  CHOICE("schedule", schedule, TRAIN, "constant", "constant|step|cosine", "of the learning rate"),
  TEXT("milestones", milestones, TRAIN, "60,80", "N,N,..", "step schedule: epochs (0-based) from which the rate is multiplied once more"),
  REALNUM("lr-factor", lr_factor, TRAIN, "0.1", 0, 1, "step: the multiplier; cosine: the last rate as a share of the first"),
  INTEGER("warmup", warmup, TRAIN, "0", 0, 1000000000000, "steps of linear warm-up"),

  FLAG("resume", resume, COMMAND_TRAIN | COMMAND_CHECK, "go on from the run folder's last checkpoint (start afresh if it has none)"),
  CHOICE("select", select, TRAIN, "auto", "auto|mae|mse", "validation figure that chooses the best checkpoint; auto: mse with --loss mse, else mae"),
  INTEGER("patience", patience, TRAIN, "0", 0, 1000000000, "stop after so many epochs without a better validation figure; 0 = never"),
  INTEGER("log-steps", log_steps, TRAIN, "0", 0, 1000000000, "write every Nth step to metrics.jsonl; 0 = epochs only"),
  INTEGER("checkpoint-steps", checkpoint_steps, TRAIN, "0", 0, 1000000000, "write the last checkpoint every N steps too; 0 = after each epoch"),
  FLAG("reproducible", reproducible, TRAIN | BENCH, "equal bits on any number of ranks up to --virtual-shards, at a price: virtual shards of the batch one after another, on one thread a rank, summed in one fixed tree (host)"),
  INTEGER("virtual-shards", virtual_shards, TRAIN | BENCH, "12", 1, 65536, "reproducible: blocks that each batch is cut into; the ranks share them, evenly where they divide it"),
  REALNUM("bucket-mb", bucket_mb, TRAIN, "4", 0.000001, 1024, "gradients are summed over ranks in pieces of about this size"),

  CHOICE("part", part, EVAL, "test", "train|val|test", "split to use"),
  CHOICE("checkpoint", checkpoint, EVAL | EXPORT, "best", "best|last", "which one of a run folder"),
  INTEGER("many", many, GROUPS, "100", 0, 1000000000, "labels with more training samples than this are many-shot"),
  INTEGER("few", few, GROUPS, "20", 0, 1000000000, "labels with fewer training samples than this are few-shot"),
  REALNUM("bin-width", bin_width, GROUPS, "1", 1e-12, 1e12, "width of a label bin, in label units"),

  TEXT("data", data, COMMAND_REPORT, NULL, "FILE", "the data file of the runs (default the one that config.used names); it must hold what they were trained on"),

  TEXT("methods", methods, COMMAND_COMPARE, "l1", "A,B+C,..", "what to compare: methods of the recipe, joined by +; the first is what the others are measured by"),
  TEXT("with", with, COMMAND_COMPARE, NULL, "NAME", "train each of them also with this method, such as conr"),
  INTEGER("seeds", seeds, COMMAND_COMPARE | SCALE, "3", 1, 1000, "runs of each: seeds --seed, --seed + 1 ..."),
  TEXT("share", share, COMMAND_COMPARE | SCALE, NULL, "K/N", "do every Nth run or point alone, beginning with the Kth (1 to N), as one of N jobs; the same command without it makes the table"),

  TEXT("ranks", ranks, SCALE, NULL, "P,P,..", "numbers of ranks to measure, or of GPUs to predict (default: powers of two, up to the ranks there are; predicted: 8 to 4096)"),
  CHOICE("mode", mode, SCALE, "both", "weak|strong|both", "weak: --batches are those of one rank; strong: they are global, shared by the ranks"),
  TEXT("batches", batches, SCALE, "256", "B,B,..", "samples in a batch"),
  INTEGER("steps", steps, SCALE, "10", 1, 1000000, "training steps of a measurement"),
  FLAG("predict", predict, SCALE, "predict a larger machine: takes --machine, no data"),
  TEXT("machine", machine, SCALE, NULL, "FILE", "what --predict is to know of the machine, such as launch/machines/h200-ndr400.ini; all of its values can be changed"),
  TEXT("study", study, SCALE, NULL, "FOLDER", "--predict: take the time of a step's own computation from this study, not from the file"),

  CHOICE("question", question, SCALE, "none", "none|global-batch", "answer this instead: global-batch: does it help to contrast the rows of a batch with more rows (--rows), at the same --batch of the optimiser?"),
  TEXT("rows", rows, BENCH | SCALE, NULL, "N,N,..", "bench: global batch rows (default 512,1024,2048,4096,8192,16384); scale --question: rows that ConR sees, ascending (default 128,256 and so on to 16384)"),
  TEXT("dim", dim, BENCH, NULL, "D,D,..", "feature widths (default 128,512,2048)"),
  FLAG("regularisers", regularisers, BENCH, "loss: beside ConR also RankSim, RnC, ACCon, SRL and plain L1, on the same rows"),
  INTEGER("repeat", repeat, BENCH | SCALE, "3", 1, 1000, "measurements of each; bench: the best counts, scale: their median"),

  INTEGER("nodes", nodes, COMMAND_SLURM, "1", 1, 1000000, "of the job"),
  INTEGER("ranks-per-node", ranks_per_node, COMMAND_SLURM, "0", 0, 100000, "0: one for each GPU, or 1"),
  INTEGER("cores-per-rank", cores_per_rank, COMMAND_SLURM, "0", 0, 100000, "0: as many as the cluster gives"),
  INTEGER("gpus-per-node", gpus_per_node, COMMAND_SLURM, "0", 0, 100000, "each rank takes one"),
  TEXT("time", time, COMMAND_SLURM, NULL, "LIMIT", "of one start, as Slurm writes it: minutes, H:M:S, D-H, D-H:M:S (default the partition's); the job requeues until it is done"),
  INTEGER("ahead", ahead, COMMAND_SLURM, "120", 1, 65535, "seconds before the limit at which it is told to stop; Slurm may be a minute early. As long as a step and a checkpoint take"),
  TEXT("account", account, COMMAND_SLURM, NULL, "NAME", "to be charged"),
  TEXT("partition", partition, COMMAND_SLURM, NULL, "NAME", "to run in"),
  TEXT("job-name", job_name, COMMAND_SLURM, "conr", "NAME", "of the job"),
  INTEGER("jobs", jobs, COMMAND_SLURM, "1", 1, 1000, "compare, scale: as an array of so many jobs, which share its runs or points"),
  CHOICE("launcher", launcher, COMMAND_SLURM, "srun", "srun|mpirun", "what starts the ranks; mpirun, Open MPI's, where it shares no PMI with Slurm"),

  INTEGER("seed", seed, IMPORT | TRAIN | BENCH, "0", 0, 9007199254740991.0, "of everything random"),
  INTEGER("threads", threads, IMPORT | TRAIN | EVAL | BENCH, "0", 0, 1024, "threads of a rank; 0: OMP_NUM_THREADS, or this host's cores shared by its ranks"),
  CHOICE("device", device, TRAIN | EVAL | BENCH, "auto", "auto|cpu|cuda", "where networks are computed; auto: one GPU a rank if every rank has one"),
  CHOICE("comm", comm, TRAIN | EVAL | BENCH, "auto", "auto|nccl|mpi", "how GPUs talk; auto: NCCL if every rank has a GPU of its own, else MPI through host memory"),
  CHOICE("graphs", graphs, TRAIN | BENCH, "auto", "auto|on|off", "on a GPU: launch each training step as one CUDA graph (same bits); auto: if the first steps take less so"),
  TEXT("stage", stage, STAGE, NULL, "DIR", "copy the data file to this folder of each host first, a local disk, and read it there; a whole copy that is there is used again (bench: loader)"),
  FLAG("stage-clean", stage_clean, STAGE, "remove that copy at the end, unless another job uses it"),
  CHOICE("preflight", preflight, COMMAND_TRAIN | COMMAND_COMPARE, "on", "on|off", "look at program, data, limits, clocks and network of all hosts before the first batch, as conr check does"),
  FLAG("json", json, COMMAND_EVAL | COMMAND_INFO | COMMAND_COMPARE | COMMAND_CHECK | SCALE | BENCH, "print JSON on standard output instead of text"),
  FLAG("quiet", quiet, IMPORT | TRAIN | EVAL | EXPORT, "errors only"),
};
/* clang-format on */

#define ROWS ((int)(sizeof table / sizeof *table))
_Static_assert(sizeof table / sizeof *table <= 64 * CONFIG_GIVEN_WORDS,
               "struct config has too few bits for given options");

struct command_row {
  enum command command;
  const char *name, *words;
  int least_words, most_words;
  const char *summary;
};

static const struct command_row commands[] = {
    {COMMAND_IMPORT, "import", "FILE.csv", 1, 1,
     "make an HDF5 data file from a table or from images; convert one of images (FILE.h5)"},
    {COMMAND_TRAIN, "train", "DATA.h5", 1, 1, "train a model; run it under mpirun or srun for several ranks"},
    {COMMAND_EVAL, "eval", "RUN DATA.h5", 2, 2, "all / many / median / few tables of a run or checkpoint"},
    {COMMAND_PREDICT, "predict", "RUN DATA.h5", 2, 2, "write predictions as CSV or HDF5"},
    {COMMAND_REPORT, "report", "RUN ...", 1, CONFIG_MOST_RUNS,
     "pictures and tables of one or several runs, as one page, as SVG and PNG, and as CSV and JSON; gnuplot draws"},
    {COMMAND_EXPORT, "export", "RUN", 1, 1, "write a model's parameters as safetensors, for PyTorch and others"},
    {COMMAND_COMPARE, "compare", "DATA.h5", 1, 1,
     "train several methods with several seeds, and compare their errors by groups of labels"},
    {COMMAND_SCALE, "scale", "[DATA.h5]", 0, 1,
     "how training scales over ranks and batches: measured, held against a model of its cost, predicted for a machine"},
    {COMMAND_CHECK, "check", "DATA.h5", 1, 1,
     "look at what conr train with these options would need on every host, under the launcher that will start it"},
    {COMMAND_RECIPES, "recipes", "[NAME]", 0, 1, "published settings for --recipe: all, or those of one benchmark"},
    {COMMAND_SLURM, "slurm", "COMMAND ...", 1, INT_MAX,
     "print a job script for sbatch; COMMAND is what conr is to do there, with its options, as in conr slurm --nodes 4 "
     "--time 8:00:00 train data.h5 -o run"},
    {COMMAND_INFO, "info", "", 0, 0, "what was built, and what was found on this machine"},
    {COMMAND_BENCH, "bench", "loss|step|loader|comm [DATA.h5]", 1, 2, "figures with their ceiling beside them"},
};
#define COMMANDS ((int)(sizeof commands / sizeof *commands))

/* ---- names -------------------------------------------------------------------------------- */

const char *command_name(enum command command) {
  for (int i = 0; i < COMMANDS; i++)
    if (commands[i].command == command)
      return commands[i].name;
  return "";
}

int config_find(const char *name) {
  for (int i = 0; i < ROWS; i++)
    if (strcmp(table[i].name, name) == 0)
      return i;
  return -1;
}

enum status config_unknown(enum command command, const char *given) {
  const char *names[ROWS + 1];
  size_t count = 0;
  for (int i = 0; i < ROWS; i++)
    if (table[i].commands & command)
      names[count++] = table[i].name;
  names[count++] = "help";
  const char *nearest = nearest_name(given, names, count);
  if (nearest != NULL)
    return fail(ERR_ARGUMENT, "conr %s has no option --%s; did you mean --%s?", command_name(command), given, nearest);
  return fail(ERR_ARGUMENT, "conr %s has no option --%s; see conr %s --help", command_name(command), given,
              command_name(command));
}

static enum status find_command(const char *name, enum command *command) {
  const char *names[COMMANDS];
  for (int i = 0; i < COMMANDS; i++) {
    names[i] = commands[i].name;
    if (strcmp(name, commands[i].name) == 0) {
      *command = commands[i].command;
      return STATUS_OK;
    }
  }
  const char *nearest = nearest_name(name, names, COMMANDS);
  if (nearest != NULL)
    return fail(ERR_ARGUMENT, "conr has no command \"%s\"; did you mean \"%s\"?", name, nearest);
  return fail(ERR_ARGUMENT, "conr has no command \"%s\"; see conr --help", name);
}

/* ---- values ------------------------------------------------------------------------------- */

static enum status parse_number(const struct option_row *row, const char *text, double *out) {
  char *end;
  errno = 0;
  double value = strtod(text, &end);
  REQUIRE(end != text && *end == '\0' && isfinite(value), ERR_ARGUMENT, "--%s wants a number, not \"%s\"", row->name,
          text);
  REQUIRE(row->type != OPTION_INTEGER || value == floor(value), ERR_ARGUMENT, "--%s wants a whole number, not \"%s\"",
          row->name, text);
  REQUIRE(value >= row->low && value <= row->high, ERR_ARGUMENT, "--%s %s is out of range; give %.16g to %.16g",
          row->name, text, row->low, row->high);
  *out = value;
  return STATUS_OK;
}

/* Is `text` one of "a|b|c"? */
static bool is_choice(const char *choices, const char *text) {
  size_t length = strlen(text);
  for (const char *next = choices; length > 0 && next != NULL;) {
    const char *end = strchr(next, '|');
    size_t span = end ? (size_t)(end - next) : strlen(next);
    if (span == length && strncmp(next, text, span) == 0)
      return true;
    next = end ? end + 1 : NULL;
  }
  return false;
}

bool config_takes(enum command command, int index) {
  return table[index].commands & command;
}

enum status config_set(struct config *config, int index, const char *text) {
  const struct option_row *row = &table[index];
  void *field = (char *)config + row->offset;
  double number;
  switch (row->type) {
  case OPTION_FLAG:
    REQUIRE(strcmp(text, "true") == 0 || strcmp(text, "false") == 0, ERR_ARGUMENT, "--%s is true or false, not \"%s\"",
            row->name, text);
    *(bool *)field = text[0] == 't';
    break;
  case OPTION_INTEGER:
    TRY(parse_number(row, text, &number));
    *(int64_t *)field = (int64_t)number;
    break;
  case OPTION_REAL:
    TRY(parse_number(row, text, &number));
    *(double *)field = number;
    break;
  case OPTION_CHOICE:
    REQUIRE(is_choice(row->value, text), ERR_ARGUMENT, "--%s \"%s\" is not one of %s", row->name, text, row->value);
    *(const char **)field = text;
    break;
  case OPTION_TEXT:
    *(const char **)field = text;
    break;
  }
  return STATUS_OK;
}

void config_mark(struct config *config, int index) {
  config->given[index / 64] |= (uint64_t)1 << index % 64;
}

bool config_is_marked(const struct config *config, int index) {
  return config->given[index / 64] >> index % 64 & 1;
}

bool config_given(const struct config *config, const char *name) {
  int index = config_find(name);
  return index >= 0 && config_is_marked(config, index);
}

const char *config_given_beside(const struct config *config, const char *const *names) {
  for (int i = 0; i < ROWS; i++) {
    const char *const *name = names;
    while (*name != NULL && strcmp(*name, table[i].name) != 0)
      name++;
    if (*name == NULL && config_is_marked(config, i))
      return table[i].name;
  }
  return NULL;
}

static enum status set_defaults(struct config *config) {
  for (int i = 0; i < ROWS; i++)
    if (table[i].absent != NULL)
      TRY(config_set(config, i, table[i].absent));
  return STATUS_OK;
}

bool config_has_default(const struct config *config, int index) {
  const struct option_row *row = &table[index];
  struct config fresh = {0};
  char value[4096], absent[4096];
  if (row->absent == NULL && row->type != OPTION_FLAG)
    return false;
  if (row->absent != NULL && config_set(&fresh, index, row->absent) != STATUS_OK)
    return false;
  config_value(config, row->name, value, sizeof value);
  return strcmp(value, config_value(&fresh, row->name, absent, sizeof absent)) == 0;
}

/* ---- command line ------------------------------------------------------------------------- */

/* getopt's own table for one command; returns its length. */
static int long_options(enum command command, struct option *out) {
  int count = 0;
  for (int i = 0; i < ROWS; i++)
    if (table[i].commands & command)
      out[count++] =
          (struct option){table[i].name, table[i].type == OPTION_FLAG ? no_argument : required_argument, NULL, 256 + i};
  out[count++] = (struct option){"help", no_argument, NULL, 'h'};
  out[count] = (struct option){0};
  return count;
}

/* argv[0] is the command. */
static enum status parse_options(int argc, char **argv, struct config *config) {
  struct option options[ROWS + 2];
  long_options(config->command, options);
  opterr = 0;
  optind = 0; /* from argv[1] on, and forget the order of an earlier parsing */
  /* What a job is to do has options of its own, behind the first word. */
  const char *letters = config->command == COMMAND_SLURM ? "+:ho:" : ":ho:";
  for (int code; (code = getopt_long(argc, argv, letters, options, NULL)) != -1;) {
    const char *word = argv[optind - 1];
    if (code == 'h') {
      config->help = true;
      continue;
    }
    REQUIRE(code != ':', ERR_ARGUMENT, "%s wants a value", word);
    if (code == '?') {
      char name[128] = "";
      if (optopt > 0 && optopt < 256 && strncmp(word, "--help", 6) != 0)
        return fail(ERR_ARGUMENT, "conr %s has no option -%c; see conr %s --help", command_name(config->command),
                    optopt, command_name(config->command));
      snprintf(name, sizeof name, "%s", word + 2);
      name[strcspn(name, "=")] = '\0';
      REQUIRE(optopt == 0, ERR_ARGUMENT, "--%s takes no value", name);
      return config_unknown(config->command, name);
    }
    int index = code == 'o' ? config_find("output") : code - 256;
    REQUIRE(table[index].commands & config->command, ERR_ARGUMENT, "conr %s has no option -o",
            command_name(config->command));
    TRY(config_set(config, index, table[index].type == OPTION_FLAG ? "true" : optarg));
    config_mark(config, index);
  }
  return STATUS_OK;
}

static enum status take_words(int argc, char **argv, struct config *config) {
  const struct command_row *row = commands;
  while (row->command != config->command)
    row++;
  int words = argc - optind;
  REQUIRE(words >= row->least_words, ERR_ARGUMENT, "conr %s wants %s; see conr %s --help", row->name, row->words,
          row->name);
  REQUIRE(words <= row->most_words, ERR_ARGUMENT, "conr %s does not know what to do with \"%s\"; see conr %s --help",
          row->name, argv[optind + row->most_words], row->name);
  config->words = words;
  config->rest = argv + optind;
  for (int i = 0; i < words && i < CONFIG_MOST_WORDS; i++)
    config->word[i] = argv[optind + i];
  return STATUS_OK;
}

enum status config_parse(int argc, char **argv, struct config *config) {
  *config = (struct config){.command = COMMAND_NONE};
  if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
    config->help = true;
    return STATUS_OK;
  }
  TRY(find_command(argv[1], &config->command));
  TRY(set_defaults(config));
  TRY(parse_options(argc - 1, argv + 1, config)); /* getopt skips the command as it does a program's name */
  if (config->help)
    return STATUS_OK;
  TRY(take_words(argc - 1, argv + 1, config));
  /* Of a study of many runs each reads its recipe for itself, with the methods that it is about. */
  bool many =
      config->command == COMMAND_COMPARE || (config->command == COMMAND_SCALE && strcmp(config->question, "none") != 0);
  return many ? config_read_file(config) : config_read_files(config);
}

enum status config_integers(const char *option, const char *text, int64_t low, int64_t high, int most, int64_t *values,
                            int *count) {
  *count = 0;
  const char *next = text;
  while (*next != '\0') {
    char *end;
    errno = 0;
    long long value = strtoll(next, &end, 10);
    REQUIRE(end != next && (*end == ',' || *end == '\0') && (*end == '\0' || end[1] != '\0'), ERR_ARGUMENT,
            "--%s wants whole numbers separated by commas, not \"%s\"", option, text);
    REQUIRE(errno == 0 && value >= low && value <= high, ERR_ARGUMENT, "--%s: %.*s is out of range; give %lld to %lld",
            option, (int)(end - next), next, (long long)low, (long long)high);
    REQUIRE(*count < most, ERR_ARGUMENT, "--%s takes at most %d numbers", option, most);
    values[(*count)++] = value;
    next = *end == ',' ? end + 1 : end;
  }
  return STATUS_OK;
}

enum status config_rising(const char *option, const char *text, int64_t low, int64_t high, int most, int64_t *values,
                          int *count) {
  TRY(config_integers(option, text, low, high, most, values, count));
  REQUIRE(*count > 0, ERR_ARGUMENT, "--%s names none", option);
  for (int i = 1; i < *count; i++)
    REQUIRE(values[i] > values[i - 1], ERR_ARGUMENT, "--%s: %lld stands behind %lld; give each once, the smaller first",
            option, (long long)values[i], (long long)values[i - 1]);
  return STATUS_OK;
}

enum status config_numbers(const char *option, const char *text, int count, double *values) {
  const char *next = text;
  for (int i = 0; i < count; i++) {
    char *end;
    values[i] = strtod(next, &end);
    REQUIRE(end != next && *end == (i < count - 1 ? ',' : '\0') && !isnan(values[i]), ERR_ARGUMENT,
            "--%s wants %d numbers separated by commas, not \"%s\"", option, count, text);
    next = end + 1;
  }
  return STATUS_OK;
}

enum status config_share(const char *text, int64_t *share, int64_t *shares) {
  long long k = 1, n = 1;
  char rest;
  REQUIRE(text == NULL || (sscanf(text, "%lld/%lld%c", &k, &n, &rest) == 2 && n >= 1 && k >= 1 && k <= n), ERR_ARGUMENT,
          "--share wants K/N with K of 1 to N, such as 2/8, not \"%s\"", text);
  *share = k;
  *shares = n;
  return STATUS_OK;
}

enum status config_size(const char *text, int64_t *height, int64_t *width) {
  long long numbers[2];
  char rest;
  int count = sscanf(text, "%lldx%lld%c", &numbers[0], &numbers[1], &rest);
  bool square = count == 1 && strchr(text, 'x') == NULL;
  if (square)
    numbers[1] = numbers[0];
  REQUIRE((square || count == 2) && text[strspn(text, "0123456789x")] == '\0', ERR_ARGUMENT,
          "--size wants 224 or 160x320 (height x width), not \"%s\"", text);
  for (int i = 0; i < 2; i++)
    REQUIRE(numbers[i] >= 1 && numbers[i] <= 65536, ERR_ARGUMENT, "--size %s is out of range; give 1 to 65536", text);
  *height = numbers[0];
  *width = numbers[1];
  return STATUS_OK;
}

/* ---- what is shown ------------------------------------------------------------------------ */

const char *config_value(const struct config *config, const char *name, char *buffer, size_t bytes) {
  int index = config_find(name);
  buffer[0] = '\0';
  if (index < 0)
    return NULL;
  const struct option_row *row = &table[index];
  const void *field = (const char *)config + row->offset;
  char number[DECIMAL_BYTES];
  if (row->type == OPTION_FLAG)
    snprintf(buffer, bytes, "%s", *(const bool *)field ? "true" : "false");
  else if (row->type == OPTION_INTEGER)
    snprintf(buffer, bytes, "%lld", (long long)*(const int64_t *)field);
  else if (row->type == OPTION_REAL)
    snprintf(buffer, bytes, "%s", decimal_text(*(const double *)field, number));
  else if (*(const char *const *)field != NULL)
    snprintf(buffer, bytes, "%s", *(const char *const *)field);
  return buffer;
}

/* Orders for one invocation, which a file that is read again must not repeat. */
static bool is_order(const char *name) {
  return strcmp(name, "config") == 0 || strcmp(name, "recipe") == 0 || strcmp(name, "force") == 0 ||
         strcmp(name, "resume") == 0 || strcmp(name, "preflight") == 0;
}

void config_write(const struct config *config, FILE *out) {
  for (int i = 0; i < ROWS; i++) {
    char value[4096];
    bool text = table[i].type == OPTION_TEXT || table[i].type == OPTION_CHOICE;
    if (!(table[i].commands & config->command) || is_order(table[i].name))
      continue;
    /* A text that was not given is not the same as an empty one: --hidden "" is a linear model. */
    if (!text || *(const char *const *)((const char *)config + table[i].offset) != NULL)
      fprintf(out, "%s = %s\n", table[i].name, config_value(config, table[i].name, value, sizeof value));
  }
}

/* `text` wrapped at 78 columns, continued at `indent`. */
static void print_wrapped(FILE *out, const char *text, int column, int indent) {
  while (*text != '\0') {
    int word = (int)strcspn(text, " ");
    if (column + 1 + word > 78 && column > indent) {
      fprintf(out, "\n%*s", indent, "");
      column = indent;
    }
    column += fprintf(out, " %.*s", word, text);
    text += word;
    text += strspn(text, " ");
  }
  fputc('\n', out);
}

static void print_option(const struct option_row *row, FILE *out) {
  char text[1024];
  int column = fprintf(out, "  --%s%s%s", row->name, row->value ? " " : "", row->value ? row->value : "");
  if (column > 27) {
    fputc('\n', out);
    column = 0;
  }
  column += fprintf(out, "%*s", 28 - column, "");
  snprintf(text, sizeof text, "%s%s%s%s", row->help, row->absent ? " (default " : "", row->absent ? row->absent : "",
           row->absent ? ")" : "");
  print_wrapped(out, text, column, 28);
}

void config_help(enum command command, FILE *out) {
  if (command == COMMAND_NONE) {
    fputs("conr: deep imbalanced regression on one machine or many\n\n", out);
    for (int i = 0; i < COMMANDS; i++)
      fprintf(out, "  conr %-8s %-12s %s\n", commands[i].name, commands[i].words, commands[i].summary);
    fputs("\nconr COMMAND --help lists the options of a command.  Several ranks: mpirun -n 4 conr train ...\n"
          "Exit status: 0 done; 1 failed; 2 wrong usage; 75 stopped by a signal with a checkpoint, --resume goes on.\n"
          "Under mpirun the exit status is mpirun's own, and Open MPI gives ranks one second to stop: for longer steps "
          "set\n"
          "OMPI_MCA_odls_base_sigkill_timeout, or --checkpoint-steps.\n",
          out);
    return;
  }
  for (int i = 0; i < COMMANDS; i++)
    if (commands[i].command == command) {
      const char *blank = commands[i].words[0] != '\0' ? " " : "";
      int column = fprintf(out, "conr %s%s%s [options]:", commands[i].name, blank, commands[i].words);
      print_wrapped(out, commands[i].summary, column, 4);
      fputc('\n', out);
    }
  for (int i = 0; i < ROWS; i++)
    if (table[i].commands & command)
      print_option(&table[i], out);
  fputs("  --help                     this text\n", out);
}
