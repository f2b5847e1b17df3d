/* The CUDA backend in float32, without tensor cores. */
#define PRECISION PRECISION_F32
#define TABLE ops_cuda_f32
#include "model/ops_cuda_table.h"
