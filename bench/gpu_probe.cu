#include "gpu_probe.h"

#include <cuda_runtime.h>
#include <stdint.h>

#define BYTES ((size_t)4 << 30)
#define BLOCK 512
#define DEEP  4

__global__ void __launch_bounds__(BLOCK) read_all(const uint4 *p, size_t n, unsigned *sink)
{
	unsigned sum = 0;
	const size_t stride = (size_t)gridDim.x * BLOCK;
	size_t i = (size_t)blockIdx.x * BLOCK + threadIdx.x;
	for (; i + (DEEP - 1) * stride < n; i += DEEP * stride) {
		uint4 v[DEEP];
#pragma unroll
		for (int k = 0; k < DEEP; k++)
			v[k] = __ldcs(p + i + k * stride);
#pragma unroll
		for (int k = 0; k < DEEP; k++)
			sum ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
	}
	if (sum == 0x9e3779b9u) /* never, but nobody knows */
		*sink = sum;
}

double bench_gpu_bandwidth(void)
{
	char *data = nullptr;
	unsigned *sink = nullptr;
	int device = 0, n_processors = 0;
	cudaEvent_t from, to;
	float best = 0;
	if (cudaGetDevice(&device) != cudaSuccess ||
	    cudaDeviceGetAttribute(&n_processors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess ||
	    cudaMalloc(&data, BYTES) != cudaSuccess || cudaMalloc(&sink, sizeof *sink) != cudaSuccess ||
	    cudaMemset(data, 1, BYTES) != cudaSuccess || cudaEventCreate(&from) != cudaSuccess ||
	    cudaEventCreate(&to) != cudaSuccess) {
		cudaFree(data);
		cudaFree(sink);
		cudaGetLastError(); /* it is told here, and must not be told again */
		return 0;
	}
	cudaLaunchConfig_t config = {};
	config.gridDim = dim3(n_processors * 4);
	config.blockDim = dim3(BLOCK);
	for (int i = 0; i < 10; i++) {
		float ms = 0;
		cudaEventRecord(from);
		cudaError_t error =
			cudaLaunchKernelEx(&config, read_all, (const uint4 *)data, BYTES / sizeof(uint4), sink);
		cudaEventRecord(to);
		if (error != cudaSuccess || cudaEventSynchronize(to) != cudaSuccess || cudaEventElapsedTime(&ms, from, to) != cudaSuccess)
			break;
		if (i >= 2 && (best == 0 || ms < best))
			best = ms;
	}
	cudaEventDestroy(from);
	cudaEventDestroy(to);
	cudaFree(data);
	cudaFree(sink);
	return best > 0 ? BYTES / (best * 1e-3) : 0;
}
