/* Weights in one allocation that other processes map. Where the driver can, it is one with a descriptor: importers
 * map it readable only, and it lives as long as one of them has it. Else it is plain memory with an IPC handle, which an
 * importer could write to and which goes with the process that made it. Both are checked by their sum.
 */
#include "gpu/device.h"
#include "gpu/driver.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LEAST_BYTES                                                                                \
	((size_t)2                                                                                 \
	 << 20) /* of memory with a handle: what is smaller would share its block with others */
#define SUM_BLOCKS 1024

_Static_assert(sizeof(cudaIpcMemHandle_t) == SK_HANDLE_BYTES, "the handle is passed as it is");

static void layout_of(const struct sk_gpu *gpu, char layout[SK_LAYOUT_BYTES])
{
	int n = snprintf(layout, SK_LAYOUT_BYTES, SK_GPU_LAYOUT " ");
	for (size_t i = 0; i < sizeof gpu->uuid; i++)
		n += snprintf(layout + n, SK_LAYOUT_BYTES - (size_t)n, "%02x", gpu->uuid[i]);
}

static int errno_of(CUresult result)
{
	return result == CUDA_SUCCESS ? 0 : result == CUDA_ERROR_OUT_OF_MEMORY ? -ENOMEM : -EIO;
}

/* --- Memory with a descriptor --- */

static CUmemAllocationProp properties_of(const struct sk_gpu *gpu)
{
	return (CUmemAllocationProp){
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
		.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gpu->device},
	};
}

static bool has_descriptors(const struct sk_gpu *gpu, const struct sk_gpu_driver *driver)
{
	static const CUdevice_attribute wanted[] = {
		CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
		CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED,
	};
	CUdevice device;
	bool has = driver && driver->device_get(&device, gpu->device) == CUDA_SUCCESS;
	for (unsigned i = 0; has && i < sizeof wanted / sizeof *wanted; i++) {
		int is = 0;
		has = driver->device_attribute(&is, wanted[i], device) == CUDA_SUCCESS && is;
	}
	return has;
}

static int allow(struct sk_gpu *gpu, CUmemAccess_flags flags)
{
	const struct sk_gpu_shared *shared = &gpu->shared;
	const CUmemAccessDesc access = {
		.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gpu->device},
		.flags = flags};
	return errno_of(sk_gpu_driver()->set_access((CUdeviceptr)shared->data, shared->size_bytes,
						    &access, 1));
}

/* Takes the memory over. */
static int map(struct sk_gpu *gpu, CUmemGenericAllocationHandle memory, size_t size_bytes,
	       CUmemAccess_flags flags)
{
	const struct sk_gpu_driver *driver = sk_gpu_driver();
	CUdeviceptr at = 0;
	CUresult result = driver->reserve(&at, size_bytes, 0, 0, 0);
	if (result == CUDA_SUCCESS) {
		result = driver->map(at, size_bytes, 0, memory, 0);
		if (result != CUDA_SUCCESS)
			driver->unreserve(at, size_bytes);
	}
	driver->release(memory); /* the map keeps it */
	if (result != CUDA_SUCCESS)
		return errno_of(result);
	gpu->shared = (struct sk_gpu_shared){
		.data = (void *)at, .size_bytes = size_bytes, .fd = -1, .kind = SK_GPU_MAPPED};
	int r = allow(gpu, flags);
	if (r < 0)
		sk_gpu_shared_finish(&gpu->shared);
	return r;
}

static int rounded(const struct sk_gpu *gpu, uint64_t n_bytes, size_t *ret_size_bytes)
{
	const CUmemAllocationProp properties = properties_of(gpu);
	size_t step = 0;
	int r = errno_of(sk_gpu_driver()->granularity(&step, &properties,
						      CU_MEM_ALLOC_GRANULARITY_RECOMMENDED));
	if (r == 0 && (step == 0 || n_bytes > SIZE_MAX - step))
		r = -ENOMEM;
	if (r == 0)
		*ret_size_bytes = (n_bytes + step - 1) / step * step;
	return r;
}

