/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "glance/bury.h"
#include "glance/copies.h"
#include "glance/import.h"
#include "glance/legacy.h"
#include "glance/log.h"
#include "glance/record.h"
#include "glance/recover.h"
#include "glance/sidecar.h"
#include "glance/stores.h"
#include "glance/survey.h"
#include "glance/tombstone.h"

/* Lines at the start; then their number. */
#define LINES_MAX 20U

#define WAYS_OUT                                                               \
	"platter index restore --store %s FILE takes a backup of it, platter " \
	"index rebuild --store %s makes one of the data"

/* ---- before ---- */

static int refuse(struct store *s, const char *what, int64_t n,
		  struct error *err)
{
	const char *path = store_path(s);

	return error_set(err, -EUCLEAN, 0,
			 "store: %s: %s, and there are data (%" PRId64
			 "): " WAYS_OUT,
			 path, what, n, path, path);
}

static bool has_index(const struct store *s)
{
	struct stat st;

	return stat(store_index_path(s), &st) == 0 && st.st_size;
}

/* What is damaged is said with the ways out. */
static int explain(struct store *s, int code, const struct error *why,
		   struct error *err)
{
	const char *path = store_path(s);

	if (code == -EUCLEAN && !strstr(why->msg, "platter index rebuild"))
		return error_set(err, code, 0, "%s: " WAYS_OUT, why->msg, path,
				 path);
	return code < 0 ? error_set(err, code, 0, "%s", why->msg) : code;
}

static int check_orphans(struct store *s, struct index *ix, const char *what,
			 struct error *err)
{
	int64_t n = survey_orphans(s, ix, err);

	if (n < 0)
		return (int)n;
	return n ? refuse(s, what, n, err) : 0;
}

int recover_open_index(struct store *s, struct index **ret, struct error *err)
{
	struct index *ix = NULL;
	struct error why = { 0 };
	int r = has_index(s)
			? 0
			: check_orphans(s, NULL, "there is no index", &why);

	if (r >= 0)
		r = index_open(store_index_path(s), &ix, &why);
	if (r >= 0)
		r = check_orphans(s, ix, "the index has no image", &why);
	if (r < 0) {
		index_close(ix);
		return explain(s, r, &why, err);
	}
	*ret = ix;
	return 0;
}

int recover_check(struct store *s, struct error *err)
{
	struct index *ix = NULL;
	int r = store_clean(s, err);

	if (r >= 0)
		r = recover_open_index(s, &ix, err);
	index_close(ix);
	return r;
}

/* ---- what tombstones name ---- */

static int status_of(struct index_tx *tx, const char *id,
		     enum image_status *ret, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, "SELECT status FROM images WHERE id = ?", &st,
			  err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, id);
	r = index_step(st, err);
	return r > 0 && !image_status_by_name(index_text(st, 0), ret) ? -EUCLEAN
								      : r;
}

static bool was_an_images(struct store *s, const char *id)
{
	return store_file_is(s, id, STORE_SIDECAR);
}

/* Data that came, and whether they were whole the index does not say. */
static int drop_half_made(struct glance *g, const char *id, bool again,
			  struct error *err)
{
	struct store *s = g->store;

	if (was_an_images(s, id) || !stores_have(g, id))
		return 0;
	if (again && !store_has_staged(s, id) &&
	    store_file_is(s, id, STORE_DATA)) {
		int r = store_stage_again(s, id, err);

		if (r < 0)
			return r;
	}
	stores_remove(g, id);
	return 0;
}

struct burial {
	struct glance *g;
	struct index_tx *tx;
	bool any;
	struct error *err;
};

/* See tombstone.h for what each kind may do. */
static int carry_out(void *opaque, enum tombstone_kind k, const char *id)
{
	struct burial *b = opaque;
	struct store *s = b->g->store;
	enum image_status status = IMAGE_QUEUED;
	int r = status_of(b->tx, id, &status, b->err);
	bool lives = r > 0;

	if (r < 0)
		return r;
	b->any = true;
	switch (k) {
	case TOMBSTONE_GONE:
		if (lives)
			return 0;
		stores_remove(b->g, id);
		store_discard(s, STORE_STAGING, id);
		return 0;
	case TOMBSTONE_STAGED:
		if (!lives || status == IMAGE_IMPORTING)
			store_discard(s, STORE_STAGING, id);
		return 0;
	case TOMBSTONE_COPY:
		return copies_drop(b->g, b->tx, id, b->err);
	default:
		if (status == IMAGE_ACTIVE || status == IMAGE_DEACTIVATED)
			return 0;
		if (!lives)
			store_discard(s, STORE_STAGING, id);
		return drop_half_made(b->g, id,
				      k == TOMBSTONE_MOVING &&
					      status == IMAGE_IMPORTING,
				      b->err);
	}
}

static int bury_all(struct glance *g, struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	struct burial b = { .g = g, .err = err };
	int r = index_read(g->index, &tx, err);

	b.tx = tx;
	if (r >= 0)
		r = tombstones_each(tx, carry_out, &b, err);
	return r < 0 || !b.any ? r : stores_sync(g, err);
}

/* ---- what was on its way ---- */

/* Image @n is staged, with @size, or queued: NULL. */
static int set_size(struct index_tx *tx, int64_t n, const uint64_t *size,
		    struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  size ? "UPDATE images SET size = ?2 WHERE n = ?1"
			       : "UPDATE images SET status = 'queued', size = "
				 "NULL WHERE n = ?1",
			  &st, err);

	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, n);
	if (size)
		index_bind_u64(st, 2, *size);
	return index_run(st, err);
}

