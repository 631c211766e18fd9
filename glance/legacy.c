/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two dialects of one older API: Glance v1 under /v1, Cyclades/Image under
 * /image/v1.0. They differ in the spelling of headers, in what a few things
 * are called, and in where data come from: v1 has them in the body, Cyclades
 * at a location, a file of the folder that pithos= names.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/reference.h"
#include "glance/admit.h"
#include "glance/bury.h"
#include "glance/data.h"
#include "glance/glance.h"
#include "glance/http/json-in.h"
#include "glance/image-json.h"
#include "glance/image-list.h"
#include "glance/http/json-body.h"
#include "glance/legacy.h"
#include "glance/limits.h"
#include "glance/locations.h"
#include "glance/members.h"
#include "glance/meta-headers.h"
#include "glance/record-rows.h"
#include "glance/recover.h"
#include "glance/routes.h"
#include "glance/upload.h"

#define LIST_MAX      LIST_LIMIT_MAX
/* Of an image in the way of another's data: whose they are to become. */
#define MOVE_PROPERTY "os_glance_moves_to"

static const struct dialect v1 = { .name = "v1" };
static const struct dialect cyclades = { .name = "cyclades", .cyclades = true };

static const struct dialect *dialect_of(const struct request *q)
{
	return strcmp(q->uri.segments[0], "v1") ? &cyclades : &v1;
}

/* The image's id in "/v1/images/ID", "/image/v1.0/images/ID". */
static const char *id_of(const struct request *q)
{
	return q->uri.segments[dialect_of(q)->cyclades ? 3 : 2];
}

static const char *member_of(const struct request *q)
{
	return q->uri.segments[dialect_of(q)->cyclades ? 5 : 4];
}

/* A refusal for want of permission is 405 in both. */
static void refuse(struct request *q, const struct error *err)
{
	if (err->code == -EPERM)
		respond_error(q, 405, err->msg);
	else
		respond_failure(q, err);
}

/* ---- JSON ---- */

static void add_member(struct text_buf *b, const char *name, const char *value)
{
	text_addf(b, ", \"%s\": ", name);
	text_add_json(b, value);
}

static void add_number(struct text_buf *b, const char *name, uint64_t value)
{
	text_addf(b, ", \"%s\": %" PRIu64, name, value);
}

static void add_properties(struct text_buf *b, const struct record *r)
{
	size_t i;

	text_add(b, ", \"properties\": {");
	for (i = 0; i < r->n_properties; i++) {
		if (i)
			text_add(b, ", ");
		text_add_json(b, r->properties[i].name);
		text_add(b, ": ");
		text_add_json(b, r->properties[i].value);
	}
	text_add_char(b, '}');
}

static void add_detail(struct text_buf *b, const struct dialect *d,
		       const struct record *r)
{
	bool public = r->visibility == IMAGE_PUBLIC;
	char text[40];

	if (d->cyclades) {
		add_member(b, "location", location_shown(r));
		add_member(b, "is_public", public ? "True" : "False");
	} else {
		text_addf(b, ", \"is_public\": %s, \"protected\": %s",
			  public ? "true" : "false",
			  r->protected_ ? "true" : "false");
		add_number(b, "min_ram", r->min_ram);
		add_number(b, "min_disk", r->min_disk);
		text_add(b, ", \"deleted\": false");
	}
	add_member(b, "checksum", r->checksum);
	meta_time(d, r->created_usec, text);
	add_member(b, "created_at", text);
	meta_time(d, r->updated_usec, text);
	add_member(b, "updated_at", text);
	add_member(b, "deleted_at", d->cyclades ? "" : NULL);
	add_member(b, "owner", r->owner);
	add_properties(b, r);
}

static void add_image(struct text_buf *b, const struct dialect *d,
		      const struct record *r, bool detail)
{
	text_add(b, "{\"id\": ");
	text_add_json(b, r->id);
	add_member(b, "name", r->name);
	add_member(b, "status", meta_status(d, r->status));
	add_member(b, "disk_format", r->disk_format);
	add_member(b, "container_format", r->container_format);
	add_number(b, "size", r->size);
	if (detail)
		add_detail(b, d, r);
	else if (!d->cyclades)
		add_member(b, "checksum", r->checksum);
	text_add_char(b, '}');
}

