/* What this backend does and no other: sums of weights that others may write, imports of one device alone, copies through
 * pinned memory and beside a step's capture, steps without graphs, and what it refuses.
 */
#include "control.h"
#include "gpu/device.h"
#include "kernel.h"

#include <pthread.h>

static uint64_t mixed(uint64_t word, uint64_t place)
{
	word ^= place * 0x9e3779b97f4a7c15u;
	word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9u;
	word = (word ^ word >> 27) * 0x94d049bb133111ebu;
	return word ^ word >> 31;
}

/* Of memory that one block, some, or each several times, must go over. */
static void test_sum(void **state)
{
	static const struct {
		uint32_t n_bytes, n_blocks;
	} cases[] = {{16, 9}, {4096, 1}, {4112, 9}, {40000, 2}, {131072, 9}};
	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		const uint32_t n_words = cases[i].n_bytes / 8;
		uint64_t *words = malloc(cases[i].n_bytes), expected = 5, got = 5;
		void *data, *sum;
		assert_non_null(words);
		for (uint32_t k = 0; k < n_words; k++) {
			words[k] = (uint64_t)random_bits() << 32 | random_bits();
			expected += mixed(words[k], k);
		}
		assert_int_equal(cudaMalloc(&data, cases[i].n_bytes), cudaSuccess);
		assert_int_equal(cudaMalloc(&sum, sizeof got), cudaSuccess);
		cudaMemcpy(data, words, cases[i].n_bytes, cudaMemcpyHostToDevice);
		cudaMemcpy(sum, &got, sizeof got, cudaMemcpyHostToDevice);
		assert_int_equal(sk_gpu_sum(NULL, sum, data, cases[i].n_bytes, cases[i].n_blocks),
				 cudaSuccess);
		cudaMemcpy(&got, sum, sizeof got, cudaMemcpyDeviceToHost);
		assert_true(got == expected);
		cudaFree(data);
		cudaFree(sum);
		free(words);
	}
	assert_int_equal(cusim_n_errors(), 0);
}

/* Memory with a handle can be written by whoever opened it: the holder finds out. */
static void test_a_writer_is_seen(void **state)
{
	struct sk_backend_options options = {0};
	struct sk_backend_shape shape = default_shape();
	struct sk_shared_weights shared;
	struct sk_diag diag;
	struct sk_backend *holder;
	float *x = random_floats(12 * 48, 1);
	const struct sk_tensor tensor = float_tensor(x, 12, 48);
	const struct sk_matrix matrix = matrix_of(&tensor);
	struct sk_linear *linear;
	uint64_t n;
	(void)state;
	setenv("CUSIM_VMM", "0", 1);
	assert_int_equal(sk_backend_open(&sk_gpu_backend, &options, &shape, &holder, &diag), 0);
	assert_int_equal(sk_backend_linear_bytes(holder, &matrix, NULL, SK_WEIGHTS_F32, &n), 0);
	assert_int_equal(sk_backend_share_weights(holder, n), 0);
	assert_int_equal(sk_backend_pack_linear(holder, &matrix, NULL, SK_WEIGHTS_F32, &linear), 0);
	assert_int_equal(sk_backend_export_weights(holder, &shared), 0);
	assert_int_equal(shared.fd, -1);
	char *data = ((struct sk_gpu *)holder)->shared.data;
	for (size_t at = 0; at < 12 * 48 * 4; at += 397) { /* one byte here or there, and it back */
		uint8_t byte, other;
		assert_int_equal(cudaMemcpy(&byte, data + at, 1, cudaMemcpyDeviceToHost),
				 cudaSuccess);
		other = byte ^ 1;
		assert_int_equal(cudaMemcpy(data + at, &other, 1, cudaMemcpyHostToDevice),
				 cudaSuccess);
		assert_int_equal(sk_backend_check_weights(holder), -EBADMSG);
		assert_int_equal(cudaMemcpy(data + at, &byte, 1, cudaMemcpyHostToDevice),
				 cudaSuccess);
		assert_int_equal(sk_backend_check_weights(holder), 0);
	}
	sk_backend_close(holder);
	sk_shared_weights_finish(&shared);
	unsetenv("CUSIM_VMM");
	free(x);
}

