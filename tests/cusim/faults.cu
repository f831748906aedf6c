#include "faults.h"

#include "gpu/kernels/port.h"

#include <cublas_v2.h>

__global__ void no_barrier(const float *in, float *out, bool planted)
{
	__shared__ float shared[256];
	sk_begin();
	shared[threadIdx.x] = in[threadIdx.x];
	if (!planted)
		__syncthreads();
	out[threadIdx.x] = shared[threadIdx.x ^ 32];
}

__global__ void no_syncwarp(const float *in, float *out, bool planted)
{
	__shared__ float shared[32];
	sk_begin();
	shared[threadIdx.x] = in[threadIdx.x];
	if (!planted)
		__syncwarp();
	out[threadIdx.x] = shared[threadIdx.x ^ 1];
}

__global__ void no_barrier_again(const float *in, float *out, bool planted)
{
	__shared__ float shared[2];
	sk_begin();
	float sum = 0;
	for (int i = 0; i < 2; i++) {
		if (threadIdx.x % 32 == 0)
			shared[threadIdx.x / 32] = in[i * 64 + threadIdx.x];
		__syncthreads();
		sum += shared[0] + shared[1];
		if (!planted)
			__syncthreads();
	}
	out[threadIdx.x] = sum;
}

__global__ void two_barriers(float *out, bool planted)
{
	sk_begin();
	if (!planted)
		__syncthreads();
	else if (threadIdx.x < 32)
		__syncthreads();
	else
		__syncthreads();
	out[threadIdx.x] = 1;
}

__global__ void lost_lane(float *out, bool planted)
{
	sk_begin();
	if (planted && threadIdx.x >= 20)
		return;
	const float x = __shfl_down_sync(SK_ALL, (float)threadIdx.x, 16);
	out[threadIdx.x] = x;
}

__global__ void past_the_end(float *out, uint32_t n)
{
	sk_begin();
	out[n - 1] = 1;
}

extern __shared__ __align__(16) unsigned char cu_smem[];

__global__ void shared_bounds(float *out, bool planted)
{
	sk_begin();
	((float *)cu_smem)[threadIdx.x + (planted ? 1 : 0)] = 1;
	__syncthreads();
	out[threadIdx.x] = 1;
}

__global__ void unwritten_shared(float *out, bool planted)
{
	__shared__ float shared[64];
	sk_begin();
	if (!planted || threadIdx.x < 32)
		shared[threadIdx.x] = 1;
	__syncthreads();
	out[threadIdx.x] = shared[threadIdx.x];
}

__global__ void copy_one(const float *in, float *out)
{
	sk_begin();
	*out = *in;
}

__global__ void alignment(const float *in, float *out, int offset)
{
	sk_begin();
	const float4 v = sk_load_floats(in + offset);
	*out = v.x + v.y + v.z + v.w;
}

__global__ void no_fence(float *parts, unsigned *counter, float *out, bool planted)
{
	__shared__ bool last;
	sk_begin();
	if (threadIdx.x == 0) {
		parts[blockIdx.x] = 1;
		if (!planted)
			__threadfence();
		last = atomicAdd(counter, 1u) == gridDim.x - 1;
		if (!planted)
			__threadfence();
	}
	__syncthreads();
	if (last && threadIdx.x == 0) {
		float sum = 0;
		for (unsigned i = 0; i < gridDim.x; i++)
			sum += parts[i];
		*out = sum;
	}
}

__global__ void blocks_race(float *out, bool planted)
{
	sk_begin();
	if (planted)
		*out += 1;
	else
		atomicAdd(out, 1.f);
}

__global__ void early_write(float *out)
{
	sk_begin();
	out[threadIdx.x] = 1;
}

__global__ void early_read(const float *in, float *out, bool planted)
{
	if (!planted)
		sk_wait_for_previous();
	const float x = in[threadIdx.x];
	sk_wait_for_previous();
	out[threadIdx.x] = x;
}

__global__ void copy_unwaited(const float *in, float *out, bool planted)
{
	__shared__ __align__(16) float shared[128];
	sk_begin();
	sk_copy16(shared + threadIdx.x * 4, in + threadIdx.x * 4);
	sk_commit_copies();
	if (!planted)
		sk_wait_for_copies<0>();
	__syncthreads();
	out[threadIdx.x] = shared[threadIdx.x * 4];
	sk_wait_for_copies<0>();
}

__global__ void __launch_bounds__(64) static_bounds(float *out, bool planted)
{
	__shared__ float shared[64], beside[64];
	sk_begin();
	beside[threadIdx.x] = 1;
	shared[threadIdx.x + (planted ? 1 : 0)] = 1;
	__syncthreads();
	out[threadIdx.x] = shared[threadIdx.x ^ 1] + beside[threadIdx.x ^ 1];
}

