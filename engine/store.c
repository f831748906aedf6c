#include "engine/store.h"

#include "base/cleanup.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX ".kv"
#define LEDGER "ledger"

static int open_folder(int at_fd, const char *path, int *ret_fd)
{
	if (mkdirat(at_fd, path, 0700) < 0 && errno != EEXIST)
		return -errno;
	int fd = openat(at_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

/* Whoever may write there could give one user's session to another. */
static int check_owner(int fd)
{
	struct stat info;
	if (fstat(fd, &info) < 0)
		return -errno;
	return info.st_uid != geteuid() || (info.st_mode & (S_IWGRP | S_IWOTH)) ? -EPERM : 0;
}

/* A state directory that does not exist yet may have no parent either: ~/.local/state/streamkv. */
static int open_path(const char *path, int *ret_fd)
{
	char parent[4096];
	int err = open_folder(AT_FDCWD, path, ret_fd);
	for (size_t i = 1; err == -ENOENT && i < sizeof parent && path[i - 1]; i++) {
		if (path[i] != '/')
			continue;
		memcpy(parent, path, i);
		parent[i] = '\0';
		if (mkdir(parent, 0700) < 0 && errno != EEXIST)
			return -errno;
	}
	return err == -ENOENT ? open_folder(AT_FDCWD, path, ret_fd) : err;
}

int sk_store_open(const char *state_dir, const uint8_t model[SK_FINGERPRINT_BYTES],
		  struct sk_store **ret_store, struct sk_diag *diag)
{
	char name[2 * SK_FINGERPRINT_BYTES + 1];
	sk_autoclose int state_fd = -1, fd = -1;

	for (unsigned i = 0; i < SK_FINGERPRINT_BYTES; i++)
		snprintf(name + 2 * i, 3, "%02x", model[i]);
	int err = open_path(state_dir, &state_fd);
	if (!err)
		err = open_folder(state_fd, name, &fd);
	if (!err)
		err = check_owner(state_fd);
	if (!err)
		err = check_owner(fd);
	if (err == -EPERM)
		return sk_diag_fail(
			diag, EPERM,
			"the state directory %s cannot be used: it is another user's, or "
			"others may write there",
			state_dir);
	if (err < 0)
		return sk_diag_fail(diag, -err, "the state directory %s cannot be used: %s",
				    state_dir, strerror(-err));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return sk_diag_fail(
			diag, errno == EWOULDBLOCK ? EBUSY : errno,
			"%s/%s: another streamkvd keeps its sessions there; give this one another "
			"--state-dir",
			state_dir, name);
	struct sk_store *store = calloc(1, sizeof *store);
	if (!store)
		return sk_diag_fail(diag, ENOMEM, "not enough memory");
	store->dir_fd = sk_steal_fd(&fd);
	snprintf(store->path, sizeof store->path, "%s/%s", state_dir, name);
	memcpy(store->model, model, sizeof store->model);
	*ret_store = store;
	return 0;
}

void sk_store_close(struct sk_store *store)
{
	if (!store)
		return;
	close(store->dir_fd);
	free(store);
}

void sk_store_sync(struct sk_store *store)
{
	(void)syncfs(store->dir_fd); /* what fails here has been told where it was written */
}

int sk_store_names_ledger(const struct sk_store *store, const uint8_t id[SK_LEDGER_ID_BYTES])
{
	uint8_t named[SK_LEDGER_ID_BYTES];
	sk_autoclose int fd = openat(store->dir_fd, LEDGER, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	return pread(fd, named, sizeof named, 0) == sizeof named &&
	       memcmp(named, id, sizeof named) == 0;
}

void sk_store_name_ledger(struct sk_store *store, const uint8_t id[SK_LEDGER_ID_BYTES])
{
	if (id && sk_store_names_ledger(store, id) == 1)
		return;
	(void)unlinkat(store->dir_fd, LEDGER, 0);
	if (!id)
		return;
	sk_autoclose int fd =
		openat(store->dir_fd, LEDGER, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0)
		(void)!pwrite(fd, id, SK_LEDGER_ID_BYTES, 0); /* one cut short names none */
}

void sk_store_name(uid_t uid, const char *session, char ret_name[SK_STORE_NAME_BYTES])
{
	snprintf(ret_name, SK_STORE_NAME_BYTES, "%u-%s" SUFFIX, (unsigned)uid, session);
}

void sk_store_draft_name(uid_t uid, const char *session, uint64_t serial,
			 char ret_name[SK_STORE_NAME_BYTES])
{
	snprintf(ret_name, SK_STORE_NAME_BYTES, ".%u-%s.%" PRIx64, (unsigned)uid, session, serial);
}

int sk_store_adopt(struct sk_store *store, const char *draft, uid_t uid, const char *session)
{
	char name[SK_STORE_NAME_BYTES];
	sk_store_name(uid, session, name);
	return renameat(store->dir_fd, draft, store->dir_fd, name) < 0 ? -errno : 0;
}

void sk_store_remove_draft(struct sk_store *store, const char *draft)
{
	(void)unlinkat(store->dir_fd, draft, 0);
}

int sk_store_link(struct sk_store *store, uid_t uid, const char *from, const char *to)
{
	char name[SK_STORE_NAME_BYTES], draft[SK_STORE_NAME_BYTES];
	sk_store_name(uid, from, name);
	sk_store_draft_name(uid, to, UINT64_MAX, draft);
	(void)unlinkat(store->dir_fd, draft, 0);
	if (linkat(store->dir_fd, name, store->dir_fd, draft, 0) < 0)
		return -errno;
	int err = sk_store_adopt(store, draft, uid, to);
	(void)unlinkat(store->dir_fd, draft,
		       0); /* rename leaves it where both were the same file */
	return err;
}

void sk_store_remove(struct sk_store *store, uid_t uid, const char *session)
{
	char name[SK_STORE_NAME_BYTES];
	sk_store_name(uid, session, name);
	(void)unlinkat(store->dir_fd, name, 0);
}

/* "1000-notes.kv" */
static bool parse_name(const char *name, uid_t *ret_uid, char ret_session[SK_NAME_MOST_BYTES + 1])
{
	size_t n = strlen(name), n_suffix = strlen(SUFFIX);
	char *end;

	if (!isdigit((unsigned char)name[0]) || n < n_suffix ||
	    strcmp(name + n - n_suffix, SUFFIX) != 0)
		return false;
	errno = 0;
	unsigned long uid = strtoul(name, &end, 10);
	if (errno || *end != '-' || uid >= (uid_t)-1)
		return false;
	size_t n_session = n - n_suffix - (size_t)(end + 1 - name);
	if (!n_session || n_session > SK_NAME_MOST_BYTES)
		return false;
	memcpy(ret_session, end + 1, n_session);
	ret_session[n_session] = '\0';
	*ret_uid = (uid_t)uid;
	return true;
}

int sk_store_scan(struct sk_store *store,
		  void (*found)(void *context, uid_t uid, const char *session,
				const struct sk_image *image, uint64_t n_bytes),
		  void *context)
{
	static const struct sk_image nothing;
	sk_autofree struct sk_image *image = malloc(sizeof *image);
	int fd = dup(store->dir_fd);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (!image || !dir) {
		int err = image ? -errno : -ENOMEM;
		if (dir)
			closedir(dir);
		else if (fd >= 0)
			close(fd);
		return err;
	}
	rewinddir(dir);
	for (struct dirent *entry; (entry = readdir(dir));) {
		char session[SK_NAME_MOST_BYTES + 1];
		uid_t uid;
		struct stat info;
		if (entry->d_name[0] == '.' && isdigit((unsigned char)entry->d_name[1]))
			(void)unlinkat(store->dir_fd, entry->d_name, 0);
		if (!parse_name(entry->d_name, &uid, session))
			continue;
		if (session[0] == SK_STORE_NAMELESS[0]) {
			(void)unlinkat(store->dir_fd, entry->d_name, 0);
			continue;
		}
		sk_autoclose int file =
			openat(store->dir_fd, entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (file < 0 || fstat(file, &info) < 0 || !S_ISREG(info.st_mode))
			continue;
		if (pread(file, image, sizeof *image, 0) != sizeof *image)
			*image = nothing;
		found(context, uid, session, image, (uint64_t)info.st_size);
	}
	closedir(dir);
	return 0;
}
