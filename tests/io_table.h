/* Small tables in the dataset layout, made with plain HDF5 calls so that io/ is not its own witness.
 *
 *     struct io_table table = io_table_plain(12, 3);
 *     table.compressed = true;
 *     io_table_write(&table, path);
 *     io_table_put(path, "targets", 5, NAN);              one number of it, to see what happens
 *
 * Row i has inputs io_table_input(i, j), targets i + 10 k + 0.25, split 0 0 0 1 2 0 0 0 1 2 ..., weight 1 + i % 3.
 * A failing call prints a sentence and aborts: tests and MPI programs use this alike. */
#ifndef CONR_TESTS_IO_TABLE_H
#define CONR_TESTS_IO_TABLE_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

struct io_table {
  int64_t rows;
  int features;
  int targets;      /* 1 writes [rows], more [rows, targets]           */
  hid_t input_type; /* of the file, such as H5T_IEEE_F32LE             */
  bool chunked, compressed;
  bool weights, standardise, names;
};

/* float32, contiguous, one target, standardised, without weights and names. */
struct io_table io_table_plain(int64_t rows, int features);
void io_table_write(const struct io_table *table, const char *path);

/* What is stored, as float32; and mean and std of feature j. */
double io_table_input(int64_t row, int feature);
double io_table_mean(int feature);
double io_table_std(int feature);

/* Change a file: one number, by its index in the flattened dataset; remove a dataset or group; put a dataset of
 * zeros of another shape or type in its place. */
void io_table_put(const char *path, const char *name, int64_t index, double value);
void io_table_remove(const char *path, const char *name);
void io_table_replace(const char *path, const char *name, hid_t type, int rank, const hsize_t *shape);

/* Set a text attribute of the root. */
void io_table_attribute(const char *path, const char *name, const char *text);

#endif
