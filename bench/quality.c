/* bench_quality: what a way to keep a model costs in quality. See the help below. */
#include "base/options.h"
#include "cpu/cpu.h"
#include "engine/forward.h"
#include "engine/session.h"
#include "model/model.h"
#include "text/tokenizer.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK      128
#define MAX_MODELS 16
#define N_PAGES    64

struct options {
	const char *file;
	uint64_t tokens, sink, window, piece;
};

#define AT(member) offsetof(struct options, member)

static const struct sk_option table[] = {
	{"file", 'f', SK_OPTION_STRING, AT(file), "TEXT", NULL, .help = "The text, in UTF-8."},
	{"tokens", 'n', SK_OPTION_UINT, AT(tokens), "N", "4096", .min = 2, .max = 1 << 20,
	 .help = "Its first N tokens."},
	{"sink", 'S', SK_OPTION_UINT, AT(sink), "N", "4", .max = 1 << 10,
	 .help = "First tokens that are never evicted."},
	{"window", 'W', SK_OPTION_UINT, AT(window), "N", "508", .min = 1, .max = 1 << 10,
	 .help = "Most recent tokens that are kept."},
	{"piece", 'p', SK_OPTION_UINT, AT(piece), "N", "0", .max = 1 << 10,
	 .help = "Cut the text into whole pieces of N tokens, each read by itself, and score the "
		 "second half of each: as llama-perplexity does, whose figures can then be put "
		 "beside these. N is at most sink + window. 0: the text is one stream."},
	{0},
};

static const struct sk_command_help help_text = {
	.name = "bench_quality",
	.synopsis = "MODEL@WEIGHTS[@exact] ...",
	.summary = "compare ways to keep a model with the first of them",
	.text = "Runs a text through each model, weights kept as named (auto, f32, bf16, q8, q4), "
		"and prints its "
		"perplexity, and against the first: the Kullback-Leibler divergence of its "
		"predictions (mean over "
		"tokens), and how often the likeliest token is the same. Caches are kept in 32 "
		"bits.",
	.examples = "  bench_quality --file book.txt model@f32 model@q8 model@q8@exact "
		    "other-q4_0.gguf@auto\n",
};

static const char *const weights[] = {"auto", "f32", "bf16", "q8", "q4", NULL};

struct subject {
	const char *name;
	struct sk_model *model;
	struct sk_backend *backend;
	struct sk_forward forward;
	struct sk_pool pool;
	struct sk_policy policy;
	struct sk_session *session;
	double nats, kl, same;
};

static double log_sum_exp(const float *logits, uint32_t n)
{
	double most = -INFINITY, sum = 0;
	for (uint32_t i = 0; i < n; i++)
		most = (double)logits[i] > most ? (double)logits[i] : most;
	for (uint32_t i = 0; i < n; i++)
		sum += exp((double)logits[i] - most);
	return most + log(sum);
}

static uint32_t likeliest(const float *logits, uint32_t n)
{
	uint32_t best = 0;
	for (uint32_t i = 1; i < n; i++)
		best = logits[i] > logits[best] ? i : best;
	return best;
}

/* Another text. */
static int subject_begin(struct subject *s)
{
	if (s->session)
		sk_session_destroy(s->session);
	s->session = sk_session_create(&s->pool, 0, "", &s->policy);
	return s->session ? 0 : -ENOMEM;
}

