/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "glance/glance.h"
#include "nbd/export-name.h"
#include "nbd/export.h"
#include "nbd/overlays.h"

/* The open exports. Opening may take as long as a passphrase's derivation. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct export *exports;
static struct traffic gone; /* of exports that were closed */
static struct glance *store;
static int (*find_image)(struct glance *g, const struct glance_wish *w,
			 struct glance_image *ret, struct error *err);

void export_use_store(int (*find)(struct glance *g, const struct glance_wish *w,
				  struct glance_image *ret, struct error *err),
		      struct glance *g)
{
	find_image = find;
	store = g;
}

static void export_free(struct export *e)
{
	overlay_unref(e->overlay);
	image_unref(e->image);
	image_unref(e->from);
	free(e->name);
	free(e->id);
	free(e->path);
	free(e);
}

static struct export *find(const char *name)
{
	struct export *e;

	for (e = exports; e && (e->lone || strcmp(e->name, name)); e = e->next)
		;
	return e;
}

static struct glance_wish wish_for(const char *image,
				   const struct export_name *n)
{
	return (struct glance_wish){ .name = image,
				     .grant = n->grant,
				     .writable = n->overlay };
}

/* Which file is it? Sets @e's id and path, and the options to open it by. */
static int find_file(const struct config *c, const struct export_name *n,
		     struct export *e, struct open_options *ret,
		     struct error *err)
{
	const char *name = n->image;
	struct glance_wish wish = wish_for(name, n);
	struct glance_image i = { 0 };
	int r;

	if (*name && store) {
		r = find_image(store, &wish, &i, err);
		if (r < 0)
			return r;
		e->id = i.id;
		e->path = i.path;
		/* Of the store's, nothing refers to anything. */
		*ret = (struct open_options){ .format = i.format,
					      .direct = c->direct,
					      .lock = !c->force_share,
					      .share = c->force_share };
		return 0;
	}
	if (*name || !c->image)
		return export_name_unknown(e->name, err);
	e->id = strdup("");
	e->path = strdup(c->image);
	config_open_options(c, ret);
	return e->id && e->path ? 0
				: error_set(err, -ENOMEM, 0, "out of memory");
}

/* The live image, which somebody may have open. */
static int open_live(const struct export *e, const struct open_options *options,
		     struct image **ret, struct error *err)
{
	const struct export *other;

	for (other = exports; other; other = other->next) {
		if (!other->live || strcmp(other->id, e->id) != 0)
			continue;
		*ret = image_ref(other->image);
		return 0;
	}
	return image_open(e->path, options, ret, err);
}

/* The state that @at names; NULL: the live one. */
static int open_at(const struct open_options *options, struct image *live,
		   const char *at, struct image **ret, struct error *err)
{
	if (!at) {
		*ret = image_ref(live);
		return 0;
	}
	return history_open(live, options, at, ret, err);
}

static int open_state(const struct config *c, const struct export_name *n,
		      struct export *e, struct error *err)
{
	CLEANUP(image_unrefp) struct image *live = NULL;
	const struct export_state *s = &n->state;
	struct open_options options;
	int r = find_file(c, n, e, &options, err);

	if (r < 0)
		return r;
	ANALYSER_ASSUME(e->id && e->path);
	r = open_live(e, &options, &live, err);
	if (r >= 0)
		r = open_at(&options, live, s->at, &e->image, err);
	if (r >= 0 && s->difference)
		r = open_at(&options, live, s->from, &e->from, err);
	e->live = !s->at && !s->difference;
	return r;
}

/* The overlay that @n names, state aside: the open one, or opened for this. */
static int find_overlay(const struct config *c, const struct export_name *n,
			const struct export *e, struct overlay **ret,
			struct error *err)
{
	const struct export_name live = { .image = n->image,
					  .overlay = n->overlay };
	const struct overlay_base base = { e->image, e->path, e->id };
	CLEANUP(freep) char *name = export_name_format(&live);
	struct export *other = name ? find(name) : NULL;

	if (other && other->overlay) {
		*ret = overlay_ref(other->overlay);
		return 0;
	}
	if (!n->overlay)
		return export_name_unknown(e->name, err);
	return overlays_open_named(c, &base, n->overlay, false, ret, err);
}

/* Puts the snapshot in the place of @image, which lies below it. */
static int take_snapshot(struct overlay *o, const char *name,
			 struct image **image, struct error *err)
{
	struct image *snapshot;
	int r = overlay_open_snapshot(o, name, &snapshot, err);