__global__ void __launch_bounds__(64) static_past(float *out, bool planted)
{
	__shared__ float shared[64];
	sk_begin();
	volatile float *p = shared;
	p[threadIdx.x + (planted ? 64 : 0)] = 1;
	__syncthreads();
	out[threadIdx.x] = planted ? 0 : shared[threadIdx.x ^ 1];
}

__global__ void __launch_bounds__(128) some_meet(float *out, int n)
{
	__shared__ float shared[96];
	sk_begin();
	if (threadIdx.x >= 96)
		return;
	shared[threadIdx.x] = 1;
	sk_sync_some(n);
	out[threadIdx.x] = shared[95 - threadIdx.x];
}

/* Whether it waits or not. */
__global__ void beside(float *out, bool planted)
{
	sk_let_next_begin();
	if (!planted)
		sk_wait_for_previous();
	out[threadIdx.x] = 1;
}

__global__ void static_and_dynamic(float *out)
{
	__shared__ float shared[8192];
	sk_begin();
	shared[threadIdx.x] = 1;
	((float *)cu_smem)[threadIdx.x] = 1;
	__syncthreads();
	out[threadIdx.x] = shared[threadIdx.x ^ 1] + ((float *)cu_smem)[threadIdx.x ^ 1];
}

__global__ void constant(float *in, float *out, bool write_first, bool write_then)
{
	sk_begin();
	if (write_first)
		in[threadIdx.x] = 2;
	__syncthreads();
	const uint4 v = sk_load16_once(in + threadIdx.x / 4 * 4);
	__syncthreads();
	if (write_then)
		in[threadIdx.x] = 2;
	out[threadIdx.x] = __uint_as_float(v.x);
}

/* The first block reads, and only then the other adds: nothing says so in the sound one either, but it reads atomically. */
__global__ void plain_and_atomic(unsigned *counter, float *turn, float *out, bool planted)
{
	sk_begin();
	if (blockIdx.x == 0) {
		out[0] = (float)(planted ? *counter : atomicAdd(counter, 0u));
		atomicExch((unsigned *)turn, 1u);
	} else if (atomicAdd((unsigned *)turn, 0u)) {
		atomicAdd(counter, 1u);
	}
}

__global__ void add_one(float *out)
{
	sk_begin();
	out[threadIdx.x] += 1;
}

static cudaError_t multiply(cudaStream_t s, const float *a, const float *b, float *c, float beta)
{
	const float alpha = 1;
	cublasHandle_t blas;
	cublasStatus_t status = cublasCreate(&blas);
	if (status == CUBLAS_STATUS_SUCCESS)
		status = cublasSetStream(blas, s);
	if (status == CUBLAS_STATUS_SUCCESS)
		status = cublasGemmEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, 8, 8, 8, &alpha, a, CUDA_R_32F, 8, b, CUDA_R_32F, 8, &beta, c,
				      CUDA_R_32F, 8, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
	cublasDestroy(blas);
	return status == CUBLAS_STATUS_SUCCESS ? cudaSuccess : cudaErrorUnknown;
}

