/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/cmd/api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "iouring/sources/curl-lib.h"
#include "nbd/cmd/stop.h"
#include "nbd/config.h"

#define TOKEN_BYTES_MAX	 8192U /* a Keystone token may be that long */
#define ANSWER_BYTES_MAX (64U << 20)
#define CONNECT_SEC	 30L
/* A server that digests 100 GiB before it answers is not dead. */
#define SLOW_SEC	 600L

/* ---- where, and by whose right ---- */

static const char *first_of(const char *given, const char *const *names)
{
	for (; !given && *names; names++) {
		given = getenv(*names);
		if (given && !*given)
			given = NULL;
	}
	return given;
}

/* "unix:PATH", or "http://HOST[:PORT][/PREFIX][/v2]" */
static int take_url(struct api *a, const char *url, struct error *err)
{
	size_t len = strlen(url);

	if (!strncmp(url, "unix:", 5)) {
		a->socket = strdup(url + 5);
		a->url = strdup("http://localhost");
		return a->socket && a->url
			       ? 0
			       : error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (strncmp(url, "http://", 7) && strncmp(url, "https://", 8))
		return error_set(err, -EINVAL, 0,
				 "the service's URL \"%.128s\" begins with "
				 "none of http://, https:// and unix:",
				 url);
	while (len && url[len - 1] == '/')
		len--;
	if (len > 3 && !strncmp(url + len - 3, "/v2", 3))
		len -= 3;
	a->url = strndup(url, len);
	return a->url ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

static int read_token(const char *path, char **ret, struct error *err)
{
	char text[TOKEN_BYTES_MAX + 1];
	FILE *fp;
	size_t n;
	int r = config_check_path(path, err);

	if (r < 0)
		return r;
	fp = fopen(path, "re");
	if (!fp)
		return error_set(err, -errno, 0, "%s: %s", path,
				 errno_text(errno));
	n = fread(text, 1, TOKEN_BYTES_MAX, fp);
	fclose(fp);
	while (n && strchr(" \t\r\n", text[n - 1]))
		n--;
	text[n] = '\0';
	*ret = strdup(text);
	explicit_bzero(text, sizeof(text));
	return *ret ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

static int take_token(struct api *a, const char *file, struct error *err)
{
	static const char *const names[] = { "OS_TOKEN", "OS_AUTH_TOKEN",
					     NULL };
	const char *token = first_of(NULL, names), *c;
	int r = 0;

	if (file)
		r = read_token(file, &a->token, err);
	else if (token)
		a->token = strdup(token);
	/* What could end the header and begin another. */
	for (c = a->token; c && *c; c++)
		if (*c < '!' || *c > '~')
			return error_set(err, -EINVAL, 0,
					 "the token has characters that no "
					 "token has");
	return r;
}

int api_open(const struct api_options *o, struct api *ret, struct error *err)
{
	static const char *const names[] = { "PLATTER_URL",
					     "OS_IMAGE_ENDPOINT_OVERRIDE",
					     "OS_IMAGE_URL", "OS_ENDPOINT",
					     NULL };
	const char *url = first_of(o->url, names);
	struct api a = { .curl = curl_lib_load() };
	int r;

	if (!url)
		return error_set(err, -EINVAL, 0,
				 "which image service? --url URL or "
				 "$PLATTER_URL is missing");
	if (!a.curl)
		return error_set(err, -ENOTSUP, 0, "libcurl is not installed");
	r = take_url(&a, url, err);
	if (r >= 0)
		r = take_token(&a, o->token_file, err);
	if (r >= 0) {
		a.handle = a.curl->easy_init();
		if (!a.handle)
			r = error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (r < 0) {
		api_done(&a);
		return r;
	}
	*ret = a;
	return 0;
}

void api_done(struct api *a)
{
	if (a->handle)
		a->curl->easy_cleanup(a->handle);
	if (a->token)
		explicit_bzero(a->token, strlen(a->token));
	free(a->token);
	free(a->socket);
	free(a->url);
	*a = (struct api){ 0 };
}

/* ---- a request ---- */

struct exchange {
	struct api *api;
	const struct api_request *q;
	struct api_answer *answer;
	struct error *err;
	bool failed; /* read or write has; @err says how */
	bool told; /* the length */
};

static long status_of(const struct exchange *x)
{
	long status = 0;

	x->api->curl->easy_getinfo(x->api->handle, CURLINFO_RESPONSE_CODE,
				   &status);
	return status;
}

static void tell_length(struct exchange *x)
{
	curl_off_t bytes = -1;

	x->api->curl->easy_getinfo(x->api->handle,
				   CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &bytes);
	if (x->q->length && !x->told && bytes >= 0)
		x->q->length(x->q->opaque, (uint64_t)bytes);
	x->told = true;
}

static size_t take(char *data, size_t size, size_t n, void *opaque)
{
	struct exchange *x = opaque;
	size_t len = size * n;

	if (!x->q->write || status_of(x) / 100 != 2) {
		text_add_bytes(&x->answer->body, data, len);
		return x->answer->body.failed ? 0 : len;
	}
	tell_length(x);
	if (x->q->write(x->q->opaque, data, len, x->err) >= 0)
		return len;
	x->failed = true;
	return 0;
}

static size_t give(char *buf, size_t size, size_t n, void *opaque)
{
	struct exchange *x = opaque;
	ssize_t got = x->q->read(x->q->opaque, buf, size * n, x->err);

	if (got >= 0)
		return (size_t)got;
	x->failed = true;
	return CURL_READFUNC_ABORT;
}

static int progress(void *opaque, curl_off_t down_total, curl_off_t down,
		    curl_off_t up_total, curl_off_t up)
{
	const struct api *a = opaque;

	return stop_signal() && !a->insists;
}

static void set_body(struct exchange *x)
{
	const struct curl_lib *curl = x->api->curl;
	const struct api_request *q = x->q;
	CURL *c = x->api->handle;

	if (q->read) {
		curl->easy_setopt(c, CURLOPT_UPLOAD, 1L);
		curl->easy_setopt(c, CURLOPT_READFUNCTION, give);
		curl->easy_setopt(c, CURLOPT_READDATA, x);
		curl->easy_setopt(c, CURLOPT_INFILESIZE_LARGE,
				  (curl_off_t)q->read_bytes);
		curl->easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, 1L << 20);
	} else if (q->body) {
		curl->easy_setopt(c, CURLOPT_POST, 1L);
		curl->easy_setopt(c, CURLOPT_POSTFIELDS, q->body);
		curl->easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE,
				  (curl_off_t)strlen(q->body));
	} else if (!strcmp(q->method, "POST")) {
		curl->easy_setopt(c, CURLOPT_POST, 1L);
		curl->easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE,
				  (curl_off_t)0);
	}
	curl->easy_setopt(c, CURLOPT_CUSTOMREQUEST, q->method);
}

static struct curl_slist *add_header(struct exchange *x,
				     struct curl_slist *list, const char *name,
				     const char *value)
{
	CLEANUP(freep) char *line = NULL;
	struct curl_slist *more;

	if (!value || asprintf(&line, "%s: %s", name, value) < 0) {
		line = NULL;
		return list;
	}
	more = x->api->curl->slist_append(list, line);
	return more ? more : list;
}

static void set_up(struct exchange *x, const char *url,
		   struct curl_slist *headers)
{
	const struct curl_lib *curl = x->api->curl;
	const char *ca = getenv("OS_CACERT");
	CURL *c = x->api->handle;

	curl->easy_setopt(c, CURLOPT_URL, url);
	curl->easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl->easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl->easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl->easy_setopt(c, CURLOPT_CONNECTTIMEOUT, CONNECT_SEC);
	curl->easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl->easy_setopt(c, CURLOPT_LOW_SPEED_TIME, SLOW_SEC);
	if (x->api->socket)
		curl->easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, x->api->socket);
	if (ca && *ca)
		curl->easy_setopt(c, CURLOPT_CAINFO, ca);
	curl->easy_setopt(c, CURLOPT_BUFFERSIZE, 512L << 10);
	curl->easy_setopt(c, CURLOPT_WRITEFUNCTION, take);
	curl->easy_setopt(c, CURLOPT_WRITEDATA, x);
	curl->easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	curl->easy_setopt(c, CURLOPT_XFERINFOFUNCTION, progress);
	curl->easy_setopt(c, CURLOPT_XFERINFODATA, x->api);
	set_body(x);
}

