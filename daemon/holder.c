#include "daemon/holder.h"

#include "base/cleanup.h"
#include "base/list.h"
#include "base/log.h"
#include "daemon/held.h"
#include "daemon/keeper.h"
#include "daemon/notify.h"
#include "proto/holder.pb-c.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>

struct serving {
	struct sk_holder *holder;
	const struct sk_model *model;
	uint32_t format;
	uint8_t fingerprint[SK_FINGERPRINT_BYTES];
	struct event_base *base;
	struct event *accepting, *accept_again, *terminate, *interrupt;
	struct sk_list users; /* struct user */
	uint32_t n_users;
	struct sk_keeper keeper;
	bool is_stopping;
	bool is_short; /* of descriptors, and that has been said */
	int exit_code;
};

/* An engine. */
struct user {
	struct sk_list node;
	struct serving *serving;
	struct sk_channel *channel;
	struct event *reading, *writing;
	pid_t pid;
	char *key; /* under which things are kept for it; NULL: none */
};

static void tell(const struct serving *serving)
{
	const double mb = (double)sk_holder_weights(serving->holder)->n_bytes / 1e6;
	sk_notify("STATUS=Holding %.0f MB of %s for %u engine%s", mb,
		  sk_model_config(serving->model)->name, serving->n_users,
		  serving->n_users == 1 ? "" : "s");
}

static bool is_bound(const struct serving *serving)
{
	return sk_holder_weights(serving->holder)->fd < 0;
}

static void user_destroy(struct user *user)
{
	sk_list_remove(&user->node);
	if (user->reading)
		event_free(user->reading);
	if (user->writing)
		event_free(user->writing);
	sk_channel_destroy(user->channel);
	free(user->key);
	free(user);
}

static void lose(struct user *user)
{
	struct serving *serving = user->serving;
	sk_log(SK_LOG_INFO, "process %d has left", (int)user->pid);
	user_destroy(user);
	serving->n_users--;
	/* Whoever could write there may have. */
	if (sk_holder_check(serving->holder) < 0) {
		sk_log(SK_LOG_ERROR, "the weights are not as they were packed: somebody wrote "
				     "there, or the device failed");
		serving->exit_code = EX_SOFTWARE;
		event_base_loopbreak(serving->base);
	}
	if (serving->is_stopping && serving->n_users == 0)
		event_base_loopbreak(serving->base);
	tell(serving);
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
	struct user *user = context;
	(void)fd;
	(void)what;
	int err = sk_channel_flush(user->channel);
	if (err < 0 && err != -EAGAIN)
		lose(user);
	else if (err == 0)
		event_del(user->writing);
}

/* --- What is kept for engines --- */

static bool has_key(const struct serving *serving, const char *key)
{
	sk_list_for_each (node, &serving->users) {
		const struct user *user = sk_container_of(node, struct user, node);
		if (user->key && strcmp(user->key, key) == 0)
			return true;
	}
	return false;
}

static int claim(struct user *user, const Sk__Claim *wanted)
{
	char *names[SK_KEEPER_MOST];
	Sk__Claimed claimed = SK__CLAIMED__INIT;
	Sk__FromHolder message = SK__FROM_HOLDER__INIT;

	claimed.is_taken = user->key || has_key(user->serving, wanted->key);
	if (!claimed.is_taken) {
		user->key = strdup(wanted->key);
		if (!user->key)
			return -ENOMEM;
		claimed.names = names;
		claimed.n_names =
			sk_keeper_names(&user->serving->keeper, user->key, names, SK_KEEPER_MOST);
	}
	message.body_case = SK__FROM_HOLDER__BODY_CLAIMED;
	message.claimed = &claimed;
	return sk_channel_send(user->channel, &message.base, NULL, 0);
}

static int hand_out(struct user *user, const Sk__Fetch *wanted)
{
	Sk__Kept kept = SK__KEPT__INIT;
	Sk__FromHolder message = SK__FROM_HOLDER__INIT;

	const int fd = sk_keeper_find(&user->serving->keeper, user->key, wanted->name);
	message.body_case = SK__FROM_HOLDER__BODY_KEPT;
	message.kept = &kept;
	return sk_channel_send(user->channel, &message.base, &fd, fd >= 0);
}

