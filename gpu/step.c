/* A step is noted here: what kernels must be told of the batch, and which operations were asked for, in
 * order. run.c launches them. A call that names a foreign backend, or buffers that do not fit each other, is a
 * fault of the caller: it is kept, and end_step returns it.
 */
#include "gpu/device.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct sk_gpu_row *told_rows(struct sk_gpu *gpu)
{
	return (struct sk_gpu_row *)(gpu->telling + gpu->told_rows);
}

static uint32_t *told_list(struct sk_gpu *gpu)
{
	return (uint32_t *)gpu->telling;
}

static uint32_t *told_table(struct sk_gpu *gpu)
{
	return (uint32_t *)(gpu->telling + gpu->told_table);
}

static size_t whole_lines(size_t bytes)
{
	return (bytes + 255) / 256 * 256;
}

/* Room for so many entries of the list and the table; what lies there is kept. */
static int reserve_told(struct sk_gpu *gpu, size_t n_list, size_t n_table)
{
	if (gpu->telling && n_list <= gpu->max_list && n_table <= gpu->max_table)
		return 0;
	struct sk_gpu old = *gpu;
	gpu->max_list = n_list > 2 * old.max_list ? n_list : 2 * old.max_list;
	gpu->max_table = n_table > 2 * old.max_table ? n_table : 2 * old.max_table;
	gpu->told_rows = whole_lines(gpu->max_list * sizeof(uint32_t));
	gpu->told_table =
		gpu->told_rows + whole_lines(gpu->base.shape.max_rows * sizeof(struct sk_gpu_row));
	const size_t bytes = gpu->told_table + gpu->max_table * sizeof(uint32_t);

	void *telling = NULL;
	gpu->told = (struct sk_gpu_block){0};
	int r = sk_gpu_errno(cudaMallocHost(&telling, bytes));
	if (r == 0)
		r = sk_gpu_block_init(gpu, &gpu->told, bytes);
	if (r < 0) {
		cudaFreeHost(telling);
		*gpu = old;
		return r;
	}
	gpu->telling = telling;
	if (old.telling) {
		memcpy(told_list(gpu), told_list(&old), old.n_list * sizeof(uint32_t));
		memcpy(told_rows(gpu), told_rows(&old), old.told_table - old.told_rows);
		memcpy(told_table(gpu), told_table(&old), old.n_table * sizeof(uint32_t));
	}
	sk_gpu_drop_graphs(gpu); /* which know the old place */
	cudaFreeHost(old.telling);
	sk_gpu_block_finish(&old.told);
	return 0;
}

/* Queries of one key head, and those that a block of attention takes. */
static uint32_t n_shared(const struct sk_gpu *gpu)
{
	return gpu->cache.n_heads / gpu->cache.n_kv_heads;
}

static uint32_t heads_a_block(const struct sk_gpu *gpu)
{
	return sk_gpu_attend_heads(n_shared(gpu), gpu->cache.padded_dim);
}

/* Blocks of attention for one row: a key head takes several where many queries share it. */
static uint32_t blocks_a_row(const struct sk_gpu *gpu)
{
	const uint32_t heads = heads_a_block(gpu);
	return gpu->cache.n_kv_heads * ((n_shared(gpu) + heads - 1) / heads);
}

int sk_gpu_step_init(struct sk_gpu *gpu)
{
	const uint32_t max_rows = gpu->base.shape.max_rows;
	int r = reserve_told(gpu, 2 * (size_t)max_rows, 16 * (size_t)max_rows + 1024);
	if (r == 0)
		r = sk_gpu_block_init(gpu, &gpu->counters,
				      (size_t)max_rows * blocks_a_row(gpu) * sizeof(uint32_t));
	if (r == 0)
		r = sk_gpu_block_init(gpu, &gpu->moments,
				      SK_GPU_MATVEC_ROWS * sizeof(struct sk_gpu_moments));
	return r;
}

void sk_gpu_step_finish(struct sk_gpu *gpu)
{
	sk_gpu_drop_graphs(gpu);
	cudaFreeHost(gpu->telling);
	sk_gpu_block_finish(&gpu->told);
	sk_gpu_block_finish(&gpu->parts);
	sk_gpu_block_finish(&gpu->counters);
	sk_gpu_block_finish(&gpu->unit_parts);
	sk_gpu_block_finish(&gpu->unit_counters);
	sk_gpu_block_finish(&gpu->second_norm);
	sk_gpu_block_finish(&gpu->moments);
	sk_gpu_block_finish(&gpu->tile_moments);
	free(gpu->notes);
}

