#include "engine/image.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

_Static_assert(sizeof(struct sk_image) <= SK_IMAGE_HEADER_BYTES, "the header holds the struct");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "images are little-endian");

static const char magic[8] = {'s', 't', 'r', 'e', 'a', 'm', 'k', 'v'};

static uint64_t unix_s(uint64_t ns, uint64_t now_ns)
{
	uint64_t ago_s = now_ns > ns ? (now_ns - ns) / 1000000000 : 0, now_s = (uint64_t)time(NULL);
	return now_s > ago_s ? now_s - ago_s : 0;
}

static uint64_t clock_of(uint64_t s, uint64_t now_ns)
{
	uint64_t now_s = (uint64_t)time(NULL), ago_s = now_s > s ? now_s - s : 0;
	return now_ns / 1000000000 > ago_s ? now_ns - ago_s * 1000000000 : 1;
}

static uint64_t hash_of(const struct sk_image *image)
{
	XXH64_hash_t before, after;
	size_t at = offsetof(struct sk_image, hash), behind = at + sizeof image->hash;
	before = XXH3_64bits(image, at);
	after = XXH3_64bits_withSeed((const char *)image + behind, sizeof *image - behind, before);
	return after;
}

void sk_image_of(const struct sk_session *session, const struct sk_image_kind *kind,
		 uint64_t now_ns, struct sk_image *ret_image)
{
	const struct sk_window *window = &session->window;
	const struct sk_sampler_memory *sampler = &session->sampler;

	*ret_image = (struct sk_image){
		.version = SK_IMAGE_VERSION,
		.header_bytes = SK_IMAGE_HEADER_BYTES,
		.page_bytes = kind->page_bytes,
		.page_tokens = SK_PAGE_TOKENS,
		.n_pages = sk_pages_distinct(&session->pages),
		.mode = window->policy.mode,
		.sink = window->policy.sink,
		.window = window->policy.window,
		.slack = window->policy.slack,
		.next = window->next,
		.first = window->first,
		.n_sink = window->n_sink,
		.origin = session->origin,
		.last_id = session->last_id,
		.has_random = sampler->has_random,
		.seed = sampler->seed,
		.begun_s = unix_s(session->begun_ns, now_ns),
		.used_s = unix_s(session->last_used_ns, now_ns),
		.ttl_ns = session->has_ttl ? session->ttl_ns : UINT64_MAX,
		.n_requests = session->n_requests,
		.n_generated = session->n_generated,
		.n_recent = sampler->n_recent,
	};
	memcpy(ret_image->magic, magic, sizeof magic);
	memcpy(ret_image->model, kind->model, sizeof ret_image->model);
	strncpy(ret_image->layout, kind->layout, sizeof ret_image->layout - 1);
	memcpy(ret_image->random, sampler->random, sizeof ret_image->random);
	if (sampler->n_recent)
		memcpy(ret_image->recent, sampler->recent,
		       sampler->n_recent * sizeof *sampler->recent);
}

void sk_image_seal(struct sk_image *image)
{
	image->hash = hash_of(image);
}

/* What a daemon would have written, and nothing else: it may come from anywhere. */
static bool means_something(const struct sk_image *image, uint64_t n_bytes, uint32_t n_vocab)
{
	const uint64_t most = UINT64_C(1) << 62;
	bool is_random = image->random[0] | image->random[1] | image->random[2] | image->random[3];

	if (image->header_bytes != SK_IMAGE_HEADER_BYTES || image->page_tokens != SK_PAGE_TOKENS ||
	    image->mode > SK_MODE_DENSE || !image->window || image->next >= most ||
	    image->origin >= most || image->first > image->next || image->n_sink > image->first ||
	    image->n_sink > (image->mode == SK_MODE_WINDOW ? 0 : image->sink) ||
	    image->last_id < -1 || image->last_id >= (int64_t)n_vocab ||
	    image->n_recent > SK_REPEAT_MOST || (image->has_random && !is_random) ||
	    image->n_pages != sk_pages_wanted(image->n_sink, image->first, image->next) ||
	    image->n_pages > (UINT64_MAX - SK_IMAGE_HEADER_BYTES) / image->page_bytes ||
	    n_bytes != SK_IMAGE_HEADER_BYTES + image->n_pages * image->page_bytes)
		return false;
	for (uint32_t i = 0; i < image->n_recent; i++) {
		if (image->recent[i] < 0 || image->recent[i] >= (int64_t)n_vocab)
			return false;
	}
	return true;
}

int sk_image_check(const struct sk_image *image, uint64_t n_bytes, const struct sk_image_kind *kind,
		   struct sk_diag *diag)
{
	if (!n_bytes)
		return sk_diag_fail(diag, EBADMSG, "the saved session is empty");
	if (n_bytes < SK_IMAGE_HEADER_BYTES || memcmp(image->magic, magic, sizeof magic) != 0)
		return sk_diag_fail(diag, EBADMSG, "this is no saved session");
	if (image->version != SK_IMAGE_VERSION)
		return sk_diag_fail(diag, EPROTONOSUPPORT,
				    "the saved session has format %u, this daemon knows %u: it was "
				    "saved by %s streamkvd",
				    image->version, SK_IMAGE_VERSION,
				    image->version > SK_IMAGE_VERSION ? "a newer" : "an older");
	if (image->hash != hash_of(image))
		return sk_diag_fail(diag, EBADMSG,
				    "the saved session is damaged: its header does not have its "
				    "checksum");
	if (memcmp(image->model, kind->model, sizeof image->model) != 0)
		return sk_diag_fail(diag, EXDEV, "the saved session is of another model");
	if (strncmp(image->layout, kind->layout, sizeof image->layout) != 0 ||
	    image->page_bytes != kind->page_bytes)
		return sk_diag_fail(
			diag, EXDEV,
			"the saved session's cache has the layout '%.31s', this daemon's '%s': it "
			"runs with another --kv or --backend",
			image->layout, kind->layout);
	if (!means_something(image, n_bytes, kind->n_vocab))
		return sk_diag_fail(diag, EBADMSG,
				    "the saved session is damaged: it is cut short, or its numbers "
				    "do not fit each other");
	return 0;
}

void sk_image_use(struct sk_image *image)
{
	image->used_s = (uint64_t)time(NULL);
}

struct sk_window sk_image_window(const struct sk_image *image)
{
	return (struct sk_window){
		.policy = {(enum sk_mode)image->mode, image->sink, image->window, image->slack},
		.next = image->next,
		.first = image->first,
		.n_sink = image->n_sink,
	};
}

int sk_image_apply(const struct sk_image *image, uint64_t now_ns, struct sk_session *session)
{
	struct sk_sampler_memory *sampler = &session->sampler;
	if (sk_sampler_memory_set(sampler, image->recent, image->n_recent) < 0)
		return -ENOMEM;
	sampler->has_random = image->has_random;
	sampler->seed = image->seed;
	memcpy(sampler->random, image->random, sizeof sampler->random);
	session->window = sk_image_window(image);
	session->origin = image->origin;
	session->last_id = image->last_id;
	session->begun_ns = clock_of(image->begun_s, now_ns);
	session->last_used_ns = clock_of(image->used_s, now_ns);
	session->has_ttl = image->ttl_ns != UINT64_MAX;
	session->ttl_ns = session->has_ttl ? image->ttl_ns : 0;
	session->n_requests = image->n_requests;
	session->n_generated = image->n_generated;
	return 0;
}
