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
/* Of kernels, so far; those of a graph, too. */
long cusim_n_launches(void);

/* From now on, and forgets what was counted: slow, and only of kernels whose accesses are checked. */
void cusim_count_traffic(int on);
struct cusim_traffic_of {
	long launches;
	/* By a warp; sectors of 32 bytes; those that its bytes fill. Of what is streamed, 16 bytes a lane; of all other
	 * global memory, read and written. */
	long requests, sectors, sectors_least;
	long other_requests, other_sectors, other_sectors_least;
	long shared_cycles, shared_least; /* with bank conflicts, without */
};
struct cusim_traffic_of cusim_traffic(const char *file); /* of its kernels: "few.cu" */

#ifdef __cplusplus
}
#endif
