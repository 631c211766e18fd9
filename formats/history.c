/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/history.h"

/* "#255", and room for what a compiler fears */
#define NUMBER_BYTES 16

static const char *layer_file(const struct layer *l)
{
	const char *slash = strrchr(l->path, '/');

	return slash ? slash + 1 : l->path;
}

static void layer_number(char ret[NUMBER_BYTES], unsigned int depth)
{
	snprintf(ret, NUMBER_BYTES, "#%u", depth);
}

/* How many layers below the top have the file name @name; *ret: the last. */
static unsigned int find_file(const struct chain *c, const char *name,
			      unsigned int *ret)
{
	unsigned int i, n = 0;

	for (i = 1; i < c->depth; i++) {
		if (!strcmp(layer_file(c->layers[i]), name)) {
			*ret = i;
			n++;
		}
	}
	return n;
}

/* A layer by its number; 0: it is none. */
static unsigned int find_number(const struct chain *c, const char *name)
{
	char number[NUMBER_BYTES];
	unsigned int i;

	for (i = 1; *name == '#' && i < c->depth; i++) {
		layer_number(number, i);
		if (!strcmp(number, name))
			return i;
	}
	return 0;
}

static int find_layer(const struct chain *c, const char *name,
		      unsigned int *ret, struct error *err)
{
	unsigned int n;

	*ret = find_number(c, name);
	if (*ret)
		return 0;
	n = find_file(c, name, ret);
	if (n > 1)
		return error_set(err, -ENOENT, 0,
				 "%u layers are called \"%s\": call the one "
				 "that is meant by its number, #1 is below the "
				 "top",
				 n, name);
	return n ? 0
		 : error_set(err, -ENOENT, 0,
			     "there is no snapshot or layer \"%s\"", name);
}

/* Can @name be written in a line, and in an export's name? */
static bool is_plain(const char *name)
{
	char escaped[ERROR_MSG_BYTES];

	text_escape(escaped, sizeof(escaped), name);
	return *name && !strcmp(escaped, name);
}

struct listing {
	const struct chain *c;
	int (*each)(void *opaque, const struct history_state *s);
	void *opaque;
	int r; /* what @each said */
};

struct lookup {
	const char *text;
	const char *own_id; /* NULL: any snapshot will do */
};

static int match_snapshot(void *opaque, const struct snapshot *s)
{
	const struct lookup *l = opaque;

	if (l->own_id && !strcmp(s->id, l->own_id))
		return 0;
	return !strcmp(s->id, l->text) || !strcmp(s->name, l->text);
}

/* Does a snapshot other than that of @own_id answer to @text? */
static bool is_taken(const struct chain *c, const char *text,
		     const char *own_id)
{
	struct layer *top = c->layers[0];
	struct lookup l = { .text = text, .own_id = own_id };

	return layer_snapshots(top, match_snapshot, &l, NULL) > 0;
}

/* Its name, unless another snapshot answers to that or nobody can write it. */
static int list_snapshot(void *opaque, const struct snapshot *s)
{
	struct listing *l = opaque;
	struct history_state state = {
		.name = s->name,
		.format = l->c->layers[0]->ops->name,
		.bytes = s->bytes,
	};

	if (!is_plain(s->name) || is_taken(l->c, s->name, s->id))
		state.name = s->id;
	if (is_plain(state.name))
		l->r = l->each(l->opaque, &state);
	return l->r;
}

struct is_layer {
	struct layer *l;
	bool found;
};

static int match_layer(void *opaque, const struct snapshot *s)
{
	struct is_layer *m = opaque;

	m->found = m->l->ops->is_snapshot(m->l, s->id);
	return m->found;
}

/* Is @l one of the top's snapshots, too? */
static bool is_listed(const struct chain *c, struct layer *l)
{
	struct layer *top = c->layers[0];
	struct is_layer m = { .l = l };

	if (l->ops->is_snapshot)
		layer_snapshots(top, match_layer, &m, NULL);
	return m.found;
}

static int list_layer(struct listing *l, unsigned int depth)
{
	const struct chain *c = l->c;
	const char *file = layer_file(c->layers[depth]);
	char number[NUMBER_BYTES];
	struct history_state state = {
		.name = file,
		.format = c->layers[depth]->ops->name,
		.bytes = c->layers[depth]->bytes,
		.depth = depth,
	};
	unsigned int last;

	layer_number(number, depth);
	if (find_file(c, file, &last) > 1 || find_number(c, file) ||
	    !is_plain(file) || is_taken(c, file, NULL))
		state.name = number;
	if (is_taken(c, state.name, NULL))
		return 0;
	return l->each(l->opaque, &state);
}

int history_each(const struct chain *c,
		 int (*each)(void *opaque, const struct history_state *s),
		 void *opaque, struct error *err)
{
	struct listing l = { .c = c, .each = each, .opaque = opaque };
	struct layer *top = c->layers[0];
	unsigned int i;
	int r = layer_snapshots(top, list_snapshot, &l, err);

	for (i = 1; i < c->depth && !l.r; i++)
		if (!is_listed(c, c->layers[i]))
			l.r = list_layer(&l, i);
	return l.r ? l.r : r;
}

static int open_layer(struct image *live, unsigned int depth,
		      struct image **ret, struct error *err)
{
	struct chain chain;

	if (!depth) {
		*ret = image_ref(live);
		return 0;
	}
	chain_below(&live->chain, depth, &chain);
	return image_from_chain(&chain, ret, err);
}

int history_open(struct image *live, const struct open_options *options,
		 const char *name, struct image **ret, struct error *err)
{
	const struct chain *c = &live->chain;
	struct open_options then = *options;
	struct error own = { 0 };
	struct chain chain;
	unsigned int i;
	int r;

	for (i = 0; i < c->depth; i++)
		if (c->layers[i]->ops->is_snapshot &&
		    c->layers[i]->ops->is_snapshot(c->layers[i], name))
			return open_layer(live, i, ret, err);
	if (c->layers[0]->ops->snapshots) {
		then.snapshot = name;
		r = chain_open_snapshot(c, &then, &chain, &own);
		if (!r)
			return image_from_chain(&chain, ret, err);
		if (r != -ENOENT || is_taken(c, name, NULL))
			return error_set(err, r, own.off, "%s", own.msg);
	}
	r = find_layer(c, name, &i, err);
	if (r < 0) {
		error_prefix(err, "%s", c->layers[0]->path);
		return r;
	}
	return open_layer(live, i, ret, err);
}