	if (r < 0)
		return r;
	image_unref(*image);
	*image = snapshot;
	return 0;
}

/*
 * A snapshot of an overlay, or a difference of two. @e->image is the live
 * image, or NULL where only the overlay can have that state.
 */
static int open_overlay_state(const struct config *c,
			      const struct export_name *n,
			      const struct export_state *s, struct export *e,
			      struct error *err)
{
	CLEANUP(overlay_unrefp) struct overlay *o = NULL;
	int r = s->at && (!s->difference || s->from)
			? find_overlay(c, n, e, &o, err)
			: export_name_unknown(e->name, err);

	if (r >= 0)
		r = take_snapshot(o, s->at, &e->image, err);
	if (r >= 0 && s->difference)
		r = take_snapshot(o, s->from, &e->from, err);
	e->live = false;
	return r;
}

/* Does a name that names no overlay mean one all the same? */
static bool has_only_overlay(const struct config *c, const struct export *e)
{
	return e->live && !*e->id && (c->overlay || c->overlay_temp);
}

/* By whom, or to what end. */
enum how {
	OPEN_CLIENT,
	OPEN_STANDING,
	OPEN_CREATE, /* an overlay that there is not yet */
};

static int open_overlay(const struct config *c, const struct export_name *n,
			enum how how, struct export *e, struct error *err)
{
	const struct export_state *s = &n->overlay_state;
	const struct overlay_base base = { e->image, e->path, e->id };

	if (n->overlay && !e->live)
		return export_name_unknown(e->name, err);
	if (n->overlay && (s->at || s->difference))
		return open_overlay_state(c, n, s, e, err);
	if (n->overlay)
		return overlays_open_named(c, &base, n->overlay,
					   how == OPEN_CREATE, &e->overlay,
					   err);
	if (!has_only_overlay(c, e))
		return 0;
	e->lone = c->overlay_temp && c->overlay_per_connection;
	return overlays_open_only(c, &base, &e->overlay, err);
}

static int open_parts(const struct config *c, const struct export_name *n,
		      enum how how, struct export *e, struct error *err)
{
	int r;

	if (n->member || (n->grant && !(store && *n->image)))
		return export_name_unknown(e->name, err);
	r = open_state(c, n, e, err);
	if (r == -ENOENT && e->path && !n->overlay && n->state.at &&
	    c->overlay) {
		/* The only overlay's snapshots are called like the image's. */
		error_clear(err);
		return open_overlay_state(c, n, &n->state, e, err);
	}
	if (r < 0)
		return r;
	/* A connection's own overlay begins with the connection. */
	if (how == OPEN_STANDING && c->overlay_per_connection) {
		e->lone = true;
		return 0;
	}
	return open_overlay(c, n, how, e, err);
}

/* Takes over @name. */
static int open_new(const struct config *c, char *name,
		    const struct export_name *n, enum how how,
		    struct export **ret, struct error *err)
{
	struct export *e = calloc(1, sizeof(*e));
	int r;

	if (!e) {
		free(name);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	e->name = name;
	r = open_parts(c, n, how, e, err);
	if (r < 0) {
		export_free(e);
		return r;
	}
	e->next = exports;
	exports = e;
	*ret = e;
	return 0;
}

/* Who has an image of the store open reads on when it is gone; nobody new. */
static int check_still_there(const struct export *e,
			     const struct export_name *n, struct error *err)
{
	struct glance_wish wish = wish_for(e->id, n);
	struct glance_image i = { 0 };
	int r = find_image(store, &wish, &i, err);

	free(i.id);
	free(i.path);
	return r;
}

static int open_or_join(const struct config *c, const char *text, enum how how,
			struct export **ret, struct error *err)
{
	CLEANUP(export_name_done) struct export_name n = { 0 };
	CLEANUP(freep) char *name = NULL;
	struct export_name bare;
	struct export *e;
	int r = export_name_parse(text, &n, err);

