/* The operations of a step: each cuts its work into chunks for the pool, and waits for them. A call that
 * names a foreign backend, or buffers that do not fit each other, is a fault of the caller: it is
 * kept, and end_step returns it.
 */
#include "cpu/device.h"

#include <errno.h>
#include <string.h>

#define CHUNKS_A_THREAD 8     /* so that the last ones to finish are small */
#define LITTLE          16384 /* floats that are not worth waking anybody for */

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* How many of n things a chunk takes. */
static uint32_t chunk_of(const struct sk_cpu *cpu, uint32_t n)
{
	uint32_t chunks = sk_cpu_pool_n_threads(cpu->pool) * CHUNKS_A_THREAD;
	return n / chunks + (n % chunks != 0);
}

static uint32_t divide_up(uint32_t n, uint32_t by)
{
	return n / by + (n % by != 0);
}

/* A job over rows, one row a call; little work stays on the calling thread. */
struct row_job {
	struct sk_cpu *cpu;
	void (*row)(const struct row_job *job, uint32_t row, uint32_t thread);
	uint32_t n_rows, chunk;
	struct sk_buffer *out;
	const struct sk_buffer *in;
	const struct sk_linear *linear;
	const struct sk_norm *norm;
	const struct sk_cpu_append *append;
	const uint32_t *rows;
	const int32_t *ids;
	const struct sk_draw *draws;
	uint32_t at;
	float eps;
	bool subtract_mean;
};

static void row_chunk(void *arg, uint32_t chunk, uint32_t thread)
{
	const struct row_job *job = arg;
	uint32_t end = least(job->n_rows, (chunk + 1) * job->chunk);
	for (uint32_t row = chunk * job->chunk; row < end; row++)
		job->row(job, row, thread);
}

static void run_rows(struct row_job *job, size_t row_floats)
{
	struct sk_cpu *cpu = job->cpu;
	job->n_rows = cpu->n_rows;
	job->chunk = job->n_rows * row_floats <= LITTLE ? job->n_rows : chunk_of(cpu, job->n_rows);
	if (job->n_rows)
		sk_cpu_pool_run(cpu->pool, divide_up(job->n_rows, job->chunk), row_chunk, job);
}

/* --- Begin and end ------------------------------------------------------------------------------ */

static void angles_row(const struct row_job *job, uint32_t row, uint32_t thread)
{
	(void)thread;
	struct sk_cpu *cpu = job->cpu;
	const struct sk_row *r = &cpu->batch->rows[row];
	float *angles = cpu->angles + (size_t)row * 2 * cpu->base.shape.n_rot;
	const struct sk_span *span = cpu->batch->spans;
	while (row - span->row >= span->n_rows) /* spans are in order and without gaps */
		span++;
	sk_rotary_angles(&cpu->rotary, span->origin + r->entry, angles);
	sk_rotary_angles(&cpu->rotary, span->origin + r->n_sink + (r->entry - r->first),
			 angles + cpu->base.shape.n_rot);
}

int sk_cpu_begin_step(struct sk_backend *backend, const struct sk_batch *batch)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	if (!cpu)
		return -EINVAL;
	const struct sk_backend_shape *shape = &cpu->base.shape;
	uint32_t shared = shape->n_heads / shape->n_kv_heads;
	uint32_t together = shared < SK_ATTEND_QUERIES ? SK_ATTEND_QUERIES / shared : 1;

	cpu->batch = batch;
	cpu->n_rows = batch->n_rows;
	cpu->n_groups = 0;
	for (uint32_t i = 0; i < batch->n_spans; i++) {
		const struct sk_span *span = &batch->spans[i];
		for (uint32_t done = 0; done < span->n_rows; done += together)
			cpu->groups[cpu->n_groups++] = (struct sk_cpu_rows){
				span, span->row + done, least(together, span->n_rows - done)};
		for (uint32_t row = span->row; row < span->row + span->n_rows; row++)
			cpu->row_pages[row] =
				span->pages[batch->rows[row].entry / SK_PAGE_TOKENS - span->page0];
	}
	struct row_job job = {.cpu = cpu, .row = angles_row};
	run_rows(&job, 64 * (size_t)shape->n_rot);
	return 0;
}

int sk_cpu_end_step(struct sk_backend *backend)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	if (!cpu || !cpu->batch)
		return -EINVAL;
	cpu->batch = NULL;
	return 0;
}

