/* A CSV file into a table: scan, (means,) write, then the histogram of what was written. */
#include "dist/log.h"
#include "dist/memory.h"
#include "dist/random.h"
#include "io/durable.h"
#include "io/h5.h"
#include "io/import_columns.h"
#include "io/import_report.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Inputs are written in blocks of about this many bytes. */
#define BLOCK_BYTES ((size_t)4 << 20)

/* Rows between two calls of the progress function. */
#define PROGRESS_ROWS 4096

/* Running mean and sum of squared deviations per feature (Welford). */
struct moments {
  int64_t *count; /* [features] values seen, gaps left out */
  double *mean, *square;
};

struct import {
  const struct import_csv_options *options; /* borrowed: must outlive this */
  struct columns *columns;
  struct import_report *report;
  struct random_key split_key;
  int64_t split_end[2]; /* drawn splits: positions below the first are training, below the second validation */
  int64_t row;          /* kept rows so far in this pass */
  int64_t source_rows;  /* kept rows of the file         */
  double *labels;       /* [source_rows], with a protocol: the first target */
  uint16_t *copies;     /* [source_rows, SPLIT_COUNT] likewise              */
  int pass, passes;
  struct moments moments; /* of the training rows */
  /* The block being filled, [block_rows, ...]. */
  int64_t block_rows, block_first, block_filled;
  int times[SPLIT_COUNT]; /* how often the encoded row is to be written */
  float *inputs;
  double *targets, *weights;
  uint8_t *split;
  /* The file being written. */
  struct h5_file *file;
  struct h5_dataset input_set, target_set, split_set, weight_set;
};

static enum status check_options(const struct import_csv_options *options) {
  struct stat csv, output;
  REQUIRE(options->target_count > 0, ERR_ARGUMENT, "no target column is named for %s; use --target NAME",
          options->csv_path);
  bool exists = stat(options->output_path, &output) == 0;
  if (exists && stat(options->csv_path, &csv) == 0)
    REQUIRE(csv.st_dev != output.st_dev || csv.st_ino != output.st_ino, ERR_ARGUMENT,
            "input and output are both %s; give another name for the output", options->csv_path);
  REQUIRE(!exists || options->force || S_ISDIR(output.st_mode), ERR_ARGUMENT,
          "%s exists already; use --force to replace it", options->output_path);
  if (options->split != NULL || options->protocol.kind != PROTOCOL_NONE)
    return STATUS_OK;
  const double *f = options->fractions;
  for (int i = 0; i < SPLIT_COUNT; i++)
    REQUIRE(isfinite(f[i]) && f[i] >= 0, ERR_ARGUMENT, "the %s fraction %g must be at least 0", split_name(i), f[i]);
  REQUIRE(fabs(f[0] + f[1] + f[2] - 1) <= 1e-6, ERR_ARGUMENT,
          "the split fractions %g, %g and %g sum to %g; they must sum to 1", f[0], f[1], f[2], f[0] + f[1] + f[2]);
  return STATUS_OK;
}

static void show_progress(const struct import *import, const struct csv_reader *reader, int64_t rows, double begin) {
  const struct import_csv_options *options = import->options;
  if (options->progress == NULL)
    return;
  double done = (double)csv_reader_position(reader) / (double)csv_reader_size(reader);
  double seconds = log_seconds() - begin;
  options->progress(options->progress_context, ((double)import->pass + done) / (double)import->passes, rows,
                    seconds > 0 ? (double)rows / seconds : 0);
}

typedef enum status row_function(struct import *import, const struct csv_row *row, bool *kept);

static enum status read_header(struct import *import, struct csv_reader *reader) {
  struct csv_row row;
  TRY(csv_reader_next(reader, &row));
  REQUIRE(row.count > 0, ERR_FORMAT, "%s holds no header line", import->options->csv_path);
  return import->columns == NULL ? columns_create(import->options, &row, &import->columns) : STATUS_OK;
}