	if (r < 0)
		return r;
	/* By whatever right it is opened, it is one export. */
	bare = n;
	bare.grant = NULL;
	name = export_name_format(&bare);
	if (!name)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_lock(&lock);
	e = find(name);
	if (e && *e->id)
		r = check_still_there(e, &n, err);
	else if (!e)
		r = open_new(c, TAKE_PTR(name), &n, how, &e, err);
	if (r >= 0) {
		e->refs++;
		e->standing = e->standing || how == OPEN_STANDING;
		*ret = e;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

int export_open(const struct config *c, const char *text, struct export **ret,
		struct error *err)
{
	return open_or_join(c, text, OPEN_CLIENT, ret, err);
}

int export_create(const struct config *c, const char *text, struct error *err)
{
	struct export *e;
	bool was_made;
	int r = open_or_join(c, text, OPEN_CREATE, &e, err);

	if (r < 0)
		return r;
	if (!e->overlay) {
		r = error_set(err, -EINVAL, 0, "export \"%s\" has no overlay",
			      text);
	} else {
		was_made = export_connections(e) > 1 &&
			   overlay_is_made(e->overlay);
		r = was_made
			    ? error_set(err, -EEXIST, 0,
					"overlay \"%s\" is there already", text)
			    : overlay_make(e->overlay, err);
	}
	export_close(e);
	return r;
}

int export_open_standing(const struct config *c, struct export **ret,
			 struct error *err)
{
	return open_or_join(c, "", OPEN_STANDING, ret, err);
}

unsigned int export_connections(const struct export *e)
{
	return e->refs - e->standing;
}

int export_run_alone(struct export *e,
		     int (*run)(void *opaque, struct export *e,
				struct error *err),
		     void *opaque, struct error *err)
{
	unsigned int others;
	int r;

	pthread_mutex_lock(&lock);
	others = export_connections(e) - 1;
	r = others ? error_set(err, -EBUSY, 0,
			       "export \"%s\" is open: %u connection%s",
			       e->name, others, others > 1 ? "s" : "")
		   : run(opaque, e, err);
	pthread_mutex_unlock(&lock);
	return r;
}

uint64_t export_bytes(const struct export *e)
{
	return e->overlay ? overlay_bytes(e->overlay) : e->image->bytes;
}

void export_close(struct export *e)
{
	struct export **p = &exports;

	pthread_mutex_lock(&lock);
	if (!--e->refs) {
		while (*p && *p != e)
			p = &(*p)->next;
		*p = e->next;
		traffic_add(&gone, &e->traffic);
		export_free(e);
	}
	pthread_mutex_unlock(&lock);
}

int export_each_open(int (*each)(void *opaque, const struct export *e),
		     void *opaque)
{
	struct export *e;
	int r = 0;

	pthread_mutex_lock(&lock);
	for (e = exports; e && !r; e = e->next)
		r = each(opaque, e);
	pthread_mutex_unlock(&lock);
	return r;
}

void export_get_traffic(struct traffic *ret)
{
	const struct export *e;

	*ret = (struct traffic){ 0 };
	pthread_mutex_lock(&lock);
	traffic_add(ret, &gone);
	for (e = exports; e; e = e->next)
		traffic_add(ret, &e->traffic);
	pthread_mutex_unlock(&lock);
}

void export_close_all(void)
{
	pthread_mutex_lock(&lock);
	while (exports) {
		struct export *e = exports;

		exports = e->next;
		export_free(e);
	}
	pthread_mutex_unlock(&lock);
}

char *export_state_name(const struct history_state *s)
{
	struct export_name n = { .image = (char *)"",
				 .state.at = (char *)s->name };

	return export_name_format(&n);
}

struct listing {
	unsigned int left;
	int (*each)(void *opaque, const char *name, const char *description);
	void *opaque;
};

static int list_state(void *opaque, const struct history_state *s)
{
	struct listing *l = opaque;
	CLEANUP(freep) char *name = export_state_name(s);
	char description[128];

	if (!l->left)
		return 1;
	if (!name)
		return 0;
	l->left--;
	if (s->depth)
		snprintf(description, sizeof(description),
			 "layer %u below the top, %s, %" PRIu64 " bytes",
			 s->depth, s->format, s->bytes);
	else
		snprintf(description, sizeof(description),
			 "snapshot of the %s image, %" PRIu64 " bytes",
			 s->format, s->bytes);
	return l->each(l->opaque, name, description);
}

int export_list(const struct chain *c, unsigned int max,
		int (*each)(void *opaque, const char *name,
			    const char *description),
		void *opaque)
{
	struct listing l = { .left = max, .each = each, .opaque = opaque };
	const struct layer *top = c->layers[0];
	char description[128];
	int r;

	snprintf(description, sizeof(description),
		 "%s image, %" PRIu64 " bytes", top->ops->name, top->bytes);
	r = each(opaque, "", description);
	/* A damaged table of snapshots does not hide the image. */
	if (!r && l.left--)
		history_each(c, list_state, &l, NULL);
	return r;
}
