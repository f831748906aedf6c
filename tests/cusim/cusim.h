/* CUDA C++ on the CPU, for tests: what kernels see of it. A kernel is compiled as C++ by clang; every CUDA thread is a
 * fiber (kernel.cc), and with -fsanitize=thread every access is checked (access.cc).
 *
 * Shared memory is thread-local storage, static or (cu_smem) dynamic. Not here: textures, surfaces, clusters, dynamic
 * parallelism, printf, and what no kernel of ours uses.
 */
#pragma once

#include "cusim_kernel.h"

#include <math.h>
#include <string.h>
#include <tuple>
#include <type_traits>
#include <utility>

#undef __shared__
#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __forceinline__
#undef __launch_bounds__
#undef __grid_constant__
#define __shared__ constinit thread_local
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(n, ...)                                                                  \
	__attribute__((patchable_function_entry(n, n))) /* symbols.cc counts them */
#define __grid_constant__

/* What the simulation itself does is not to be checked. */
#define CUSIM_UNCHECKED __attribute__((no_sanitize("thread")))
#define CUSIM_HERE      const char *file = __builtin_FILE(), int line = __builtin_LINE()

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
enum { warpSize = 32 };

/* --- Launches --- */

namespace cusim
{

template <class... P> CUSIM_UNCHECKED void call(const void *function, void **arguments)
{
	[&]<size_t... I>(std::index_sequence<I...>) CUSIM_UNCHECKED
	{
		((void (*)(P...))function)(*(std::remove_reference_t<P> *)arguments[I]...);
	}
	(std::index_sequence_for<P...>());
}

template <class... P, class... A>
cudaError_t launch(const cudaLaunchConfig_t *config, void (*kernel)(P...), A &&...arguments)
{
	static const size_t sizes[] = {sizeof(P)..., 0};
	know_kernel((const void *)kernel, call<P...>, sizes, sizeof...(P));
	std::tuple<std::remove_reference_t<P>...> values(static_cast<P>(arguments)...);
	return std::apply(
		[&](auto &...value) {
			void *all[] = {(void *)&value..., nullptr};
			return cudaLaunchKernelExC(config, (const void *)kernel, all);
		},
		values);
}

} // namespace cusim

#define cudaLaunchKernelEx(config, kernel, ...) cusim::launch(config, kernel, ##__VA_ARGS__)

/* --- Barriers, warps --- */

#define __syncthreads()        ((void)cusim::barrier(__FILE__, __LINE__, __COUNTER__, 0))
#define __syncthreads_count(p) cusim::barrier(__FILE__, __LINE__, __COUNTER__, !!(p))
#define __syncthreads_or(p)    (cusim::barrier(__FILE__, __LINE__, __COUNTER__, !!(p)) != 0)

static inline void __syncwarp(unsigned mask = ~0u, CUSIM_HERE)
{
	cusim::warp("__syncwarp", mask, nullptr, cusim::nothing, true, file, line);
}

namespace cusim
{

enum Shuffle { INDEX, UP, DOWN, XOR };

template <class T> struct Shuffled {
	T given, got;
	int by, width;
	Shuffle sort;
};

template <class T> CUSIM_UNCHECKED void shuffle(void **io, unsigned active)
{
	for (int lane = 0; lane < 32; lane++) {
		if (!(active >> lane & 1))
			continue;
		auto *s = (Shuffled<T> *)io[lane];
		const int first = lane & ~(s->width - 1);
		int from = s->sort == INDEX  ? first + (s->by & (s->width - 1))
			   : s->sort == UP   ? lane - s->by
			   : s->sort == DOWN ? lane + s->by
					     : lane ^ s->by;
		if (from < first || from >= first + s->width)
			from = lane;
		if (active >> from & 1) {
			s->got = ((Shuffled<T> *)io[from])->given;
		} else { /* undefined on a device */
			memset(&s->got, 0xff, sizeof s->got);
			tell_inactive(lane, from);
		}
	}
}

template <class T>
CUSIM_UNCHECKED T shuffled(const char *name, unsigned mask, T value, int by, int width,
			   Shuffle sort, const char *file, int line)
{
	Shuffled<T> s = {value, value, by, width, sort};
	warp(name, mask, &s, shuffle<T>, false, file, line);
	return s.got;
}

struct Vote {
	bool given;
	unsigned got;
};

CUSIM_UNCHECKED inline void ballot(void **io, unsigned active)
{
	unsigned all = 0;
	for (int lane = 0; lane < 32; lane++)
		if (active >> lane & 1 && ((Vote *)io[lane])->given)
			all |= 1u << lane;
	for (int lane = 0; lane < 32; lane++)
		if (active >> lane & 1)
			((Vote *)io[lane])->got = all;
}

} // namespace cusim

