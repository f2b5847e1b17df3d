/* The commands behind main: each takes its parsed options and returns a status.  Those that run on several
 * ranks take a session and are collective; the others are one process's own. */
#ifndef CONR_LAUNCH_COMMANDS_H
#define CONR_LAUNCH_COMMANDS_H

#include "launch/config.h"
#include "launch/session.h"

enum status command_import(const struct config *config);
enum status command_info(const struct config *config);
enum status command_eval(struct session *session, const struct config *config);
enum status command_predict(struct session *session, const struct config *config);
enum status command_bench(struct session *session, const struct config *config);

#endif
