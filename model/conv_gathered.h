/* The gradient of a convolution's weights as one matrix product, for images of few pixels, in float32 on the CPU.
 *
 * What the kernel sees at each place of the output is gathered into a row, [rows * places, kernel * kernel * in]; the
 * gradient is then the product of the output's gradient, transposed, with that.  The rows repeat a pixel up to
 * kernel^2 times, which is why it is for small images alone.  There oneDNN's own way is slow: 512 -> 512 channels, 3 x
 * 3, 64 images of 2 x 2, two Sapphire Rapids cores, oneDNN 2.6: 10.6 ms against 4.6 ms. */
#ifndef CONR_MODEL_CONV_GATHERED_H
#define CONR_MODEL_CONV_GATHERED_H

#include "model/spatial.h"

/* Is it the better way? */
bool conv_gathered_suits(const struct conv_shape *shape);

/* As conv_backward_weights of ops.h, for rows above 0 and shapes without bias. */
enum status conv_gathered_weights(const struct conv_shape *shape, struct workspace *workspace, int64_t rows,
                                  const float *x, const float *grad_y, float *grad_weight);

#endif
