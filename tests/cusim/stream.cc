/* Streams, events, graphs and launches. Work waits in a graph of what must be done before: it runs when somebody waits for
 * it (CUSIM_ASYNC=lazy, so that what was forgotten to be waited for is not there), at once (eager), or at a whim (random).
 * Among what may run, the seed chooses. One long file: streams, events and graphs all put work into the one order that it
 * keeps, and each of them is told by what the others do to that.
 */
#include "cusim_kernel.h"
#include "host.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

namespace cusim
{

struct Work {
	std::function<void()> run;
	std::vector<std::shared_ptr<Work>> after;
	bool done = false;
	int stream = 0;
	uint32_t number = 0;         /* of what was queued on that stream */
	std::vector<uint32_t> after_number; /* by stream: this comes after all its work up to there */
};
typedef std::shared_ptr<Work> Item;

}

using namespace cusim;

struct CUgraph_st {
	std::vector<Item> items;
	std::set<CUstream_st *> streams; /* that take part in the capture */
	bool spoilt = false;
};

struct CUgraphExec_st {
	std::vector<Item> items;
};

struct CUstream_st {
	Item last;
	int id = 0;
	uint32_t n_queued = 0;
	std::vector<uint32_t> after_number; /* as its last work's */
	bool blocking = true; /* waits for the legacy stream, and it for this one */
	CUgraph_st *capture = nullptr;
};

struct CUevent_st {
	Item at;
	CUgraph_st *capture = nullptr;
};

