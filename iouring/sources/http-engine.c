/* SPDX-License-Identifier: BSD-3-Clause */
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "iouring/sources/http-engine.h"
#include "iouring/sources/remote-options.h"
#include "iouring/util.h"

/* Connections that are kept, and handles. */
#define IDLE_CONNECTIONS_MAX 64L
#define IDLE_HANDLES_MAX     64U
#define POLL_MSEC_MAX	     60000

/* life is taken first: held while the thread is waited for at its end. */
static struct {
	pthread_mutex_t life;
	unsigned int holders; /* under life */
	pthread_mutex_t lock;
	/* Under the lock. */
	struct transfer *added;
	CURLM *multi; /* NULL: the thread does not run */
	bool ends;
	pthread_t thread;
	/* The thread's own. */
	struct transfer *waiting; /* for their time */
	struct transfer *running;
	CURL *idle[IDLE_HANDLES_MAX];
	unsigned int n_idle;
} engine = { .life = PTHREAD_MUTEX_INITIALIZER,
	     .lock = PTHREAD_MUTEX_INITIALIZER };

static const struct curl_lib *curl;

/* ---- the thread ---- */

/* What is so for all transfers. */
static void set_up(CURL *easy)
{
	const struct remote_options *o = remote_options();

	curl->easy_reset(easy);
	curl->easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	/* Nobody waits for a name that is not found: all would. */
	curl->easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	curl->easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl->easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	if (o->ca)
		curl->easy_setopt(easy, CURLOPT_CAINFO, o->ca);
	if (o->proxy)
		curl->easy_setopt(easy, CURLOPT_PROXY,
				  strcmp(o->proxy, "none") ? o->proxy : "");
}

static CURL *take_handle(void)
{
	CURL *easy = engine.n_idle ? engine.idle[--engine.n_idle]
				   : curl->easy_init();

	if (easy)
		set_up(easy);
	return easy;
}

static void give_handle(CURL *easy)
{
	if (engine.n_idle < IDLE_HANDLES_MAX)
		engine.idle[engine.n_idle++] = easy;
	else
		curl->easy_cleanup(easy);
}

static void begin(struct transfer *t)
{
	CURL *easy = remote_is_stopping() ? NULL : take_handle();

	if (!easy) {
		t->end(t, CURLE_ABORTED_BY_CALLBACK);
		return;
	}
	t->easy = easy;
	if (!t->begin(t, easy)) {
		give_handle(easy);
		return;
	}
	curl->easy_setopt(easy, CURLOPT_PRIVATE, t);
	if (curl->multi_add_handle(engine.multi, easy) != CURLM_OK) {
		t->end(t, CURLE_OUT_OF_MEMORY);
		give_handle(easy);
		return;
	}
	t->next = engine.running;
	engine.running = t;
}

static void end(struct transfer *t, CURLcode code)
{
	struct transfer **at = &engine.running;
	CURL *easy = t->easy;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	curl->multi_remove_handle(engine.multi, easy);
	t->end(t, code); /* @t may be gone, or added again */
	give_handle(easy);
}

/* What was added joins those that wait; false: the thread is to end. */
static bool take_added(void)
{
	struct transfer *t;
	bool ends;

	pthread_mutex_lock(&engine.lock);
	t = TAKE_PTR(engine.added);
	ends = engine.ends && !t;
	pthread_mutex_unlock(&engine.lock);
	while (t) {
		struct transfer *next = t->next;

		t->next = engine.waiting;
		engine.waiting = t;
		t = next;
	}
	return !ends;
}

/* Begins those whose time has come; msec until the next one's. */
static int begin_due(void)
{
	struct transfer *t = TAKE_PTR(engine.waiting);
	uint64_t now = now_nsec(), msec;
	int wait = POLL_MSEC_MAX;

	while (t) {
		struct transfer *next = t->next;

		if (t->at <= now || remote_is_stopping()) {
			begin(t);
		} else {
			msec = (t->at - now) / 1000000 + 1;
			if (msec < (uint64_t)wait)
				wait = (int)msec;
			t->next = engine.waiting;
			engine.waiting = t;
		}
		t = next;
	}
	return wait;
}

