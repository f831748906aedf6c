/* Weights packed for other processes: a backend that holds a model's weights and does nothing else.
 *
 * One thread. The model may be closed afterwards.
 */
#pragma once

#include "backend/backend.h"
#include "model/model.h"

struct sk_holder;

struct sk_holder_options {
	const struct sk_backend_kind *backend;
	struct sk_backend_options backend_options;
	enum sk_weight_format weights;
	/* As in struct sk_engine_options. */
	void (*progress)(void *context, uint64_t n_bytes_done, uint64_t n_bytes_total);
	void *progress_context;
};

/* Opens the backend, packs, exports. Slow. */
int sk_holder_create(const struct sk_model *model, const struct sk_holder_options *options,
		     struct sk_holder **ret_holder, struct sk_diag *diag);
void sk_holder_destroy(struct sk_holder *holder);

const struct sk_shared_weights *sk_holder_weights(const struct sk_holder *holder);
const char *sk_holder_backend_name(const struct sk_holder *holder);
/* Whether they are as they were packed: 0, -EBADMSG (somebody wrote there), -EIO. */
int sk_holder_check(struct sk_holder *holder);
