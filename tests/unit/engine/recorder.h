/* A backend that computes nothing, and records where each layer writes each entry and what each row attends to, as the
 * span's page tables resolve it. For test_eviction.c.
 */
#pragma once

#include "backend/impl.h"
#include "sk_test.h"

#include <string.h>

#define N_PAGES     192
#define MOST_LAYERS 4
#define N_TENANTS   4
#define MOST_CHUNK  64
#define MAX_ROWS    (N_TENANTS * MOST_CHUNK)
#define MOST_TOKENS 700 /* of a session */

struct slot {             /* of a page, in one layer */
	uint32_t session; /* 0: nothing, or cleared */
	uint32_t entry;
};

struct seen {
	uint32_t place; /* page * SK_PAGE_TOKENS + slot */
	struct slot holds;
};

struct recorder {
	struct sk_backend base;
	const struct sk_batch *batch;
	struct { /* by span: whose rows they are. The test says so before a step */
		uint32_t session;
		uid_t uid;
	} who[N_TENANTS];
	uint32_t n_copied;               /* pages, since the test set it to 0 */
	uint32_t n_appended, n_attended; /* layers of this step */
	struct slot slots[MOST_LAYERS][N_PAGES * SK_PAGE_TOKENS];
	uid_t writers[MOST_LAYERS][N_PAGES];     /* 0: nobody since it was cleared */
	uint32_t written[MOST_LAYERS][MAX_ROWS]; /* the place of the row's own entry */
	struct seen seen[MOST_LAYERS][MAX_ROWS]
			[MOST_TOKENS]; /* in the order of places in the cache */
	uint32_t n_seen[MOST_LAYERS][MAX_ROWS];
};

static struct recorder recorder;

static struct recorder *recorder_from(struct sk_backend *backend)
{
	assert_ptr_equal(backend, &recorder.base);
	return &recorder;
}

static uint32_t place_in(const uint32_t *pages, uint32_t n_pages, uint64_t page0, uint64_t entry)
{
	uint64_t number = entry / SK_PAGE_TOKENS;
	assert_true(number >= page0 && number - page0 < n_pages);
	uint32_t page = pages[number - page0];
	assert_true(page < N_PAGES);
	return page * SK_PAGE_TOKENS + entry % SK_PAGE_TOKENS;
}

static void record_append(struct sk_backend *backend, struct sk_buffer *q,
			  const struct sk_buffer *qkv, uint32_t layer)
{
	struct recorder *r = recorder_from(backend);
	(void)q, (void)qkv;
	assert_int_equal(layer, r->n_appended);
	assert_int_equal(r->n_attended, r->n_appended++);
	for (uint32_t s = 0; s < r->batch->n_spans; s++) {
		const struct sk_span *span = &r->batch->spans[s];
		for (uint32_t i = span->row; i < span->row + span->n_rows; i++) {
			uint64_t entry = r->batch->rows[i].entry;
			uint32_t place = place_in(span->pages, span->n_pages, span->page0, entry);
			uid_t *writer = &r->writers[layer][place / SK_PAGE_TOKENS];
			if (*writer && *writer != r->who[s].uid)
				fail_msg("a page of another user, not cleared");
			*writer = r->who[s].uid;
			r->slots[layer][place] = (struct slot){r->who[s].session, (uint32_t)entry};
			r->written[layer][i] = place;
		}
	}
}

static void see(struct recorder *r, uint32_t layer, uint32_t row, uint32_t place)
{
	uint32_t n = r->n_seen[layer][row]++;
	assert_true(n < MOST_TOKENS);
	r->seen[layer][row][n] = (struct seen){place, r->slots[layer][place]};
}

static void record_attend(struct sk_backend *backend, struct sk_buffer *out,
			  const struct sk_buffer *q, uint32_t layer)
{
	struct recorder *r = recorder_from(backend);
	(void)out, (void)q;
	assert_int_equal(layer, r->n_attended++);
	assert_int_equal(r->n_attended, r->n_appended);
	for (uint32_t s = 0; s < r->batch->n_spans; s++) {
		const struct sk_span *span = &r->batch->spans[s];
		for (uint32_t i = span->row; i < span->row + span->n_rows; i++) {
			const struct sk_row *row = &r->batch->rows[i];
			r->n_seen[layer][i] = 0;
			for (uint64_t e = 0; e < row->n_sink; e++)
				see(r, layer, i,
				    place_in(span->sink_pages, span->n_sink_pages, 0, e));
			for (uint64_t e = row->first; e <= row->entry; e++)
				see(r, layer, i,
				    place_in(span->pages, span->n_pages, span->page0, e));
		}
	}
}