/* `spec` is cut at its @s. */
static int subject_open(struct subject *s, char *spec, const struct options *options,
			struct sk_diag *diag)
{
	const struct sk_policy policy = {SK_MODE_STREAMING, (uint32_t)options->sink,
					 (uint32_t)options->window, 0};
	s->name = strdup(spec);
	char *how = strrchr(spec, '@');
	const bool exact = how && strcmp(how, "@exact") == 0;
	if (exact)
		*how = '\0';
	char *format = strrchr(spec, '@');
	int w = 0;
	if (format)
		*format++ = '\0';
	while (format && weights[w] && strcmp(format, weights[w]) != 0)
		w++;
	if (!format || !weights[w])
		return sk_diag_fail(diag, EINVAL,
				    "%s: MODEL@WEIGHTS or MODEL@WEIGHTS@exact is wanted", s->name);
	struct sk_backend_options backend_options = {.exact = exact};
	int r = sk_model_open(spec, &s->model, diag);
	if (r < 0)
		return r;
	struct sk_backend_shape shape =
		sk_forward_shape(sk_model_config(s->model), SK_KV_F32, CHUNK);
	r = sk_backend_open(&sk_cpu_backend, &backend_options, &shape, &s->backend, diag);
	if (r == 0)
		r = sk_forward_init(&s->forward, s->backend, s->model, (enum sk_weight_format)w,
				    CHUNK, NULL, NULL, diag);
	if (r < 0)
		return r;
	r = sk_pool_init(&s->pool, s->backend, N_PAGES);
	s->policy = policy;
	r = r == 0 ? subject_begin(s) : r;
	return r == 0 ? 0 : sk_diag_fail(diag, ENOMEM, "%s: not enough memory", s->name);
}

static int subject_run(struct subject *s, const int32_t *ids, uint32_t n)
{
	struct sk_row rows[CHUNK];
	struct sk_view views[CHUNK];
	uint32_t wanted[CHUNK];
	struct sk_span span;
	(void)sk_pool_promise(&s->pool,
			      s->pool.n_free - s->pool.n_promised); /* all are this session's */
	int r = sk_session_advance(s->session, ids, n, rows, views, &span);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n; i++)
		wanted[i] = i;
	struct sk_batch batch = {n, 1, rows, &span};
	r = sk_forward_run(&s->forward, &batch, wanted, NULL, n, NULL, 0);
	sk_session_trim(s->session);
	return r;
}

static void compare(struct subject *s, struct subject *first, uint32_t row, int32_t id)
{
	const uint32_t n = sk_model_config(s->model)->n_vocab;
	const float *q = sk_forward_logits(&s->forward, row),
		    *p = sk_forward_logits(&first->forward, row);
	if (!q || !p) {
		fprintf(stderr, "bench_quality: the device failed\n");
		exit(1);
	}
	double log_q = log_sum_exp(q, n), log_p = log_sum_exp(p, n), kl = 0;
	s->nats -= (double)q[id] - log_q;
	for (uint32_t i = 0; i < n && s != first; i++) {
		double lp = (double)p[i] - log_p;
		kl += exp(lp) * (lp - ((double)q[i] - log_q));
	}
	s->kl += kl;
	s->same += likeliest(q, n) == likeliest(p, n);
}

/* Its first 16 MB at most, which are more than a million tokens. */
static char *read_all(const char *path, size_t *ret_n)
{
	FILE *file = path ? fopen(path, "rb") : NULL;
	size_t n = 0, room = 1 << 24;
	char *text = file ? malloc(room) : NULL;
	if (text)
		n = fread(text, 1, room, file);
	if (file)
		fclose(file);
	*ret_n = n;
	return text;
}

/* Tokens [from, to) through every model; those from `scored` on predict the next. */
static int run_part(struct subject *subjects, uint32_t n_subjects, const int32_t *ids, size_t from,
		    size_t to, size_t scored)
{
	for (size_t at = from; at < to; at += CHUNK) {
		uint32_t k = to - at < CHUNK ? (uint32_t)(to - at) : CHUNK;
		for (uint32_t i = 0; i < n_subjects; i++) {
			int r = subject_run(&subjects[i], ids + at, k);
			if (r < 0)
				return r;
		}
		for (uint32_t i = 0; i < n_subjects; i++)
			for (uint32_t row = 0; row < k; row++)
				if (at + row >= scored)
					compare(&subjects[i], &subjects[0], row, ids[at + row + 1]);
		fprintf(stderr, "\r%zu tokens", at + k + 1);
	}
	return 0;
}

