/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "iouring/sources/curl-lib.h"
#include "glance/digest.h"
#include "glance/http/json-body.h"
#include "glance/http/json-in.h"
#include "glance/identity.h"
#include "glance/keystone.h"
#include "glance/log.h"
#include "glance/record.h"
#include "glance/http/text-buf.h"
#include "glance/time-text.h"
#include "glance/token-memory.h"

#define ANSWER_BYTES_MAX (1U << 20)
#define CONNECT_SEC	 5L
#define TIMEOUT_SEC	 10L
/* Until it is one's turn; then TIMEOUT_SEC for each question. */
#define TURN_SEC	 10
#define REMEMBER_SEC	 60
#define DENY_SEC	 10
/* To log in is dear for Keystone: not again at once where it has failed. */
#define LOGIN_PAUSE_NSEC 1000000000U
/* Questions at the same time. */
#define ASKING_MAX	 8U
#define PASSWORD_MAX	 1024U
#define TOKEN_BYTES_MAX	 8192U
#define PEER_BYTES	 64

/* What our own token is for. */
enum scope {
	SCOPE_PROJECT,
	SCOPE_SYSTEM, /* what belongs to no project, or to others' */
	SCOPES,
};

/* Our own token. */
struct own {
	char *token; /* NULL: none yet */
	bool logging_in;
	unsigned int tries; /* that have ended */
	uint64_t failed_nsec; /* now_nsec(); 0: the last has not */
	struct error err; /* how it did */
};

/* A question about a token, and all who wait for its answer. */
struct flight {
	struct flight *next;
	char key[TOKEN_KEY_BYTES];
	bool forgive;
	char peer[PEER_BYTES];
	pthread_cond_t cond; /* asking, done */
	unsigned int users;
	bool asking, done;
	int code; /* once done */
	struct error err;
	json_t *who;
};

struct keystone {
	char *base_url; /* without "/v3" */
	char *tokens_url, *forgiving_url;
	struct keystone_account account;
	unsigned int waiters_max;
	atomic_bool stop;
	pthread_mutex_t lock; /* the rest; never held while Keystone is asked */
	pthread_cond_t own_cond; /* a login has ended */
	struct token_memory *memory;
	struct own own[SCOPES];
	struct flight *flights, **last; /* not done, in the order they came */
	unsigned int n_asking, n_waiting;
	struct log_pace pace;
};

static const struct curl_lib *curl;

/* ---- HTTP ---- */

struct exchange {
	struct text_buf body;
	char *subject; /* X-Subject-Token of the answer */
	long status;
};

static size_t take_body(char *data, size_t size, size_t n, void *opaque)
{
	struct exchange *x = opaque;

	text_add_bytes(&x->body, data, size * n);
	return x->body.failed ? 0 : size * n;
}

static size_t take_header(char *data, size_t size, size_t n, void *opaque)
{
	static const char name[] = "x-subject-token:";
	struct exchange *x = opaque;
	size_t len = size * n, at = sizeof(name) - 1;

	if (len <= at || strncasecmp(data, name, at) != 0)
		return len;
	while (at < len && data[at] == ' ')
		at++;
	while (len > at && (data[len - 1] == '\r' || data[len - 1] == '\n'))
		len--;
	free(x->subject);
	x->subject = strndup(data + at, len - at);
	return size * n;
}

static void exchange_done(struct exchange *x)
{
	text_buf_done(&x->body);
	free(x->subject);
}

static struct curl_slist *add_header(struct curl_slist *list, const char *name,
				     const char *value)
{
	CLEANUP(freep) char *line = NULL;

	if (asprintf(&line, "%s: %s", name, value) < 0) {
		line = NULL;
		return list;
	}
	return curl->slist_append(list, line);
}

/* Is called about once a second. */
static int progress(void *opaque, curl_off_t down_total, curl_off_t down,
		    curl_off_t up_total, curl_off_t up)
{
	const struct keystone *k = opaque;

	return atomic_load(&k->stop);
}