/* --- Rows ---------------------------------------------------------------------------------------- */

static void embed_row(const struct row_job *job, uint32_t row, uint32_t thread)
{
	(void)thread;
	sk_packed_decode_row(&job->linear->weights, (uint32_t)job->cpu->batch->rows[row].id,
			     sk_buffer_row(job->out, row));
}

void sk_cpu_embed(struct sk_backend *backend, struct sk_buffer *out, const struct sk_linear *table)
{
	struct row_job job = {
		.cpu = sk_cpu_from(backend), .row = embed_row, .out = out, .linear = table};
	run_rows(&job, out->width);
}

static void norm_row(const struct row_job *job, uint32_t row, uint32_t thread)
{
	(void)thread;
	job->cpu->kernels->norm(sk_buffer_row(job->out, row), sk_buffer_row(job->in, row),
				job->norm->width, sk_cpu_floats(&job->norm->weight),
				sk_cpu_floats(&job->norm->bias), job->eps, job->subtract_mean);
}

void sk_cpu_norm(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *in,
		 const struct sk_norm *norm, float eps, bool subtract_mean)
{
	struct row_job job = {.cpu = sk_cpu_from(backend),
			      .row = norm_row,
			      .out = out,
			      .in = in,
			      .norm = norm,
			      .eps = eps,
			      .subtract_mean = subtract_mean};
	run_rows(&job, norm->width);
}

static void gather_row(const struct row_job *job, uint32_t row, uint32_t thread)
{
	(void)thread;
	memcpy(sk_buffer_row(job->out, row), sk_buffer_row(job->in, job->rows[row]),
	       job->out->width * sizeof(float));
}

void sk_cpu_gather(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *x,
		   const uint32_t *rows, uint32_t n_rows)
{
	struct row_job job = {
		.cpu = sk_cpu_from(backend), .row = gather_row, .out = out, .in = x, .rows = rows};
	job.cpu->n_rows = n_rows;
	run_rows(&job, out->width);
}

static void score_row(const struct row_job *job, uint32_t row, uint32_t thread)
{
	(void)thread;
	*sk_buffer_row(job->out, job->at + row) = job->cpu->kernels->score(
		sk_buffer_row(job->in, row), job->in->width, job->ids[row]);
}

void sk_cpu_score(struct sk_backend *backend, struct sk_buffer *scores, uint32_t at,
		  const struct sk_buffer *logits, const int32_t *ids)
{
	struct row_job job = {.cpu = sk_cpu_from(backend),
			      .row = score_row,
			      .out = scores,
			      .in = logits,
			      .ids = ids,
			      .at = at};
	run_rows(&job, logits->width);
}

int sk_cpu_reserve_draws(struct sk_backend *backend, uint32_t width, uint32_t most_recent)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	if (!cpu)
		return -EINVAL;
	/* Whole cache lines, so that threads do not share any. */
	const size_t n_floats =
		((size_t)width + 31) / 16 * 16 + ((size_t)most_recent + 15) / 16 * 16;
	struct sk_region region;
	int r = sk_region_init(&region,
			       sk_cpu_pool_n_threads(cpu->pool) * n_floats * sizeof(float));
	if (r < 0)
		return r;
	sk_region_finish(&cpu->draws);
	cpu->draws = region;
	cpu->draw_floats = n_floats;
	cpu->draw_width = width;
	cpu->draw_recent = most_recent;
	return 0;
}

static void draw_row(const struct row_job *job, uint32_t row, uint32_t thread)
{
	const struct sk_cpu *cpu = job->cpu;
	const struct sk_draw *draw = &job->draws[row];
	struct sk_drawn drawn = {.id = -1};
	float *room = (float *)cpu->draws.data + thread * cpu->draw_floats,
	      *out = sk_buffer_row(job->out, row);
	const struct sk_cpu_draw scratch = {
		.weights = (uint32_t *)room,
		.before = room + ((size_t)cpu->draw_width + 31) / 16 * 16,
	};
	if (job->in->width <= cpu->draw_width && draw->n_recent <= cpu->draw_recent &&
	    draw->n_ids <= job->in->width)
		cpu->kernels->draw(sk_buffer_row(job->in, row), job->in->width, draw, &scratch,
				   &drawn);
	memcpy(&out[0], &drawn.id, sizeof drawn.id);
	out[1] = drawn.logprob;
}

