/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "glance/record-rows.h"
#include "glance/sidecar.h"
#include "glance/survey.h"
#include "glance/tombstone.h"

/* Of the index: sidecars and tombstones are known since. */
#define SCHEME_OF_SIDECARS 5U
/* What a server is about is done by then. */
#define AGAIN_USEC	   1000000

const char *survey_name(enum survey_what w)
{
	static const char *const names[SURVEY_WHATS] = {
		[SURVEY_NO_DATA] = "no-data",
		[SURVEY_SIZE] = "size",
		[SURVEY_UNKNOWN] = "unknown",
		[SURVEY_STRANGE] = "strange",
		[SURVEY_NO_SIDECAR] = "no-sidecar",
		[SURVEY_OLD_SIDECAR] = "old-sidecar",
		[SURVEY_NEW_SIDECAR] = "new-sidecar",
	};

	return names[w];
}

struct kept {
	enum survey_what what;
	char id[37];
	char *path;
};

struct work {
	struct store *s;
	struct index *ix;
	bool sidecars; /* the index is of a scheme that has them */
	struct survey_result result;
	struct kept *kept;
	size_t n_kept;
	struct index_tx *tx; /* of the look at files */
	struct error *err;
};

static int keep(struct work *w, enum survey_what what, const char *path,
		const char *id)
{
	struct kept *more;

	if (!(w->n_kept & (w->n_kept - 1)) || !w->n_kept) {
		more = reallocarray(w->kept, w->n_kept ? 2 * w->n_kept : 1,
				    sizeof(*more));
		if (!more)
			return error_set(w->err, -ENOMEM, 0, "out of memory");
		w->kept = more;
	}
	w->kept[w->n_kept] =
		(struct kept){ .what = what, .path = strdup(path) };
	snprintf(w->kept[w->n_kept].id, 37, "%s", id ? id : "");
	if (!w->kept[w->n_kept++].path)
		return error_set(w->err, -ENOMEM, 0, "out of memory");
	return 0;
}

/* ---- images ---- */

/* Active or deactivated, as the index has it. */
struct row {
	const char *id;
	bool has_size;
	uint64_t size;
	int64_t changed_usec;
	bool elsewhere, found; /* where its data lie */
};

#define ROW(changed)                                                         \
	"SELECT id, size, " changed ", EXISTS (SELECT 1 FROM locations "     \
	"WHERE image = n AND store IN ('" LOCATION_FILE "', '" LOCATION_HTTP \
	"', '" LOCATION_OWN "')) AND NOT EXISTS ("                           \
	"SELECT 1 FROM locations WHERE image = n AND store = '" LOCATION_OWN \
	"' AND url = '" OWN_URL "'), EXISTS (SELECT 1 FROM "                 \
	"locations WHERE image = n AND store = 'found') FROM images WHERE "  \
	"status IN ('active', 'deactivated')"

static const char *row_sql(const struct work *w, bool one)
{
	if (w->sidecars)
		return one ? ROW("changed_at") " AND id = ?"
			   : ROW("changed_at");
	return one ? ROW("updated_at") " AND id = ?" : ROW("updated_at");
}

static struct row row_of(sqlite3_stmt *st)
{
	return (struct row){
		.id = index_text(st, 0),
		.has_size = sqlite.column_type(st, 1) != SQLITE_NULL,
		.size = (uint64_t)sqlite.column_int64(st, 1),
		.changed_usec = sqlite.column_int64(st, 2),
		.elsewhere = sqlite.column_int(st, 3),
		.found = sqlite.column_int(st, 4),
	};
}

static int64_t usec_of(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * 1000000 +
	       st->st_mtim.tv_nsec / 1000;
}

/* Of one whose time is not the index's: a copy, or a coarse file system. */
static enum survey_what judge_text(struct work *w, const struct row *row)
{
	CLEANUP(sidecar_done) struct sidecar c = { 0 };

	if (sidecar_read(w->s, row->id, STORE_SIDECAR, &c, NULL) < 0 ||
	    c.image.changed_usec < row->changed_usec)
		return SURVEY_OLD_SIDECAR;
	return c.image.changed_usec > row->changed_usec ? SURVEY_NEW_SIDECAR
							: SURVEY_WHATS;
}

