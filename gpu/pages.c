/* The pool of KV pages in the device's memory. Copies to and from the host have a stream of their own, which
 * waits for what the engine thread has done to pages, and decode never for them. */
#include "gpu/device.h"

#include <errno.h>
#include <stdio.h>

void sk_gpu_pages_init(struct sk_gpu *gpu)
{
	const struct sk_backend_shape *shape = &gpu->base.shape;
	struct sk_gpu_cache *cache = &gpu->cache;
	const uint64_t element = shape->kv_format == SK_KV_F16 ? 2 : 4;

	cache->n_heads = shape->n_heads;
	cache->n_kv_heads = shape->n_kv_heads;
	cache->head_dim = shape->head_dim;
	cache->padded_dim = (shape->head_dim + 7) / 8 * 8; /* whole words of 16 bytes */
	cache->n_rot = shape->n_rot;
	cache->halves = shape->kv_format == SK_KV_F16;
	cache->head_bytes = 2 * SK_GPU_PAGE_TOKENS * cache->padded_dim * element;
	cache->layer_bytes = cache->head_bytes * shape->n_kv_heads;
	cache->page_bytes = cache->layer_bytes * shape->n_layers;
	snprintf(gpu->layout, sizeof gpu->layout, "cuda %s words", cache->halves ? "f16" : "f32");
}

int sk_gpu_reserve_pages(struct sk_backend *backend, uint32_t n_pages)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu || gpu->pages.data)
		return gpu ? -EBUSY : -EINVAL;
	if (n_pages > SIZE_MAX / 2 / gpu->cache.page_bytes)
		return -ENOMEM;
	int r = sk_gpu_block_init(gpu, &gpu->pages, n_pages * gpu->cache.page_bytes);
	if (r == 0)
		gpu->cache.pages = gpu->pages.data;
	return r;
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

/* Another thread's: its fault is kept apart, and told by the next end_step. */
static void copy(struct sk_gpu *gpu, void *to, const void *from, enum cudaMemcpyKind kind)
{
	cudaError_t error = cudaSetDevice(gpu->device);
	if (error == cudaSuccess)
		error = cudaStreamWaitEvent(gpu->copies, gpu->pages_done, 0);
	if (error == cudaSuccess)
		error = cudaMemcpyAsync(to, from, gpu->cache.page_bytes, kind, gpu->copies);
	if (error == cudaSuccess)
		error = cudaStreamSynchronize(gpu->copies);
	if (error != cudaSuccess)
		atomic_store(&gpu->copy_error, (int)error);
}

void sk_gpu_read_page(struct sk_backend *backend, uint32_t page, void *bytes)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (gpu)
		copy(gpu, bytes, page_at(gpu, page), cudaMemcpyDeviceToHost);
}

void sk_gpu_write_page(struct sk_backend *backend, uint32_t page, const void *bytes)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (gpu)
		copy(gpu, page_at(gpu, page), bytes, cudaMemcpyHostToDevice);
}

void sk_gpu_pages_finish(struct sk_gpu *gpu)
{
	sk_gpu_block_finish(&gpu->pages);
}
