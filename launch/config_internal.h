/* For the files that make up launch/config.h: the option table's rows by index, and reading of files. */
#ifndef CONR_LAUNCH_CONFIG_INTERNAL_H
#define CONR_LAUNCH_CONFIG_INTERNAL_H

#include "launch/config.h"

/* The row of an option, -1 = there is none. */
int config_find(const char *name);
bool config_takes(enum command command, int index);

/* " (did you mean --x?)" or the way to the help: always ERR_ARGUMENT. */
enum status config_unknown(enum command command, const char *given);

/* Set one field from text; the text must outlive the config. */
enum status config_set(struct config *config, int index, const char *text);

void config_mark(struct config *config, int index);
bool config_is_marked(const struct config *config, int index);

/* Has the option its default value?  Then a file that repeats it, as config.used does, asks for nothing. */
bool config_has_default(const struct config *config, int index);

/* What --config names, alone. */
enum status config_read_file(struct config *config);

/* What --recipe and --config name, in this order; what is marked when this begins stays. */
enum status config_read_files(struct config *config);

#endif