/* SURVEY_WHATS: it is in step. */
static enum survey_what judge_sidecar(struct work *w, const struct row *row)
{
	enum survey_what what = SURVEY_WHATS;
	struct stat st;

	if (store_file_stat(w->s, row->id, STORE_SIDECAR, &st) < 0)
		return SURVEY_NO_SIDECAR;
	if (usec_of(&st) != row->changed_usec)
		what = judge_text(w, row);
	if (what == SURVEY_WHATS &&
	    store_file_is(w->s, row->id, STORE_SIDECAR_NEW))
		what = SURVEY_OLD_SIDECAR;
	return what;
}

static enum survey_what judge_data(struct work *w, const struct row *row,
				   struct stat *st)
{
	*st = (struct stat){ 0 };
	if (row->elsewhere)
		return SURVEY_WHATS;
	if (store_file_stat(w->s, row->id, STORE_DATA, st) < 0 ||
	    !S_ISREG(st->st_mode))
		return SURVEY_NO_DATA;
	return row->has_size && row->size != (uint64_t)st->st_size
		       ? SURVEY_SIZE
		       : SURVEY_WHATS;
}

static void path_of(const char *id, const char *ending, char ret[64])
{
	snprintf(ret, 64, "images/%.2s/%.36s%s", id, id, ending);
}

static int look_at_row(struct work *w, const struct row *row)
{
	enum survey_what what;
	char path[64];
	struct stat st;
	int r = 0;

	if (row->found)
		return 0;
	what = judge_data(w, row, &st);
	w->result.images++;
	path_of(row->id, "", path);
	if (what != SURVEY_WHATS)
		r = keep(w, what, path, row->id);
	what = w->sidecars ? judge_sidecar(w, row) : SURVEY_WHATS;
	path_of(row->id, ".json", path);
	if (what != SURVEY_WHATS && r >= 0)
		r = keep(w, what, path, row->id);
	return r;
}

static int look_at_images(struct work *w)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_read(w->ix, &tx, w->err);

	if (r >= 0)
		r = index_sql(tx, row_sql(w, false), &st, w->err);
	while (r >= 0 && (r = index_step(st, w->err)) == 1) {
		const struct row row = row_of(st);

		if (record_id_ok(row.id))
			r = look_at_row(w, &row);
	}
	return r;
}

/* ---- files ---- */

/* Does the index say that there is such a file, or that it is to go? */
static int is_known(struct work *w, struct index_tx *tx, const char *id,
		    bool staged, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	const char *status;
	int r = w->sidecars ? tombstone_is(tx, id, err) : 0;

	if (r)
		return r;
	r = index_sql(tx, "SELECT status FROM images WHERE id = ?", &st, err);
	if (r < 0)
		return r;
	index_bind_text(st, 1, id);
	r = index_step(st, err);
	if (r <= 0)
		return r;
	status = index_text(st, 0);
	if (staged)
		return !strcmp(status, "uploading") ||
		       !strcmp(status, "importing");
	return !strcmp(status, "active") || !strcmp(status, "deactivated") ||
	       !strcmp(status, "pending_delete");
}

/* A sidecar beside data is the data's; alone it says where they are. */
static bool is_judged_with_data(struct work *w, const struct store_entry *e)
{
	return !e->staged && e->file != STORE_DATA &&
	       store_file_is(w->s, e->id, STORE_DATA);
}

static int look_at_file(void *opaque, const struct store_entry *e)
{
	struct work *w = opaque;
	struct stat st;
	int r;

	if (!e->id)
		return keep(w, SURVEY_STRANGE, e->path, NULL);
	if (is_judged_with_data(w, e))
		return 0;
	if (fstatat(store_fd(w->s), e->path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    e->file == STORE_DATA) {
		w->result.files++;
		w->result.bytes += (uint64_t)st.st_size;
	}
	r = is_known(w, w->tx, e->id, e->staged, w->err);
	if (r)
		return r < 0 ? r : 0;
	return keep(w, SURVEY_UNKNOWN, e->path, e->id);
}

static int look_at_files(struct work *w)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	int r = index_read(w->ix, &tx, w->err);

	w->tx = tx;
	return r < 0 ? r : store_each(w->s, look_at_file, w, w->err);
}

