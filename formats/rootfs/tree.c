/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/rootfs/tree.h"
#include "iouring/util.h"

#define WHITEOUT       ".wh."
#define OPAQUE	       ".wh..wh..opq"
#define LINKS_MAX      40U /* symbolic ones on one way, as Linux has it */
#define NAME_BYTES_MAX 255U
#define PATH_BYTES_MAX 4095U
#define IMPLIED_MODE   0755U /* of a folder that no layer speaks of */

/* ---- names ---- */

static int compare(const void *a, const void *b)
{
	const struct tree_node *x = a, *y = b;

	if (x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	return strcmp(x->name, y->name);
}

static struct tree_node *find(const struct tree *t, struct tree_node *parent,
			      const char *name)
{
	struct tree_node key = { .name = (char *)name, .parent = parent };
	struct tree_node **found =
		tfind(&key, (void *const *)&t->index, compare);

	return found ? *found : NULL;
}

static size_t xattrs_bytes(const struct tar_xattr *x, size_t n)
{
	size_t bytes = 0, i;

	for (i = 0; i < n; i++)
		bytes += strlen(x[i].name) + x[i].bytes;
	return bytes;
}

static void drop_xattrs(struct tree *t, struct tree_file *f)
{
	size_t i;

	t->text_bytes -= xattrs_bytes(f->xattrs, f->n_xattrs);
	for (i = 0; i < f->n_xattrs; i++) {
		free(f->xattrs[i].name);
		free(f->xattrs[i].value);
	}
	free(f->xattrs);
}

static void drop_file(struct tree *t, struct tree_file *f)
{
	if (!f || --f->links)
		return;
	drop_xattrs(t, f);
	t->n_runs -= f->n_runs;
	t->text_bytes -= f->target ? strlen(f->target) : 0;
	free(f->runs);
	free(f->target);
	free(f);
}

/* @n is in no list and no index. */
static void free_node(struct tree *t, struct tree_node *n)
{
	drop_file(t, n->file);
	t->text_bytes -= n->name ? strlen(n->name) : 0;
	free(n->name);
	free(n);
	t->n_nodes--;
}

static void unlink_node(struct tree *t, struct tree_node *n)
{
	*n->link = n->next;
	if (n->next)
		n->next->link = n->link;
	else
		n->parent->end = n->link;
	tdelete(n, &t->index, compare);
}

/* With all that is in it; deep ones cost no stack. */
static void drop(struct tree *t, struct tree_node *top)
{
	struct tree_node *n = top, *parent;

	for (;;) {
		while (n->first)
			n = n->first;
		parent = n->parent;
		unlink_node(t, n);
		if (n == top) {
			free_node(t, n);
			return;
		}
		free_node(t, n);
		n = parent;
	}
}

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, 0, "out of memory");
}

/* One more in @parent; its file's links count it. */
static int add(struct tree *t, struct tree_node *parent, const char *name,
	       struct tree_file *file, struct tree_node **ret,
	       struct error *err)
{
	struct tree_node *n;

	if (t->n_nodes == TREE_NODES_MAX)
		return error_set(err, -EFBIG, 0,
				 "more than %u names in the file system",
				 TREE_NODES_MAX);
	n = calloc(1, sizeof(*n));
	if (!n)
		return no_memory(err);
	n->name = strdup(name);
	n->parent = parent;
	if (!n->name || !tsearch(n, &t->index, compare)) {
		free(n->name);
		free(n);
		return no_memory(err);
	}
	n->end = &n->first;
	n->file = file;
	n->layer = t->layer;
	n->link = parent->end;
	*parent->end = n;
	parent->end = &n->next;
	file->links++;
	t->n_nodes++;
	t->text_bytes += strlen(name);
	*ret = n;
	return 0;
}

static struct tree_file *new_folder(void)
{
	struct tree_file *f = calloc(1, sizeof(*f));

	if (f)
		*f = (struct tree_file){ .type = TAR_FOLDER,
					 .mode = IMPLIED_MODE };
	return f;
}