/* ---- lists ---- */

static int parse_bound(struct image_list *l, enum list_op op, const char *name,
		       const char *value, struct error *err)
{
	char *end;
	long long n;

	errno = 0;
	n = strtoll(value, &end, 10);
	if (!*value || *end || errno || n < 0)
		return error_set(err, -EINVAL, 0,
				 "%s is a number of bytes, not \"%.32s\"", name,
				 value);
	return image_list_add_number(l, "size", op, n, err);
}

static int parse_filter(struct image_list *l, const struct dialect *d,
			const char *name, const char *value, struct error *err)
{
	static const char *const columns[] = { "name", "container_format",
					       "disk_format", "status" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(columns); i++) {
		if (strcmp(columns[i], name) != 0)
			continue;
		if (d->cyclades && !strcmp(value, "available"))
			value = "active";
		return image_list_add_text(l, columns[i], LIST_EQ, value, err);
	}
	if (!strcmp(name, "size_min"))
		return parse_bound(l, LIST_GTE, name, value, err);
	if (!strcmp(name, "size_max"))
		return parse_bound(l, LIST_LTE, name, value, err);
	if (!strncmp(name, "property-", 9))
		return image_list_add_property(l, name + 9, value, err);
	return 0;
}

static int parse_page(struct image_list *l, const struct uri *u,
		      struct error *err)
{
	const char *key = uri_query(u, "sort_key");
	const char *dir = uri_query(u, "sort_dir");
	const char *limit = uri_query(u, "limit");
	char *end;

	if (dir && strcmp(dir, "asc") && strcmp(dir, "desc"))
		return error_set(err, -EINVAL, 0,
				 "sort_dir is asc or desc, not \"%.32s\"", dir);
	l->limit = LIST_MAX;
	l->marker = uri_query(u, "marker");
	if (limit) {
		l->limit = strtoull(limit, &end, 10);
		if (*limit < '0' || *limit > '9' || *end)
			return error_set(err, -EINVAL, 0,
					 "limit is a number, not \"%.32s\"",
					 limit);
		l->limit = min_u64(l->limit, LIST_MAX);
	}
	return image_list_add_sort(l, key ? key : "created_at",
				   dir && !strcmp(dir, "desc"), err);
}

struct listing {
	const struct dialect *d;
	struct text_buf b;
	bool detail, any;
};

static int list_image(void *opaque, const struct record *r)
{
	struct listing *l = opaque;

	if (l->any)
		text_add(&l->b, ", ");
	l->any = true;
	add_image(&l->b, l->d, r, l->detail);
	return 0;
}

static void respond_list(struct request *q, bool detail)
{
	struct glance *g = q->app;
	const struct dialect *d = dialect_of(q);
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(image_list_done)
	struct image_list list = { .who = &q->who, .member_status = NULL };
	struct listing l = { .d = d, .detail = detail };
	struct error err = { 0 };
	size_t i;
	int r = parse_page(&list, &q->uri, &err);

	for (i = 0; i < q->uri.n_query && r >= 0; i++)
		r = parse_filter(&list, d, q->uri.query[i].name,
				 q->uri.query[i].value, &err);
	if (r >= 0)
		r = index_read(g->index, &tx, &err);
	text_add(&l.b, d->cyclades ? "[" : "{\"images\": [");
	if (r >= 0)
		r = image_list_run(tx, &list, list_image, &l, &err);
	text_add(&l.b, d->cyclades ? "]" : "]}");
	if (r < 0) {
		text_buf_done(&l.b);
		respond_failure(q, &err);
		return;
	}
	respond_json(q, 200, &l.b);
}

static void get_list(struct request *q)
{
	respond_list(q, false);
}

static void get_detail(struct request *q)
{
	respond_list(q, true);
}

/* ---- one image ---- */

static int load(struct request *q, struct record *ret, struct error *err)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	int r = index_read(g->index, &tx, err);

	return r < 0 ? r : image_load(tx, &q->who, id_of(q), ret, err);
}

static void head_image(struct request *q)
{
	CLEANUP(record_done) struct record image = { 0 };
	struct error err = { 0 };

	if (load(q, &image, &err) < 0) {
		respond_failure(q, &err);
		return;
	}
	meta_respond(q, dialect_of(q), &image);
	respond_empty(q, 200);
}

