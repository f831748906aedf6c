/* A peer's bytes, cut anywhere: the frame reader, then both unpackers and the check.
 *
 * Input: a byte that says how the rest is cut, a byte for the number of descriptors, then the
 * stream. However it is cut, the same frames must come out.
 */
#include "driver.h"

#include "proto/validate.h"

#include <stdlib.h>
#include <string.h>

static const struct sk_limits limits = {.max_prompt_bytes = 1 << 20,
					.max_window_tokens = 1 << 16,
					.max_ring_slots = 1 << 16,
					.max_saved_bytes = 1 << 20};

static void demand(int holds)
{
	if (!holds)
		abort();
}

static void unpack(const uint8_t *message, size_t n_bytes, unsigned n_fds)
{
	struct sk_frame frame = {.message = message, .n_bytes = n_bytes, .n_fds = n_fds};
	struct sk_diag diag = {""};
	Sk__ClientMessage *client;
	Sk__ServerMessage *server;

	int r = sk_client_message_unpack(&frame, &client, &diag);
	if (r == 0) {
		demand(client->body_case != SK__CLIENT_MESSAGE__BODY__NOT_SET);
		r = sk_client_message_check(client, &limits, &diag);
		demand(r == 0 || diag.text[0]);
		/* What was accepted can be packed and read again; whether it is accepted again is not asked. */
		size_t n_again = sk__client_message__get_packed_size(client);
		uint8_t *again = malloc(n_again + 1);
		if (again) {
			Sk__ClientMessage *second;
			sk__client_message__pack(client, again);
			struct sk_frame copy = {
				.message = again, .n_bytes = n_again, .n_fds = n_fds};
			if (sk_client_message_unpack(&copy, &second, &diag) == 0)
				sk__client_message__free_unpacked(second, NULL);
			free(again);
		}
		sk__client_message__free_unpacked(client, NULL);
	} else {
		demand(diag.text[0] != 0);
	}
	if (sk_server_message_unpack(&frame, &server, &diag) == 0) {
		demand(server->body_case != SK__SERVER_MESSAGE__BODY__NOT_SET);
		sk__server_message__free_unpacked(server, NULL);
	}
}

/* Frames and their sum, for comparison; `n_step` 0 pushes all at once. */
static uint64_t read_all(const uint8_t *bytes, size_t n_bytes, size_t n_step, int n_fds)
{
	struct sk_frame_reader reader = {0};
	uint64_t sum = 0;
	int fault = 0;

	for (size_t at = 0; at < n_bytes && !fault;) {
		size_t n = n_step && n_step < n_bytes - at ? n_step : n_bytes - at;
		const uint8_t *message;
		size_t n_message;
		int r;
		fault = sk_frame_reader_push(&reader, bytes + at, n);
		demand(reader.n_taken <= reader.n_whole && reader.n_whole <= reader.n_bytes &&
		       reader.n_bytes <= reader.n_allocated);
		while ((r = sk_frame_reader_next(&reader, &message, &n_message)) == 1) {
			demand(n_message > 0 && n_message <= SK_FRAME_MOST_BYTES);
			sum = sum * 31 + n_message;
			for (size_t i = 0; i < n_message; i++)
				sum = sum * 31 + message[i];
			if (n_fds >= 0)
				unpack(message, n_message, (unsigned)n_fds);
		}
		demand(r == 0 || r == fault);
		at += n;
	}
	sk_frame_reader_finish(&reader);
	return fault ? ~sum : sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	if (n_bytes < 2)
		return 0;
	size_t n_step = bytes[0];
	int n_fds = bytes[1] % 5;
	uint64_t sum = read_all(bytes + 2, n_bytes - 2, 0, n_fds);
	demand(sum == read_all(bytes + 2, n_bytes - 2, n_step, -1));
	demand(sum == read_all(bytes + 2, n_bytes - 2, 1, -1));
	return 0;
}

static size_t add(uint8_t *out, const ProtobufCMessage *m)
{
	size_t n = protobuf_c_message_pack(m, out + SK_FRAME_HEADER_BYTES);
	sk_frame_header_write(out, (uint32_t)n);
	return SK_FRAME_HEADER_BYTES + n;
}