int tree_init(struct tree *t, struct error *err)
{
	*t = (struct tree){ .root = calloc(1, sizeof(*t->root)) };
	if (t->root) {
		t->root->name = strdup("");
		t->root->file = new_folder();
	}
	if (!t->root || !t->root->name || !t->root->file) {
		tree_done(t);
		return no_memory(err);
	}
	t->root->file->links = 1;
	t->root->parent = t->root;
	t->root->end = &t->root->first;
	t->n_nodes = 1;
	return 0;
}

void tree_done(struct tree *t)
{
	if (!t->root)
		return;
	while (t->root->first)
		drop(t, t->root->first);
	free_node(t, TAKE_PTR(t->root));
}

struct tree_node *tree_next(const struct tree *t, struct tree_node *n)
{
	if (!n)
		return t->root;
	if (n->first)
		return n->first;
	while (n != t->root && !n->next)
		n = n->parent;
	return n == t->root ? NULL : n->next;
}

/* ---- ways ---- */

/* A way that is gone along, and what of symbolic links is put before its rest. */
struct way {
	struct tree *t;
	const char *entry; /* whose name it is, for messages */
	char text[PATH_BYTES_MAX + 1];
	unsigned int links;
	bool make; /* folders that are not there */
	struct error *err;
};

static int refuse(const struct way *w, int code, const char *what)
{
	char safe[256];

	text_escape(safe, sizeof(safe), w->entry);
	return error_set(w->err, code, 0, "entry \"%s\": %s", safe, what);
}

/* The link's target stands in the place of its name. */
static int follow(struct way *w, const char *target, const char *rest)
{
	char text[PATH_BYTES_MAX + 1];

	if (++w->links > LINKS_MAX)
		return refuse(w, -EBADMSG,
			      "too many symbolic links lead there");
	if (snprintf(text, sizeof(text), "%s/%s", target, rest) >=
	    (int)sizeof(text))
		return refuse(w, -EBADMSG, "its way is too long");
	memcpy(w->text, text, sizeof(text));
	return 0;
}

static int make_folder(const struct way *w, struct tree_node *parent,
		       const char *name, struct tree_node **ret)
{
	struct tree_file *f = new_folder();
	int r;

	if (!f)
		return no_memory(w->err);
	r = add(w->t, parent, name, f, ret, w->err);
	if (r < 0)
		free(f);
	return r;
}

/*
 * One step: from *@at by the first name of @w->text, which is cut off. *ret_end:
 * there is no more. A last name is not gone to: it is left in @w->text.
 */
static int step(struct way *w, struct tree_node **at, bool *ret_end)
{
	char *name = w->text + strspn(w->text, "/"), *rest;
	size_t n = strcspn(name, "/");
	struct tree_node *found;
	bool last = !name[n + strspn(name + n, "/")];

	*ret_end = last;
	if (n > NAME_BYTES_MAX)
		return refuse(w, -EBADMSG, "a name has more than 255 bytes");
	rest = name + n + (name[n] == '/');
	name[n] = '\0';
	if (last || !n || !strcmp(name, ".")) {
		memmove(w->text, last ? name : rest,
			strlen(last ? name : rest) + 1);
		return 0;
	}
	if (!strcmp(name, "..")) {
		*at = (*at)->parent;
		memmove(w->text, rest, strlen(rest) + 1);
		return 0;
	}
	found = find(w->t, *at, name);
	if (found && found->file->type == TAR_SYMLINK) {
		if (found->file->target[0] == '/')
			*at = w->t->root;
		return follow(w, found->file->target, rest);
	}
	if (!found && w->make) {
		int r = make_folder(w, *at, name, &found);

		if (r < 0)
			return r;
	}
	if (!found || !tree_is_folder(found))
		return refuse(w, -EBADMSG,
			      found ? "what leads there is no folder"
				    : "it leads to nothing");
	*at = found;
	memmove(w->text, rest, strlen(rest) + 1);
	return 0;
}

