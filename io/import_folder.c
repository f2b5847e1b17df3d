/* Walking a folder of images. */
#include "io/import_folder.h"

#include "dist/memory.h"
#include "io/import_report.h"

#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int by_text(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_image_name(const char *name) {
  const char *dot = strrchr(name, '.');
  return name[0] != '.' && dot != NULL &&
         (strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0 || strcasecmp(dot, ".png") == 0);
}

/* Keep the first names in order of text: the order in which a folder is read is not the same everywhere. */
static enum status keep_name(struct import_images_report *report, const char *name) {
  char *copy = NULL;
  int at = report->named;
  report->unlabelled_count++;
  while (at > 0 && strcmp(name, report->unlabelled[at - 1]) < 0)
    at--;
  if (at == IMPORT_MOST_NAMES)
    return STATUS_OK;
  TRY(import_report_set_text(&copy, name));
  if (report->named == IMPORT_MOST_NAMES)
    memory_free((void **)&report->unlabelled[--report->named]);
  memmove(&report->unlabelled[at + 1], &report->unlabelled[at],
          (size_t)(report->named - at) * sizeof *report->unlabelled);
  report->unlabelled[at] = copy;
  report->named++;
  return STATUS_OK;
}

/* Rows name files from the folder on, or in full. */
static bool is_labelled(char *const *sorted, size_t count, const char *path, const char *relative) {
  return bsearch(&relative, sorted, count, sizeof *sorted, by_text) != NULL ||
         bsearch(&path, sorted, count, sizeof *sorted, by_text) != NULL;
}

static enum status walk(const char *folder, char *const *sorted, size_t count, struct import_images_report *report) {
  char *const roots[] = {(char *)folder, NULL};
  FTS *tree = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, NULL);
  REQUIRE(tree != NULL, ERR_FILE, "cannot read the folder %s: %s", folder, strerror(errno));
  enum status status = STATUS_OK;
  for (FTSENT *entry; status == STATUS_OK && (entry = fts_read(tree)) != NULL;) {
    if (entry->fts_info != FTS_F || !is_image_name(entry->fts_name))
      continue;
    const char *relative = entry->fts_path + strlen(folder);
    relative += strspn(relative, "/");
    if (!is_labelled(sorted, count, entry->fts_path, relative))
      status = keep_name(report, relative);
  }
  fts_close(tree);
  return status;
}

enum status import_find_unlabelled(const char *folder, const struct import_rows *rows,
                                   struct import_images_report *report) {
  char **sorted = NULL;
  size_t count = (size_t)rows->count;
  TRY(memory_alloc(count * sizeof *sorted, (void **)&sorted));
  memcpy(sorted, rows->path, count * sizeof *sorted);
  qsort(sorted, count, sizeof *sorted, by_text);
  enum status status = walk(folder, sorted, count, report);
  memory_free((void **)&sorted);
  return status;
}
