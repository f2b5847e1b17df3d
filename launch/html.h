/* Pieces of a page that is whole by itself: texts of others as text, pictures within it.
 *
 *     html_text(out, folder);                                a<b>&"c comes out as a&lt;b&gt;&amp;&quot;c
 *     TRY(html_picture(out, "report/errors.svg", "errors", "Error by label"));
 *
 * What is written is well-formed XML, too.  All functions are local; whether `out` took it all is the caller's to ask.
 * */
#ifndef CONR_LAUNCH_HTML_H
#define CONR_LAUNCH_HTML_H

#include "dist/status.h"

#include <stdio.h>

/* A text, as content or as an attribute's value; what cannot be shown (readable.h) becomes "?". */
void html_text(FILE *out, const char *text);

/* A file of gnuplot's terminal svg as an element of the page: identifiers begin with `prefix` and "-", since several
 * pictures use the same; its own titles, which say "Gnuplot", give way to `label`, which a reader for the blind speaks.
 * ERR_FILE, ERR_FORMAT: it cannot be read, or is no such file. */
enum status html_picture(FILE *out, const char *path, const char *prefix, const char *label);

#endif
