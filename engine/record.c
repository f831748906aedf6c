#include "engine/record.h"

#include "base/cleanup.h"
#include "shm/ring.h"

#include <stdlib.h>
#include <string.h>

uint32_t sk_record_most_bytes(uint32_t n_pages)
{
	return (uint32_t)(sizeof(struct sk_record) + SK_MARKS_MOST * sizeof(struct sk_mark) +
			  SK_RECORD_MOST_IDS * sizeof(int32_t)) +
	       2 * n_pages * (uint32_t)sizeof(uint32_t);
}

static uint64_t n_bytes_of(const struct sk_record *record)
{
	return sizeof *record + record->n_ahead * sizeof(struct sk_mark) +
	       ((uint64_t)record->n_sinks + record->n_window + record->sampler.n_recent +
		record->answer.n_recent) *
		       sizeof(uint32_t);
}

static struct sk_mark *marks_of(const struct sk_record *record)
{
	return (struct sk_mark *)(record + 1);
}

static uint32_t *sinks_of(const struct sk_record *record)
{
	return (uint32_t *)(marks_of(record) + record->n_ahead);
}

static uint32_t *window_of(const struct sk_record *record)
{
	return sinks_of(record) + record->n_sinks;
}

static int32_t *recent_of(const struct sk_record *record)
{
	return (int32_t *)(window_of(record) + record->n_window);
}

static struct sk_record_sampler sampler_of(const struct sk_sampler_memory *memory)
{
	struct sk_record_sampler sampler = {.seed = memory->seed,
					    .has_random = memory->has_random,
					    .n_recent = memory->n_recent};
	memcpy(sampler.random, memory->random, sizeof sampler.random);
	return sampler;
}

static int remember(struct sk_sampler_memory *memory, const struct sk_record_sampler *sampler,
		    const int32_t *recent)
{
	memory->has_random = sampler->has_random;
	memory->seed = sampler->seed;
	memcpy(memory->random, sampler->random, sizeof memory->random);
	return sk_sampler_memory_set(memory, recent, sampler->n_recent);
}

static void put_marks(struct sk_record *record, const struct sk_marks *marks)
{
	record->given = marks->given;
	record->n_ahead = marks->n;
	for (uint32_t i = 0; i < marks->n; i++)
		marks_of(record)[i] = marks->ahead[(marks->at + i) % SK_MARKS_MOST];
}

uint32_t sk_record_of(const struct sk_session *session, const struct sk_generation *g,
		      struct sk_record *record, uint32_t room)
{
	const struct sk_pages *pages = &session->pages;
	const struct sk_broken *broken = session->broken;
	struct sk_sampler_memory answer = {.has_random = false};
	const struct sk_marks *marks = g ? g->marks : broken ? &broken->marks : NULL;

	if (sizeof *record > room)
		return 0;
	memset(record, 0, sizeof *record);
	record->uid = session->uid;
	memcpy(record->name, session->name, sizeof record->name);
	record->window = session->window;
	record->origin = session->origin;
	record->keep_from = session->keep_from;
	record->keep_sinks = session->keep_sinks;
	record->last_id = session->last_id;
	record->has_ttl = session->has_ttl;
	record->ttl_ns = session->ttl_ns;
	record->begun_ns = session->begun_ns;
	record->last_used_ns = session->last_used_ns;
	record->n_requests = session->n_requests;
	record->n_generated = session->n_generated;
	record->sampler = sampler_of(&session->sampler);
	record->has_open_text = session->has_open_text;
	record->open_text = session->open_text;
	if (marks && g) {
		record->is_prompt_done = g->prompt_done_ns != 0;
		record->cursor = g->request->cursor;
		record->n_drawn = g->result.generated_tokens;
		sk_sampler_remember(&g->sampler, &answer);
	} else if (marks) {
		record->is_prompt_done = broken->is_prompt_done;
		record->cursor = broken->cursor;
		record->n_drawn = broken->n_drawn;
		answer = broken->sampler;
	}
	record->is_answering = marks != NULL;
	record->answer = sampler_of(&answer);
	record->n_ahead = marks ? marks->n : 0;
	record->page0 = pages->page0;
	record->n_sinks = pages->n_sinks;
	record->n_window = pages->n_window;
	const uint64_t n_bytes = n_bytes_of(record);
	if (n_bytes <= room) {
		if (marks)
			put_marks(record, marks);
		if (pages->n_sinks)
			memcpy(sinks_of(record), pages->sinks,
			       pages->n_sinks * sizeof *pages->sinks);
		if (pages->n_window)
			memcpy(window_of(record), pages->window + pages->window_at,
			       pages->n_window * sizeof *pages->window);
		int32_t *recent = recent_of(record);
		if (session->sampler.n_recent)
			memcpy(recent, session->sampler.recent,
			       session->sampler.n_recent * sizeof *recent);
		if (answer.n_recent)
			memcpy(recent + session->sampler.n_recent, answer.recent,
			       answer.n_recent * sizeof *recent);
	}
	if (g)
		sk_sampler_memory_finish(&answer);
	return n_bytes <= room ? (uint32_t)n_bytes : 0;
}

