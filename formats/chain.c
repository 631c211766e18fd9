/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/backing-name.h"
#include "formats/chain.h"
#include "formats/inside.h"
#include "formats/streams/stream.h"
#include "formats/url-place.h"
#include "iouring/sources/url.h"

static int check_loop(const struct chain *c, const struct layer *l,
		      struct error *err)
{
	unsigned int i;

	for (i = 0; i < c->depth; i++)
		if (identity_is_same(&c->layers[i]->identity, &l->identity) &&
		    stream_bottom(c->layers[i]->src)->root_off ==
			    stream_bottom(l->src)->root_off)
			return error_set(err, -EBADMSG, 0,
					 "is its own backing file, by way of "
					 "%u layers",
					 c->depth - i);
	return 0;
}

/* What a parent's name was resolved to. */
struct parent_file {
	struct place_file file;
	char *format; /* declared; NULL: guess */
};

static void parent_file_done(struct parent_file *p)
{
	place_file_done(&p->file);
	free(p->format);
}

static int open_in(struct place *place, const char *name,
		   const struct open_options *options, struct parent_file *ret,
		   enum reference_verdict *verdict, struct error *err)
{
	return place_open(place,
			  &(struct place_ask){ .name = name,
					       .what = "backing file",
					       .allow = &options->allow,
					       .direct = options->direct },
			  &ret->file, verdict, err);
}

static int open_file(const struct layer *child, const char *name,
		     const struct open_options *options,
		     struct parent_file *ret, enum reference_verdict *verdict,
		     struct error *err)
{
	return open_in(child->place, name, options, ret, verdict, err);
}

/* A name as QEMU reads it. */
static int open_named(const struct layer *child,
		      const struct open_options *options,
		      struct parent_file *ret, enum reference_verdict *verdict,
		      struct error *err)
{
	CLEANUP(backing_name_done) struct backing_name name = { 0 };
	int r;

	r = backing_name_parse(&name, child->parent.name, child->parent.format,
			       &options->allow, err);
	if (r < 0) {
		*verdict = r == -EPERM ? REFERENCE_PREFIX : REFERENCE_FAILED;
		return r;
	}
	if (name.url) {
		r = url_place_open(name.path, false, &options->allow,
				   &ret->file, err);
		*verdict = r < 0 ? REFERENCE_FAILED : REFERENCE_OK;
	} else {
		r = open_file(child, name.path, options, ret, verdict, err);
	}
	if (r >= 0)
		r = backing_name_window(&name, &ret->file.src, err);
	if (r < 0)
		return r;
	if (name.url && !name.format && url_place_format(name.path)) {
		ret->format = strdup(url_place_format(name.path));
		return ret->format
			       ? 0
			       : error_set(err, -ENOMEM, 0, "out of memory");
	}
	ret->format = TAKE_PTR(name.format);
	return 0;
}

/* What follows the last slash of either kind. */
static const char *base_name(const char *name)
{
	const char *base = name, *p;

	for (p = name; *p; p++)
		if (*p == '/' || *p == '\\')
			base = p + 1;
	return base;
}

/* A name that may be stale: as it is, else its last part in the folder. */
static int open_stale(const struct layer *child,
		      const struct open_options *options,
		      struct parent_file *ret, enum reference_verdict *verdict,
		      struct error *err)
{
	const char *name = child->parent.name, *base = base_name(name);

	if (!open_file(child, name, options, ret, verdict, NULL))
		return 0;
	return open_file(child, *base ? base : name, options, ret, verdict,
			 err);
}

struct parent_search {
	struct layer *child;
	struct place *place;
	const struct open_options *options;
	struct parent_file *ret;
};

static int try_candidate(void *opaque, const char *name)
{
	struct parent_search *s = opaque;
	struct parent_file file = { 0 };
	enum reference_verdict v;

	if (!open_in(s->place, name, s->options, &file, &v, NULL) &&
	    s->child->ops->is_parent(s->child, file.file.src)) {
		*s->ret = file;
		return 1;
	}
	parent_file_done(&file);
	return 0;
}

static bool search_allowed(struct parent_search *s, const char *path)
{
	CLEANUP(folder_unrefp) struct folder *f = NULL;

	if (folder_open(path, &f, NULL) < 0)
		return false;
	s->place = folder_place(f);
	return place_for_each(s->place, try_candidate, s) == 1;
}

