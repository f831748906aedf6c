#include "client/command.h"

#include <signal.h>
#include <stdint.h>
#include <time.h>

#define SAME_NS 500000000 /* timeout(1) signals the process, then its group: that is one wish */

static volatile sig_atomic_t caught; /* the signal that asked for the end */

static void on_signal(int number)
{
	static int64_t caught_ns; /* the handler's alone: both signals are blocked meanwhile */
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	int64_t now_ns = ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
	if (!caught) {
		caught = number;
		caught_ns = now_ns;
	} else if (now_ns - caught_ns > SAME_NS) {
		signal(number, SIG_DFL); /* ends the process on return */
		raise(number);
	}
}

void sk_interrupt_catch(void)
{
	/* Without SA_RESTART, so that the wait for tokens returns. */
	struct sigaction action = {.sa_handler = on_signal};
	sigaddset(&action.sa_mask, SIGINT);
	sigaddset(&action.sa_mask, SIGTERM);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

int sk_interrupted(void)
{
	return caught;
}
