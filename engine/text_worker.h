/* The thread that turns text into ids and back. A prompt of 10 MB takes seconds to tokenise:
 * neither the loop nor running streams wait for that. One request at a time, in order.
 *
 * Any thread may set a request's is_cancelled as long as it knows that the request has not come
 * out yet: so the thread that it comes out to, which frees it. Then its work ends within tens of
 * milliseconds, or is not begun; it comes out with -ECANCELED.
 */
#pragma once

#include "engine/mailbox.h"
#include "engine/request.h"

/* How much of the worker one user has had: bytes of text. */
struct sk_text_share {
	uid_t uid;
	uint64_t had;
};

struct sk_text_worker {
	const struct sk_tokenizer *tokenizer;
	struct sk_mailbox inbox;   /* requests, by mail.node */
	struct sk_mailbox *engine; /* GENERATE and EVALUATE go on there, as SK_MAIL_READY */
	struct sk_mailbox *events; /* TOKENIZE and DETOKENIZE are answered there, the request with
				    * the answer: event.answered */
	/* The thread's: what it has taken from the inbox; users by what they have had, and what he had who was served
	 * last, where those begin who come anew. */
	struct sk_list waiting;
	struct sk_text_share *shares;
	uint32_t n_shares;
	uint64_t had_last;
	pthread_t thread;
	bool is_running;
	atomic_bool is_stopping;
};

int sk_text_worker_init(struct sk_text_worker *worker, const struct sk_tokenizer *tokenizer,
			struct sk_mailbox *engine, struct sk_mailbox *events);
int sk_text_worker_start(struct sk_text_worker *worker);
/* Ends the thread after the request in progress (cancel it first); requests that still wait are sent on to where they
 * were going, unworked, marked cancelled. */
void sk_text_worker_stop(struct sk_text_worker *worker);
void sk_text_worker_finish(struct sk_text_worker *worker);

static inline void sk_text_worker_submit(struct sk_text_worker *worker, struct sk_request *request)
{
	sk_mailbox_post(&worker->inbox, &request->mail.node);
}
