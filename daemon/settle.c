/* From the command line and the configuration to options that go together. */
#include "daemon/options.h"

#include <errno.h>
#include <sysexits.h>

int sk_daemon_settle(struct sk_daemon_options *options, int argc, char **argv, struct sk_diag *diag)
{
	int n_rest;
	bool help;

	if (sk_daemon_read_config(options, diag) < 0)
		return EX_CONFIG;
	if (sk_options_parse(sk_daemon_option_table, options, argc, argv, &n_rest, &help, diag) < 0)
		return EX_USAGE;
	if (!options->model) {
		sk_diag_fail(diag, EINVAL,
			     "no model is named; give one with --model DIR or --model FILE.gguf");
		return EX_USAGE;
	}
	for (uint64_t digits = options->socket_mode; digits; digits /= 10) {
		if (digits % 10 > 7) {
			sk_diag_fail(diag, EINVAL,
				     "--socket-mode: '%llu' is not allowed; allowed are three "
				     "octal digits",
				     (unsigned long long)options->socket_mode);
			return EX_USAGE;
		}
	}
	if (options->step_tokens < options->max_batch) {
		sk_diag_fail(diag, EINVAL, "--step-tokens %llu is less than --max-batch %llu",
			     (unsigned long long)options->step_tokens,
			     (unsigned long long)options->max_batch);
		return EX_USAGE;
	}
	return 0;
}
