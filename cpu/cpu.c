/* Opening and closing the CPU as a backend, its pool of pages, and the table of its operations. */
#include "cpu/cpu.h"

#include "cpu/device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void cpu_close(struct sk_backend *backend)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	if (!cpu)
		return;
	sk_cpu_free_all(cpu);
	sk_cpu_pool_destroy(cpu->pool);
	sk_cpu_pages_finish(&cpu->pages);
	sk_rotary_finish(&cpu->rotary);
	sk_region_finish(&cpu->rounded);
	sk_region_finish(&cpu->draws);
	free(cpu->groups);
	free(cpu->row_pages);
	free(cpu->angles);
	free(cpu->attend_scratch);
	free(cpu->attend_parts);
	free(cpu);
}

static const char *cpu_name(const struct sk_backend *backend)
{
	return ((const struct sk_cpu *)backend)->name;
}

static uint64_t cpu_weight_bytes(const struct sk_backend *backend)
{
	return ((const struct sk_cpu *)backend)->weight_bytes;
}

static uint64_t cpu_page_bytes(const struct sk_backend *backend)
{
	return ((const struct sk_cpu *)backend)->pages.page_bytes;
}

static int cpu_reserve_pages(struct sk_backend *backend, uint32_t n_pages)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	return cpu ? sk_cpu_pages_reserve(&cpu->pages, n_pages, -1) : -EINVAL;
}

static int cpu_reserve_pages_in(struct sk_backend *backend, uint32_t n_pages, int fd)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	return cpu ? sk_cpu_pages_reserve(&cpu->pages, n_pages, fd) : -EINVAL;
}

static void cpu_clear_pages(struct sk_backend *backend, const uint32_t *pages, uint32_t n_pages)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	for (uint32_t i = 0; cpu && i < n_pages; i++)
		sk_cpu_pages_clear(&cpu->pages, pages[i]);
}

static void cpu_copy_page(struct sk_backend *backend, uint32_t from, uint32_t to)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	if (cpu)
		sk_cpu_pages_copy(&cpu->pages, from, to);
}

static int cpu_read_page(struct sk_backend *backend, uint32_t page, void *bytes)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	if (!cpu || page >= cpu->pages.n_pages)
		return -EINVAL;
	memcpy(bytes, sk_cpu_pages_head(&cpu->pages, page, 0, 0), cpu->pages.page_bytes);
	return 0;
}

static int cpu_write_page(struct sk_backend *backend, uint32_t page, const void *bytes)
{
	struct sk_cpu *cpu = sk_cpu_from(backend);
	if (!cpu || page >= cpu->pages.n_pages)
		return -EINVAL;
	memcpy(sk_cpu_pages_head(&cpu->pages, page, 0, 0), bytes, cpu->pages.page_bytes);
	return 0;
}

/* cpu/pages.h; to be counted up with every change of it. */
static const char *cpu_page_layout(const struct sk_backend *backend)
{
	static const char *const layouts[] = {
		[SK_KV_F32] = "cpu 1 f32", [SK_KV_F16] = "cpu 1 f16", [SK_KV_BF16] = "cpu 1 bf16"};
	return layouts[backend->shape.kv_format];
}

static const float *cpu_read(struct sk_backend *backend, const struct sk_buffer *buffer,
			     uint32_t row)
{
	(void)backend;
	return sk_buffer_row(buffer, row);
}

