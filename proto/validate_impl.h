/* What the files of validation share. Private to proto/. */
#pragma once

#include "proto/validate.h"

/* -EBADMSG unless the frame came with so many descriptors. */
int sk_expect_fds(const struct sk_frame *frame, const char *name, unsigned n_wanted,
		  struct sk_diag *diag);
/* -EINVAL unless `name` is one that sessions and chats may have; an empty one is none. Refuses without quoting: the name
 * may hold anything, and the sentence stays plain. */
int sk_check_name(const char *field, const char *name, struct sk_diag *diag);

/* --- validate_sessions.c: sessions by name, and lists of what there is --- */

int sk_check_session_request(const Sk__SessionRequest *request, const struct sk_limits *limits,
			     struct sk_diag *diag);
/* What the daemon says, as part of unpacking it: -EBADMSG. */
int sk_expect_session_answer(const Sk__SessionAnswer *answer, const struct sk_frame *frame,
			     struct sk_diag *diag);
int sk_expect_listing(const Sk__Listing *listing, const struct sk_frame *frame,
		      struct sk_diag *diag);