/* One pass over the file; the header of the first one makes the columns.  dropped = rows left out. */
static enum status each_row(struct import *import, row_function *function, int64_t *dropped) {
  struct csv_reader *reader;
  struct csv_row row;
  enum status status;
  double begin = log_seconds();
  int64_t rows = 0;
  TRY(csv_reader_open(import->options->csv_path, &reader));
  TRY_GOTO(read_header(import, reader), out);
  import->row = 0;
  for (;;) {
    bool kept = true;
    TRY_GOTO(csv_reader_next(reader, &row), out);
    if (row.count == 0)
      break;
    TRY_GOTO(function(import, &row, &kept), out);
    import->row += kept ? 1 : 0;
    if (++rows % PROGRESS_ROWS == 0)
      show_progress(import, reader, rows, begin);
  }
  show_progress(import, reader, rows, begin);
  *dropped = rows - import->row;
  import->pass++;
out:
  csv_reader_close(&reader);
  return status;
}

static enum status scan_row(struct import *import, const struct csv_row *row, bool *kept) {
  return columns_scan(import->columns, row, kept);
}

/* Where drawn splits end, so that the counts are exact. */
static void place_splits(struct import *import) {
  const double *f = import->options->fractions;
  double rows = (double)import->report->rows;
  import->split_key = random_key(import->options->seed, RANDOM_SPLIT, 0);
  import->split_end[0] = llround(rows * f[0]);
  import->split_end[1] = llround(rows * (f[0] + f[1]));
}

static int drawn_split(const struct import *import) {
  uint64_t position = random_permute(import->split_key, (uint64_t)import->report->rows, (uint64_t)import->row);
  return (int64_t)position < import->split_end[0]   ? SPLIT_TRAIN
         : (int64_t)position < import->split_end[1] ? SPLIT_VAL
                                                    : SPLIT_TEST;
}

static enum status scan(struct import *import) {
  struct import_report *report = import->report;
  import->passes = 2 + (import->options->missing == MISSING_MEAN) + (import->options->protocol.kind != PROTOCOL_NONE);
  TRY(each_row(import, scan_row, &report->rows_dropped));
  report->rows = import->source_rows = import->row;
  REQUIRE(report->rows + report->rows_dropped > 0, ERR_FORMAT, "%s has a header line and no rows",
          import->options->csv_path);
  REQUIRE(report->rows > 0, ERR_FORMAT,
          "all %lld rows of %s miss a value, so all were dropped; --drop a column instead",
          (long long)report->rows_dropped, import->options->csv_path);
  TRY(columns_settle(import->columns));
  place_splits(import);
  return STATUS_OK;
}

static enum status moments_alloc(struct moments *moments, int features) {
  TRY(memory_alloc_zero((size_t)features * sizeof *moments->count, (void **)&moments->count));
  TRY(memory_alloc_zero((size_t)features * sizeof *moments->mean, (void **)&moments->mean));
  return memory_alloc_zero((size_t)features * sizeof *moments->square, (void **)&moments->square);
}

static void moments_free(struct moments *moments) {
  memory_free((void **)&moments->square);
  memory_free((void **)&moments->mean);
  memory_free((void **)&moments->count);
}

static void moments_add(struct moments *moments, const float *features, int count) {
  for (int i = 0; i < count; i++) {
    double value = features[i];
    if (isnan(value)) /* a gap whose mean is being found */
      continue;
    double delta = value - moments->mean[i];
    moments->count[i]++;
    moments->mean[i] += delta / (double)moments->count[i];
    moments->square[i] += delta * (value - moments->mean[i]);
  }
}

static enum status block_alloc(struct import *import) {
  size_t features = (size_t)import->columns->features, targets = import->options->target_count;
  size_t rows = BLOCK_BYTES / (features * sizeof *import->inputs);
  rows = rows > 0 ? rows : 1;
  rows = rows < (size_t)import->report->rows ? rows : (size_t)import->report->rows;
  import->block_rows = (int64_t)rows;
  TRY(memory_alloc(rows * features * sizeof *import->inputs, (void **)&import->inputs));
  TRY(memory_alloc(rows * targets * sizeof *import->targets, (void **)&import->targets));
  TRY(memory_alloc(rows * sizeof *import->weights, (void **)&import->weights));
  TRY(memory_alloc(rows, (void **)&import->split));
  return moments_alloc(&import->moments, import->columns->features);
}

