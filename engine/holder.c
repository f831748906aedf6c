#include "engine/holder.h"

#include "engine/forward.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct sk_holder {
	struct sk_backend *backend;
	struct sk_weights weights;
	struct sk_shared_weights shared;
};

static int export(struct sk_holder *holder, const struct sk_model *model,
		  const struct sk_holder_options *options, struct sk_diag *diag)
{
	uint64_t n_bytes;
	int err = sk_weights_bytes(holder->backend, model, options->weights, &n_bytes, diag);
	if (err < 0)
		return err;
	err = sk_backend_share_weights(holder->backend, n_bytes);
	if (err < 0)
		return sk_diag_fail(diag, -err, "%llu MB of weights to hold for others: %s",
				    (unsigned long long)n_bytes / 1000000,
				    err == -ENOMEM    ? "there is not enough memory"
				    : err == -ENOTSUP ? "this device cannot share memory"
						      : strerror(-err));
	err = sk_weights_init(&holder->weights, holder->backend, model, options->weights,
			      options->progress, options->progress_context, diag);
	if (err < 0)
		return err;
	err = sk_backend_export_weights(holder->backend, &holder->shared);
	return err < 0 ? sk_diag_fail(diag, -err, "the weights cannot be given to others: %s",
				      strerror(-err))
		       : 0;
}

int sk_holder_create(const struct sk_model *model, const struct sk_holder_options *options,
		     struct sk_holder **ret_holder, struct sk_diag *diag)
{
	struct sk_holder *holder = calloc(1, sizeof *holder);
	if (!holder)
		return sk_diag_fail(diag, ENOMEM, "not enough memory");
	holder->shared.fd = -1;
	/* It never runs a step. */
	const struct sk_backend_shape shape =
		sk_forward_shape(sk_model_config(model), SK_KV_F32, 1);
	int err = sk_backend_open(options->backend, &options->backend_options, &shape,
				  &holder->backend, diag);
	if (!err)
		err = export(holder, model, options, diag);
	if (err < 0) {
		sk_holder_destroy(holder);
		return err;
	}
	*ret_holder = holder;
	return 0;
}

void sk_holder_destroy(struct sk_holder *holder)
{
	if (!holder)
		return;
	sk_shared_weights_finish(&holder->shared);
	sk_weights_finish(&holder->weights);
	sk_backend_close(holder->backend);
	free(holder);
}

const struct sk_shared_weights *sk_holder_weights(const struct sk_holder *holder)
{
	return &holder->shared;
}

const char *sk_holder_backend_name(const struct sk_holder *holder)
{
	return sk_backend_name(holder->backend);
}

int sk_holder_check(struct sk_holder *holder)
{
	return sk_backend_check_weights(holder->backend);
}
