#include "daemon/held.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/handed.h"
#include "daemon/progress.h"
#include "proto/holder.pb-c.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define MOST_MOMENTS   100 /* of a tenth of a second, that a holder may take to come */
#define MOMENTS_A_WORD 50
#define PATIENCE_MS    200   /* before it is said that one waits */
#define WAIT_MS        10000 /* from one word to the manager to the next */

/* A socket connected to it, or -errno. A service manager starts holder and daemon again side by side: then the one that
 * is first waits for the other. */
static int reach(const struct sockaddr_un *address)
{
	const struct timespec moment = {.tv_nsec = 100000000};
	unsigned n_left = getenv("NOTIFY_SOCKET") ? MOST_MOMENTS : 0;

	for (;;) {
		sk_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return -errno;
		if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0)
			return sk_steal_fd(&fd);
		if ((errno != ENOENT && errno != ECONNREFUSED) || !n_left)
			return -errno;
		if (n_left-- % MOMENTS_A_WORD == 0)
			sk_progress_waiting(address->sun_path);
		nanosleep(&moment, NULL);
	}
}

static int connect_to(const char *path, struct sk_channel **ret_channel, struct sk_diag *diag)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof address.sun_path)
		return sk_diag_fail(diag, ENAMETOOLONG,
				    "%s: the path of a socket may have %zu bytes at most", path,
				    sizeof address.sun_path - 1);
	strcpy(address.sun_path, path);
	sk_autoclose int fd = reach(&address);
	if (fd == -ENOENT || fd == -ECONNREFUSED)
		return sk_diag_fail(diag, ECONNREFUSED,
				    "%s: nobody holds weights there; start streamkvd "
				    "--hold-weights, or leave --weights-from out",
				    path);
	if (fd < 0)
		return sk_diag_fail(diag, -fd, "%s: %s", path, strerror(-fd));
	struct sk_channel *channel;
	int err = sk_channel_create(sk_steal_fd(&fd), &channel);
	if (err < 0)
		return sk_diag_fail(diag, -err, "%s: %s", path, strerror(-err));
	uid_t uid;
	pid_t pid;
	err = sk_channel_peer(channel, &uid, &pid);
	if (err == 0 && uid != geteuid() && uid != 0)
		err = sk_diag_fail(diag, EACCES,
				   "%s: another user (%u) holds weights there; only one's own, or "
				   "root's, are used",
				   path, (unsigned)uid);
	else if (err < 0)
		sk_diag_fail(diag, -err, "%s: %s", path, strerror(-err));
	if (err < 0) {
		sk_channel_destroy(channel);
		return err;
	}
	*ret_channel = channel;
	return 0;
}

/* The first frame, however long it takes. */
static int wait_for_frame(struct sk_channel *channel, const char *path, struct sk_frame *ret_frame,
			  struct sk_diag *diag)
{
	struct pollfd wanted = {.fd = sk_channel_fd(channel), .events = POLLIN};
	bool is_said = false;
	for (;;) {
		int n = sk_channel_next(channel, ret_frame);
		if (n > 0)
			return 0;
		if (n == 0)
			n = poll(&wanted, 1, is_said ? WAIT_MS : PATIENCE_MS) < 0 ? -errno : 0;
		if (n == 0 && !wanted.revents) {
			if (!is_said)
				sk_log(SK_LOG_NOTICE, "waiting for the weights that are held at %s",
				       path);
			is_said = true;
			sk_progress_waiting(path);
		}
		if (n == 0)
			n = wanted.revents ? sk_channel_fill(channel) : 0;
		if (n == -ENODATA || n == -ECONNRESET)
			return sk_diag_fail(diag, ECONNREFUSED,
					    "%s: the holder of weights has ended", path);
		if (n < 0 && n != -EINTR)
			return sk_diag_fail(diag, -n, "%s: %s", path, strerror(-n));
	}
}

static bool fits(const char *text, size_t room)
{
	return text && strlen(text) < room;
}

