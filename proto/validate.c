/* What a message must be. The tables of ranges at the top are the protocol's limits;
 * doc/PROTOCOL.md lists them for people.
 */
#include "proto/validate.h"

#include "proto/allocator.h"
#include "proto/inspect.h"
#include "proto/validate_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#define PROTOCOL_VERSION     1
#define LEAST_RING_SLOTS     256 /* as shm/ring.h has it, which is not known here */
#define MOST_NAME_BYTES      64
#define MOST_CLIENT_BYTES    128
#define MOST_STOPS           16
#define MOST_STOP_BYTES      256
#define MOST_TEMPERATURE     100.0
#define LEAST_REPEAT_PENALTY 0.1
#define MOST_REPEAT_PENALTY  10.0
#define MOST_REPEAT_LAST     65536
#define MOST_TOP_K           (1u << 24)

/* --- Unpacking --- */

static int unpack(const ProtobufCMessageDescriptor *type, const struct sk_frame *frame,
		  bool demand_utf8, ProtobufCMessage **ret_message, struct sk_diag *diag)
{
	struct sk_budget budget;
	int r;

	r = sk_inspect(type, frame->message, frame->n_bytes, demand_utf8, diag);
	if (r < 0)
		return r;
	sk_budget_init(&budget, frame->n_bytes);
	ProtobufCMessage *message =
		protobuf_c_message_unpack(type, &budget.allocator, frame->n_bytes, frame->message);
	if (!message && budget.is_spent)
		return sk_diag_fail(diag, ENOMEM, "a %s of %zu bytes wants too much memory",
				    type->short_name, frame->n_bytes);
	if (!message)
		return sk_diag_fail(diag, EBADMSG, "the bytes of %s make no message",
				    type->short_name);
	*ret_message = message;
	return 0;
}

int sk_expect_fds(const struct sk_frame *frame, const char *name, unsigned n_wanted,
		  struct sk_diag *diag)
{
	if (frame->n_fds != n_wanted)
		return sk_diag_fail(diag, EBADMSG,
				    "%s came with %u descriptors beside it, but has %u", name,
				    frame->n_fds, n_wanted);
	return 0;
}

/* In a oneof with bytes, in_memfd says by being there; false would say nothing. */
static int expect_true(int in_memfd, const char *name, struct sk_diag *diag)
{
	if (!in_memfd)
		return sk_diag_fail(diag, EBADMSG, "%s.in_memfd is given, but false", name);
	return 0;
}

static int client_shape(const Sk__ClientMessage *m, const struct sk_frame *frame,
			struct sk_diag *diag)
{
	switch (m->body_case) {
	case SK__CLIENT_MESSAGE__BODY_GENERATE: {
		bool out = m->generate->source_case == SK__GENERATE__SOURCE_IN_MEMFD;
		int r = out ? expect_true(m->generate->in_memfd, "Generate", diag) : 0;
		return r < 0 ? r : sk_expect_fds(frame, "Generate", out, diag);
	}
	case SK__CLIENT_MESSAGE__BODY_EVALUATE: {
		bool out = m->evaluate->source_case == SK__EVALUATE__SOURCE_IN_MEMFD;
		int r = out ? expect_true(m->evaluate->in_memfd, "Evaluate", diag) : 0;
		return r < 0 ? r : sk_expect_fds(frame, "Evaluate", out, diag);
	}
	case SK__CLIENT_MESSAGE__BODY_TOKENIZE: {
		bool out = m->tokenize->source_case == SK__TOKENIZE__SOURCE_IN_MEMFD;
		int r = out ? expect_true(m->tokenize->in_memfd, "Tokenize", diag) : 0;
		return r < 0 ? r : sk_expect_fds(frame, "Tokenize", out, diag);
	}
	case SK__CLIENT_MESSAGE__BODY_DETOKENIZE:
		return sk_expect_fds(frame, "Detokenize", m->detokenize->in_memfd ? 1 : 0, diag);
	case SK__CLIENT_MESSAGE__BODY_SESSION:
		return sk_expect_fds(frame, "SessionRequest", m->session->in_memfd ? 1 : 0, diag);
	case SK__CLIENT_MESSAGE__BODY_HELLO:
	case SK__CLIENT_MESSAGE__BODY_CANCEL:
	case SK__CLIENT_MESSAGE__BODY_STATUS:
	case SK__CLIENT_MESSAGE__BODY_MODEL:
	case SK__CLIENT_MESSAGE__BODY_LIST:
		return sk_expect_fds(frame, "the message", 0, diag);
	default:
		return sk_diag_fail(diag, EBADMSG, "the message of request %u is of no known kind",
				    m->request);
	}
}

