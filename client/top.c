/* streamkv-client top: what the daemon is doing, drawn again every second. */
#include "client/command.h"

#include "client/screen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

struct opts {
	const char *socket;
	uint64_t interval_ns;
	bool once;
};

static const struct sk_option options[] = {
	{"interval", 'i', SK_OPTION_DURATION, offsetof(struct opts, interval_ns), "TIME", "1s",
	 .min = 100000000, .max = UINT64_C(3600000000000),
	 .help = "Time between two looks at the daemon: a number of seconds, or a time like 500ms "
		 "or 1m."},
	{"once", 0, SK_OPTION_FLAG, offsetof(struct opts, once),
	 .help = "Print everything once, after one interval, and end. So it is where standard "
		 "output is no terminal."},
	{"socket", 's', SK_OPTION_STRING, offsetof(struct opts, socket), "PATH",
	 .help = "Where the daemon listens."},
	{0},
};

/* --- The terminal --- */

/* Its own buffer, so that what was shown before comes back; no cursor; home. */
static const char enter[] = "\033[?1049h\033[?25l", leave[] = "\033[?25h\033[?1049l",
		  home[] = "\033[H", clear_rest[] = "\033[J";

static struct termios before_us;
static volatile sig_atomic_t is_ours; /* what a signal has to undo */

/* Also in a signal handler. */
static void restore_terminal(void)
{
	if (!is_ours)
		return;
	is_ours = false;
	ssize_t n = write(STDOUT_FILENO, leave, sizeof leave - 1);
	(void)n;
	tcsetattr(STDIN_FILENO, TCSANOW, &before_us);
}

static void on_end(int number)
{
	restore_terminal();
	signal(number, SIG_DFL);
	raise(number);
}

static void on_resize(int number)
{
	(void)number; /* the wait for keys ends, and the page is drawn again */
}

static int take_terminal(void)
{
	struct sigaction end = {.sa_handler = on_end}, resize = {.sa_handler = on_resize};
	struct termios ours;

	tcgetattr(STDIN_FILENO, &before_us);
	ours = before_us;
	ours.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	ours.c_cc[VSUSP] = _POSIX_VDISABLE;
	ours.c_cc[VMIN] = 0;
	ours.c_cc[VTIME] = 0;
	is_ours = true;
	sigaction(SIGINT, &end, NULL);
	sigaction(SIGTERM, &end, NULL);
	sigaction(SIGHUP, &end, NULL);
	sigaction(SIGQUIT, &end, NULL);
	sigaction(SIGWINCH, &resize, NULL);
	tcsetattr(STDIN_FILENO, TCSANOW, &ours);
	return sk_write_out(enter, sizeof enter - 1);
}

static void measure_terminal(struct sk_page *page)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col || !size.ws_row)
		return;
	page->width = size.ws_col;
	page->height = size.ws_row;
}

/* Until the time is up, the size changes, or a key wants the end: then true. */
static bool waits_for_end(double end_s)
{
	struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
	char key;

	for (double left_s; (left_s = end_s - sk_now_s()) > 0;) {
		int n = poll(&fd, 1, (int)(left_s * 1e3) + 1);
		if (n < 0)
			return false;
		if (n == 0)
			continue;
		if (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q')
			return true; /* a terminal that is gone has nothing to read either */
	}
	return false;
}

/* --- Looking --- */

/* 0, or the exit code of what has been said. */
static int look(struct streamkv *kv, struct sk_look *ret_look)
{
	struct streamkv_error error;
	struct sk_look now = {.at_s = 0};

	int err = streamkv_list(kv, &now.list, &error);
	if (!err)
		err = streamkv_status(kv, &now.status, &error);
	now.at_s = sk_now_s();
	if (err < 0) {
		restore_terminal();
		streamkv_list_free(&now.list);
		return sk_said(sk_exit_code_of(err), "%s", error.text);
	}
	streamkv_list_free(&ret_look->list);
	*ret_look = now;
	return 0;
}

static int draw(struct sk_look *now, const struct sk_look *before, bool is_live)
{
	struct sk_page page = {.redraws = is_live};

	if (is_live)
		measure_terminal(&page);
	if (sk_page_init(&page) < 0)
		return sk_said(EX_OSERR, "not enough memory");
	if (is_live)
		fputs(home, page.file);
	int err = sk_screen_draw(&page, now, before);
	if (is_live)
		fputs(clear_rest, page.file);
	int exit_code = err < 0 ? sk_said(EX_OSERR, "not enough memory") : sk_page_write(&page);
	sk_page_finish(&page);
	return exit_code;
}

static void pause_until(double end_s)
{
	for (double left_s; (left_s = end_s - sk_now_s()) > 0;)
		poll(NULL, 0, (int)(left_s * 1e3) + 1);
}

static int show_once(struct streamkv *kv, double interval_s)
{
	struct sk_look before = {.at_s = 0}, now = {.at_s = 0};

	int exit_code = look(kv, &before);
	if (!exit_code) {
		pause_until(before.at_s + interval_s);
		exit_code = look(kv, &now);
	}
	if (!exit_code)
		exit_code = draw(&now, &before, false);
	streamkv_list_free(&before.list);
	streamkv_list_free(&now.list);
	return exit_code;
}

static int watch(struct streamkv *kv, double interval_s)
{
	struct sk_look looks[2] = {{.at_s = 0}, {.at_s = 0}};
	unsigned n = 0;

	int exit_code = take_terminal();
	while (!exit_code) {
		struct sk_look *now = &looks[n % 2], *before = n ? &looks[(n + 1) % 2] : NULL;
		exit_code = look(kv, now);
		if (!exit_code)
			exit_code = draw(now, before, true);
		if (exit_code || waits_for_end(now->at_s + interval_s))
			break;
		n++;
	}
	restore_terminal();
	streamkv_list_free(&looks[0].list);
	streamkv_list_free(&looks[1].list);
	return exit_code;
}

static int run(const void *from, int n_rest, char **rest)
{
	const struct opts *opts = from;
	const double interval_s = (double)opts->interval_ns * 1e-9;
	int exit_code;

	if (n_rest)
		return sk_said(EX_USAGE, "'%s': top takes options only", rest[0]);
	struct streamkv *kv = sk_connect(opts->socket, &exit_code);
	if (!kv)
		return exit_code;
	if (opts->once || !isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO))
		exit_code = show_once(kv, interval_s);
	else
		exit_code = watch(kv, interval_s);
	streamkv_close(kv);
	return exit_code;
}

const struct sk_command sk_command_top = {
	.help = {.name = "streamkv-client top",
		 .synopsis = "",
		 .summary = "watch what the daemon is doing",
		 .text = "Shows, and draws again every second, the daemon's speed and memory, its "
			 "users, the requests that run and wait (as ps tells of them), and "
			 "sessions: "
			 "those in use first. q or Ctrl-C ends it.\n\nSpeeds are those since the "
			 "look before. One's own users, requests and sessions are listed, the rest "
			 "is everybody's; root and the daemon's own user see all.",
		 .exits = sk_command_exits},
	.options = options,
	.opts_bytes = sizeof(struct opts),
	.run = run,
};