/* --- Back --- */

static bool is_window(const struct sk_window *window)
{
	return window->policy.mode <= SK_MODE_DENSE && window->policy.window &&
	       window->first <= window->next && window->n_sink <= window->first &&
	       window->next < UINT64_C(1) << 62;
}

static bool is_sampler(const struct sk_record_sampler *sampler)
{
	return sampler->n_recent <= SK_REPEAT_MOST;
}

static bool is_text(const struct sk_open_text *text)
{
	return text->n_waiting <= 3 && text->n_held <= sizeof text->held;
}

static uint64_t pages_of(uint64_t n_entries)
{
	return (n_entries + SK_PAGE_TOKENS - 1) / SK_PAGE_TOKENS;
}

/* The entries that its window has live lie in its pages. After a change of the policy, and before the first step under it,
 * sinks may still lie among the window's pages, or its oldest entries among the sinks' (sk_pages_cover()). */
static bool has_pages(const struct sk_record *record, const struct sk_pool *pool)
{
	const struct sk_window *window = &record->window;
	const uint64_t page0 = record->page0, end = page0 + record->n_window,
		       n_sinks = pages_of(window->n_sink), n_held = record->n_sinks;

	if (end != pages_of(window->next) ||
	    (n_sinks > n_held && (page0 > n_held || n_sinks > end)) ||
	    (window->first / SK_PAGE_TOKENS < page0 && page0 > n_held))
		return false;
	for (uint32_t i = 0; i < record->n_sinks + record->n_window; i++) {
		const uint32_t page = sinks_of(record)[i];
		if (page >= pool->n_pages ||
		    (pool->n_refs[page] && pool->last_owner[page] != record->uid))
			return false;
	}
	return true;
}

bool sk_record_means_something(const struct sk_record *record, uint32_t n_bytes,
			       const struct sk_pool *pool, uint32_t n_vocab)
{
	if (n_bytes < sizeof *record || record->n_ahead > SK_MARKS_MOST ||
	    !is_sampler(&record->sampler) || !is_sampler(&record->answer) ||
	    n_bytes_of(record) != n_bytes || !record->name[0] || record->name[SK_NAME_MOST_BYTES] ||
	    !is_window(&record->window) || record->last_id < -1 ||
	    record->last_id >= (int64_t)n_vocab || !is_text(&record->open_text) ||
	    !has_pages(record, pool))
		return false;
	const struct sk_mark *ahead = marks_of(record);
	if (record->is_answering && !is_window(&record->given.window))
		return false;
	for (uint32_t i = 0; i < record->n_ahead; i++) {
		if (!is_window(&ahead[i].window) || !is_text(&ahead[i].text))
			return false;
	}
	return is_text(&record->given.text);
}

