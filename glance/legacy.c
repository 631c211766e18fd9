/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two dialects of one older API: Glance v1 under /v1, Cyclades/Image under
 * /image/v1.0. They differ in the spelling of headers, in what a few things
 * are called, and in where data come from: v1 has them in the body, Cyclades
 * at a location, a file of the folder that pithos= names.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "glance/bury.h"
#include "glance/data.h"
#include "glance/http/json-in.h"
#include "glance/image-json.h"
#include "glance/image-list.h"
#include "glance/http/json-body.h"
#include "glance/legacy-inside.h"
#include "glance/locations.h"
#include "glance/members.h"
#include "glance/record-rows.h"
#include "glance/routes.h"

#define LIST_MAX LIST_LIMIT_MAX

/* The image's id in "/v1/images/ID", "/image/v1.0/images/ID". */
static const char *id_of(const struct request *q)
{
	return q->uri.segments[legacy_dialect(q)->cyclades ? 3 : 2];
}

static const char *member_of(const struct request *q)
{
	return q->uri.segments[legacy_dialect(q)->cyclades ? 5 : 4];
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
	legacy_add_image(&l->b, l->d, r, l->detail);
	return 0;
}

static void respond_list(struct request *q, bool detail)
{
	struct glance *g = q->app;
	const struct dialect *d = legacy_dialect(q);
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
	meta_respond(q, legacy_dialect(q), &image);
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
	meta_respond(q, legacy_dialect(q), &image);
	data_send(q, &image);
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
		legacy_refuse(q, &err);
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

/* Cyclades: they may be said again, and are not changed. */
static int check_data(const struct meta *m, const struct record *r,
		      struct error *err)
{
	if (m->has_size && (!r->has_size || m->size != r->size))
		return error_set(err, -EINVAL, 0,
				 "Supplied size (%" PRIu64 ") and size of the "
				 "image (%" PRIu64 ") did not match.",
				 m->size, r->size);
	if (m->checksum &&
	    (!r->checksum || strcasecmp(m->checksum, r->checksum) != 0))
		return error_set(err, -EINVAL, 0,
				 "Supplied checksum (%.64s) and checksum of "
				 "the image (%s) did not match.",
				 m->checksum, r->checksum ? r->checksum : "");
	if (m->id && strcmp(m->id, r->id) != 0)
		return error_set(err, -EINVAL, 0,
				 "X-Image-Meta-Id: %.64s is another image",
				 m->id);
	return 0;
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
	r = legacy_dialect(c->q)->cyclades ? check_data(c->meta, &c->image, err)
					   : 0;
	if (r >= 0 && legacy_dialect(c->q)->cyclades)
		r = set_status(c->q->app, c->meta, &c->image, err);
	if (r >= 0)
		r = meta_apply(c->meta, &c->image, err);
	if (r >= 0 && !legacy_dialect(c->q)->cyclades)
		r = meta_match_formats(c->meta, &c->image, err);
	return r < 0 ? r : record_update(tx, &c->image, err);
}

static void begin_put(struct request *q)
{
	CLEANUP(meta_done) struct meta m = { 0 };
	struct error err = { 0 };
	int r;

	if (!request_has_body(q) || legacy_dialect(q)->cyclades)
		return;
	r = meta_parse(q, &m, &err);
	if (r >= 0)
		r = legacy_check_sources(q, &m, &err);
	if (r >= 0)
		r = data_upload_begin(q, id_of(q), UPLOAD_DATA_V1, &err);
	if (r < 0)
		legacy_refuse(q, &err);
}

static void put_image(struct request *q)
{
	CLEANUP(meta_done) struct meta m = { 0 };
	struct change c = { .run = update, .meta = &m };
	struct error err = { 0 };

	if (meta_parse(q, &m, &err) < 0 ||
	    legacy_check_sources(q, &m, &err) < 0)
		legacy_refuse(q, &err);
	else if (change(q, &c) >= 0) {
		if (q->sink)
			legacy_finish_data(q, &m);
		else
			legacy_respond(q, c.image.id);
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
	return !legacy_dialect(c->q)->cyclades &&
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
	const char *project =
		q->uri.segments[legacy_dialect(q)->cyclades ? 3 : 2];
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

#define COMMON(root)                                                           \
	{ HTTP_GET, root "/images", get_list },                                \
		{ HTTP_GET, root "/images/detail", get_detail },               \
		{ HTTP_POST, root "/images", legacy_post, legacy_begin_post }, \
		{ HTTP_HEAD, root "/images/{}", head_image },                  \
		{ HTTP_PUT, root "/images/{}", put_image, begin_put },         \
		{ HTTP_GET, root "/images/{}/members", get_members },          \
		{ HTTP_PUT, root "/images/{}/members", put_members },          \
		{ HTTP_PUT, root "/images/{}/members/{}", put_member },        \
		{ HTTP_DELETE, root "/images/{}/members/{}", delete_member },  \
	{                                                                      \
		HTTP_GET, root "/shared-images/{}", get_shared                 \
	}

const struct route legacy_routes[] = {
	COMMON("/v1"),
	COMMON("/image/v1.0"),
	{ HTTP_GET, "/v1/images/{}", get_data },
	{ HTTP_DELETE, "/v1/images/{}", delete_image },
	{ HTTP_GET, "/image", get_versions, NULL,
	  ROUTE_PUBLIC | ROUTE_ANY_VERSION },
	{ 0 },
};
