/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening overlays. The reader's own driver has read and checked the header of
 * what is opened here; this adds what a writer needs.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "formats/file-lock.h"
#include "formats/new-file.h"
#include "formats/overlay/qcow2-header.h"
#include "formats/overlay/qcow2-new.h"
#include "formats/overlay/qcow2-write.h"
#include "iouring/write.h"

static int check_writable(const struct qcow2_file *o, struct error *err)
{
	const struct qcow2_state *s = o->s;

	if (s->h.crypt_method)
		return error_set(err, -ENOTSUP, QCOW2_CRYPT_AT,
				 "is encrypted: such a file cannot be written "
				 "here");
	if (s->has_data_file)
		return error_set(err, -ENOTSUP, QCOW2_INCOMPATIBLE_AT,
				 "has an external data file: such a file "
				 "cannot be written here");
	if (s->h.incompatible & QCOW2_INCOMPAT_CORRUPT)
		return error_set(err, -ENOTSUP, QCOW2_INCOMPATIBLE_AT,
				 "is marked as corrupt: repair it first "
				 "(qemu-img check -r all)");
	return 0;
}

static void adopt_geometry(struct qcow2_file *o)
{
	o->s = o->top->state;
	o->bytes = o->s->h.size;
	o->cluster_bits = o->s->cluster_bits;
	o->cluster_bytes = o->s->cluster_bytes;
	o->l2_bits = o->s->l2_bits;
	o->extended = o->s->l2_entry_bytes == 16;
	o->subs = o->extended ? QCOW2_SUBCLUSTERS : 1;
	o->sub_bytes = o->cluster_bytes / o->subs;
	o->page_bytes = (uint32_t)min_u64(PAGE_BYTES_MAX, o->cluster_bytes);
}

/*
 * The file as a layer, as long as it is now: read by the descriptor that writes
 * it and holds its lock, so it is the file that is locked.
 */
static int open_top(struct qcow2_file *o, const char *path,
		    const struct open_options *options, struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	CLEANUP(folder_unrefp) struct folder *folder = NULL;
	uint64_t bytes;
	int r = source_measure(o->src, &bytes, NULL, err);

	if (r >= 0)
		r = window_source_new(o->src, 0, bytes, &src, err);
	if (r >= 0)
		r = folder_of_file(path, &folder, err);
	return r < 0 ? r
		     : layer_open(TAKE_PTR(src), path, folder_place(folder),
				  options->format, true, options, &o->top, err);
}

/* The chain below, as the file names it. */
static int open_named_base(struct qcow2_file *o, const char *path,
			   const struct open_options *options,
			   struct error *err)
{
	CLEANUP(image_unrefp) struct image *whole = NULL;
	struct chain below;
	int r = image_open(path, options, &whole, err);

	if (r < 0)
		return r;
	chain_below(&whole->chain, 1, &below);
	return image_from_chain(&below, &o->base, err);
}

/* Does the file name @base, in whatever words? */
static bool names_base(const struct qcow2_file *o, const struct image *base,
		       const char *base_name)
{
	const char *has = o->top->parent.name;
	CLEANUP(freep) char *path = NULL;
	struct stat st;

	if (!has)
		return false;
	if (!strcmp(has, base_name))
		return true;
	if (asprintf(&path, "%s/%s", place_text(o->top->place), has) < 0) {
		path = NULL;
		return false;
	}
	return !stat(*has == '/' ? has : path, &st) &&
	       identity_is_file(&base->chain.layers[0]->identity, &st);
}

static bool is_below(const struct chain *c, const struct layer *l)
{
	unsigned int i;

	for (i = 0; i < c->depth; i++)
		if (identity_is_same(&c->layers[i]->identity, &l->identity))
			return true;
	return false;
}

/*
 * Snapshots may lie between the file and @base: the chain that it names, if
 * @base is in it. What they name may lie in @base's folder, as well.
 */
static int take_base_below(struct qcow2_file *o, const char *path,
			   struct image *base, const char *base_name,
			   const struct open_options *options,
			   struct error *err)
{
	const struct layer *wanted = base->chain.layers[0];
	struct open_options wider = *options;
	CLEANUP(freep)
	const char **folders =
		calloc(options->allow.n_folders + 1, sizeof(*folders));
	struct error why = { 0 };
	int r;

	if (!folders)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (options->allow.n_folders)
		memcpy(folders, options->allow.folders,
		       options->allow.n_folders * sizeof(*folders));
	folders[wider.allow.n_folders++] = place_text(wanted->place);
	wider.allow.folders = folders;
	r = o->top->parent.wanted ? open_named_base(o, path, &wider, &why)
				  : -ENOENT;
	if (r >= 0 && is_below(&o->base->chain, wanted))
		return 0;
	return error_set(err, -EEXIST, QCOW2_BACKING_OFF_AT,
			 "is an overlay of %s, not of %s",
			 o->top->parent.name ? o->top->parent.name : "nothing",
			 base_name);
}

