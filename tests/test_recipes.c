/* Recipes: each section of each file is understood, and mistakes are sentences. */
#include "launch/config.h"
#include "launch/recipes.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <glob.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

TestSuite(recipes, .timeout = 30);

static enum status parse(struct config *config, const char *recipe, const char *option, const char *value) {
  char *argv[] = {"conr",     "train",        "data.h5",      "-o",          "run",
                  "--recipe", (char *)recipe, (char *)option, (char *)value, NULL};
  setenv("CONR_RECIPES", "launch/recipes", 1);
  return config_parse(option == NULL ? 7 : 9, argv, config);
}

struct check {
  char benchmark[128], section[128];
  bool about, source;
  int sections;
};

static void end_section(struct check *check) {
  if (check->section[0] == '\0')
    return;
  char recipe[512];
  struct config config;
  snprintf(recipe, sizeof recipe, "%s/%s", check->benchmark, check->section);
  cr_expect(eq(int, parse(&config, recipe, NULL, NULL), STATUS_OK), "%s: %s", recipe, status_message());
  cr_expect(check->about && check->source, "%s wants about and source", recipe);
  config_destroy(&config);
  check->about = check->source = false;
}

static int line(void *user, const char *section, const char *name, const char *value) {
  struct check *check = user;
  (void)value;
  if (strcmp(section, check->section) != 0) {
    end_section(check);
    snprintf(check->section, sizeof check->section, "%s", section);
    check->sections++;
  }
  check->about = check->about || strcmp(name, "about") == 0;
  check->source = check->source || strcmp(name, "source") == 0;
  return 1;
}

Test(recipes, every_section_is_understood) {
  glob_t files;
  cr_assert(zero(int, glob("launch/recipes/*.conf", 0, NULL, &files)));
  for (size_t i = 0; i < files.gl_pathc; i++) {
    struct check check = {.sections = 0};
    sscanf(files.gl_pathv[i], "launch/recipes/%127[^.]", check.benchmark);
    cr_expect(zero(int, ini_parse(files.gl_pathv[i], line, &check)), "%s", files.gl_pathv[i]);
    end_section(&check);
    cr_expect(check.sections > 1, "%s", files.gl_pathv[i]);
  }
  globfree(&files);
}

Test(recipes, later_words_win) {
  struct config config;
  cr_assert(eq(int, parse(&config, "agedb-dir", NULL, NULL), STATUS_OK), "%s", status_message());
  cr_expect(eq(i64, config.batch, 256));
  cr_expect(not(config.conr));
  config_destroy(&config);
  cr_assert(eq(int, parse(&config, "agedb-dir/conr", NULL, NULL), STATUS_OK), "%s", status_message());
  cr_expect(eq(i64, config.batch, 64));
  cr_expect(config.conr);
  cr_expect(config_given(&config, "batch"));
  config_destroy(&config);
  cr_assert(eq(int, parse(&config, "agedb-dir/conr", "--batch", "32"), STATUS_OK), "%s", status_message());
  cr_expect(eq(i64, config.batch, 32));
  config_destroy(&config);
}

static void refused(const char *recipe, const char *sentence) {
  struct config config;
  cr_expect(eq(int, parse(&config, recipe, NULL, NULL), ERR_ARGUMENT));
  cr_expect(strstr(status_message(), sentence) != NULL, "%s", status_message());
  config_destroy(&config);
}

Test(recipes, mistakes_are_sentences) {
  refused("agedb", "there is no recipe for the benchmark \"agedb\"; there are: agedb-dir, any, ");
  refused("agedb-dir/con", "has no method \"con\"; it has: base, ");
  refused("agedb-dir/", "has no method \"\"");
  refused("../recipes/agedb-dir", "there is no recipe for the benchmark \"..\"");
}

/* What `conr recipes` prints, of all benchmarks and of one. */
static char *listed(const char *name) {
  char *text = NULL;
  size_t bytes;
  FILE *stream = open_memstream(&text, &bytes);
  setenv("CONR_RECIPES", "launch/recipes", 1);
  cr_assert(eq(int, recipes_list(name, stream), STATUS_OK), "%s", status_message());
  fclose(stream);
  return text;
}

Test(recipes, are_listed_with_what_they_are) {
  char *all = listed(NULL), *one = listed("agedb-dir");
  cr_expect(strstr(all, "agedb-dir\n  base             ResNet-50") != NULL, "%s", all);
  cr_expect(strstr(all, "\nany\n  base ") != NULL && strstr(all, "tabular\n") != NULL, "%s", all);
  cr_expect(strstr(one, "\n[conr]\n") != NULL && strstr(one, "  conr-t = 0.07\n") != NULL, "%s", one);
  free(all);
  free(one);
}
