/* What an image import has done so far, beside its output, so that it can be stopped at any moment.  Behind
 * import_images.h.  For rank 0.
 *
 *     TRY(import_journal_open("data.h5", identity, rows, records, &journal));   records of an earlier attempt come back
 *     TRY(import_journal_checked(journal, first, count, records + first));
 *     TRY(import_journal_created(journal, plan, bytes, data_offset));
 *     TRY(import_journal_written(journal, 4096));                               rows that are safely in the file
 *     import_journal_close(&journal, true);                                     and remove it
 *
 * data.h5.journal holds a JSON object a line; a torn last line is cut off.  One of another identity is begun afresh.
 * Local. */
#ifndef CONR_IO_IMPORT_JOURNAL_H
#define CONR_IO_IMPORT_JOURNAL_H

#include "dist/status.h"

#include <stdbool.h>
#include <stdint.h>

enum record_state { RECORD_UNKNOWN, RECORD_SOUND, RECORD_BROKEN };

/* What is known of an image. */
struct import_record {
  int64_t bytes, modified; /* of its source */
  int64_t length;          /* of what is written, in bytes */
  uint32_t source_crc;     /* of `bytes` bytes */
  uint32_t crc;            /* of what is written; 0 for pixels */
  int32_t height, width;
  int32_t format; /* enum image_format, -1 for pixels */
  int32_t state;  /* enum record_state */
};

struct import_journal;

/* Continue the journal of an import to this path, or begin one.
 * identity  a text of everything that the result depends on, without a line end
 * records   [rows], zeroed; those found sound come back.
 * ERR_FILE: it cannot be written, or another import to this path is running. */
enum status import_journal_open(const char *output_path, const char *identity, int64_t rows,
                                struct import_record *records, struct import_journal **out);

/* Close; `remove` deletes the file.  NULL is fine. */
void import_journal_close(struct import_journal **journal, bool remove);

/* What an earlier attempt left: sound images, and the file aside (plan 0 = none). */
struct import_progress {
  bool replaced; /* there was a journal of another import */
  int64_t checked, written;
  uint32_t plan;
  int64_t bytes, data_offset;
};
struct import_progress import_journal_progress(const struct import_journal *journal);

/* ERR_FILE when the line cannot be written. */
enum status import_journal_checked(struct import_journal *journal, int64_t first, int64_t count,
                                   const struct import_record *records);
enum status import_journal_created(struct import_journal *journal, uint32_t plan, int64_t bytes, int64_t data_offset);
enum status import_journal_written(struct import_journal *journal, int64_t rows);

#endif