static void get_data(struct request *q)
{
	CLEANUP(record_done) struct record image = { 0 };
	struct error err = { 0 };

	if (load(q, &image, &err) < 0) {
		respond_failure(q, &err);
		return;
	}
	meta_respond(q, dialect_of(q), &image);
	data_send(q, &image);
}

/* What v1 answers to a change. */
static void respond_image(struct request *q, const char *id)
{
	struct glance *g = q->app;
	const struct dialect *d = dialect_of(q);
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	struct text_buf b = { 0 };
	struct error err = { 0 };
	int r = index_read(g->index, &tx, &err);

	if (r >= 0)
		r = record_load(tx, id, &image, &err);
	if (r < 0) {
		respond_failure(q, &err);
		return;
	}
	meta_respond(q, d, &image);
	text_add(&b, "{\"image\": ");
	add_image(&b, d, &image, true);
	text_add_char(&b, '}');
	respond_json(q, 200, &b);
}

/* ---- a new image ---- */

static bool has_body(const struct request *q)
{
	return q->has_length ? q->content_length > 0
			     : request_header(q, "Transfer-Encoding") != NULL;
}

/* Does a new image of v1's name a file that is to be registered in place? */
static bool is_in_place(const struct request *q, const struct meta *m)
{
	const struct glance *g = q->app;

	return q->method == HTTP_POST && !dialect_of(q)->cyclades &&
	       m->location && !strncmp(m->location, "file://", 7) &&
	       !has_body(q) && location_rules_show(g->locations);
}

/* v1 has data in the body; what else it may come from is not taken. */
static int check_sources(const struct request *q, const struct meta *m,
			 struct error *err)
{
	if (dialect_of(q)->cyclades)
		return 0;
	if ((m->location && *m->location && !is_in_place(q, m)) ||
	    request_header(q, "X-Glance-API-Copy-From"))
		return error_set(err, -EINVAL, 0,
				 "External sources are not supported: send "
				 "the data as the body");
	return 0;
}

static int check_new(const struct request *q, const struct meta *m,
		     struct error *err)
{
	enum image_status status;

	if (!m->name || !*m->name)
		return error_set(err, -EINVAL, 0,
				 "X-Image-Meta-Name is missing");
	if (m->id && !record_id_ok(m->id))
		return error_set(err, -EINVAL, 0,
				 "X-Image-Meta-Id is not a UUID");
	if (m->status && !image_status_by_name(m->status, &status) &&
	    strcmp(m->status, "available") != 0)
		return error_set(err, -EINVAL, 0,
				 "X-Image-Meta-Status is not one");
	if (!q->who.admin && !q->who.member)
		return error_set(err, -EPERM, 0,
				 "You are not authorized to add images.");
	if (m->has_public && m->is_public && !q->who.admin)
		return error_set(err, -EPERM, 0,
				 "You are not authorized to publish images.");
	if (m->owner && !q->who.admin &&
	    (!q->who.project || strcmp(m->owner, q->who.project) != 0))
		return error_set(err, -EPERM, 0,
				 "You are not authorized to add images of "
				 "others.");
	return check_sources(q, m, err);
}

static int add_location(struct record *r, const char *url, struct error *err)
{
	struct location l = { .url = strdup(url),
			      .store = strdup("pithos"),
			      .metadata = strdup("{}") };

	return record_insert_location(r, 0, &l, err);
}

struct insertion {
	const struct request *q;
	const struct meta *meta;
	char id[37];
};

static int register_in_place(const struct insertion *i, struct record *r,
			     struct error *err)
{
	int code = location_add_file(i->q->app, &i->q->who, r,
				     i->meta->location, err);

	if (code >= 0 && i->meta->has_size && i->meta->size != r->size)
		return error_set(err, -EINVAL, 0,
				 "Supplied size (%" PRIu64 ") and size of the "
				 "file (%" PRIu64 ") did not match.",
				 i->meta->size, r->size);
	return code < 0 || !i->meta->checksum
		       ? code
		       : record_set(&r->checksum, i->meta->checksum, err);
}