namespace cusim
{

std::recursive_mutex lock;
static CUstream_st legacy;
static std::set<CUstream_st *> streams = {&legacy};
static std::set<void *> others; /* events, graphs */

static CUstream_st *stream_of(cudaStream_t stream)
{
	return stream && stream != cudaStreamLegacy ? stream : &legacy;
}

/* --- Which launches are ordered by streams, events and the host's waiting --- */

static std::vector<uint32_t> host_after; /* what the host has waited for comes before all that it queues */
static const Work *at_work;
static std::vector<std::pair<int, uint32_t>> launches = {{}};                          /* stream, number */
static std::map<int, std::vector<std::pair<uint32_t, uint32_t>>> launches_of_stream; /* number, launch */
uint32_t apart_from;

static void join(std::vector<uint32_t> *to, const std::vector<uint32_t> &from)
{
	to->resize(std::max(to->size(), from.size()));
	for (size_t i = 0; i < from.size(); i++)
		(*to)[i] = std::max((*to)[i], from[i]);
}

static void order(CUstream_st *stream, Work *work)
{
	join(&stream->after_number, host_after);
	for (const Item &before : work->after)
		join(&stream->after_number, before->after_number);
	stream->after_number.resize(std::max<size_t>(stream->after_number.size(), stream->id + 1));
	stream->after_number[stream->id] = ++stream->n_queued;
	work->stream = stream->id;
	work->number = stream->n_queued;
	work->after_number = stream->after_number;
}

static uint32_t up_to(int stream)
{
	return (size_t)stream < at_work->after_number.size() ? at_work->after_number[stream] : 0;
}

bool is_apart(uint32_t launch)
{
	return launches[launch].second > up_to(launches[launch].first);
}

/* The kernels of a graph are as one: their order among themselves is the capture's. */
void order_launch()
{
	launches.resize(launch_number);
	launches.push_back({at_work->stream, at_work->number});
	apart_from = UINT32_MAX;
	for (auto &[stream, all] : launches_of_stream) {
		auto at = std::upper_bound(all.begin(), all.end(), std::pair(up_to(stream), UINT32_MAX));
		if (at != all.end())
			apart_from = std::min(apart_from, at->second);
	}
	launches_of_stream[at_work->stream].push_back({at_work->number, launch_number});
}

static void host_waited(const Item &item)
{
	if (item)
		join(&host_after, item->after_number);
}

/* Runs an item, and before it all that it needs. */
static void run(const Item &wanted)
{
	std::vector<Item> stack = {wanted};
	while (!stack.empty()) {
		const Item item = stack.back();
		std::vector<Item> before;
		if (item && !item->done)
			for (const Item &i : item->after)
				if (!i->done)
					before.push_back(i);
		if (!before.empty()) {
			for (size_t i = before.size(); i-- > 0;)
				std::swap(before[i], before[random_bits() % (i + 1)]);
			stack.insert(stack.end(), before.begin(), before.end());
			continue;
		}
		stack.pop_back();
		if (!item || item->done)
			continue;
		item->done = true;
		item->after.clear();
		if (item->run && context_error() == cudaSuccess) {
			Reach reach;
			const Work *outer = at_work; /* a graph's launch */
			at_work = outer ? outer : item.get();
			item->run();
			at_work = outer;
		}
	}
}

static char mode()
{
	static const char *wanted = getenv("CUSIM_ASYNC");
	return wanted ? wanted[0] : 'l';
}

static void run_somebody()
{
	auto at = streams.begin();
	std::advance(at, random_bits() % streams.size());
	if (!(*at)->capture)
		run((*at)->last);
}

static void queue_after(CUstream_st *stream, std::function<void()> work, std::vector<Item> after)
{
	auto item = std::make_shared<Work>();
	item->run = std::move(work);
	item->after = std::move(after);
	if (stream->last)
		item->after.push_back(stream->last);
	stream->last = item;
	if (stream->capture) {
		stream->capture->items.push_back(item);
		return;
	}
	if (stream == &legacy) {
		for (CUstream_st *other : streams)
			if (other != stream && other->blocking && other->last && !other->capture)
				item->after.push_back(other->last);
	} else if (stream->blocking && legacy.last) {
		item->after.push_back(legacy.last);
	}
	order(stream, item.get());
	if (mode() == 'e')
		run(item);
	else if (mode() == 'r' && random_bits() % 3 == 0)
		run_somebody();
}

void queue_work(cudaStream_t stream, std::function<void()> work)
{
	queue_after(stream_of(stream), std::move(work), {});
}

bool is_capturing(cudaStream_t stream)
{
	if (stream)
		return stream_of(stream)->capture;
	return std::any_of(streams.begin(), streams.end(), [](CUstream_st *s) { return s->capture; });
}

void spoil_captures()
{
	for (CUstream_st *s : streams)
		if (s->capture)
			s->capture->spoilt = true;
}

cudaError_t wait_for(cudaStream_t stream)
{
	CUstream_st *s = stream_of(stream);
	if (s->capture) {
		s->capture->spoilt = true;
		return fail(cudaErrorStreamCaptureUnsupported);
	}
	run(s->last);
	host_waited(s->last);
	return context_error();
}

cudaError_t wait_for_all()
{
	if (is_capturing(nullptr)) {
		spoil_captures();
		return fail(cudaErrorStreamCaptureUnsupported);
	}
	std::vector<CUstream_st *> all(streams.begin(), streams.end());
	for (size_t i = all.size(); i-- > 0;) {
		std::swap(all[i], all[random_bits() % (i + 1)]);
		run(all[i]->last);
		host_waited(all[i]->last);
	}
	return context_error();
}

long n_host_objects()
{
	return (long)streams.size() - 1 + (long)others.size();
}

struct Kernel {
	void (*call)(const void *, void **);
	std::vector<size_t> sizes;
	int most_shared = -1; /* dynamic; less than 0: as much as is left of 48 KB */
};
static std::map<const void *, Kernel> kernels;

void know_kernel(const void *function, void (*call)(const void *, void **), const size_t *sizes, int n)
{
	std::lock_guard<std::recursive_mutex> locked(lock);
	Kernel &kernel = kernels[function];
	kernel.call = call;
	kernel.sizes.assign(sizes, sizes + n);
}

static bool is_possible(const cudaLaunchConfig_t *c)
{
	const size_t n = (size_t)c->blockDim.x * c->blockDim.y * c->blockDim.z;
	return n && n <= 1024 && c->blockDim.z <= 64 && c->gridDim.x && c->gridDim.y && c->gridDim.z &&
	       c->gridDim.y <= 65535 && c->gridDim.z <= 65535;
}

/* With the threads and the shared memory that the kernel can have. */
static bool fits(const cudaLaunchConfig_t *c, const void *function, int most_shared)
{
	const unsigned n = c->blockDim.x * c->blockDim.y * c->blockDim.z, most = most_threads_of(function);
	if (most && n > most) {
		report("launch-bounds", "%u threads where __launch_bounds__ says %u", n, most);
		return false;
	}
	const size_t fixed = static_shared_of(function), all = fixed + c->dynamicSmemBytes;
	if (most_shared < 0 ? all > 48 << 10 : c->dynamicSmemBytes > (size_t)most_shared || all > SHARED_BYTES) {
		report("launch-shared", "%zu bytes of dynamic shared memory and %zu of static are more than the kernel may have",
		       c->dynamicSmemBytes, fixed);
		return false;
	}
	return true;
}

}

