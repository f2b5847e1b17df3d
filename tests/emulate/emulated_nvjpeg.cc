/* nvJPEG without a GPU, as a library of its own, build/libnvjpeg-emulated.so: pictures are decoded by TurboJPEG, as the host
 * does, and their bytes are read when the stream does the work, as late as the library may.
 *
 *   EMULATED_NVJPEG_REFUSE  pictures of so many rows are a JPEG that is not supported; a batch with one is refused whole
 *   EMULATED_NVJPEG_BLIND   the same, said of their header alone
 *   EMULATED_NVJPEG_ALLOC   the number of the call that decodes, from 1, that has no memory; 0 = the start has none
 *   EMULATED_NVJPEG_FAIL    the number of the call that decodes at which the GPU fails
 *
 * emulated_nvjpeg_pictures counts those that were decoded, once the stream has done it. */
#include "io/nvjpeg_api.h"

#include <cstdlib>
#include <cstring>
#include <turbojpeg.h>
#include <vector>

extern "C" {
int emulated_nvjpeg_pictures = 0;
}

struct nvjpegHandle {
  int calls = 0;
};

struct nvjpegJpegState {
  int pictures = 0; /* of a batch, once it is ready for one */
};

namespace {

int number_in(const char *variable, int absent) {
  const char *text = getenv(variable);
  return text != nullptr ? atoi(text) : absent;
}

struct header {
  int width = 0, height = 0, subsampling = 0, colours = 0;
};

int read_header(const unsigned char *bytes, size_t count, header *out) {
  tjhandle jpeg = tjInitDecompress();
  int result = tjDecompressHeader3(jpeg, bytes, count, &out->width, &out->height, &out->subsampling, &out->colours);
  tjDestroy(jpeg);
  return result == 0 ? NVJPEG_OK : NVJPEG_BAD;
}

/* What this picture's pixels are: [height, width, 3]. */
int decode(const unsigned char *bytes, size_t count, std::vector<unsigned char> *out, header *seen) {
  int code = read_header(bytes, count, seen);
  if (code != NVJPEG_OK)
    return code;
  if (seen->colours == TJCS_CMYK || seen->colours == TJCS_YCCK ||
      seen->height == number_in("EMULATED_NVJPEG_REFUSE", -1))
    return NVJPEG_NOT_SUPPORTED;
  out->resize(3 * static_cast<size_t>(seen->height) * static_cast<size_t>(seen->width));
  tjhandle jpeg = tjInitDecompress();
  int result =
      tjDecompress2(jpeg, bytes, count, out->data(), seen->width, 0, seen->height, TJPF_RGB, TJFLAG_STOPONWARNING);
  tjDestroy(jpeg);
  return result == 0 ? NVJPEG_OK : NVJPEG_BAD;
}

/* A picture on its way to the device. */
struct work {
  const unsigned char *bytes;
  size_t count;
  nvjpeg_picture to;
};

void CUDART_CB do_work(void *argument) {
  auto *own = static_cast<work *>(argument);
  std::vector<unsigned char> pixels;
  header seen;
  if (decode(own->bytes, own->count, &pixels, &seen) == NVJPEG_OK) {
    size_t row = 3 * static_cast<size_t>(seen.width);
    for (size_t y = 0; y < static_cast<size_t>(seen.height); y++)
      memcpy(own->to.channel[0] + y * own->to.pitch[0], pixels.data() + y * row, row);
  }
  emulated_nvjpeg_pictures++;
  delete own;
}

int fate(nvjpegHandle *handle) {
  int call = ++handle->calls;
  if (call == number_in("EMULATED_NVJPEG_ALLOC", -1))
    return NVJPEG_ALLOCATOR_FAILED;
  return call == number_in("EMULATED_NVJPEG_FAIL", -1) ? NVJPEG_EXECUTION_FAILED : NVJPEG_OK;
}

int queue(const unsigned char *bytes, size_t count, const nvjpeg_picture &to, cudaStream_t stream) {
  std::vector<unsigned char> pixels;
  header seen;
  int code = decode(bytes, count, &pixels, &seen);
  if (code != NVJPEG_OK)
    return code;
  if (to.pitch[0] < 3 * static_cast<size_t>(seen.width))
    return NVJPEG_INVALID_PARAMETER;
  return cudaLaunchHostFunc(stream, do_work, new work{bytes, count, to}) == cudaSuccess ? NVJPEG_OK
                                                                                        : NVJPEG_EXECUTION_FAILED;
}

} // namespace

extern "C" {

int nvjpegCreateSimple(nvjpegHandle **handle) {
  if (number_in("EMULATED_NVJPEG_ALLOC", -1) == 0)
    return NVJPEG_ALLOCATOR_FAILED;
  *handle = new nvjpegHandle;
  return NVJPEG_OK;
}

int nvjpegCreateEx(int, void *, void *, unsigned, nvjpegHandle **handle) {
  return nvjpegCreateSimple(handle);
}

int nvjpegDestroy(nvjpegHandle *handle) {
  delete handle;
  return NVJPEG_OK;
}

int nvjpegJpegStateCreate(nvjpegHandle *, nvjpegJpegState **state) {
  *state = new nvjpegJpegState;
  return NVJPEG_OK;
}

int nvjpegJpegStateDestroy(nvjpegJpegState *state) {
  delete state;
  return NVJPEG_OK;
}

int nvjpegGetImageInfo(nvjpegHandle *, const unsigned char *bytes, size_t count, int *components, int *subsampling,
                       int *widths, int *heights) {
  header seen;
  int code = read_header(bytes, count, &seen);
  if (code != NVJPEG_OK)
    return code;
  if (seen.height == number_in("EMULATED_NVJPEG_BLIND", -1))
    return NVJPEG_NOT_SUPPORTED;
  *components = seen.colours == TJCS_GRAY ? 1 : seen.colours == TJCS_CMYK || seen.colours == TJCS_YCCK ? 4 : 3;
  *subsampling = seen.subsampling;
  for (int i = 0; i < NVJPEG_COMPONENTS; i++) {
    widths[i] = i < *components ? seen.width : 0;
    heights[i] = i < *components ? seen.height : 0;
  }
  return NVJPEG_OK;
}

int nvjpegDecode(nvjpegHandle *handle, nvjpegJpegState *, const unsigned char *bytes, size_t count, int format,
                 nvjpeg_picture *out, cudaStream_t stream) {
  int code = fate(handle);
  if (code != NVJPEG_OK)
    return code;
  return format == NVJPEG_RGB_PIXELS ? queue(bytes, count, *out, stream) : NVJPEG_INVALID_PARAMETER;
}

int nvjpegDecodeBatchedInitialize(nvjpegHandle *, nvjpegJpegState *state, int pictures, int threads, int format) {
  if (pictures < 1 || threads < 1 || format != NVJPEG_RGB_PIXELS)
    return NVJPEG_INVALID_PARAMETER;
  state->pictures = pictures;
  return NVJPEG_OK;
}

/* A picture that fails leaves the others of the batch begun, and the state of no use. */
int nvjpegDecodeBatched(nvjpegHandle *handle, nvjpegJpegState *state, const unsigned char *const *bytes,
                        const size_t *counts, nvjpeg_picture *out, cudaStream_t stream) {
  int code = fate(handle);
  if (state->pictures == 0)
    return NVJPEG_NOT_INITIALIZED;
  for (int i = 0; i < state->pictures && code == NVJPEG_OK; i++)
    code = queue(bytes[i], counts[i], out[i], stream);
  state->pictures = code == NVJPEG_OK ? state->pictures : 0;
  return code;
}

} // extern "C"
