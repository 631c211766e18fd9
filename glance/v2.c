/* SPDX-License-Identifier: BSD-3-Clause */
/* Glance v2: images, their tags and members. Data are data.c's. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/bury.h"
#include "glance/copies.h"
#include "glance/glance.h"
#include "glance/http/json-in.h"
#include "glance/image-fields.h"
#include "glance/image-json.h"
#include "glance/image-list.h"
#include "glance/import-methods.h"
#include "glance/http/json-body.h"
#include "glance/json-patch.h"
#include "glance/limits.h"
#include "glance/locations.h"
#include "glance/members.h"
#include "glance/record-rows.h"
#include "glance/recover.h"
#include "glance/routes.h"
#include "glance/schemas.h"
#include "glance/stores.h"
#include "glance/time-text.h"
#include "glance/tombstone.h"

/* A change of the index on behalf of a request. */
struct change {
	struct request *q;
	const char *id;
	struct record image; /* as it is when the change is done */
	const json_t *body;
	const struct patch *patch;
	const char *word; /* a tag, a member */
	struct location_sizes sizes; /* of locations that PATCH sets */
	bool unwanted; /* see locations.h */
	int (*run)(struct index_tx *tx, struct change *c, struct error *err);
};

static int run_change(struct index_tx *tx, void *opaque, struct error *err)
{
	struct change *c = opaque;

	return c->run(tx, c, err);
}

/* Answers where it failed. @c->image is the caller's to record_done(). */
static int change(struct request *q, struct change *c)
{
	struct glance *g = q->app;
	struct error err = { 0 };
	int r;

	c->q = q;
	if (!c->id && q->uri.n_segments > 2)
		c->id = q->uri.segments[2];
	r = index_write(g->index, run_change, c, &err);
	if (r < 0)
		respond_failure(q, &err);
	return r;
}

static void respond_image(struct request *q, unsigned int status,
			  const struct record *r)
{
	const struct image_view view = { q->app, &q->who };
	struct text_buf b = { 0 };

	image_json_add(&b, r, &view);
	respond_json(q, status, &b);
}

/* ---- what there is ---- */

static json_t *version(const char *base, const char *id, const char *status)
{
	return json_pack("{s:s, s:s, s:[{s:s, s:o}]}", "id", id, "status",
			 status, "links", "rel", "self", "href",
			 json_sprintf("%s/v2/", base));
}

/*
 * All of them: what each has brought is there, whether it is configured or
 * not (stores, the cache).
 */
void versions_respond(struct request *q, unsigned int status)
{
	CLEANUP(freep) char *base = request_base_url(q);
	json_t *list = json_array();
	unsigned int minor = API_MINOR_MAX + 1;
	char id[8];

	while (base && minor--) {
		snprintf(id, sizeof(id), "v2.%u", minor);
		json_array_append_new(list, version(base, id,
						    minor == API_MINOR_MAX
							    ? "CURRENT"
							    : "SUPPORTED"));
	}
	respond_json_value(q, status, json_pack("{s:o}", "versions", list));
}

static void get_root(struct request *q)
{
	versions_respond(q, 300);
}

static void get_versions(struct request *q)
{
	versions_respond(q, 200);
}

/* ---- lists ---- */

struct listing {
	struct image_view view;
	struct text_buf b;
	uint64_t n;
	char last[37];
};

static int list_image(void *opaque, const struct record *r)
{
	struct listing *l = opaque;

	if (l->n++)
		text_add(&l->b, ", ");
	image_json_add(&l->b, r, &l->view);
	snprintf(l->last, sizeof(l->last), "%s", r->id);
	return 0;
}

static void add_links(struct listing *l, const struct uri *u, uint64_t limit)
{
	struct text_buf link = { 0 };
	char separator = '?';

	text_add(&link, "/v2/images");
	uri_add_query(&link, u, "marker", &separator);
	text_add(&l->b, "], \"first\": ");
	text_add_json(&l->b, link.text);
	if (l->n && l->n == limit) {
		text_addf(&link, "%cmarker=%s", separator, l->last);
		text_add(&l->b, ", \"next\": ");
		text_add_json(&l->b, link.text);
	}
	text_add(&l->b, ", \"schema\": \"/v2/schemas/images\"}");
	text_buf_done(&link);
}

