#include "gpu/driver.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static bool look_up(void *library, const char *name, void *function, size_t n_bytes)
{
	void *found = dlsym(library, name);
	memcpy(function, &found, n_bytes);
	return found;
}

static void *open_library(void)
{
	return dlopen("libcuda.so.1", RTLD_NOW); /* stays, as the runtime's own does */
}

const struct sk_gpu_driver *sk_gpu_driver(void)
{
	static struct sk_gpu_driver driver;
	static bool is_tried, is_whole;
	if (is_tried)
		return is_whole ? &driver : NULL;
	is_tried = true;
	void *library = open_library();
	if (!library)
		return NULL;
#define LOOK_UP(member, name) look_up(library, #name, &driver.member, sizeof driver.member)
	is_whole = LOOK_UP(device_get, cuDeviceGet) &&
		   LOOK_UP(device_attribute, cuDeviceGetAttribute) &&
		   LOOK_UP(granularity, cuMemGetAllocationGranularity) &&
		   LOOK_UP(create, cuMemCreate) && LOOK_UP(release, cuMemRelease) &&
		   LOOK_UP(export_handle, cuMemExportToShareableHandle) &&
		   LOOK_UP(import_handle, cuMemImportFromShareableHandle) &&
		   LOOK_UP(reserve, cuMemAddressReserve) && LOOK_UP(unreserve, cuMemAddressFree) &&
		   LOOK_UP(map, cuMemMap) && LOOK_UP(unmap, cuMemUnmap) &&
		   LOOK_UP(set_access, cuMemSetAccess);
#undef LOOK_UP
	return is_whole ? &driver : NULL;
}

size_t sk_gpu_driver_bytes(const void *data)
{
	static __typeof__(&cuMemGetAddressRange) address_range;
	CUdeviceptr begin = 0;
	size_t n_bytes = 0;
	void *library = address_range ? NULL : open_library();
	/* cuda.h gives the call its later name. */
	if (library &&
	    !look_up(library, "cuMemGetAddressRange_v2", &address_range, sizeof address_range))
		address_range = NULL;
	if (!address_range || address_range(&begin, &n_bytes, (CUdeviceptr)data) != CUDA_SUCCESS)
		return 0;
	return n_bytes - (size_t)((CUdeviceptr)data - begin);
}
