/* What a device does with shared weights, where CUDA's documents say little: whether a reader can write to what it has
 * mapped readable only, and what it still reads once the process that made the memory was killed. A line each: what,
 * the verdict, and in brackets what was seen. "seen": neither answer would be a fault.
 *
 * Every process is forked before anything of CUDA is called, and each of an act's has its own: a write that is refused
 * costs the writer its device. Linked with --wrap=sk_gpu_driver, for memory with a handle where the driver could do more.
 */
#include "gpu/device.h"
#include "gpu/driver.h"
#include "gpu/gpu.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_ROWS      512
#define N_COLS      1024
#define N_WRITTEN   4096 /* bytes */
#define PATIENCE_S  20
#define GREED_BYTES ((size_t)4 << 20)
#define GREED       16

static bool knows_handles_alone;
const struct sk_gpu_driver *__real_sk_gpu_driver(void);
const struct sk_gpu_driver *__wrap_sk_gpu_driver(void);

const struct sk_gpu_driver *__wrap_sk_gpu_driver(void)
{
	return knows_handles_alone ? NULL : __real_sk_gpu_driver();
}

enum act { WRITE_KERNEL, WRITE_SET, WRITE_COPY, READ_ORPHAN, IMPORT_ORPHAN };

static const struct probe {
	const char *name;
	bool by_handle;
	enum act act;
} probes[] = {
	{"descriptor: a reader's kernel writes", false, WRITE_KERNEL},
	{"descriptor: a reader's memset", false, WRITE_SET},
	{"descriptor: a reader's copy", false, WRITE_COPY},
	{"handle: a reader's kernel writes", true, WRITE_KERNEL},
	{"descriptor: read, exporter killed", false, READ_ORPHAN},
	{"descriptor: imported, exporter killed", false, IMPORT_ORPHAN},
	{"handle: read, exporter killed", true, READ_ORPHAN},
};

/* --- Between processes --- */

struct answer {
	int error; /* 0 or -errno */
	char said[80];
};

/* From the exporter, before the sizes of the pieces; the descriptor goes with it. */
struct letter {
	struct answer answer;
	struct sk_shared_weights shared; /* pointers and descriptors mean nothing elsewhere */
};

static bool hear(int socket, void *bytes, size_t n)
{
	return n == 0 || recv(socket, bytes, n, MSG_WAITALL) == (ssize_t)n;
}

static void say(int socket, const void *bytes, size_t n)
{
	if (send(socket, bytes, n, MSG_NOSIGNAL) != (ssize_t)n)
		_exit(1);
}

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int))];
};

static void say_letter(int socket, const struct letter *letter)
{
	struct iovec part = {(void *)letter, sizeof *letter};
	union control control = {0};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	if (letter->shared.fd >= 0) {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof control.bytes;
		control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)),
						  .cmsg_level = SOL_SOCKET,
						  .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.header), &letter->shared.fd, sizeof(int));
	}
	if (sendmsg(socket, &message, MSG_NOSIGNAL) != sizeof *letter)
		_exit(1);
	say(socket, letter->shared.pieces, letter->shared.n_pieces * sizeof *letter->shared.pieces);
}

/* Leaves the letter as it is where none comes. */
static void hear_letter(int socket, struct letter *ret_letter)
{
	struct letter letter;
	struct iovec part = {&letter, sizeof letter};
	union control control = {0};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof control.bytes};
	struct sk_shared_weights *shared = &letter.shared;
	if (recvmsg(socket, &message, MSG_WAITALL | MSG_CMSG_CLOEXEC) != sizeof letter)
		return;
	shared->fd = -1;
	if (message.msg_controllen)
		memcpy(&shared->fd, CMSG_DATA(&control.header), sizeof(int));
	const size_t n = shared->n_pieces * sizeof *shared->pieces;
	shared->pieces = malloc(n + 1);
	if (shared->pieces && hear(socket, shared->pieces, n))
		*ret_letter = letter;
}

/* --- The processes --- */

static struct answer answer_of(struct sk_backend *backend, int r)
{
	struct answer answer = {.error = r};
	const char *said =
		r == 0          ? "the same checksum"
		: r == -EBADMSG ? "another checksum"
		: r == -EIO && backend
			? cudaGetErrorString(cudaStreamSynchronize(sk_gpu_from(backend)->stream))
			: strerror(-r);
	snprintf(answer.said, sizeof answer.said, "%s", said);
	return answer;
}

