/* From what a step has noted to launches of kernels: one an operation, or fewer where several can be one.
 */
#include "gpu/device.h"

static const struct sk_gpu_row *device_rows(const struct sk_gpu *gpu)
{
	return (const struct sk_gpu_row *)((char *)gpu->told.data + gpu->told_rows);
}

static const uint32_t *device_table(const struct sk_gpu *gpu)
{
	return (const uint32_t *)((char *)gpu->told.data + gpu->told_table);
}

static uint32_t *device_list(const struct sk_gpu *gpu)
{
	return gpu->told.data;
}

static float *floats(const struct sk_buffer *buffer)
{
	return buffer->block.data;
}

static const struct sk_gpu_matrix *matrix_of(const struct sk_gpu_note *product)
{
	return &((const struct sk_linear *)product->weights)->matrix;
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

/* What the library is to read of many rows, and what it is to add to: bias, where there is one. */
static cudaError_t prepare_many(struct sk_gpu *gpu, const struct sk_gpu_note *note, bool add,
				const void **ret_in)
{
	const struct sk_gpu_matrix *m = matrix_of(note);
	const enum sk_gpu_format format = format_for(gpu, m);
	const struct sk_buffer *in = note->in, *out = note->out;
	cudaError_t error = cudaSuccess;

	*ret_in = format == SK_GPU_F32 ? in->block.data : gpu->rounded.data;
	if (format == SK_GPU_F16)
		return sk_gpu_halve(gpu->stream, gpu->rounded.data, gpu->scales.data, floats(in),
				    in->stride, floats(out), out->stride, m->bias, m->n_rows,
				    note->n_rows, add);
	if (format == SK_GPU_BF16)
		error = sk_gpu_round(gpu->stream, gpu->rounded.data, floats(in), in->stride,
				     note->n_rows);
	if (error == cudaSuccess && m->bias)
		error = sk_gpu_bias(gpu->stream, floats(out), out->stride, m->bias, m->n_rows,
				    note->n_rows, add);
	return error;
}

/* The library's part: many rows. Row-major matrices are its transposed ones. */
static cudaError_t multiply_many(struct sk_gpu *gpu, const struct sk_gpu_note *note, bool add)
{
	const struct sk_gpu_matrix *m = matrix_of(note);
	const enum sk_gpu_format format = format_for(gpu, m);
	const void *weights = m->codes, *in;
	cudaError_t error = cudaSuccess;

	if (format != m->format) {
		weights = gpu->decoded.data;
		error = sk_gpu_decode(gpu->stream, m, gpu->decoded.data, format);
	}
	if (error == cudaSuccess)
		error = prepare_many(gpu, note, add, &in);
	if (error != cudaSuccess)
		return error;
	const float one = 1, beta = add || m->bias ? 1 : 0;
	cublasStatus_t status = cublasGemmEx(
		gpu->cublas, CUBLAS_OP_T, CUBLAS_OP_N, (int)m->n_rows, (int)note->n_rows,
		(int)m->n_cols, &one, weights, type_of(format), (int)m->n_cols, in, type_of(format),
		(int)note->in->stride, &beta, floats(note->out), CUDA_R_32F, (int)note->out->stride,
		CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
	if (status != CUBLAS_STATUS_SUCCESS)
		return status == CUBLAS_STATUS_ALLOC_FAILED ? cudaErrorMemoryAllocation
							    : cudaErrorUnknown;
	return format == SK_GPU_F16
		       ? sk_gpu_unscale(gpu->stream, floats(note->out), note->out->stride,
					gpu->scales.data, m->n_rows, note->n_rows)
		       : cudaSuccess;
}

/* Whether our own kernel for few vectors takes a product. */
static bool takes_units(const struct sk_gpu *gpu, const struct sk_gpu_note *note)
{
	const struct sk_gpu_matrix *m = matrix_of(note);
	return note->n_rows <= SK_GPU_MATVEC_ROWS && !gpu->exact &&
	       sk_gpu_chunk_cols(m->format) != 0;
}

static struct sk_gpu_product product_of(const struct sk_gpu_note *note, int activation)
{
	struct sk_gpu_product product = {
		.matrix = *matrix_of(note),
		.out = floats(note->out),
		.in = floats(note->in),
		.out_stride = note->out->stride,
		.in_stride = note->in->stride,
		.activation = activation,
		.add = note->op == SK_GPU_MATMUL_ADD,
	};
	sk_gpu_product_cut(&product);
	return product;
}

static struct sk_gpu_products products_of(const struct sk_gpu *gpu, uint32_t n)
{
	return (struct sk_gpu_products){
		.n = n, .parts = gpu->unit_parts.data, .counters = gpu->unit_counters.data};
}

static cudaError_t multiply(struct sk_gpu *gpu, const struct sk_gpu_note *note, bool add)
{
	const struct sk_gpu_matrix *m = matrix_of(note);
	const uint32_t n = note->n_rows;

	if (takes_units(gpu, note)) {
		struct sk_gpu_products p = products_of(gpu, n);
		p.product[0] = product_of(note, SK_GPU_NO_ACTIVATION);
		return sk_gpu_few(gpu->stream, &p);
	}
	if (n <= SK_GPU_MATVEC_ROWS)
		return sk_gpu_matvec(gpu->stream, m, floats(note->out), note->out->stride,
				     floats(note->in), note->in->stride, n, add);
	return multiply_many(gpu, note, add);
}

/* One norm, or with it another of the same rows, to a place of its own. */
static cudaError_t normalise(struct sk_gpu *gpu, const struct sk_gpu_note *note,
			     const struct sk_gpu_note *second, float *second_out)
{
	const struct sk_norm *norm = note->weights;
	struct sk_gpu_norm norms[2] = {{floats(note->out), norm->weight.data, norm->bias.data}};
	if (second) {
		const struct sk_norm *other = second->weights;
		norms[1] = (struct sk_gpu_norm){second_out, other->weight.data, other->bias.data};
	}
	return sk_gpu_norm(gpu->stream, norms, note->out->stride, floats(note->in),
			   note->in->stride, norm->width, note->n_rows, note->eps,
			   note->number != 0);
}

/* in: queries, or what is to be appended first. */
static cudaError_t attend(struct sk_gpu *gpu, const struct sk_gpu_note *note,
			  const struct sk_buffer *in, bool appends)
{
	return sk_gpu_attend(gpu->stream, &gpu->cache, floats(note->out), note->out->stride,
			     floats(in), in->stride, appends, device_rows(gpu), device_table(gpu),
			     note->number, note->n_rows, &gpu->sharing);
}

/* --- One operation ------------------------------------------------------------------------------------ */

static cudaError_t launch_one(struct sk_gpu *gpu, const struct sk_gpu_note *note)
{
	struct sk_buffer *out = note->out;
	const struct sk_buffer *in = note->in;
	const uint32_t n = note->n_rows;
	const struct sk_linear *table;

	switch (note->op) {
	case SK_GPU_EMBED:
		table = note->weights;
		return sk_gpu_embed(gpu->stream, floats(out), out->stride, &table->matrix,
				    device_rows(gpu), table->n_cols, n);
	case SK_GPU_NORM:
		return normalise(gpu, note, NULL, NULL);
	case SK_GPU_MATMUL:
	case SK_GPU_MATMUL_ADD:
		return multiply(gpu, note, note->op == SK_GPU_MATMUL_ADD);
	case SK_GPU_APPEND:
		return sk_gpu_append(gpu->stream, &gpu->cache, floats(out), out->stride, floats(in),
				     in->stride, device_rows(gpu), device_table(gpu), note->number,
				     n);
	case SK_GPU_ATTEND:
		return attend(gpu, note, in, false);
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
	case SK_GPU_DRAW:
		return sk_gpu_draw_rows(
			gpu->stream, floats(out), out->stride, floats(in), in->stride, in->width,
			(const struct sk_gpu_draw *)(device_list(gpu) + note->number),
			device_list(gpu), n);
	}
	return cudaErrorInvalidValue;
}

/* --- A layer whose attention and MLP read the same residual ------------------------------------------- */

enum { NORM, QKV, APPEND, ATTEND, NORM2, OUT, UP, ACTIVATE, DOWN, N_LAYER };

/* A launch reads both of its products in one format; a model may keep its matrices in several. */
static bool is_one_format(const struct sk_gpu_note *a, const struct sk_gpu_note *b)
{
	return matrix_of(a)->format == matrix_of(b)->format;
}

/* What the MLP writes it writes sooner than one by one, and x is read for longer: each has a buffer of its own. */
static bool has_own_buffers(const struct sk_gpu_note *n)
{
	const struct sk_buffer *all[] = {n[NORM].in,    n[NORM].out,   n[QKV].out,
					 n[APPEND].out, n[ATTEND].out, n[ACTIVATE].out};
	for (int i = 0; i < 6; i++)
		for (int k = 0; k < i; k++)
			if (all[i] == all[k])
				return false;
	return true;
}

/* Whether these notes are such a layer, for few rows: then the MLP's first half does not wait for attention. */
static bool is_parallel_layer(const struct sk_gpu *gpu, const struct sk_gpu_note *n,
			      uint32_t n_notes)
{
	static const enum sk_gpu_op ops[N_LAYER] = {
		[NORM] = SK_GPU_NORM,     [QKV] = SK_GPU_MATMUL,        [APPEND] = SK_GPU_APPEND,
		[ATTEND] = SK_GPU_ATTEND, [NORM2] = SK_GPU_NORM,        [OUT] = SK_GPU_MATMUL_ADD,
		[UP] = SK_GPU_MATMUL,     [ACTIVATE] = SK_GPU_ACTIVATE, [DOWN] = SK_GPU_MATMUL_ADD,
	};
	if (n_notes < N_LAYER)
		return false;
	for (int i = 0; i < N_LAYER; i++)
		if (n[i].op != ops[i] || n[i].n_rows != n->n_rows)
			return false;
	const struct sk_buffer *x = n[NORM].in, *h = n[NORM].out;
	return takes_units(gpu, &n[QKV]) && takes_units(gpu, &n[OUT]) && takes_units(gpu, &n[UP]) &&
	       takes_units(gpu, &n[DOWN]) && is_one_format(&n[QKV], &n[UP]) &&
	       is_one_format(&n[OUT], &n[DOWN]) && n[NORM2].in == x && n[NORM2].out == h &&
	       n[NORM2].eps == n[NORM].eps && n[NORM2].number == n[NORM].number && n[QKV].in == h &&
	       n[APPEND].in == n[QKV].out && n[ATTEND].in == n[APPEND].out &&
	       n[OUT].in == n[ATTEND].out && n[OUT].out == x && n[UP].in == h &&
	       n[ACTIVATE].in == n[UP].out && n[ACTIVATE].number != SK_ACT_SWIGLU &&
	       n[DOWN].in == n[ACTIVATE].out && n[DOWN].out == x && has_own_buffers(n);
}

/* Whether attention can append what it reads: no row sees another's entry, and a key head has one block. */
static bool may_append(const struct sk_gpu *gpu)
{
	const uint32_t n_shared = gpu->cache.n_heads / gpu->cache.n_kv_heads;
	return !gpu->five_launches && gpu->batch->n_spans == gpu->batch->n_rows &&
	       sk_gpu_attend_heads(n_shared, gpu->cache.padded_dim) == n_shared;
}

/* Codes are multiplied in so many instructions that a norm on the way costs more than a launch. */
static bool may_normalise(const struct sk_gpu_note *product)
{
	return sk_gpu_chunk_cols(matrix_of(product)->format) == SK_GPU_COLS;
}

/* Whether the layer behind this one, if there is one, can have the moments of what this one leaves instead of a norm's launch. */
static bool leaves_moments(const struct sk_gpu *gpu, const struct sk_gpu_note *n, uint32_t n_notes)
{
	const struct sk_gpu_note *next = n + N_LAYER;
	return !gpu->five_launches && n_notes > N_LAYER &&
	       is_parallel_layer(gpu, next, n_notes - N_LAYER) && may_normalise(&next[QKV]) &&
	       next[NORM].in == n[NORM].in && next->n_rows == n->n_rows &&
	       next[NORM].in->width == next[NORM].in->stride; /* so wide are a norm's vectors */
}

static void read_norm(struct sk_gpu_product *product, const struct sk_gpu_note *note)
{
	const struct sk_norm *norm = note->weights;
	product->in = floats(note->in);
	product->in_stride = note->in->stride;
	product->norm_weight = norm->weight.data;
	product->norm_bias = norm->bias.data;
}

/* QKV and the MLP's first half, of the norms' inputs where their moments are known. */
static cudaError_t launch_inputs(struct sk_gpu *gpu, const struct sk_gpu_note *n, bool has_moments)
{
	struct sk_gpu_products p = products_of(gpu, n->n_rows);
	p.product[0] = product_of(&n[QKV], SK_GPU_NO_ACTIVATION);
	p.product[1] = product_of(&n[UP], (int)n[ACTIVATE].number);
	p.product[1].in = gpu->second_norm.data;
	p.product[1].out = floats(n[ACTIVATE].out);
	p.product[1].out_stride = n[ACTIVATE].out->stride;
	if (has_moments) {
		p.moments = gpu->moments.data;
		read_norm(&p.product[0], &n[NORM]);
		read_norm(&p.product[1], &n[NORM2]);
		return sk_gpu_few(gpu->stream, &p);
	}
	const cudaError_t error = normalise(gpu, &n[NORM], &n[NORM2], gpu->second_norm.data);
	return error == cudaSuccess ? sk_gpu_few(gpu->stream, &p) : error;
}

static cudaError_t launch_attention(struct sk_gpu *gpu, const struct sk_gpu_note *n)
{
	if (may_append(gpu))
		return attend(gpu, &n[ATTEND], n[APPEND].in, true);
	const cudaError_t error = launch_one(gpu, &n[APPEND]);
	return error == cudaSuccess ? launch_one(gpu, &n[ATTEND]) : error;
}

/* Both output products. next: the layer that reads their moments, or NULL. */
static cudaError_t launch_outputs(struct sk_gpu *gpu, const struct sk_gpu_note *n,
				  const struct sk_gpu_note *next)
{
	struct sk_gpu_products p = products_of(gpu, n->n_rows);
	p.product[0] = product_of(&n[OUT], SK_GPU_NO_ACTIVATION);
	p.product[1] = product_of(&n[DOWN], SK_GPU_NO_ACTIVATION);
	p.together = true;
	if (next) {
		p.ret_moments = gpu->moments.data;
		p.tile_moments = gpu->tile_moments.data;
		p.eps = next[NORM].eps;
		p.subtract_mean = next[NORM].number != 0;
	}
	return sk_gpu_few(gpu->stream, &p);
}

/* Such layers, one behind the other, in three launches each, but for the norm of the first: products, attention, products. What
 * is left out (normalised rows, rotated queries, the MLP's first product) nobody else reads. */
static cudaError_t launch_parallel_layers(struct sk_gpu *gpu, const struct sk_gpu_note *n,
					  uint32_t n_notes, uint32_t *ret_n_taken)
{
	bool has_moments = false, leaves = true;
	for (*ret_n_taken = 0; leaves; n += N_LAYER, *ret_n_taken += N_LAYER) {
		leaves = leaves_moments(gpu, n, n_notes - *ret_n_taken);
		cudaError_t error = launch_inputs(gpu, n, has_moments);
		if (error == cudaSuccess)
			error = launch_attention(gpu, n);
		if (error == cudaSuccess)
			error = launch_outputs(gpu, n, leaves ? n + N_LAYER : NULL);
		if (error != cudaSuccess)
			return error;
		has_moments = leaves;
	}
	return cudaSuccess;
}

cudaError_t sk_gpu_launch(struct sk_gpu *gpu, const struct sk_gpu_note *notes, uint32_t n_notes,
			  uint32_t *ret_n_taken)
{
	*ret_n_taken = 1;
	if (notes->n_rows == 0)
		return cudaSuccess;
	if (is_parallel_layer(gpu, notes, n_notes))
		return launch_parallel_layers(gpu, notes, n_notes, ret_n_taken);
	return launch_one(gpu, notes);
}
