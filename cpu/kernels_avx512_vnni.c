/* The kernels, compiled for avx512-vnni: see CMakeLists.txt for the compiler's options. */
#define SK_KERNELS_NAME  "avx512-vnni"
#define SK_KERNELS_TABLE sk_cpu_kernels_avx512_vnni
#include "cpu/kernel_table.h"
