/* The kernels, compiled for scalar: see CMakeLists.txt for the compiler's options. */
#define SK_KERNELS_NAME  "scalar"
#define SK_KERNELS_TABLE sk_cpu_kernels_scalar
#include "cpu/kernel_table.h"
