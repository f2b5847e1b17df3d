/* conr compare: methods x seeds, each a run of its own folder, and the table of their errors.
 *
 * Runs go through one after another, each on all ranks.  A run that is done is not repeated, and one that was stopped
 * goes on: the same command again is how a comparison is resumed.  --share K/N leaves most runs to other jobs. */
#include "launch/compare_table.h"

#include "dist/memory.h"
#include "launch/commands.h"
#include "launch/evaluate.h"
#include "launch/run_folder.h"
#include "launch/signals.h"
#include "launch/train.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANY_BENCHMARK "any"
#define MOST_METHODS 256

struct comparison {
  struct session *session;     /* borrowed */
  const struct config *config; /* borrowed */
  struct compare_result result;
  int64_t share, shares; /* 1 of 1: all runs are this job's */
  bool stopped;
};

/* --- the plan ------------------------------------------------------------------------------------------------- */

static const char *benchmark_of(const struct config *config) {
  return config->recipe != NULL ? config->recipe : ANY_BENCHMARK;
}

static enum status add_method(struct comparison *own, const char *name, int against) {
  struct compare_result *result = &own->result;
  REQUIRE(result->methods < MOST_METHODS, ERR_ARGUMENT, "--methods gives more than %d runs of a seed", MOST_METHODS);
  struct compare_method *method = &result->method[result->methods];
  REQUIRE(strlen(name) < sizeof method->name && name[0] != '\0' && strchr(name, '/') == NULL, ERR_ARGUMENT,
          "--methods: \"%.60s\" is not a name such as sqinv+lds", name);
  for (int m = 0; m < result->methods; m++)
    REQUIRE(strcmp(result->method[m].name, name) != 0, ERR_ARGUMENT, "--methods names %s twice", name);
  snprintf(method->name, sizeof method->name, "%s", name);
  method->against = against;
  result->methods++; /* free_methods() knows it from here on */
  TRY(memory_alloc_zero((size_t)result->seeds * sizeof *method->tables, (void **)&method->tables));
  return memory_alloc_zero((size_t)result->seeds * sizeof *method->done, (void **)&method->done);
}

static enum status add_methods(struct comparison *own) {
  const char *with = own->config->with;
  for (const char *next = own->config->methods; next != NULL;) {
    char name[128], both[256];
    size_t length = strcspn(next, ",");
    int plain = own->result.methods;
    snprintf(name, sizeof name, "%.*s", (int)length, next);
    TRY(add_method(own, name, plain > 0 ? 0 : -1));
    snprintf(both, sizeof both, "%s+%s", name, with != NULL ? with : "");
    if (with != NULL)
      TRY(add_method(own, both, plain));
    next = next[length] == ',' ? next + length + 1 : NULL;
  }
  return STATUS_OK;
}

/* Fills `run` with the options of one run; `texts` hold what it borrows. */
struct run_texts {
  char recipe[512], folder[PATH_MAX];
};

static enum status options_of(const struct comparison *own, const struct compare_method *method, int seed,
                              struct run_texts *texts, struct config *run) {
  const struct config *config = own->config;
  snprintf(texts->recipe, sizeof texts->recipe, "%s/%s", benchmark_of(config), method->name);
  int length = snprintf(texts->folder, sizeof texts->folder, "%s/%s/seed%lld", config->output, method->name,
                        (long long)(config->seed + seed));
  REQUIRE(length < PATH_MAX, ERR_ARGUMENT, "the path --output %s is too long", config->output);
  TRY(config_for_run(config, texts->recipe, run));
  run->output = texts->folder;
  run->seed = config->seed + seed;
  run->resume = !config->force;
  return STATUS_OK;
}

/* Mistakes in options are told before anything is trained. */
static enum status check_runs(const struct comparison *own) {
  for (int m = 0; m < own->result.methods; m++) {
    struct run_texts texts;
    struct config run = {0};
    enum status status = options_of(own, &own->result.method[m], 0, &texts, &run);
    config_destroy(&run);
    TRY(status);
  }
  return STATUS_OK;
}

static enum status plan(struct comparison *own) {
  const struct config *config = own->config;
  REQUIRE(config->output != NULL, ERR_ARGUMENT, "conr compare wants a folder for its runs: give -o FOLDER");
  REQUIRE(strchr(benchmark_of(config), '/') == NULL, ERR_ARGUMENT,
          "--recipe %s: conr compare wants the benchmark alone; name methods by --methods", config->recipe);
  own->result.data = config->word[0];
  own->result.part = "test";
  own->result.first_seed = config->seed;
  own->result.seeds = (int)config->seeds;
  TRY(memory_alloc_zero(MOST_METHODS * sizeof *own->result.method, (void **)&own->result.method));
  TRY(config_share(config->share, &own->share, &own->shares));
  TRY(evaluate_check(config));
  TRY(add_methods(own));
  return check_runs(own);
}

/* --- the runs ------------------------------------------------------------------------------------------------- */

/* A method that cannot be trained, as options and data are, is told in the table; the others go on.  But a run that is
 * there and cannot go on was begun with other options or data: its result would be told as that of these. */
static enum status note_refusal(struct comparison *own, struct compare_method *method, const char *folder,
                                enum status status) {
  bool told = status_agreed() && (status == ERR_ARGUMENT || status == ERR_NUMERIC);
  int64_t begun = 0;
  if (!told)
    return status;
  snprintf(method->refused, sizeof method->refused, "%s", status_message());
  if (status == ERR_ARGUMENT) {
    begun = comm_rank(own->session->comm) == 0 && run_folder_has_checkpoint(folder);
    TRY(comm_max_i64(own->session->comm, &begun, 1));
  }
  if (begun != 0)
    return comm_agree(own->session->comm, fail(ERR_ARGUMENT, "%s: %s", method->name, method->refused));
  log_line(&own->session->log, "%s is not trained: %s", method->name, method->refused);
  return STATUS_OK;
}

