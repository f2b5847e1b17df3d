/* Kernels of dropout: the mask by counter-based draws, and its use. */
#include "model/draws.cuh"

/* Units of one row that a thread draws: the key of the row, which is a draw itself, is shared by four draws. */
enum { UNITS = 16 };

/* As the host's table draws it, to the bit: 128 bits decide four neighbouring units.  Bound by integer arithmetic: five
 * times ten rounds for 16 bytes of mask. */
static __global__ void __launch_bounds__(THREADS)
    mask_kernel(int64_t rows, int64_t width, uint64_t threshold, struct unit_draw draw, uint8_t *mask) {
  int64_t pieces = (width + UNITS - 1) / UNITS, step = (int64_t)gridDim.x * blockDim.x;
  for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * pieces; i += step) {
    int64_t row = i / pieces, first = i % pieces * UNITS;
    uint64_t sample;
    struct random_key key = key_of_row(draw, RANDOM_DROPOUT, row, &sample);
    for (int64_t unit = first; unit < first + UNITS && unit < width; unit += 4) {
      uint32_t bits[4];
      uint8_t *here = mask + row * width + unit;
      philox_bits(key, sample, (uint64_t)unit / 4, bits);
      if (width % 4 == 0 && (uintptr_t)mask % 4 == 0)
        *(uchar4 *)here =
            make_uchar4(bits[0] >= threshold, bits[1] >= threshold, bits[2] >= threshold, bits[3] >= threshold);
      else
        for (int k = 0; k < 4 && unit + k < width; k++)
          here[k] = bits[k] >= threshold;
    }
  }
}

extern "C" enum status dropout_mask_launch(struct stream *stream, int64_t rows, int64_t width, double share,
                                           const struct unit_draw *draw, uint8_t *mask) {
  uint64_t threshold = (uint64_t)(share * 4294967296.0);
  if (rows == 0)
    return STATUS_OK;
  LAUNCH(mask_kernel, blocks_for((size_t)(rows * ((width + UNITS - 1) / UNITS))), THREADS, cuda_stream(stream), rows,
         width, threshold, *draw, mask);
  return cuda_launched("dropout mask");
}

template <typename T> struct drop {
  float factor;
  const uint8_t *mask;
  const T *x;
  T *y;
  template <int N> __device__ void apply(size_t at) const {
    float v[N];
    uint8_t keep[N];
    load(x + at, v);
    load_bytes(mask + at, keep);
    UNROLL
    for (int k = 0; k < N; k++)
      v[k] = keep[k] ? v[k] * factor : 0;
    store(v, y + at);
  }
};

extern "C" enum status dropout_apply_launch(struct stream *stream, enum dtype dtype, size_t count, double share,
                                            const uint8_t *mask, const void *x, void *y) {
  bool vectors = on_16_bytes(x) && on_16_bytes(y) && on_8_bytes(mask);
  float factor = (float)(1.0 / (1.0 - share));
  if (dtype == BF16)
    return each(stream, "dropout", count, vectors, drop<bf16>{factor, mask, (const bf16 *)x, (bf16 *)y});
  return each(stream, "dropout", count, vectors, drop<float>{factor, mask, (const float *)x, (float *)y});
}