/* What is pulled is as long as when that began: else it is another disk. */
static int open_afar(struct qcow2_file *o, const char *path,
		     const struct open_options *options, struct error *err)
{
	int r = open_named_base(o, path, options, err);

	if (r < 0 || o->base->bytes == o->bytes)
		return r;
	return error_set(err, -EBADMSG, QCOW2_SIZE_AT,
			 "is a disk of %" PRIu64 " bytes that is being pulled, "
			 "and %s has %" PRIu64 " now",
			 o->bytes,
			 o->top->parent.name ? o->top->parent.name : "it",
			 o->base->bytes);
}

static int take_base(struct qcow2_file *o, const char *path, struct image *base,
		     const char *base_name, const struct open_options *options,
		     struct error *err)
{
	if (!base)
		return o->top->parent.wanted && !o->options.alone
			       ? open_named_base(o, path, options, err)
			       : 0;
	/* Until it is whole, and @base lies below. */
	if (o->s->pulling)
		return open_afar(o, path, options, err);
	if (base_name && !names_base(o, base, base_name))
		return take_base_below(o, path, base, base_name, options, err);
	if (base_name) {
		int r = layer_check_declared(base->chain.layers[0],
					     o->top->parent.format, err);

		if (r < 0)
			return r;
	}
	o->base = image_ref(base);
	return 0;
}

/* Whole clusters, so that what is read lies inside. */
static int take_end(struct qcow2_file *o, struct error *err)
{
	uint64_t bytes;
	int r = source_measure(o->src, &bytes, NULL, err);

	if (r < 0)
		return r;
	o->end = div_round_up(bytes, o->cluster_bytes);
	o->ahead = o->ahead_end = o->end;
	if (bytes % o->cluster_bytes)
		r = source_truncate(o->src, o->end << o->cluster_bits, err);
	return r;
}

/* What others keep beside the data goes stale with the first write. */
static int clear_autoclear(struct qcow2_file *o, struct error *err)
{
	uint64_t none = 0;
	int r;

	if (!o->s->h.autoclear)
		return 0;
	r = source_write(o->src, &none, sizeof(none), QCOW2_AUTOCLEAR_AT, err);
	return r < 0 ? r : source_sync(o->src, err);
}

static void init_locks(struct qcow2_file *o)
{
	unsigned int i;

	for (i = 0; i < STRIPES; i++)
		pthread_rwlock_init(&o->stripes[i], NULL);
	pthread_mutex_init(&o->meta, NULL);
	pthread_mutex_init(&o->flush_lock, NULL);
	pthread_cond_init(&o->flush_ended, NULL);
}

void qcow2_file_close(struct qcow2_file *o)
{
	unsigned int i;

	if (!o)
		return;
	log_done(o);
	tables_done(o);
	refs_done(o);
	image_unref(o->base);
	layer_unref(o->top);
	if (o->src && o->temporary && !o->options.log)
		source_truncate(o->src, 0, NULL);
	source_unref(o->src);
	for (i = 0; i < STRIPES; i++)
		pthread_rwlock_destroy(&o->stripes[i]);
	pthread_mutex_destroy(&o->meta);
	pthread_mutex_destroy(&o->flush_lock);
	pthread_cond_destroy(&o->flush_ended);
	free(o->path);
	free(o);
}

static struct qcow2_file *file_new(const char *path,
				   const struct overlay_options *options,
				   pthread_rwlock_t *gate)
{
	struct qcow2_file *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->gate = gate;
	o->path = strdup(path);
	o->options = *options;
	/* The caller's strings need not outlive the opening. */
	o->options.open = (struct open_options){ 0 };
	if (!o->path) {
		free(o);
		return NULL;
	}
	init_locks(o);
	return o;
}

/*
 * After a crash: what the log has, refcounts for what it leads to, all of it
 * durable; then the file is as any other.
 */
static int recover(struct qcow2_file *o, struct error *err)
{
	int r = 0;

	o->dirty = o->s->h.incompatible & QCOW2_INCOMPAT_DIRTY;
	if (log_was_left(o))
		r = log_replay(o, err);
	if (r >= 0 && o->dirty)
		r = repair_refcounts(o, err);
	/* Nobody else is there: what it gives back need not be waited for. */
	o->gate_held = true;
	if (r >= 0 && log_was_left(o))
		r = flush_run(o, err);
	o->gate_held = false;
	if (r >= 0 && log_was_left(o))
		r = log_forget(o, err);
	return r < 0 ? r : dirty_unmark(o, err);
}

