#include "client/prompts.h"

#include "client/random.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define N_WORDS 16384 /* of a text that is made up */

static const char words[][12] = {
	"about",  "after",    "again",  "along",  "answer", "back",    "because", "before",
	"began",  "bird",     "blue",   "bread",  "bring",  "brother", "came",    "city",
	"cloud",  "cold",     "come",   "corner", "could",  "dark",    "day",     "door",
	"down",   "early",    "every",  "eyes",   "face",   "far",     "father",  "field",
	"fire",   "first",    "floor",  "found",  "friend", "from",    "garden",  "gave",
	"good",   "grass",    "great",  "green",  "half",   "hand",    "hard",    "head",
	"heard",  "heart",    "here",   "high",   "hill",   "home",    "horse",   "hour",
	"house",  "into",     "just",   "kept",   "king",   "knew",    "land",    "last",
	"late",   "leave",    "left",   "letter", "light",  "little",  "long",    "looked",
	"made",   "man",      "many",   "might",  "money",  "moon",    "more",    "morning",
	"mother", "mountain", "much",   "name",   "never",  "new",     "night",   "nothing",
	"old",    "once",     "open",   "other",  "over",   "paper",   "part",    "people",
	"place",  "rain",     "river",  "road",   "room",   "round",   "said",    "sea",
	"seen",   "ship",     "side",   "silver", "sister", "small",   "snow",    "soft",
	"some",   "song",     "soon",   "stone",  "story",  "street",  "summer",  "table",
	"their",  "them",     "then",   "there",  "thing",  "thought", "three",   "through",
	"time",   "together", "told",   "took",   "town",   "tree",    "turned",  "under",
	"until",  "voice",    "walked", "wall",   "war",    "water",   "way",     "well",
	"went",   "were",     "what",   "when",   "white",  "will",    "wind",    "window",
	"winter", "with",     "woman",  "wood",   "word",   "work",    "world",   "year",
	"young"};

static int make_up(uint64_t seed, struct sk_input *ret_text)
{
	struct sk_random random = {seed};
	char *text = malloc(N_WORDS * sizeof *words), *at = text;

	if (!text)
		return sk_said(EX_OSERR, "not enough memory");
	for (int i = 0; i < N_WORDS; i++) {
		const char *word = words[sk_random_below(&random, sizeof words / sizeof *words)];
		*at++ = ' ';
		at = stpcpy(at, word);
	}
	*ret_text = (struct sk_input){.bytes = text, .n_bytes = (size_t)(at - text)};
	return 0;
}

static int fail(int err, const struct streamkv_error *error)
{
	return sk_said(sk_exit_code_of(err), "%s", error->text);
}

/* --- Where tokens begin --- */

/* Bytes of each token, by its id: asked once for each that occurs. */
static int measure(struct streamkv *kv, const int32_t *ids, size_t n_ids, size_t *ret_lengths)
{
	struct streamkv_error error;
	int32_t most = 0;
	size_t *known;

	for (size_t i = 0; i < n_ids; i++)
		most = ids[i] > most ? ids[i] : most;
	known = calloc((size_t)most + 1, sizeof *known);
	if (!known)
		return sk_said(EX_OSERR, "not enough memory");
	for (size_t i = 0; i < n_ids; i++) {
		void *piece;
		size_t *length = &known[ids[i]], n_bytes;
		if (!*length) {
			int err = streamkv_detokenize(kv, &ids[i], 1, &piece, &n_bytes, &error);
			if (err < 0) {
				free(known);
				return fail(err, &error);
			}
			free(piece);
			*length = n_bytes;
		}
		ret_lengths[i] = *length;
	}
	free(known);
	return 0;
}

static void find_seams(struct sk_prompts *p, size_t n_bytes)
{
	size_t n_seams = 0;

	for (size_t i = 1; i < p->n_tokens; i++) {
		const char *at = p->text + p->starts[i];
		p->has_seam[i] = at + 1 < p->text + n_bytes && at[0] == ' ' &&
				 isalpha((unsigned char)at[1]) && !isspace((unsigned char)at[-1]);
		n_seams += p->has_seam[i];
	}
	/* Two, so that there is something between; a text that has none is cut anywhere. */
	for (size_t i = 0; n_seams < 2 && i <= p->n_tokens; i++)
		p->has_seam[i] = true;
}

/* From the first seam to the last, so that the end fits the beginning. */
static void trim(struct sk_prompts *p)
{
	size_t first = 0, last = p->n_tokens;

	while (!p->has_seam[first])
		first++;
	while (!p->has_seam[last])
		last--;
	size_t offset = p->starts[first];
	p->n_tokens = last - first;
	memmove(p->text, p->text + offset, p->starts[last] - offset);
	for (size_t i = 0; i <= p->n_tokens; i++) {
		p->starts[i] = p->starts[first + i] - offset;
		p->has_seam[i] = p->has_seam[first + i];
	}
}

