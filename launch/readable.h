/* Texts of others - folders, columns, options - as they can be shown: valid UTF-8 without control characters. */
#ifndef CONR_LAUNCH_READABLE_H
#define CONR_LAUNCH_READABLE_H

#include <stddef.h>

/* Bytes of the character at `text`, which stands before its end: 1 to 4; 0 when it is none of UTF-8 or cannot be shown
 * (control characters, and what XML does not allow). */
size_t readable_character(const char *text);

/* `text` with "?" for each byte that cannot be shown, and, where it has more than `most` characters, its end replaced
 * by "…" (its beginning, when `most` is negative: of paths the end tells more).  Truncated to `bytes`, at a character.
 * Returns `buffer`.  Local. */
const char *readable_text(const char *text, int most, char *buffer, size_t bytes);

#endif
