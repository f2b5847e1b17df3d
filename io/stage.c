/* One file copied block by block, with a line for each block that is safely there. */
#define _GNU_SOURCE /* fallocate */
#include "io/stage.h"

#include "dist/log.h"
#include "dist/memory.h"
#include "io/checksum.h"
#include "io/durable.h"
#include "io/read_at.h"
#include "io/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define FORMAT "conr-stage 1"
#define NAME_ROOM 64  /* for "/conr-HASH.h5.tmp" behind the folder */
#define LINE_BYTES 17 /* 16 digits and a line end */

struct stage {
  const char *source, *folder;     /* borrowed, until stage_open() returns */
  const struct stage_watch *watch; /* likewise                             */
  struct stage_facts facts;
  char stem[PATH_MAX]; /* FOLDER/conr-HASH */
  struct file_sum sum; /* of the source    */
  int lock;            /* held while the copy is looked for and made; -1 = not */
  int copy;            /* the whole copy, open, and locked as one that is used; -1 = none */
  bool stopped;        /* by the watch                                    */
  bool useless;        /* what was copied: it is not worth going on with  */
};

/* What is open while blocks are compared or copied. */
struct blocks {
  int source, copy, sums;
  int64_t count;       /* of the whole file                    */
  int64_t done;        /* how many are known to be in the copy */
  char path[PATH_MAX]; /* of the copy that is looked at       */
  char *piece;         /* [STAGE_BLOCK]                        */
};

static const char *path_of(const struct stage *stage, const char *end, char path[PATH_MAX]) {
  snprintf(path, PATH_MAX, "%.*s%s", PATH_MAX - NAME_ROOM / 2, stage->stem, end);
  return path;
}

static bool go_on(struct stage *stage, enum stage_phase phase, int64_t done) {
  if (!stage->stopped && stage->watch != NULL)
    stage->stopped = !stage->watch->go_on(stage->watch->context, phase, done, stage->facts.bytes);
  return !stage->stopped;
}

static int64_t block_bytes(const struct stage *stage, int64_t block) {
  int64_t left = stage->facts.bytes - block * STAGE_BLOCK;
  return left < STAGE_BLOCK ? left : STAGE_BLOCK;
}

/* Where the disk is full its room is of more use than what was copied. */
static enum status write_failed(struct stage *stage, const char *path, int error) {
  stage->useless = stage->useless || error == ENOSPC || error == EDQUOT || error == EFBIG;
  return durable_write_failed(path, error);
}

/* ---- room ----------------------------------------------------------------------------------- */

static enum status check_folder(const char *folder) {
  struct stat entry;
  REQUIRE(folder[0] != '\0' && strlen(folder) + NAME_ROOM < PATH_MAX, ERR_ARGUMENT,
          "the folder of --stage is empty or too long (%zu characters)", strlen(folder));
  REQUIRE(stat(folder, &entry) == 0, ERR_FILE, "cannot stage to %s: %s; make the folder on each host", folder,
          strerror(errno));
  REQUIRE(S_ISDIR(entry.st_mode), ERR_FILE, "cannot stage to %s: it is not a directory", folder);
  REQUIRE(access(folder, W_OK | X_OK) == 0, ERR_FILE, "cannot stage to %s: %s", folder, strerror(errno));
  return STATUS_OK;
}

/* What a copy that was begun has already is not asked for again. */
static enum status check_room(const struct stage *stage, const char *folder, int64_t bytes) {
  struct statvfs disk;
  struct stat begun;
  char path[PATH_MAX];
  int64_t there = stat(path_of(stage, ".h5.tmp", path), &begun) == 0 ? begun.st_blocks * 512 : 0;
  REQUIRE(statvfs(folder, &disk) == 0, ERR_FILE, "cannot stage to %s: %s", folder, strerror(errno));
  double room = (double)disk.f_bavail * (double)disk.f_frsize;
  REQUIRE((double)(bytes - there) <= room, ERR_FILE,
          "cannot stage to %s: the copy takes %.6g MB more and %.6g MB are left; free some space or choose another "
          "folder",
          folder, (double)(bytes - there) / 1e6, room / 1e6);
  return STATUS_OK;
}

/* ---- the lock ------------------------------------------------------------------------------- */

/* Has the open file this name still?  Whoever removes a copy removes the lock's file as well: a lock on a file that has
 * no name any more is worth nothing. */
static bool is_named(const struct stage *stage, int file, const char *end) {
  struct stat open_file, named;
  char path[PATH_MAX];
  return fstat(file, &open_file) == 0 && stat(path_of(stage, end, path), &named) == 0 &&
         open_file.st_ino == named.st_ino && open_file.st_dev == named.st_dev;
}

static void pause_briefly(void) {
  nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
}

