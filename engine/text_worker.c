#include "engine/text_worker.h"
#include "engine/event.h"
#include "text/chat.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int sk_text_worker_init(struct sk_text_worker *worker, const struct sk_tokenizer *tokenizer,
			struct sk_mailbox *engine, struct sk_mailbox *events)
{
	*worker =
		(struct sk_text_worker){.tokenizer = tokenizer, .engine = engine, .events = events};
	sk_list_init(&worker->waiting);
	return sk_mailbox_init(&worker->inbox);
}

static int fail_unknown_chat(struct sk_request *request, bool is_auto)
{
	char names[256] = "";
	size_t n = 0;

	for (const char *const *name = sk_chat_names(); *name && n < sizeof names; name++)
		n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", *name);
	return is_auto ? sk_diag_fail(&request->diag, EINVAL,
				      "the model has no chat template that streamkv knows; name "
				      "one: %s",
				      names)
		       : sk_diag_fail(&request->diag, EINVAL,
				      "no chat template is called '%s'; there are: auto, %s",
				      request->chat, names);
}

static int encode_chat(const struct sk_tokenizer *tokenizer, struct sk_request *request)
{
	bool is_auto = strcmp(request->chat, "auto") == 0;
	const struct sk_chat_template *chat =
		is_auto ? sk_chat_of(tokenizer) : sk_chat_by_name(request->chat);
	if (!chat)
		return fail_unknown_chat(request, is_auto);

	struct sk_chat_message messages[2];
	size_t n = 0;
	if (request->system)
		messages[n++] = (struct sk_chat_message){"system", request->system,
							 request->n_system_bytes};
	messages[n++] = (struct sk_chat_message){"user", request->input, request->n_input_bytes};
	return sk_chat_encode_unless(&request->is_cancelled, chat, tokenizer, request->chat_place,
				     messages, n, &request->ids);
}

#define CANCELLED "the request was cancelled"

static void encode(const struct sk_tokenizer *tokenizer, struct sk_request *request)
{
	int err = request->chat[0]
			  ? encode_chat(tokenizer, request)
			  : sk_tokenizer_encode_unless(&request->is_cancelled, tokenizer,
						       request->input, request->n_input_bytes,
						       request->encode_flags, &request->ids);
	if (err == -ECANCELED)
		sk_diag_fail(&request->diag, ECANCELED, CANCELLED);
	if (err == -EILSEQ)
		sk_diag_fail(&request->diag, EILSEQ,
			     "the text has bytes that the model's vocabulary has no tokens for: "
			     "control characters, or what is no UTF-8");
	if (err < 0 && !request->diag.text[0])
		sk_diag_fail(&request->diag, -err, "the text could not be tokenised: %s",
			     strerror(-err));
	request->error = err;
	sk_request_release_input(request);
}

static struct sk_event *answer(const struct sk_request *request, enum sk_event_kind kind)
{
	return sk_event_create(kind, request->connection, request->id);
}

static struct sk_event *tokenized(const struct sk_tokenizer *tokenizer, struct sk_request *request)
{
	encode(tokenizer, request);
	struct sk_event *event = answer(request, request->error ? SK_EVENT_FAILED : SK_EVENT_IDS);
	if (!event)
		return NULL;
	if (request->error) {
		event->error = request->error;
		memcpy(event->reason, request->diag.text, sizeof event->reason - 1);
		return event;
	}
	event->payload = request->ids.ids;
	event->n_payload_bytes = request->ids.n_ids * sizeof *request->ids.ids;
	request->ids = (struct sk_ids){0};
	return event;
}

static struct sk_event *failed(const struct sk_request *request, int error, const char *reason)
{
	struct sk_event *event = answer(request, SK_EVENT_FAILED);
	if (!event)
		return NULL;
	event->error = error;
	snprintf(event->reason, sizeof event->reason, "%s", reason);
	return event;
}

static struct sk_event *detokenized(const struct sk_tokenizer *tokenizer,
				    struct sk_request *request)
{
	const uint8_t *input = request->input;
	uint64_t n_ids = request->n_input_bytes / sizeof(int32_t), n_bytes = 0;

	for (uint64_t i = 0; i < n_ids && !sk_is_cancelled(&request->is_cancelled); i++) {
		char reason[80];
		int32_t id;
		memcpy(&id, input + i * sizeof id, sizeof id);
		if (id >= 0 && (uint32_t)id < sk_tokenizer_n_ids(tokenizer))
			continue;
		snprintf(reason, sizeof reason, "%d is no token id: the vocabulary has 0 to %u", id,
			 sk_tokenizer_n_ids(tokenizer) - 1);
		return failed(request, -EINVAL, reason);
	}
	/* Measured, then written: special tokens give their names, as they were read. */
	uint8_t *text = NULL;
	for (int writing = 0; writing < 2; writing++) {
		if (writing) {
			text = malloc(n_bytes + 1);
			if (!text)
				return failed(request, -ENOMEM, "not enough memory for the text");
		}
		n_bytes = 0;
		for (uint64_t i = 0; i < n_ids; i++) {
			if (sk_is_cancelled(&request->is_cancelled)) {
				free(text);
				return failed(request, -ECANCELED, CANCELLED);
			}
			int32_t id;
			size_t n;
			memcpy(&id, input + i * sizeof id, sizeof id);
			const uint8_t *bytes = sk_tokenizer_bytes(tokenizer, id, &n);
			if (writing && n)
				memcpy(text + n_bytes, bytes, n);
			n_bytes += n;
		}
	}
	struct sk_event *event = answer(request, SK_EVENT_TEXT);
	if (!event) {
		free(text);
		return NULL;
	}
	event->payload = text;
	event->n_payload_bytes = n_bytes;
	return event;
}

