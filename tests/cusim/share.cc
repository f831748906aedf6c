/* Device memory of several processes: the driver's calls that map memory by a descriptor, and IPC handles. Behind both is a
 * memfd, which takes the arena's place where it is mapped. CUSIM_VMM=0: a driver without the former.
 */
#include "control.h"
#include "host.h"

#include <cuda.h>

#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <set>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace cusim
{

struct Memory {
	int fd;
	size_t size_bytes;
	bool is_imported;
	int n_handles, n_maps;
};

static std::set<Memory *> memories;
static std::map<char *, size_t> reserved;
static std::map<char *, Memory *> mapped;
static std::map<char *, size_t> opened;        /* IPC */
static std::map<char *, int> exported;         /* our own memory that has a handle */

long n_shared()
{
	return (long)(memories.size() + reserved.size() + mapped.size() + opened.size());
}

static CUresult refused(CUresult result)
{
	return result;
}

void forget_exported(char *data)
{
	auto found = exported.find(data);
	if (found == exported.end())
		return;
	close(found->second);
	exported.erase(found);
}

#define DRIVER_CALL(result)                                                                        \
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);                                 \
	if (cusim::fails_now())                                                                    \
	return cusim::refused(result)

static void forget(Memory *memory)
{
	if (memory->n_handles || memory->n_maps)
		return;
	close(memory->fd);
	memories.erase(memory);
	delete memory;
}

static Memory *memory_of(CUmemGenericAllocationHandle handle)
{
	auto *memory = (Memory *)(uintptr_t)handle;
	return memories.count(memory) && memory->n_handles ? memory : nullptr;
}

static CUmemGenericAllocationHandle add(int fd, size_t size_bytes, bool is_imported)
{
	auto *memory = new Memory{fd, size_bytes, is_imported, 1, 0};
	memories.insert(memory);
	return (CUmemGenericAllocationHandle)(uintptr_t)memory;
}