static int create(struct sk_gpu *gpu, uint64_t n_bytes)
{
	const struct sk_gpu_driver *driver = sk_gpu_driver();
	const CUmemAllocationProp properties = properties_of(gpu);
	CUmemGenericAllocationHandle memory;
	size_t size_bytes;
	int fd = -1, r = rounded(gpu, n_bytes, &size_bytes);
	if (r < 0)
		return r;
	r = errno_of(driver->create(&memory, size_bytes, &properties, 0));
	if (r < 0)
		return r;
	r = errno_of(
		driver->export_handle(&fd, memory, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
	if (r < 0) {
		driver->release(memory);
		return r;
	}
	r = map(gpu, memory, size_bytes, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
	if (r < 0)
		close(fd);
	else
		gpu->shared.fd = fd;
	return r;
}

static int import_descriptor(struct sk_gpu *gpu, int fd, uint64_t n_bytes)
{
	CUmemGenericAllocationHandle memory;
	size_t size_bytes;
	if (!has_descriptors(gpu, sk_gpu_driver()))
		return -ENOTSUP;
	int r = rounded(gpu, n_bytes, &size_bytes);
	if (r < 0)
		return r;
	if (sk_gpu_driver()->import_handle(&memory, (void *)(uintptr_t)fd,
					   CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) !=
	    CUDA_SUCCESS)
		return -EBADMSG;
	r = map(gpu, memory, size_bytes, CU_MEM_ACCESS_FLAGS_PROT_READ);
	return r == -EIO ? -EBADMSG : r; /* of another size */
}

/* --- Memory with a handle --- */

static int create_plain(struct sk_gpu *gpu, uint64_t n_bytes)
{
	void *data = NULL;
	size_t size_bytes = n_bytes < LEAST_BYTES ? LEAST_BYTES : n_bytes;
	cudaError_t error = cudaMalloc(&data, size_bytes);
	if (error != cudaSuccess) {
		cudaGetLastError();
		return sk_gpu_errno(error);
	}
	gpu->shared = (struct sk_gpu_shared){
		.data = data, .size_bytes = size_bytes, .fd = -1, .kind = SK_GPU_PLAIN};
	return 0;
}

static int import_handle(struct sk_gpu *gpu, const struct sk_shared_weights *shared)
{
	cudaIpcMemHandle_t handle;
	void *data = NULL;
	memcpy(&handle, shared->handle, sizeof handle);
	cudaError_t error = cudaIpcOpenMemHandle(&data, handle, cudaIpcMemLazyEnablePeerAccess);
	if (error != cudaSuccess) {
		cudaGetLastError();
		return error == cudaErrorMemoryAllocation ? -ENOMEM : -EBADMSG;
	}
	gpu->shared = (struct sk_gpu_shared){
		.data = data, .size_bytes = shared->n_bytes, .fd = -1, .kind = SK_GPU_OPENED};
	if (sk_gpu_driver_bytes(data) >= shared->n_bytes)
		return 0;
	sk_gpu_shared_finish(&gpu->shared); /* the other side says more than there is */
	return -EBADMSG;
}

void sk_gpu_shared_finish(struct sk_gpu_shared *shared)
{
	switch (shared->kind) {
	case SK_GPU_MAPPED:
		sk_gpu_driver()->unmap((CUdeviceptr)shared->data, shared->size_bytes);
		sk_gpu_driver()->unreserve((CUdeviceptr)shared->data, shared->size_bytes);
		break;
	case SK_GPU_PLAIN:
		cudaFree(shared->data);
		break;
	case SK_GPU_OPENED:
		cudaIpcCloseMemHandle(shared->data);
		break;
	case SK_GPU_NOT_SHARED:
		break;
	}
	if (shared->kind != SK_GPU_NOT_SHARED && shared->fd >= 0)
		close(shared->fd);
	*shared = (struct sk_gpu_shared){.fd = -1};
}

/* --- The operations --- */

static int sum(struct sk_gpu *gpu, uint64_t *ret_sum)
{
	struct sk_gpu_block out = {0};
	int r = sk_gpu_block_init(gpu, &out, sizeof *ret_sum);
	if (r < 0)
		return r;
	cudaError_t error = sk_gpu_sum(gpu->stream, out.data, gpu->shared.data, gpu->pieces.n_bytes,
				       SUM_BLOCKS);
	if (error == cudaSuccess)
		error = cudaMemcpyAsync(ret_sum, out.data, sizeof *ret_sum, cudaMemcpyDeviceToHost,
					gpu->stream);
	if (error == cudaSuccess)
		error = cudaStreamSynchronize(gpu->stream);
	sk_gpu_block_finish(&out);
	if (error != cudaSuccess)
		cudaGetLastError();
	return sk_gpu_errno(error);
}

int sk_gpu_share_weights(struct sk_backend *backend, uint64_t n_bytes)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu || gpu->shared.data)
		return -EINVAL;
	int r = has_descriptors(gpu, sk_gpu_driver()) ? create(gpu, n_bytes)
						      : create_plain(gpu, n_bytes);
	if (r < 0)
		return r;
	gpu->pieces.n_bytes = n_bytes;
	/* What lies between pieces is part of the sum. */
	cudaError_t error = cudaMemsetAsync(gpu->shared.data, 0, n_bytes, gpu->stream);
	if (error == cudaSuccess)
		error = cudaStreamSynchronize(gpu->stream);
	if (error == cudaSuccess)
		return 0;
	cudaGetLastError();
	return sk_gpu_errno(error);
}

int sk_gpu_export_weights(struct sk_backend *backend, struct sk_shared_weights *ret_shared)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu || !gpu->shared.data || gpu->pieces.is_import)
		return -EINVAL;
	int r = 0;
	if (gpu->shared.kind == SK_GPU_MAPPED) {
		r = allow(gpu, CU_MEM_ACCESS_FLAGS_PROT_READ);
	} else {
		cudaIpcMemHandle_t handle;
		cudaError_t error = cudaIpcGetMemHandle(&handle, gpu->shared.data);
		if (error != cudaSuccess)
			cudaGetLastError();
		r = error == cudaErrorNotSupported ? -ENOTSUP : sk_gpu_errno(error);
		memcpy(ret_shared->handle, &handle, sizeof handle);
	}
	if (r == 0)
		r = sum(gpu, &gpu->shared.sum);
	if (r == 0)
		r = sk_pieces_export(&gpu->pieces, ret_shared);
	if (r < 0)
		return r;
	layout_of(gpu, ret_shared->layout);
	ret_shared->checksum = gpu->shared.sum;
	ret_shared->fd = gpu->shared.fd;
	gpu->shared.fd = -1;
	return 0;
}

