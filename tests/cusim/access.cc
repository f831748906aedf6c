/* Checks every access of a kernel. The compiler's -fsanitize=thread puts a call before each load and store; the calls
 * land here, not in that sanitizer's runtime. An access must lie within a live allocation, be aligned, read only what
 * was written, and be ordered with every other to the same bytes of which one writes:
 *   in a thread, by the program; in a block, by barriers (an epoch a thread counts); in a warp, by __syncwarp (a clock a
 *   lane has, and what it has seen of the others'); between blocks, by what was released and acquired through atomics,
 *   with the fences that CUDA asks for.
 * Shared memory is thread-local storage of the program, as <cusim.h> declares it; a block's is put away while another
 * works. One long file: every load and store of a kernel goes through nearly all of it, and only where the compiler sees it
 * whole is that fast enough.
 */
#include "inside.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <link.h>
#include <sys/mman.h>

extern "C" {
alignas(1024) thread_local unsigned char cu_smem[cusim::SHARED_BYTES]; /* dynamic shared memory */
}

namespace cusim
{

/* One access as it is remembered. */
struct Access {
	uint32_t thread; /* of the grid */
	int barrier, clock;
	uint32_t place; /* in the program */
};

/* What is known of two bytes. */
struct Cell {
	Access write, read, read2;
	uint32_t write_launch, read_launch;
	bool write_is_atomic, read_is_constant; /* constant: past all that keeps caches right (ld.global.nc) */
};

static Cell *device_cells, *shared_cells;
static uint8_t *device_written, *shared_written;
static uintptr_t shared_from, shared_to, program_from, program_to;
static unsigned preempt = 64; /* one access of so many lets others go first; 0: none */
static bool is_checked;       /* the kernels were compiled to be */
static std::map<const void *, Clock> locations;

static void *reserve(size_t n)
{
	void *p = mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		perror("cusim: shadow memory");
		abort();
	}
	madvise(p, n, MADV_HUGEPAGE); /* addresses are given once: every one of them is a fault */
	return p;
}

/* Where the program lies, and its thread-local storage on this thread. */
static int look_at_program(dl_phdr_info *info, size_t, void *)
{
	if (info->dlpi_name[0])
		return 0;
	program_from = info->dlpi_addr;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const auto &h = info->dlpi_phdr[i];
		if (h.p_type == PT_LOAD)
			program_to = std::max<uintptr_t>(program_to, program_from + h.p_vaddr + h.p_memsz);
		if (h.p_type != PT_TLS)
			continue;
		uintptr_t thread;
		asm("mov %%fs:0, %0" : "=r"(thread));
		shared_from = thread - (h.p_memsz + h.p_align - 1) / h.p_align * h.p_align;
		shared_to = shared_from + h.p_memsz;
	}
	return 1;
}

void look_at_thread()
{
	dl_iterate_phdr(look_at_program, nullptr);
}

void access_init()
{
	look_at_thread();
	const size_t n_shared = shared_to - shared_from;
	look_at_symbols(program_from, n_shared);
	device_cells = (Cell *)reserve(ARENA_BYTES / 2 * sizeof(Cell));
	device_written = (uint8_t *)reserve(ARENA_BYTES);
	shared_cells = (Cell *)reserve((n_shared / 2 + 1) * sizeof(Cell));
	shared_written = (uint8_t *)reserve(n_shared);
	if (const char *wanted = getenv("CUSIM_PREEMPT"))
		preempt = (unsigned)atoi(wanted);
}

/* --- Shared memory ------------------------------------------------------------------------------ */

static uintptr_t dynamic_from()
{
	return (uintptr_t)cu_smem;
}

/* The static part before and after the dynamic one, of which only what the launch asked for is in use. */
template <class Function> static void each_shared(Function f)
{
	f(shared_from, dynamic_from() - shared_from);
	f(dynamic_from(), running->shared_bytes);
	f(dynamic_from() + SHARED_BYTES, shared_to - dynamic_from() - SHARED_BYTES);
}

void begin_shared()
{
	each_shared([](uintptr_t at, size_t n) {
		memset((void *)at, 0xff, n);
		memset(shared_written + (at - shared_from), 0, n);
		if (is_checked)
			memset((void *)(shared_cells + (at - shared_from) / 2), 0, n / 2 * sizeof(Cell));
	});
}

void save_shared(SharedState *state)
{
	state->bytes.clear();
	state->written.clear();
	state->cells.clear();
	each_shared([state](uintptr_t at, size_t n) {
		const auto *bytes = (const unsigned char *)at, *written = shared_written + (at - shared_from);
		const auto *cells = (const unsigned char *)(shared_cells + (at - shared_from) / 2);
		state->bytes.insert(state->bytes.end(), bytes, bytes + n);
		state->written.insert(state->written.end(), written, written + n);
		if (is_checked)
			state->cells.insert(state->cells.end(), cells, cells + n / 2 * sizeof(Cell));
	});
}

