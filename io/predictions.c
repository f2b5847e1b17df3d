/* Predictions as HDF5 or CSV. */
#include "io/predictions.h"

#include "dist/decimal.h"
#include "dist/memory.h"
#include "io/array_file.h"
#include "io/durable.h"

#include <csv.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool ends_with(const char *path, const char *ending) {
  size_t length = strlen(path), tail = strlen(ending);
  return length > tail && strcasecmp(path + length - tail, ending) == 0;
}

static bool is_csv(const char *path) {
  return ends_with(path, ".csv");
}

enum status predictions_check_path(const char *path) {
  REQUIRE(is_csv(path) || ends_with(path, ".h5") || ends_with(path, ".hdf5"), ERR_ARGUMENT,
          "cannot tell how to write predictions to %s: its name must end in .h5 or .hdf5 (HDF5) or in .csv (CSV)",
          path);
  return STATUS_OK;
}

/* What stands in a row, in this order; values NULL = it does not. */
#define COLUMNS 3
struct columns {
  const char *csv, *h5;
  const double *values;
};

static void list_columns(const struct predictions *predictions, struct columns columns[COLUMNS]) {
  columns[0] = (struct columns){"label", "labels", predictions->labels};
  columns[1] = (struct columns){"prediction", "predictions", predictions->values};
  columns[2] = (struct columns){"deviation", "deviations", predictions->deviations};
}

static void print_header(FILE *stream, const struct predictions *predictions, const struct columns *columns) {
  fputs("row", stream);
  for (int part = 0; part < COLUMNS; part++) {
    for (int k = 0; k < predictions->targets && columns[part].values != NULL; k++) {
      char name[512];
      snprintf(name, sizeof name, "%s_%s", columns[part].csv, predictions->target_names[k]);
      fputc(',', stream);
      if (strpbrk(name, ",\"\r\n") != NULL)
        csv_fwrite(stream, name, strlen(name));
      else
        fputs(name, stream);
    }
  }
  fputc('\n', stream);
}

static void print_numbers(FILE *stream, const double *values, int count) {
  char text[DECIMAL_BYTES];
  for (int k = 0; k < count; k++) {
    fputc(',', stream);
    fputs(decimal_text(values[k], text), stream);
  }
}

static enum status print_csv(void *context, FILE *stream) {
  const struct predictions *predictions = context;
  struct columns columns[COLUMNS];
  list_columns(predictions, columns);
  print_header(stream, predictions, columns);
  for (int64_t row = 0; row < predictions->rows && !ferror(stream); row++) {
    fprintf(stream, "%lld", (long long)predictions->ids[row]);
    for (int part = 0; part < COLUMNS; part++)
      if (columns[part].values != NULL)
        print_numbers(stream, columns[part].values + row * predictions->targets, predictions->targets);
    fputc('\n', stream);
  }
  return STATUS_OK;
}

static enum status write_h5(const char *path, const struct predictions *predictions) {
  struct array arrays[1 + COLUMNS];
  struct columns columns[COLUMNS];
  int64_t shape[2] = {predictions->rows, predictions->targets};
  size_t count = 0, fixed = 2, targets = (size_t)predictions->targets;
  TRY(array_borrow("row", ARRAY_I64, 1, shape, (void *)predictions->ids, &arrays[count++]));
  list_columns(predictions, columns);
  for (int part = 0; part < COLUMNS; part++)
    if (columns[part].values != NULL)
      TRY(array_borrow(columns[part].h5, ARRAY_F64, 2, shape, (void *)columns[part].values, &arrays[count++]));
  /* One block: the attributes, then their names. */
  struct attribute *attributes = NULL;
  TRY(memory_alloc((fixed + targets) * (sizeof *attributes + 32), (void **)&attributes));
  char(*names)[32] = (char(*)[32])(attributes + fixed + targets);
  attributes[0] = attribute_text("conr_format", "predictions");
  attributes[1] = attribute_integer("conr_version", 1);
  for (size_t k = 0; k < targets; k++) {
    snprintf(names[k], sizeof names[k], "target_%zu", k);
    attributes[fixed + k] = attribute_text(names[k], predictions->target_names[k]);
  }
  enum status status = array_file_write(path, arrays, count, attributes, fixed + targets);
  memory_free((void **)&attributes);
  return status;
}

enum status predictions_write(const char *path, const struct predictions *predictions) {
  TRY(predictions_check_path(path));
  return is_csv(path) ? durable_print(path, print_csv, (void *)predictions) : write_h5(path, predictions);
}
