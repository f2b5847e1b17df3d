/* Numbers on both sides of a contract, and what may lie between them. */
#include "tests/ops_run.h"

#include "tests/buffers.h"

#include <math.h>
#include <stdlib.h>

enum { GUARDS = 3 }; /* elements behind an array, which no one may touch */
#define GUARD_VALUE 7.0

/* --- arrays on both sides ------------------------------------------------------------------------------------ */

struct ops_run ops_run_begin(const struct ops_contract *contract, int offset) {
  return (struct ops_run){.contract = contract, .ops = contract->ops, .exact = ops_host(F64), .offset = offset};
}

void ops_upload(struct ops_run *run, struct ops_array *array) {
  size_t size = dtype_size(array->dtype);
  void *staged = malloc((size_t)(array->count + GUARDS) * size);
  for (int64_t i = 0; i < array->count + GUARDS; i++)
    buffer_set(array->dtype, staged, i, i < array->count ? array->exact[i] : GUARD_VALUE);
  for (int64_t i = 0; i < array->count; i++) /* what is not a number of that type is rounded on both sides */
    array->exact[i] = buffer_get(array->dtype, staged, i);
  OK(device_copy(run->ops->device, array->data, staged, (size_t)(array->count + GUARDS) * size));
  OK(device_wait(run->ops->device));
  free(staged);
}

struct ops_array *ops_array_of(struct ops_run *run, enum dtype dtype, int64_t count) {
  cr_assert(lt(int, run->count, OPS_MOST_ARRAYS));
  struct ops_array *array = &run->arrays[run->count];
  size_t size = dtype_size(dtype), offset = dtype == F64 ? 0 : (size_t)run->offset * size;
  OK(device_alloc(run->ops->device, offset + (size_t)(count + GUARDS) * size, &run->blocks[run->count]));
  *array = (struct ops_array){dtype, count, malloc((size_t)count * sizeof(double) + 1),
                              (char *)run->blocks[run->count] + offset};
  run->count++;
  return array;
}

struct ops_array *ops_numbers(struct ops_run *run, enum dtype dtype, int64_t count, uint64_t stream, double shift) {
  struct ops_array *array = ops_array_of(run, dtype, count);
  for (int64_t i = 0; i < count; i++)
    array->exact[i] = buffer_number(stream, i) + shift;
  ops_upload(run, array);
  return array;
}

struct ops_array *ops_values(struct ops_run *run, int64_t count, uint64_t stream) {
  return ops_numbers(run, run->ops->dtype, count, stream, 0);
}

struct ops_array *ops_parameters(struct ops_run *run, int64_t count, uint64_t stream) {
  return ops_numbers(run, run->ops->parameter_dtype, count, stream, 0);
}

struct ops_array *ops_same(struct ops_run *run, enum dtype dtype, int64_t count, double value) {
  struct ops_array *array = ops_array_of(run, dtype, count);
  for (int64_t i = 0; i < count; i++)
    array->exact[i] = value;
  ops_upload(run, array);
  return array;
}

struct ops_array *ops_room(struct ops_run *run, enum dtype dtype, int64_t count) {
  return ops_same(run, dtype, count, 1e30);
}

void *ops_data(const struct ops_array *array) {
  return array == NULL ? NULL : array->data;
}

double *ops_exact(const struct ops_array *array) {
  return array == NULL ? NULL : array->exact;
}

void ops_run_end(struct ops_run *run) {
  for (int i = 0; i < run->count; i++) {
    free(run->arrays[i].exact);
    device_free(run->ops->device, &run->blocks[i]);
  }
  run->count = 0;
}

/* --- comparing ----------------------------------------------------------------------------------------------- */

double ops_rounding(enum dtype dtype) {
  return dtype == BF16 ? 0x1p-9 : dtype == F32 ? 0x1p-24 : 0x1p-53;
}

double ops_arithmetic(const struct ops_run *run) {
  return run->ops->dtype == F64 ? 0x1p-53 : 0x1p-24;
}

void ops_expect_near(struct ops_run *run, const struct ops_array *array, const char *what, const double *expected,
                     double error) {
  size_t size = dtype_size(array->dtype);
  void *got = malloc((size_t)(array->count + GUARDS) * size);
  OK(device_copy(run->ops->device, got, array->data, (size_t)(array->count + GUARDS) * size));
  OK(device_wait(run->ops->device));
  for (int64_t i = 0; i < array->count; i++) {
    double value = buffer_get(array->dtype, got, i), wanted = expected[i];
    double bound = error + (error > 0 ? 2 : 1) * ops_rounding(array->dtype) * fabs(wanted);
    cr_assert(isnan(wanted) ? isnan(value) : value == wanted || fabs(value - wanted) <= bound,
              "%s, %s: %s[%lld of %lld] is %.9g, not %.9g +- %.2g", run->contract->name, run->name, what, (long long)i,
              (long long)array->count, value, wanted, bound);
  }
  for (int64_t i = array->count; i < array->count + GUARDS; i++)
    cr_assert(eq(dbl, buffer_get(array->dtype, got, i), GUARD_VALUE), "%s, %s: %s was written %lld elements too far",
              run->contract->name, run->name, what, (long long)(i - array->count + 1));
  free(got);
}

void ops_expect(struct ops_run *run, const struct ops_array *array, const char *what, double error) {
  ops_expect_near(run, array, what, array->exact, error);
}

uint8_t *ops_bytes(struct ops_run *run, const uint8_t *bytes, int64_t count) {
  cr_assert(lt(int, run->count, OPS_MOST_ARRAYS));
  void **block = &run->blocks[run->count];
  OK(device_alloc(run->ops->device, (size_t)(count + run->offset), block));
  run->arrays[run->count++] = (struct ops_array){.count = count, .exact = malloc(1)};
  OK(device_copy(run->ops->device, (char *)*block + run->offset, bytes, (size_t)count));
  OK(device_wait(run->ops->device));
  return (uint8_t *)*block + run->offset;
}

void ops_expect_bytes(struct ops_run *run, const uint8_t *data, const uint8_t *expected, int64_t count,
                      const char *what) {
  uint8_t *got = malloc((size_t)count + 1);
  OK(device_copy(run->ops->device, got, data, (size_t)count));
  OK(device_wait(run->ops->device));
  for (int64_t i = 0; i < count; i++)
    cr_assert(eq(u8, got[i], expected[i]), "%s, %s: %s[%lld]", run->contract->name, run->name, what, (long long)i);
  free(got);
}

double ops_product_error(const struct ops_run *run, double factor_rounding, int64_t terms) {
  double root = sqrt((double)terms) + 1;
  return 4 * factor_rounding * root + ops_arithmetic(run) * (double)terms * root;
}
