/* The holder's loop (--hold-weights): tells whoever connects where the weights are, and keeps them there.
 */
#pragma once

#include "daemon/listener.h"
#include "engine/holder.h"

/* Serves until SIGTERM or SIGINT; weights that would go with this process stay until their last user has left, or a
 * second signal. Returns the exit code. All that is passed must outlive it. */
int sk_holder_serve(struct sk_holder *holder, const struct sk_model *model,
		    enum sk_weight_format format, struct sk_listener *listener,
		    struct sk_diag *diag);