int sk_gpu_import_weights(struct sk_backend *backend, const struct sk_shared_weights *shared)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	char layout[SK_LAYOUT_BYTES];
	uint64_t got;
	if (!gpu || gpu->shared.data)
		return -EINVAL;
	layout_of(gpu, layout);
	if (strcmp(layout, shared->layout) != 0)
		return -ENOTSUP;
	int r = shared->fd >= 0 ? import_descriptor(gpu, shared->fd, shared->n_bytes)
				: import_handle(gpu, shared);
	if (r == 0)
		r = sk_pieces_import(&gpu->pieces, shared);
	if (r == 0)
		r = sum(gpu, &got);
	if (r == 0 && got != shared->checksum)
		r = -EBADMSG;
	gpu->shared.sum = shared->checksum;
	return r;
}

int sk_gpu_check_weights(struct sk_backend *backend)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	uint64_t got;
	if (!gpu || !gpu->shared.data)
		return -EINVAL;
	int r = sum(gpu, &got);
	return r < 0 ? r : got == gpu->shared.sum ? 0 : -EBADMSG;
}

int sk_gpu_take(struct sk_gpu *gpu, struct sk_gpu_block *block, size_t size_bytes,
		bool *ret_is_filled)
{
	uint64_t offset;
	*ret_is_filled = gpu->pieces.is_import;
	if (!gpu->pieces.n_bytes)
		return sk_gpu_block_init(gpu, block, size_bytes);
	int r = sk_pieces_take(&gpu->pieces, size_bytes, &offset);
	if (r == 0)
		*block = (struct sk_gpu_block){.data = (char *)gpu->shared.data + offset,
					       .size_bytes = size_bytes,
					       .is_part = true};
	return r;
}