/* GET, or with @post a POST. The list of headers is taken over. */
static int run(struct keystone *k, const char *url, struct curl_slist *headers,
	       const char *post, struct exchange *x, struct error *err)
{
	CURL *c = curl->easy_init();
	CURLcode code;

	x->body.max = ANSWER_BYTES_MAX;
	if (!c) {
		curl->slist_free_all(headers);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	curl->easy_setopt(c, CURLOPT_URL, url);
	curl->easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl->easy_setopt(c, CURLOPT_CONNECTTIMEOUT, CONNECT_SEC);
	curl->easy_setopt(c, CURLOPT_TIMEOUT, TIMEOUT_SEC);
	curl->easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	curl->easy_setopt(c, CURLOPT_XFERINFOFUNCTION, progress);
	curl->easy_setopt(c, CURLOPT_XFERINFODATA, k);
	curl->easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl->easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl->easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
	curl->easy_setopt(c, CURLOPT_WRITEDATA, x);
	curl->easy_setopt(c, CURLOPT_HEADERFUNCTION, take_header);
	curl->easy_setopt(c, CURLOPT_HEADERDATA, x);
	if (post)
		curl->easy_setopt(c, CURLOPT_POSTFIELDS, post);
	code = curl->easy_perform(c);
	curl->easy_getinfo(c, CURLINFO_RESPONSE_CODE, &x->status);
	curl->easy_cleanup(c);
	curl->slist_free_all(headers);
	if (code != CURLE_OK)
		return error_set(err, -EAGAIN, 0, "Keystone at %s: %s", url,
				 curl->easy_strerror(code));
	return 0;
}

/* ---- our own token ---- */

static int read_password(const char *path, char ret[PASSWORD_MAX + 1],
			 struct error *err)
{
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, PASSWORD_MAX);

	if (n < 0)
		return error_set(err, -EINVAL, 0, "keystone-password: %s: %s",
				 path, errno_text(errno));
	while (n && (ret[n - 1] == '\n' || ret[n - 1] == '\r'))
		n--;
	ret[n] = '\0';
	return 0;
}

static char *login_text(const struct keystone *k, const char *password,
			enum scope scope)
{
	json_t *to = scope == SCOPE_SYSTEM
			     ? json_pack("{s:{s:b}}", "system", "all", 1)
			     : json_pack("{s:{s:s, s:{s:s}}}", "project",
					 "name", k->account.project, "domain",
					 "id", "default");
	json_t *j =
		json_pack("{s:{s:{s:[s], s:{s:{s:s, s:{s:s}, s:s}}}, s:o}}",
			  "auth", "identity", "methods", "password", "password",
			  "user", "name", k->account.user, "domain", "id",
			  "default", "password", password, "scope", to);
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

	json_decref(j);
	return text;
}

static int log_in(struct keystone *k, enum scope scope, char **ret,
		  struct error *err)
{
	CLEANUP(exchange_done) struct exchange x = { 0 };
	CLEANUP(freep) char *text = NULL;
	char password[PASSWORD_MAX + 1];
	int r = read_password(k->account.password, password, err);

	if (r < 0)
		return r;
	text = login_text(k, password, scope);
	explicit_bzero(password, sizeof(password));
	if (!text)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = run(k, k->tokens_url,
		add_header(NULL, "Content-Type", "application/json"), text, &x,
		err);
	explicit_bzero(text, strlen(text));
	if (r < 0)
		return r;
	if (x.status != 201 || !x.subject)
		return error_set(err, -EAGAIN, 0,
				 "Keystone at %s does not let user %s in%s: "
				 "status %ld",
				 k->tokens_url, k->account.user,
				 scope == SCOPE_SYSTEM ? " to all the system"
						       : "",
				 x.status);
	*ret = TAKE_PTR(x.subject);
	return 0;
}

/* A copy of our own token, unless that is @stale. Lock is held. */
static char *copy_own(const struct own *o, const char *stale)
{
	return o->token && (!stale || strcmp(o->token, stale) != 0)
		       ? strdup(o->token)
		       : NULL;
}

/* Somebody logs in: as he does, so do we. Lock is held. */
static void wait_for_login(struct keystone *k, const struct own *o)
{
	unsigned int tries = o->tries;

	while (o->tries == tries && !atomic_load(&k->stop))
		pthread_cond_wait(&k->own_cond, &k->lock);
}

