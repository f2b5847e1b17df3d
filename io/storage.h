/* Requests to file systems: all that is asked for, in pieces, interrupted calls made again.
 *
 * The watch over a run knows of each piece (pulse_storage_asked()), so that a disk or a server that does not answer is
 * told from one that is slow.  Local; any number of threads may share a descriptor. */
#ifndef CONR_IO_STORAGE_H
#define CONR_IO_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What a slow disk moves well before anybody thinks that it has stopped. */
#define STORAGE_PIECE ((size_t)8 << 20)

/* Bytes read from `offset` on: all of them, or those up to the end of the file; -1 = errno says why. */
ssize_t storage_read(int file, void *out, size_t bytes, int64_t offset);

/* All of it at `offset`, or, with STORAGE_APPEND, where the descriptor writes next.  0 or an errno. */
enum { STORAGE_APPEND = -1 };
int storage_write(int file, const void *data, size_t bytes, int64_t offset);

/* What was written is on the disk; of storage_sync_data() the times of the file may not be, which a disk does quicker.
 * 0 or an errno.
 * from  what has not been synced before begins there: it is waited for piece by piece */
int storage_sync(int file, int64_t from);
int storage_sync_data(int file, int64_t from);

/* open(2), closed by exec(), of what the umask leaves where it is created.  A descriptor; -1 = errno says why. */
int storage_open(const char *path, int flags);

/* Is there something of that name? */
bool storage_has(const char *path);

/* ftruncate(2), unlink(2), rename(2).  0 or an errno. */
int storage_truncate(int file, int64_t bytes);
int storage_remove(const char *path);
int storage_rename(const char *from, const char *to);

#endif
