/* A walk over the wire format of protocol buffers: (tag, value) pairs, nested by length. */
#include "proto/inspect.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum wire_type {
	WIRE_VARINT = 0,
	WIRE_64BIT = 1,
	WIRE_BYTES = 2,
	WIRE_32BIT = 5,
};

struct cursor {
	const uint8_t *at, *end;
};

static bool take_varint(struct cursor *c, uint64_t *ret_value)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 64 && c->at < c->end; shift += 7) {
		uint8_t byte = *c->at++;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*ret_value = value;
			return true;
		}
	}
	return false;
}

/* The value behind a tag: a number in *ret_number, or bytes in *ret_bytes. */
static bool take_value(struct cursor *c, unsigned wire_type, uint64_t *ret_number,
		       struct cursor *ret_bytes)
{
	size_t n_left;
	uint64_t n_bytes;

	switch (wire_type) {
	case WIRE_VARINT:
		return take_varint(c, ret_number);
	case WIRE_64BIT:
		n_bytes = 8;
		break;
	case WIRE_32BIT:
		n_bytes = 4;
		break;
	case WIRE_BYTES:
		if (!take_varint(c, &n_bytes))
			return false;
		break;
	default: /* groups, which proto3 does not have */
		return false;
	}
	n_left = (size_t)(c->end - c->at);
	if (n_bytes > n_left)
		return false;
	*ret_bytes = (struct cursor){c->at, c->at + n_bytes};
	c->at += n_bytes;
	return true;
}

bool sk_inspect_is_utf8(const uint8_t *p, size_t n_bytes)
{
	const uint8_t *end = p + n_bytes;

	while (p < end) {
		uint8_t lead = *p++;
		unsigned n_more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;
		uint32_t point = n_more ? lead & (0x3fu >> n_more) : lead;
		static const uint32_t least[] = {1, 0x80, 0x800, 0x10000};

		if (lead >= 0xf8 || (!n_more && lead >= 0x80) || n_more > (size_t)(end - p))
			return false;
		for (unsigned i = 0; i < n_more; i++, p++) {
			if ((*p & 0xc0) != 0x80)
				return false;
			point = point << 6 | (*p & 0x3fu);
		}
		if (point < least[n_more] || point > 0x10ffff ||
		    (point >= 0xd800 && point < 0xe000))
			return false;
	}
	return true;
}

static unsigned wire_type_of(const ProtobufCFieldDescriptor *field)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_BYTES:
	case PROTOBUF_C_TYPE_MESSAGE:
		return WIRE_BYTES;
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_SFIXED32:
		return WIRE_32BIT;
	case PROTOBUF_C_TYPE_DOUBLE:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_SFIXED64:
		return WIRE_64BIT;
	default:
		return WIRE_VARINT;
	}
}

/* The bit of a field among those already seen; members of one oneof share the bit of the first. */
static uint64_t seen_bit(const ProtobufCMessageDescriptor *type,
			 const ProtobufCFieldDescriptor *field)
{
	unsigned i = 0;

	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
		while (!(type->fields[i].flags & PROTOBUF_C_FIELD_FLAG_ONEOF) ||
		       type->fields[i].quantifier_offset != field->quantifier_offset)
			i++;
	} else {
		i = (unsigned)(field - type->fields);
	}
	return UINT64_C(1) << i % 64;
}

static int inspect_field(const ProtobufCMessageDescriptor *type,
			 const ProtobufCFieldDescriptor *field, unsigned wire_type, uint64_t number,
			 struct cursor bytes, bool demand_utf8, struct sk_diag *diag)
{
	size_t n_bytes = (size_t)(bytes.end - bytes.at);
	bool is_packed = field->label == PROTOBUF_C_LABEL_REPEATED && wire_type == WIRE_BYTES;

	if (wire_type != wire_type_of(field) && !is_packed)
		return sk_diag_fail(diag, EBADMSG, "%s.%s is of the wrong type", type->short_name,
				    field->name);
	switch (field->type) {
	case PROTOBUF_C_TYPE_MESSAGE:
		return sk_inspect(field->descriptor, bytes.at, n_bytes, demand_utf8, diag);
	case PROTOBUF_C_TYPE_ENUM:
		if (number > INT32_MAX ||
		    !protobuf_c_enum_descriptor_get_value(field->descriptor, (int)number))
			return sk_diag_fail(diag, EBADMSG,
					    "%s.%s is %" PRId64 ", which means nothing",
					    type->short_name, field->name, (int64_t)number);
		return 0;
	case PROTOBUF_C_TYPE_STRING:
		if (demand_utf8 && !sk_inspect_is_utf8(bytes.at, n_bytes))
			return sk_diag_fail(diag, EBADMSG, "%s.%s is not UTF-8 without NUL",
					    type->short_name, field->name);
		if (n_bytes && memchr(bytes.at, 0, n_bytes))
			return sk_diag_fail(diag, EBADMSG, "%s.%s holds a NUL", type->short_name,
					    field->name);
		return 0;
	default:
		return 0;
	}
}

/* Recurses as deep as the messages of the protocol nest, which is not up to the peer. */
int sk_inspect(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t n_bytes,
	       bool demand_utf8, struct sk_diag *diag)
{
	struct cursor c = {bytes, bytes + n_bytes};
	uint64_t seen = 0;

	while (c.at < c.end) {
		uint64_t tag, number = 0;
		struct cursor value = {NULL, NULL};
		if (!take_varint(&c, &tag) || tag > UINT32_MAX || tag >> 3 == 0 ||
		    !take_value(&c, tag & 7, &number, &value))
			return sk_diag_fail(diag, EBADMSG, "the bytes of %s make no message",
					    type->short_name);
		const ProtobufCFieldDescriptor *field =
			protobuf_c_message_descriptor_get_field(type, (unsigned)(tag >> 3));
		if (!field)
			continue;
		if (field->label != PROTOBUF_C_LABEL_REPEATED) {
			uint64_t bit = seen_bit(type, field);
			if (seen & bit)
				return sk_diag_fail(
					diag, EBADMSG,
					"%s.%s is given twice, or beside another of its kind",
					type->short_name, field->name);
			seen |= bit;
		}
		int r = inspect_field(type, field, tag & 7, number, value, demand_utf8, diag);
		if (r < 0)
			return r;
	}
	return 0;
}