static void get_images(struct request *q)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(image_list_done) struct image_list list = { 0 };
	struct listing l = { .view = { g, &q->who } };
	struct error err = { 0 };
	int r = image_list_parse_v2(&q->uri, &q->who, &list, &err);

	text_add(&l.b, "{\"images\": [");
	if (r >= 0)
		r = index_read(g->index, &tx, &err);
	if (r >= 0)
		r = image_list_run(tx, &list, list_image, &l, &err);
	if (r < 0) {
		text_buf_done(&l.b);
		respond_failure(q, &err);
		return;
	}
	add_links(&l, &q->uri, list.limit);
	respond_json(q, 200, &l.b);
}

static void get_image(struct request *q)
{
	CLEANUP(record_done) struct record image = { 0 };

	if (image_of_request(q, &image) >= 0)
		respond_image(q, 200, &image);
}

/* ---- making one ---- */

static int insert_image(struct index_tx *tx, struct change *c,
			struct error *err)
{
	struct glance *g = c->q->app;
	int r = limits_check(g->limits, tx, c->q->who.project,
			     LIMIT_COUNT_TOTAL, 1, err);

	if (r >= 0)
		r = glance_check_id(g, c->image.id, err);
	if (r >= 0)
		r = record_insert(tx, &c->image, err);
	if (r != -EEXIST)
		return r;
	error_clear(err);
	return error_set(err, -EEXIST, 0, "Image ID %s already exists!",
			 c->image.id);
}

static void respond_store_names(struct request *q)
{
	const struct glance *g = q->app;
	struct text_buf b = { 0 };
	const char *key;
	size_t i;

	for (i = 0; stores_many(g) && (key = stores_key(g, i)); i++)
		text_addf(&b, "%s%s", i ? "," : "", stores_name(g, key));
	if (b.len && !b.failed)
		respond_header(q, "OpenStack-image-store-ids", b.text);
	text_buf_done(&b);
}

static void post_image(struct request *q)
{
	CLEANUP(json_decrefp) json_t *body = request_json_object(q);
	CLEANUP(freep) char *base = request_base_url(q);
	struct change c = { .run = insert_image, .id = "" };
	struct error err = { 0 };
	char location[600];

	if (!body)
		return;
	if (!q->who.admin && !q->who.member) {
		respond_error(q, 403,
			      "You are not authorized to complete add_image "
			      "action.");
	} else if (image_from_json(&q->who, body, &c.image, &err) < 0) {
		respond_failure(q, &err);
	} else if (change(q, &c) >= 0) {
		snprintf(location, sizeof(location), "%s/v2/images/%s",
			 base ? base : "", c.image.id);
		respond_header(q, "Location", location);
		import_methods_respond(q);
		respond_store_names(q);
		respond_image(q, 201, &c.image);
	}
	record_done(&c.image);
}

/* ---- changing one ---- */

static int remove_field(struct record *r, const char *name, struct error *err)
{
	if (schema_image_base(name))
		return error_set(err, -EPERM, 0,
				 "Property %s may not be removed.", name);
	if (record_remove_property(r, name))
		return 0;
	return error_set(err, -EEXIST, 0, "Property %s does not exist.", name);
}

static int patch_locations(struct change *c, struct record *r,
			   const struct patch_change *p, struct error *err)
{
	struct location_change x = { .g = c->q->app,
				     .who = &c->q->who,
				     .sizes = &c->sizes };
	int code = location_patch(&x, r, p, err);

	c->unwanted |= x.unwanted;
	return code;
}

static int apply_one(struct change *c, struct record *r,
		     const struct patch_change *p, struct error *err)
{
	const struct request *q = c->q;
	bool base = schema_image_base(p->name);

	if (!strcmp(p->name, "locations"))
		return patch_locations(c, r, p, err);
	if (p->op == PATCH_REMOVE)
		return remove_field(r, p->name, err);
	if (p->op == PATCH_REPLACE && !base && !record_property(r, p->name))
		return error_set(err, -EEXIST, 0, "Property %s does not exist.",
				 p->name);
	if (!strcmp(p->name, "owner") && !q->who.admin)
		return error_set(err, -EPERM, 0,
				 "You are not authorized to complete this "
				 "action.");
	return image_set_field(r, p->name, p->value, err);
}

static int patch_image(struct index_tx *tx, struct change *c, struct error *err)
{
	enum image_visibility before;
	size_t i;
	int r = image_load_own(tx, &c->q->who, c->id, &c->image, err);

	if (r < 0)
		return r;
	before = c->image.visibility;
	for (i = 0; i < c->patch->n_changes && r >= 0; i++)
		r = apply_one(c, &c->image, &c->patch->changes[i], err);
	if (r >= 0 && c->image.visibility != before)
		r = image_may_publish(&c->q->who, c->image.visibility, err);
	if (r >= 0 && c->unwanted)
		r = tombstone_add(tx, TOMBSTONE_COPY, c->image.id, err);
	return r < 0 ? r : record_update(tx, &c->image, err);
}

