/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sidecars, in step with the index. Whoever commits has written and synced what
 * will hold to ID.json.new, and renames it afterwards; whoever undoes removes
 * it. An image that goes has an empty ID.json.new before. See sidecar.h for
 * what that proves.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "glance/log.h"
#include "glance/record-rows.h"
#include "glance/sidecar.h"

/* So many are synced one by one; more of them by syncfs(). */
#define SINGLE_MAX 16U

/* Syncs that are under way at once: a disk makes one of them. */
#define SYNCS_MAX 16U

struct item {
	char id[37];
	bool gone;
	bool first; /* there is no ID.json yet */
};

struct sidecars {
	struct store *s;
	struct index *ix;
	struct index_follower follower;
	/* Of the changes that are made durable together. */
	struct item *items;
	size_t n_items;
};

/* @usec becomes the file's time, by which it is known to be in step. */
static int write_new(struct store *s, const char *id, const char *text,
		     int64_t usec, struct error *err)
{
	const struct timespec at = { .tv_sec = usec / 1000000,
				     .tv_nsec = usec % 1000000 * 1000 };
	const struct timespec times[] = { at, at };
	CLEANUP(closep) int fd = -1;
	int r;

	/* Whatever is there, with whatever mode and names. */
	store_file_unlink(s, id, STORE_SIDECAR_NEW);
	r = store_file_open(s, id, STORE_SIDECAR_NEW,
			    O_WRONLY | O_CREAT | O_EXCL, &fd, err);
	if (r < 0)
		return r;
	r = store_write(fd, text, strlen(text), 0);
	if (r >= 0 && futimens(fd, times) < 0)
		r = -errno;
	return r < 0 ? error_set(err, r, 0, "the sidecar of %s: %s", id,
				 errno_text(-r))
		     : 0;
}

static int sync_new(struct store *s, const char *id, struct error *err)
{
	CLEANUP(closep) int fd = -1;
	int r = store_file_open(s, id, STORE_SIDECAR_NEW, O_RDONLY, &fd, err);

	if (r >= 0 && fsync(fd) < 0)
		return error_set(err, -errno, 0, "the sidecar of %s: %s", id,
				 errno_text(errno));
	return r;
}

/* 1: ID.json.new says what the index does; 0: there should be none. */
static int write_from(struct store *s, struct index_tx *tx, const char *id,
		      struct error *err)
{
	CLEANUP(record_done) struct record image = { 0 };
	CLEANUP(freep) char *text = NULL;
	struct error why = { 0 };
	int r = record_load(tx, id, &image, &why);

	if (r == -ENOENT || (r >= 0 && !sidecar_wanted(&image)))
		return 0;
	if (r < 0)
		return error_set(err, r, 0, "%s", why.msg);
	r = store_make_folder(s, id, err);
	if (r >= 0)
		r = sidecar_text(tx, &image, &text, err);
	if (r >= 0)
		r = write_new(s, id, text, image.changed_usec, err);
	return r < 0 ? r : 1;
}

/* ---- with each commit ---- */

static struct item *item_of(struct sidecars *c, const char *id)
{
	struct item *more;
	size_t i;

	for (i = 0; i < c->n_items; i++)
		if (!strcmp(c->items[i].id, id))
			return &c->items[i];
	more = reallocarray(c->items, c->n_items + 1, sizeof(*more));
	if (!more)
		return NULL;
	c->items = more;
	more += c->n_items++;
	*more = (struct item){ .first = !store_file_is(c->s, id,
						       STORE_SIDECAR) };
	snprintf(more->id, sizeof(more->id), "%s", id);
	return more;
}

static int prepare(void *opaque, struct index_tx *tx, const char *image,
		   struct error *err)
{
	struct sidecars *c = opaque;
	struct item *i = record_id_ok(image) ? item_of(c, image) : NULL;
	int r;

	if (!i)
		return record_id_ok(image)
			       ? error_set(err, -ENOMEM, 0, "out of memory")
			       : 0;
	r = write_from(c->s, tx, image, err);
	if (r < 0)
		return r;
	i->gone = !r;
	return i->gone && !i->first ? write_new(c->s, image, "", 0, err) : 0;
}

static bool same_folder(const struct item *a, const struct item *b)
{
	return !strncmp(a->id, b->id, 2);
}

struct sync {
	struct store *s;
	const char *id;
	bool folder; /* of it; else its ID.json.new */
	struct error err;
	pthread_t thread;
	bool running;
};

static void *run_sync(void *opaque)
{
	struct sync *y = opaque;

	if (y->folder)
		store_sync_folder(y->s, y->id, &y->err);
	else
		sync_new(y->s, y->id, &y->err);
	return NULL;
}

/* All at once: alone, each would wait for a flush of the disk's own. */
static int run_syncs(struct sync *y, size_t n, struct error *err)
{
	size_t i;

	for (i = 1; i < n; i++)
		y[i].running =
			!pthread_create(&y[i].thread, NULL, run_sync, &y[i]);
	for (i = 0; i < n; i++)
		if (!y[i].running)
			run_sync(&y[i]);
	for (i = 1; i < n; i++)
		if (y[i].running)
			pthread_join(y[i].thread, NULL);
	for (i = 0; i < n; i++)
		if (y[i].err.code < 0)
			return error_set(err, y[i].err.code, 0, "%s",
					 y[i].err.msg);
	return 0;
}

