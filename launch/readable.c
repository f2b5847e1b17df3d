/* What can be shown of a text. */
#include "launch/readable.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define ELLIPSIS "…"

/* How many bytes a first byte asks for; 0: it is none. */
static size_t length_of(unsigned char first) {
  return first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
}

/* Not control characters of either kind, halves of UTF-16 pairs, nor what is no character. */
static bool is_shown(uint32_t code) {
  return code >= 0x20 && (code < 0x7f || code > 0x9f) && (code < 0xd800 || code > 0xdfff) &&
         (code & 0xfffe) != 0xfffe && code <= 0x10ffff;
}

size_t readable_character(const char *text) {
  static const unsigned char first_bits[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* what fits in fewer bytes must be in fewer */
  size_t length = length_of((unsigned char)text[0]);
  uint32_t code = (unsigned char)text[0] & first_bits[length];
  for (size_t i = 1; i < length; i++) {
    if (((unsigned char)text[i] & 0xc0) != 0x80) /* the end of the text too */
      return 0;
    code = code << 6 | ((unsigned char)text[i] & 0x3f);
  }
  return length > 0 && code >= least[length] && is_shown(code) ? length : 0;
}

static int count_characters(const char *text) {
  int count = 0;
  for (size_t step; *text != '\0'; text += step, count++) {
    step = readable_character(text);
    step = step > 0 ? step : 1;
  }
  return count;
}

/* Adds `length` bytes where they fit with the end. */
static bool add(char *buffer, size_t bytes, size_t *used, const char *text, size_t length) {
  if (*used + length + 1 > bytes)
    return false;
  memcpy(buffer + *used, text, length);
  *used += length;
  return true;
}

const char *readable_text(const char *text, int most, char *buffer, size_t bytes) {
  int count = count_characters(text), limit = most < 0 ? -most : most, at = 0;
  bool cut = count > limit;
  int first = cut && most < 0 ? count - limit + 1 : 0, last = cut && most >= 0 ? limit - 1 : count;
  size_t used = 0;
  bool fits = true;
  if (first > 0)
    fits = add(buffer, bytes, &used, ELLIPSIS, strlen(ELLIPSIS));
  for (size_t step; *text != '\0' && fits; text += step, at++) {
    size_t length = readable_character(text);
    step = length > 0 ? length : 1;
    if (at >= first && at < last)
      fits = add(buffer, bytes, &used, length > 0 ? text : "?", step);
  }
  if (last < count && fits)
    add(buffer, bytes, &used, ELLIPSIS, strlen(ELLIPSIS));
  buffer[used] = '\0';
  return buffer;
}
