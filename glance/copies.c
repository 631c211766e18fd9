/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "glance/copies.h"
#include "glance/digest.h"
#include "glance/fetch.h"
#include "glance/import-state.h"
#include "glance/log.h"
#include "glance/record-rows.h"
#include "glance/stores.h"
#include "glance/tombstone.h"

#define COPY_BYTES (1U << 20)

/*
 * Held from when a copy takes its place to when the index says so, and while
 * what the index does not name is removed.
 */
static pthread_mutex_t placing = PTHREAD_MUTEX_INITIALIZER;

/* ---- data ---- */

static int fail(const char *what, int code, struct error *err)
{
	return error_set(err, code == -EDQUOT ? -ENOSPC : code, 0,
			 "a copy cannot be %s: %s", what, errno_text(-code));
}

/* Where a copy comes from: a file, or a web server, and who may stop it. */
struct origin {
	int fd; /* -1: none */
	const struct fetch_rules *rules;
	char *url;
	uint64_t bytes;
	char sha512[129]; /* "": nobody has said; then, what was read */
	char md5[33]; /* of what was read */
	bool (*stop)(void *opaque);
	void *opaque;
};

static void digest_freep(struct digest **d)
{
	digest_free(*d);
}

static void origin_done(struct origin *from)
{
	free(from->url);
	closep(&from->fd);
}

static bool is_stopped(const struct origin *from)
{
	return from->stop && from->stop(from->opaque);
}