/* Other servers are asked before, and only for who may set what they say. */
static int probe_locations(struct change *c, struct request *q,
			   struct error *err)
{
	const struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	size_t i;
	int r = 0;

	if (!location_rules_show(g->locations) ||
	    index_read(g->index, &tx, NULL) < 0 ||
	    image_load_own(tx, &q->who, q->uri.segments[2], &image, NULL) < 0)
		return 0; /* the change itself says what is wrong */
	index_read_endp(&tx);
	tx = NULL;
	for (i = 0; i < c->patch->n_changes && r >= 0; i++)
		if (!strcmp(c->patch->changes[i].name, "locations"))
			r = location_probe(g, c->patch->changes[i].value,
					   &c->sizes, err);
	return r;
}

static void patch(struct request *q)
{
	const char *type = request_header(q, "Content-Type");
	unsigned int version = type ? json_patch_version(type) : 0;
	struct patch p = { 0 };
	struct change c = { .run = patch_image, .patch = &p };
	struct error err = { 0 };

	if (!version) {
		respond_header(q, "Accept-Patch",
			       "application/openstack-images-v2.0-json-patch, "
			       "application/openstack-images-v2.1-json-patch");
		respond_unsupported(q);
		return;
	}
	if (!q->body.len) {
		respond_error(q, 400, "Body expected in request.");
		return;
	}
	if (json_patch_parse(q->body.text, q->body.len, version, &p, &err) <
	    0) {
		respond_failure(q, &err);
		return;
	}
	if (probe_locations(&c, q, &err) < 0)
		respond_failure(q, &err);
	else if (change(q, &c) >= 0) {
		if (c.unwanted)
			copies_sweep(q->app, c.image.id);
		respond_image(q, 200, &c.image);
	}
	record_done(&c.image);
	json_patch_done(&p);
}

static int delete_image(struct index_tx *tx, struct change *c,
			struct error *err)
{
	int r = image_load_own(tx, &c->q->who, c->id, &c->image, err);

	if (r < 0)
		return r;
	if (c->image.protected_)
		return error_set(err, -EPERM, 0,
				 "Image %s is protected and cannot be deleted.",
				 c->image.id);
	return record_delete(tx, &c->image, err);
}

static void remove_image(struct request *q)
{
	struct glance *g = q->app;
	struct change c = { .run = delete_image };

	if (change(q, &c) >= 0) {
		/* Who has it open reads on. */
		glance_bury(g, c.image.id);
		respond_empty(q, 204);
	}
	record_done(&c.image);
}

/* ---- tags ---- */

static int add_tag(struct index_tx *tx, struct change *c, struct error *err)
{
	int r = image_load_own(tx, &c->q->who, c->id, &c->image, err);

	if (r >= 0 && !record_has_tag(&c->image, c->word))
		r = record_add_tag(&c->image, c->word, err);
	return r < 0 ? r : record_update(tx, &c->image, err);
}

static int drop_tag(struct index_tx *tx, struct change *c, struct error *err)
{
	int r = image_load_own(tx, &c->q->who, c->id, &c->image, err);

	if (r < 0)
		return r;
	if (!record_remove_tag(&c->image, c->word))
		return error_set(err, -ENOENT, 0,
				 "The resource could not be found.");
	return record_update(tx, &c->image, err);
}

static void change_tag(struct request *q,
		       int (*run)(struct index_tx *tx, struct change *c,
				  struct error *err))
{
	struct change c = { .run = run, .word = q->uri.segments[4] };

	if (strlen(c.word) > 255)
		respond_error(q, 400,
			      "Invalid image tag. Please supply a tag of at "
			      "most 255 characters.");
	else if (change(q, &c) >= 0)
		respond_empty(q, 204);
	record_done(&c.image);
}

static void put_tag(struct request *q)
{
	change_tag(q, add_tag);
}

static void delete_tag(struct request *q)
{
	change_tag(q, drop_tag);
}

/* ---- deactivation ---- */

static int set_status(struct index_tx *tx, struct change *c,
		      enum image_status from, enum image_status to,
		      struct error *err)
{
	int r = image_load_own(tx, &c->q->who, c->id, &c->image, err);