/* The folder that @path's last name, left in w->text, is in. */
static int go(struct way *w, const char *path, struct tree_node **ret)
{
	bool end = false;
	int r = 0;

	if (strlen(path) > PATH_BYTES_MAX)
		return refuse(w, -EBADMSG, "its name is too long");
	strcpy(w->text, path);
	*ret = w->t->root;
	while (!end && r >= 0)
		r = step(w, ret, &end);
	return r;
}

/* Is any part of it ".."? Archives that say so mean what lies outside. */
static bool climbs(const char *path)
{
	size_t n;

	for (; *path; path += n + (path[n] == '/')) {
		n = strcspn(path, "/");
		if (n == 2 && !memcmp(path, "..", 2))
			return true;
	}
	return false;
}

/* ---- entries ---- */

/* In @top, behind @n and all that is in it; NULL: nothing. */
static struct tree_node *after(const struct tree_node *top, struct tree_node *n)
{
	while (n != top && !n->next)
		n = n->parent;
	return n == top ? NULL : n->next;
}

/* What is below this layer goes; its own folders stay, emptied so. */
static void hide(struct tree *t, struct tree_node *top)
{
	struct tree_node *n = top->first, *next;

	if (top->hid == t->layer) /* once is enough, or it is the lowest */
		return;
	top->hid = t->layer;
	for (; n; n = next) {
		next = n->layer == t->layer && n->first ? n->first
							: after(top, n);
		if (n->layer < t->layer)
			drop(t, n);
	}
}

static void whiteout(struct tree *t, struct tree_node *folder, const char *name)
{
	struct tree_node *n;

	if (!strcmp(name, OPAQUE)) {
		hide(t, folder);
		return;
	}
	if (!strncmp(name, ".wh..wh.", 8))
		return; /* aufs' own */
	n = find(t, folder, name + strlen(WHITEOUT));
	if (n && n->layer < t->layer)
		drop(t, n);
	else if (n && tree_is_folder(n))
		hide(t, n);
}

/* A number of seconds, an owner, attributes: what a folder has, too. */
static void take_over(struct tree *t, struct tree_file *f, struct tar_entry *e)
{
	drop_xattrs(t, f);
	t->text_bytes += xattrs_bytes(e->xattrs, e->n_xattrs);
	f->mode = e->mode;
	f->uid = e->uid;
	f->gid = e->gid;
	f->major = e->major;
	f->minor = e->minor;
	f->mtime_sec = e->mtime_sec;
	f->mtime_nsec = e->mtime_nsec;
	f->xattrs = TAKE_PTR(e->xattrs);
	f->n_xattrs = e->n_xattrs;
	e->n_xattrs = 0;
}

/* To be freed by who gives it no name; NULL: no memory. */
static struct tree_file *new_file(struct tree *t, struct tar_entry *e)
{
	struct tree_file *f = calloc(1, sizeof(*f));
	struct member_run *one = NULL;

	if (!f)
		return NULL;
	f->type = e->type;
	f->layer = t->layer;
	f->bytes = e->bytes;
	f->target = e->type == TAR_SYMLINK ? strdup(e->link) : NULL;
	if (e->bytes && !e->sparse) {
		one = malloc(sizeof(*one));
		if (one)
			*one = (struct member_run){ 0, e->bytes, e->off };
	}
	if ((e->type == TAR_SYMLINK && !f->target) ||
	    (e->bytes && !e->sparse && !one)) {
		free(f->target);
		free(f);
		return NULL;
	}
	f->runs = e->sparse ? TAKE_PTR(e->runs) : one;
	f->n_runs = e->sparse ? e->n_runs : one != NULL;
	t->n_runs += f->n_runs;
	t->text_bytes += f->target ? strlen(f->target) : 0;
	take_over(t, f, e);
	return f;
}