/* Lock is held, but not while Keystone is asked. */
static void log_in_unlocked(struct keystone *k, enum scope scope)
{
	struct own *o = &k->own[scope];
	struct error err = { 0 };
	char *token = NULL;
	int r;

	o->logging_in = true;
	pthread_mutex_unlock(&k->lock);
	r = log_in(k, scope, &token, &err);
	pthread_mutex_lock(&k->lock);
	o->logging_in = false;
	o->tries++;
	o->failed_nsec = r < 0 ? now_nsec() : 0;
	o->err = err;
	if (r >= 0) {
		free(o->token);
		o->token = token;
	}
	pthread_cond_broadcast(&k->own_cond);
}

/* @stale: the one that Keystone does not take any more; NULL: none. */
static int get_own(struct keystone *k, enum scope scope, const char *stale,
		   char **ret, struct error *err)
{
	struct own *o = &k->own[scope];
	char *token;

	pthread_mutex_lock(&k->lock);
	token = copy_own(o, stale);
	if (!token && o->logging_in)
		wait_for_login(k, o);
	else if (!token && (!o->failed_nsec ||
			    now_nsec() - o->failed_nsec >= LOGIN_PAUSE_NSEC))
		log_in_unlocked(k, scope);
	if (!token)
		token = copy_own(o, stale);
	if (!token)
		error_set(err, -EAGAIN, 0, "%s",
			  *o->err.msg ? o->err.msg : "no login to Keystone");
	pthread_mutex_unlock(&k->lock);
	*ret = token;
	return token ? 0 : -EAGAIN;
}

/* ---- others' ---- */

struct question {
	const char *url;
	const char *subject; /* the token that is asked about; NULL: none */
	enum scope scope;
};

static int get_once(struct keystone *k, const struct question *q,
		    const char *own, struct exchange *x, struct error *err)
{
	struct curl_slist *headers = add_header(NULL, "X-Auth-Token", own);

	if (q->subject)
		headers = add_header(headers, "X-Subject-Token", q->subject);
	return run(k, q->url, headers, NULL, x, err);
}

/* A 404 of whatever stands before Keystone says nothing of a token. */
static bool is_not_found(const struct exchange *x)
{
	CLEANUP(json_in_freep) json_t *all = NULL;
	const json_t *code;

	if (x->status != 404 || !x->body.text ||
	    json_in_parse(x->body.text, x->body.len, &all, NULL) < 0)
		return false;
	code = json_object_get(json_object_get(all, "error"), "code");
	return json_integer_value(code) == 404;
}

/* The answer's object; -ENOENT: there is none, says Keystone. */
static int get(struct keystone *k, const struct question *q, json_t **ret,
	       struct error *err)
{
	CLEANUP(json_in_freep) json_t *all = NULL;
	CLEANUP(exchange_done) struct exchange x = { 0 };
	CLEANUP(freep) char *own = NULL;
	CLEANUP(freep) char *next = NULL;
	int r = get_own(k, q->scope, NULL, &own, err);

	if (r >= 0)
		r = get_once(k, q, own, &x, err);
	if (r >= 0 && x.status == 401) {
		/* Our own has expired. */
		exchange_done(&x);
		x = (struct exchange){ 0 };
		r = get_own(k, q->scope, own, &next, err);
		if (r >= 0)
			r = get_once(k, q, next, &x, err);
	}
	if (r < 0)
		return r;
	if (is_not_found(&x))
		return error_set(err, -ENOENT, 0, "Keystone has no %s", q->url);
	if (x.status != 200 || !x.body.text)
		return error_set(err, -EAGAIN, 0,
				 "Keystone at %s answers with status %ld",
				 q->url, x.status);
	r = json_in_parse(x.body.text, x.body.len, &all, err);
	if (r < 0 || !json_is_object(all)) {
		error_clear(err);
		return error_set(err, -EAGAIN, 0,
				 "Keystone at %s does not answer in JSON",
				 q->url);
	}
	*ret = TAKE_PTR(all);
	return 0;
}

/* What Keystone says of a token: the object "token". */
static int ask(struct keystone *k, const struct keystone_wish *w, json_t **ret,
	       struct error *err)
{
	CLEANUP(json_in_freep) json_t *all = NULL;
	struct error why = { 0 };
	const struct question q = { .url = w->forgive ? k->forgiving_url
						      : k->tokens_url,
				    .subject = w->token };
	int r = get(k, &q, &all, &why);

