/* The options table: argv, configuration lines, help and man page. */
#include "sk_test.h"

#include "base/options.h"

#include <errno.h>
#include <string.h>

struct opts {
	bool fast, quiet;
	const char *name;
	uint64_t count, size;
	double heat;
	uint64_t pause;
	int colour;
	struct sk_option_list stops;
};

#define AT(member) offsetof(struct opts, member)
static const char *const colours[] = {"red", "green", NULL};
static const struct sk_option table[] = {
	{"fast", 'f', SK_OPTION_FLAG, AT(fast), .help = "Be fast."},
	{"quiet", 'q', SK_OPTION_FLAG, AT(quiet), .help = "Be quiet."},
	{"name", 'n', SK_OPTION_STRING, AT(name), "NAME", "Ada", .help = "Whose."},
	{"count", 'c', SK_OPTION_UINT, AT(count), "N", "7", .min = 2, .max = 1000,
	 .help = "How many."},
	{"size", 's', SK_OPTION_BYTES, AT(size), "SIZE", "1K", .min = 1, .help = "How big."},
	{"heat", 't', SK_OPTION_FLOAT, AT(heat), "T", "0.5", .fmin = 0, .fmax = 2,
	 .help = "How hot."},
	{"pause", 0, SK_OPTION_DURATION, AT(pause), "TIME", "2s", .min = 100000000,
	 .max = UINT64_C(3600000000000), .help = "How long to wait."},
	{"colour", 0, SK_OPTION_CHOICE, AT(colour), NULL, "green", .choices = colours,
	 .help = "Which."},
	{"stop", 0, SK_OPTION_LIST, AT(stops), "TEXT", .help = "Where to end."},
	{"secret", 0, SK_OPTION_STRING, AT(name), "X", .not_in_file = true},
	{0},
};

static struct opts opts;
static struct sk_diag diag;
static char *rest[40];
static int n_rest;
static bool help;

/* Parses the words up to NULL over the defaults. */
static int parse(const char *const *words)
{
	int argc = 1;

	memset(&opts, 0, sizeof opts);
	diag.text[0] = '\0';
	assert_int_equal(sk_options_defaults(table, &opts, &diag), 0);
	rest[0] = (char *)"program";
	for (; words[argc - 1]; argc++)
		rest[argc] = (char *)words[argc - 1];
	return sk_options_parse(table, &opts, argc, rest, &n_rest, &help, &diag);
}
#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

static void test_defaults(void **state)
{
	(void)state;
	assert_int_equal(PARSE(NULL), 0);
	assert_false(opts.fast || opts.quiet || help);
	assert_string_equal(opts.name, "Ada");
	assert_int_equal(opts.count, 7);
	assert_int_equal(opts.size, 1024);
	assert_true(opts.heat == 0.5);
	assert_int_equal(opts.pause, 2000000000);
	assert_int_equal(opts.colour, 1);
	assert_int_equal(opts.stops.n_items, 0);
	assert_int_equal(n_rest, 0);
}

static void test_every_spelling(void **state)
{
	(void)state;
	assert_int_equal(
		PARSE("--count", "12", "--name=Bo", "-t", "1.25", "-s3M", "-fq", "--colour=red"),
		0);
	assert_int_equal(opts.count, 12);
	assert_string_equal(opts.name, "Bo");
	assert_true(opts.heat == 1.25);
	assert_int_equal(opts.size, 3 << 20);
	assert_true(opts.fast && opts.quiet);
	assert_int_equal(opts.colour, 0);
	assert_int_equal(PARSE("-qc9", "--name", "--fast"),
			 0); /* a value may look like an option */
	assert_true(opts.quiet);
	assert_false(opts.fast);
	assert_int_equal(opts.count, 9);
	assert_string_equal(opts.name, "--fast");
	assert_int_equal(PARSE("--count", "12", "--count", "13", "--name="),
			 0); /* the last one stands */
	assert_int_equal(opts.count, 13);
	assert_string_equal(opts.name, "");
	assert_int_equal(PARSE("--pause", "1.5m"), 0);
	assert_int_equal(opts.pause, UINT64_C(90000000000));
	assert_int_equal(PARSE("--stop", "a", "--stop=b"), 0);
	assert_int_equal(opts.stops.n_items, 2);
	assert_string_equal(opts.stops.items[0], "a");
	assert_string_equal(opts.stops.items[1], "b");
}

static void test_what_is_left(void **state)
{
	(void)state;
	assert_int_equal(PARSE("one", "-f", "-", "--count", "3", "--", "--quiet", "--", "x"), 0);
	assert_int_equal(n_rest, 5);
	static const char *const left[] = {"one", "-", "--quiet", "--", "x"};
	for (int i = 0; i < 5; i++)
		assert_string_equal(rest[1 + i], left[i]);
	assert_true(opts.fast);
	assert_false(opts.quiet);
	assert_int_equal(PARSE("--help"), 0);
	assert_true(help);
	assert_int_equal(PARSE("-fh"), 0);
	assert_true(help && opts.fast);
	assert_int_equal(PARSE("--", "--help"), 0);
	assert_false(help);
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {{"1", 1},
		     {"2k", 2048},
		     {"3G", 3ull << 30},
		     {"4T", 4ull << 40},
		     {"16777215T", 16777215ull << 40}};
	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_int_equal(PARSE("--size", cases[i].text), 0);
		assert_int_equal(opts.size, cases[i].bytes);
	}
}

