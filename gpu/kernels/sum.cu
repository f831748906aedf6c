/* A checksum over weights: of pairs of 64-bit words, each mixed with its place, so that what moves is seen as well as
 * what changes; added up in any order. (The multipliers are those of splitmix64, Steele et al. 2014.)
 */
#include "gpu/kernels/launch.h"
#include "gpu/kernels/port.h"

#define BLOCK 256

typedef unsigned long long sum_t;

SK_DEVICE sum_t mixed(sum_t word, sum_t place)
{
	word ^= place * 0x9e3779b97f4a7c15u;
	word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9u;
	word = (word ^ word >> 27) * 0x94d049bb133111ebu;
	return word ^ word >> 31;
}

__global__ void __launch_bounds__(BLOCK) sum(sum_t *out, const void *data, uint64_t n_words)
{
	sk_begin();
	__shared__ sum_t sums[BLOCK / SK_WARP];
	sum_t all = 0;
	for (uint64_t i = blockIdx.x * (uint64_t)BLOCK + threadIdx.x; i < n_words; i += (uint64_t)gridDim.x * BLOCK) {
		const uint4 v = sk_load16_once((const char *)data + i * 16);
		all += mixed((sum_t)v.y << 32 | v.x, 2 * i) + mixed((sum_t)v.w << 32 | v.z, 2 * i + 1);
	}
	for (int by = 16; by; by /= 2)
		all += __shfl_xor_sync(SK_ALL, all, by);
	if (threadIdx.x % SK_WARP == 0)
		sums[threadIdx.x / SK_WARP] = all;
	__syncthreads();
	if (threadIdx.x == 0) {
		for (int i = 1; i < BLOCK / SK_WARP; i++)
			all += sums[i];
		atomicAdd(out, all);
	}
}

cudaError_t sk_gpu_sum(cudaStream_t stream, uint64_t *out, const void *data, uint64_t n_bytes,
		       uint32_t n_blocks)
{
	const uint64_t n_words = n_bytes / 16, wanted = (n_words + BLOCK - 1) / BLOCK;
	const uint32_t n = wanted < n_blocks ? (uint32_t)wanted : n_blocks;
	return sk_launch(stream, sum, dim3(n ? n : 1), BLOCK, 0, (sum_t *)out, data, n_words);
}