void sk_cpu_draw_rows(struct sk_backend *backend, struct sk_buffer *out, struct sk_buffer *logits,
		      const struct sk_draw *draws)
{
	struct row_job job = {.cpu = sk_cpu_from(backend),
			      .row = draw_row,
			      .out = out,
			      .in = logits,
			      .draws = draws};
	run_rows(&job, 8 * (size_t)logits->width);
}

/* --- Matrices ------------------------------------------------------------------------------------ */

struct matmul_job {
	void (*run)(const struct sk_cpu_matmul *matmul, uint32_t panel, uint32_t n_panels);
	struct sk_cpu_matmul matmul;
	uint32_t chunk; /* panels */
};

static void matmul_chunk(void *arg, uint32_t chunk, uint32_t thread)
{
	const struct matmul_job *job = arg;
	uint32_t panel = chunk * job->chunk, left = job->matmul.weights->n_panels - panel;
	(void)thread;
	job->run(&job->matmul, panel, least(job->chunk, left));
}

static void quantise_row(const struct row_job *job, uint32_t row, uint32_t thread)
{
	(void)thread;
	const struct sk_packed *weights = &job->linear->weights;
	struct sk_cpu_run *runs = job->cpu->rounded.data;
	job->cpu->kernels->quantise(sk_buffer_row(job->in, row), weights->n_cols, weights->packing,
				    job->cpu->exact,
				    runs + (size_t)row * sk_cpu_n_runs(weights->n_blocks));
}

static void round_row(const struct row_job *job, uint32_t row, uint32_t thread)
{
	(void)thread;
	uint32_t n_cols = job->linear->weights.n_cols, *pairs = job->cpu->rounded.data;
	job->cpu->kernels->round(sk_buffer_row(job->in, row), n_cols,
				 pairs + row * sk_cpu_pair_stride(n_cols));
}

static void matmul(struct sk_cpu *cpu, struct sk_buffer *out, const struct sk_buffer *in,
		   const struct sk_linear *linear, bool add)
{
	const struct sk_packed *weights = &linear->weights;
	const bool pairs =
		weights->packing == SK_PACKING_BF16 && cpu->kernels->round && !cpu->exact;
	if (pairs || sk_packing_is_blocks(weights->packing)) {
		struct row_job rows = {.cpu = cpu,
				       .row = pairs ? round_row : quantise_row,
				       .in = in,
				       .linear = linear};
		run_rows(&rows, weights->n_cols);
	}
	struct matmul_job job = {
		.run = pairs ? cpu->kernels->matmul_pairs : cpu->kernels->matmul[weights->packing],
		.matmul = {.weights = weights,
			   .bias = sk_cpu_floats(&linear->bias),
			   .in = sk_buffer_row(in, 0),
			   .runs = cpu->rounded.data,
			   .pairs = cpu->rounded.data,
			   .out = sk_buffer_row(out, 0),
			   .in_stride = in->width,
			   .out_stride = out->width,
			   .pair_stride = sk_cpu_pair_stride(weights->n_cols),
			   .n_rows = cpu->n_rows,
			   .add = add},
		.chunk = chunk_of(cpu, weights->n_panels),
	};
	sk_cpu_pool_run(cpu->pool, divide_up(weights->n_panels, job.chunk), matmul_chunk, &job);
}

void sk_cpu_matmul(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *in,
		   const struct sk_linear *linear)
{
	matmul(sk_cpu_from(backend), out, in, linear, false);
}

void sk_cpu_matmul_add(struct sk_backend *backend, struct sk_buffer *x, const struct sk_buffer *in,
		       const struct sk_linear *linear)
{
	matmul(sk_cpu_from(backend), x, in, linear, true);
}

/* --- Attention ----------------------------------------------------------------------------------- */

static void append_row(const struct row_job *job, uint32_t row, uint32_t thread)
{
	(void)thread;
	job->cpu->kernels->append(job->append, row);
}

void sk_cpu_append(struct sk_backend *backend, struct sk_buffer *q, const struct sk_buffer *qkv,
		   uint32_t layer)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	struct sk_cpu_append append = {
		.shape = &cpu->base.shape,
		.pages = &cpu->pages,
		.batch = cpu->batch,
		.row_pages = cpu->row_pages,
		.angles = cpu->angles,
		.qkv = sk_buffer_row(qkv, 0),
		.q = sk_buffer_row(q, 0),
		.layer = layer,
	};
	struct row_job job = {.cpu = cpu, .row = append_row, .append = &append};
	run_rows(&job, 3 * (size_t)qkv->width);
}

