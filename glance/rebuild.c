/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "formats/format.h"
#include "formats/codec/openssl.h"
#include "glance/digest.h"
#include "glance/inspect.h"
#include "glance/members.h"
#include "glance/rebuild.h"
#include "glance/record-rows.h"
#include "glance/sidecar.h"
#include "glance/survey.h"
#include "glance/time-text.h"
#include "glance/tombstone.h"

#define READ_BYTES   (1U << 20)
/* Images that are written to the index together. */
#define PENDING_MAX  64U
#define INDEX_NAME   "index.sqlite"
#define REPLACED_MAX 100U

const char *rebuild_event_name(enum rebuild_event e)
{
	static const char *const names[REBUILD_EVENTS] = {
		[REBUILD_KEPT] = "kept",
		[REBUILD_MADE] = "made",
		[REBUILD_UPDATED] = "updated",
		[REBUILD_UNPROVEN] = "unproven",
		[REBUILD_BARE] = "bare",
		[REBUILD_MISMATCH] = "mismatch",
		[REBUILD_UNREADABLE] = "unreadable",
		[REBUILD_LEFT] = "left",
	};

	return names[e];
}

/* ---- the files of the index ---- */

static int fail(struct error *err, const char *name)
{
	return error_set(err, -errno, 0, "store: %s: %s", name,
			 errno_text(errno));
}

static char *new_path(const struct store *s)
{
	char *path;

	return asprintf(&path, "%s/" STORE_INDEX_NEW, store_path(s)) < 0 ? NULL
									 : path;
}