static int insert(struct index_tx *tx, void *opaque, struct error *err)
{
	struct insertion *i = opaque;
	const struct glance *g = i->q->app;
	const struct dialect *d = dialect_of(i->q);
	CLEANUP(record_done) struct record r = { .visibility = IMAGE_SHARED };
	int code = limits_check(g->limits, tx, i->q->who.project,
				LIMIT_COUNT_TOTAL, 1, err);

	if (code >= 0)
		code = record_set(&r.id, i->id, err);
	if (code >= 0)
		code = record_set(&r.dialect, d->name, err);
	if (code >= 0)
		code = record_set(&r.owner, i->q->who.project, err);
	if (code >= 0)
		code = record_set(&r.disk_format,
				  d->cyclades ? "diskdump" : "raw", err);
	if (code >= 0)
		code = record_set(&r.container_format, "bare", err);
	if (code >= 0)
		code = meta_apply(i->meta, &r, err);
	if (code >= 0 && d->cyclades)
		code = add_location(&r, i->meta->location, err);
	if (code >= 0 && is_in_place(i->q, i->meta))
		code = register_in_place(i, &r, err);
	if (code >= 0)
		code = glance_check_id(g, r.id, err);
	return code < 0 ? code : record_insert(tx, &r, err);
}

static int drop_row(struct index_tx *tx, void *opaque, struct error *err)
{
	CLEANUP(record_done) struct record r = { 0 };
	int code = record_load(tx, opaque, &r, err);

	return code < 0 ? code : record_delete(tx, &r, err);
}

/* Image @id comes to nothing. */
static int drop(struct glance *g, const char *id, struct error *err)
{
	int r = index_write(g->index, drop_row, (void *)(uintptr_t)id, err);

	if (r >= 0)
		glance_bury(g, id);
	return r;
}

/* One name for one thing: no part is empty, "." or "..". */
static bool is_plain_path(const char *path)
{
	size_t len;

	for (; *path; path += len + (path[len] == '/')) {
		len = strcspn(path, "/");
		if (!len || (len == 1 && *path == '.') ||
		    (len == 2 && !strncmp(path, "..", 2)) ||
		    (path[len] && !path[len + 1]))
			return false;
	}
	return true;
}

/*
 * ACCOUNT/CONTAINER/OBJECT, of the asker's project, or, for an administrator,
 * of any. Who is not let in hears what he would if there were nothing.
 */
static int open_object(const struct glance *g, const struct identity *who,
		       const char *path, struct error *err)
{
	CLEANUP(folder_unrefp) struct folder *all = NULL;
	CLEANUP(folder_unrefp) struct folder *account = NULL;
	size_t len = strcspn(path, "/");
	CLEANUP(freep) char *name = strndup(path, len);
	int r;

	if (!name)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (!path[len] || !is_plain_path(path) ||
	    (!who->admin && (!who->project || strcmp(name, who->project) != 0)))
		return -ENOENT;
	r = folder_open(g->config->pithos, &all, err);
	if (r < 0)
		return r;
	if (folder_open_in(all, name, &account, NULL) < 0)
		return -ENOENT;
	return folder_open_file(account, path + len + 1);
}

/* The file at @location, which the folder of pithos= has. */
static int open_location(const struct request *q, const char *location,
			 struct source **ret, struct error *err)
{
	static const char scheme[] = "pithos://";
	const struct glance *g = q->app;
	int r;

	if (!location || !*location)
		return error_set(err, -ENOSYS, 0,
				 "X-Image-Meta-Location is missing");
	if (strncmp(location, scheme, strlen(scheme)) || !g->config->pithos)
		return error_set(
			err, -EINVAL, 0,
			"X-Image-Meta-Location: only pithos://ACCOUNT/"
			"CONTAINER/OBJECT, where there is a folder for "
			"it");
	r = open_object(g, &q->who, location + strlen(scheme), err);
	if (r >= 0)
		return file_source_adopt(r, 0, ret, err);
	return err->code ? err->code
			 : error_set(err, -ENOENT, 0,
				     "there is nothing at %.256s", location);
}

/*
 * The new image of @q's headers, queued; @wanted_id NULL: any. ret_id has room
 * for 37 bytes.
 */
