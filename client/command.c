#include "client/command.h"

#include "client/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <utf8proc.h>

const char sk_command_exits[] =
	"   0  all is well\n"
	"  64  an option or argument is wrong\n"
	"  65  the input cannot be used (an empty prompt, ids that are no numbers)\n"
	"  66  an input file or standard input cannot be read\n"
	"  69  no daemon listens\n"
	"  70  the model failed\n"
	"  71  the system refused something (memory, descriptors)\n"
	"  73  an output file cannot be made\n"
	"  74  output cannot be written\n"
	"  75  the daemon refused (its caches are full, the session is busy), or died: try again\n"
	"  76  what answers is no streamkvd, or of another version\n"
	"  77  the administrator's limit for you is reached, and does not pass by itself\n"
	" 130  ended by Ctrl-C, after what had been generated was printed (143: by SIGTERM)\n"
	" 141  the reader of standard output has gone (as the shell shows SIGPIPE)\n";

int sk_said(int exit_code, const char *format, ...)
{
	va_list args;
	sk_terminal_clear();
	fprintf(stderr, "streamkv-client: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return exit_code;
}

int sk_exit_code_of(int err)
{
	switch (err) {
	case -ENOENT:
	case -ECONNREFUSED:
	case -EACCES:
		return EX_UNAVAILABLE;
	case -ENOMEM:
	case -EMFILE:
		return EX_OSERR;
	case -EPROTO:
	case -EPROTONOSUPPORT:
	case -EBADMSG:
		return EX_PROTOCOL;
	case -EINVAL:
	case -ERANGE:
	case -EILSEQ:
	case -EMSGSIZE:
	case -EOVERFLOW:
		return EX_DATAERR;
	case -EDQUOT:
		return EX_NOPERM;
	default:
		return EX_TEMPFAIL;
	}
}

/* --- Connecting --- */

#define QUIET_MS 2000 /* before it is said that one waits */

struct wait {
	double end_s; /* by sk_now_s(); or INFINITY */
	bool is_said;
};

/* Until there is something to say, or the end. */
static int portion_ms(const struct wait *wait)
{
	const double left_s = fmax(wait->end_s - sk_now_s(), 0);
	if (!wait->is_said && left_s > QUIET_MS * 1e-3)
		return QUIET_MS;
	return isinf(left_s) ? -1 : (int)(left_s * 1e3) + 1;
}

/* Whether the wait goes on, after -ETIMEDOUT of a portion or a signal. */
static bool goes_on(struct wait *wait, int err)
{
	if (sk_interrupted() || sk_now_s() >= wait->end_s)
		return false;
	if (err == -ETIMEDOUT && !wait->is_said) {
		if (isatty(STDERR_FILENO))
			fprintf(stderr, "streamkv-client: waiting for the daemon, which is loading "
					"its model or is full\n");
		wait->is_said = true;
	}
	return err == -ETIMEDOUT || err == -EINTR;
}

/* One connection, which keeps its place as long as somebody may answer there: one that is given up stays in the daemon's
 * way until it has accepted it. */
static int connect_once(const char *socket, struct wait *wait, struct streamkv **ret_kv,
			struct streamkv_error *error)
{
	struct streamkv *kv;
	int err;

	do
		err = streamkv_call_up(socket, 0, portion_ms(wait), &kv, error);
	while (err < 0 && goes_on(wait, err));
	if (err < 0)
		return err;
	do
		err = streamkv_await_welcome(kv, portion_ms(wait), error);
	while (err < 0 && goes_on(wait, err));
	if (err < 0)
		streamkv_close(kv);
	else
		*ret_kv = kv;
	return err;
}

/* Whether another try may go better: nobody listens yet, or it was the one that is ending, or it loads. */
static bool may_come(int err)
{
	return err == -ENOENT || err == -ECONNREFUSED || err == -ECONNRESET || err == -ESHUTDOWN;
}

static struct streamkv *connect_until(const char *socket, struct wait *wait, bool tries_again,
				      int *ret_exit_code)
{
	const struct timespec moment = {.tv_nsec = 20000000};
	struct streamkv_error error;
	struct streamkv *kv;

	for (;;) {
		int err = connect_once(socket, wait, &kv, &error);
		if (err >= 0)
			return kv;
		if (sk_interrupted()) {
			*ret_exit_code = 128 + sk_interrupted();
			return NULL;
		}
		if (!tries_again || !may_come(err) || sk_now_s() >= wait->end_s) {
			*ret_exit_code = sk_said(sk_exit_code_of(err), "%s", error.text);
			return NULL;
		}
		nanosleep(&moment, NULL);
	}
}

struct streamkv *sk_connect(const char *socket, int *ret_exit_code)
{
	struct wait wait = {.end_s = INFINITY};
	return connect_until(socket, &wait, false, ret_exit_code);
}

struct streamkv *sk_connect_within(const char *socket, double seconds, int *ret_exit_code)
{
	struct wait wait = {.end_s = sk_now_s() + seconds};
	if (seconds <= 0)
		return sk_connect(socket, ret_exit_code);
	return connect_until(socket, &wait, true, ret_exit_code);
}

/* --- Input and output --- */

static int append(struct sk_input *input, size_t *n_allocated, const char *bytes, size_t n)
{
	if (input->n_bytes + n + 1 > *n_allocated) {
		size_t wanted = 2 * (input->n_bytes + n) + 4096;
		char *grown = realloc(input->bytes, wanted);
		if (!grown)
			return sk_said(EX_OSERR, "not enough memory for the input");
		input->bytes = grown;
		*n_allocated = wanted;
	}
	memcpy(input->bytes + input->n_bytes, bytes, n);
	input->n_bytes += n;
	input->bytes[input->n_bytes] = '\0';
	return 0;
}

static int append_all(struct sk_input *input, size_t *n_allocated, int fd, const char *name)
{
	static char portion[1 << 16];
	ssize_t n;

	while ((n = read(fd, portion, sizeof portion)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return sk_said(EX_NOINPUT, "%s: %s", name, strerror(errno));
		int err = append(input, n_allocated, portion, (size_t)n);
		if (err)
			return err;
	}
	return 0;
}

static int append_standard_input(struct sk_input *input, size_t *n_allocated)
{
	return append_all(input, n_allocated, STDIN_FILENO, "standard input");
}

int sk_read_input(int n_rest, char **rest, struct sk_input *ret_input)
{
	struct sk_input input = {0};
	size_t n_allocated = 0;
	int err = append(&input, &n_allocated, "", 0);

	if (!err && n_rest == 0) {
		if (isatty(STDIN_FILENO))
			fprintf(stderr, "streamkv-client: reading standard input, until Ctrl-D\n");
		err = append_standard_input(&input, &n_allocated);
	}
	for (int i = 0; i < n_rest && !err; i++) {
		if (i)
			err = append(&input, &n_allocated, " ", 1);
		if (!err)
			err = strcmp(rest[i], "-") == 0
				      ? append_standard_input(&input, &n_allocated)
				      : append(&input, &n_allocated, rest[i], strlen(rest[i]));
	}
	if (err) {
		free(input.bytes);
		return err;
	}
	*ret_input = input;
	return 0;
}

int sk_read_file(const char *path, struct sk_input *ret_input)
{
	struct sk_input input = {0};
	size_t n_allocated = 0;
	bool is_stdin = strcmp(path, "-") == 0;
	int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return sk_said(EX_NOINPUT, "%s: %s", path, strerror(errno));
	int err = append(&input, &n_allocated, "", 0);
	if (!err)
		err = append_all(&input, &n_allocated, fd, is_stdin ? "standard input" : path);
	if (!is_stdin)
		close(fd);
	if (err) {
		free(input.bytes);
		return err;
	}
	*ret_input = input;
	return 0;
}

int sk_check_utf8(const char *name, const struct sk_input *input)
{
	const utf8proc_uint8_t *bytes = (const utf8proc_uint8_t *)input->bytes;
	utf8proc_int32_t point;
	utf8proc_ssize_t n;

	for (size_t at = 0; at < input->n_bytes; at += (size_t)n) {
		size_t left = input->n_bytes - at; /* a character looks at 4 bytes at most */
		n = utf8proc_iterate(bytes + at, left < 4 ? (utf8proc_ssize_t)left : 4, &point);
		if (n <= 0)
			return sk_said(
				EX_DATAERR,
				"%s: no UTF-8 at byte %zu (0x%02x); convert it, as with iconv, "
				"or give --bytes to take it as it is",
				name, at, bytes[at]);
	}
	return 0;
}

/* --- A session's cache --- */

int sk_check_cache(int mode, const struct sk_cache_opts *cache)
{
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {{"sink", cache->sink}, {"window", cache->window}, {"slack", cache->slack}};
	for (unsigned i = 0; i < 3; i++) {
		if (numbers[i].value != SK_OPTION_UNSET && numbers[i].value > 1u << 30)
			return sk_said(EX_USAGE, "--%s: %llu is more than any cache holds",
				       numbers[i].name, (unsigned long long)numbers[i].value);
	}
	if (cache->window == 0)
		return sk_said(EX_USAGE, "--window: at least 1 token must be kept");
	if (mode == STREAMKV_WINDOW && cache->sink && cache->sink != SK_OPTION_UNSET)
		return sk_said(EX_USAGE,
			       "--sink: a window alone keeps no sinks; leave it out, or ask "
			       "for --mode streaming");
	return 0;
}

int sk_check_session(const char *what, const char *name)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	if (name && (!name[0] || strlen(name) > 64 || name[strspn(name, allowed)]))
		return sk_said(EX_USAGE,
			       "%s: a name is 1 to 64 letters (without accents), digits, '.', '_' "
			       "and '-'",
			       what);
	return 0;
}

static int64_t number_or_default(uint64_t value)
{
	return value == SK_OPTION_UNSET ? -1 : (int64_t)value;
}

struct streamkv_policy sk_policy_of(int mode, const struct sk_cache_opts *cache)
{
	struct streamkv_policy policy = {
		.sink = number_or_default(cache->sink),
		.window = number_or_default(cache->window),
		.slack = number_or_default(cache->slack),
	};
	policy.mode = mode; /* in the order of its names */
	return policy;
}

double sk_now_s(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

int sk_conclude(const struct streamkv_result *result, const char *label)
{
	const char *colon = label ? ": " : "";

	label = label ? label : "";
	switch (result->stop) {
	case STREAMKV_STOP_EOS:
	case STREAMKV_STOP_LIMIT:
	case STREAMKV_STOP_STRING:
	case STREAMKV_STOP_DONE:
		return EX_OK;
	case STREAMKV_STOP_CANCELLED:
		return sk_interrupted() ? 128 + sk_interrupted()
					: sk_said(EX_TEMPFAIL, "%s%scancelled: %s", label, colon,
						  result->reason);
	case STREAMKV_STOP_REFUSED:
		return sk_said(sk_exit_code_of(result->error), "%s%srefused: %s", label, colon,
			       result->reason);
	case STREAMKV_STOP_DISCONNECTED:
		return sk_said(EX_TEMPFAIL, "%s%sended by the daemon: %s", label, colon,
			       result->reason);
	default:
		return sk_said(EX_SOFTWARE, "%s%s%s", label, colon,
			       result->reason[0] ? result->reason : "the daemon failed");
	}
}

const char *sk_file_name(const char *path)
{
	return strcmp(path, "-") == 0 ? "standard input" : path;
}

int sk_write_out(const void *bytes, size_t n_bytes)
{
	const char *at = bytes;
	while (n_bytes) {
		ssize_t n = write(STDOUT_FILENO, at, n_bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EPIPE
				       ? 128 + SIGPIPE
				       : sk_said(EX_IOERR, "standard output: %s", strerror(errno));
		at += n;
		n_bytes -= (size_t)n;
	}
	return 0;
}
