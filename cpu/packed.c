/* Packing: which format, then panels in parallel, each row through a scratch row of floats or codes. */
#include "cpu/packed.h"

#include "base/cleanup.h"
#include "base/half.h"
#include "cpu/pool.h"

#include <errno.h>
#include <string.h>

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

/* Of a row on its way: 4 bytes a column, or codes (a byte a column) and what belongs to them. */
static size_t row_bytes(const struct sk_packed *p)
{
	const size_t n_blocks = sk_codes_n_blocks(p->n_cols);
	return n_blocks *
	       (sk_packing_is_blocks(p->packing) ? SK_BLOCK_COLS + 6 : SK_BLOCK_COLS * 4);
}

/* Four bytes of each of a panel's rows, side by side. */
static void put_line(uint8_t *line, const uint8_t *const *rows, size_t at)
{
	for (int r = 0; r < SK_PANEL_ROWS; r++)
		memcpy(line + (size_t)r * 4, rows[r] + at, 4);
}

static void put_halves(uint8_t *line, const uint8_t *const *rows, size_t at)
{
	for (int r = 0; r < SK_PANEL_ROWS; r++)
		memcpy(line + (size_t)r * 2, rows[r] + at, 2);
}

/* Rows of floats of the packing's kind; BF16 in whole pairs. */
static void put_floats(const struct sk_packed *p, uint8_t *panel, const uint8_t *const *rows)
{
	const size_t n = p->n_cols;
	if (p->packing == SK_PACKING_F32)
		for (size_t c = 0; c < n; c++)
			put_line(panel + c * 64, rows, c * 4);
	else if (p->packing == SK_PACKING_F16)
		for (size_t c = 0; c < n; c++)
			put_halves(panel + c * 32, rows, c * 2);
	else
		for (size_t c = 0; c < (n + 1) / 2; c++)
			put_line(panel + c * 64, rows, c * 4);
}

static void put_codes(const struct sk_packed *p, uint8_t *panel, const struct sk_codes *rows)
{
	const enum sk_packing packing = p->packing;
	const bool four = sk_packing_is_four_bits(packing);
	const uint32_t n_blocks = sk_codes_n_blocks(p->n_cols), n_words = four ? 4 : 8;
	const uint8_t *codes[SK_PANEL_ROWS];
	for (uint32_t r = 0; r < SK_PANEL_ROWS; r++)
		codes[r] = rows[r].codes;
	for (uint32_t b = 0; b < n_blocks; b++) {
		const struct sk_packed_block at = sk_packed_block(
			packing, panel + b / 2 * sk_packing_pair_bytes(packing), b % 2);
		for (uint32_t i = 0; i < n_words; i++)
			put_line(at.codes + (size_t)i * 64, codes, ((size_t)b * n_words + i) * 4);
		for (uint32_t r = 0; r < SK_PANEL_ROWS; r++)
			at.scales[r] = rows[r].scales[b];
		for (uint32_t r = 0; r < SK_PANEL_ROWS && sk_packing_has_minima(packing); r++)
			at.minima[r] = rows[r].minima[b];
		for (uint32_t r = 0; r < SK_PANEL_ROWS && sk_packing_has_halves(packing); r++) {
			at.factors[r] = rows[r].factors[2 * b];
			at.factors[SK_PANEL_ROWS + r] = rows[r].factors[2 * b + 1];
		}
	}
}

/* What a thread works in: a row of floats, and a panel's rows as they go into it, 4 bytes a column or codes
 * and all that belongs to them. Rows that the matrix lacks are zeros. */
struct scratch {
	float *floats;
	uint8_t *rows;
	struct sk_codes codes[SK_PANEL_ROWS];
};

struct pack_job {
	const struct sk_packed *packed;
	const struct sk_matrix *matrix;
	struct scratch *scratch; /* a thread */
};

/* A row of floats, where it lies if it needs no change. */
static const uint8_t *row_of_floats(const struct pack_job *job, const struct scratch *scratch,
				    uint32_t row, uint8_t *room)
{
	const struct sk_packed *p = job->packed;
	enum sk_dtype dtype;
	const void *data = sk_matrix_row(job->matrix, row, &dtype);
	if (sk_codes_packing(dtype) == p->packing &&
	    (p->packing != SK_PACKING_BF16 || p->n_cols % 2 == 0))
		return data;
	sk_dtype_decode_row(dtype, data, p->n_cols, scratch->floats);
	uint16_t *halves = (uint16_t *)room;
	if (p->packing == SK_PACKING_F32)
		memcpy(room, scratch->floats, p->n_cols * sizeof(float));
	for (uint32_t c = 0; c < p->n_cols && p->packing == SK_PACKING_F16; c++)
		halves[c] = sk_half_from_float(scratch->floats[c]);
	for (uint32_t c = 0; c < p->n_cols && p->packing == SK_PACKING_BF16; c++)
		halves[c] = sk_bf16_from_float(scratch->floats[c]);
	return room;
}