/* The file that a hard link is another name of. */
static int find_target(struct way *w, const char *path, struct tree_file **ret)
{
	struct tree_node *folder = NULL, *n;
	int r;

	if (climbs(path))
		return refuse(w, -EBADMSG, "it is a link to what lies outside");
	w->make = false;
	r = go(w, path, &folder);
	if (r < 0)
		return r;
	n = find(w->t, folder, w->text);
	if (!n || tree_is_folder(n))
		return refuse(w, -EBADMSG,
			      n ? "it is a hard link to a folder"
				: "it is a hard link to nothing");
	*ret = n->file;
	return 0;
}

/* Its file, of which it will be a name. */
static int file_of(struct way *w, struct tar_entry *e, struct tree_file **ret)
{
	if (e->type == TAR_HARD_LINK)
		return find_target(w, e->link, ret);
	*ret = new_file(w->t, e);
	return *ret ? 0 : no_memory(w->err);
}

static void touch(const struct tree *t, struct tree_node *n)
{
	for (; n->layer < t->layer; n = n->parent)
		n->layer = t->layer;
}

/* @name, in @folder, from now on. */
static int put(struct way *w, struct tree_node *folder, const char *name,
	       struct tar_entry *e)
{
	struct tree_node *old = *name ? find(w->t, folder, name) : folder;
	struct tree_file *f = NULL;
	struct tree_node *n;
	int r;

	if (old && e->type == TAR_FOLDER && tree_is_folder(old)) {
		take_over(w->t, old->file, e);
		old->layer = w->t->layer;
		return 0;
	}
	if (old == folder)
		return refuse(w, -EBADMSG, "it has the name of a folder");
	r = file_of(w, e, &f);
	if (r < 0)
		return r;
	f->links++; /* until it has the name */
	if (old)
		drop(w->t, old);
	r = add(w->t, folder, name, f, &n, w->err);
	drop_file(w->t, f);
	return r;
}

/* Will the tree, with @e, be within its limits? */
static int check_room(const struct way *w, const struct tar_entry *e)
{
	const struct tree *t = w->t;
	size_t link = e->link ? strlen(e->link) : 0;

	if (!e->has_owner)
		return refuse(w, -EBADMSG,
			      "its mode, owner or time is no number");
	if (link > PATH_BYTES_MAX)
		return refuse(w, -EBADMSG, "it is a link of over 4095 bytes");
	if (t->n_runs + e->n_runs >= TREE_RUNS_MAX)
		return error_set(w->err, -EFBIG, 0,
				 "more than %u runs of data in the files",
				 TREE_RUNS_MAX);
	if (t->text_bytes + link + strlen(e->name) +
		    xattrs_bytes(e->xattrs, e->n_xattrs) >
	    TREE_TEXT_MAX)
		return error_set(w->err, -EFBIG, 0,
				 "more than %u bytes of names, links and "
				 "extended attributes",
				 TREE_TEXT_MAX);
	return 0;
}

static int add_entry(void *opaque, struct tar_entry *e, struct error *err)
{
	struct tree *t = opaque;
	struct way w = { .t = t, .entry = e->name, .make = true, .err = err };
	char name[NAME_BYTES_MAX + 1];
	struct tree_node *folder = NULL;
	int r;

	if (climbs(e->name))
		return refuse(&w, -EBADMSG,
			      "its name leads out of the archive");
	r = check_room(&w, e);
	if (r >= 0)
		r = go(&w, e->name, &folder);
	if (r < 0)
		return r;
	touch(t, folder);
	strcpy(name, strcmp(w.text, ".") ? w.text : "");
	if (strncmp(name, WHITEOUT, strlen(WHITEOUT)))
		return put(&w, folder, name, e);
	whiteout(t, folder, name);
	return 0;
}

int tree_add_layer(struct tree *t, struct source *src, struct error *err)
{
	int r;

	if (t->layer == TREE_LAYERS_MAX)
		return error_set(err, -EFBIG, 0, "more than %u layers",
				 TREE_LAYERS_MAX);
	r = tar_each(src, add_entry, t, err);
	if (r >= 0)
		t->layer++;
	return r;
}