/* Weights are imported on the device that has them, and not exported again. */
static void test_imports_are_of_this_device(void **state)
{
	struct sk_backend_options options = {0};
	struct sk_backend_shape shape = default_shape();
	struct sk_shared_weights shared, again;
	struct sk_diag diag;
	struct sk_backend *holder, *backend;
	float *x = random_floats(12 * 48, 1);
	const struct sk_tensor tensor = float_tensor(x, 12, 48);
	const struct sk_matrix matrix = matrix_of(&tensor);
	struct sk_linear *linear;
	(void)state;
	assert_int_equal(sk_backend_open(&sk_gpu_backend, &options, &shape, &holder, &diag), 0);
	assert_int_equal(sk_backend_open(&sk_gpu_backend, &options, &shape, &backend, &diag), 0);
	assert_int_equal(sk_backend_share_weights(holder, 12 * 256), 0);
	assert_int_equal(sk_backend_pack_linear(holder, &matrix, NULL, SK_WEIGHTS_F32, &linear), 0);
	assert_int_equal(sk_backend_export_weights(holder, &shared), 0);
	((struct sk_gpu *)backend)->uuid[15] ^= 1; /* as if it were another: cusim has one */
	assert_int_equal(sk_backend_import_weights(backend, &shared), -ENOTSUP);
	((struct sk_gpu *)backend)->uuid[15] ^= 1;
	assert_int_equal(sk_backend_import_weights(backend, &shared), 0);
	assert_int_equal(sk_backend_export_weights(backend, &again), -EINVAL);
	sk_backend_close(backend);
	sk_backend_close(holder);
	sk_shared_weights_finish(&shared);
	free(x);
}

/* What fails between steps fails there: the next step has no part in it. */
static void test_reading_fails_alone(void **state)
{
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip("cuda", 1, false, &shape);
	struct plain_batch plain;
	float *x = random_floats(48, 1);
	(void)state;
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	struct sk_linear *table = pack_floats(backend, x, 1, 48);
	struct sk_buffer *outs[] = {buffer_of(backend, 1, 48), buffer_of(backend, 1, 48)};
	for (long n = 1; n <= 3; n++) { /* pinned memory, the copy, waiting for it */
		struct sk_buffer *fresh = buffer_of(backend, 1, 48);
		begin_plain(backend, &plain, 1, 0);
		sk_backend_embed(backend, fresh, table);
		assert_int_equal(sk_backend_end_step(backend), 0);
		cusim_fail_at(n);
		assert_null(sk_backend_read(backend, fresh, 0));
		cusim_fail_at(0);
		begin_plain(backend, &plain, 1, 0);
		sk_backend_embed(backend, outs[n % 2], table);
		assert_int_equal(sk_backend_end_step(backend), 0);
		assert_memory_equal(sk_backend_read(backend, outs[n % 2], 0), x, 48 * sizeof *x);
		sk_backend_free(backend, fresh);
	}
	sk_backend_close(backend);
	free(x);
}

/* A grid has so many blocks in two of its directions, where a row is one. */
static void test_most_rows(void **state)
{
	struct sk_backend_options options = {0};
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = NULL;
	struct sk_diag diag = {""};
	(void)state;
	shape.max_rows = 65536;
	assert_int_equal(sk_backend_open(&sk_gpu_backend, &options, &shape, &backend, &diag),
			 -ENOTSUP);
	assert_non_null(strstr(diag.text, "65535"));
}

/* Matrices of several formats are no launch of few vectors, and moments are of what two products leave together, in whole tiles;
 * queries that a block cannot take at once are not appended on the way. */
