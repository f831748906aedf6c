#include "daemon/backends.h"

#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "daemon/options.h"
#include "gpu/gpu.h"

#include <errno.h>

/* Not there in a build without CUDA, which does not link gpu/. */
extern const struct sk_backend_kind sk_gpu_backend __attribute__((weak));

int sk_choose_backend(int choice, const struct sk_backend_kind **ret_kind, struct sk_diag *diag)
{
	if (choice == SK_BACKEND_CUDA && !&sk_gpu_backend)
		return sk_diag_fail(
			diag, ENODEV,
			"this streamkvd was built without the CUDA backend; use --backend cpu");
	const bool cuda =
		choice == SK_BACKEND_CUDA || (choice == SK_BACKEND_AUTO && &sk_gpu_backend &&
					      sk_backend_is_present(&sk_gpu_backend));
	*ret_kind = cuda ? &sk_gpu_backend : &sk_cpu_backend;
	return 0;
}

int sk_check_instructions(int choice, const char *name, struct sk_diag *diag)
{
	const struct sk_cpu_kernels *kernels;
	const struct sk_backend_kind *kind;
	if (sk_choose_backend(choice, &kind, NULL) < 0 || kind != &sk_cpu_backend)
		return 0; /* it has none, and does not look */
	return sk_cpu_kernels_select(name, &kernels, diag);
}
