/* A dataset: labels once a host, and one of the two kinds of inputs. */
#include "io/dataset.h"

#include "dist/memory.h"
#include "io/host_share.h"
#include "io/image_records.h"
#include "io/table_inputs.h"

#include <string.h>
#include <zlib.h>

/* Written by one rank of a host, read by all of them.  Behind it: targets, split ids, weights. */
struct labels {
  int64_t split_first[SPLIT_COUNT + 1]; /* where each split's ids begin */
  uint64_t hash;
};

struct dataset {
  char *path;
  struct host_share share;
  enum dtype dtype;
  struct dataset_layout layout; /* its file is closed after dataset_open */
  struct table_inputs table;    /* DATASET_TABLE   */
  struct image_records images;  /* DATASET_IMAGES  */
  struct labels *labels;        /* the host's; so are the arrays below, which lie in the same block */
  double *targets;              /* [rows, K] */
  int64_t *split_ids;           /* [rows]: ids of train, validation, test, each in file order */
  double *weights;              /* [rows]; NULL when the file has none */
};

/* A thread's own. */
struct image_reader {
  struct image_decoder *decoder;
  struct image_buffer buffer;
};

const char *split_name(enum split split) {
  static const char *const names[] = {"training", "validation", "test"};
  return names[split];
}

static bool is_table(const struct dataset *dataset) {
  return dataset->layout.kind == DATASET_TABLE;
}

/* ---- opening ------------------------------------------------------------------------------- */

/* Ids of each split in file order, by counting. */
static void sort_by_split(const struct dataset *dataset, const uint8_t *split) {
  int64_t *first = dataset->labels->split_first, next[SPLIT_COUNT], rows = dataset->layout.rows;
  memset(first, 0, (SPLIT_COUNT + 1) * sizeof *first);
  for (int64_t i = 0; i < rows; i++)
    first[split[i] + 1]++;
  for (int i = 0; i < SPLIT_COUNT; i++)
    first[i + 1] += first[i];
  memcpy(next, first, sizeof next);
  for (int64_t i = 0; i < rows; i++)
    dataset->split_ids[next[split[i]]++] = i;
}

/* Two crc32: of the targets, and of everything else that is in memory. */
static uint64_t hash_labels(const struct dataset *dataset, const uint8_t *split) {
  const struct dataset_layout *layout = &dataset->layout;
  const struct table_inputs *table = &dataset->table;
  size_t rows = (size_t)layout->rows, features = (size_t)dataset_features(dataset);
  int64_t shape[3] = {layout->rows, dataset_features(dataset), layout->target_count};
  uint64_t targets =
      crc32_z(0, (const void *)dataset->targets, rows * (size_t)layout->target_count * sizeof *dataset->targets);
  uLong others = crc32_z(0, (const void *)shape, sizeof shape);
  others = crc32_z(others, split, rows);
  if (dataset->weights != NULL)
    others = crc32_z(others, (const void *)dataset->weights, rows * sizeof *dataset->weights);
  if (is_table(dataset) && table->mean != NULL) {
    others = crc32_z(others, (const void *)table->mean, features * sizeof *table->mean);
    others = crc32_z(others, (const void *)table->std, features * sizeof *table->std);
  }
  if (!is_table(dataset))
    others = image_records_hash(&dataset->images, (uint32_t)others);
  return targets << 32 | others;
}

/* The host's reading rank reads and checks what all of them use. */
static enum status read_shared(struct dataset *dataset) {
  uint8_t *split = NULL;
  TRY(memory_alloc((size_t)dataset->layout.rows, (void **)&split));
  enum status status = dataset_layout_read_labels(&dataset->layout, dataset->targets, dataset->weights, split);
  if (status == STATUS_OK)
    status = is_table(dataset) ? table_inputs_fill(&dataset->table) : image_records_fill(&dataset->images);
  if (status == STATUS_OK) {
    sort_by_split(dataset, split);
    dataset->labels->hash = hash_labels(dataset, split);
  }
  memory_free((void **)&split);
  return status;
}

