/* A session outside the pool, as `sessions save` gives it and as the store keeps it:
 *
 *     0                      struct sk_image: which model, which session
 *     SK_IMAGE_HEADER_BYTES  n_pages pages of page_bytes, as sk_pages_list() names them and the backend reads them
 *
 * Numbers are little-endian, as every machine is that this runs on. The header and the pages have a checksum each.
 * Plain data; any thread.
 */
#pragma once

#include "base/diag.h"
#include "engine/session.h"
#include "model/fingerprint.h"

#define SK_IMAGE_VERSION      1
#define SK_IMAGE_HEADER_BYTES 20480

struct sk_image {
	char magic[8];         /* "streamkv" */
	uint32_t version;      /* SK_IMAGE_VERSION */
	uint32_t header_bytes; /* SK_IMAGE_HEADER_BYTES */
	uint64_t hash;         /* XXH3 of this struct with 0 here */
	uint64_t pages_hash;   /* XXH3 of the pages */

	uint8_t model[SK_FINGERPRINT_BYTES];
	char layout[32]; /* sk_backend_page_layout() */
	uint64_t page_bytes;
	uint32_t page_tokens, n_pages;

	uint32_t mode, sink, window, slack; /* struct sk_policy */
	uint64_t next, first, n_sink;       /* struct sk_window */
	uint64_t origin;
	int32_t last_id;
	uint32_t has_random; /* the sampler's: */
	uint64_t random[4], seed;
	uint64_t begun_s, used_s; /* since 1970 */
	uint64_t ttl_ns;          /* UINT64_MAX: as the daemon keeps others */
	uint64_t n_requests, n_generated;
	uint32_t n_recent, zero;
	int32_t recent[SK_REPEAT_MOST]; /* the last ids, for the repetition penalty */
};

/* What an image must fit. */
struct sk_image_kind {
	uint8_t model[SK_FINGERPRINT_BYTES];
	const char *layout;
	uint64_t page_bytes;
	uint32_t n_vocab;
};

/* All but pages_hash and hash. now_ns: sk_clock_ns(). */
void sk_image_of(const struct sk_session *session, const struct sk_image_kind *kind,
		 uint64_t now_ns, struct sk_image *ret_image);
/* Once the pages' hash is in. */
void sk_image_seal(struct sk_image *image);
/* Whether a header of a file of n_bytes is whole, of this kind, and means something: 0, or -EBADMSG, -EPROTONOSUPPORT
 * (of another version), -EXDEV (another model or layout) and a sentence. The pages' hash is for whoever reads them. */
int sk_image_check(const struct sk_image *image, uint64_t n_bytes, const struct sk_image_kind *kind,
		   struct sk_diag *diag);
/* The session becomes what the image says, its pages aside. -ENOMEM: it is as it was. */
int sk_image_apply(const struct sk_image *image, uint64_t now_ns, struct sk_session *session);
/* Used now; to be sealed again. */
void sk_image_use(struct sk_image *image);
struct sk_window sk_image_window(const struct sk_image *image);
