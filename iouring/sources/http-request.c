/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A request's life: it waits for one of its object's connections, is sent, and
 * what comes is judged before it is used. What can be mended by asking once more
 * is asked once more; bytes that came are not asked for again.
 *
 * All but what others call runs in the engine's thread.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "iouring/net.h"
#include "iouring/sources/http-inside.h"
#include "iouring/sources/object-store.h"
#include "iouring/sources/remote-options.h"

#define NSEC		1000000000ULL
#define WELL_NSEC	(NSEC / 2)
#define BACKOFF_MSEC	100U
#define BACKOFF_DOUBLES 5U
#define SHORTS_MAX	4U
#define RESTARTS_MAX	3U
#define STEP_BYTES	(64U << 10) /* that count as progress */
#define REFUSED_BYTES	(64U << 10) /* of a body that nobody wants */
#define MOVED_SEC	60U /* where the server does not say */
#define MOVED_SEC_MAX	3600U
#define AFTER_SEC_MAX	86400U

static const struct curl_lib *curl;

static void load(void)
{
	curl = curl_lib_load();
}

bool http_requests_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return curl;
}

static uint64_t budget_nsec(void)
{
	return remote_options()->seconds * NSEC;
}

/* ---- its end ---- */

static void next_ones(struct http_object *o);

/* Told once, until it has answered again. */
static void tell_failure(struct http_request *r)
{
	struct http_object *o = r->o;
	bool told;

	pthread_mutex_lock(&o->lock);
	told = o->failed_nsec || remote_is_stopping();
	o->failed_nsec = now_nsec();
	pthread_mutex_unlock(&o->lock);
	if (!told)
		remote_say("%s: %" PRIu64 " bytes at %" PRIu64
			   " cannot be read: %s",
			   o->people, r->len, r->off, r->why.msg);
}

/* Not where others failed just now: that would be two lines for each. */
static void tell_success(struct http_object *o)
{
	bool well;

	pthread_mutex_lock(&o->lock);
	well = o->failed_nsec && now_nsec() - o->failed_nsec > WELL_NSEC;
	if (well)
		o->failed_nsec = 0;
	pthread_mutex_unlock(&o->lock);
	if (well)
		remote_say("%s: can be read again", o->people);
}

/* Nobody touches it any more: it may be gone when this returns. */
static void hand_back(struct http_request *r, int ret)
{
	struct http_wait *w = r->wait;

	r->ret = ret;
	if (!r->probe && ret < 0)
		tell_failure(r);
	else if (!r->probe)
		tell_success(r->o);
	free(TAKE_PTR(r->url));
	credentials_done(&r->used);
	pthread_mutex_lock(&w->lock);
	if (!--w->left)
		pthread_cond_signal(&w->ended);
	pthread_mutex_unlock(&w->lock);
}

static void complete(struct http_request *r, int ret)
{
	struct http_object *o = r->o;

	pthread_mutex_lock(&o->lock);
	o->active--;
	pthread_mutex_unlock(&o->lock);
	next_ones(o);
	hand_back(r, ret);
}

static void fail(struct http_request *r)
{
	complete(r, r->why.code ? r->why.code : -EIO);
}

/* ---- its turn ---- */

/* The first of the queue, if there is a connection for it. */
static struct http_request *pop(struct http_object *o)
{
	struct http_request *r;

	pthread_mutex_lock(&o->lock);
	r = o->active < HTTP_CONNECTIONS_MAX ? o->queue : NULL;
	if (r) {
		o->queue = r->next;
		if (!o->queue)
			o->queue_end = &o->queue;
		o->active++;
	}
	pthread_mutex_unlock(&o->lock);
	return r;
}

/* In the queue as long as nothing came at all. */
static bool has_waited_too_long(const struct http_request *r)
{
	uint64_t since =
		max_u64(r->since, atomic_load_explicit(&r->o->progress_nsec,
						       memory_order_relaxed));

	return now_nsec() > since + budget_nsec();
}

static uint64_t not_before(struct http_object *o)
{
	uint64_t at;

	pthread_mutex_lock(&o->lock);
	at = o->not_before;
	pthread_mutex_unlock(&o->lock);
	return at;
}

