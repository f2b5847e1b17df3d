/* How much memory this host can still give: what the kernel calls available, less where a control group (a container, a
 * batch job) allows less, and less where /dev/shm, from which ranks share memory, is smaller. */
#ifndef CONR_IO_HOST_MEMORY_H
#define CONR_IO_HOST_MEMORY_H

#include <stdint.h>

/* Bytes; 0 when nothing can be said.  Local. */
int64_t host_memory_available(void);

/* Its parts, for tests: `root` stands before /proc and /sys ("" for the host's own).  INT64_MAX = no limit is known. */
int64_t host_memory_of_kernel(const char *root);
int64_t host_memory_of_group(const char *root);

#endif