static bool exists(const struct store *s, const char *name)
{
	return faccessat(store_fd(s), name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void unlink_new(const struct store *s)
{
	static const char *const names[] = { STORE_INDEX_NEW,
					     STORE_INDEX_NEW "-wal",
					     STORE_INDEX_NEW "-shm",
					     STORE_INDEX_NEW "-journal" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		unlinkat(store_fd(s), names[i], 0);
}

/* A name that is free, which tells when. */
static int choose_name(const struct store *s, char ret[64], struct error *err)
{
	time_t now = time(NULL);
	unsigned int i;
	struct tm tm;
	char when[32] = "";

	if (gmtime_r(&now, &tm))
		strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &tm);
	for (i = 0; i < REPLACED_MAX; i++) {
		snprintf(ret, 64,
			 i ? STORE_INDEX_OLD "%s.%u" : STORE_INDEX_OLD "%s",
			 when, i);
		if (!exists(s, ret))
			return 0;
	}
	return error_set(err, -EEXIST, 0, "store: %s: there are %u already",
			 ret, REPLACED_MAX);
}

/* The old index's log, which the new one must not find beside it. */
static int put_log_aside(const struct store *s, const char *name,
			 struct error *err)
{
	char log[80];

	snprintf(log, sizeof(log), "%s-wal", name);
	if (renameat(store_fd(s), INDEX_NAME "-wal", store_fd(s), log) < 0 &&
	    errno != ENOENT)
		return fail(err, log);
	unlinkat(store_fd(s), INDEX_NAME "-shm", 0);
	return 0;
}

/*
 * The old index gets a second name, then the new one takes its first: there is
 * one at each moment.
 */
static int exchange(const struct store *s, const char *name, struct error *err)
{
	int fd = store_fd(s);

	if (linkat(fd, INDEX_NAME, fd, name, 0) == 0)
		return renameat(fd, STORE_INDEX_NEW, fd, INDEX_NAME) < 0
			       ? fail(err, INDEX_NAME)
			       : 0;
	/* A file system without second names. */
	if (renameat2(fd, STORE_INDEX_NEW, fd, INDEX_NAME, RENAME_EXCHANGE) <
		    0 ||
	    renameat(fd, STORE_INDEX_NEW, fd, name) < 0)
		return fail(err, name);
	return 0;
}

/* The new one is whose the old one was, or the store is; synced. */
static int sync_new(const struct store *s, struct error *err)
{
	CLEANUP(closep)
	int fd = openat(store_fd(s), STORE_INDEX_NEW, O_RDONLY | O_CLOEXEC);
	struct stat st, of;

	if (fd < 0 || fstat(fd, &st) < 0 || fstat(store_fd(s), &of) < 0)
		return fail(err, STORE_INDEX_NEW);
	of.st_mode = 0600;
	fstatat(store_fd(s), INDEX_NAME, &of, AT_SYMLINK_NOFOLLOW);
	if (geteuid() == 0 && st.st_uid != of.st_uid &&
	    fchown(fd, of.st_uid, of.st_gid) < 0)
		return fail(err, STORE_INDEX_NEW);
	if (fchmod(fd, of.st_mode & 0666) < 0 || fsync(fd) < 0)
		return fail(err, STORE_INDEX_NEW);
	return 0;
}

/* The new index, closed and whole, becomes the store's. */
static int swap(struct store *s, struct rebuild_result *ret, struct error *err)
{
	CLEANUP(freep) char *path = new_path(s);
	char name[64];
	struct error why = { 0 };
	int r = path ? index_fold(path, err)
		     : error_set(err, -ENOMEM, 0, "out of memory");

	if (r >= 0)
		r = sync_new(s, err);
	if (r < 0)
		return r;
	if (!exists(s, INDEX_NAME)) {
		if (renameat(store_fd(s), STORE_INDEX_NEW, store_fd(s),
			     INDEX_NAME) < 0)
			return fail(err, INDEX_NAME);
	} else {
		r = choose_name(s, name, err);
		if (r >= 0 && index_fold(store_index_path(s), &why) < 0)
			r = why.code == -EBUSY || why.code == -EAGAIN
				    ? error_set(err, why.code, 0, "%s", why.msg)
				    : put_log_aside(s, name, err);
		if (r >= 0)
			r = exchange(s, name, err);
		if (r < 0)
			return r;
		snprintf(ret->replaced, sizeof(ret->replaced), "%s", name);
	}
	return fsync(store_fd(s)) < 0 ? fail(err, INDEX_NAME) : 0;
}

static void note_damage(void *opaque, const char *text)
{
	snprintf(opaque, 128, "%s", text);
}

/*
 * A copy of the index @path, brought up to date, as the new one. -EUCLEAN: that
 * is damaged.
 */
static int copy_index(struct store *s, const char *path, struct index **ret,
		      struct error *err)
{
	CLEANUP(freep) char *to = new_path(s);
	struct index *from = NULL;
	char damage[128] = "";
	int r = to ? index_open_look(path, &from, err)
		   : error_set(err, -ENOMEM, 0, "out of memory");

	if (r >= 0)
		r = index_integrity(from, 1, note_damage, damage, err);
	if (r > 0)
		r = error_set(err, -EUCLEAN, 0, "%s: is damaged: %s", path,
			      damage);
	if (r >= 0)
		r = index_backup(from, to, err);
	index_close(from);
	return r < 0 ? r : index_open(to, ret, err);
}

/* ---- data ---- */

struct data_digests {
	uint64_t bytes;
	char md5[33], sha512[129];
};

/* @add: each piece's bytes; negative ends it with that. */
static int data_digest(int fd, int (*add)(void *opaque, uint64_t bytes),
		       void *opaque, struct data_digests *ret,
		       struct error *err)
{
	CLEANUP(freep) uint8_t *buf = malloc(READ_BYTES);
	struct digest *d = NULL;
	uint64_t at = 0;
	ssize_t n = 1;
	int r = buf ? digest_new(&d, err)
		    : error_set(err, -ENOMEM, 0, "out of memory");

	posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	while (r >= 0 && n) {
		n = pread(fd, buf, READ_BYTES, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			r = error_set(err, -EIO, 0, "%s", errno_text(errno));
		else if (n)
			r = digest_add(d, buf, (size_t)n, err);
		if (r >= 0 && n) {
			at += (uint64_t)n;
			r = add(opaque, (uint64_t)n);
			if (r < 0)
				error_set(err, r, 0, "stopped");
		}
	}
	if (r >= 0) {
		ret->bytes = at;
		r = digest_end(d, ret->md5, ret->sha512, err);
	}
	digest_free(d);
	return r;
}

/* ---- one after the other ---- */

struct pending {
	enum rebuild_event event; /* how it came */
	char reason[256];
	struct sidecar c;
	bool trusted;
	enum rebuild_event flaw; /* REBUILD_KEPT: none */
	char why[256];
};

struct work {
	struct store *s;
	struct index *ix; /* the new one */
	const struct rebuild_options *o;
	struct rebuild_result *result;
	uint64_t done_bytes, all_bytes;
	struct pending pending[PENDING_MAX];
	size_t n_pending;
	struct error *err;
};

static void tell(struct work *w, enum rebuild_event e, const char *id,
		 const char *why)
{
	w->result->events[e]++;
	if (w->o->tell && e != REBUILD_KEPT && e != REBUILD_MADE)
		w->o->tell(w->o->opaque, e, id, why);
}

static void pending_done(struct pending *p)
{
	sidecar_done(&p->c);
	*p = (struct pending){ 0 };
}

static int write_pending(struct index_tx *tx, void *opaque, struct error *err)
{
	struct work *w = opaque;
	int r = 0;
	size_t i;

	for (i = 0; i < w->n_pending && r >= 0; i++)
		r = sidecar_apply(tx, &w->pending[i].c, w->pending[i].trusted,
				  err);
	return r;
}

static int flush(struct work *w)
{
	int r = w->n_pending ? index_write(w->ix, write_pending, w, w->err) : 0;
	size_t i;

	for (i = 0; i < w->n_pending; i++) {
		struct pending *p = &w->pending[i];

		if (r >= 0) {
			tell(w, p->event, p->c.image.id, p->reason);
			if (p->flaw != REBUILD_KEPT)
				tell(w, p->flaw, p->c.image.id, p->why);
		}
		pending_done(p);
	}
	w->n_pending = 0;
	return r;
}

static int count_read(void *opaque, uint64_t bytes)
{
	struct work *w = opaque;

	w->done_bytes += bytes;
	if (w->o->progress)
		w->o->progress(w->o->opaque, w->done_bytes, w->all_bytes);
	return w->o->stop && w->o->stop(w->o->opaque) ? -ECANCELED : 0;
}

/* Out of use until somebody has looked at it. */
static void put_out_of_use(struct pending *p, enum rebuild_event flaw,
			   const char *why)
{
	p->c.image.status = IMAGE_DEACTIVATED;
	/* The sidecar that there is says otherwise. */
	p->c.image.changed_usec = time_now_usec();
	p->flaw = flaw;
	snprintf(p->why, sizeof(p->why), "%.255s", why);
}

static bool differs(const char *said, const char *is)
{
	return said && strcmp(said, is) != 0;
}

static int compare(struct pending *p, const struct data_digests *d,
		   struct error *err)
{
	struct record *r = &p->c.image;
	char why[128];
	int code;

	if (r->has_size && r->size != d->bytes) {
		snprintf(why, sizeof(why),
			 "it has %" PRIu64 " bytes, and had %" PRIu64, d->bytes,
			 r->size);
		put_out_of_use(p, REBUILD_MISMATCH, why);
	} else if (differs(r->checksum, d->md5)) {
		put_out_of_use(p, REBUILD_MISMATCH, "its MD5 is another");
	} else if (r->hash_value && !differs(r->hash_algo, DIGEST_ALGO) &&
		   differs(r->hash_value, d->sha512)) {
		put_out_of_use(p, REBUILD_MISMATCH, "its SHA-512 is another");
	}
	if (p->flaw != REBUILD_KEPT)
		return 0; /* and what they should be stays */
	r->has_size = true;
	r->size = d->bytes;
	code = r->checksum ? 0 : record_set(&r->checksum, d->md5, err);
	if (code >= 0 && !r->hash_value)
		code = record_set(&r->hash_value, d->sha512, err);
	if (code >= 0 && !r->hash_algo)
		code = record_set(&r->hash_algo, DIGEST_ALGO, err);
	return code;
}

/* What the drivers say of data that nobody has said anything of. */
static int look_inside(struct work *w, struct pending *p, int fd,
		       struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	CLEANUP(inspection_done) struct inspection found = { 0 };
	struct record *r = &p->c.image;
	const struct format_ops *ops = NULL;
	struct error why = { 0 };
	int code = 0;

	if (!r->disk_format) {
		if (inspect_source(fd, &src, &why) >= 0)
			format_probe(src, &ops, &why);
		code = record_set(&r->disk_format,
				  ops && ops->glance_name ? ops->glance_name
							  : "raw",
				  err);
	}
	if (code >= 0 && !r->container_format)
		code = record_set(&r->container_format, "bare", err);
	if (code < 0)
		return code;
	error_clear(&why);
	/* Whatever was thought of it when it was taken. */
	if (inspect_data(r, fd, &found, &why) < 0) {
		put_out_of_use(p, REBUILD_UNREADABLE, why.msg);
		return 0;
	}
	if (r->has_virtual_size) {
		findings_free(r->findings);
		r->findings = TAKE_PTR(found.findings);
	} else {
		inspection_apply(&found, r, p->event == REBUILD_BARE);
	}
	return 0;
}

static int look_at_data(struct work *w, struct pending *p)
{
	CLEANUP(closep) int fd = -1;
	struct data_digests d;
	struct error why = { 0 };
	int r = store_data_open(w->s, p->c.image.id, &fd, &why);

	if (r >= 0)
		r = data_digest(fd, count_read, w, &d, &why);
	if (r == -ECANCELED || r == -ENOMEM)
		return error_set(w->err, r, 0, "%s", why.msg);
	if (r < 0) {
		put_out_of_use(p, REBUILD_UNREADABLE, why.msg);
		return 0;
	}
	r = compare(p, &d, w->err);
	return r < 0 || p->flaw != REBUILD_KEPT ? r
						: look_inside(w, p, fd, w->err);
}

/* ---- where it comes from ---- */

static int copy_member(void *opaque, const struct member *m)
{
	struct sidecar *c = opaque;
	struct sidecar_member *more =
		reallocarray(c->members, c->n_members + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	c->members = more;
	more += c->n_members++;
	*more = (struct sidecar_member){ .project = strdup(m->project),
					 .status = strdup(m->status),
					 .can_share = m->can_share,
					 .created_usec = m->created_usec,
					 .updated_usec = m->updated_usec };
	return more->project && more->status ? 0 : -ENOMEM;
}

/* What the old index has of an image. */
enum known {
	KNOWN_NOT,
	KNOWN, /* it has data, and is *ret */
	KNOWN_OTHERWISE, /* it has no data yet */
	KNOWN_DEAD, /* it was deleted, or its data are half-made */
};

static int find_row(struct work *w, struct index_tx *tx, const char *id,
		    struct sidecar *ret, struct error *err)
{
	struct error why = { 0 };
	int r = record_load(tx, id, &ret->image, &why);

	if (r == -ENOENT)
		return KNOWN_NOT;
	if (r < 0)
		return error_set(err, r, 0, "%s", why.msg);
	if (!sidecar_wanted(&ret->image)) {
		sidecar_done(ret);
		return KNOWN_OTHERWISE;
	}
	r = members_each(tx, ret->image.n, copy_member, ret, err);
	return r < 0 ? error_set(err, r, 0, "out of memory") : KNOWN;
}

/* A tombstone of data that come names none that have a sidecar. */
static int find_known(struct work *w, const char *id, struct sidecar *ret,
		      struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	int r = index_read(w->ix, &tx, err);

	if (r >= 0)
		r = record_is_gone(tx, id, err);
	if (!r && !store_file_is(w->s, id, STORE_SIDECAR))
		r = tombstone_is(tx, id, err);
	if (r > 0)
		return KNOWN_DEAD;
	return r < 0 ? r : find_row(w, tx, id, ret, err);
}

static int new_bare(const char *id, struct sidecar *ret, struct error *err)
{
	int r = record_set(&ret->image.id, id, err);

	if (r >= 0)
		r = record_set(&ret->image.dialect, "v2", err);
	ret->image.status = IMAGE_ACTIVE;
	ret->image.visibility = IMAGE_PRIVATE;
	ret->image.created_usec = ret->image.updated_usec =
		ret->image.changed_usec = time_now_usec();
	return r;
}

/*
 * The sidecar of @p->c's image: current where it is alone; where there is one
 * that may hold since, nobody knows.
 */
static int take_sidecar(struct work *w, const char *id, struct pending *p)
{
	bool changing = store_file_is(w->s, id, STORE_SIDECAR_NEW);
	struct error why = { 0 };
	int r = sidecar_read(w->s, id, STORE_SIDECAR, &p->c, &why);

	p->trusted = r >= 0 && !changing;
	p->event = p->trusted ? REBUILD_MADE : REBUILD_UNPROVEN;
	if (r < 0 && changing) {
		/* Of data that became an image's just then, or it is damaged. */
		error_clear(&why);
		r = sidecar_read(w->s, id, STORE_SIDECAR_NEW, &p->c, &why);
	}
	if (r >= 0)
		return 0;
	/* What is in it a person may still read; another takes its place. */
	if (r != -ENOENT &&
	    store_put_aside(w->s, id, STORE_SIDECAR, why.msg, w->err) < 0)
		return w->err->code;
	p->event = REBUILD_BARE;
	snprintf(p->reason, sizeof(p->reason), "%.255s",
		 r == -ENOENT ? "there is no sidecar" : why.msg);
	return new_bare(id, &p->c, w->err);
}

/* Is the sidecar newer than what the old index has, and current? */
static void take_newer(struct work *w, struct pending *p)
{
	const char *id = p->c.image.id;
	struct sidecar c = { 0 };

	if (store_file_is(w->s, id, STORE_SIDECAR_NEW) ||
	    sidecar_read(w->s, id, STORE_SIDECAR, &c, NULL) < 0)
		return;
	if (c.image.changed_usec <= p->c.image.changed_usec) {
		sidecar_done(&c);
		return;
	}
	sidecar_done(&p->c);
	p->c = c;
	p->event = REBUILD_UPDATED;
}

static int leave(struct work *w, const char *name, const char *why)
{
	tell(w, REBUILD_LEFT, name, why);
	return 0;
}

static int begin_image(struct work *w, const char *id, enum known known,
		       struct pending *p)
{
	if (known != KNOWN)
		return take_sidecar(w, id, p);
	p->event = REBUILD_KEPT;
	p->trusted = true;
	take_newer(w, p);
	return 0;
}

static int take_image(struct work *w, const char *id, bool has_data)
{
	struct pending *p = &w->pending[w->n_pending];
	int r = find_known(w, id, &p->c, w->err);

	if (r == KNOWN_DEAD)
		return leave(w, id,
			     "the index has it as deleted, or half-made");
	if (r == KNOWN_OTHERWISE && !store_file_is(w->s, id, STORE_SIDECAR))
		return leave(w, id, "the index has the image without data");
	if (r >= 0)
		r = begin_image(w, id, (enum known)r, p);
	if (r >= 0 && has_data)
		r = look_at_data(w, p);
	if (r < 0) {
		pending_done(p);
		return r;
	}
	return ++w->n_pending == PENDING_MAX ? flush(w) : 0;
}

/* A sidecar alone is that of an image whose data lie elsewhere. */
static bool lies_elsewhere(struct work *w, const char *id)
{
	CLEANUP(sidecar_done) struct sidecar c = { 0 };

	return sidecar_read(w->s, id, STORE_SIDECAR, &c, NULL) >= 0 &&
	       !record_is_in(&c.image, "");
}

static int take_file(void *opaque, const struct store_entry *e)
{
	struct work *w = opaque;

	if (w->o->stop && w->o->stop(w->o->opaque))
		return error_set(w->err, -ECANCELED, 0, "stopped");
	if (!e->id)
		return leave(w, e->path, "its name is none of a store's");
	if (e->staged)
		return 0;
	if (e->file == STORE_DATA)
		return take_image(w, e->id, true);
	if (e->file != STORE_SIDECAR || store_file_is(w->s, e->id, STORE_DATA))
		return 0;
	return lies_elsewhere(w, e->id) ? take_image(w, e->id, false) : 0;
}

static int add_bytes(void *opaque, const struct store_entry *e)
{
	struct work *w = opaque;
	struct stat st;

	if (e->id && !e->staged && e->file == STORE_DATA &&
	    store_file_stat(w->s, e->id, STORE_DATA, &st) == 0)
		w->all_bytes += (uint64_t)st.st_size;
	return 0;
}

static int count_no_data(void *opaque, const struct survey_finding *f)
{
	struct rebuild_result *result = opaque;

	result->no_data += f->what == SURVEY_NO_DATA;
	return 0;
}

/* ---- all of it ---- */

/* The rows that there are, or none. */
static int begin_with(struct work *w)
{
	CLEANUP(freep) char *path = new_path(w->s);
	struct error why = { 0 };
	int r;

	if (!path)
		return error_set(w->err, -ENOMEM, 0, "out of memory");
	unlink_new(w->s);
	r = exists(w->s, INDEX_NAME)
		    ? copy_index(w->s, store_index_path(w->s), &w->ix, &why)
		    : error_set(&why, -ENOENT, 0, "there is none");
	/* A newer program's is not thrown away. */
	if (r == -ENOTSUP || r == -ENOMEM)
		return error_set(w->err, r, 0, "%s", why.msg);
	if (r >= 0)
		return 0;
	snprintf(w->result->unused, sizeof(w->result->unused), "%.255s",
		 why.msg);
	unlink_new(w->s);
	return index_open(path, &w->ix, w->err);
}

int rebuild(struct store *s, const struct rebuild_options *o,
	    struct rebuild_result *ret, struct error *err)
{
	struct work *w = calloc(1, sizeof(*w));
	struct survey_result found;
	int r = w ? openssl_load(err)
		  : error_set(err, -ENOMEM, 0, "out of memory");

	*ret = (struct rebuild_result){ .no_data = 0 };
	if (!w)
		return r;
	w->s = s;
	w->o = o;
	w->result = ret;
	w->err = err;
	if (r >= 0)
		r = begin_with(w);
	if (r >= 0)
		r = index_hurry(w->ix, err);
	if (r >= 0)
		r = store_each(s, add_bytes, w, err);
	if (r >= 0)
		r = store_each(s, take_file, w, err);
	if (r >= 0)
		r = flush(w);
	if (r >= 0)
		r = survey(s, w->ix, false, count_no_data, ret, &found, err);
	while (w->n_pending)
		pending_done(&w->pending[--w->n_pending]);
	index_close(w->ix);
	free(w);
	if (r >= 0)
		r = swap(s, ret, err);
	if (r < 0)
		unlink_new(s);
	return r;
}

/* They are of another time: what they named may be an image's since. */
static int clear_tombstones(struct index_tx *tx, void *opaque,
			    struct error *err)
{
	return tombstones_clear(tx, err);
}

int rebuild_restore(struct store *s, const char *file,
		    struct rebuild_result *ret, struct error *err)
{
	struct index *ix = NULL;
	int r;

	*ret = (struct rebuild_result){ .no_data = 0 };
	unlink_new(s);
	r = copy_index(s, file, &ix, err);
	if (r >= 0)
		r = index_write(ix, clear_tombstones, NULL, err);
	index_close(ix);
	if (r >= 0)
		r = swap(s, ret, err);
	if (r < 0)
		unlink_new(s);
	return r;
}

/* ---- the digests alone ---- */

static int compare_file(void *opaque, const struct store_entry *e)
{
	struct work *w = opaque;
	struct pending p = { .event = REBUILD_KEPT, .trusted = true };
	int r;

	if (!e->id || e->staged || e->file != STORE_DATA)
		return 0;
	r = find_known(w, e->id, &p.c, w->err);
	if (r == KNOWN)
		r = look_at_data(w, &p);
	/* What was deleted meanwhile cannot be read. */
	if (r >= 0 && p.c.image.id && store_file_is(w->s, e->id, STORE_DATA))
		tell(w, p.flaw, e->id, p.why);
	pending_done(&p);
	return r < 0 ? r : 0;
}

int rebuild_compare(struct store *s, struct index *ix,
		    const struct rebuild_options *o, struct rebuild_result *ret,
		    struct error *err)
{
	struct work *w = calloc(1, sizeof(*w));
	int r = w ? openssl_load(err)
		  : error_set(err, -ENOMEM, 0, "out of memory");

	*ret = (struct rebuild_result){ .no_data = 0 };
	if (!w)
		return r;
	w->s = s;
	w->ix = ix;
	w->o = o;
	w->result = ret;
	w->err = err;
	if (r >= 0)
		r = store_each(s, add_bytes, w, err);
	if (r >= 0)
		r = store_each(s, compare_file, w, err);
	free(w);
	return r;
}
