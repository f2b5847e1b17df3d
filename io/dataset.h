/* A table in an HDF5 file (layout: io/README.md): rows of standardised inputs by id, targets, weights and splits.
 *
 *     struct dataset *dataset;
 *     TRY(dataset_open("abalone.h5", comm, F32, &dataset));
 *     TRY(dataset_require_split(dataset, SPLIT_TRAIN, "training"));
 *     const int64_t *ids = dataset_split_ids(dataset, SPLIT_TRAIN);
 *     TRY(dataset_read(dataset, ids, 64, inputs));                    [64, features], (x - mean) / std
 *     double y = dataset_target(dataset)[ids[0] * dataset_targets(dataset)];
 *     dataset_close(&dataset);
 *
 * Inputs that lie in the file as plain float32 or float64 stay there and are read by pread: the page cache is shared
 * by the ranks of a host, and no HDF5 call is made after dataset_open.  Other inputs (chunked, compressed, integers)
 * are read once into memory shared by the ranks of a host.  Both give the same bits.  Targets, weights and splits
 * are always in memory, one copy a host. */
#ifndef CONR_IO_DATASET_H
#define CONR_IO_DATASET_H

#include "dist/comm.h"
#include "dist/dtype.h"
#include "dist/status.h"

#include <stdbool.h>
#include <stdint.h>

enum split { SPLIT_TRAIN, SPLIT_VAL, SPLIT_TEST };
#define SPLIT_COUNT 3

struct dataset;

/* Name such as "validation". */
const char *split_name(enum split split);

/* Open and check a table.
 *
 * Collective when comm is given: all ranks, same path and dtype; all fail together with one sentence.
 * comm   borrowed: must outlive the dataset; NULL = this process alone.  The shared memory (at most two blocks) is
 *        the communicator's and is freed with it.
 * dtype  of what dataset_read gives.
 * ERR_FILE, ERR_FORMAT: the sentence names the file, the dataset and the row. */
enum status dataset_open(const char *path, struct comm *comm, enum dtype dtype, struct dataset **out);

/* Mean and standard deviation of each feature, as a model knows them; borrowed. */
struct standardisation {
  int features;
  const double *mean, *std; /* [features]; both NULL: inputs are used as they are */
};

/* The same, standardised as a model was trained and not by the file's own figures: a model that meets a new table must
 * see it in the units it learned.  as NULL = the file's own.  ERR_FORMAT: another number of features. */
enum status dataset_open_as(const char *path, struct comm *comm, enum dtype dtype, const struct standardisation *as,
                            struct dataset **out);

/* Local; NULL is fine. */
void dataset_close(struct dataset **dataset);

/* All local. */
const char *dataset_path(const struct dataset *dataset);
enum dtype dataset_dtype(const struct dataset *dataset);
int64_t dataset_rows(const struct dataset *dataset);
int dataset_features(const struct dataset *dataset);
int dataset_targets(const struct dataset *dataset); /* K: numbers in a label */
const char *dataset_feature_name(const struct dataset *dataset, int feature);
const char *dataset_target_name(const struct dataset *dataset, int target);
const char *dataset_source(const struct dataset *dataset); /* where the table came from; "" when not said */
bool dataset_has_weights(const struct dataset *dataset);

/* Of targets, weights, splits, shapes and standardisation; not of the inputs, which may be terabytes. */
uint64_t dataset_hash(const struct dataset *dataset);

/* Rows of a split, and their ids in file order. */
int64_t dataset_split_rows(const struct dataset *dataset, enum split split);
const int64_t *dataset_split_ids(const struct dataset *dataset, enum split split);

const double *dataset_target(const struct dataset *dataset); /* [rows, K]             */
const double *dataset_weight(const struct dataset *dataset); /* [rows], NULL = all 1  */

/* Standardisation, [features]; NULL when the inputs are used as they are. */
const double *dataset_mean(const struct dataset *dataset);
const double *dataset_std(const struct dataset *dataset);

/* ERR_FORMAT when a split has no rows, or none of weight above 0; `purpose` completes "... for training". */
enum status dataset_require_split(const struct dataset *dataset, enum split split, const char *purpose);

/* ERR_FORMAT when a target has one value in all training rows. */
enum status dataset_require_varied_targets(const struct dataset *dataset);

/* Standardised inputs of the rows `ids`, in that order.
 *
 * Local.  One thread at a time: the loader's worker, once it runs.
 * ids  [n], 0 <= id < rows, repeats allowed;  out  [n, features] dtype
 * ERR_FORMAT: an input is not finite (the row is named).  ERR_FILE: the file was cut short meanwhile. */
enum status dataset_read(struct dataset *dataset, const int64_t *ids, int64_t n, void *out);

#endif
