/* From bytes to messages: every message there and back, a table of bad ones with what is said of
 * them, and bytes that nobody meant. One long file, since the builders of messages serve all three.
 */
#include "sk_test.h"

#include "proto/validate.h"

#include <errno.h>
#include <malloc.h>
#include <math.h>
#include <string.h>

static const struct sk_limits limits = {
	.max_prompt_bytes = 1000, .max_window_tokens = 500, .max_ring_slots = 8192};

/* --- A writer of wire bytes, driven by the descriptors --- */

struct bytes {
	uint8_t data[4096];
	size_t n;
};

static void put_varint(struct bytes *b, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		b->data[b->n++] = (uint8_t)(value | 0x80);
	b->data[b->n++] = (uint8_t)value;
}

static void put_field(struct bytes *b, unsigned number, const void *data, size_t n)
{
	put_varint(b, number << 3 | 2);
	put_varint(b, n);
	if (n)
		memcpy(b->data + b->n, data, n);
	b->n += n;
}

static void put_number(struct bytes *b, unsigned number, uint64_t value)
{
	put_varint(b, number << 3);
	put_varint(b, value);
}

/* A whole message with every field set (of each oneof, the member `choice`), in canonical order. */
static void put_message(struct bytes *b, const ProtobufCMessageDescriptor *type, unsigned choice)
{
	unsigned n_members = 0;

	for (unsigned i = 0; i < type->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &type->fields[i];
		bool in_oneof = f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
		/* has_X has one member, which is always set. */
		if (in_oneof && strncmp(type->name, "sk.Policy", 9) != 0 &&
		    strncmp(type->name, "sk.Sampling", 11) != 0 && n_members++ != choice)
			continue;
		if (!in_oneof &&
		    (strcmp(f->name, "in_memfd") == 0 || strcmp(f->name, "saved_bytes") == 0))
			continue; /* would contradict `ids`; comes with the other alone */
		switch (f->type) {
		case PROTOBUF_C_TYPE_MESSAGE: {
			struct bytes inner = {.n = 0};
			put_message(&inner, f->descriptor, choice);
			put_field(b, f->id, inner.data, inner.n);
			break;
		}
		case PROTOBUF_C_TYPE_STRING:
		case PROTOBUF_C_TYPE_BYTES:
			put_field(b, f->id, "b", 1);
			break;
		case PROTOBUF_C_TYPE_FLOAT:
			put_varint(b, f->id << 3 | 5);
			memcpy(b->data + b->n, "\0\0\0\x3f", 4);
			b->n += 4;
			break;
		case PROTOBUF_C_TYPE_DOUBLE:
			put_varint(b, f->id << 3 | 1);
			memcpy(b->data + b->n, "\0\0\0\0\0\0\x40\x40", 8);
			b->n += 8;
			break;
		default:
			if (f->label == PROTOBUF_C_LABEL_REPEATED)
				put_field(b, f->id, "\1", 1);
			else
				put_number(b, f->id, 1);
		}
	}
}

/* A message whose body is `field`. */
static void put_envelope(struct bytes *b, const ProtobufCFieldDescriptor *field, uint32_t request,
			 unsigned choice)
{
	struct bytes inner = {.n = 0};

	put_message(&inner, field->descriptor, choice);
	if (request)
		put_number(b, 1, request);
	put_field(b, field->id, inner.data, inner.n);
}

static struct sk_frame frame_of(const struct bytes *b, unsigned n_fds)
{
	return (struct sk_frame){
		.message = b->data, .n_bytes = b->n, .fds = {-1, -1, -1, -1}, .n_fds = n_fds};
}

/* Which number of descriptors unpack accepts; asserts that it is one number alone. */
static unsigned accepted_fds(const struct bytes *b, bool client)
{
	int accepted = -1;
	struct sk_diag diag = {""};

	for (unsigned n_fds = 0; n_fds <= 4; n_fds++) {
		struct sk_frame frame = frame_of(b, n_fds);
		Sk__ClientMessage *c;
		Sk__ServerMessage *s;
		int r = client ? sk_client_message_unpack(&frame, &c, &diag)
			       : sk_server_message_unpack(&frame, &s, &diag);
		if (r == 0) {
			uint8_t again[4096];
			const ProtobufCMessage *m = client ? &c->base : &s->base;
			assert_int_equal(accepted, -1);
			accepted = (int)n_fds;
			/* What came out is what went in, to the byte. */
			assert_int_equal(protobuf_c_message_get_packed_size(m), b->n);
			assert_int_equal(protobuf_c_message_pack(m, again), b->n);
			assert_memory_equal(again, b->data, b->n);
			if (client)
				sk__client_message__free_unpacked(c, NULL);
			else
				sk__server_message__free_unpacked(s, NULL);
		} else {
			assert_int_equal(r, -EBADMSG);
			assert_non_null(strstr(diag.text, "descriptors"));
		}
	}
	assert_true(accepted >= 0);
	return (unsigned)accepted;
}

