/* conr compare: methods x seeds, and the table of their errors. */
#include "launch/commands.h"
#include "launch/json_output.h"
#include "launch/run_folder.h"
#include "launch/study.h"

#include <string.h>

static enum status add_method(struct study *study, const char *name, int against) {
  const struct compare_result *result = &study->result;
  REQUIRE(result->methods < STUDY_MOST_LINES, ERR_ARGUMENT, "--methods gives more than %d runs of a seed",
          STUDY_MOST_LINES);
  REQUIRE(strlen(name) < sizeof result->method->name && name[0] != '\0' && strchr(name, '/') == NULL, ERR_ARGUMENT,
          "--methods: \"%.60s\" is not a name such as sqinv+lds", name);
  for (int m = 0; m < result->methods; m++)
    REQUIRE(strcmp(result->method[m].name, name) != 0, ERR_ARGUMENT, "--methods names %s twice", name);
  return study_add(study, name, against);
}

static enum status add_methods(struct study *study) {
  const char *with = study->config->with;
  for (const char *next = study->config->methods; next != NULL;) {
    char name[128], both[256];
    size_t length = strcspn(next, ",");
    int plain = study->result.methods;
    snprintf(name, sizeof name, "%.*s", (int)length, next);
    TRY(add_method(study, name, plain > 0 ? 0 : -1));
    snprintf(both, sizeof both, "%s+%s", name, with != NULL ? with : "");
    if (with != NULL)
      TRY(add_method(study, both, plain));
    next = next[length] == ',' ? next + length + 1 : NULL;
  }
  return STATUS_OK;
}

static enum status plan(struct session *session, const struct config *config, struct study *study) {
  TRY(study_begin(session, config, study));
  REQUIRE(strchr(study->benchmark, '/') == NULL, ERR_ARGUMENT,
          "--recipe %s: conr compare wants the benchmark alone; name methods by --methods", config->recipe);
  TRY(add_methods(study));
  return study_check(study);
}

/* Rank 0: compare.csv and compare.json in the folder, and the table on standard output. */
static enum status tell(const struct study *study) {
  char path[PATH_MAX + 16];
  json_t *object;
  TRY(run_folder_make(study->config->output));
  snprintf(path, sizeof path, "%s/compare.csv", study->config->output);
  TRY(compare_table_csv(&study->result, path));
  TRY(compare_table_json(&study->result, &object));
  snprintf(path, sizeof path, "%s/compare.json", study->config->output);
  enum status status = json_output_write(object, path);
  if (study->config->json)
    json_output_print(object);
  else
    compare_table_print(&study->result, stdout);
  json_decref(object);
  return status;
}

enum status command_compare(struct session *session, const struct config *config, bool *stopped) {
  struct study study;
  bool root = comm_rank(session->comm) == 0;
  enum status status;
  TRY_GOTO(comm_agree(session->comm, plan(session, config, &study)), out);
  TRY_GOTO(study_run(&study), out);
  *stopped = study.stopped;
  if (study_is_complete(&study))
    status = comm_agree(session->comm, root ? tell(&study) : STATUS_OK);
out:
  study_end(&study);
  return status;
}
