/* Status codes and the per-thread sentence of the last failure. */
#include "dist/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char sentence[1024];
static _Thread_local bool agreed;

enum status(fail)(enum status code, const char *format, ...) {
  char text[sizeof sentence]; /* a copy: the arguments may point into the old sentence */
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  memcpy(sentence, text, sizeof text);
  agreed = false;
  return code;
}

bool status_agreed(void) {
  return agreed;
}

void status_set_agreed(void) {
  agreed = true;
}

const char *status_message(void) {
  return sentence;
}

const char *status_name(enum status code) {
  switch (code) {
  case STATUS_OK:
    return "ok";
  case ERR_ARGUMENT:
    return "bad argument";
  case ERR_FILE:
    return "file error";
  case ERR_FORMAT:
    return "bad file content";
  case ERR_MEMORY:
    return "out of memory";
  case ERR_COMM:
    return "communication error";
  case ERR_NUMERIC:
    return "not a finite number";
  case ERR_DEVICE:
    return "no usable GPU";
  case ERR_BUG:
    return "bug in conr";
  }
  return "unknown status";
}
