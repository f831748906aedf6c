/* What the CUDA backend holds for its caller: activation buffers, packed matrices, norms. */
#include "gpu/device.h"

#include <errno.h>
#include <stdlib.h>

int sk_gpu_block_init(struct sk_gpu *gpu, struct sk_gpu_block *block, size_t size_bytes)
{
	void *data = NULL;
	if (size_bytes == 0)
		size_bytes = 1;
	cudaError_t error = cudaMalloc(&data, size_bytes);
	if (error == cudaSuccess)
		error = cudaMemsetAsync(data, 0, size_bytes, gpu->stream);
	if (error == cudaSuccess)
		error = cudaStreamSynchronize(gpu->stream);
	if (error != cudaSuccess) {
		cudaGetLastError(); /* it is told here, and must not be told again */
		cudaFree(data);
		return sk_gpu_errno(error);
	}
	*block = (struct sk_gpu_block){.data = data, .size_bytes = size_bytes};
	return 0;
}

void sk_gpu_block_finish(struct sk_gpu_block *block)
{
	if (!block->is_part)
		cudaFree(block->data);
	*block = (struct sk_gpu_block){0};
}

static void buffer_destroy(struct sk_buffer *buffer)
{
	sk_list_remove(&buffer->node);
	sk_gpu_block_finish(&buffer->block);
	cudaFreeHost(buffer->host);
	free(buffer);
}

static void linear_destroy(struct sk_linear *linear)
{
	sk_list_remove(&linear->node);
	sk_gpu_block_finish(&linear->codes);
	sk_gpu_block_finish(&linear->scales);
	sk_gpu_block_finish(&linear->bias);
	free(linear);
}

static void norm_destroy(struct sk_norm *norm)
{
	sk_list_remove(&norm->node);
	sk_gpu_block_finish(&norm->weight);
	sk_gpu_block_finish(&norm->bias);
	free(norm);
}

int sk_gpu_alloc(struct sk_backend *backend, uint32_t n_rows, uint32_t width,
		 struct sk_buffer **ret_buffer)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu)
		return -EINVAL;
	if (width > UINT32_MAX - SK_GPU_COLS)
		return -ENOMEM;
	struct sk_buffer *buffer = calloc(1, sizeof *buffer);
	if (!buffer)
		return -ENOMEM;
	buffer->n_rows = n_rows;
	buffer->width = width;
	buffer->stride = sk_gpu_padded(width);
	int r = sk_gpu_block_init(gpu, &buffer->block,
				  (size_t)n_rows * buffer->stride * sizeof(float));
	if (r < 0) {
		free(buffer);
		return r;
	}
	sk_list_append(&gpu->buffers, &buffer->node);
	*ret_buffer = buffer;
	return 0;
}

void sk_gpu_free(struct sk_backend *backend, struct sk_buffer *buffer)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu)
		return;
	sk_gpu_drop_graphs(gpu); /* which know its address */
	buffer_destroy(buffer);
}

/* A vector (n, 1) as floats; an empty block where the model has none. */
static int vector_upload(struct sk_gpu *gpu, const struct sk_matrix *vector, uint32_t n,
			 struct sk_gpu_block *block)
{
	if (!vector || sk_matrix_is_absent(vector))
		return 0;
	if (vector->n_rows != n || vector->n_cols != 1)
		return -EINVAL;
	bool is_filled;
	float *floats = malloc(n * sizeof *floats);
	if (!floats)
		return -ENOMEM;
	int r = sk_gpu_take(gpu, block, n * sizeof *floats, &is_filled);
	for (uint32_t i = 0; r == 0 && !is_filled && i < n; i++)
		sk_matrix_decode_row(vector, i, &floats[i]);
	if (r == 0 && !is_filled)
		r = sk_gpu_errno(cudaMemcpy(block->data, floats, n * sizeof *floats,
					    cudaMemcpyHostToDevice));
	free(floats);
	return r;
}

static int at_least(struct sk_gpu *gpu, struct sk_gpu_block *block, size_t size_bytes)
{
	if (size_bytes <= block->size_bytes)
		return 0;
	sk_gpu_drop_graphs(gpu); /* which know the old one */
	sk_gpu_block_finish(block);
	return sk_gpu_block_init(gpu, block, size_bytes);
}

