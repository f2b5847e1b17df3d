/* Files for tests of io/: a folder that goes away, a disk that is full, a Python with h5py.
 *
 *     TestSuite(dataset, .init = io_files_begin, .fini = io_files_end);
 *     FILE_TEST(dataset, rows_come_back) {
 *       const char *path = io_file("table.csv");            in the test's own folder
 *       io_write_text(path, "a,b\n1,2\n");
 *     }
 *
 * A FILE_TEST is a Test that also fails when its body keeps memory.  (Criterion does not count what fails in a
 * .fini.) */
#ifndef CONR_TESTS_IO_FILES_H
#define CONR_TESTS_IO_FILES_H

#include "dist/memory.h"

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stddef.h>

void io_files_begin(void);
void io_files_end(void);

#define FILE_TEST(suite, name)              \
  static void suite##_##name##_body(void);  \
  Test(suite, name) {                       \
    size_t memory_before = memory_in_use(); \
    suite##_##name##_body();                \
    io_check_memory(memory_before);         \
  }                                         \
  static void suite##_##name##_body(void)

/* Fails the test unless as much memory is in use as before. */
void io_check_memory(size_t before);

/* A path in the test's folder; valid until the test ends; "" gives the folder. */
const char *io_file(const char *name);

/* Write a file, or read one whole (free() it; NUL-terminated, *bytes may be NULL). */
void io_write(const char *path, const void *data, size_t bytes);
void io_write_text(const char *path, const char *text);
char *io_read(const char *path, size_t *bytes);

bool io_exists(const char *path);

/* From now on no file of this process can grow beyond `bytes`: writes fail as on a full disk (EFBIG for ENOSPC). */
void io_fill_disk(size_t bytes);

/* And no longer. */
void io_empty_disk(void);

/* Run a Python program with h5py and numpy, with one argument.  Skips the test when there is no such Python ($PYTHON,
 * else python3); fails it when the program fails. */
void io_python(const char *program, const char *argument);

/* The same with these modules, such as "torch, safetensors", and a time limit. */
void io_python_with(const char *modules, double seconds, const char *program, const char *argument);

#endif
