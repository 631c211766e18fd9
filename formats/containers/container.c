/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/containers/container.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/reference.h"
#include "iouring/sources/pieces.h"
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
	for (i = 0; i < c->n; i++) {
		free(c->members[i].name);
		free(c->members[i].runs);
	}
	free(c->members);
	free(c->sorted);
	place_unref(c->place);
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

static int add(struct container *c, const struct member *m, struct error *err)
{
	const char *name = cut(m->name);
	size_t len = strlen(name);
	struct member *grown;

	if (c->n == MEMBERS_MAX || len > MEMBER_NAME_MAX ||
	    c->names_bytes + len > MEMBERS_NAMES_MAX ||
	    c->n_runs + m->n_runs > MEMBERS_RUNS_MAX)
		return error_set(
			err, -EFBIG, m->off,
			"%s: over the limit of %u members, of %u bytes "
			"of a name, %u of all names, or %u runs of sparse ones",
			c->ops->what, MEMBERS_MAX, MEMBER_NAME_MAX,
			MEMBERS_NAMES_MAX, MEMBERS_RUNS_MAX);
	if (!(c->n & (c->n - 1))) {
		grown = reallocarray(c->members, c->n ? 2 * c->n : 1,
				     sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		c->members = grown;
	}
	c->members[c->n] = *m;
	c->members[c->n].name = strdup(name);
	if (!c->members[c->n].name)
		return error_set(err, -ENOMEM, 0, "out of memory");
	c->names_bytes += len;
	c->n_runs += m->n_runs;
	c->n++;
	return 0;
}

int container_add(struct container *c, const struct member *m,
		  struct error *err)
{
	const char *name = cut(m->name);
	size_t len = strlen(name);
	bool is_file = len && name[len - 1] != '/';
	int r = is_file ? add(c, m, err) : 0;

	if (r < 0 || !is_file)
		free(m->runs);
	return r;
}

static int by_name(const void *a, const void *b, void *members)
{
	const struct member *m = members;
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	int r = strcmp(m[x].name, m[y].name);

	return r ? r : x < y ? -1 : x > y;
}

int container_sort(struct container *c, struct error *err)
{
	uint32_t *grown = reallocarray(c->sorted, c->n + 1, sizeof(*grown));

	if (!grown)
		return error_set(err, -ENOMEM, 0, "out of memory");
	c->sorted = grown;
	for (c->n_sorted = 0; c->n_sorted < c->n; c->n_sorted++)
		grown[c->n_sorted] = (uint32_t)c->n_sorted;
	qsort_r(grown, c->n_sorted, sizeof(*grown), by_name, c->members);
	return 0;
}

static const struct member *find_sorted(const struct container *c,
					const char *name)
{
	size_t low = 0, high = c->n_sorted, middle;
	const struct member *m;

	while (low < high) {
		middle = low + (high - low) / 2;
		if (strcmp(c->members[c->sorted[middle]].name, name) > 0)
			high = middle;
		else
			low = middle + 1;
	}
	m = low ? &c->members[c->sorted[low - 1]] : NULL;
	return m && !strcmp(m->name, name) ? m : NULL;
}

const struct member *container_find(const struct container *c, const char *name)
{
	size_t i;

	name = cut(name);
	if (c->sorted)
		return find_sorted(c, name);
	for (i = c->n; i; i--)
		if (!strcmp(c->members[i - 1].name, name))
			return &c->members[i - 1];
	return NULL;
}

static int open_sparse(const struct container *c, const struct member *m,
		       struct source **ret, struct error *err)
{
	struct piece *pieces = reallocarray(NULL, m->n_runs, sizeof(*pieces));
	size_t i;
	int r;

	if (!pieces && m->n_runs)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < m->n_runs; i++)
		pieces[i] = (struct piece){ .at = m->runs[i].at,
					    .len = m->runs[i].len,
					    .src = c->src,
					    .off = m->runs[i].off };
	r = pieces_source_new(pieces, m->n_runs, m->bytes, ret, err);
	free(pieces);
	return r;
}

/* A file of the place, and where names inside it lead. */
static int open_outside(const struct container *c, const char *name,
			struct place_file *ret,
			enum reference_verdict *ret_verdict, struct error *err)
{
	static const struct allow none;

	return place_open(c->place,
			  &(struct place_ask){ .name = name,
					       .what = "file of the container",
					       .allow = &none },
			  ret, ret_verdict, err);
}

int container_open_member(const struct container *c, const struct member *m,
			  struct source **ret, struct error *err)
{
	CLEANUP(place_file_done) struct place_file file = { 0 };
	int r;

	if (m->unreadable)
		return error_set(err, -ENOTSUP, m->off, "%s", m->unreadable);
	if (m->sparse)
		return open_sparse(c, m, ret, err);
	if (!m->outside)
		return window_source_new(c->src, m->off, m->bytes, ret, err);
	r = open_outside(c, m->name, &file, NULL, err);
	if (r >= 0)
		*ret = TAKE_PTR(file.src);
	return r;
}

int container_add_file(struct container *c, const char *name, struct error *err)
{
	CLEANUP(place_file_done) struct place_file file = { 0 };
	enum reference_verdict verdict = REFERENCE_OUTSIDE;
	struct member m = { .name = (char *)name, .outside = true };

	if (!c->place || open_outside(c, name, &file, &verdict, NULL) < 0)
		m.unreadable = reference_verdict_text(verdict);
	else
		m.bytes = file.src->bytes;
	return container_add(c, &m, err);
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
	.inner = true,
	.open = open_inside,
	.for_each = each_inside,
	.text = text_inside,
	.free = free_inside,
};

/* Its folder, ended by '/', or "". To be freed. */
static char *folder_of(const struct member *m)
{
	const char *slash = strrchr(m->name, '/');

	return strndup(m->name, slash ? (size_t)(slash + 1 - m->name) : 0);
}

const struct member *container_find_beside(const struct container *c,
					   const struct member *from,
					   const char *name)
{
	CLEANUP(freep) char *folder = folder_of(from);
	CLEANUP(freep) char *path = NULL;
	bool outside = false;

	if (folder)
		path = resolve(folder, name, &outside);
	return path ? container_find(c, path) : NULL;
}

/* Where names inside a file of the place lead: to the files beside it. */
static struct place *place_outside(struct container *c, const struct member *m)
{
	CLEANUP(place_file_done) struct place_file file = { 0 };

	return open_outside(c, m->name, &file, NULL, NULL) < 0
		       ? NULL
		       : TAKE_PTR(file.place);
}

struct place *container_place(struct container *c, const struct member *m)
{
	struct inside *in;

	if (m->outside)
		return place_outside(c, m);
	in = calloc(1, sizeof(*in));
	if (!in)
		return NULL;
	in->folder = folder_of(m);
	if (!in->folder) {
		free(in);
		return NULL;
	}
	place_init(&in->place, &inside_ops);
	in->container = container_ref(c);
	return &in->place;
}
