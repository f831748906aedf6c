/* Progress of loading the model: a bar on a terminal, a line every tenth elsewhere, and a status
 * for systemd. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct sk_progress {
	const char *what;
	bool is_terminal;
	uint64_t begun_ns, shown_ns, told_ns;
	unsigned shown_tenths;
};

void sk_progress_begin(struct sk_progress *progress, const char *what);
/* Of type sk_engine_options.progress; `context` is the struct. */
void sk_progress_show(void *context, uint64_t n_done, uint64_t n_total);
void sk_progress_end(struct sk_progress *progress);
/* Nothing moves here, but somewhere else: for systemd alone, every few seconds. */
void sk_progress_waiting(const char *holder);
/* Of type sk_engine_options.keeping: for systemd alone. */
void sk_progress_keeping(uint32_t n_done, uint32_t n_total);
