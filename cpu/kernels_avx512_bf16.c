/* The kernels, compiled for avx512-bf16: see CMakeLists.txt for the compiler's options. */
#define SK_KERNELS_NAME  "avx512-bf16"
#define SK_KERNELS_TABLE sk_cpu_kernels_avx512_bf16
#include "cpu/kernel_table.h"
