/* SPDX-License-Identifier: BSD-3-Clause */
/* Images of the older dialects that are made, or registered anew. */
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
#include "glance/image-fields.h"
#include "glance/image-json.h"
#include "glance/legacy-inside.h"
#include "glance/legacy.h"
#include "glance/limits.h"
#include "glance/locations.h"
#include "glance/members.h"
#include "glance/record-rows.h"
#include "glance/tombstone.h"
#include "glance/upload.h"

/* Of an image in the way of another's data: whose they are to become. */
#define MOVE_PROPERTY "os_glance_moves_to"

static bool is_afar(const char *location)
{
	return !strncmp(location, "http://", 7) ||
	       !strncmp(location, "https://", 8);
}

/*
 * Does a new image of v1's name a file that is to be registered in place, or data at
 * a web server?
 */
static bool is_elsewhere(const struct request *q, const struct meta *m)
{
	const struct glance *g = q->app;

	return q->method == HTTP_POST && !legacy_dialect(q)->cyclades &&
	       m->location &&
	       (!strncmp(m->location, "file://", 7) || is_afar(m->location)) &&
	       !request_has_body(q) && location_rules_show(g->locations);
}

int legacy_check_sources(const struct request *q, const struct meta *m,
			 struct error *err)
{
	if (legacy_dialect(q)->cyclades)
		return 0;
	if ((m->location && *m->location && !is_elsewhere(q, m)) ||
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
	return legacy_check_sources(q, m, err);
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
	json_t *afar; /* the location at a web server; NULL: there is none */
	struct location_sizes sizes; /* what that has told of it */
	char id[37];
};

/* Asks the web server, before anything is held. */
static int probe(struct insertion *i, struct error *err)
{
	CLEANUP(json_decrefp) json_t *list = NULL;
	int r;

	i->afar =
		json_pack("{s:s, s:{}}", "url", i->meta->location, "metadata");
	list = json_pack("[O]", i->afar);
	if (!list)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = image_field_check("locations", list, err);
	return r < 0 ? r : location_probe(i->q->app, i->afar, &i->sizes, err);
}

static int register_elsewhere(const struct insertion *i, struct record *r,
			      struct error *err)
{
	const struct location_change x = { .g = i->q->app,
					   .who = &i->q->who,
					   .sizes = &i->sizes };
	int code = i->afar ? location_add(&x, r, i->afar, err)
			   : location_add_file(i->q->app, &i->q->who, r,
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
	const struct dialect *d = legacy_dialect(i->q);
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
	if (code >= 0 && !d->cyclades)
		code = meta_match_formats(i->meta, &r, err);
	if (code >= 0 && d->cyclades)
		code = add_location(&r, i->meta->location, err);
	if (code >= 0 && is_elsewhere(i->q, i->meta))
		code = register_elsewhere(i, &r, err);
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
	if (is_elsewhere(q, m) && is_afar(m->location))
		r = probe(&i, err);
	if (r >= 0)
		r = index_write(g->index, insert, &i, err);
	json_decref(i.afar);
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
	/* Copies of what it was before are none of what it is. */
	if (r >= 0 && record_has_location(old, LOCATION_OWN))
		r = tombstone_add(tx, TOMBSTONE_COPY, old->id, err);
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

void legacy_begin_post(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(meta_done) struct meta m = { 0 };
	struct error err = { 0 };
	char id[37];
	int r;

	if (!request_has_body(q) || legacy_dialect(q)->cyclades)
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
		legacy_refuse(q, &err);
}

void legacy_finish_data(struct request *q, const struct meta *m)
{
	char id[37];
	struct error err = { 0 };

	snprintf(id, sizeof(id), "%s", upload_id(q->state));
	if (data_upload_finish(q, m->has_size ? &m->size : NULL, m->checksum,
			       &err) >= 0)
		legacy_respond(q, id);
	else
		legacy_refuse(q, &err);
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

/* It is the service that gives ids; that of @old, "": none, may be said. */
static int check_id(const struct meta *m, const char *old, struct error *err)
{
	if (!m->id || !strcmp(m->id, old))
		return 0;
	return error_set(err, -EINVAL, 0,
			 "X-Image-Meta-Id: the service gives images their ids");
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
		r = check_id(m, old.old_id, &err);
	if (r >= 0)
		r = create(q, m, NULL, id, &err);
	if (r >= 0)
		r = take_registered(q, m, src, id, &err);
	if (r >= 0)
		legacy_respond(q, id);
	else if (r == -ENOSYS)
		respond_error(q, 501, err.msg);
	else
		legacy_refuse(q, &err);
}

void legacy_post(struct request *q)
{
	CLEANUP(meta_done) struct meta m = { 0 };
	struct error err = { 0 };
	char id[37];

	if (meta_parse(q, &m, &err) < 0)
		legacy_refuse(q, &err);
	else if (legacy_dialect(q)->cyclades)
		register_image(q, &m);
	else if (q->sink)
		legacy_finish_data(q, &m);
	else if (create(q, &m, m.id, id, &err) < 0)
		legacy_refuse(q, &err);
	else
		legacy_respond(q, id);
}
