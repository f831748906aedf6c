/* How well a warp's accesses go together: of global memory the sectors of 32 bytes that a request touches, against those
 * that its bytes would fill, apart where it is 16 bytes a lane (weights, keys, values: what is streamed); of shared memory the
 * cycles that its banks take, against those without a conflict. Only while a test asks for it: an access is kept until its
 * launch is over, and then seen with the others of its warp, the n-th of a place in the program with the n-th of every other
 * lane.
 */
#include "control.h"
#include "inside.h"

#include <cstring>
#include <set>
#include <unordered_map>

namespace cusim
{

struct Request {
	uintptr_t at[32];
	uint8_t n[32]; /* bytes; 0: this lane makes none */
	bool shared, is_streamed;
};

struct Key {
	uint64_t warp; /* of the launch */
	uintptr_t pc;
	uint32_t occurrence;
	bool operator==(const Key &other) const
	{
		return warp == other.warp && pc == other.pc && occurrence == other.occurrence;
	}
};

struct Hash {
	size_t operator()(const Key &k) const
	{
		return (k.warp * 0x9e3779b97f4a7c15u) ^ (k.pc * 0xbf58476d1ce4e5b9u) ^ k.occurrence * 0x94d049bbu;
	}
};

bool counts_traffic;
static std::unordered_map<Key, Request, Hash> requests;
static std::unordered_map<Key, uint32_t, Hash> occurrences; /* of a thread: .warp is its number */
static std::map<const void *, cusim_traffic_of> kernels;

static void note(uintptr_t a, unsigned n, bool shared, bool is_streamed, uintptr_t pc)
{
	const uint64_t thread = (uint64_t)current->block->number * 1024 + (unsigned)current->thread;
	const uint32_t occurrence = occurrences[{thread, pc, 0}]++;
	Request &request = requests[{thread / 32, pc, occurrence}];
	request.at[thread % 32] = a;
	request.n[thread % 32] = (uint8_t)n;
	request.shared = shared;
	request.is_streamed = is_streamed;
}

void note_whole(uintptr_t a, unsigned n, bool shared, bool is_streamed, uintptr_t pc)
{
	current->whole_from = a;
	current->whole_to = a + n;
	current->whole_left = n;
	note(a, n, shared, is_streamed, pc);
}

void note_part(uintptr_t a, unsigned n, bool shared, uintptr_t pc)
{
	if (current->whole_left < n || a < current->whole_from || a + n > current->whole_to)
		note(a, n, shared, false, pc);
	else
		current->whole_left -= n; /* what comes behind its last part is another access */
}

/* Lanes go together as far as 128 bytes last: 32 of 4 bytes, 8 of 16. */
static void count_shared(const Request &r, cusim_traffic_of *t)
{
	unsigned widest = 4;
	for (int lane = 0; lane < 32; lane++)
		widest = r.n[lane] > widest ? r.n[lane] : widest;
	const int together = 128 / widest < 32 ? 128 / widest : 32;
	for (int first = 0; first < 32; first += together) {
		std::set<uintptr_t> words[32];
		size_t most = 0;
		for (int lane = first; lane < first + together; lane++)
			for (unsigned k = 0; k < r.n[lane]; k += 4) {
				const uintptr_t word = (r.at[lane] + k) / 4;
				words[word % 32].insert(word);
			}
		for (auto &bank : words)
			most = bank.size() > most ? bank.size() : most;
		t->shared_cycles += (long)most;
		t->shared_least += most > 0;
	}
}

static void count_global(const Request &r, cusim_traffic_of *t)
{
	std::set<uintptr_t> sectors, words;
	for (int lane = 0; lane < 32; lane++)
		for (unsigned k = 0; k < r.n[lane]; k += 2) {
			sectors.insert((r.at[lane] + k) / 32);
			words.insert((r.at[lane] + k) / 2);
		}
	const long n = (long)sectors.size(), n_least = (long)((words.size() + 15) / 16);
	(r.is_streamed ? t->requests : t->other_requests)++;
	(r.is_streamed ? t->sectors : t->other_sectors) += n;
	(r.is_streamed ? t->sectors_least : t->other_sectors_least) += n_least;
}

void count_launch(const void *function)
{
	cusim_traffic_of &t = kernels[function];
	for (auto &[key, request] : requests)
		if (request.shared)
			count_shared(request, &t);
		else
			count_global(request, &t);
	t.launches++;
	requests.clear();
	occurrences.clear();
}

}

extern "C" {
void cusim_count_traffic(int on)
{
	cusim::counts_traffic = on;
	cusim::kernels.clear();
}

struct cusim_traffic_of cusim_traffic(const char *file)
{
	struct cusim_traffic_of all = {};
	for (auto &[function, t] : cusim::kernels) {
		if (cusim::file_of(function) != file)
			continue;
		all.launches += t.launches;
		all.requests += t.requests;
		all.sectors += t.sectors;
		all.sectors_least += t.sectors_least;
		all.other_requests += t.other_requests;
		all.other_sectors += t.other_sectors;
		all.other_sectors_least += t.other_sectors_least;
		all.shared_cycles += t.shared_cycles;
		all.shared_least += t.shared_least;
	}
	return all;
}
}