	if (r == -ENOENT)
		return error_set(err, -EACCES, 0,
				 "Keystone knows no such token");
	if (r < 0)
		return error_set(err, r, 0, "%s", why.msg);
	if (!json_is_object(json_object_get(all, "token")))
		return error_set(err, -EAGAIN, 0,
				 "Keystone at %s tells nothing of a token",
				 k->tokens_url);
	*ret = json_incref(json_object_get(all, "token"));
	return 0;
}

int keystone_token(struct keystone *k, const char *token, json_t **ret,
		   struct error *err)
{
	const struct keystone_wish w = { .token = token };

	return ask(k, &w, ret, err);
}

int keystone_get(struct keystone *k, const char *path, json_t **ret,
		 struct error *err)
{
	struct question q = { .scope = SCOPE_SYSTEM };
	CLEANUP(freep) char *url = NULL;

	if (asprintf(&url, "%s/v3/%s", k->base_url, path) < 0) {
		url = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	q.url = url;
	return get(k, &q, ret, err);
}

/* In the words of identity_from_json(). */
static json_t *flatten(const json_t *token)
{
	const json_t *project = json_object_get(token, "project");
	const json_t *user = json_object_get(token, "user");
	json_t *roles = json_array(), *role, *who;
	size_t i;

	json_array_foreach(json_object_get(token, "roles"), i, role) {
		json_array_append(roles, json_object_get(role, "name"));
	}
	who = json_pack("{s:o}", "roles", roles);
	if (json_object_get(project, "id"))
		json_object_set(who, "project", json_object_get(project, "id"));
	if (json_object_get(user, "id"))
		json_object_set(who, "user", json_object_get(user, "id"));
	return who;
}

/* When a memory of @sec ends, by a clock that nobody sets. */
static int64_t after_sec(int64_t sec)
{
	return (int64_t)(now_nsec() / 1000) + sec * 1000000;
}

/* What is remembered of what Keystone says of @f's token. Lock is held. */
static int keep_answer(struct keystone *k, const struct flight *f, json_t *who,
		       const char *expires, struct error *err)
{
	int64_t end, left = REMEMBER_SEC * 1000000LL;
	bool forgiven = false;

	if (expires && time_parse(expires, &end)) {
		end -= time_now_usec();
		forgiven = end <= 0;
		if (!forgiven && end < left)
			left = end;
	}
	if (forgiven && !f->forgive) {
		token_memory_deny(k->memory, f->key, false,
				  after_sec(DENY_SEC));
		return error_set(err, -EACCES, 0, "the token has expired");
	}
	token_memory_know(k->memory, f->key, who, forgiven,
			  after_sec(0) + left);
	return 0;
}

/* ---- who waits ---- */

/*
 * The next to be asked: of who has the fewest questions under way, the first
 * that came. Lock is held.
 */
static struct flight *choose(struct keystone *k)
{
	struct flight *f, *other, *best = NULL;
	unsigned int n, least = 0;

	for (f = k->flights; f; f = f->next) {
		if (f->asking)
			continue;
		n = 0;
		for (other = k->flights; other; other = other->next)
			n += other->asking && !strcmp(other->peer, f->peer);
		if (!best || n < least) {
			best = f;
			least = n;
		}
		if (!least)
			break;
	}
	return best;
}

/* Lock is held. */
static void start_next(struct keystone *k)
{
	struct flight *f;

	while (k->n_asking < ASKING_MAX && (f = choose(k))) {
		f->asking = true;
		k->n_asking++;
		pthread_cond_broadcast(&f->cond);
	}
}

static struct flight *find_flight(struct keystone *k, const char *key,
				  bool forgive)
{
	struct flight *f;

	for (f = k->flights; f; f = f->next)
		if (f->forgive == forgive &&
		    !memcmp(f->key, key, TOKEN_KEY_BYTES))
			return f;
	return NULL;
}

/* Lock is held. NULL: no memory. */
static struct flight *add_flight(struct keystone *k, const char *key,
				 const struct keystone_wish *w)
{
	struct flight *f = calloc(1, sizeof(*f));
	pthread_condattr_t attr;

	if (!f)
		return NULL;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&f->cond, &attr);
	pthread_condattr_destroy(&attr);
	memcpy(f->key, key, TOKEN_KEY_BYTES);
	f->forgive = w->forgive;
	snprintf(f->peer, sizeof(f->peer), "%s", w->peer);
	*k->last = f;
	k->last = &f->next;
	return f;
}

