/* Small tables in the dataset layout. */
#include "tests/io_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(call) check((call), #call, __LINE__)

static hid_t check(hid_t code, const char *call, int line) {
  if (code < 0) {
    fprintf(stderr, "io_table.c:%d: %s failed\n", line, call);
    abort();
  }
  return code;
}

struct io_table io_table_plain(int64_t rows, int features) {
  return (struct io_table){
      .rows = rows, .features = features, .targets = 1, .input_type = H5T_IEEE_F32LE, .standardise = true};
}

double io_table_input(int64_t row, int feature) {
  return (float)((double)(row * 7 % 31) * 0.375 - 1.25 * feature + 1.0 / 3);
}

double io_table_mean(int feature) {
  return 0.1 * feature - 1.0 / 7;
}

double io_table_std(int feature) {
  return 0.3 + feature;
}

static void write_set(hid_t file, const char *name, hid_t type, int rank, const hsize_t *shape, hid_t creation,
                      const double *values) {
  hid_t space = CHECK(H5Screate_simple(rank, shape, NULL));
  hid_t set = CHECK(H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT));
  if (values != NULL)
    CHECK(H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values));
  H5Dclose(set);
  H5Sclose(space);
}

static void write_names(hid_t file, const char *name, const char *stem, int count) {
  char(*names)[32] = calloc((size_t)count, sizeof *names);
  hsize_t extent = (hsize_t)count;
  hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate_simple(1, &extent, NULL);
  for (int i = 0; i < count; i++)
    snprintf(names[i], sizeof names[i], "%s %d", stem, i + 1);
  CHECK(H5Tset_size(type, 32));
  hid_t attribute = CHECK(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
  CHECK(H5Awrite(attribute, type, names));
  H5Aclose(attribute);
  H5Sclose(space);
  H5Tclose(type);
  free(names);
}

static void write_inputs(const struct io_table *table, hid_t file) {
  hsize_t shape[2] = {(hsize_t)table->rows, (hsize_t)table->features};
  hsize_t chunk[2] = {table->rows > 5 ? 5 : shape[0], (shape[1] + 1) / 2};
  double *values = malloc((size_t)(table->rows * table->features + 1) * sizeof *values);
  for (int64_t i = 0; i < table->rows; i++)
    for (int j = 0; j < table->features; j++)
      values[i * table->features + j] = io_table_input(i, j);
  hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  if (table->chunked || table->compressed)
    CHECK(H5Pset_chunk(creation, 2, chunk));
  if (table->compressed)
    CHECK(H5Pset_deflate(creation, 4));
  write_set(file, "inputs", table->input_type, 2, shape, creation, values);
  H5Pclose(creation);
  free(values);
}

static void write_labels(const struct io_table *table, hid_t file) {
  hsize_t shape[2] = {(hsize_t)table->rows, (hsize_t)table->targets};
  double *values = malloc((size_t)(table->rows * table->targets + 1) * sizeof *values);
  for (int64_t i = 0; i < table->rows * table->targets; i++) {
    int64_t row = i / table->targets;
    values[i] = (double)row + 10.0 * (double)(i % table->targets) + 0.25;
  }
  write_set(file, "targets", H5T_IEEE_F64LE, table->targets > 1 ? 2 : 1, shape, H5P_DEFAULT, values);
  for (int64_t i = 0; i < table->rows; i++)
    values[i] = i % 5 < 3 ? 0 : (double)(i % 5 - 2);
  write_set(file, "split", H5T_STD_U8LE, 1, shape, H5P_DEFAULT, values);
  for (int64_t i = 0; i < table->rows; i++)
    values[i] = 1 + (double)(i % 3);
  if (table->weights)
    write_set(file, "weights", H5T_IEEE_F32LE, 1, shape, H5P_DEFAULT, values);
  free(values);
}

void io_table_write(const struct io_table *table, const char *path) {
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  hid_t file = CHECK(H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
  write_inputs(table, file);
  write_labels(table, file);
  if (table->standardise) {
    hsize_t features = (hsize_t)table->features;
    double *values = malloc((size_t)table->features * sizeof *values);
    H5Gclose(CHECK(H5Gcreate2(file, "standardise", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)));
    for (int j = 0; j < table->features; j++)
      values[j] = io_table_mean(j);
    write_set(file, "standardise/mean", H5T_IEEE_F64LE, 1, &features, H5P_DEFAULT, values);
    for (int j = 0; j < table->features; j++)
      values[j] = io_table_std(j);
    write_set(file, "standardise/std", H5T_IEEE_F64LE, 1, &features, H5P_DEFAULT, values);
    free(values);
  }
  if (table->names) {
    write_names(file, "feature_names", "feature", table->features);
    write_names(file, "target_names", "target", table->targets);
  }
  CHECK(H5Fclose(file));
}

void io_table_put(const char *path, const char *name, int64_t index, double value) {
  hid_t file = CHECK(H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT));
  hid_t set = CHECK(H5Dopen2(file, name, H5P_DEFAULT)), space = H5Dget_space(set);
  int64_t count = H5Sget_simple_extent_npoints(space);
  double *values = malloc((size_t)count * sizeof *values);
  CHECK(H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values));
  values[index] = value;
  CHECK(H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values));
  free(values);
  H5Sclose(space);
  H5Dclose(set);
  CHECK(H5Fclose(file));
}

void io_table_remove(const char *path, const char *name) {
  hid_t file = CHECK(H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT));
  CHECK(H5Ldelete(file, name, H5P_DEFAULT));
  CHECK(H5Fclose(file));
}

void io_table_replace(const char *path, const char *name, hid_t type, int rank, const hsize_t *shape) {
  hid_t file = CHECK(H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT));
  if (H5Lexists(file, name, H5P_DEFAULT) > 0)
    CHECK(H5Ldelete(file, name, H5P_DEFAULT));
  write_set(file, name, type, rank, shape, H5P_DEFAULT, NULL);
  CHECK(H5Fclose(file));
}

void io_table_attribute(const char *path, const char *name, const char *text) {
  hid_t file = CHECK(H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT));
  hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
  CHECK(H5Tset_size(type, strlen(text) + 1));
  hid_t attribute = CHECK(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT));
  CHECK(H5Awrite(attribute, type, text));
  H5Aclose(attribute);
  H5Sclose(space);
  H5Tclose(type);
  CHECK(H5Fclose(file));
}