static void every_message_there_and_back(void **state)
{
	(void)state;
	const ProtobufCMessageDescriptor *types[] = {&sk__client_message__descriptor,
						     &sk__server_message__descriptor};
	for (int side = 0; side < 2; side++)
		for (unsigned i = 0; i < types[side]->n_fields; i++)
			for (unsigned choice = 0; choice < 2; choice++) {
				const ProtobufCFieldDescriptor *field = &types[side]->fields[i];
				if (!field->descriptor || field->type != PROTOBUF_C_TYPE_MESSAGE)
					continue;
				bool welcome = strcmp(field->name, "welcome") == 0;
				bool has_source = strcmp(field->name, "generate") == 0 ||
						  strcmp(field->name, "evaluate") == 0 ||
						  strcmp(field->name, "tokenize") == 0 ||
						  strcmp(field->name, "text") == 0;
				struct bytes b = {.n = 0};
				put_envelope(&b, field, welcome ? 0 : 7, choice);
				assert_int_equal(accepted_fds(&b, side == 0), welcome ? 4
									      : has_source && choice
										      ? 1
										      : 0);
			}
}

/* --- What unpack refuses --- */

/* Bytes of a client's message with one Generate in it, whose inside is given. */
static void expect_generate(const void *inside, size_t n, const char *fragment)
{
	struct bytes b = {.n = 0};
	struct sk_diag diag = {""};
	Sk__ClientMessage *m = NULL;

	put_number(&b, 1, 7);
	put_field(&b, 3, inside, n);
	struct sk_frame frame = frame_of(&b, 0);
	int r = sk_client_message_unpack(&frame, &m, &diag);
	if (!fragment) {
		assert_int_equal(r, 0);
		sk__client_message__free_unpacked(m, NULL);
		return;
	}
	assert_int_equal(r, -EBADMSG);
	assert_null(m);
	if (!strstr(diag.text, fragment))
		fail_msg("'%s' does not say '%s'", diag.text, fragment);
}
#define EXPECT_GENERATE(inside, fragment) expect_generate(inside, sizeof inside - 1, fragment)

