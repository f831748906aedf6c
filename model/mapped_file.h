/* A whole file mapped read-only. Embedded in its reader; a zeroed one is closed. What is refused
 * (a folder, a pipe, an empty file) gets a sentence. The pages stay tied to the file: another
 * process that cuts the file short under us makes later reads fault, which is why backends copy
 * what they use.
 */
#pragma once

#include "base/diag.h"

#include <stddef.h>
#include <stdint.h>

struct sk_mapped_file {
	const uint8_t *data;
	size_t n_bytes;
};

int sk_mapped_file_open(struct sk_mapped_file *file, const char *path, struct sk_diag *diag);
void sk_mapped_file_close(struct sk_mapped_file *file);
/* Bytes of a mapped file that will hardly be read again: this process gives back the memory of the whole
 * pages among them. They are still there: reading brings them back from the file. */
void sk_mapped_file_release(const void *data, size_t n_bytes);
