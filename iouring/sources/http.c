/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "iouring/sources/http-ends.h"
#include "iouring/sources/http-inside.h"
#include "iouring/sources/keystone-token.h"
#include "iouring/sources/object-store.h"
#include "iouring/sources/remote-options.h"
#include "iouring/sources/s3-sign.h"

/* What one request brings at most: longer reads go by several connections. */
#define REQUEST_BYTES (1U << 20)
/* Bytes between two ranges that are cheaper than another request. */
#define GAP_BYTES     (64U << 10)

/* All that a batch wants of one object, from start() to finish(). */
struct http_batch {
	struct http_wait wait;
	struct http_request **requests;
	struct http_piece *pieces;
	struct batch_io **ios; /* in order of their offsets */
	size_t n_requests, n_pieces, n_ios;
};

/* ---- requests ---- */

static bool is_to_start(const struct source *s, const struct batch_io *io)
{
	return io->src->root == s && io->ret == BATCH_NOT_STARTED;
}

static uint64_t offset_of(const struct batch_io *io)
{
	return io->src->root_off + io->off;
}

/* What is in memory is read at once, and is nothing to start any more. */
static void read_ends(struct http_object *o, struct batch_io *ios, size_t n)
{
	size_t i;

	for (i = 0; o->ends && i < n; i++)
		if (is_to_start(&o->s, &ios[i]) &&
		    http_ends_copy(o->ends, ios[i].buf, ios[i].len,
				   offset_of(&ios[i])))
			ios[i].ret = 0;
}

static int compare_ios(const void *a, const void *b)
{
	uint64_t x = offset_of(*(struct batch_io *const *)a);
	uint64_t y = offset_of(*(struct batch_io *const *)b);

	return x < y ? -1 : x > y;
}

static void batch_free(struct http_batch *b)
{
	if (!b)
		return;
	while (b->n_requests)
		free(b->requests[--b->n_requests]);
	pthread_mutex_destroy(&b->wait.lock);
	pthread_cond_destroy(&b->wait.ended);
	free(b->requests);
	free(b->pieces);
	free(b->ios);
	free(b);
}

/* Room for every @io alone, in parts; NULL: there is no memory. */
static struct http_batch *batch_new(const struct source *s,
				    struct batch_io *ios, size_t n)
{
	struct http_batch *b = calloc(1, sizeof(*b));
	size_t i, parts = 1;

	if (!b)
		return NULL;
	pthread_mutex_init(&b->wait.lock, NULL);
	pthread_cond_init(&b->wait.ended, NULL);
	b->ios = calloc(n, sizeof(struct batch_io *));
	for (i = 0; b->ios && i < n; i++) {
		if (!is_to_start(s, &ios[i]))
			continue;
		b->ios[b->n_ios++] = &ios[i];
		parts += ios[i].len / REQUEST_BYTES + 2;
	}
	b->requests = calloc(parts, sizeof(struct http_request *));
	b->pieces = calloc(parts * 2, sizeof(*b->pieces));
	if (b->ios && b->requests && b->pieces)
		return b;
	batch_free(b);
	return NULL;
}

static void add_piece(struct http_batch *b, struct batch_io *io, uint8_t *buf,
		      size_t len)
{
	struct http_request *r = b->requests[b->n_requests - 1];

	b->pieces[b->n_pieces++] = (struct http_piece){ buf, len, io };
	r->n_pieces++;
	r->len += len;
}

/* May [@off, @off + @len) go into the last request? *ret_gap: before it. */
static bool joins(const struct http_batch *b, uint64_t off, size_t len,
		  size_t *ret_gap)
{
	const struct http_request *r;
	uint64_t end;

	if (!b->n_requests)
		return false;
	r = b->requests[b->n_requests - 1];
	end = r->off + r->len;
	if (off < end || off - end > GAP_BYTES ||
	    off + len - r->off > REQUEST_BYTES)
		return false;
	*ret_gap = (size_t)(off - end);
	return true;
}

/* false: there is no memory. */
static bool add_request(struct http_batch *b, struct http_object *o,
			uint64_t off)
{
	struct http_request *r = calloc(1, sizeof(*r));

	if (!r)
		return false;
	r->o = o;
	r->wait = &b->wait;
	r->off = off;
	r->pieces = &b->pieces[b->n_pieces];
	b->requests[b->n_requests++] = r;
	return true;
}

