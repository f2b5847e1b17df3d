/* A small reader of XML that believes nothing. */
#include "tests/well_formed.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { DEPTH = 64, NAME = 64, IDENTIFIERS = 4096, ATTRIBUTES = 32 };

struct reader {
  const char *text, *at;
  char open[DEPTH][NAME]; /* elements that are not closed yet */
  int depth;
  const char *identifier[IDENTIFIERS]; /* values of id, up to their quote */
  int identifiers;
  char *why;
  size_t bytes;
};

static bool wrong(struct reader *reader, const char *what) {
  snprintf(reader->why, reader->bytes, "%s at byte %td: %.60s", what, reader->at - reader->text, reader->at);
  return false;
}

static bool is_name(char c) {
  return isalnum((unsigned char)c) || c == ':' || c == '-' || c == '_' || c == '.';
}

static bool take_name(struct reader *reader, char name[NAME]) {
  size_t length = 0;
  while (is_name(reader->at[length]))
    length++;
  if (length == 0 || length >= NAME || isdigit((unsigned char)reader->at[0]))
    return wrong(reader, "no name");
  snprintf(name, NAME, "%.*s", (int)length, reader->at);
  reader->at += length;
  return true;
}

static void skip_blanks(struct reader *reader) {
  reader->at += strspn(reader->at, " \t\r\n");
}

/* "&" begins one of XML's own entities or a number. */
static bool take_entity(struct reader *reader) {
  static const char *const entities[] = {"&lt;", "&gt;", "&amp;", "&quot;", "&apos;", "&#39;"};
  for (size_t i = 0; i < sizeof entities / sizeof *entities; i++)
    if (strncmp(reader->at, entities[i], strlen(entities[i])) == 0) {
      reader->at += strlen(entities[i]);
      return true;
    }
  return wrong(reader, "an & that is no entity");
}

static bool note_identifier(struct reader *reader, const char *value, size_t length) {
  for (int i = 0; i < reader->identifiers; i++)
    if (strncmp(reader->identifier[i], value, length + 1) == 0)
      return wrong(reader, "an identifier for the second time");
  if (reader->identifiers == IDENTIFIERS)
    return wrong(reader, "more identifiers than can be kept");
  reader->identifier[reader->identifiers++] = value;
  return true;
}

static bool take_attribute(struct reader *reader, char names[ATTRIBUTES][NAME], int *count) {
  if (*count == ATTRIBUTES || !take_name(reader, names[*count]))
    return wrong(reader, "no attribute, or too many");
  for (int i = 0; i < *count; i++)
    if (strcmp(names[i], names[*count]) == 0)
      return wrong(reader, "an attribute for the second time");
  skip_blanks(reader);
  if (*reader->at++ != '=')
    return wrong(reader, "an attribute without a value");
  skip_blanks(reader);
  char quote = *reader->at++;
  if (quote != '"' && quote != '\'')
    return wrong(reader, "a value without quotes");
  const char *value = reader->at;
  while (*reader->at != quote) {
    if (*reader->at == '\0' || *reader->at == '<')
      return wrong(reader, "a value without end");
    if (*reader->at == '&' && !take_entity(reader))
      return false;
    if (*reader->at != quote && *reader->at != '&')
      reader->at++;
  }
  if (strcmp(names[*count], "id") == 0 && !note_identifier(reader, value, (size_t)(reader->at - value)))
    return false;
  reader->at++;
  ++*count;
  return true;
}

static bool take_end(struct reader *reader) {
  char name[NAME];
  reader->at += 2;
  if (!take_name(reader, name))
    return false;
  skip_blanks(reader);
  if (reader->depth == 0 || strcmp(reader->open[reader->depth - 1], name) != 0)
    return wrong(reader, "an end of what is not open");
  reader->depth--;
  return *reader->at++ == '>' || wrong(reader, "an end tag that goes on");
}

static bool take_begin(struct reader *reader) {
  char names[ATTRIBUTES][NAME];
  int count = 0;
  reader->at++;
  if (reader->depth == DEPTH || !take_name(reader, reader->open[reader->depth]))
    return wrong(reader, "no element, or too deep");
  for (;;) {
    bool blank = isspace((unsigned char)*reader->at);
    skip_blanks(reader);
    if (*reader->at == '>' || strncmp(reader->at, "/>", 2) == 0)
      break;
    if (!blank || !take_attribute(reader, names, &count))
      return blank ? false : wrong(reader, "attributes without a blank between them");
  }
  if (*reader->at == '>')
    reader->depth++;
  reader->at += *reader->at == '>' ? 1 : 2;
  return true;
}

static bool take_next(struct reader *reader) {
  if (strncmp(reader->at, "<!DOCTYPE", 9) == 0 || strncmp(reader->at, "<?xml", 5) == 0) {
    const char *end = strchr(reader->at, '>');
    if (reader->at != reader->text || end == NULL)
      return wrong(reader, "a declaration that is not first");
    reader->at = end + 1;
    return true;
  }
  if (*reader->at == '<')
    return reader->at[1] == '/' ? take_end(reader) : take_begin(reader);
  if (*reader->at == '&')
    return take_entity(reader);
  reader->at++;
  return true;
}

bool well_formed(const char *text, char *why, size_t bytes) {
  struct reader reader = {.text = text, .at = text, .why = why, .bytes = bytes};
  while (*reader.at != '\0')
    if (!take_next(&reader))
      return false;
  return reader.depth == 0 || wrong(&reader, "an element that is never closed");
}

bool self_contained(const char *text, char *why, size_t bytes) {
  /* Names of namespaces are no addresses to load; href of gnuplot's marks stays in the picture. */
  static const char *const loads[] = {"<script", "<link", "<img", "<iframe", "<object",     "<image",
                                      "<embed",  "<base", "src=", "@import", "javascript:", "http-equiv=\"refresh",
                                      "data:"};
  static const char *const before_own[] = {"href=", "url("};
  for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
    const char *found = strstr(text, loads[i]);
    if (found != NULL) {
      snprintf(why, bytes, "it has %.60s", found);
      return false;
    }
  }
  for (size_t i = 0; i < sizeof before_own / sizeof *before_own; i++)
    for (const char *at = text; (at = strstr(at, before_own[i])) != NULL; at++) {
      const char *target = at + strlen(before_own[i]);
      target += *target == '"' || *target == '\'';
      if (*target != '#') {
        snprintf(why, bytes, "it refers to %.60s", at);
        return false;
      }
    }
  for (const char *at = text; (at = strstr(at, "://")) != NULL; at++)
    if (strncmp(at, "://www.w3.org/", 14) != 0) {
      snprintf(why, bytes, "it has the address %.60s", at);
      return false;
    }
  return true;
}
