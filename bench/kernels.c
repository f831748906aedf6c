/* bench_kernels: see the help below. */
#include "cpu/kernels.h"
#include "base/options.h"
#include "bench/bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_ROUNDS 10 /* a second or so */

struct options {
	bool read, exact, all;
	const char *instructions;
	uint64_t threads;
};

#define AT(member) offsetof(struct options, member)

static const struct sk_option table[] = {
	{"read", 'r', SK_OPTION_FLAG, AT(read), NULL, NULL,
	 .help = "Only tell how fast all cores together read memory, on average over a second."},
	{"instructions", 'i', SK_OPTION_STRING, AT(instructions), "NAME", NULL,
	 .help = "An instruction set (scalar, avx2, avx512, ...) instead of the best there is."},
	{"all", 'a', SK_OPTION_FLAG, AT(all), NULL, NULL,
	 .help = "Every instruction set that this machine has, one after the other."},
	{"exact", 'x', SK_OPTION_FLAG, AT(exact), NULL, NULL,
	 .help = "With exact activations (streamkvd --activations exact)."},
	{"threads", 't', SK_OPTION_UINT, AT(threads), "N", "0", .max = 1024,
	 .help = "Threads; 0 is one for each core that the process may use."},
	{0},
};

static const struct sk_command_help help_text = {
	.name = "bench_kernels",
	.synopsis = "",
	.summary = "time every operation of the CPU backend beside its floor",
	.text = "Products with a (10240, 2560) matrix are measured in turns with reading memory "
		"(the best of several readers): with one row, from more memory than a cache holds, "
		"as a ratio to reading; with 8, 16, 32 and 256 rows. The other operations have the "
		"shapes of Pythia-2.8b with 1024 tokens in the cache. Of five rounds the best "
		"counts, of ratios to reading the median.",
};

static int bench_one(struct bench *bench)
{
	int r = bench_matrices(bench);
	return r < 0 ? r : bench_operations(bench);
}

static int run(const struct options *options, struct reading *reading, float *data)
{
	struct bench bench = {.reading = reading,
			      .options = {.n_threads = (uint32_t)options->threads,
					  .instructions = options->instructions,
					  .exact = options->exact},
			      .data = data};
	uint32_t state = 1;
	for (size_t i = 0; i < (size_t)BENCH_WIDTH * BENCH_INNER; i++) {
		state = state * 1664525u + 1013904223u;
		data[i] = (float)(int32_t)state * 0x1p-36f;
	}
	if (!options->all)
		return bench_one(&bench);
	for (size_t i = 0; sk_cpu_kernels_name(i); i++) {
		bench.options.instructions = sk_cpu_kernels_name(i);
		int r = bench_one(&bench);
		if (r == -ENODEV)
			printf("\nthis machine has no %s\n", sk_cpu_kernels_name(i));
		else if (r < 0)
			return r;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct options options = {0};
	struct reading reading = {0};
	struct sk_diag diag;
	int n_rest;
	bool help = false;
	if (sk_options_defaults(table, &options, &diag) < 0 ||
	    sk_options_parse(table, &options, argc, argv, &n_rest, &help, &diag) < 0) {
		fprintf(stderr, "bench_kernels: %s\n", diag.text);
		return 64;
	}
	if (help) {
		sk_options_help(stdout, &help_text, table);
		return 0;
	}
	float *data = malloc((size_t)BENCH_WIDTH * BENCH_INNER * sizeof *data);
	int r = data ? reading_init(&reading, (uint32_t)options.threads) : -ENOMEM;
	if (r == 0 && options.read) {
		double seconds = 0;
		for (int i = 0; i < READ_ROUNDS; i++)
			seconds += 1 / reading_gb_per_s(&reading);
		printf("%.2f GB/s\n", READ_ROUNDS / seconds);
	} else if (r == 0) {
		r = run(&options, &reading, data);
	}
	reading_finish(&reading);
	free(data);
	if (r < 0)
		fprintf(stderr, "bench_kernels: %s\n", strerror(-r));
	return r < 0 ? 71 : 0;
}