extern "C" {

/* --- Launches --- */

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function, void **arguments)
{
	CUSIM_CALL(cudaErrorLaunchFailure);
	auto at = kernels.find(function);
	if (at == kernels.end())
		return fail(cudaErrorInvalidDeviceFunction);
	if (!is_possible(config))
		return fail(cudaErrorInvalidConfiguration);
	if (!fits(config, function, at->second.most_shared))
		return fail(cudaErrorLaunchOutOfResources);
	Launch launch = {function, at->second.call, nullptr, config->gridDim, config->blockDim, config->dynamicSmemBytes,
			 false, false};
	for (unsigned i = 0; i < config->numAttrs; i++) {
		const cudaLaunchAttribute &a = config->attrs[i];
		if (a.id == cudaLaunchAttributeCooperative)
			launch.cooperative = a.val.cooperative;
		if (a.id == cudaLaunchAttributeProgrammaticStreamSerialization)
			launch.early = a.val.programmaticStreamSerializationAllowed;
	}
	/* Parameters are those of now, also in a graph. */
	auto values = std::make_shared<std::vector<std::vector<char>>>();
	for (size_t i = 0; i < at->second.sizes.size(); i++)
		values->emplace_back((char *)arguments[i], (char *)arguments[i] + at->second.sizes[i]);
	queue_work(config->stream, [=]() mutable {
		std::vector<void *> all;
		for (auto &value : *values)
			all.push_back(value.data());
		launch.arguments = all.data();
		run_kernel(launch);
	});
	return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value)
{
	CUSIM_CALL(cudaErrorUnknown);
	if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
		return cudaSuccess;
	if (value + static_shared_of(function) > SHARED_BYTES)
		return fail(cudaErrorInvalidValue);
	kernels[function].most_shared = value;
	return cudaSuccess;
}

