/* What an engine does once its device has failed: it says what failed, and keeps the sessions that the device still gives.
 * Linked with --wrap of the calls that fail here.
 */
#include "sessions.h"

#include <cuda_runtime_api.h>

/* What fails, from now on or once. */
static struct {
	bool launch, tells, reads;
	unsigned n_reads; /* of pages */
} fails;

cudaError_t __real_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t __real_cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
				   cudaStream_t stream);
cudaError_t __wrap_cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
				   cudaStream_t stream);

cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
	const bool is_now = fails.launch;
	fails.launch = false;
	return is_now ? cudaErrorLaunchFailure : __real_cudaGraphLaunch(exec, stream);
}

cudaError_t __wrap_cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
				   cudaStream_t stream)
{
	if (kind == cudaMemcpyDeviceToHost && n >= 32768) {
		fails.n_reads++;
		if (fails.reads)
			return cudaErrorLaunchFailure;
	}
	if (kind == cudaMemcpyHostToDevice && fails.tells) {
		fails.tells = false;
		return cudaErrorIllegalAddress;
	}
	return __real_cudaMemcpyAsync(to, from, n, kind, stream);
}

static struct answer *const told[] = {&a, &b};

/* Two sessions, and a request of another during which *what fails: it is told that the device did, and `why`. */
static void lose_device(struct client *client, bool *what, const char *why)
{
	char name[32];
	connect_client(client, 1024);
	for (int i = 0; i < 2; i++) {
		snprintf(name, sizeof name, "kept%d", i);
		clear(told[i]);
		say(client, name, stories[i], 3, told[i]);
	}
	*what = true;
	sk_engine_submit(engine, ask(client, 7, "Another", 5));
	for (int i = 0; i < 2; i++) { /* that it failed, and how the request ended */
		struct sk_event *event = next_event();
		assert_true(event->kind == SK_EVENT_DEAD || event->request == 7);
		if (!strstr(event->reason, "the device failed in the middle of a step") ||
		    !strstr(event->reason, why))
			fail_msg("'%s' does not say '%s'", event->reason, why);
		sk_event_destroy(event);
	}
}

static void test_idle_sessions_are_kept(void **state)
{
	struct client client;
	char name[32];
	(void)state;
	lose_device(&client, &fails.launch, "a step: unspecified launch failure");
	disconnect_client(&client);
	sk_engine_stop(engine);
	assert_int_equal(sk_engine_kept(engine)->n_kept, 2);
	assert_int_equal(sk_engine_kept(engine)->n_lost, 0);
	restart();
	assert_int_equal(sk_engine_kept(engine)->n_found, 2);
	connect_client(&client, 1024);
	for (int i = 0; i < 2; i++) {
		snprintf(name, sizeof name, "kept%d", i);
		say(&client, name, "", 3, told[i]);
		done(verb(&client, SK_SESSION_DELETE, name, ""));
		assert_as_in_one(&client, stories[i], told[i]);
	}
	disconnect_client(&client);
}

/* A device that gives nothing any more is not asked again and again. */
static void test_the_first_read_that_fails_is_the_last(void **state)
{
	struct client client;
	(void)state;
	lose_device(&client, &fails.tells, "telling of a step: an illegal memory access");
	disconnect_client(&client);
	fails.reads = true;
	fails.n_reads = 0;
	sk_engine_stop(engine);
	assert_int_equal(fails.n_reads, 1);
	assert_int_equal(sk_engine_kept(engine)->n_kept, 0);
	assert_int_equal(sk_engine_kept(engine)->n_lost, 2);
	assert_non_null(strstr(sk_engine_kept(engine)->reason, "the device failed"));
	fails.reads = false;
	restart();
	assert_int_equal(sk_engine_kept(engine)->n_found, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_idle_sessions_are_kept),
		cmocka_unit_test(test_the_first_read_that_fails_is_the_last),
	};
	return sk_test_run(tests, open_stored_engine, close_stored_engine);
}
