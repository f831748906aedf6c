/* The kernels, compiled for avx2: see CMakeLists.txt for the compiler's options. */
#define SK_KERNELS_NAME  "avx2"
#define SK_KERNELS_TABLE sk_cpu_kernels_avx2
#include "cpu/kernel_table.h"
