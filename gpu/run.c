/* Launches what a step has noted: as they come, or as a graph where the same operations have been run before on as
 * many rows. What differs from step to step (rows, pages, ids) lies in the device's memory, so that a graph
 * never changes when sessions come and go.
 */
#include "gpu/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static cudaError_t launch_all(struct sk_gpu *gpu)
{
	while (gpu->n_run < gpu->n_notes) {
		uint32_t n_taken;
		cudaError_t error = sk_gpu_launch(gpu, &gpu->notes[gpu->n_run],
						  gpu->n_notes - gpu->n_run, &n_taken);
		if (error != cudaSuccess)
			return error;
		gpu->n_run += n_taken;
	}
	return cudaSuccess;
}

static cudaError_t tell(struct sk_gpu *gpu)
{
	const struct {
		size_t at, bytes;
	} parts[] = {
		{0, gpu->n_list * sizeof(uint32_t)},
		{gpu->told_rows, gpu->batch->n_rows * sizeof(struct sk_gpu_row)},
		{gpu->told_table, gpu->n_table * sizeof(uint32_t)},
	};
	cudaError_t error = cudaSuccess;
	for (int i = 0; i < 3 && error == cudaSuccess; i++)
		if (parts[i].bytes)
			error = cudaMemcpyAsync((char *)gpu->told.data + parts[i].at,
						gpu->telling + parts[i].at, parts[i].bytes,
						cudaMemcpyHostToDevice, gpu->stream);
	return error;
}

/* --- Graphs ---------------------------------------------------------------------------------------- */

void sk_gpu_drop_graphs(struct sk_gpu *gpu)
{
	for (uint32_t i = 0; i < gpu->n_graphs; i++) {
		cudaGraphExecDestroy(gpu->graphs[i].exec);
		free(gpu->graphs[i].notes);
	}
	gpu->n_graphs = 0;
}

/* A decode step: a row a session, and nothing launched yet. Prompts are seldom alike. */
static bool is_for_graphs(const struct sk_gpu *gpu)
{
	return gpu->batch->n_spans == gpu->batch->n_rows && gpu->n_run == 0 && !gpu->base.profile &&
	       !gpu->without_graphs;
}

static uint64_t key_of(const struct sk_gpu *gpu)
{
	uint64_t key = 14695981039346656037u ^ gpu->sharing.n_segments ^
		       (uint64_t)gpu->sharing.n_warps << 32;
	const uint64_t *words = (const uint64_t *)gpu->notes;
	for (size_t i = 0; i < gpu->n_notes * sizeof *gpu->notes / sizeof *words; i++)
		key = (key ^ words[i]) * 1099511628211u;
	return key;
}

/* NULL where there is none; then its place is there. */
static struct sk_gpu_graph *find_graph(struct sk_gpu *gpu, uint64_t key, uint32_t *ret_place)
{
	for (uint64_t i = key >> 32;; i++) {
		const uint32_t place = i % SK_GPU_GRAPH_PLACES;
		struct sk_gpu_graph *graph = &gpu->graphs[gpu->graph_at[place]];
		if (gpu->graph_at[place] >= gpu->n_graphs || graph->place != place) {
			*ret_place = place;
			return NULL;
		}
		if (graph->key == key && graph->n_segments == gpu->sharing.n_segments &&
		    graph->n_warps == gpu->sharing.n_warps && graph->n_notes == gpu->n_notes &&
		    memcmp(graph->notes, gpu->notes, gpu->n_notes * sizeof *gpu->notes) == 0)
			return graph;
	}
}

static cudaError_t capture(struct sk_gpu *gpu, cudaGraphExec_t *ret_exec)
{
	cudaGraph_t graph = NULL;
	cudaError_t error = cudaStreamBeginCapture(gpu->stream, cudaStreamCaptureModeThreadLocal);
	if (error != cudaSuccess)
		return error;
	error = launch_all(gpu);
	gpu->n_run = 0; /* noted by the stream, and not run */
	cudaError_t ended = cudaStreamEndCapture(gpu->stream, &graph);
	if (error == cudaSuccess)
		error = ended;
	if (error == cudaSuccess)
		error = cudaGraphInstantiate(ret_exec, graph, 0);
	if (graph)
		cudaGraphDestroy(graph);
	return error;
}

