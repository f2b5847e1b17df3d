/* The choice of a way, and the way by a file. */
#include "dist/rendezvous.h"

#include "dist/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_VARIABLE "CONR_NCCL_ID_FILE"
#define ADDRESS_VARIABLE "CONR_NCCL_ID_ADDRESS"

/* --- by a file ------------------------------------------------------------------------------------------------ */

static enum status write_all(const char *path, const void *data, size_t bytes) {
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  REQUIRE(file >= 0, ERR_FILE, "%s cannot be written: %s", path, strerror(errno));
  ssize_t written = write(file, data, bytes);
  int error = written < 0 ? errno : (size_t)written < bytes ? ENOSPC : fsync(file) != 0 ? errno : 0;
  close(file);
  REQUIRE(error == 0, ERR_FILE, "%s cannot be written: %s", path, strerror(error));
  return STATUS_OK;
}

/* Written aside and renamed: who finds the file finds all of it. */
static enum status write_file(const char *path, const void *bytes, size_t count) {
  char aside[4096];
  REQUIRE((size_t)snprintf(aside, sizeof aside, "%s.new", path) < sizeof aside, ERR_ARGUMENT,
          FILE_VARIABLE " is too long a path");
  TRY(write_all(aside, bytes, count));
  REQUIRE(rename(aside, path) == 0, ERR_FILE, "%s cannot be renamed to %s: %s", aside, path, strerror(errno));
  return STATUS_OK;
}

/* A shared file system may show the file late. */
static enum status read_file(const char *path, void *bytes, size_t count, double timeout_seconds) {
  enum { SLEEP_MICROSECONDS = 10000 };
  double begin = log_seconds();
  int file = open(path, O_RDONLY);
  while (file < 0 && errno == ENOENT && log_seconds() - begin < timeout_seconds) {
    usleep(SLEEP_MICROSECONDS);
    file = open(path, O_RDONLY);
  }
  REQUIRE(file >= 0, ERR_FILE,
          "%s, where rank 0 puts NCCL's id, cannot be read: %s; is its folder shared by all nodes?", path,
          strerror(errno));
  ssize_t found = read(file, bytes, count);
  close(file);
  REQUIRE(found == (ssize_t)count, ERR_FILE, "%s holds %zd bytes, not an id of NCCL", path, found);
  return STATUS_OK;
}

static enum status by_file(struct comm *host, const char *path, void *bytes, size_t count, double timeout_seconds) {
  bool root = comm_rank(host) == 0;
  if (root)
    unlink(path); /* of an earlier run that was killed; the others look only after the agreement */
  TRY(comm_agree(host, root ? write_file(path, bytes, count) : STATUS_OK));
  return comm_agree(host, root ? STATUS_OK : read_file(path, bytes, count, timeout_seconds));
}

/* --- the choice ----------------------------------------------------------------------------------------------- */

/* Set on all ranks, or on none. */
static enum status agree_on(struct comm *host, const char *variable, const char **value) {
  *value = getenv(variable);
  int64_t set[2] = {*value != NULL, *value == NULL};
  TRY(comm_max_i64(host, set, 2));
  REQUIRE(!set[0] || !set[1], ERR_ARGUMENT, "%s is set on some ranks only; set it on all of them", variable);
  return STATUS_OK;
}

enum status rendezvous_share(struct comm *host, void *bytes, size_t count, double timeout_seconds) {
  const char *path, *address;
  TRY(comm_agree(host, agree_on(host, FILE_VARIABLE, &path)));
  TRY(comm_agree(host, agree_on(host, ADDRESS_VARIABLE, &address)));
  if (path != NULL && address != NULL)
    return comm_agree(host, fail(ERR_ARGUMENT, FILE_VARIABLE " and " ADDRESS_VARIABLE " are both set; give one"));
  if (path != NULL)
    return by_file(host, path, bytes, count, timeout_seconds);
  if (address != NULL)
    return comm_agree(host, rendezvous_tcp(host, address, bytes, count, timeout_seconds));
  return comm_broadcast(host, bytes, count, 0);
}

void rendezvous_forget(const struct comm *host) {
  const char *path = getenv(FILE_VARIABLE);
  if (path != NULL && comm_rank(host) == 0)
    unlink(path);
}
