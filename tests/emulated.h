/* The CUDA backend in tests without a GPU: its own code over an emulation of CUDA (tests/emulate).
 *
 *     if (!emulated_use())
 *       cr_skip("there is no emulated CUDA library");
 *     cr_assert(eq(int, device_open(0, &device), STATUS_OK), "%s", status_message());
 *
 * Programs that are started inherit it.  What it takes from the environment stands in
 * tests/emulate/emulated_cuda.cc. */
#ifndef CONR_TESTS_EMULATED_H
#define CONR_TESTS_EMULATED_H

#include <stdbool.h>

/* Name the library to device.h, and at the first call leave no EMULATED_* variable.  To be called before the first use
 * of a device.  False: it was not built, or CONR_TEST_DEVICE=cuda asks for a real GPU. */
bool emulated_use(void);

/* The same with nvJPEG, whose emulation is named to device_images.h.  False: it was not built, or a real GPU is asked
 * for. */
bool emulated_nvjpeg_use(void);

/* The same for tests that a real GPU can run too: with CONR_TEST_DEVICE=cuda they do. */
bool gpu_use(void);

#endif