static struct answer answer_of_runtime(cudaError_t error)
{
	struct answer answer = {.error = sk_gpu_errno(error)};
	snprintf(answer.said, sizeof answer.said, "%s", cudaGetErrorString(error));
	return answer;
}

static int open_device(struct sk_backend **ret_backend)
{
	const struct sk_backend_options options = {0};
	const struct sk_backend_shape shape = {.n_layers = 1,
					       .n_heads = 1,
					       .n_kv_heads = 1,
					       .head_dim = 16,
					       .n_rot = 16,
					       .rope_base = 10000,
					       .kv_format = SK_KV_F32,
					       .max_rows = 1};
	struct sk_diag diag = {""};
	int r = sk_backend_open(&sk_gpu_backend, &options, &shape, ret_backend, &diag);
	if (r < 0 && r != -ENODEV)
		fprintf(stderr, "probe_shared: %s\n", diag.text);
	return r;
}

static int pack(struct sk_backend *backend)
{
	static float floats[N_ROWS * N_COLS];
	for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
		floats[i] = (float)i;
	const struct sk_tensor tensor = {"floats", SK_DTYPE_F32, N_ROWS, N_COLS, floats};
	const struct sk_matrix matrix = {.n_rows = N_ROWS,
					 .n_cols = N_COLS,
					 .n_parts = 1,
					 .parts = {{.tensor = &tensor, .n_rows = N_ROWS}}};
	struct sk_linear *linear;
	uint64_t n_bytes;
	int r = sk_backend_linear_bytes(backend, &matrix, NULL, SK_WEIGHTS_F32, &n_bytes);
	if (r == 0)
		r = sk_backend_share_weights(backend, n_bytes);
	return r == 0 ? sk_backend_pack_linear(backend, &matrix, NULL, SK_WEIGHTS_F32, &linear) : r;
}

/* Says how the weights are whenever it is asked, until nobody is left to ask. */
static void export(int socket, const struct probe *probe)
{
	struct sk_backend *backend = NULL;
	struct letter letter = {.shared.fd = -1};
	char go;
	knows_handles_alone = probe->by_handle;
	int r = open_device(&backend);
	if (r == 0)
		r = pack(backend);
	if (r == 0)
		r = sk_backend_export_weights(backend, &letter.shared);
	if (r == 0 && !probe->by_handle && letter.shared.fd < 0)
		r = -ENOTSUP; /* the driver has no descriptors */
	letter.answer = answer_of(backend, r);
	say_letter(socket, &letter);
	while (r == 0 && hear(socket, &go, 1)) {
		const struct answer answer = answer_of(backend, sk_backend_check_weights(backend));
		say(socket, &answer, sizeof answer);
	}
}

/* In the weights' last bytes. */
static struct answer write_there(struct sk_gpu *gpu, enum act act)
{
	static char bytes[N_WRITTEN] = "written by a reader";
	char *end = (char *)gpu->shared.data + gpu->pieces.n_bytes, *at = end - N_WRITTEN;
	cudaError_t error =
		act == WRITE_KERNEL
			? sk_gpu_sum(gpu->stream, (uint64_t *)at, gpu->shared.data, N_WRITTEN, 1)
		: act == WRITE_SET ? cudaMemsetAsync(at, 0xa5, N_WRITTEN, gpu->stream)
				   : cudaMemcpyAsync(at, bytes, N_WRITTEN, cudaMemcpyHostToDevice,
						     gpu->stream);
	if (error == cudaSuccess)
		error = cudaStreamSynchronize(gpu->stream);
	return answer_of_runtime(error);
}

/* What was freed with its process would be given to us. There may be less than we ask for, but what there is can be written. */
static cudaError_t take_what_is_free(struct sk_gpu *gpu)
{
	void *data;
	cudaError_t error = cudaSuccess;
	for (int i = 0; i < GREED && error == cudaSuccess; i++) {
		if (cudaMalloc(&data, GREED_BYTES) != cudaSuccess) {
			cudaGetLastError(); /* it must not be told again */
			break;
		}
		error = cudaMemsetAsync(data, 0x5a, GREED_BYTES, gpu->stream);
	}
	return error == cudaSuccess ? cudaStreamSynchronize(gpu->stream) : error;
}