	if (r < 0)
		return r;
	if (c->image.status == to)
		return 0;
	if (c->image.status != from)
		return error_set(err, -EPERM, 0,
				 "Not allowed to %s image in status '%s'",
				 to == IMAGE_ACTIVE ? "reactivate"
						    : "deactivate",
				 image_status_name(c->image.status));
	c->image.status = to;
	if (to == IMAGE_ACTIVE)
		r = location_look_again(c->q->app, &c->image, err);
	return r < 0 ? r : record_update(tx, &c->image, err);
}

static int deactivate(struct index_tx *tx, struct change *c, struct error *err)
{
	return set_status(tx, c, IMAGE_ACTIVE, IMAGE_DEACTIVATED, err);
}

static int reactivate(struct index_tx *tx, struct change *c, struct error *err)
{
	return set_status(tx, c, IMAGE_DEACTIVATED, IMAGE_ACTIVE, err);
}

static void post_action(struct request *q)
{
	bool down = !strcmp(q->uri.segments[4], "deactivate");
	struct change c = { .run = down ? deactivate : reactivate };

	if (change(q, &c) >= 0)
		respond_empty(q, 204);
	record_done(&c.image);
}

/* ---- members ---- */

static json_t *member_json(const char *image, const struct member *m)
{
	char created[21], updated[21];

	time_format(m->created_usec, created);
	time_format(m->updated_usec, updated);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "member_id",
			 m->project, "image_id", image, "status", m->status,
			 "created_at", created, "updated_at", updated, "schema",
			 "/v2/schemas/member");
}

struct member_listing {
	const struct identity *who;
	bool all; /* else the asker alone */
	const char *image;
	json_t *list;
	const char *wanted; /* NULL: any */
};

static int list_member(void *opaque, const struct member *m)
{
	struct member_listing *l = opaque;

	if (!l->all &&
	    (!l->who->project || strcmp(l->who->project, m->project) != 0))
		return 0;
	if (l->wanted && strcmp(l->wanted, m->project) != 0)
		return 0;
	json_array_append_new(l->list, member_json(l->image, m));
	return 0;
}

/* Members as the asker may see them, in @l->list. Answers on failure. */
static int read_members(struct request *q, struct member_listing *l,
			struct record *image)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	struct error err = { 0 };
	int r = index_read(g->index, &tx, &err);

	if (r >= 0)
		r = image_load(tx, &q->who, q->uri.segments[2], image, &err);
	if (r >= 0 && image->visibility != IMAGE_SHARED)
		r = error_set(&err, -EPERM, 0,
			      "Only shared images have members.");
	if (r >= 0) {
		l->who = &q->who;
		l->image = image->id;
		l->all = image_is_own(&q->who, image);
		r = members_each(tx, image->n, list_member, l, &err);
	}
	if (r < 0)
		respond_failure(q, &err);
	return r;
}

static void get_members(struct request *q)
{
	CLEANUP(record_done) struct record image = { 0 };
	struct member_listing l = { .list = json_array() };

	if (read_members(q, &l, &image) < 0)
		json_decref(l.list);
	else
		respond_json_value(q, 200,
				   json_pack("{s:o, s:s}", "members", l.list,
					     "schema", "/v2/schemas/members"));
}

static void get_member(struct request *q)
{
	CLEANUP(record_done) struct record image = { 0 };
	struct member_listing l = { .list = json_array(),
				    .wanted = q->uri.segments[4] };

	if (read_members(q, &l, &image) >= 0) {
		if (json_array_size(l.list))
			respond_json_value(
				q, 200, json_incref(json_array_get(l.list, 0)));
		else
			respond_errorf(q, 404,
				       "%.64s not found in the member list of "
				       "the image %s.",
				       l.wanted, image.id);
	}
	json_decref(l.list);
}

/* The image, whose members the asker may change. */
static int load_shared(struct index_tx *tx, struct change *c, struct error *err)
{
	int r = image_load_own(tx, &c->q->who, c->id, &c->image, err);

	if (r >= 0 && c->image.visibility != IMAGE_SHARED)
		r = error_set(err, -EPERM, 0,
			      "Only shared images have members.");
	return r;
}

static int add_member(struct index_tx *tx, struct change *c, struct error *err)
{
	int r = load_shared(tx, c, err);

	if (r >= 0)
		r = member_add(tx, c->image.n, c->word, err);
	if (r == -EEXIST) {
		error_clear(err);
		r = error_set(err, -EEXIST, 0,
			      "Member %.64s is duplicated for image %s",
			      c->word, c->image.id);
	}
	return r;
}