/* Local: the file and its metadata. */
static enum status open_file(struct dataset *dataset, const struct standardisation *as) {
  struct dataset_layout *layout = &dataset->layout;
  TRY(dataset_layout_open(dataset->path, layout));
  if (is_table(dataset)) {
    TRY(table_inputs_open(layout, dataset->path, dataset->dtype, as, &dataset->table));
    return dataset_layout_open_labels(layout, dataset->table.rows, "inputs");
  }
  TRY(image_records_open(layout, dataset->path, &dataset->share, &dataset->images));
  bool encoded = dataset->images.layout == IMAGE_LAYOUT_ENCODED;
  return dataset_layout_open_labels(layout, dataset->images.rows, encoded ? "image_offset" : "images");
}

/* Collective: do all ranks see the same file? */
static enum status compare_shapes(const struct dataset *dataset) {
  const struct dataset_layout *layout = &dataset->layout;
  const struct table_inputs *table = &dataset->table;
  const struct image_records *images = &dataset->images;
  int64_t shape[] = {layout->rows,   layout->target_count, layout->has_weights, layout->kind,
                     dataset->dtype, table->features,      table->file >= 0,    images->layout,
                     images->height, images->width,        images->file >= 0};
  return host_share_same(&dataset->share, shape, sizeof shape / sizeof *shape);
}

/* The labels' head, then targets, split ids and weights. */
static size_t label_bytes(const struct dataset_layout *layout) {
  size_t rows = (size_t)layout->rows, targets = rows * (size_t)layout->target_count;
  return sizeof(struct labels) + 8 * (targets + rows + (layout->has_weights ? rows : 0));
}

/* Collective: the host's memory, and the arrays inside. */
static enum status allocate(struct dataset *dataset) {
  const struct dataset_layout *layout = &dataset->layout;
  size_t rows = (size_t)layout->rows, targets = rows * (size_t)layout->target_count;
  TRY(host_share_alloc(&dataset->share, label_bytes(layout), (void **)&dataset->labels));
  dataset->targets = (double *)(dataset->labels + 1);
  void *after_targets = dataset->targets + targets;
  dataset->split_ids = after_targets;
  void *after_split = dataset->split_ids + rows;
  dataset->weights = layout->has_weights ? after_split : NULL;
  return is_table(dataset) ? table_inputs_allocate(&dataset->table, &dataset->share)
                           : image_records_allocate(&dataset->images, &dataset->share);
}

/* Collective: one rank a host reads, the others wait for it, whether it succeeds or not. */
static enum status fill(struct dataset *dataset) {
  enum status status = host_share_reads(&dataset->share) ? read_shared(dataset) : STATUS_OK;
  TRY(host_share_finish(&dataset->share, status));
  int64_t hash = (int64_t)dataset->labels->hash;
  return host_share_same(&dataset->share, &hash, 1);
}

static enum status open_together(struct dataset *dataset, const struct standardisation *as) {
  TRY(host_share_agree(&dataset->share, open_file(dataset, as)));
  TRY(compare_shapes(dataset));
  TRY(allocate(dataset));
  TRY(fill(dataset));
  table_inputs_release_file(&dataset->table);
  image_records_release_file(&dataset->images);
  return dataset_layout_close_file(&dataset->layout);
}

enum status dataset_open(const char *path, struct comm *comm, enum dtype dtype, struct dataset **out) {
  return dataset_open_as(path, comm, dtype, NULL, out);
}

/* Local. */
static enum status create(const char *path, struct comm *comm, enum dtype dtype, struct dataset **out) {
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  struct dataset *dataset = *out;
  dataset->table.file = dataset->images.file = -1;
  dataset->dtype = dtype;
  TRY(memory_alloc(strlen(path) + 1, (void **)&dataset->path));
  strcpy(dataset->path, path);
  dataset->share = (struct host_share){comm, dataset->path};
  return STATUS_OK;
}

enum status dataset_open_as(const char *path, struct comm *comm, enum dtype dtype, const struct standardisation *as,
                            struct dataset **out) {
  struct dataset *dataset = NULL;
  *out = NULL;
  enum status status = create(path, comm, dtype, &dataset);
  if (comm != NULL)
    status = comm_agree(comm, status);
  if (status == STATUS_OK)
    status = open_together(dataset, as);
  if (status == STATUS_OK)
    *out = dataset;
  else
    dataset_close(&dataset);
  return status;
}

