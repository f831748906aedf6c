#include "engine/mover.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

struct sk_move *sk_move_create(enum sk_move_kind kind, uint32_t n_pages)
{
	struct sk_move *move = calloc(1, sizeof *move);
	if (!move)
		return NULL;
	sk_list_init(&move->mail.node);
	move->mail.kind = SK_MAIL_MOVED;
	move->kind = kind;
	move->fd = -1;
	move->image = calloc(1, SK_IMAGE_HEADER_BYTES);
	move->pages = calloc(n_pages + 1u, sizeof *move->pages);
	if (!move->image || !move->pages) {
		sk_move_destroy(move);
		return NULL;
	}
	return move;
}

void sk_move_destroy(struct sk_move *move)
{
	if (!move)
		return;
	if (move->fd >= 0)
		close(move->fd);
	free(move->image);
	free(move->pages);
	free(move);
}

/* --- Bytes --- */

static int write_all(int fd, const void *bytes, size_t n, off_t at)
{
	const char *from = bytes;
	while (n) {
		ssize_t done = pwrite(fd, from, n, at);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		from += done;
		at += done;
		n -= (size_t)done;
	}
	return 0;
}

static int read_all(int fd, void *bytes, size_t n, off_t at)
{
	char *to = bytes;
	while (n) {
		ssize_t done = pread(fd, to, n, at);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EBADMSG;
		to += done;
		at += done;
		n -= (size_t)done;
	}
	return 0;
}

static off_t page_at(const struct sk_image *image, uint32_t i)
{
	return (off_t)(SK_IMAGE_HEADER_BYTES + i * image->page_bytes);
}

static int damaged(struct sk_diag *diag)
{
	return sk_diag_fail(diag, EBADMSG,
			    "the saved session is damaged: its entries do not have their checksum");
}

/* Where pages come from and go to; one of each. */
struct pages_from {
	struct sk_backend *backend; /* with `pages`, else */
	const uint32_t *pages;
	int fd;            /* a file, else */
	const char *bytes; /* memory, as in a file */
};

/* Carries the pages of an image, through a buffer of one. *ret_hash is of what came. Stops at the first page that fails: what
 * the device did not give is never written. */
static int carry(const struct sk_image *image, const struct pages_from *from,
		 struct sk_backend *to_backend, const uint32_t *to_pages, int to_fd,
		 uint64_t *ret_hash, struct sk_diag *diag)
{
	const size_t n = image->page_bytes;
	sk_autofree char *buffer = malloc(n);
	XXH3_state_t *hash = XXH3_createState();
	int err = buffer && hash ? 0 : -ENOMEM;
	bool is_device = false; /* that failed */

	if (!err)
		XXH3_64bits_reset(hash);
	for (uint32_t i = 0; !err && i < image->n_pages; i++) {
		is_device = from->pages;
		if (from->pages)
			err = sk_backend_read_page(from->backend, from->pages[i], buffer);
		else if (from->bytes)
			memcpy(buffer, from->bytes + page_at(image, i), n);
		else
			err = read_all(from->fd, buffer, n, page_at(image, i));
		if (err < 0)
			break;
		XXH3_64bits_update(hash, buffer, n);
		is_device = to_pages;
		if (to_pages)
			err = sk_backend_write_page(to_backend, to_pages[i], buffer);
		else
			err = write_all(to_fd, buffer, n, page_at(image, i));
	}
	if (!err)
		*ret_hash = XXH3_64bits_digest(hash);
	XXH3_freeState(hash);
	if (!err)
		return 0;
	if (is_device)
		return sk_diag_fail(diag, -err, "the device failed while a session was being %s",
				    to_pages ? "brought back" : "stored");
	return sk_diag_fail(diag, -err, "%s: %s",
			    to_pages ? "the stored session cannot be read"
				     : "the session could not be written",
			    strerror(-err));
}

/* --- Moves --- */

static int open_stored(struct sk_mover *mover, struct sk_move *move, int *ret_fd)
{
	char name[SK_STORE_NAME_BYTES];
	struct stat info;

	sk_store_name(move->uid, move->name, name);
	sk_autoclose int fd = openat(mover->store->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &info) < 0)
		return sk_diag_fail(&move->diag, errno, "%s/%s cannot be read: %s",
				    mover->store->path, name, strerror(errno));
	if (info.st_size >= SK_IMAGE_HEADER_BYTES &&
	    read_all(fd, move->image, sizeof *move->image, 0) < 0)
		return sk_diag_fail(&move->diag, EIO, "%s/%s cannot be read", mover->store->path,
				    name);
	move->n_bytes = (uint64_t)info.st_size;
	int err = sk_image_check(move->image, move->n_bytes, &mover->kind, &move->diag);
	if (err < 0)
		return err;
	*ret_fd = sk_steal_fd(&fd);
	return 0;
}

