/* conr scale: how training scales over ranks and batches. */
#include "launch/commands.h"
#include "launch/scale_question.h"

#include <string.h>

enum status command_scale(struct session *session, const struct config *config, bool *stopped) {
  *stopped = false;
  REQUIRE(config->words == 1, ERR_ARGUMENT, "conr scale wants a data file, or --predict with --machine FILE");
  if (strcmp(config->question, "none") != 0)
    return scale_question(session, config, stopped);
  return comm_agree(session->comm, fail(ERR_ARGUMENT, "conr scale is under construction"));
}

enum status command_predict_scale(const struct config *config) {
  REQUIRE(config->machine != NULL, ERR_ARGUMENT, "conr scale --predict wants a machine: give --machine FILE");
  return fail(ERR_ARGUMENT, "conr scale --predict is under construction");
}