/* Lock is held. */
static void remove_flight(struct keystone *k, struct flight *f)
{
	struct flight **at = &k->flights;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	if (k->last == &f->next)
		k->last = at;
}

/* Lock is held. */
static void leave_flight(struct flight *f)
{
	if (--f->users)
		return;
	pthread_cond_destroy(&f->cond);
	json_decref(f->who);
	free(f);
}

/* Lock is held. */
static int wait_for_turn(struct keystone *k, struct flight *f,
			 struct error *err)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += TURN_SEC;
	while (!f->asking && !atomic_load(&k->stop) && !r)
		r = pthread_cond_timedwait(&f->cond, &k->lock, &until);
	if (f->asking)
		return 0;
	return error_set(err, -EAGAIN, 0, "%u requests wait for Keystone at %s",
			 k->n_waiting, k->base_url);
}

/* Asks Keystone; whoever else wants to know waits for us. Lock is held. */
static void fly(struct keystone *k, struct flight *f,
		const struct keystone_wish *w)
{
	CLEANUP(json_in_freep) json_t *answer = NULL;
	json_t *who = NULL;
	int r;

	start_next(k);
	r = wait_for_turn(k, f, &f->err);
	if (r >= 0) {
		pthread_mutex_unlock(&k->lock);
		r = ask(k, w, &answer, &f->err);
		who = r < 0 ? NULL : flatten(answer);
		pthread_mutex_lock(&k->lock);
		k->n_asking--;
	}
	if (r >= 0)
		r = keep_answer(k, f, who, json_member(answer, "expires_at"),
				&f->err);
	else if (r == -EACCES)
		token_memory_deny(k->memory, f->key, f->forgive,
				  after_sec(DENY_SEC));
	f->code = r;
	f->who = who;
	f->done = true;
	remove_flight(k, f);
	start_next(k);
	pthread_cond_broadcast(&f->cond);
}

/* A line for the log, to be written where no lock is held. */
struct notice {
	bool due;
	unsigned int left_out;
	struct error what;
};

/* Why Keystone is not asked is the administrator's. Lock is held. */
static int notice(struct keystone *k, struct notice *n, const char *why,
		  struct error *err)
{
	if (!atomic_load(&k->stop) && log_pace(&k->pace)) {
		n->due = true;
		n->left_out = k->pace.left_out;
		k->pace.left_out = 0;
		error_set(&n->what, -EAGAIN, 0, "%s", why);
	}
	return error_set(err, -EAGAIN, 0,
			 "It cannot be told at present who you are.");
}

static void tell(const struct notice *n)
{
	if (n->due && n->left_out)
		log_line("%s (%u times more since the last line)", n->what.msg,
			 n->left_out);
	else if (n->due)
		log_line("%s", n->what.msg);
}

static int turn_away(struct keystone *k, struct notice *n, struct error *err)
{
	struct error why = { 0 };

	error_set(&why, -EAGAIN, 0,
		  "%u requests wait for Keystone at %s: more are turned away",
		  k->n_waiting, k->base_url);
	return notice(k, n, why.msg, err);
}

/*
 * Is there a place for one more? One address has half of them, but who waits
 * for what is asked already takes none from others. Lock is held.
 */
static bool is_full(const struct keystone *k, const char *peer, bool asked)
{
	const struct flight *f;
	unsigned int n = 0;

	for (f = k->flights; f; f = f->next)
		n += !strcmp(f->peer, peer);
	return k->n_waiting >= k->waiters_max ||
	       (!asked && n >= k->waiters_max / 2);
}

/* Lock is held. */
static int find_out(struct keystone *k, const char *key,
		    const struct keystone_wish *w, json_t **ret,
		    struct notice *n, struct error *err)
{
	struct flight *f = find_flight(k, key, w->forgive);
	bool ours = !f;
	int r;