void load_shared(const SharedState &state)
{
	size_t done = 0, done_cells = 0;
	each_shared([&](uintptr_t at, size_t n) {
		memcpy((void *)at, state.bytes.data() + done, n);
		memcpy(shared_written + (at - shared_from), state.written.data() + done, n);
		done += n;
		if (is_checked)
			memcpy((void *)(shared_cells + (at - shared_from) / 2), state.cells.data() + done_cells,
			       n / 2 * sizeof(Cell));
		done_cells += n / 2 * sizeof(Cell);
	});
}

void mark_shared(const void *p, size_t n, bool written)
{
	memset(shared_written + ((uintptr_t)p - shared_from), written, n);
}

void mark_written(const void *p, size_t n, bool written)
{
	if (device_written && (uintptr_t)p - (uintptr_t)arena < ARENA_BYTES)
		memset(device_written + ((const char *)p - arena), written, n);
}

void copy_written(const void *to, const void *from, size_t n)
{
	memmove(device_written + ((const char *)to - arena), device_written + ((const char *)from - arena), n);
}

bool is_written(const void *p, size_t n)
{
	return !is_checked || !memchr(device_written + ((const char *)p - arena), 0, n);
}

/* --- What happened before what ---------------------------------------------------------------- */

void forget_locations()
{
	locations.clear();
}

static bool still_knows(const Acquired &a, const Fiber *f)
{
	return a.thread == f->thread || f->barrier > a.barrier;
}

static bool is_ordered(const Access &access)
{
	const Fiber *f = current;
	const int block = access.thread / n_threads, thread = access.thread % n_threads;
	if (block == f->block->number)
		return thread == f->thread || access.barrier < f->barrier ||
		       (thread / 32 == f->thread / 32 && access.clock <= f->seen[thread % 32]);
	auto known = f->block->knows.find(block);
	if (known == f->block->knows.end())
		return false;
	for (const Acquired &a : known->second)
		if (still_knows(a, f) && (access.barrier < a.what.barrier ||
					  (thread == a.what.thread && access.clock <= a.what.clock)))
			return true;
	return false;
}

void release_at(const void *p)
{
	Fiber *f = current;
	Clock &clock = locations[p];
	const Release mine = {f->barrier, f->thread, f->clock++};
	auto at = clock.find(f->block->number);
	if (at == clock.end() || at->second.barrier <= mine.barrier)
		clock[f->block->number] = mine;
	for (auto &[block, all] : f->block->knows)
		for (const Acquired &a : all) {
			if (!still_knows(a, f))
				continue;
			auto other = clock.find(block);
			if (other == clock.end() || other->second.barrier < a.what.barrier)
				clock[block] = a.what;
		}
}

static void acquire(const Clock &clock)
{
	for (auto &[block, what] : clock) {
		if (block == current->block->number)
			continue;
		auto &known = current->block->knows[block];
		if (known.size() > 8)
			known.erase(known.begin());
		known.push_back({what, current->barrier, current->thread});
	}
}

void acquire_at(const void *p, bool at_once)
{
	auto at = locations.find(p);
	if (at == locations.end())
		return;
	if (at_once)
		acquire(at->second);
	else
		current->pending = at->second;
}

void fence()
{
	if (!current)
		return;
	current->fenced = true;
	acquire(current->pending);
	current->pending.clear();
}

/* --- An access --------------------------------------------------------------------------------- */

static const char *word(bool write)
{
	return write ? "write" : "read";
}

