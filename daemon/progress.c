#include "daemon/progress.h"

#include "base/clock.h"
#include "base/log.h"
#include "daemon/notify.h"

#include <stdio.h>
#include <unistd.h>

#define BAR_NS    50000000u
#define LINE_NS   1000000000u
#define TELL_NS   1000000000u
#define BAR_WIDTH 30

/* As long as it is told that something moves, systemd waits, so that its limits can be short ones: this is for whatever may take
 * that long between two of them (a matrix from a slow disk, a session to one). */
#define PATIENCE "EXTEND_TIMEOUT_USEC=120000000"

static void tell(struct sk_progress *progress, double part, uint64_t now_ns)
{
	if (progress->told_ns && now_ns - progress->told_ns < TELL_NS)
		return;
	progress->told_ns = now_ns;
	sk_notify("STATUS=Loading the model: %d%%\n" PATIENCE, (int)(part * 100));
}

void sk_progress_begin(struct sk_progress *progress, const char *what)
{
	*progress = (struct sk_progress){
		.what = what,
		.is_terminal = isatty(STDERR_FILENO),
		.begun_ns = sk_clock_ns(),
	};
	progress->shown_ns = progress->begun_ns; /* a load of less than a second needs no line */
	tell(progress, 0, progress->begun_ns);
}

static void bar(const struct sk_progress *progress, double part, double rate)
{
	int n = (int)(part * BAR_WIDTH);
	char line[BAR_WIDTH + 1];
	for (int i = 0; i < BAR_WIDTH; i++)
		line[i] = i < n ? '#' : '.';
	line[BAR_WIDTH] = '\0';
	fprintf(stderr, "\r%s [%s] %3d%%  %.0f MB/s ", progress->what, line, (int)(part * 100),
		rate / 1e6);
}

void sk_progress_show(void *context, uint64_t n_done, uint64_t n_total)
{
	struct sk_progress *progress = context;
	uint64_t now_ns = sk_clock_ns();
	double part = n_total ? (double)n_done / (double)n_total : 1;
	part = part > 1 ? 1 : part; /* a tied matrix is counted once in the file and packed once */
	tell(progress, part, now_ns);
	double rate = (double)n_done / ((double)(now_ns - progress->begun_ns + 1) * 1e-9);

	if (progress->is_terminal) {
		if (now_ns - progress->shown_ns < BAR_NS)
			return;
		bar(progress, part, rate);
	} else {
		unsigned tenths = (unsigned)(part * 10);
		if (tenths <= progress->shown_tenths || now_ns - progress->shown_ns < LINE_NS)
			return;
		progress->shown_tenths = tenths;
		sk_log(SK_LOG_NOTICE, "%s: %u%%", progress->what, tenths * 10);
	}
	progress->shown_ns = now_ns;
}

void sk_progress_end(struct sk_progress *progress)
{
	if (progress->is_terminal)
		fprintf(stderr, "\r\033[K");
}

void sk_progress_waiting(const char *holder)
{
	sk_notify("STATUS=Waiting for the weights that are held at %s\n" PATIENCE, holder);
}

void sk_progress_keeping(uint32_t n_done, uint32_t n_total)
{
	sk_notify("WATCHDOG=1\nSTATUS=Storing named sessions: %u of %u\n" PATIENCE, n_done + 1,
		  n_total);
}
