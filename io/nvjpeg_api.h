/* The functions of nvJPEG that we use, declared here since its header is not on every machine that builds; where it is,
 * nvjpeg_cuda.c compares.  The names are those of the library without their "nvjpeg".
 *
 *     struct nvjpeg_api api;
 *     TRY(nvjpeg_api_open(&api));                           finds the library
 *     api.GetImageInfo(handle, bytes, count, ...);
 *
 * The library stays open until the program ends. */
#ifndef CONR_IO_NVJPEG_API_H
#define CONR_IO_NVJPEG_API_H

#include "dist/cuda.h"

/* What all functions return, nvjpegStatus_t. */
enum nvjpeg_code {
  NVJPEG_OK,
  NVJPEG_NOT_INITIALIZED,
  NVJPEG_INVALID_PARAMETER,
  NVJPEG_BAD,
  NVJPEG_NOT_SUPPORTED,
  NVJPEG_ALLOCATOR_FAILED,
  NVJPEG_EXECUTION_FAILED,
  NVJPEG_WRONG_ARCHITECTURE,
  NVJPEG_INTERNAL,
  NVJPEG_NOT_IMPLEMENTED,
  NVJPEG_INCOMPLETE
};

/* Red, green, blue beside each other in channel 0, of nvjpegOutputFormat_t. */
#define NVJPEG_RGB_PIXELS 5
/* Huffman codes of larger batches are read by the GPU, of nvjpegBackend_t. */
#define NVJPEG_GPU_HUFFMAN 2
#define NVJPEG_COMPONENTS 4

/* nvjpegImage_t */
struct nvjpeg_picture {
  unsigned char *channel[NVJPEG_COMPONENTS]; /* device */
  size_t pitch[NVJPEG_COMPONENTS];           /* bytes of a row */
};

struct nvjpegHandle;
struct nvjpegJpegState;

struct nvjpeg_api {
  int (*CreateEx)(int backend, void *device_allocator, void *pinned_allocator, unsigned flags,
                  struct nvjpegHandle **handle);
  int (*CreateSimple)(struct nvjpegHandle **handle);
  int (*Destroy)(struct nvjpegHandle *handle);
  int (*JpegStateCreate)(struct nvjpegHandle *handle, struct nvjpegJpegState **state);
  int (*JpegStateDestroy)(struct nvjpegJpegState *state);
  /* subsampling: int; widths, heights: [NVJPEG_COMPONENTS] */
  int (*GetImageInfo)(struct nvjpegHandle *handle, const unsigned char *bytes, size_t count, int *components,
                      int *subsampling, int *widths, int *heights);
  int (*Decode)(struct nvjpegHandle *handle, struct nvjpegJpegState *state, const unsigned char *bytes, size_t count,
                int format, struct nvjpeg_picture *out, cudaStream_t stream);
  int (*DecodeBatchedInitialize)(struct nvjpegHandle *handle, struct nvjpegJpegState *state, int pictures, int threads,
                                 int format);
  int (*DecodeBatched)(struct nvjpegHandle *handle, struct nvjpegJpegState *state, const unsigned char *const *bytes,
                       const size_t *counts, struct nvjpeg_picture *out, cudaStream_t stream);
};

/* The environment variable CONR_NVJPEG_LIBRARY names another file.  ERR_DEVICE: it is not there, or lacks a function. */
enum status nvjpeg_api_open(struct nvjpeg_api *out);

/* What a code means, in words. */
const char *nvjpeg_words(int code);

#endif
