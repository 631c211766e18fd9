/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "glance/find.h"
#include "glance/glance.h"
#include "nbd/export-name.h"
#include "nbd/export.h"
#include "nbd/overlays.h"
#include "nbd/registry.h"
#include "nbd/replay.h"

/*
 * What is open: exports by their names, live images by their ids, overlays by
 * the id of what they are over and their own names. An export holds its live image
 * and its overlay; while it opens it waits for theirs to be opened, never the
 * other way about.
 */
static void opened_export(void *export, struct entry *e);
static void retire_export(void *e);
static void close_export(void *e);
static void close_image(void *image);
static void close_overlay(void *overlay);
static struct registry exports =
	REGISTRY(opened_export, retire_export, close_export);
static struct registry live_images = REGISTRY(NULL, NULL, close_image);
static struct registry overlays = REGISTRY(NULL, NULL, close_overlay);

/* Of exports that were closed; under the lock of theirs. */
static struct traffic gone;

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

static void close_image(void *image)
{
	image_unref(image);
}

static void close_overlay(void *overlay)
{
	overlay_unref(overlay);
}

static void export_free(struct export *e)
{
	if (e->overlay_entry)
		registry_put(&overlays, e->overlay_entry);
	image_unref(e->image);
	image_unref(e->from);
	if (e->live_entry)
		registry_put(&live_images, e->live_entry);
	pthread_rwlock_destroy(&e->tracing);
	trace_recorder_free(e->trace);
	free(e->name);
	free(e->id);
	free(e->path);
	free(e);
}

static void close_export(void *e)
{
	export_free(e);
}

static void opened_export(void *export, struct entry *e)
{
	((struct export *)export)->entry = e;
}

static void retire_export(void *opaque)
{
	const struct export *e = opaque;

	traffic_sum(&gone, &e->traffic);
}

/* By whom, or to what end. */
enum how {
	OPEN_CLIENT,
	OPEN_STANDING,
	OPEN_OPERATOR,
	OPEN_CREATE, /* by the operator: an overlay that there is not yet */
};

/* What an export's name was found to mean. */
struct target {
	const struct config *config;
	/*
	 * What it is to whoever opens it: its overlay in the name space that the
	 * right to it is for, no grant.
	 */
	struct export_name name;
	char *overlay; /* of name, where it is not the client's word */
	char *text; /* the name */
	char *key; /* the same with the image's id */
	char *id, *path;
	bool stored; /* it is an image of the store */
	struct source *src; /* the store's file, open; NULL: by its path */
	struct open_options options; /* of the image's file */
	enum how how;
};

static void target_done(struct target *t)
{
	free(t->overlay);
	free(t->text);
	free(t->key);
	free(t->id);
	free(t->path);
	source_unref(t->src);
}

/* "vm1", "PROJECT:vm1": the two parts. An overlay's own name has no ':'. */
static void split_overlay(const struct export_name *n, char **project,
			  const char **overlay)
{
	const char *colon = n->overlay ? strrchr(n->overlay, ':') : NULL;

	*overlay = colon ? colon + 1 : n->overlay;
	*project = colon ? strndup(n->overlay, (size_t)(colon - n->overlay))
			 : NULL;
}

/* Takes over what @i has. Of the store's, nothing refers to anything. */
static int take_image(struct target *t, struct glance_image *i,
		      struct error *err)
{
	const struct config *c = t->config;
	int r;

	t->id = i->id;
	t->path = i->path;
	t->options = (struct open_options){ .format = i->format,
					    .contained = i->contained,
					    .while_decoded = true,
					    .alone = true,
					    .direct = c->direct,
					    .lock = !c->force_share,
					    .share = c->force_share };
	r = file_source_adopt(i->fd, c->direct ? FILE_DIRECT : 0, &t->src, err);
	t->options.src = t->src;
	t->options.member = t->name.member;
	return r;
}

/*
 * Which image is it, and may it be had? Asked for each client, whoever has it
 * open: who has an image open that is gone reads on; nobody new.
 */