const struct sk_backend_ops sk_cpu_ops = {
	.close = cpu_close,
	.name = cpu_name,
	.alloc = sk_cpu_alloc,
	.free = sk_cpu_free,
	.pack_linear = sk_cpu_pack_linear,
	.pack_norm = sk_cpu_pack_norm,
	.linear_bytes = sk_cpu_linear_bytes,
	.norm_bytes = sk_cpu_norm_bytes,
	.share_weights = sk_cpu_share_weights,
	.export_weights = sk_cpu_export_weights,
	.import_weights = sk_cpu_import_weights,
	.weight_bytes = cpu_weight_bytes,
	.scratch_bytes = sk_cpu_scratch_bytes,
	.page_bytes = cpu_page_bytes,
	.reserve_pages = cpu_reserve_pages,
	.reserve_pages_in = cpu_reserve_pages_in,
	.clear_pages = cpu_clear_pages,
	.copy_page = cpu_copy_page,
	.read_page = cpu_read_page,
	.write_page = cpu_write_page,
	.page_layout = cpu_page_layout,
	.begin_step = sk_cpu_begin_step,
	.end_step = sk_cpu_end_step,
	.embed = sk_cpu_embed,
	.norm = sk_cpu_norm,
	.matmul = sk_cpu_matmul,
	.matmul_add = sk_cpu_matmul_add,
	.append = sk_cpu_append,
	.attend = sk_cpu_attend,
	.activate = sk_cpu_activate,
	.gather = sk_cpu_gather,
	.score = sk_cpu_score,
	.reserve_draws = sk_cpu_reserve_draws,
	.draw = sk_cpu_draw_rows,
	.read = cpu_read,
};

static int cpu_init(struct sk_cpu *cpu, const struct sk_backend_options *options,
		    const struct sk_backend_shape *shape)
{
	cpu->base = (struct sk_backend){.ops = &sk_cpu_ops, .shape = *shape};
	sk_list_init(&cpu->buffers);
	sk_list_init(&cpu->linears);
	sk_list_init(&cpu->norms);
	cpu->shared_fd = -1;
	sk_cpu_pages_init(&cpu->pages, shape);

	int r = sk_rotary_init(&cpu->rotary, shape->n_rot, shape->rope_base);
	if (r < 0)
		return r;
	r = sk_cpu_pool_create(options->n_threads, &cpu->pool);
	if (r < 0)
		return r;
	uint32_t n_threads = sk_cpu_pool_n_threads(cpu->pool);
	snprintf(cpu->name, sizeof cpu->name, "cpu (%s, %u thread%s)", cpu->kernels->name,
		 n_threads, n_threads == 1 ? "" : "s");

	cpu->groups = calloc(shape->max_rows, sizeof *cpu->groups);
	cpu->row_pages = calloc(shape->max_rows, sizeof *cpu->row_pages);
	cpu->angles = calloc(shape->max_rows, (2 * (size_t)shape->n_rot + 1) * sizeof *cpu->angles);
	cpu->attend_scratch =
		aligned_alloc(64, n_threads * sk_cpu_scratch_floats(cpu) * sizeof(float));
	cpu->attend_parts = aligned_alloc(64, n_threads * sk_cpu_parts_floats(cpu) * sizeof(float));
	return cpu->groups && cpu->row_pages && cpu->angles && cpu->attend_scratch &&
			       cpu->attend_parts
		       ? 0
		       : -ENOMEM;
}

static int cpu_open(const struct sk_backend_options *options, const struct sk_backend_shape *shape,
		    struct sk_backend **ret_backend, struct sk_diag *diag)
{
	const struct sk_cpu_kernels *kernels;
	int r = sk_cpu_kernels_select(options->instructions, &kernels, diag);
	if (r < 0)
		return r;
	struct sk_cpu *cpu = calloc(1, sizeof *cpu);
	if (!cpu)
		return sk_diag_fail(diag, ENOMEM, "backend cpu: out of memory");
	cpu->kernels = kernels;
	cpu->exact = options->exact;
	r = cpu_init(cpu, options, shape);
	if (r < 0) {
		cpu_close(&cpu->base);
		return sk_diag_fail(
			diag, -r,
			"backend cpu: cannot start with %u threads and %u rows a step: %s",
			options->n_threads, shape->max_rows, strerror(-r));
	}
	*ret_backend = &cpu->base;
	return 0;
}

const struct sk_backend_kind sk_cpu_backend = {
	.name = "cpu", .layout = SK_CPU_LAYOUT, .open = cpu_open};
