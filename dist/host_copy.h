/* A look at device memory from the host, for files and the like: on the host, the memory itself.
 *
 *     struct host_copy copy;
 *     TRY(host_copy_create(device, block, bytes, &copy));
 *     TRY_GOTO(host_copy_fetch(&copy), out);                copy.data now holds what the block holds
 *     ... read or change copy.data ...
 *     TRY_GOTO(host_copy_store(&copy), out);                and back
 *   out:
 *     host_copy_destroy(&copy);
 *
 * All functions are local. */
#ifndef CONR_DIST_HOST_COPY_H
#define CONR_DIST_HOST_COPY_H

#include "dist/device.h"

struct host_copy {
  struct device *device; /* borrowed: must outlive this            */
  void *block;           /* borrowed: likewise                     */
  void *data;            /* [bytes] in host memory; not filled yet */
  size_t bytes;
};

enum status host_copy_create(struct device *device, void *block, size_t bytes, struct host_copy *out);
void host_copy_destroy(struct host_copy *copy); /* zeroed is fine */

/* Host waits: the numbers are wanted now. */
enum status host_copy_fetch(struct host_copy *copy);
enum status host_copy_store(struct host_copy *copy);

#endif
