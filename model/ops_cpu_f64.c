/* The CPU backend in float64: for exactness, not for speed. */
#define REAL double
#define DTYPE F64
#define OPS ops_cpu_f64
#define CONV(name) conv_f64_##name
#define INDEX int64_t
#define EXP exp
#define ERF erf
#define ERFC erfc
#define TANH tanh
#define LOG1P log1p
#define SQRT sqrt
#include "model/ops_cpu_real.h"