static enum status file_changed(const struct import *import) {
  return fail(ERR_FILE, "%s changed while it was being read; import it again", import->options->csv_path);
}

/* How often the row at hand is written for each split. */
static void count_copies(struct import *import, const struct sample *sample) {
  memset(import->times, 0, sizeof import->times);
  if (import->copies == NULL)
    import->times[sample->split >= 0 ? sample->split : drawn_split(import)] = 1;
  for (int split = 0; split < SPLIT_COUNT && import->copies != NULL; split++)
    import->times[split] = import->copies[import->row * SPLIT_COUNT + split];
}

/* Encode a row at the next place of the block, and count it as often as it is for training. */
static enum status encode_row(struct import *import, const struct csv_row *row, bool *kept) {
  int64_t at = import->block_filled; /* there is room: a full block is written at once */
  size_t features = (size_t)import->columns->features, targets = import->options->target_count;
  struct sample sample = {.features = import->inputs + (size_t)at * features,
                          .targets = import->targets + (size_t)at * targets};
  TRY(columns_encode(import->columns, row, &sample, kept));
  if (!*kept)
    return STATUS_OK;
  if (import->row >= import->source_rows)
    return file_changed(import);
  import->weights[at] = sample.weight;
  count_copies(import, &sample);
  for (int i = 0; i < import->times[SPLIT_TRAIN]; i++)
    moments_add(&import->moments, sample.features, import->columns->features);
  return STATUS_OK;
}

/* Pass for means: encode_row with the block's first place over and over. */
static enum status fill_means(struct import *import) {
  struct columns *columns = import->columns;
  int64_t dropped;
  TRY(each_row(import, encode_row, &dropped));
  for (size_t i = 0; i < columns->count; i++) {
    struct column *column = &columns->column[i];
    if (column->role != COLUMN_NUMERIC || column->missing == 0)
      continue;
    REQUIRE(import->moments.count[column->first] > 0, ERR_FORMAT,
            "column \"%s\" of %s has no value in any training row, so it has no mean; use --drop \"%s\"", column->name,
            import->options->csv_path, column->name);
    column->fill = import->moments.mean[column->first];
  }
  moments_free(&import->moments);
  return moments_alloc(&import->moments, columns->features);
}

/* --- protocols ------------------------------------------------------------------------------------------------ */

static enum status keep_label(struct import *import, const struct csv_row *row, bool *kept) {
  TRY(encode_row(import, row, kept));
  if (*kept)
    import->labels[import->row] = import->targets[0];
  return STATUS_OK;
}

static enum status draw_protocol(struct import *import) {
  struct import_report *report = import->report;
  size_t rows = (size_t)import->source_rows;
  uint16_t *copies = NULL;
  int64_t dropped;
  if (import->options->protocol.kind == PROTOCOL_NONE)
    return STATUS_OK;
  TRY(memory_alloc(rows * sizeof *import->labels, (void **)&import->labels));
  TRY(each_row(import, keep_label, &dropped));
  TRY(memory_alloc_zero(rows * SPLIT_COUNT * sizeof *copies, (void **)&copies));
  import->copies = copies;
  TRY(protocol_draw(&import->options->protocol, import->source_rows, import->labels, copies, &report->protocol));
  report->rows =
      report->protocol.rows[SPLIT_TRAIN] + report->protocol.rows[SPLIT_VAL] + report->protocol.rows[SPLIT_TEST];
  moments_free(&import->moments);
  return moments_alloc(&import->moments, import->columns->features);
}

/* --- writing -------------------------------------------------------------------------------------------------- */

