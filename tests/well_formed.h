/* Is a page or a picture well-formed, and does it need nothing but itself?
 *
 *     char *page = io_read("report/index.html", NULL);
 *     cr_assert(well_formed(page, why, sizeof why), "%s", why);
 *     cr_assert(self_contained(page, why, sizeof why), "%s", why);
 *
 * Local; nothing asserts. */
#ifndef CONR_TESTS_WELL_FORMED_H
#define CONR_TESTS_WELL_FORMED_H

#include <stdbool.h>
#include <stddef.h>

/* Tags nest and are closed, attributes are quoted and come once, identifiers are unique, and "<" and "&" stand for
 * nothing else, as XML has it.  false: why says what is wrong, and where. */
bool well_formed(const char *text, char *why, size_t bytes);

/* No script, no link, no file or address that it would load. */
bool self_contained(const char *text, char *why, size_t bytes);

#endif
