/* Files of a run folder. */
#include "launch/run_folder.h"

#include "dist/pulse.h"
#include "io/storage.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[] = {"checkpoint-last.h5", "checkpoint-previous.h5", "checkpoint-damaged.h5",
                                    "checkpoint-best.h5", "metrics.jsonl",          "config.used"};

const char *run_path(const char *folder, enum run_file file, char *buffer) {
  snprintf(buffer, PATH_MAX, "%s/%s", folder, names[file]);
  return buffer;
}

static enum status check_name(const char *folder) {
  REQUIRE(folder[0] != '\0', ERR_ARGUMENT, "the run folder's name is empty; give -o RUN");
  REQUIRE(strlen(folder) + 64 < PATH_MAX, ERR_ARGUMENT, "the run folder's name is too long (%zu characters)",
          strlen(folder));
  return STATUS_OK;
}

/* The folder itself, which is there. */
static enum status check_folder(const char *folder) {
  struct stat info;
  REQUIRE(stat(folder, &info) == 0 && S_ISDIR(info.st_mode), ERR_FILE,
          "cannot use %s as run folder: it is not a directory", folder);
  REQUIRE(access(folder, W_OK | X_OK) == 0, ERR_FILE, "cannot write to run folder %s: %s", folder, strerror(errno));
  return STATUS_OK;
}

enum status run_folder_check(const char *folder, char parent[PATH_MAX]) {
  struct stat info;
  char part[PATH_MAX];
  TRY(check_name(folder));
  strcpy(parent, folder[0] == '/' ? "/" : ".");
  strcpy(part, folder);
  for (char *slash = part + 1;; slash++) {
    if (*slash != '/' && *slash != '\0')
      continue;
    char kept = *slash;
    *slash = '\0';
    pulse_storage_asked();
    bool there = stat(part, &info) == 0;
    pulse_storage_answered();
    REQUIRE(there || errno == ENOENT, ERR_FILE, "cannot make run folder %s: %s", part, strerror(errno));
    if (there)
      strcpy(parent, part);
    REQUIRE(there || access(parent, W_OK | X_OK) == 0, ERR_FILE, "cannot make run folder %s: %s", part,
            strerror(errno));
    *slash = kept;
    if (!there)
      return STATUS_OK;
    if (kept == '\0')
      return check_folder(folder);
  }
}

enum status run_folder_make(const char *folder) {
  char path[PATH_MAX];
  TRY(check_name(folder));
  strcpy(path, folder);
  for (char *slash = path + 1;; slash++) {
    if (*slash != '/' && *slash != '\0')
      continue;
    char kept = *slash;
    *slash = '\0';
    pulse_storage_asked();
    int error = mkdir(path, 0777) == 0 ? 0 : errno;
    pulse_storage_answered();
    REQUIRE(error == 0 || error == EEXIST, ERR_FILE, "cannot make run folder %s: %s", path, strerror(error));
    *slash = kept;
    if (kept == '\0')
      break;
  }
  return check_folder(folder);
}

static bool exists(const char *folder, enum run_file file) {
  char path[PATH_MAX];
  return storage_has(run_path(folder, file, path));
}

bool run_folder_has_checkpoint(const char *folder) {
  return exists(folder, RUN_LAST) || exists(folder, RUN_PREVIOUS) || exists(folder, RUN_BEST);
}

static enum status remove_file(const char *path) {
  int error = storage_remove(path);
  REQUIRE(error == 0 || error == ENOENT, ERR_FILE, "cannot remove %s: %s", path, strerror(error));
  return STATUS_OK;
}

enum status run_folder_clear_unfinished(const char *folder) {
  static const char *const unfinished[] = {"checkpoint-best.h5.tmp", "checkpoint-last.h5.new.tmp",
                                           "checkpoint-last.h5.new"};
  char path[PATH_MAX];
  for (size_t i = 0; i < sizeof unfinished / sizeof *unfinished; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, unfinished[i]);
    TRY(remove_file(path));
  }
  return STATUS_OK;
}

