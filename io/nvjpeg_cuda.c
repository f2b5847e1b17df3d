/* Finding nvJPEG, and comparing our declarations with its own. */
#include "io/nvjpeg_api.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define VARIABLE "CONR_NVJPEG_LIBRARY"

/* The function's place in the table, and its name in the library. */
#define FUNCTION(name) \
  { offsetof(struct nvjpeg_api, name), "nvjpeg" #name }

static const struct {
  size_t offset;
  const char *name;
} functions[] = {FUNCTION(CreateEx),        FUNCTION(CreateSimple),     FUNCTION(Destroy),
                 FUNCTION(JpegStateCreate), FUNCTION(JpegStateDestroy), FUNCTION(GetImageInfo),
                 FUNCTION(Decode),          FUNCTION(DecodeBatched),    FUNCTION(DecodeBatchedInitialize)};

static enum status open_library(void **library, const char **name) {
  static const char *const names[] = {"libnvjpeg.so.13", "libnvjpeg.so.12", "libnvjpeg.so"};
  *library = NULL;
  *name = getenv(VARIABLE);
  if (*name != NULL)
    *library = dlopen(*name, RTLD_NOW | RTLD_LOCAL);
  for (size_t i = 0; getenv(VARIABLE) == NULL && *library == NULL && i < sizeof names / sizeof *names; i++) {
    *name = names[i];
    *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
  }
  if (*library != NULL)
    return STATUS_OK;
  if (getenv(VARIABLE) != NULL)
    return fail(ERR_DEVICE, "the nvJPEG that " VARIABLE " names cannot be opened: %s", dlerror());
  return fail(ERR_DEVICE, "nvJPEG is not on this machine (libnvjpeg.so.13, .12 or libnvjpeg.so; " VARIABLE
                          " names another file); install it, or use --decode host");
}

enum status nvjpeg_api_open(struct nvjpeg_api *out) {
  void *library;
  const char *name;
  TRY(open_library(&library, &name));
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    void *function = dlsym(library, functions[i].name);
    REQUIRE(function != NULL, ERR_DEVICE,
            "%s has no function %s; install nvJPEG of CUDA 12 or later, or use --decode host", name, functions[i].name);
    memcpy((char *)out + functions[i].offset, &function, sizeof function);
  }
  return STATUS_OK;
}

const char *nvjpeg_words(int code) {
  static const char *const words[] = {[NVJPEG_OK] = "no error",
                                      [NVJPEG_NOT_INITIALIZED] = "not initialised",
                                      [NVJPEG_INVALID_PARAMETER] = "an invalid parameter",
                                      [NVJPEG_BAD] = "a bad JPEG",
                                      [NVJPEG_NOT_SUPPORTED] = "a JPEG of a kind that is not supported",
                                      [NVJPEG_ALLOCATOR_FAILED] = "out of memory",
                                      [NVJPEG_EXECUTION_FAILED] = "work on the GPU failed",
                                      [NVJPEG_WRONG_ARCHITECTURE] = "it was not built for this GPU",
                                      [NVJPEG_INTERNAL] = "an internal error",
                                      [NVJPEG_NOT_IMPLEMENTED] = "not implemented",
                                      [NVJPEG_INCOMPLETE] = "the JPEG data end early"};
  return code >= 0 && (size_t)code < sizeof words / sizeof *words ? words[code] : "an unknown code";
}

/* --- where its header is -------------------------------------------------------------------------------------- */

#if defined __has_include
#if __has_include(<nvjpeg.h>)
#include <nvjpeg.h>

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #theirs " is another one")

