/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/containers/container.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "iouring/util.h"

struct container *container_ref(struct container *c)
{
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

void container_unref(struct container *c)
{
	size_t i;

	if (!c ||
	    atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) > 1)
		return;
	for (i = 0; i < c->n; i++)
		free(c->members[i].name);
	free(c->members);
	source_unref(c->src);
	free(c->path);
	free(c);
}

void container_unrefp(struct container **c)
{
	container_unref(*c);
}

/* ---- members ---- */

/* What is before a name and leads nowhere. */
static const char *cut(const char *name)
{
	while (*name == '/' || (name[0] == '.' && name[1] == '/'))
		name++;
	return name;
}

int container_add(struct container *c, const char *name, uint64_t off,
		  uint64_t bytes, const char *unreadable, struct error *err)
{
	size_t len = strlen(cut(name));
	struct member *grown;

	if (!len || cut(name)[len - 1] == '/')
		return 0; /* a folder */
	if (c->n == MEMBERS_MAX || len > MEMBER_NAME_MAX ||
	    c->names_bytes + len > MEMBERS_NAMES_MAX)
		return error_set(
			err, -EFBIG, off,
			"%s: over the limit of %u members, of %u bytes "
			"of a name, or %u of all names",
			c->ops->what, MEMBERS_MAX, MEMBER_NAME_MAX,
			MEMBERS_NAMES_MAX);
	if (!(c->n & (c->n - 1))) {
		grown = reallocarray(c->members, c->n ? 2 * c->n : 1,
				     sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		c->members = grown;
	}
	c->members[c->n] = (struct member){ .name = strdup(cut(name)),
					    .off = off,
					    .bytes = bytes,
					    .unreadable = unreadable };
	if (!c->members[c->n].name)
		return error_set(err, -ENOMEM, 0, "out of memory");
	c->names_bytes += len;
	c->n++;
	return 0;
}

const struct member *container_find(const struct container *c, const char *name)
{
	size_t i;

	name = cut(name);
	for (i = c->n; i; i--)
		if (!strcmp(c->members[i - 1].name, name))
			return &c->members[i - 1];
	return NULL;
}

int container_open_member(const struct container *c, const struct member *m,
			  struct source **ret, struct error *err)
{
	if (m->unreadable)
		return error_set(err, -ENOTSUP, m->off, "%s", m->unreadable);
	return window_source_new(c->src, m->off, m->bytes, ret, err);
}

/* ---- the place of a member ---- */

struct inside {
	struct place place;
	struct container *container;
	char *folder; /* of the member, ended by '/'; or "" */
};

/*
 * @name from @folder on, without "." and "..", to be freed. NULL: no memory, or,
 * with *ret_outside, it leads out of the container.
 */
static char *resolve(const char *folder, const char *name, bool *ret_outside)
{
	size_t n = strlen(folder), part;
	char *path = malloc(n + strlen(name) + 1);

	*ret_outside = *name == '/';
	if (path)
		memcpy(path, folder, n);
	while (path && *name && !*ret_outside) {
		part = strcspn(name, "/");
		if (part == 2 && !memcmp(name, "..", 2)) {
			*ret_outside = !n;
			for (n -= n ? 1 : 0; n && path[n - 1] != '/'; n--)
				;
		} else if (part && !(part == 1 && *name == '.')) {
			memcpy(path + n, name, part);
			n += part;
			if (name[part])
				path[n++] = '/';
		}
		name += part;
		name += *name == '/';
	}
	if (path)
		path[n] = '\0';
	if (*ret_outside)
		free(TAKE_PTR(path));
	return path;
}

static int open_inside(struct place *p, const struct place_ask *ask,
		       struct place_file *ret,
		       enum reference_verdict *ret_verdict, struct error *err)
{
	struct inside *in = container_of(p, struct inside, place);
	bool outside;
	CLEANUP(freep) char *name = resolve(in->folder, ask->name, &outside);
	const struct member *m =
		name ? container_find(in->container, name) : NULL;
	int r;

	if (!m) {
		*ret_verdict = outside ? REFERENCE_OUTSIDE : REFERENCE_MISSING;
		return error_set(err, outside ? -EPERM : -ENOENT, 0,
				 outside ? "%s lies outside the container"
					 : "%s is no member of the container",
				 ask->what);
	}
	r = container_open_member(in->container, m, &ret->src, err);
	if (r >= 0)
		ret->place = container_place(in->container, m);
	if (r >= 0 &&
	    (!ret->place ||
	     asprintf(&ret->path, "%s/%s", in->container->path, m->name) < 0)) {
		ret->path = NULL;
		r = error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (r < 0)
		*ret_verdict = REFERENCE_FAILED;
	return r;
}

static int each_inside(struct place *p,
		       int (*each)(void *opaque, const char *name),
		       void *opaque)
{
	const struct inside *in = container_of(p, struct inside, place);
	const struct container *c = in->container;
	size_t n = strlen(in->folder), i;
	int r = 0;

	for (i = 0; !r && i < c->n; i++) {
		const char *name = c->members[i].name;

		if (!strncmp(name, in->folder, n) && !strchr(name + n, '/'))
			r = each(opaque, name + n);
	}
	return r;
}

static const char *text_inside(const struct place *p)
{
	return container_of(p, struct inside, place)->container->path;
}

static void free_inside(struct place *p)
{
	struct inside *in = container_of(p, struct inside, place);

	container_unref(in->container);
	free(in->folder);
	free(in);
}

static const struct place_ops inside_ops = {
	.open = open_inside,
	.for_each = each_inside,
	.text = text_inside,
	.free = free_inside,
};

struct place *container_place(struct container *c, const struct member *m)
{
	const char *slash = strrchr(m->name, '/');
	struct inside *in = calloc(1, sizeof(*in));

	if (!in)
		return NULL;
	in->folder =
		strndup(m->name, slash ? (size_t)(slash + 1 - m->name) : 0);
	if (!in->folder) {
		free(in);
		return NULL;
	}
	place_init(&in->place, &inside_ops);
	in->container = container_ref(c);
	return &in->place;
}