/* --- The batch ----------------------------------------------------------------------------------- */

/* The pages that a span's rows see: its sinks', then those of all its windows. */
static int tell_span(struct sk_gpu *gpu, const struct sk_batch *batch, const struct sk_span *span)
{
	const struct sk_row *rows = batch->rows + span->row;
	uint64_t first = UINT64_MAX, last = rows[span->n_rows - 1].entry / SK_PAGE_TOKENS;
	uint32_t n_sink = 0;
	for (uint32_t i = 0; i < span->n_rows; i++) {
		first = rows[i].first < first ? rows[i].first : first;
		n_sink = rows[i].n_sink > n_sink ? rows[i].n_sink : n_sink;
	}
	const uint64_t page0 = first / SK_PAGE_TOKENS;
	const uint32_t n_sinks = (n_sink + SK_PAGE_TOKENS - 1) / SK_PAGE_TOKENS,
		       n_window = (uint32_t)(last - page0 + 1);
	int r = reserve_told(gpu, gpu->n_list, gpu->n_table + n_sinks + n_window);
	if (r < 0)
		return r;

	const uint32_t sinks = (uint32_t)gpu->n_table, window = sinks + n_sinks;
	memcpy(told_table(gpu) + sinks, span->sink_pages, n_sinks * sizeof(uint32_t));
	memcpy(told_table(gpu) + window, span->pages + (page0 - span->page0),
	       n_window * sizeof(uint32_t));
	gpu->n_table += n_sinks + n_window;

	for (uint32_t i = 0; i < span->n_rows; i++) {
		const struct sk_row *row = &rows[i];
		const uint64_t from = row->first / SK_PAGE_TOKENS, to = row->entry / SK_PAGE_TOKENS;
		struct sk_gpu_row *told = &told_rows(gpu)[span->row + i];
		*told = (struct sk_gpu_row){
			.place = span->origin + row->entry,
			.sink_place = span->origin + row->n_sink + (row->entry - row->first),
			.pages = window + (uint32_t)(from - page0),
			.n_pages = (uint32_t)(to - from + 1),
			.sinks = sinks,
			.n_sink_pages = (row->n_sink + SK_PAGE_TOKENS - 1) / SK_PAGE_TOKENS,
			.first_slot = (uint32_t)(row->first % SK_PAGE_TOKENS),
			.last_slot = (uint32_t)(row->entry % SK_PAGE_TOKENS),
			.n_sink = row->n_sink,
			.id = row->id,
		};
		const uint32_t n_pages = told->n_sink_pages + told->n_pages;
		gpu->n_most_pages = n_pages > gpu->n_most_pages ? n_pages : gpu->n_most_pages;
	}
	return 0;
}

/* How many warps and blocks share a row's pages. Both change seldom, so that graphs serve for long: a power of two of
 * blocks; one block where there are rows and heads enough to fill the device. */
static int share_pages(struct sk_gpu *gpu, uint32_t n_rows)
{
	const uint32_t blocks = n_rows * blocks_a_row(gpu), n_pages = gpu->n_most_pages;
	struct sk_gpu_sharing *sharing = &gpu->sharing;
	sharing->n_warps =
		n_pages < SK_GPU_SEGMENT_PAGES ? (n_pages + 1) / 2 * 2 : SK_GPU_SEGMENT_PAGES;
	sharing->n_segments = 1;
	while (sharing->n_segments * SK_GPU_SEGMENT_PAGES < n_pages)
		sharing->n_segments *= 2;
	if (blocks >= gpu->n_processors)
		sharing->n_segments = 1;
	sharing->counters = gpu->counters.data;
	if (sharing->n_segments > 1) {
		const size_t bytes = (size_t)blocks * sharing->n_segments * heads_a_block(gpu) *
				     (gpu->cache.padded_dim + 2) * sizeof(float);
		if (bytes > gpu->parts.size_bytes) {
			struct sk_gpu_block parts;
			int r = sk_gpu_block_init(gpu, &parts, bytes);
			if (r < 0)
				return r;
			sk_gpu_drop_graphs(gpu); /* which know the old ones */
			sk_gpu_block_finish(&gpu->parts);
			gpu->parts = parts;
		}
	}
	sharing->parts = gpu->parts.data;
	return 0;
}

int sk_gpu_begin_step(struct sk_backend *backend, const struct sk_batch *batch)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu)
		return -EINVAL;
	gpu->n_list = gpu->n_table = 0;
	gpu->n_notes = gpu->n_run = 0;
	gpu->n_most_pages = 0;
	int r = 0;
	for (uint32_t i = 0; i < batch->n_spans && r == 0; i++)
		r = tell_span(gpu, batch, &batch->spans[i]);
	if (r == 0)
		r = share_pages(gpu, batch->n_rows);
	if (r < 0)
		return r;
	gpu->batch = batch;
	gpu->n_rows = batch->n_rows;
	gpu->step++;
	return 0;
}