cudaError_t run_fault(cudaStream_t s, enum fault fault, bool planted, const struct fault_memory *m)
{
	switch (fault) {
	case FAULT_NO_BARRIER:
		return sk_launch(s, no_barrier, dim3(1), 256, 0, m->in, m->out, planted);
	case FAULT_NO_SYNCWARP:
		return sk_launch(s, no_syncwarp, dim3(1), 32, 0, m->in, m->out, planted);
	case FAULT_NO_BARRIER_AGAIN:
		return sk_launch(s, no_barrier_again, dim3(1), 64, 0, m->in, m->out, planted);
	case FAULT_TWO_BARRIERS:
		return sk_launch(s, two_barriers, dim3(1), 64, 0, m->out, planted);
	case FAULT_LOST_LANE:
		return sk_launch(s, lost_lane, dim3(1), 32, 0, m->out, planted);
	case FAULT_PAST_THE_END:
		return sk_launch(s, past_the_end, dim3(1), 1, 0, m->out, planted ? 1025u : 1024u);
	case FAULT_SHARED_BOUNDS:
		return sk_launch(s, shared_bounds, dim3(1), 64, 256, m->out, planted);
	case FAULT_UNWRITTEN_SHARED:
		return sk_launch(s, unwritten_shared, dim3(1), 64, 0, m->out, planted);
	case FAULT_UNWRITTEN:
		return sk_launch(s, copy_one, dim3(1), 1, 0, m->in + (planted ? 512 : 511), m->out);
	case FAULT_ALIGNMENT:
		return sk_launch(s, alignment, dim3(1), 1, 0, m->in, m->out, planted ? 1 : 4);
	case FAULT_NO_FENCE:
		return sk_launch(s, no_fence, dim3(4), 32, 0, m->out + 8, m->counter, m->out, planted);
	case FAULT_BLOCKS_RACE:
		return sk_launch(s, blocks_race, dim3(2), 1, 0, m->in, planted);
	case FAULT_EARLY_READ: {
		cudaError_t error = sk_launch(s, early_write, dim3(1), 64, 0, m->in);
		return error ? error : sk_launch(s, early_read, dim3(1), 64, 0, m->in, m->out, planted);
	}
	case FAULT_HOST_MEMORY:
		return sk_launch(s, copy_one, dim3(1), 1, 0, planted ? m->host : m->in, m->out);
	case FAULT_COPY_UNWAITED:
		return sk_launch(s, copy_unwaited, dim3(1), 32, 0, m->in, m->out, planted);
	case FAULT_STATIC_BOUNDS:
		return sk_launch(s, static_bounds, dim3(1), 64, 0, m->out, planted);
	case FAULT_STATIC_PAST:
		return sk_launch(s, static_past, dim3(1), 64, 0, m->out, planted);
	case FAULT_LAUNCH_BOUNDS:
		return sk_launch(s, static_bounds, dim3(1), planted ? 65 : 64, 0, m->out, false);
	case FAULT_BARRIER_FEW:
		return sk_launch(s, some_meet, dim3(1), 128, 0, m->out, planted ? 64 : 96);
	case FAULT_BARRIER_MANY:
		return sk_launch(s, some_meet, dim3(1), 128, 0, m->out, planted ? 128 : 96);
	case FAULT_NEVER_WAITS: {
		cudaError_t error = sk_launch(s, early_write, dim3(1), 64, 0, m->in);
		if (!error)
			error = sk_launch(s, beside, dim3(1), 64, 0, m->out, planted);
		return error ? error : sk_launch(s, early_read, dim3(1), 64, 0, m->in, m->out + 64, false);
	}
	case FAULT_STATIC_DYNAMIC:
		return sk_launch(s, static_and_dynamic, dim3(1), 64, (planted ? 17 : 16) << 10, m->out);
	case FAULT_CONSTANT_WRITTEN:
		return sk_launch(s, constant, dim3(1), 64, 0, m->in, m->out, planted, false);
	case FAULT_WRITES_CONSTANT:
		return sk_launch(s, constant, dim3(1), 64, 0, m->in, m->out, false, planted);
	case FAULT_PLAIN_ATOMIC:
		return sk_launch(s, plain_and_atomic, dim3(2), 1, 0, m->counter, m->in, m->out, planted);
	case FAULT_HOST_UNWRITTEN:
		return cudaMemcpyAsync(m->host, m->in, (planted ? 513 : 512) * sizeof(float), cudaMemcpyDeviceToHost, s);
	case FAULT_COPY_UNWRITTEN: {
		const cudaError_t error =
			cudaMemcpyAsync(m->out, m->in + 510, 4 * sizeof(float), cudaMemcpyDeviceToDevice, s);
		return error ? error : sk_launch(s, copy_one, dim3(1), 1, 0, m->out + (planted ? 2 : 1), m->out + 8);
	}
	case FAULT_BLAS_UNWRITTEN:
		return multiply(s, m->in, m->in + (planted ? 452 : 448), m->out, 0);
	case FAULT_BLAS_ADDS:
		return multiply(s, m->in, m->in, m->out, planted);
	case FAULT_TWO_STREAMS: {
		cudaEvent_t event;
		cudaError_t error = sk_launch(s, add_one, dim3(1), 64, 0, m->in);
		if (!error)
			error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
		if (!error)
			error = cudaEventRecord(event, s);
		if (!error && !planted)
			error = cudaStreamWaitEvent(m->other, event, 0);
		if (!error)
			error = cudaEventDestroy(event);
		if (!error)
			error = sk_launch(m->other, add_one, dim3(1), 64, 0, m->in);
		return error ? error : cudaStreamSynchronize(m->other);
	}
	case FAULT_PINNED_BOUNDS:
		return cudaMemcpyAsync(m->pinned, m->in, (planted ? 33 : 32) * sizeof(float), cudaMemcpyDeviceToHost, s);
	case N_FAULTS:
		break;
	}
	return cudaErrorInvalidValue;
}
