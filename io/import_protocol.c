/* Rows of an image import by a stress protocol: each as often as it was drawn for each split. */
#include "dist/memory.h"
#include "io/import_internal.h"

#include <string.h>

/* The rows, and what is known of their images, so many times as `copies` says. */
struct multiplied {
  double *targets, *weights;
  uint8_t *split;
  char **path;
  int64_t *number;
  struct import_record *records;
};

static enum status allocate(const struct import_rows *rows, size_t count, struct multiplied *out) {
  TRY(memory_alloc(count * (size_t)rows->target_count * sizeof *out->targets, (void **)&out->targets));
  if (rows->weights != NULL)
    TRY(memory_alloc(count * sizeof *out->weights, (void **)&out->weights));
  TRY(memory_alloc(count, (void **)&out->split));
  TRY(memory_alloc(count * sizeof *out->path, (void **)&out->path));
  TRY(memory_alloc(count * sizeof *out->number, (void **)&out->number));
  return memory_alloc(count * sizeof *out->records, (void **)&out->records);
}

static void copy_row(const struct import *import, int64_t from, int split, int64_t to, struct multiplied *out) {
  const struct import_rows *rows = import->rows;
  size_t width = (size_t)rows->target_count;
  memcpy(out->targets + (size_t)to * width, rows->targets + (size_t)from * width, width * sizeof *out->targets);
  if (rows->weights != NULL)
    out->weights[to] = rows->weights[from];
  out->split[to] = (uint8_t)split;
  out->path[to] = rows->path[from];
  out->number[to] = rows->number[from];
  out->records[to] = import->records[from];
}

/* The old columns go, but for the texts that paths point to. */
static void replace(struct import *import, int64_t count, struct multiplied *with) {
  struct import_rows *rows = import->rows;
  memory_free((void **)&rows->targets);
  memory_free((void **)&rows->weights);
  memory_free((void **)&rows->split);
  memory_free((void **)&rows->number);
  memory_free((void **)&import->records);
  rows->path_texts = rows->path;
  rows->targets = with->targets;
  rows->weights = with->weights;
  rows->split = with->split;
  rows->path = with->path;
  rows->number = with->number;
  import->records = with->records;
  rows->count = count;
}

static void free_multiplied(struct multiplied *own) {
  memory_free((void **)&own->records);
  memory_free((void **)&own->number);
  memory_free((void **)&own->path);
  memory_free((void **)&own->split);
  memory_free((void **)&own->weights);
  memory_free((void **)&own->targets);
}

static enum status multiply(struct import *import, const uint16_t *copies, int64_t count) {
  struct multiplied more = {0};
  int64_t to = 0;
  enum status status = allocate(import->rows, (size_t)count, &more);
  if (status != STATUS_OK) {
    free_multiplied(&more);
    return status;
  }
  for (int64_t from = 0; from < import->rows->count; from++)
    for (int split = 0; split < SPLIT_COUNT; split++)
      for (int i = 0; i < copies[from * SPLIT_COUNT + split]; i++)
        copy_row(import, from, split, to++, &more);
  replace(import, count, &more);
  return STATUS_OK;
}

enum status import_apply_protocol(struct import *import) {
  const struct protocol_options *options = &import->options->protocol;
  struct import_rows *rows = import->rows;
  struct protocol_report *report = &import->report->labels->protocol;
  double *labels = NULL;
  uint16_t *copies = NULL;
  enum status status;
  if (options->kind == PROTOCOL_NONE)
    return STATUS_OK;
  TRY_GOTO(memory_alloc((size_t)rows->count * sizeof *labels, (void **)&labels), out);
  TRY_GOTO(memory_alloc_zero((size_t)rows->count * SPLIT_COUNT * sizeof *copies, (void **)&copies), out);
  for (int64_t i = 0; i < rows->count; i++)
    labels[i] = rows->targets[i * rows->target_count];
  TRY_GOTO(protocol_draw(options, rows->count, labels, copies, report), out);
  rows->draw_split = false;
  status = multiply(import, copies, report->rows[SPLIT_TRAIN] + report->rows[SPLIT_VAL] + report->rows[SPLIT_TEST]);
out:
  memory_free((void **)&copies);
  memory_free((void **)&labels);
  return status;
}