/* The shadow of an address; false where it was no good, which has been told, or is nobody's business. */
static bool find_shadow(uintptr_t a, unsigned n, bool write, uintptr_t pc, Cell **ret_cells, uint8_t **ret_written,
			bool *ret_shared)
{
	if (a - shared_from < shared_to - shared_from) {
		const uintptr_t from = dynamic_from();
		if (a + n > from && a < from + SHARED_BYTES && a + n > from + running->shared_bytes) {
			report("shared-bounds", "%s of %u bytes at %zd of %zu bytes of dynamic shared memory, %s @@ thread %d",
			       word(write), n, (ssize_t)(a - from), running->shared_bytes, where(pc).c_str(), current->thread);
			return false;
		}
		if ((a + n <= from || a >= from + SHARED_BYTES) && !is_in_shared(a - shared_from, n, running->function)) {
			report("shared-bounds", "%s of %u bytes in none of the kernel's shared variables, %s @@ thread %d",
			       word(write), n, where(pc).c_str(), current->thread);
			return false;
		}
		*ret_cells = shared_cells + (a - shared_from) / 2;
		*ret_written = shared_written + (a - shared_from);
		return *ret_shared = true;
	}
	if (a - (uintptr_t)arena < ARENA_BYTES) {
		const Allocation *at = find_device((void *)a);
		if (!at || !at->live || a + n > (uintptr_t)at->data + at->size_bytes) {
			report("bounds", "%s of %u bytes %s, %s @@ %p, block %d, thread %d", word(write), n,
			       !at	 ? "outside all allocations"
			       : at->live ? "past the end of an allocation"
					  : "of an allocation that was freed",
			       where(pc).c_str(), (void *)a, current->block->number, current->thread);
			return false;
		}
		if (write && at->read_only) {
			report("read-only", "write to memory of another process, %s @@ %p", where(pc).c_str(), (void *)a);
			lose_context(cudaErrorIllegalAddress);
			abandon_kernel();
		}
		*ret_cells = device_cells + (a - (uintptr_t)arena) / 2;
		*ret_written = device_written + (a - (uintptr_t)arena);
		*ret_shared = false;
		return true;
	}
	if (!find_pinned((void *)a))
		report("address", "%s of %u bytes: %s, %s @@ %p", word(write), n,
		       is_stack(a) ? "another thread's own memory" : "no memory that a device can reach", where(pc).c_str(),
		       (void *)a);
	return false;
}

static void tell_race(const char *sort, const Access &mine, const Access &other, bool shared)
{
	report("race", "%s, %s at %s and at %s @@ threads %u and %u, blocks %u and %u", sort, shared ? "shared" : "global",
	       where(mine.place).c_str(), where(other.place).c_str(), mine.thread % n_threads, other.thread % n_threads,
	       mine.thread / n_threads, other.thread / n_threads);
}

/* Of another launch, which was to be over. */
static void check_other(uint32_t launch, bool both_atomic, const char *does, const Access &mine)
{
	if (launch == launch_number || !launch || both_atomic)
		return;
	if (launch >= early_from && launch < unwaited_to)
		report("unwaited", "access to what an earlier kernel %s, with one in between that waits for none, %s", does,
		       where(mine.place).c_str());
	if (launch >= apart_from && is_apart(launch))
		report("streams", "access to what a kernel on another stream %s, and no event between them, %s", does,
		       where(mine.place).c_str());
}

static void check_cell(Cell *c, const Access &mine, bool write, bool atomic, bool shared)
{
	/* Of kernels that may still be at work, before griddepcontrol.wait: */
	if (current->before_wait && !shared) {
		if (c->write_launch >= early_from && c->write_launch != launch_number && c->write_launch)
			report("early", "%s of what an earlier kernel writes, before it was waited for, %s", word(write),
			       where(mine.place).c_str());
		if (write && c->read_launch >= early_from && c->read_launch != launch_number && c->read_launch)
			report("early", "write of what an earlier kernel reads, before it was waited for, %s",
			       where(mine.place).c_str());
	}
	if (!shared) {
		check_other(c->write_launch, c->write_is_atomic && atomic, "writes", mine);
		if (write)
			check_other(c->read_launch, false, "reads", mine);
	}
	if (c->write_launch == launch_number && !(atomic && c->write_is_atomic) && !is_ordered(c->write))
		tell_race(write ? "write after write" : "read after write", mine, c->write, shared);
	if (write && c->read_launch == launch_number) {
		if (c->read_is_constant)
			tell_race("write of what is read as constant", mine, c->read, shared);
		if (!is_ordered(c->read))
			tell_race("write after read", mine, c->read, shared);
		else if (c->read2.thread != c->read.thread && !is_ordered(c->read2))
			tell_race("write after read", mine, c->read2, shared);
	}
	if (write) {
		c->write = mine;
		c->write_launch = launch_number;
		c->write_is_atomic = atomic;
		return;
	}
	if (atomic)
		return; /* what it writes is noted, and stands for it */
	if (c->read_launch != launch_number) {
		c->read = c->read2 = mine;
		c->read_is_constant = false;
	}
	if (c->read.thread == mine.thread)
		c->read = mine;
	else
		c->read2 = mine;
	c->read_launch = launch_number;
}

std::string file_of(const void *function)
{
	const std::string place = where((uintptr_t)function - program_from + 1);
	return place.substr(0, place.find(':'));
}

void check_alignment(const void *p, unsigned n, bool is_streamed)
{
	if (current && counts_traffic)
		note_whole((uintptr_t)p, n, (uintptr_t)p - shared_from < shared_to - shared_from, is_streamed,
			   (uintptr_t)__builtin_return_address(0));
	if (current && (uintptr_t)p % n)
		report("alignment", "access of %u bytes, %s @@ %p", n,
		       where((uintptr_t)__builtin_return_address(0) - program_from).c_str(), p);
}

