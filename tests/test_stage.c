/* Copies of a file on a local disk: interrupted, damaged, made by two at once, changed below them. */
#include "io/stage.h"

#include "io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Two blocks and a half. */
#define BYTES ((size_t)STAGE_BLOCK * 5 / 2)

static char *content;
static const char *source, *folder;

static void begin(void) {
  io_files_begin();
  source = io_file("data.h5");
  folder = io_file("local");
  content = malloc(BYTES);
  uint32_t state = 1;
  for (size_t i = 0; i < BYTES; i++)
    content[i] = (char)((state = state * 1664525u + 1013904223u) >> 24);
  io_write(source, content, BYTES);
  mkdir(folder, 0777);
}

static void end(void) {
  free(content);
  io_files_end();
}

TestSuite(stage, .init = begin, .fini = end, .timeout = 60);

/* A watch that says stop, or dies, once so many blocks are copied. */
struct limit {
  int64_t blocks;
  bool dies;
};

static bool until(void *context, enum stage_phase phase, int64_t done, int64_t total) {
  const struct limit *limit = context;
  cr_assert(eq(i64, total, (int64_t)BYTES));
  bool over = phase == STAGE_COPIES && done >= limit->blocks * STAGE_BLOCK;
  if (over && limit->dies)
    raise(SIGKILL);
  return !over;
}

static void stop_after(int64_t blocks) {
  struct limit limit = {.blocks = blocks};
  struct stage_watch watch = {until, &limit};
  struct stage *stage;
  cr_assert(stage_open(source, folder, &watch, &stage) == STATUS_OK, "%s", status_message());
  cr_assert(stage == NULL);
}

/* It must hold the source's bytes. */
static struct stage_facts copy_now(bool remove) {
  struct stage *stage;
  size_t bytes;
  cr_assert(stage_open(source, folder, NULL, &stage) == STATUS_OK, "%s", status_message());
  struct stage_facts facts = *stage_facts(stage);
  char *copy = io_read(facts.path, &bytes);
  cr_assert(bytes == BYTES && memcmp(copy, content, BYTES) == 0, "the copy is not the file");
  free(copy);
  cr_assert(eq(int, stage_close(&stage, remove), remove));
  return facts;
}

static int files_in_folder(void) {
  int count = 0;
  DIR *list = opendir(folder);
  for (struct dirent *entry; (entry = readdir(list)) != NULL;)
    count += entry->d_name[0] != '.';
  closedir(list);
  return count;
}

static void flip(const char *path, int64_t at) {
  size_t bytes;
  char *all = io_read(path, &bytes);
  all[at] ^= 4;
  io_write(path, all, bytes);
  free(all);
}

FILE_TEST(stage, a_copy_is_made_once_used_again_and_removed_when_asked) {
  struct stage_facts first = copy_now(false), second = copy_now(false);
  cr_assert(eq(i64, first.copied, (int64_t)BYTES));
  cr_assert(eq(i64, second.copied, 0));
  cr_assert(eq(str, first.path, second.path));
  copy_now(true);
  cr_assert(eq(int, files_in_folder(), 0));
}

FILE_TEST(stage, a_copy_that_was_stopped_goes_on) {
  stop_after(1);
  stop_after(2);
  struct stage_facts facts = copy_now(true);
  cr_assert(eq(i64, facts.copied, (int64_t)BYTES - 2 * STAGE_BLOCK));
  cr_assert(facts.continued && !facts.damaged);
}

FILE_TEST(stage, a_copy_that_was_killed_goes_on) {
  pid_t child = fork();
  if (child == 0) {
    struct limit limit = {.blocks = 2, .dies = true};
    struct stage_watch watch = {until, &limit};
    struct stage *stage;
    stage_open(source, folder, &watch, &stage);
    _exit(1);
  }
  int how;
  cr_assert(waitpid(child, &how, 0) == child && WIFSIGNALED(how));
  cr_assert(eq(i64, copy_now(true).copied, (int64_t)BYTES - 2 * STAGE_BLOCK));
}

/* What was copied before is compared, not believed. */
FILE_TEST(stage, a_begun_copy_is_used_up_to_where_it_was_damaged) {
  stop_after(2);
  struct stage_facts facts;
  char path[PATH_MAX + 8];
  struct file_sum sum;
  cr_assert(checksum_file(source, &sum) == STATUS_OK);
  DIR *list = opendir(folder);
  for (struct dirent *entry; (entry = readdir(list)) != NULL;)
    if (strstr(entry->d_name, ".h5.tmp") != NULL)
      snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
  closedir(list);
  flip(path, STAGE_BLOCK + 77);
  facts = copy_now(true);
  cr_assert(eq(i64, facts.copied, (int64_t)BYTES - STAGE_BLOCK));
}

