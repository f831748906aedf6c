/* Small kernels, each with a fault that cusim must see, and each with its sound twin. */
#pragma once

#include <cuda_runtime_api.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum fault {
	FAULT_NO_BARRIER,       /* shared memory read before all have written it */
	FAULT_NO_SYNCWARP,      /* the same in a warp */
	FAULT_NO_BARRIER_AGAIN, /* written again before all have read it */
	FAULT_TWO_BARRIERS,     /* threads of a block at different barriers */
	FAULT_LOST_LANE,        /* a shuffle from a lane that has ended */
	FAULT_PAST_THE_END,     /* of an allocation */
	FAULT_SHARED_BOUNDS,    /* of dynamic shared memory */
	FAULT_UNWRITTEN_SHARED, /* read */
	FAULT_UNWRITTEN,        /* global memory read */
	FAULT_ALIGNMENT,        /* of a word of 16 bytes */
	FAULT_NO_FENCE,         /* between what a block writes and the counter that says so */
	FAULT_BLOCKS_RACE,      /* two blocks add to the same place */
	FAULT_EARLY_READ,       /* before griddepcontrol.wait */
	FAULT_HOST_MEMORY,      /* a pointer to the host's own memory */
	FAULT_COPY_UNWAITED,    /* cp.async, read before it has landed */
	N_FAULTS,
};

/* Memory for 1024 floats, the first 512 of `in` written; `counter` is zero. */
struct fault_memory {
	float *in, *out;
	unsigned *counter;
	float *host;
};

cudaError_t run_fault(cudaStream_t stream, enum fault fault, bool planted,
		      const struct fault_memory *memory);

#ifdef __cplusplus
}
#endif