static int create(struct request *q, const struct meta *m,
		  const char *wanted_id, char *ret_id, struct error *err)
{
	struct glance *g = q->app;
	struct insertion i = { .q = q, .meta = m };
	int r = check_new(q, m, err);

	if (r < 0)
		return r;
	if (wanted_id)
		snprintf(i.id, sizeof(i.id), "%s", wanted_id);
	else
		record_new_id(i.id);
	r = index_write(g->index, insert, &i, err);
	if (r >= 0)
		memcpy(ret_id, i.id, sizeof(i.id));
	return r;
}

struct registration {
	const struct request *q;
	const char *location;
	const char *except; /* this image may stay; "": none may */
	char old_id[37]; /* out; "": there was none */
};

/* Of the images at that location, one that the asker registered before. */
static int find_registered(struct index_tx *tx, struct registration *g,
			   struct record *image, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "SELECT l.image FROM locations AS l JOIN images AS i "
			  "ON i.n = l.image WHERE l.url = ? AND l.store = "
			  "'pithos' AND i.id <> ?",
			  &st, err);

	g->old_id[0] = 0;
	if (r < 0)
		return r;
	index_bind_text(st, 1, g->location);
	index_bind_text(st, 2, g->except);
	r = index_step(st, err);
	if (r == 1)
		r = record_load_n(tx, sqlite.column_int64(st, 0), image, err);
	if (r < 0 || !image->id)
		return r;
	if (!image_may_change(&g->q->who, image))
		return error_set(err, -EPERM, 0,
				 "Somebody else has registered %.256s",
				 g->location);
	snprintf(g->old_id, sizeof(g->old_id), "%s", image->id);
	return 0;
}

/*
 * The new image @image takes the place of @old, under its id; what is left of
 * the new one only says that the data are still to be moved.
 */
static int replace(struct index_tx *tx, struct record *old,
		   struct record *image, struct error *err)
{
	CLEANUP(record_done) struct record rest = { 0 };
	int r = record_load_n(tx, image->n, &rest, err);

	while (rest.n_locations)
		record_remove_location(&rest, 0);
	rest.status = IMAGE_PENDING_DELETE;
	if (r >= 0)
		r = record_set_property(&rest, MOVE_PROPERTY, old->id, err);
	if (r >= 0)
		r = record_update(tx, &rest, err);
	if (r >= 0)
		r = record_set(&image->id, old->id, err);
	if (r < 0)
		return r;
	/* It was looked at when it came, under the other id. */
	image->seen_as = admit_label(image);
	image->n = old->n;
	image->created_usec = old->created_usec;
	r = members_clear(tx, old->n, err);
	return r < 0 ? r : record_update(tx, image, err);
}

static int replace_registered(struct index_tx *tx, void *opaque,
			      struct error *err)
{
	struct registration *g = opaque;
	CLEANUP(record_done) struct record old = { 0 };
	CLEANUP(record_done) struct record image = { 0 };
	int r = find_registered(tx, g, &old, err);

	if (r < 0 || !old.id)
		return r;
	r = record_load(tx, g->except, &image, err);
	return r < 0 ? r : replace(tx, &old, &image, err);
}

/* What a replaced image's data are still to be moved. */
static int finish_move(struct glance *g, const char *from, const char *to,
		       struct error *err)
{
	int r = store_rename(g->store, from, to, err);

	return r < 0 ? r : drop(g, from, err);
}

int legacy_recover(struct glance *g, struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_read(g->index, &tx, err);

	if (r >= 0)
		r = index_sql(tx,
			      "SELECT images.id, value FROM properties JOIN "
			      "images ON images.n = image WHERE properties.name"
			      " = '" MOVE_PROPERTY
			      "' AND status = 'pending_delete'",
			      &st, err);
	while (r >= 0 && (r = index_step(st, err)) == 1)
		r = finish_move(g, index_text(st, 0), index_text(st, 1), err);
	return r;
}

/* May the asker register what is there? */
static int check_registered(struct registration *old, struct error *err)
{
	struct glance *g = old->q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	int r = index_read(g->index, &tx, err);

	return r < 0 ? r : find_registered(tx, old, &image, err);
}

