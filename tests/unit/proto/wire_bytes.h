/* A writer of wire bytes, driven by the descriptors of messages, for tests of what reads them. */
#pragma once

#include "sk_test.h"

#include "proto/validate.h"

#include <string.h>

struct bytes {
	uint8_t data[4096];
	size_t n;
};

static inline void put_varint(struct bytes *b, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		b->data[b->n++] = (uint8_t)(value | 0x80);
	b->data[b->n++] = (uint8_t)value;
}

static inline void put_field(struct bytes *b, unsigned number, const void *data, size_t n)
{
	put_varint(b, number << 3 | 2);
	put_varint(b, n);
	if (n)
		memcpy(b->data + b->n, data, n);
	b->n += n;
}

static inline void put_number(struct bytes *b, unsigned number, uint64_t value)
{
	put_varint(b, number << 3);
	put_varint(b, value);
}

/* A whole message with every field set (of each oneof, the member `choice`), in canonical order. */
static inline void put_message(struct bytes *b, const ProtobufCMessageDescriptor *type,
			       unsigned choice)
{
	unsigned n_members = 0;

	for (unsigned i = 0; i < type->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &type->fields[i];
		bool in_oneof = f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
		/* has_X has one member, which is always set. */
		if (in_oneof && strncmp(type->name, "sk.Policy", 9) != 0 &&
		    strncmp(type->name, "sk.Sampling", 11) != 0 && n_members++ != choice)
			continue;
		if (!in_oneof &&
		    (strcmp(f->name, "in_memfd") == 0 || strcmp(f->name, "saved_bytes") == 0))
			continue; /* would contradict `ids`; comes with the other alone */
		switch (f->type) {
		case PROTOBUF_C_TYPE_MESSAGE: {
			struct bytes inner = {.n = 0};
			put_message(&inner, f->descriptor, choice);
			put_field(b, f->id, inner.data, inner.n);
			break;
		}
		case PROTOBUF_C_TYPE_STRING:
		case PROTOBUF_C_TYPE_BYTES:
			put_field(b, f->id, "b", 1);
			break;
		case PROTOBUF_C_TYPE_FLOAT:
			put_varint(b, f->id << 3 | 5);
			memcpy(b->data + b->n, "\0\0\0\x3f", 4);
			b->n += 4;
			break;
		case PROTOBUF_C_TYPE_DOUBLE:
			put_varint(b, f->id << 3 | 1);
			memcpy(b->data + b->n, "\0\0\0\0\0\0\x40\x40", 8);
			b->n += 8;
			break;
		default:
			if (f->label == PROTOBUF_C_LABEL_REPEATED)
				put_field(b, f->id, "\1", 1);
			else
				put_number(b, f->id, 1);
		}
	}
}

/* A message whose body is `field`. */
static inline void put_envelope(struct bytes *b, const ProtobufCFieldDescriptor *field,
				uint32_t request, unsigned choice)
{
	struct bytes inner = {.n = 0};

	put_message(&inner, field->descriptor, choice);
	if (request)
		put_number(b, 1, request);
	put_field(b, field->id, inner.data, inner.n);
}
