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
#include <nv/target>
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

/* 16 bytes at once. */
SK_DEVICE uint4 sk_load16(const void *p)
{
	return *(const uint4 *)p;
}

SK_DEVICE float4 sk_load_floats(const float *p)
{
	return *(const float4 *)p;
}

SK_DEVICE void sk_store_floats(float *p, const float4 &v)
{
	*(float4 *)p = v;
}

/* Rounded one by one, never fused: where the CPU backend is to get the same bits. */
SK_DEVICE float sk_mul(float a, float b)
{
	return __fmul_rn(a, b);
}

SK_DEVICE float sk_add(float a, float b)
{
	return __fadd_rn(a, b);
}

SK_DEVICE float sk_div(float a, float b)
{
	return __fdiv_rn(a, b);
}

/* The bytes of a and b (0 to 3, 4 to 7) that the digits of `which` name, the lowest first. */
SK_DEVICE unsigned sk_pick_bytes(unsigned a, unsigned b, unsigned which)
{
	return __byte_perm(a, b, which);
}

/* u & mask | bits, in one instruction. */
SK_DEVICE unsigned sk_and_or(unsigned u, unsigned mask, unsigned bits)
{
	unsigned y;
	asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(y) : "r"(u), "r"(mask), "r"(bits));
	return y;
}

/* Two BF16 and two. */
SK_DEVICE unsigned sk_add_bfloats(unsigned a, unsigned b)
{
	const __nv_bfloat162 y = __hadd2(*(const __nv_bfloat162 *)&a, *(const __nv_bfloat162 *)&b);
	return *(const unsigned *)&y;
}

/* Programmatic dependent launch: waits for what the launch before has written, lets the next one begin. Devices before
 * sm_90 have no such thing: there a launch begins when the one before has ended. */
SK_DEVICE void sk_wait_for_previous(void)
{
	NV_IF_TARGET(NV_PROVIDES_SM_90, (asm volatile("griddepcontrol.wait;" ::: "memory");))
}

SK_DEVICE void sk_let_next_begin(void)
{
	NV_IF_TARGET(NV_PROVIDES_SM_90, (asm volatile("griddepcontrol.launch_dependents;" ::
							      : "memory");))
}

/* The first n threads of a block meet, whole warps; the others have ended. */
SK_DEVICE void sk_sync_some(int n)
{
	asm volatile("bar.sync 1, %0;" : : "r"(n) : "memory");
}

/* 16 bytes to shared memory, which land when they are waited for: all but the last N groups. */
SK_DEVICE void sk_copy16(void *shared, const void *global)
{
	const unsigned to = (unsigned)__cvta_generic_to_shared(shared);
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
		     :
		     : "r"(to), "l"(global)
		     : "memory");
}

