/* zlib's two sums, over bytes and over files. */
#include "io/checksum.h"

#include "dist/memory.h"
#include "dist/pulse.h"
#include "io/read_at.h"
#include "io/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define READ_BYTES ((int64_t)1 << 20)

struct checksum checksum_begin(void) {
  return (struct checksum){.crc = (uint32_t)crc32_z(0, NULL, 0), .adler = (uint32_t)adler32_z(0, NULL, 0)};
}

void checksum_add(struct checksum *sum, const void *bytes, size_t count) {
  sum->crc = (uint32_t)crc32_z(sum->crc, bytes, count);
  sum->adler = (uint32_t)adler32_z(sum->adler, bytes, count);
}

uint64_t checksum_value(const struct checksum *sum) {
  return (uint64_t)sum->crc << 32 | sum->adler;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* A file that is being read, with room for a piece of it. */
struct reading {
  int file;
  const char *path;
  struct checksum sum;
  int64_t read;
  char *piece; /* [READ_BYTES] */
};

static enum status add_bytes(struct reading *reading, int64_t offset, int64_t count) {
  for (int64_t done = 0; done < count;) {
    int64_t part = count - done < READ_BYTES ? count - done : READ_BYTES;
    TRY(read_at(reading->file, reading->path, offset + done, (size_t)part, reading->piece));
    checksum_add(&reading->sum, reading->piece, (size_t)part);
    done += part;
  }
  reading->read += count;
  return STATUS_OK;
}

enum status checksum_of_bytes(int file, const char *path, int64_t offset, int64_t count, uint64_t *out) {
  struct reading reading = {.file = file, .path = path, .sum = checksum_begin()};
  TRY(memory_alloc((size_t)READ_BYTES, (void **)&reading.piece));
  enum status status = add_bytes(&reading, offset, count);
  *out = checksum_value(&reading.sum);
  memory_free((void **)&reading.piece);
  return status;
}

static enum status add_samples(struct reading *reading, int64_t bytes) {
  int64_t between = bytes - 2 * CHECKSUM_ENDS - CHECKSUM_PIECE;
  TRY(add_bytes(reading, 0, CHECKSUM_ENDS));
  for (int64_t i = 0; i < CHECKSUM_PLACES; i++)
    TRY(add_bytes(reading, CHECKSUM_ENDS + between / (CHECKSUM_PLACES - 1) * i, CHECKSUM_PIECE));
  return add_bytes(reading, bytes - CHECKSUM_ENDS, CHECKSUM_ENDS);
}

static enum status check_kind(const char *path, const struct stat *entry) {
  REQUIRE(!S_ISDIR(entry->st_mode), ERR_FILE, "cannot open %s: it is a directory; give an HDF5 file", path);
  REQUIRE(S_ISREG(entry->st_mode), ERR_FILE, "cannot open %s: it is not a regular file", path);
  REQUIRE(entry->st_size > 0, ERR_FORMAT, "%s is empty (0 bytes); it was never written to the end, make it again",
          path);
  return STATUS_OK;
}

int64_t checksum_modified(const struct stat *entry) {
  return (int64_t)entry->st_mtim.tv_sec * 1000000000 + entry->st_mtim.tv_nsec;
}

static enum status sum_open_file(struct reading *reading, struct file_sum *out) {
  struct stat entry;
  REQUIRE(fstat(reading->file, &entry) == 0, ERR_FILE, "cannot read %s: %s", reading->path, strerror(errno));
  TRY(check_kind(reading->path, &entry));
  TRY(memory_alloc((size_t)READ_BYTES, (void **)&reading->piece));
  int64_t bytes = entry.st_size;
  checksum_add(&reading->sum, &bytes, sizeof bytes);
  TRY(bytes <= CHECKSUM_WHOLE ? add_bytes(reading, 0, bytes) : add_samples(reading, bytes));
  *out = (struct file_sum){.bytes = bytes,
                           .modified = checksum_modified(&entry),
                           .read = reading->read,
                           .sum = checksum_value(&reading->sum)};
  return STATUS_OK;
}

enum status checksum_file(const char *path, struct file_sum *out) {
  struct reading reading = {.path = path, .sum = checksum_begin()};
  struct stat entry;
  /* Not opened before it is known to be a file: opening a pipe would wait for its other end. */
  pulse_storage_asked();
  bool there = stat(path, &entry) == 0;
  pulse_storage_answered();
  REQUIRE(there, ERR_FILE, "cannot open %s: %s; check the path", path, strerror(errno));
  TRY(check_kind(path, &entry));
  reading.file = storage_open(path, O_RDONLY);
  REQUIRE(reading.file >= 0, ERR_FILE, "cannot open %s: %s", path, strerror(errno));
  enum status status = sum_open_file(&reading, out);
  memory_free((void **)&reading.piece);
  close(reading.file);
  return status;
}