static enum status flush_block(struct import *import) {
  int64_t first = import->block_first, rows = import->block_filled;
  TRY(h5_dataset_write(&import->input_set, first, rows, ARRAY_F32, import->inputs));
  TRY(h5_dataset_write(&import->target_set, first, rows, ARRAY_F64, import->targets));
  TRY(h5_dataset_write(&import->split_set, first, rows, ARRAY_U8, import->split));
  if (import->options->weight != NULL)
    TRY(h5_dataset_write(&import->weight_set, first, rows, ARRAY_F64, import->weights));
  import->block_first += rows;
  import->block_filled = 0;
  return STATUS_OK;
}

/* The row that was encoded at `from`, which may be the next place, becomes one of the file. */
static enum status put_row(struct import *import, int64_t from, int split) {
  size_t features = (size_t)import->columns->features, targets = import->options->target_count;
  int64_t at = import->block_filled++;
  if (at != from) {
    memcpy(import->inputs + (size_t)at * features, import->inputs + (size_t)from * features,
           features * sizeof *import->inputs);
    memcpy(import->targets + (size_t)at * targets, import->targets + (size_t)from * targets,
           targets * sizeof *import->targets);
    import->weights[at] = import->weights[from];
  }
  import->split[at] = (uint8_t)split;
  import->report->split_rows[split]++;
  return import->block_filled == import->block_rows ? flush_block(import) : STATUS_OK;
}

static enum status write_row(struct import *import, const struct csv_row *row, bool *kept) {
  int64_t from = import->block_filled;
  TRY(encode_row(import, row, kept));
  for (int split = 0; split < SPLIT_COUNT && *kept; split++)
    for (int i = 0; i < import->times[split]; i++)
      TRY(put_row(import, from, split));
  return STATUS_OK;
}

static enum status create_datasets(struct import *import) {
  int64_t rows = import->report->rows;
  int64_t inputs[] = {rows, import->columns->features}, targets[] = {rows, (int64_t)import->options->target_count};
  TRY(h5_dataset_create(import->file, "inputs", ARRAY_F32, 2, inputs, &import->input_set));
  TRY(h5_dataset_create(import->file, "targets", ARRAY_F64, targets[1] > 1 ? 2 : 1, targets, &import->target_set));
  TRY(h5_dataset_create(import->file, "split", ARRAY_U8, 1, &rows, &import->split_set));
  if (import->options->weight != NULL)
    TRY(h5_dataset_create(import->file, "weights", ARRAY_F64, 1, &rows, &import->weight_set));
  return STATUS_OK;
}

/* Mean 0 and std 1 for one-hot columns; std 1 for constant ones, with a word in the report. */
static enum status settle_statistics(struct import *import) {
  struct moments *moments = &import->moments;
  struct import_report *report = import->report;
  char name[512];
  for (int i = 0; i < import->columns->features; i++) {
    bool one_hot = columns_is_one_hot(import->columns, i);
    double std = sqrt(moments->square[i] / (double)moments->count[i]);
    if (std == 0) {
      columns_feature_name(import->columns, i, name, sizeof name);
      if (report->constant_features++ == 0)
        TRY(import_report_set_text(&report->constant_name, name));
    }
    moments->mean[i] = one_hot ? 0 : moments->mean[i];
    moments->square[i] = one_hot || std == 0 ? 1 : std;
  }
  return STATUS_OK;
}

static enum status write_vector(struct h5_file *file, const char *name, const double *values, int count) {
  struct h5_dataset dataset;
  int64_t shape = count;
  TRY(h5_dataset_create(file, name, ARRAY_F64, 1, &shape, &dataset));
  enum status status = h5_dataset_write(&dataset, 0, count, ARRAY_F64, values);
  h5_dataset_close(&dataset);
  return status;
}

static enum status write_feature_names(struct import *import) {
  int features = import->columns->features;
  const size_t width = 512;
  char *text = NULL;
  const char **names = NULL;
  enum status status;
  TRY_GOTO(memory_alloc((size_t)features * width, (void **)&text), out);
  TRY_GOTO(memory_alloc((size_t)features * sizeof *names, (void **)&names), out);
  for (int i = 0; i < features; i++) {
    columns_feature_name(import->columns, i, text + (size_t)i * width, width);
    names[i] = text + (size_t)i * width;
  }
  status = h5_write_texts(import->file, "feature_names", names, (size_t)features);
out:
  memory_free((void **)&names);
  memory_free((void **)&text);
  return status;
}