static void messages_that_are_none(void **state)
{
	(void)state;
	EXPECT_GENERATE("", NULL);
	EXPECT_GENERATE("\x32\x01s", NULL);
	EXPECT_GENERATE("\x32\x03s\0t", "Generate.session");
	EXPECT_GENERATE("\x32\x02\xc3\x28", "Generate.session is not UTF-8");
	EXPECT_GENERATE("\x32\x02\xc0\x80", "not UTF-8");     /* longer than needed */
	EXPECT_GENERATE("\x32\x03\xed\xa0\x80", "not UTF-8"); /* a surrogate */
	EXPECT_GENERATE("\x32\x04\xf4\x90\x80\x80", "not UTF-8");
	EXPECT_GENERATE("\x32\x02\xe2\x82", "not UTF-8");
	EXPECT_GENERATE("\x32\x01\x80", "not UTF-8");
	EXPECT_GENERATE("\x32\x01\xff", "not UTF-8");
	EXPECT_GENERATE("\x32\x09\xc2\xa2\xe2\x82\xac\xf0\x9f\x98\x80", NULL);
	EXPECT_GENERATE("\x0a\x02\x00\xff", NULL);          /* a prompt is any bytes */
	EXPECT_GENERATE("\x4a\x02\x00\xff\x4a\x01x", NULL); /* stops are, and there may be many */
	EXPECT_GENERATE("\x0a\x01x\x0a\x01y", "Generate.prompt is given twice");
	EXPECT_GENERATE("\x0a\x01x\x10\x01", "given twice, or beside"); /* two members of a oneof */
	EXPECT_GENERATE("\x10\x00", "in_memfd is given, but false");
	EXPECT_GENERATE("\x32\x01s\x32\x01s", "Generate.session is given twice");
	EXPECT_GENERATE("\x3a\x00\x3a\x00", "Generate.policy is given twice");
	EXPECT_GENERATE("\x3a\x02\x08\x05", "Policy.mode is 5");
	EXPECT_GENERATE("\x3a\x06\x08\x81\x80\x80\x80\x10", "Policy.mode is 4294967297");
	EXPECT_GENERATE("\x3a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
			"Policy.mode is -1");
	EXPECT_GENERATE("\x3a\x02\x12\x00", "Policy.sink is of the wrong type");
	EXPECT_GENERATE("\x32\x02s", "make no message"); /* shorter than said */
	EXPECT_GENERATE("\x32\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "make no message");
	EXPECT_GENERATE("\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "make no message");
	EXPECT_GENERATE("\x20", "make no message");
	EXPECT_GENERATE("\x00\x00", "make no message");         /* field 0 */
	EXPECT_GENERATE("\x33\x34", "make no message");         /* a group */
	EXPECT_GENERATE("\x42\x02\x0d\x00", "make no message"); /* half a float */
	EXPECT_GENERATE("\xa0\x06\x05\xaa\x06\x02zz", NULL);    /* unknown fields */

	static const struct {
		const char *bytes;
		size_t n;
		const char *fragment;
	} whole[] = {
		{"", 0, "no known kind"},
		{"\x08\x07", 2, "request 7 is of no known kind"},
		{"\x08\x07\xfa\x01\x00", 5, "request 7 is of no known kind"}, /* body 31 */
		{"\x12\x00\x3a\x00", 4, "given twice, or beside"},
		{"\x08\x01\x08\x01\x3a\x00", 6, "request is given twice"},
		{"\x3a\x01", 2, "make no message"},
	};
	for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
		struct sk_frame frame = {.message = (const uint8_t *)whole[i].bytes,
					 .n_bytes = whole[i].n};
		struct sk_diag diag = {""};
		Sk__ClientMessage *m;
		assert_int_equal(sk_client_message_unpack(&frame, &m, &diag), -EBADMSG);
		if (!strstr(diag.text, whole[i].fragment))
			fail_msg("'%s' does not say '%s'", diag.text, whole[i].fragment);
	}
}

static void what_a_daemon_must_not_say(void **state)
{
	(void)state;
	static const struct {
		const char *bytes;
		size_t n;
		unsigned n_fds;
		const char *fragment; /* NULL: good */
	} cases[] = {
		{"\x12\x00", 2, 4, "Welcome.policy is missing"},
		{"\x12\x02\x3a\x00", 4, 4, NULL},
		{"\x12\x02\x3a\x00", 4, 3, "3 descriptors"},
		{"\x08\x01\x12\x02\x3a\x00", 6, 4, "request 1"},
		{"\x22\x00", 2, 0, "request 0"}, /* Finished of nothing */
		{"\x2a\x00", 2, 0, NULL},        /* Failed of the connection */
		{"\x08\x01\x22\x02\x08\x09", 6, 0, "Finished.stop is 9"},
		{"\x08\x01\x32\x03\x0a\x01\x05", 7, 0, "Ids.count is 0, but 1"},
		{"\x08\x01\x32\x05\x0a\x01\x05\x18\x01", 9, 0, NULL},
		{"\x08\x01\x32\x07\x0a\x01\x05\x10\x01\x18\x01", 11, 1, "Ids.count is 1, but 1"},
		{"\x08\x01\x32\x04\x10\x01\x18\x63", 8, 1, NULL},
		{"\x08\x01\x32\x04\x10\x01\x18\x63", 8, 0, "0 descriptors"},
		{"\x08\x01\x3a\x05\x0a\x01x\x18\x02", 9, 0, "Text.text_bytes is 2"},
		{"\x08\x01\x3a\x02\x18\x02", 6, 0, "Text.text_bytes is 2"},
		{"\x08\x01\x3a\x02\x10\x00", 6, 1, "Text.in_memfd"},
		{"\x08\x01\x4a\x00", 4, 0, "Model.policy is missing"},
		{"\x08\x01\x4a\x06\x12\x01\xe9\xa2\x01\x00", 10, 0, NULL}, /* a path in Latin-1 */
		{"\x08\x01\x4a\x06\x12\x01\x00\xa2\x01\x00", 10, 0, "Model.path holds a NUL"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct sk_frame frame = {.message = (const uint8_t *)cases[i].bytes,
					 .n_bytes = cases[i].n,
					 .n_fds = cases[i].n_fds};
		struct sk_diag diag = {""};
		Sk__ServerMessage *m;
		int r = sk_server_message_unpack(&frame, &m, &diag);
		if (!cases[i].fragment) {
			if (r)
				fail_msg("case %zu: %s", i, diag.text);
			sk__server_message__free_unpacked(m, NULL);
			continue;
		}
		assert_int_equal(r, -EBADMSG);
		if (!strstr(diag.text, cases[i].fragment))
			fail_msg("case %zu: '%s' does not say '%s'", i, diag.text,
				 cases[i].fragment);
	}
}

/* --- What check refuses --- */

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

/* --- Bytes that nobody meant --- */

static uint64_t random_state;

static uint32_t random_below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 33) % n;
}

/* Heap in use, with some kilobytes of malloc's cache among it; 0 where the heap is a sanitizer's.
 */
static size_t heap_bytes(void)
{
	return mallinfo2().uordblks;
}