static int take(struct sk_held *held, struct sk_frame *frame, const Sk__Held *said,
		const char *path, struct sk_diag *diag)
{
	struct sk_shared_weights *weights = &held->weights;
	if (said->version != SK_HELD_VERSION)
		return sk_diag_fail(
			diag, EPROTO,
			"%s: the holder is of another version (%s, %u; wanted is %u): start it "
			"again, with this streamkvd",
			path, said->server, said->version, SK_HELD_VERSION);
	const bool has_handle = said->handle.len == SK_HANDLE_BYTES;
	if ((said->handle.len && !has_handle) || frame->n_fds != !has_handle || !said->n_bytes ||
	    said->fingerprint.len != sizeof held->fingerprint || said->n_pieces > UINT32_MAX ||
	    !fits(said->layout, sizeof weights->layout) || !said->model)
		return sk_diag_fail(diag, EBADMSG, "%s: what the holder says makes no sense", path);
	weights->pieces = malloc((said->n_pieces + 1) * sizeof *weights->pieces);
	if (!weights->pieces)
		return sk_diag_fail(diag, ENOMEM, "not enough memory");
	for (size_t i = 0; i < said->n_pieces; i++)
		weights->pieces[i] = said->pieces[i];
	weights->n_pieces = (uint32_t)said->n_pieces;
	weights->n_bytes = said->n_bytes;
	weights->checksum = said->checksum;
	strcpy(weights->layout, said->layout);
	if (has_handle)
		memcpy(weights->handle, said->handle.data, SK_HANDLE_BYTES);
	else
		weights->fd = sk_steal_fd(&frame->fds[0]);
	memcpy(held->fingerprint, said->fingerprint.data, sizeof held->fingerprint);
	held->format = said->format;
	snprintf(held->model, sizeof held->model, "%s", said->model);
	return 0;
}

int sk_held_open(struct sk_held *held, const char *path, struct sk_diag *diag)
{
	struct sk_frame frame;
	*held = (struct sk_held){.weights.fd = -1};
	int err = connect_to(path, &held->channel, diag);
	if (!err)
		err = wait_for_frame(held->channel, path, &frame, diag);
	if (err < 0) {
		sk_held_close(held);
		return err;
	}
	Sk__FromHolder *message = sk__from_holder__unpack(NULL, frame.n_bytes, frame.message);
	err = message && message->body_case == SK__FROM_HOLDER__BODY_HELD
		      ? take(held, &frame, message->held, path, diag)
		      : sk_diag_fail(diag, EBADMSG, "%s: no holder of weights listens there", path);
	sk__from_holder__free_unpacked(message, NULL);
	sk_frame_finish(&frame);
	if (err < 0)
		sk_held_close(held);
	return err;
}

int sk_held_check(const struct sk_held *held, const struct sk_model *model,
		  enum sk_weight_format format, const struct sk_backend_kind *kind,
		  struct sk_diag *diag)
{
	static const char *const formats[] = {"auto", "f32", "bf16", "q8", "q4"};
	const size_t n_formats = sizeof formats / sizeof *formats;
	uint8_t fingerprint[SK_FINGERPRINT_BYTES];
	if (!sk_backend_knows_layout(kind, held->weights.layout))
		return sk_diag_fail(diag, ENOTSUP,
				    "the weights held lie as '%s' wants them, which this streamkvd "
				    "does not: start their holder again, with this one",
				    held->weights.layout);
	int err = sk_model_fingerprint(model, fingerprint);
	if (err < 0)
		return sk_diag_fail(diag, -err, "not enough memory");
	if (memcmp(fingerprint, held->fingerprint, sizeof fingerprint) == 0 &&
	    held->format == format)
		return 0;
	return sk_diag_fail(diag, ESTALE,
			    "the weights held are of %s with --weights %s; this is %s with "
			    "--weights %s",
			    held->model, held->format < n_formats ? formats[held->format] : "?",
			    sk_model_config(model)->name, formats[format]);
}

/* --- What it keeps --- */

/* It has nothing else to do: what it does not take within a second it never will. */
static int say(struct sk_held *held, const Sk__ToHolder *message, const int *fd)
{
	int err = sk_channel_send(held->channel, &message->base, fd, fd != NULL);
	while (err == 0 && (err = sk_channel_flush(held->channel)) == -EAGAIN) {
		struct pollfd wanted = {.fd = sk_channel_fd(held->channel), .events = POLLOUT};
		const int n = poll(&wanted, 1, PATIENCE_MS * 5);
		err = n > 0 || (n < 0 && errno == EINTR) ? 0 : n < 0 ? -errno : -ETIMEDOUT;
	}
	return err;
}

