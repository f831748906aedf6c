/* The calls of backend/backend.h, each handed to the implementation's table. What can be checked for
 * every device alike is checked here, once. */
#include "backend/impl.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>

bool sk_backend_is_present(const struct sk_backend_kind *kind)
{
	return !kind->is_present || kind->is_present();
}

bool sk_backend_knows_layout(const struct sk_backend_kind *kind, const char *layout)
{
	const size_t n = kind->layout ? strlen(kind->layout) : 0;
	return n && strncmp(layout, kind->layout, n) == 0 && (!layout[n] || layout[n] == ' ');
}

int sk_backend_open(const struct sk_backend_kind *kind, const struct sk_backend_options *options,
		    const struct sk_backend_shape *shape, struct sk_backend **ret_backend,
		    struct sk_diag *diag)
{
	if (!shape->n_layers || !shape->n_heads || !shape->n_kv_heads || !shape->head_dim ||
	    !shape->max_rows || shape->n_heads % shape->n_kv_heads ||
	    shape->n_rot > shape->head_dim || shape->n_rot % 2)
		return sk_diag_fail(diag, EINVAL, "backend %s: impossible attention shape",
				    kind->name);
	return kind->open(options, shape, ret_backend, diag);
}

void sk_backend_close(struct sk_backend *backend)
{
	if (backend)
		backend->ops->close(backend);
}

uint32_t sk_backend_max_rows(const struct sk_backend *backend)
{
	return backend->shape.max_rows;
}

const char *sk_backend_name(const struct sk_backend *backend)
{
	return backend->ops->name(backend);
}

/* --- Memory --- */

int sk_backend_alloc(struct sk_backend *backend, uint32_t n_rows, uint32_t width,
		     struct sk_buffer **ret_buffer)
{
	return backend->ops->alloc(backend, n_rows, width, ret_buffer);
}

void sk_backend_free(struct sk_backend *backend, struct sk_buffer *buffer)
{
	if (buffer)
		backend->ops->free(backend, buffer);
}

int sk_backend_pack_linear(struct sk_backend *backend, const struct sk_matrix *matrix,
			   const struct sk_matrix *bias, enum sk_weight_format format,
			   struct sk_linear **ret_linear)
{
	return backend->ops->pack_linear(backend, matrix, bias, format, ret_linear);
}

int sk_backend_pack_norm(struct sk_backend *backend, const struct sk_matrix *weight,
			 const struct sk_matrix *bias, struct sk_norm **ret_norm)
{
	return backend->ops->pack_norm(backend, weight, bias, ret_norm);
}

int sk_backend_linear_bytes(struct sk_backend *backend, const struct sk_matrix *matrix,
			    const struct sk_matrix *bias, enum sk_weight_format format,
			    uint64_t *ret_n_bytes)
{
	return backend->ops->linear_bytes(backend, matrix, bias, format, ret_n_bytes);
}

uint64_t sk_backend_norm_bytes(struct sk_backend *backend, const struct sk_matrix *weight,
			       const struct sk_matrix *bias)
{
	return backend->ops->norm_bytes(backend, weight, bias);
}

int sk_backend_share_weights(struct sk_backend *backend, uint64_t n_bytes)
{
	return n_bytes ? backend->ops->share_weights(backend, n_bytes) : -EINVAL;
}

int sk_backend_export_weights(struct sk_backend *backend, struct sk_shared_weights *ret_shared)
{
	*ret_shared = (struct sk_shared_weights){.fd = -1};
	return backend->ops->export_weights(backend, ret_shared);
}

int sk_backend_import_weights(struct sk_backend *backend, const struct sk_shared_weights *shared)
{
	return shared->n_bytes ? backend->ops->import_weights(backend, shared) : -EBADMSG;
}

int sk_backend_check_weights(struct sk_backend *backend)
{
	return backend->ops->check_weights ? backend->ops->check_weights(backend) : 0;
}

uint64_t sk_backend_weight_bytes(const struct sk_backend *backend)
{
	return backend->ops->weight_bytes(backend);
}

uint64_t sk_backend_scratch_bytes(const struct sk_backend *backend)
{
	return backend->ops->scratch_bytes(backend);
}

uint64_t sk_backend_page_bytes(const struct sk_backend *backend)
{
	return backend->ops->page_bytes(backend);
}

int sk_backend_reserve_pages(struct sk_backend *backend, uint32_t n_pages)
{
	int r = backend->ops->reserve_pages(backend, n_pages);
	if (r == 0)
		backend->n_pages = n_pages;
	return r;
}