static void row_of_codes(const struct pack_job *job, const struct scratch *scratch, uint32_t row,
			 const struct sk_codes *codes)
{
	const struct sk_packed *p = job->packed;
	enum sk_dtype dtype;
	const void *data = sk_matrix_row(job->matrix, row, &dtype);
	if (!sk_codes_from_file(codes, p->packing, dtype, data, p->n_cols)) {
		sk_dtype_decode_row(dtype, data, p->n_cols, scratch->floats);
		sk_codes_from_floats(codes, p->packing, scratch->floats, p->n_cols);
	}
	if (sk_packing_is_four_bits(p->packing))
		sk_codes_join_nibbles(codes, p->n_cols);
}

static void pack_panel(void *arg, uint32_t panel_index, uint32_t thread)
{
	const struct pack_job *job = arg;
	const struct sk_packed *p = job->packed;
	const struct scratch *scratch = &job->scratch[thread];
	const uint32_t row0 = panel_index * SK_PANEL_ROWS,
		       n = p->n_rows - row0 < SK_PANEL_ROWS ? p->n_rows - row0 : SK_PANEL_ROWS;
	uint8_t *panel = sk_packed_panel(p, panel_index);

	if (n < SK_PANEL_ROWS)
		memset(scratch->rows, 0, row_bytes(p) * SK_PANEL_ROWS);
	if (sk_packing_is_blocks(p->packing)) {
		for (uint32_t r = 0; r < n; r++)
			row_of_codes(job, scratch, row0 + r, &scratch->codes[r]);
		put_codes(p, panel, scratch->codes);
		return;
	}
	const uint8_t *rows[SK_PANEL_ROWS];
	for (uint32_t r = 0; r < SK_PANEL_ROWS; r++) {
		uint8_t *room = scratch->rows + r * row_bytes(p);
		rows[r] = r < n ? row_of_floats(job, scratch, row0 + r, room) : room;
	}
	put_floats(p, panel, rows);
}

static void scratch_finish(struct scratch *scratch, uint32_t n)
{
	for (uint32_t i = 0; scratch && i < n; i++) {
		free(scratch[i].floats);
		free(scratch[i].rows);
	}
	free(scratch);
}

/* One for each thread, zeroed; NULL: not enough memory. */
static struct scratch *scratch_create(const struct sk_packed *p, uint32_t n)
{
	const size_t n_blocks = sk_codes_n_blocks(p->n_cols), padded = n_blocks * SK_BLOCK_COLS;
	struct scratch *scratch = calloc(n, sizeof *scratch);
	for (uint32_t i = 0; scratch && i < n; i++) {
		scratch[i].floats = calloc(padded, sizeof(float));
		scratch[i].rows = calloc(SK_PANEL_ROWS, row_bytes(p));
		if (!scratch[i].floats || !scratch[i].rows) {
			scratch_finish(scratch, n);
			return NULL;
		}
		for (uint32_t r = 0; r < SK_PANEL_ROWS; r++) {
			struct sk_codes *codes = &scratch[i].codes[r];
			codes->scales = (uint16_t *)(scratch[i].rows + r * row_bytes(p));
			codes->minima = codes->scales + n_blocks;
			codes->factors = (int8_t *)(codes->minima + n_blocks);
			codes->codes = (uint8_t *)(codes->factors + 2 * n_blocks);
		}
	}
	return scratch;
}

int sk_packed_plan(struct sk_packed *packed, const struct sk_matrix *matrix,
		   enum sk_weight_format format)
{
	struct sk_packed p = {.n_rows = matrix->n_rows, .n_cols = matrix->n_cols};
	if (p.n_rows == 0 || p.n_cols == 0 || matrix->n_parts == 0)
		return -EINVAL;
	int r = sk_codes_choose(matrix, format, &p.packing);
	if (r < 0)
		return r;
	measure(&p);
	if ((size_t)p.n_panels > SIZE_MAX / 2 / p.panel_bytes)
		return -ENOMEM;
	*packed = p;
	return 0;
}

int sk_packed_fill(struct sk_packed *packed, const struct sk_matrix *matrix,
		   struct sk_cpu_pool *pool)
{
	const uint32_t n_threads = sk_cpu_pool_n_threads(pool);
	struct pack_job job = {
		.packed = packed, .matrix = matrix, .scratch = scratch_create(packed, n_threads)};
	if (!job.scratch)
		return -ENOMEM;
	sk_cpu_pool_run(pool, packed->n_panels, pack_panel, &job);
	scratch_finish(job.scratch, n_threads);
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