static int copy_file(const struct origin *from, int to, struct error *err)
{
	CLEANUP(freep) char *buf = malloc(COPY_BYTES);
	off_t off = 0;
	int r;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (;;) {
		ssize_t n = pread(from->fd, buf, COPY_BYTES, off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? fail("read", -errno, err) : 0;
		if (is_stopped(from))
			return error_set(err, -ECANCELED, 0, "stopped");
		r = store_write(to, buf, (size_t)n, (uint64_t)off);
		if (r < 0)
			return fail("written", r, err);
		off += n;
	}
}

struct download {
	const struct origin *from;
	int to;
	uint64_t off;
	struct digest *digest;
};

static int take(void *opaque, const void *data, size_t len, struct error *err)
{
	struct download *d = opaque;
	int r = store_write(d->to, data, len, d->off);

	d->off += len;
	return r < 0 ? fail("written", r, err)
		     : digest_add(d->digest, data, len, err);
}

static bool stop_download(void *opaque)
{
	return is_stopped(((struct download *)opaque)->from);
}

/* What a web server has now must be what the image was made of. */
static int download(struct origin *from, int to, struct error *err)
{
	CLEANUP(digest_freep) struct digest *digest = NULL;
	struct download d = { .from = from, .to = to };
	const struct fetch_sink sink = { take, stop_download, &d };
	char sha512[129];
	int r = digest_new(&digest, err);

	d.digest = digest;
	if (r >= 0 && from->bytes)
		r = fetch_part(from->rules, from->url, 0, from->bytes, &sink,
			       err);
	if (r >= 0)
		r = digest_end(digest, from->md5, sha512, err);
	if (r >= 0 && *from->sha512 && strcmp(sha512, from->sha512) != 0)
		r = error_set(err, -EBADMSG, 0,
			      "what the location has is not the image any "
			      "more: its digest is another");
	if (r >= 0)
		strcpy(from->sha512, sha512);
	return r;
}

/* To incoming/ of @to; *ret: it, open. */
static int bring(struct store *to, const char *id, struct origin *from,
		 int *ret, struct error *err)
{
	CLEANUP(closep) int copy = -1;
	int r = store_incoming_open(to, id, &copy, err);

	if (r < 0)
		return r;
	r = from->url ? download(from, copy, err) : copy_file(from, copy, err);
	if (r >= 0 && fsync(copy) < 0)
		r = fail("written", -errno, err);
	if (r < 0)
		store_discard(to, STORE_INCOMING, id);
	else
		*ret = TAKE_FD(copy);
	return r;
}

int copies_put(struct store *to, const char *id, int fd,
	       bool (*stop)(void *opaque), void *opaque, struct error *err)
{
	struct origin from = { .fd = fd, .stop = stop, .opaque = opaque };
	CLEANUP(closep) int copy = -1;
	int r = bring(to, id, &from, &copy, err);

	if (r >= 0)
		r = store_commit(to, STORE_INCOMING, id, copy, err);
	if (r < 0)
		store_discard(to, STORE_INCOMING, id);
	return r;
}

/* ---- what the index says ---- */

static int insert_own(struct record *r, size_t at, const char *key,
		      struct error *err)
{
	struct location l = { .store = strdup(LOCATION_OWN),
			      .metadata = strdup("{}"),
			      .own = true };

	if (asprintf(&l.url, OWN_URL "%s", key) < 0)
		l.url = NULL;
	return record_insert_location(r, at, &l, err);
}

int copies_place(struct record *r, const char *key, struct error *err)
{
	return insert_own(r, r->n_locations, key, err);
}

int copies_say(struct record *r, const char *key, struct error *err)
{
	int code = 0;

	/* That of which nothing was said so far comes first. */
	if (record_is_in(r, "") && !record_has_location(r, LOCATION_OWN))
		code = insert_own(r, 0, "", err);
	return code < 0 || record_is_in(r, key)
		       ? code
		       : insert_own(r, r->n_locations, key, err);
}

/* At how many the data are; that they came from one is none. */
static size_t places(const struct record *r)
{
	size_t i, n = 0;

	for (i = 0; i < r->n_locations; i++)
		n += strcmp(r->locations[i].store, LOCATION_PITHOS) != 0;
	return n;
}

int copies_forget(struct glance *g, struct index_tx *tx, struct record *r,
		  const char *key, struct error *err)
{
	size_t i;
	int code;

	if (!record_is_in(r, key))
		return error_set(err, -ENOENT, 0,
				 "Image %s is not stored in store %s.", r->id,
				 stores_name(g, key));
	code = copies_say(r, key, err);
	if (code >= 0 && places(r) == 1)
		return error_set(err, -EPERM, 0,
				 "Cannot delete image data from the only store "
				 "containing it. Consider deleting the image "
				 "instead.");
	for (i = 0; code >= 0 && i < r->n_locations; i++) {
		if (!location_is_of(&r->locations[i], key))
			continue;
		record_remove_location(r, i);
		break;
	}
	return code < 0 ? code : tombstone_add(tx, TOMBSTONE_COPY, r->id, err);
}

struct copying {
	struct glance *g;
	const char *id, *key, *task;
	struct origin from;
};

/* -EEXIST: the image is not the task's any more. */
static int load(struct index_tx *tx, const struct copying *c,
		struct record *ret, struct error *err)
{
	int r = record_load(tx, c->id, ret, err);

	if (r >= 0 && !import_owns(ret, c->task))
		r = error_set(err, -EEXIST, 0,
			      "the image is not this task's any more");
	return r;
}

static int mark(struct index_tx *tx, void *opaque, struct error *err)
{
	const struct copying *c = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	int r = load(tx, c, &image, err);

	return r < 0 ? r : tombstone_add(tx, TOMBSTONE_COPY, c->id, err);
}

/* What nobody has said of the data, and was seen when they were read. */
static int say_digests(const struct origin *from, struct record *r,
		       struct error *err)
{
	int code = 0;

	if (*from->md5 && !r->checksum)
		code = record_set(&r->checksum, from->md5, err);
	if (code < 0 || !*from->md5 || r->hash_value)
		return code;
	code = record_set(&r->hash_algo, DIGEST_ALGO, err);
	return code < 0 ? code : record_set(&r->hash_value, from->sha512, err);
}

static int say(struct index_tx *tx, void *opaque, struct error *err)
{
	const struct copying *c = opaque;
	CLEANUP(record_done) struct record image = { 0 };
	int r = load(tx, c, &image, err);

	if (r >= 0)
		r = copies_say(&image, c->key, err);
	if (r >= 0)
		r = say_digests(&c->from, &image, err);
	if (r >= 0)
		r = import_reached(&image, stores_name(c->g, c->key), true,
				   err);
	if (r >= 0)
		r = record_update(tx, &image, err);
	return r < 0 ? r : tombstone_drop(tx, TOMBSTONE_COPY, c->id, err);
}

/* Under its tombstone, which a sweep may have taken away meanwhile. */
static int place(struct copying *c, struct store *to, int copy,
		 struct error *err)
{
	int r;

	pthread_mutex_lock(&placing);
	r = index_write(c->g->index, mark, c, err);
	if (r >= 0)
		r = store_commit(to, STORE_INCOMING, c->id, copy, err);
	if (r >= 0) {
		r = index_write(c->g->index, say, c, err);
		if (r < 0)
			store_file_unlink(to, c->id, STORE_DATA);
	}
	pthread_mutex_unlock(&placing);
	if (r < 0)
		store_discard(to, STORE_INCOMING, c->id);
	return r;
}

/* No store of ours has it, but a web server. */
static int at_server(struct glance *g, const struct record *image,
		     struct origin *ret, struct error *err)
{
	const char *url = record_http(image);

	if (!url || !image->has_size)
		return error_set(err, -ENOENT, 0,
				 "no store has data of image %s", image->id);
	ret->rules = g->fetch;
	ret->bytes = image->size;
	if (image->hash_value && image->hash_algo &&
	    !strcmp(image->hash_algo, DIGEST_ALGO))
		snprintf(ret->sha512, sizeof(ret->sha512), "%s",
			 image->hash_value);
	ret->url = strdup(url);
	return ret->url ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

/* 0: it is there already, by a server that has ended; 1: *ret. */
static int find_origin(struct glance *g, const char *id, const char *to,
		       struct origin *ret, struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	size_t i;
	const char *key;
	int r = index_read(g->index, &tx, err);

	if (r >= 0)
		r = record_load(tx, id, &image, err);
	if (r < 0 || record_is_in(&image, to))
		return r;
	r = at_server(g, &image, ret, err);
	for (i = 0; r < 0 && (key = stores_key(g, i)); i++) {
		if (!record_is_in(&image, key))
			continue;
		error_clear(err);
		r = store_data_open(stores_find(g, key), id, &ret->fd, err);
	}
	return r < 0 ? r : 1;
}

int copies_add(struct glance *g, const char *id, const char *key,
	       const char *task, bool (*stop)(void *opaque), void *opaque,
	       struct error *err)
{
	struct copying c = {
		g, id, key, task, { .fd = -1, .stop = stop, .opaque = opaque }
	};
	struct store *to = stores_find(g, key);
	CLEANUP(closep) int copy = -1;
	int r = to ? find_origin(g, id, key, &c.from, err)
		   : error_set(err, -ENOENT, 0, "there is no store %s", key);

	if (r > 0)
		r = bring(to, id, &c.from, &copy, err);
	if (r >= 0 && copy >= 0)
		r = place(&c, to, copy, err);
	origin_done(&c.from);
	return r;
}

/* ---- what is not wanted ---- */

int copies_drop(struct glance *g, struct index_tx *tx, const char *id,
		struct error *err)
{
	CLEANUP(record_done) struct record image = { 0 };
	int r = record_load(tx, id, &image, err);
	bool gone = r == -ENOENT;
	const char *key;
	size_t i;

	if (r < 0 && !gone)
		return r;
	error_clear(err);
	r = 0;
	if (!gone && image.status != IMAGE_ACTIVE &&
	    image.status != IMAGE_DEACTIVATED)
		return 0;
	for (i = 0; r >= 0 && (key = stores_key(g, i)); i++) {
		struct store *s = stores_find(g, key);

		if ((!gone && record_is_in(&image, key)) ||
		    !store_file_is(s, id, STORE_DATA))
			continue;
		store_file_unlink(s, id, STORE_DATA);
		r = store_sync(s, id, err);
	}
	return r;
}

struct sweep {
	struct glance *g;
	const char *id;
};

static int sweep(struct index_tx *tx, void *opaque, struct error *err)
{
	const struct sweep *s = opaque;
	int r = copies_drop(s->g, tx, s->id, err);

	return r < 0 ? r : tombstone_drop(tx, TOMBSTONE_COPY, s->id, err);
}

void copies_sweep(struct glance *g, const char *id)
{
	struct sweep s = { g, id };
	struct error err = { 0 };
	int r;

	pthread_mutex_lock(&placing);
	r = index_write(g->index, sweep, &s, &err);
	pthread_mutex_unlock(&placing);
	if (r < 0)
		log_line("store: image %s: %s", id, err.msg);
}