/* Room for what the library multiplies: this matrix, where it can not be taken as it is, and activations. */
static int reserve_scratch(struct sk_gpu *gpu, const struct sk_gpu_matrix *matrix)
{
	const bool wide = gpu->exact || matrix->format == SK_GPU_F32;
	const size_t element = wide ? 4 : 2;
	const bool as_it_is =
		matrix->format == SK_GPU_F32 ||
		(!wide && (matrix->format == SK_GPU_F16 || matrix->format == SK_GPU_BF16));
	const size_t decoded = as_it_is ? 0 : (size_t)matrix->n_rows * matrix->n_cols * element;
	const size_t rounded =
		wide ? 0 : (size_t)gpu->base.shape.max_rows * matrix->n_cols * element;
	struct {
		struct sk_gpu_block *block;
		size_t bytes;
	} wanted[] = {{&gpu->decoded, decoded},
		      {&gpu->rounded, rounded},
		      {&gpu->scales, gpu->base.shape.max_rows * sizeof(float)}};
	if (gpu->base.shape.max_rows <= SK_GPU_MATVEC_ROWS)
		return 0;
	for (int i = 0; i < 3; i++) {
		int r = at_least(gpu, wanted[i].block, wanted[i].bytes);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Room for the parts of two products that are launched together, of which this may be the larger. */
static int reserve_parts(struct sk_gpu *gpu, const struct sk_gpu_matrix *matrix)
{
	struct sk_gpu_product product = {.matrix = *matrix};
	if (sk_gpu_chunk_cols(matrix->format) == 0)
		return 0;
	sk_gpu_product_cut(&product);
	int r = at_least(gpu, &gpu->unit_parts,
			 2 * sizeof(float) * 128 * (size_t)product.n_tiles * product.n_parts);
	if (r == 0)
		r = at_least(gpu, &gpu->unit_counters,
			     (1 + 2 * (size_t)product.n_tiles) * sizeof(uint32_t));
	if (r == 0)
		r = at_least(gpu, &gpu->tile_moments,
			     SK_GPU_MATVEC_ROWS * product.n_tiles *
				     sizeof(struct sk_gpu_tile_moments));
	return r;
}

int sk_gpu_pack_linear(struct sk_backend *backend, const struct sk_matrix *matrix,
		       const struct sk_matrix *bias, enum sk_weight_format format,
		       struct sk_linear **ret_linear)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu)
		return -EINVAL;
	struct sk_linear *linear = calloc(1, sizeof *linear);
	if (!linear)
		return -ENOMEM;
	sk_list_init(&linear->node);
	int r = vector_upload(gpu, bias, matrix->n_rows, &linear->bias);
	if (r == 0)
		r = sk_gpu_pack(gpu, linear, matrix, format);
	if (r == 0)
		r = reserve_scratch(gpu, &linear->matrix);
	if (r == 0)
		r = reserve_parts(gpu, &linear->matrix);
	if (r < 0) {
		linear_destroy(linear);
		return r;
	}
	linear->matrix.bias = linear->bias.data;
	gpu->weight_bytes +=
		linear->codes.size_bytes + linear->scales.size_bytes + linear->bias.size_bytes;
	sk_list_append(&gpu->linears, &linear->node);
	*ret_linear = linear;
	return 0;
}

int sk_gpu_pack_norm(struct sk_backend *backend, const struct sk_matrix *weight,
		     const struct sk_matrix *bias, struct sk_norm **ret_norm)
{
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (!gpu || sk_matrix_is_absent(weight))
		return -EINVAL;
	struct sk_norm *norm = calloc(1, sizeof *norm);
	if (!norm)
		return -ENOMEM;
	sk_list_init(&norm->node);
	norm->width = weight->n_rows;
	int r = vector_upload(gpu, weight, norm->width, &norm->weight);
	if (r == 0)
		r = vector_upload(gpu, bias, norm->width, &norm->bias);
	if (r == 0)
		r = at_least(gpu, &gpu->second_norm,
			     sizeof(float) * SK_GPU_MATVEC_ROWS * sk_gpu_padded(norm->width));
	if (r < 0) {
		norm_destroy(norm);
		return r;
	}
	gpu->weight_bytes += norm->weight.size_bytes + norm->bias.size_bytes;
	sk_list_append(&gpu->norms, &norm->node);
	*ret_norm = norm;
	return 0;
}

uint64_t sk_gpu_norm_bytes(struct sk_backend *backend, const struct sk_matrix *weight,
			   const struct sk_matrix *bias)
{
	(void)backend;
	return (sk_matrix_is_absent(bias) ? 1 : 2) * sk_piece_bytes(weight->n_rows * sizeof(float));
}

uint64_t sk_gpu_scratch_bytes(const struct sk_backend *backend)
{
	const struct sk_gpu *gpu = sk_gpu_from(backend);
	const struct sk_gpu_block *blocks[] = {
		&gpu->workspace,     &gpu->decoded,     &gpu->rounded,  &gpu->scales,
		&gpu->told,          &gpu->parts,       &gpu->counters, &gpu->unit_parts,
		&gpu->unit_counters, &gpu->second_norm, &gpu->moments,  &gpu->tile_moments,
	};
	uint64_t bytes = 0;
	for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
		bytes += blocks[i]->size_bytes;
	sk_list_for_each (node, &gpu->buffers)
		bytes += sk_container_of(node, struct sk_buffer, node)->block.size_bytes;
	return bytes;
}

void sk_gpu_free_all(struct sk_gpu *gpu)
{
	sk_list_for_each (node, &gpu->buffers)
		buffer_destroy(sk_container_of(node, struct sk_buffer, node));
	sk_list_for_each (node, &gpu->linears)
		linear_destroy(sk_container_of(node, struct sk_linear, node));
	sk_list_for_each (node, &gpu->norms)
		norm_destroy(sk_container_of(node, struct sk_norm, node));
	sk_gpu_shared_finish(&gpu->shared);
	sk_pieces_finish(&gpu->pieces);
	sk_gpu_block_finish(&gpu->decoded);
	sk_gpu_block_finish(&gpu->rounded);
	sk_gpu_block_finish(&gpu->scales);
}