/* --- Streams and events --- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret_stream, unsigned flags)
{
	CUSIM_CALL(cudaErrorMemoryAllocation);
	auto *stream = new CUstream_st;
	static int n_streams;
	stream->id = ++n_streams;
	stream->blocking = !(flags & cudaStreamNonBlocking);
	streams.insert(stream);
	*ret_stream = stream;
	return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);
	if (!streams.count(stream))
		return fail(cudaErrorInvalidResourceHandle);
	run(stream->last);
	streams.erase(stream);
	delete stream;
	return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
	CUSIM_CALL(cudaErrorLaunchFailure);
	return wait_for(stream);
}

cudaError_t cudaDeviceSynchronize(void)
{
	CUSIM_CALL(cudaErrorLaunchFailure);
	return wait_for_all();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret_event, unsigned)
{
	CUSIM_CALL(cudaErrorMemoryAllocation);
	*ret_event = new CUevent_st;
	others.insert(*ret_event);
	return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);
	others.erase(event);
	delete event;
	return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
	CUSIM_CALL(cudaErrorUnknown);
	CUstream_st *s = stream_of(stream);
	event->capture = s->capture;
	event->at = s->last;
	return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
	CUSIM_CALL(cudaErrorLaunchFailure);
	if (event->capture)
		return fail(cudaErrorCapturedEvent);
	run(event->at);
	host_waited(event->at);
	return context_error();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
	CUSIM_CALL(cudaErrorUnknown);
	CUstream_st *s = stream_of(stream);
	if (!event->at)
		return cudaSuccess;
	if (event->capture && !s->capture) { /* joins the capture */
		s->capture = event->capture;
		s->capture->streams.insert(s);
		s->last = event->at;
		return cudaSuccess;
	}
	queue_after(s, nullptr, {event->at});
	return cudaSuccess;
}

/* --- Graphs --- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
	CUSIM_CALL(cudaErrorUnknown);
	CUstream_st *s = stream_of(stream);
	if (s == &legacy || s->capture)
		return fail(s->capture ? cudaErrorIllegalState : cudaErrorStreamCaptureUnsupported);
	run(s->last);
	s->last = nullptr;
	s->capture = new CUgraph_st;
	s->capture->streams.insert(s);
	return cudaSuccess;
}

/* Whether all of a stream's work is before that of the one that ends the capture. */
static bool is_joined(const CUstream_st *stream, const Item &last)
{
	std::set<Work *> seen;
	std::vector<Work *> stack;
	if (last)
		stack.push_back(last.get());
	while (!stack.empty()) {
		Work *work = stack.back();
		stack.pop_back();
		if (seen.insert(work).second)
			for (const Item &before : work->after)
				stack.push_back(before.get());
	}
	return !stream->last || seen.count(stream->last.get());
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *ret_graph)
{
	std::lock_guard<std::recursive_mutex> locked(cusim::lock); /* fails for what was done before, not by itself */
	CUstream_st *s = stream_of(stream);
	CUgraph_st *graph = s->capture;
	*ret_graph = nullptr;
	if (!graph)
		return fail(cudaErrorIllegalState);
	bool joined = true;
	for (CUstream_st *other : graph->streams)
		joined &= is_joined(other, s->last);
	for (CUstream_st *other : graph->streams) {
		other->capture = nullptr;
		other->last = nullptr;
	}
	if (graph->spoilt || !joined) {
		const cudaError_t error =
			graph->spoilt ? cudaErrorStreamCaptureInvalidated : cudaErrorStreamCaptureUnjoined;
		delete graph;
		return fail(error);
	}
	others.insert(graph);
	*ret_graph = graph;
	return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ret_exec, cudaGraph_t graph, unsigned long long)
{
	CUSIM_CALL(cudaErrorMemoryAllocation);
	*ret_exec = new CUgraphExec_st{graph->items};
	others.insert(*ret_exec);
	return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
	CUSIM_CALL(cudaErrorLaunchFailure);
	queue_work(stream, [exec] {
		std::map<Work *, Item> copies;
		std::vector<Item> all;
		for (const Item &item : exec->items) {
			auto copy = std::make_shared<Work>();
			copy->run = item->run;
			for (const Item &before : item->after)
				if (copies.count(before.get()))
					copy->after.push_back(copies[before.get()]);
			copies[item.get()] = copy;
			all.push_back(copy);
		}
		for (size_t i = all.size(); i-- > 0;)
			std::swap(all[i], all[random_bits() % (i + 1)]);
		for (const Item &item : all)
			run(item);
	});
	return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);
	others.erase(exec);
	wait_for_all();
	delete exec;
	return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);
	others.erase(graph);
	delete graph;
	return cudaSuccess;
}
}
