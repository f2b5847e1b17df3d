/* The making of an import report; what it says is in import.h.  Local. */
#ifndef CONR_IO_IMPORT_REPORT_H
#define CONR_IO_IMPORT_REPORT_H

#include "io/import.h"

enum status import_report_create(const char *output_path, struct import_report **out);

/* Replace an owned text by a copy. */
enum status import_report_set_text(char **owned, const char *text);

/* Histograms of the training labels in a table file; names [count]. */
enum status import_report_count_targets(struct import_report *report, const char *path, const char *const *names,
                                        int count);

/* The histograms as text. */
void import_report_print_targets(const struct import_report *report, FILE *stream);

#endif