/*
 * A parent that has no name: which file of the folder is it, or of those that
 * the user allows? (VirtualBox has the base one folder up.)
 */
static int open_by_content(struct layer *child,
			   const struct open_options *options,
			   struct parent_file *ret,
			   enum reference_verdict *verdict, struct error *err)
{
	const struct allow *allow = &options->allow;
	struct parent_search s = { .child = child,
				   .place = child->place,
				   .options = options,
				   .ret = ret };
	bool found = place_for_each(s.place, try_candidate, &s) == 1;
	size_t i;

	for (i = 0; !found && i < allow->n_folders; i++)
		found = search_allowed(&s, allow->folders[i]);
	*verdict = found ? REFERENCE_OK : REFERENCE_MISSING;
	if (found)
		return 0;
	return error_set(err, -ENOENT, 0,
			 "its parent is not among the files of its folder: "
			 "%s names another one to look in",
			 AS_GIVEN("allow=DIR", "--allow DIR"));
}

static int open_parent_file(struct layer *child,
			    const struct open_options *options,
			    struct parent_file *ret,
			    enum reference_verdict *verdict, struct error *err)
{
	int r;

	if (child->parent.name && !child->parent.stale_ok)
		return open_named(child, options, ret, verdict, err);
	r = child->parent.name
		    ? open_stale(child, options, ret, verdict, err)
		    : open_by_content(child, options, ret, verdict, err);
	if (r < 0 || !child->parent.format)
		return r;
	ret->format = strdup(child->parent.format);
	return ret->format ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

/* Do the two belong together, by their ids? */
static int check_pair(struct layer *child, struct layer *parent,
		      struct error *err)
{
	struct error own = { 0 };
	int r = child->ops->check_parent(child, parent, &own);

	return r < 0 ? error_set(err, r, own.off,
				 "%s: %s takes it all the same", own.msg,
				 AS_GIVEN("force=parent", "--force parent"))
		     : 0;
}

/* Opens the parent that the last layer names. */
static int open_parent(struct chain *c, const struct open_options *options,
		       struct layer **ret, enum reference_verdict *verdict,
		       struct error *err)
{
	struct layer *child = c->layers[c->depth - 1];
	CLEANUP(parent_file_done) struct parent_file file = { 0 };
	CLEANUP(layer_unrefp) struct layer *parent = NULL;
	unsigned int streams = 0;
	int r;

	*verdict = REFERENCE_OK;
	if (c->depth == CHAIN_DEPTH_MAX)
		r = error_set(err, -EFBIG, 0,
			      "more than %d layers in the chain",
			      CHAIN_DEPTH_MAX);
	else
		r = options_check_alone(options, child->place, "backing file",
					child->parent.name_at, err);
	if (r >= 0)
		r = open_parent_file(child, options, &file, verdict, err);
	if (r < 0) {
		error_prefix(err, "%s", child->path);
		return r;
	}
	r = inside_unpack(&file.file.src, file.format, options, file.file.path,
			  &streams, err);
	if (r < 0) {
		error_prefix(err, "%s", file.file.path);
		return r;
	}
	r = layer_open(TAKE_PTR(file.file.src), file.file.path, file.file.place,
		       file.format, false, options, &parent, err);
	if (r < 0)
		return r;
	r = check_loop(c, parent, err);
	if (r >= 0 && child->ops->check_parent && !options->force_parent)
		r = check_pair(child, parent, err);
	if (r < 0) {
		error_prefix(err, "%s", child->path);
		return r;
	}
	*ret = TAKE_PTR(parent);
	return 0;
}

/* From the top, in c->layers[0] already, down. */
static int open_down(struct chain *c, const struct open_options *options,
		     enum reference_verdict *verdict, struct error *err)
{
	int r = 0;

	c->depth = 1;
	c->bytes = c->layers[0]->bytes;
	while (!r && c->layers[c->depth - 1]->parent.wanted) {
		r = open_parent(c, options, &c->layers[c->depth], verdict, err);
		if (!r)
			c->depth++;
	}
	return r;
}

/* The disk that @f, what the user named, holds. */
static int open_found(struct place_file *f, const struct open_options *options,
		      struct layer **ret, struct error *err)
{
	const char *format = options->format;
	int r = inside_find(f, options, &format, err);

