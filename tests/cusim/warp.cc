/* What lanes do together, and what threads of several blocks do through atomics. */
#include "cusim_kernel.h"
#include "inside.h"

#include <algorithm>
#include <cstring>

namespace cusim
{

/* All lanes of a mask that are still there have come: what they came for is done, and they go on. */
static bool all_came(const Fiber *lanes, int n_lanes, int asker, unsigned *ret_active)
{
	const Fiber &p = lanes[asker];
	*ret_active = 0;
	for (int k = 0; k < 32; k++) {
		if (!(p.mask >> k & 1))
			continue;
		if (k >= n_lanes) {
			report("warp-mask", "%s names lane %d, which the block does not have, line %d", p.operation, k, p.line);
			continue;
		}
		const Fiber &q = lanes[k];
		if (q.state == DONE)
			continue;
		if (q.state != IN_WARP)
			return false;
		if (q.mask != p.mask || q.operation != p.operation) {
			if (q.mask == p.mask || (q.mask >> asker & 1))
				report("warp-divergence", "lanes do not agree: %s (mask %08x) line %d and %s (mask %08x) line %d",
				       p.operation, p.mask, p.line, q.operation, q.mask, q.line);
			return false;
		}
		*ret_active |= 1u << k;
	}
	return true;
}

static void order_lanes(Fiber *lanes, int n_lanes, unsigned active)
{
	int seen[32];
	std::fill(seen, seen + 32, -1);
	for (int k = 0; k < n_lanes; k++) {
		if (!(active >> k & 1))
			continue;
		lanes[k].seen[k] = lanes[k].clock;
		for (int i = 0; i < 32; i++)
			seen[i] = std::max(seen[i], lanes[k].seen[i]);
	}
	for (int k = 0; k < n_lanes; k++) {
		if (!(active >> k & 1))
			continue;
		memcpy(lanes[k].seen, seen, sizeof seen);
		lanes[k].clock++;
	}
}

void meet_in_warp(Block *block, int warp, unsigned asking)
{
	Meeting &meeting = block->meetings[warp];
	uint32_t &in_warp = meeting.in_warp;
	Fiber *lanes = &block->fibers[warp * 32];
	const int n_lanes = std::min(32, (int)block->fibers.size() - warp * 32);
	const unsigned in_block = n_lanes < 32 ? (1u << n_lanes) - 1 : ~0u;
	for (int l = 0; in_warp && l < n_lanes; l++) {
		unsigned active;
		if (!(asking & in_warp & 1u << l) || (lanes[l].mask & ~(in_warp | meeting.done) & in_block) ||
		    !all_came(lanes, n_lanes, l, &active))
			continue;
		void *io[32] = {};
		for (int k = 0; k < n_lanes; k++)
			io[k] = lanes[k].io;
		lanes[l].function(io, active);
		if (lanes[l].is_fence)
			order_lanes(lanes, n_lanes, active);
		for (int k = 0; k < n_lanes; k++)
			if (active >> k & 1) {
				lanes[k].state = READY;
				block->ready.push_back(lanes[k].thread);
			}
		in_warp &= ~active;
	}
}

/* A whole warp has come for the same, as nearly always. The last of them may go on at once. */
static bool meet_plainly(Fiber *last, Meeting *meeting)
{
	Block *block = last->block;
	Fiber *lanes = &block->fibers[last->thread / 32 * 32];
	const bool goes_on = random_bits() & 1;
	last->function(meeting->io, ~0u);
	if (last->is_fence)
		order_lanes(lanes, 32, ~0u);
	for (int k = 0; k < 32; k++) {
		lanes[k].state = READY;
		if (!goes_on || &lanes[k] != last)
			block->ready.push_back(lanes[k].thread);
	}
	meeting->in_warp = 0;
	return goes_on;
}

void warp(const char *operation, unsigned mask, void *io, WarpFunction *function, bool is_fence, const char *file,
	  int line)
{
	Fiber *f = current;
	Meeting &meeting = f->block->meetings[f->thread / 32];
	const int lane = f->thread & 31;
	const unsigned own = 1u << lane;
	if (!(mask & own)) {
		report("warp-mask", "%s: the lane that calls is not in its mask %08x, line %d", operation, mask, line);
		mask |= own;
	}
	f->operation = operation;
	f->mask = mask;
	f->io = io;
	f->function = function;
	f->is_fence = is_fence;
	f->file = file;
	f->line = line;
	f->state = IN_WARP;
	if (!meeting.in_warp)
		meeting.is_plain = true;
	if (mask != ~0u || (meeting.in_warp && operation != meeting.operation))
		meeting.is_plain = false;
	meeting.operation = operation;
	meeting.io[lane] = io;
	meeting.in_warp |= own;
	if (!meeting.is_plain || meeting.done)
		meet_in_warp(f->block, f->thread / 32, mask == ~0u ? own : ~0u);
	else if (meeting.in_warp == ~0u && meet_plainly(f, &meeting))
		return;
	wait_for_turn();
}

void nothing(void **, unsigned) {}

void tell_inactive(int lane, int source)
{
	report("warp-inactive", "%s at line %d reads a lane that has ended or is not in the mask @@ lane %d from %d",
	       current->operation, current->line, lane, source);
}

int barrier(const char *file, int line, int place, int predicate, int n_wanted)
{
	Fiber *f = current;
	f->file = file;
	f->line = line;
	f->place = place;
	f->predicate = predicate;
	f->n_wanted = n_wanted;
	f->state = AT_BARRIER;
	f->block->n_waiting++;
	meet_at_barrier(f->block);
	wait_for_turn();
	return f->result;
}

/* mma.m16n8k16, fragments as PTX lays them out */
template <class Convert> static void multiply(void **io, unsigned active, Convert to_float)
{
	if (active != ~0u) {
		report("warp-mask", "mma.sync without lanes %08x", ~active);
		return;
	}
	float a[16][16], b[16][8];
	for (int lane = 0; lane < 32; lane++) {
		const auto *m = (const Fragments *)io[lane];
		const int group = lane / 4, part = lane % 4 * 2;
		for (int i = 0; i < 8; i++)
			a[group + i / 2 % 2 * 8][part + i % 2 + i / 4 * 8] = to_float(m->a[i / 2] >> i % 2 * 16);
		for (int i = 0; i < 4; i++)
			b[part + i % 2 + i / 2 * 8][group] = to_float(m->b[i / 2] >> i % 2 * 16);
	}
	for (int lane = 0; lane < 32; lane++) {
		auto *m = (Fragments *)io[lane];
		for (int i = 0; i < 4; i++) {
			const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
			for (int k = 0; k < 16; k++)
				m->d[i] += a[row][k] * b[k][col];
		}
	}
}

void multiply_halves(void **io, unsigned active)
{
	multiply(io, active, [](unsigned bits) { return __half2float(__ushort_as_half((unsigned short)bits)); });
}

void multiply_bfloats(void **io, unsigned active)
{
	multiply(io, active, [](unsigned bits) {
		bits <<= 16;
		float x;
		memcpy(&x, &bits, sizeof x);
		return x;
	});
}

void begin_atomic(void *p, unsigned n, int order, void *pc)
{
	if (!current)
		return;
	yield();
	access(p, n, false, true, (uintptr_t)pc);
	if ((order & RELEASE) || current->fenced)
		release_at(p);
	acquire_at(p, order & ACQUIRE);
	access(p, n, true, true, (uintptr_t)pc);
}

void wait_for_previous()
{
	current->before_wait = false;
	waited = true;
}

void copy_later(void *to, const void *from)
{
	const auto pc = (uintptr_t)__builtin_return_address(0);
	access(from, 16, false, false, pc);
	access(to, 16, true, false, pc);
	memset(to, 0xff, 16); /* it lands when it is waited for: until then nobody knows what is there */
	mark_shared(to, 16, false);
	current->copies.push_back({to, from, current->copy_group});
}

void commit_copies()
{
	current->copy_group++;
}

void wait_for_copies(int n_left)
{
	auto &copies = current->copies;
	size_t n = 0;
	for (; n < copies.size() && copies[n].group < current->copy_group - n_left; n++) {
		memcpy(copies[n].to, copies[n].from, 16);
		mark_shared(copies[n].to, 16, true);
	}
	copies.erase(copies.begin(), copies.begin() + n);
}

}