static void work(struct sk_text_worker *worker, struct sk_request *request)
{
	if (request->kind == SK_REQUEST_GENERATE || request->kind == SK_REQUEST_EVALUATE) {
		encode(worker->tokenizer, request);
		request->mail.kind = SK_MAIL_READY;
		sk_mailbox_post(worker->engine, &request->mail.node);
		return;
	}
	struct sk_event *event = request->kind == SK_REQUEST_TOKENIZE
					 ? tokenized(worker->tokenizer, request)
					 : detokenized(worker->tokenizer, request);
	if (!event) {
		/* Without memory for an answer: the one that was allocated ahead says so. */
		event = sk_event_answer(request, SK_EVENT_FAILED);
		event->error = -ENOMEM;
		strcpy(event->reason, "not enough memory");
	}
	sk_request_release_input(request);
	event->answered = request;
	sk_mailbox_post(worker->events, &event->node);
}

static struct sk_request *request_of(struct sk_list *node)
{
	return sk_container_of(sk_container_of(node, struct sk_mail, node), struct sk_request,
			       mail);
}

/* What a user has had, or NULL without memory: then it counts as one who has just come. */
static struct sk_text_share *share_of(struct sk_text_worker *worker, uid_t uid)
{
	for (uint32_t i = 0; i < worker->n_shares; i++)
		if (worker->shares[i].uid == uid)
			return &worker->shares[i];
	struct sk_text_share *shares =
		realloc(worker->shares, (worker->n_shares + 1) * sizeof *shares);
	if (!shares)
		return NULL;
	worker->shares = shares;
	shares[worker->n_shares] = (struct sk_text_share){.uid = uid};
	return &shares[worker->n_shares++];
}

/* The oldest request of the user who has had least; counted as had. NULL: none waits. */
static struct sk_request *take_next(struct sk_text_worker *worker)
{
	struct sk_request *next = NULL;
	uint64_t least = UINT64_MAX;

	sk_list_for_each (node, &worker->waiting) {
		struct sk_request *request = request_of(node);
		const struct sk_text_share *share = share_of(worker, request->uid);
		uint64_t had =
			share && share->had > worker->had_last ? share->had : worker->had_last;
		if (had < least) {
			least = had;
			next = request;
		}
	}
	if (!next)
		return NULL;
	sk_list_remove(&next->mail.node);
	worker->had_last = least;
	struct sk_text_share *share = share_of(worker, next->uid);
	if (share) /* a request is something too, be it ever so short */
		share->had = least + next->n_input_bytes + 1024;
	return next;
}

static void *worker_main(void *context)
{
	struct sk_text_worker *worker = context;
	struct sk_list letters;

	pthread_setname_np(pthread_self(), "sk-text");
	for (;;) {
		sk_mailbox_take(&worker->inbox, &letters);
		for (struct sk_list *node; (node = sk_list_pop(&letters));)
			sk_list_append(&worker->waiting, node);
		struct sk_request *request = take_next(worker);
		const bool is_stopping = atomic_load(&worker->is_stopping);
		if (!request && is_stopping)
			return NULL;
		if (!request) {
			sk_mailbox_wait(&worker->inbox, -1);
			continue;
		}
		if (is_stopping)
			atomic_store(&request->is_cancelled, true);
		work(worker, request);
	}
}

int sk_text_worker_start(struct sk_text_worker *worker)
{
	int err = pthread_create(&worker->thread, NULL, worker_main, worker);
	worker->is_running = err == 0;
	return -err;
}

void sk_text_worker_stop(struct sk_text_worker *worker)
{
	struct sk_list letters;

	if (worker->is_running) {
		atomic_store(&worker->is_stopping, true);
		sk_mailbox_wake(&worker->inbox);
		pthread_join(worker->thread, NULL);
		worker->is_running = false;
	}
	if (!worker->inbox.letters.next)
		return;
	sk_mailbox_take(&worker->inbox, &letters);
	for (struct sk_list *node; (node = sk_list_pop(&letters));) {
		struct sk_request *request = request_of(node);
		atomic_store(&request->is_cancelled, true);
		work(worker, request);
	}
}

void sk_text_worker_finish(struct sk_text_worker *worker)
{
	sk_text_worker_stop(worker);
	free(worker->shares);
	worker->shares = NULL;
	sk_mailbox_finish(&worker->inbox);
}