/*
 * What a server says in @text, as JSON {"message": ...} or as a page: the text
 * alone, in one line.
 */
static void plain(const char *text, char *ret, size_t room)
{
	json_t *j = json_loads(text, 0, NULL);
	const char *s = json_string_value(json_object_get(j, "message"));
	const char *body = strstr(text, "</h1>");
	bool tag = false, space = false;
	size_t n = 0;

	if (!s)
		s = body ? body + 5 : text;
	for (; *s && n + 2 < room; s++) {
		if (*s == '<') {
			tag = true;
		} else if (*s == '>' && tag) {
			tag = false;
			space = true;
		} else if (!tag && strchr(" \t\r\n", *s)) {
			space = true;
		} else if (!tag) {
			if (space && n)
				ret[n++] = ' ';
			space = false;
			ret[n++] = *s;
		}
	}
	ret[n] = '\0';
	json_decref(j);
}

static int refusal(const struct exchange *x, long status, struct error *err)
{
	static const struct {
		long status;
		int code;
		const char *reason;
	} known[] = {
		{ 400, -EINVAL, "Bad Request" },
		{ 401, -EACCES, "Unauthorized" },
		{ 403, -EPERM, "Forbidden" },
		{ 404, -ENOENT, "Not Found" },
		{ 409, -EEXIST, "Conflict" },
		{ 413, -EFBIG, "Too Large" },
		{ 415, -ENOTSUP, "Unsupported Media Type" },
		{ 503, -EAGAIN, "Unavailable" },
	};
	const char *text = x->answer->body.text, *reason = "";
	char said[400] = "";
	int code = -EIO;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(known); i++) {
		if (known[i].status != status)
			continue;
		code = known[i].code;
		reason = known[i].reason;
	}
	if (text)
		plain(text, said, sizeof(said));
	return error_set(err, code, 0, "%s %.*s: %ld%s%s%s%s", x->q->method,
			 (int)strcspn(x->q->path, "?"), x->q->path, status,
			 *reason ? " " : "", reason, *said ? ": " : "", said);
}

