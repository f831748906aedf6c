/* Sessions by name, and lists of what there is: what is asked, and what is answered. */
#include "proto/validate_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define MOST_TTL_MS (UINT64_C(100) * 366 * 86400 * 1000) /* a hundred years */

/* --- What a client asks --- */

static int refuse_unless(bool is_allowed, const char *field, const char *verbs,
			 struct sk_diag *diag)
{
	if (is_allowed)
		return 0;
	return sk_diag_fail(diag, EINVAL, "SessionRequest.%s is given; only with verb %s it may be",
			    field, verbs);
}

static int check_load(const Sk__SessionRequest *r, const struct sk_limits *limits,
		      struct sk_diag *diag)
{
	if (!r->in_memfd)
		return sk_diag_fail(diag, EINVAL,
				    "SessionRequest.in_memfd is not set; with verb 6 (load) it "
				    "must be");
	if (r->saved_bytes == 0 || r->saved_bytes > limits->max_saved_bytes)
		return sk_diag_fail(diag, EINVAL,
				    "SessionRequest.saved_bytes is %" PRIu64 "; 1 to %" PRIu64
				    " is allowed",
				    r->saved_bytes, limits->max_saved_bytes);
	return 0;
}

int sk_check_session_request(const Sk__SessionRequest *r, const struct sk_limits *limits,
			     struct sk_diag *diag)
{
	const bool is_fork = r->verb == SK__SESSION_VERB__SESSION_FORK,
		   is_load = r->verb == SK__SESSION_VERB__SESSION_LOAD,
		   is_keep = r->verb == SK__SESSION_VERB__SESSION_KEEP;
	int err;

	if (r->verb < SK__SESSION_VERB__SESSION_SHOW || r->verb > SK__SESSION_VERB__SESSION_KEEP)
		return sk_diag_fail(diag, EINVAL, "SessionRequest.verb is %d; 1 to %d is allowed",
				    (int)r->verb, (int)SK__SESSION_VERB__SESSION_KEEP);
	if ((err = sk_check_name("SessionRequest.name", r->name, diag)) < 0 ||
	    (is_fork && (err = sk_check_name("SessionRequest.to", r->to, diag)) < 0) ||
	    (err = refuse_unless(is_fork || !*r->to, "to", "2 (fork)", diag)) < 0 ||
	    (err = refuse_unless(is_fork || is_load || !r->replace, "replace",
				 "2 (fork) or 6 (load)", diag)) < 0 ||
	    (err = refuse_unless(is_load || !r->in_memfd, "in_memfd", "6 (load)", diag)) < 0 ||
	    (err = refuse_unless(is_load || !r->saved_bytes, "saved_bytes", "6 (load)", diag)) <
		    0 ||
	    (err = refuse_unless(is_keep || !r->has_ttl_case, "ttl_ms", "7 (keep)", diag)) < 0)
		return err;
	if (is_fork && strcmp(r->to, r->name) == 0)
		return sk_diag_fail(diag, EINVAL,
				    "SessionRequest.to is the session's own name; another is "
				    "allowed");
	if (is_keep && r->has_ttl_case && r->ttl_ms > MOST_TTL_MS)
		return sk_diag_fail(diag, EINVAL,
				    "SessionRequest.ttl_ms is %" PRIu64 "; up to %" PRIu64
				    " is allowed",
				    r->ttl_ms, MOST_TTL_MS);
	return is_load ? check_load(r, limits, diag) : 0;
}

/* --- What the daemon answers --- */

/* People are shown these names, so they are no more than that. */
static int expect_name(const char *field, const char *name, struct sk_diag *diag)
{
	return *name && sk_check_name(field, name, diag) < 0 ? -EBADMSG : 0;
}

static int expect_session(const Sk__SessionInfo *session, struct sk_diag *diag)
{
	if (!session->policy)
		return sk_diag_fail(diag, EBADMSG, "SessionInfo.policy is missing");
	return expect_name("SessionInfo.name", session->name, diag);
}

int sk_expect_session_answer(const Sk__SessionAnswer *answer, const struct sk_frame *frame,
			     struct sk_diag *diag)
{
	if (!answer->session)
		return sk_diag_fail(diag, EBADMSG, "SessionAnswer.session is missing");
	int err = expect_session(answer->session, diag);
	if (err < 0)
		return err;
	if (!answer->in_memfd != !answer->saved_bytes)
		return sk_diag_fail(diag, EBADMSG,
				    "SessionAnswer.saved_bytes is %" PRIu64 " %s in_memfd",
				    answer->saved_bytes, answer->in_memfd ? "with" : "without");
	return sk_expect_fds(frame, "SessionAnswer", answer->in_memfd ? 1 : 0, diag);
}

int sk_expect_listing(const Sk__Listing *listing, const struct sk_frame *frame,
		      struct sk_diag *diag)
{
	int err = 0;

	for (size_t i = 0; i < listing->n_sessions && !err; i++)
		err = expect_session(listing->sessions[i], diag);
	for (size_t i = 0; i < listing->n_requests && !err; i++)
		err = expect_name("RequestInfo.session", listing->requests[i]->session, diag);
	return err < 0 ? err : sk_expect_fds(frame, "Listing", 0, diag);
}