struct syncs {
	struct sidecars *c;
	struct sync some[SYNCS_MAX];
	size_t n;
};

static int add_sync(struct syncs *y, const char *id, bool folder,
		    struct error *err)
{
	int r;

	y->some[y->n++] =
		(struct sync){ .s = y->c->s, .id = id, .folder = folder };
	if (y->n < SYNCS_MAX)
		return 0;
	r = run_syncs(y->some, y->n, err);
	y->n = 0;
	return r;
}

/* The folder of item @at, once for all that lie there. */
static int add_folder(struct syncs *y, size_t at,
		      bool (*which)(const struct item *i), struct error *err)
{
	const struct item *items = y->c->items;
	size_t k;

	if (!which(&items[at]))
		return 0;
	for (k = 0; k < at; k++)
		if (which(&items[k]) && same_folder(&items[at], &items[k]))
			return 0;
	return add_sync(y, items[at].id, true, err);
}

/* The folders of @which, and, with @files, what is new in them. */
static int sync_items(struct sidecars *c, bool (*which)(const struct item *i),
		      bool files, struct error *err)
{
	struct syncs y = { .c = c };
	int r = 0;
	size_t i;

	for (i = 0; i < c->n_items && r >= 0; i++) {
		if (files && !c->items[i].gone)
			r = add_sync(&y, c->items[i].id, false, err);
		if (r >= 0)
			r = add_folder(&y, i, which, err);
	}
	return r < 0 || !y.n ? r : run_syncs(y.some, y.n, err);
}

static bool has_new(const struct item *i)
{
	return !i->gone || !i->first;
}

static int publish(void *opaque, struct error *err)
{
	struct sidecars *c = opaque;
	int r = store_check_lock(c->s, err);

	return r < 0 ? r : sync_items(c, has_new, true, err);
}

static bool is_first(const struct item *i)
{
	return i->first && !i->gone;
}

static void take_effect(struct sidecars *c, const struct item *i)
{
	if (i->gone) {
		store_file_unlink(c->s, i->id, STORE_SIDECAR);
		store_file_unlink(c->s, i->id, STORE_SIDECAR_NEW);
	} else if (store_file_rename(c->s, i->id, STORE_SIDECAR_NEW,
				     STORE_SIDECAR, true) < 0) {
		log_line("store: the sidecar of %s: %s", i->id,
			 errno_text(errno));
	}
}

static void settle(void *opaque, bool committed)
{
	struct sidecars *c = opaque;
	size_t i;

	for (i = 0; i < c->n_items; i++) {
		if (committed)
			take_effect(c, &c->items[i]);
		else
			store_file_unlink(c->s, c->items[i].id,
					  STORE_SIDECAR_NEW);
	}
	if (committed)
		sync_items(c, is_first, false, NULL);
	c->n_items = 0;
}

int sidecars_new(struct store *s, struct index *ix, struct sidecars **ret,
		 struct error *err)
{
	struct sidecars *c = calloc(1, sizeof(*c));

	if (!c)
		return error_set(err, -ENOMEM, 0, "out of memory");
	c->s = s;
	c->ix = ix;
	c->follower = (struct index_follower){ prepare, publish, settle, c };
	index_follow(ix, &c->follower);
	*ret = c;
	return 0;
}

void sidecars_free(struct sidecars *c)
{
	if (!c)
		return;
	free(c->items);
	free(c);
}

/* ---- all of them ---- */

static int write_one(struct store *s, struct index *ix, const char *id,
		     bool sync, struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	int r = index_read(ix, &tx, err);

	if (r >= 0)
		r = write_from(s, tx, id, err);
	if (!r) {
		store_file_unlink(s, id, STORE_SIDECAR);
		store_file_unlink(s, id, STORE_SIDECAR_NEW);
	}
	return r > 0 && sync ? sync_new(s, id, err) : r;
}

int sidecars_write(struct store *s, struct index *ix, char (*ids)[37],
		   size_t n_ids, struct error *err)
{
	bool sync = n_ids <= SINGLE_MAX;
	int r = 0;
	size_t i;

	for (i = 0; i < n_ids && r >= 0; i++)
		r = write_one(s, ix, ids[i], sync, err);
	if (r >= 0 && !sync)
		r = store_sync_all(s, err);
	for (i = 0; i < n_ids && r >= 0; i++) {
		r = store_file_rename(s, ids[i], STORE_SIDECAR_NEW,
				      STORE_SIDECAR, true);
		if (r == -ENOENT)
			r = 0; /* there should be none */
		if (r >= 0 && sync)
			r = store_sync(s, ids[i], err);
	}
	if (r < 0)
		return error_set(
			err, r, 0,
			"the sidecar of image %s (images/%.2s/%s.json) "
			"cannot be written: %s",
			ids[i - 1], ids[i - 1], ids[i - 1], errno_text(-r));
	return sync ? 0 : store_sync_all(s, err);
}
