/* The calls of backend/backend.h, each handed to the implementation's table. What can be checked for
 * every device alike is checked here, once. */
#include "backend/impl.h"

#include <errno.h>

int sk_backend_open(const struct sk_backend_kind *kind, const struct sk_backend_options *options,
		    const struct sk_backend_shape *shape, struct sk_backend **ret_backend, struct sk_diag *diag)
{
	if (!shape->n_layers || !shape->n_heads || !shape->n_kv_heads || !shape->head_dim || !shape->max_rows ||
	    shape->n_heads % shape->n_kv_heads || shape->n_rot > shape->head_dim || shape->n_rot % 2)
		return sk_diag_fail(diag, EINVAL, "backend %s: impossible attention shape", kind->name);
	return kind->open(options, shape, ret_backend, diag);
}

void sk_backend_close(struct sk_backend *backend)
{
	if (backend)
		backend->ops->close(backend);
}

void sk_backend_free(struct sk_backend *backend, struct sk_buffer *buffer)
{
	if (buffer)
		backend->ops->free(backend, buffer);
}

uint32_t sk_backend_max_rows(const struct sk_backend *backend)
{
	return backend->shape.max_rows;
}
