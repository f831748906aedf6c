#include "client/command.h"

#include <signal.h>

static volatile sig_atomic_t caught; /* the signal that asked for the end */

static void on_signal(int number)
{
	caught = number;
	signal(number, SIG_DFL); /* a second one ends the process at once */
}

void sk_interrupt_catch(void)
{
	/* Without SA_RESTART, so that the wait for tokens returns. */
	struct sigaction action = {.sa_handler = on_signal};
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

int sk_interrupted(void)
{
	return caught;
}