static void next_ones(struct http_object *o)
{
	struct http_request *r;

	while ((r = pop(o))) {
		if (!has_waited_too_long(r)) {
			r->since = now_nsec();
			r->t.at = not_before(o);
			http_engine_add(&r->t);
			continue;
		}
		pthread_mutex_lock(&o->lock);
		o->active--;
		pthread_mutex_unlock(&o->lock);
		error_set(&r->why, -EIO, 0,
			  "the server has not answered those before it");
		hand_back(r, -EIO);
	}
}

/* ---- what comes ---- */

struct http_want http_request_want(const struct http_request *r)
{
	return (struct http_want){ .off = r->first,
				   .len = r->off + r->len - r->first,
				   .bytes = r->probe ? HTTP_SIZE_NONE
						     : r->o->bytes,
				   .etag = r->o->etag,
				   .modified = r->o->modified };
}

/* A connection that was there before has not been looked at. */
bool http_request_is_forbidden(const struct http_request *r)
{
	const char *ip = NULL;
	struct net n;

	if (!r->public_only)
		return false;
	curl->easy_getinfo(r->t.easy, CURLINFO_PRIMARY_IP, &ip);
	return !ip || !net_parse_address(ip, &n) || !net_is_public(n.addr);
}

static int not_public(struct http_request *r)
{
	return error_set(&r->why, -EPERM, 0,
			 "it is redirected to an address that is not public: "
			 "%s permits it",
			 AS_GIVEN("allow=URL", "--allow URL"));
}

static void judge(struct http_request *r)
{
	struct http_want w = http_request_want(r);

	if (r->judged)
		return;
	r->judged = true;
	r->why = (struct error){ 0 };
	r->verdict = http_answer_judge(&r->a, &w, &r->why);
	if (r->verdict == HTTP_DATA && http_request_is_forbidden(r)) {
		not_public(r);
		r->verdict = HTTP_WRONG;
	}
}

static void note_progress(struct http_request *r, size_t n)
{
	uint64_t now = now_nsec();

	atomic_store_explicit(&r->o->progress_nsec, now, memory_order_relaxed);
	if ((r->done + n) / STEP_BYTES != r->done / STEP_BYTES)
		r->since = now;
}

/* To where they belong. */
static void put(struct http_request *r, const uint8_t *data, size_t len)
{
	note_progress(r, len);
	r->done += len;
	while (len && r->piece < r->n_pieces) {
		struct http_piece *p = &r->pieces[r->piece];
		size_t n = min_size(len, p->len - r->in_piece);

		if (p->buf)
			memcpy(p->buf + r->in_piece, data, n);
		data += n;
		len -= n;
		r->in_piece += n;
		if (r->in_piece == p->len) {
			r->in_piece = 0;
			r->piece++;
		}
	}
}

static size_t take_body(char *data, size_t size, size_t n, void *opaque)
{
	struct http_request *r = opaque;
	size_t len = size * n, drop;

	judge(r);
	r->got += len;
	if (r->verdict != HTTP_DATA)
		return r->got > REFUSED_BYTES ? 0 : len;
	if (r->got > r->a.last - r->a.first + 1) {
		error_set(&r->why, -EIO, 0,
			  "the server sends more than it says");
		r->verdict = HTTP_WRONG;
		return 0;
	}
	drop = (size_t)min_u64(r->skip, len);
	r->skip -= drop;
	put(r, (uint8_t *)data + drop, len - drop);
	return len;
}

static size_t take_header(char *data, size_t size, size_t n, void *opaque)
{
	struct http_request *r = opaque;

	http_answer_line(&r->a, data, size * n);
	return r->a.too_long ? 0 : size * n;
}

static curl_socket_t open_socket(void *opaque, curlsocktype purpose,
				 struct curl_sockaddr *to)
{
	struct http_request *r = opaque;
	struct net n;