static void respond_member(struct request *q, const struct change *c)
{
	struct glance *g = q->app;
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	struct member_listing l = { .all = true,
				    .who = &q->who,
				    .image = c->image.id,
				    .wanted = c->word,
				    .list = json_array() };
	struct error err = { 0 };
	int r = index_read(g->index, &tx, &err);

	if (r >= 0)
		r = members_each(tx, c->image.n, list_member, &l, &err);
	if (r < 0)
		respond_failure(q, &err);
	else
		respond_json_value(q, 200,
				   json_incref(json_array_get(l.list, 0)));
	json_decref(l.list);
}

static void post_member(struct request *q)
{
	CLEANUP(json_decrefp) json_t *body = request_json_object(q);
	struct change c = { .run = add_member };

	if (!body)
		return;
	c.word = json_member(body, "member");
	if (!c.word || !*c.word || strlen(c.word) > 255)
		respond_error(q, 400, "Member to be added not specified");
	else if (change(q, &c) >= 0)
		respond_member(q, &c);
	record_done(&c.image);
}

/* Whom it is shared with says whether he takes it. */
static int set_member(struct index_tx *tx, struct change *c, struct error *err)
{
	const struct identity *who = &c->q->who;
	const char *status = json_member(c->body, "status");
	int r = image_load(tx, who, c->id, &c->image, err);

	if (r < 0)
		return r;
	if (!who->admin && (!who->project || strcmp(who->project, c->word)))
		return error_set(err, -EPERM, 0,
				 "You are not authorized to complete this "
				 "action.");
	return member_set_status(tx, c->image.n, c->word, status, err);
}

static void put_member(struct request *q)
{
	CLEANUP(json_decrefp) json_t *body = request_json_object(q);
	struct change c = { .run = set_member,
			    .word = q->uri.segments[4],
			    .body = body };
	const char *status;

	if (!body)
		return;
	status = json_member(body, "status");
	if (!status)
		respond_error(q, 400, "Status not specified");
	else if (!member_status_ok(status))
		respond_errorf(
			q, 400,
			"Provided status \"%.64s\" is not supported. "
			"Supported statuses: pending, accepted, rejected",
			status);
	else if (change(q, &c) >= 0)
		respond_member(q, &c);
	record_done(&c.image);
}

static int drop_member(struct index_tx *tx, struct change *c, struct error *err)
{
	int r = load_shared(tx, c, err);

	return r < 0 ? r : member_remove(tx, c->image.n, c->word, err);
}

static void delete_member(struct request *q)
{
	struct change c = { .run = drop_member, .word = q->uri.segments[4] };

	if (change(q, &c) >= 0)
		respond_empty(q, 204);
	record_done(&c.image);
}

const struct route v2_routes[] = {
	{ HTTP_GET, "/", get_root, NULL, ROUTE_PUBLIC },
	{ HTTP_GET, "/versions", get_versions, NULL,
	  ROUTE_PUBLIC | ROUTE_ANY_VERSION },
	{ HTTP_GET, "/v2", get_versions, NULL, ROUTE_PUBLIC },
	{ HTTP_GET, "/v2/images", get_images },
	{ HTTP_POST, "/v2/images", post_image },
	{ HTTP_GET, "/v2/images/{}", get_image, .flags = ROUTE_NO_BODY },
	{ HTTP_PATCH, "/v2/images/{}", patch },
	{ HTTP_DELETE, "/v2/images/{}", remove_image, .flags = ROUTE_NO_BODY },
	{ HTTP_PUT, "/v2/images/{}/tags/{}", put_tag, .flags = ROUTE_NO_BODY },
	{ HTTP_DELETE, "/v2/images/{}/tags/{}", delete_tag,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_POST, "/v2/images/{}/actions/deactivate", post_action,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_POST, "/v2/images/{}/actions/reactivate", post_action,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_GET, "/v2/images/{}/members", get_members,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_POST, "/v2/images/{}/members", post_member },
	{ HTTP_GET, "/v2/images/{}/members/{}", get_member,
	  .flags = ROUTE_NO_BODY },
	{ HTTP_PUT, "/v2/images/{}/members/{}", put_member },
	{ HTTP_DELETE, "/v2/images/{}/members/{}", delete_member,
	  .flags = ROUTE_NO_BODY },
	{ 0 },
};
