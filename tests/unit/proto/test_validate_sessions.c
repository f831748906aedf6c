/* Sessions by name, and lists of what there is: what a client may ask, and what a daemon may answer. */
#include "sk_test.h"

#include "proto/validate.h"

#include <errno.h>
#include <string.h>

static const struct sk_limits limits = {.max_saved_bytes = 1000};

/* --- Asking --- */

static void check(Sk__SessionRequest *request, const char *spoilt, const char *fragment)
{
	Sk__ClientMessage m = SK__CLIENT_MESSAGE__INIT;
	struct sk_diag diag = {""};

	m.request = 5;
	m.body_case = SK__CLIENT_MESSAGE__BODY_SESSION;
	m.session = request;
	int r = sk_client_message_check(&m, &limits, &diag);
	if (fragment ? r != -EINVAL || !strstr(diag.text, fragment) : r != 0)
		fail_msg("%s: %d '%s', not '%s'", spoilt, r, diag.text,
			 fragment ? fragment : "good");
}

/* A good request of the verb, then spoilt in one place. */
#define EXPECT(VERB, spoil, fragment)                                                              \
	do {                                                                                       \
		Sk__SessionRequest r = SK__SESSION_REQUEST__INIT;                                  \
		r.verb = SK__SESSION_VERB__SESSION_##VERB;                                         \
		r.name = (char *)"a.B_c-9";                                                        \
		if (r.verb == SK__SESSION_VERB__SESSION_FORK)                                      \
			r.to = (char *)"b";                                                        \
		if (r.verb == SK__SESSION_VERB__SESSION_LOAD) {                                    \
			r.in_memfd = 1;                                                            \
			r.saved_bytes = 1000;                                                      \
		}                                                                                  \
		check(&r, "as it is", NULL);                                                       \
		spoil;                                                                             \
		check(&r, #VERB ": " #spoil, fragment);                                            \
	} while (0)

static void ranges_of_a_session_request(void **state)
{
	(void)state;
	char name[66];
	memset(name, 'n', sizeof name);
	name[65] = 0;

	EXPECT(SHOW, r.verb = 0, "SessionRequest.verb is 0; 1 to 7");
	EXPECT(SHOW, r.verb = 8, "SessionRequest.verb is 8; 1 to 7");
	EXPECT(SHOW, r.name = (char *)"", "SessionRequest.name has 0 bytes; 1 to 64");
	EXPECT(SHOW, r.name = name, "SessionRequest.name has 65 bytes; 1 to 64");
	EXPECT(SHOW, r.name = name + 1, NULL);
	EXPECT(DELETE, r.name = (char *)"../x", "SessionRequest.name has the byte 0x2f at 2");
	EXPECT(SAVE, r.name = (char *)"a b", "SessionRequest.name has the byte 0x20 at 1");
	EXPECT(SHOW, r.to = (char *)"b", "SessionRequest.to is given; only with verb 2");
	EXPECT(LOAD, r.to = (char *)"b", "SessionRequest.to is given");
	EXPECT(FORK, r.to = (char *)"", "SessionRequest.to has 0 bytes; 1 to 64");
	EXPECT(FORK, r.to = (char *)"\n", "SessionRequest.to has the byte 0x0a at 0");
	EXPECT(FORK, r.to = r.name, "SessionRequest.to is the session's own name");
	EXPECT(FORK, r.replace = 1, NULL);
	EXPECT(LOAD, r.replace = 1, NULL);
	EXPECT(RESET, r.replace = 1, "SessionRequest.replace is given; only with verb 2 (fork) or");
	EXPECT(LOAD, r.in_memfd = 0, "SessionRequest.in_memfd is not set");
	EXPECT(SAVE, r.in_memfd = 1, "SessionRequest.in_memfd is given; only with verb 6 (load)");
	EXPECT(LOAD, r.saved_bytes = 0, "SessionRequest.saved_bytes is 0; 1 to 1000");
	EXPECT(LOAD, r.saved_bytes = 1001, "SessionRequest.saved_bytes is 1001; 1 to 1000");
	EXPECT(LOAD, r.saved_bytes = UINT64_MAX, "1 to 1000");
	EXPECT(KEEP, r.saved_bytes = 1, "SessionRequest.saved_bytes is given; only with verb 6");
	EXPECT(KEEP, r.has_ttl_case = SK__SESSION_REQUEST__HAS_TTL_TTL_MS, NULL);
	EXPECT(KEEP,
	       (r.has_ttl_case = SK__SESSION_REQUEST__HAS_TTL_TTL_MS, r.ttl_ms = 3162240000000),
	       NULL);
	EXPECT(KEEP,
	       (r.has_ttl_case = SK__SESSION_REQUEST__HAS_TTL_TTL_MS, r.ttl_ms = 3162240000001),
	       "SessionRequest.ttl_ms is 3162240000001; up to 3162240000000");
	EXPECT(SHOW, r.has_ttl_case = SK__SESSION_REQUEST__HAS_TTL_TTL_MS,
	       "SessionRequest.ttl_ms is given; only with verb 7");
}

/* --- Unpacking --- */

/* What unpacking says to the message beside n_fds descriptors; NULL: it is good. */
static void unpack(const ProtobufCMessage *m, unsigned n_fds, const char *fragment)
{
	static uint8_t bytes[SK_FRAME_MOST_BYTES];
	struct sk_diag diag = {""};
	struct sk_frame frame = {.message = bytes, .n_fds = n_fds};
	bool is_client = m->descriptor == &sk__client_message__descriptor;
	Sk__ClientMessage *c;
	Sk__ServerMessage *s;

	assert_true(protobuf_c_message_get_packed_size(m) <= sizeof bytes);
	frame.n_bytes = protobuf_c_message_pack(m, bytes);
	int r = is_client ? sk_client_message_unpack(&frame, &c, &diag)
			  : sk_server_message_unpack(&frame, &s, &diag);
	if (fragment ? r != -EBADMSG || !strstr(diag.text, fragment) : r != 0)
		fail_msg("%d '%s', not '%s'", r, diag.text, fragment ? fragment : "good");
	if (r == 0 && is_client)
		sk__client_message__free_unpacked(c, NULL);
	else if (r == 0)
		sk__server_message__free_unpacked(s, NULL);
}

static void descriptors_of_a_session_request(void **state)
{
	(void)state;
	Sk__ClientMessage m = SK__CLIENT_MESSAGE__INIT;
	Sk__SessionRequest request = SK__SESSION_REQUEST__INIT;
	Sk__ListRequest list = SK__LIST_REQUEST__INIT;

	m.request = 1;
	m.body_case = SK__CLIENT_MESSAGE__BODY_SESSION;
	m.session = &request;
	unpack(&m.base, 0, NULL);
	unpack(&m.base, 1, "SessionRequest came with 1 descriptors beside it, but has 0");
	request.in_memfd = 1;
	unpack(&m.base, 0, "SessionRequest came with 0 descriptors");
	unpack(&m.base, 1, NULL);
	unpack(&m.base, 2, "SessionRequest came with 2 descriptors");
	m.body_case = SK__CLIENT_MESSAGE__BODY_LIST;
	m.list = &list;
	unpack(&m.base, 0, NULL);
	unpack(&m.base, 1, "came with 1 descriptors");
}

static void what_a_daemon_answers(void **state)
{
	(void)state;
	Sk__ServerMessage m = SK__SERVER_MESSAGE__INIT;
	Sk__SessionAnswer answer = SK__SESSION_ANSWER__INIT;
	Sk__SessionInfo info = SK__SESSION_INFO__INIT, *infos[] = {&info};
	Sk__Policy policy = SK__POLICY__INIT;
	Sk__Listing listing = SK__LISTING__INIT;
	Sk__RequestInfo request = SK__REQUEST_INFO__INIT, *requests[] = {&request};

	m.request = 1;
	m.body_case = SK__SERVER_MESSAGE__BODY_SESSION;
	m.session = &answer;
	unpack(&m.base, 0, "SessionAnswer.session is missing");
	answer.session = &info;
	unpack(&m.base, 0, "SessionInfo.policy is missing");
	info.policy = &policy;
	unpack(&m.base, 0, NULL);
	unpack(&m.base, 1, "SessionAnswer came with 1 descriptors");
	answer.saved_bytes = 9;
	unpack(&m.base, 0, "SessionAnswer.saved_bytes is 9 without in_memfd");
	answer.in_memfd = 1;
	unpack(&m.base, 1, NULL);
	unpack(&m.base, 0, "SessionAnswer came with 0 descriptors");
	answer.saved_bytes = 0;
	unpack(&m.base, 1, "SessionAnswer.saved_bytes is 0 with in_memfd");
	answer.in_memfd = 0;
	info.name = (char *)"\x1b[2J"; /* a terminal would obey */
	unpack(&m.base, 0, "SessionInfo.name has the byte 0x1b at 0");
	m.request = 0;
	unpack(&m.base, 0, "for request 0");

	m.request = 1;
	m.body_case = SK__SERVER_MESSAGE__BODY_LISTING;
	m.listing = &listing;
	unpack(&m.base, 0, NULL);
	unpack(&m.base, 1, "Listing came with 1 descriptors");
	listing.sessions = infos;
	listing.n_sessions = 1;
	unpack(&m.base, 0, "SessionInfo.name has the byte 0x1b");
	info.name = (char *)"";
	unpack(&m.base, 0, NULL);
	info.policy = NULL;
	unpack(&m.base, 0, "SessionInfo.policy is missing");
	listing.n_sessions = 0;
	listing.requests = requests;
	listing.n_requests = 1;
	unpack(&m.base, 0, NULL);
	request.session = (char *)"a/b";
	unpack(&m.base, 0, "RequestInfo.session has the byte 0x2f at 1");
}

/* A frame of 128 entries is taken, however much they say (a frame is short) and however little (what it unpacks to is bounded by its length). */
static void as_many_as_a_frame_holds(void **state)
{
	(void)state;
	enum { N = 128 };
	static Sk__SessionInfo infos[N], *sessions[N];
	static Sk__UserInfo users[N], *user_pointers[N];
	static Sk__RequestInfo requests[N], *request_pointers[N];
	Sk__ServerMessage m = SK__SERVER_MESSAGE__INIT;
	Sk__Listing listing = SK__LISTING__INIT;
	Sk__Policy policy = SK__POLICY__INIT;
	char name[65];

	memset(name, 'n', sizeof name);
	name[64] = 0;
	m.request = UINT32_MAX;
	m.body_case = SK__SERVER_MESSAGE__BODY_LISTING;
	m.listing = &listing;
	policy.mode = SK__MODE__MODE_STREAMING;
	policy.has_sink_case = SK__POLICY__HAS_SINK_SINK;
	policy.has_window_case = SK__POLICY__HAS_WINDOW_WINDOW;
	policy.has_slack_case = SK__POLICY__HAS_SLACK_SLACK;
	for (int is_long = 0; is_long < 2; is_long++) {
		for (int i = 0; i < N; i++) {
			infos[i] = (Sk__SessionInfo)SK__SESSION_INFO__INIT;
			infos[i].policy = &policy;
			users[i] = (Sk__UserInfo)SK__USER_INFO__INIT;
			users[i].uid = 1000 + (uint32_t)i;
			users[i].weight = 1;
			requests[i] = (Sk__RequestInfo)SK__REQUEST_INFO__INIT;
			requests[i].request = requests[i].age_ns = requests[i].ring_slots = 256;
			sessions[i] = &infos[i];
			user_pointers[i] = &users[i];
			request_pointers[i] = &requests[i];
			if (!is_long)
				continue;
			infos[i].name = name;
			infos[i].uid = UINT32_MAX;
			infos[i].position = infos[i].live = infos[i].pages = UINT64_MAX;
			infos[i].shared_pages = infos[i].stored_bytes = UINT64_MAX;
			infos[i].age_ns = infos[i].idle_ns = infos[i].ttl_ms = UINT64_MAX;
			infos[i].requests = infos[i].generated_tokens = UINT64_MAX;
			requests[i].session = name;
		}
		policy.sink = policy.window = policy.slack = is_long ? UINT32_MAX : 0;
		listing = (Sk__Listing)SK__LISTING__INIT;
		listing.sessions = sessions;
		listing.n_sessions = N;
		unpack(&m.base, 0, NULL);
		listing.n_sessions = 0;
		listing.users = user_pointers;
		listing.n_users = N;
		unpack(&m.base, 0, NULL);
		listing.n_users = 0;
		listing.requests = request_pointers;
		listing.n_requests = N;
		unpack(&m.base, 0, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranges_of_a_session_request),
		cmocka_unit_test(descriptors_of_a_session_request),
		cmocka_unit_test(what_a_daemon_answers),
		cmocka_unit_test(as_many_as_a_frame_holds),
	};
	return sk_test_run(tests, NULL, NULL);
}
