#include "client/connection.h"
#include "proto/payload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INLINE_BYTES (256u << 10)

/* Bytes that came in a message or in the memfd beside it, as a copy of one's own. */
static int copy_answer(const void *bytes, size_t n_bytes, bool in_memfd,
		       const struct sk_frame *frame, void **ret_copy, struct streamkv_error *error)
{
	struct sk_diag diag = {""};
	const void *mapped = NULL;

	if (in_memfd) {
		if (frame->n_fds != 1 || sk_payload_map(frame->fds[0], n_bytes, &mapped, &diag) < 0)
			return streamkv_fail(error, EPROTO,
					     "the daemon's answer is not of this protocol: %s",
					     diag.text);
		bytes = mapped;
	}
	void *copy = malloc(n_bytes + 1);
	if (copy && n_bytes)
		memcpy(copy, bytes, n_bytes);
	if (mapped)
		sk_payload_unmap(mapped, n_bytes);
	if (!copy)
		return streamkv_fail(error, ENOMEM, "not enough memory for the answer");
	*ret_copy = copy;
	return 0;
}

static int share(struct streamkv *kv, const void *bytes, size_t n_bytes, int *ret_fd,
		 struct streamkv_error *error)
{
	*ret_fd = -1;
	if (n_bytes > kv->welcome.max_prompt_bytes)
		return streamkv_fail(
			error, EMSGSIZE,
			"the input has %zu bytes, the daemon takes %llu (--max-prompt)", n_bytes,
			(unsigned long long)kv->welcome.max_prompt_bytes);
	if (n_bytes <= INLINE_BYTES)
		return 0;
	int err = sk_payload_create(bytes, n_bytes, ret_fd);
	return err < 0 ? streamkv_fail(error, -err, "no memory to share the input: %s",
				       strerror(-err))
		       : 0;
}

int streamkv_tokenize(struct streamkv *kv, const void *text, size_t n_bytes, bool plain,
		      bool add_bos, int32_t **ret_ids, size_t *ret_n_ids,
		      struct streamkv_error *error)
{
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	Sk__Tokenize body = SK__TOKENIZE__INIT;
	Sk__ServerMessage *answer;
	struct sk_frame frame;
	int fd;

	int err = share(kv, text, n_bytes, &fd, error);
	if (err < 0)
		return err;
	body.plain = plain;
	body.add_bos = add_bos;
	body.source_case = fd >= 0 ? SK__TOKENIZE__SOURCE_IN_MEMFD : SK__TOKENIZE__SOURCE_TEXT;
	if (fd >= 0) {
		body.in_memfd = 1;
		body.text_bytes = n_bytes;
	} else {
		body.text = (ProtobufCBinaryData){n_bytes, (uint8_t *)text};
	}
	message.request = streamkv_next_request(kv);
	message.body_case = SK__CLIENT_MESSAGE__BODY_TOKENIZE;
	message.tokenize = &body;
	err = streamkv_call(kv, &message, &fd, fd >= 0, &frame, &answer, error);
	if (fd >= 0)
		close(fd);
	if (err < 0)
		return err;
	if (answer->body_case != SK__SERVER_MESSAGE__BODY_IDS)
		return streamkv_unexpected(kv, answer, &frame, error);
	const Sk__Ids *ids = answer->ids;
	void *copy;
	err = copy_answer(ids->ids, ids->count * sizeof(int32_t), ids->in_memfd, &frame, &copy,
			  error);
	if (!err) {
		*ret_ids = copy;
		*ret_n_ids = ids->count;
	}
	sk__server_message__free_unpacked(answer, NULL);
	sk_frame_finish(&frame);
	return err;
}

int streamkv_detokenize(struct streamkv *kv, const int32_t *ids, size_t n_ids, void **ret_text,
			size_t *ret_n_bytes, struct streamkv_error *error)
{
	Sk__ClientMessage message = SK__CLIENT_MESSAGE__INIT;
	Sk__Detokenize body = SK__DETOKENIZE__INIT;
	Sk__ServerMessage *answer;
	struct sk_frame frame;
	int fd;

	int err = share(kv, ids, n_ids * sizeof *ids, &fd, error);
	if (err < 0)
		return err;
	if (fd >= 0) {
		body.in_memfd = 1;
		body.count = n_ids;
	} else {
		body.ids = (int32_t *)ids;
		body.n_ids = n_ids;
	}
	message.request = streamkv_next_request(kv);
	message.body_case = SK__CLIENT_MESSAGE__BODY_DETOKENIZE;
	message.detokenize = &body;
	err = streamkv_call(kv, &message, &fd, fd >= 0, &frame, &answer, error);
	if (fd >= 0)
		close(fd);
	if (err < 0)
		return err;
	if (answer->body_case != SK__SERVER_MESSAGE__BODY_TEXT)
		return streamkv_unexpected(kv, answer, &frame, error);
	const Sk__Text *text = answer->text;
	bool in_memfd = text->source_case == SK__TEXT__SOURCE_IN_MEMFD;
	size_t n_bytes = in_memfd                                     ? text->text_bytes
			 : text->source_case == SK__TEXT__SOURCE_TEXT ? text->text.len
								      : 0;
	err = copy_answer(in_memfd ? NULL : text->text.data, n_bytes, in_memfd, &frame, ret_text,
			  error);
	if (!err)
		*ret_n_bytes = n_bytes;
	sk__server_message__free_unpacked(answer, NULL);
	sk_frame_finish(&frame);
	return err;
}
