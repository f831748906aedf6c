/* What llama.cpp does where a context is full, timed token by token: it throws away half of what came after the
 * first N_KEEP tokens, moves the rest's positions, and goes on. Built by bench/endless against llama.cpp.
 *
 *     peer_context_shift MODEL THREADS N_CTX N_TOKENS    prints milliseconds a token, a line each; a shift is marked
 */
#include <llama.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define N_KEEP 4

static double now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void quiet(enum ggml_log_level level, const char *text, void *context)
{
	(void)level;
	(void)text;
	(void)context;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 64;
	const int threads = atoi(argv[2]), n_ctx = atoi(argv[3]), n_tokens = atoi(argv[4]);
	llama_log_set(quiet, NULL);
	struct llama_model *model =
		llama_model_load_from_file(argv[1], llama_model_default_params());
	struct llama_context_params params = llama_context_default_params();
	params.n_ctx = (uint32_t)n_ctx;
	params.n_threads = params.n_threads_batch = threads;
	struct llama_context *context = model ? llama_init_from_model(model, params) : NULL;
	if (!context) {
		fprintf(stderr, "peer_context_shift: %s cannot be loaded\n", argv[1]);
		return 65;
	}
	llama_memory_t memory = llama_get_memory(context);
	const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
	llama_token token = 1;
	int n_past = 0;
	for (int i = 0; i < n_tokens; i++) {
		double begun = now_ms();
		int shifted = n_past == n_ctx;
		if (shifted) {
			int n_discard = (n_past - N_KEEP) / 2;
			if (!llama_memory_seq_rm(memory, 0, N_KEEP, N_KEEP + n_discard)) {
				fprintf(stderr, "peer_context_shift: no shift for this model\n");
				return 70;
			}
			llama_memory_seq_add(memory, 0, N_KEEP + n_discard, n_past, -n_discard);
			n_past -= n_discard;
		}
		if (llama_decode(context, llama_batch_get_one(&token, 1)) != 0) {
			fprintf(stderr, "peer_context_shift: decoding failed\n");
			return 70;
		}
		const float *logits = llama_get_logits_ith(context, -1); /* waits for them */
		double ms = now_ms() - begun;
		int best = 0;
		for (int j = 1; j < n_vocab; j++)
			best = logits[j] > logits[best] ? j : best;
		token = best;
		n_past++;
		printf("%.4f%s\n", ms, shifted ? " shift" : "");
	}
	llama_free(context);
	llama_model_free(model);
	return 0;
}
