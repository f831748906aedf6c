/* bench_handover: how long a token takes from one process to another. The ring with its doorbell, as the daemon and its
 * clients use it, beside a Unix socket with the same 64 bytes, and with a protobuf frame; in turns, so that what slows the
 * machine for a while slows all. The reader sleeps in poll() between tokens; the writer sleeps too, or computes, as the
 * engine does in a step.
 */
#include "base/clock.h"
#include "base/options.h"
#include "client/sample.h"
#include "proto/channel.h"
#include "proto/validate.h"
#include "shm/ring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_SLOTS 4096
#define N_TURNS 8 /* of each */

struct options {
	double rate, seconds;
};

#define AT(member) offsetof(struct options, member)
static const struct sk_option table[] = {
	{"rate", 'r', SK_OPTION_FLOAT, AT(rate), "N", "100", .fmin = 1, .fmax = 1e5,
	 .help = "Tokens a second."},
	{"seconds", 0, SK_OPTION_FLOAT, AT(seconds), "S", "8", .fmin = 0.1, .fmax = 3600,
	 .help = "How long each way is measured, in all."},
	{0},
};
static const struct sk_command_help help_text = {
	.name = "bench_handover",
	.synopsis = "",
	.summary = "time from one process to another: ring and doorbell beside sockets",
	.text = "Microseconds from just before a token is written to when its reader has it, and "
		"what "
		"writing takes the writer.",
};

/* --- A way from one process to another --- */

/* Each end is opened in its own process, from what was made before the fork. */
struct way {
	struct sk_ring_writer *writer;
	struct sk_ring_reader *reader;
	struct sk_channel *channel;
	int sockets[2]; /* the writer's, the reader's */
};

static void quit(const char *what, int err)
{
	fprintf(stderr, "bench_handover: %s: %s\n", what, strerror(-err));
	exit(71);
}

static void make_ring(struct way *way)
{
	int err = sk_ring_writer_create(N_SLOTS, &way->writer);
	if (err < 0)
		quit("ring", err);
}

static void make_sockets(struct way *way)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, way->sockets) < 0)
		quit("socketpair", -errno);
}

static void open_ring(struct way *way)
{
	int fds[4];

	sk_ring_writer_fds(way->writer, fds);
	for (int i = 0; i < 4; i++)
		fds[i] = dup(fds[i]);
	int err = sk_ring_reader_create(fds, N_SLOTS, &way->reader);
	if (err < 0)
		quit("ring", err);
}

static void open_channel(struct way *way, int end)
{
	int err = sk_channel_create(dup(way->sockets[end]), &way->channel);
	if (err < 0)
		quit("channel", err);
}

static void wait_for(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	(void)poll(&poll_fd, 1, -1);
}

static void write_ring(struct way *way, uint64_t now_ns)
{
	struct sk_slot slot = {.request = 1, .id = 7};

	if (sk_ring_writer_put(way->writer, &slot, &now_ns, sizeof now_ns) == 0)
		sk_ring_writer_publish(way->writer);
}

static uint64_t read_ring(struct way *way)
{
	struct sk_slot slot;
	uint64_t sent_ns;

	while (sk_ring_reader_next(way->reader, &slot) == 0) {
		if (!sk_ring_reader_wait(way->reader))
			wait_for(sk_ring_reader_doorbell(way->reader));
	}
	memcpy(&sent_ns, slot.text, sizeof sent_ns);
	return sent_ns;
}

static void write_bytes(struct way *way, uint64_t now_ns)
{
	struct sk_slot slot = {.request = 1, .id = 7};

	memcpy(slot.text, &now_ns, sizeof now_ns);
	if (send(way->sockets[0], &slot, sizeof slot, MSG_NOSIGNAL) != sizeof slot)
		quit("send", -errno);
}

static uint64_t read_bytes(struct way *way)
{
	struct sk_slot slot;
	uint64_t sent_ns;

	wait_for(way->sockets[1]);
	if (recv(way->sockets[1], &slot, sizeof slot, MSG_WAITALL) != sizeof slot)
		quit("recv", -errno);
	memcpy(&sent_ns, slot.text, sizeof sent_ns);
	return sent_ns;
}

/* There is no message for a token; this one has three numbers, as a token would at least. */
static void write_frame(struct way *way, uint64_t now_ns)
{
	Sk__ServerMessage message = SK__SERVER_MESSAGE__INIT;
	Sk__Progress progress = SK__PROGRESS__INIT;

	if (!way->channel)
		open_channel(way, 0);
	progress.prompt_tokens = now_ns;
	progress.evaluated_tokens = 7;
	progress.queue_place = 1;
	message.request = 1;
	message.body_case = SK__SERVER_MESSAGE__BODY_PROGRESS;
	message.progress = &progress;
	if (sk_channel_send(way->channel, &message.base, NULL, 0) < 0 ||
	    sk_channel_flush(way->channel) < 0)
		quit("send", -EIO);
}

