/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "nbd/export-name.h"
#include "nbd/export.h"
#include "nbd/overlays.h"

/* The open exports. Opening may take as long as a passphrase's derivation. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct export *exports;

static void export_free(struct export *e)
{
	overlay_unref(e->overlay);
	image_unref(e->image);
	image_unref(e->from);
	free(e->name);
	free(e);
}

static struct export *find(const char *name)
{
	struct export *e;

	for (e = exports; e && (e->lone || strcmp(e->name, name)); e = e->next)
		;
	return e;
}

/* The live image, which somebody may have open. */
static int open_live(const struct config *c, struct image **ret,
		     struct error *err)
{
	struct open_options options;
	struct export *e;

	for (e = exports; e; e = e->next) {
		if (*e->name)
			continue;
		*ret = image_ref(e->image);
		return 0;
	}
	config_open_options(c, &options);
	return image_open(c->image, &options, ret, err);
}

/* The state that @at names; NULL: the live one. */
static int open_at(const struct config *c, struct image *live, const char *at,
		   struct image **ret, struct error *err)
{
	struct open_options options;

	if (!at) {
		*ret = image_ref(live);
		return 0;
	}
	config_open_options(c, &options);
	return history_open(live, &options, at, ret, err);
}

static int open_state(const struct config *c, const struct export_state *s,
		      struct export *e, struct error *err)
{
	CLEANUP(image_unrefp) struct image *live = NULL;
	int r = open_live(c, &live, err);

	if (r >= 0)
		r = open_at(c, live, s->at, &e->image, err);
	if (r >= 0 && s->difference)
		r = open_at(c, live, s->from, &e->from, err);
	e->live = !s->at && !s->difference;
	return r;
}

/* Does a name that names no overlay mean one all the same? */
static bool has_only_overlay(const struct config *c, const struct export *e)
{
	return e->live && (c->overlay || c->overlay_temp);
}

static int open_overlay(const struct config *c, const struct export_name *n,
			struct export *e, struct error *err)
{
	const struct export_state *s = &n->overlay_state;

	if (n->overlay && (!e->live || s->at || s->difference))
		return export_name_unknown(e->name, err);
	if (n->overlay)
		return overlays_open_named(c, e->image, n->overlay, &e->overlay,
					   err);
	if (!has_only_overlay(c, e))
		return 0;
	e->lone = c->overlay_temp && c->overlay_per_connection;
	return overlays_open_only(c, e->image, &e->overlay, err);
}

/* Takes over @name. */
static int open_new(const struct config *c, char *name,
		    const struct export_name *n, bool standing,
		    struct export **ret, struct error *err)
{
	struct export *e = calloc(1, sizeof(*e));
	int r;

	if (!e) {
		free(name);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	e->name = name;
	if (!c->image || *n->image || n->member || n->grant)
		r = export_name_unknown(name, err);
	else
		r = open_state(c, &n->state, e, err);
	/* A connection's own overlay begins with the connection. */
	if (r >= 0 && standing && c->overlay_per_connection)
		e->lone = true;
	else if (r >= 0)
		r = open_overlay(c, n, e, err);
	if (r < 0) {
		export_free(e);
		return r;
	}
	e->next = exports;
	exports = e;
	*ret = e;
	return 0;
}

static int open_or_join(const struct config *c, const char *text, bool standing,
			struct export **ret, struct error *err)
{
	CLEANUP(export_name_done) struct export_name n = { 0 };
	CLEANUP(freep) char *name = NULL;
	struct export *e;
	int r = export_name_parse(text, &n, err);

	if (r < 0)
		return r;
	name = export_name_format(&n);
	if (!name)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_lock(&lock);
	e = find(name);
	if (!e)
		r = open_new(c, TAKE_PTR(name), &n, standing, &e, err);
	if (r >= 0) {
		e->refs++;
		*ret = e;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

int export_open(const struct config *c, const char *text, struct export **ret,
		struct error *err)
{
	return open_or_join(c, text, false, ret, err);
}

int export_open_standing(const struct config *c, struct export **ret,
			 struct error *err)
{
	return open_or_join(c, "", true, ret, err);
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
		export_free(e);
	}
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
