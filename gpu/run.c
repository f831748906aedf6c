/* Launches what a step has noted: one by one, or as a graph where the same operations have been run before on as
 * many rows. What differs from step to step (rows, pages, ids) lies in the device's memory, so that a graph
 * never changes when sessions come and go.
 */
#include "gpu/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct sk_gpu_row *device_rows(const struct sk_gpu *gpu)
{
	return (const struct sk_gpu_row *)((char *)gpu->told.data + gpu->told_rows);
}

static const uint32_t *device_table(const struct sk_gpu *gpu)
{
	return (const uint32_t *)((char *)gpu->told.data + gpu->told_table);
}

static const uint32_t *device_list(const struct sk_gpu *gpu)
{
	return gpu->told.data;
}

static float *floats(const struct sk_buffer *buffer)
{
	return buffer->block.data;
}

/* --- Matrices ------------------------------------------------------------------------------------- */

static cudaDataType_t type_of(enum sk_gpu_format format)
{
	return format == SK_GPU_F32 ? CUDA_R_32F : format == SK_GPU_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

/* What many rows are multiplied in. A half holds a code of eight bits times its scale better than a bfloat16. */
static enum sk_gpu_format format_for(const struct sk_gpu *gpu, const struct sk_gpu_matrix *m)
{
	return gpu->exact || m->format == SK_GPU_F32 ? SK_GPU_F32
	       : m->format == SK_GPU_BF16            ? SK_GPU_BF16
						     : SK_GPU_F16;
}

/* The library's part: many rows. Row-major matrices are its transposed ones. */
static cudaError_t multiply_many(struct sk_gpu *gpu, const struct sk_gpu_note *note, const void *in,
				 bool add)
{
	const struct sk_linear *linear = note->weights;
	const struct sk_gpu_matrix *m = &linear->matrix;
	const enum sk_gpu_format format = format_for(gpu, m);
	const void *weights = m->codes;
	cudaError_t error = cudaSuccess;

	if (format != m->format) {
		weights = gpu->decoded.data;
		error = sk_gpu_decode(gpu->stream, m, gpu->decoded.data, format);
	}
	if (error == cudaSuccess && m->bias)
		error = sk_gpu_bias(gpu->stream, floats(note->out), note->out->stride, m->bias,
				    m->n_rows, note->n_rows, add);
	if (error != cudaSuccess)
		return error;
	const float one = 1, beta = add || m->bias ? 1 : 0;
	cublasStatus_t status = cublasGemmEx(
		gpu->cublas, CUBLAS_OP_T, CUBLAS_OP_N, (int)m->n_rows, (int)note->n_rows,
		(int)m->n_cols, &one, weights, type_of(format), (int)m->n_cols, in, type_of(format),
		(int)note->in->stride, &beta, floats(note->out), CUDA_R_32F, (int)note->out->stride,
		CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
	return status == CUBLAS_STATUS_SUCCESS        ? cudaSuccess
	       : status == CUBLAS_STATUS_ALLOC_FAILED ? cudaErrorMemoryAllocation
						      : cudaErrorUnknown;
}

static cudaError_t multiply(struct sk_gpu *gpu, const struct sk_gpu_note *note, bool add)
{
	const struct sk_gpu_matrix *m = &((const struct sk_linear *)note->weights)->matrix;
	const bool halves = m->format == SK_GPU_F16 || m->format == SK_GPU_BF16;
	struct sk_buffer *out = note->out;
	const void *in = floats(note->in);
	const uint32_t n = note->n_rows;

	if (n <= SK_GPU_MATVEC_ROWS && (gpu->exact || !halves))
		return sk_gpu_matvec(gpu->stream, m, floats(out), out->stride, in, note->in->stride,
				     n, add);
	if (n > SK_GPU_MATVEC_ROWS && format_for(gpu, m) != SK_GPU_F32) {
		cudaError_t error = sk_gpu_round(gpu->stream, gpu->rounded.data, in,
						 note->in->stride, n, format_for(gpu, m));
		if (error != cudaSuccess)
			return error;
		in = gpu->rounded.data;
	}
	if (n <= gpu->few_rows && halves && !gpu->exact)
		return sk_gpu_few(gpu->stream, m, floats(out), out->stride, in, note->in->stride, n,
				  add);
	return multiply_many(gpu, note, in, add);
}

/* --- One by one ------------------------------------------------------------------------------------ */

static cudaError_t launch(struct sk_gpu *gpu, const struct sk_gpu_note *note)
{
	struct sk_buffer *out = note->out;
	const struct sk_buffer *in = note->in;
	const uint32_t n = note->n_rows;
	const struct sk_norm *norm;
	const struct sk_linear *table;

	switch (note->op) {
	case SK_GPU_EMBED:
		table = note->weights;
		return sk_gpu_embed(gpu->stream, floats(out), out->stride, &table->matrix,
				    device_rows(gpu), table->n_cols, n);
	case SK_GPU_NORM:
		norm = note->weights;
		return sk_gpu_norm(gpu->stream, floats(out), out->stride, floats(in), in->stride,
				   norm->weight.data, norm->bias.data, norm->width, n, note->eps,
				   note->number != 0);
	case SK_GPU_MATMUL:
	case SK_GPU_MATMUL_ADD:
		return multiply(gpu, note, note->op == SK_GPU_MATMUL_ADD);
	case SK_GPU_APPEND:
		return sk_gpu_append(gpu->stream, &gpu->cache, floats(out), out->stride, floats(in),
				     in->stride, device_rows(gpu), device_table(gpu), note->number,
				     n);
	case SK_GPU_ATTEND:
		return sk_gpu_attend(gpu->stream, &gpu->cache, floats(out), out->stride, floats(in),
				     in->stride, device_rows(gpu), device_table(gpu), note->number,
				     n, gpu->n_segments, gpu->parts.data, gpu->counters.data);
	case SK_GPU_ACTIVATE:
		return sk_gpu_activate(gpu->stream, floats(out), out->stride, floats(in),
				       in->stride, out->width, n, (int)note->number);
	case SK_GPU_GATHER:
		return sk_gpu_gather(gpu->stream, floats(out), out->stride, floats(in), in->stride,
				     device_list(gpu) + note->number, out->width, n);
	case SK_GPU_SCORE:
		return sk_gpu_score(gpu->stream, floats(out) + (size_t)note->at * out->stride,
				    out->stride, floats(in), in->stride,
				    device_list(gpu) + note->number, in->width, n);
	}
	return cudaErrorInvalidValue;
}

static cudaError_t launch_all(struct sk_gpu *gpu)
{
	for (; gpu->n_run < gpu->n_notes; gpu->n_run++) {
		if (gpu->notes[gpu->n_run].n_rows == 0)
			continue;
		cudaError_t error = launch(gpu, &gpu->notes[gpu->n_run]);
		if (error != cudaSuccess)
			return error;
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
	uint64_t key = 14695981039346656037u ^ gpu->n_segments;
	const uint64_t *words = (const uint64_t *)gpu->notes;
	for (size_t i = 0; i < gpu->n_notes * sizeof *gpu->notes / sizeof *words; i++)
		key = (key ^ words[i]) * 1099511628211u;
	return key;
}

static struct sk_gpu_graph *find_graph(struct sk_gpu *gpu, uint64_t key)
{
	for (uint32_t i = 0; i < gpu->n_graphs; i++) {
		struct sk_gpu_graph *graph = &gpu->graphs[i];
		if (graph->key == key && graph->n_segments == gpu->n_segments &&
		    graph->n_notes == gpu->n_notes &&
		    memcmp(graph->notes, gpu->notes, gpu->n_notes * sizeof *gpu->notes) == 0)
			return graph;
	}
	return NULL;
}

static cudaError_t capture(struct sk_gpu *gpu, cudaGraphExec_t *ret_exec)
{
	cudaGraph_t graph = NULL;
	cudaError_t error = cudaStreamBeginCapture(gpu->stream, cudaStreamCaptureModeThreadLocal);
	if (error != cudaSuccess)
		return error;
	error = launch_all(gpu);
	cudaError_t ended = cudaStreamEndCapture(gpu->stream, &graph);
	if (error == cudaSuccess)
		error = ended;
	if (error == cudaSuccess)
		error = cudaGraphInstantiate(ret_exec, graph, 0);
	if (graph)
		cudaGraphDestroy(graph);
	return error;
}

static cudaError_t launch_graph(struct sk_gpu *gpu)
{
	const uint64_t key = key_of(gpu);
	struct sk_gpu_graph *graph = find_graph(gpu, key);
	if (!graph) {
		if (gpu->n_graphs == SK_GPU_GRAPHS)
			sk_gpu_drop_graphs(gpu);
		struct sk_gpu_note *notes = malloc(gpu->n_notes * sizeof *notes);
		if (!notes)
			return cudaErrorMemoryAllocation;
		memcpy(notes, gpu->notes, gpu->n_notes * sizeof *notes);
		graph = &gpu->graphs[gpu->n_graphs];
		*graph = (struct sk_gpu_graph){.key = key,
					       .n_segments = gpu->n_segments,
					       .n_notes = gpu->n_notes,
					       .notes = notes};
		cudaError_t error = capture(gpu, &graph->exec);
		if (error != cudaSuccess) {
			free(notes);
			return error;
		}
		gpu->n_graphs++;
	}
	gpu->n_run = gpu->n_notes;
	return cudaGraphLaunch(graph->exec, gpu->stream);
}

/* --- The step -------------------------------------------------------------------------------------- */

/* Launches what was noted since, and waits. */
static void flush(struct sk_gpu *gpu)
{
	if (gpu->error == 0 && gpu->n_run < gpu->n_notes &&
	    sk_gpu_check(gpu, tell(gpu), "telling of a step"))
		sk_gpu_check(gpu, is_for_graphs(gpu) ? launch_graph(gpu) : launch_all(gpu),
			     "a step");
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
	sk_gpu_check(gpu, (cudaError_t)atomic_exchange(&gpu->copy_error, 0), "copying a page");
	gpu->batch = NULL;
	int r = gpu->error;
	gpu->error = 0;
	return r;
}

const float *sk_gpu_read(struct sk_backend *backend, const struct sk_buffer *buffer, uint32_t row)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	struct sk_buffer *b =
		(struct sk_buffer *)buffer; /* its copy is no part of what the caller sees */
	const size_t row_bytes = (size_t)b->stride * sizeof(float);
	if (!b->host &&
	    !sk_gpu_check(gpu, cudaMallocHost((void **)&b->host, b->n_rows * row_bytes), "reading"))
		return NULL;
	if (b->host_step != gpu->step)
		b->n_host = 0;
	if (row >= b->n_host) { /* all that the step wrote at once */
		const uint32_t n = row < b->n_written ? b->n_written : row + 1;
		sk_gpu_check(gpu,
			     cudaMemcpyAsync(b->host, b->block.data, n * row_bytes,
					     cudaMemcpyDeviceToHost, gpu->stream),
			     "reading");
		sk_gpu_check(gpu, cudaStreamSynchronize(gpu->stream), "reading");
		b->host_step = gpu->step;
		b->n_host = n;
	}
	return b->host + (size_t)row * b->stride;
}