static enum status train_one(struct comparison *own, struct compare_method *method, int seed) {
  struct train_result result = {0};
  struct run_texts texts;
  struct config run = {0};
  enum status status;
  TRY_GOTO(comm_agree(own->session->comm, options_of(own, method, seed, &texts, &run)), out);
  status = train(own->session, &run, NULL, &result);
  own->stopped = result.asked;
  if (status != STATUS_OK)
    status = note_refusal(own, method, texts.folder, status);
out:
  config_destroy(&run);
  return status;
}

static enum status train_all(struct comparison *own) {
  struct compare_result *result = &own->result;
  int64_t number = 0, all = (int64_t)result->methods * result->seeds;
  for (int seed = 0; seed < result->seeds; seed++)
    for (int m = 0; m < result->methods; m++) {
      struct compare_method *method = &result->method[m];
      bool mine = number++ % own->shares == own->share - 1; /* all jobs count alike, whatever is refused in one */
      if (own->stopped || !mine || method->refused[0] != '\0')
        continue;
      log_line(&own->session->log, "run %lld of %lld: %s, seed %lld", (long long)number, (long long)all, method->name,
               (long long)(result->first_seed + seed));
      TRY(train_one(own, method, seed));
    }
  return STATUS_OK;
}

/* --- the table ------------------------------------------------------------------------------------------------ */

/* Rank 0: is the run over? */
static bool is_done(const char *folder) {
  struct opened_checkpoint opened;
  char note[1024];
  if (!run_folder_has_checkpoint(folder) || run_folder_open_last(folder, &opened, note, sizeof note) != STATUS_OK)
    return false;
  bool done = opened.progress.finished != 0;
  checkpoint_close(&opened);
  return done;
}

static enum status evaluate_one(struct comparison *own, struct compare_method *method, int seed) {
  struct comm *comm = own->session->comm;
  struct run_texts texts;
  struct config run = {0};
  enum status status;
  TRY_GOTO(comm_agree(comm, options_of(own, method, seed, &texts, &run)), out);
  int64_t done = comm_rank(comm) == 0 && is_done(texts.folder);
  TRY_GOTO(comm_max_i64(comm, &done, 1), out);
  if (!done)
    goto out;
  run.word[1] = run.word[0];
  run.word[0] = texts.folder;
  run.part = own->result.part;
  run.checkpoint = "best";
  TRY_GOTO(evaluate(own->session, &run, &method->tables[seed]), out);
  method->done[seed] = true;
  method->runs++;
out:
  config_destroy(&run);
  return status;
}

/* Has any rank been asked to stop? */
static enum status ask_to_stop(struct comparison *own) {
  int64_t asked = signals_stop_asked();
  TRY(comm_max_i64(own->session->comm, &asked, 1));
  own->stopped = own->stopped || asked != 0;
  return STATUS_OK;
}

static enum status evaluate_all(struct comparison *own) {
  for (int m = 0; m < own->result.methods; m++)
    for (int seed = 0; seed < own->result.seeds && !own->stopped; seed++) {
      TRY(evaluate_one(own, &own->result.method[m], seed));
      TRY(ask_to_stop(own));
    }
  return STATUS_OK;
}

/* A study without a run is no success. */
static enum status check_any(const struct comparison *own) {
  for (int m = 0; m < own->result.methods; m++)
    if (own->result.method[m].runs > 0 || own->result.method[m].refused[0] == '\0')
      return STATUS_OK;
  return fail(ERR_ARGUMENT, "no method can be trained: %s", own->result.method[0].refused);
}

/* Rank 0: compare.csv and compare.json in the folder, and the table on standard output. */
static enum status tell(const struct comparison *own) {
  char path[PATH_MAX + 16];
  json_t *object;
  TRY(run_folder_make(own->config->output));
  snprintf(path, sizeof path, "%s/compare.csv", own->config->output);
  TRY(compare_table_csv(&own->result, path));
  TRY(compare_table_json(&own->result, &object));
  snprintf(path, sizeof path, "%s/compare.json", own->config->output);
  int failed = json_dump_file(object, path, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
  if (own->config->json) {
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
    putchar('\n');
  } else {
    compare_table_print(&own->result, stdout);
  }
  json_decref(object);
  REQUIRE(!failed, ERR_FILE, "cannot write %s: the disk may be full", path);
  return STATUS_OK;
}

static void free_methods(struct comparison *own) {
  for (int m = 0; m < own->result.methods; m++) {
    memory_free((void **)&own->result.method[m].tables);
    memory_free((void **)&own->result.method[m].done);
  }
  memory_free((void **)&own->result.method);
}

enum status command_compare(struct session *session, const struct config *config, bool *stopped) {
  struct comparison own = {.session = session, .config = config};
  bool root = comm_rank(session->comm) == 0;
  enum status status;
  TRY_GOTO(comm_agree(session->comm, plan(&own)), out);
  TRY_GOTO(train_all(&own), out);
  *stopped = own.stopped;
  if (own.stopped || own.shares > 1)
    goto out;
  TRY_GOTO(evaluate_all(&own), out);
  *stopped = own.stopped;
  if (own.stopped)
    goto out;
  TRY_GOTO(comm_agree(session->comm, check_any(&own)), out);
  status = comm_agree(session->comm, root ? tell(&own) : STATUS_OK);
out:
  free_methods(&own);
  return status;
}