int sk_backend_reserve_pages_in(struct sk_backend *backend, uint32_t n_pages, int fd)
{
	if (!backend->ops->reserve_pages_in)
		return -ENOTSUP;
	int r = backend->ops->reserve_pages_in(backend, n_pages, fd);
	if (r == 0)
		backend->n_pages = n_pages;
	return r;
}

void sk_backend_clear_pages(struct sk_backend *backend, const uint32_t *pages, uint32_t n_pages)
{
	backend->ops->clear_pages(backend, pages, n_pages);
}

void sk_backend_copy_page(struct sk_backend *backend, uint32_t from, uint32_t to)
{
	backend->ops->copy_page(backend, from, to);
}

int sk_backend_read_page(struct sk_backend *backend, uint32_t page, void *bytes)
{
	return backend->ops->read_page(backend, page, bytes);
}

int sk_backend_write_page(struct sk_backend *backend, uint32_t page, const void *bytes)
{
	return backend->ops->write_page(backend, page, bytes);
}

const char *sk_backend_page_layout(const struct sk_backend *backend)
{
	return backend->ops->page_layout(backend);
}

/* --- A step --- */

/* Whether a span keeps the rules of struct sk_row and struct sk_span. Its rows lie within the batch. */
static bool span_is_sound(const struct sk_backend *backend, const struct sk_span *span,
			  const struct sk_row *rows)
{
	uint64_t first = UINT64_MAX, last = rows[0].entry + (span->n_rows - 1);
	uint32_t n_sink = 0;

	if (last < rows[0].entry || last > UINT64_MAX - 1)
		return false;
	for (uint32_t i = 0; i < span->n_rows; i++) {
		const struct sk_row *row = &rows[i];
		if (row->entry != rows[0].entry + i || row->first > row->entry ||
		    row->n_sink > row->first)
			return false;
		first = row->first < first ? row->first : first;
		n_sink = row->n_sink > n_sink ? row->n_sink : n_sink;
	}

	uint32_t n_sink_pages = n_sink / SK_PAGE_TOKENS + (n_sink % SK_PAGE_TOKENS != 0);
	if (n_sink_pages > span->n_sink_pages)
		return false;
	for (uint32_t i = 0; i < n_sink_pages; i++)
		if (span->sink_pages[i] >= backend->n_pages)
			return false;

	/* Entries ascend by one, so what the rows see together is all of [first, last]. */
	uint64_t page = first / SK_PAGE_TOKENS, last_page = last / SK_PAGE_TOKENS;
	if (page < span->page0 || last_page - span->page0 >= span->n_pages)
		return false;
	for (; page <= last_page; page++)
		if (span->pages[page - span->page0] >= backend->n_pages)
			return false;
	return true;
}

int sk_backend_begin_step(struct sk_backend *backend, const struct sk_batch *batch)
{
	uint32_t row = 0;
	if (batch->n_rows == 0 || batch->n_rows > backend->shape.max_rows)
		return -EINVAL;
	for (uint32_t i = 0; i < batch->n_spans; i++) {
		const struct sk_span *span = &batch->spans[i];
		if (span->row != row || span->n_rows == 0 || span->n_rows > batch->n_rows - row ||
		    !span_is_sound(backend, span, batch->rows + row))
			return -EINVAL;
		row += span->n_rows;
	}
	if (row != batch->n_rows)
		return -EINVAL;
	return backend->ops->begin_step(backend, batch);
}

int sk_backend_end_step(struct sk_backend *backend)
{
	return backend->ops->end_step(backend);
}

const char *sk_op_name(enum sk_op op)
{
	static const char *const names[SK_N_OPS] = {
		[SK_OP_EMBED] = "embed",   [SK_OP_NORM] = "norm",     [SK_OP_MATMUL] = "matmul",
		[SK_OP_APPEND] = "append", [SK_OP_ATTEND] = "attend", [SK_OP_ACTIVATE] = "activate",
		[SK_OP_GATHER] = "gather", [SK_OP_SCORE] = "score",   [SK_OP_DRAW] = "draw",
	};
	return names[op];
}

void sk_backend_set_profile(struct sk_backend *backend, struct sk_profile *profile)
{
	backend->profile = profile;
}

static uint64_t begin_op(const struct sk_backend *backend)
{
	return backend->profile ? sk_clock_ns() : 0;
}

