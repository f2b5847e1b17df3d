/* conr: parse, join the job if the command is one for several ranks, run, report. */
#include "launch/commands.h"
#include "launch/train.h"

#include <stdio.h>

/* Commands of one process. */
static int run_alone(const struct config *config) {
  enum status status = config->command == COMMAND_IMPORT ? command_import(config) : command_info(config);
  if (status == STATUS_OK)
    return EXIT_DONE;
  fprintf(stderr, "conr: %s\n", status_message());
  return status == ERR_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
}

static enum status run_command(struct session *session, const struct config *config, bool *stopped) {
  struct train_result result = {0};
  enum status status = STATUS_OK;
  switch (config->command) {
  case COMMAND_TRAIN:
    status = train(session, config, NULL, &result);
    *stopped = result.stopped;
    break;
  case COMMAND_EVAL:
    status = command_eval(session, config);
    break;
  case COMMAND_PREDICT:
    status = command_predict(session, config);
    break;
  default:
    status = command_bench(session, config);
    break;
  }
  return status;
}

/* Commands of one or several ranks. */
static int run_ranks(int *argc, char ***argv, const struct config *config) {
  struct session session;
  int provided, code = EXIT_FAILED;
  bool stopped = false;
  /* The loader's thread makes no MPI call. */
  if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
    fprintf(stderr, "conr: MPI does not start\n");
    return EXIT_FAILED;
  }
  enum status status = session_open(MPI_COMM_WORLD, config, &session);
  if (status == STATUS_OK) {
    status = run_command(&session, config, &stopped);
    code = status != STATUS_OK ? session_fail(&session, status) : stopped ? EXIT_STOPPED : EXIT_DONE;
    session_close(&session);
  } else {
    fprintf(stderr, "conr: %s\n", status_message());
  }
  MPI_Finalize();
  return code;
}

int main(int argc, char **argv) {
  struct config config;
  enum status status = config_parse(argc, argv, &config);
  int code = EXIT_DONE;
  if (status != STATUS_OK) {
    /* All ranks parse the same words and come here together; one speaks. */
    if (launcher_rank() == 0)
      fprintf(stderr, "conr: %s\n", status_message());
    code = EXIT_USAGE;
  } else if (config.help) {
    config_help(config.command, stdout);
  } else if (config.command == COMMAND_IMPORT || config.command == COMMAND_INFO) {
    code = run_alone(&config);
  } else {
    code = run_ranks(&argc, &argv, &config);
  }
  config_destroy(&config);
  return code;
}
