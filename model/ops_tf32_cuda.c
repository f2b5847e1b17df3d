/* The CUDA backend in float32, with products on tensor cores in TF32. */
#define PRECISION PRECISION_TF32
#define TABLE ops_cuda_tf32
#include "model/ops_cuda_table.h"
