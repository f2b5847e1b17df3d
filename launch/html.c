/* Texts and pictures in a page. */
#define _GNU_SOURCE /* getdelim */
#include "launch/html.h"

#include "launch/readable.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void html_text(FILE *out, const char *text) {
  for (size_t length; *text != '\0'; text += length > 0 ? length : 1) {
    length = readable_character(text);
    const char *entity = *text == '<'    ? "&lt;"
                         : *text == '>'  ? "&gt;"
                         : *text == '&'  ? "&amp;"
                         : *text == '"'  ? "&quot;"
                         : *text == '\'' ? "&#39;"
                                         : NULL;
    if (entity != NULL)
      fputs(entity, out);
    else if (length > 0)
      fwrite(text, 1, length, out);
    else
      fputc('?', out);
  }
}

/* What gives or names an identifier, up to where its name begins; 0: it does neither. */
static size_t before_identifier(const char *text) {
  static const char *const forms[] = {" id=\"", " id='", "href='#", "href=\"#", "url(#"};
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
    if (strncmp(text, forms[i], strlen(forms[i])) == 0)
      return strlen(forms[i]);
  return 0;
}

/* The end of an element that is left out, NULL when the one that begins here is not. */
static const char *skip_element(const char *text) {
  static const char *const ends[][2] = {{"<title", "</title>"}, {"<desc", "</desc>"}};
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
    if (strncmp(text, ends[i][0], strlen(ends[i][0])) == 0) {
      const char *end = strstr(text, ends[i][1]);
      return end != NULL ? end + strlen(ends[i][1]) : text + strlen(text);
    }
  return NULL;
}

static void write_picture(FILE *out, const char *text, const char *prefix) {
  bool in_tag = false;
  while (*text != '\0') {
    const char *after = skip_element(text);
    if (after != NULL) {
      text = after;
      continue;
    }
    size_t form = in_tag ? before_identifier(text) : 0;
    if (form > 0) {
      fprintf(out, "%.*s%s-", (int)form, text, prefix);
      text += form;
      continue;
    }
    in_tag = *text == '<' || (in_tag && *text != '>');
    fputc(*text++, out);
  }
}

enum status html_picture(FILE *out, const char *path, const char *prefix, const char *label) {
  char *text = NULL;
  size_t bytes = 0;
  FILE *file = fopen(path, "re");
  REQUIRE(file != NULL, ERR_FILE, "cannot open %s: %s", path, strerror(errno));
  ssize_t length = getdelim(&text, &bytes, '\0', file);
  fclose(file);
  const char *begin = length > 0 ? strstr(text, "<svg") : NULL;
  if (begin != NULL) {
    fputs("<svg role=\"img\" aria-label=\"", out);
    html_text(out, label);
    fputc('"', out);
    write_picture(out, begin + strlen("<svg"), prefix); /* the tag goes on: what follows are its attributes */
  }
  free(text);
  REQUIRE(begin != NULL, ERR_FORMAT, "%s is no SVG picture", path);
  return STATUS_OK;
}
