/* JSON as commands write it: doubles as they read back, null for what is no number.  Local. */
#ifndef CONR_LAUNCH_JSON_OUTPUT_H
#define CONR_LAUNCH_JSON_OUTPUT_H

#include "dist/status.h"

#include <jansson.h>

/* A new reference, which jansson's setters take over; NULL (out of memory), which they take for a failure. */
json_t *json_output_number(double value);

/* Whole or not at all (io/durable.h).  ERR_FILE. */
enum status json_output_write(const json_t *object, const char *path);

/* One line on standard output. */
void json_output_print(const json_t *object);

#endif
