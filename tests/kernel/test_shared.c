/* Weights that one backend packed and another uses: in the same process, in one that is started for it, and after the
 * first has gone. What is computed is the same to the bit. A device that has no descriptors but handles alone is the
 * same tests with CUSIM_VMM=0 (tests/cusim). One long file, since the program is also the process that it starts.
 */
#include "matrix.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define N_ROWS  40
#define N_COLS  96
#define N_INPUT 3

extern char **environ;
long cusim_n_held(void) __attribute__((weak)); /* of a simulated device */

static const struct {
	enum sk_dtype dtype;
	enum sk_weight_format format;
} sorts[] = {
	{SK_DTYPE_F32, SK_WEIGHTS_F32},  {SK_DTYPE_BF16, SK_WEIGHTS_AUTO},
	{SK_DTYPE_F16, SK_WEIGHTS_AUTO}, {SK_DTYPE_F32, SK_WEIGHTS_Q8},
	{SK_DTYPE_F32, SK_WEIGHTS_Q4},   {SK_DTYPE_Q4_1, SK_WEIGHTS_AUTO},
};
#define N_SORTS  (sizeof sorts / sizeof *sorts)
#define N_FLOATS (N_INPUT * (N_SORTS * N_ROWS + N_COLS))

/* The model. From one seed: another process has the same. */
struct small_model {
	struct sk_tensor tensors[N_SORTS], input, bias, gain;
};

static void small_model_init(struct small_model *source)
{
	random_state = 12345;
	source->input = float_tensor(random_floats(N_INPUT * N_COLS, 1), N_INPUT, N_COLS);
	source->bias = float_tensor(random_floats(N_ROWS, 1), N_ROWS, 1);
	source->gain = float_tensor(random_floats(N_COLS, 1), N_COLS, 1);
	for (unsigned i = 0; i < N_SORTS; i++)
		source->tensors[i] =
			(struct sk_tensor){"w", sorts[i].dtype, N_ROWS, N_COLS,
					   random_data(sorts[i].dtype, N_ROWS, N_COLS)};
}

static void small_model_finish(struct small_model *source)
{
	for (unsigned i = 0; i < N_SORTS; i++)
		free((void *)source->tensors[i].data);
	free((void *)source->input.data);
	free((void *)source->bias.data);
	free((void *)source->gain.data);
}

struct packed {
	struct sk_linear *input, *linears[N_SORTS];
	struct sk_norm *norm;
};

/* The first error. */
static int pack(struct sk_backend *backend, const struct small_model *source, struct packed *packed)
{
	const struct sk_matrix input = matrix_of(&source->input), bias = matrix_of(&source->bias),
			       gain = matrix_of(&source->gain), none = {0};
	int r = sk_backend_pack_linear(backend, &input, NULL, SK_WEIGHTS_F32, &packed->input);
	for (unsigned i = 0; i < N_SORTS && r == 0; i++) {
		const struct sk_matrix matrix = matrix_of(&source->tensors[i]);
		r = sk_backend_pack_linear(backend, &matrix, i % 2 ? &bias : NULL, sorts[i].format,
					   &packed->linears[i]);
	}
	return r == 0 ? sk_backend_pack_norm(backend, &gain, &none, &packed->norm) : r;
}

static uint64_t measured(struct sk_backend *backend, const struct small_model *source)
{
	const struct sk_matrix input = matrix_of(&source->input), bias = matrix_of(&source->bias),
			       gain = matrix_of(&source->gain), none = {0};
	uint64_t n, sum;
	assert_int_equal(sk_backend_linear_bytes(backend, &input, NULL, SK_WEIGHTS_F32, &sum), 0);
	for (unsigned i = 0; i < N_SORTS; i++) {
		const struct sk_matrix matrix = matrix_of(&source->tensors[i]);
		assert_int_equal(sk_backend_linear_bytes(backend, &matrix, i % 2 ? &bias : NULL,
							 sorts[i].format, &n),
				 0);
		sum += n;
	}
	return sum + sk_backend_norm_bytes(backend, &gain, &none);
}

