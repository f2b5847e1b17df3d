/* The matrix products of ConR, ACCon and RnC on a GPU, by cuBLASLt.
 *
 *     TRY(product_create(device, PRECISION_BF16, &product));
 *     TRY(product_similarities(product, rows, columns, stride, 1 / t, own, all, s));
 *     TRY(product_gradients(product, rows, columns, stride, h, all, grad));
 *     product_destroy(&product);
 *
 * Row-major arrays in the device's memory, dense, on addresses of 16 bytes; columns and stride are multiples of 8.
 * Work is queued on the main stream.  How a shape is best computed is asked and kept, for about a thousand shapes:
 * calls of shapes seen lately allocate nothing. */
#ifndef CONR_LOSS_PRODUCT_H
#define CONR_LOSS_PRODUCT_H

#include "dist/device.h"
#include "model/ops.h"

struct product;

/* precision: F32 multiplies in float32, TF32 and BF16 on tensor cores; sums are float32 in all of them.  ERR_DEVICE. */
enum status product_create(struct device *device, enum precision precision, struct product **out);
void product_destroy(struct product **product); /* NULL is fine */

/* Bytes of device memory that it holds. */
size_t product_bytes(const struct product *product);

/* s [rows, columns] = alpha own [rows, stride] . all [columns, stride]^T; s is float32, own and all are values. */
enum status product_similarities(struct product *product, int64_t rows, int64_t columns, int64_t stride, double alpha,
                                 const void *own, const void *all, float *s);

/* grad [rows, stride] = h [rows, columns] . all [columns, stride]; grad is float32, h and all are values. */
enum status product_gradients(struct product *product, int64_t rows, int64_t columns, int64_t stride, const void *h,
                              const void *all, float *grad);

/* The same, added to what grad holds. */
enum status product_add_gradients(struct product *product, int64_t rows, int64_t columns, int64_t stride, const void *h,
                                  const void *all, float *grad);

/* grad [columns, stride] += h [rows, columns]^T . own [rows, stride], likewise. */
enum status product_add_columns(struct product *product, int64_t rows, int64_t columns, int64_t stride, const void *h,
                                const void *own, float *grad);

#endif
