/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "iouring/sources/http-engine.h"
#include "iouring/sources/keystone-token.h"
#include "iouring/sources/remote-options.h"

#define ANSWER_BYTES_MAX (256U << 10)
#define TOKEN_BYTES_MAX	 8192U
#define USERS_MAX	 64U /* that are remembered */
#define SECONDS_MAX	 30L

/* Somebody in a project, and his token. */
struct user {
	struct user *next;
	struct credentials who;
	char *token; /* NULL: none, yet */
	json_t *catalogue;

	struct transfer t; /* while asking */
	bool asking;
	struct keystone_waiter *waiters;
	char *question;
	struct curl_slist *headers;
	char answer_token[TOKEN_BYTES_MAX];
	char *answer;
	size_t answer_bytes;
};

static struct {
	pthread_mutex_t lock;
	struct user *all;
	unsigned int n;
} users = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- the catalogue ---- */

static const char *public_url(const json_t *service, const char *region)
{
	const json_t *e;
	const char *interface, *where, *url;
	size_t i;

	json_array_foreach(json_object_get(service, "endpoints"), i, e) {
		interface = json_string_value(json_object_get(e, "interface"));
		where = json_string_value(json_object_get(e, "region"));
		url = json_string_value(json_object_get(e, "url"));
		if (interface && url && !strcmp(interface, "public") &&
		    (!region || (where && !strcmp(where, region))))
			return url;
	}
	return NULL;
}

static const char *find_endpoint(const struct user *u, const char *type)
{
	const json_t *s;
	const char *name, *url;
	size_t i;

	json_array_foreach(u->catalogue, i, s) {
		name = json_string_value(json_object_get(s, "type"));
		url = name && !strcmp(name, type) ? public_url(s, u->who.region)
						  : NULL;
		if (url)
			return url;
	}
	return NULL;
}

/* ---- asking ---- */

/* "USER:PASSWORD" in the line's domain, for its project. To be freed. */
static char *make_question(const struct credentials *c)
{
	const char *colon = strchr(c->keystone, ':');
	const char *domain = c->domain ? c->domain : "Default";
	json_t *j = json_pack(
		"{s:{s:{s:[s], s:{s:{s:s%, s:{s:s}, s:s}}},"
		" s:{s:{s:s, s:{s:s}}}}}",
		"auth", "identity", "methods", "password", "password", "user",
		"name", c->keystone, (size_t)(colon - c->keystone), "domain",
		"name", domain, "password", colon + 1, "scope", "project",
		"name", c->project ? c->project : "", "domain", "name", domain);
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

	json_decref(j);
	return text;
}

static size_t take_header(char *data, size_t size, size_t n, void *opaque)
{
	static const char name[] = "X-Subject-Token:";
	struct user *u = opaque;
	size_t len = size * n, skip = sizeof(name) - 1;

	if (len < skip || strncasecmp(data, name, skip) != 0)
		return len;
	while (skip < len && data[skip] == ' ')
		skip++;
	while (len > skip && (data[len - 1] == '\r' || data[len - 1] == '\n'))
		len--;
	if (len - skip < TOKEN_BYTES_MAX) {
		memcpy(u->answer_token, data + skip, len - skip);
		u->answer_token[len - skip] = '\0';
	}
	return size * n;
}

static size_t take_body(char *data, size_t size, size_t n, void *opaque)
{
	struct user *u = opaque;
	size_t len = size * n;

	if (len > ANSWER_BYTES_MAX - u->answer_bytes)
		return 0;
	memcpy(u->answer + u->answer_bytes, data, len);
	u->answer_bytes += len;
	return len;
}

static bool ask(struct transfer *t, CURL *easy)
{
	const struct curl_lib *curl = curl_lib_load();
	struct user *u = container_of(t, struct user, t);
	CLEANUP(freep) char *url = NULL;

	u->answer_bytes = 0;
	u->answer_token[0] = '\0';
	if (asprintf(&url, "%s/auth/tokens", u->who.auth) < 0)
		url = NULL;
	u->headers = curl->slist_append(NULL, "Content-Type: application/json");
	curl->easy_setopt(easy, CURLOPT_URL, url);
	curl->easy_setopt(easy, CURLOPT_TIMEOUT, SECONDS_MAX);
	curl->easy_setopt(easy, CURLOPT_HTTPHEADER, u->headers);
	curl->easy_setopt(easy, CURLOPT_POSTFIELDS, u->question);
	curl->easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
	curl->easy_setopt(easy, CURLOPT_HEADERDATA, u);
	curl->easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
	curl->easy_setopt(easy, CURLOPT_WRITEDATA, u);
	return true;
}

static int judge(struct user *u, CURLcode code, long status, struct error *err)
{
	if (code != CURLE_OK)
		return error_set(err, -EIO, 0, "Keystone cannot be asked: %s",
				 curl_lib_load()->easy_strerror(code));
	if (status == 401 || status == 403)
		return error_set(err, -EACCES, 0,
				 "Keystone answers %ld: this user or project "
				 "is none",
				 status);
	if (status != 201 || !*u->answer_token)
		return error_set(err, -EIO, 0, "Keystone answers %ld", status);
	return 0;
}