FILE_TEST(stage, a_damaged_copy_is_found_and_made_again) {
  struct stage_facts first = copy_now(false);
  flip(first.path, (int64_t)BYTES - 1);
  struct stage_facts second = copy_now(false);
  cr_assert(second.damaged);
  cr_assert(eq(i64, second.copied, (int64_t)BYTES));
  cr_assert(truncate(second.path, 100) == 0);
  cr_assert(copy_now(true).damaged);
}

/* Those that have the old one open must not see it change. */
FILE_TEST(stage, a_copy_in_use_is_neither_written_nor_removed) {
  struct stage *user;
  struct stat before, after;
  cr_assert(stage_open(source, folder, NULL, &user) == STATUS_OK);
  const char *path = stage_facts(user)->path;
  cr_assert(stat(path, &before) == 0);
  struct stage *other;
  cr_assert(stage_open(source, folder, NULL, &other) == STATUS_OK);
  cr_assert(not(stage_close(&other, true)), "another one uses it");
  cr_assert(stat(path, &after) == 0 && before.st_ino == after.st_ino);
  flip(path, 5); /* a new file of that name, as seen by the disk: the same inode, damaged */
  copy_now(false);
  cr_assert(stage_open(source, folder, NULL, &other) == STATUS_OK);
  cr_assert(stat(stage_facts(other)->path, &after) == 0 && before.st_ino != after.st_ino);
  cr_assert(not(stage_close(&user, true)), "the name is another one's now");
  cr_assert(io_exists(stage_facts(other)->path), "another one uses the new one");
  cr_assert(stage_close(&other, true));
  cr_assert(eq(int, files_in_folder(), 0));
}

FILE_TEST(stage, several_at_once_copy_once) {
  enum { PROCESSES = 4 };
  int ends[2], total = 0;
  cr_assert(pipe(ends) == 0);
  for (int i = 0; i < PROCESSES; i++)
    if (fork() == 0) {
      struct stage *stage;
      size_t bytes;
      int blocks = -100;
      if (stage_open(source, folder, NULL, &stage) == STATUS_OK) {
        char *copy = io_read(stage_facts(stage)->path, &bytes);
        if (bytes == BYTES && memcmp(copy, content, BYTES) == 0)
          blocks = (int)((stage_facts(stage)->copied + STAGE_BLOCK - 1) / STAGE_BLOCK);
        stage_close(&stage, true);
      }
      _exit(write(ends[1], &blocks, sizeof blocks) != sizeof blocks);
    }
  for (int i = 0; i < PROCESSES; i++) {
    int blocks;
    cr_assert(read(ends[0], &blocks, sizeof blocks) == sizeof blocks);
    cr_assert(blocks >= 0, "one of them did not get the file");
    total += blocks;
  }
  while (wait(NULL) > 0) {
  }
  /* Each removes it when nobody else uses it: a late one may have to copy again, but never a part. */
  cr_assert(total >= 3 && total % 3 == 0, "%d blocks", total);
}

FILE_TEST(stage, a_source_that_was_changed_is_another_one) {
  struct stage_facts first = copy_now(false);
  content[STAGE_BLOCK] ^= 1;
  io_write(source, content, BYTES);
  struct stage_facts second = copy_now(false);
  cr_assert(ne(str, first.path, second.path));
  cr_assert(eq(i64, second.copied, (int64_t)BYTES));
}

FILE_TEST(stage, folders_that_cannot_be_used_are_refused) {
  struct stage *stage;
  cr_assert(stage_open(source, io_file("none"), NULL, &stage) == ERR_FILE && stage == NULL);
  cr_assert(strstr(status_message(), "No such file or directory; make the folder on each host") != NULL, "%s",
            status_message());
  cr_assert(stage_open(source, source, NULL, &stage) == ERR_FILE);
  cr_assert(stage_open(io_file("none"), folder, NULL, &stage) == ERR_FILE);
  cr_assert(eq(int, files_in_folder(), 0));
}

/* A limit on files' sizes stands for a disk that fills up although there was room. */
FILE_TEST(stage, nothing_is_left_of_a_copy_that_the_disk_has_no_room_for) {
  struct stage *stage;
  io_fill_disk((size_t)STAGE_BLOCK + 100);
  cr_assert(stage_open(source, folder, NULL, &stage) == ERR_FILE && stage == NULL);
  io_empty_disk();
  cr_assert(strstr(status_message(), "cannot write ") != NULL, "%s", status_message());
  cr_assert(eq(int, files_in_folder(), 1), "the lock alone");
  copy_now(true);
}