static bool add_part(struct http_batch *b, struct http_object *o,
		     struct batch_io *io, size_t pos, size_t len)
{
	uint64_t off = offset_of(io) + pos;
	size_t gap = 0;

	if (!joins(b, off, len, &gap) && !add_request(b, o, off))
		return false;
	if (gap)
		add_piece(b, NULL, NULL, gap);
	add_piece(b, io, (uint8_t *)io->buf + pos, len);
	return true;
}

static void add_all(struct http_batch *b, struct http_object *o)
{
	size_t i, pos, len;

	qsort(b->ios, b->n_ios, sizeof(struct batch_io *), compare_ios);
	for (i = 0; i < b->n_ios; i++) {
		struct batch_io *io = b->ios[i];

		io->ret = 0;
		io->token = b;
		for (pos = 0; pos < io->len; pos += len) {
			len = min_size(io->len - pos, REQUEST_BYTES);
			if (!add_part(b, o, io, pos, len)) {
				io->ret = -ENOMEM;
				break;
			}
		}
	}
}

static void http_start(struct source *s, struct batch_io *ios, size_t n,
		       bool may_wait)
{
	struct http_object *o = container_of(s, struct http_object, s);
	struct http_batch *b;
	size_t i;

	for (i = 0; o->whole && i < n; i++)
		if (is_to_start(s, &ios[i]))
			ios[i].ret = -EIO;
	read_ends(o, ios, n);
	for (i = 0; i < n && !is_to_start(s, &ios[i]); i++)
		;
	if (i == n)
		return; /* all was in memory */
	b = batch_new(s, ios, n);
	if (!b) {
		for (i = 0; i < n; i++)
			if (is_to_start(s, &ios[i]))
				ios[i].ret = -ENOMEM;
		return;
	}
	add_all(b, o);
	b->wait.left = b->n_requests;
	for (i = 0; i < b->n_requests; i++)
		http_request_start(b->requests[i]);
}

/* What came of the requests is what came of those whose bytes they brought. */
static void tell_ios(struct http_batch *b)
{
	size_t i, k;

	for (i = 0; i < b->n_requests; i++) {
		const struct http_request *r = b->requests[i];

		for (k = 0; r->ret < 0 && k < r->n_pieces; k++)
			if (r->pieces[k].io)
				r->pieces[k].io->ret =
					r->ret == -ENOMEM ? -ENOMEM : -EIO;
	}
}

static void http_finish(struct source *s, struct batch_io *ios, size_t n)
{
	struct http_batch *b = NULL;
	size_t i;

	for (i = 0; i < n && !b; i++)
		if (ios[i].src->root == s)
			b = ios[i].token;
	if (!b)
		return;
	http_wait(&b->wait);
	tell_ios(b);
	for (i = 0; i < b->n_ios; i++)
		b->ios[i]->token = NULL;
	batch_free(b);
}

/* ---- the object ---- */

static void http_identify(const struct source *s, struct source_identity *ret)
{
	const struct http_object *o = container_of(s, struct http_object, s);

	ret->kind = SOURCE_OBJECT;
	ret->name = o->name;
	if (*o->etag || *o->modified)
		ret->version = *o->etag ? o->etag : o->modified;
	else
		ret->version = o->constant ? "constant" : NULL;
}

static void object_free(struct http_object *o)
{
	size_t i;

	http_ends_free(o->ends);
	pthread_mutex_destroy(&o->lock);
	for (i = 0; i < o->n_allowed; i++)
		url_done(&o->allowed[i]);
	free(o->allowed);
	credentials_done(&o->credentials);
	url_done(&o->given);
	url_done(&o->url);
	free(o->text);
	free(o->people);
	free(o->name);
	free(o->moved_to);
	free(o);
}

static void http_free(struct source *s)
{
	object_free(container_of(s, struct http_object, s));
	http_engine_release();
}

static const struct source_ops http_ops;

bool http_source_is_whole(const struct source *s)
{
	return s->root->ops == &http_ops &&
	       container_of(s->root, struct http_object, s)->whole;
}

int http_source_take(struct source *s,
		     int (*take)(void *opaque, const void *data, size_t len),
		     void *opaque, struct error *err)
{
	return http_request_whole(container_of(s->root, struct http_object, s),
				  take, opaque, err);
}