void check_constant(const void *p, unsigned n)
{
	const uintptr_t a = (uintptr_t)p, pc = (uintptr_t)__builtin_return_address(0);
	if (!current || !is_checked || a - (uintptr_t)arena >= ARENA_BYTES)
		return;
	Cell *cells = device_cells + (a - (uintptr_t)arena) / 2;
	for (unsigned i = 0; i < n; i += 2) {
		Cell *c = cells + i / 2;
		if (c->write_launch == launch_number)
			tell_race("read as constant of what the kernel writes",
				  {(uint32_t)(current->block->number * n_threads + current->thread), 0, 0,
				   (uint32_t)(pc - program_from)},
				  c->write, false);
		c->read_is_constant = c->read_launch == launch_number;
	}
}

void access(const void *p, unsigned n, bool write, bool atomic, uintptr_t pc)
{
	const uintptr_t a = (uintptr_t)p;
	if (!current || !is_checked || a - (uintptr_t)current->stack < STACK_BYTES ||
	    a - program_from < program_to - program_from)
		return; /* the host's, a thread's own, a constant */
	const uintptr_t place = pc - program_from;
	Cell *cells;
	uint8_t *written;
	bool shared;
	if (!find_shadow(a, n, write, place, &cells, &written, &shared))
		return;
	if (counts_traffic)
		note_part(a, n, shared, pc);
	if ((n & (n - 1)) == 0 && a % std::min(n, 16u))
		report("alignment", "access of %u bytes, %s @@ %p", n, where(place).c_str(), p);
	const Access mine = {(uint32_t)(current->block->number * n_threads + current->thread), current->barrier, current->clock,
			     (uint32_t)place};
	for (unsigned i = 0; i < n; i += 2)
		check_cell(cells + i / 2, mine, write, atomic, shared);
	if (write) {
		memset(written, 1, n);
	} else if (memchr(written, 0, n)) {
		report("uninitialised", "%s memory that was never written is read, %s @@ block %d, thread %d",
		       shared ? "shared" : "global", where(place).c_str(), current->block->number, current->thread);
		memset(written, 1, n);
	}
	if (preempt && !atomic && random_bits() % preempt == 0)
		yield();
}

}

/* --- What the compiler calls ---------------------------------------------------------------------- */

/* An index that is not the array's, as far as the compiler knows one: __shared__, a structure's, a thread's own. */
struct Place { /* the compiler's */
	const char *file;
	uint32_t line, column;
};

extern "C" void __ubsan_handle_out_of_bounds(const Place *place, uintptr_t index)
{
	const char *slash = strrchr(place->file, '/');
	cusim::report("array-bounds", "an index that the array does not have, %s:%u @@ %zu", slash ? slash + 1 : place->file,
		      place->line, (size_t)index);
}

#define PC ((uintptr_t)__builtin_return_address(0))
#define ACCESS(prefix, n)                                                                                        \
	void prefix##read##n(void *p)                                                                            \
	{                                                                                                        \
		cusim::access(p, n, false, false, PC);                                                           \
	}                                                                                                        \
	void prefix##write##n(void *p)                                                                           \
	{                                                                                                        \
		cusim::access(p, n, true, false, PC);                                                            \
	}
#define ACCESSES(n)                                                                                              \
	ACCESS(__tsan_, n)                                                                                       \
	ACCESS(__tsan_unaligned_, n)                                                                             \
	ACCESS(__tsan_volatile_, n)

extern "C" {
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

void __tsan_read_range(void *p, size_t n)
{
	cusim::access(p, (unsigned)n, false, false, PC);
}

void __tsan_write_range(void *p, size_t n)
{
	cusim::access(p, (unsigned)n, true, false, PC);
}

void __tsan_init(void) /* called by what was compiled with checks */
{
	cusim::is_checked = true;
}

void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}

static bool is_shadowed(const void *p)
{
	const uintptr_t a = (uintptr_t)p;
	return a - cusim::shared_from < cusim::shared_to - cusim::shared_from ||
	       a - (uintptr_t)cusim::arena < cusim::ARENA_BYTES;
}

/* The compiler may make one call of several stores: the linker's --wrap brings it here. */
void *__real_memcpy(void *to, const void *from, size_t n);
void *__real_memset(void *to, int byte, size_t n);

void *__wrap_memcpy(void *to, const void *from, size_t n)
{
	if (cusim::current && n && is_shadowed(from))
		cusim::access(from, (unsigned)n, false, false, PC);
	if (cusim::current && n && is_shadowed(to))
		cusim::access(to, (unsigned)n, true, false, PC);
	return __real_memcpy(to, from, n);
}

void *__wrap_memset(void *to, int byte, size_t n)
{
	if (cusim::current && n && is_shadowed(to))
		cusim::access(to, (unsigned)n, true, false, PC);
	return __real_memset(to, byte, n);
}
}
