#include "faults.h"

#include "gpu/kernels/port.h"

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
	case N_FAULTS:
		break;
	}
	return cudaErrorInvalidValue;
}
