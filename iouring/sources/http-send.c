/* SPDX-License-Identifier: BSD-3-Clause */
/* What a request says: where it goes, who we are, and how long it may take. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "iouring/sources/http-inside.h"
#include "iouring/sources/remote-options.h"
#include "iouring/sources/s3-sign.h"

#define SLOW_BYTES_SEC 1024L
#define STALL_SEC_MAX  10U
#define CURL_BUFFER    (256L << 10)

/* A third of the budget, so that there is time for another try. */
static long stall_sec(void)
{
	unsigned int sec = remote_options()->seconds / 3;

	return sec < 1 ? 1 : sec > STALL_SEC_MAX ? STALL_SEC_MAX : sec;
}

/* Where it lies, as far as is known. */
static bool choose_url(struct http_request *r)
{
	struct http_object *o = r->o;

	if (r->url)
		return true;
	pthread_mutex_lock(&o->lock);
	r->moved = o->moved_to && now_nsec() < o->moved_until;
	r->url = strdup(r->moved ? o->moved_to : o->text);
	pthread_mutex_unlock(&o->lock);
	return r->url;
}

/*
 * For the server that is asked now, and no other: those of the object are for its
 * own, and others' are the file's.
 */
static bool choose_credentials(struct http_request *r, const struct url *to)
{
	const char *file = remote_options()->credentials;
	struct http_object *o = r->o;
	bool ok;

	credentials_done(&r->used);
	if (!url_is_same_origin(to, &o->url))
		return !file || credentials_read(file, to, false, &r->used,
						 &r->why) >= 0;
	pthread_mutex_lock(&o->lock);
	ok = credentials_copy(&o->credentials, &r->used) >= 0;
	pthread_mutex_unlock(&o->lock);
	return ok;
}

/*
 * Other servers than that of @o may be had by way of a redirect where everybody
 * can reach them, or where the user permits it.
 */
static bool is_own_or_allowed(const struct http_object *o, const struct url *to)
{
	size_t i;

	if (!strcmp(to->host, o->url.host) &&
	    (to->port == o->url.port || (o->url.port == 80 && to->port == 443)))
		return true;
	for (i = 0; i < o->n_allowed; i++)
		if (url_is_beneath(to, &o->allowed[i]))
			return true;
	return false;
}

static bool add_header(struct http_request *r, const char *name,
		       const char *value)
{
	CLEANUP(freep) char *line = NULL;
	struct curl_slist *more;

	if (asprintf(&line, "%s: %s", name, value) < 0) {
		line = NULL;
		return false;
	}
	more = curl_lib_load()->slist_append(r->headers, line);
	if (more)
		r->headers = more;
	explicit_bzero(line, strlen(line));
	return more;
}

/* What is asked of @to, by who has keys to a store. */
static bool add_signature(struct http_request *r, const struct url *to)
{
	const char *region = r->used.region, *keys = r->used.keys;
	const char *session = s3_session(keys);
	struct s3_signature s = { 0 };
	bool ok = s3_sign_load(NULL) >= 0 &&
		  s3_sign(to, keys, region ? region : S3_REGION, time(NULL),
			  &s) >= 0 &&
		  add_header(r, "Authorization", s.authorization) &&
		  add_header(r, "x-amz-date", s.date) &&
		  add_header(r, "x-amz-content-sha256", S3_EMPTY_SHA256) &&
		  (!session || add_header(r, "x-amz-security-token", session));

	free(s.authorization);
	return ok;
}

static bool set_headers(struct http_request *r, const struct url *to,
			CURL *easy)
{
	CLEANUP(freep) char *bearer = NULL;
	bool ok = add_header(r, "Accept-Encoding", "identity");

	if (*r->o->etag && !r->probe)
		ok = ok && add_header(r, "If-Match", r->o->etag);
	if (r->used.bearer) {
		if (asprintf(&bearer, "Bearer %s", r->used.bearer) < 0)
			bearer = NULL;
		ok = ok && bearer && add_header(r, "Authorization", bearer);
		if (bearer)
			explicit_bzero(bearer, strlen(bearer));
	}
	if (r->used.keys)
		ok = ok && add_signature(r, to);
	if (r->used.token)
		ok = ok && add_header(r, "X-Auth-Token", r->used.token);
	if (r->used.login) {
		curl_lib_load()->easy_setopt(easy, CURLOPT_HTTPAUTH,
					     (long)CURLAUTH_BASIC);
		curl_lib_load()->easy_setopt(easy, CURLOPT_USERPWD,
					     r->used.login);
	}
	curl_lib_load()->easy_setopt(easy, CURLOPT_HTTPHEADER, r->headers);
	return ok;
}

static void set_up(struct http_request *r, CURL *easy)
{
	const struct curl_lib *curl = curl_lib_load();

	curl->easy_setopt(easy, CURLOPT_URL, r->url);
	curl->easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	curl->easy_setopt(easy, CURLOPT_HTTP_VERSION,
			  (long)CURL_HTTP_VERSION_1_1);
	curl->easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl->easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl->easy_setopt(easy, CURLOPT_BUFFERSIZE, CURL_BUFFER);
	curl->easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, stall_sec());
	curl->easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, stall_sec());
	curl->easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, SLOW_BYTES_SEC);
}

bool http_request_prepare(struct http_request *r, CURL *easy)
{
	CLEANUP(url_done) struct url to = { 0 };

	if (!choose_url(r) || url_parse(r->url, &to, &r->why) < 0 ||
	    !choose_credentials(r, &to) || !set_headers(r, &to, easy)) {
		error_set(&r->why, -ENOMEM, 0, "out of memory");
		return false;
	}
	r->public_only = !is_own_or_allowed(r->o, &to);
	set_up(r, easy);
	return true;
}