	if (r->public_only &&
	    (!net_of_sockaddr(&to->addr, &n) || !net_is_public(n.addr))) {
		r->judged = true;
		r->verdict = HTTP_WRONG;
		not_public(r);
		return CURL_SOCKET_BAD;
	}
	return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

/* ---- what is sent ---- */

static void set_range(struct http_request *r, CURL *easy)
{
	uint64_t from = r->off + r->done;
	char range[48];

	/* Some caches refuse a range, and give it with what is before it. */
	r->first = r->no_ranges && from ? round_down(from - 1, 4096) : from;
	r->skip = from - r->first;
	snprintf(range, sizeof(range), "%" PRIu64 "-%" PRIu64, r->first,
		 r->off + r->len - 1);
	curl->easy_setopt(easy, CURLOPT_RANGE, range);
}

void http_request_listen(struct http_request *r, CURL *easy)
{
	curl->easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl->easy_setopt(easy, CURLOPT_OPENSOCKETDATA, r);
	curl->easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
	curl->easy_setopt(easy, CURLOPT_HEADERDATA, r);
}

static bool is_changed(struct http_object *o)
{
	bool changed;

	pthread_mutex_lock(&o->lock);
	changed = o->changed;
	pthread_mutex_unlock(&o->lock);
	return changed;
}

static bool request_begin(struct transfer *t, CURL *easy)
{
	struct http_request *r = container_of(t, struct http_request, t);

	if (is_changed(r->o)) {
		error_set(&r->why, -EIO, 0, "it has changed");
		fail(r);
		return false;
	}
	if (!http_request_prepare(r, easy)) {
		curl->slist_free_all(TAKE_PTR(r->headers));
		fail(r);
		return false;
	}
	set_range(r, easy);
	curl->easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
	curl->easy_setopt(easy, CURLOPT_WRITEDATA, r);
	http_request_listen(r, easy);
	return true;
}

/* ---- once more ---- */

static void again_at(struct http_request *r, uint64_t at)
{
	r->a = (struct http_answer){ 0 };
	r->got = 0;
	r->judged = false;
	r->t.at = at;
	http_engine_add(&r->t);
}

static void again_now(struct http_request *r)
{
	again_at(r, 0);
}

/* 50 to 150 % of what doubles each time, so that not all come at once. */
static uint64_t backoff_nsec(struct http_request *r)
{
	unsigned int n =
		r->tries < BACKOFF_DOUBLES ? r->tries : BACKOFF_DOUBLES;
	uint64_t nsec = (uint64_t)(BACKOFF_MSEC << n) * 1000000;
	uint64_t noise = (now_nsec() ^ (uintptr_t)r) * 0x9e3779b97f4a7c15ULL;

	return nsec / 2 + (noise >> 32) % nsec;
}

/* As the server asks for, or as we think; -EIO once the time is over. */
static void again_later(struct http_request *r)
{
	struct http_object *o = r->o;
	uint64_t now = now_nsec(), at;
	curl_off_t after = 0;

	curl->easy_getinfo(r->t.easy, CURLINFO_RETRY_AFTER, &after);
	pthread_mutex_lock(&o->lock);
	at = now + backoff_nsec(r);
	if (after > 0 && r->verdict == HTTP_BUSY && r->judged) {
		at = max_u64(at, now + min_u64((uint64_t)after, AFTER_SEC_MAX) *
						 NSEC);
		/* The others wait, too, but not longer than any may. */
		o->not_before = min_u64(at, now + budget_nsec() / 2);
	}
	pthread_mutex_unlock(&o->lock);
	r->tries++;
	free(TAKE_PTR(r->url));
	if (at > r->since + budget_nsec())
		fail(r);
	else
		again_at(r, at);
}

/* ---- what it was ---- */

/*
 * What a redirect led to may be good for a while only, or for so many: from its
 * beginning again. false: there was none, or it has been tried.
 */
static bool restart(struct http_request *r)
{
	struct http_object *o = r->o;

	if (!r->moved || r->restarts++ == RESTARTS_MAX)
		return false;
	pthread_mutex_lock(&o->lock);
	if (o->moved_to && !strcmp(o->moved_to, r->url))
		free(TAKE_PTR(o->moved_to));
	pthread_mutex_unlock(&o->lock);
	free(TAKE_PTR(r->url));
	r->moved = false;
	r->redirects = 0;
	return true;
}

/* Are there others in the file by now? */
static bool renew(struct http_request *r)
{
	const char *file = remote_options()->credentials;
	CLEANUP(credentials_done) struct credentials c = { 0 };
	struct http_object *o = r->o;

	if (!file || r->renewed || o->given.login ||
	    credentials_read(file, &o->given, o->named, &c, NULL) < 0 ||
	    credentials_are_same(&c, &r->used))
		return false;
	r->renewed = true;
	pthread_mutex_lock(&o->lock);
	credentials_done(&o->credentials);
	o->credentials = c;
	c = (struct credentials){ 0 };
	pthread_mutex_unlock(&o->lock);
	free(TAKE_PTR(r->url));
	return true;
}

static void take_token(struct keystone_waiter *w, const char *token,
		       const char *endpoint, const struct error *err)
{
	struct http_request *r = container_of(w, struct http_request, keystone);
	struct http_object *o = r->o;
	char *copy = token ? strdup(token) : NULL;

	if (!copy) {
		r->why = (struct error){ 0 };
		error_set(&r->why, err->code < 0 ? err->code : -ENOMEM, 0, "%s",
			  err->code < 0 ? err->msg : "out of memory");
		fail(r);
		return;
	}
	pthread_mutex_lock(&o->lock);
	free(o->credentials.token);
	o->credentials.token = copy;
	pthread_mutex_unlock(&o->lock);
	free(TAKE_PTR(r->url));
	again_now(r);
}

/* Its time may be over. False: that is not it. */
static bool renew_token(struct http_request *r)
{
	if (r->renewed_token || !r->used.keystone || !r->used.token)
		return false;
	r->renewed_token = true;
	r->keystone.done = take_token;
	r->keystone.service = object_store_service(&r->o->given);
	keystone_token_get(&r->used, r->used.token, &r->keystone);
	return true;
}

/* Where the answer that redirected may be used again, and until when. */
static void remember_move(struct http_request *r)
{
	struct http_object *o = r->o;
	unsigned int sec = r->a.max_age ? r->a.max_age : MOVED_SEC;

	pthread_mutex_lock(&o->lock);
	free(o->moved_to);
	o->moved_to = r->a.no_store ? NULL : strdup(r->url);
	o->moved_until = now_nsec() + min_u64(sec, MOVED_SEC_MAX) * NSEC;
	pthread_mutex_unlock(&o->lock);
}

static int check_move(struct http_request *r, const struct url *to)
{
	if (++r->redirects > HTTP_REDIRECTS_MAX)
		return error_set(&r->why, -ELOOP, 0, "over %u redirects",
				 HTTP_REDIRECTS_MAX);
	if (strcmp(to->scheme, "http") && strcmp(to->scheme, "https"))
		return error_set(&r->why, -EPERM, 0,
				 "not a URL that can be used: it is not of "
				 "http or https");
	if (!strcmp(r->o->url.scheme, "https") && !strcmp(to->scheme, "http"))
		return error_set(&r->why, -EPERM, 0,
				 "it is redirected from https to http");
	return 0;
}

static void move(struct http_request *r)
{
	CLEANUP(url_done) struct url to = { 0 };
	const char *next = NULL;

	curl->easy_getinfo(r->t.easy, CURLINFO_REDIRECT_URL, &next);
	if (!next) {
		error_set(&r->why, -EIO, 0, "the server answers %u to nowhere",
			  r->a.status);
		fail(r);
		return;
	}
	if (url_parse(next, &to, &r->why) < 0 || check_move(r, &to) < 0) {
		error_prefix(&r->why, "redirected");
		fail(r);
		return;
	}
	free(r->url);
	r->url = url_text(&to);
	r->moved = true;
	if (r->url)
		remember_move(r);
	again_now(r);
}

static void adopt(struct http_request *r)
{
	struct http_object *o = r->o;

	if (!r->probe)
		return;
	o->bytes = r->verdict == HTTP_EMPTY ? 0 : r->a.bytes;
	snprintf(o->etag, sizeof(o->etag), "%s", r->a.etag);
	snprintf(o->modified, sizeof(o->modified), "%s", r->a.modified);
}

/* Somebody takes all of it, where what tells its version is told. */
static void take_whole(struct http_request *r)
{
	struct http_object *o = r->o;

	if (!r->probe || !o->may_be_whole ||
	    !(*r->a.etag || *r->a.modified || o->constant)) {
		fail(r);
		return;
	}
	r->a.bytes = r->a.length;
	o->whole = true;
	adopt(r);
	complete(r, 0);
}

static void take_data(struct http_request *r)
{
	if (r->got < r->a.last - r->a.first + 1) {
		error_set(&r->why, -EIO, 0, "the answer ends early");
		again_later(r);
	} else if (r->done < r->len && ++r->shorts > SHORTS_MAX) {
		error_set(&r->why, -EIO, 0,
			  "the server answers with less than was asked for, "
			  "%u times",
			  r->shorts);
		fail(r);
	} else if (r->done < r->len) {
		again_now(r);
	} else {
		adopt(r);
		complete(r, 0);
	}
}

static void change(struct http_request *r)
{
	pthread_mutex_lock(&r->o->lock);
	r->o->changed = true;
	pthread_mutex_unlock(&r->o->lock);
	fail(r);
}

static void act(struct http_request *r)
{
	switch (r->verdict) {
	case HTTP_DATA:
		take_data(r);
		break;
	case HTTP_EMPTY:
		adopt(r);
		complete(r, 0);
		break;
	case HTTP_WHOLE:
		take_whole(r);
		break;
	case HTTP_MOVED:
		move(r);
		break;
	case HTTP_BUSY:
		again_later(r);
		break;
	case HTTP_CHANGED:
		if (restart(r))
			again_now(r);
		else
			change(r);
		break;
	case HTTP_DENIED:
		if (restart(r) || renew(r))
			again_now(r);
		else if (!renew_token(r))
			fail(r);
		break;
	case HTTP_NO_RANGE:
		r->no_ranges++ ? fail(r) : again_now(r);
		break;
	case HTTP_GONE:
	case HTTP_WRONG:
		restart(r) ? again_now(r) : fail(r);
		break;
	}
}

/* Would the same be said again, whoever is asked how often? */
static bool is_final(CURLcode code)
{
	switch (code) {
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_URL_MALFORMAT:
	case CURLE_OUT_OF_MEMORY:
	case CURLE_ABORTED_BY_CALLBACK:
		return true;
	default:
		return false;
	}
}

const char *http_request_words(CURLcode code)
{
	switch (code) {
	case CURLE_ABORTED_BY_CALLBACK:
		return "the process ends";
	case CURLE_OPERATION_TIMEDOUT:
		return "the server is silent";
	case CURLE_PARTIAL_FILE:
		return "the answer ends early";
	default:
		return curl->easy_strerror(code);
	}
}

static void request_end(struct transfer *t, CURLcode code)
{
	struct http_request *r = container_of(t, struct http_request, t);

	curl->slist_free_all(TAKE_PTR(r->headers));
	if (r->a.too_long)
		code = CURLE_OK;
	if (code == CURLE_OK)
		judge(r);
	/* A body that was not wanted was cut off by us. */
	if (code == CURLE_OK || (r->judged && r->verdict != HTTP_DATA)) {
		act(r);
		return;
	}
	r->why = (struct error){ 0 };
	error_set(&r->why, code == CURLE_OUT_OF_MEMORY ? -ENOMEM : -EIO, 0,
		  "%s", http_request_words(code));
	if (is_final(code))
		fail(r);
	else
		again_later(r);
}

/* ---- for others ---- */

void http_request_start(struct http_request *r)
{
	struct http_object *o = r->o;

	r->t.begin = request_begin;
	r->t.end = request_end;
	r->since = now_nsec();
	pthread_mutex_lock(&o->lock);
	*o->queue_end = r;
	o->queue_end = &r->next;
	pthread_mutex_unlock(&o->lock);
	next_ones(o);
}

void http_wait(struct http_wait *w)
{
	pthread_mutex_lock(&w->lock);
	while (w->left)
		pthread_cond_wait(&w->ended, &w->lock);
	pthread_mutex_unlock(&w->lock);
}