static void begin_post(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(meta_done) struct meta m = { 0 };
	struct error err = { 0 };
	char id[37];
	int r;

	if (!has_body(q) || dialect_of(q)->cyclades)
		return;
	r = meta_parse(q, &m, &err);
	if (r >= 0)
		r = create(q, &m, m.id, id, &err);
	if (r >= 0) {
		r = data_upload_begin(q, id, UPLOAD_DATA_V1, &err);
		if (r < 0)
			drop(g, id, NULL);
	}
	if (r < 0)
		refuse(q, &err);
}

/* Data that are not what the headers say kill the image. */
static void finish_data(struct request *q, const struct meta *m)
{
	char id[37];
	struct error err = { 0 };

	snprintf(id, sizeof(id), "%s", upload_id(q->state));
	if (data_upload_finish(q, m->has_size ? &m->size : NULL, m->checksum,
			       &err) >= 0)
		respond_image(q, id);
	else
		refuse(q, &err);
}

/*
 * The new image @id, whole: then it takes the place of what was registered there
 * before, whose id is in @id afterwards.
 */
static int take_registered(struct request *q, const struct meta *m,
			   struct source *src, char *id, struct error *err)
{
	struct glance *g = q->app;
	struct registration old = { .q = q,
				    .location = m->location,
				    .except = id };
	CLEANUP(upload_freep) struct upload *u = NULL;
	int r = upload_begin(g, &q->who, id, UPLOAD_DATA, &u, err);

	if (r >= 0)
		r = upload_copy(u, src, err);
	if (r >= 0)
		r = upload_finish(u, m->has_size ? &m->size : NULL, m->checksum,
				  err);
	if (r < 0) {
		drop(g, id, NULL);
		return r;
	}
	r = index_write(g->index, replace_registered, &old, err);
	if (r < 0)
		drop(g, id, NULL);
	if (r < 0 || !*old.old_id)
		return r;
	r = finish_move(g, id, old.old_id, err);
	memcpy(id, old.old_id, sizeof(old.old_id));
	return r;
}

/*
 * Cyclades registers what lies at a location already; again, when that was
 * registered before: the image keeps its id, all metadata are anew. The data are copied, so that the image stays what it was looked at as.
 */
static void register_image(struct request *q, const struct meta *m)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	struct registration old = { .q = q,
				    .location = m->location,
				    .except = "" };
	struct error err = { 0 };
	char id[37];
	int r = check_new(q, m, &err);

	if (r >= 0)
		r = open_location(q, m->location, &src, &err);
	if (r >= 0)
		r = check_registered(&old, &err);
	if (r >= 0)
		r = create(q, m, *old.old_id ? NULL : m->id, id, &err);
	if (r >= 0)
		r = take_registered(q, m, src, id, &err);
	if (r >= 0)
		respond_image(q, id);
	else if (r == -ENOSYS)
		respond_error(q, 501, err.msg);
	else
		refuse(q, &err);
}

static void post_image(struct request *q)
{
	CLEANUP(meta_done) struct meta m = { 0 };
	struct error err = { 0 };
	char id[37];

	if (meta_parse(q, &m, &err) < 0)
		refuse(q, &err);
	else if (dialect_of(q)->cyclades)
		register_image(q, &m);
	else if (q->sink)
		finish_data(q, &m);
	else if (create(q, &m, m.id, id, &err) < 0)
		refuse(q, &err);
	else
		respond_image(q, id);
}

/* ---- changing one ---- */

struct change {
	const struct request *q;
	const struct meta *meta;
	const json_t *memberships;
	struct record image;
	int (*run)(struct index_tx *tx, struct change *c, struct error *err);
};

static int run_change(struct index_tx *tx, void *opaque, struct error *err)
{
	struct change *c = opaque;
	int r = image_load_own(tx, &c->q->who, id_of(c->q), &c->image, err);

	return r < 0 ? r : c->run(tx, c, err);
}

/* Answers on failure. */
static int change(struct request *q, struct change *c)
{
	struct glance *g = q->app;
	struct error err = { 0 };
	int r;

	c->q = q;
	r = index_write(g->index, run_change, c, &err);
	if (r < 0)
		refuse(q, &err);
	return r;
}

/* Cyclades: an image is put out of use, and back, by its status. */
static int set_status(const struct glance *g, const struct meta *m,
		      struct record *r, struct error *err)
{
	enum image_status to;

