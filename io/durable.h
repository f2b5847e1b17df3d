/* Replace a file as a whole or not at all: it is written aside, synced, and renamed over the old one.
 *
 *     struct durable durable;
 *     TRY(durable_begin("run/last.h5", &durable));        makes an empty run/last.h5.tmp
 *     status = write_all(durable.temporary);
 *     if (status == STATUS_OK)
 *       status = durable_commit(&durable);                fsync file, rename, fsync folder
 *     if (status != STATUS_OK)
 *       durable_abandon(&durable);                        removes run/last.h5.tmp, old file untouched
 *
 * Local; one process writes a file. */
#ifndef CONR_IO_DURABLE_H
#define CONR_IO_DURABLE_H

#include "dist/status.h"

#include <limits.h>
#include <stdio.h>

struct durable {
  char path[PATH_MAX];
  char temporary[PATH_MAX]; /* path + ".tmp" */
};

/* Create the empty file aside.  ERR_FILE says why it cannot be: a folder that is missing or closed to us,
 * a path that is a directory. */
enum status durable_begin(const char *path, struct durable *out);

/* Only the names, with the same checks of `path`; an older file aside stays as it is.  For one that is continued. */
enum status durable_name(const char *path, struct durable *out);

/* Make the file aside the file.  On failure the old file is untouched and durable_abandon is still due. */
enum status durable_commit(const struct durable *durable);

/* Remove what was written aside. */
void durable_abandon(const struct durable *durable);

/* All of the above for a file that is printed: print(context, out).  Whether `out` took it all is asked here.
 * ERR_FILE, or what print() failed with: there is no file then, or still the old one. */
enum status durable_print(const char *path, enum status (*print)(void *context, FILE *out), void *context);

/* The sentence for a failed write, from an errno: ERR_FILE. */
enum status durable_write_failed(const char *path, int error);

#endif
