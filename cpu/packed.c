/* Packing: which format, then panels in parallel, each row through a scratch row of floats or codes. */
#include "cpu/packed.h"

#include "base/cleanup.h"
#include "base/half.h"
#include "cpu/codes.h"
#include "cpu/pool.h"

#include <errno.h>
#include <string.h>

/* The least that holds both: floats over eight bits over four, halves and minima if either has them. */
static enum sk_packing join(enum sk_packing a, enum sk_packing b)
{
	if (a == b)
		return a;
	if (!sk_packing_is_blocks(a) && !sk_packing_is_blocks(b))
		return SK_PACKING_F32;
	if (!sk_packing_is_blocks(a))
		return a;
	if (!sk_packing_is_blocks(b))
		return b;
	bool minima = sk_packing_has_minima(a) || sk_packing_has_minima(b);
	if (sk_packing_is_four_bits(a) && sk_packing_is_four_bits(b))
		return SK_PACKING_Q4M;
	if (sk_packing_has_halves(a) || sk_packing_has_halves(b))
		return minima ? SK_PACKING_Q8HM : SK_PACKING_Q8H;
	return minima ? SK_PACKING_Q8M : SK_PACKING_Q8;
}

static int choose(const struct sk_matrix *matrix, enum sk_weight_format format,
		  enum sk_packing *ret_packing)
{
	enum sk_packing own = sk_codes_packing(matrix->parts[0].tensor->dtype);
	for (uint32_t i = 1; i < matrix->n_parts; i++)
		own = join(own, sk_codes_packing(matrix->parts[i].tensor->dtype));

	switch (format) {
	case SK_WEIGHTS_AUTO:
		*ret_packing = own;
		break;
	case SK_WEIGHTS_F32:
		*ret_packing = SK_PACKING_F32;
		break;
	case SK_WEIGHTS_BF16:
		*ret_packing = SK_PACKING_BF16;
		break;
	case SK_WEIGHTS_Q8: /* what has eight bits or four keeps its codes */
		*ret_packing = sk_packing_is_blocks(own) ? join(own, SK_PACKING_Q8) : SK_PACKING_Q8;
		break;
	case SK_WEIGHTS_Q4:
		*ret_packing = own == SK_PACKING_Q4M ? own : SK_PACKING_Q4;
		break;
	default:
		return -ENOTSUP;
	}
	return *ret_packing < SK_N_PACKINGS ? 0 : -ENOTSUP;
}

static void measure(struct sk_packed *p)
{
	size_t cols = p->n_cols;

	p->n_panels = p->n_rows / SK_PANEL_ROWS + (p->n_rows % SK_PANEL_ROWS != 0);
	switch (p->packing) {
	case SK_PACKING_F32:
		p->panel_bytes = cols * SK_PANEL_ROWS * 4;
		break;
	case SK_PACKING_F16:
	case SK_PACKING_BF16: /* whole pairs, and so whole cache lines */
		p->panel_bytes = (cols + 1) / 2 * SK_PANEL_ROWS * 4;
		break;
	default:
		p->n_blocks = sk_packed_n_blocks(p->n_cols);
		p->panel_bytes = p->n_blocks / 2 * sk_packing_pair_bytes(p->packing);
	}
}

/* Puts row `r` of its panel in place; floats. */
static void put_floats(const struct sk_packed *p, uint8_t *panel, uint32_t r, const float *row)
{
	uint32_t n = p->n_cols;
	uint16_t *halves = (uint16_t *)panel;
	switch (p->packing) {
	case SK_PACKING_F32:
		for (uint32_t c = 0; c < n; c++)
			((float *)panel)[(size_t)c * SK_PANEL_ROWS + r] = row[c];
		break;
	case SK_PACKING_F16:
		for (uint32_t c = 0; c < n; c++)
			halves[(size_t)c * SK_PANEL_ROWS + r] = sk_half_from_float(row[c]);
		break;
	default:
		for (uint32_t c = 0; c < n; c++)
			halves[(size_t)(c / 2 * SK_PANEL_ROWS + r) * 2 + c % 2] =
				sk_bf16_from_float(row[c]);
	}
}

/* Puts row `r` of its panel in place; codes. */
static void put_codes(const struct sk_packed *p, uint8_t *panel, uint32_t r,
		      const struct sk_codes *row)
{
	const enum sk_packing packing = p->packing;
	const bool four = sk_packing_is_four_bits(packing);
	const uint32_t n_blocks = (p->n_cols + SK_BLOCK_COLS - 1) / SK_BLOCK_COLS;
	const uint8_t *codes = row->codes;
	for (uint32_t b = 0; b < n_blocks; b++, codes += SK_BLOCK_COLS) {
		const struct sk_packed_block at = sk_packed_block(
			packing, panel + b / 2 * sk_packing_pair_bytes(packing), b % 2);
		uint32_t words[8];
		memcpy(words, codes, sizeof words);
		for (uint32_t g = 0; g < 8; g += 1 + four) {
			uint32_t word = four ? words[g] | words[g + 1] << 4 : words[g];
			memcpy(at.codes + (four ? g / 2 : g) * 64 + r * 4, &word, 4);
		}
		at.scales[r] = row->scales[b];
		if (sk_packing_has_minima(packing))
			at.minima[r] = row->minima[b];
		for (uint32_t h = 0; h < 2 && sk_packing_has_halves(packing); h++)
			at.factors[h * SK_PANEL_ROWS + r] = row->factors[2 * b + h];
	}
}

