/* What tests ask of cusim. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

long cusim_n_errors(void); /* faults of kernels, or of the way the host used the runtime, so far */
void cusim_forget_errors(void);
const char *cusim_last_error(void); /* "race: ..." or "" */
int cusim_saw(
	const char *
		text); /* whether one of those faults, since they were forgotten, has it in its message */
/* Device and pinned allocations, streams, events and graphs that are still there. */
long cusim_n_held(void);
/* The n-th call of the runtime from now on (1: the next) fails, once; 0: none. */
void cusim_fail_at(long n);
long cusim_n_calls(void);

#ifdef __cplusplus
}
#endif
