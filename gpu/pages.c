/* The pool of KV pages in the device's memory. Copies to and from the host have a stream of their own, which
 * waits for what the engine thread has done to pages, and decode never for them. */
#include "gpu/device.h"

#include <errno.h>
#include <string.h>

static const struct {
	enum sk_gpu_format format;
	uint32_t n_bytes;
	const char *layout; /* of a page */
} elements[] = {
	[SK_KV_F32] = {SK_GPU_F32, 4, "cuda f32 words"},
	[SK_KV_F16] = {SK_GPU_F16, 2, "cuda f16 words"},
	[SK_KV_BF16] = {SK_GPU_BF16, 2, "cuda bf16 words"},
};

void sk_gpu_pages_init(struct sk_gpu *gpu)
{
	const struct sk_backend_shape *shape = &gpu->base.shape;
	struct sk_gpu_cache *cache = &gpu->cache;
	const uint64_t element = elements[shape->kv_format].n_bytes;

	cache->n_heads = shape->n_heads;
	cache->n_kv_heads = shape->n_kv_heads;
	cache->head_dim = shape->head_dim;
	cache->padded_dim = (shape->head_dim + 7) / 8 * 8; /* whole words of 16 bytes */
	cache->n_rot = shape->n_rot;
	cache->format = elements[shape->kv_format].format;
	cache->head_bytes = 2 * SK_GPU_PAGE_TOKENS * cache->padded_dim * element;
	cache->layer_bytes = cache->head_bytes * shape->n_kv_heads;
	cache->page_bytes = cache->layer_bytes * shape->n_layers;
}

const char *sk_gpu_page_layout(const struct sk_backend *backend)
{
	return elements[backend->shape.kv_format].layout;
}

int sk_gpu_reserve_pages(struct sk_backend *backend, uint32_t n_pages)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu || gpu->pages.data)
		return gpu ? -EBUSY : -EINVAL;
	if (n_pages > SIZE_MAX / 2 / gpu->cache.page_bytes)
		return -ENOMEM;
	int r = sk_gpu_block_init(gpu, &gpu->pages, n_pages * gpu->cache.page_bytes);
	if (r < 0)
		return r;
	cudaError_t error = cudaMallocHost((void **)&gpu->stage, gpu->cache.page_bytes);
	if (error != cudaSuccess) {
		cudaGetLastError(); /* it is told here, and must not be told again */
		sk_gpu_block_finish(&gpu->pages);
		return sk_gpu_errno(error);
	}
	gpu->cache.pages = gpu->pages.data;
	return 0;
}

static char *page_at(const struct sk_gpu *gpu, uint32_t page)
{
	return gpu->cache.pages + page * gpu->cache.page_bytes;
}

void sk_gpu_clear_pages(struct sk_backend *backend, const uint32_t *pages, uint32_t n_pages)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu || n_pages == 0)
		return;
	for (uint32_t i = 0; i < n_pages; i++)
		sk_gpu_check(gpu,
			     cudaMemsetAsync(page_at(gpu, pages[i]), 0, gpu->cache.page_bytes,
					     gpu->stream),
			     "clearing a page");
	sk_gpu_check(gpu, cudaEventRecord(gpu->pages_done, gpu->stream), "clearing pages");
}

void sk_gpu_copy_page(struct sk_backend *backend, uint32_t from, uint32_t to)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu || from == to)
		return;
	sk_gpu_check(gpu,
		     cudaMemcpyAsync(page_at(gpu, to), page_at(gpu, from), gpu->cache.page_bytes,
				     cudaMemcpyDeviceToDevice, gpu->stream),
		     "copying a page");
	sk_gpu_check(gpu, cudaEventRecord(gpu->pages_done, gpu->stream), "copying a page");
}

/* Another thread's, mostly: what fails is its caller's to tell, and no step's. */
static int copy(struct sk_gpu *gpu, void *to, const void *from, enum cudaMemcpyKind kind)
{
	cudaError_t error = cudaSetDevice(gpu->device);
	if (error == cudaSuccess)
		error = cudaStreamWaitEvent(gpu->copies, gpu->pages_done, 0);
	if (error == cudaSuccess)
		error = cudaMemcpyAsync(to, from, gpu->cache.page_bytes, kind, gpu->copies);
	if (error == cudaSuccess)
		error = cudaStreamSynchronize(gpu->copies);
	if (error == cudaSuccess)
		return 0;
	cudaGetLastError(); /* it is told here, and must not be told again */
	return -EIO;
}

/* By way of pinned memory, to which the device copies by itself; to other memory the driver does, piece by piece. Straight
 * where the other thread has it. */
int sk_gpu_read_page(struct sk_backend *backend, uint32_t page, void *bytes)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu)
		return -EINVAL;
	if (atomic_flag_test_and_set(&gpu->stage_is_taken))
		return copy(gpu, bytes, page_at(gpu, page), cudaMemcpyDeviceToHost);
	int r = copy(gpu, gpu->stage, page_at(gpu, page), cudaMemcpyDeviceToHost);
	if (r == 0)
		memcpy(bytes, gpu->stage, gpu->cache.page_bytes);
	atomic_flag_clear(&gpu->stage_is_taken);
	return r;
}

int sk_gpu_write_page(struct sk_backend *backend, uint32_t page, const void *bytes)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu)
		return -EINVAL;
	if (atomic_flag_test_and_set(&gpu->stage_is_taken))
		return copy(gpu, page_at(gpu, page), bytes, cudaMemcpyHostToDevice);
	memcpy(gpu->stage, bytes, gpu->cache.page_bytes);
	int r = copy(gpu, page_at(gpu, page), gpu->stage, cudaMemcpyHostToDevice);
	atomic_flag_clear(&gpu->stage_is_taken);
	return r;
}

void sk_gpu_pages_finish(struct sk_gpu *gpu)
{
	cudaFreeHost(gpu->stage);
	sk_gpu_block_finish(&gpu->pages);
}