	if (r < 0) {
		error_prefix(err, "%s", f->path);
		return r;
	}
	return layer_open(TAKE_PTR(f->src), f->path, f->place, format, true,
			  options, ret, err);
}

static int open_given(const char *path, const struct open_options *options,
		      struct layer **ret, struct error *err)
{
	const struct file_source *file = source_file(options->src);
	CLEANUP(place_file_done) struct place_file f = { 0 };
	struct folder *folder = NULL;
	int r = file ? folder_of_fd(file->fd, &folder, err) : 0;

	if (r < 0) {
		error_prefix(err, "%s", path);
		return r;
	}
	f.src = source_ref(options->src);
	f.place = folder_place(folder);
	f.path = strdup(path);
	if (!f.path)
		return error_set(err, -ENOMEM, 0, "out of memory");
	/* What its holder says of it is so. */
	if (options->format && !options->member && !options->contained)
		return layer_open(TAKE_PTR(f.src), path, f.place,
				  options->format, true, options, ret, err);
	return open_found(&f, options, ret, err);
}

/* A file of this machine, with the folder that it lies in. */
static int open_local(const char *path, bool direct, struct place_file *ret,
		      struct error *err)
{
	unsigned int flags = FILE_BLOCK_DEVICE | (direct ? FILE_DIRECT : 0);
	struct place_file f = { 0 };
	struct folder *folder = NULL;
	CLEANUP(freep) char *inside = NULL;
	int r = format_in_folder(path, &inside, err);

	if (inside)
		path = inside;
	if (r >= 0)
		r = file_source_open(path, flags, &f.src, err);
	if (r >= 0)
		r = folder_of_file(path, &folder, err);
	if (r >= 0)
		f.place = folder_place(folder);
	f.path = strdup(path);
	if (r >= 0 && !f.path)
		r = error_set(err, -ENOMEM, 0, "out of memory");
	if (r < 0) {
		error_prefix(err, "%s", path);
		place_file_done(&f);
		return r;
	}
	*ret = f;
	return 0;
}

int chain_open_file(const char *path, const struct open_options *options,
		    struct place_file *ret, struct error *err)
{
	CLEANUP(freep) char *people = NULL;

	if (url_place_knows(path))
		return url_place_open(path, true, &options->allow, ret, err);
	if (!place_is_url(path))
		return open_local(path, options->direct, ret, err);
	people = url_for_people(path);
	return error_set(err, -ENOTSUP, 0,
			 "%s: images at URLs of this kind cannot be opened",
			 people ? people : "URL");
}

int chain_open_container(const char *path, const struct open_options *options,
			 struct container **ret, struct error *err)
{
	CLEANUP(place_file_done) struct place_file f = { 0 };
	int r = chain_open_file(path, options, &f, err);

	*ret = NULL;
	return r < 0 ? r : inside_container(&f, options, ret, err);
}

int chain_open_top(const char *path, const struct open_options *options,
		   struct layer **ret, struct error *err)
{
	CLEANUP(place_file_done) struct place_file f = { 0 };
	struct open_options declared = *options;
	int r;

	if (options->src)
		return open_given(path, options, ret, err);
	if (!options->format)
		declared.format = url_place_format(path);
	r = chain_open_file(path, options, &f, err);
	return r < 0 ? r : open_found(&f, &declared, ret, err);
}

int chain_open_partial(const char *path, const struct open_options *options,
		       struct chain *ret, enum reference_verdict *ret_verdict,
		       struct error *err)
{
	int r;

	*ret = (struct chain){ 0 };
	*ret_verdict = REFERENCE_OK;
	r = chain_open_top(path, options, &ret->layers[0], err);
	return r < 0 ? r : open_down(ret, options, ret_verdict, err);
}

/* Data of a locked layer cannot be read, so a chain of one is not opened. */
static int check_unlocked(const struct chain *c, struct error *err)
{
	unsigned int i;

	for (i = 0; i < c->depth; i++)
		if (c->layers[i]->locked)
			return error_set(err, -EACCES, 0,
					 "%s: is encrypted: give its "
					 "passphrase with %s",
					 c->layers[i]->path,
					 AS_GIVEN("key=FILE", "--key FILE"));
	return 0;
}

/* All of @c, or nothing of it. */
static int take_chain(struct chain *c, int r, struct chain *ret,
		      struct error *err)
{
	if (!r)
		r = check_unlocked(c, err);
	if (r < 0)
		chain_done(c);
	else
		*ret = *c;
	return r;
}

int chain_open_source(struct source *src, const char *path, struct place *place,
		      const struct open_options *options, struct chain *ret,
		      struct error *err)
{
	enum reference_verdict verdict;
	struct chain c = { 0 };
	int r;