static enum status write_metadata(struct import *import) {
  const struct import_csv_options *options = import->options;
  const char *slash = strrchr(options->csv_path, '/');
  TRY(settle_statistics(import));
  TRY(write_vector(import->file, "standardise/mean", import->moments.mean, import->columns->features));
  TRY(write_vector(import->file, "standardise/std", import->moments.square, import->columns->features));
  TRY(write_feature_names(import));
  TRY(h5_write_texts(import->file, "target_names", options->targets, options->target_count));
  TRY(h5_write_text(import->file, "conr_format", "table"));
  TRY(h5_write_integer(import->file, "conr_version", 1));
  return h5_write_text(import->file, "source", slash != NULL ? slash + 1 : options->csv_path);
}

static enum status write_rows(struct import *import) {
  int64_t dropped;
  TRY(create_datasets(import));
  TRY(each_row(import, write_row, &dropped));
  TRY(flush_block(import));
  if (import->row != import->source_rows)
    return file_changed(import);
  REQUIRE(import->report->split_rows[SPLIT_TRAIN] > 0, ERR_FORMAT,
          "none of the %lld rows of %s is for training; check the split", (long long)import->report->rows,
          import->options->csv_path);
  return write_metadata(import);
}

static enum status write_file(struct import *import, const struct durable *durable) {
  TRY(h5_create(durable, &import->file));
  enum status status = write_rows(import);
  h5_dataset_close(&import->weight_set);
  h5_dataset_close(&import->split_set);
  h5_dataset_close(&import->target_set);
  h5_dataset_close(&import->input_set);
  enum status closed = h5_close(&import->file);
  return status != STATUS_OK ? status : closed;
}

static void count_columns(const struct import *import) {
  struct import_report *report = import->report;
  report->features = import->columns->features;
  for (size_t i = 0; i < import->columns->count; i++) {
    const struct column *column = &import->columns->column[i];
    report->numeric_columns += column->role == COLUMN_NUMERIC;
    report->nominal_columns += column->role == COLUMN_NOMINAL;
    report->values_filled += column->missing;
  }
}

static enum status run(struct import *import, const struct durable *durable) {
  TRY(scan(import));
  TRY(block_alloc(import));
  TRY(draw_protocol(import));
  if (columns_need_means(import->columns))
    TRY(fill_means(import));
  import->pass = import->passes - 1;
  TRY(write_file(import, durable));
  count_columns(import);
  TRY(import_report_count_targets(import->report, durable->temporary, import->options->targets,
                                  (int)import->options->target_count));
  for (int k = 0; k < import->report->target_count; k++) {
    const struct import_histogram *target = &import->report->targets[k];
    REQUIRE(target->minimum < target->maximum, ERR_FORMAT,
            "target \"%s\" is %g in all %lld training rows of %s; there is nothing to learn from a constant target",
            target->name, target->minimum, (long long)import->report->split_rows[SPLIT_TRAIN],
            import->options->csv_path);
  }
  return durable_commit(durable);
}

static void import_free(struct import *import) {
  moments_free(&import->moments);
  memory_free((void **)&import->copies);
  memory_free((void **)&import->labels);
  memory_free((void **)&import->split);
  memory_free((void **)&import->weights);
  memory_free((void **)&import->targets);
  memory_free((void **)&import->inputs);
  columns_destroy(&import->columns);
}

enum status import_csv(const struct import_csv_options *options, struct import_report **out) {
  struct import import = {.options = options};
  struct durable durable;
  *out = NULL;
  TRY(check_options(options));
  TRY(durable_begin(options->output_path, &durable));
  enum status status = import_report_create(options->output_path, &import.report);
  if (status == STATUS_OK)
    status = run(&import, &durable);
  import_free(&import);
  if (status == STATUS_OK) {
    *out = import.report;
    return STATUS_OK;
  }
  durable_abandon(&durable);
  import_report_destroy(&import.report);
  return status;
}