SK_DEVICE void sk_commit_copies(void)
{
	asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N> SK_DEVICE void sk_wait_for_copies(void)
{
	asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}

/* d (16, 8) += a (16, 16) b (16, 8), a warp together, in fragments as PTX's mma.m16n8k16 has them. */
SK_DEVICE void sk_mma_halves(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
		     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
		     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

SK_DEVICE void sk_mma_bfloats(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
		     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
		     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
#include <cusim.h> /* tests/cusim */
#define SK_DEVICE static inline
#define SK_MEMBER inline

SK_DEVICE uint4 sk_load16(const void *p)
{
	cusim::check_alignment(p, 16, true); /* the compiler may make several loads of it */
	return *(const uint4 *)p;
}

SK_DEVICE uint4 sk_load16_once(const void *p)
{
	const uint4 v = sk_load16(p);
	cusim::check_constant(p, 16);
	return v;
}

SK_DEVICE float4 sk_load_floats(const float *p)
{
	cusim::check_alignment(p, 16);
	return *(const float4 *)p;
}

SK_DEVICE void sk_store_floats(float *p, const float4 &v)
{
	cusim::check_alignment(p, 16);
	*(float4 *)p = v;
}

SK_DEVICE float sk_mul(float a, float b)
{
	return a * b;
}

SK_DEVICE float sk_add(float a, float b)
{
	return a + b;
}

SK_DEVICE float sk_div(float a, float b)
{
	return a / b;
}

SK_DEVICE unsigned sk_pick_bytes(unsigned a, unsigned b, unsigned which)
{
	const uint64_t both = (uint64_t)b << 32 | a;
	unsigned y = 0;
	for (int i = 0; i < 4; i++)
		y |= (unsigned)(both >> (which >> 4 * i & 7) * 8 & 0xff) << 8 * i;
	return y;
}

SK_DEVICE unsigned sk_and_or(unsigned u, unsigned mask, unsigned bits)
{
	return (u & mask) | bits;
}

SK_DEVICE unsigned sk_add_bfloats(unsigned a, unsigned b)
{
	const auto at = [](unsigned u, int i) {
		return __bfloat162float(__ushort_as_bfloat16((unsigned short)(u >> 16 * i)));
	};
	const __nv_bfloat162 y = __floats2bfloat162_rn(at(a, 0) + at(b, 0), at(a, 1) + at(b, 1));
	return *(const unsigned *)&y;
}

SK_DEVICE void sk_wait_for_previous(void)
{
	cusim::wait_for_previous();
}

SK_DEVICE void sk_let_next_begin(void)
{
}

SK_DEVICE void sk_sync_some(int n, CUSIM_HERE)
{
	cusim::barrier(file, line, -line, 0, n);
}

SK_DEVICE void sk_copy16(void *shared, const void *global)
{
	cusim::copy_later(shared, global);
}

SK_DEVICE void sk_commit_copies(void)
{
	cusim::commit_copies();
}

template <int N> SK_DEVICE void sk_wait_for_copies(void)
{
	cusim::wait_for_copies(N);
}

SK_DEVICE void sk_mma_halves(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
	cusim_mma(true, d, a, b);
}

SK_DEVICE void sk_mma_bfloats(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])
{
	cusim_mma(false, d, a, b);
}
#endif

#define SK_WARP     32
#define SK_ALL      0xffffffffu
#define SK_PER_WORD 8 /* 16-bit elements in 16 bytes */

SK_DEVICE void sk_begin(void)
{
	sk_let_next_begin();
	sk_wait_for_previous();
}

SK_DEVICE float sk_warp_sum(float x)
{
#ifdef CUSIM_FAST
	return cusim_warp_sum(x);
#endif
	for (int i = 16; i; i /= 2)
		x += __shfl_xor_sync(SK_ALL, x, i);
	return x;
}

SK_DEVICE float sk_warp_max(float x)
{
#ifdef CUSIM_FAST
	return cusim_warp_max(x);
#endif
	for (int i = 16; i; i /= 2)
		x = fmaxf(x, __shfl_xor_sync(SK_ALL, x, i));
	return x;
}

/* The sum over the lanes of a warp up to this one. */
template <class T> SK_DEVICE T sk_warp_sum_to(T x)
{
	for (uint32_t by = 1; by < SK_WARP; by *= 2) {
		const T other = __shfl_up_sync(SK_ALL, x, by);
		x += threadIdx.x % SK_WARP >= by ? other : 0;
	}
	return x;
}

/* The MLP's nonlinearity; kind: enum sk_act. */
SK_DEVICE float sk_gelu(float x, int kind)
{
	if (kind == 0) /* SK_ACT_GELU */
		return 0.5f * x * (1 + erff(x * 0.7071067811865476f));
	return 0.5f * x * (1 + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

/* Queues kernel<<<grid, block, shared>>> on a stream. It may begin before its predecessor has ended, so every kernel
 * starts with sk_begin(), and before that touches nothing that another writes. */
template <class... Wanted, class... Given>
static cudaError_t sk_launch(cudaStream_t stream, void (*kernel)(Wanted...), dim3 grid,
			     uint32_t block, size_t shared_bytes, Given... arguments)
{
	cudaLaunchConfig_t config = {};
	config.gridDim = grid;
	config.blockDim = dim3(block);
	config.dynamicSmemBytes = shared_bytes;
	config.stream = stream;
	cudaLaunchAttribute early[1] = {};
	early[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
	early[0].val.programmaticStreamSerializationAllowed = 1;
	config.attrs = early;
	config.numAttrs = 1;
	return cudaLaunchKernelEx(&config, kernel, static_cast<Wanted>(arguments)...);
}
