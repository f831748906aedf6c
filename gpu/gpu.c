#include "gpu/gpu.h"

#include "gpu/device.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEAD_DIM 256
#define MAX_ROWS     65535 /* a grid's blocks in two of its directions; also --step-tokens' most */

int sk_gpu_errno(cudaError_t error)
{
	return error == cudaSuccess ? 0 : error == cudaErrorMemoryAllocation ? -ENOMEM : -EIO;
}

bool sk_gpu_check(struct sk_gpu *gpu, cudaError_t error, const char *what)
{
	if (error == cudaSuccess)
		return true;
	cudaGetLastError(); /* it is told here, and must not be told again */
	if (gpu->error == 0) {
		gpu->error = sk_gpu_errno(error);
		snprintf(gpu->why, sizeof gpu->why, "%s: %s", what, cudaGetErrorString(error));
	}
	return false;
}

static void gpu_close(struct sk_backend *backend)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu)
		return;
	sk_gpu_step_finish(gpu);
	sk_gpu_free_all(gpu);
	sk_gpu_pages_finish(gpu);
	sk_gpu_block_finish(&gpu->steps);
	if (gpu->cublas)
		cublasDestroy(gpu->cublas);
	sk_gpu_block_finish(&gpu->workspace);
	if (gpu->pages_done)
		cudaEventDestroy(gpu->pages_done);
	if (gpu->copies)
		cudaStreamDestroy(gpu->copies);
	if (gpu->stream)
		cudaStreamDestroy(gpu->stream);
	free(gpu);
}

static const char *gpu_name(const struct sk_backend *backend)
{
	return sk_gpu_from(backend)->name;
}

static const char *gpu_why(const struct sk_backend *backend)
{
	return sk_gpu_from(backend)->why;
}

static uint64_t gpu_weight_bytes(const struct sk_backend *backend)
{
	return sk_gpu_from(backend)->weight_bytes;
}

static uint64_t gpu_page_bytes(const struct sk_backend *backend)
{
	return sk_gpu_from(backend)->cache.page_bytes;
}

const struct sk_backend_ops sk_gpu_ops = {
	.close = gpu_close,
	.name = gpu_name,
	.alloc = sk_gpu_alloc,
	.free = sk_gpu_free,
	.pack_linear = sk_gpu_pack_linear,
	.pack_norm = sk_gpu_pack_norm,
	.linear_bytes = sk_gpu_linear_bytes,
	.norm_bytes = sk_gpu_norm_bytes,
	.share_weights = sk_gpu_share_weights,
	.export_weights = sk_gpu_export_weights,
	.import_weights = sk_gpu_import_weights,
	.check_weights = sk_gpu_check_weights,
	.weight_bytes = gpu_weight_bytes,
	.scratch_bytes = sk_gpu_scratch_bytes,
	.page_bytes = gpu_page_bytes,
	.reserve_pages = sk_gpu_reserve_pages,
	.clear_pages = sk_gpu_clear_pages,
	.copy_page = sk_gpu_copy_page,
	.read_page = sk_gpu_read_page,
	.write_page = sk_gpu_write_page,
	.page_layout = sk_gpu_page_layout,
	.begin_step = sk_gpu_begin_step,
	.end_step = sk_gpu_end_step,
	.embed = sk_gpu_embed_op,
	.norm = sk_gpu_norm_op,
	.matmul = sk_gpu_matmul_op,
	.matmul_add = sk_gpu_matmul_add_op,
	.append = sk_gpu_append_op,
	.attend = sk_gpu_attend_op,
	.activate = sk_gpu_activate_op,
	.gather = sk_gpu_gather_op,
	.score = sk_gpu_score_op,
	.draw = sk_gpu_draw_op,
	.wait = sk_gpu_wait,
	.read = sk_gpu_read,
	.why = gpu_why,
};

/* Turns a position, in units of 2^-64: base^(-2i / n_rot) / 2 pi. */
static int upload_steps(struct sk_gpu *gpu)
{
	const uint32_t half = gpu->base.shape.n_rot / 2;
	uint64_t steps[MAX_HEAD_DIM / 2];
	for (uint32_t i = 0; i < half; i++)
		steps[i] = (uint64_t)roundl(
			ldexpl(powl((long double)gpu->base.shape.rope_base,
				    -2.0L * i / gpu->base.shape.n_rot) /
				       (2 * 3.14159265358979323846264338327950288L),
			       64));
	int r = sk_gpu_block_init(gpu, &gpu->steps, half * sizeof *steps);
	if (r == 0 && half)
		r = sk_gpu_errno(cudaMemcpy(gpu->steps.data, steps, half * sizeof *steps,
					    cudaMemcpyHostToDevice));
	gpu->cache.steps = gpu->steps.data;
	return r;
}