/* Under the lock. */
static int take_answer(struct user *u, struct error *err)
{
	json_t *j = json_loadb(u->answer, u->answer_bytes, 0, NULL);
	json_t *list = json_object_get(json_object_get(j, "token"), "catalog");
	char *token = strdup(u->answer_token);

	if (!j || !token) {
		json_decref(j);
		free(token);
		return error_set(err, -EIO, 0, "Keystone answers no JSON");
	}
	json_decref(u->catalogue);
	u->catalogue = json_incref(list);
	json_decref(j);
	free(u->token);
	u->token = token;
	return 0;
}

static void tell(struct user *u, struct keystone_waiter *w,
		 const struct error *err)
{
	struct keystone_waiter *next;

	for (; w; w = next) {
		next = w->next;
		w->done(w, err->code < 0 ? NULL : u->token,
			err->code < 0 ? NULL : find_endpoint(u, w->service),
			err);
	}
}

static void answered(struct transfer *t, CURLcode code)
{
	const struct curl_lib *curl = curl_lib_load();
	struct user *u = container_of(t, struct user, t);
	struct keystone_waiter *w;
	struct error err = { 0 };
	long status = 0;

	if (t->easy)
		curl->easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	curl->slist_free_all(TAKE_PTR(u->headers));
	pthread_mutex_lock(&users.lock);
	if (judge(u, code, status, &err) >= 0)
		take_answer(u, &err);
	u->asking = false;
	w = TAKE_PTR(u->waiters);
	pthread_mutex_unlock(&users.lock);
	/* Tokens and catalogues are replaced in this thread alone. */
	tell(u, w, &err);
}

/* ---- users ---- */

static bool is_same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static struct user *user_new(const struct credentials *c)
{
	struct user *u = calloc(1, sizeof(*u));

	if (!u || users.n == USERS_MAX || credentials_copy(c, &u->who) < 0) {
		free(u);
		return NULL;
	}
	u->t.begin = ask;
	u->t.end = answered;
	u->question = make_question(c);
	u->answer = malloc(ANSWER_BYTES_MAX);
	if (!u->question || !u->answer) {
		free(u->question);
		free(u->answer);
		credentials_done(&u->who);
		free(u);
		return NULL;
	}
	u->next = users.all;
	users.all = u;
	users.n++;
	return u;
}

/* Under the lock. */
static struct user *find_user(const struct credentials *c)
{
	struct user *u;

	for (u = users.all; u; u = u->next)
		if (is_same(u->who.keystone, c->keystone) &&
		    is_same(u->who.auth, c->auth) &&
		    is_same(u->who.project, c->project) &&
		    is_same(u->who.domain, c->domain) &&
		    is_same(u->who.region, c->region))
			return u;
	return user_new(c);
}

/* Under the lock: he waits. True: it is for the caller to ask. */
static bool join(struct user *u, struct keystone_waiter *w)
{
	bool asks = !u->asking;

	w->next = u->waiters;
	u->waiters = w;
	u->asking = true;
	return asks;
}

void keystone_token_get(const struct credentials *c, const char *stale,
			struct keystone_waiter *w)
{
	CLEANUP(freep) char *token = NULL;
	CLEANUP(freep) char *endpoint = NULL;
	struct error err = { 0 };
	const char *url;
	struct user *u;
	bool asks = false, waits = false;

	pthread_mutex_lock(&users.lock);
	u = find_user(c);
	if (u && u->token && !u->asking &&
	    (!stale || strcmp(stale, u->token))) {
		url = find_endpoint(u, w->service);
		token = strdup(u->token);
		endpoint = url ? strdup(url) : NULL;
	} else if (u) {
		waits = true;
		asks = join(u, w);
	}
	pthread_mutex_unlock(&users.lock);
	if (asks)
		http_engine_add(&u->t);
	if (waits)
		return;
	if (!token)
		error_set(&err, -ENOMEM, 0, "no memory for another user");
	w->done(w, token, endpoint, &err);
}

/* ---- waited for ---- */

struct wait {
	struct keystone_waiter w;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool is_done;
	char *token, *endpoint;
	struct error err;
};

static void end_wait(struct keystone_waiter *waiter, const char *token,
		     const char *endpoint, const struct error *err)
{
	struct wait *w = container_of(waiter, struct wait, w);

	pthread_mutex_lock(&w->lock);
	w->token = token ? strdup(token) : NULL;
	w->endpoint = endpoint ? strdup(endpoint) : NULL;
	w->err = *err;
	w->is_done = true;
	pthread_cond_signal(&w->ended);
	pthread_mutex_unlock(&w->lock);
}

int keystone_token_wait(struct credentials *c, const char *service,
			struct error *err)
{
	struct wait w = { .w = { .done = end_wait, .service = service },
			  .lock = PTHREAD_MUTEX_INITIALIZER,
			  .ended = PTHREAD_COND_INITIALIZER };

	if (!c->auth)
		return error_set(err, -EINVAL, 0,
				 "credentials: a line \"keystone\" lacks "
				 "auth=URL");
	keystone_token_get(c, NULL, &w.w);
	pthread_mutex_lock(&w.lock);
	while (!w.is_done)
		pthread_cond_wait(&w.ended, &w.lock);
	pthread_mutex_unlock(&w.lock);
	free(c->token);
	c->token = w.token;
	if (c->endpoint)
		free(w.endpoint);
	else
		c->endpoint = w.endpoint;
	if (w.err.code < 0)
		return error_set(err, w.err.code, 0, "%s", w.err.msg);
	return c->token ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}