static const struct source_ops http_ops = {
	.name = "http",
	.start = http_start,
	.finish = http_finish,
	.identify = http_identify,
	.free = http_free,
};

static int take_allowed(struct http_object *o, const struct http_wish *w,
			struct error *err)
{
	size_t i;
	int r = 0;

	o->allowed = calloc(w->n_allowed + 1, sizeof(*o->allowed));
	if (!o->allowed)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < w->n_allowed && r >= 0; i++) {
		if (!url_is_http(w->allowed[i]))
			continue;
		r = url_parse(w->allowed[i], &o->allowed[o->n_allowed], err);
		o->n_allowed += r >= 0;
	}
	return r;
}

/* Those of the URL count, else of those who named it, else the file's. */
static int take_credentials(struct http_object *o, const struct http_wish *w,
			    struct error *err)
{
	const char *file = remote_options()->credentials;

	if (!o->given.login && w->login) {
		o->given.login = strdup(w->login);
		if (!o->given.login)
			return error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (!o->given.login)
		return file ? credentials_read(file, &o->given, o->named,
					       &o->credentials, err)
			    : 0;
	o->credentials.login = strdup(o->given.login);
	return o->credentials.login
		       ? 0
		       : error_set(err, -ENOMEM, 0, "out of memory");
}

/* What a store needs to be asked. */
static int prepare_store(struct http_object *o, struct error *err)
{
	if (o->credentials.keys)
		return s3_sign_load(err);
	return o->credentials.keystone
		       ? keystone_token_wait(&o->credentials,
					     object_store_service(&o->given),
					     err)
		       : 0;
}

/* Where it lies, and how it is signed. */
static int resolve(struct http_object *o, bool about, struct error *err)
{
	CLEANUP(freep) char *text = url_text(&o->given);
	int r = prepare_store(o, err);

	if (r < 0)
		return r;
	if (!text)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = url_is_store(text)
		    ? object_store_resolve(&o->given, &o->credentials, about,
					   &o->url, err)
		    : url_parse(text, &o->url, err);
	if (r < 0)
		return r;
	o->constant = object_store_is_constant(&o->given);
	o->text = url_text(&o->url);
	o->people = url_for_people(text);
	o->name = url_name(&o->url);
	return o->text && o->people && o->name
		       ? 0
		       : error_set(err, -ENOMEM, 0, "out of memory");
}

static int object_set_up(struct http_object *o, const struct http_wish *w,
			 struct error *err)
{
	int r = url_parse(w->url, &o->given, err);

	o->named = w->named;
	o->may_be_whole = w->may_be_whole;
	o->queue_end = &o->queue;
	if (r >= 0)
		r = take_allowed(o, w, err);
	if (r >= 0)
		r = take_credentials(o, w, err);
	return r < 0 ? r : resolve(o, w->about, err);
}

/* What is there? Waits for the answer. */
static int probe(struct http_object *o, struct error *err)
{
	struct http_wait wait = { PTHREAD_MUTEX_INITIALIZER,
				  PTHREAD_COND_INITIALIZER, 1 };
	struct http_request r = {
		.o = o, .wait = &wait, .len = 1, .probe = true
	};

	http_request_start(&r);
	http_wait(&wait);
	if (r.ret < 0)
		return error_set(err, r.ret, 0, "%s", r.why.msg);
	if (!*o->etag && !*o->modified && !o->constant)
		remote_say("%s: the server tells neither ETag nor date of it: "
			   "whether it changes cannot be seen",
			   o->people);
	return 0;
}

int http_source_open(const struct http_wish *w, struct source **ret,
		     struct error *err)
{
	struct http_object *o;
	int r;

	if (!http_requests_load() || !http_engine_hold())
		return error_set(err, -ENOTSUP, 0,
				 "libcurl.so.4 is missing: no web server can "
				 "be read from");
	o = calloc(1, sizeof(*o));
	if (!o) {
		http_engine_release();
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	pthread_mutex_init(&o->lock, NULL);
	r = object_set_up(o, w, err);
	if (r >= 0)
		r = probe(o, err);
	source_init(&o->s, &http_ops, o->bytes);
	o->s.read_bytes = HTTP_READ_BYTES;
	if (r >= 0 && !w->kept && !o->whole)
		r = http_ends_load(&o->s, &o->ends, err);
	if (r < 0) {
		source_unref(&o->s);
		return r;
	}
	*ret = &o->s;
	return 0;
}
