/* The calls behind <cusim.h>: what a CUDA thread does with others. */
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stddef.h>

namespace cusim
{

typedef void WarpFunction(void **io, unsigned active);

int barrier(const char *file, int line, int place, int predicate,
	    int n_wanted = 0); /* how many predicates were true; n_wanted: 0: all */
void warp(const char *operation, unsigned mask, void *io, WarpFunction *function, bool is_fence,
	  const char *file, int line);
void nothing(void **io, unsigned active);
void tell_inactive(int lane, int source);

struct Fragments {
	float *d;
	const unsigned *a, *b;
};
void multiply_halves(void **io, unsigned active);
void multiply_bfloats(void **io, unsigned active);

enum { RELAXED = 0, ACQUIRE = 1, RELEASE = 2 };
void begin_atomic(void *p, unsigned n, int order, void *pc); /* after it, *p may be changed */
void fence();
void check_alignment(const void *p, unsigned n,
		     bool is_streamed = false); /* of what is one instruction */
void check_constant(const void *p, unsigned n); /* which was read so that nothing may write it */
void yield();
void wait_for_previous();
void copy_later(void *to, const void *from); /* 16 bytes */
void commit_copies();
void wait_for_copies(int n_left);

/* What a launch must know of a kernel: how it is called, and how large its parameters are. */
void know_kernel(const void *function, void (*call)(const void *, void **), const size_t *sizes,
		 int n);

} // namespace cusim