static int record_begin(struct sk_backend *backend, const struct sk_batch *batch)
{
	struct recorder *r = recorder_from(backend);
	r->batch = batch;
	r->n_appended = r->n_attended = 0;
	return 0;
}

static int record_end(struct sk_backend *backend)
{
	struct recorder *r = recorder_from(backend);
	assert_int_equal(r->n_attended, r->base.shape.n_layers);
	r->batch = NULL;
	return 0;
}

static int record_reserve(struct sk_backend *backend, uint32_t n_pages)
{
	struct recorder *r = recorder_from(backend);
	assert_true(n_pages <= N_PAGES);
	memset(r->slots, 0, sizeof r->slots);
	memset(r->writers, 0, sizeof r->writers);
	return 0;
}

static void record_clear(struct sk_backend *backend, const uint32_t *pages, uint32_t n_pages)
{
	struct recorder *r = recorder_from(backend);
	for (uint32_t i = 0; i < n_pages; i++) {
		for (uint32_t layer = 0; layer < r->base.shape.n_layers; layer++) {
			memset(&r->slots[layer][pages[i] * SK_PAGE_TOKENS], 0,
			       SK_PAGE_TOKENS * sizeof r->slots[layer][0]);
			r->writers[layer][pages[i]] = 0;
		}
	}
}

static void record_copy(struct sk_backend *backend, uint32_t from, uint32_t to)
{
	struct recorder *r = recorder_from(backend);
	r->n_copied++;
	for (uint32_t layer = 0; layer < r->base.shape.n_layers; layer++) {
		memcpy(&r->slots[layer][to * SK_PAGE_TOKENS],
		       &r->slots[layer][from * SK_PAGE_TOKENS],
		       SK_PAGE_TOKENS * sizeof r->slots[layer][0]);
		r->writers[layer][to] = r->writers[layer][from];
	}
}

/* What is computed does not matter here: weights and activations are names without a thing. */
static char nothing;

static int no_alloc(struct sk_backend *b, uint32_t n_rows, uint32_t width, struct sk_buffer **ret)
{
	(void)b, (void)n_rows, (void)width;
	*ret = (struct sk_buffer *)&nothing;
	return 0;
}

static void no_free(struct sk_backend *b, struct sk_buffer *buffer)
{
	(void)b, (void)buffer;
}

static int no_linear(struct sk_backend *b, const struct sk_matrix *m, const struct sk_matrix *bias,
		     enum sk_weight_format format, struct sk_linear **ret)
{
	(void)b, (void)m, (void)bias, (void)format;
	*ret = (struct sk_linear *)&nothing;
	return 0;
}

static int no_norm_weights(struct sk_backend *b, const struct sk_matrix *w,
			   const struct sk_matrix *bias, struct sk_norm **ret)
{
	(void)b, (void)w, (void)bias;
	*ret = (struct sk_norm *)&nothing;
	return 0;
}

static void no_embed(struct sk_backend *b, struct sk_buffer *out, const struct sk_linear *table)
{
	(void)b, (void)out, (void)table;
}

static void no_norm(struct sk_backend *b, struct sk_buffer *out, const struct sk_buffer *in,
		    const struct sk_norm *norm, float eps, bool subtract_mean)
{
	(void)b, (void)out, (void)in, (void)norm, (void)eps, (void)subtract_mean;
}

static void no_matmul(struct sk_backend *b, struct sk_buffer *out, const struct sk_buffer *in,
		      const struct sk_linear *linear)
{
	(void)b, (void)out, (void)in, (void)linear;
}

static void no_activate(struct sk_backend *b, struct sk_buffer *out, const struct sk_buffer *in,
			enum sk_act act)
{
	(void)b, (void)out, (void)in, (void)act;
}

static const struct sk_backend_ops ops = {
	.alloc = no_alloc,
	.free = no_free,
	.pack_linear = no_linear,
	.pack_norm = no_norm_weights,
	.reserve_pages = record_reserve,
	.clear_pages = record_clear,
	.copy_page = record_copy,
	.begin_step = record_begin,
	.end_step = record_end,
	.embed = no_embed,
	.norm = no_norm,
	.matmul = no_matmul,
	.matmul_add = no_matmul,
	.append = record_append,
	.attend = record_attend,
	.activate = no_activate,
};

static int open_recorder(const struct sk_backend_options *options,
			 const struct sk_backend_shape *shape, struct sk_backend **ret_backend,
			 struct sk_diag *diag)
{
	(void)options;
	if (shape->n_layers > MOST_LAYERS)
		return sk_diag_fail(diag, 1, "more layers than are recorded");
	recorder.base = (struct sk_backend){.ops = &ops, .shape = *shape};
	*ret_backend = &recorder.base;
	return 0;
}

static const struct sk_backend_kind recording_backend = {.name = "recorder", .open = open_recorder};