	if (atomic_load(&k->stop) || is_full(k, w->peer, !ours))
		return turn_away(k, n, err);
	if (ours)
		f = add_flight(k, key, w);
	if (!f)
		return error_set(err, -ENOMEM, 0, "out of memory");
	f->users++;
	k->n_waiting++;
	if (ours)
		fly(k, f, w);
	while (!f->done)
		pthread_cond_wait(&f->cond, &k->lock);
	k->n_waiting--;
	r = f->code;
	if (r >= 0)
		*ret = json_incref(f->who);
	else if (r == -EAGAIN)
		notice(k, n, f->err.msg, err);
	else
		error_set(err, r, 0, "%s", f->err.msg);
	leave_flight(f);
	return r;
}

int keystone_find(struct keystone *k, const struct keystone_wish *w,
		  struct identity *ret, struct error *err)
{
	char key[TOKEN_KEY_BYTES];
	struct notice n = { 0 };
	json_t *who = NULL;
	int r;

	if (strlen(w->token) > TOKEN_BYTES_MAX)
		return error_set(err, -EACCES, 0, "that is no token");
	r = digest_text(w->token, key, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&k->lock);
	switch (token_memory_recall(k->memory, key, w->forgive, after_sec(0),
				    &who)) {
	case TOKEN_KNOWN:
		break;
	case TOKEN_DENIED:
		r = error_set(err, -EACCES, 0, "Keystone knows no such token");
		break;
	case TOKEN_UNKNOWN:
		r = find_out(k, key, w, &who, &n, err);
		break;
	}
	pthread_mutex_unlock(&k->lock);
	tell(&n);
	if (r >= 0)
		r = identity_from_json(who, "project", "user", ret, err);
	json_decref(who);
	return r;
}

int keystone_new(const char *url, const struct keystone_account *account,
		 unsigned int waiters_max, struct keystone **ret,
		 struct error *err)
{
	size_t len = strlen(url);
	struct keystone *k;

	if (strncmp(url, "http://", 7) && strncmp(url, "https://", 8))
		return error_set(err, -EINVAL, 0,
				 "auth: keystone:%s is no http or https URL",
				 url);
	if (!account->user || !account->project || !account->password)
		return error_set(
			err, -EINVAL, 0,
			"auth=keystone needs keystone-user=, "
			"keystone-project= and keystone-password=FILE");
	curl = curl_lib_load();
	if (!curl)
		return error_set(err, -ENOTSUP, 0,
				 "libcurl is needed to ask a Keystone, and not "
				 "installed");
	while (len && url[len - 1] == '/')
		len--;
	if (len > 3 && !strncmp(url + len - 3, "/v3", 3))
		len -= 3;
	k = calloc(1, sizeof(*k));
	if (!k)
		return error_set(err, -ENOMEM, 0, "out of memory");
	k->account = *account;
	k->waiters_max = waiters_max;
	k->last = &k->flights;
	pthread_mutex_init(&k->lock, NULL);
	pthread_cond_init(&k->own_cond, NULL);
	k->memory = token_memory_new();
	k->base_url = strndup(url, len);
	if (!k->memory || !k->base_url ||
	    asprintf(&k->tokens_url, "%s/v3/auth/tokens", k->base_url) < 0 ||
	    asprintf(&k->forgiving_url, "%s?allow_expired=1", k->tokens_url) <
		    0) {
		keystone_free(k);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	*ret = k;
	return 0;
}

void keystone_stop(struct keystone *k)
{
	struct flight *f;

	if (!k)
		return;
	atomic_store(&k->stop, true);
	pthread_mutex_lock(&k->lock);
	for (f = k->flights; f; f = f->next)
		pthread_cond_broadcast(&f->cond);
	pthread_cond_broadcast(&k->own_cond);
	pthread_mutex_unlock(&k->lock);
}

void keystone_free(struct keystone *k)
{
	size_t i;

	if (!k)
		return;
	token_memory_free(k->memory);
	pthread_cond_destroy(&k->own_cond);
	pthread_mutex_destroy(&k->lock);
	for (i = 0; i < SCOPES; i++)
		free(k->own[i].token);
	free(k->forgiving_url);
	free(k->tokens_url);
	free(k->base_url);
	free(k);
}
