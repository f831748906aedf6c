#include "client/sweep.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MOST   64 /* items */
#define NUMBER_MOST (1u << 30)

struct list {
	uint64_t numbers[LIST_MOST];
	unsigned n;
};

static bool parse_number(const char *text, size_t n_bytes, uint64_t *ret_number)
{
	uint64_t number = 0;

	for (size_t i = 0; i < n_bytes; i++) {
		if (!isdigit((unsigned char)text[i]))
			return false;
		number = 10 * number + (uint64_t)(text[i] - '0');
		if (number > NUMBER_MOST)
			return false;
	}
	*ret_number = number;
	return n_bytes > 0;
}

/* "256,512": 0, or the exit code. */
static int parse_list(const char *option, const char *text, struct list *ret_list)
{
	struct list list = {.n = 0};

	for (;;) {
		size_t n_bytes = strcspn(text, ",");
		if (list.n == LIST_MOST)
			return sk_said(EX_USAGE, "--%s: more than %d numbers", option, LIST_MOST);
		if (!parse_number(text, n_bytes, &list.numbers[list.n++]))
			return sk_said(EX_USAGE,
				       "--%s: '%.*s' is no number of tokens; a list such as %s is "
				       "wanted",
				       option, (int)n_bytes, text,
				       strcmp(option, "sinks") == 0 ? "0,1,2,4,8" : "256,512,1024");
		if (!text[n_bytes])
			break;
		text += n_bytes + 1;
	}
	*ret_list = list;
	return 0;
}

int64_t sk_sweep_capacity(const struct streamkv_policy *policy)
{
	return policy->mode == STREAMKV_DENSE ? 0 : policy->sink + policy->window;
}

static int say_no_window(const struct sk_sweep_opts *opts, uint64_t capacity, uint64_t sink)
{
	if (opts->capacities)
		return sk_said(EX_USAGE,
			       "--sweep: a capacity of %llu leaves no window beside %llu sinks; it "
			       "must be %llu or more",
			       (unsigned long long)capacity, (unsigned long long)sink,
			       (unsigned long long)sink + 1);
	return sk_said(
		EX_USAGE,
		"--sinks: %llu sinks leave no window in a capacity of %llu, which --sink and "
		"--window give",
		(unsigned long long)sink, (unsigned long long)capacity);
}

static int fill(const struct sk_sweep_opts *opts, const struct list *capacities,
		const struct list *sinks, struct sk_sweep *sweep)
{
	if (!opts->no_dense)
		sweep->policies[sweep->n_policies++] =
			(struct streamkv_policy){.mode = STREAMKV_DENSE, .window = -1, .slack = -1};
	for (unsigned i = 0; i < capacities->n; i++) {
		for (unsigned j = 0; j < sinks->n; j++) {
			uint64_t capacity = capacities->numbers[i], sink = sinks->numbers[j];
			if (capacity <= sink)
				return say_no_window(opts, capacity, sink);
			sweep->policies[sweep->n_policies++] = (struct streamkv_policy){
				.mode = sink ? STREAMKV_STREAMING : STREAMKV_WINDOW,
				.sink = (int64_t)sink,
				.window = (int64_t)(capacity - sink),
				.slack = (int64_t)opts->slack,
			};
		}
	}
	return 0;
}

int sk_sweep_init(const struct sk_sweep_opts *opts, struct sk_sweep *ret_sweep)
{
	struct sk_sweep sweep = {.is_grid = opts->capacities || opts->sinks};
	struct list capacities = {{opts->sink + opts->window}, 1}, sinks = {{opts->sink}, 1};

	int exit_code = opts->capacities ? parse_list("sweep", opts->capacities, &capacities) : 0;
	if (!exit_code && opts->sinks)
		exit_code = parse_list("sinks", opts->sinks, &sinks);
	if (exit_code)
		return exit_code;
	sweep.policies = calloc(1 + capacities.n * sinks.n, sizeof *sweep.policies);
	if (!sweep.policies)
		return sk_said(EX_OSERR, "not enough memory");
	exit_code = fill(opts, &capacities, &sinks, &sweep);
	if (exit_code) {
		sk_sweep_finish(&sweep);
		return exit_code;
	}
	*ret_sweep = sweep;
	return 0;
}

void sk_sweep_finish(struct sk_sweep *sweep)
{
	free(sweep->policies);
	*sweep = (struct sk_sweep){0};
}

int sk_sweep_check(const struct sk_sweep *sweep, uint64_t context, uint64_t n_tokens)
{
	for (unsigned i = 0; i < sweep->n_policies; i++) {
		const struct streamkv_policy *policy = &sweep->policies[i];
		uint64_t capacity = (uint64_t)sk_sweep_capacity(policy);

		if (policy->mode == STREAMKV_DENSE && n_tokens > context)
			return sk_said(EX_DATAERR,
				       "a dense run holds at most %llu tokens: --tokens %llu or "
				       "less, or --no-dense",
				       (unsigned long long)context, (unsigned long long)context);
		/* The token itself has a place beside the cache. */
		if (policy->mode != STREAMKV_DENSE &&
		    capacity + (uint64_t)policy->slack + 1 > context)
			return sk_said(EX_DATAERR,
				       "a capacity of %llu, slack %lld and the token itself reach "
				       "%llu positions, but the model was trained on %llu; ask for "
				       "a smaller capacity or slack",
				       (unsigned long long)capacity, (long long)policy->slack,
				       (unsigned long long)capacity + (uint64_t)policy->slack + 1,
				       (unsigned long long)context);
	}
	return 0;
}
