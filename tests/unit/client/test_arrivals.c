/* Traces of requests: Azure's, and what is none. */
#include "client/arrivals.h"
#include "sk_test.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define HEADING "TIMESTAMP,ContextTokens,GeneratedTokens\n"

static struct sk_arrivals parse(const char *text)
{
	struct sk_arrivals arrivals;
	struct sk_diag diag;
	if (sk_arrivals_parse("t.csv", text, strlen(text), &arrivals, &diag) < 0)
		fail_msg("%s", diag.text);
	return arrivals;
}

static void assert_row(const struct sk_arrivals *arrivals, size_t i, double at_s, uint64_t prompt,
		       uint64_t output)
{
	assert_true(i < arrivals->n_items);
	assert_true(fabs(arrivals->items[i].at_s - at_s) < 1e-5);
	assert_int_equal(arrivals->items[i].prompt_tokens, prompt);
	assert_int_equal(arrivals->items[i].output_tokens, output);
}

static void test_azure(void **state)
{
	(void)state;
	struct sk_arrivals a = parse(HEADING "2023-11-16 23:59:59.5000000,374,44\n"
					     "2023-11-17 00:00:00,396,109\n"
					     "2023-11-17 00:01:00.2500000,879,55\n");
	assert_int_equal(a.n_items, 3);
	assert_row(&a, 0, 0, 374, 44);
	assert_row(&a, 1, 0.5, 396, 109);
	assert_row(&a, 2, 60.75, 879, 55);
	sk_arrivals_finish(&a);
}

/* Other columns, other line ends, no last newline, zones, rows out of order. */
static void test_as_files_are(void **state)
{
	(void)state;
	struct sk_arrivals a = parse("id, GeneratedTokens ,TIMESTAMP,ContextTokens\r\n"
				     "x,5,2024-02-29T12:00:01+02:00,7\r\n"
				     "\r\n"
				     "y,6,2024-02-29 10:00:00Z,8\r\n"
				     "z,9,2024-02-29 05:30:02.5-04:30,10");
	assert_int_equal(a.n_items, 3);
	assert_row(&a, 0, 0, 8, 6);
	assert_row(&a, 1, 1, 7, 5);
	assert_row(&a, 2, 2.5, 10, 9);
	sk_arrivals_finish(&a);
	a = parse(HEADING "100.5,1,2\n101,3,4\n");
	assert_row(&a, 0, 0, 1, 2);
	assert_row(&a, 1, 0.5, 3, 4);
	sk_arrivals_finish(&a);
}

static void test_many(void **state)
{
	static char text[200000] = HEADING;
	size_t n = strlen(text);
	(void)state;
	for (int i = 0; i < 5000; i++)
		n += (size_t)sprintf(text + n, "%d,%d,%d\n", i, i + 1, i + 2);
	struct sk_arrivals a = parse(text);
	assert_int_equal(a.n_items, 5000);
	for (size_t i = 0; i < 5000; i++)
		assert_row(&a, i, (double)i, i + 1, i + 2);
	sk_arrivals_finish(&a);
}

static void test_what_is_none(void **state)
{
	static const struct {
		const char *text, *words;
	} bad[] = {
		{"", "t.csv holds no request"},
		{HEADING, "t.csv holds no request"},
		{HEADING "\n \n", "t.csv holds no request"},
		{"TIMESTAMP,ContextTokens\n1,2\n", "t.csv:1: the columns"},
		{"1,2,3\n", "t.csv:1: the columns"},
		{HEADING "1,2,3\n,2,3\n", "t.csv:3: TIMESTAMP"},
		{HEADING "yesterday,2,3\n", "t.csv:2: TIMESTAMP"},
		{HEADING "nan,2,3\n", "t.csv:2: TIMESTAMP"},
		{HEADING "-5,2,3\n", "t.csv:2: TIMESTAMP"},
		{HEADING "2023-13-01 00:00:00,2,3\n", "t.csv:2: TIMESTAMP"},
		{HEADING "2023-11-16,2,3\n", "t.csv:2: TIMESTAMP"},
		{HEADING "2023-11-16 24:00:00,2,3\n", "t.csv:2: TIMESTAMP"},
		{HEADING "2023-11-16 10:-1:00,2,3\n", "t.csv:2: TIMESTAMP"},
		{HEADING "2023-11-16 10:00:00 noon,2,3\n", "t.csv:2: TIMESTAMP"},
		{HEADING "2023-11-16 10:00:00+0200,2,3\n", "t.csv:2: TIMESTAMP"},
		{HEADING "1,,3\n", "t.csv:2: ContextTokens"},
		{HEADING "1,0,3\n", "t.csv:2: ContextTokens"},
		{HEADING "1,-2,3\n", "t.csv:2: ContextTokens"},
		{HEADING "1,2.5,3\n", "t.csv:2: ContextTokens"},
		{HEADING "1,99999999999999999999,3\n", "t.csv:2: ContextTokens"},
		{HEADING "1,2\n", "t.csv:2: GeneratedTokens"},
		{HEADING "1,2,many\n", "t.csv:2: GeneratedTokens"},
		{HEADING "1,2,0\n", "t.csv:2: GeneratedTokens"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct sk_arrivals arrivals;
		struct sk_diag diag = {""};
		if (sk_arrivals_parse("t.csv", bad[i].text, strlen(bad[i].text), &arrivals,
				      &diag) != -EINVAL)
			fail_msg("'%s' was taken", bad[i].text);
		if (strncmp(diag.text, bad[i].words, strlen(bad[i].words)) != 0)
			fail_msg("'%s': %s", bad[i].text, diag.text);
	}
}

/* Fields of any length, and any bytes. */
static void test_noise(void **state)
{
	static char text[70000] = HEADING;
	size_t n = strlen(text);
	struct sk_arrivals arrivals;
	struct sk_diag diag;
	(void)state;
	memset(text + n, '1', 60000);
	assert_int_equal(sk_arrivals_parse("t", text, n + 60000, &arrivals, &diag), -EINVAL);
	memset(text + n, 0, 60000);
	assert_int_equal(sk_arrivals_parse("t", text, n + 60000, &arrivals, &diag), -EINVAL);
	memset(text + n, ',', 60000);
	assert_int_equal(sk_arrivals_parse("t", text, n + 60000, &arrivals, &diag), -EINVAL);
}

static void test_a_day_of_azure(void **state)
{
	const char *path = sk_test_data("traces/AzureLLMInferenceTrace_conv.csv");
	struct sk_arrivals a;
	struct sk_diag diag;
	(void)state;
	sk_test_need(path);
	FILE *file = fopen(path, "r");
	static char text[1 << 20];
	size_t n = fread(text, 1, sizeof text, file);
	fclose(file);
	assert_int_equal(sk_arrivals_parse(path, text, n, &a, &diag), 0);
	assert_int_equal(a.n_items, 19366);
	assert_row(&a, 0, 0, 374, 44);
	assert_row(&a, 1, 4.314579, 396, 109);
	sk_arrivals_finish(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_azure), cmocka_unit_test(test_as_files_are),
		cmocka_unit_test(test_many),  cmocka_unit_test(test_what_is_none),
		cmocka_unit_test(test_noise), cmocka_unit_test(test_a_day_of_azure),
	};
	return sk_test_run(tests, NULL, NULL);
}