template <class T>
static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, CUSIM_HERE)
{
	return cusim::shuffled("__shfl_sync", mask, value, lane, width, cusim::INDEX, file, line);
}

template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, CUSIM_HERE)
{
	return cusim::shuffled("__shfl_up_sync", mask, value, (int)by, width, cusim::UP, file,
			       line);
}

template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, int by, int width = 32, CUSIM_HERE)
{
	return cusim::shuffled("__shfl_down_sync", mask, value, by, width, cusim::DOWN, file, line);
}

template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32, CUSIM_HERE)
{
	return cusim::shuffled("__shfl_xor_sync", mask, value, by, width, cusim::XOR, file, line);
}

CUSIM_UNCHECKED static inline unsigned __ballot_sync(unsigned mask, int predicate, CUSIM_HERE)
{
	cusim::Vote v = {predicate != 0, 0};
	cusim::warp("__ballot_sync", mask, &v, cusim::ballot, false, file, line);
	return v.got;
}

#ifdef CUSIM_FAST /* five exchanges at once, with the same bits; what is checked runs them one by one (port.h) */
namespace cusim
{

template <bool GREATEST> void over_warp(void **io, unsigned active)
{
	float x[32], y[32];
	for (int lane = 0; lane < 32; lane++)
		x[lane] = active >> lane & 1 ? *(float *)io[lane] : 0;
	for (int by = 16; by; by /= 2) {
		for (int lane = 0; lane < 32; lane++)
			y[lane] = GREATEST ? fmaxf(x[lane], x[lane ^ by]) : x[lane] + x[lane ^ by];
		memcpy(x, y, sizeof x);
	}
	for (int lane = 0; lane < 32; lane++)
		if (active >> lane & 1)
			*(float *)io[lane] = x[lane];
}

} // namespace cusim

static inline float cusim_warp_sum(float x, CUSIM_HERE)
{
	cusim::warp("a sum over the warp", ~0u, &x, cusim::over_warp<false>, false, file, line);
	return x;
}

static inline float cusim_warp_max(float x, CUSIM_HERE)
{
	cusim::warp("the greatest of the warp", ~0u, &x, cusim::over_warp<true>, false, file, line);
	return x;
}
#endif

/* --- Atomics and fences --- */

namespace cusim
{

template <class T, class Function>
CUSIM_UNCHECKED __attribute__((noinline)) T change(T *p, int order, Function f)
{
	begin_atomic(p, sizeof(T), order, __builtin_return_address(0));
	const T old = *p;
	*p = f(old);
	return old;
}

} // namespace cusim

template <class T> static inline T atomicAdd(T *p, std::type_identity_t<T> x)
{
	return cusim::change(p, cusim::RELAXED,
			     [=](T old) CUSIM_UNCHECKED { return (T)(old + x); });
}

template <class T> static inline T atomicExch(T *p, std::type_identity_t<T> x)
{
	return cusim::change(p, cusim::RELAXED, [=](T) CUSIM_UNCHECKED { return x; });
}

template <class T> static inline T atomicMin(T *p, std::type_identity_t<T> x)
{
	return cusim::change(p, cusim::RELAXED,
			     [=](T old) CUSIM_UNCHECKED { return x < old ? x : old; });
}

static inline void __threadfence(void)
{
	cusim::fence();
}

/* --- What port.h gives a name --- */

static inline void cusim_mma(bool halves, float (&d)[4], const unsigned (&a)[4],
			     const unsigned (&b)[2], CUSIM_HERE)
{
	cusim::Fragments f = {d, a, b};
	cusim::warp("mma", ~0u, &f, halves ? cusim::multiply_halves : cusim::multiply_bfloats,
		    false, file, line);
}

static inline int __ffs(unsigned x)
{
	return __builtin_ffs((int)x);
}

template <class T> static inline T __ldg(const T *p)
{
	return *p;
}

template <class T> static inline T __ldcg(const T *p)
{
	return *p;
}

template <class T> static inline T __ldcs(const T *p)
{
	return *p;
}

static inline void sincospif(float x, float *sine, float *cosine)
{
	*sine = (float)sin(M_PI * (double)x);
	*cosine = (float)cos(M_PI * (double)x);
}

static inline float __uint_as_float(unsigned bits)
{
	float x;
	__builtin_memcpy(&x, &bits, sizeof x);
	return x;
}

static inline unsigned __float_as_uint(float x)
{
	unsigned bits;
	__builtin_memcpy(&bits, &x, sizeof bits);
	return bits;
}

template <class T> static inline T min(T a, T b)
{
	return a < b ? a : b;
}

template <class T> static inline T max(T a, T b)
{
	return a > b ? a : b;
}