	if (!m->status)
		return 0;
	if (!strcmp(m->status, "available"))
		to = IMAGE_ACTIVE;
	else if (!image_status_by_name(m->status, &to))
		return error_set(err, -EINVAL, 0,
				 "X-Image-Meta-Status is not one");
	if (to != r->status &&
	    !((to == IMAGE_ACTIVE || to == IMAGE_DEACTIVATED) &&
	      image_status_may_become(r->status, to) && r->checksum))
		return error_set(err, -EINVAL, 0,
				 "X-Image-Meta-Status: %s does not become %s",
				 image_status_name(r->status),
				 image_status_name(to));
	if (to == r->status)
		return 0;
	r->status = to;
	return to == IMAGE_ACTIVE ? location_look_again(g, r, err) : 0;
}

static int update(struct index_tx *tx, struct change *c, struct error *err)
{
	int r;

	if (c->meta->has_public && c->meta->is_public &&
	    c->image.visibility != IMAGE_PUBLIC && !c->q->who.admin)
		return error_set(err, -EPERM, 0,
				 "You are not authorized to publish images.");
	if (c->meta->owner && !c->q->who.admin &&
	    (!c->image.owner || strcmp(c->meta->owner, c->image.owner) != 0))
		return error_set(err, -EPERM, 0,
				 "You are not authorized to give images away.");
	r = dialect_of(c->q)->cyclades
		    ? set_status(c->q->app, c->meta, &c->image, err)
		    : 0;
	if (r >= 0)
		r = meta_apply(c->meta, &c->image, err);
	return r < 0 ? r : record_update(tx, &c->image, err);
}

static void begin_put(struct request *q)
{
	CLEANUP(meta_done) struct meta m = { 0 };
	struct error err = { 0 };
	int r;

	if (!has_body(q) || dialect_of(q)->cyclades)
		return;
	r = meta_parse(q, &m, &err);
	if (r >= 0)
		r = check_sources(q, &m, &err);
	if (r >= 0)
		r = data_upload_begin(q, id_of(q), UPLOAD_DATA_V1, &err);
	if (r < 0)
		refuse(q, &err);
}

static void put_image(struct request *q)
{
	CLEANUP(meta_done) struct meta m = { 0 };
	struct change c = { .run = update, .meta = &m };
	struct error err = { 0 };

	if (meta_parse(q, &m, &err) < 0 || check_sources(q, &m, &err) < 0)
		refuse(q, &err);
	else if (change(q, &c) >= 0) {
		if (q->sink)
			finish_data(q, &m);
		else
			respond_image(q, c.image.id);
	}
	record_done(&c.image);
}

static int remove_one(struct index_tx *tx, struct change *c, struct error *err)
{
	if (c->image.protected_)
		return error_set(err, -EPERM, 0, "Image is protected");
	return record_delete(tx, &c->image, err);
}

static void delete_image(struct request *q)
{
	struct glance *g = q->app;
	struct change c = { .run = remove_one };

	if (change(q, &c) >= 0) {
		glance_bury(g, c.image.id);
		respond_empty(q, 200);
	}
	record_done(&c.image);
}

/* ---- members ---- */

static int list_member(void *opaque, const struct member *m)
{
	return json_array_append_new(
		opaque, json_pack("{s:s, s:b}", "member_id", m->project,
				  "can_share", m->can_share));
}

static void get_members(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	json_t *list = json_array();
	struct error err = { 0 };
	int r = index_read(g->index, &tx, &err);

	if (r >= 0)
		r = image_load(tx, &q->who, id_of(q), &image, &err);
	if (r >= 0 && image.visibility == IMAGE_SHARED)
		r = members_each(tx, image.n, list_member, list, &err);
	if (r < 0) {
		json_decref(list);
		respond_failure(q, &err);
		return;
	}
	respond_json_value(q, 200, json_pack("{s:o}", "members", list));
}

/* can_share: v1 keeps it, Cyclades has none. */
static bool may_share(const struct change *c, const json_t *membership)
{
	return !dialect_of(c->q)->cyclades &&
	       json_is_true(json_object_get(membership, "can_share"));
}

static int replace_members(struct index_tx *tx, struct change *c,
			   struct error *err)
{
	int r = members_clear(tx, c->image.n, err);
	json_t *one;
	size_t i;

