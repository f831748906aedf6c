/* What the runtime has no call for: memory whose descriptor another process can map. The driver's library is there
 * wherever a device is, and is looked for at run time, so that a program with this backend starts without one, too.
 */
#pragma once

#include <cuda.h>

struct sk_gpu_driver {
	__typeof__(&cuDeviceGet) device_get;
	__typeof__(&cuDeviceGetAttribute) device_attribute;
	__typeof__(&cuMemGetAllocationGranularity) granularity;
	__typeof__(&cuMemCreate) create;
	__typeof__(&cuMemRelease) release;
	__typeof__(&cuMemExportToShareableHandle) export_handle;
	__typeof__(&cuMemImportFromShareableHandle) import_handle;
	__typeof__(&cuMemAddressReserve) reserve;
	__typeof__(&cuMemAddressFree) unreserve;
	__typeof__(&cuMemMap) map;
	__typeof__(&cuMemUnmap) unmap;
	__typeof__(&cuMemSetAccess) set_access;
};

/* NULL where the driver has not all of it. One thread. */
const struct sk_gpu_driver *sk_gpu_driver(void);

/* The bytes from `data` to the end of the device's memory that it lies in; 0: the driver knows of none there. One thread. */
size_t sk_gpu_driver_bytes(const void *data);
