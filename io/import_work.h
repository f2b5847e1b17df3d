/* What one thread of an image import does with one image: look at it, and later make what is written.  Behind
 * import_images.h.
 *
 *     TRY(import_worker_create(options, &worker));                              one per thread
 *     TRY(import_worker_check(worker, source, rows, row, &record));             ERR_FORMAT: broken, go on
 *     TRY(import_worker_make(worker, source, rows, row, &record, &bytes));      bytes [record.length]
 *     import_worker_destroy(&worker);
 *
 * All functions are local. */
#ifndef CONR_IO_IMPORT_WORK_H
#define CONR_IO_IMPORT_WORK_H

#include "io/import_journal.h"
#include "io/import_source.h"

struct import_worker;

/* options  borrowed: must outlive the worker */
enum status import_worker_create(const struct import_images_options *options, struct import_worker **out);
void import_worker_destroy(struct import_worker **worker); /* NULL is fine */

/* Read and decode an image; fills the record.  ERR_FORMAT: the image is broken; the sentence does not name it. */
enum status import_worker_check(struct import_worker *worker, const struct import_source *source,
                                const struct import_rows *rows, int64_t row, struct import_record *record);

/* What is to be written of an image that was sound: *bytes is borrowed until the worker's next call.
 * ERR_FORMAT, naming the image: it is no longer what was checked. */
enum status import_worker_make(struct import_worker *worker, const struct import_source *source,
                               const struct import_rows *rows, int64_t row, const struct import_record *record,
                               const uint8_t **bytes);

#endif
