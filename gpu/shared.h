/* The allocation that weights share, and whose it is. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct sk_gpu_shared {
	void *data; /* NULL: there is none */
	size_t size_bytes;
	int fd; /* until the export; or -1 */
	uint64_t sum;
	enum sk_gpu_shared_kind {
		SK_GPU_NOT_SHARED,
		SK_GPU_MAPPED, /* has a descriptor */
		SK_GPU_PLAIN,  /* has a handle, and is ours */
		SK_GPU_OPENED, /* has one, and is another process' */
	} kind;
};

void sk_gpu_shared_finish(struct sk_gpu_shared *shared);