static enum status open_lock(struct stage *stage) {
  char path[PATH_MAX];
  stage->lock = storage_open(path_of(stage, ".lock", path), O_RDWR | O_CREAT);
  REQUIRE(stage->lock >= 0, ERR_FILE, "cannot write %s: %s", path, strerror(errno));
  return STATUS_OK;
}

static void close_lock(struct stage *stage) {
  if (stage->lock >= 0)
    close(stage->lock);
  stage->lock = -1;
}

/* Stops waiting when the watch says so. */
static enum status lock(struct stage *stage) {
  double began = log_seconds();
  enum status status = STATUS_OK;
  for (;;) {
    if (stage->lock < 0)
      TRY(open_lock(stage));
    if (flock(stage->lock, LOCK_EX | LOCK_NB) == 0) {
      if (is_named(stage, stage->lock, ".lock"))
        break;
      close_lock(stage);
    } else if (errno != EWOULDBLOCK && errno != EINTR) {
      status = fail(ERR_FILE, "cannot stage to %s: its file system has no locks (%s); choose a disk of the host",
                    stage->folder, strerror(errno));
      break;
    } else {
      if (!go_on(stage, STAGE_WAITS, 0))
        break;
      pause_briefly();
    }
  }
  stage->facts.waited += log_seconds() - began;
  return status;
}

/* ---- lines ---------------------------------------------------------------------------------- */

static int head_line(const struct stage *stage, char line[64]) {
  return snprintf(line, 64, FORMAT " %016" PRIx64 " %" PRId64 " %" PRId64 "\n", stage->sum.sum, stage->facts.bytes,
                  STAGE_BLOCK);
}

/* Opens the lines, and begins them where they are not those of this file; *lines = how many blocks they have. */
static enum status open_sums(struct stage *stage, struct blocks *blocks, int64_t *lines) {
  char path[PATH_MAX], head[64], found[64];
  struct stat entry;
  int length = head_line(stage, head);
  *lines = 0;
  blocks->sums = storage_open(path_of(stage, ".sums", path), O_RDWR | O_CREAT);
  REQUIRE(blocks->sums >= 0 && fstat(blocks->sums, &entry) == 0, ERR_FILE, "cannot write %s: %s", path,
          strerror(errno));
  if (storage_read(blocks->sums, found, (size_t)length, 0) == length && memcmp(found, head, (size_t)length) == 0) {
    *lines = (entry.st_size - length) / LINE_BYTES;
    *lines = *lines < blocks->count ? *lines : blocks->count;
    return STATUS_OK;
  }
  int error = storage_truncate(blocks->sums, 0);
  if (error == 0)
    error = storage_write(blocks->sums, head, (size_t)length, 0);
  return error == 0 ? STATUS_OK : write_failed(stage, path, error);
}

static bool read_line(const struct stage *stage, const struct blocks *blocks, int64_t block, uint64_t *sum) {
  char head[64], line[LINE_BYTES + 1] = "", end;
  off_t at = head_line(stage, head) + block * LINE_BYTES;
  return storage_read(blocks->sums, line, LINE_BYTES, at) == LINE_BYTES &&
         sscanf(line, "%16" SCNx64 "%c", sum, &end) == 2 && end == '\n';
}

static enum status write_line(struct stage *stage, const struct blocks *blocks, int64_t block, uint64_t sum) {
  char head[64], line[LINE_BYTES + 1], path[PATH_MAX];
  off_t at = head_line(stage, head) + block * LINE_BYTES;
  snprintf(line, sizeof line, "%016" PRIx64 "\n", sum);
  int error = storage_write(blocks->sums, line, LINE_BYTES, at);
  return error == 0 ? STATUS_OK : write_failed(stage, path_of(stage, ".sums", path), error);
}

/* ---- blocks --------------------------------------------------------------------------------- */

/* What the disk holds of a block, not what the page cache does. */
static enum status sum_of_copy(const struct stage *stage, const struct blocks *blocks, int64_t block, uint64_t *sum) {
  posix_fadvise(blocks->copy, (off_t)(block * STAGE_BLOCK), (off_t)block_bytes(stage, block), POSIX_FADV_DONTNEED);
  return checksum_of_bytes(blocks->copy, blocks->path, block * STAGE_BLOCK, block_bytes(stage, block), sum);
}

/* How many blocks from the first on are as their lines say.  Not all of them when told to stop. */
static int64_t compare(struct stage *stage, const struct blocks *blocks, int64_t lines) {
  for (int64_t block = 0; block < lines; block++) {
    uint64_t wanted, found;
    if (!go_on(stage, STAGE_COMPARES, block * STAGE_BLOCK) || !read_line(stage, blocks, block, &wanted) ||
        sum_of_copy(stage, blocks, block, &found) != STATUS_OK || found != wanted)
      return block;
  }
  return lines;
}