struct pack_job {
	const struct sk_packed *packed;
	const struct sk_matrix *matrix;
	uint8_t *scratch;
	size_t scratch_bytes; /* a thread */
	size_t padded_cols;
};

static void pack_panel(void *arg, uint32_t panel_index, uint32_t thread)
{
	const struct pack_job *job = arg;
	const struct sk_packed *p = job->packed;
	uint8_t *panel = (uint8_t *)p->region.data + panel_index * p->panel_bytes;
	float *floats = (float *)(job->scratch + thread * job->scratch_bytes);
	struct sk_codes codes;
	codes.scales = (uint16_t *)(floats + job->padded_cols);
	codes.minima = codes.scales + job->padded_cols / SK_BLOCK_COLS;
	codes.factors = (int8_t *)(codes.minima + job->padded_cols / SK_BLOCK_COLS);
	codes.codes = (uint8_t *)(codes.factors + job->padded_cols / SK_BLOCK_COLS * 2);

	for (uint32_t r = 0; r < SK_PANEL_ROWS; r++) {
		uint32_t row = panel_index * SK_PANEL_ROWS + r;
		if (row >= p->n_rows)
			break; /* the mapping is zero: scale zero, value zero */
		if (sk_packing_is_blocks(p->packing)) {
			enum sk_dtype dtype;
			const void *data = sk_matrix_row(job->matrix, row, &dtype);
			if (!sk_codes_from_file(&codes, p->packing, dtype, data, p->n_cols)) {
				sk_matrix_decode_row(job->matrix, row, floats);
				sk_codes_from_floats(&codes, p->packing, floats, p->n_cols);
			}
			put_codes(p, panel, r, &codes);
		} else {
			sk_matrix_decode_row(job->matrix, row, floats);
			put_floats(p, panel, r, floats);
		}
	}
}

int sk_packed_init(struct sk_packed *packed, const struct sk_matrix *matrix,
		   enum sk_weight_format format, struct sk_cpu_pool *pool)
{
	struct sk_packed p = {.n_rows = matrix->n_rows, .n_cols = matrix->n_cols};
	if (p.n_rows == 0 || p.n_cols == 0 || matrix->n_parts == 0)
		return -EINVAL;
	int r = choose(matrix, format, &p.packing);
	if (r < 0)
		return r;
	measure(&p);

	struct pack_job job = {.packed = &p, .matrix = matrix};
	job.padded_cols = ((size_t)p.n_cols + SK_BLOCK_COLS - 1) / SK_BLOCK_COLS * SK_BLOCK_COLS;
	job.scratch_bytes =
		(job.padded_cols * 5 + job.padded_cols / SK_BLOCK_COLS * 6 + 63) / 64 * 64;
	sk_autofree uint8_t *scratch = calloc(sk_cpu_pool_n_threads(pool), job.scratch_bytes);
	if (!scratch || (size_t)p.n_panels > SIZE_MAX / 2 / p.panel_bytes)
		return -ENOMEM;
	job.scratch = scratch;
	r = sk_region_init(&p.region, p.n_panels * p.panel_bytes);
	if (r < 0)
		return r;
	sk_cpu_pool_run(pool, p.n_panels, pack_panel, &job);
	*packed = p;
	return 0;
}

void sk_packed_finish(struct sk_packed *packed)
{
	sk_region_finish(&packed->region);
}

uint64_t sk_packed_bytes(const struct sk_packed *packed)
{
	return (uint64_t)packed->n_panels * packed->panel_bytes;
}

static float decode_code(const struct sk_packed *p, uint8_t *panel, uint32_t r, uint32_t c)
{
	const enum sk_packing packing = p->packing;
	uint32_t b = c / SK_BLOCK_COLS, g = c % SK_BLOCK_COLS / 4;
	const struct sk_packed_block at =
		sk_packed_block(packing, panel + b / 2 * sk_packing_pair_bytes(packing), b % 2);
	int code = sk_packing_is_four_bits(packing)
			   ? at.codes[g / 2 * 64 + r * 4 + c % 4] >> g % 2 * 4 & 15
			   : at.codes[g * 64 + r * 4 + c % 4];
	float scale = sk_half_to_float(at.scales[r]);
	if (sk_packing_has_halves(packing))
		scale *= at.factors[g / 4 * SK_PANEL_ROWS + r];
	float value = (float)(code - sk_packing_zero(packing)) * scale;
	return sk_packing_has_minima(packing) ? value + sk_half_to_float(at.minima[r]) : value;
}

void sk_packed_decode_row(const struct sk_packed *p, uint32_t row, float *out)
{
	uint8_t *panel = sk_packed_panel(p, row / SK_PANEL_ROWS);
	const uint16_t *halves = (const uint16_t *)panel;
	uint32_t r = row % SK_PANEL_ROWS;

	for (uint32_t c = 0; c < p->n_cols; c++) {
		size_t i = (size_t)c * SK_PANEL_ROWS + r;
		if (p->packing == SK_PACKING_F32) {
			out[c] = ((const float *)panel)[i];
		} else if (p->packing == SK_PACKING_F16) {
			out[c] = sk_half_to_float(halves[i]);
		} else if (p->packing == SK_PACKING_BF16) {
			out[c] = sk_bf16_to_float(
				halves[(size_t)(c / 2 * SK_PANEL_ROWS + r) * 2 + c % 2]);
		} else {
			out[c] = decode_code(p, panel, r, c);
		}
	}
}
