/* What `top` and the lists show: what they say, and that it fits. */
#include "sk_test.h"

#include "client/listing_out.h"
#include "client/screen.h"

#include <string.h>

#define MOST 100

static struct streamkv_session sessions[MOST];
static struct streamkv_request requests[MOST];
static struct streamkv_user users[MOST];

static struct sk_look look(size_t n_sessions, size_t n_requests, size_t n_users)
{
	struct sk_look now = {
		.status = {.server = "streamkvd 1",
			   .model = "a model",
			   .backend = "cpu",
			   .pages_total = 100,
			   .pages_used = 25,
			   .page_bytes = 2000000},
		.list = {sessions, requests, users, n_sessions, n_requests, n_users},
	};
	for (size_t i = 0; i < MOST; i++) {
		sessions[i] = (struct streamkv_session){.uid = (uint32_t)(MOST - i), .idle_ns = i};
		snprintf(sessions[i].name, sizeof sessions[i].name, "s%zu-%050d", i, 7);
		requests[i] = (struct streamkv_request){.uid = 4000000000u,
							.pid = (uint32_t)i,
							.state = STREAMKV_REQUEST_DECODE,
							.age_ns = i};
		users[i] = (struct streamkv_user){.uid = 4000000128u + (uint32_t)i};
	}
	return now;
}

static void drawn(unsigned width, unsigned height, size_t n_sessions, size_t n_requests,
		  size_t n_users, char *ret_text, size_t room)
{
	struct sk_look now = look(n_sessions, n_requests, n_users);
	struct sk_page page = {.width = width, .height = height};
	assert_int_equal(sk_page_init(&page), 0);
	assert_int_equal(sk_screen_draw(&page, &now, NULL), 0);
	const char *text = sk_page_text(&page);
	assert_non_null(text);
	assert_true(strlen(text) < room);
	strcpy(ret_text, text);
	sk_page_finish(&page);
}

static void it_fits_every_terminal(void **state)
{
	static const size_t counts[][3] = {{0, 0, 0},    {1, 1, 1},    {3, 3, 3},     {MOST, 0, 0},
					   {0, MOST, 0}, {0, 0, MOST}, {MOST, 40, 5}, {2, MOST, 1}};
	static char text[1 << 18];
	(void)state;
	for (unsigned height = 1; height < 40; height++) {
		for (unsigned width = 1; width < 130; width += 7) {
			for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
				unsigned n_lines = 0;
				drawn(width, height, counts[i][0], counts[i][1], counts[i][2], text,
				      sizeof text);
				for (char *line = text, *end; (end = strchr(line, '\n'));
				     line = end + 1) {
					n_lines++;
					assert_true(end - line <= (ptrdiff_t)width);
				}
				assert_true(n_lines <= height);
			}
		}
	}
}

static size_t n_times(const char *text, const char *word)
{
	size_t n = 0;
	for (; (text = strstr(text, word)); text++)
		n++;
	return n;
}

static void every_part_has_its_share(void **state)
{
	static char text[1 << 18];
	(void)state;
	drawn(0, 24, MOST, MOST, MOST, text, sizeof text);
	assert_int_equal(n_times(text, "\n"), 24);
	assert_int_equal(n_times(text, "... and "), 3);
	assert_non_null(strstr(text, "QUEUED"));
	assert_non_null(strstr(text, "PLACE"));
	assert_non_null(strstr(text, "KEPT"));

	drawn(0, 24, MOST, 1, 1, text, sizeof text); /* what one does not need, another has */
	assert_int_equal(n_times(text, "\n"), 24);
	assert_int_equal(n_times(text, "decode"), 1);
	assert_int_equal(n_times(text, " idle "), 11);
	assert_non_null(strstr(text, "... and 89 more"));

	drawn(0, 0, MOST, MOST, MOST, text, sizeof text);
	assert_int_equal(n_times(text, "... and "), 0);
	assert_int_equal(n_times(text, "\n"), 4 + 3 * (2 + MOST));
}