static int apply_answer(const struct sk_record *record, struct sk_session *session, int cursor_fd)
{
	sk_autoclose int fd = cursor_fd;
	if (!record->is_answering)
		return 0;
	struct sk_broken *broken = calloc(1, sizeof *broken);
	if (!broken)
		return -ENOMEM;
	if (remember(&broken->sampler, &record->answer,
		     recent_of(record) + record->sampler.n_recent) < 0) {
		free(broken);
		return -ENOMEM;
	}
	broken->marks.given = record->given;
	broken->marks.n = record->n_ahead;
	if (record->n_ahead)
		memcpy(broken->marks.ahead, marks_of(record),
		       record->n_ahead * sizeof *broken->marks.ahead);
	broken->is_prompt_done = record->is_prompt_done;
	broken->cursor = record->cursor;
	broken->n_drawn = record->n_drawn;
	broken->cursor_fd = sk_steal_fd(&fd);
	session->broken = broken;
	return 0;
}

int sk_record_apply(const struct sk_record *record, struct sk_session *session, int cursor_fd)
{
	int err = apply_answer(record, session, cursor_fd);
	if (!err)
		err = remember(&session->sampler, &record->sampler, recent_of(record));
	if (!err)
		err = sk_pages_adopt(&session->pages, sinks_of(record), record->n_sinks,
				     window_of(record), record->n_window, record->page0);
	if (err < 0)
		return err;
	session->window = record->window;
	session->origin = record->origin;
	session->keep_from = record->keep_from;
	session->keep_sinks = record->keep_sinks;
	session->last_id = record->last_id;
	session->has_ttl = record->has_ttl;
	session->ttl_ns = record->ttl_ns;
	session->begun_ns = record->begun_ns;
	session->last_used_ns = record->last_used_ns;
	session->n_requests = record->n_requests;
	session->n_generated = record->n_generated;
	session->has_open_text = record->has_open_text;
	session->open_text = record->open_text;
	return 0;
}

/* --- What was broken off --- */

void sk_broken_destroy(struct sk_broken *broken)
{
	if (!broken)
		return;
	sk_cleanup_close(&broken->cursor_fd);
	sk_sampler_memory_finish(&broken->sampler);
	free(broken);
}

static void forget_drawn(struct sk_sampler_memory *memory, uint64_t n)
{
	memory->n_recent -= n < memory->n_recent ? (uint32_t)n : memory->n_recent;
}

/* As far as its client has read by now. It is the client's page: whatever it says, it says of its own session. */
static void read_on(const struct sk_broken *broken, struct sk_marks *marks)
{
	uint64_t n_read;
	*marks = broken->marks;
	if (sk_ring_cursor_read(broken->cursor_fd, &n_read) == 0)
		sk_marks_read(marks, n_read);
}

static bool goes_back(const struct sk_session *session, const struct sk_mark *given)
{
	return session->broken->is_prompt_done ||
	       sk_window_is_still_there(&given->window, &session->window);
}

struct sk_mark sk_broken_end(const struct sk_session *session)
{
	struct sk_marks marks;
	read_on(session->broken, &marks);
	return goes_back(session, &marks.given)
		       ? marks.given
		       : (struct sk_mark){.window = session->window, .last_id = session->last_id};
}

void sk_session_mend(struct sk_session *session)
{
	struct sk_broken *broken = session->broken;
	struct sk_marks marks;

	if (!broken)
		return;
	read_on(broken, &marks);
	const struct sk_mark *given = &marks.given;
	session->has_open_text = goes_back(session, given);
	if (session->has_open_text) {
		session->window = given->window;
		session->last_id = given->last_id;
		session->open_text = given->text;
	}
	session->broken = NULL;
	if (given->n_drawn) {
		forget_drawn(&broken->sampler, broken->n_drawn - given->n_drawn);
		sk_sampler_memory_finish(&session->sampler);
		session->sampler = broken->sampler;
		broken->sampler = (struct sk_sampler_memory){.has_random = false};
		memcpy(session->sampler.random, given->random, sizeof given->random);
	}
	session->keep_from = UINT64_MAX;
	session->keep_sinks = 0;
	sk_session_trim(session);
	sk_broken_destroy(broken);
}
