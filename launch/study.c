/* Lines x seeds of training runs: their options, training, and errors. */
#include "launch/study.h"

#include "dist/memory.h"
#include "launch/evaluate.h"
#include "launch/run_folder.h"
#include "launch/signals.h"
#include "launch/train.h"

#include <string.h>

#define ANY_BENCHMARK "any"

/* --- the plan ------------------------------------------------------------------------------------------------- */

enum status study_begin(struct session *session, const struct config *config, struct study *study) {
  *study = (struct study){.session = session, .config = config};
  REQUIRE(config->output != NULL, ERR_ARGUMENT, "conr %s wants a folder for its runs: give -o FOLDER",
          command_name(config->command));
  study->benchmark = config->recipe != NULL ? config->recipe : ANY_BENCHMARK;
  study->result.data = config->word[0];
  study->result.part = "test";
  study->result.first_seed = config->seed;
  study->result.seeds = (int)config->seeds;
  TRY(memory_alloc_zero(STUDY_MOST_LINES * sizeof *study->result.method, (void **)&study->result.method));
  TRY(config_share(config->share, &study->share, &study->shares));
  return evaluate_check(config);
}

enum status study_add(struct study *study, const char *name, int against) {
  struct compare_result *result = &study->result;
  REQUIRE(result->methods < STUDY_MOST_LINES, ERR_BUG, "a study has more than %d lines", STUDY_MOST_LINES);
  struct compare_method *method = &result->method[result->methods];
  REQUIRE(strlen(name) < sizeof method->name, ERR_BUG, "the name %s is too long", name);
  snprintf(method->name, sizeof method->name, "%s", name);
  method->against = against;
  result->methods++; /* study_end() knows it from here on */
  TRY(memory_alloc_zero((size_t)result->seeds * sizeof *method->tables, (void **)&method->tables));
  return memory_alloc_zero((size_t)result->seeds * sizeof *method->done, (void **)&method->done);
}

enum status study_folder(const struct study *study, int line, int seed, char folder[PATH_MAX]) {
  int length = snprintf(folder, PATH_MAX, "%s/%s/seed%lld", study->config->output, study->result.method[line].name,
                        (long long)study->config->seed + seed);
  REQUIRE(length < PATH_MAX, ERR_ARGUMENT, "the path --output %s is too long", study->config->output);
  return STATUS_OK;
}

/* Fills `run` with the options of one run; `texts` hold what it borrows. */
struct run_texts {
  char recipe[512], folder[PATH_MAX];
};

static enum status options_of(const struct study *study, int line, int seed, struct run_texts *texts,
                              struct config *run) {
  const char *methods = study->methods != NULL ? study->methods : study->result.method[line].name;
  snprintf(texts->recipe, sizeof texts->recipe, "%s/%s", study->benchmark, methods);
  TRY(study_folder(study, line, seed, texts->folder));
  TRY(config_for_run(study->config, texts->recipe, run));
  run->output = texts->folder;
  run->seed = study->config->seed + seed;
  run->resume = !study->config->force;
  if (study->adjust != NULL)
    study->adjust(study->context, line, run);
  return STATUS_OK;
}

enum status study_check(const struct study *study) {
  for (int line = 0; line < study->result.methods; line++) {
    struct run_texts texts = {0};
    struct config run = {0};
    enum status status = options_of(study, line, 0, &texts, &run);
    config_destroy(&run);
    TRY(status);
  }
  return STATUS_OK;
}

/* --- the runs ------------------------------------------------------------------------------------------------- */

/* A method that cannot be trained, as options and data are, is told in the table; the others go on.  But a run that is
 * there and cannot go on was begun with other options or data: its result would be told as that of these. */
static enum status note_refusal(struct study *study, struct compare_method *method, const char *folder,
                                enum status status) {
  bool told = status_agreed() && (status == ERR_ARGUMENT || status == ERR_NUMERIC);
  int64_t begun = 0;
  if (!told)
    return status;
  snprintf(method->refused, sizeof method->refused, "%s", status_message());
  if (status == ERR_ARGUMENT) {
    begun = comm_rank(study->session->comm) == 0 && run_folder_has_checkpoint(folder);
    TRY(comm_max_i64(study->session->comm, &begun, 1));
  }
  if (begun != 0)
    return comm_agree(study->session->comm, fail(ERR_ARGUMENT, "%s: %s", method->name, method->refused));
  log_line(&study->session->log, "%s is not trained: %s", method->name, method->refused);
  return STATUS_OK;
}

