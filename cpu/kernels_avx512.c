/* The kernels, compiled for avx512: see CMakeLists.txt for the compiler's options. */
#define SK_KERNELS_NAME  "avx512"
#define SK_KERNELS_TABLE sk_cpu_kernels_avx512
#include "cpu/kernel_table.h"
