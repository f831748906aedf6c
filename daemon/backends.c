#include "daemon/backends.h"

#include "cpu/cpu.h"
#include "daemon/options.h"

#include <errno.h>

int sk_choose_backend(int choice, const struct sk_backend_kind **ret_kind, struct sk_diag *diag)
{
	if (choice == SK_BACKEND_CUDA)
		return sk_diag_fail(
			diag, ENODEV,
			"this streamkvd was built without the CUDA backend; use --backend cpu");
	*ret_kind = &sk_cpu_backend;
	return 0;
}