static void end_done(void)
{
	struct transfer *t;
	CURLMsg *m;
	int left;

	while ((m = curl->multi_info_read(engine.multi, &left))) {
		CURLcode code = m->data.result;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl->easy_getinfo(m->easy_handle, CURLINFO_PRIVATE,
				   (char **)&t);
		end(t, code);
	}
	while (remote_is_stopping() && engine.running)
		end(engine.running, CURLE_ABORTED_BY_CALLBACK);
}

static void *run(void *unused)
{
	int n, wait;

	while (take_added()) {
		wait = begin_due();
		curl->multi_perform(engine.multi, &n);
		end_done();
		pthread_mutex_lock(&engine.lock);
		if (engine.added || engine.ends)
			wait = 0;
		pthread_mutex_unlock(&engine.lock);
		curl->multi_poll(engine.multi, NULL, 0, wait, NULL);
	}
	assert(!engine.waiting && !engine.running);
	while (engine.n_idle)
		curl->easy_cleanup(engine.idle[--engine.n_idle]);
	return NULL;
}

/* ---- its life ---- */

static void before_fork(void)
{
	pthread_mutex_lock(&engine.life);
	pthread_mutex_lock(&engine.lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&engine.lock);
	pthread_mutex_unlock(&engine.life);
}

/*
 * The thread is the parent's. So are its connections: nothing is said on them
 * here, not even that they end. Nobody forks while anything is under way.
 */
static void after_fork_child(void)
{
	engine.multi = NULL;
	engine.n_idle = 0;
	engine.waiting = engine.running = engine.added = NULL;
	after_fork();
}

static void load(void)
{
	curl = curl_lib_load();
	pthread_atfork(before_fork, after_fork, after_fork_child);
}

/* With all signals blocked: they are for the others. */
static bool start_thread(void)
{
	sigset_t all, old;
	bool ok;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	ok = !pthread_create(&engine.thread, NULL, run, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ok;
}

/* Under the lock. */
static bool start(void)
{
	if (engine.multi)
		return true;
	engine.multi = curl->multi_init();
	if (!engine.multi)
		return false;
	curl->multi_setopt(engine.multi, CURLMOPT_MAXCONNECTS,
			   IDLE_CONNECTIONS_MAX);
	engine.ends = false;
	if (start_thread())
		return true;
	curl->multi_cleanup(TAKE_PTR(engine.multi));
	return false;
}

bool http_engine_hold(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	bool ok;

	pthread_once(&once, load);
	if (!curl)
		return false;
	pthread_mutex_lock(&engine.life);
	pthread_mutex_lock(&engine.lock);
	ok = start();
	pthread_mutex_unlock(&engine.lock);
	engine.holders += ok;
	pthread_mutex_unlock(&engine.life);
	return ok;
}

/* Under life: nobody holds it. */
static void end_thread(void)
{
	pthread_mutex_lock(&engine.lock);
	engine.ends = true;
	curl->multi_wakeup(engine.multi);
	pthread_mutex_unlock(&engine.lock);
	pthread_join(engine.thread, NULL);
	curl->multi_cleanup(engine.multi);
	pthread_mutex_lock(&engine.lock);
	engine.multi = NULL;
	pthread_mutex_unlock(&engine.lock);
}

void http_engine_release(void)
{
	pthread_mutex_lock(&engine.life);
	if (!--engine.holders && engine.multi)
		end_thread();
	pthread_mutex_unlock(&engine.life);
}

void http_engine_add(struct transfer *t)
{
	bool started;

	pthread_mutex_lock(&engine.lock);
	started = start();
	if (started) {
		t->next = engine.added;
		engine.added = t;
		curl->multi_wakeup(engine.multi);
	}
	pthread_mutex_unlock(&engine.lock);
	if (!started)
		t->end(t, CURLE_OUT_OF_MEMORY);
}

void http_engine_stop(void)
{
	remote_stop();
	pthread_mutex_lock(&engine.lock);
	if (engine.multi)
		curl->multi_wakeup(engine.multi);
	pthread_mutex_unlock(&engine.lock);
}