/* Pages to an open file, then the header with their checksum. */
static int write_image(struct sk_move *move, const struct pages_from *from, int fd)
{
	struct sk_image *image = move->image;
	const uint64_t expected = image->pages_hash;

	move->n_bytes = SK_IMAGE_HEADER_BYTES + image->n_pages * image->page_bytes;
	int err = carry(image, from, NULL, NULL, fd, &image->pages_hash, &move->diag);
	if (err < 0)
		return err;
	if (!from->pages && image->pages_hash != expected)
		return damaged(&move->diag);
	sk_image_seal(image);
	err = write_all(fd, image, SK_IMAGE_HEADER_BYTES, 0);
	return err < 0 ? sk_diag_fail(&move->diag, -err, "the session could not be written: %s",
				      strerror(-err))
		       : 0;
}

static int write_draft(struct sk_mover *mover, struct sk_move *move, const struct pages_from *from)
{
	const char *path = mover->store->path;
	sk_autoclose int fd = openat(mover->store->dir_fd, move->draft,
				     O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return sk_diag_fail(&move->diag, errno, "%s/%s cannot be written: %s", path,
				    move->draft, strerror(errno));
	int err = write_image(move, from, fd);
	if (!err && move->to_disk && fdatasync(fd) < 0)
		err = sk_diag_fail(&move->diag, errno, "%s/%s cannot be written: %s", path,
				   move->draft, strerror(errno));
	if (err < 0)
		sk_store_remove_draft(mover->store, move->draft);
	return err;
}

static int adopt_draft(struct sk_mover *mover, struct sk_move *move)
{
	int err = sk_store_adopt(mover->store, move->draft, move->uid, move->name);
	if (err == 0)
		return 0;
	sk_store_remove_draft(mover->store, move->draft);
	return sk_diag_fail(&move->diag, -err, "%s/%s cannot be renamed: %s", mover->store->path,
			    move->draft, strerror(-err));
}

static int move_out(struct sk_mover *mover, struct sk_move *move)
{
	const struct pages_from pool = {.backend = mover->backend, .pages = move->pages};
	int err = write_draft(mover, move, &pool);
	return err < 0 ? err : adopt_draft(mover, move);
}

/* Written anew and renamed, as ever: a fork may be the same file. */
static int move_kept(struct sk_mover *mover, struct sk_move *move)
{
	sk_autoclose int fd = -1;
	int err = open_stored(mover, move, &fd);
	if (err < 0)
		return err;
	const struct pages_from from = {.fd = fd};
	move->image->ttl_ns = move->ttl_ns;
	if (move->is_use)
		sk_image_use(move->image);
	err = write_draft(mover, move, &from);
	return err < 0 ? err : adopt_draft(mover, move);
}

static int move_in(struct sk_mover *mover, struct sk_move *move)
{
	sk_autoclose int fd = -1;
	uint64_t hash;
	const struct sk_image wanted = {.next = move->image->next,
					.first = move->image->first,
					.n_sink = move->image->n_sink,
					.n_pages = move->image->n_pages};
	int err = open_stored(mover, move, &fd);
	if (err < 0)
		return err;
	const struct sk_image *image = move->image;
	if (image->next != wanted.next || image->first != wanted.first ||
	    image->n_sink != wanted.n_sink || image->n_pages != wanted.n_pages)
		return sk_diag_fail(&move->diag, EBADMSG,
				    "the stored session is not the one that was stored");
	const struct pages_from from = {.fd = fd};
	err = carry(image, &from, mover->backend, move->pages, -1, &hash, &move->diag);
	if (err < 0)
		return err;
	return hash == image->pages_hash ? 0 : damaged(&move->diag);
}

static int move_to_memfd(struct sk_mover *mover, struct sk_move *move)
{
	sk_autoclose int stored = -1;
	struct pages_from from = {.backend = mover->backend, .pages = move->pages};

	if (move->is_stored) {
		int err = open_stored(mover, move, &stored);
		if (err < 0)
			return err;
		from = (struct pages_from){.fd = stored};
	}
	sk_autoclose int fd = memfd_create("streamkv-session", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return sk_diag_fail(&move->diag, errno, "no memory for the saved session: %s",
				    strerror(errno));
	int err = write_image(move, &from, fd);
	if (err < 0)
		return err;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return sk_diag_fail(&move->diag, errno, "the saved session cannot be sealed: %s",
				    strerror(errno));
	move->fd = sk_steal_fd(&fd);
	return 0;
}

static int move_loaded(struct sk_mover *mover, struct sk_move *move)
{
	const struct sk_request *request = move->request;
	const struct pages_from from = {.fd = -1, .bytes = request->input};

	if (request->n_input_bytes >= SK_IMAGE_HEADER_BYTES)
		memcpy(move->image, request->input, sizeof *move->image);
	int err = sk_image_check(move->image, request->n_input_bytes, &mover->kind, &move->diag);
	if (err < 0)
		return err;
	sk_image_use(move->image);
	return write_draft(mover, move, &from);
}

void sk_mover_run(struct sk_mover *mover, struct sk_move *move)
{
	switch (move->kind) {
	case SK_MOVE_OUT:
		move->error = move_out(mover, move);
		break;
	case SK_MOVE_IN:
		move->error = move_in(mover, move);
		break;
	case SK_MOVE_SAVE:
		move->error = move_to_memfd(mover, move);
		break;
	case SK_MOVE_KEEP:
		move->error = move_kept(mover, move);
		break;
	case SK_MOVE_LOAD:
		move->error = move_loaded(mover, move);
		break;
	}
}

/* --- The thread --- */

static struct sk_move *move_of(struct sk_list *node)
{
	return sk_container_of(sk_container_of(node, struct sk_mail, node), struct sk_move, mail);
}

static void take_all(struct sk_mover *mover)
{
	struct sk_list letters;
	sk_mailbox_take(&mover->inbox, &letters);
	for (struct sk_list *node; (node = sk_list_pop(&letters));) {
		const enum sk_move_kind kind = move_of(node)->kind;
		bool is_urgent = kind == SK_MOVE_OUT || kind == SK_MOVE_IN;
		sk_list_append(is_urgent ? &mover->urgent : &mover->others, node);
	}
}

/* False: there is none. */
static bool run_one(struct sk_mover *mover)
{
	take_all(mover);
	/* One of the others after some urgent ones: while memory is short there is always another of those. */
	struct sk_list *node = NULL;
	if (mover->n_urgent >= SK_MOVER_URGENT)
		node = sk_list_pop(&mover->others);
	mover->n_urgent = node ? 0 : mover->n_urgent + 1;
	if (!node)
		node = sk_list_pop(&mover->urgent);
	if (!node)
		node = sk_list_pop(&mover->others);
	if (!node)
		return false;
	sk_mover_run(mover, move_of(node));
	sk_mailbox_post(mover->engine, node);
	return true;
}

static void *mover_main(void *context)
{
	struct sk_mover *mover = context;

	pthread_setname_np(pthread_self(), "sk-mover");
	while (!atomic_load(&mover->is_stopping)) {
		if (!run_one(mover))
			sk_mailbox_wait(&mover->inbox, -1);
	}
	return NULL;
}

int sk_mover_init(struct sk_mover *mover, struct sk_backend *backend, struct sk_store *store,
		  const struct sk_image_kind *kind, struct sk_mailbox *engine)
{
	*mover = (struct sk_mover){
		.backend = backend, .store = store, .kind = *kind, .engine = engine};
	sk_list_init(&mover->urgent);
	sk_list_init(&mover->others);
	return sk_mailbox_init(&mover->inbox);
}

int sk_mover_start(struct sk_mover *mover)
{
	int err = pthread_create(&mover->thread, NULL, mover_main, mover);
	mover->is_running = err == 0;
	return -err;
}

void sk_mover_stop(struct sk_mover *mover)
{
	if (mover->is_running) {
		atomic_store(&mover->is_stopping, true);
		sk_mailbox_wake(&mover->inbox);
		pthread_join(mover->thread, NULL);
		mover->is_running = false;
	}
	if (!mover->inbox.letters.next)
		return;
	while (run_one(mover)) {
	}
}

void sk_mover_finish(struct sk_mover *mover)
{
	sk_mover_stop(mover);
	sk_mailbox_finish(&mover->inbox);
}

void sk_mover_submit(struct sk_mover *mover, struct sk_move *move)
{
	sk_mailbox_post(&mover->inbox, &move->mail.node);
}