int sk_client_message_unpack(const struct sk_frame *frame, Sk__ClientMessage **ret_message,
			     struct sk_diag *diag)
{
	ProtobufCMessage *base = NULL;
	int r = unpack(&sk__client_message__descriptor, frame, true, &base, diag);

	if (r < 0)
		return r;
	Sk__ClientMessage *message = (Sk__ClientMessage *)base;
	r = client_shape(message, frame, diag);
	if (r < 0) {
		sk__client_message__free_unpacked(message, NULL);
		return r;
	}
	*ret_message = message;
	return 0;
}

static int server_shape(const Sk__ServerMessage *m, const struct sk_frame *frame,
			struct sk_diag *diag)
{
	bool of_connection = m->body_case == SK__SERVER_MESSAGE__BODY_WELCOME;

	if (m->body_case != SK__SERVER_MESSAGE__BODY_FAILED && of_connection != (m->request == 0))
		return sk_diag_fail(diag, EBADMSG, "an answer came for request %u", m->request);

	switch (m->body_case) {
	case SK__SERVER_MESSAGE__BODY_WELCOME:
		if (!m->welcome->policy)
			return sk_diag_fail(diag, EBADMSG, "Welcome.policy is missing");
		return sk_expect_fds(frame, "Welcome", 4, diag);
	case SK__SERVER_MESSAGE__BODY_IDS: {
		const Sk__Ids *ids = m->ids;
		if (ids->in_memfd ? ids->n_ids != 0 : ids->n_ids != ids->count)
			return sk_diag_fail(diag, EBADMSG,
					    "Ids.count is %" PRIu64 ", but %zu are in the message",
					    ids->count, ids->n_ids);
		if (ids->count > SIZE_MAX / sizeof(int32_t))
			return sk_diag_fail(diag, EBADMSG, "Ids.count is %" PRIu64, ids->count);
		return sk_expect_fds(frame, "Ids", ids->in_memfd ? 1 : 0, diag);
	}
	case SK__SERVER_MESSAGE__BODY_TEXT: {
		const Sk__Text *text = m->text;
		bool out = text->source_case == SK__TEXT__SOURCE_IN_MEMFD;
		int r = out ? expect_true(text->in_memfd, "Text", diag) : 0;
		if (r < 0)
			return r;
		if (!out && text->text_bytes &&
		    (text->source_case != SK__TEXT__SOURCE_TEXT ||
		     text->text_bytes != text->text.len))
			return sk_diag_fail(diag, EBADMSG,
					    "Text.text_bytes is %" PRIu64 ", not the text's",
					    text->text_bytes);
		return sk_expect_fds(frame, "Text", out, diag);
	}
	case SK__SERVER_MESSAGE__BODY_MODEL:
		if (!m->model->policy)
			return sk_diag_fail(diag, EBADMSG, "Model.policy is missing");
		return sk_expect_fds(frame, "Model", 0, diag);
	case SK__SERVER_MESSAGE__BODY_SESSION:
		return sk_expect_session_answer(m->session, frame, diag);
	case SK__SERVER_MESSAGE__BODY_LISTING:
		return sk_expect_listing(m->listing, frame, diag);
	case SK__SERVER_MESSAGE__BODY_PROGRESS:
	case SK__SERVER_MESSAGE__BODY_FINISHED:
	case SK__SERVER_MESSAGE__BODY_FAILED:
	case SK__SERVER_MESSAGE__BODY_STATUS:
		return sk_expect_fds(frame, "the message", 0, diag);
	default:
		return sk_diag_fail(diag, EBADMSG, "the message for request %u is of no known kind",
				    m->request);
	}
}

int sk_server_message_unpack(const struct sk_frame *frame, Sk__ServerMessage **ret_message,
			     struct sk_diag *diag)
{
	ProtobufCMessage *base = NULL;
	int r = unpack(&sk__server_message__descriptor, frame, false, &base, diag);

	if (r < 0)
		return r;
	Sk__ServerMessage *message = (Sk__ServerMessage *)base;
	r = server_shape(message, frame, diag);
	if (r < 0) {
		sk__server_message__free_unpacked(message, NULL);
		return r;
	}
	*ret_message = message;
	return 0;
}

