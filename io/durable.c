/* Write aside, sync, rename. */
#include "io/durable.h"

#include "dist/pulse.h"
#include "io/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The folder part of a path: "a/b" -> "a", "b" -> ".", "/b" -> "/". */
static void folder_of(const char *path, char folder[PATH_MAX]) {
  const char *slash = strrchr(path, '/');
  if (slash == NULL)
    snprintf(folder, PATH_MAX, ".");
  else if (slash == path)
    snprintf(folder, PATH_MAX, "/");
  else
    snprintf(folder, PATH_MAX, "%.*s", (int)(slash - path), path);
}

enum status durable_write_failed(const char *path, int error) {
  if (error == ENOSPC || error == EDQUOT || error == EFBIG)
    return fail(ERR_FILE, "cannot write %s: %s; free some space or choose another folder (no file was changed)", path,
                strerror(error));
  return fail(ERR_FILE, "cannot write %s: %s (no file was changed)", path, strerror(error));
}

enum status durable_name(const char *path, struct durable *out) {
  struct stat entry;
  char folder[PATH_MAX];
  REQUIRE(path[0] != '\0', ERR_ARGUMENT, "the name of the file to write is empty");
  REQUIRE(strlen(path) + 5 < PATH_MAX, ERR_ARGUMENT, "the path of %zu characters is too long", strlen(path));
  pulse_storage_asked();
  bool exists = stat(path, &entry) == 0;
  pulse_storage_answered();
  REQUIRE(!exists || !S_ISDIR(entry.st_mode), ERR_FILE, "cannot write %s: it is a directory; give the name of a file",
          path);
  /* Renaming over a device such as /dev/null would replace it. */
  REQUIRE(!exists || S_ISREG(entry.st_mode), ERR_FILE, "cannot write %s: it is not a regular file", path);
  folder_of(path, folder);
  REQUIRE(stat(folder, &entry) == 0 || errno != ENOENT, ERR_FILE,
          "cannot write %s: its folder %s does not exist; create it first", path, folder);
  snprintf(out->path, sizeof out->path, "%s", path);
  /* The precision tells the compiler what the check above ensures. */
  snprintf(out->temporary, sizeof out->temporary, "%.*s.tmp", PATH_MAX - 5, path);
  return STATUS_OK;
}

enum status durable_begin(const char *path, struct durable *out) {
  TRY(durable_name(path, out));
  int file = storage_open(out->temporary, O_WRONLY | O_CREAT | O_TRUNC);
  REQUIRE(file >= 0, ERR_FILE, "cannot write %s: %s; choose a folder you may write to", path, strerror(errno));
  close(file);
  return STATUS_OK;
}

/* fsync a file or folder by name. */
static int sync_path(const char *path, int flags) {
  int file = storage_open(path, flags);
  if (file < 0)
    return errno;
  int error = storage_sync(file, 0);
  close(file);
  return error;
}

enum status durable_commit(const struct durable *durable) {
  char folder[PATH_MAX];
  int error = sync_path(durable->temporary, O_RDWR);
  if (error != 0)
    return durable_write_failed(durable->path, error);
  error = storage_rename(durable->temporary, durable->path);
  if (error != 0)
    return durable_write_failed(durable->path, error);
  folder_of(durable->path, folder);
  error = sync_path(folder, O_RDONLY | O_DIRECTORY);
  /* Some file systems cannot sync a folder (EINVAL); the rename itself has happened. */
  REQUIRE(error == 0 || error == EINVAL || error == ENOTSUP, ERR_FILE,
          "%s was written, but its folder cannot be synced: %s", durable->path, strerror(error));
  return STATUS_OK;
}

void durable_abandon(const struct durable *durable) {
  storage_remove(durable->temporary);
}

enum status durable_print(const char *path, enum status (*print)(void *context, FILE *out), void *context) {
  struct durable durable;
  TRY(durable_begin(path, &durable));
  FILE *out = fopen(durable.temporary, "we");
  enum status status = out != NULL ? print(context, out) : durable_write_failed(path, errno);
  /* errno is that of the write that failed only while nothing else has run since: ask at once. */
  int error = out == NULL || !ferror(out) ? 0 : errno != 0 ? errno : EIO;
  if (out != NULL && fclose(out) != 0 && error == 0)
    error = errno;
  if (status == STATUS_OK && error != 0)
    status = durable_write_failed(path, error);
  if (status == STATUS_OK)
    status = durable_commit(&durable);
  if (status != STATUS_OK)
    durable_abandon(&durable);
  return status;
}
