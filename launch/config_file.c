/* Options from files: --config, and the sections of a recipe. */
#include "launch/config_internal.h"

#include "dist/memory.h"
#include "launch/recipes.h"

#include <errno.h>
#include <ini.h>
#include <string.h>
#include <sys/stat.h>

/* Texts of files, kept in one chain until config_destroy. */
struct kept_text {
  struct kept_text *next;
  char text[];
};

static const char *keep(struct config *config, const char *text) {
  struct kept_text *kept;
  if (memory_alloc(sizeof *kept + strlen(text) + 1, (void **)&kept) != STATUS_OK)
    return NULL;
  kept->next = config->storage;
  config->storage = kept;
  return strcpy(kept->text, text);
}

void config_destroy(struct config *config) {
  while (config->storage != NULL) {
    struct kept_text *kept = config->storage;
    config->storage = kept->next;
    memory_free((void **)&kept);
  }
}

struct file_context {
  struct config *config;
  const struct config *command_line; /* what was given there; it wins                     */
  const char *section;               /* of a recipe: the one to read; NULL: the file has none */
  bool found;                        /* the section is there                              */
  FILE *stream;
  int line;
  enum status status;
};

/* One line for inih, without the blanks before it: inih would take an indented line for more of the one above.  Its
 * buffer has an end, and what it cuts off would become a line of its own. */
static char *next_line(char *text, int room, void *user) {
  struct file_context *context = user;
  if (context->status != STATUS_OK || fgets(text, room, context->stream) == NULL)
    return NULL;
  size_t length = strlen(text);
  context->line++;
  if (length + 1 == (size_t)room && text[length - 1] != '\n') {
    context->status =
        fail(ERR_FORMAT, "a line of more than %d characters; give that option on the command line", room - 2);
    return NULL;
  }
  const char *begin = text + strspn(text, " \t");
  memmove(text, begin, strlen(begin) + 1);
  return text;
}

/* Is the line one that this reading is after?  A recipe's texts for people are not. */
static bool is_wanted(struct file_context *context, const char *section, const char *name) {
  if (context->section == NULL) {
    if (section[0] != '\0')
      context->status = fail(ERR_ARGUMENT, "section [%s]: a config file has none", section);
    return true;
  }
  if (strcmp(section, context->section) != 0)
    return false;
  context->found = true;
  return !recipes_is_text(name);
}

/* inih calls this for each line; returning 0 stops with its line number. */
static int file_line(void *user, const char *section, const char *name, const char *value) {
  struct file_context *context = user;
  struct config *config = context->config;
  int index = config_find(name);
  if (!is_wanted(context, section, name))
    return 1;
  if (context->status != STATUS_OK)
    return 0;
  if (index < 0 || !config_takes(config->command, index))
    context->status = config_unknown(config->command, name);
  else if (strcmp(name, "config") == 0 || strcmp(name, "recipe") == 0)
    context->status = fail(ERR_ARGUMENT, "a config file cannot name another");
  if (context->status != STATUS_OK)
    return 0;
  if (config_is_marked(context->command_line, index))
    return 1;
  const char *text = keep(config, value);
  context->status = text == NULL ? ERR_MEMORY : config_set(config, index, text);
  if (context->status == STATUS_OK && !config_has_default(config, index))
    config_mark(config, index);
  return context->status == STATUS_OK;
}

/* One reading of a file; what is wrong with a line is told with its number. */
static enum status read_lines(struct file_context *context, const char *what, const char *path) {
  char sentence[1024];
  struct stat entry;
  context->line = 0;
  context->stream = fopen(path, "re");
  REQUIRE(context->stream != NULL, ERR_FILE, "cannot read %s %s: %s", what, path, strerror(errno));
  bool directory = fstat(fileno(context->stream), &entry) == 0 && S_ISDIR(entry.st_mode);
  int line = directory ? 0 : ini_parse_stream(next_line, context, file_line, context);
  bool unreadable = ferror(context->stream) != 0;
  fclose(context->stream);
  REQUIRE(!directory, ERR_FILE, "cannot read %s %s: it is a directory", what, path);
  REQUIRE(!unreadable, ERR_FILE, "cannot read %s %s", what, path);
  REQUIRE(line >= 0, ERR_MEMORY, "cannot allocate a line of %s %s", what, path);
  if (line == 0 && context->status == STATUS_OK)
    return STATUS_OK;
  if (context->status == STATUS_OK)
    return fail(ERR_FORMAT, "%s line %d is not \"name = value\"", path, line);
  snprintf(sentence, sizeof sentence, "%s", status_message());
  return fail(context->status, "%s line %d: %s", path, line > 0 ? line : context->line, sentence);
}

/* "agedb-dir/ldsfds+conr": [base], [ldsfds] and [conr] of the benchmark's file, the later ones winning. */
static enum status read_recipe(struct config *config, const struct config *command_line, const char *name) {
  char path[PATH_MAX], methods[256];
  REQUIRE(strlen(name) + strlen(RECIPES_BASE) + 2 < sizeof methods, ERR_ARGUMENT, "--recipe \"%.40s...\" is too long",
          name);
  TRY(recipes_find(name, path));
  const char *slash = strchr(name, '/');
  snprintf(methods, sizeof methods, "%s%s%s", RECIPES_BASE, slash ? "+" : "", slash ? slash + 1 : "");
  char *rest = methods;
  for (char *section; (section = strsep(&rest, "+")) != NULL;) {
    struct file_context context = {.config = config, .command_line = command_line, .section = section};
    TRY(read_lines(&context, "recipe", path));
    if (!context.found)
      return recipes_unknown_method(path, section);
  }
  return STATUS_OK;
}

enum status config_read_file(struct config *config) {
  struct config command_line = *config;
  struct file_context context = {.config = config, .command_line = &command_line};
  return config->config != NULL ? read_lines(&context, "config file", config->config) : STATUS_OK;
}

enum status config_read_files(struct config *config) {
  struct config command_line = *config;
  if (config->recipe != NULL)
    TRY(read_recipe(config, &command_line, config->recipe));
  struct file_context context = {.config = config, .command_line = &command_line};
  return config->config != NULL ? read_lines(&context, "config file", config->config) : STATUS_OK;
}

enum status config_for_run(const struct config *comparison, const char *recipe, struct config *out) {
  *out = *comparison;
  out->command = COMMAND_TRAIN;
  out->recipe = recipe;
  out->storage = NULL;
  out->one_of_many = true;
  return config_read_files(out);
}
