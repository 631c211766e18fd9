/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An object whose server knows no ranges: all of it, by the thread of who takes it,
 * in one go. What is cut off begins anew another time.
 */
#include <errno.h>
#include <string.h>

#include "iouring/sources/http-inside.h"
#include "iouring/sources/remote-options.h"

struct taking {
	struct http_request r;
	int (*take)(void *opaque, const void *data, size_t len);
	void *opaque;
	int code;
};

/* Of the object that was found; or why not. */
static int check_whole(struct http_request *r)
{
	struct http_want w = http_request_want(r);

	if (http_answer_judge(&r->a, &w, &r->why) != HTTP_WHOLE)
		return r->why.code ? r->why.code : -EIO;
	r->why = (struct error){ 0 };
	if (r->a.length != r->o->bytes || strcmp(r->a.etag, r->o->etag) ||
	    strcmp(r->a.modified, r->o->modified) ||
	    http_request_is_forbidden(r))
		return error_set(&r->why, -EIO, 0,
				 "it has changed since it was opened: what is "
				 "there now is another image");
	return 0;
}

static size_t take_some(char *data, size_t size, size_t n, void *opaque)
{
	struct taking *t = opaque;
	size_t len = size * n;

	if (!t->r.got && !t->code)
		t->code = check_whole(&t->r);
	if (!t->code && remote_is_stopping())
		t->code = error_set(&t->r.why, -EIO, 0, "the process ends");
	if (!t->code)
		t->code = t->take(t->opaque, data, len);
	t->r.got += len;
	return t->code ? 0 : len;
}

/* As a request is begun, but without a range; *@easy is its own. */
static int take_all(struct taking *t, CURL *easy)
{
	struct http_request *r = &t->r;
	const struct curl_lib *curl = curl_lib_load();
	CURLcode code;

	if (!http_request_prepare(r, easy))
		return r->why.code;
	http_request_listen(r, easy);
	curl->easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_some);
	curl->easy_setopt(easy, CURLOPT_WRITEDATA, t);
	code = curl->easy_perform(easy);
	if (t->code)
		return t->code;
	if (code != CURLE_OK || r->got != r->o->bytes)
		return error_set(&r->why, -EIO, 0, "%s",
				 code == CURLE_OK ? "the answer ends early"
						  : http_request_words(code));
	return 0;
}

int http_request_whole(struct http_object *o,
		       int (*take)(void *opaque, const void *data, size_t len),
		       void *opaque, struct error *err)
{
	const struct curl_lib *curl = curl_lib_load();
	struct taking t = { .r = { .o = o, .len = 1 },
			    .take = take,
			    .opaque = opaque };
	int r;

	t.r.t.easy = curl->easy_init();
	if (!t.r.t.easy)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = take_all(&t, t.r.t.easy);
	if (r < 0 && t.r.why.code)
		error_set(err, r, 0, "%s", t.r.why.msg);
	curl->easy_cleanup(t.r.t.easy);
	curl->slist_free_all(t.r.headers);
	credentials_done(&t.r.used);
	free(t.r.url);
	return r;
}