static void compute(struct sk_backend *backend, const struct packed *packed, float *out)
{
	struct plain_batch plain;
	struct sk_buffer *in = buffer_of(backend, N_INPUT, N_COLS),
			 *normed = buffer_of(backend, N_INPUT, N_COLS), *outs[N_SORTS];
	for (unsigned i = 0; i < N_SORTS; i++)
		outs[i] = buffer_of(backend, N_INPUT, N_ROWS);
	begin_plain(backend, &plain, N_INPUT, 0);
	sk_backend_embed(backend, in, packed->input);
	sk_backend_norm(backend, normed, in, packed->norm, 1e-5f, true);
	for (unsigned i = 0; i < N_SORTS; i++)
		sk_backend_matmul(backend, outs[i], in, packed->linears[i]);
	assert_int_equal(sk_backend_end_step(backend), 0);
	for (uint32_t row = 0; row < N_INPUT; row++) {
		for (unsigned i = 0; i < N_SORTS; i++, out += N_ROWS)
			memcpy(out, sk_backend_read(backend, outs[i], row), N_ROWS * sizeof *out);
		memcpy(out, sk_backend_read(backend, normed, row), N_COLS * sizeof *out);
		out += N_COLS;
	}
	for (unsigned i = 0; i < N_SORTS; i++)
		sk_backend_free(backend, outs[i]);
	sk_backend_free(backend, in);
	sk_backend_free(backend, normed);
}

static struct sk_backend *open_plain(const char *instructions)
{
	struct sk_backend_shape shape = default_shape();
	struct sk_backend *backend = open_or_skip(instructions, 2, false, &shape);
	assert_int_equal(sk_backend_reserve_pages(backend, 2), 0);
	return backend;
}

static struct sk_backend *open_holder(const char *instructions, const struct small_model *source,
				      struct sk_shared_weights *ret_shared)
{
	struct sk_backend *backend = open_plain(instructions);
	struct packed packed;
	assert_int_equal(sk_backend_share_weights(backend, measured(backend, source)), 0);
	assert_int_equal(pack(backend, source, &packed), 0);
	assert_int_equal(sk_backend_export_weights(backend, ret_shared), 0);
	assert_int_equal(sk_backend_check_weights(backend), 0);
	return backend;
}

static void expect_alone(const char *instructions, const struct small_model *source, float *out)
{
	struct sk_backend *backend = open_plain(instructions);
	struct packed packed;
	assert_int_equal(pack(backend, source, &packed), 0);
	compute(backend, &packed, out);
	sk_backend_close(backend);
}

/* --- Another process --- */

/* What goes to it, before the sizes of the pieces; and what comes back: an error, then floats, once for each byte. */
struct letter {
	char instructions[16];
	struct sk_shared_weights shared; /* pointers and descriptors mean nothing there */
};

static void say(int fd, const void *bytes, size_t n)
{
	assert_int_equal(write(fd, bytes, n), n);
}

static bool hear(int fd, void *bytes, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t got = read(fd, (char *)bytes + at, n - at);
		if (got <= 0)
			return false;
		at += (size_t)got;
	}
	return true;
}

/* Descriptor 3 is the socket, 4 the weights'. */
static int child(void)
{
	struct letter letter;
	struct small_model source;
	struct packed packed;
	float out[N_FLOATS];
	char go;
	if (!hear(3, &letter, sizeof letter))
		return 1;
	struct sk_shared_weights *shared = &letter.shared;
	shared->pieces = calloc(shared->n_pieces, sizeof *shared->pieces);
	if (!shared->pieces || !hear(3, shared->pieces, shared->n_pieces * sizeof *shared->pieces))
		return 2;
	if (shared->fd >= 0)
		shared->fd = 4;
	small_model_init(&source);
	struct sk_backend *backend = open_plain(letter.instructions);
	int r = sk_backend_import_weights(backend, shared);
	if (r == 0)
		r = pack(backend, &source, &packed);
	if (write(3, &r, sizeof r) != sizeof r)
		return 3;
	while (r == 0 && hear(3, &go, 1)) {
		compute(backend, &packed, out);
		if (write(3, out, sizeof out) != sizeof out)
			return 4;
	}
	sk_backend_close(backend);
	sk_shared_weights_finish(shared);
	small_model_finish(&source);
	if (cusim_n_held && cusim_n_held())
		return 5; /* the driver would close it with the process, but a process may live on */
	return 0;
}