	r = layer_open(src, path, place, options->format, true, options,
		       &c.layers[0], err);
	if (r >= 0)
		r = open_down(&c, options, &verdict, err);
	return take_chain(&c, r, ret, err);
}

int chain_open(const char *path, const struct open_options *options,
	       struct chain *ret, struct error *err)
{
	enum reference_verdict verdict;
	struct chain c;
	int r = chain_open_partial(path, options, &c, &verdict, err);

	return take_chain(&c, r, ret, err);
}

void chain_add_below(const struct chain *c, unsigned int depth,
		     struct chain *ret)
{
	for (; depth < c->depth; depth++)
		ret->layers[ret->depth++] = layer_ref(c->layers[depth]);
}

void chain_below(const struct chain *c, unsigned int depth, struct chain *ret)
{
	*ret = (struct chain){ .bytes = c->layers[depth]->bytes };
	chain_add_below(c, depth, ret);
}

/* Do the parents' names of @a and @b, of one image, lead to the same file? */
static bool same_parent(const struct layer *a, const struct layer *b)
{
	const struct parent_ref *p = &a->parent, *q = &b->parent;

	if (!p->name || !q->name || strcmp(p->name, q->name) ||
	    strcmp(place_text(a->place), place_text(b->place)))
		return false;
	return p->format && q->format ? !strcmp(p->format, q->format)
				      : p->format == q->format;
}

/* Adds the layers of @c below that from which @ret's parent is known. */
static void share_parents(const struct chain *c,
			  const struct open_options *options, struct chain *ret)
{
	struct layer *top = ret->layers[0];
	unsigned int i;

	for (i = 0; i + 1 < c->depth; i++)
		if (same_parent(top, c->layers[i]))
			break;
	if (i + 1 >= c->depth ||
	    (top->ops->check_parent && !options->force_parent &&
	     top->ops->check_parent(top, c->layers[i + 1], NULL) < 0))
		return;
	chain_add_below(c, i + 1, ret);
}

int chain_open_snapshot(const struct chain *c,
			const struct open_options *options, struct chain *ret,
			struct error *err)
{
	const struct layer *live = c->layers[0];
	const char *format = options->format;
	struct chain own = { 0 };
	enum reference_verdict verdict;
	int r;

	if (!format)
		format = url_place_format(live->path);
	r = layer_open(source_ref(live->src), live->path, live->place, format,
		       true, options, &own.layers[0], err);
	if (r < 0)
		return r;
	own.depth = 1;
	own.bytes = own.layers[0]->bytes;
	if (own.layers[0]->parent.wanted)
		share_parents(c, options, &own);
	if (own.depth == 1)
		r = open_down(&own, options, &verdict, err);
	return take_chain(&own, r, ret, err);
}

void chain_done(struct chain *c)
{
	while (c->depth)
		layer_unref(c->layers[--c->depth]);
}

/* No layer has it. @depth: of the lowest that could have, as QEMU counts. */
static int nothing(unsigned int depth, uint64_t len, struct extent *ret)
{
	*ret = (struct extent){ .kind = EXTENT_ZERO,
				.len = len,
				.depth = (uint16_t)depth,
				.absent = true };
	return 0;
}

int chain_map(const struct chain *c, uint64_t guest_off, uint64_t len,
	      struct extent *ret, struct error *err)
{
	struct extent e;
	unsigned int i;
	int r;

	for (i = 0; i < c->depth; i++) {
		struct layer *l = c->layers[i];

		/* Behind the end of a shorter layer there is nothing. */
		if (guest_off >= l->bytes)
			return nothing(i - 1, len, ret);
		len = min_u64(len, l->bytes - guest_off);
		r = layer_map(l, guest_off, len, &e, err);
		if (r < 0)
			return r;
		if (e.kind != EXTENT_HOLE)
			break;
		len = e.len;
	}
	if (i == c->depth)
		return nothing(c->depth - 1, len, ret);
	e.depth = (uint16_t)i;
	*ret = e;
	return 0;
}
