/* The images of a folder that no row names.  Behind import_images.h. */
#ifndef CONR_IO_IMPORT_FOLDER_H
#define CONR_IO_IMPORT_FOLDER_H

#include "io/import_rows.h"

/* Walk the folder and what lies below it; files whose names end in .jpg, .jpeg or .png, in any case, are images.  Fills
 * the report's unlabelled_count, unlabelled and named.  Folders that cannot be read are passed over.  Local. */
enum status import_find_unlabelled(const char *folder, const struct import_rows *rows,
                                   struct import_images_report *report);

#endif
