/* Files for tests of io/. */
#define _GNU_SOURCE
#include "tests/io_files.h"

#include "dist/memory.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static char folder[64];

void io_files_begin(void) {
  snprintf(folder, sizeof folder, "/tmp/conr-test-XXXXXX");
  cr_assert(mkdtemp(folder) != NULL);
}

static int remove_entry(const char *path, const struct stat *entry, int kind, struct FTW *place) {
  (void)entry, (void)kind, (void)place;
  return remove(path);
}

void io_files_end(void) {
  nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

void io_check_memory(size_t before) {
  cr_assert(eq(sz, memory_in_use(), before), "the test keeps memory");
}

const char *io_file(const char *name) {
  static char *paths[1024]; /* kept until the test's process ends */
  static int count;
  char path[512];
  snprintf(path, sizeof path, "%s%s%s", folder, name[0] != '\0' ? "/" : "", name);
  for (int i = 0; i < count; i++)
    if (strcmp(paths[i], path) == 0)
      return paths[i];
  cr_assert(lt(int, count, 1024));
  return paths[count++] = strdup(path);
}

void io_write(const char *path, const void *data, size_t bytes) {
  FILE *stream = fopen(path, "wb");
  cr_assert(stream != NULL);
  cr_assert(eq(sz, fwrite(data, 1, bytes, stream), bytes));
  cr_assert(fclose(stream) == 0);
}

void io_write_text(const char *path, const char *text) {
  io_write(path, text, strlen(text));
}

char *io_read(const char *path, size_t *bytes) {
  FILE *stream = fopen(path, "rb");
  cr_assert(stream != NULL, "%s does not exist", path);
  fseek(stream, 0, SEEK_END);
  size_t size = (size_t)ftell(stream);
  rewind(stream);
  char *data = malloc(size + 1);
  cr_assert(eq(sz, fread(data, 1, size, stream), size));
  data[size] = '\0';
  fclose(stream);
  if (bytes != NULL)
    *bytes = size;
  return data;
}

bool io_exists(const char *path) {
  return access(path, F_OK) == 0;
}

void io_fill_disk(size_t bytes) {
  struct rlimit limit;
  signal(SIGXFSZ, SIG_IGN);
  cr_assert(getrlimit(RLIMIT_FSIZE, &limit) == 0);
  limit.rlim_cur = bytes;
  cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

void io_empty_disk(void) {
  struct rlimit limit;
  cr_assert(getrlimit(RLIMIT_FSIZE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;
  cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

#define EXIT_NO_MODULE 77

void io_python_with(const char *modules, double seconds, const char *program, const char *argument) {
  const char *python = getenv("PYTHON");
  if (python == NULL || python[0] == '\0')
    python = "python3";
  struct run_result run;
  char *text = NULL;
  cr_assert(asprintf(&text, "import sys\ntry:\n import %s\nexcept ImportError:\n sys.exit(%d)\n%s", modules,
                     EXIT_NO_MODULE, program) > 0);
  char *const command[] = {(char *)python, "-c", text, (char *)argument, NULL};
  int failed = run_command(command, seconds, &run);
  free(text);
  if (failed == EXIT_NO_MODULE || failed == RUN_NOT_STARTED) {
    io_files_end(); /* a test that is skipped has no end of its own */
    cr_skip("no Python with %s: set PYTHON", modules);
  }
  cr_assert(eq(int, failed, 0), "%s", run.output);
  run_result_free(&run);
}

void io_python(const char *program, const char *argument) {
  io_python_with("h5py, numpy", 60, program, argument);
}
