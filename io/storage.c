/* pread, pwrite, fsync and the like, which go on until it is done. */
#define _GNU_SOURCE /* sync_file_range */
#include "io/storage.h"

#include "dist/pulse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

ssize_t storage_read(int file, void *out, size_t bytes, int64_t offset) {
  size_t done = 0;
  while (done < bytes) {
    size_t piece = bytes - done < STORAGE_PIECE ? bytes - done : STORAGE_PIECE;
    pulse_storage_asked();
    ssize_t got = pread(file, (char *)out + done, piece, (off_t)(offset + (int64_t)done));
    pulse_storage_answered();
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return -1;
    if (got == 0)
      break;
    done += (size_t)got;
  }
  return (ssize_t)done;
}

int storage_write(int file, const void *data, size_t bytes, int64_t offset) {
  for (size_t done = 0; done < bytes;) {
    size_t piece = bytes - done < STORAGE_PIECE ? bytes - done : STORAGE_PIECE;
    const char *next = (const char *)data + done;
    pulse_storage_asked();
    ssize_t put = offset == STORAGE_APPEND ? write(file, next, piece)
                                           : pwrite(file, next, piece, (off_t)(offset + (int64_t)done));
    pulse_storage_answered();
    if (put < 0 && errno == EINTR)
      continue;
    if (put <= 0)
      return put < 0 ? errno : EIO;
    done += (size_t)put;
  }
  return 0;
}

/* A single fsync() of a large file may take minutes on a slow disk, and nobody could say that it moves.  Where the
 * system does not know pieces, which is asked by none of the flags, all is written at the end.  An error shows only once,
 * whatever it is (ENODATA of a bad sector, ETIMEDOUT of a server): it counts here, since fsync() would not see it. */
static int sync_pieces(int file, off_t from) {
  const off_t piece = 4 * (off_t)STORAGE_PIECE;
  const unsigned flags = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  struct stat entry;
  if (fstat(file, &entry) != 0 || !S_ISREG(entry.st_mode) || sync_file_range(file, from, piece, 0) != 0)
    return 0;
  for (off_t at = from; at < entry.st_size;) {
    pulse_storage_asked();
    int error = sync_file_range(file, at, piece, flags) == 0 ? 0 : errno;
    pulse_storage_answered();
    if (error != 0 && error != EINTR)
      return error;
    at += error == 0 ? piece : 0;
  }
  return 0;
}

static int sync_by(int (*call)(int file), int file, int64_t from) {
  int error = sync_pieces(file, (off_t)from);
  if (error != 0)
    return error;
  pulse_storage_asked();
  error = call(file) == 0 ? 0 : errno;
  pulse_storage_answered();
  return error;
}

int storage_sync(int file, int64_t from) {
  return sync_by(fsync, file, from);
}

int storage_sync_data(int file, int64_t from) {
  return sync_by(fdatasync, file, from);
}

int storage_open(const char *path, int flags) {
  pulse_storage_asked();
  int file = open(path, flags | O_CLOEXEC, 0666);
  pulse_storage_answered();
  return file;
}

bool storage_has(const char *path) {
  pulse_storage_asked();
  bool there = access(path, F_OK) == 0;
  pulse_storage_answered();
  return there;
}

int storage_truncate(int file, int64_t bytes) {
  pulse_storage_asked();
  int error = ftruncate(file, (off_t)bytes) == 0 ? 0 : errno;
  pulse_storage_answered();
  return error;
}

int storage_remove(const char *path) {
  pulse_storage_asked();
  int error = unlink(path) == 0 ? 0 : errno;
  pulse_storage_answered();
  return error;
}

int storage_rename(const char *from, const char *to) {
  pulse_storage_asked();
  int error = rename(from, to) == 0 ? 0 : errno;
  pulse_storage_answered();
  return error;
}