/* Puts a memfd in the arena's place. */
static bool put(char *at, size_t n, int fd)
{
	Reach reach;
	return mmap(at, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
}

/* And nobody's memory in that of the memfd. */
static void take_away(char *at, size_t n)
{
	mmap(at, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static int new_file(size_t n)
{
	int fd = memfd_create("cusim", MFD_CLOEXEC);
	if (fd >= 0 && ftruncate(fd, (off_t)n) == 0)
		return fd;
	close(fd);
	return -1;
}

/* What an IPC handle says: where the exporter has the file. */
struct Handle {
	int pid, fd;
	uint64_t size_bytes;
};

}

using namespace cusim;

extern "C" {
CUresult cuDeviceGet(CUdevice *ret, int ordinal)
{
	DRIVER_CALL(CUDA_ERROR_NO_DEVICE);
	*ret = ordinal;
	return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetAttribute(int *ret, CUdevice_attribute, CUdevice)
{
	DRIVER_CALL(CUDA_ERROR_INVALID_VALUE);
	const char *wanted = getenv("CUSIM_VMM");
	*ret = !wanted || wanted[0] != '0';
	return CUDA_SUCCESS;
}

CUresult cuMemGetAllocationGranularity(size_t *ret, const CUmemAllocationProp *,
				       CUmemAllocationGranularity_flags)
{
	DRIVER_CALL(CUDA_ERROR_INVALID_VALUE);
	*ret = SHARED_BLOCK;
	return CUDA_SUCCESS;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *ret, size_t n, const CUmemAllocationProp *properties,
		     unsigned long long)
{
	DRIVER_CALL(CUDA_ERROR_OUT_OF_MEMORY);
	if (n == 0 || n % SHARED_BLOCK || properties->type != CU_MEM_ALLOCATION_TYPE_PINNED ||
	    properties->location.type != CU_MEM_LOCATION_TYPE_DEVICE || properties->location.id != 0)
		return refused(CUDA_ERROR_INVALID_VALUE);
	int fd = new_file(n);
	if (fd < 0)
		return refused(CUDA_ERROR_OUT_OF_MEMORY);
	*ret = add(fd, n, properties->requestedHandleTypes != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
	return CUDA_SUCCESS;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);
	Memory *memory = memory_of(handle);
	if (!memory)
		return refused(CUDA_ERROR_INVALID_VALUE);
	memory->n_handles--;
	forget(memory);
	return CUDA_SUCCESS;
}

CUresult cuMemExportToShareableHandle(void *ret, CUmemGenericAllocationHandle handle,
				      CUmemAllocationHandleType type, unsigned long long)
{
	DRIVER_CALL(CUDA_ERROR_INVALID_VALUE);
	Memory *memory = memory_of(handle);
	if (!memory || memory->is_imported || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return refused(CUDA_ERROR_INVALID_VALUE);
	*(int *)ret = fcntl(memory->fd, F_DUPFD_CLOEXEC, 0);
	return CUDA_SUCCESS;
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *ret, void *os_handle,
					CUmemAllocationHandleType type)
{
	DRIVER_CALL(CUDA_ERROR_INVALID_VALUE);
	struct stat st;
	const int fd = (int)(uintptr_t)os_handle;
	if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || fstat(fd, &st) < 0 || st.st_size == 0 ||
	    (size_t)st.st_size % SHARED_BLOCK)
		return refused(CUDA_ERROR_INVALID_VALUE);
	*ret = add(fcntl(fd, F_DUPFD_CLOEXEC, 0), (size_t)st.st_size, true);
	return CUDA_SUCCESS;
}

CUresult cuMemAddressReserve(CUdeviceptr *ret, size_t n, size_t, CUdeviceptr, unsigned long long)
{
	DRIVER_CALL(CUDA_ERROR_OUT_OF_MEMORY);
	char *p = n && n % SHARED_BLOCK == 0 ? take_arena(n, SHARED_BLOCK) : nullptr;
	if (!p)
		return refused(CUDA_ERROR_OUT_OF_MEMORY);
	reserved[p] = n;
	*ret = (CUdeviceptr)p;
	return CUDA_SUCCESS;
}

CUresult cuMemAddressFree(CUdeviceptr at, size_t n)
{
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);
	auto found = reserved.find((char *)at);
	if (found == reserved.end() || found->second != n || mapped.count((char *)at))
		return refused(CUDA_ERROR_INVALID_VALUE);
	reserved.erase(found);
	return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr at, size_t n, size_t offset, CUmemGenericAllocationHandle handle,
		  unsigned long long)
{
	DRIVER_CALL(CUDA_ERROR_INVALID_VALUE);
	char *p = (char *)at;
	Memory *memory = memory_of(handle);
	auto found = reserved.find(p);
	if (!memory || found == reserved.end() || found->second != n || offset || n > memory->size_bytes ||
	    mapped.count(p) || !put(p, n, memory->fd))
		return refused(CUDA_ERROR_INVALID_VALUE);
	memory->n_maps++;
	mapped[p] = memory;
	add_device({p, n, false}); /* until it may be used */
	return CUDA_SUCCESS;
}

CUresult cuMemUnmap(CUdeviceptr at, size_t n)
{
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);
	char *p = (char *)at;
	auto found = mapped.find(p);
	if (found == mapped.end() || reserved[p] != n)
		return refused(CUDA_ERROR_INVALID_VALUE);
	Memory *memory = found->second;
	mapped.erase(found);
	lose_device(p);
	take_away(p, n);
	memory->n_maps--;
	forget(memory);
	return CUDA_SUCCESS;
}

CUresult cuMemSetAccess(CUdeviceptr at, size_t n, const CUmemAccessDesc *access, size_t n_accesses)
{
	DRIVER_CALL(CUDA_ERROR_INVALID_VALUE);
	char *p = (char *)at;
	auto found = mapped.find(p);
	if (found == mapped.end() || reserved[p] != n || n_accesses != 1 ||
	    access->location.type != CU_MEM_LOCATION_TYPE_DEVICE || access->location.id != 0)
		return refused(CUDA_ERROR_INVALID_VALUE);
	add_device({p, n, true, access->flags == CU_MEM_ACCESS_FLAGS_PROT_READ});
	if (found->second->is_imported)
		mark_written(p, n, true);
	return CUDA_SUCCESS;
}

CUresult cuMemGetAddressRange(CUdeviceptr *ret_begin, size_t *ret_n, CUdeviceptr at)
{
	DRIVER_CALL(CUDA_ERROR_INVALID_VALUE);
	const Allocation *allocation = find_device((void *)at);
	if (!allocation || !allocation->live)
		return refused(CUDA_ERROR_NOT_FOUND);
	*ret_begin = (CUdeviceptr)allocation->data;
	*ret_n = allocation->size_bytes;
	return CUDA_SUCCESS;
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *ret, void *data)
{
	CUSIM_CALL(cudaErrorInvalidValue);
	Allocation *allocation = find_device(data);
	char *p = (char *)data;
	if (!allocation || !allocation->live || allocation->data != p || (p - arena) % (ptrdiff_t)SHARED_BLOCK)
		return fail(cudaErrorInvalidValue); /* what is smaller shares its block with others */
	wait_for_all();
	auto found = exported.find(p);
	if (found == exported.end()) {
		Reach reach;
		const size_t n = (allocation->size_bytes + 4095) & ~(size_t)4095;
		int fd = new_file(n);
		if (fd < 0 || pwrite(fd, p, allocation->size_bytes, 0) != (ssize_t)allocation->size_bytes ||
		    !put(p, n, fd)) {
			close(fd);
			return fail(cudaErrorMemoryAllocation);
		}
		found = exported.insert({p, fd}).first;
	}
	const Handle handle = {getpid(), found->second, allocation->size_bytes};
	memset(ret, 0, sizeof *ret);
	memcpy(ret, &handle, sizeof handle);
	return cudaSuccess;
}

cudaError_t cudaIpcOpenMemHandle(void **ret, cudaIpcMemHandle_t given, unsigned)
{
	CUSIM_CALL(cudaErrorInvalidValue);
	Handle handle;
	char path[64];
	memcpy(&handle, &given, sizeof handle);
	snprintf(path, sizeof path, "/proc/%d/fd/%d", handle.pid, handle.fd);
	if (handle.pid == getpid()) /* not within a process */
		return fail(cudaErrorDeviceUninitialized);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	const size_t n = (handle.size_bytes + 4095) & ~(size_t)4095;
	char *p = fd >= 0 ? take_arena(n, SHARED_BLOCK) : nullptr;
	if (!p || !put(p, n, fd)) {
		close(fd);
		return fail(cudaErrorInvalidValue);
	}
	close(fd);
	opened[p] = n;
	add_device({p, handle.size_bytes, true});
	mark_written(p, handle.size_bytes, true);
	*ret = p;
	return cudaSuccess;
}

cudaError_t cudaIpcCloseMemHandle(void *data)
{
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);
	auto found = opened.find((char *)data);
	if (found == opened.end())
		return fail(cudaErrorInvalidValue);
	wait_for_all();
	lose_device(found->first);
	take_away(found->first, found->second);
	opened.erase(found);
	return cudaSuccess;
}

/* The driver's library, as the backend looks for it (linked with --wrap). */
static char library;
void *__real_dlopen(const char *name, int flags);
void *__real_dlsym(void *handle, const char *name);

void *__wrap_dlopen(const char *name, int flags)
{
	return name && strcmp(name, "libcuda.so.1") == 0 ? &library : __real_dlopen(name, flags);
}

void *__wrap_dlsym(void *handle, const char *name)
{
	static const struct {
		const char *name;
		void *function;
	} functions[] = {
#define FUNCTION(f) {#f, (void *)f}
		FUNCTION(cuDeviceGet),
		FUNCTION(cuDeviceGetAttribute),
		FUNCTION(cuMemGetAllocationGranularity),
		FUNCTION(cuMemCreate),
		FUNCTION(cuMemRelease),
		FUNCTION(cuMemExportToShareableHandle),
		FUNCTION(cuMemImportFromShareableHandle),
		FUNCTION(cuMemAddressReserve),
		FUNCTION(cuMemAddressFree),
		FUNCTION(cuMemMap),
		FUNCTION(cuMemUnmap),
		FUNCTION(cuMemSetAccess),
#undef FUNCTION
		{"cuMemGetAddressRange_v2", (void *)cuMemGetAddressRange},
	};
	if (handle != &library)
		return __real_dlsym(handle, name);
	for (auto &f : functions)
		if (strcmp(f.name, name) == 0)
			return f.function;
	return nullptr;
}
}
