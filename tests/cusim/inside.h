/* What the halves of cusim share. One kernel runs at a time, on the thread that waits for it: its CUDA threads are
 * fibers, a few blocks of them at once. Nothing here is for tests: those include control.h, kernels cusim.h.
 */
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace cusim
{

/* --- Reports (report.cc) --- */

/* Counts a fault, and prints the first of each sort: what comes after "@@" does not make another sort. */
void report(const char *kind, const char *format, ...) __attribute__((format(printf, 2, 3)));
extern long n_errors;
uint32_t random_bits(); /* from CUSIM_SEED */
/* "few.cu:138" of a place in the program's text */
std::string where(uintptr_t pc);

/* --- A kernel that runs (kernel.cc) --- */

struct Launch {
	const void *function;
	void (*call)(const void *function, void **arguments);
	void **arguments;
	dim3 grid, block;
	size_t shared_bytes;     /* dynamic */
	bool cooperative, early; /* early: may begin before its predecessor has ended */
};

void run_kernel(const Launch &launch);
/* A write to what is readable only: the kernel ends where it stands, and with it the process' use of the device (device.cc). */
void lose_context(cudaError_t error);
cudaError_t context_error();
[[noreturn]] void abandon_kernel();

/* A lane asks its warp: what each wants lies behind io[lane]; `active` are those who came. */
typedef void WarpFunction(void **io, unsigned active);

/* What one thread is known to have done: everything before barrier `barrier`, and of thread `thread` all up to `clock`. */
struct Release {
	int barrier, thread, clock;
};
typedef std::map<int, Release> Clock; /* by block */

struct Acquired {
	Release what;
	int barrier, thread; /* since when, and who knows it before the next barrier */
};

enum State : uint8_t { READY, AT_BARRIER, IN_WARP, DONE };

struct Block;

struct Copy { /* cp.async that has not landed */
	void *to;
	const void *from;
	int group;
};

struct Fiber {
	void *stack_pointer;
	char *stack;
	State state;
	uint3 index;
	int thread; /* in its block */
	Block *block;
	const char *file, *operation; /* where it waits */
	int line, place, predicate, n_wanted, result;
	unsigned mask;
	void *io;
	WarpFunction *function;
	bool is_fence;
	int barrier, clock,
		seen[32]; /* passed; its own, which warp fences advance; of its warp's lanes */
	bool fenced, before_wait;
	Clock pending; /* learned without acquiring: counts from the next fence on */
	std::vector<Copy> copies;
	int copy_group;
	uintptr_t whole_from, whole_to; /* the access that traffic has counted as one */
	unsigned whole_left;            /* bytes of it, of which the parts are still to come */
};

/* Lanes of a warp that have come to meet. */
struct Meeting {
	uint32_t in_warp = 0, done = 0; /* that wait for others; that have ended */
	bool is_plain = true;           /* all wait for all, and for the same */
	const char *operation = nullptr;
	void *io[32];
};

struct Block {
	uint3 index;
	int number, n_alive, n_waiting;
	bool started;
	std::vector<Fiber> fibers;
	std::vector<int> ready;
	std::vector<Meeting> meetings;              /* by warp */
	std::map<int, std::vector<Acquired>> knows; /* of other blocks */
};

extern Fiber *current; /* NULL: the host runs */
extern const Launch *running;
extern int n_threads;                      /* of a block */
extern uint32_t launch_number, early_from; /* since which launches may still be at work */
extern uint32_t
	unwaited_to; /* before which, of those, even after griddepcontrol.wait: a kernel in between never waited */
extern bool waited;         /* a thread of the kernel, for what was before it */
extern uint32_t apart_from; /* the first launch that may be at work on another stream (stream.cc) */
bool is_apart(uint32_t launch);
void order_launch();

void yield();         /* to another fiber */
void wait_for_turn(); /* the current one's state says for what */
void meet_at_barrier(Block *block);
void meet_in_warp(Block *block, int warp,
		  unsigned asking); /* lanes whose meeting may be complete now */

/* --- Accesses (access.cc) --- */

constexpr size_t SHARED_BYTES = 232448; /* what a block can have on sm_90 */
constexpr size_t STACK_BYTES = 64 << 10;

void access_init();    /* once, before there is device memory */
void look_at_thread(); /* on which the next kernel runs: shared memory is its thread-local storage */
void begin_shared();   /* a block's shared memory: nothing in it */
struct SharedState {
	std::vector<unsigned char> bytes, written;
	std::vector<unsigned char> cells;
};
void save_shared(SharedState *state);
void load_shared(const SharedState &state);
void forget_locations(); /* at a launch */
void mark_written(const void *p, size_t n,
		  bool written); /* device memory, by the host and by copies */
void copy_written(const void *to, const void *from, size_t n);
bool is_written(const void *p, size_t n); /* device memory; or the kernels are not checked */
void mark_shared(const void *p, size_t n, bool written);
void access(const void *p, unsigned n, bool write, bool atomic, uintptr_t pc);
void release_at(const void *p);
void acquire_at(const void *p, bool at_once);
bool is_stack(uintptr_t a); /* kernel.cc: of any fiber */

/* --- What the program's symbols say (symbols.cc) --- */

void look_at_symbols(uintptr_t program_from, size_t n_shared); /* once */
unsigned most_threads_of(const void *function);                /* its __launch_bounds__; 0: none */
size_t static_shared_of(const void *function);                 /* bytes */
/* Whether bytes of the program's thread-local storage are of one variable, and not another kernel's. */
bool is_in_shared(size_t at, unsigned n, const void *function);

/* --- Traffic (traffic.cc) --- */

extern bool counts_traffic;
/* An access that is one instruction, whatever the compiler makes of it here; and any other. */
void note_whole(uintptr_t a, unsigned n, bool shared, bool is_streamed, uintptr_t pc);
void note_part(uintptr_t a, unsigned n, bool shared, uintptr_t pc);
void count_launch(const void *function);   /* which is over */
std::string file_of(const void *function); /* access.cc: where a kernel stands */

/* --- Memory (memory.cc) --- */

struct Allocation {
	char *data;
	size_t size_bytes;
	bool live;
	bool read_only = false; /* another process' */
};

constexpr size_t ARENA_BYTES = (size_t)8 << 30;
extern char *arena; /* device memory: out of the host's reach but while a kernel or a copy runs */

char *take_arena(size_t n, size_t align); /* nobody's yet; NULL: none is left */
void add_device(const Allocation &allocation);
void lose_device(char *data);
Allocation *find_device(const void *p);
Allocation *find_pinned(const void *p);
struct Reach { /* the arena can be read and written as long as one is there */
	Reach();
	~Reach();
};

} // namespace cusim
