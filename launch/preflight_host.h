/* What one host says of itself: limits, memory, files.  For preflight.h.  All functions are local and add to the
 * findings. */
#ifndef CONR_LAUNCH_PREFLIGHT_HOST_H
#define CONR_LAUNCH_PREFLIGHT_HOST_H

#include "io/checksum.h"
#include "launch/config.h"
#include "launch/findings.h"

#include <stdbool.h>

/* /dev/shm against what the ranks of this host will share of the data. */
void preflight_shared_memory(struct findings *findings, const char *data, bool f64);

/* Files a rank may have open, against a connection to each other rank. */
void preflight_open_files(struct findings *findings, int ranks, bool several_hosts);

/* Memory that may be locked, where a network by RDMA wants that.  (What CUDA pins does not count.) */
void preflight_locked_memory(struct findings *findings);

/* ulimit -v, which CUDA does not live with. */
void preflight_address_space(struct findings *findings, bool gpu);

/* Bytes this host can give: what is available, and what its control group leaves. */
int64_t preflight_available(void);

#endif