/* ---- a second look ---- */

static int is_still(struct work *w, const struct kept *k)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	struct stat seen;
	struct row row;
	int r = index_read(w->ix, &tx, w->err);

	if (r < 0 || k->what == SURVEY_STRANGE)
		return r < 0 ? r : 1;
	if (k->what == SURVEY_UNKNOWN) {
		r = is_known(w, tx, k->id, !strncmp(k->path, "staging/", 8),
			     w->err);
		return r < 0 ? r
			     : !r && fstatat(store_fd(w->s), k->path, &seen,
					     AT_SYMLINK_NOFOLLOW) == 0;
	}
	r = index_sql(tx, row_sql(w, true), &st, w->err);
	if (r < 0)
		return r;
	index_bind_text(st, 1, k->id);
	r = index_step(st, w->err);
	if (r <= 0)
		return r;
	row = row_of(st);
	return judge_data(w, &row, &seen) == k->what ||
	       judge_sidecar(w, &row) == k->what;
}

static int tell_kept(struct work *w, bool beside,
		     int (*tell)(void *opaque, const struct survey_finding *f),
		     void *opaque)
{
	size_t i;
	int r = 0;

	if (beside && w->n_kept)
		usleep(AGAIN_USEC);
	for (i = 0; i < w->n_kept && r >= 0; i++) {
		const struct kept *k = &w->kept[i];
		const struct survey_finding f = { k->what, k->path,
						  *k->id ? k->id : NULL };

		r = beside ? is_still(w, k) : 1;
		if (r <= 0)
			continue;
		w->result.findings[k->what]++;
		r = tell ? tell(opaque, &f) : 0;
	}
	return r;
}

static int begin(struct work *w)
{
	unsigned int scheme = 0;
	int r = index_scheme(w->ix, &scheme, w->err);

	w->sidecars = scheme >= SCHEME_OF_SIDECARS;
	return r;
}

int survey(struct store *s, struct index *ix, bool beside,
	   int (*tell)(void *opaque, const struct survey_finding *f),
	   void *opaque, struct survey_result *ret, struct error *err)
{
	struct work w = { .s = s, .ix = ix, .err = err };
	int r = begin(&w);
	size_t i;

	if (r >= 0)
		r = look_at_images(&w);
	if (r >= 0)
		r = look_at_files(&w);
	if (r >= 0)
		r = tell_kept(&w, beside, tell, opaque);
	for (i = 0; i < w.n_kept; i++)
		free(w.kept[i].path);
	free(w.kept);
	*ret = w.result;
	return r;
}

/* ---- nothing but data ---- */

static int count_orphan(void *opaque, const struct store_entry *e)
{
	struct work *w = opaque;
	int r = 0;

	if (!e->id || is_judged_with_data(w, e))
		return 0;
	if (w->tx)
		r = record_is_gone(w->tx, e->id, w->err);
	if (!r && w->tx && w->sidecars)
		r = tombstone_is(w->tx, e->id, w->err);
	if (!r)
		w->result.files++;
	return r < 0 ? r : 0;
}

static int has_images(struct index_tx *tx, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx, "SELECT 1 FROM images LIMIT 1", &st, err);

	return r < 0 ? r : index_step(st, err);
}

int64_t survey_orphans(struct store *s, struct index *ix, struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	struct work w = { .s = s, .ix = ix, .err = err };
	int r = ix ? begin(&w) : 0;

	if (ix && r >= 0)
		r = index_read(ix, &tx, err);
	if (ix && r >= 0)
		r = has_images(tx, err);
	if (r)
		return r < 0 ? r : 0;
	w.tx = tx;
	r = store_each(s, count_orphan, &w, err);
	return r < 0 ? r : (int64_t)w.result.files;
}
