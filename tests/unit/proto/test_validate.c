/* What values a message may have: good ones that are spoilt in one place, with what is said of it. */
#include "sk_test.h"

#include "proto/validate.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static const struct sk_limits limits = {
	.max_prompt_bytes = 1000, .max_window_tokens = 500, .max_ring_slots = 8192};

/* A good message of each kind, to be spoilt in one place. */
struct good {
	Sk__ClientMessage m;
	Sk__Hello hello;
	Sk__Generate g;
	Sk__Policy policy;
	Sk__Sampling s;
	Sk__Tokenize t;
	Sk__Detokenize d;
	Sk__Evaluate e;
	Sk__Cancel cancel;
	ProtobufCBinaryData stops[17];
	int32_t ids[4];
};

static void good_init(struct good *x, Sk__ClientMessage__BodyCase body)
{
	*x = (struct good){.m = SK__CLIENT_MESSAGE__INIT,
			   .hello = SK__HELLO__INIT,
			   .g = SK__GENERATE__INIT,
			   .policy = SK__POLICY__INIT,
			   .s = SK__SAMPLING__INIT,
			   .t = SK__TOKENIZE__INIT,
			   .d = SK__DETOKENIZE__INIT,
			   .e = SK__EVALUATE__INIT,
			   .cancel = SK__CANCEL__INIT};
	x->m.request = 5;
	x->m.body_case = body;
	x->hello.version = 1;
	x->hello.client = (char *)"streamkv-client 0.1.0";
	x->g.source_case = SK__GENERATE__SOURCE_PROMPT;
	x->g.prompt = (ProtobufCBinaryData){3, (uint8_t *)"abc"};
	x->g.session = (char *)"a.B_c-9";
	x->g.chat = (char *)"auto";
	x->g.system = (ProtobufCBinaryData){3, (uint8_t *)"def"};
	for (int i = 0; i < 17; i++)
		x->stops[i] = (ProtobufCBinaryData){1, (uint8_t *)"s"};
	x->g.stop = x->stops;
	x->g.n_stop = 16;
	x->g.policy = &x->policy;
	x->g.sampling = &x->s;
	x->s.temperature = 0.8f;
	x->s.top_p = 0.95f;
	x->s.repeat_penalty = 1.1f;
	x->policy.mode = SK__MODE__MODE_STREAMING;
	x->policy.has_sink_case = SK__POLICY__HAS_SINK_SINK;
	x->policy.sink = 4;
	x->policy.has_window_case = SK__POLICY__HAS_WINDOW_WINDOW;
	x->policy.window = 496;
	x->ids[3] = 7;
	x->d.ids = x->ids;
	x->d.n_ids = 4;
	x->cancel.target = 3;
	x->e.source_case = SK__EVALUATE__SOURCE_TEXT;
	x->e.text = (ProtobufCBinaryData){3, (uint8_t *)"abc"};
	x->e.session = (char *)"a";
	x->e.policy = &x->policy;
	x->t.source_case = SK__TOKENIZE__SOURCE_IN_MEMFD;
	x->t.in_memfd = 1;
	x->t.text_bytes = 1000;
	switch (body) {
	case SK__CLIENT_MESSAGE__BODY_HELLO:
		x->m.hello = &x->hello;
		break;
	case SK__CLIENT_MESSAGE__BODY_GENERATE:
		x->m.generate = &x->g;
		break;
	case SK__CLIENT_MESSAGE__BODY_TOKENIZE:
		x->m.tokenize = &x->t;
		break;
	case SK__CLIENT_MESSAGE__BODY_EVALUATE:
		x->m.evaluate = &x->e;
		break;
	case SK__CLIENT_MESSAGE__BODY_DETOKENIZE:
		x->m.detokenize = &x->d;
		break;
	default:
		x->m.cancel = &x->cancel;
	}
}

