/* What bench_gpu has to do on the device: a model, and sessions whose caches are full, so that every step of as many of them
 * costs the same. One thread. Whatever fails ends the program, and says what.
 */
#pragma once

#include "engine/forward.h"
#include "engine/session.h"

#define GPU_WORK_ROWS     512 /* of a step, at most */
#define GPU_WORK_SESSIONS 256 /* at most */
#define GPU_WORK_SINK     8
#define GPU_WORK_WINDOW   248

struct gpu_work {
	struct sk_backend *backend; /* the caller's, as the model */
	struct sk_forward forward;
	struct sk_pool pool;
	struct sk_session *sessions[GPU_WORK_SESSIONS];
	uint32_t n_sessions;
	double bandwidth; /* bytes/s of reading, measured here; 0: not known */
	struct sk_row rows[GPU_WORK_ROWS];
	struct sk_view views[GPU_WORK_ROWS];
	struct sk_span spans[GPU_WORK_ROWS];
	uint32_t wanted[GPU_WORK_ROWS];
	struct sk_draw draws[GPU_WORK_ROWS];   /* the likeliest */
	struct sk_draw sampled[GPU_WORK_ROWS]; /* top-k 40, top-p 0.95, temperature 0.8 */
};

void gpu_work_init(struct gpu_work *work, struct sk_backend *backend, const struct sk_model *model,
		   enum sk_weight_format format);
/* Once: fills the caches of so many sessions, or of as many as the memory holds. */
void gpu_work_begin(struct gpu_work *work, uint32_t n_sessions);
void gpu_work_finish(struct gpu_work *work);

/* What it takes in the device's memory, with its bias. */
double gpu_work_linear_bytes(const struct sk_linear *linear);
void gpu_work_fail(const char *what, int error) __attribute__((noreturn));

/* A prompt of n tokens through one session; and the token after it, once it is here. */
void gpu_work_prompt(struct gpu_work *work, struct sk_session *session, uint32_t n, bool draws);
/* One token of each of the first n sessions; whether each is brought here. */
void gpu_work_decode(struct gpu_work *work, uint32_t n, bool reads);
/* The rows of such a step, for operations alone; and what makes room again. */
struct sk_batch gpu_work_batch(struct gpu_work *work, uint32_t n);
void gpu_work_trim(struct gpu_work *work, uint32_t n);
