/* The CUDA backend with values of bfloat16 and parameters of float32. */
#define PRECISION PRECISION_BF16
#define TABLE ops_cuda_bf16
#include "model/ops_cuda_table.h"
