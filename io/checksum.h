/* Checksums of bytes and of files, to notice that two are not the same.  Against accidents, not against forgers.
 *
 *     struct checksum sum = checksum_begin();
 *     checksum_add(&sum, bytes, count);
 *     uint64_t value = checksum_value(&sum);
 *
 * The value is CRC-32 and Adler-32, side by side: two sums of unlike kinds, both of zlib. */
#ifndef CONR_IO_CHECKSUM_H
#define CONR_IO_CHECKSUM_H

#include "dist/status.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

struct checksum {
  uint32_t crc, adler;
};

struct checksum checksum_begin(void);
void checksum_add(struct checksum *sum, const void *bytes, size_t count);
uint64_t checksum_value(const struct checksum *sum);

/* Of a run of a file's bytes.  ERR_FILE when they are not all there.  Local. */
enum status checksum_of_bytes(int file, const char *path, int64_t offset, int64_t count, uint64_t *out);

/* A file up to CHECKSUM_WHOLE bytes is read whole.  Of a larger one these are read: the first and the last
 * CHECKSUM_ENDS bytes, where HDF5 keeps what describes the rest, and CHECKSUM_PLACES pieces of CHECKSUM_PIECE bytes at
 * equal distances between them: 6 MiB in all, some seconds on the slowest of shared file systems.  The size is part of
 * the sum in either case. */
#define CHECKSUM_WHOLE ((int64_t)64 << 20)
#define CHECKSUM_ENDS ((int64_t)1 << 20)
#define CHECKSUM_PLACES 64
#define CHECKSUM_PIECE ((int64_t)64 << 10)

struct file_sum {
  int64_t bytes;    /* the file's size                         */
  int64_t modified; /* nanoseconds since 1970                  */
  int64_t read;     /* how many went into the sum; `bytes` = all of them */
  uint64_t sum;
};

/* ERR_FILE: it cannot be opened or read, or is no regular file.  ERR_FORMAT: it is empty.  Local. */
enum status checksum_file(const char *path, struct file_sum *out);

/* When it was last changed, as file_sum says it.  Local. */
int64_t checksum_modified(const struct stat *entry);

#endif
