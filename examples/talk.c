/* talk: a conversation with a model, in a session that stays. Each line of standard input is a turn; Ctrl-C ends an answer, the
 * end of input the conversation. Started again with the same name, it goes on where it was.
 *
 *     cc talk.c -o talk $(pkg-config --cflags --libs streamkv)
 *     ./talk diary
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <streamkv.h>
#include <string.h>
#include <sysexits.h>

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
	(void)number;
	interrupted = 1;
}

static int said(int exit_code, const char *text)
{
	fprintf(stderr, "talk: %s\n", text);
	return exit_code;
}

/* Prints the answer as it comes; 0, or -errno of a connection that is of no use any more. */
static int print_answer(struct streamkv_stream *stream, struct streamkv_error *error)
{
	struct streamkv_token token;
	int got;

	while ((got = streamkv_next(stream, -1, &token, error)) != 0) {
		if (interrupted) { /* the stream still ends by itself, with what is on its way */
			interrupted = 0;
			(void)streamkv_cancel(stream, NULL);
		}
		if (got == -EINTR)
			continue;
		if (got < 0)
			return got;
		/* Pieces of a character are never printed apart: text is whole UTF-8 sequences. */
		fwrite(token.text, 1, token.n_text_bytes, stdout);
		fflush(stdout);
	}
	putchar('\n');
	return 0;
}

/* One turn: 0, or -errno as above. */
static int take_turn(struct streamkv *kv, struct streamkv_generate *ask, const char *line,
		     struct streamkv_error *error)
{
	struct streamkv_stream *stream;

	interrupted = 0;
	ask->prompt = line;
	ask->n_prompt_bytes = strlen(line);
	int err = streamkv_generate(kv, ask, &stream, error);
	if (err < 0)
		return err;
	err = print_answer(stream, error);
	if (!err) {
		const struct streamkv_result *result = streamkv_result(stream);
		if (result->stop == STREAMKV_STOP_REFUSED || result->stop == STREAMKV_STOP_ERROR)
			said(0, result->reason);
		else
			fprintf(stderr, "[%s; text position %llu, %llu entries cached at most]\n",
				streamkv_stop_name(result->stop),
				(unsigned long long)result->position,
				(unsigned long long)result->live_max);
	}
	streamkv_stream_close(stream);
	return err;
}

int main(int argc, char **argv)
{
	struct streamkv_generate ask = STREAMKV_GENERATE_INIT;
	struct streamkv_error error;
	struct streamkv_model model;
	struct streamkv *kv;
	char *line = NULL;
	size_t n_allocated = 0;

	if (argc > 2)
		return said(EX_USAGE, "usage: talk [SESSION]");
	/* NULL: wherever this user's daemon, or the system's, listens. */
	if (streamkv_connect(NULL, -1, &kv, &error) < 0)
		return said(EX_UNAVAILABLE, error.text);
	if (streamkv_model(kv, &model, &error) < 0)
		return said(EX_PROTOCOL, error.text);
	fprintf(stderr, "[%s, %u tokens of context, %s]\n", model.name, model.context,
		streamkv_welcome(kv)->server);

	ask.session = argc == 2 ? argv[1] : "talk";
	ask.max_tokens = 200;
	ask.chat = model.chat[0] ? "auto" : NULL; /* without a template it continues the text */

	struct sigaction action = {.sa_handler = on_interrupt}; /* no SA_RESTART: waits return */
	sigaction(SIGINT, &action, NULL);

	int exit_code = 0;
	while (!exit_code && getline(&line, &n_allocated, stdin) > 0) {
		if (line[0] == '\n')
			continue;
		if (ask.chat) /* else the line's end belongs to the text that is continued */
			line[strcspn(line, "\n")] = '\0';
		if (take_turn(kv, &ask, line, &error) < 0)
			exit_code = said(EX_TEMPFAIL, error.text);
	}
	free(line);
	streamkv_close(kv);
	return exit_code;
}