static void test_what_is_refused(void **state)
{
	struct sk_gpu_products products = {.n = 1};
	(void)state;
	for (int i = 0; i < 2; i++) {
		products.product[i].matrix = (struct sk_gpu_matrix){
			.format = i ? SK_GPU_F16 : SK_GPU_BF16, .n_rows = 16, .n_cols = 32};
		sk_gpu_product_cut(&products.product[i]);
	}
	assert_int_equal(sk_gpu_few(NULL, &products), cudaErrorInvalidValue);

	struct sk_gpu_moments moments;
	products.product[0].matrix.format = SK_GPU_F16;
	products.ret_moments = &moments;
	assert_int_equal(sk_gpu_few(NULL, &products), cudaErrorInvalidValue);
	products.together = true;
	products.product[0].matrix.n_rows = products.product[1].matrix.n_rows = 17;
	assert_int_equal(sk_gpu_few(NULL, &products), cudaErrorInvalidValue);

	const struct sk_gpu_cache cache = {
		.n_heads = 5, .n_kv_heads = 1, .head_dim = 32, .padded_dim = 32};
	const struct sk_gpu_sharing sharing = {.n_segments = 1};
	assert_int_equal(
		sk_gpu_attend(NULL, &cache, NULL, 0, NULL, 0, true, NULL, NULL, 0, 1, &sharing),
		cudaErrorInvalidValue);
}

static cudaError_t launch_fails; /* with that, once (linked with --wrap) */
cudaError_t __real_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);

cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
	const cudaError_t error = launch_fails;
	launch_fails = cudaSuccess;
	return error == cudaSuccess ? __real_cudaGraphLaunch(exec, stream) : error;
}

/* A step that cannot be captured, or whose graph has no room on the device, is launched plainly: nobody is told. The next is
 * captured. */
static void test_steps_without_graphs(void **state)
{
	enum { N_CALLS = 7, N_PLAIN = 4 }; /* two copies, the launch of the graph, waiting */
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip("cuda", 1, false, &shape);
	const struct sk_gpu *gpu = sk_gpu_from(backend);
	struct plain_batch plain;
	float *x = random_floats(48, 1);
	int n_told = 0;
	(void)state;
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	struct sk_linear *table = pack_floats(backend, x, 1, 48);
	for (long n = 0; n <= N_CALLS + 1;
	     n++) { /* at first nothing fails, at last room for the graph */
		struct sk_buffer *out = buffer_of(backend, 1, 48);
		begin_plain(backend, &plain, 1, 0);
		sk_backend_embed(backend, out, table);
		const long n_before = cusim_n_calls();
		cusim_fail_at(n <= N_CALLS ? n : 0);
		launch_fails = n <= N_CALLS ? cudaSuccess : cudaErrorMemoryAllocation;
		const int r = sk_backend_end_step(backend);
		cusim_fail_at(0);
		n_told += r < 0;
		if (n == 0) {
			assert_int_equal(cusim_n_calls() - n_before, N_CALLS);
			assert_int_equal(gpu->n_graphs, 1);
		}
		if (r == 0)
			assert_memory_equal(sk_backend_read(backend, out, 0), x, 48 * sizeof *x);
		begin_plain(backend, &plain, 1, 0);
		sk_backend_embed(backend, out, table);
		assert_int_equal(sk_backend_end_step(backend), 0);
		assert_int_equal(gpu->n_graphs, 1);
		assert_memory_equal(sk_backend_read(backend, out, 0), x, 48 * sizeof *x);
		sk_backend_free(backend, out); /* and what was captured for it */
	}
	assert_int_equal(n_told, N_PLAIN);
	sk_backend_close(backend);
	free(x);
}

static const void *host_of_copy; /* of the last that was asked for (linked with --wrap) */
cudaError_t __real_cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
				   cudaStream_t stream);
cudaError_t __wrap_cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
				   cudaStream_t stream);

cudaError_t __wrap_cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
				   cudaStream_t stream)
{
	host_of_copy = kind == cudaMemcpyDeviceToHost ? to : from;
	return __real_cudaMemcpyAsync(to, from, n, kind, stream);
}