enum status dataset_shared_bytes(const char *path, enum dtype dtype, int64_t *out) {
  struct dataset *dataset = NULL;
  enum status status = create(path, NULL, dtype, &dataset);
  if (status == STATUS_OK)
    status = open_file(dataset, NULL);
  if (status == STATUS_OK)
    *out =
        (int64_t)(label_bytes(&dataset->layout) + (is_table(dataset) ? table_inputs_shared_bytes(&dataset->table)
                                                                     : image_records_shared_bytes(&dataset->images)));
  dataset_close(&dataset);
  return status;
}

void dataset_close(struct dataset **dataset_pointer) {
  struct dataset *dataset = *dataset_pointer;
  if (dataset == NULL)
    return;
  image_records_close(&dataset->images, &dataset->share);
  table_inputs_close(&dataset->table, &dataset->share);
  host_share_free(&dataset->share, (void **)&dataset->labels);
  dataset_layout_close(&dataset->layout);
  memory_free((void **)&dataset->path);
  memory_free((void **)dataset_pointer);
}

/* ---- what is known ------------------------------------------------------------------------- */

const char *dataset_path(const struct dataset *dataset) {
  return dataset->path;
}

enum dtype dataset_dtype(const struct dataset *dataset) {
  return dataset->dtype;
}

int64_t dataset_rows(const struct dataset *dataset) {
  return dataset->layout.rows;
}

enum dataset_kind dataset_kind(const struct dataset *dataset) {
  return dataset->layout.kind;
}

int dataset_features(const struct dataset *dataset) {
  return dataset->table.features;
}

int dataset_targets(const struct dataset *dataset) {
  return dataset->layout.target_count;
}

const char *dataset_feature_name(const struct dataset *dataset, int feature) {
  return dataset->table.feature_names.text[feature];
}

const char *dataset_target_name(const struct dataset *dataset, int target) {
  return dataset->layout.target_names.text[target];
}

const char *dataset_source(const struct dataset *dataset) {
  return dataset->layout.source != NULL ? dataset->layout.source : "";
}

bool dataset_has_weights(const struct dataset *dataset) {
  return dataset->weights != NULL;
}

uint64_t dataset_hash(const struct dataset *dataset) {
  return dataset->labels->hash;
}

int64_t dataset_split_rows(const struct dataset *dataset, enum split split) {
  return dataset->labels->split_first[split + 1] - dataset->labels->split_first[split];
}

const int64_t *dataset_split_ids(const struct dataset *dataset, enum split split) {
  return dataset->split_ids + dataset->labels->split_first[split];
}

const double *dataset_target(const struct dataset *dataset) {
  return dataset->targets;
}

const double *dataset_weight(const struct dataset *dataset) {
  return dataset->weights;
}

const double *dataset_mean(const struct dataset *dataset) {
  return dataset->table.mean;
}

const double *dataset_std(const struct dataset *dataset) {
  return dataset->table.std;
}

enum status dataset_require_split(const struct dataset *dataset, enum split split, const char *purpose) {
  int64_t rows = dataset_split_rows(dataset, split);
  const int64_t *ids = dataset_split_ids(dataset, split);
  REQUIRE(rows > 0, ERR_FORMAT, "%s has no %s rows, needed for %s; set \"split\" to %d for some", dataset->path,
          split_name(split), purpose, (int)split);
  bool weighted = dataset->weights == NULL;
  for (int64_t i = 0; !weighted && i < rows; i++)
    weighted = dataset->weights[ids[i]] > 0;
  REQUIRE(weighted, ERR_FORMAT, "all %lld %s rows of %s have weight 0, so nothing is left for %s", (long long)rows,
          split_name(split), dataset->path, purpose);
  return STATUS_OK;
}

