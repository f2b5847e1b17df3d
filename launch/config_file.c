/* Options from files: --config, and the sections of a recipe. */
#include "launch/config_internal.h"

#include "dist/memory.h"
#include "launch/ini_file.h"
#include "launch/recipes.h"

#include <string.h>

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
};

/* Is the line one that this reading is after?  A recipe's texts for people are not. */
static bool is_wanted(struct file_context *context, const char *section, const char *name) {
  if (context->section == NULL)
    return true;
  if (strcmp(section, context->section) != 0)
    return false;
  context->found = true;
  return !recipes_is_text(name);
}

static enum status take_line(void *user, const char *section, const char *name, const char *value) {
  struct file_context *context = user;
  struct config *config = context->config;
  int index = config_find(name);
  REQUIRE(context->section != NULL || section[0] == '\0', ERR_ARGUMENT, "section [%s]: a config file has none",
          section);
  if (!is_wanted(context, section, name))
    return STATUS_OK;
  if (index < 0 || !config_takes(config->command, index))
    return config_unknown(config->command, name);
  REQUIRE(strcmp(name, "config") != 0 && strcmp(name, "recipe") != 0, ERR_ARGUMENT,
          "a config file cannot name another");
  if (config_is_marked(context->command_line, index))
    return STATUS_OK;
  const char *text = keep(config, value);
  TRY(text == NULL ? ERR_MEMORY : config_set(config, index, text));
  if (!config_has_default(config, index))
    config_mark(config, index);
  return STATUS_OK;
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
    TRY(ini_file_read("recipe", path, take_line, &context));
    if (!context.found)
      return recipes_unknown_method(path, section);
  }
  return STATUS_OK;
}

enum status config_read_file(struct config *config) {
  struct config command_line = *config;
  struct file_context context = {.config = config, .command_line = &command_line};
  return config->config != NULL ? ini_file_read("config file", config->config, take_line, &context) : STATUS_OK;
}

enum status config_read_files(struct config *config) {
  struct config command_line = *config;
  if (config->recipe != NULL)
    TRY(read_recipe(config, &command_line, config->recipe));
  struct file_context context = {.config = config, .command_line = &command_line};
  return config->config != NULL ? ini_file_read("config file", config->config, take_line, &context) : STATUS_OK;
}

enum status config_for_run(const struct config *comparison, const char *recipe, struct config *out) {
  *out = *comparison;
  out->command = COMMAND_TRAIN;
  out->recipe = recipe;
  out->storage = NULL;
  out->one_of_many = true;
  return config_read_files(out);
}
