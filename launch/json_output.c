#include "launch/json_output.h"

#include "io/durable.h"

#include <math.h>
#include <stdio.h>

json_t *json_output_number(double value) {
  return isfinite(value) ? json_real(value) : json_null();
}

/* What the stream did not take durable_print() notices; the rest is memory. */
static enum status dump(void *object, FILE *out) {
  bool done = json_dumpf(object, out, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) == 0 || ferror(out);
  REQUIRE(done, ERR_MEMORY, "out of memory for JSON");
  return STATUS_OK;
}

enum status json_output_write(const json_t *object, const char *path) {
  return durable_print(path, dump, (void *)object);
}

void json_output_print(const json_t *object) {
  json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
  putchar('\n');
}