static int open_inside(struct qcow2_file *o, const char *path,
		       struct image *base, const char *base_name,
		       const struct overlay_options *options, struct error *err)
{
	struct open_options open = options->open;
	int r;

	open.format = "qcow2";
	open.snapshot = NULL;
	/* We have it locked ourselves. */
	open.lock = false;
	open.writer = true;
	r = open_top(o, path, &open, err);
	if (r < 0)
		return r;
	adopt_geometry(o);
	r = check_writable(o, err);
	if (r >= 0)
		r = log_open(o, err);
	if (r >= 0)
		r = take_base(o, path, base, base_name, &open, err);
	if (r >= 0)
		r = take_end(o, err);
	if (r >= 0)
		r = refs_open(o, err);
	if (r >= 0)
		r = tables_open(o, err);
	if (r >= 0)
		r = recover(o, err);
	if (r >= 0)
		r = tables_remember(o, err);
	return r < 0 ? r : clear_autoclear(o, err);
}

/* @name: for people; @path: where it can be opened once more. */
static int open_source(struct source *src, const char *name, const char *path,
		       bool temporary, struct image *base,
		       const char *base_name,
		       const struct overlay_options *options,
		       pthread_rwlock_t *gate, struct qcow2_file **ret,
		       struct error *err)
{
	struct qcow2_file *o = file_new(name, options, gate);
	int r;

	if (!o) {
		source_unref(src);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	o->src = src;
	o->temporary = temporary;
	r = file_lock_writer(src, log_patience_ms(temporary ? NULL : name),
			     err);
	if (r >= 0 && !temporary)
		r = log_drop_unwritten(o, err);
	if (r >= 0)
		r = open_inside(o, path, base, base_name, options, err);
	o->options.kept = NULL; /* the caller's */
	if (r < 0) {
		qcow2_file_close(o);
		return r;
	}
	*ret = o;
	return 0;
}

int qcow2_file_open(const char *path, struct image *base, const char *base_name,
		    const struct overlay_options *options,
		    pthread_rwlock_t *gate, struct qcow2_file **ret,
		    struct error *err)
{
	struct source *src = NULL;
	int r = file_source_open_rw(
		path, options->open.direct ? FILE_DIRECT : 0, &src, err);

	if (r >= 0)
		r = open_source(src, path, path, false, base, base_name,
				options, gate, ret, err);
	if (r < 0 && err && !strstr(err->msg, path))
		error_prefix(err, "%s", path);
	return r;
}

/* The file that is kept for us, or one of our own, without a name. */
static int open_temp_source(const char *folder, const struct overlay_new *n,
			    const struct overlay_options *options,
			    struct source **ret, struct error *err)
{
	unsigned int flags = options->open.direct ? FILE_DIRECT : 0;
	CLEANUP(source_unrefp) struct source *src = NULL;
	uint64_t bytes = 0;
	char again[32];
	int fd = -1, r;

	if (options->kept) {
		/* With locks of its own, which a process before it may hold. */
		snprintf(again, sizeof(again), "/proc/self/fd/%d",
			 options->kept->fd);
		fd = open(again, O_RDWR | O_CLOEXEC);
		r = fd < 0 ? error_set(err, -errno, 0, "temporary overlay: %s",
				       errno_text(errno))
			   : 0;
	} else {
		r = new_file_nameless(folder, &fd, err);
	}
	if (r >= 0)
		r = file_source_adopt_rw(fd, flags, &src, err);
	if (r >= 0)
		r = source_measure(src, &bytes, NULL, err);
	if (r >= 0 && !bytes)
		r = qcow2_new_write(src, n, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(src);
	return 0;
}

int qcow2_file_open_temp(const char *folder, struct image *base,
			 const struct overlay_options *options,
			 pthread_rwlock_t *gate, struct qcow2_file **ret,
			 struct error *err)
{
	struct overlay_new n = { .bytes = base->bytes };
	struct overlay_options own = *options;
	struct source *src = NULL;
	char again[32];
	int r = qcow2_new_check(&n, err);

	/* Who would read a log that is gone with the process? */
	own.log = own.log && own.kept;
	if (r >= 0)
		r = open_temp_source(folder, &n, &own, &src, err);
	if (r < 0)
		return r;
	snprintf(again, sizeof(again), "/proc/self/fd/%d",
		 source_file(src)->fd);
	return open_source(src, "temporary overlay", again, true, base, NULL,
			   &own, gate, ret, err);
}