/* --- Checking --- */

static int check_range(const char *field, double value, double least, double most,
		       struct sk_diag *diag)
{
	if (!(value >= least && value <= most)) /* so that NaN fails */
		return sk_diag_fail(diag, EINVAL, "%s is %g; %g to %g is allowed", field, value,
				    least, most);
	return 0;
}

int sk_check_name(const char *field, const char *name, struct sk_diag *diag)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t n_bytes = strlen(name);

	if (!n_bytes || n_bytes > MOST_NAME_BYTES)
		return sk_diag_fail(diag, EINVAL, "%s has %zu bytes; 1 to %d are allowed", field,
				    n_bytes, MOST_NAME_BYTES);
	size_t n_good = strspn(name, allowed);
	if (n_good < n_bytes)
		return sk_diag_fail(diag, EINVAL,
				    "%s has the byte 0x%02x at %zu; A-Z, a-z, 0-9, '.', '_' and "
				    "'-' are allowed",
				    field, (unsigned)(unsigned char)name[n_good], n_good);
	return 0;
}

/* A text in the message (n_inline bytes) or in a memfd (n_announced bytes), within the prompt's
 * cap. */
static int check_size(const char *field, bool in_memfd, uint64_t n_inline, uint64_t n_announced,
		      uint64_t n_most, struct sk_diag *diag)
{
	if (!in_memfd && n_announced && n_announced != n_inline)
		return sk_diag_fail(diag, EINVAL, "%s is %" PRIu64 "; in the message are %" PRIu64,
				    field, n_announced, n_inline);
	if (in_memfd && n_announced == 0)
		return sk_diag_fail(diag, EINVAL,
				    "%s is 0; with in_memfd 1 to %" PRIu64 " is allowed", field,
				    n_most);
	uint64_t n = in_memfd ? n_announced : n_inline;
	if (n > n_most)
		return sk_diag_fail(diag, EINVAL, "%s is %" PRIu64 "; up to %" PRIu64 " is allowed",
				    field, n, n_most);
	return 0;
}

static int check_hello(const Sk__Hello *hello, const struct sk_limits *limits, struct sk_diag *diag)
{
	uint32_t n = hello->ring_slots;

	if (hello->version != PROTOCOL_VERSION)
		return sk_diag_fail(diag, EINVAL,
				    "Hello.version is %u; %d is spoken here: update the older of "
				    "daemon and client",
				    hello->version, PROTOCOL_VERSION);
	if (n && ((n & (n - 1)) || n < LEAST_RING_SLOTS || n > limits->max_ring_slots))
		return sk_diag_fail(
			diag, EINVAL,
			"Hello.ring_slots is %u; 0 or a power of two from %d to %u is allowed", n,
			LEAST_RING_SLOTS, limits->max_ring_slots);
	if (strlen(hello->client) > MOST_CLIENT_BYTES)
		return sk_diag_fail(diag, EINVAL,
				    "Hello.client has %zu bytes; up to %d are allowed",
				    strlen(hello->client), MOST_CLIENT_BYTES);
	for (const char *p = hello->client; *p; p++) /* it goes into the log */
		if (*p < 0x20 || *p > 0x7e)
			return sk_diag_fail(
				diag, EINVAL,
				"Hello.client has the byte 0x%02x; printable ASCII is allowed",
				(unsigned)(unsigned char)*p);
	return 0;
}

static int check_policy(const Sk__Policy *policy, bool can_recompute,
			const struct sk_limits *limits, struct sk_diag *diag)
{
	uint64_t sink = policy->has_sink_case ? policy->sink : 0;
	uint64_t window = policy->has_window_case ? policy->window : 0;
	uint64_t slack = policy->has_slack_case ? policy->slack : 0;

	bool is_recompute = policy->mode == SK__MODE__MODE_RECOMPUTE;
	if (!protobuf_c_enum_descriptor_get_value(&sk__mode__descriptor, (int)policy->mode) ||
	    (is_recompute && !can_recompute))
		return sk_diag_fail(diag, EINVAL, "Policy.mode is %d; 0 to %d is allowed",
				    (int)policy->mode, can_recompute ? 4 : 3);
	if (policy->mode == SK__MODE__MODE_WINDOW && sink)
		return sk_diag_fail(diag, EINVAL,
				    "Policy.sink is %" PRIu64 "; in window mode only 0 is allowed",
				    sink);
	if (policy->has_window_case && !window)
		return sk_diag_fail(diag, EINVAL, "Policy.window is 0; 1 to %u is allowed",
				    limits->max_window_tokens);
	if (sink + window + slack > limits->max_window_tokens)
		return sk_diag_fail(diag, EINVAL,
				    "Policy.sink + window + slack is %" PRIu64
				    " tokens; up to %u is allowed",
				    sink + window + slack, limits->max_window_tokens);
	return 0;
}