/* What there is no room for is not kept: the engine lives on. */
static int keep(const struct user *user, const char *name, int fd)
{
	const int err = sk_keeper_keep(&user->serving->keeper, user->key, name, fd);
	if (err < 0)
		sk_log(SK_LOG_WARNING, "%s of process %d is not kept: %s", name, (int)user->pid,
		       strerror(-err));
	return 0;
}

/* -errno: it is no engine's, or memory is short. */
static int hear(struct user *user, struct sk_frame *frame)
{
	struct sk_keeper *keeper = &user->serving->keeper;
	Sk__ToHolder *message = sk__to_holder__unpack(NULL, frame->n_bytes, frame->message);
	int err = -EBADMSG;

	if (!message)
		return err;
	if (message->body_case == SK__TO_HOLDER__BODY_CLAIM)
		err = claim(user, message->claim);
	else if (user->key && message->body_case == SK__TO_HOLDER__BODY_FETCH)
		err = hand_out(user, message->fetch);
	else if (user->key && message->body_case == SK__TO_HOLDER__BODY_KEEP && frame->n_fds == 1)
		err = keep(user, message->keep->name, sk_steal_fd(&frame->fds[0]));
	else if (user->key && message->body_case == SK__TO_HOLDER__BODY_DROP)
		sk_keeper_drop(keeper, user->key, message->drop->name), err = 0;
	sk__to_holder__free_unpacked(message, NULL);
	return err;
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
	struct user *user = context;
	struct sk_frame frame;
	int n;
	(void)fd;
	(void)what;

	const int filled = sk_channel_fill(user->channel);
	while ((n = sk_channel_next(user->channel, &frame)) > 0) {
		const int err = hear(user, &frame);
		sk_frame_finish(&frame);
		if (err < 0) {
			sk_log(SK_LOG_WARNING, "process %d: %s", (int)user->pid, strerror(-err));
			lose(user);
			return;
		}
	}
	if (n < 0 || (filled < 0 && filled != -EAGAIN)) {
		lose(user);
		return;
	}
	if (sk_channel_wants_write(user->channel))
		event_add(user->writing, NULL);
}

static int say_held(const struct serving *serving, struct sk_channel *channel)
{
	const struct sk_shared_weights *weights = sk_holder_weights(serving->holder);
	Sk__Held held = SK__HELD__INIT;
	Sk__FromHolder message = SK__FROM_HOLDER__INIT;

	held.version = SK_HELD_VERSION;
	held.server = (char *)"streamkvd " SK_VERSION;
	held.model = (char *)sk_model_config(serving->model)->name;
	held.fingerprint.data = (uint8_t *)serving->fingerprint;
	held.fingerprint.len = sizeof serving->fingerprint;
	held.format = serving->format;
	held.layout = (char *)weights->layout;
	held.n_bytes = weights->n_bytes;
	held.pieces = weights->pieces;
	held.n_pieces = weights->n_pieces;
	held.checksum = weights->checksum;
	if (is_bound(serving)) {
		held.handle.data = (uint8_t *)weights->handle;
		held.handle.len = sizeof weights->handle;
	}
	message.body_case = SK__FROM_HOLDER__BODY_HELD;
	message.held = &held;
	return sk_channel_send(channel, &message.base, &weights->fd, weights->fd >= 0);
}

/* Takes the socket over. */
static int user_create(struct serving *serving, int fd, struct user **ret_user)
{
	uid_t uid;
	struct user *user = calloc(1, sizeof *user);
	if (!user) {
		close(fd);
		return -ENOMEM;
	}
	user->serving = serving;
	sk_list_append(&serving->users, &user->node);
	int err = sk_channel_create(fd, &user->channel);
	if (err < 0) {
		sk_list_remove(&user->node);
		free(user);
		return err;
	}
	err = sk_channel_peer(user->channel, &uid, &user->pid);
	if (err == 0 && uid != geteuid() && uid != 0) {
		sk_log(SK_LOG_WARNING, "user %u may not have the weights", (unsigned)uid);
		err = -EACCES;
	}
	user->reading = event_new(serving->base, sk_channel_fd(user->channel), EV_READ | EV_PERSIST,
				  on_readable, user);
	user->writing = event_new(serving->base, sk_channel_fd(user->channel),
				  EV_WRITE | EV_PERSIST, on_writable, user);
	if (err == 0 && (!user->reading || !user->writing))
		err = -ENOMEM;
	if (err == 0)
		err = say_held(serving, user->channel);
	if (err < 0) {
		user_destroy(user);
		return err;
	}
	*ret_user = user;
	return 0;
}