/* --- The operations ------------------------------------------------------------------------------ */

static void fault(struct sk_gpu *gpu, int error)
{
	if (gpu->error == 0)
		gpu->error = error;
}

static void note(struct sk_gpu *gpu, struct sk_gpu_note wanted)
{
	if (!gpu->batch || wanted.at + wanted.n_rows > wanted.out->n_rows) {
		fault(gpu, -EINVAL);
		return;
	}
	if (gpu->n_notes == gpu->max_notes) {
		uint32_t n = gpu->max_notes ? 2 * gpu->max_notes : 256;
		struct sk_gpu_note *notes = realloc(gpu->notes, n * sizeof *notes);
		if (!notes) {
			fault(gpu, -ENOMEM);
			return;
		}
		gpu->notes = notes;
		gpu->max_notes = n;
	}
	struct sk_gpu_note *at = &gpu->notes[gpu->n_notes++];
	memset(at, 0, sizeof *at); /* padding too: notes are compared byte by byte */
	at->op = wanted.op;
	at->out = wanted.out;
	at->in = wanted.in;
	at->weights = wanted.weights;
	at->n_rows = wanted.n_rows;
	at->number = wanted.number;
	at->at = wanted.at;
	at->eps = wanted.eps;
	wanted.out->n_written = wanted.at + wanted.n_rows;
}

/* Numbers that an operation brings along, or room for them (NULL): their place in the step's list. */
static bool list(struct sk_gpu *gpu, const void *numbers, uint32_t n, uint32_t *ret_at)
{
	int r = reserve_told(gpu, gpu->n_list + n, gpu->n_table);
	if (r < 0) {
		fault(gpu, r);
		return false;
	}
	*ret_at = (uint32_t)gpu->n_list;
	if (numbers)
		memcpy(told_list(gpu) + gpu->n_list, numbers, n * sizeof(uint32_t));
	else
		memset(told_list(gpu) + gpu->n_list, 0, n * sizeof(uint32_t));
	gpu->n_list += n;
	return true;
}

void sk_gpu_embed_op(struct sk_backend *backend, struct sk_buffer *out,
		     const struct sk_linear *table)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu)
		return;
	if (out->width != table->n_cols)
		fault(gpu, -EINVAL);
	else
		note(gpu, (struct sk_gpu_note){.op = SK_GPU_EMBED,
					       .out = out,
					       .weights = table,
					       .n_rows = gpu->n_rows});
}

void sk_gpu_norm_op(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *in,
		    const struct sk_norm *norm, float eps, bool subtract_mean)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu)
		return;
	if (out->width != norm->width || in->width != norm->width)
		fault(gpu, -EINVAL);
	else
		note(gpu, (struct sk_gpu_note){.op = SK_GPU_NORM,
					       .out = out,
					       .in = in,
					       .weights = norm,
					       .n_rows = gpu->n_rows,
					       .number = subtract_mean,
					       .eps = eps});
}

static void multiply(struct sk_backend *backend, enum sk_gpu_op op, struct sk_buffer *out,
		     const struct sk_buffer *in, const struct sk_linear *linear)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu)
		return;
	if (in->width != linear->n_cols || out->width != linear->matrix.n_rows)
		fault(gpu, -EINVAL);
	else
		note(gpu, (struct sk_gpu_note){.op = op,
					       .out = out,
					       .in = in,
					       .weights = linear,
					       .n_rows = gpu->n_rows});
}

void sk_gpu_matmul_op(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *in,
		      const struct sk_linear *linear)
{
	multiply(backend, SK_GPU_MATMUL, out, in, linear);
}

void sk_gpu_matmul_add_op(struct sk_backend *backend, struct sk_buffer *x,
			  const struct sk_buffer *in, const struct sk_linear *linear)
{
	multiply(backend, SK_GPU_MATMUL_ADD, x, in, linear);
}

void sk_gpu_append_op(struct sk_backend *backend, struct sk_buffer *q, const struct sk_buffer *qkv,
		      uint32_t layer)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu)
		return;
	const struct sk_backend_shape *shape = &gpu->base.shape;
	if (layer >= shape->n_layers || q->width != 2 * shape->n_heads * shape->head_dim ||
	    qkv->width != (shape->n_heads + 2 * shape->n_kv_heads) * shape->head_dim ||
	    !gpu->cache.pages)
		fault(gpu, -EINVAL);
	else
		note(gpu, (struct sk_gpu_note){.op = SK_GPU_APPEND,
					       .out = q,
					       .in = qkv,
					       .n_rows = gpu->n_rows,
					       .number = layer});
}

