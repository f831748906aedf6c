#include "engine/scheduler.h"

#include <stdbool.h>

uint32_t sk_schedule(struct sk_want *wants, uint32_t n_wants, uint64_t turn,
		     const struct sk_schedule_limits *limits)
{
	uint32_t n_sessions = 0, n_prompts = 0, left = limits->max_tokens;

	for (uint32_t i = 0; i < n_wants; i++) {
		wants[i].n_granted = 0;
		n_prompts += wants[i].n_tokens > 1;
	}
	/* One place is kept for a prompt where any waits, or decoding alone could fill every step. Where there is but one, they
	 * take turns. */
	bool is_single = limits->max_sessions == 1;
	bool keeps_place = n_prompts && (!is_single || turn % 2);
	uint32_t n_places = limits->max_sessions - keeps_place;
	uint64_t begin = is_single ? turn / 2 : turn;

	for (uint32_t i = 0; i < n_wants && n_sessions < n_places; i++) {
		struct sk_want *want = &wants[(begin + i) % n_wants];
		if (want->n_tokens == 1) {
			want->n_granted = 1;
			n_sessions++;
			left--;
		}
	}
	for (uint32_t i = 0; i < n_wants && n_sessions < limits->max_sessions && left; i++) {
		struct sk_want *want = &wants[(begin + i) % n_wants];
		if (want->n_tokens <= 1)
			continue;
		uint64_t n = want->n_tokens < limits->chunk_tokens ? want->n_tokens
								   : limits->chunk_tokens;
		want->n_granted = n < left ? (uint32_t)n : left;
		n_sessions++;
		left -= want->n_granted;
	}
	return limits->max_tokens - left;
}
