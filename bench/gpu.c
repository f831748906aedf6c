/* The CUDA backend at work, against what its memory allows: decode at several numbers of sessions, prompts, the time to a
 * first token, the price of a far position and of plain launches, and where the time goes; then decode with a cache of BF16.
 * One line of JSON a measurement on standard output; bench/gpu_table.py makes a table of them.
 *
 *     bench_gpu MODEL [--weights auto|f32|bf16|q8|q4] [--quick | --try]
 *
 * --quick repeats less; --try does little, to see that the program works. Ends with 1, and without floors, where the memory's
 * bandwidth could not be measured.
 */
#include "gpu/gpu.h"
#include "base/clock.h"
#include "bench/gpu_operations.h"
#include "bench/gpu_probe.h"
#include "bench/gpu_work.h"
#include "gpu/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEAR 2000
#define FAR  1000000

/* How much is measured. */
struct extent {
	uint32_t n_sessions, n_tokens, n_steps, n_prompts;
};

static const struct extent whole = {GPU_WORK_SESSIONS, UINT32_MAX, 100, 5},
			   quick = {GPU_WORK_SESSIONS, UINT32_MAX, 30, 5}, little = {8, 128, 2, 1};

struct times {
	double least, median;
};

#define MOST_TIMES 100

static int ascending(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static struct times times_of(double *ms, uint32_t n)
{
	qsort(ms, n, sizeof *ms, ascending);
	return (struct times){ms[0], ms[n / 2]};
}

static double ms_since(uint64_t begun)
{
	return (double)(sk_clock_ns() - begun) * 1e-6;
}

/* Milliseconds of a decode step. */
static struct times time_decode(struct gpu_work *work, uint32_t n_sessions, uint32_t n, bool reads)
{
	double ms[MOST_TIMES];
	for (int i = 0; i < 5; i++)
		gpu_work_decode(work, n_sessions, reads);
	for (uint32_t i = 0; i < n; i++) {
		const uint64_t begun = sk_clock_ns();
		gpu_work_decode(work, n_sessions, reads);
		ms[i] = ms_since(begun);
	}
	return times_of(ms, n);
}

/* Bytes that a step must read: the weights once, of an embedding that is nothing else only a row a session, so nothing; and
 * the cache. */
static double step_bytes(const struct gpu_work *work, uint32_t n_sessions)
{
	const struct sk_weights *w = &work->forward.weights;
	const double weights = (double)sk_backend_weight_bytes(work->backend),
		     embedding =
			     w->embedding == w->output ? 0 : gpu_work_linear_bytes(w->embedding);
	const double cache = (double)n_sessions * (GPU_WORK_SINK + GPU_WORK_WINDOW) /
			     SK_PAGE_TOKENS * (double)sk_backend_page_bytes(work->backend);
	return weights - embedding + cache;
}

/* And a prompt: the weights with each step, the output matrix with the last. What it takes to multiply is not in it. */
static double prompt_bytes(const struct gpu_work *work, uint32_t n_tokens)
{
	const uint32_t n_steps = (n_tokens + GPU_WORK_ROWS - 1) / GPU_WORK_ROWS;
	return n_steps * step_bytes(work, 0) -
	       (n_steps - 1) * gpu_work_linear_bytes(work->forward.weights.output);
}

/* Inside a line: what reading takes at the bandwidth that was measured, if it was. */
static void say_floor(const struct gpu_work *work, double bytes, double ms)
{
	const double floor_ms = bytes / work->bandwidth * 1e3;
	if (work->bandwidth > 0)
		printf(", \"floor_ms\": %.4f, \"of_floor\": %.3f", floor_ms, floor_ms / ms);
}

static const uint32_t counts[] = {1, 8, 16, 64, GPU_WORK_SESSIONS};
#define N_COUNTS (sizeof counts / sizeof *counts)

/* What the memory has no room for. */
static void say_left_out(const struct gpu_work *work, const struct extent *extent)
{
	for (size_t i = 0; i < N_COUNTS && counts[i] <= extent->n_sessions; i++) {
		if (counts[i] <= work->n_sessions)
			continue;
		fprintf(stderr, "bench_gpu: %u sessions are left out: the memory holds %u\n",
			counts[i], work->n_sessions);
		printf("{\"what\": \"left_out\", \"sessions\": %u, \"most\": %u}\n", counts[i],
		       work->n_sessions);
	}
}

static void decode(struct gpu_work *work, const struct extent *extent, uint32_t n_sessions,
		   const char *cache, bool reads)
{
	const struct times t = time_decode(work, n_sessions, extent->n_steps, reads);
	printf("{\"what\": \"decode\", \"sessions\": %u, \"cache\": \"%s\", \"drawn_read\": %s, "
	       "\"least_ms\": %.4f, \"median_ms\": %.4f",
	       n_sessions, cache, reads ? "true" : "false", t.least, t.median);
	say_floor(work, step_bytes(work, n_sessions), t.median);
	printf(", \"tokens_per_s\": %.1f}\n", n_sessions / t.median * 1e3);
	fflush(stdout);
}

static void decode_all(struct gpu_work *work, const struct extent *extent)
{
	for (size_t i = 0; i < N_COUNTS && counts[i] <= work->n_sessions; i++)
		for (int reads = 0; reads < 2; reads++)
			decode(work, extent, counts[i], "f16", reads);
}

/* Decode as it is, and with one of the backend's flags set, for up to `most` sessions. */
static void compare(struct gpu_work *work, const struct extent *extent, const char *what,
		    bool *flag, uint32_t most, const char *as_it_is, const char *with_flag)
{
	struct sk_gpu *gpu = sk_gpu_from(work->backend);
	const bool was = *flag;
	for (size_t i = 0; i < N_COUNTS && counts[i] <= work->n_sessions && counts[i] <= most;
	     i++) {
		double ms[2];
		for (int is_set = 0; is_set < 2; is_set++) {
			*flag = is_set;
			sk_gpu_drop_graphs(gpu); /* which may be of the other sort */
			ms[is_set] = time_decode(work, counts[i], extent->n_steps, false).median;
		}
		printf("{\"what\": \"%s\", \"sessions\": %u, \"%s\": %.4f, \"%s\": %.4f, "
		       "\"ratio\": %.4f}\n",
		       what, counts[i], as_it_is, ms[0], with_flag, ms[1], ms[1] / ms[0]);
		fflush(stdout);
	}
	*flag = was;
	sk_gpu_drop_graphs(gpu);
}

/* Prompts into an empty session: all of it in the cache; and the token after it here. */
static void prompts(struct gpu_work *work, const struct extent *extent)
{
	static const uint32_t lengths[] = {16, 128, 512, 4096};
	for (size_t i = 0; i < 4 && lengths[i] <= extent->n_tokens; i++)
		for (int draws = 0; draws < 2; draws++) {
			double ms[MOST_TIMES];
			for (uint32_t k = 0; k < extent->n_prompts; k++) {
				sk_session_reset(work->sessions[0]);
				const uint64_t begun = sk_clock_ns();
				gpu_work_prompt(work, work->sessions[0], lengths[i], draws);
				ms[k] = ms_since(begun);
			}
			const struct times t = times_of(ms, extent->n_prompts);
			printf("{\"what\": \"%s\", \"tokens\": %u, \"least_ms\": %.3f, "
			       "\"median_ms\": %.3f",
			       draws ? "first_token" : "prefill", lengths[i], t.least, t.median);
			say_floor(work, prompt_bytes(work, lengths[i]), t.median);
			printf(", \"tokens_per_s\": %.0f}\n", lengths[i] / t.median * 1e3);
			fflush(stdout);
		}
	gpu_work_prompt(work, work->sessions[0], GPU_WORK_SINK + GPU_WORK_WINDOW + 32, false);
}

/* A step at a text position: the keys lie where they lay, time alone is measured. */
static double ms_at(struct gpu_work *work, const struct extent *extent, uint64_t position)
{
	struct sk_session *session = work->sessions[0];
	session->origin = position - session->window.next;
	return time_decode(work, 1, extent->n_steps, false).median;
}

static void far(struct gpu_work *work, const struct extent *extent)
{
	const uint64_t origin = work->sessions[0]->origin;
	const double near_ms = ms_at(work, extent, NEAR), far_ms = ms_at(work, extent, FAR);
	work->sessions[0]->origin = origin;
	printf("{\"what\": \"far\", \"position\": %d, \"near\": %d, \"near_ms\": %.4f, \"far_ms\": "
	       "%.4f, \"ratio\": %.4f}\n",
	       FAR, NEAR, near_ms, far_ms, far_ms / near_ms);
}

struct order {
	const char *path;
	enum sk_weight_format weights;
	const struct extent *extent;
};

static bool read_order(int argc, char **argv, struct order *order)
{
	static const char *const names[] = {"auto", "f32", "bf16", "q8", "q4"};
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--quick") == 0)
			order->extent = &quick;
		else if (strcmp(argv[i], "--try") == 0)
			order->extent = &little;
		else if (strcmp(argv[i], "--weights") == 0 && i + 1 < argc) {
			i++;
			for (int f = 0; f < 5; f++)
				if (strcmp(argv[i], names[f]) == 0)
					order->weights = (enum sk_weight_format)f;
		} else
			order->path = argv[i];
	}
	return order->path;
}

