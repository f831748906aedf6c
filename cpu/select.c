/* Which kernels this machine can run, best first. */
#include "cpu/kernels.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

static bool has_avx2(void)
{
	unsigned a, b, c = 0, d;
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
	       __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx512(void)
{
	return has_avx2() && __builtin_cpu_supports("avx512f") &&
	       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
	       __builtin_cpu_supports("avx512vl");
}

static bool has_avx512_vnni(void)
{
	return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

static bool has_avx512_bf16(void)
{
	return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16");
}
#endif

static bool has_scalar(void)
{
	return true;
}

static const struct {
	const struct sk_cpu_kernels *kernels;
	bool (*is_here)(void);
} all[] = {
#if defined(__x86_64__)
	{&sk_cpu_kernels_avx512_bf16, has_avx512_bf16},
	{&sk_cpu_kernels_avx512_vnni, has_avx512_vnni},
	{&sk_cpu_kernels_avx512, has_avx512},
	{&sk_cpu_kernels_avx2, has_avx2},
#endif
	{&sk_cpu_kernels_scalar, has_scalar},
};

const char *sk_cpu_kernels_name(size_t i)
{
	return i < sizeof all / sizeof *all ? all[i].kernels->name : NULL;
}

int sk_cpu_kernels_select(const char *name, const struct sk_cpu_kernels **ret_kernels,
			  struct sk_diag *diag)
{
	const char *forced = name ? NULL : getenv("STREAMKV_INSTRUCTIONS");
	if (forced && forced[0])
		name = forced;
	char list[128] = "";
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		if (!all[i].is_here())
			continue;
		if (!name || strcmp(name, all[i].kernels->name) == 0) {
			*ret_kernels = all[i].kernels;
			return 0;
		}
		size_t n = strlen(list);
		snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", all[i].kernels->name);
	}
	return sk_diag_fail(diag, ENODEV,
			    "backend cpu: no instructions '%s'%s on this machine, which has %s",
			    name, name == forced ? " (from STREAMKV_INSTRUCTIONS)" : "", list);
}
