/* SPDX-License-Identifier: BSD-3-Clause */
#include "glance/record-rows.h"
#include "glance/scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "formats/format.h"
#include "glance/digest.h"
#include "glance/inspect.h"
#include "glance/http/json-body.h"
#include "glance/http/text-buf.h"
#include "glance/http/uri.h"
#include "glance/time-text.h"
#include "iouring/beneath.h"

/* Changes that are made durable together. */
#define PENDING_MAX 128U

const char *scan_event_name(enum scan_event e)
{
	static const char *const names[] = { "new", "changed", "gone", "back",
					     "refused" };

	return names[e];
}

/* A file whose image is to be written. */
struct pending {
	enum scan_event event;
	char *path;
	struct record image;
	bool dropped; /* it was deleted by the API, or is gone */
};

struct run {
	struct index *ix;
	const struct scan_options *o;
	struct stat store; /* the folder */
	struct scan_result result;
	struct pending pending[PENDING_MAX];
	size_t n_pending;
};

static void tell(struct run *r, enum scan_event e, const char *path,
		 const char *id, const char *why)
{
	r->result.events[e]++;
	if (r->o->tell)
		r->o->tell(r->o->opaque, e, path, id, why);
}

/* ---- what the location remembers ---- */

static json_int_t mtime_of(const struct stat *st)
{
	return (json_int_t)st->st_mtim.tv_sec * 1000000000 +
	       st->st_mtim.tv_nsec;
}

static struct location *found_location(struct record *r)
{
	size_t i;

	for (i = 0; i < r->n_locations; i++)
		if (!strcmp(r->locations[i].store, SCAN_STORE))
			return &r->locations[i];
	return NULL;
}

