/* The CPU backend in float32. */
#define REAL float
#define DTYPE F32
#define OPS ops_cpu_f32
#define CONV(name) conv_f32_##name
#define INDEX int32_t
#define EXP expf
#define ERF erff
#define ERFC erfcf
#define TANH tanhf
#define LOG1P log1pf
#define SQRT sqrtf
#include "model/ops_cpu_real.h"