/* Says it, and takes the answer. */
static int ask(struct sk_held *held, const Sk__ToHolder *message, struct sk_frame *ret_frame,
	       Sk__FromHolder **ret_answer, struct sk_diag *diag)
{
	int err = say(held, message, NULL);
	if (err < 0)
		return sk_diag_fail(diag, -err, "the holder of weights: %s", strerror(-err));
	err = wait_for_frame(held->channel, "the holder of weights", ret_frame, diag);
	if (err < 0)
		return err;
	*ret_answer = sk__from_holder__unpack(NULL, ret_frame->n_bytes, ret_frame->message);
	if (*ret_answer)
		return 0;
	sk_frame_finish(ret_frame);
	return sk_diag_fail(diag, EBADMSG, "what the holder of weights says makes no sense");
}

static int fetch(struct sk_held *held, const char *name, struct sk_parked *ret_parked,
		 struct sk_diag *diag)
{
	Sk__ToHolder message = SK__TO_HOLDER__INIT;
	Sk__Fetch body = SK__FETCH__INIT;
	Sk__FromHolder *answer;
	struct sk_frame frame;

	body.name = (char *)name;
	message.body_case = SK__TO_HOLDER__BODY_FETCH;
	message.fetch = &body;
	int err = ask(held, &message, &frame, &answer, diag);
	if (err < 0)
		return err;
	snprintf(ret_parked->name, sizeof ret_parked->name, "%s", name);
	ret_parked->fd = frame.n_fds ? sk_steal_fd(&frame.fds[0]) : -1;
	sk__from_holder__free_unpacked(answer, NULL);
	sk_frame_finish(&frame);
	return 0;
}

int sk_held_claim(struct sk_held *held, const char *key, struct sk_parked **ret_parked,
		  uint32_t *ret_n_parked, struct sk_diag *diag)
{
	Sk__ToHolder message = SK__TO_HOLDER__INIT;
	Sk__Claim body = SK__CLAIM__INIT;
	Sk__FromHolder *answer;
	struct sk_frame frame;

	body.key = (char *)key;
	message.body_case = SK__TO_HOLDER__BODY_CLAIM;
	message.claim = &body;
	int err = ask(held, &message, &frame, &answer, diag);
	if (err < 0)
		return err;
	sk_frame_finish(&frame);
	if (answer->body_case != SK__FROM_HOLDER__BODY_CLAIMED)
		err = sk_diag_fail(diag, EBADMSG, "what the holder of weights says makes no sense");
	else if (answer->claimed->is_taken)
		err = -EBUSY;
	const size_t n = err ? 0 : answer->claimed->n_names;
	struct sk_parked *parked = calloc(n + 1, sizeof *parked);
	if (!err && !parked)
		err = sk_diag_fail(diag, ENOMEM, "not enough memory");
	uint32_t n_parked = 0;
	while (!err && n_parked < n) {
		err = fetch(held, answer->claimed->names[n_parked], &parked[n_parked], diag);
		n_parked += !err;
	}
	sk__from_holder__free_unpacked(answer, NULL);
	if (err < 0) {
		sk_parked_finish(parked, n_parked);
		return err;
	}
	*ret_parked = parked;
	*ret_n_parked = n_parked;
	return 0;
}

int sk_held_keep(struct sk_held *held, const char *name, int fd)
{
	Sk__ToHolder message = SK__TO_HOLDER__INIT;
	Sk__Keep body = SK__KEEP__INIT;

	body.name = (char *)name;
	message.body_case = SK__TO_HOLDER__BODY_KEEP;
	message.keep = &body;
	return say(held, &message, &fd);
}

int sk_held_drop(struct sk_held *held, const char *name)
{
	Sk__ToHolder message = SK__TO_HOLDER__INIT;
	Sk__Drop body = SK__DROP__INIT;

	body.name = (char *)name;
	message.body_case = SK__TO_HOLDER__BODY_DROP;
	message.drop = &body;
	return say(held, &message, NULL);
}

void sk_held_close(struct sk_held *held)
{
	if (!held->channel)
		return;
	sk_shared_weights_finish(&held->weights);
	sk_channel_destroy(held->channel);
	held->channel = NULL;
}
