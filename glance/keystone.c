/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "glance/curl-lib.h"
#include "glance/digest.h"
#include "glance/json-body.h"
#include "glance/json-in.h"
#include "glance/keystone.h"
#include "glance/record.h"
#include "glance/text-buf.h"

#define ANSWER_BYTES_MAX (1U << 20)
#define TIMEOUT_SEC	 10L
#define REMEMBER_SEC	 60
#define REMEMBER_MAX	 1024U
#define PASSWORD_MAX	 1024U
#define TOKEN_BYTES_MAX	 8192U

/* Of a token; NULL who: free. */
struct memory {
	char key[129];
	json_t *who;
	int64_t until_usec;
};

/* What our own token is for. */
enum scope {
	SCOPE_PROJECT,
	SCOPE_SYSTEM, /* what belongs to no project, or to others' */
	SCOPES,
};

struct keystone {
	char *base_url; /* without "/v3" */
	char *tokens_url;
	struct keystone_account account;
	pthread_mutex_t lock; /* the rest */
	struct memory memories[REMEMBER_MAX];
	size_t next; /* to be forgotten */
	char *own_tokens[SCOPES];
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

/* GET, or with @post a POST. The list of headers is taken over. */
static int run(const char *url, struct curl_slist *headers, const char *post,
	       struct exchange *x, struct error *err)
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
	curl->easy_setopt(c, CURLOPT_TIMEOUT, TIMEOUT_SEC);
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

static int log_in(struct keystone *k, enum scope scope, struct error *err)
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
	r = run(k->tokens_url,
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
	free(k->own_tokens[scope]);
	k->own_tokens[scope] = TAKE_PTR(x.subject);
	return 0;
}

/* ---- others' ---- */

struct question {
	const char *url;
	const char *subject; /* the token that is asked about; NULL: none */
	enum scope scope;
};

static int get_once(struct keystone *k, const struct question *q,
		    struct exchange *x, struct error *err)
{
	struct curl_slist *headers =
		add_header(NULL, "X-Auth-Token", k->own_tokens[q->scope]);

	if (q->subject)
		headers = add_header(headers, "X-Subject-Token", q->subject);
	return run(q->url, headers, NULL, x, err);
}

/* The answer's object; -ENOENT: 404. Lock is held. */
static int get(struct keystone *k, const struct question *q, json_t **ret,
	       struct error *err)
{
	CLEANUP(json_in_freep) json_t *all = NULL;
	CLEANUP(exchange_done) struct exchange x = { 0 };
	int r = k->own_tokens[q->scope] ? 0 : log_in(k, q->scope, err);

	if (r >= 0)
		r = get_once(k, q, &x, err);
	if (r >= 0 && x.status == 401) {
		/* Our own has expired. */
		exchange_done(&x);
		x = (struct exchange){ 0 };
		r = log_in(k, q->scope, err);
		if (r >= 0)
			r = get_once(k, q, &x, err);
	}
	if (r < 0)
		return r;
	if (x.status == 404)
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

/* What Keystone says of @token: the object "token". Lock is held. */
static int ask(struct keystone *k, const char *token, json_t **ret,
	       struct error *err)
{
	CLEANUP(json_in_freep) json_t *all = NULL;
	struct error why = { 0 };
	const struct question q = { .url = k->tokens_url, .subject = token };
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

int keystone_get(struct keystone *k, const char *path, json_t **ret,
		 struct error *err)
{
	struct question q = { .scope = SCOPE_SYSTEM };
	CLEANUP(freep) char *url = NULL;
	int r;

	if (asprintf(&url, "%s/v3/%s", k->base_url, path) < 0) {
		url = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	q.url = url;
	pthread_mutex_lock(&k->lock);
	r = get(k, &q, ret, err);
	pthread_mutex_unlock(&k->lock);
	return r;
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

static json_t *recall(struct keystone *k, const char *key)
{
	int64_t now = time_now_usec();
	size_t i;

	for (i = 0; i < REMEMBER_MAX; i++)
		if (k->memories[i].who && !memcmp(k->memories[i].key, key,
						  sizeof(k->memories[i].key)))
			return now < k->memories[i].until_usec
				       ? k->memories[i].who
				       : NULL;
	return NULL;
}

static void remember(struct keystone *k, const char *key, json_t *who,
		     const char *expires)
{
	int64_t until = time_now_usec() + REMEMBER_SEC * 1000000LL, end;
	struct memory *m = NULL;
	size_t i;

	for (i = 0; i < REMEMBER_MAX && !m; i++)
		if (k->memories[i].who &&
		    !memcmp(k->memories[i].key, key, sizeof(m->key)))
			m = &k->memories[i];
	if (!m)
		m = &k->memories[k->next++ % REMEMBER_MAX];
	if (expires && time_parse(expires, &end) && end < until)
		until = end;
	json_decref(m->who);
	memcpy(m->key, key, sizeof(m->key));
	m->who = json_incref(who);
	m->until_usec = until;
}

int keystone_find(struct keystone *k, const char *token, struct identity *ret,
		  struct error *err)
{
	CLEANUP(json_in_freep) json_t *answer = NULL;
	json_t *who;
	char key[129];
	int r;

	if (strlen(token) > TOKEN_BYTES_MAX)
		return error_set(err, -EACCES, 0, "that is no token");
	r = digest_text(token, key, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&k->lock);
	who = json_incref(recall(k, key));
	if (!who) {
		r = ask(k, token, &answer, err);
		if (r >= 0) {
			who = flatten(answer);
			remember(k, key, who,
				 json_member(answer, "expires_at"));
		}
	}
	pthread_mutex_unlock(&k->lock);
	if (r >= 0)
		r = identity_from_json(who, "project", "user", ret, err);
	json_decref(who);
	return r;
}

int keystone_new(const char *url, const struct keystone_account *account,
		 struct keystone **ret, struct error *err)
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
	if (k)
		k->base_url = strndup(url, len);
	if (!k || !k->base_url ||
	    asprintf(&k->tokens_url, "%s/v3/auth/tokens", k->base_url) < 0) {
		if (k)
			free(k->base_url);
		free(k);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	k->account = *account;
	pthread_mutex_init(&k->lock, NULL);
	*ret = k;
	return 0;
}

void keystone_free(struct keystone *k)
{
	size_t i;

	if (!k)
		return;
	for (i = 0; i < REMEMBER_MAX; i++)
		json_decref(k->memories[i].who);
	pthread_mutex_destroy(&k->lock);
	for (i = 0; i < SCOPES; i++)
		free(k->own_tokens[i]);
	free(k->tokens_url);
	free(k->base_url);
	free(k);
}
