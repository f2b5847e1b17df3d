/* A table or images in an HDF5 file (layouts: io/README.md): inputs by row id, targets, weights and splits.
 *
 *     struct dataset *dataset;
 *     TRY(dataset_open("abalone.h5", comm, F32, &dataset));
 *     TRY(dataset_require_split(dataset, SPLIT_TRAIN, "training"));
 *     const int64_t *ids = dataset_split_ids(dataset, SPLIT_TRAIN);
 *     TRY(dataset_read(dataset, ids, 64, inputs));                    [64, features], (x - mean) / std
 *     double y = dataset_target(dataset)[ids[0] * dataset_targets(dataset)];
 *     dataset_close(&dataset);
 *
 * or, of images,
 *
 *     struct image_reader *reader;                                              one per thread
 *     TRY(image_reader_create(&reader));
 *     TRY(dataset_image_read(dataset, reader, ids[0], 224, 224, &image));       [height, width, 3] uint8
 *
 * Inputs that lie in the file in one piece (float32, float64, encoded images, pixels) stay there and are read by pread:
 * the page cache is shared by the ranks of a host, and no HDF5 call is made after dataset_open.  Other inputs (chunked,
 * compressed, integers) are read once into memory shared by the ranks of a host.  Both give the same bits.  Targets,
 * weights, splits and the places of images are always in memory, one copy a host. */
#ifndef CONR_IO_DATASET_H
#define CONR_IO_DATASET_H

#include "dist/comm.h"
#include "dist/dtype.h"
#include "dist/status.h"
#include "io/image.h"

#include <stdbool.h>
#include <stdint.h>

/* What the inputs are. */
enum dataset_kind { DATASET_TABLE, DATASET_IMAGES };

/* How images are stored: the files' own bytes (JPEG, PNG), or decoded, all of one size. */
enum image_layout { IMAGE_LAYOUT_ENCODED, IMAGE_LAYOUT_PIXELS };

enum split { SPLIT_TRAIN, SPLIT_VAL, SPLIT_TEST };
#define SPLIT_COUNT 3

struct dataset;

/* Name such as "validation". */
const char *split_name(enum split split);

/* Open and check a table or images.
 *
 * Collective when comm is given: all ranks, same path and dtype; all fail together with one sentence.
 * comm   borrowed: must outlive the dataset; NULL = this process alone.  The shared memory (at most three blocks) is
 *        the communicator's and is freed with it.
 * dtype  of what dataset_read gives; images are bytes in any case.
 * ERR_FILE, ERR_FORMAT: the sentence names the file, the dataset and the row. */
enum status dataset_open(const char *path, struct comm *comm, enum dtype dtype, struct dataset **out);

/* Mean and standard deviation of each feature, as a model knows them; borrowed. */
struct standardisation {
  int features;
  const double *mean, *std; /* [features]; both NULL: inputs are used as they are */
};

/* The same, standardised as a model was trained and not by the file's own figures: a model that meets a new table must
 * see it in the units it learned.  as NULL = the file's own.  ERR_FORMAT: another number of features.  Images have no
 * standardisation here (a network does that): `as` is not read then. */
enum status dataset_open_as(const char *path, struct comm *comm, enum dtype dtype, const struct standardisation *as,
                            struct dataset **out);

/* How many bytes dataset_open would share among the ranks of a host, which come from /dev/shm; looks at the file's
 * description alone.  Local; the sentences of dataset_open. */
enum status dataset_shared_bytes(const char *path, enum dtype dtype, int64_t *out);

/* Local; NULL is fine. */
void dataset_close(struct dataset **dataset);

/* All local. */
const char *dataset_path(const struct dataset *dataset);
enum dtype dataset_dtype(const struct dataset *dataset);
int64_t dataset_rows(const struct dataset *dataset);
enum dataset_kind dataset_kind(const struct dataset *dataset); /* DATASET_TABLE, DATASET_IMAGES */
int dataset_features(const struct dataset *dataset);           /* 0 for images */
int dataset_targets(const struct dataset *dataset);            /* K: numbers in a label */
const char *dataset_feature_name(const struct dataset *dataset, int feature);
const char *dataset_target_name(const struct dataset *dataset, int target);
const char *dataset_source(const struct dataset *dataset); /* where the table came from; "" when not said */
bool dataset_has_weights(const struct dataset *dataset);

/* Of targets, weights, splits, shapes, standardisation, and the places and checksums of images; not of the inputs,
 * which may be terabytes. */
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
 * Local; any number of threads, which read the file one after the other.
 * ids  [n], 0 <= id < rows, repeats allowed;  out  [n, features] dtype
 * ERR_FORMAT: an input is not finite (the row is named).  ERR_FILE: the file was cut short meanwhile. */
enum status dataset_read(struct dataset *dataset, const int64_t *ids, int64_t n, void *out);

/* ---- images -------------------------------------------------------------------------------- */

enum image_layout dataset_image_layout(const struct dataset *dataset);

/* Of stored pixels; 0 when the images are encoded, each of its own size. */
int dataset_image_height(const struct dataset *dataset);
int dataset_image_width(const struct dataset *dataset);

/* Where a row's image came from, as the import wrote it; "" when the file does not say.  Borrowed. */
const char *dataset_image_name(const struct dataset *dataset, int64_t row);

/* A thread's decoder and buffers. */
struct image_reader;
enum status image_reader_create(struct image_reader **out);
void image_reader_destroy(struct image_reader **reader); /* NULL is fine */

/* The image of a row, as RGB.  Local; any number of threads, each with its own reader.
 *
 * least_height, least_width  see image_decode: encoded images may come reduced to this; 0, 0 = full size
 * out->pixels is borrowed from the reader (or the dataset) until the reader's next call.
 * ERR_FORMAT: it is damaged, or not what was imported; row, name and file are in the sentence.  ERR_FILE: the file was
 * cut short meanwhile. */
enum status dataset_image_read(const struct dataset *dataset, struct image_reader *reader, int64_t row,
                               int least_height, int least_width, struct image *out);

/* The bytes of a row as stored, neither checked nor decoded; borrowed as above.  Local. */
enum status dataset_image_bytes(const struct dataset *dataset, struct image_reader *reader, int64_t row,
                                const uint8_t **bytes, size_t *count);

/* How many these are; 0 for stored pixels.  Local. */
int64_t dataset_image_length(const struct dataset *dataset, int64_t row);

/* An encoded row's bytes straight into `out`, checked as by dataset_image_read, not decoded.  Local; any number of
 * threads. */
enum status dataset_image_record(const struct dataset *dataset, int64_t row, uint8_t *out);

/* Stored pixels of a row straight into `out`: bytes first to end - 1 of its [height, width, 3].  Local; any number of
 * threads. */
enum status dataset_image_copy(const struct dataset *dataset, int64_t row, int64_t first, int64_t end, uint8_t *out);

#endif