/* Says that it has the weights, and once it is told to, what came of the act. */
static void use(int socket, const struct probe *probe, const struct sk_shared_weights *shared)
{
	struct sk_backend *backend = NULL;
	char go;
	int r = open_device(&backend);
	if (r == 0)
		r = sk_backend_import_weights(backend, shared);
	struct answer answer = answer_of(backend, r);
	say(socket, &answer, sizeof answer);
	if (r < 0 || !hear(socket, &go, 1))
		return;
	struct sk_gpu *gpu = sk_gpu_from(backend);
	if (probe->act < READ_ORPHAN) {
		answer = write_there(gpu, probe->act);
	} else {
		const cudaError_t error = take_what_is_free(gpu);
		answer = error == cudaSuccess
				 ? answer_of(backend, sk_backend_check_weights(backend))
				 : answer_of_runtime(error);
	}
	say(socket, &answer, sizeof answer);
}

struct process {
	pid_t pid;
	int socket;
};

/* A reader where there are weights, else an exporter. */
static struct process start(const struct probe *probe, const struct sk_shared_weights *shared)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		perror("probe_shared");
		exit(1);
	}
	const pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(PATIENCE_S);
		close(ends[0]);
		if (shared)
			use(ends[1], probe, shared);
		else
			export(ends[1], probe);
		_exit(0); /* the driver tidies up: some of it may be lost */
	}
	close(ends[1]);
	return (struct process){pid, ends[0]};
}

static struct answer ask(const struct process *process)
{
	struct answer answer = {-ECHILD, "the process ended, or did not answer"};
	struct answer got;
	if (send(process->socket, "!", 1, MSG_NOSIGNAL) == 1 &&
	    hear(process->socket, &got, sizeof got))
		answer = got;
	return answer;
}

static void end(struct process *process, int signal)
{
	if (process->pid <= 0)
		return;
	if (signal)
		kill(process->pid, signal);
	close(process->socket);
	waitpid(process->pid, NULL, 0);
	process->pid = 0;
}

/* --- Verdicts --- */

enum verdict { PASSED, FAILED, SKIPPED, SEEN };

static enum verdict tell(const struct probe *probe, enum verdict verdict, const char *seen)
{
	static const char *const words[] = {"passed", "FAILED", "skipped", "seen"};
	printf("%-40s %s (%s)\n", probe->name, words[verdict], seen);
	fflush(stdout);
	return verdict;
}

/* Who can write is seen by the exporter's checksum; who cannot leaves it as it was. */
static enum verdict judge_write(const struct probe *probe, const struct answer *written,
				const struct answer *exporter)
{
	char seen[256];
	const bool arrived = written->error == 0;
	snprintf(seen, sizeof seen, "%s%s; the exporter has %s",
		 arrived ? "it arrived" : "refused: ", arrived ? "" : written->said,
		 exporter->said);
	const bool expected = arrived ? probe->by_handle && exporter->error == -EBADMSG
				      : written->error == -EIO && exporter->error == 0;
	return tell(probe, expected ? PASSED : FAILED, seen);
}

static enum verdict run(const struct probe *probe)
{
	struct letter letter = {.answer = {-ECHILD, "the exporter ended"}, .shared.fd = -1};
	struct process exporter = start(probe, NULL), reader = {0};
	struct answer answer, ready = {-ECHILD, "the reader ended"};
	hear_letter(exporter.socket, &letter);
	const int r = letter.answer.error;
	if (r < 0) {
		end(&exporter, SIGKILL);
		sk_shared_weights_finish(&letter.shared);
		return tell(probe, r == -ENODEV || r == -ENOTSUP ? SKIPPED : FAILED,
			    letter.answer.said);
	}
	if (probe->act == IMPORT_ORPHAN)
		end(&exporter, SIGKILL);
	reader = start(probe, &letter.shared);
	if (hear(reader.socket, &answer, sizeof answer))
		ready = answer;
	enum verdict verdict;
	if (ready.error < 0) {
		verdict = tell(probe, FAILED, ready.said);
	} else if (probe->act < READ_ORPHAN) {
		const struct answer written = ask(&reader), weights = ask(&exporter);
		verdict = judge_write(probe, &written, &weights);
	} else {
		end(&exporter, SIGKILL);
		answer = ask(&reader);
		verdict = tell(probe,
			       probe->by_handle    ? SEEN
			       : answer.error == 0 ? PASSED
						   : FAILED,
			       answer.said);
	}
	end(&reader, 0);
	end(&exporter, 0);
	sk_shared_weights_finish(&letter.shared);
	return verdict;
}

int main(void)
{
	unsigned n[SEEN + 1] = {0};
	for (size_t i = 0; i < sizeof probes / sizeof *probes; i++)
		n[run(&probes[i])]++;
	return n[FAILED] ? 1 : n[PASSED] + n[SEEN] ? 0 : 77;
}