static void test_faults_are_sentences(void **state)
{
	static const struct {
		const char *words[3], *says;
	} cases[] = {
		{{"--cuont", "3"}, "there is no option --cuont; did you mean --count?"},
		{{"--zzzzzzzz"}, "there is no option --zzzzzzzz"},
		{{"-x"}, "there is no option -x"},
		{{"--count"}, "--count wants a value (N)"},
		{{"-c"}, "-c wants a value (N)"},
		{{"--count", ""}, "--count"},
		{{"--count", "1"}, "--count"},
		{{"--count", "1001"}, "1000"},
		{{"--count", "-3"}, "-3"},
		{{"--count", "3x"}, "3x"},
		{{"--count", " 3"}, "--count"},
		{{"--count", "99999999999999999999"}, "99999999999999999999"},
		{{"--size", "16777216T"}, "16777216T"},
		{{"--size", "3X"}, "3X"},
		{{"--size", "0"}, "--size"},
		{{"--heat", "hot"}, "hot"},
		{{"--heat", "nan"}, "nan"},
		{{"--heat", "inf"}, "inf"},
		{{"--heat", "2.5"}, "2.5"},
		{{"--heat", ""}, "--heat"},
		{{"--pause", "0"}, "like 500ms, 90s, 10m, 2h or 7d, from 0.1s to 60m"},
		{{"--pause", "61m"}, "61m"},
		{{"--pause", "1w"}, "1w"},
		{{"--colour", "blue"}, "blue"},
		{{"--fast=maybe"}, "maybe"},
	};
	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		if (parse(cases[i].words) != -EINVAL)
			fail_msg("%s %s was taken", cases[i].words[0], cases[i].words[1]);
		if (!strstr(diag.text, cases[i].says))
			fail_msg("%s: says '%s'", cases[i].words[0], diag.text);
		assert_null(strchr(diag.text, '\n'));
	}
	const char *words[36];
	for (int i = 0; i < 34; i += 2) { /* a seventeenth */
		words[i] = "--stop";
		words[i + 1] = "x";
	}
	words[34] = NULL;
	assert_int_equal(parse(words), -EINVAL);
	assert_non_null(strstr(diag.text, "16"));
}

static void test_a_configuration_line(void **state)
{
	(void)state;
	assert_int_equal(PARSE(NULL), 0);
	assert_int_equal(sk_options_set(table, &opts, "count", "5", "f:1", &diag), 0);
	assert_int_equal(opts.count, 5);
	assert_int_equal(sk_options_set(table, &opts, "fast", "yes", "f:2", &diag), 0);
	assert_true(opts.fast);
	assert_int_equal(sk_options_set(table, &opts, "fast", "no", "f:3", &diag), 0);
	assert_false(opts.fast);
	static const struct {
		const char *name, *value;
	} bad[] = {{"count", "5000"},
		   {"secret", "x"},
		   {"colr", "red"},
		   {"fast", "perhaps"},
		   {"c", "5"}};
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(
			sk_options_set(table, &opts, bad[i].name, bad[i].value, "file:9", &diag),
			-EINVAL);
		assert_ptr_equal(strstr(diag.text, "file:9: "), diag.text);
	}
}

static char *printed(bool as_man)
{
	static const struct sk_option section[] = {
		{"shade", 0, SK_OPTION_UINT, 0, "N", "3", .help = "How dark."}, {0}};
	static const struct sk_command_help page = {
		.name = "some thing",
		.synopsis = "[X]",
		.summary = "does it",
		.text = "One.\n\nTwo.",
		.examples = "  some thing x\n",
		.exits = "   0  well\n",
		.sections = "Three.\n\nFour.",
		.section_table = section,
	};
	static char text[8192];
	FILE *file = fmemopen(text, sizeof text, "w");
	assert_non_null(file);
	if (as_man)
		sk_options_man(file, &page, table, 1);
	else
		sk_options_help(file, &page, table);
	fclose(file);
	return text;
}

static void test_help_tells_everything(void **state)
{
	static const char *const words[] = {"-f, --fast",
					    "-c, --count N",
					    "-s, --size SIZE",
					    "--colour red|green",
					    "--stop TEXT",
					    "--pause TIME",
					    "How many. Default: 7.",
					    "Two.",
					    "some thing x",
					    "   0  well",
					    "does it",
					    "-h, --help",
					    "Four.",
					    "shade = N",
					    "How dark. Default: 3."};
	(void)state;
	const char *text = printed(false);
	for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
		if (!strstr(text, words[i]))
			fail_msg("'%s' is not in: %s", words[i], text);
	}
	assert_null(strstr(text, "secret")); /* without a help text: for the build */
	for (const char *line = text; *line;) {
		size_t n = strcspn(line, "\n");
		assert_true(n <= 80);
		line += n + (line[n] == '\n');
	}
	text = printed(true);
	assert_ptr_equal(strstr(text, ".TH some-thing 1"), text);
	assert_non_null(strstr(text, "Four."));
	assert_non_null(strstr(text, "shade = N\nHow dark. Default: 3."));
	for (const struct sk_option *option = table; option->name; option++) {
		char name[64];
		snprintf(name, sizeof name, "\\-\\-%s", option->name);
		assert_true(!option->help == !strstr(text, name));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_every_spelling),
		cmocka_unit_test(test_what_is_left),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_faults_are_sentences),
		cmocka_unit_test(test_a_configuration_line),
		cmocka_unit_test(test_help_tells_everything),
	};
	return sk_test_run(tests, NULL, NULL);
}
