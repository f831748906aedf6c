/* The host's half: what runs later, in which order, and what of it can fail. One lock around it all: several threads may
 * call the runtime.
 */
#pragma once

#include "inside.h"

#include <functional>
#include <memory>
#include <mutex>

namespace cusim
{

extern std::recursive_mutex lock;
#define CUSIM_CALL(error)                                                                          \
	std::lock_guard<std::recursive_mutex> locked(cusim::lock);                                 \
	if (cusim::fails_now())                                                                    \
		return cusim::fail(error);                                                         \
	if (cusim::context_error() != cudaSuccess)                                                 \
	return cusim::context_error()

bool fails_now();                    /* this call is the one that a test wants to fail */
cudaError_t fail(cudaError_t error); /* keeps it for cudaGetLastError */

/* Queues work on a stream: it runs when somebody waits for it, at once or at a whim (CUSIM_ASYNC). */
void queue_work(cudaStream_t stream, std::function<void()> work);
/* cudaErrorStreamCaptureUnsupported where it is being captured, which that ends. */
cudaError_t wait_for(cudaStream_t stream);
cudaError_t wait_for_all();
bool is_capturing(cudaStream_t stream); /* or any, where it is NULL */
void spoil_captures();                  /* by what may not be done meanwhile */
long n_host_objects();                  /* streams, events, graphs */
long n_shared();                        /* share.cc: what a driver call made, and opened handles */
void forget_exported(char *data);       /* which is freed */
constexpr size_t SHARED_BLOCK = (size_t)2 << 20; /* what can be shared begins at such an address */

} // namespace cusim