/* Takes @metadata over. */
static int remember(struct record *r, json_t *metadata, struct error *err)
{
	struct location *l = found_location(r);
	char *text = metadata ? json_dumps(metadata, JSON_COMPACT) : NULL;

	json_decref(metadata);
	if (!l || !text) {
		free(text);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	free(l->metadata);
	l->metadata = text;
	return 0;
}

static json_t *looks_of(const struct stat *st)
{
	return json_pack("{s:I, s:I}", "size", (json_int_t)st->st_size, "mtime",
			 mtime_of(st));
}

static bool is_missing(const json_t *metadata)
{
	return json_is_true(json_object_get(metadata, "missing"));
}

static bool looks_like(const json_t *metadata, const struct stat *st)
{
	return json_integer_value(json_object_get(metadata, "size")) ==
		       (json_int_t)st->st_size &&
	       json_integer_value(json_object_get(metadata, "mtime")) ==
		       mtime_of(st);
}

/* ---- writing ---- */

static int write_one(struct index_tx *tx, struct pending *p, struct error *err)
{
	struct error why = { 0 };
	int code = p->event == SCAN_NEW ? record_insert(tx, &p->image, &why)
					: record_update(tx, &p->image, &why);

	p->dropped = code == -EEXIST || code == -ENOENT;
	return code < 0 && !p->dropped ? error_set(err, code, 0, "%s", why.msg)
				       : 0;
}

static int write_pending(struct index_tx *tx, void *opaque, struct error *err)
{
	struct run *r = opaque;
	int code = 0;
	size_t i;

	for (i = 0; i < r->n_pending && code >= 0; i++)
		code = write_one(tx, &r->pending[i], err);
	return code;
}

static int flush_pending(struct run *r, struct error *err)
{
	int code = r->n_pending ? index_write(r->ix, write_pending, r, err) : 0;
	size_t i;

	for (i = 0; i < r->n_pending; i++) {
		struct pending *p = &r->pending[i];

		if (code >= 0 && !p->dropped)
			tell(r, p->event, p->path, p->image.id, NULL);
		free(p->path);
		record_done(&p->image);
	}
	r->n_pending = 0;
	return code;
}

/* Takes @image over. */
static int add_pending(struct run *r, enum scan_event event, const char *path,
		       struct record *image, struct error *err)
{
	struct pending *p = &r->pending[r->n_pending++];

	*p = (struct pending){ .event = event,
			       .path = strdup(path),
			       .image = *image };
	*image = (struct record){ 0 };
	if (!p->path)
		return error_set(err, -ENOMEM, 0, "out of memory");
	return r->n_pending == PENDING_MAX ? flush_pending(r, err) : 0;
}

/* ---- a file ---- */

static char *url_of(const char *path)
{
	struct text_buf b = { 0 };
	char part[NAME_MAX + 1];

	text_add(&b, "file://");
	while (*path) {
		size_t len = strcspn(++path, "/");

		snprintf(part, sizeof(part), "%.*s", (int)len, path);
		text_add_char(&b, '/');
		text_add_percent(&b, part);
		path += len;
	}
	return text_buf_take(&b);
}

/*
 * The same for the same file as long as nobody has written to it: who deleted
 * its image does not get it back.
 */
static int make_id(const char *path, const struct stat *st, char **ret,
		   struct error *err)
{
	CLEANUP(freep) char *text = NULL;
	char hex[129];
	int code;

	if (asprintf(&text, "%s %ju %jd %" JSON_INTEGER_FORMAT, path,
		     (uintmax_t)st->st_ino, (intmax_t)st->st_size,
		     mtime_of(st)) < 0) {
		text = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	code = digest_text(text, hex, err);
	if (code < 0)
		return code;
	/* RFC 9562, version 8: whoever makes it knows what it is made of. */
	if (asprintf(ret, "%.8s-%.4s-8%.3s-8%.3s-%.12s", hex, hex + 8, hex + 12,
		     hex + 15, hex + 18) < 0) {
		*ret = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	return 0;
}

static bool ends_in(const char *path, const char *ending)
{
	size_t n = strlen(path), m = strlen(ending);

	return n > m && !strcasecmp(path + n - m, ending);
}

/* A file that was found, opened once: what is looked at is what is checked. */
struct found_file {
	const char *path; /* what its image's location says */
	int fd;
	struct stat st;
};

/* NULL: it is none of an image service's. Any file might be a raw disk. */
static const char *format_of(const struct found_file *f, struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	const struct format_ops *ops;

	if (ends_in(f->path, ".iso"))
		return "iso";
	if (inspect_source(f->fd, &src, err) < 0 ||
	    format_probe(src, &ops, err) < 0)
		return NULL;
	if (!strcmp(ops->name, "raw") && !ends_in(f->path, ".raw") &&
	    !ends_in(f->path, ".img"))
		return NULL;
	return ops->glance_name;
}

/* It will be looked at again when it is closed. */
static bool is_being_written(int fd)
{
	bool busy;

	/*
	 * A lease to read is not had while anybody writes. Who would write
	 * while we have it waits; we are told by a signal that, unlike SIGIO,
	 * nobody dies of.
	 */
	fcntl(fd, F_SETSIG, SIGURG);
	busy = fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN;
	if (!busy)
		fcntl(fd, F_SETLEASE, F_UNLCK);
	return busy;
}

static int name_after(struct record *image, const char *path, struct error *err)
{
	const char *base = strrchr(path, '/') + 1;
	const char *dot = strrchr(base, '.');
	CLEANUP(freep)
	char *name = dot && dot > base ? strndup(base, (size_t)(dot - base))
				       : strdup(base);

	return name ? record_set(&image->name, name, err)
		    : error_set(err, -ENOMEM, 0, "out of memory");
}

static int new_image(struct run *r, const struct found_file *f, const char *url,
		     struct record *ret, struct error *err)
{
	struct location l = { .url = strdup(url),
			      .store = strdup(SCAN_STORE),
			      .metadata = strdup("{}") };
	int code = make_id(f->path, &f->st, &ret->id, err);

	if (code >= 0)
		code = record_insert_location(ret, 0, &l, err);
	if (code >= 0)
		code = name_after(ret, f->path, err);
	if (code >= 0)
		code = record_set(&ret->owner, r->o->owner, err);
	if (code >= 0)
		code = record_set(&ret->container_format, "bare", err);
	if (code >= 0)
		code = record_set(&ret->dialect, "v2", err);
	ret->visibility = r->o->visibility;
	ret->created_usec = ret->updated_usec = time_now_usec();
	ret->status = IMAGE_ACTIVE;
	return code;
}

/* What is seen of the file becomes what is said of the image. */
static int take_looks(struct record *image, const struct found_file *f,
		      const char *format, struct error *err)
{
	CLEANUP(inspection_done) struct inspection found = { 0 };
	int code = record_set(&image->disk_format, format, err);

	if (code >= 0)
		code = inspect_data(image, f->fd, &found, err);
	if (code < 0)
		return code;
	image->has_size = true;
	image->size = (uint64_t)f->st.st_size;
	inspection_apply(&found, image, true);
	/* Of what was there before. */
	free(TAKE_PTR(image->checksum));
	free(TAKE_PTR(image->hash_algo));
	free(TAKE_PTR(image->hash_value));
	return remember(image, looks_of(&f->st), err);
}

/* The image that is known at @url; 0: none, 1: *ret, 2: registered otherwise. */
static int find_known(struct run *r, const char *url, struct record *ret,
		      struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int code = index_read(r->ix, &tx, err);

	if (code >= 0)
		code = index_sql(tx,
				 "SELECT image, store FROM locations"
				 " WHERE url = ? LIMIT 1",
				 &st, err);
	if (code < 0)
		return code;
	index_bind_text(st, 1, url);
	code = index_step(st, err);
	if (code <= 0)
		return code;
	if (strcmp(index_text(st, 1), SCAN_STORE) != 0)
		return 2;
	code = record_load_n(tx, sqlite.column_int64(st, 0), ret, err);
	return code < 0 ? code : 1;
}

static void come_back(struct record *image, const json_t *was)
{
	record_remove_property(image, SCAN_MISSING);
	if (json_is_true(json_object_get(was, "active")) &&
	    image->status == IMAGE_DEACTIVATED)
		image->status = IMAGE_ACTIVE;
}

static int look_at_known(struct run *r, const struct found_file *f,
			 struct record *image, struct error *err)
{
	CLEANUP(json_decrefp)
	json_t *was = json_loads(found_location(image)->metadata, 0, NULL);
	bool back = is_missing(was);
	struct error why = { 0 };
	const char *format;

	if (!back && looks_like(was, &f->st)) {
		r->result.known++;
		return 0;
	}
	if (is_being_written(f->fd))
		return 0;
	format = format_of(f, &why);
	if (!format || take_looks(image, f, format, &why) < 0) {
		tell(r, SCAN_REFUSED, f->path, NULL, why.msg);
		return 0;
	}
	if (back)
		come_back(image, was);
	return add_pending(r, back ? SCAN_BACK : SCAN_CHANGED, f->path, image,
			   err);
}

static int look_at_new(struct run *r, const struct found_file *f,
		       const char *url, struct record *image, struct error *err)
{
	struct error why = { 0 };
	const char *format;
	int code;

	if (is_being_written(f->fd))
		return 0;
	format = format_of(f, &why);
	if (!format)
		return 0;
	code = new_image(r, f, url, image, err);
	if (code < 0)
		return code;
	if (take_looks(image, f, format, &why) < 0) {
		tell(r, SCAN_REFUSED, f->path, NULL, why.msg);
		return 0;
	}
	return add_pending(r, SCAN_NEW, f->path, image, err);
}

static int look_at_file(struct run *r, const struct found_file *f,
			struct error *err)
{
	CLEANUP(record_done) struct record image = { 0 };
	CLEANUP(freep) char *url = url_of(f->path);
	int code = url ? find_known(r, url, &image, err)
		       : error_set(err, -ENOMEM, 0, "out of memory");

	if (code == 1)
		return look_at_known(r, f, &image, err);
	if (code < 0 || code == 2)
		return code < 0 ? code : 0;
	return look_at_new(r, f, url, &image, err);
}

/* ---- the folder ---- */

static bool same_folder(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool is_of_the_store(const char *name)
{
	static const char *const names[] = { "images",	  "incoming",
					     "staging",	  "lost+found",
					     "grant.key", "lock",
					     "lock.clock" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i]))
			return true;
	return !strncmp(name, "index.sqlite", 12);
}

static int look_at_folder(struct run *r, const char *path, int fd,
			  unsigned int depth, struct error *err);

static int open_and_look(struct run *r, int at, const char *name,
			 const char *path, struct error *err)
{
	struct found_file f = { path,
				open_file_beneath(at, name, BENEATH_NO_LINKS) };
	int code = 0;

	/* It has gone just now, or is none for us to read. */
	if (f.fd < 0)
		return 0;
	if (!fstat(f.fd, &f.st) && f.st.st_size)
		code = look_at_file(r, &f, err);
	close(f.fd);
	return code;
}

static int look_at_entry(struct run *r, const char *folder, int at,
			 const char *name, unsigned int depth,
			 struct error *err)
{
	CLEANUP(freep) char *path = NULL;
	struct stat st;

	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0; /* it has gone just now */
	if (asprintf(&path, "%s/%s", strcmp(folder, "/") ? folder : "", name) <
	    0) {
		path = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (S_ISDIR(st.st_mode) && depth < SCAN_DEPTH_MAX)
		return look_at_folder(r, path,
				      open_beneath(at, name,
						   O_RDONLY | O_DIRECTORY, 0,
						   BENEATH_NO_LINKS),
				      depth + 1, err);
	return S_ISREG(st.st_mode) ? open_and_look(r, at, name, path, err) : 0;
}

/*
 * Takes over @fd, or a negative errno. A folder that cannot be read hides what
 * is in it, no more.
 */
static int look_at_folder(struct run *r, const char *path, int fd,
			  unsigned int depth, struct error *err)
{
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct stat st;
	struct dirent *e;
	bool own;
	int code = fd < 0 ? fd : -errno;

	if (!dir) {
		closep(&fd);
		return depth ? 0
			     : error_set(err, code, 0, "%s: %s", path,
					 errno_text(-code));
	}
	code = 0;
	if (r->o->folder)
		r->o->folder(r->o->opaque, path);
	own = !fstat(dirfd(dir), &st) && same_folder(&st, &r->store);
	while (code >= 0 && (e = readdir(dir)))
		if (*e->d_name != '.' && !(own && is_of_the_store(e->d_name)))
			code = look_at_entry(r, path, dirfd(dir), e->d_name,
					     depth, err);
	closedir(dir);
	return code;
}

/* ---- what has gone ---- */

static char *path_of(const char *url)
{
	CLEANUP(uri_done) struct uri u = { 0 };
	struct text_buf b = { 0 };
	size_t i;

	if (uri_parse(url + strlen("file://"), &u, NULL) < 0)
		return NULL;
	for (i = 0; i < u.n_segments; i++) {
		text_add_char(&b, '/');
		text_add(&b, u.segments[i]);
	}
	return text_buf_take(&b);
}

static int mark_gone(struct run *r, const char *path, struct record *image,
		     struct error *err)
{
	json_t *m = json_loads(found_location(image)->metadata, 0, NULL);
	bool active = image->status == IMAGE_ACTIVE;
	int code;

	if (is_missing(m)) {
		json_decref(m);
		return 0;
	}
	if (!m)
		m = json_object();
	json_object_set_new(m, "missing", json_true());
	json_object_set_new(m, "active", json_boolean(active));
	code = remember(image, m, err);
	if (code >= 0)
		code = record_set_property(image, SCAN_MISSING, "true", err);
	if (active)
		image->status = IMAGE_DEACTIVATED;
	return code < 0 ? code : add_pending(r, SCAN_GONE, path, image, err);
}

static int look_for_gone(struct run *r, int64_t n, const char *url,
			 struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	CLEANUP(freep) char *path = path_of(url);
	struct stat st;
	int code;

	if (!path || (!lstat(path, &st) && S_ISREG(st.st_mode)) ||
	    (errno != ENOENT && errno != ENOTDIR))
		return 0;
	code = index_read(r->ix, &tx, err);
	if (code >= 0)
		code = record_load_n(tx, n, &image, err);
	if (code < 0)
		return code == -ENOENT ? 0 : code;
	return found_location(&image) ? mark_gone(r, path, &image, err) : 0;
}

/* All that were found beneath @folder: they are side by side in the index. */
static int each_found(struct run *r, const char *folder, struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	CLEANUP(freep) char *from = url_of(folder);
	CLEANUP(freep) char *to = NULL;
	int code = index_read(r->ix, &tx, err);

	if (code >= 0)
		code = index_sql(
			tx,
			"SELECT image, url FROM locations WHERE"
			" url >= ?1 AND url < ?2 AND store = '" SCAN_STORE "'",
			&st, err);
	if (code < 0)
		return code;
	/* '0' is what follows '/'. */
	if (!from || asprintf(&to, "%s0", from) < 0) {
		to = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	index_bind_text(st, 1, from);
	index_bind_text(st, 2, to);
	while ((code = index_step(st, err)) == 1) {
		code = look_for_gone(r, sqlite.column_int64(st, 0),
				     index_text(st, 1), err);
		if (code < 0)
			break;
	}
	return code;
}

static int open_root(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int scan(struct index *ix, const char *folder, const struct scan_options *o,
	 struct scan_result *ret, struct error *err)
{
	CLEANUP(freep) char *real = realpath(folder, NULL);
	struct run *r = calloc(1, sizeof(*r));
	int code = 0;

	if (!r || !real) {
		code = error_set(err, -errno, 0, "%s: %s", folder,
				 errno_text(errno));
		free(r);
		return code;
	}
	r->ix = ix;
	r->o = o;
	if (stat(o->store, &r->store) < 0)
		code = error_set(err, -errno, 0, "%s: %s", o->store,
				 errno_text(errno));
	if (code >= 0)
		code = each_found(r, real, err);
	if (code >= 0)
		code = flush_pending(r, err);
	if (code >= 0)
		code = look_at_folder(r, real, open_root(real), 0, err);
	if (code >= 0)
		code = flush_pending(r, err);
	else
		while (r->n_pending) {
			free(r->pending[--r->n_pending].path);
			record_done(&r->pending[r->n_pending].image);
		}
	*ret = r->result;
	free(r);
	return code;
}