/* Started anew, not forked: a device does not survive that. */
static pid_t start_child(const char *instructions, const struct sk_shared_weights *shared,
			 int *ret_socket)
{
	int ends[2];
	pid_t pid;
	posix_spawn_file_actions_t actions;
	char *arguments[] = {(char *)"child", (char *)"--child", NULL};
	struct letter letter = {.shared = *shared};
	snprintf(letter.instructions, sizeof letter.instructions, "%s", instructions);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	/* Out of the way of 3 and 4, to which they become. */
	int socket = fcntl(ends[1], F_DUPFD_CLOEXEC, 10),
	    fd = fcntl(shared->fd >= 0 ? shared->fd : ends[1], F_DUPFD_CLOEXEC, 10);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, socket, 3);
	posix_spawn_file_actions_adddup2(&actions, fd, 4);
	assert_int_equal(posix_spawn(&pid, "/proc/self/exe", &actions, NULL, arguments, environ),
			 0);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	close(socket);
	close(fd);
	say(ends[0], &letter, sizeof letter);
	say(ends[0], shared->pieces, shared->n_pieces * sizeof *shared->pieces);
	*ret_socket = ends[0];
	return pid;
}

static void ask_child(int socket, const float *expected)
{
	float out[N_FLOATS];
	say(socket, "!", 1);
	assert_true(hear(socket, out, sizeof out));
	assert_memory_equal(out, expected, sizeof out);
}

