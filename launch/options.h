/* Options of conr train that only make sense together: what is refused, and what follows from one another.
 *
 *     TRY(options_check(&config));                      as soon as they are parsed
 *     TRY(options_check_kind(&config, images));         when the data are known
 *     TRY(options_resolve(&config, images));            now none is left open but those that depend on the labels
 *     TRY(options_check_resolved(&config, images));
 *
 * Everything that cannot be is ERR_ARGUMENT, with the options and what to do.  All functions are local; every rank has the
 * same options and comes to the same verdict. */
#ifndef CONR_LAUNCH_OPTIONS_H
#define CONR_LAUNCH_OPTIONS_H

#include "launch/config.h"

/* Options that contradict each other, and options that nothing will read. */
enum status options_check(const struct config *config);

/* Options for what the data are not.  Those that are resolved to 0 then may be given as 0: config.used does. */
enum status options_check_kind(const struct config *config, bool images);

/* Fill in the defaults that depend on other options and on the data, so that config.used says what was done. */
enum status options_resolve(struct config *config, bool images);

/* What does not go together (combinations.h), and what frozen encoders, decoders and views want. */
enum status options_check_resolved(const struct config *config, bool images);

/* The option of a term that shapes features, NULL = there is none. */
const char *options_feature_term(const struct config *config);

#endif