void sk_gpu_attend_op(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *q,
		      uint32_t layer)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu)
		return;
	const struct sk_backend_shape *shape = &gpu->base.shape;
	if (layer >= shape->n_layers || out->width != shape->n_heads * shape->head_dim ||
	    q->width != 2 * out->width || !gpu->cache.pages)
		fault(gpu, -EINVAL);
	else
		note(gpu, (struct sk_gpu_note){.op = SK_GPU_ATTEND,
					       .out = out,
					       .in = q,
					       .n_rows = gpu->n_rows,
					       .number = layer});
}

void sk_gpu_activate_op(struct sk_backend *backend, struct sk_buffer *out,
			const struct sk_buffer *in, enum sk_act act)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu)
		return;
	if (in->width != (act == SK_ACT_SWIGLU ? 2 : 1) * out->width)
		fault(gpu, -EINVAL);
	else
		note(gpu, (struct sk_gpu_note){.op = SK_GPU_ACTIVATE,
					       .out = out,
					       .in = in,
					       .n_rows = gpu->n_rows,
					       .number = act});
}

void sk_gpu_gather_op(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *x,
		      const uint32_t *rows, uint32_t n_rows)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	uint32_t at;
	if (!gpu)
		return;
	gpu->n_rows = n_rows;
	if (out->width != x->width)
		fault(gpu, -EINVAL);
	else if (list(gpu, rows, n_rows, &at))
		note(gpu, (struct sk_gpu_note){.op = SK_GPU_GATHER,
					       .out = out,
					       .in = x,
					       .n_rows = n_rows,
					       .number = at});
}

void sk_gpu_score_op(struct sk_backend *backend, struct sk_buffer *scores, uint32_t at,
		     const struct sk_buffer *logits, const int32_t *ids)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	uint32_t where;
	if (!gpu)
		return;
	if (scores->width != 1)
		fault(gpu, -EINVAL);
	else if (list(gpu, ids, gpu->n_rows, &where))
		note(gpu, (struct sk_gpu_note){.op = SK_GPU_SCORE,
					       .out = scores,
					       .in = logits,
					       .n_rows = gpu->n_rows,
					       .number = where,
					       .at = at});
}

static struct sk_gpu_draw told_draw(const struct sk_draw *draw)
{
	const float least = ceilf(draw->min_p * (float)(1u << 30));
	return (struct sk_gpu_draw){
		.random = draw->random,
		.scale = draw->temperature == 0 ? 0 : fminf(1 / draw->temperature, 1e30f),
		.top_p = draw->top_p,
		.penalty = draw->repeat_penalty,
		.n_ids = draw->n_ids,
		.top_k = draw->top_k,
		.least = (uint32_t)least,
		.n_recent = draw->repeat_penalty == 1 ? 0 : draw->n_recent,
	};
}

/* The draws stand in the list at a place that is the same in every such step, so that a graph knows it; what they look
 * back at comes behind them. */
void sk_gpu_draw_op(struct sk_backend *backend, struct sk_buffer *out, struct sk_buffer *logits,
		    const struct sk_draw *draws)
{
	const uint32_t words = sizeof(struct sk_gpu_draw) / sizeof(uint32_t);
	struct sk_gpu *gpu = sk_gpu_from(backend);
	uint32_t at;
	if (!gpu)
		return;
	if (out->width != SK_DRAWN_WIDTH) {
		fault(gpu, -EINVAL);
		return;
	}
	gpu->n_list += gpu->n_list % 2; /* a double begins it */
	if (!list(gpu, NULL, words * gpu->n_rows, &at))
		return;
	for (uint32_t i = 0; i < gpu->n_rows; i++) {
		struct sk_gpu_draw told = told_draw(&draws[i]);
		if (draws[i].n_ids > logits->width) {
			fault(gpu, -EINVAL);
			return;
		}
		if (told.n_recent && (!list(gpu, draws[i].recent, told.n_recent, &told.recent) ||
				      !list(gpu, NULL, told.n_recent, &(uint32_t){0})))
			return;
		memcpy(told_list(gpu) + at + i * words, &told, sizeof told);
	}
	note(gpu, (struct sk_gpu_note){.op = SK_GPU_DRAW,
				       .out = out,
				       .in = logits,
				       .n_rows = gpu->n_rows,
				       .number = at});
}
