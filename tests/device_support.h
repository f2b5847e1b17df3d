/* What tests of devices share, on the emulated CUDA backend (emulated.h).
 *
 *     struct device *device = device_emulated();               skips the test where the emulation is not built
 *     float *x = device_floats(device, 100);
 *     MUST(device_zero(device, x, 400));
 *     device_free(device, (void **)&x);
 *     device_close_empty(&device);                             fails it where memory is left */
#ifndef CONR_TESTS_DEVICE_SUPPORT_H
#define CONR_TESTS_DEVICE_SUPPORT_H

#include "dist/device.h"
#include "loss/loss_ops.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#define MUST(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

/* The call fails with this code, and its sentence holds this text. */
#define REFUSED(call, code, text)                                                       \
  do {                                                                                  \
    cr_assert(eq(int, (call), (code)), "%s", status_message());                         \
    cr_assert(ne(ptr, strstr(status_message(), (text)), NULL), "%s", status_message()); \
  } while (0)

void need_emulation(void);
struct device *device_emulated(void);            /* GPU 0 */
void device_close_empty(struct device **device); /* no memory is left, there or in the host */

/* GPU 0 and its losses, for a suite that a real GPU can run too: as .init and .fini.  The first skips the test where there
 * is neither; the second fails it where memory is left. */
void device_losses_begin(struct device **device, const struct loss_ops **losses);
void device_losses_end(struct device **device);

float *device_floats(struct device *device, size_t count);
float device_float(struct device *device, const float *from); /* the host waits */

/* A function of tests/emulate/emulated_test.cu. */
void *device_test_function(struct device *device, const char *name);

typedef enum status sums_function(struct stream *stream, int blocks, int threads, const float *x, float *sums);
typedef enum status add_function(struct stream *stream, int count, float a, const float *x, float *y);
typedef enum status strange_function(struct stream *stream, float *out);
typedef enum status products_function(struct stream *stream, int *cases, double *worst);

#endif