static uint64_t read_frame(struct way *way)
{
	Sk__ServerMessage *message;
	struct sk_frame frame;
	struct sk_diag diag;

	if (!way->channel)
		open_channel(way, 1);
	while (sk_channel_next(way->channel, &frame) == 0) {
		wait_for(sk_channel_fd(way->channel));
		if (sk_channel_fill(way->channel) < 0)
			quit("receive", -EIO);
	}
	if (sk_server_message_unpack(&frame, &message, &diag) < 0)
		quit("receive", -EBADMSG);
	uint64_t sent_ns = message->progress->prompt_tokens;
	sk__server_message__free_unpacked(message, NULL);
	sk_frame_finish(&frame);
	return sent_ns;
}

static void nothing(struct way *way)
{
	(void)way;
}

static const struct {
	const char *name;
	void (*make)(struct way *way);
	void (*open)(struct way *way); /* the reader's end */
	void (*write)(struct way *way, uint64_t now_ns);
	uint64_t (*read)(struct way *way);
} ways[] = {
	{"ring and doorbell", make_ring, open_ring, write_ring, read_ring},
	{"socket, 64 bytes", make_sockets, nothing, write_bytes, read_bytes},
	{"socket, protobuf frame", make_sockets, nothing, write_frame, read_frame},
};
#define N_WAYS (sizeof ways / sizeof *ways)

static void way_finish(struct way *way)
{
	sk_ring_writer_destroy(way->writer);
	sk_channel_destroy(way->channel);
	for (int i = 0; i < 2; i++) {
		if (way->sockets[i])
			close(way->sockets[i]);
	}
}

/* --- Measuring --- */

struct series {
	struct sk_sample us;
	double written_ns; /* in all */
};

static void wait_until(uint64_t due_ns, bool computes)
{
	const struct timespec due = {.tv_sec = (time_t)(due_ns / 1000000000u),
				     .tv_nsec = (long)(due_ns % 1000000000u)};

	while (computes && sk_clock_ns() < due_ns) {
	}
	while (!computes && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR) {
	}
}

/* n tokens from this process to a child, which leaves its times in `us`. */
static void run(size_t which, bool computes, uint64_t gap_ns, unsigned n, float *us,
		struct series *series)
{
	struct way way = {0};

	ways[which].make(&way);
	pid_t child = fork();
	if (child < 0)
		quit("fork", -errno);
	if (child == 0) {
		ways[which].open(&way);
		for (unsigned i = 0; i < n; i++) {
			uint64_t sent_ns = ways[which].read(&way);
			us[i] = (float)(sk_clock_ns() - sent_ns) * 1e-3f;
		}
		_exit(0);
	}
	uint64_t due_ns = sk_clock_ns() + 20000000; /* the reader is there by then */
	for (unsigned i = 0; i < n; i++, due_ns += gap_ns) {
		wait_until(due_ns, computes);
		uint64_t begun_ns = sk_clock_ns();
		ways[which].write(&way, begun_ns);
		series->written_ns += (double)(sk_clock_ns() - begun_ns);
	}
	waitpid(child, NULL, 0);
	way_finish(&way);
	for (unsigned i = 1; i < n; i++) /* the first finds everything cold */
		(void)sk_sample_add(&series->us, (double)us[i]);
}

static void measure(const struct options *options)
{
	static struct series all[N_WAYS][2];
	unsigned n = (unsigned)(options->rate * options->seconds / N_TURNS) + 2;
	float *us = mmap(NULL, n * sizeof *us, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			 -1, 0);

	if (us == MAP_FAILED)
		quit("memory", -errno);
	for (unsigned turn = 0; turn < N_TURNS * N_WAYS * 2; turn++)
		run(turn % N_WAYS, turn / N_WAYS % 2, (uint64_t)(1e9 / options->rate), n, us,
		    &all[turn % N_WAYS][turn / N_WAYS % 2]);
	printf("%-24s %-9s %8s %8s %8s %8s %8s %9s\n", "", "writer", "tokens", "p50 us", "p90 us",
	       "p99 us", "max us", "write us");
	for (size_t i = 0; i < N_WAYS * 2; i++) {
		struct series *series = &all[i / 2][i % 2];
		printf("%-24s %-9s %8zu %8.1f %8.1f %8.1f %8.1f %9.2f\n", ways[i / 2].name,
		       i % 2 ? "computes" : "sleeps", series->us.n,
		       sk_sample_percentile(&series->us, 50), sk_sample_percentile(&series->us, 90),
		       sk_sample_percentile(&series->us, 99),
		       sk_sample_percentile(&series->us, 100),
		       series->written_ns / 1e3 / (double)(n * N_TURNS));
		sk_sample_finish(&series->us);
	}
}

int main(int argc, char **argv)
{
	struct options options = {0};
	struct sk_diag diag;
	int n_rest;
	bool help = false;

	if (sk_options_defaults(table, &options, &diag) < 0 ||
	    sk_options_parse(table, &options, argc, argv, &n_rest, &help, &diag) < 0) {
		fprintf(stderr, "bench_handover: %s\n", diag.text);
		return 64;
	}
	if (help)
		sk_options_help(stdout, &help_text, table);
	else
		measure(&options);
	return 0;
}