/* *ret_n: how many tokens were scored. */
static int run(struct subject *subjects, uint32_t n_subjects, const int32_t *ids, size_t n,
	       size_t piece, size_t *ret_n)
{
	int r = 0;
	*ret_n = piece ? n / piece * (piece - 1 - piece / 2) : n - 1;
	if (!piece)
		r = run_part(subjects, n_subjects, ids, 0, n - 1, 0);
	for (size_t at = 0; piece && r == 0 && at + piece <= n; at += piece) {
		for (uint32_t i = 0; r == 0 && i < n_subjects; i++)
			r = subject_begin(&subjects[i]);
		if (r == 0)
			r = run_part(subjects, n_subjects, ids, at, at + piece - 1, at + piece / 2);
	}
	fprintf(stderr, "\n");
	return r;
}

static void print(const struct subject *subjects, uint32_t n_subjects, double n)
{
	printf("| model | perplexity | against the first | KL divergence | same likeliest "
	       "|\n|---|---:|---:|---:|---:|\n");
	for (uint32_t i = 0; i < n_subjects; i++) {
		const struct subject *s = &subjects[i];
		const char *slash = strrchr(s->name, '/');
		printf("| %s | %.4f | %+.3f %% | %.6f | %.2f %% |\n", slash ? slash + 1 : s->name,
		       exp(s->nats / n), 100 * (exp((s->nats - subjects[0].nats) / n) - 1),
		       s->kl / n, 100 * s->same / n);
	}
}

int main(int argc, char **argv)
{
	static struct subject
		subjects[MAX_MODELS]; /* what is static, the end of the process frees */
	static struct sk_tokenizer *tokenizer;
	static struct sk_ids ids;
	static char *text;
	struct options options = {0};
	struct sk_diag diag = {""};
	int n_rest = 0;
	bool help = false;
	if (sk_options_defaults(table, &options, &diag) < 0 ||
	    sk_options_parse(table, &options, argc, argv, &n_rest, &help, &diag) < 0) {
		fprintf(stderr, "bench_quality: %s\n", diag.text);
		return 64;
	}
	if (help) {
		sk_options_help(stdout, &help_text, table);
		return 0;
	}
	if (n_rest < 1 || n_rest > MAX_MODELS || !options.file) {
		fprintf(stderr, "bench_quality: wants --file TEXT and 1 to %d models; see --help\n",
			MAX_MODELS);
		return 64;
	}
	size_t n_bytes;
	text = read_all(options.file, &n_bytes);
	if (!text) {
		fprintf(stderr, "bench_quality: %s: cannot be read\n", options.file);
		return 66;
	}
	if (options.piece == 1 || options.piece > options.sink + options.window) {
		fprintf(stderr, "bench_quality: --piece is 2 to sink + window, or 0\n");
		return 64;
	}
	uint32_t n_subjects = (uint32_t)n_rest;
	for (uint32_t i = 0; i < n_subjects; i++)
		if (subject_open(&subjects[i], argv[1 + i], &options, &diag) < 0) {
			fprintf(stderr, "bench_quality: %s\n", diag.text);
			return 65;
		}
	if (sk_tokenizer_open(subjects[0].model, &tokenizer, &diag) < 0 ||
	    sk_tokenizer_encode(tokenizer, text, n_bytes, 0, &ids) < 0) {
		fprintf(stderr, "bench_quality: the text is not for this tokenizer. %s\n",
			diag.text);
		return 65;
	}
	size_t n = ids.n_ids < options.tokens ? ids.n_ids : options.tokens;
	if (n < 2 || n < options.piece) {
		fprintf(stderr, "bench_quality: the text is too short: %zu tokens\n", n);
		return 65;
	}
	for (uint32_t i = 1; i < n_subjects; i++)
		if (sk_model_config(subjects[i].model)->n_vocab !=
		    sk_model_config(subjects[0].model)->n_vocab) {
			fprintf(stderr, "bench_quality: %s has another vocabulary\n",
				subjects[i].name);
			return 65;
		}
	size_t n_scored;
	int r = run(subjects, n_subjects, ids.ids, n, options.piece, &n_scored);
	if (r < 0) {
		fprintf(stderr, "bench_quality: %s\n", strerror(-r));
		return 70;
	}
	print(subjects, n_subjects, (double)n_scored);
	return 0;
}
