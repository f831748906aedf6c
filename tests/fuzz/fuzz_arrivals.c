/* Bytes as a trace of requests, whatever they are. */
#include "driver.h"

#include "client/arrivals.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
	struct sk_arrivals arrivals;
	struct sk_diag diag = {""};
	double last_s = 0;

	char *exact = malloc(n_bytes + !n_bytes); /* so that a sanitizer sees one byte too many */
	if (n_bytes)
		memcpy(exact, bytes, n_bytes);
	int err = sk_arrivals_parse("input", exact, n_bytes, &arrivals, &diag);
	free(exact);
	if (err < 0) {
		if (!*diag.text)
			abort(); /* every refusal has its sentence */
		return 0;
	}
	for (size_t i = 0; i < arrivals.n_items; i++) {
		const struct sk_arrival *item = &arrivals.items[i];
		if (!isfinite(item->at_s) || item->at_s < last_s || !item->prompt_tokens ||
		    !item->output_tokens)
			abort();
		last_s = item->at_s;
	}
	sk_arrivals_finish(&arrivals);
	return 0;
}

size_t sk_fuzz_seed(unsigned index, uint8_t *out, size_t room)
{
	static const char *const seeds[] = {
		"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
		"2023-11-16 18:15:50.9951690,396,109\n",
		"a,GeneratedTokens,TIMESTAMP,ContextTokens\r\nx,5,2024-02-29T12:00:01+02:00,7\r\n",
		"TIMESTAMP,ContextTokens,GeneratedTokens\n5,1,2\n1.5,3,4\n",
	};
	if (index >= sizeof seeds / sizeof seeds[0] || strlen(seeds[index]) > room)
		return 0;
	memcpy(out, seeds[index], strlen(seeds[index]));
	return strlen(seeds[index]);
}