/* Takes `text`, as the tokenizer gives it back, over. */
static int lay_out(struct streamkv *kv, const int32_t *ids, size_t n_ids, char *text,
		   size_t n_bytes, struct sk_prompts *p)
{
	size_t *starts = calloc(n_ids + 1, sizeof *starts), at = 0;
	bool *has_seam = calloc(n_ids + 1, sizeof *has_seam);

	*p = (struct sk_prompts){
		.text = text, .starts = starts, .has_seam = has_seam, .n_tokens = n_ids};
	if (!starts || !has_seam)
		return sk_said(EX_OSERR, "not enough memory");
	if (!n_ids)
		return sk_said(EX_DATAERR,
			       "the text is empty: there is nothing to cut prompts from");
	int exit_code = measure(kv, ids, n_ids, starts);
	if (exit_code)
		return exit_code;
	for (size_t i = 0; i <= n_ids; i++) {
		size_t length = starts[i];
		starts[i] = at;
		at += length;
	}
	if (at != n_bytes)
		return sk_said(EX_DATAERR, "this model's tokens are other bytes alone than "
					   "together: no prompt can be cut");
	find_seams(p, n_bytes);
	trim(p);
	return 0;
}

/* Looks at one prompt with the space that it begins with, and without. */
static int find_spaces(struct streamkv *kv, struct sk_prompts *p)
{
	uint64_t n_tokens = p->n_bos + (p->n_tokens < 16 ? p->n_tokens : 16);
	struct streamkv_error error;
	size_t n_bytes, n_ids;
	const char *text;
	int32_t *ids;

	for (int i = 0; i < 2; i++) {
		p->drops_space = i;
		if (sk_prompts_cut(p, n_tokens, 0, &text, &n_bytes) < 0)
			return sk_said(EX_OSERR, "not enough memory");
		int err = streamkv_tokenize(kv, text, n_bytes, true, true, &ids, &n_ids, &error);
		if (err < 0)
			return fail(err, &error);
		free(ids);
		if (n_ids == n_tokens)
			return 0;
	}
	p->drops_space = false; /* it is something else; what the daemon counts will show it */
	return 0;
}

int sk_prompts_init(struct streamkv *kv, const struct sk_input *from, uint64_t seed,
		    struct sk_prompts *ret_prompts)
{
	struct streamkv_error error;
	struct sk_input made = {0};
	struct sk_prompts p = {0};
	int32_t *ids, *bos;
	size_t n_ids, n_bos, n_bytes;
	void *text;

	int exit_code = from ? 0 : make_up(seed, &made);
	if (exit_code)
		return exit_code;
	if (!from)
		from = &made;
	int err = streamkv_tokenize(kv, "", 0, true, true, &bos, &n_bos, &error);
	if (err >= 0) {
		free(bos);
		err = streamkv_tokenize(kv, from->bytes, from->n_bytes, true, false, &ids, &n_ids,
					&error);
	}
	free(made.bytes);
	if (err < 0)
		return fail(err, &error);
	err = streamkv_detokenize(kv, ids, n_ids, &text, &n_bytes, &error);
	exit_code = err < 0 ? fail(err, &error) : lay_out(kv, ids, n_ids, text, n_bytes, &p);
	free(ids);
	p.n_bos = n_bos;
	if (!exit_code)
		exit_code = find_spaces(kv, &p);
	if (exit_code) {
		sk_prompts_finish(&p);
		return exit_code;
	}
	*ret_prompts = p;
	return 0;
}

void sk_prompts_finish(struct sk_prompts *p)
{
	free(p->text);
	free(p->starts);
	free(p->has_seam);
	*p = (struct sk_prompts){0};
}

/* --- Cutting --- */

/* Twice the text. */
static int repeat(struct sk_prompts *p)
{
	size_t n = p->n_tokens, n_bytes = p->starts[n];
	char *text = realloc(p->text, 2 * n_bytes);
	if (text)
		p->text = text;
	size_t *starts = realloc(p->starts, (2 * n + 1) * sizeof *starts);
	if (starts)
		p->starts = starts;
	bool *has_seam = realloc(p->has_seam, (2 * n + 1) * sizeof *has_seam);
	if (has_seam)
		p->has_seam = has_seam;
	if (!text || !starts || !has_seam)
		return -ENOMEM;
	memcpy(text + n_bytes, text, n_bytes);
	for (size_t i = 0; i <= n; i++) {
		starts[n + i] = n_bytes + starts[i];
		has_seam[n + i] = has_seam[i];
	}
	p->n_tokens = 2 * n;
	return 0;
}

int sk_prompts_cut(struct sk_prompts *p, uint64_t n_tokens, uint64_t seed, const char **ret_text,
		   size_t *ret_n_bytes)
{
	struct sk_random random = {seed};
	size_t n = n_tokens > p->n_bos ? n_tokens - p->n_bos : 1;

	while (n > p->n_tokens) {
		int err = repeat(p);
		if (err < 0)
			return err;
	}
	size_t n_places = p->n_tokens - n + 1, first = sk_random_below(&random, n_places);
	size_t place = first;
	for (size_t i = 0; i < n_places; i++) {
		size_t candidate = (first + i) % n_places;
		if (p->has_seam[candidate] && p->has_seam[candidate + n]) {
			place = candidate;
			break;
		}
	}
	size_t start = p->starts[place], end = p->starts[place + n];
	start += p->drops_space && end > start + 1 && p->text[start] == ' ';
	*ret_text = p->text + start;
	*ret_n_bytes = end - start;
	return 0;
}
