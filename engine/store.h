/* Where sessions lie that are not in the pool: a folder with a file (image.h) for each, of one model and one daemon
 * at a time.
 *
 *     STATE_DIR/MODEL'S FINGERPRINT/UID-NAME.kv
 *                                   ledger      which ledger (ledger.h) its last daemon had beside the files
 *
 * A session's file is written under another name and renamed when it is whole, and never changed afterwards. The folder is
 * the daemon's alone (0700). Used by the engine thread and the mover; nothing here is shared but the descriptor.
 */
#pragma once

#include "base/diag.h"
#include "engine/image.h"
#include "engine/ledger.h"

#include <sys/types.h>

struct sk_store {
	int dir_fd; /* locked */
	char path[4096];
	uint8_t model[SK_FINGERPRINT_BYTES];
};

#define SK_STORE_NAME_BYTES (SK_NAME_MOST_BYTES + 32)
/* What no session's name begins with: files of those that have none, which end with their daemon. */
#define SK_STORE_NAMELESS "~"

/* Makes the folders where they are missing. -EBUSY: another daemon with this model uses it; other -errno; and a
 * sentence. */
int sk_store_open(const char *state_dir, const uint8_t model[SK_FINGERPRINT_BYTES],
		  struct sk_store **ret_store, struct sk_diag *diag);
void sk_store_close(struct sk_store *store);
/* All that was stored until now outlives a loss of power. */
void sk_store_sync(struct sk_store *store);

/* From here on a daemon changes these files that has that ledger, or (NULL) none: what stands in any other may be older than
 * a file. Where it cannot be written, none is named. */
void sk_store_name_ledger(struct sk_store *store, const uint8_t id[SK_LEDGER_ID_BYTES]);
/* 1 or 0; -errno: it cannot be seen. */
int sk_store_names_ledger(const struct sk_store *store, const uint8_t id[SK_LEDGER_ID_BYTES]);

/* The file of a user's session, in the folder. */
void sk_store_name(uid_t uid, const char *session, char ret_name[SK_STORE_NAME_BYTES]);
/* Under which it is written; `serial` tells drafts of one session apart. */
void sk_store_draft_name(uid_t uid, const char *session, uint64_t serial,
			 char ret_name[SK_STORE_NAME_BYTES]);
/* A draft becomes the session's file, in the stead of what was there. -errno: nothing has changed. */
int sk_store_adopt(struct sk_store *store, const char *draft, uid_t uid, const char *session);
void sk_store_remove_draft(struct sk_store *store, const char *draft);
/* The same session under another name, without a copy, in the stead of what was there. -errno: nothing has changed. */
int sk_store_link(struct sk_store *store, uid_t uid, const char *from, const char *to);
/* It is gone, or was never there. */
void sk_store_remove(struct sk_store *store, uid_t uid, const char *session);

/* Calls `found` for every file that has a session's name, with its header where it can be read. What else lies there
 * is passed over; what was left half-written is removed. 0 or -errno. */
int sk_store_scan(struct sk_store *store,
		  void (*found)(void *context, uid_t uid, const char *session,
				const struct sk_image *image, uint64_t n_bytes),
		  void *context);
