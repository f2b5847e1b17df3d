/* inih over a stream, line by line. */
#include "launch/ini_file.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct reading {
  ini_file_take *take;
  void *context;
  FILE *stream;
  int line;
  enum status status;
};

/* One line for inih, without the blanks before it: inih would take an indented line for more of the one above.  Its
 * buffer has an end, and what it cuts off would become a line of its own. */
static char *next_line(char *text, int room, void *user) {
  struct reading *reading = user;
  if (reading->status != STATUS_OK || fgets(text, room, reading->stream) == NULL)
    return NULL;
  size_t length = strlen(text);
  reading->line++;
  if (length + 1 == (size_t)room && text[length - 1] != '\n') {
    reading->status = fail(
        ERR_FORMAT, "a line of more than %d characters; shorten it, or give that option on the command line", room - 2);
    return NULL;
  }
  const char *begin = text + strspn(text, " \t");
  memmove(text, begin, strlen(begin) + 1);
  return text;
}

/* inih calls this for each line; returning 0 stops it.  It goes on behind a line that is none, and tells that at the end. */
static int take_line(void *user, const char *section, const char *name, const char *value) {
  struct reading *reading = user;
  reading->status = reading->take(reading->context, section, name, value);
  return reading->status == STATUS_OK;
}

enum status ini_file_read(const char *what, const char *path, ini_file_take *take, void *context) {
  struct reading reading = {.take = take, .context = context, .stream = fopen(path, "re")};
  char sentence[1024];
  struct stat entry;
  REQUIRE(reading.stream != NULL, ERR_FILE, "cannot read %s %s: %s", what, path, strerror(errno));
  bool directory = fstat(fileno(reading.stream), &entry) == 0 && S_ISDIR(entry.st_mode);
  int line = directory ? 0 : ini_parse_stream(next_line, &reading, take_line, &reading);
  bool unreadable = ferror(reading.stream) != 0;
  fclose(reading.stream);
  REQUIRE(!directory, ERR_FILE, "cannot read %s %s: it is a directory", what, path);
  REQUIRE(!unreadable, ERR_FILE, "cannot read %s %s", what, path);
  REQUIRE(line >= 0, ERR_MEMORY, "cannot allocate a line of %s %s", what, path);
  if (line == 0 && reading.status == STATUS_OK)
    return STATUS_OK;
  if (reading.status == STATUS_OK || (line > 0 && line < reading.line))
    return fail(ERR_FORMAT, "%s line %d is not \"name = value\"", path, line);
  snprintf(sentence, sizeof sentence, "%s", status_message());
  return fail(reading.status, "%s line %d: %s", path, line > 0 ? line : reading.line, sentence);
}