struct attend_job {
	struct sk_cpu *cpu;
	struct sk_cpu_attend attend;
	uint32_t n_segments; /* of the row that has most */
};

static void attend_chunk(void *arg, uint32_t chunk, uint32_t thread)
{
	const struct attend_job *job = arg;
	uint32_t n_groups = job->cpu->n_groups;
	job->cpu->kernels->attend(&job->attend, &job->cpu->groups[chunk % n_groups],
				  chunk / n_groups, thread);
}

static void segment_chunk(void *arg, uint32_t chunk, uint32_t thread)
{
	const struct attend_job *job = arg;
	uint32_t segment = chunk % job->n_segments, kv_head = chunk / job->n_segments,
		 group = kv_head / job->attend.shape->n_kv_heads;
	const struct sk_cpu_rows *row = &job->cpu->groups[group];
	if (segment < sk_attend_n_segments(&job->attend.batch->rows[row->row]))
		job->cpu->kernels->attend_segment(&job->attend, row, group,
						  kv_head % job->attend.shape->n_kv_heads, segment,
						  thread);
}

/* Few rows and key heads do not share out evenly among the threads: then their segments do. */
static bool in_segments(struct attend_job *job)
{
	const struct sk_cpu *cpu = job->cpu;
	uint32_t n_threads = sk_cpu_pool_n_threads(cpu->pool);
	if (n_threads == 1 || cpu->n_groups != cpu->n_rows ||
	    (uint64_t)cpu->n_groups * cpu->base.shape.n_kv_heads > n_threads * SK_ATTEND_SPLIT)
		return false;
	for (uint32_t i = 0; i < cpu->n_rows; i++) {
		uint32_t n = sk_attend_n_segments(&cpu->batch->rows[i]);
		job->n_segments = n > job->n_segments ? n : job->n_segments;
	}
	return job->n_segments > 1;
}

void sk_cpu_attend(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *q,
		   uint32_t layer)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	const uint32_t n_kv_heads = cpu->base.shape.n_kv_heads;
	struct attend_job job = {
		.cpu = cpu,
		.attend = {.shape = &cpu->base.shape,
			   .pages = &cpu->pages,
			   .batch = cpu->batch,
			   .q = sk_buffer_row(q, 0),
			   .out = sk_buffer_row(out, 0),
			   .layer = layer,
			   .scratch = cpu->attend_scratch,
			   .parts = cpu->attend_parts},
	};
	if (!in_segments(&job)) {
		sk_cpu_pool_run(cpu->pool, cpu->n_groups * n_kv_heads, attend_chunk, &job);
		return;
	}
	sk_cpu_pool_run(cpu->pool, cpu->n_groups * n_kv_heads * job.n_segments, segment_chunk,
			&job);
	for (uint32_t group = 0; group < cpu->n_groups; group++)
		for (uint32_t kv_head = 0; kv_head < n_kv_heads; kv_head++)
			cpu->kernels->attend_join(&job.attend, &cpu->groups[group], group, kv_head);
}

/* --- Activations --------------------------------------------------------------------------------- */

struct activate_job {
	const struct sk_cpu *cpu;
	struct sk_buffer *out;
	const struct sk_buffer *in;
	enum sk_act act;
	uint32_t parts, part; /* a row in `parts` parts of `part` floats */
};

static void activate_chunk(void *arg, uint32_t chunk, uint32_t thread)
{
	const struct activate_job *job = arg;
	uint32_t row = chunk / job->parts, from = chunk % job->parts * job->part,
		 width = job->out->width;
	const float *in = sk_buffer_row(job->in, row) + from;
	(void)thread;
	job->cpu->kernels->activate(sk_buffer_row(job->out, row) + from, in, in + width,
				    least(job->part, width - from), job->act);
}

void sk_cpu_activate(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *in,
		     enum sk_act act)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	struct activate_job job = {.cpu = cpu, .out = out, .in = in, .act = act, .part = 4096};
	job.parts = divide_up(out->width, job.part);
	sk_cpu_pool_run(cpu->pool, cpu->n_rows * job.parts, activate_chunk, &job);
}