/* 0, or what the program ends with. */
static int load(struct gpu_work *work, const struct order *order, const struct sk_model *model,
		enum sk_kv_format cache)
{
	struct sk_diag diag = {""};
	const struct sk_backend_options options = {0};
	const struct sk_backend_shape shape =
		sk_forward_shape(sk_model_config(model), cache, GPU_WORK_ROWS);
	struct sk_backend *backend;
	int r = sk_backend_open(&sk_gpu_backend, &options, &shape, &backend, &diag);
	if (r < 0) {
		fprintf(stderr, "bench_gpu: %s\n", diag.text);
		return r == -ENODEV ? 77 : 1;
	}
	const uint64_t begun = sk_clock_ns();
	gpu_work_init(work, backend, model, order->weights);
	printf("{\"what\": \"load\", \"seconds\": %.2f, \"gb\": %.3f, \"scratch_gb\": %.3f}\n",
	       ms_since(begun) * 1e-3, (double)sk_backend_weight_bytes(backend) * 1e-9,
	       (double)sk_backend_scratch_bytes(backend) * 1e-9);
	return 0;
}

static void finish(struct gpu_work *work)
{
	gpu_work_finish(work);
	sk_backend_close(work->backend);
}

static int measure(struct gpu_work *work, const struct order *order, const struct sk_model *model)
{
	const struct extent *extent = order->extent;
	struct sk_gpu *gpu;
	work->bandwidth = bench_gpu_bandwidth(); /* before the memory is taken */
	int status = load(work, order, model, SK_KV_F16);
	if (status)
		return status;
	gpu = sk_gpu_from(work->backend);
	printf("{\"what\": \"device\", \"name\": \"%s\"", sk_backend_name(work->backend));
	if (work->bandwidth > 0)
		printf(", \"bandwidth_gb_s\": %.1f", work->bandwidth * 1e-9);
	printf("}\n");
	fflush(stdout);
	gpu_work_begin(work, extent->n_sessions);
	say_left_out(work, extent);
	decode_all(work, extent);
	prompts(work, extent);
	far(work, extent);
	compare(work, extent, "graphs", &gpu->without_graphs, UINT32_MAX, "graph_ms", "plain_ms");
	compare(work, extent, "launches", &gpu->five_launches, SK_GPU_MATVEC_ROWS, "three_ms",
		"five_ms"); /* only of so few rows are layers joined */
	for (size_t i = 0; i < N_COUNTS && counts[i] <= work->n_sessions; i++)
		gpu_operations(work, counts[i]);
	gpu_profile(work, 1);
	if (work->n_sessions >= 64)
		gpu_profile(work, 64);
	finish(work);
	return 0;
}