static int check_sampling(const Sk__Sampling *s, struct sk_diag *diag)
{
	const struct {
		const char *field;
		double value, least, most;
	} ranges[] = {
		{"Sampling.temperature", s->temperature, 0, MOST_TEMPERATURE},
		{"Sampling.top_k", s->top_k, 0, MOST_TOP_K},
		{"Sampling.top_p", s->top_p, 0, 1},
		{"Sampling.min_p", s->min_p, 0, 1},
		{"Sampling.repeat_last", s->repeat_last, 0, MOST_REPEAT_LAST},
	};

	for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
		int r = check_range(ranges[i].field, ranges[i].value, ranges[i].least,
				    ranges[i].most, diag);
		if (r < 0)
			return r;
	}
	if (s->repeat_penalty == 0)
		return 0;
	return check_range("Sampling.repeat_penalty (not 0)", s->repeat_penalty,
			   (float)LEAST_REPEAT_PENALTY, MOST_REPEAT_PENALTY, diag);
}

static int check_generate(const Sk__Generate *g, const struct sk_limits *limits,
			  struct sk_diag *diag)
{
	uint64_t n_inline = g->source_case == SK__GENERATE__SOURCE_PROMPT ? g->prompt.len : 0;
	int r;

	r = check_size("Generate.prompt_bytes", g->source_case == SK__GENERATE__SOURCE_IN_MEMFD,
		       n_inline, g->prompt_bytes, limits->max_prompt_bytes, diag);
	if (r < 0)
		return r;
	if (g->endless && g->max_tokens)
		return sk_diag_fail(diag, EINVAL,
				    "Generate.max_tokens is %" PRIu64
				    "; with endless only 0 is allowed",
				    g->max_tokens);
	if (*g->session && (r = sk_check_name("Generate.session", g->session, diag)) < 0)
		return r;
	if (*g->chat && (r = sk_check_name("Generate.chat", g->chat, diag)) < 0)
		return r;
	if (g->system.len && !*g->chat)
		return sk_diag_fail(diag, EINVAL,
				    "Generate.system has %zu bytes; without chat none are allowed",
				    g->system.len);
	if (g->system.len > limits->max_prompt_bytes)
		return sk_diag_fail(diag, EINVAL,
				    "Generate.system has %zu bytes; up to %" PRIu64 " are allowed",
				    g->system.len, limits->max_prompt_bytes);
	if (g->n_stop > MOST_STOPS)
		return sk_diag_fail(diag, EINVAL,
				    "Generate.stop has %zu strings; up to %d are allowed",
				    g->n_stop, MOST_STOPS);
	for (size_t i = 0; i < g->n_stop; i++)
		if (g->stop[i].len == 0 || g->stop[i].len > MOST_STOP_BYTES)
			return sk_diag_fail(diag, EINVAL,
					    "Generate.stop[%zu] has %zu bytes; 1 to %d are allowed",
					    i, g->stop[i].len, MOST_STOP_BYTES);
	if (g->resumed && !*g->session)
		return sk_diag_fail(diag, EINVAL,
				    "Generate.resumed is set; without a session it must not be");
	if (g->resumed && g->resumed->given_tokens && (n_inline || g->prompt_bytes || *g->chat))
		return sk_diag_fail(diag, EINVAL,
				    "Generate.resumed.given_tokens is %" PRIu64
				    "; with a prompt or chat only 0 is allowed",
				    g->resumed->given_tokens);
	if (g->resumed && g->max_tokens && g->resumed->given_tokens >= g->max_tokens)
		return sk_diag_fail(diag, EINVAL,
				    "Generate.resumed.given_tokens is %" PRIu64
				    "; less than max_tokens is allowed",
				    g->resumed->given_tokens);
	if (g->policy && (r = check_policy(g->policy, false, limits, diag)) < 0)
		return r;
	return g->sampling ? check_sampling(g->sampling, diag) : 0;
}