/* What cuBLAS recommends: for Hopper more than for those before. */
static size_t workspace_bytes(const struct cudaDeviceProp *properties)
{
	return (size_t)(properties->major >= 9 ? 32 : 4) << 20;
}

static int gpu_init(struct sk_gpu *gpu)
{
	struct cudaDeviceProp properties;
	cudaError_t error = cudaSetDevice(gpu->device);
	if (error == cudaSuccess)
		error = cudaGetDeviceProperties(&properties, gpu->device);
	if (error == cudaSuccess)
		error = cudaStreamCreateWithFlags(&gpu->stream, cudaStreamNonBlocking);
	if (error == cudaSuccess)
		error = cudaStreamCreateWithFlags(&gpu->copies, cudaStreamNonBlocking);
	if (error == cudaSuccess)
		error = cudaEventCreateWithFlags(&gpu->pages_done, cudaEventDisableTiming);
	if (error != cudaSuccess)
		return sk_gpu_errno(error);
	snprintf(gpu->name, sizeof gpu->name, "cuda (%s)", properties.name);
	memcpy(gpu->uuid, properties.uuid.bytes, sizeof gpu->uuid);
	gpu->n_processors = (uint32_t)properties.multiProcessorCount;

	int r = sk_gpu_block_init(gpu, &gpu->workspace, workspace_bytes(&properties));
	if (r == 0 && (cublasCreate(&gpu->cublas) != CUBLAS_STATUS_SUCCESS ||
		       cublasSetStream(gpu->cublas, gpu->stream) != CUBLAS_STATUS_SUCCESS ||
		       cublasSetWorkspace(gpu->cublas, gpu->workspace.data,
					  gpu->workspace.size_bytes) != CUBLAS_STATUS_SUCCESS))
		r = -EIO;
	if (r == 0)
		r = upload_steps(gpu);
	if (r == 0)
		r = sk_gpu_step_init(gpu);
	return r;
}

static bool gpu_is_present(void)
{
	int n_devices = 0;
	if (cudaGetDeviceCount(&n_devices) == cudaSuccess)
		return n_devices > 0;
	cudaGetLastError();
	return false;
}

static int gpu_open(const struct sk_backend_options *options, const struct sk_backend_shape *shape,
		    struct sk_backend **ret_backend, struct sk_diag *diag)
{
	int n_devices = 0;
	cudaError_t error = cudaGetDeviceCount(&n_devices);
	if (error != cudaSuccess || n_devices == 0) {
		cudaGetLastError();
		return sk_diag_fail(diag, ENODEV, "backend cuda: no device: %s; use --backend cpu",
				    error == cudaSuccess ? "none is there"
							 : cudaGetErrorString(error));
	}
	if (options->device >= (uint32_t)n_devices)
		return sk_diag_fail(diag, ENODEV,
				    "backend cuda: there is no device %u; devices are 0 to %d",
				    options->device, n_devices - 1);
	if (shape->head_dim > MAX_HEAD_DIM)
		return sk_diag_fail(diag, ENOTSUP,
				    "backend cuda: heads of %u dimensions; at most %d are known",
				    shape->head_dim, MAX_HEAD_DIM);
	if (shape->max_rows > MAX_ROWS)
		return sk_diag_fail(diag, ENOTSUP, "backend cuda: steps of %u rows; at most %d",
				    shape->max_rows, MAX_ROWS);
	struct sk_gpu *gpu = calloc(1, sizeof *gpu);
	if (!gpu)
		return sk_diag_fail(diag, ENOMEM, "backend cuda: out of memory");
	gpu->base = (struct sk_backend){.ops = &sk_gpu_ops, .shape = *shape};
	gpu->device = (int)options->device;
	gpu->exact = options->exact;
	gpu->without_graphs = getenv("STREAMKV_NO_GRAPHS") != NULL;
	sk_list_init(&gpu->buffers);
	sk_list_init(&gpu->linears);
	sk_list_init(&gpu->norms);
	gpu->shared.fd = -1;
	atomic_flag_clear(&gpu->stage_is_taken);
	sk_gpu_pages_init(gpu);
	int r = gpu_init(gpu);
	if (r < 0) {
		gpu_close(&gpu->base);
		return sk_diag_fail(
			diag, -r, "backend cuda: device %u cannot be used with %u rows a step: %s",
			options->device, shape->max_rows,
			r == -ENOMEM ? "not enough memory" : "the driver failed");
	}
	*ret_backend = &gpu->base;
	return 0;
}

const struct sk_backend_kind sk_gpu_backend = {
	.name = "cuda", .layout = SK_GPU_LAYOUT, .is_present = gpu_is_present, .open = gpu_open};