enum status dataset_require_varied_targets(const struct dataset *dataset) {
  int64_t rows = dataset_split_rows(dataset, SPLIT_TRAIN);
  const int64_t *ids = dataset_split_ids(dataset, SPLIT_TRAIN);
  int targets = dataset_targets(dataset);
  for (int k = 0; rows > 0 && k < targets; k++) {
    double first = dataset->targets[ids[0] * targets + k];
    int64_t i = 1;
    while (i < rows && dataset->targets[ids[i] * targets + k] == first)
      i++;
    REQUIRE(i < rows, ERR_FORMAT,
            "target \"%s\" is %g in all %lld training rows of %s; there is nothing to learn from a constant target",
            dataset_target_name(dataset, k), first, (long long)rows, dataset->path);
  }
  return STATUS_OK;
}

/* ---- inputs -------------------------------------------------------------------------------- */

enum status dataset_read(struct dataset *dataset, const int64_t *ids, int64_t n, void *out) {
  REQUIRE(is_table(dataset), ERR_BUG, "%s holds images, not a table", dataset->path);
  return table_inputs_read(&dataset->table, ids, n, out);
}

enum image_layout dataset_image_layout(const struct dataset *dataset) {
  return dataset->images.layout;
}

int dataset_image_height(const struct dataset *dataset) {
  return dataset->images.height;
}

int dataset_image_width(const struct dataset *dataset) {
  return dataset->images.width;
}

const char *dataset_image_name(const struct dataset *dataset, int64_t row) {
  return image_records_name(&dataset->images, row);
}

enum status image_reader_create(struct image_reader **out) {
  enum status status;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof **out, (void **)out));
  TRY_GOTO(image_decoder_create(&(*out)->decoder), failed);
  return STATUS_OK;
failed:
  image_reader_destroy(out);
  return status;
}

void image_reader_destroy(struct image_reader **reader) {
  if (*reader == NULL)
    return;
  image_decoder_destroy(&(*reader)->decoder);
  memory_free((void **)&(*reader)->buffer.bytes);
  memory_free((void **)reader);
}

static enum status read_image(const struct dataset *dataset, struct image_reader *reader, int64_t row, int least_height,
                              int least_width, struct image *out) {
  const struct image_records *images = &dataset->images;
  const uint8_t *bytes;
  size_t count;
  TRY(image_records_read(images, row, &reader->buffer, &bytes, &count));
  if (images->layout == IMAGE_LAYOUT_PIXELS) {
    *out = (struct image){images->height, images->width, (uint8_t *)bytes};
    return STATUS_OK;
  }
  TRY(image_records_verify(images, row, bytes, count));
  return image_decode(reader->decoder, bytes, count, least_height, least_width, out);
}

enum status dataset_image_read(const struct dataset *dataset, struct image_reader *reader, int64_t row,
                               int least_height, int least_width, struct image *out) {
  REQUIRE(!is_table(dataset), ERR_BUG, "%s holds a table, not images", dataset->path);
  enum status status = read_image(dataset, reader, row, least_height, least_width, out);
  return status == STATUS_OK || status == ERR_BUG ? status : image_records_fail(&dataset->images, row, status);
}

enum status dataset_image_bytes(const struct dataset *dataset, struct image_reader *reader, int64_t row,
                                const uint8_t **bytes, size_t *count) {
  REQUIRE(!is_table(dataset), ERR_BUG, "%s holds a table, not images", dataset->path);
  return image_records_read(&dataset->images, row, &reader->buffer, bytes, count);
}

int64_t dataset_image_length(const struct dataset *dataset, int64_t row) {
  return dataset->images.places != NULL ? dataset->images.places[row].length : 0;
}

enum status dataset_image_record(const struct dataset *dataset, int64_t row, uint8_t *out) {
  const struct image_records *images = &dataset->images;
  REQUIRE(!is_table(dataset) && images->places != NULL, ERR_BUG, "%s holds no encoded images", dataset->path);
  enum status status = image_records_fetch(images, row, out);
  return status == STATUS_OK || status == ERR_BUG ? status : image_records_fail(images, row, status);
}

enum status dataset_image_copy(const struct dataset *dataset, int64_t row, int64_t first, int64_t end, uint8_t *out) {
  REQUIRE(!is_table(dataset) && dataset->images.layout == IMAGE_LAYOUT_PIXELS, ERR_BUG, "%s holds no pixels",
          dataset->path);
  return image_records_copy(&dataset->images, row, first, end, out);
}
