/* Reads that are checked. */
#include "io/read_at.h"

#include "dist/pulse.h"
#include "io/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum status open_checked(const char *path, int64_t offset, int64_t bytes, int *out) {
  struct stat entry;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  REQUIRE(file >= 0, ERR_FILE, "cannot open %s: %s", path, strerror(errno));
  if (fstat(file, &entry) != 0 || offset < 0 || offset > entry.st_size || bytes > entry.st_size - offset) {
    close(file);
    return fail(ERR_FORMAT, "%s is damaged or cut short: %lld bytes from byte %lld on are not all there", path,
                (long long)bytes, (long long)offset);
  }
  *out = file;
  return STATUS_OK;
}

enum status read_at_open(const char *path, int64_t offset, int64_t bytes, int *out) {
  pulse_storage_asked();
  enum status status = open_checked(path, offset, bytes, out);
  pulse_storage_answered();
  return status;
}

enum status read_at(int file, const char *path, int64_t offset, size_t bytes, void *out) {
  ssize_t got = storage_read(file, out, bytes, offset);
  REQUIRE(got >= 0, ERR_FILE, "cannot read %s: %s", path, strerror(errno));
  REQUIRE((size_t)got == bytes, ERR_FILE, "%s was cut short while it was in use: byte %lld is gone", path,
          (long long)(offset + got));
  return STATUS_OK;
}