static void end_op(struct sk_backend *backend, enum sk_op op, uint64_t begun_ns)
{
	if (!backend->profile)
		return;
	if (backend->ops->wait)
		backend->ops->wait(backend);
	backend->profile->ns[op] += sk_clock_ns() - begun_ns;
}

void sk_backend_embed(struct sk_backend *backend, struct sk_buffer *out,
		      const struct sk_linear *table)
{
	uint64_t begun_ns = begin_op(backend);
	backend->ops->embed(backend, out, table);
	end_op(backend, SK_OP_EMBED, begun_ns);
}

void sk_backend_norm(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *in,
		     const struct sk_norm *norm, float eps, bool subtract_mean)
{
	uint64_t begun_ns = begin_op(backend);
	backend->ops->norm(backend, out, in, norm, eps, subtract_mean);
	end_op(backend, SK_OP_NORM, begun_ns);
}

void sk_backend_matmul(struct sk_backend *backend, struct sk_buffer *out,
		       const struct sk_buffer *in, const struct sk_linear *linear)
{
	uint64_t begun_ns = begin_op(backend);
	backend->ops->matmul(backend, out, in, linear);
	end_op(backend, SK_OP_MATMUL, begun_ns);
}

void sk_backend_matmul_add(struct sk_backend *backend, struct sk_buffer *x,
			   const struct sk_buffer *in, const struct sk_linear *linear)
{
	uint64_t begun_ns = begin_op(backend);
	backend->ops->matmul_add(backend, x, in, linear);
	end_op(backend, SK_OP_MATMUL, begun_ns);
}

void sk_backend_append(struct sk_backend *backend, struct sk_buffer *q, const struct sk_buffer *qkv,
		       uint32_t layer)
{
	uint64_t begun_ns = begin_op(backend);
	backend->ops->append(backend, q, qkv, layer);
	end_op(backend, SK_OP_APPEND, begun_ns);
}

void sk_backend_attend(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *q,
		       uint32_t layer)
{
	uint64_t begun_ns = begin_op(backend);
	backend->ops->attend(backend, out, q, layer);
	end_op(backend, SK_OP_ATTEND, begun_ns);
}

void sk_backend_activate(struct sk_backend *backend, struct sk_buffer *out,
			 const struct sk_buffer *in, enum sk_act act)
{
	uint64_t begun_ns = begin_op(backend);
	backend->ops->activate(backend, out, in, act);
	end_op(backend, SK_OP_ACTIVATE, begun_ns);
}

void sk_backend_gather(struct sk_backend *backend, struct sk_buffer *out, const struct sk_buffer *x,
		       const uint32_t *rows, uint32_t n_rows)
{
	uint64_t begun_ns = begin_op(backend);
	backend->ops->gather(backend, out, x, rows, n_rows);
	end_op(backend, SK_OP_GATHER, begun_ns);
}

void sk_backend_score(struct sk_backend *backend, struct sk_buffer *scores, uint32_t at,
		      const struct sk_buffer *logits, const int32_t *ids)
{
	uint64_t begun_ns = begin_op(backend);
	backend->ops->score(backend, scores, at, logits, ids);
	end_op(backend, SK_OP_SCORE, begun_ns);
}

int sk_backend_reserve_draws(struct sk_backend *backend, uint32_t width, uint32_t most_recent)
{
	return backend->ops->reserve_draws
		       ? backend->ops->reserve_draws(backend, width, most_recent)
		       : 0;
}

void sk_backend_draw(struct sk_backend *backend, struct sk_buffer *out, struct sk_buffer *logits,
		     const struct sk_draw *draws)
{
	uint64_t begun_ns = begin_op(backend);
	backend->ops->draw(backend, out, logits, draws);
	end_op(backend, SK_OP_DRAW, begun_ns);
}

struct sk_drawn sk_backend_drawn(struct sk_backend *backend, const struct sk_buffer *out,
				 uint32_t row)
{
	struct sk_drawn drawn = {.id = -1};
	const float *floats = sk_backend_read(backend, out, row);
	if (floats) {
		memcpy(&drawn.id, &floats[0], sizeof drawn.id);
		drawn.logprob = floats[1];
	}
	return drawn;
}

const float *sk_backend_read(struct sk_backend *backend, const struct sk_buffer *buffer,
			     uint32_t row)
{
	return backend->ops->read(backend, buffer, row);
}

const char *sk_backend_why(const struct sk_backend *backend)
{
	return backend->ops->why ? backend->ops->why(backend) : "";
}