static void it_says_how_fast(void **state)
{
	struct sk_look before = look(0, 0, 2), now;
	struct streamkv_user users_before[2];
	(void)state;
	memcpy(users_before, users, sizeof users_before);
	before.list.users = users_before;
	users_before[1].generated_tokens = 100;
	before.status.steps = 10;
	before.at_s = 5;
	now = look(0, 0, 2);
	now.at_s = 7;
	now.status.steps = 30;
	now.status.prompt_tokens = 1000;
	now.status.generated_tokens = 5;
	users[0].prompt_tokens = 7;
	users[1].generated_tokens = 103;
	struct sk_page page = {0};
	assert_int_equal(sk_page_init(&page), 0);
	assert_int_equal(sk_screen_draw(&page, &now, &before), 0);
	const char *text = sk_page_text(&page);
	assert_non_null(
		strstr(text, "500.0 prompt tokens/s, 2.5 generated tokens/s, 10.0 steps/s"));
	assert_non_null(strstr(text, "[#####...............] 25 of 100 KV pages, 50 of 200 MB"));
	const char *first = strstr(text, "4000000128"), *second = strstr(text, "4000000129");
	assert_non_null(first);
	assert_true(strstr(first, "3.5") < second);
	assert_non_null(strstr(second, "1.5"));
	sk_page_finish(&page);
}

static void in_the_order_of_turns(void **state)
{
	struct sk_look now = look(3, 6, 2);
	(void)state;
	requests[0].state = STREAMKV_REQUEST_TOKENIZING;
	requests[1].state = requests[2].state = STREAMKV_REQUEST_QUEUED;
	requests[1].queue_place = 2;
	requests[2].queue_place = 1;
	requests[4].state = STREAMKV_REQUEST_PAUSED;
	sk_list_sort(&now.list, false);
	static const uint32_t pids[] = {5, 4, 3, 2, 1, 0};
	for (int i = 0; i < 6; i++)
		assert_int_equal(requests[i].pid, pids[i]);
	assert_int_equal(sessions[0].uid, MOST - 2);
	sk_list_sort(&now.list, true);
	assert_int_equal(sessions[0].uid, MOST);
}

static void words_of_a_request(void **state)
{
	struct sk_look now = look(0, 3, 0);
	struct sk_page page = {0};
	(void)state;
	requests[0] = (struct streamkv_request){.uid = 4000000000u,
						.pid = 12,
						.request = 3,
						.state = STREAMKV_REQUEST_PROMPT,
						.evaluates = true,
						.session = "notes",
						.prompt_tokens = 500,
						.evaluated_tokens = 256,
						.live = 77,
						.ring_fill = 1024,
						.ring_slots = 4096,
						.age_ns = UINT64_C(61000000000)};
	requests[1] = requests[0];
	requests[1].evaluates = false;
	requests[1].state = STREAMKV_REQUEST_QUEUED;
	requests[1].queue_place = 9;
	requests[1].session[0] = '\0';
	now.list.n_requests = 2;
	assert_int_equal(sk_page_init(&page), 0);
	assert_int_equal(sk_put_requests(&now.list, &page, SIZE_MAX), 0);
	sk_page_line(&page, "a\x1b[2Jb\xc3\xa9"); /* a terminal would obey */
	assert_string_equal(
		sk_page_text(&page),
		"USER        PID  REQ  STATE    SESSION   PROMPT  TOKENS  LIVE  PLACE  RING  AGE\n"
		"4000000000   12    3  scoring  notes    256/500       0    77      -   25%  61s\n"
		"4000000000   12    3  queued   -            500       0    77      9   25%  61s\n"
		"a?[2Jb\xc3\xa9\n");
	sk_page_finish(&page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_fits_every_terminal),
		cmocka_unit_test(every_part_has_its_share),
		cmocka_unit_test(it_says_how_fast),
		cmocka_unit_test(in_the_order_of_turns),
		cmocka_unit_test(words_of_a_request),
	};
	return sk_test_run(tests, NULL, NULL);
}
