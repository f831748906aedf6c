/* Bytes a second that the device's memory gives to a kernel that only reads: the floor's measure. 0 where it
 * could not be measured. */
#pragma once

#ifdef __cplusplus
extern "C"
#endif
	double
	bench_gpu_bandwidth(void);
