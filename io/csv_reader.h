/* Rows of a CSV file, one at a time, with the number of the line they begin on (libcsv does the parsing).
 *
 *     struct csv_reader *reader;
 *     struct csv_row row;
 *     TRY(csv_reader_open("table.csv", &reader));
 *     do
 *       TRY_GOTO(csv_reader_next(reader, &row), out);      the first row is the header
 *     while (row.count > 0);                               0 fields = the end
 *     csv_reader_close(&reader);
 *
 * Fields are separated by commas; quoted ones may hold commas and line ends.  LF, CRLF and CR end lines; blank lines
 * and a UTF-8 byte order mark are skipped; blanks around unquoted fields are cut.  Memory is one buffer and one row,
 * however long the file.  All functions are local. */
#ifndef CONR_IO_CSV_READER_H
#define CONR_IO_CSV_READER_H

#include "dist/status.h"

#include <stddef.h>
#include <stdint.h>

struct csv_reader;

/* Valid until the next csv_reader_next. */
struct csv_row {
  int64_t line; /* 1 = first line of the file */
  size_t count;
  char **field; /* [count], NUL-terminated */
};

/* ERR_FILE: missing, a directory, unreadable.  ERR_FORMAT: empty. */
enum status csv_reader_open(const char *path, struct csv_reader **out);
void csv_reader_close(struct csv_reader **reader);

/* The next row; count 0 at the end.
 * ERR_FORMAT, with the line: a stray or unclosed quote, a byte no text file holds, a row of more than 64 MiB. */
enum status csv_reader_next(struct csv_reader *reader, struct csv_row *row);

/* Bytes consumed so far, and bytes in all. */
int64_t csv_reader_position(const struct csv_reader *reader);
int64_t csv_reader_size(const struct csv_reader *reader);

#endif
