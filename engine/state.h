/* The engine's insides, for the files of this room that share them: open.c (making one), engine.c (the
 * thread), letters.c (what comes to it), clients.c (whose requests they are), waiting.c (who begins and who waits), admission.c (from a
 * request to a generation), limits.c (what a user may have), step.c (a step). Everything here is the engine thread's once it runs, except what
 * says otherwise.
 */
#pragma once

#include "engine/engine.h"
#include "engine/forward.h"
#include "engine/generation.h"
#include "engine/mover.h"
#include "engine/pace.h"
#include "engine/queue.h"
#include "engine/scheduler.h"
#include "engine/text_worker.h"
#include "engine/user.h"

/* A connection, as the engine knows it. */
struct sk_engine_client {
	struct sk_mail connect, disconnect; /* letters about itself: telling never needs memory */
	struct sk_list node;                /* of engine->clients */
	struct sk_list known;               /* of engine->known: the loop thread's */
	uint64_t connection;
	struct sk_list waiting; /* requests at the text worker, by request.waiting */
	uint32_t n_running;     /* generations */
	uint32_t n_queued;      /* requests that wait for pages */
	bool is_gone;
	struct sk_event *closed;
};

struct sk_cancel {
	struct sk_mail mail;
	uint64_t connection;
	uint32_t request;
};

struct sk_engine {
	struct sk_engine_options options;
	struct sk_model_config config;
	const struct sk_tokenizer *tokenizer;
	uint32_t n_ids; /* that may be drawn: the model's rows that the tokenizer knows */

	struct sk_backend *backend;
	struct sk_forward forward;
	struct sk_pool pool;
	struct sk_stats stats;
	uint64_t profile_until_ns; /* till then every step is timed */

	struct sk_mailbox inbox;  /* struct sk_mail */
	struct sk_mailbox events; /* struct sk_event */
	struct sk_text_worker worker;
	pthread_t thread;
	bool has_mailboxes, is_running, is_stopped;
	atomic_bool is_stopping;
	bool is_dead;
	struct sk_event *dead;

	struct sk_list known; /* clients: the loop thread's */
	struct sk_list texts; /* TOKENIZE and DETOKENIZE at the text worker, by request.waiting: the
			       * loop thread's, so that they never wait for a step */
	struct sk_list clients;
	struct sk_list sessions;
	struct sk_mover mover;
	struct sk_list
		held;     /* SESSION requests that wait for the end of a move, by request.queued */
	uint32_t n_moves; /* that the mover has not given back yet */
	uint64_t n_loads; /* drafts of sessions, numbered */
	uint64_t n_nameless;      /* sessions without a name that went out, numbered */
	uint64_t spill_failed_ns; /* 0: the last one went well */
	int spill_error;          /* what it failed of: a name in it would be another user's */
	uint64_t next_end_ns;     /* no session has lived its time before */
	struct sk_engine_kept kept;
	struct sk_list users;
	struct sk_queue queue; /* requests that wait for pages */
	uint64_t
		preempt_ns; /* when others may have to give their pages up for one; UINT64_MAX: nobody will */
	uint32_t n_session_pages; /* of the pool, that sessions may hold together */
	struct sk_generation **generations;
	struct sk_want *wants; /* of each generation, this step */
	uint32_t n_generations, generations_allocated;
	uint32_t n_short_texts; /* that have just gone to the worker */

	struct sk_scheduler scheduler;
	struct sk_pace pace;
	struct sk_ledger *ledger; /* NULL: nothing survives this process */
	void *record;             /* (record_bytes) an entry of it, while it is made */
	uint32_t record_bytes;
	uint64_t adopted_ns;  /* when an earlier process' sessions were; 0: there were none */
	bool is_ledger_named; /* the ledger, by the store, as the one in use: as adoption found it */
	bool is_touched; /* something may have changed beside the generations since it was last written */
	struct sk_row *rows;            /* (step_tokens) */
	struct sk_view *views;          /* (step_tokens) */
	struct sk_span *spans;          /* (max_batch) */
	struct sk_score *scores;        /* (step_tokens) */
	float *score_values;            /* (step_tokens) */
	uint32_t *score_of;             /* (max_batch): a span's first score */
	uint32_t *logit_rows;           /* (max_batch) */
	struct sk_draw *draws;          /* (max_batch) from those rows */
	int64_t *logit_of;              /* (max_batch): a span's index into logit_rows, or -1 */
	struct sk_generation **running; /* (max_batch): a span's generation */
};

