#include "client/command.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_WIDTH 30

static bool has_bar;

/* Columns of the bar that leave the line on one row of the terminal: a wrapped line would not be drawn over. */
static int bar_width(int n_others)
{
	struct winsize size;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col)
		return BAR_WIDTH;
	int n = size.ws_col - n_others - 1;
	return n < 0 ? 0 : n < BAR_WIDTH ? n : BAR_WIDTH;
}

void sk_terminal_bar(const char *what, double part, double per_second, const char *unit)
{
	char line[BAR_WIDTH + 1], end[64];

	if (!isatty(STDERR_FILENO))
		return;
	snprintf(end, sizeof end, "%3d%%  %.0f %s/s ", (int)(part * 100), per_second, unit);
	int n_others = (int)(strlen(what) + strlen(end)) + 4, width = bar_width(n_others);
	for (int i = 0; i < width; i++)
		line[i] = i < part * width ? '#' : '.';
	line[width] = '\0';
	fprintf(stderr, "\r%s [%s] %s\033[K", what, line, end);
	has_bar = true;
}

bool sk_show_place(const struct streamkv_stream *stream)
{
	uint32_t place = streamkv_queue_place(stream);

	if (!place)
		return false;
	if (isatty(STDERR_FILENO)) {
		fprintf(stderr, "\rqueued %u: the KV cache is full\033[K", place);
		has_bar = true;
	}
	return true;
}

void sk_terminal_clear(void)
{
	if (has_bar)
		fprintf(stderr, "\r\033[K");
	has_bar = false;
}