static void feed_hostile(const uint8_t *bytes, size_t n)
{
	struct sk_frame frame = {.message = bytes, .n_bytes = n};
	struct sk_diag diag;
	Sk__ClientMessage *c;
	Sk__ServerMessage *s;
	size_t before = heap_bytes();

	for (frame.n_fds = 0; frame.n_fds < 2; frame.n_fds++) {
		if (sk_client_message_unpack(&frame, &c, &diag) == 0) {
			size_t kept = heap_bytes() - before;
			assert_true(kept <= 16384 + 16 * n);
			(void)sk_client_message_check(c, &limits, &diag);
			sk__client_message__free_unpacked(c, NULL);
		}
		if (sk_server_message_unpack(&frame, &s, &diag) == 0)
			sk__server_message__free_unpacked(s, NULL);
	}
}

static void hostile_bytes(void **state)
{
	(void)state;
	const ProtobufCMessageDescriptor *types[] = {&sk__client_message__descriptor,
						     &sk__server_message__descriptor};
	size_t before = heap_bytes();
	random_state = 88172645463325252u;
	for (int round = 0; round < 20000; round++) {
		const ProtobufCMessageDescriptor *type = types[round % 2];
		struct bytes b = {.n = 0};
		put_envelope(&b, &type->fields[1 + random_below(type->n_fields - 1)], round % 3,
			     round % 2);
		for (uint32_t k = random_below(6); k; k--) {
			uint32_t at = random_below((uint32_t)b.n);
			switch (random_below(4)) {
			case 0:
				b.data[at] ^= (uint8_t)(1 << random_below(8));
				break;
			case 1:
				b.data[at] = (uint8_t)random_below(256);
				break;
			case 2:
				b.n = at + 1;
				break;
			default:
				memmove(b.data + at, b.data + random_below((uint32_t)b.n),
					b.n - at > 8 ? 8 : b.n - at);
			}
		}
		feed_hostile(b.data, b.n);
		for (size_t i = 0; i < b.n; i++)
			b.data[i] = (uint8_t)random_below(256);
		feed_hostile(b.data, b.n);
	}
	assert_true(heap_bytes() < before + 65536); /* all of it was freed */
}

/* Frames whose unpacked form is many times as large. */
static void frames_that_would_grow(void **state)
{
	(void)state;
	static const struct {
		const char *inside; /* repeated to fill the frame */
		size_t n;
		int expected;
	} cases[] = {
		{"\x4a\x00", 2, -ENOMEM},     /* empty stop strings, 2 bytes each */
		{"\x4a\x01x", 3, -ENOMEM},    /* allocations of one byte */
		{"\xa0\x06\x00", 3, -ENOMEM}, /* unknown fields */
	};
	size_t n_room = SK_FRAME_MOST_BYTES;
	uint8_t *bytes = test_malloc(n_room);

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		size_t n_inside = (n_room - 8) / cases[i].n * cases[i].n, n = 0;
		struct sk_diag diag = {""};
		Sk__ClientMessage *m;
		bytes[n++] = 0x1a;
		for (size_t v = n_inside; v; v >>= 7)
			bytes[n++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
		for (size_t k = 0; k < n_inside; k += cases[i].n)
			memcpy(bytes + n + k, cases[i].inside, cases[i].n);
		struct sk_frame frame = {.message = bytes, .n_bytes = n + n_inside};
		size_t before = heap_bytes();
		assert_int_equal(sk_client_message_unpack(&frame, &m, &diag), cases[i].expected);
		assert_non_null(strstr(diag.text, "wants too much memory"));
		assert_true(heap_bytes() < before + 65536);
	}

	/* A frame full of ids grows fourfold, and that is fine. */
	size_t n_ids = 1000000, n = 0;
	struct sk_diag diag = {""};
	Sk__ClientMessage *m;
	struct bytes head = {.n = 0};
	put_number(&head, 1, 1);
	put_varint(&head, 5 << 3 | 2);
	put_varint(&head, n_ids + 4);
	put_varint(&head, 1 << 3 | 2);
	put_varint(&head, n_ids);
	memcpy(bytes, head.data, head.n);
	n = head.n + n_ids;
	memset(bytes + head.n, 9, n_ids);
	struct sk_frame frame = {.message = bytes, .n_bytes = n};
	assert_int_equal(sk_client_message_unpack(&frame, &m, &diag), 0);
	assert_int_equal(m->detokenize->n_ids, n_ids);
	sk__client_message__free_unpacked(m, NULL);
	test_free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_message_there_and_back),
		cmocka_unit_test(messages_that_are_none),
		cmocka_unit_test(what_a_daemon_must_not_say),
		cmocka_unit_test(ranges_of_a_generate),
		cmocka_unit_test(ranges_of_the_others),
		cmocka_unit_test(hostile_bytes),
		cmocka_unit_test(frames_that_would_grow),
	};
	return sk_test_run(tests, NULL, NULL);
}