/* The device copies pages to pinned memory, and from it; where another thread has it, straight. */
static void test_pages_through_pinned_memory(void **state)
{
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip("cuda", 1, false, &shape);
	struct sk_gpu *gpu = sk_gpu_from(backend);
	const size_t n = sk_backend_page_bytes(backend);
	char *sent = malloc(n), *got = malloc(n);
	(void)state;
	assert_true(sent && got);
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	for (int i = 0; i < 2; i++) {
		const bool is_taken = i && atomic_flag_test_and_set(&gpu->stage_is_taken);
		assert_false(is_taken);
		memset(sent, 1 + i, n);
		assert_int_equal(sk_backend_write_page(backend, 1, sent), 0);
		assert_ptr_equal(host_of_copy, i ? sent : gpu->stage);
		assert_int_equal(sk_backend_read_page(backend, 1, got), 0);
		assert_ptr_equal(host_of_copy, i ? got : gpu->stage);
		assert_memory_equal(got, sent, n);
	}
	sk_backend_close(backend);
	free(sent);
	free(got);
}

/* --- Beside a step ------------------------------------------------------------------------------- */

/* What the mover's thread does while the engine's captures a step (linked with --wrap). */
static struct mover {
	struct sk_backend *backend;
	char *bytes;
	int sent, got;
	unsigned n;
} * mover;

static void *move(void *context)
{
	struct mover *m = context;
	m->sent = sk_backend_write_page(m->backend, 2, m->bytes);
	m->got = sk_backend_read_page(m->backend, 3, m->bytes);
	m->n++;
	return NULL;
}

cudaError_t __real_cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *ret_graph);
cudaError_t __wrap_cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *ret_graph);

cudaError_t __wrap_cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *ret_graph)
{
	pthread_t thread;
	if (mover && pthread_create(&thread, NULL, move, mover) == 0)
		pthread_join(thread, NULL);
	return __real_cudaStreamEndCapture(stream, ret_graph);
}

/* Copies are no part of the step that is captured meanwhile, and do not spoil it. */
static void test_copies_beside_a_capture(void **state)
{
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip("cuda", 1, false, &shape);
	const size_t n = sk_backend_page_bytes(backend);
	struct mover m = {.backend = backend, .bytes = malloc(n), .sent = -1, .got = -1};
	struct plain_batch plain;
	float *x = random_floats(48, 1);
	(void)state;
	assert_non_null(m.bytes);
	memset(m.bytes, 1, n);
	assert_int_equal(sk_backend_reserve_pages(backend, 4), 0);
	struct sk_linear *table = pack_floats(backend, x, 1, 48);
	struct sk_buffer *out = buffer_of(backend, 1, 48);
	sk_backend_clear_pages(backend, (uint32_t[]){2, 3}, 2);
	begin_plain(backend, &plain, 1, 0);
	sk_backend_embed(backend, out, table);
	mover = &m;
	const int r = sk_backend_end_step(backend);
	mover = NULL;
	assert_int_equal(r, 0);
	assert_int_equal(m.n, 1); /* captured */
	assert_int_equal(m.sent, 0);
	assert_int_equal(m.got, 0);
	assert_int_equal(m.bytes[0], 0);
	assert_memory_equal(sk_backend_read(backend, out, 0), x, 48 * sizeof *x);
	assert_int_equal(sk_backend_read_page(backend, 2, m.bytes), 0);
	assert_int_equal(m.bytes[n - 1], 1);
	sk_backend_close(backend);
	free(m.bytes);
	free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sum),
		cmocka_unit_test(test_a_writer_is_seen),
		cmocka_unit_test(test_imports_are_of_this_device),
		cmocka_unit_test(test_reading_fails_alone),
		cmocka_unit_test(test_most_rows),
		cmocka_unit_test(test_pages_through_pinned_memory),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_steps_without_graphs),
		cmocka_unit_test(test_copies_beside_a_capture),
	};
	random_begin();
	return sk_test_run(tests, NULL, NULL);
}
