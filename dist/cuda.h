/* What the files of the CUDA backend share: CUDA's codes as statuses, and what lies behind a stream. */
#ifndef CONR_DIST_CUDA_H
#define CONR_DIST_CUDA_H

#include <cuda_runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "dist/device_ops.h"

/* ERR_DEVICE with CUDA's words: "what: out of memory (cudaErrorMemoryAllocation)". */
enum status cuda_check(cudaError_t code, const char *what);

static inline cudaStream_t cuda_stream(const struct stream *stream) {
  return (cudaStream_t)stream->handle;
}

static inline cudaEvent_t cuda_event(const struct event *event) {
  return (cudaEvent_t)event->handle;
}

#ifdef __cplusplus
}
#endif

#endif
