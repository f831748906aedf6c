/* The one header that kernels include: CUDA under nvcc, its imitation on the CPU in tests (tests/cusim).
 * What needs a machine instruction of its own is a function here, so that a kernel reads the same in both.
 */
#pragma once

#include <stdint.h>
#include <type_traits>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define SK_DEVICE static __device__ __forceinline__
#define SK_MEMBER __device__ __forceinline__

/* 16 bytes that are read once: past the first-level cache, which holds what is read again. */
SK_DEVICE uint4 sk_load16_once(const void *p)
{
	uint4 v;
	asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
		     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
		     : "l"(p));
	return v;
}

/* Programmatic dependent launch: waits for what the launch before has written, lets the next one begin. */
SK_DEVICE void sk_wait_for_previous(void)
{
	asm volatile("griddepcontrol.wait;" ::: "memory");
}

SK_DEVICE void sk_let_next_begin(void)
{
	asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
#else
#include "cusim.h"
#define SK_DEVICE static inline
#define SK_MEMBER inline

SK_DEVICE uint4 sk_load16_once(const void *p)
{
	return *(const uint4 *)p;
}

SK_DEVICE void sk_wait_for_previous(void)
{
	pdl_wait();
}

SK_DEVICE void sk_let_next_begin(void)
{
	pdl_launch();
}
#endif

#define SK_WARP     32
#define SK_ALL      0xffffffffu
#define SK_PER_WORD 8 /* 16-bit elements in 16 bytes */

SK_DEVICE float sk_warp_sum(float x)
{
	for (int i = 16; i; i /= 2)
		x += __shfl_xor_sync(SK_ALL, x, i);
	return x;
}

SK_DEVICE float sk_warp_max(float x)
{
	for (int i = 16; i; i /= 2)
		x = fmaxf(x, __shfl_xor_sync(SK_ALL, x, i));
	return x;
}

/* Queues kernel<<<grid, block, shared>>> on a stream. */
template <class... Wanted, class... Given>
static cudaError_t sk_launch(cudaStream_t stream, void (*kernel)(Wanted...), dim3 grid,
			     uint32_t block, size_t shared_bytes, Given... arguments)
{
	cudaLaunchConfig_t config = {};
	config.gridDim = grid;
	config.blockDim = dim3(block);
	config.dynamicSmemBytes = shared_bytes;
	config.stream = stream;
	return cudaLaunchKernelEx(&config, kernel, static_cast<Wanted>(arguments)...);
}