static enum status copy_block(struct stage *stage, struct blocks *blocks, int64_t block) {
  int64_t bytes = block_bytes(stage, block), offset = block * STAGE_BLOCK;
  struct checksum sum = checksum_begin();
  uint64_t found;
  TRY(read_at(blocks->source, stage->source, offset, (size_t)bytes, blocks->piece));
  checksum_add(&sum, blocks->piece, (size_t)bytes);
  int error = storage_write(blocks->copy, blocks->piece, (size_t)bytes, offset);
  if (error == 0)
    error = storage_sync_data(blocks->copy, offset);
  if (error != 0)
    return write_failed(stage, blocks->path, error);
  TRY(sum_of_copy(stage, blocks, block, &found));
  REQUIRE(found == checksum_value(&sum), ERR_FILE,
          "%s does not keep what is written to it: bytes from %lld on come back as others; use another disk",
          blocks->path, (long long)offset);
  return write_line(stage, blocks, block, checksum_value(&sum));
}

static enum status copy_blocks(struct stage *stage, struct blocks *blocks) {
  for (int64_t block = blocks->done; block < blocks->count && go_on(stage, STAGE_COPIES, block * STAGE_BLOCK);
       block++) {
    TRY(copy_block(stage, blocks, block));
    stage->facts.copied += block_bytes(stage, block);
  }
  return STATUS_OK;
}

/* Did the source stay as it was while it was read? */
static enum status check_source(struct stage *stage, const struct blocks *blocks) {
  struct stat entry;
  stage->useless = fstat(blocks->source, &entry) != 0 || entry.st_size != stage->sum.bytes ||
                   checksum_modified(&entry) != stage->sum.modified;
  REQUIRE(!stage->useless, ERR_FILE, "%s was changed while it was copied to %s; start again when it is done",
          stage->source, stage->folder);
  return STATUS_OK;
}

/* ---- whole copies --------------------------------------------------------------------------- */

static enum status open_blocks(struct stage *stage, const char *end, int flags, struct blocks *blocks) {
  path_of(stage, end, blocks->path);
  blocks->count = (stage->facts.bytes + STAGE_BLOCK - 1) / STAGE_BLOCK;
  blocks->copy = storage_open(blocks->path, flags);
  REQUIRE(blocks->copy >= 0, ERR_FILE, "cannot write %s: %s", blocks->path, strerror(errno));
  return memory_alloc((size_t)STAGE_BLOCK, (void **)&blocks->piece);
}

static void close_blocks(struct blocks *blocks) {
  int files[] = {blocks->source, blocks->copy, blocks->sums};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    if (files[i] >= 0)
      close(files[i]);
  memory_free((void **)&blocks->piece);
}

/* Take the whole copy into use: who removes it asks for this lock alone. */
static enum status use(struct stage *stage, int copy) {
  stage->copy = copy;
  REQUIRE(flock(copy, LOCK_SH | LOCK_NB) == 0, ERR_FILE, "cannot stage to %s: its file system has no locks (%s)",
          stage->folder, strerror(errno));
  return STATUS_OK;
}

static enum status use_made(struct stage *stage) {
  int copy = storage_open(stage->facts.path, O_RDONLY);
  REQUIRE(copy >= 0, ERR_FILE, "cannot read %s: %s", stage->facts.path, strerror(errno));
  return use(stage, copy);
}

/* Is there a whole copy, and is it sound?  A damaged one loses its name. */
static enum status find_whole(struct stage *stage) {
  struct blocks blocks = {.source = -1, .copy = -1, .sums = -1};
  struct stat entry;
  int64_t lines;
  enum status status;
  if (stat(stage->facts.path, &entry) != 0)
    return STATUS_OK;
  TRY_GOTO(open_blocks(stage, ".h5", O_RDONLY, &blocks), out);
  TRY_GOTO(open_sums(stage, &blocks, &lines), out);
  bool sound =
      entry.st_size == stage->facts.bytes && lines == blocks.count && compare(stage, &blocks, lines) == blocks.count;
  if (sound) {
    status = use(stage, blocks.copy);
    blocks.copy = -1;
  } else if (!stage->stopped) {
    char path[PATH_MAX];
    stage->facts.damaged = true;
    unlink(stage->facts.path);
    unlink(path_of(stage, ".sums", path));
  }
out:
  close_blocks(&blocks);
  return status;
}

/* Blocks of an earlier attempt, and room for the others where the disk can reserve it. */
static enum status reserve(struct stage *stage, struct blocks *blocks, int64_t lines) {
  blocks->done = compare(stage, blocks, lines);
  stage->facts.continued = blocks->done > 0;
  if (stage->stopped)
    return STATUS_OK;
  if (fallocate(blocks->copy, 0, 0, (off_t)stage->facts.bytes) != 0 && (errno == ENOSPC || errno == EDQUOT))
    return write_failed(stage, blocks->path, errno);
  return STATUS_OK;
}