static void end_child(pid_t pid, int socket)
{
	int status;
	close(socket);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* --- Tests --- */

static void test_import(void **state)
{
	const char *instructions = *state;
	struct small_model source;
	struct packed packed;
	struct sk_shared_weights shared;
	float expected[N_FLOATS], got[N_FLOATS];
	need(instructions);
	small_model_init(&source);
	expect_alone(instructions, &source, expected);
	struct sk_backend *holder = open_holder(instructions, &source, &shared);
	if (shared.fd >= 0) { /* a handle cannot be opened where it was made */
		struct sk_backend *backend = open_plain(instructions);
		assert_int_equal(sk_backend_import_weights(backend, &shared), 0);
		assert_int_equal(pack(backend, &source, &packed), 0);
		assert_int_equal(sk_backend_weight_bytes(backend), sk_backend_weight_bytes(holder));
		compute(backend, &packed, got);
		assert_memory_equal(got, expected, sizeof got);
		/* There is no more where that came from. */
		assert_int_equal(pack(backend, &source, &packed), -ESTALE);
		sk_backend_close(backend);
	}
	assert_int_equal(sk_backend_check_weights(holder), 0);
	sk_backend_close(holder);
	if (shared.fd >= 0) /* ours, and not closed with it */
		assert_true(fcntl(shared.fd, F_GETFD) >= 0);
	sk_shared_weights_finish(&shared);
	small_model_finish(&source);
}

/* Two others at once; the holder ends before they do, where that is allowed. */
static void test_processes(void **state)
{
	const char *instructions = *state;
	struct small_model source;
	struct sk_shared_weights shared;
	float expected[N_FLOATS];
	pid_t pids[2];
	int sockets[2], r;
	need(instructions);
	small_model_init(&source);
	expect_alone(instructions, &source, expected);
	struct sk_backend *holder = open_holder(instructions, &source, &shared);
	const bool outlives = shared.fd >= 0;
	for (int i = 0; i < 2; i++)
		pids[i] = start_child(instructions, &shared, &sockets[i]);
	for (int i = 0; i < 2; i++) {
		assert_true(hear(sockets[i], &r, sizeof r));
		assert_int_equal(r, 0);
		ask_child(sockets[i], expected);
	}
	assert_int_equal(sk_backend_check_weights(holder), 0);
	end_child(pids[0], sockets[0]);
	assert_int_equal(sk_backend_check_weights(holder), 0);
	if (outlives) {
		sk_backend_close(holder);
		sk_shared_weights_finish(&shared);
	}
	ask_child(sockets[1], expected);
	end_child(pids[1], sockets[1]);
	if (!outlives) {
		sk_backend_close(holder);
		sk_shared_weights_finish(&shared);
	}
	small_model_finish(&source);
}

/* What is not what it should be is refused, and nothing of it is used. */
static void test_refusals(void **state)
{
	const char *instructions = *state;
	struct small_model source;
	struct packed packed;
	struct sk_shared_weights shared;
	need(instructions);
	small_model_init(&source);
	struct sk_backend *holder = open_holder(instructions, &source, &shared);
	enum { LAYOUT, SIZE, PIECES, NO_FD, UNSEALED, CHECKSUM, N_FAULTS };
	for (int fault = 0; fault < N_FAULTS; fault++) {
		struct sk_shared_weights bad = shared;
		uint64_t *pieces = malloc(shared.n_pieces * sizeof *pieces);
		assert_non_null(pieces);
		memcpy(pieces, shared.pieces, shared.n_pieces * sizeof *pieces);
		bad.pieces = pieces;
		if (fault == LAYOUT)
			bad.layout[0] ^= 1;
		if (fault == SIZE)
			bad.n_bytes += (uint64_t)64 << 20;
		if (fault == PIECES)
			pieces[1] = UINT64_MAX - 8;
		if (fault == NO_FD) { /* a handle of nobody's */
			bad.fd = -1;
			memset(bad.handle, 0xee, sizeof bad.handle);
		}
		if (fault == CHECKSUM && (strcmp(instructions, "cuda") != 0 || shared.fd < 0)) {
			free(pieces); /* what is sealed has none; a handle is another process' */
			continue;
		}
		if (fault == CHECKSUM)
			bad.checksum ^= 1;
		if (fault == UNSEALED) {
			bad.fd = memfd_create("unsealed", MFD_CLOEXEC);
			assert_int_equal(ftruncate(bad.fd, 4096), 0);
		}
		struct sk_backend *backend = open_plain(instructions);
		const int r = sk_backend_import_weights(backend, &bad);
		/* Where handles are all there is, a descriptor is nothing that can be had. */
		const bool unknown = fault == LAYOUT || (fault == UNSEALED && shared.fd < 0);
		if (r != (unknown ? -ENOTSUP : -EBADMSG))
			fail_msg("fault %d: %d", fault, r);
		sk_backend_close(backend);
		if (fault == UNSEALED)
			close(bad.fd);
		free(pieces);
	}
	if (shared.fd < 0) { /* there is less than is said: only another process can see it */
		struct sk_shared_weights more = shared;
		int socket, r = 0;
		more.n_bytes += (uint64_t)64 << 20;
		const pid_t pid = start_child(instructions, &more, &socket);
		assert_true(hear(socket, &r, sizeof r));
		assert_int_equal(r, -EBADMSG);
		end_child(pid, socket);
	}
	if (shared.fd >= 0) { /* another model */
		struct sk_backend *backend = open_plain(instructions);
		assert_int_equal(sk_backend_import_weights(backend, &shared), 0);
		source.tensors[2].n_rows -= 16;
		assert_int_equal(pack(backend, &source, &packed), -ESTALE);
		source.tensors[2].n_rows += 16;
		sk_backend_close(backend);
	}
	sk_backend_close(holder);
	/* Too little room, and too late. */
	struct sk_backend *backend = open_plain(instructions);
	assert_int_equal(sk_backend_share_weights(backend, measured(backend, &source) - 1), 0);
	assert_int_equal(pack(backend, &source, &packed), -ENOSPC);
	assert_true(sk_backend_share_weights(backend, 4096) < 0);
	sk_backend_close(backend);
	sk_shared_weights_finish(&shared);
	small_model_finish(&source);
}

#define SHARED_TEST(f)                                                                             \
	{#f " scalar", f, NULL, NULL, "scalar"},                                                   \
	{                                                                                          \
#f " cuda", f, NULL, NULL, "cuda"                                                  \
	}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {SHARED_TEST(test_import), SHARED_TEST(test_processes),
					   SHARED_TEST(test_refusals)};
	if (argc > 1 && strcmp(argv[1], "--child") == 0)
		return child();
	return sk_test_run(tests, NULL, NULL);
}