/* The graph of what was noted, captured now where it is new. NULL: it cannot be had, as a rule for want of memory. */
static struct sk_gpu_graph *graph_of(struct sk_gpu *gpu)
{
	const uint64_t key = key_of(gpu);
	uint32_t place;
	struct sk_gpu_graph *graph = find_graph(gpu, key, &place);
	if (graph)
		return graph;
	if (gpu->n_graphs == SK_GPU_GRAPHS) {
		sk_gpu_drop_graphs(gpu);
		find_graph(gpu, key, &place); /* nothing is in its way any more */
	}
	struct sk_gpu_note *notes = malloc(gpu->n_notes * sizeof *notes);
	if (!notes)
		return NULL;
	memcpy(notes, gpu->notes, gpu->n_notes * sizeof *notes);
	graph = &gpu->graphs[gpu->n_graphs];
	*graph = (struct sk_gpu_graph){.key = key,
				       .place = place,
				       .n_segments = gpu->sharing.n_segments,
				       .n_warps = gpu->sharing.n_warps,
				       .n_notes = gpu->n_notes,
				       .notes = notes};
	if (capture(gpu, &graph->exec) != cudaSuccess) {
		free(notes);
		return NULL;
	}
	gpu->graph_at[place] = (uint16_t)gpu->n_graphs++;
	return graph;
}

/* As a graph where that can be: a step that only wants one less is no step that failed. What is wrong with the device, or
 * with the operations, is told by launching them. */
static cudaError_t launch(struct sk_gpu *gpu)
{
	struct sk_gpu_graph *graph = is_for_graphs(gpu) ? graph_of(gpu) : NULL;
	if (graph) {
		cudaError_t error = cudaGraphLaunch(graph->exec, gpu->stream);
		if (error != cudaErrorMemoryAllocation) {
			gpu->n_run = gpu->n_notes;
			return error;
		}
		sk_gpu_drop_graphs(gpu); /* for the memory that they have */
	}
	cudaGetLastError(); /* of a graph that could not be had */
	return launch_all(gpu);
}

/* --- The step -------------------------------------------------------------------------------------- */

/* Launches what was noted since, and waits. */
static void flush(struct sk_gpu *gpu)
{
	if (gpu->error == 0 && gpu->n_run < gpu->n_notes &&
	    sk_gpu_check(gpu, tell(gpu), "telling of a step"))
		sk_gpu_check(gpu, launch(gpu), "a step");
	sk_gpu_check(gpu, cudaStreamSynchronize(gpu->stream), "a step");
}

void sk_gpu_wait(struct sk_backend *backend)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (gpu && gpu->batch)
		flush(gpu);
}

int sk_gpu_end_step(struct sk_backend *backend)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu || !gpu->batch)
		return -EINVAL;
	flush(gpu);
	gpu->batch = NULL;
	int r = gpu->error;
	gpu->error = 0;
	if (r == 0)
		gpu->why[0] = '\0';
	return r;
}

/* What a step wrote of a buffer, to pinned memory. What fails is told to who reads, and no step's: the next is of others. */
static cudaError_t fetch(struct sk_gpu *gpu, struct sk_buffer *b, uint32_t n_rows)
{
	const size_t row_bytes = (size_t)b->stride * sizeof(float);
	cudaError_t error = cudaSuccess;
	if (!b->host)
		error = cudaMallocHost((void **)&b->host, b->n_rows * row_bytes);
	if (error == cudaSuccess)
		error = cudaMemcpyAsync(b->host, b->block.data, n_rows * row_bytes,
					cudaMemcpyDeviceToHost, gpu->stream);
	if (error == cudaSuccess)
		error = cudaStreamSynchronize(gpu->stream);
	return error;
}

const float *sk_gpu_read(struct sk_backend *backend, const struct sk_buffer *buffer, uint32_t row)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	struct sk_buffer *b =
		(struct sk_buffer *)buffer; /* its copy is no part of what the caller sees */
	if (b->host_step != gpu->step)
		b->n_host = 0;
	if (row >= b->n_host) { /* all that the step wrote at once */
		const uint32_t n = row < b->n_written ? b->n_written : row + 1;
		if (fetch(gpu, b, n) != cudaSuccess) {
			cudaGetLastError(); /* it is told here, and must not be told again */
			return NULL;
		}
		b->host_step = gpu->step;
		b->n_host = n;
	}
	return b->host + (size_t)row * b->stride;
}
