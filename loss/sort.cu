/* Sorting on the device: the radix sort of CUDA's own library. */
#include "loss/conr_kernels.h"
#include "loss/metrics_kernels.h"

#include "dist/cuda_launch.h"

#ifdef __CUDACC__
#include <cub/device/device_radix_sort.cuh>

extern "C" size_t sort_bytes(int64_t count) {
  size_t bytes = 0;
  cudaError_t code = cub::DeviceRadixSort::SortPairs(nullptr, bytes, (const float *)nullptr, (float *)nullptr,
                                                     (const int32_t *)nullptr, (int32_t *)nullptr, (int)count);
  return code == cudaSuccess ? bytes : 0; /* with none the sort itself says what is wrong */
}

/* Stable, and -0 equals 0. */
extern "C" enum status sort_launch(int64_t count, const float *keys, const int32_t *numbers, float *sorted,
                                   int32_t *order, void *scratch, size_t bytes, struct stream *stream) {
  if (count == 0)
    return STATUS_OK;
  return cuda_check(cub::DeviceRadixSort::SortPairs(scratch, bytes, keys, sorted, numbers, order, (int)count, 0, 32,
                                                    cuda_stream(stream)),
                    "sorting rows");
}

extern "C" size_t metrics_sort_bytes(int64_t count) {
  size_t bytes = 0;
  cudaError_t code =
      cub::DeviceRadixSort::SortKeys(nullptr, bytes, (const double *)nullptr, (double *)nullptr, (int)count);
  return code == cudaSuccess ? bytes : 0; /* as above */
}

extern "C" enum status metrics_sort_launch(int64_t count, const double *values, double *sorted, void *scratch,
                                           size_t bytes, struct stream *stream) {
  if (count == 0)
    return STATUS_OK;
  return cuda_check(
      cub::DeviceRadixSort::SortKeys(scratch, bytes, values, sorted, (int)count, 0, 64, cuda_stream(stream)),
      "sorting the values of metrics");
}

#else /* for tests: CUDA's library cannot be had from another compiler */
#include <algorithm>

extern "C" size_t sort_bytes(int64_t count) {
  (void)count;
  return 1;
}

static void sort_kernel(int64_t count, const float *keys, const int32_t *numbers, float *sorted, int32_t *order) {
  std::copy(numbers, numbers + count, order);
  std::stable_sort(order, order + count, [=](int32_t a, int32_t b) { return keys[a] < keys[b]; });
  for (int64_t i = 0; i < count; i++)
    sorted[i] = keys[order[i]];
}

extern "C" enum status sort_launch(int64_t count, const float *keys, const int32_t *numbers, float *sorted,
                                   int32_t *order, void *scratch, size_t bytes, struct stream *stream) {
  (void)scratch;
  (void)bytes;
  if (count == 0)
    return STATUS_OK;
  LAUNCH(sort_kernel, 1, 1, cuda_stream(stream), count, keys, numbers, sorted, order);
  return cuda_launched("sorting rows");
}

extern "C" size_t metrics_sort_bytes(int64_t count) {
  (void)count;
  return 1;
}

/* NaN last: a fault that whoever asked will notice. */
static void sort_values_kernel(int64_t count, const double *values, double *sorted) {
  std::copy(values, values + count, sorted);
  std::stable_sort(sorted, sorted + count, [](double a, double b) { return a < b || (a == a && b != b); });
}

extern "C" enum status metrics_sort_launch(int64_t count, const double *values, double *sorted, void *scratch,
                                           size_t bytes, struct stream *stream) {
  (void)scratch;
  (void)bytes;
  if (count == 0)
    return STATUS_OK;
  LAUNCH(sort_values_kernel, 1, 1, cuda_stream(stream), count, values, sorted);
  return cuda_launched("sorting the values of metrics");
}
#endif
