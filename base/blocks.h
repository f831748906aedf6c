/* The GGUF block formats, decoded to floats in the order of operations that the format's reference
 * uses, so that every build gives the same bits. Private to base/; callers use base/tensor.h.
 */
#pragma once

#include "base/tensor.h"

/* Decodes one block (sk_dtype_info()->block_elements floats) of a block format. */
typedef void sk_block_decode_fn(const uint8_t *block, float *out);

/* NULL for the plain formats. */
sk_block_decode_fn *sk_block_decoder(enum sk_dtype dtype);
