/* Finding and listing recipes. */
#include "launch/recipes.h"

#include "launch/shared_folder.h"

#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER_VARIABLE "CONR_RECIPES"
#define ENDING ".conf"
#define LIST_ROOM 2048

bool recipes_is_text(const char *name) {
  return strcmp(name, "about") == 0 || strcmp(name, "source") == 0;
}

static int is_recipe(const struct dirent *entry) {
  size_t length = strlen(entry->d_name), ending = strlen(ENDING);
  return length > ending && strcmp(entry->d_name + length - ending, ENDING) == 0;
}

/* The benchmarks' files in order; *names is free()d entry by entry. */
static enum status scan(char folder[PATH_MAX], struct dirent ***names, int *count) {
  TRY(shared_folder("recipes", FOLDER_VARIABLE, folder));
  *count = scandir(folder, names, is_recipe, alphasort);
  REQUIRE(*count >= 0, ERR_FILE, "cannot read the folder of recipes %s: %s", folder, strerror(errno));
  return STATUS_OK;
}

static void free_names(struct dirent **names, int count) {
  for (int i = 0; i < count; i++)
    free(names[i]);
  free(names);
}

static void append(char *list, const char *name, int length) {
  size_t used = strlen(list);
  snprintf(list + used, LIST_ROOM - used, "%s%.*s", used > 0 ? ", " : "", length, name);
}

enum status recipes_find(const char *recipe, char path[PATH_MAX]) {
  char folder[PATH_MAX], list[LIST_ROOM] = "";
  struct dirent **names;
  int count, length = (int)strcspn(recipe, "/");
  bool found = false;
  TRY(scan(folder, &names, &count));
  for (int i = 0; i < count; i++) {
    int own = (int)(strlen(names[i]->d_name) - strlen(ENDING));
    found = found || (own == length && strncmp(names[i]->d_name, recipe, (size_t)length) == 0);
    append(list, names[i]->d_name, own);
  }
  free_names(names, count);
  REQUIRE(found, ERR_ARGUMENT, "there is no recipe for the benchmark \"%.*s\"; there are: %s", length, recipe, list);
  int written = snprintf(path, PATH_MAX, "%s/%.*s" ENDING, folder, length, recipe);
  REQUIRE(written < PATH_MAX, ERR_FILE, "the path of the folder of recipes is too long");
  return STATUS_OK;
}

/* --- sections ------------------------------------------------------------------------------------------------- */

struct listing {
  FILE *out;   /* NULL: collect names alone */
  bool values; /* print options too         */
  char section[128];
  char names[LIST_ROOM];
};

static int list_line(void *user, const char *section, const char *name, const char *value) {
  struct listing *listing = user;
  if (strcmp(section, listing->section) != 0) {
    snprintf(listing->section, sizeof listing->section, "%s", section);
    append(listing->names, section, (int)strlen(section));
    if (listing->out != NULL && listing->values)
      fprintf(listing->out, "\n[%s]\n", section);
  }
  if (listing->out == NULL)
    return 1;
  if (listing->values)
    fprintf(listing->out, "  %s = %s\n", name, value);
  else if (strcmp(name, "about") == 0)
    fprintf(listing->out, "  %-16s %s\n", section, value);
  return 1;
}

static enum status read_sections(const char *path, struct listing *listing) {
  int line = ini_parse(path, list_line, listing);
  REQUIRE(line >= 0, ERR_FILE, "cannot read recipe %s", path);
  REQUIRE(line == 0, ERR_FORMAT, "%s line %d is not \"name = value\"", path, line);
  return STATUS_OK;
}

enum status recipes_unknown_method(const char *path, const char *method) {
  struct listing listing = {.out = NULL};
  TRY(read_sections(path, &listing));
  return fail(ERR_ARGUMENT, "%s has no method \"%s\"; it has: %s", path, method, listing.names);
}

enum status recipes_list(const char *name, FILE *out) {
  char folder[PATH_MAX], path[PATH_MAX];
  struct listing listing = {.out = out, .values = true};
  struct dirent **names;
  enum status status = STATUS_OK;
  int count;
  if (name != NULL) {
    TRY(recipes_find(name, path));
    return read_sections(path, &listing);
  }
  TRY(scan(folder, &names, &count));
  for (int i = 0; i < count && status == STATUS_OK; i++) {
    int length = (int)(strlen(names[i]->d_name) - strlen(ENDING));
    struct listing summary = {.out = out};
    fprintf(out, "%s%.*s\n", i > 0 ? "\n" : "", length, names[i]->d_name);
    int written = snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
    status = written < PATH_MAX ? read_sections(path, &summary)
                                : fail(ERR_FILE, "the path of the folder of recipes is too long");
  }
  free_names(names, count);
  return status;
}