size_t sk_fuzz_seed(unsigned index, uint8_t *out, size_t room)
{
	(void)room; /* a seed is a few hundred bytes */
	Sk__ClientMessage c = SK__CLIENT_MESSAGE__INIT;
	Sk__ServerMessage s = SK__SERVER_MESSAGE__INIT;
	Sk__Hello hello = SK__HELLO__INIT;
	Sk__Generate generate = SK__GENERATE__INIT;
	Sk__Policy policy = SK__POLICY__INIT;
	Sk__Sampling sampling = SK__SAMPLING__INIT;
	Sk__Detokenize detokenize = SK__DETOKENIZE__INIT;
	Sk__Welcome welcome = SK__WELCOME__INIT;
	Sk__Finished finished = SK__FINISHED__INIT;
	Sk__Ids ids = SK__IDS__INIT;
	Sk__SessionRequest session = SK__SESSION_REQUEST__INIT;
	Sk__SessionInfo infos[2] = {SK__SESSION_INFO__INIT, SK__SESSION_INFO__INIT};
	Sk__SessionInfo *sessions[2] = {&infos[0], &infos[1]};
	Sk__SessionAnswer answer = SK__SESSION_ANSWER__INIT;
	Sk__RequestInfo running = SK__REQUEST_INFO__INIT, *requests[1] = {&running};
	Sk__UserInfo user = SK__USER_INFO__INIT, *users[1] = {&user};
	Sk__Listing listing = SK__LISTING__INIT;
	ProtobufCBinaryData stops[2] = {{1, (uint8_t *)"\n"}, {3, (uint8_t *)"End"}};
	int32_t some[] = {0, 1, 300, 50000};
	size_t n = 2;

	memset(out, 0, 2);
	policy.mode = SK__MODE__MODE_STREAMING;
	policy.has_window_case = SK__POLICY__HAS_WINDOW_WINDOW;
	policy.window = 252;
	switch (index) {
	case 0: /* a whole conversation's beginning */
		hello.version = 1;
		hello.client = (char *)"fuzz 1";
		c.body_case = SK__CLIENT_MESSAGE__BODY_HELLO;
		c.hello = &hello;
		n += add(out + n, &c.base);
		c.request = 1;
		generate.source_case = SK__GENERATE__SOURCE_PROMPT;
		generate.prompt = (ProtobufCBinaryData){11, (uint8_t *)"Once upon a"};
		generate.session = (char *)"tale";
		generate.stop = stops;
		generate.n_stop = 2;
		generate.policy = &policy;
		generate.sampling = &sampling;
		sampling.temperature = 0.7f;
		sampling.top_p = 0.9f;
		c.body_case = SK__CLIENT_MESSAGE__BODY_GENERATE;
		c.generate = &generate;
		return n + add(out + n, &c.base);
	case 1:
		out[1] = 1;
		c.request = 2;
		generate.source_case = SK__GENERATE__SOURCE_IN_MEMFD;
		generate.in_memfd = 1;
		generate.prompt_bytes = 70000;
		c.body_case = SK__CLIENT_MESSAGE__BODY_GENERATE;
		c.generate = &generate;
		return n + add(out + n, &c.base);
	case 2:
		out[0] = 3;
		c.request = 3;
		detokenize.ids = some;
		detokenize.n_ids = 4;
		c.body_case = SK__CLIENT_MESSAGE__BODY_DETOKENIZE;
		c.detokenize = &detokenize;
		return n + add(out + n, &c.base);
	case 3:
		out[1] = 4;
		welcome.ring_slots = 4096;
		welcome.policy = &policy;
		welcome.server = (char *)"streamkvd";
		s.body_case = SK__SERVER_MESSAGE__BODY_WELCOME;
		s.welcome = &welcome;
		return n + add(out + n, &s.base);
	case 4:
		s.request = 1;
		finished.stop = SK__STOP_REASON__STOP_STRING;
		finished.stop_string = stops[1];
		finished.generated_tokens = 99;
		s.body_case = SK__SERVER_MESSAGE__BODY_FINISHED;
		s.finished = &finished;
		n += add(out + n, &s.base);
		ids.ids = some;
		ids.n_ids = ids.count = 4;
		s.body_case = SK__SERVER_MESSAGE__BODY_IDS;
		s.ids = &ids;
		return n + add(out + n, &s.base);
	case 5:
		out[1] = 1;
		c.request = 4;
		session.verb = SK__SESSION_VERB__SESSION_LOAD;
		session.name = (char *)"tale";
		session.in_memfd = session.replace = 1;
		session.saved_bytes = 5000;
		c.body_case = SK__CLIENT_MESSAGE__BODY_SESSION;
		c.session = &session;
		n += add(out + n, &c.base);
		s.request = 4;
		infos[0].policy = infos[1].policy = &policy;
		infos[0].name = (char *)"tale";
		answer.session = &infos[0];
		answer.in_memfd = 1;
		answer.saved_bytes = 5000;
		s.body_case = SK__SERVER_MESSAGE__BODY_SESSION;
		s.session = &answer;
		return n + add(out + n, &s.base);
	case 6:
		s.request = 5;
		infos[0].policy = infos[1].policy = &policy;
		infos[1].state = SK__SESSION_STATE__SESSION_STORED;
		running.state = SK__REQUEST_STATE__REQUEST_QUEUED;
		running.queue_place = 3;
		running.session = (char *)"tale";
		user.uid = 1000;
		listing.sessions = sessions;
		listing.n_sessions = 2;
		listing.requests = requests;
		listing.users = users;
		listing.n_requests = listing.n_users = 1;
		listing.more = 1;
		s.body_case = SK__SERVER_MESSAGE__BODY_LISTING;
		s.listing = &listing;
		return n + add(out + n, &s.base);
	default:
		return 0;
	}
}
