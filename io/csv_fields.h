/* What the header and the fields of a CSV file mean, wherever one is imported: names, numbers, gaps, splits.
 *
 *     TRY(csv_header_check(path, &header));                              names are there and differ
 *     int column = csv_header_find(&header, "age");                      -1 = none of that name
 *     if (column < 0)
 *       return csv_header_unknown(path, &header, "age");                 with the nearest name
 *     if (!csv_field_is_missing(row.field[column]) && csv_field_number(row.field[column], &age)) ...
 *
 * All functions are local. */
#ifndef CONR_IO_CSV_FIELDS_H
#define CONR_IO_CSV_FIELDS_H

#include "io/csv_reader.h"

#include <stdbool.h>

/* Characters of a field that a sentence shows. */
#define CSV_SHOWN 40

/* Empty, ?, NA, N/A, NaN or null, in any case. */
bool csv_field_is_missing(const char *text);

/* A decimal number and nothing else. */
bool csv_field_number(const char *text, double *out);

/* ERR_FORMAT, naming the column, unless the field says train; val, validation, valid, dev; test; or 0, 1, 2. */
enum status csv_field_split(const char *path, const char *column, const struct csv_row *row, const char *text,
                            int *out);

/* ERR_FORMAT: a name is missing or there twice, or the columns are separated by something else than commas. */
enum status csv_header_check(const char *path, const struct csv_row *header);

/* The index of a column, -1 when there is none of that name. */
int csv_header_find(const struct csv_row *header, const char *name);

/* ERR_ARGUMENT for a column asked for that is not there: the nearest name, or the first few. */
enum status csv_header_unknown(const char *path, const struct csv_row *header, const char *name);

/* ERR_FORMAT unless the row has as many fields as the header. */
enum status csv_row_check(const char *path, const struct csv_row *row, size_t columns);

#endif