/* Nothing is left of it. */
static void give_up(const struct stage *stage) {
  char path[PATH_MAX];
  unlink(path_of(stage, ".h5.tmp", path));
  unlink(path_of(stage, ".sums", path));
}

static enum status fill(struct stage *stage, struct blocks *blocks) {
  struct durable durable;
  int64_t lines;
  TRY(check_room(stage, stage->folder, stage->facts.bytes));
  TRY(durable_name(stage->facts.path, &durable));
  TRY(read_at_open(stage->source, 0, stage->facts.bytes, &blocks->source));
  TRY(open_blocks(stage, ".h5.tmp", O_RDWR | O_CREAT, blocks));
  TRY(open_sums(stage, blocks, &lines));
  TRY(reserve(stage, blocks, lines));
  TRY(copy_blocks(stage, blocks));
  if (stage->stopped)
    return STATUS_OK;
  TRY(check_source(stage, blocks));
  int error = storage_sync(blocks->sums, 0);
  if (error != 0)
    return write_failed(stage, blocks->path, error);
  return durable_commit(&durable);
}

static enum status make_whole(struct stage *stage) {
  struct blocks blocks = {.source = -1, .copy = -1, .sums = -1};
  enum status status = fill(stage, &blocks);
  close_blocks(&blocks);
  if (stage->useless)
    give_up(stage);
  return status == STATUS_OK && !stage->stopped ? use_made(stage) : status;
}

/* ---- from outside --------------------------------------------------------------------------- */

/* FOLDER/conr-HASH */
static void name(const char *folder, const struct file_sum *source, char stem[PATH_MAX]) {
  struct checksum hash = checksum_begin();
  checksum_add(&hash, &source->sum, sizeof source->sum);
  checksum_add(&hash, &source->modified, sizeof source->modified);
  snprintf(stem, PATH_MAX, "%.*s/conr-%016" PRIx64, PATH_MAX - NAME_ROOM, folder, checksum_value(&hash));
}

enum status stage_check(const char *folder, const struct file_sum *source) {
  struct stage stage = {0};
  struct stat entry;
  char path[PATH_MAX];
  TRY(check_folder(folder));
  name(folder, source, stage.stem);
  if (stat(path_of(&stage, ".h5", path), &entry) == 0 && entry.st_size == source->bytes)
    return STATUS_OK;
  return check_room(&stage, folder, source->bytes);
}

static enum status prepare(struct stage *stage) {
  TRY(checksum_file(stage->source, &stage->sum));
  TRY(check_folder(stage->folder));
  name(stage->folder, &stage->sum, stage->stem);
  path_of(stage, ".h5", stage->facts.path);
  stage->facts.bytes = stage->sum.bytes;
  TRY(lock(stage));
  if (!stage->stopped)
    TRY(find_whole(stage));
  if (stage->copy < 0 && !stage->stopped)
    TRY(make_whole(stage));
  return STATUS_OK;
}

enum status stage_open(const char *source, const char *folder, const struct stage_watch *watch, struct stage **out) {
  struct stage *stage = NULL;
  double began = log_seconds();
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *stage, (void **)&stage));
  stage->source = source;
  stage->folder = folder;
  stage->watch = watch;
  stage->lock = stage->copy = -1;
  enum status status = prepare(stage);
  close_lock(stage);
  stage->facts.seconds = log_seconds() - began - stage->facts.waited;
  if (status == STATUS_OK && !stage->stopped)
    *out = stage;
  else
    stage_close(&stage, false);
  return status;
}

const struct stage_facts *stage_facts(const struct stage *stage) {
  return &stage->facts;
}

/* Nobody else looks for it now, nobody else uses it, and it is not an old one, whose name a new one has. */
static bool is_free(struct stage *stage) {
  return stage->copy >= 0 && open_lock(stage) == STATUS_OK && flock(stage->lock, LOCK_EX | LOCK_NB) == 0 &&
         is_named(stage, stage->lock, ".lock") && is_named(stage, stage->copy, ".h5") &&
         flock(stage->copy, LOCK_EX | LOCK_NB) == 0;
}

bool stage_close(struct stage **stage, bool remove) {
  static const char *const ends[] = {".h5.tmp", ".sums", ".lock"};
  struct stage *own = *stage;
  char path[PATH_MAX];
  bool gone = false;
  if (own == NULL)
    return false;
  if (remove && is_free(own)) {
    gone = unlink(own->facts.path) == 0;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
      unlink(path_of(own, ends[i], path));
  }
  close_lock(own);
  if (own->copy >= 0)
    close(own->copy);
  memory_free((void **)stage);
  return gone;
}