/* The same decode with a cache of another format, at one size. */
static int measure_bf16(struct gpu_work *work, const struct order *order,
			const struct sk_model *model)
{
	const uint32_t most = order->extent->n_sessions;
	*work = (struct gpu_work){.bandwidth = work->bandwidth};
	int status = load(work, order, model, SK_KV_BF16);
	if (status)
		return status;
	gpu_work_begin(work, most < 16 ? most : 16);
	decode(work, order->extent, work->n_sessions, "bf16", false);
	finish(work);
	return 0;
}

int main(int argc, char **argv)
{
	static struct gpu_work work;
	struct sk_diag diag = {""};
	struct sk_model *model;
	struct order order = {.weights = SK_WEIGHTS_AUTO, .extent = &whole};
	if (!read_order(argc, argv, &order)) {
		fprintf(stderr, "usage: bench_gpu MODEL [--weights FORMAT] [--quick | --try]\n");
		return 64;
	}
	if (sk_model_open(order.path, &model, &diag) < 0) {
		fprintf(stderr, "bench_gpu: %s\n", diag.text);
		return 66;
	}
	int status = measure(&work, &order, model);
	if (status == 0)
		status = measure_bf16(&work, &order, model);
	sk_model_close(model);
	if (status == 0 && work.bandwidth <= 0) {
		fprintf(stderr, "bench_gpu: the memory's bandwidth could not be measured: nothing "
				"has a floor\n");
		status = 1;
	}
	return status;
}
