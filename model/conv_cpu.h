/* The convolutions of the CPU backend, for its tables (ops_cpu_real.h); the contract is in ops.h.
 *
 * float32 is oneDNN's, which keeps compiled primitives in its struct conv.  float64 is plain loops, for exactness. */
#ifndef CONR_MODEL_CONV_CPU_H
#define CONR_MODEL_CONV_CPU_H

#include "model/spatial.h"

enum status conv_f32_create(const struct conv_shape *shape, struct conv **out);
void conv_f32_destroy(struct conv **conv);
enum status conv_f32_forward(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                             const void *weight, const void *bias, void *y);
enum status conv_f32_backward_data(struct conv *conv, struct workspace *workspace, int64_t rows, const void *grad_y,
                                   const void *weight, void *grad_x);
enum status conv_f32_backward_weights(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                                      const void *grad_y, void *grad_weight, void *grad_bias);

enum status conv_f64_create(const struct conv_shape *shape, struct conv **out);
void conv_f64_destroy(struct conv **conv);
enum status conv_f64_forward(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                             const void *weight, const void *bias, void *y);
enum status conv_f64_backward_data(struct conv *conv, struct workspace *workspace, int64_t rows, const void *grad_y,
                                   const void *weight, void *grad_x);
enum status conv_f64_backward_weights(struct conv *conv, struct workspace *workspace, int64_t rows, const void *x,
                                      const void *grad_y, void *grad_weight, void *grad_bias);

#endif
