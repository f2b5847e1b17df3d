/* A copy of a file on a disk of this host, made once and used by all who want it, by several jobs at a time too.
 *
 *     struct stage *stage;
 *     TRY(stage_open("/shared/data.h5", "/local", &watch, &stage));      NULL: told to stop while it copied
 *     ... read stage_facts(stage)->path ...
 *     stage_close(&stage, true);                                         and remove it, unless somebody else uses it
 *
 * In the folder lie
 *
 *     conr-HASH.h5       the whole copy; HASH is of the source's checksum (checksum.h: size, ends, places in
 *                        between) and of when it was last changed
 *     conr-HASH.h5.tmp   one that is being made
 *     conr-HASH.sums     the checksum of each block of STAGE_BLOCK bytes that is in it, a line each
 *     conr-HASH.lock     locked by who looks for the copy, compares or makes it
 *
 * A block is read from the source, summed, written, synced to the disk, dropped from the page cache, read again, and
 * compared with that sum; only then it has its line.  So an interrupted copy goes on behind the last line, and what the
 * source gave is what the disk gives back.  That the source gave the right bytes is for its own checksums to say:
 * encoded images have one each.  A whole copy that is found is read and compared with its lines before it is used, and
 * made again where one does not fit; the new one takes the name of the old one, which those who have it open go on
 * reading.  Who uses a copy holds a shared lock on it, so that it is not removed before the last one is done.
 *
 * It is right too where the folder is the same for several hosts, on a file system whose locks reach all of them (NFS,
 * Lustre with -o flock): the first copies, the others wait and then compare.
 *
 * All functions are local, for one process of a host. */
#ifndef CONR_IO_STAGE_H
#define CONR_IO_STAGE_H

#include "io/checksum.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#define STAGE_BLOCK ((int64_t)8 << 20)

struct stage;

/* Where it stands: waiting for another job, comparing an earlier copy, copying. */
enum stage_phase { STAGE_WAITS, STAGE_COMPARES, STAGE_COPIES };

/* Asked between blocks, and ten times a second while it waits: `done` of `total` bytes; false = stop. */
struct stage_watch {
  bool (*go_on)(void *context, enum stage_phase phase, int64_t done, int64_t total);
  void *context;
};

struct stage_facts {
  char path[PATH_MAX]; /* of the copy                                                     */
  int64_t bytes;       /* of the file                                                     */
  int64_t copied;      /* by this call: 0 when a whole copy was there                     */
  bool continued;      /* ... and the rest had been copied before                         */
  bool damaged;        /* a whole copy was there, and was not what it should be           */
  double seconds;      /* all of it, waiting for other jobs apart                         */
  double waited;
};

/* Is there room for a copy, or a copy already?  The folder must exist, and be open to us; nothing is changed.
 * source  what checksum_file() says of it.  ERR_FILE. */
enum status stage_check(const char *folder, const struct file_sum *source);

/* Make the copy, or find it.  *out is NULL with STATUS_OK when the watch said stop: what was copied stays, for the next
 * time.
 * ERR_FILE: the source cannot be read or was changed meanwhile; the folder is not there or not open to us, has no
 * locks, or too little room.  Room is looked at, and reserved where the disk can, before anything is copied; when it
 * fills up all the same the incomplete copy is removed.  After other failures it stays, and the next call goes on. */
enum status stage_open(const char *source, const char *folder, const struct stage_watch *watch, struct stage **out);

const struct stage_facts *stage_facts(const struct stage *stage);

/* Let go of the copy; `remove` it when nobody else uses it, and say whether it is gone.  NULL is fine. */
bool stage_close(struct stage **stage, bool remove);

#endif