enum status run_folder_clear(const char *folder) {
  char path[PATH_MAX];
  for (enum run_file file = RUN_LAST; file <= RUN_CONFIG; file++)
    TRY(remove_file(run_path(folder, file, path)));
  return run_folder_clear_unfinished(folder);
}

enum status run_folder_save(const char *folder, const struct checkpoint *checkpoint, bool best) {
  char last[PATH_MAX], previous[PATH_MAX], path[PATH_MAX], fresh[PATH_MAX + 8];
  run_path(folder, RUN_LAST, last);
  run_path(folder, RUN_PREVIOUS, previous);
  /* The best one first: a run killed in between repeats this epoch and writes the same best again. */
  if (best)
    TRY(checkpoint_write(run_path(folder, RUN_BEST, path), checkpoint));
  /* The new one is whole and on disk before the old one moves: at every moment one of the two names is good. */
  snprintf(fresh, sizeof fresh, "%s.new", last);
  TRY(checkpoint_write(fresh, checkpoint));
  int error = storage_rename(last, previous);
  REQUIRE(error == 0 || error == ENOENT, ERR_FILE, "cannot rename %s: %s", last, strerror(error));
  error = storage_rename(fresh, last);
  REQUIRE(error == 0, ERR_FILE, "cannot rename %s: %s", fresh, strerror(error));
  return STATUS_OK;
}

enum status run_folder_open_last(const char *folder, struct opened_checkpoint *out, char *note, size_t bytes) {
  char path[PATH_MAX], damaged[PATH_MAX], why[512] = "it is missing";
  note[0] = '\0';
  if (exists(folder, RUN_LAST)) {
    enum status status = checkpoint_open(run_path(folder, RUN_LAST, path), out);
    if (status == STATUS_OK || !exists(folder, RUN_PREVIOUS))
      return status;
    snprintf(why, sizeof why, "%s", status_message());
  }
  if (!exists(folder, RUN_LAST) && !exists(folder, RUN_PREVIOUS)) { /* the first save was cut in half */
    TRY(checkpoint_open(run_path(folder, RUN_BEST, path), out));
    snprintf(note, bytes, "there is no last checkpoint; going on from the best one, epoch %lld",
             (long long)out->progress.epoch + 1);
    return STATUS_OK;
  }
  TRY(checkpoint_open(run_path(folder, RUN_PREVIOUS, path), out));
  int error = storage_rename(run_path(folder, RUN_LAST, path), run_path(folder, RUN_DAMAGED, damaged));
  if (error != 0 && error != ENOENT) {
    checkpoint_close(out);
    return fail(ERR_FILE, "cannot rename %s: %s", path, strerror(error));
  }
  snprintf(note, bytes, "the last checkpoint cannot be used (%s); going on from the previous one, epoch %lld", why,
           (long long)out->progress.epoch + 1);
  return STATUS_OK;
}

enum status run_checkpoint_path(const char *run_or_file, const char *which, char *path) {
  struct stat info;
  REQUIRE(stat(run_or_file, &info) == 0, ERR_FILE, "cannot open %s: %s", run_or_file, strerror(errno));
  if (!S_ISDIR(info.st_mode)) {
    snprintf(path, PATH_MAX, "%s", run_or_file);
    return STATUS_OK;
  }
  REQUIRE(run_folder_has_checkpoint(run_or_file), ERR_FILE,
          "%s holds no checkpoint; give the folder that conr train -o wrote", run_or_file);
  bool best = strcmp(which, "best") == 0 && exists(run_or_file, RUN_BEST);
  run_path(run_or_file, best ? RUN_BEST : exists(run_or_file, RUN_LAST) ? RUN_LAST : RUN_PREVIOUS, path);
  return STATUS_OK;
}