#define EXPECT(kind, spoil, fragment)                                                              \
	do {                                                                                       \
		struct good x;                                                                     \
		struct sk_diag diag = {""};                                                        \
		good_init(&x, SK__CLIENT_MESSAGE__BODY_##kind);                                    \
		assert_int_equal(sk_client_message_check(&x.m, &limits, &diag), 0);                \
		spoil;                                                                             \
		int r_ = sk_client_message_check(&x.m, &limits, &diag);                            \
		const char *fragment_ = fragment;                                                  \
		if (fragment_ ? r_ != -EINVAL || !strstr(diag.text, fragment_) : r_ != 0)          \
			fail_msg("%s: %d '%s', not '%s'", #spoil, r_, diag.text,                   \
				 fragment_ ? fragment_ : "good");                                  \
	} while (0)

static void ranges_of_a_generate(void **state)
{
	(void)state;
	char name[66];
	memset(name, 'n', sizeof name);
	name[65] = 0;

	EXPECT(GENERATE, x.m.request = 0, "request is 0; 1 to 4294967295");
	EXPECT(GENERATE, x.g.prompt.len = 1001, "Generate.prompt_bytes is 1001; up to 1000");
	EXPECT(GENERATE, x.g.prompt_bytes = 4, "Generate.prompt_bytes is 4; in the message are 3");
	EXPECT(GENERATE, x.g.prompt_bytes = 3, NULL);
	EXPECT(GENERATE, x.g.source_case = 0, NULL);
	EXPECT(GENERATE, (x.g.source_case = 2, x.g.prompt_bytes = 1001), "is 1001; up to 1000");
	EXPECT(GENERATE, (x.g.source_case = 2, x.g.prompt_bytes = UINT64_MAX), "up to 1000");
	EXPECT(GENERATE, (x.g.source_case = 2, x.g.prompt_bytes = 0),
	       "prompt_bytes is 0; with in_memfd 1 to");
	EXPECT(GENERATE, (x.g.source_case = 2, x.g.prompt_bytes = 1000), NULL);
	EXPECT(GENERATE, (x.g.endless = 1, x.g.max_tokens = 9), "Generate.max_tokens is 9");
	EXPECT(GENERATE, x.g.endless = 1, NULL);
	EXPECT(GENERATE, x.g.session = name, "Generate.session has 65 bytes; 1 to 64");
	EXPECT(GENERATE, x.g.session = name + 1, NULL);
	EXPECT(GENERATE, x.g.session = (char *)"a/b", "Generate.session has the byte 0x2f at 1");
	EXPECT(GENERATE, x.g.session = (char *)"\xc3\xa9", "byte 0xc3 at 0");
	EXPECT(GENERATE, x.g.session = (char *)"", NULL);
	EXPECT(GENERATE, x.g.chat = (char *)"a b", "Generate.chat has the byte 0x20");
	EXPECT(GENERATE, x.g.chat = (char *)"", "Generate.system has 3 bytes; without chat");
	EXPECT(GENERATE, x.g.system.len = 1001, "Generate.system has 1001 bytes");
	EXPECT(GENERATE, x.g.n_stop = 17, "Generate.stop has 17 strings; up to 16");
	EXPECT(GENERATE, x.stops[15].len = 0, "Generate.stop[15] has 0 bytes; 1 to 256");
	EXPECT(GENERATE, x.stops[2].len = 257, "Generate.stop[2] has 257 bytes");
	EXPECT(GENERATE, x.stops[2].len = 256, NULL);
	EXPECT(GENERATE, x.g.policy = NULL, NULL);
	EXPECT(GENERATE, x.g.sampling = NULL, NULL);

	EXPECT(GENERATE, x.policy.mode = 4, "Policy.mode is 4; 0 to 3");
	EXPECT(GENERATE, x.policy.mode = 5, "Policy.mode is 5");
	EXPECT(GENERATE, x.policy.mode = -1, "Policy.mode is -1");
	EXPECT(GENERATE, x.policy.mode = SK__MODE__MODE_WINDOW, "Policy.sink is 4; in window mode");
	EXPECT(GENERATE, x.policy.window = 0, "Policy.window is 0");
	EXPECT(GENERATE, x.policy.window = 497, "is 501 tokens; up to 500");
	EXPECT(GENERATE, (x.policy.sink = UINT32_MAX, x.policy.window = UINT32_MAX),
	       "8589934590 tokens");
	EXPECT(GENERATE, (x.policy.has_slack_case = 4, x.policy.slack = 1), "is 501 tokens");
	EXPECT(GENERATE, x.policy.slack = 1000, NULL); /* not given */
	EXPECT(GENERATE, (x.policy.has_sink_case = 0, x.policy.has_window_case = 0), NULL);

	EXPECT(GENERATE, x.s.temperature = NAN, "Sampling.temperature is ");
	EXPECT(GENERATE, x.s.temperature = INFINITY, "Sampling.temperature is inf");
	EXPECT(GENERATE, x.s.temperature = -0.1f, "Sampling.temperature is -0.1; 0 to 100");
	EXPECT(GENERATE, x.s.temperature = 100.1f, "Sampling.temperature");
	EXPECT(GENERATE, x.s.top_k = 1u << 31, "Sampling.top_k");
	EXPECT(GENERATE, x.s.top_p = 1.01f, "Sampling.top_p is 1.01; 0 to 1");
	EXPECT(GENERATE, x.s.top_p = -1, "Sampling.top_p");
	EXPECT(GENERATE, x.s.min_p = NAN, "Sampling.min_p");
	EXPECT(GENERATE, x.s.min_p = 2, "Sampling.min_p");
	EXPECT(GENERATE, x.s.repeat_penalty = NAN, "Sampling.repeat_penalty");
	EXPECT(GENERATE, x.s.repeat_penalty = 0.05f, "Sampling.repeat_penalty");
	EXPECT(GENERATE, x.s.repeat_penalty = -1, "Sampling.repeat_penalty");
	EXPECT(GENERATE, x.s.repeat_penalty = 0.1f, NULL);
	EXPECT(GENERATE, x.s.repeat_penalty = 11, "Sampling.repeat_penalty");
	EXPECT(GENERATE, x.s.repeat_last = 65537, "Sampling.repeat_last is 65537");
}

static void ranges_of_the_others(void **state)
{
	(void)state;
	char client[130];
	memset(client, 'c', sizeof client);
	client[129] = 0;

	EXPECT(HELLO, x.hello.version = 2, "Hello.version is 2; 1 is spoken here");
	EXPECT(HELLO, x.m.request = 0, NULL);
	EXPECT(HELLO, x.hello.ring_slots = 1000, "Hello.ring_slots is 1000");
	EXPECT(HELLO, x.hello.ring_slots = 128, "a power of two from 256 to 8192");
	EXPECT(HELLO, x.hello.ring_slots = 16384, "Hello.ring_slots");
	EXPECT(HELLO, x.hello.ring_slots = 8192, NULL);
	EXPECT(HELLO, x.hello.ring_slots = 256, NULL);
	EXPECT(HELLO, x.hello.client = client, "Hello.client has 129 bytes");
	EXPECT(HELLO, x.hello.client = (char *)"x\n", "Hello.client has the byte 0x0a");
	EXPECT(HELLO, x.hello.client = (char *)"\x1b[1m", "byte 0x1b");
	EXPECT(HELLO, x.hello.client = (char *)"\xc3\xa9", "byte 0xc3");
	EXPECT(EVALUATE, x.m.request = 0, "request is 0");
	EXPECT(EVALUATE, x.e.text.len = 1001, "Evaluate.text_bytes is 1001; up to 1000");
	EXPECT(EVALUATE, x.e.text_bytes = 4, "Evaluate.text_bytes is 4; in the message are 3");
	EXPECT(EVALUATE, (x.e.source_case = 2, x.e.text_bytes = 0), "Evaluate.text_bytes is 0");
	EXPECT(EVALUATE, (x.e.source_case = 2, x.e.text_bytes = 1001), "is 1001; up to 1000");
	EXPECT(EVALUATE, x.e.session = (char *)"a/b", "Evaluate.session has the byte 0x2f at 1");
	EXPECT(EVALUATE, x.e.policy = NULL, NULL);
	EXPECT(EVALUATE, x.policy.window = 497, "is 501 tokens; up to 500");
	EXPECT(EVALUATE, x.policy.mode = 5, "Policy.mode is 5; 0 to 4");
	EXPECT(EVALUATE, x.policy.mode = SK__MODE__MODE_RECOMPUTE, "with a session 0 to 3");
	EXPECT(EVALUATE, (x.policy.mode = SK__MODE__MODE_RECOMPUTE, x.e.session = (char *)""),
	       NULL);
	EXPECT(TOKENIZE, x.t.text_bytes = 1001, "Tokenize.text_bytes is 1001; up to 1000");
	EXPECT(TOKENIZE, x.t.text_bytes = 0, "Tokenize.text_bytes is 0");
	EXPECT(TOKENIZE, (x.t.source_case = 0, x.t.text_bytes = 0), NULL);
	EXPECT(TOKENIZE, x.m.request = 0, "request is 0");
	EXPECT(DETOKENIZE, x.ids[3] = -1, "Detokenize.ids[3] is -1");
	EXPECT(DETOKENIZE, x.d.count = 3, "Detokenize.count is 3; in the message are 4");
	EXPECT(DETOKENIZE, x.d.in_memfd = 1, "Detokenize.ids has 4 ids; with in_memfd none");
	EXPECT(DETOKENIZE, (x.d.in_memfd = 1, x.d.n_ids = 0), "Detokenize.count is 0");
	EXPECT(DETOKENIZE, (x.d.in_memfd = 1, x.d.n_ids = 0, x.d.count = 251), "up to 250");
	EXPECT(DETOKENIZE, (x.d.in_memfd = 1, x.d.n_ids = 0, x.d.count = 250), NULL);
	EXPECT(CANCEL, x.cancel.target = 0, "Cancel.target is 0");
	EXPECT(CANCEL, x.m.request = 0, NULL);
	EXPECT(CANCEL, x.m.body_case = SK__CLIENT_MESSAGE__BODY__NOT_SET, "no known kind");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranges_of_a_generate),
		cmocka_unit_test(ranges_of_the_others),
	};
	return sk_test_run(tests, NULL, NULL);
}
