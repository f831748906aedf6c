/* bench_gpu: where a step's time goes. Lines of JSON on standard output. */
#pragma once

#include "bench/gpu_work.h"

/* Each operation of a step of n rows alone, many in one step: microseconds, and what of the measured bandwidth its kernel
 * comes to with the least that it can read and write: weights as they are packed, logits once. */
void gpu_operations(struct gpu_work *work, uint32_t n_rows);
/* A step of n sessions with every operation waited for. */
void gpu_profile(struct gpu_work *work, uint32_t n_sessions);