/* --- engine.c --- */

/* With no thread left: answers every letter on the caller's. */
void sk_engine_drain(struct sk_engine *engine);

/* --- letters.c --- */

/* Takes it over. */
void sk_engine_receive(struct sk_engine *engine, struct sk_mail *mail);
/* Of a client's requests at the text worker one, or all. */
void sk_engine_cancel_waiting(struct sk_engine_client *client, uint32_t id, bool all);

/* --- clients.c --- */

/* Or NULL. */
struct sk_engine_client *sk_engine_find_client(struct sk_engine *engine, uint64_t connection);
/* Gone, and nothing of it is left: tells that its ring will not be touched again, and forgets it. */
void sk_engine_close_if_done(struct sk_engine *engine, struct sk_engine_client *client);
void sk_engine_destroy_client(struct sk_engine_client *client);

/* --- admission.c --- */

/* Whether the model knows the request's ids: 0, or -EINVAL and a sentence. */
int sk_engine_check_ids(const struct sk_engine *engine, const struct sk_request *request,
			struct sk_diag *diag);
/* Begins the generation of a request whose prompt is such tokens: 0. -ENOSPC where it has to wait for pages, or where it
 * wants many and may not take them now (*ret_n_pages: how many its session then has), which is found out in a time that
 * does not grow with its prompt; -EAGAIN where it has to wait for those of its user's own sessions; -errno and a sentence where it is refused. Then its session is as it was. */
int sk_engine_try(struct sk_engine *engine, struct sk_request *request,
		  struct sk_engine_client *client, bool may_take, uint32_t *ret_n_pages,
		  struct sk_diag *diag);
/* Whether it is of use to wait: the session will have its n_pages once those that run now give theirs back. A stream without
 * end counts as well: whoever reads it may leave at any time, and nobody waits for it for long (queue.h). */
bool sk_engine_may_fit(struct sk_engine *engine, const struct sk_request *request,
		       uint32_t n_pages);
/* FAILED, for a request that is neither GENERATE nor EVALUATE; error: -errno. Takes it over. */
void sk_engine_fail(struct sk_engine *engine, struct sk_request *request, int error,
		    const char *reason);
/* Finishes a request that never became a generation. */
void sk_engine_refuse(struct sk_engine *engine, struct sk_request *request,
		      enum sk_stop_reason stop, int error, const char *reason);
/* The user's session of that name, or NULL. */
struct sk_session *sk_engine_find_session(struct sk_engine *engine, uid_t uid, const char *name);
/* Where a chat on that session goes on; NULL: it begins. */
enum sk_chat_place sk_engine_chat_place(const struct sk_engine *engine,
					const struct sk_session *session);
/* Where `policy` cannot be had on this model: -EINVAL and a sentence. */
int sk_engine_check_policy(const struct sk_engine *engine, const struct sk_policy *policy,
			   struct sk_diag *diag);

/* --- limits.c --- */

void sk_engine_take_limits(struct sk_engine *engine, struct sk_mail *mail);
/* Whether the user may have one more named session: 0, or -EDQUOT and a sentence. */
int sk_engine_may_begin_session(const struct sk_engine *engine, const struct sk_user *user,
				struct sk_diag *diag);
/* Whether that session of the user's may have n_pages in all, beside its other sessions: 0; -EAGAIN once its running
 * requests give theirs back; or -EDQUOT and a sentence. */
int sk_engine_may_have_pages(const struct sk_engine *engine, const struct sk_user *user,
			     const struct sk_session *session, uint32_t n_pages,
			     struct sk_diag *diag);

/* --- warm.c --- */

/* A short prompt and a token run, for nobody: what a device makes at first use is there for the first client, and one that
 * cannot compute is found out before anybody waits for it. Before the thread begins. 0; -ENODEV and a sentence. */