/* Those in status @status go back to queued, unless @keep wants them. */
static int reset(struct index_tx *tx, const char *status,
		 bool (*keep)(struct glance *g, const char *id, uint64_t *size),
		 struct glance *g, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	uint64_t size;
	int r = index_sql(tx, "SELECT n, id FROM images WHERE status = ?", &st,
			  err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, status);
	while (r >= 0 && (r = index_step(st, err)) == 1) {
		bool kept = keep && keep(g, index_text(st, 1), &size);

		r = set_size(tx, sqlite.column_int64(st, 0),
			     kept ? &size : NULL, err);
	}
	return r;
}

/* What lies in staging/ is whole: it has come there by its last step. */
static bool is_staged(struct glance *g, const char *id, uint64_t *size)
{
	CLEANUP(closep) int fd = -1;
	struct stat st;

	if (store_staging_open(g->store, id, &fd, NULL) < 0 ||
	    fstat(fd, &st) < 0)
		return false;
	*size = (uint64_t)st.st_size;
	return true;
}

static int reset_coming(struct index_tx *tx, void *opaque, struct error *err)
{
	int r = reset(tx, "saving", NULL, opaque, err);

	if (r >= 0)
		r = reset(tx, "uploading", is_staged, opaque, err);
	if (r >= 0)
		r = import_reset(tx, err);
	return r < 0 ? r : tombstones_clear(tx, err);
}

/* ---- what is there ---- */

struct looking {
	struct glance *g;
	unsigned int lines[SURVEY_WHATS];
	char (*ids)[37]; /* whose sidecars are to be written */
	size_t n_ids;
	struct error *err;
};

static int want_sidecar(struct looking *l, const char *id)
{
	void *more = reallocarray(l->ids, l->n_ids + 1, sizeof(*l->ids));

	if (!more)
		return error_set(l->err, -ENOMEM, 0, "out of memory");
	l->ids = more;
	snprintf(l->ids[l->n_ids++], sizeof(*l->ids), "%s", id);
	return 0;
}

struct news {
	struct sidecar c;
	bool trusted;
};

static int apply(struct index_tx *tx, void *opaque, struct error *err)
{
	struct news *n = opaque;

	return sidecar_apply(tx, &n->c, n->trusted, err);
}

/* The index is a copy: what was committed since is in the sidecar. */
static void bring_up_to_date(struct glance *g, const char *id)
{
	struct news n = { .trusted = !store_file_is(g->store, id,
						    STORE_SIDECAR_NEW) };
	struct error err = { 0 };
	int r = sidecar_read(g->store, id, STORE_SIDECAR, &n.c, &err);

	if (r >= 0)
		r = index_write(g->index, apply, &n, &err);
	if (r < 0)
		log_line("store: image %s: %s", id, err.msg);
	sidecar_done(&n.c);
}

static int tell(void *opaque, const struct survey_finding *f)
{
	static const char *const texts[SURVEY_WHATS] = {
		[SURVEY_NO_DATA] = "the index has this image, its data are "
				   "missing",
		[SURVEY_SIZE] = "is not of the size that the index has",
		[SURVEY_UNKNOWN] = "the index does not know it; it is kept",
		[SURVEY_STRANGE] = "is no file of a store's; it is kept",
		[SURVEY_NEW_SIDECAR] = "is newer than the index, which is "
				       "brought up to date",
	};
	struct looking *l = opaque;

	if (f->what == SURVEY_NO_SIDECAR || f->what == SURVEY_OLD_SIDECAR)
		return want_sidecar(l, f->id);
	if (l->lines[f->what]++ < LINES_MAX)
		log_line("store: %s: %s", f->path, texts[f->what]);
	if (f->what == SURVEY_NEW_SIDECAR)
		bring_up_to_date(l->g, f->id);
	return 0;
}

static void tell_rest(const struct looking *l)
{
	unsigned int i, more = 0;

	for (i = 0; i < SURVEY_WHATS; i++)
		if (l->lines[i] > LINES_MAX)
			more += l->lines[i] - LINES_MAX;
	if (more)
		log_line("store: %u more of them: platter index check "
			 "names all",
			 more);
}

static int look_around(struct glance *g, struct error *err)
{
	struct looking l = { .g = g, .err = err };
	struct survey_result found;
	int r = survey(g->store, g->index, false, tell, &l, &found, err);

	tell_rest(&l);
	if (r >= 0 && l.n_ids)
		r = sidecars_write(g->store, g->index, l.ids, l.n_ids, err);
	free(l.ids);
	return r;
}

int recover(struct glance *g, struct error *err)
{
	struct error why = { 0 };
	int r = graves_new(&g->graves, &why);

	if (r >= 0)
		r = sidecars_new(g->store, g->index, &g->sidecars, &why);
	if (r >= 0)
		r = legacy_recover(g, &why);
	if (r >= 0)
		r = bury_all(g, &why);
	if (r >= 0)
		r = index_write(g->index, reset_coming, g, &why);
	if (r >= 0)
		r = look_around(g, &why);
	return explain(g->store, r, &why, err);
}

void recover_end(struct glance *g)
{
	graves_end(g);
	if (g->index)
		index_follow(g->index, NULL);
	sidecars_free(TAKE_PTR(g->sidecars));
}