	json_array_foreach(c->memberships, i, one) {
		const char *project = json_member(one, "member_id");

		if (r >= 0 && (!project || !*project || strlen(project) > 255))
			r = error_set(err, -EINVAL, 0,
				      "a membership has a member_id");
		if (r >= 0)
			r = member_put(tx, c->image.n, project,
				       may_share(c, one), err);
	}
	return r;
}

static void put_members(struct request *q)
{
	CLEANUP(json_decrefp) json_t *body = request_json_object(q);
	struct change c = { .run = replace_members };

	if (!body)
		return;
	c.memberships = json_object_get(body, "memberships");
	if (!json_is_array(c.memberships))
		respond_error(q, 400, "\"memberships\" is a list");
	else if (change(q, &c) >= 0)
		respond_empty(q, 204);
	record_done(&c.image);
}

static int put_one_member(struct index_tx *tx, struct change *c,
			  struct error *err)
{
	return member_put(tx, c->image.n, member_of(c->q),
			  may_share(c, c->memberships), err);
}

static void put_member(struct request *q)
{
	CLEANUP(json_decrefp)
	json_t *body = q->body.len ? request_json_object(q) : json_object();
	struct change c = { .run = put_one_member };

	if (!body)
		return;
	c.memberships = json_object_get(body, "member");
	if (change(q, &c) >= 0)
		respond_empty(q, 204);
	record_done(&c.image);
}

static int remove_member(struct index_tx *tx, struct change *c,
			 struct error *err)
{
	return member_remove(tx, c->image.n, member_of(c->q), err);
}

static void delete_member(struct request *q)
{
	struct change c = { .run = remove_member };

	if (change(q, &c) >= 0)
		respond_empty(q, 204);
	record_done(&c.image);
}

static int list_shared(void *opaque, const char *image, bool can_share)
{
	return json_array_append_new(opaque,
				     json_pack("{s:s, s:b}", "image_id", image,
					       "can_share", can_share));
}

static void get_shared(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	const char *project = q->uri.segments[dialect_of(q)->cyclades ? 3 : 2];
	json_t *list = json_array();
	struct error err = { 0 };
	int r = index_read(g->index, &tx, &err);

	/* Whose they are is his business, and an administrator's. */
	if (r >= 0 && !q->who.admin &&
	    (!q->who.project || strcmp(q->who.project, project) != 0))
		r = error_set(&err, -ENOENT, 0, "There is no such member.");
	if (r >= 0)
		r = members_each_image(tx, project, list_shared, list, &err);
	if (r < 0) {
		json_decref(list);
		respond_failure(q, &err);
		return;
	}
	respond_json_value(q, 200, json_pack("{s:o}", "shared_images", list));
}

static void get_versions(struct request *q)
{
	respond_json_value(q, 200,
			   json_pack("{s:[{s:s, s:s, s:[{s:s, s:s}]}]}",
				     "versions", "id", "v1.0", "status",
				     "CURRENT", "links", "rel", "self", "href",
				     "/image/v1.0/"));
}

#define COMMON(root)                                                          \
	{ HTTP_GET, root "/images", get_list },                               \
		{ HTTP_GET, root "/images/detail", get_detail },              \
		{ HTTP_POST, root "/images", post_image, begin_post },        \
		{ HTTP_HEAD, root "/images/{}", head_image },                 \
		{ HTTP_PUT, root "/images/{}", put_image, begin_put },        \
		{ HTTP_GET, root "/images/{}/members", get_members },         \
		{ HTTP_PUT, root "/images/{}/members", put_members },         \
		{ HTTP_PUT, root "/images/{}/members/{}", put_member },       \
		{ HTTP_DELETE, root "/images/{}/members/{}", delete_member }, \
	{                                                                     \
		HTTP_GET, root "/shared-images/{}", get_shared                \
	}

const struct route legacy_routes[] = {
	COMMON("/v1"),
	COMMON("/image/v1.0"),
	{ HTTP_GET, "/v1/images/{}", get_data },
	{ HTTP_DELETE, "/v1/images/{}", delete_image },
	{ HTTP_GET, "/image", get_versions, NULL, ROUTE_PUBLIC },
	{ 0 },
};