int sk_engine_warm(struct sk_engine *engine, struct sk_diag *diag);

/* --- prefix.c --- */

/* The session that a new one, of that request, will share the beginning of, if it is there then; or NULL. */
struct sk_session *sk_engine_begins_alike(struct sk_engine *engine,
					  const struct sk_request *request);
/* A new session takes over what another of its user has of these first tokens, in whole pages. Returns how many tokens:
 * they are cached already. */
uint32_t sk_engine_share_prefix(struct sk_engine *engine, const struct sk_ids *ids,
				struct sk_session *session);
/* Who is about to evaluate more of these first tokens than any session has yet, and how many a new session can take over
 * then; or NULL. */
struct sk_generation *sk_engine_leader(struct sk_engine *engine, const struct sk_ids *ids,
				       const struct sk_session *session, uint32_t *ret_n);
/* What it wants to run in the coming step: nothing while it waits for its leader (where it need not any more, it has taken
 * over what there is), and nothing that would drop what others wait for. */
uint64_t sk_engine_n_wanted(struct sk_engine *engine, struct sk_generation *generation);
/* This one ends, or rests: those that wait for it wait for another, or take over what there is. */
void sk_engine_lose_leader(struct sk_engine *engine, const struct sk_generation *leader);

/* --- waiting.c --- */

/* Whether a request that has not begun names the session. */
bool sk_engine_is_asked_for(const struct sk_engine *engine, const struct sk_session *session);
/* A request whose prompt is tokens: begins its generation, queues it, or finishes it as refused. Takes it
 * over. */
void sk_engine_admit(struct sk_engine *engine, struct sk_request *request,
		     struct sk_engine_client *client);
/* Pages have been given back: whose turn it is begins, as long as there are enough. Others are told their places. */
void sk_engine_serve_queue(struct sk_engine *engine);
/* Those of a connection, one or all; those of all connections; those that have waited too long. */
void sk_engine_end_queued(struct sk_engine *engine, uint64_t connection, uint32_t id, bool all,
			  enum sk_stop_reason stop);
void sk_engine_end_all_queued(struct sk_engine *engine, enum sk_stop_reason stop,
			      const char *reason);
/* Also serves the queue where pages are no longer kept for its first. To be called at every step, and at: */
void sk_engine_expire_queue(struct sk_engine *engine, uint64_t now_ns);
/* When there is something to expire, or to serve; UINT64_MAX: never. */
uint64_t sk_engine_queue_until(const struct sk_engine *engine);

/* One that gave its pages up has ended. */
void sk_engine_leave_queue(struct sk_engine *engine, struct sk_request *request);

/* --- preempt.c --- */

/* Others give theirs up for the first of its user in the queue, if their turn is over: then it is the queue's room_for. */
enum sk_giving sk_engine_preempt_for(struct sk_engine *engine, struct sk_request *request,
				     bool own_only, uint64_t now_ns);
/* Whether those who are giving theirs up will soon have: so that they are kept for whom that is. */
bool sk_engine_is_making_room(struct sk_engine *engine, uint64_t now_ns);
/* Nobody waits any more: who has not given its pages up yet goes on. */
void sk_engine_unpreempt(struct sk_engine *engine);
/* One that is to give its pages up does so, if it can by now. At every step. */
void sk_engine_yield(struct sk_engine *engine, struct sk_generation *generation);
/* When one that is to give its pages up does so, though its client has not read all. */
uint64_t sk_engine_yields_at(const struct sk_engine *engine,
			     const struct sk_generation *generation);
/* Whether the session's request is giving its pages up. */
bool sk_engine_yields(const struct sk_engine *engine, const struct sk_session *session);
/* A session went out, or could not: so has its request, if there is one, and waits for its next turn. */
void sk_engine_has_yielded(struct sk_engine *engine, struct sk_session *session);
/* Its turn: 0, -ENOSPC where it has to wait for pages, -EAGAIN where for those of its user's. */
int sk_engine_resume(struct sk_engine *engine, struct sk_request *request);

/* --- spill.c --- */

