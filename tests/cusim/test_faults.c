/* cusim sees every sort of fault, and none where there is none. */
#include "control.h"
#include "faults.h"
#include "sk_test.h"

#include <string.h>

static const struct {
	const char *name, *told;
} faults[N_FAULTS] = {
	[FAULT_NO_BARRIER] = {"no barrier", "race: read after write"},
	[FAULT_NO_SYNCWARP] = {"no syncwarp", "race: read after write"},
	[FAULT_NO_BARRIER_AGAIN] = {"no barrier again", "race: write after read"},
	[FAULT_TWO_BARRIERS] = {"two barriers", "barrier-divergence"},
	[FAULT_LOST_LANE] = {"lost lane", "warp-inactive"},
	[FAULT_PAST_THE_END] = {"past the end", "bounds"},
	[FAULT_SHARED_BOUNDS] = {"shared bounds", "shared-bounds"},
	[FAULT_UNWRITTEN_SHARED] = {"unwritten shared", "uninitialised: shared"},
	[FAULT_UNWRITTEN] = {"unwritten", "uninitialised: global"},
	[FAULT_ALIGNMENT] = {"alignment", "alignment"},
	[FAULT_NO_FENCE] = {"no fence", "race"},
	[FAULT_BLOCKS_RACE] = {"blocks race", "race"},
	[FAULT_EARLY_READ] = {"early read", "early"},
	[FAULT_HOST_MEMORY] = {"host memory", "address"},
	[FAULT_COPY_UNWAITED] = {"copy unwaited", "uninitialised: shared"},
	[FAULT_STATIC_BOUNDS] = {"static bounds", "array-bounds"},
	[FAULT_STATIC_PAST] = {"static past", "shared-bounds"},
	[FAULT_LAUNCH_BOUNDS] = {"launch bounds", "launch-bounds"},
	[FAULT_BARRIER_FEW] = {"barrier few", "barrier-count"},
	[FAULT_BARRIER_MANY] = {"barrier many", "barrier-count"},
	[FAULT_NEVER_WAITS] = {"never waits", "unwaited"},
	[FAULT_STATIC_DYNAMIC] = {"static and dynamic", "launch-shared"},
	[FAULT_CONSTANT_WRITTEN] = {"constant written", "race: read as constant"},
	[FAULT_WRITES_CONSTANT] = {"writes constant", "race: write of what is read as constant"},
	[FAULT_PLAIN_ATOMIC] = {"plain and atomic", "race: write after read"},
	[FAULT_HOST_UNWRITTEN] = {"host unwritten", "copied to the host"},
	[FAULT_COPY_UNWRITTEN] = {"copy unwritten", "uninitialised: global"},
	[FAULT_BLAS_UNWRITTEN] = {"blas unwritten", "multiplied by cuBLAS"},
	[FAULT_BLAS_ADDS] = {"blas adds", "multiplied by cuBLAS"},
	[FAULT_TWO_STREAMS] = {"two streams", "streams"},
	[FAULT_PINNED_BOUNDS] = {"pinned bounds", "copy-bounds"},
};

static cudaStream_t stream, other;

/* Whether the fault is told as it should be in one of some runs, whose order of threads differs; a sound kernel never. */
static bool is_told(enum fault fault, bool planted)
{
	float *floats = calloc(1024, sizeof *floats);
	const size_t bytes = 1024 * sizeof *floats;
	assert_non_null(floats);
	bool told = false;
	for (int times = 0; times < 10 && !told; times++) {
		struct fault_memory m = {.host = floats, .other = other};
		assert_int_equal(cudaMallocHost((void **)&m.pinned, 32 * sizeof *floats),
				 cudaSuccess);
		assert_int_equal(cudaMalloc((void **)&m.in, bytes), cudaSuccess);
		assert_int_equal(cudaMalloc((void **)&m.out, bytes), cudaSuccess);
		assert_int_equal(cudaMalloc((void **)&m.counter, sizeof *m.counter), cudaSuccess);
		assert_int_equal(cudaMemsetAsync(m.in, 0, bytes / 2, stream), cudaSuccess);
		assert_int_equal(cudaMemsetAsync(m.counter, 0, sizeof *m.counter, stream),
				 cudaSuccess);
		assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
		cusim_forget_errors();
		const cudaError_t error = run_fault(stream, fault, planted, &m);
		if (!planted) /* such a launch may be refused */
			assert_int_equal(error, cudaSuccess);
		assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
		told = cusim_saw(faults[fault].told);
		if (cusim_n_errors() && !planted)
			fail_msg("%s, which is sound: %s", faults[fault].name, cusim_last_error());
		cusim_forget_errors();
		cudaFree(m.in);
		cudaFree(m.out);
		cudaFree(m.counter);
		cudaFreeHost(m.pinned);
	}
	free(floats);
	return told;
}