static int check_evaluate(const Sk__Evaluate *e, const struct sk_limits *limits,
			  struct sk_diag *diag)
{
	int r = check_size("Evaluate.text_bytes", e->source_case == SK__EVALUATE__SOURCE_IN_MEMFD,
			   e->source_case == SK__EVALUATE__SOURCE_TEXT ? e->text.len : 0,
			   e->text_bytes, limits->max_prompt_bytes, diag);
	if (r < 0)
		return r;
	if (*e->session && (r = sk_check_name("Evaluate.session", e->session, diag)) < 0)
		return r;
	if (!e->policy)
		return 0;
	if (e->policy->mode == SK__MODE__MODE_RECOMPUTE && e->trace)
		return sk_diag_fail(diag, EINVAL,
				    "Evaluate.trace is set; with Policy.mode 4 (recompute), whose "
				    "steps are no part of a timeline, it must not be");
	if (e->policy->mode == SK__MODE__MODE_RECOMPUTE && *e->session)
		return sk_diag_fail(diag, EINVAL,
				    "Policy.mode is 4 (recompute), which keeps no cache; with a "
				    "session 0 to 3 is allowed");
	return check_policy(e->policy, true, limits, diag);
}

static int check_detokenize(const Sk__Detokenize *d, const struct sk_limits *limits,
			    struct sk_diag *diag)
{
	if (d->in_memfd && d->n_ids)
		return sk_diag_fail(diag, EINVAL,
				    "Detokenize.ids has %zu ids; with in_memfd none are allowed",
				    d->n_ids);
	for (size_t i = 0; i < d->n_ids; i++)
		if (d->ids[i] < 0)
			return sk_diag_fail(diag, EINVAL,
					    "Detokenize.ids[%zu] is %d; 0 and more is allowed", i,
					    d->ids[i]);
	return check_size("Detokenize.count", d->in_memfd, d->n_ids, d->count,
			  limits->max_prompt_bytes / sizeof(int32_t), diag);
}

int sk_client_message_check(const Sk__ClientMessage *m, const struct sk_limits *limits,
			    struct sk_diag *diag)
{
	/* Nothing answers these by number. */
	bool is_unnumbered = m->body_case == SK__CLIENT_MESSAGE__BODY_HELLO ||
			     m->body_case == SK__CLIENT_MESSAGE__BODY_CANCEL;
	if (m->request == 0 && !is_unnumbered)
		return sk_diag_fail(diag, EINVAL, "request is 0; 1 to 4294967295 is allowed");

	switch (m->body_case) {
	case SK__CLIENT_MESSAGE__BODY_HELLO:
		return check_hello(m->hello, limits, diag);
	case SK__CLIENT_MESSAGE__BODY_GENERATE:
		return check_generate(m->generate, limits, diag);
	case SK__CLIENT_MESSAGE__BODY_EVALUATE:
		return check_evaluate(m->evaluate, limits, diag);
	case SK__CLIENT_MESSAGE__BODY_TOKENIZE:
		return check_size("Tokenize.text_bytes",
				  m->tokenize->source_case == SK__TOKENIZE__SOURCE_IN_MEMFD,
				  m->tokenize->source_case == SK__TOKENIZE__SOURCE_TEXT
					  ? m->tokenize->text.len
					  : 0,
				  m->tokenize->text_bytes, limits->max_prompt_bytes, diag);
	case SK__CLIENT_MESSAGE__BODY_DETOKENIZE:
		return check_detokenize(m->detokenize, limits, diag);
	case SK__CLIENT_MESSAGE__BODY_CANCEL:
		if (m->cancel->target == 0)
			return sk_diag_fail(diag, EINVAL,
					    "Cancel.target is 0; 1 to 4294967295 is allowed");
		return 0;
	case SK__CLIENT_MESSAGE__BODY_STATUS:
		if (m->status->profile_ms > 10000)
			return sk_diag_fail(diag, EINVAL,
					    "StatusRequest.profile_ms is %u; 0 to 10000 is allowed",
					    m->status->profile_ms);
		return 0;
	case SK__CLIENT_MESSAGE__BODY_MODEL:
	case SK__CLIENT_MESSAGE__BODY_LIST:
		return 0;
	case SK__CLIENT_MESSAGE__BODY_SESSION:
		return sk_check_session_request(m->session, limits, diag);
	default:
		return sk_diag_fail(diag, EINVAL, "the message of request %u is of no known kind",
				    m->request);
	}
}
