/* Runs a kernel: a fiber a CUDA thread, one to four blocks at once (all of them where they are to cooperate), in an
 * order that the seed chooses. Blocks that are not at work have their shared memory put away.
 */
#include "inside.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

/* Saves the callee's registers and the stack pointer, goes on with another stack (System V, x86-64). */
asm(R"(.text
.globl cusim_switch
cusim_switch:
	push %rbp
	push %rbx
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, (%rdi)
	mov %rsi, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbx
	pop %rbp
	ret
)");
extern "C" void cusim_switch(void **save, void *load);

namespace cusim
{

constexpr size_t MOST_THREADS = 16384;
constexpr size_t GUARD_BYTES = 4096;

Fiber *current;
const Launch *running;
int n_threads;
uint32_t launch_number, early_from, unwaited_to;
bool waited;
static void *scheduler;
static bool is_abandoned;
static char *stacks;

bool is_stack(uintptr_t a)
{
	return a - (uintptr_t)stacks < MOST_THREADS * (STACK_BYTES + GUARD_BYTES);
}

static void init()
{
	if (stacks)
		return;
	stacks = (char *)mmap(nullptr, MOST_THREADS * (STACK_BYTES + GUARD_BYTES), PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stacks == MAP_FAILED) {
		perror("cusim: stacks");
		abort();
	}
}

void wait_for_turn()
{
	cusim_switch(&current->stack_pointer, scheduler);
}

void yield()
{
	if (!current)
		return;
	current->block->ready.push_back(current->thread);
	wait_for_turn();
}

void abandon_kernel()
{
	is_abandoned = true;
	for (;;)
		wait_for_turn(); /* there is none any more */
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

void meet_at_barrier(Block *block)
{
	if (!block->n_waiting || block->n_waiting < block->n_alive)
		return;
	int count = 0;
	bool fenced = true;
	const Fiber *first = nullptr;
	for (const Fiber &f : block->fibers) {
		if (f.state != AT_BARRIER)
			continue;
		count += f.predicate;
		if (f.n_wanted && f.n_wanted != block->n_waiting) /* less: they go on too early; more: they never do */
			report("barrier-count", "a barrier for %d threads where %d are left, %s:%d", f.n_wanted, block->n_waiting,
			       base_name(f.file), f.line);
		fenced &= f.fenced;
		if (!first)
			first = &f;
		else if (f.place != first->place || f.file != first->file)
			report("barrier-divergence", "threads of one block meet at different barriers: %s:%d and %s:%d",
			       base_name(first->file), first->line, base_name(f.file), f.line);
	}
	for (Fiber &f : block->fibers) {
		if (f.state != AT_BARRIER)
			continue;
		f.result = count;
		f.barrier++;
		f.fenced = fenced;
		f.state = READY;
		block->ready.push_back(f.thread);
	}
	block->n_waiting = 0;
}

/* Where a fiber begins, and ends. */
static void thread_main()
{
	running->call(running->function, running->arguments);
	Fiber *f = current;
	if (!f->copies.empty())
		report("cp.async", "a thread ends with copies that it has not waited for");
	f->state = DONE;
	f->block->n_alive--;
	meet_at_barrier(f->block);
	f->block->meetings[f->thread / 32].done |= 1u << (f->thread & 31);
	meet_in_warp(f->block, f->thread / 32, ~0u);
	wait_for_turn();
}

static void start(Block *block, size_t slot)
{
	const dim3 size = running->block;
	block->started = true;
	block->n_alive = n_threads;
	block->fibers.resize(n_threads);
	block->meetings.assign((n_threads + 31) / 32, Meeting());
	for (int i = 0; i < n_threads; i++) {
		Fiber &f = block->fibers[i];
		f = Fiber();
		f.thread = i;
		f.index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
		f.block = block;
		f.before_wait = running->early;
		std::fill(f.seen, f.seen + 32, -1);
		f.stack = stacks + (slot * n_threads + i) * (STACK_BYTES + GUARD_BYTES) + GUARD_BYTES;
		void **top = (void **)(f.stack + STACK_BYTES - 64);
		*--top = nullptr;
		*--top = (void *)thread_main;
		f.stack_pointer = top - 6; /* registers, whatever is in them */
		block->ready.push_back(i);
	}
}

static void tell_deadlock(const Block &block)
{
	std::map<std::string, int> waiting;
	for (const Fiber &f : block.fibers)
		if (f.state == AT_BARRIER || f.state == IN_WARP)
			waiting[std::string(f.state == AT_BARRIER ? "__syncthreads" : f.operation) + " at " +
				base_name(f.file) + ":" + std::to_string(f.line)]++;
	std::string text;
	for (auto &[what, n] : waiting)
		text += std::to_string(n) + " threads in " + what + "; ";
	report("deadlock", "%s @@ block %d", text.c_str(), block.number);
}

/* The blocks of a grid that are at work, and their shared memory. */
class Grid
{
	std::vector<int> order; /* numbers of blocks */
	size_t n_given = 0, n_done = 0;
	std::vector<Block> blocks;
	std::vector<SharedState> states;
	int loaded = -1; /* whose shared memory is there */

	void next(int slot)
	{
		const dim3 grid = running->grid;
		blocks[slot] = Block();
		blocks[slot].number = -1;
		if (n_given == order.size())
			return;
		const int k = blocks[slot].number = order[n_given++];
		blocks[slot].index = {k % grid.x, k / grid.x % grid.y, k / (grid.x * grid.y)};
	}

	void load(int slot)
	{
		if (loaded == slot)
			return;
		if (loaded >= 0 && blocks[loaded].started)
			save_shared(&states[loaded]);
		if (blocks[slot].started) {
			load_shared(states[slot]);
		} else {
			begin_shared();
			start(&blocks[slot], slot);
		}
		loaded = slot;
	}

	void end(int slot)
	{
		n_done++;
		loaded = -1;
		next(slot);
	}

	bool others_can_run(int slot) const
	{
		for (int i = 0; i < (int)blocks.size(); i++)
			if (i != slot && blocks[i].number >= 0 && (!blocks[i].started || !blocks[i].ready.empty()))
				return true;
		return false;
	}

public:
	explicit Grid(int n_blocks, int at_once) : order(n_blocks), blocks(at_once), states(at_once)
	{
		for (int i = 0; i < n_blocks; i++)
			order[i] = i;
		for (int i = n_blocks - 1; i > 0; i--)
			std::swap(order[i], order[random_bits() % (i + 1)]);
		for (int i = 0; i < at_once; i++)
			next(i);
	}

	void run()
	{
		while (n_done < order.size() && !is_abandoned) {
			const int slot = random_bits() % blocks.size();
			Block &block = blocks[slot];
			if (block.number < 0)
				continue;
			load(slot);
			const size_t turns = blocks.size() > 1 ? n_threads * (1 + random_bits() % 4) : SIZE_MAX;
			for (size_t turn = 0; turn < turns && !block.ready.empty() && !is_abandoned; turn++) {
				const size_t i = random_bits() % block.ready.size();
				current = &block.fibers[block.ready[i]];
				block.ready[i] = block.ready.back();
				block.ready.pop_back();
				threadIdx = current->index;
				blockIdx = block.index;
				cusim_switch(&scheduler, current->stack_pointer);
				current = nullptr;
			}
			if (is_abandoned)
				break;
			if (block.n_alive == 0) {
				end(slot);
			} else if (block.ready.empty() && !others_can_run(slot)) {
				tell_deadlock(block);
				end(slot);
			}
		}
	}
};

void run_kernel(const Launch &launch)
{
	init();
	look_at_thread();
	running = &launch;
	blockDim = launch.block;
	gridDim = launch.grid;
	n_threads = launch.block.x * launch.block.y * launch.block.z;
	launch_number++;
	order_launch();
	if (!launch.early)
		early_from = unwaited_to = launch_number;
	else if (!waited)
		unwaited_to = launch_number - 1; /* waiting for the last one tells nothing of those before it */
	waited = !launch.early;
	forget_locations();
	const int n_blocks = launch.grid.x * launch.grid.y * launch.grid.z;
	const int at_once = launch.cooperative ? n_blocks : std::min(n_blocks, 1 + (int)(random_bits() % 4));
	if ((size_t)at_once * n_threads > MOST_THREADS)
		report("launch", "%d blocks of %d threads are more at once than cusim can have", at_once, n_threads);
	else
		Grid(n_blocks, at_once).run();
	if (counts_traffic)
		count_launch(launch.function);
	running = nullptr;
}

}

extern "C" long cusim_n_launches(void)
{
	return cusim::launch_number;
}
