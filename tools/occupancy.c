/* How many blocks of a kernel a processor holds, computed by CUDA's own cuda_occupancy.h, without a device.
 * tools/check-machine-code compiles and asks it.
 *
 * A line in: architecture, registers a thread, bytes of shared memory that the kernel declares, and that its launch adds,
 * threads a block. A line out: blocks, warps that they have, warps that a processor has places for.
 */
#include <stddef.h>
#include <stdio.h>

#include <cuda_occupancy.h>

#define WARP 32
#define KIB  1024

/* What CUDA's programming guide says of them, in its table of technical specifications. */
static const struct {
	int sm, n_threads, shared_kib;
} devices[] = {
	{80, 2048, 164},
	{86, 1536, 100},
	{89, 1536, 100},
	{90, 2048, 228},
};

static int find(int sm, cudaOccDeviceProp *ret_device)
{
	for (size_t i = 0; i < sizeof(devices) / sizeof(*devices); i++) {
		const size_t shared = (size_t)devices[i].shared_kib * KIB;
		if (devices[i].sm != sm)
			continue;
		*ret_device = (cudaOccDeviceProp){
			.computeMajor = sm / 10,
			.computeMinor = sm % 10,
			.maxThreadsPerBlock = 1024,
			.maxThreadsPerMultiprocessor = devices[i].n_threads,
			.regsPerBlock = 64 * KIB,
			.regsPerMultiprocessor = 64 * KIB,
			.warpSize = WARP,
			.sharedMemPerBlock = (size_t)48 * KIB,
			.sharedMemPerMultiprocessor = shared,
			.numSms = 1,
			.sharedMemPerBlockOptin = shared - KIB,
			.reservedSharedMemPerBlock = KIB,
		};
		return 0;
	}
	return -1;
}

int main(void)
{
	int sm, n_registers, n_threads;
	size_t declared, added;

	while (scanf("%d %d %zu %zu %d", &sm, &n_registers, &declared, &added, &n_threads) == 5) {
		const cudaOccFuncAttributes kernel = {
			.maxThreadsPerBlock = n_threads,
			.numRegs = n_registers,
			.sharedSizeBytes = declared,
			.maxDynamicSharedSizeBytes = added,
			.numBlockBarriers = 1,
		};
		const cudaOccDeviceState state = {.carveoutConfig = SHAREDMEM_CARVEOUT_DEFAULT};
		cudaOccDeviceProp device;
		cudaOccResult found;

		if (find(sm, &device) < 0) {
			fprintf(stderr, "occupancy: sm_%d is not known\n", sm);
			return 64;
		}
		if (cudaOccMaxActiveBlocksPerMultiprocessor(&found, &device, &kernel, &state,
							    n_threads, added) != CUDA_OCC_SUCCESS) {
			fprintf(stderr,
				"occupancy: sm_%d cannot run %d threads with %d registers\n", sm,
				n_threads, n_registers);
			return 1;
		}
		printf("%d %d %d\n", found.activeBlocksPerMultiprocessor,
		       found.activeBlocksPerMultiprocessor * n_threads / WARP,
		       device.maxThreadsPerMultiprocessor / WARP);
	}
	return 0;
}
