/* conr: parse, join the job if the command is one for several ranks, run, report. */
#include "dist/pulse.h"
#include "launch/commands.h"
#include "launch/preflight.h"
#include "launch/recipes.h"
#include "launch/signals.h"
#include "launch/staging.h"
#include "launch/train.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool is_alone(const struct config *config) {
  return config->command == COMMAND_EXPORT || config->command == COMMAND_INFO || config->command == COMMAND_RECIPES ||
         config->command == COMMAND_SLURM || (config->command == COMMAND_SCALE && config->predict) ||
         (config->command == COMMAND_IMPORT && !import_is_of_images(config));
}

/* Commands of one process; of several that a launcher started, the first does it. */
static int run_alone(const struct config *config) {
  if (launcher_rank() > 0)
    return EXIT_DONE;
  enum status status = config->command == COMMAND_IMPORT   ? command_import(config)
                       : config->command == COMMAND_EXPORT ? command_export(config)
                       : config->command == COMMAND_SLURM  ? command_slurm(config)
                       : config->command == COMMAND_SCALE  ? command_predict_scale(config)
                       : config->command == COMMAND_RECIPES
                           ? recipes_list(config->words ? config->word[0] : NULL, stdout)
                           : command_info(config);
  if (status == STATUS_OK)
    return EXIT_DONE;
  fprintf(stderr, "conr: %s\n", status_message());
  return status == ERR_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
}

/* Import has no use for a device, and of bench only some subjects have; check opens it by itself, and scale for the
 * ranks of each point. */
static bool computes_networks(const struct config *config) {
  return config->command != COMMAND_IMPORT && config->command != COMMAND_BENCH && config->command != COMMAND_CHECK &&
         config->command != COMMAND_SCALE;
}

/* Others end when they are told to; an import of images too, until its ranks have begun. */
static bool stops_with_a_checkpoint(const struct config *config) {
  return config->command == COMMAND_TRAIN || config->command == COMMAND_COMPARE || config->command == COMMAND_SCALE;
}

/* The file that --stage is about; NULL = the command reads none. */
static const char *data_of(const struct config *config) {
  switch (config->command) {
  case COMMAND_TRAIN:
  case COMMAND_COMPARE:
    return config->word[0];
  case COMMAND_EVAL:
  case COMMAND_PREDICT:
    return config->word[1];
  case COMMAND_BENCH:
    return strcmp(config->word[0], "loader") == 0 ? config->word[1] : NULL;
  default:
    return NULL;
  }
}

static enum status check_stage(const struct config *config, const char *data) {
  REQUIRE(config->stage != NULL || !config->stage_clean, ERR_ARGUMENT,
          "--stage-clean without --stage removes nothing; give the folder, or drop it");
  REQUIRE(config->stage == NULL || data != NULL || config->command != COMMAND_BENCH, ERR_ARGUMENT,
          "--stage %s has no effect on conr bench %s, which reads no data; drop it", config->stage, config->word[0]);
  return STATUS_OK;
}

/* What is opened before a command begins: devices, once all hosts have been looked at, and copies of the data. */
static enum status prepare(struct session *session, const struct config *config, bool *stopped) {
  const char *data = data_of(config);
  bool trains = config->command == COMMAND_TRAIN || config->command == COMMAND_COMPARE;
  int64_t looks = trains && strcmp(config->preflight, "on") == 0;
  TRY(comm_agree(session->comm, check_stage(config, data)));
  TRY(comm_max_i64(session->comm, &looks, 1)); /* ranks with other options are found by looking */
  if (looks)
    TRY(preflight(session, config));
  else if (computes_networks(config))
    TRY(session_open_device(session, config));
  return data != NULL ? staging_open(session, config, data, stopped) : STATUS_OK;
}

static enum status run_command(struct session *session, const struct config *config, bool *stopped) {
  struct train_result result = {0};
  enum status status = STATUS_OK;
  switch (config->command) {
  case COMMAND_IMPORT:
    pulse_doing("imports images");
    pulse_unhurried(true);
    status = command_import_images(session, config, stopped);
    break;
  case COMMAND_TRAIN:
    status = train(session, config, NULL, &result);
    *stopped = result.stopped;
    break;
  case COMMAND_COMPARE:
    status = command_compare(session, config, stopped);
    break;
  case COMMAND_SCALE:
    status = command_scale(session, config, stopped);
    break;
  case COMMAND_EVAL:
    pulse_doing("evaluates");
    status = command_eval(session, config);
    break;
  case COMMAND_PREDICT:
    pulse_doing("predicts");
    status = command_predict(session, config);
    break;
  case COMMAND_REPORT:
    pulse_doing("reports");
    status = command_report(session, config);
    break;
  case COMMAND_CHECK:
    status = command_check(session, config);
    break;
  default:
    pulse_doing("measures");
    status = command_bench(session, config);
    break;
  }
  return status;
}

/* Commands of one or several ranks.  parsed: what came of the options; the ranks agree on it first, since a launcher
 * ends the others, one of which was to speak, as soon as one has failed. */
static int run_ranks(int *argc, char ***argv, const struct config *config, enum status parsed) {
  struct session session;
  int provided, code = EXIT_FAILED;
  bool stopped = false;
  if (config->command == COMMAND_IMPORT)
    signals_block();
  /* MPI_Finalize() of Open MPI 4.1 takes components from memory in which its own thread may still be, and so ends a run
   * that is done by SIGSEGV, once in thousands: they are to stay.  What the environment says wins. */
  setenv("OMPI_MCA_mca_base_component_disable_dlclose", "1", 0);
  /* The loader's thread makes no MPI call. */
  if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
    session_complain(NULL, "MPI does not start");
    return EXIT_FAILED;
  }
  enum status status = session_open(MPI_COMM_WORLD, config, &session);
  if (status == STATUS_OK) {
    status = comm_agree(session.comm, parsed);
    if (status == STATUS_OK)
      status = prepare(&session, config, &stopped);
    if (status == STATUS_OK && !stopped)
      status = run_command(&session, config, &stopped);
    staging_close(&session);
    code = status != STATUS_OK ? session_fail(&session, status) : stopped ? EXIT_STOPPED : EXIT_DONE;
    session_close(&session);
  } else if (session.comm != NULL) {
    code = session_fail(&session, status);
    session_close(&session);
  } else {
    session_complain(NULL, status_message());
  }
  MPI_Finalize();
  return code;
}

/* A table that a full disk cut short is not a success. */
static int close_output(int code) {
  if (fflush(stdout) == 0 && !ferror(stdout))
    return code;
  char sentence[200];
  snprintf(sentence, sizeof sentence, "cannot write standard output: %s", strerror(errno));
  if (code == EXIT_DONE)
    session_complain(NULL, sentence);
  return code == EXIT_DONE ? EXIT_FAILED : code;
}

int main(int argc, char **argv) {
  struct config config;
  int code = EXIT_DONE;
  /* First of all: a scheduler may tell a rank to stop as soon as it has started. */
  signals_block();
  enum status status = config_parse(argc, argv, &config);
  if (!stops_with_a_checkpoint(&config))
    signals_unblock();
  if (status != STATUS_OK && launcher_rank() < 0) {
    fprintf(stderr, "conr: %s\n", status_message());
    code = status == ERR_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
  } else if (status == STATUS_OK && config.help) {
    if (launcher_rank() <= 0)
      config_help(config.command, stdout);
  } else if (status == STATUS_OK && is_alone(&config)) {
    code = run_alone(&config);
  } else {
    code = run_ranks(&argc, &argv, &config, status);
  }
  config_destroy(&config);
  return close_output(code);
}
