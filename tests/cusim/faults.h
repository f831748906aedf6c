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
	FAULT_STATIC_BOUNDS,    /* of a static shared array, by an index */
	FAULT_STATIC_PAST,      /* of all of a kernel's static shared arrays, by a pointer */
	FAULT_LAUNCH_BOUNDS,    /* more threads than the kernel was compiled for */
	FAULT_BARRIER_FEW,      /* bar.sync for fewer threads than come */
	FAULT_BARRIER_MANY,     /* and for more */
	FAULT_NEVER_WAITS,    /* no griddepcontrol.wait in a kernel between a writer and a reader */
	FAULT_STATIC_DYNAMIC, /* shared memory above 48 KB together */
	FAULT_CONSTANT_WRITTEN, /* ld.global.nc of what the kernel has written */
	FAULT_WRITES_CONSTANT,  /* and the other way round */
	FAULT_PLAIN_ATOMIC,     /* a plain read, then another block's relaxed atomic */
	FAULT_HOST_UNWRITTEN,   /* the host reads what was never written */
	FAULT_COPY_UNWRITTEN,   /* a copy of it is read */
	FAULT_BLAS_UNWRITTEN,   /* it is multiplied */
	FAULT_BLAS_ADDS,        /* cuBLAS adds to it */
	FAULT_TWO_STREAMS,      /* add to the same memory, without an event */
	FAULT_PINNED_BOUNDS,    /* of pinned memory, by a copy */
	N_FAULTS,
};

/* Memory for 1024 floats, the first 512 of `in` written; `counter` is zero. */
struct fault_memory {
	float *in, *out;
	unsigned *counter;
	float *host, *pinned; /* for 1024 and 32 floats */
	cudaStream_t other;
};

cudaError_t run_fault(cudaStream_t stream, enum fault fault, bool planted,
		      const struct fault_memory *memory);

#ifdef __cplusplus
}
#endif
