/* What is made from the daemon's tables of options and is not the daemon's own to print: its configuration file's man
 * page, a sample of that file, and what bash completes.
 *
 *     streamkv-pages man|sample|completion
 */
#include "daemon/options.h"

#include <err.h>
#include <string.h>
#include <sysexits.h>

static const struct sk_command_help page = {
	.name = "streamkvd.conf",
	.synopsis = "/etc/streamkv/streamkvd.conf",
	.summary = "what streamkvd is started with, and what its users may have",
	.text = "streamkvd reads this file at its start, or another that --config names, and then, "
		"in "
		"the order of their names, the files streamkvd.conf.d/*.conf beside it: what a "
		"later "
		"one says comes before what an earlier one said, and the command line before them "
		"all. SIGHUP has limits of users and the log level read again. Lines that begin "
		"with # or ; "
		"are comments. Whatever is wrong in it is told with file and line, and the daemon "
		"ends with code 78; streamkvd --check-config tells without starting anything.",
	.examples =
		"  model = /var/lib/streamkv/SmolLM2-135M-Instruct.Q4_1.gguf\n"
		"  kv-memory = 8G\n"
		"  socket-mode = 666\n"
		"\n"
		"  # for everybody who has no section of his own, and for what those leave out\n"
		"  [user *]\n"
		"  max-sessions = 20\n"
		"  kv-memory = 1G\n"
		"\n"
		"  # three times the share of others where there is not enough for all\n"
		"  [user ada]\n"
		"  weight = 3\n",
};

int main(int argc, char **argv)
{
	const char *what = argc == 2 ? argv[1] : "";

	if (strcmp(what, "man") == 0) {
		sk_options_man_file(stdout, &page, &sk_daemon_help, sk_daemon_option_table);
	} else if (strcmp(what, "sample") == 0) {
		printf("# /etc/streamkv/streamkvd.conf: see streamkvd.conf(5). Here everything is "
		       "commented out; the model must be named.\n");
		sk_options_sample_file(stdout, &sk_daemon_help, sk_daemon_option_table);
	} else if (strcmp(what, "completion") == 0) {
		const struct sk_completion all = {NULL, sk_daemon_option_table};
		sk_options_completion(stdout, "streamkvd", &all, 1);
	} else {
		errx(EX_USAGE, "usage: streamkv-pages man|sample|completion");
	}
	return fflush(stdout) ? EX_IOERR : 0;
}