static enum status train_one(struct study *study, int line, int seed) {
  struct compare_method *method = &study->result.method[line];
  struct train_result result = {0};
  struct run_texts texts = {0};
  struct config run = {0};
  enum status status;
  TRY_GOTO(comm_agree(study->session->comm, options_of(study, line, seed, &texts, &run)), out);
  status = train(study->session, &run, NULL, &result);
  study->stopped = result.asked;
  if (status != STATUS_OK)
    status = note_refusal(study, method, texts.folder, status);
out:
  config_destroy(&run);
  return status;
}

static enum status train_all(struct study *study) {
  struct compare_result *result = &study->result;
  int64_t number = 0, all = (int64_t)result->methods * result->seeds;
  for (int seed = 0; seed < result->seeds; seed++)
    for (int m = 0; m < result->methods; m++) {
      struct compare_method *method = &result->method[m];
      bool mine = number++ % study->shares == study->share - 1; /* all jobs count alike, whatever is refused in one */
      if (study->stopped || !mine || method->refused[0] != '\0')
        continue;
      log_line(&study->session->log, "run %lld of %lld: %s, seed %lld", (long long)number, (long long)all, method->name,
               (long long)result->first_seed + seed);
      TRY(train_one(study, m, seed));
    }
  return STATUS_OK;
}

/* --- their errors ------------------------------------------------------------------------------------------------ */

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

static enum status evaluate_one(struct study *study, int line, int seed) {
  struct compare_method *method = &study->result.method[line];
  struct comm *comm = study->session->comm;
  struct run_texts texts = {0};
  struct config run = {0};
  enum status status;
  TRY_GOTO(comm_agree(comm, options_of(study, line, seed, &texts, &run)), out);
  int64_t done = comm_rank(comm) == 0 && is_done(texts.folder);
  TRY_GOTO(comm_max_i64(comm, &done, 1), out);
  if (!done)
    goto out;
  run.word[1] = run.word[0];
  run.word[0] = texts.folder;
  run.part = study->result.part;
  run.checkpoint = "best";
  TRY_GOTO(evaluate(study->session, &run, &method->tables[seed]), out);
  method->done[seed] = true;
  method->runs++;
out:
  config_destroy(&run);
  return status;
}

/* Has any rank been asked to stop? */
static enum status ask_to_stop(struct study *study) {
  int64_t asked = signals_stop_asked();
  TRY(comm_max_i64(study->session->comm, &asked, 1));
  study->stopped = study->stopped || asked != 0;
  return STATUS_OK;
}

static enum status evaluate_all(struct study *study) {
  for (int m = 0; m < study->result.methods; m++)
    for (int seed = 0; seed < study->result.seeds && !study->stopped; seed++) {
      TRY(evaluate_one(study, m, seed));
      TRY(ask_to_stop(study));
    }
  return STATUS_OK;
}

/* A study without a run is no success. */
static enum status check_any(const struct study *study) {
  for (int m = 0; m < study->result.methods; m++)
    if (study->result.method[m].runs > 0 || study->result.method[m].refused[0] == '\0')
      return STATUS_OK;
  return fail(ERR_ARGUMENT, "no method can be trained: %s", study->result.method[0].refused);
}

enum status study_run(struct study *study) {
  TRY(train_all(study));
  if (study->stopped || study->shares > 1)
    return STATUS_OK;
  TRY(evaluate_all(study));
  if (study->stopped)
    return STATUS_OK;
  return comm_agree(study->session->comm, check_any(study));
}

bool study_is_complete(const struct study *study) {
  return !study->stopped && study->shares == 1;
}

void study_end(struct study *study) {
  for (int m = 0; m < study->result.methods; m++) {
    memory_free((void **)&study->result.method[m].tables);
    memory_free((void **)&study->result.method[m].done);
  }
  memory_free((void **)&study->result.method);
}