static void test_faults(void **state)
{
	(void)state;
	for (int i = 0; i < N_FAULTS; i++) {
		print_message("  %s\n", faults[i].name);
		if (!is_told((enum fault)i, true))
			fail_msg("%s: not seen", faults[i].name);
		assert_false(is_told((enum fault)i, false));
	}
}

static void test_use_after_free(void **state)
{
	(void)state;
	static float floats[4];
	struct fault_memory m = {.host = floats};
	assert_int_equal(cudaMalloc((void **)&m.in, 64), cudaSuccess);
	assert_int_equal(cudaMalloc((void **)&m.out, 4096), cudaSuccess);
	assert_int_equal(cudaFree(m.out), cudaSuccess);
	assert_int_equal(run_fault(stream, FAULT_PAST_THE_END, false, &m), cudaSuccess);
	assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
	assert_int_equal(cusim_n_errors(), 1);
	assert_non_null(strstr(cusim_last_error(), "freed"));
	cusim_forget_errors();
	assert_int_equal(cudaFree(m.out), cudaErrorInvalidValue); /* twice */
	assert_int_equal(cudaFree(m.in), cudaSuccess);
}

/* A graph keeps the parameters of its capture; what is waited for while capturing spoils it. */
static void test_graphs(void **state)
{
	(void)state;
	float *device, one[2] = {5, 6}, *pinned;
	cudaGraph_t graph;
	cudaGraphExec_t exec;
	assert_int_equal(cudaMalloc((void **)&device, sizeof one), cudaSuccess);
	assert_int_equal(cudaMallocHost((void **)&pinned, sizeof one), cudaSuccess);
	memcpy(pinned, one, sizeof one);
	assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
			 cudaSuccess);
	assert_int_equal(
		cudaMemcpyAsync(device, pinned, sizeof one, cudaMemcpyHostToDevice, stream),
		cudaSuccess);
	assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaSuccess);
	assert_int_equal(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
	pinned[1] = 7; /* is read when the graph runs */
	assert_int_equal(cudaGraphLaunch(exec, stream), cudaSuccess);
	assert_int_equal(cudaMemcpyAsync(one, device, sizeof one, cudaMemcpyDeviceToHost, stream),
			 cudaSuccess);
	assert_true(one[0] == 5 && one[1] == 7);
	assert_int_equal(cudaGraphExecDestroy(exec), cudaSuccess);
	assert_int_equal(cudaGraphDestroy(graph), cudaSuccess);

	assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
			 cudaSuccess);
	assert_int_equal(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
	assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
	assert_int_equal(cudaFree(device), cudaSuccess);
	assert_int_equal(cudaFreeHost(pinned), cudaSuccess);
}

static void test_failures(void **state)
{
	(void)state;
	void *p = NULL;
	const long n_held = cusim_n_held();
	cusim_fail_at(1);
	assert_int_equal(cudaMalloc(&p, 100), cudaErrorMemoryAllocation);
	assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
	assert_int_equal(cudaGetLastError(), cudaSuccess);
	assert_int_equal(cudaMalloc(&p, 100), cudaSuccess); /* once */
	assert_int_equal(cusim_n_held(), n_held + 1);
	assert_int_equal(cudaFree(p), cudaSuccess);
	assert_int_equal(cusim_n_held(), n_held);
}

static int begin(void **state)
{
	(void)state;
	return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess &&
			       cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) ==
				       cudaSuccess
		       ? 0
		       : -1;
}

static int end(void **state)
{
	(void)state;
	cudaStreamDestroy(stream);
	cudaStreamDestroy(other);
	return cusim_n_held() ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_use_after_free),
		cmocka_unit_test(test_graphs),
		cmocka_unit_test(test_failures),
	};
	return sk_test_run(tests, begin, end);
}
