/* The devices of the emulated runtime, and its words for errors. */
#include "emulated_state.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

using emulated::note;
using emulated::the;

namespace {
thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;
} // namespace

cudaError_t emulated::note(cudaError_t code) {
  if (code != cudaSuccess)
    last_error = code;
  return code;
}

/* 0 = there is none. */
static int driver_version() {
  const char *text = getenv("EMULATED_CUDA_DEVICES");
  if (text != nullptr && strcmp(text, "nodriver") == 0)
    return 0;
  return text != nullptr && strcmp(text, "olddriver") == 0 ? 11080 : CUDART_VERSION;
}

extern "C" {

cudaError_t cudaGetDeviceCount(int *count) {
  const char *text = getenv("EMULATED_CUDA_DEVICES");
  if (driver_version() < CUDART_VERSION)
    return note(cudaErrorInsufficientDriver);
  int found = text != nullptr ? atoi(text) : 1;
  if (found <= 0)
    return note(cudaErrorNoDevice);
  *count = found;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int index) {
  int count = 0;
  cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess)
    return code;
  if (index < 0 || index >= count)
    return note(cudaErrorInvalidDevice);
  current_device = index;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int *index) {
  *index = current_device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int index) {
  int count = 0;
  cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess)
    return code;
  if (index < 0 || index >= count)
    return note(cudaErrorInvalidDevice);
  memset(properties, 0, sizeof *properties);
  snprintf(properties->name, sizeof properties->name, "Emulated GPU");
  properties->totalGlobalMem = emulated::memory_total();
  const char *capability = getenv("EMULATED_CUDA_CAPABILITY");
  properties->major = capability != nullptr ? atoi(capability) / 10 : 9;
  properties->minor = capability != nullptr ? atoi(capability) % 10 : 0;
  properties->multiProcessorCount = 4;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->sharedMemPerBlock = 48 << 10;
  properties->sharedMemPerBlockOptin = 227 << 10;
  properties->pciDomainID = 0xffff;
  properties->pciBusID = index + 1;
  properties->uuid.bytes[15] = static_cast<char>(index + 1);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int room, int index) {
  snprintf(text, static_cast<size_t>(room), "FFFF:%02X:00.0", index + 1);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int index) {
  cudaDeviceProp properties;
  cudaError_t code = cudaGetDeviceProperties(&properties, index);
  if (code != cudaSuccess)
    return code;
  switch (attribute) {
  case cudaDevAttrMultiProcessorCount:
    *value = properties.multiProcessorCount;
    return cudaSuccess;
  case cudaDevAttrMaxThreadsPerBlock:
    *value = properties.maxThreadsPerBlock;
    return cudaSuccess;
  case cudaDevAttrMaxThreadsPerMultiProcessor:
    *value = properties.maxThreadsPerMultiProcessor;
    return cudaSuccess;
  case cudaDevAttrComputeCapabilityMajor:
    *value = properties.major;
    return cudaSuccess;
  case cudaDevAttrComputeCapabilityMinor:
    *value = properties.minor;
    return cudaSuccess;
  case cudaDevAttrMaxSharedMemoryPerBlock:
    *value = static_cast<int>(properties.sharedMemPerBlock);
    return cudaSuccess;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin:
    *value = static_cast<int>(properties.sharedMemPerBlockOptin);
    return cudaSuccess;
  default:
    emulated::undefined("cudaDeviceGetAttribute() knows only a few attributes");
  }
}

cudaError_t cudaDriverGetVersion(int *version) {
  *version = driver_version();
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

/* --- errors --------------------------------------------------------------------------------------------------- */

cudaError_t cudaGetLastError() {
  cudaError_t code = the().failed != cudaSuccess ? the().failed : last_error;
  last_error = cudaSuccess;
  return code;
}

cudaError_t cudaPeekAtLastError() {
  return the().failed != cudaSuccess ? the().failed : last_error;
}

} // extern "C"

namespace {

struct error_words {
  cudaError_t code;
  const char *name, *text;
};

#define WORDS(code, text) \
  { code, #code, text }
const error_words errors[] = {
    WORDS(cudaSuccess, "no error"),
    WORDS(cudaErrorInvalidValue, "invalid argument"),
    WORDS(cudaErrorMemoryAllocation, "out of memory"),
    WORDS(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    WORDS(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    WORDS(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    WORDS(cudaErrorInvalidDevice, "invalid device ordinal"),
    WORDS(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    WORDS(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    WORDS(cudaErrorNotReady, "device not ready"),
    WORDS(cudaErrorLaunchFailure, "unspecified launch failure"),
    WORDS(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    WORDS(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    WORDS(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences"),
    WORDS(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    WORDS(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    WORDS(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    WORDS(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream"),
    WORDS(cudaErrorStreamCaptureWrongThread,
          "attempt to terminate a thread-local capture sequence from another thread"),
};

const error_words &words_of(cudaError_t code) {
  static const error_words none = {code, "cudaErrorUnknown", "unrecognized error code"};
  for (const error_words &words : errors)
    if (words.code == code)
      return words;
  return none;
}

} // namespace

extern "C" {

const char *cudaGetErrorName(cudaError_t code) {
  return words_of(code).name;
}

const char *cudaGetErrorString(cudaError_t code) {
  return words_of(code).text;
}

cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int) {
  return cudaSuccess;
}

cudaError_t cudaFuncSetCacheConfig(const void *, cudaFuncCache) {
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *, int, size_t) {
  *blocks = 2;
  return cudaSuccess;
}

} // extern "C"
