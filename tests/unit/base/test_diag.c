/* The sentence for the user. */
#include "base/diag.h"

#include "sk_test.h"

#include <errno.h>
#include <string.h>

static void writes_the_sentence_and_returns_the_error(void **state)
{
	(void)state;
	struct sk_diag diag = {"before"};
	assert_int_equal(sk_diag_fail(&diag, EINVAL, "%s: %d rows", "file", 7), -EINVAL);
	assert_string_equal(diag.text, "file: 7 rows");
}

static void no_words_wanted_is_no_fault(void **state)
{
	(void)state;
	assert_int_equal(sk_diag_fail(NULL, ENOENT, "%s", "unheard"), -ENOENT);
}

static void a_long_sentence_is_cut_at_the_end(void **state)
{
	(void)state;
	struct sk_diag diag;
	memset(&diag, 'x', sizeof diag);
	assert_int_equal(sk_diag_fail(&diag, EINVAL, "%*s", 5000, "end"), -EINVAL);
	assert_int_equal(strlen(diag.text), sizeof diag.text - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_the_sentence_and_returns_the_error),
		cmocka_unit_test(no_words_wanted_is_no_fault),
		cmocka_unit_test(a_long_sentence_is_cut_at_the_end),
	};
	return sk_test_run(tests, NULL, NULL);
}
