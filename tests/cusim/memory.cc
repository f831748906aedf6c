/* Device memory: one arena, which the host cannot touch (with CUSIM_PROTECT=1) but while a kernel or a copy runs. Addresses are never given twice,
 * so that what was freed is known for ever; every allocation has at least 256 bytes of nobody's behind it.
 */
#include "control.h"
#include "host.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

namespace cusim
{

char *arena;
static char *arena_end; /* of what was given */
static std::map<char *, Allocation> device, pinned;
static int depth; /* of struct Reach */

static void init()
{
	if (arena)
		return;
	void *p = mmap(nullptr, ARENA_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		abort();
	madvise(p, ARENA_BYTES, MADV_HUGEPAGE);
	arena = arena_end = (char *)p;
	access_init();
}

/* It costs more than all else where much memory is in use: only with CUSIM_PROTECT=1. */
static void protect(int how)
{
	static const char *wanted = getenv("CUSIM_PROTECT");
	if (!wanted || wanted[0] != '1')
		how = PROT_READ | PROT_WRITE;
	static int is = -1;
	static char *up_to;
	if (is == how && up_to == arena_end)
		return;
	is = how;
	up_to = arena_end;
	if (arena_end > arena)
		mprotect(arena, (size_t)(arena_end - arena + 4095) & ~(size_t)4095, how);
}

Reach::Reach()
{
	if (depth++ == 0)
		protect(PROT_READ | PROT_WRITE);
}

Reach::~Reach()
{
	if (--depth == 0)
		protect(PROT_NONE);
}

char *take_arena(size_t n, size_t align)
{
	init();
	const size_t skip = (align - (size_t)(arena_end - arena) % align) % align;
	const size_t room = skip + (n + 255) / 256 * 256 + 256;
	if (n > ARENA_BYTES || room > ARENA_BYTES - (size_t)(arena_end - arena))
		return nullptr;
	char *p = arena_end + skip;
	arena_end += room;
	protect(depth ? PROT_READ | PROT_WRITE : PROT_NONE); /* the new pages too */
	return p;
}

void add_device(const Allocation &allocation)
{
	device[allocation.data] = allocation;
}

void lose_device(char *data)
{
	device[data].live = false;
}

static Allocation *find(std::map<char *, Allocation> &all, const void *p, size_t beyond)
{
	auto at = all.upper_bound((char *)p);
	if (at == all.begin())
		return nullptr;
	Allocation *a = &std::prev(at)->second;
	return (char *)p < a->data + std::max<size_t>(a->size_bytes, 1) + beyond ? a : nullptr;
}

Allocation *find_device(const void *p)
{
	static Allocation *last;
	if (last && last->live && (char *)p >= last->data && (char *)p < last->data + last->size_bytes)
		return last;
	Allocation *a = find(device, p, 256);
	if (a)
		last = a;
	return a;
}

Allocation *find_pinned(const void *p)
{
	return find(pinned, p, 0);
}

static bool holds(const Allocation *a, const void *p, size_t n)
{
	return a->live && (char *)p + n <= a->data + a->size_bytes;
}

/* Runs later: what it touches must be there then. */
static void copy(void *to, const void *from, size_t n)
{
	for (const void *p : {(const void *)to, from}) {
		const Allocation *a = find_device(p);
		if (!a)
			a = find_pinned(p);
		if (a && !holds(a, p, n)) {
			report("copy-bounds", "%zu bytes of an allocation of %zu%s", n, a->size_bytes,
			       a->live ? "" : " that was freed");
			return;
		}
		if (p == to && a && a->read_only) {
			report("read-only", "a copy to memory of another process");
			lose_context(cudaErrorIllegalAddress);
			return;
		}
	}
	memmove(to, from, n);
	if (find_device(from) && find_device(to))
		copy_written(to, from, n);
	else
		mark_written(to, n, true);
	if (find_device(from) && !find_device(to) && !is_written(from, n)) {
		report("uninitialised", "global memory that was never written is copied to the host");
		mark_written(from, n, true);
	}
}

static bool is_device(const void *p)
{
	return find_device(p);
}

static bool is_pageable(const void *p)
{
	return !find_device(p) && !find_pinned(p);
}

static bool fits(cudaMemcpyKind kind, bool to_device, bool from_device)
{
	switch (kind) {
	case cudaMemcpyHostToDevice:
		return to_device && !from_device;
	case cudaMemcpyDeviceToHost:
		return !to_device && from_device;
	case cudaMemcpyDeviceToDevice:
		return to_device && from_device;
	case cudaMemcpyHostToHost:
		return !to_device && !from_device;
	default:
		return true;
	}
}

}

using namespace cusim;

extern "C" {
long cusim_n_held(void)
{
	long n = (long)pinned.size() + n_host_objects() + n_shared();
	for (auto &[p, a] : device)
		n += a.live;
	return n;
}

cudaError_t cudaMalloc(void **out, size_t n)
{
	CUSIM_CALL(cudaErrorMemoryAllocation);
	init();
	if (is_capturing(nullptr)) {
		spoil_captures();
		return fail(cudaErrorStreamCaptureUnsupported);
	}
	*out = nullptr;
	if (n == 0)
		return cudaSuccess;
	char *p = take_arena(n, n >= SHARED_BLOCK ? SHARED_BLOCK : 256);
	if (!p)
		return fail(cudaErrorMemoryAllocation);
	{
		Reach reach;
		memset(p, 0xff, n);
	}
	add_device({p, n, true});
	*out = p;
	return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);
	if (!p)
		return cudaSuccess;
	auto at = device.find((char *)p);
	if (at == device.end() || !at->second.live)
		return fail(cudaErrorInvalidValue);
	wait_for_all();
	forget_exported((char *)p);
	at->second.live = false;
	return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **out, size_t n, unsigned)
{
	CUSIM_CALL(cudaErrorMemoryAllocation);
	void *p = mmap(nullptr, n ? n : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return fail(cudaErrorMemoryAllocation);
	pinned[(char *)p] = {(char *)p, n, true};
	*out = p;
	return cudaSuccess;
}

cudaError_t cudaMallocHost(void **out, size_t n)
{
	return cudaHostAlloc(out, n, 0);
}

cudaError_t cudaFreeHost(void *p)
{
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);
	if (!p)
		return cudaSuccess;
	auto at = pinned.find((char *)p);
	if (at == pinned.end())
		return fail(cudaErrorInvalidValue);
	wait_for_all();
	munmap(p, at->second.size_bytes ? at->second.size_bytes : 1);
	pinned.erase(at);
	return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind kind, cudaStream_t stream)
{
	CUSIM_CALL(cudaErrorUnknown);
	if (!fits(kind, is_device(to), is_device(from)))
		return fail(cudaErrorInvalidValue);
	if (is_capturing(stream ? stream : cudaStreamLegacy) && (is_pageable(to) || is_pageable(from))) {
		spoil_captures();
		return fail(cudaErrorStreamCaptureUnsupported);
	}
	if (is_pageable(from)) { /* is read now; pinned memory when the copy runs */
		auto bytes = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + n);
		queue_work(stream, [=] { copy(to, bytes->data(), n); });
	} else {
		queue_work(stream, [=] { copy(to, from, n); });
	}
	return is_pageable(to) ? wait_for(stream) : cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t n, cudaMemcpyKind kind)
{
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);
	cudaError_t error = cudaMemcpyAsync(to, from, n, kind, nullptr);
	return error == cudaSuccess ? wait_for(nullptr) : error;
}

cudaError_t cudaMemsetAsync(void *p, int byte, size_t n, cudaStream_t stream)
{
	CUSIM_CALL(cudaErrorUnknown);
	if (!is_device(p))
		return fail(cudaErrorInvalidValue);
	queue_work(stream, [=] {
		const Allocation *a = find_device(p);
		if (!holds(a, p, n)) {
			report("copy-bounds", "setting %zu bytes of an allocation of %zu", n, a->size_bytes);
			return;
		}
		if (a->read_only) {
			report("read-only", "setting memory of another process");
			lose_context(cudaErrorIllegalAddress);
			return;
		}
		memset(p, byte, n);
		mark_written(p, n, true);
	});
	return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_total)
{
	CUSIM_CALL(cudaErrorUnknown);
	init();
	*ret_total = ARENA_BYTES;
	const char *wanted = getenv("CUSIM_FREE"); /* bytes, for who asks before it takes */
	*ret_free = wanted ? strtoull(wanted, nullptr, 10) : ARENA_BYTES - (size_t)(arena_end - arena);
	return cudaSuccess;
}
}
