/* Weights on their way to the device: rows in the layout of gpu/kernels/launch.h, made a few at a time in
 * pinned memory.
 */
#include "gpu/device.h"

#include "backend/codes.h"
#include "base/half.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STAGE_BYTES ((size_t)8 << 20) /* of codes, or one row */

struct packer {
	const struct sk_matrix *matrix;
	enum sk_packing packing;
	enum sk_gpu_format format;
	uint32_t padded;
	size_t code_bytes, scale_bytes; /* a row */
	float *floats;                  /* (padded) */
	struct sk_codes codes;
};

static enum sk_gpu_format format_of(enum sk_packing packing)
{
	static const enum sk_gpu_format formats[SK_N_PACKINGS] = {
		[SK_PACKING_F32] = SK_GPU_F32,   [SK_PACKING_F16] = SK_GPU_F16,
		[SK_PACKING_BF16] = SK_GPU_BF16, [SK_PACKING_Q8] = SK_GPU_Q8,
		[SK_PACKING_Q8M] = SK_GPU_Q8X,   [SK_PACKING_Q8H] = SK_GPU_Q8X,
		[SK_PACKING_Q8HM] = SK_GPU_Q8X,  [SK_PACKING_Q4] = SK_GPU_Q4,
		[SK_PACKING_Q4M] = SK_GPU_Q4M,
	};
	return formats[packing];
}

static void measure(struct packer *p)
{
	const size_t n = p->padded;
	switch (p->format) {
	case SK_GPU_F32:
		p->code_bytes = n * 4;
		break;
	case SK_GPU_F16:
	case SK_GPU_BF16:
		p->code_bytes = n * 2;
		break;
	case SK_GPU_Q8:
		p->code_bytes = n;
		p->scale_bytes = n / 32 * 2;
		break;
	case SK_GPU_Q8X:
		p->code_bytes = n;
		p->scale_bytes = n / 16 * 8;
		break;
	case SK_GPU_Q4:
		p->code_bytes = n / 2;
		p->scale_bytes = n / 32 * 2;
		break;
	case SK_GPU_Q4M:
		p->code_bytes = n / 2;
		p->scale_bytes = n / 32 * 4;
		break;
	case SK_N_GPU_FORMATS:
		break;
	}
}

static void put_floats(const struct packer *p, enum sk_dtype dtype, const void *data,
		       uint8_t *codes)
{
	const uint32_t n = p->matrix->n_cols;
	if (sk_codes_packing(dtype) == p->packing) { /* as it is */
		memcpy(codes, data, sk_dtype_row_bytes(dtype, n));
		return;
	}
	sk_dtype_decode_row(dtype, data, n, p->floats);
	uint16_t *halves = (uint16_t *)codes;
	if (p->format == SK_GPU_F32)
		memcpy(codes, p->floats, n * sizeof(float));
	for (uint32_t i = 0; i < n && p->format == SK_GPU_F16; i++)
		halves[i] = sk_half_from_float(p->floats[i]);
	for (uint32_t i = 0; i < n && p->format == SK_GPU_BF16; i++)
		halves[i] = sk_bf16_from_float(p->floats[i]);
}

/* Scale and minimum for each half of a block, as floats. */
static void put_halves_scales(const struct packer *p, uint32_t block, float *out)
{
	const float scale = sk_half_to_float(p->codes.scales[block]);
	for (int h = 0; h < 2; h++) {
		const float s = sk_packing_has_halves(p->packing)
					? scale * p->codes.factors[2 * block + h]
					: scale;
		const float minimum = sk_packing_has_minima(p->packing)
					      ? sk_half_to_float(p->codes.minima[block])
					      : 0;
		out[2 * h] = s;
		out[2 * h + 1] = minimum;
	}
}

static void put_codes(struct packer *p, enum sk_dtype dtype, const void *data, uint8_t *codes,
		      uint8_t *scales)
{
	const uint32_t n_blocks = p->padded / SK_BLOCK_COLS;
	if (!sk_codes_from_file(&p->codes, p->packing, dtype, data, p->matrix->n_cols)) {
		sk_dtype_decode_row(dtype, data, p->matrix->n_cols, p->floats);
		sk_codes_from_floats(&p->codes, p->packing, p->floats, p->matrix->n_cols);
	}
	for (uint32_t b = 0; b < n_blocks; b++) {
		const uint8_t *from = p->codes.codes + (size_t)b * SK_BLOCK_COLS;
		if (sk_packing_is_four_bits(p->packing))
			for (int i = 0; i < 16; i++)
				codes[b * 16 + i] = (uint8_t)(from[i] | from[i + 16] << 4);
		else
			memcpy(codes + (size_t)b * SK_BLOCK_COLS, from, SK_BLOCK_COLS);
		uint16_t *halves = (uint16_t *)scales;
		if (p->format == SK_GPU_Q8X) {
			put_halves_scales(p, b, (float *)scales + (size_t)b * 4);
		} else if (p->format == SK_GPU_Q4M) {
			halves[2 * b] = p->codes.scales[b];
			halves[2 * b + 1] = p->codes.minima[b];
		} else {
			halves[b] = p->codes.scales[b];
		}
	}
}

