/* What the runtime says of itself: devices, errors, and those that a test asks for. */
#include "control.h"
#include "host.h"

#include <cstdlib>
#include <cstring>

namespace cusim
{

static cudaError_t last_error;
static long n_calls, fail_at;

static cudaError_t lost;

void lose_context(cudaError_t error)
{
	lost = last_error = error;
}

cudaError_t context_error()
{
	return lost;
}

bool fails_now()
{
	n_calls++;
	return fail_at && --fail_at == 0;
}

cudaError_t fail(cudaError_t error)
{
	last_error = error;
	return error;
}

}

using namespace cusim;

extern "C" {
void cusim_fail_at(long n)
{
	fail_at = n;
}

long cusim_n_calls(void)
{
	return n_calls;
}

cudaError_t cudaGetLastError(void)
{
	const cudaError_t error = last_error;
	last_error = lost; /* for ever */
	return error;
}

cudaError_t cudaPeekAtLastError(void)
{
	return last_error;
}

const char *cudaGetErrorString(cudaError_t error)
{
	switch (error) {
	case cudaSuccess:
		return "no error";
	case cudaErrorMemoryAllocation:
		return "out of memory";
	case cudaErrorInvalidValue:
		return "invalid argument";
	case cudaErrorIllegalAddress:
		return "an illegal memory access was encountered";
	case cudaErrorLaunchFailure:
		return "unspecified launch failure";
	default:
		return "an error of the simulated device";
	}
}

cudaError_t cudaGetDeviceCount(int *ret_n)
{
	CUSIM_CALL(cudaErrorNoDevice);
	if (getenv("CUSIM_NO_DEVICE"))
		return fail(cudaErrorInsufficientDriver);
	*ret_n = 1;
	return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
	CUSIM_CALL(cudaErrorInvalidDevice);
	return device == 0 ? cudaSuccess : fail(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *ret, int device)
{
	CUSIM_CALL(cudaErrorInvalidDevice);
	if (device != 0)
		return fail(cudaErrorInvalidDevice);
	memset(ret, 0, sizeof *ret);
	strcpy(ret->name, "simulated on the CPU");
	ret->major = 8;
	ret->multiProcessorCount = 4; /* few, so that small tests fill it */
	ret->warpSize = 32;
	ret->totalGlobalMem = ARENA_BYTES;
	ret->sharedMemPerBlockOptin = SHARED_BYTES;
	return cudaSuccess;
}
}