/* The socket stays readable: for a moment, rather than spin. */
static void look_away(struct serving *serving, int error)
{
	const struct timeval moment = {.tv_usec = 100000};
	if (error != EMFILE && error != ENFILE && error != ENOMEM && error != ENOBUFS)
		return; /* the engine went again, or a signal came */
	if (!serving->is_short)
		sk_log(SK_LOG_WARNING, "an engine has to wait: %s", strerror(error));
	serving->is_short = true;
	event_del(serving->accepting);
	event_add(serving->accept_again, &moment);
}

static void on_accept_again(evutil_socket_t fd, short what, void *context)
{
	struct serving *serving = context;
	(void)fd;
	(void)what;
	if (!serving->is_stopping)
		event_add(serving->accepting, NULL);
}

static void on_user(evutil_socket_t fd, short what, void *context)
{
	struct serving *serving = context;
	struct user *user;
	(void)what;
	/* A copy of the weights' goes with the first frame: who could not be given it waits in the backlog. */
	const int spare = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	const int connection =
		spare < 0 ? -1 : accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	const int error = errno;
	if (spare >= 0)
		close(spare);
	if (connection < 0) {
		look_away(serving, error);
		return;
	}
	serving->is_short = false;
	if (user_create(serving, connection, &user) < 0)
		return;
	serving->n_users++;
	sk_log(SK_LOG_INFO, "process %d uses the weights", (int)user->pid);
	event_add(user->reading, NULL);
	event_add(user->writing, NULL);
	tell(serving);
}

static void on_end(evutil_socket_t number, short what, void *context)
{
	struct serving *serving = context;
	(void)what;
	sk_notify("STOPPING=1");
	event_del(serving->terminate);
	event_del(serving->interrupt); /* a second one ends the process as the system would */
	event_del(serving->accepting);
	serving->is_stopping = true;
	if (is_bound(serving) && serving->n_users) {
		sk_log(SK_LOG_NOTICE, "%s: ending once %u engine%s left", strsignal(number),
		       serving->n_users, serving->n_users == 1 ? " has" : "s have");
		return;
	}
	sk_log(SK_LOG_NOTICE, "%s: ending", strsignal(number));
	event_base_loopbreak(serving->base);
}

static void finish(struct serving *serving)
{
	struct event *events[] = {serving->accepting, serving->accept_again, serving->terminate,
				  serving->interrupt};
	sk_list_for_each (node, &serving->users)
		user_destroy(sk_container_of(node, struct user, node));
	sk_keeper_finish(&serving->keeper);
	for (unsigned i = 0; i < sizeof events / sizeof *events; i++) {
		if (events[i])
			event_free(events[i]);
	}
	if (serving->base)
		event_base_free(serving->base);
}

int sk_holder_serve(struct sk_holder *holder, const struct sk_model *model,
		    enum sk_weight_format format, struct sk_listener *listener,
		    struct sk_diag *diag)
{
	struct serving serving = {.holder = holder, .model = model, .format = format};

	signal(SIGPIPE, SIG_IGN);
	sk_list_init(&serving.users);
	sk_keeper_init(&serving.keeper);
	int err = sk_model_fingerprint(model, serving.fingerprint);
	serving.base = event_base_new();
	if (err == 0 && serving.base) {
		serving.accepting = event_new(serving.base, listener->fd, EV_READ | EV_PERSIST,
					      on_user, &serving);
		serving.accept_again = evtimer_new(serving.base, on_accept_again, &serving);
		serving.terminate = evsignal_new(serving.base, SIGTERM, on_end, &serving);
		serving.interrupt = evsignal_new(serving.base, SIGINT, on_end, &serving);
	}
	if (err < 0 || !serving.base || !serving.accepting || !serving.accept_again ||
	    !serving.terminate || !serving.interrupt) {
		finish(&serving);
		sk_diag_fail(diag, ENOMEM, "not enough memory");
		return EX_OSERR;
	}
	event_add(serving.accepting, NULL);
	event_add(serving.terminate, NULL);
	event_add(serving.interrupt, NULL);
	sk_notify("READY=1");
	tell(&serving);
	if (event_base_dispatch(serving.base) < 0) {
		sk_diag_fail(diag, EIO, "the event loop failed");
		serving.exit_code = EX_OSERR;
	}
	finish(&serving);
	return serving.exit_code;
}
