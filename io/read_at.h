/* Bytes of an open file at a place, whole or not at all.  Local; any number of threads may share the descriptor. */
#ifndef CONR_IO_READ_AT_H
#define CONR_IO_READ_AT_H

#include "dist/status.h"

#include <stddef.h>
#include <stdint.h>

/* Open for reading and check that `bytes` from `offset` on lie inside.  path: also for sentences. */
enum status read_at_open(const char *path, int64_t offset, int64_t bytes, int *out);

/* ERR_FILE: it cannot be read, or was cut short meanwhile. */
enum status read_at(int file, const char *path, int64_t offset, size_t bytes, void *out);

#endif
