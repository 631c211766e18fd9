/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "nbd/export-name.h"
#include "nbd/export.h"

/* The open exports. Opening may take as long as a passphrase's derivation. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct export *exports;

/* Which snapshot does @name ask for? NULL in *ret: none. */
static int parse_name(const char *name, char **ret, struct error *err)
{
	CLEANUP(export_name_done) struct export_name n = { 0 };
	int r = export_name_parse(name, &n, err);

	if (r < 0)
		return r;
	if (*n.image || n.member || n.overlay || n.grant || n.state.difference)
		return export_name_unknown(name, err);
	*ret = TAKE_PTR(n.state.at);
	return 0;
}

static void export_free(struct export *e)
{
	image_unref(e->image);
	free(e->snapshot);
	free(e->name);
	free(e);
}

static struct export *find(const char *name)
{
	struct export *e;

	for (e = exports; e && strcmp(e->name, name); e = e->next)
		;
	return e;
}

static int open_new(const struct config *c, const char *name,
		    struct export **ret, struct error *err)
{
	struct export *e = calloc(1, sizeof(*e));
	struct open_options options;
	int r;

	if (!e)
		return error_set(err, -ENOMEM, 0, "out of memory");
	config_open_options(c, &options);
	e->name = strdup(name);
	r = e->name ? parse_name(name, &e->snapshot, err)
		    : error_set(err, -ENOMEM, 0, "out of memory");
	if (e->snapshot)
		options.snapshot = e->snapshot;
	if (r >= 0 && !c->image)
		r = error_set(err, -ENOENT, 0, "there is no export \"%.256s\"",
			      name);
	if (r >= 0)
		r = image_open(c->image, &options, &e->image, err);
	if (r < 0) {
		export_free(e);
		return r;
	}
	*ret = e;
	return 0;
}

int export_open(const struct config *c, const char *name, struct export **ret,
		struct error *err)
{
	struct export *e;
	int r = 0;

	pthread_mutex_lock(&lock);
	e = find(name);
	if (!e) {
		r = open_new(c, name, &e, err);
		if (r >= 0) {
			e->next = exports;
			exports = e;
		}
	}
	if (r >= 0) {
		e->refs++;
		*ret = e;
	}
	pthread_mutex_unlock(&lock);
	return r;
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

struct listing {
	struct layer *top;
	unsigned int left;
	int (*each)(void *opaque, const char *name, const char *description);
	void *opaque;
};

struct lookup {
	const char *text;
	const char *own_id;
	bool ambiguous;
};

static int compare_snapshot(void *opaque, const struct snapshot *s)
{
	struct lookup *l = opaque;

	if (strcmp(s->id, l->own_id) &&
	    (!strcmp(s->id, l->text) || !strcmp(s->name, l->text)))
		l->ambiguous = true;
	return l->ambiguous;
}

/* The name of the export of @snapshot; NULL: it cannot be written. */
static char *snapshot_name(const char *snapshot)
{
	struct export_name n = { .image = (char *)"",
				 .state.at = (char *)snapshot };

	return export_name_format(&n);
}

/* Its name, unless another snapshot answers to that, or NBD forbids it. */
static char *listed_name(struct layer *top, const struct snapshot *s)
{
	struct lookup l = { .text = s->name, .own_id = s->id };
	char escaped[ERROR_MSG_BYTES];

	text_escape(escaped, sizeof(escaped), s->name);
	if (*s->name && !strcmp(escaped, s->name) &&
	    top->ops->snapshots(top, compare_snapshot, &l, NULL) >= 0 &&
	    !l.ambiguous)
		return snapshot_name(s->name);
	text_escape(escaped, sizeof(escaped), s->id);
	return *s->id && !strcmp(escaped, s->id) ? snapshot_name(s->id) : NULL;
}

static int list_snapshot(void *opaque, const struct snapshot *s)
{
	struct listing *l = opaque;
	CLEANUP(freep) char *name = listed_name(l->top, s);
	char description[128];

	if (!l->left)
		return 1;
	if (!name)
		return 0;
	l->left--;
	snprintf(description, sizeof(description),
		 "snapshot of the %s image, %llu bytes", l->top->ops->name,
		 (unsigned long long)s->bytes);
	return l->each(l->opaque, name, description);
}

int export_list(struct layer *top, unsigned int max,
		int (*each)(void *opaque, const char *name,
			    const char *description),
		void *opaque)
{
	struct listing l = {
		.top = top, .left = max, .each = each, .opaque = opaque
	};
	char description[128];
	int r;

	snprintf(description, sizeof(description), "%s image, %llu bytes",
		 top->ops->name, (unsigned long long)top->bytes);
	r = each(opaque, "", description);
	/* A damaged table of snapshots does not hide the image. */
	if (!r && l.left-- && top->ops->snapshots)
		top->ops->snapshots(top, list_snapshot, &l, NULL);
	return r;
}
