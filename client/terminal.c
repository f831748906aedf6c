#include "client/command.h"

#include <stdio.h>
#include <unistd.h>

#define BAR_WIDTH 30

static bool has_bar;

void sk_terminal_bar(const char *what, double part, double per_second, const char *unit)
{
	char line[BAR_WIDTH + 1];

	if (!isatty(STDERR_FILENO))
		return;
	for (int i = 0; i < BAR_WIDTH; i++)
		line[i] = i < part * BAR_WIDTH ? '#' : '.';
	line[BAR_WIDTH] = '\0';
	fprintf(stderr, "\r%s [%s] %3d%%  %.0f %s/s ", what, line, (int)(part * 100), per_second,
		unit);
	has_bar = true;
}

void sk_terminal_clear(void)
{
	if (has_bar)
		fprintf(stderr, "\r\033[K");
	has_bar = false;
}