static int judge(const struct exchange *x, CURLcode code, struct error *err)
{
	long status = status_of(x);

	if (code == CURLE_ABORTED_BY_CALLBACK && !x->failed)
		return error_set(err, -EINTR, 0, "interrupted");
	if (x->failed)
		return err->code;
	/* A server may refuse before it has all of a body. */
	if (status >= 400)
		return refusal(x, status, err);
	if (code != CURLE_OK)
		return error_set(err, -EIO, 0, "%s: %s",
				 x->api->socket ? x->api->socket : x->api->url,
				 x->api->curl->easy_strerror(code));
	return status / 100 == 2 ? 0 : refusal(x, status, err);
}

int api_call(struct api *a, const struct api_request *q, struct api_answer *ret,
	     struct error *err)
{
	struct exchange x = { .api = a, .q = q, .answer = ret, .err = err };
	CLEANUP(freep) char *url = NULL;
	struct curl_slist *headers = NULL;
	int r;

	*ret = (struct api_answer){ .body = { .max = ANSWER_BYTES_MAX } };
	if (asprintf(&url, "%s%s", a->url, q->path) < 0) {
		url = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	headers = add_header(&x, headers, "Accept",
			     q->write ? "application/octet-stream, "
					"application/json"
				      : "application/json");
	headers =
		add_header(&x, headers, "Content-Type", q->type ? q->type : "");
	headers = add_header(&x, headers, "X-Auth-Token", a->token);
	a->curl->easy_reset(a->handle);
	set_up(&x, url, headers);
	r = judge(&x, a->curl->easy_perform(a->handle), err);
	ret->status = status_of(&x);
	a->curl->slist_free_all(headers);
	return r;
}

void api_answer_done(struct api_answer *a)
{
	text_buf_done(&a->body);
}

/* ---- JSON ---- */

static json_t *call_json(struct api *a, const struct api_request *q,
			 struct error *err)
{
	struct api_answer answer;
	json_t *j = NULL;

	if (api_call(a, q, &answer, err) >= 0) {
		j = json_loads(answer.body.text ? answer.body.text : "", 0,
			       NULL);
		if (!j)
			error_set(err, -EIO, 0, "%s %s: the answer is no JSON",
				  q->method, q->path);
	}
	api_answer_done(&answer);
	return j;
}

json_t *api_get(struct api *a, const char *path, struct error *err)
{
	return call_json(
		a, &(struct api_request){ .method = "GET", .path = path }, err);
}

json_t *api_send(struct api *a, const char *method, const char *path,
		 const char *type, json_t *body, struct error *err)
{
	CLEANUP(freep) char *text = json_dumps(body, JSON_COMPACT);

	json_decref(body);
	if (!text) {
		/* A string that is not UTF-8 makes no JSON. */
		error_set(err, -EINVAL, 0, "a value is not UTF-8");
		return NULL;
	}
	return call_json(
		a,
		&(struct api_request){ .method = method,
				       .path = path,
				       .type = type ? type : "application/json",
				       .body = text },
		err);
}

int api_do(struct api *a, const char *method, const char *path,
	   struct error *err)
{
	struct api_answer answer;
	int r = api_call(
		a, &(struct api_request){ .method = method, .path = path },
		&answer, err);

	api_answer_done(&answer);
	return r;
}
