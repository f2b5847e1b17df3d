/* The commands behind main: each takes its parsed options and returns a status.  Those that run on several
 * ranks take a session and are collective; the others are one process's own.  Of the session's device: train, eval,
 * predict and report want it open, bench opens it where it measures there. */
#ifndef CONR_LAUNCH_COMMANDS_H
#define CONR_LAUNCH_COMMANDS_H

#include "launch/config.h"
#include "launch/session.h"

enum status command_import(const struct config *config);
/* Is it images that conr import is to take?  Those it takes on all ranks; *stopped: by a signal. */
bool import_is_of_images(const struct config *config);
enum status command_import_images(struct session *session, const struct config *config, bool *stopped);
enum status command_export(const struct config *config);
enum status command_slurm(const struct config *config);
enum status command_info(const struct config *config);
enum status command_eval(struct session *session, const struct config *config);
enum status command_predict(struct session *session, const struct config *config);
enum status command_report(struct session *session, const struct config *config);
enum status command_compare(struct session *session, const struct config *config, bool *stopped);
enum status command_scale(struct session *session, const struct config *config, bool *stopped);
/* conr scale --predict, of one process. */
enum status command_predict_scale(const struct config *config);
enum status command_check(struct session *session, const struct config *config); /* opens the device by itself */
enum status command_bench(struct session *session, const struct config *config);

#endif