static int find_in_store(struct target *t, struct error *err)
{
	CLEANUP(freep) char *project = NULL;
	CLEANUP(freep) char *owner = NULL;
	struct glance_image i = { .fd = -1 };
	struct glance_wish wish = { .name = t->name.image,
				    .grant = t->name.grant,
				    .by_operator = t->how == OPEN_CREATE ||
						   t->how == OPEN_OPERATOR };
	int r;

	split_overlay(&t->name, &project, &wish.overlay);
	wish.project = project;
	r = find_image(store, &wish, &i, err);
	if (r < 0)
		return r;
	owner = i.project;
	t->stored = true;
	t->name.grant = NULL;
	r = take_image(t, &i, err);
	if (r < 0 || !owner || !wish.overlay)
		return r;
	if (asprintf(&t->overlay, "%s:%s", owner, wish.overlay) < 0) {
		t->overlay = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	t->name.overlay = t->overlay;
	return 0;
}

/* Sets id and path, and the options to open it by. */
static int find_file(struct target *t, struct error *err)
{
	const struct config *c = t->config;

	const char *path = *t->name.image ? config_export_path(c, t->name.image)
					  : c->image;

	if (!path && *t->name.image && store)
		return find_in_store(t, err);
	/* Of projects there are a store's alone. */
	if (t->name.grant || !path ||
	    (*t->name.image && t->name.overlay && strchr(t->name.overlay, ':')))
		return export_name_unknown(t->text, err);
	t->id = strdup(t->name.image);
	t->path = strdup(path);
	config_open_options(c, &t->options);
	t->options.while_decoded = true;
	if (*t->name.image) { /* its snapshots are called by its name */
		t->options.snapshot = NULL;
		t->options.said_bytes = 0;
		t->options.member = NULL;
	}
	if (t->name.member)
		t->options.member = t->name.member;
	return t->id && t->path ? 0
				: error_set(err, -ENOMEM, 0, "out of memory");
}

static int open_image(void *opaque, void **ret, struct error *err)
{
	const struct target *t = opaque;
	struct image *image;
	int r = image_open(t->path, &t->options, &image, err);

	if (r < 0)
		return r;
	/* Of a store nothing is far away. */
	if (!t->src)
		replay_add(image, t->path, *t->id ? NULL : t->config->trace);
	*ret = image;
	return 0;
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

/*
 * By what an export is found, to be freed. A stored image's data may have become
 * another file's: who comes then has that one, whoever reads the old one on. Of an
 * overlay there is one alone.
 */
static char *key_of(const struct target *t, const struct export_name *n)
{
	CLEANUP(freep) char *name = export_name_format(n);
	struct source_identity id = { 0 };
	char *ret;

	if (t->stored && t->src && !n->overlay)
		source_identity(t->src, &id);
	if (!name || id.kind != SOURCE_FILE)
		return TAKE_PTR(name);
	return asprintf(&ret, "%s\n%ju:%ju", name, (uintmax_t)id.dev,
			(uintmax_t)id.ino) < 0
		       ? NULL
		       : ret;
}

/* What is open once however many of its states are. To be freed. */
static char *live_key(const struct target *t, const char *overlay)
{
	const struct export_name live = { .image = t->id,
					  .member = t->name.member,
					  .overlay = (char *)overlay };

	return overlay ? export_name_format(&live) : key_of(t, &live);
}

static int open_state(struct target *t, struct export *e, struct error *err)
{
	const struct export_state *s = &t->name.state;
	CLEANUP(freep) char *key = live_key(t, NULL);
	struct image *live;
	int r;

	if (!key)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = registry_get(&live_images, key, open_image, t, &e->live_entry, err);
	if (r < 0)
		return r;
	live = entry_object(e->live_entry);
	r = open_at(&t->options, live, s->at, &e->image, err);
	if (r >= 0 && s->difference)
		r = open_at(&t->options, live, s->from, &e->from, err);
	e->live = !s->at && !s->difference;
	return r;
}

/* An overlay that is to be opened over the image of an export. */
struct overlay_wish {
	const struct target *target;
	struct overlay_base base;
};

static int open_wished(void *opaque, void **ret, struct error *err)
{
	const struct overlay_wish *w = opaque;
	const struct target *t = w->target;
	unsigned int how = 0;
	struct overlay *o;
	int r;

	if (t->how == OPEN_CREATE)
		how |= OVERLAYS_WANTED;
	if (t->name.epoch)
		how |= OVERLAYS_STANDBY;
	r = t->name.overlay ? overlays_open_named(t->config, &w->base,
						  t->name.overlay, how, &o, err)
			    : overlays_open_only(t->config, &w->base, &o, err);
	if (r >= 0)
		*ret = o;
	return r;
}

/* The overlay that @t names, its state aside; @alone: one that nobody shares. */
static int get_overlay(const struct target *t, const struct export *e,
		       bool alone, struct entry **ret, struct error *err)
{
	struct overlay_wish w = { t, { e->image, e->path, e->id } };
	CLEANUP(freep) char *key = live_key(t, t->name.overlay);

	if (!key)
		return error_set(err, -ENOMEM, 0, "out of memory");
	return registry_get(&overlays, alone ? NULL : key, open_wished, &w, ret,
			    err);
}

/*
 * Puts the state @name in the place of @image. ":base" is the image @base, and
 * only where a difference begins.
 */
static int take_state(struct overlay *o, const char *name, struct image *base,
		      struct image **image, struct error *err)
{
	struct image *snapshot = NULL;
	int r = 0;

	if (base && !strcmp(name, EXPORT_STATE_BASE))
		snapshot = image_ref(base);
	else
		r = overlay_open_snapshot(o, name, &snapshot, err);
	if (r < 0)
		return r;
	image_unref(*image);
	*image = snapshot;
	return 0;
}

/* The overlay as it is from now on; its entry is @e's. */
static void take_live(struct export *e, struct entry *entry)
{
	e->overlay_entry = entry;
	e->overlay = entry_object(entry);
	if (!e->image)
		e->image = image_ref(entry_object(e->live_entry));
}

/*
 * The live overlay to who moves it to where the base is: he leaves out what is
 * told as a hole.
 */
static void take_own(struct export *e, struct entry *entry)
{
	take_live(e, entry);
	e->from = image_ref(entry_object(e->live_entry));
	e->own = true;
	e->live = false;
}

/*
 * A snapshot of an overlay, a difference of two, or what changed since one.
 * @e->image is the live image, or NULL where only the overlay can have that
 * state; then it is open.
 */
static int open_overlay_state(struct target *t, const struct export_state *s,
			      struct export *e, struct error *err)
{
	struct entry *entry;
	struct overlay *o;
	int r;

	if (s->difference ? !s->from : !s->at)
		return export_name_unknown(e->name, err);
	if (e->image)
		r = get_overlay(t, e, false, &entry, err);
	else
		r = registry_find(&overlays, t->id, &entry)
			    ? 0
			    : export_name_unknown(e->name, err);
	if (r < 0)
		return r;
	if (s->at && !s->difference && !strcmp(s->at, EXPORT_STATE_OWN)) {
		take_own(e, entry);
		return 0;
	}
	o = entry_object(entry);
	e->live = false;
	if (s->at)
		r = take_state(o, s->at, NULL, &e->image, err);
	if (r >= 0 && s->difference)
		r = take_state(o, s->from, entry_object(e->live_entry),
			       &e->from, err);
	if (r >= 0 && !s->at)
		take_live(e, entry);
	else
		registry_put(&overlays, entry);
	return r;
}

/* Does a name that names no overlay, nor a member, mean one all the same? */
static bool has_only_overlay(const struct target *t, const struct export *e)
{
	return e->live && !t->name.member && !t->stored &&
	       (t->config->overlay_temp || (t->config->overlay && !*e->id));
}

static int open_overlay(struct target *t, struct export *e, struct error *err)
{
	const struct export_state *s = &t->name.overlay_state;
	bool only = has_only_overlay(t, e);
	int r;

	if (t->name.overlay && !e->live)
		return export_name_unknown(e->name, err);
	if (t->name.overlay && (s->at || s->difference))
		return open_overlay_state(t, s, e, err);
	if (!t->name.overlay && !only)
		return 0;
	e->lone = only && t->config->overlay_temp &&
		  t->config->overlay_per_connection;
	r = get_overlay(t, e, e->lone, &e->overlay_entry, err);
	if (r >= 0)
		e->overlay = entry_object(e->overlay_entry);
	return r;
}

static int open_parts(struct target *t, struct export *e, struct error *err)
{
	const struct config *c = t->config;
	int r = open_state(t, e, err);

	if (r == -ENOENT && e->live_entry && !t->name.overlay &&
	    (t->name.state.at || t->name.state.from) && c->overlay) {
		/* The only overlay's snapshots are called like the image's. */
		error_clear(err);
		image_unref(TAKE_PTR(e->image));
		return open_overlay_state(t, &t->name.state, e, err);
	}
	if (r < 0)
		return r;
	/* A connection's own overlay begins with the connection. */
	if (t->how == OPEN_STANDING && c->overlay_per_connection) {
		e->lone = true;
		return 0;
	}
	return open_overlay(t, e, err);
}

static int open_new(void *opaque, void **ret, struct error *err)
{
	struct target *t = opaque;
	struct export *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_rwlock_init(&e->tracing, NULL);
	e->diff_apply = t->config->diff_apply;
	e->failures = (struct line_budget){ .burst = 10, .per_second = 1 };
	e->name = strdup(t->text);
	e->id = strdup(t->id);
	e->path = strdup(t->path);
	r = e->name && e->id && e->path
		    ? open_parts(t, e, err)
		    : error_set(err, -ENOMEM, 0, "out of memory");
	if (r < 0) {
		export_free(e);
		return r;
	}
	*ret = e;
	return 0;
}

/* By whatever right and name it is opened, it is one export. */
static int name_target(struct target *t, struct error *err)
{
	struct export_name bare = t->name;

	bare.grant = NULL;
	bare.epoch = 0;
	free(t->text);
	t->text = export_name_format(&bare);
	bare.image = t->id ? t->id : bare.image;
	free(t->key);
	t->key = key_of(t, &bare);
	return t->text && t->key ? 0
				 : error_set(err, -ENOMEM, 0, "out of memory");
}

/* Is each connection's its own? */
static bool is_lone(const struct target *t)
{
	const struct export_name *n = &t->name;

	return t->config->overlay_temp && t->config->overlay_per_connection &&
	       !t->stored && !n->member && !n->overlay && !n->state.at &&
	       !n->state.difference;
}

static int open_or_join(const struct config *c, const char *text, enum how how,
			struct export **ret, struct error *err)
{
	CLEANUP(export_name_done) struct export_name n = { 0 };
	CLEANUP(target_done) struct target t = { .config = c, .how = how };
	struct entry *entry;
	int r = export_name_parse(text, &n, err);

	if (r < 0)
		return r;
	t.name = n;
	r = name_target(&t, err);
	if (r >= 0)
		r = find_file(&t, err);
	if (r >= 0)
		r = name_target(&t, err);
	if (r >= 0)
		r = registry_get(&exports, is_lone(&t) ? NULL : t.key, open_new,
				 &t, &entry, err);
	if (r < 0)
		return r;
	*ret = entry_object(entry);
	if (how == OPEN_STANDING)
		(*ret)->standing = true;
	return 0;
}

int export_open(const struct config *c, const char *text, struct export **ret,
		struct error *err)
{
	return open_or_join(c, text, OPEN_CLIENT, ret, err);
}

int export_open_by_operator(const struct config *c, const char *text,
			    struct export **ret, struct error *err)
{
	return open_or_join(c, text, OPEN_OPERATOR, ret, err);
}

int export_create(const struct config *c, const char *text, struct error *err)
{
	struct export *e;
	bool was_made;
	int r = open_or_join(c, text, OPEN_CREATE, &e, err);

	if (r < 0)
		return r;
	if (!export_is_writable(e)) {
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

int export_open_standing(const struct config *c, const char *image,
			 struct export **ret, struct error *err)
{
	const struct export_name n = { .image = (char *)image };
	CLEANUP(freep) char *text = export_name_format(&n);

	return text ? open_or_join(c, text, OPEN_STANDING, ret, err)
		    : error_set(err, -ENOMEM, 0, "out of memory");
}

unsigned int export_connections(const struct export *e)
{
	return registry_holders(&exports, e->entry) - e->standing;
}

/* ---- traces ---- */

int export_trace_begin(struct export *e, struct error *err)
{
	struct trace_recorder *r = trace_recorder_new(export_bytes(e));
	int code = 0;

	if (!r)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_rwlock_wrlock(&e->tracing);
	if (e->trace)
		code = error_set(err, -EBUSY, 0,
				 "a trace of export \"%s\" is being recorded",
				 e->name);
	else
		e->trace = TAKE_PTR(r);
	atomic_store(&e->traced, e->trace);
	pthread_rwlock_unlock(&e->tracing);
	trace_recorder_free(r);
	return code;
}

int export_trace_end(struct export *e, struct trace *ret, bool *ret_full)
{
	struct trace_recorder *r;
	bool ok;

	pthread_rwlock_wrlock(&e->tracing);
	atomic_store(&e->traced, false);
	r = TAKE_PTR(e->trace);
	pthread_rwlock_unlock(&e->tracing);
	ok = trace_take(r, ret, ret_full);
	trace_recorder_free(r);
	return ok ? 0 : -ENOMEM;
}

void export_note_read(struct export *e, uint64_t off, uint64_t len)
{
	if (!atomic_load_explicit(&e->traced, memory_order_relaxed))
		return;
	pthread_rwlock_rdlock(&e->tracing);
	if (e->trace)
		trace_note(e->trace, off, len);
	pthread_rwlock_unlock(&e->tracing);
}

struct alone {
	struct export *export;
	int (*run)(void *opaque, struct export *e, struct error *err);
	void *opaque;
};

static int run_alone(void *opaque, struct error *err)
{
	const struct alone *a = opaque;
	struct entry *overlay = a->export->overlay_entry;

	/* Exports that tell what it changed have it open as well. */
	if (overlay && registry_holders(&overlays, overlay) > 1)
		return -EBUSY;
	return a->run(a->opaque, a->export, err);
}

int export_run_alone(struct export *e,
		     int (*run)(void *opaque, struct export *e,
				struct error *err),
		     void *opaque, struct error *err)
{
	struct alone a = { e, run, opaque };
	unsigned int others;
	int r = registry_run_alone(&exports, e->entry, 1 + e->standing,
				   run_alone, &a, err);

	if (r != -EBUSY || (err && err->code))
		return r;
	if (export_connections(e) <= 1)
		return error_set(
			err, -EBUSY, 0,
			"export \"%s\" is open by another of its names",
			e->name);
	others = export_connections(e) - 1;
	return error_set(err, -EBUSY, 0,
			 "export \"%s\" is open: %u connection%s", e->name,
			 others, others == 1 ? "" : "s");
}

bool export_is_writable(const struct export *e)
{
	return e->overlay && (!e->from || e->own);
}

uint64_t export_bytes(const struct export *e)
{
	return e->overlay ? overlay_bytes(e->overlay) : e->image->bytes;
}

void export_close(struct export *e)
{
	registry_put(&exports, e->entry);
}

struct each_open {
	int (*each)(void *opaque, const struct export *e,
		    unsigned int connections);
	void *opaque;
};

static int each_open(void *opaque, void *object, unsigned int holders)
{
	const struct each_open *o = opaque;
	const struct export *e = object;

	return o->each(o->opaque, e, holders - e->standing);
}

int export_each_open(int (*each)(void *opaque, const struct export *e,
				 unsigned int connections),
		     void *opaque)
{
	struct each_open o = { each, opaque };

	return registry_visit(&exports, each_open, &o);
}

static int count(void *opaque, void *object, unsigned int holders)
{
	++*(unsigned int *)opaque;
	return 0;
}

unsigned int export_count(void)
{
	unsigned int n = 0;

	registry_each(&exports, count, &n);
	return n;
}

/* What is gone and what is open, under one lock: no request counts twice. */
struct traffic_sum {
	struct traffic *ret;
	bool has_gone;
};

static int add_traffic(void *opaque, void *object, unsigned int holders)
{
	struct traffic_sum *s = opaque;
	const struct export *e = object;

	if (!s->has_gone)
		traffic_add(s->ret, &gone);
	s->has_gone = true;
	traffic_sum(s->ret, &e->traffic);
	return 0;
}

void export_get_traffic(struct traffic *ret)
{
	struct traffic_sum s = { ret, false };

	*ret = (struct traffic){ 0 };
	registry_each(&exports, add_traffic, &s);
	if (s.has_gone)
		return;
	pthread_mutex_lock(&exports.lock);
	traffic_add(ret, &gone);
	pthread_mutex_unlock(&exports.lock);
}

void export_close_all(void)
{
	registry_close_all(&exports);
}
