/* What a CPU backend holds for its caller: activation buffers, packed matrices, norms. */
#include "cpu/device.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static void buffer_destroy(struct sk_buffer *buffer)
{
	sk_list_remove(&buffer->node);
	sk_region_finish(&buffer->region);
	free(buffer);
}

static void linear_destroy(struct sk_linear *linear)
{
	sk_list_remove(&linear->node);
	sk_packed_finish(&linear->weights);
	sk_region_finish(&linear->bias);
	free(linear);
}

static void norm_destroy(struct sk_norm *norm)
{
	sk_list_remove(&norm->node);
	sk_region_finish(&norm->weight);
	sk_region_finish(&norm->bias);
	free(norm);
}

int sk_cpu_alloc(struct sk_backend *backend, uint32_t n_rows, uint32_t width,
		 struct sk_buffer **ret_buffer)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	if (!cpu)
		return -EINVAL;
	if (n_rows && width > SIZE_MAX / 8 / n_rows)
		return -ENOMEM;
	struct sk_buffer *buffer = calloc(1, sizeof *buffer);
	if (!buffer)
		return -ENOMEM;
	int r = sk_region_init(&buffer->region, (size_t)n_rows * width * sizeof(float));
	if (r < 0) {
		free(buffer);
		return r;
	}
	buffer->n_rows = n_rows;
	buffer->width = width;
	sk_list_append(&cpu->buffers, &buffer->node);
	*ret_buffer = buffer;
	return 0;
}

void sk_cpu_free(struct sk_backend *backend, struct sk_buffer *buffer)
{
	if (sk_cpu_from(backend))
		buffer_destroy(buffer);
}

/* A vector (n, 1) as floats; an empty region where the model has none. */
static int vector_pack(struct sk_cpu *cpu, const struct sk_matrix *vector, uint32_t n,
		       struct sk_region *region)
{
	bool is_filled;
	if (!vector || sk_matrix_is_absent(vector))
		return 0;
	if (vector->n_rows != n || vector->n_cols != 1)
		return -EINVAL;
	int r = sk_cpu_take(cpu, region, n * sizeof(float), &is_filled);
	for (uint32_t i = 0; r == 0 && !is_filled && i < n; i++)
		sk_matrix_decode_row(vector, i, (float *)region->data + i);
	return r;
}

static int matrix_pack(struct sk_cpu *cpu, const struct sk_matrix *matrix,
		       enum sk_weight_format format, struct sk_packed *packed)
{
	bool is_filled;
	int r = sk_packed_plan(packed, matrix, format);
	if (r == 0)
		r = sk_cpu_take(cpu, &packed->region, sk_packed_bytes(packed), &is_filled);
	return r == 0 && !is_filled ? sk_packed_fill(packed, matrix, cpu->pool) : r;
}

/* Room for max_rows rows of what a linear takes its activations as. */
static int reserve_rounded(struct sk_cpu *cpu, const struct sk_packed *weights)
{
	size_t row = sk_cpu_n_runs(weights->n_blocks) * sizeof(struct sk_cpu_run);
	if (weights->packing == SK_PACKING_BF16)
		row = sk_cpu_pair_stride(weights->n_cols) * sizeof(uint32_t);
	size_t size = cpu->base.shape.max_rows * row;
	if (size <= cpu->rounded.size_bytes)
		return 0;
	struct sk_region region;
	int r = sk_region_init(&region, size);
	if (r < 0)
		return r;
	sk_region_finish(&cpu->rounded);
	cpu->rounded = region;
	return 0;
}

int sk_cpu_pack_linear(struct sk_backend *backend, const struct sk_matrix *matrix,
		       const struct sk_matrix *bias, enum sk_weight_format format,
		       struct sk_linear **ret_linear)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	if (!cpu)
		return -EINVAL;
	struct sk_linear *linear = calloc(1, sizeof *linear);
	if (!linear)
		return -ENOMEM;
	sk_list_init(&linear->node);
	int r = vector_pack(cpu, bias, matrix->n_rows, &linear->bias);
	if (r == 0)
		r = matrix_pack(cpu, matrix, format, &linear->weights);
	if (r == 0)
		r = reserve_rounded(cpu, &linear->weights);
	if (r < 0) {
		linear_destroy(linear);
		return r;
	}
	cpu->weight_bytes += sk_packed_bytes(&linear->weights);
	if (linear->bias.data)
		cpu->weight_bytes += matrix->n_rows * sizeof(float);
	sk_list_append(&cpu->linears, &linear->node);
	*ret_linear = linear;
	return 0;
}

int sk_cpu_pack_norm(struct sk_backend *backend, const struct sk_matrix *weight,
		     const struct sk_matrix *bias, struct sk_norm **ret_norm)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	if (!cpu || sk_matrix_is_absent(weight))
		return -EINVAL;
	struct sk_norm *norm = calloc(1, sizeof *norm);
	if (!norm)
		return -ENOMEM;
	sk_list_init(&norm->node);
	norm->width = weight->n_rows;
	int r = vector_pack(cpu, weight, norm->width, &norm->weight);
	if (r == 0)
		r = vector_pack(cpu, bias, norm->width, &norm->bias);
	if (r < 0) {
		norm_destroy(norm);
		return r;
	}
	cpu->weight_bytes += (norm->bias.data ? 2 : 1) * (uint64_t)norm->width * sizeof(float);
	sk_list_append(&cpu->norms, &norm->node);
	*ret_norm = norm;
	return 0;
}

uint64_t sk_cpu_scratch_bytes(const struct sk_backend *backend)
{
	const struct sk_cpu *cpu = (const struct sk_cpu *)backend;
	uint64_t rows = cpu->base.shape.max_rows;
	uint64_t bytes = cpu->rounded.size_bytes;

	sk_list_for_each (node, &cpu->buffers)
		bytes += sk_container_of(node, struct sk_buffer, node)->region.size_bytes;
	bytes += rows * (sizeof *cpu->groups + sizeof *cpu->row_pages +
			 (2 * (uint64_t)cpu->base.shape.n_rot + 1) * sizeof *cpu->angles);
	bytes += sk_cpu_pool_n_threads(cpu->pool) *
		 (sk_cpu_scratch_floats(cpu) + sk_cpu_parts_floats(cpu)) * sizeof(float);
	return bytes;
}

void sk_cpu_free_all(struct sk_cpu *cpu)
{
	sk_list_for_each (node, &cpu->buffers)
		buffer_destroy(sk_container_of(node, struct sk_buffer, node));
	sk_list_for_each (node, &cpu->linears)
		linear_destroy(sk_container_of(node, struct sk_linear, node));
	sk_list_for_each (node, &cpu->norms)
		norm_destroy(sk_container_of(node, struct sk_norm, node));
	sk_region_finish(&cpu->shared);
	sk_pieces_finish(&cpu->pieces);
	if (cpu->shared_fd >= 0)
		close(cpu->shared_fd);
}