static int upload(struct sk_gpu *gpu, struct packer *p, struct sk_linear *linear, uint8_t *stage,
		  uint32_t n_stage)
{
	const size_t row_bytes = p->code_bytes + p->scale_bytes;
	for (uint32_t row = 0, n; row < p->matrix->n_rows; row += n) {
		n = p->matrix->n_rows - row < n_stage ? p->matrix->n_rows - row : n_stage;
		uint8_t *scales = stage + n * p->code_bytes;
		memset(stage, 0, n * row_bytes);
		for (uint32_t i = 0; i < n; i++) {
			enum sk_dtype dtype;
			const void *data = sk_matrix_row(p->matrix, row + i, &dtype);
			if (sk_packing_is_blocks(p->packing))
				put_codes(p, dtype, data, stage + i * p->code_bytes,
					  scales + i * p->scale_bytes);
			else
				put_floats(p, dtype, data, stage + i * p->code_bytes);
		}
		cudaError_t error =
			cudaMemcpyAsync((char *)linear->codes.data + row * p->code_bytes, stage,
					n * p->code_bytes, cudaMemcpyHostToDevice, gpu->stream);
		if (error == cudaSuccess && p->scale_bytes)
			error = cudaMemcpyAsync((char *)linear->scales.data + row * p->scale_bytes,
						scales, n * p->scale_bytes, cudaMemcpyHostToDevice,
						gpu->stream);
		if (error == cudaSuccess)
			error = cudaStreamSynchronize(gpu->stream);
		if (error != cudaSuccess)
			return sk_gpu_errno(error);
	}
	return 0;
}

static int plan(struct packer *p, const struct sk_matrix *matrix, enum sk_weight_format format)
{
	if (matrix->n_rows == 0 || matrix->n_cols == 0 || matrix->n_parts == 0)
		return -EINVAL;
	if (matrix->n_cols > UINT32_MAX - SK_GPU_COLS)
		return -ENOTSUP;
	*p = (struct packer){.matrix = matrix, .padded = sk_gpu_padded(matrix->n_cols)};
	int r = sk_codes_choose(matrix, format, &p->packing);
	if (r < 0)
		return r;
	p->format = format_of(p->packing);
	measure(p);
	return 0;
}

int sk_gpu_linear_bytes(struct sk_backend *backend, const struct sk_matrix *matrix,
			const struct sk_matrix *bias, enum sk_weight_format format,
			uint64_t *ret_n_bytes)
{
	struct packer p;
	int r = plan(&p, matrix, format);
	(void)backend;
	if (r < 0)
		return r;
	*ret_n_bytes = sk_piece_bytes(matrix->n_rows * p.code_bytes);
	if (p.scale_bytes)
		*ret_n_bytes += sk_piece_bytes(matrix->n_rows * p.scale_bytes);
	if (bias && !sk_matrix_is_absent(bias))
		*ret_n_bytes += sk_piece_bytes(matrix->n_rows * sizeof(float));
	return 0;
}

static int fill(struct sk_gpu *gpu, struct packer *p, struct sk_linear *linear)
{
	const size_t row_bytes = p->code_bytes + p->scale_bytes,
		     n_blocks = p->padded / SK_BLOCK_COLS;
	uint32_t n_stage = (uint32_t)(STAGE_BYTES / row_bytes);
	n_stage = n_stage == 0 ? 1 : n_stage > p->matrix->n_rows ? p->matrix->n_rows : n_stage;
	void *stage = NULL;
	uint16_t *room = calloc(n_blocks, SK_BLOCK_COLS + 6);
	p->floats = calloc(p->padded, sizeof *p->floats);
	cudaError_t error = cudaMallocHost(&stage, n_stage * row_bytes);
	int r = error == cudaSuccess ? 0 : sk_gpu_errno(error);
	if (!room || !p->floats)
		r = -ENOMEM;
	if (r == 0) {
		p->codes = (struct sk_codes){.scales = room, .minima = room + n_blocks};
		p->codes.factors = (int8_t *)(room + 2 * n_blocks);
		p->codes.codes = (uint8_t *)(p->codes.factors + 2 * n_blocks);
		r = upload(gpu, p, linear, stage, n_stage);
	}
	cudaFreeHost(stage);
	free(p->floats);
	free(room);
	return r;
}

int sk_gpu_pack(struct sk_gpu *gpu, struct sk_linear *linear, const struct sk_matrix *matrix,
		enum sk_weight_format format)
{
	struct packer p;
	bool is_filled = false;
	int r = plan(&p, matrix, format);
	if (r == 0)
		r = sk_gpu_take(gpu, &linear->codes, matrix->n_rows * p.code_bytes, &is_filled);
	if (r == 0 && p.scale_bytes)
		r = sk_gpu_take(gpu, &linear->scales, matrix->n_rows * p.scale_bytes, &is_filled);
	if (r == 0 && !is_filled)
		r = fill(gpu, &p, linear);
	if (r < 0)
		return r;
	linear->n_cols = matrix->n_cols;
	linear->matrix = (struct sk_gpu_matrix){
		.format = p.format,
		.zero = (float)sk_packing_zero(p.packing),
		.n_rows = matrix->n_rows,
		.n_cols = p.padded,
		.codes = linear->codes.data,
		.scales = linear->scales.data,
	};
	return 0;
}