SAME(NVJPEG_OK, NVJPEG_STATUS_SUCCESS);
SAME(NVJPEG_NOT_INITIALIZED, NVJPEG_STATUS_NOT_INITIALIZED);
SAME(NVJPEG_INVALID_PARAMETER, NVJPEG_STATUS_INVALID_PARAMETER);
SAME(NVJPEG_BAD, NVJPEG_STATUS_BAD_JPEG);
SAME(NVJPEG_NOT_SUPPORTED, NVJPEG_STATUS_JPEG_NOT_SUPPORTED);
SAME(NVJPEG_ALLOCATOR_FAILED, NVJPEG_STATUS_ALLOCATOR_FAILURE);
SAME(NVJPEG_EXECUTION_FAILED, NVJPEG_STATUS_EXECUTION_FAILED);
SAME(NVJPEG_WRONG_ARCHITECTURE, NVJPEG_STATUS_ARCH_MISMATCH);
SAME(NVJPEG_INTERNAL, NVJPEG_STATUS_INTERNAL_ERROR);
SAME(NVJPEG_NOT_IMPLEMENTED, NVJPEG_STATUS_IMPLEMENTATION_NOT_SUPPORTED);
SAME(NVJPEG_INCOMPLETE, NVJPEG_STATUS_INCOMPLETE_BITSTREAM);
SAME(NVJPEG_RGB_PIXELS, NVJPEG_OUTPUT_RGBI);
SAME(NVJPEG_GPU_HUFFMAN, NVJPEG_BACKEND_GPU_HYBRID);
SAME(NVJPEG_COMPONENTS, NVJPEG_MAX_COMPONENT);
SAME(sizeof(struct nvjpeg_picture), sizeof(nvjpegImage_t));
SAME(offsetof(struct nvjpeg_picture, channel), offsetof(nvjpegImage_t, channel));
SAME(offsetof(struct nvjpeg_picture, pitch), offsetof(nvjpegImage_t, pitch));
SAME(sizeof(int), sizeof(nvjpegStatus_t));
SAME(sizeof(int), sizeof(nvjpegOutputFormat_t));
SAME(sizeof(int), sizeof(nvjpegChromaSubsampling_t));

/* The types of the functions, given those of codes and other enumerations, and of structs: ours and theirs. */
#define TYPE_CreateEx(code, number, subsampling, picture, device, pinned) \
  code (*)(number, device *, pinned *, unsigned, struct nvjpegHandle **)
#define TYPE_CreateSimple(code, ...) code (*)(struct nvjpegHandle **)
#define TYPE_Destroy(code, ...) code (*)(struct nvjpegHandle *)
#define TYPE_JpegStateCreate(code, ...) code (*)(struct nvjpegHandle *, struct nvjpegJpegState **)
#define TYPE_JpegStateDestroy(code, ...) code (*)(struct nvjpegJpegState *)
#define TYPE_GetImageInfo(code, number, subsampling, ...) \
  code (*)(struct nvjpegHandle *, const unsigned char *, size_t, int *, subsampling *, int *, int *)
#define TYPE_Decode(code, number, subsampling, picture, ...)                                                  \
  code (*)(struct nvjpegHandle *, struct nvjpegJpegState *, const unsigned char *, size_t, number, picture *, \
           cudaStream_t)
#define TYPE_DecodeBatchedInitialize(code, number, ...) \
  code (*)(struct nvjpegHandle *, struct nvjpegJpegState *, int, int, number)
#define TYPE_DecodeBatched(code, number, subsampling, picture, ...)                                                  \
  code (*)(struct nvjpegHandle *, struct nvjpegJpegState *, const unsigned char *const *, const size_t *, picture *, \
           cudaStream_t)

#define OURS(name) TYPE_##name(int, int, int, struct nvjpeg_picture, void, void)
#define THEIRS(name, number)                                                                          \
  TYPE_##name(nvjpegStatus_t, number, nvjpegChromaSubsampling_t, nvjpegImage_t, nvjpegDevAllocator_t, \
              nvjpegPinnedAllocator_t)
#define ALIKE(name, number)                                                               \
  _Static_assert(_Generic(((struct nvjpeg_api *)0)->name, OURS(name) : 1, default : 0) && \
                     _Generic(nvjpeg##name, THEIRS(name, number) : 1, default : 0),       \
                 "nvjpeg" #name " is another one")

ALIKE(CreateEx, nvjpegBackend_t);
ALIKE(CreateSimple, int);
ALIKE(Destroy, int);
ALIKE(JpegStateCreate, int);
ALIKE(JpegStateDestroy, int);
ALIKE(GetImageInfo, int);
ALIKE(Decode, nvjpegOutputFormat_t);
ALIKE(DecodeBatchedInitialize, nvjpegOutputFormat_t);
ALIKE(DecodeBatched, nvjpegOutputFormat_t);
#endif
#endif
