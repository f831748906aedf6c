/* From bytes to messages: every message there and back, and a table of bad ones with what is said of them. */
#include "wire_bytes.h"

#include <errno.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_message_there_and_back),
		cmocka_unit_test(messages_that_are_none),
		cmocka_unit_test(what_a_daemon_must_not_say),
	};
	return sk_test_run(tests, NULL, NULL);
}