bool sk_engine_can_spill(const struct sk_engine *engine);
uint64_t sk_engine_spills_at(
	const struct sk_engine *engine); /* where it cannot: when it may again, or never */
/* Sends idle sessions to the store, so that the request's pages will be there once the moves have ended. */
void sk_engine_spill_for(struct sk_engine *engine, const struct sk_request *request);
/* The same of its own user's, where it is their limit that it would pass. */
void sk_engine_spill_own(struct sk_engine *engine, const struct sk_request *request);
/* A move of what the session holds; NULL without memory. */
struct sk_move *sk_engine_move_of(struct sk_engine *engine, enum sk_move_kind kind,
				  struct sk_session *session);
void sk_engine_begin_move(struct sk_engine *engine, struct sk_move *move);
/* A stored session, whose pages are promised, gets them: to be filled by the move, once it is begun. -ENOMEM: it has
 * none. */
int sk_engine_prepare_fetch(struct sk_engine *engine, struct sk_session *session,
			    struct sk_move **ret_move);
void sk_engine_moved(struct sk_engine *engine, struct sk_move *move);
/* The request of one without a name is over: its file goes; it does so itself once it has moved (is_left). */
void sk_engine_leave_session(struct sk_engine *engine, struct sk_session *session);
/* It is destroyed, and its file is gone. */
void sk_engine_forget_session(struct sk_engine *engine, struct sk_session *session);
/* Its time to live counts from now on. */
void sk_engine_watch_session(struct sk_engine *engine, const struct sk_session *session);
void sk_engine_end_unused(struct sk_engine *engine, uint64_t now_ns);
/* Sessions of an earlier daemon come to be; those of this one go to the store, on the calling thread. */
int sk_engine_open_store(struct sk_engine *engine);
void sk_engine_keep_all(struct sk_engine *engine);

/* The idle session that was used longest ago goes to the store, on the calling thread. False: there is none, or it cannot. */
bool sk_engine_keep_one(struct sk_engine *engine);
/* That one; NULL: none is idle. */
struct sk_session *sk_engine_least_used(struct sk_engine *engine);

/* --- survive.c --- */

/* The pool, of n_wanted pages or, where an earlier process left sessions in n_least or more, of theirs: then these are to be
 * adopted before any step. -errno and a sentence: those sessions, if there are any, are there for the next start. */
int sk_engine_open_pool(struct sk_engine *engine, const struct sk_model *model, uint32_t n_wanted,
			uint32_t n_least, struct sk_diag *diag);
int sk_engine_adopt_sessions(struct sk_engine *engine, struct sk_diag *diag); /* likewise */
/* An answer that an earlier process did not end ends now (sk_session_mend()). */
void sk_engine_mend(struct sk_engine *engine, struct sk_session *session);
/* What has changed goes into the ledger. Between steps. */
void sk_engine_commit(struct sk_engine *engine);
/* Of one named session alone, on which no request runs. */
void sk_engine_commit_idle(struct sk_engine *engine, struct sk_session *session);
/* Once its sessions are destroyed: those that were not stored stay for the next process. */
void sk_engine_close_ledger(struct sk_engine *engine);

/* --- session_requests.c --- */

/* Answers a request of kind SESSION, now or once a move has ended. Takes it over. */
void sk_engine_session_request(struct sk_engine *engine, struct sk_request *request);
void sk_engine_retry_held(struct sk_engine *engine);
/* Whether one of those makes another one of that session. */
bool sk_engine_is_held(const struct sk_engine *engine, uid_t uid, const char *name);
void sk_engine_fail_held(struct sk_engine *engine);
/* SAVE's, KEEP's and LOAD's moves. */
void sk_engine_session_moved(struct sk_engine *engine, struct sk_move *move);
/* --- listing.c --- */

/* Answers a request of kind LIST. Takes it over. */
void sk_engine_list(struct sk_engine *engine, struct sk_request *request);

/* --- step.c --- */

/* Runs one step of whoever wants to run. True: it did something. */
bool sk_engine_step(struct sk_engine *engine);
/* Lets clients see what was put into their rings, once the ledger knows of it. */
void sk_engine_publish(struct sk_engine *engine);
