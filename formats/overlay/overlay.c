/* SPDX-License-Identifier: BSD-3-Clause */
/* An overlay's life, and its requests. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "formats/new-file.h"
#include "formats/overlay/overlay-inside.h"
#include "formats/overlay/qcow2-header.h"
#include "iouring/nowait.h"
#include "iouring/write.h"

static int init_lock(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t attr;
	int r;

	if (pthread_rwlockattr_init(&attr))
		return -ENOMEM;
	/* Who must be alone must not wait for a stream of requests to end. */
	pthread_rwlockattr_setkind_np(
		&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	r = pthread_rwlock_init(lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	return -r;
}

/* What is needed to make the file when it is wanted. */
struct overlay_plan {
	struct overlay_new n; /* its strings are ours */
	bool standby; /* it is there, and another process's */
	struct image *base;
	struct overlay_options options;
};

static void plan_free(struct overlay_plan *p)
{
	if (!p)
		return;
	free((char *)p->n.base_name);
	free((char *)p->n.base_format);
	image_unref(p->base);
	free(p);
}

static struct overlay_plan *plan_new(const struct overlay_new *n,
				     struct image *base,
				     const struct overlay_options *options)
{
	struct overlay_plan *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->n.bytes = n->bytes;
	p->n.base_name = strdup(n->base_name);
	p->n.base_format = strdup(n->base_format ? n->base_format : "");
	p->options = *options;
	p->base = image_ref(base);
	if (p->n.base_name && p->n.base_format)
		return p;
	plan_free(p);
	return NULL;
}

static void overlay_free(struct overlay *o)
{
	qcow2_file_close(o->file);
	plan_free(o->plan);
	pthread_rwlock_destroy(&o->gate);
	pthread_rwlock_destroy(&o->swap);
	pthread_mutex_destroy(&o->chain);
	pthread_mutex_destroy(&o->fence_lock);
	pthread_cond_destroy(&o->fenced);
	free(o->path);
	free(o);
}

static struct overlay *overlay_new(const char *path,
				   const struct overlay_options *options)
{
	struct overlay *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	atomic_init(&o->refs, 1);
	o->detect = options->detect;
	o->bytes_max = options->bytes_max;
	o->free_min = options->free_min;
	o->direct = options->open.direct;
	o->log = options->log;
	pthread_mutex_init(&o->chain, NULL);
	pthread_mutex_init(&o->fence_lock, NULL);
	pthread_cond_init(&o->fenced, NULL);
	o->path = path ? strdup(path) : NULL;
	if ((path && !o->path) || init_lock(&o->gate) < 0 ||
	    init_lock(&o->swap) < 0) {
		free(o->path);
		free(o);
		return NULL;
	}
	return o;
}

/* What its file says. */
static void take_epoch(struct overlay *o)
{
	atomic_store(&o->epoch, o->file->s->epoch);
	atomic_store(&o->fence, o->file->s->epoch);
}

static int check_begun(const struct overlay *o, struct error *err)
{
	if (!atomic_load(&o->held))
		return 0;
	return error_set(
		err, -EBUSY, 0,
		"%s: is another server's disk still (\"platter migrate "
		"pull\" begins)",
		o->path);
}

static int opened(struct overlay *o, int r, struct overlay **ret)
{
	if (r < 0) {
		overlay_free(o);
		return r;
	}
	o->bytes = o->file->bytes;
	o->unit_bytes = o->file->sub_bytes;
	take_epoch(o);
	atomic_store(&o->held, o->file->s->pull_held);
	*ret = o;
	return 0;
}

int overlay_open(const char *path, struct image *base, const char *base_name,
		 const struct overlay_options *options, struct overlay **ret,
		 struct error *err)
{
	struct overlay *o = overlay_new(path, options);
	int r;

	if (!o)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = qcow2_file_open(path, base, base_name, options, &o->gate, &o->file,
			    err);
	if (r >= 0)
		r = overlay_tidy(o, err);
	return opened(o, r, ret);
}

int overlay_open_unmade(const char *path, struct image *base,
			const struct overlay_new *n,
			const struct overlay_options *options,
			struct overlay **ret, struct error *err)
{
	struct overlay *o = overlay_new(path, options);

	if (o)
		o->plan = plan_new(n, base, options);
	if (!o || !o->plan) {
		if (o)
			overlay_free(o);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	o->bytes = n->bytes;
	o->unit_bytes = OVERLAY_UNIT_BYTES;
	*ret = o;
	return 0;
}

/* What the header of a file says that somebody may be writing. */
static int peek(struct overlay *o, struct error *err)
{
	const struct open_options options = { .format = "qcow2",
					      .alone = true,
					      .share = true };
	const struct qcow2_state *s;
	struct layer *top;
	int r = chain_open_top(o->path, &options, &top, err);

	if (r < 0)
		return r;
	s = top->state;
	o->bytes = top->bytes;
	o->unit_bytes = OVERLAY_UNIT_BYTES;
	atomic_store(&o->epoch, s->epoch);
	atomic_store(&o->fence, s->epoch);
	layer_unref(top);
	return 0;
}

int overlay_open_standby(const char *path, struct image *base,
			 const char *base_name,
			 const struct overlay_options *options,
			 struct overlay **ret, struct error *err)
{
	const struct overlay_new n = { .base_name = base_name };
	struct overlay *o = overlay_new(path, options);
	int r;

	if (o)
		o->plan = plan_new(&n, base, options);
	if (!o || !o->plan) {
		if (o)
			overlay_free(o);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	o->plan->standby = true;
	atomic_store(&o->standby, true);
	r = peek(o, err);
	if (r < 0) {
		overlay_free(o);
		return r;
	}
	*ret = o;
	return 0;
}

/* Swap and gate are held, as of make_file(). */
static int take_file(struct overlay *o, struct error *err)
{
	const struct overlay_plan *p = o->plan;
	int r = qcow2_file_open(o->path, p->base, p->n.base_name, &p->options,
				&o->gate, &o->file, err);

	if (r < 0)
		return r;
	/* Its clients have been told how long it is. */
	if (o->file->bytes < overlay_bytes(o)) {
		qcow2_file_close(TAKE_PTR(o->file));
		return error_set(err, -EIO, 0, "%s: has become shorter",
				 o->path);
	}
	o->bytes = o->file->bytes;
	take_epoch(o);
	plan_free(TAKE_PTR(o->plan));
	atomic_store(&o->standby, false);
	return 0;
}

/* Swap and gate are held: nobody else is here. */
static int make_file(struct overlay *o, struct error *err)
{
	const struct overlay_plan *p = o->plan;
	int r;

	if (p->standby)
		return take_file(o, err);
	r = overlay_create(o->path, &p->n, err);
	if (r == -EEXIST) {
		error_clear(err);
		return error_set(err, -EBUSY, 0,
				 "%s: somebody else has made it meanwhile: "
				 "connect anew",
				 o->path);
	}
	if (r < 0)
		return r;
	r = qcow2_file_open(o->path, p->base, p->n.base_name, &p->options,
			    &o->gate, &o->file, err);
	if (r >= 0)
		plan_free(TAKE_PTR(o->plan));
	return r;
}

int overlay_make(struct overlay *o, struct error *err)
{
	int r = 0;

	pthread_rwlock_wrlock(&o->swap);
	pthread_rwlock_wrlock(&o->gate);
	if (!o->file)
		r = make_file(o, err);
	pthread_rwlock_unlock(&o->gate);
	pthread_rwlock_unlock(&o->swap);
	return r;
}

bool overlay_is_made(struct overlay *o)
{
	bool made;

	pthread_rwlock_rdlock(&o->gate);
	made = o->file;
	pthread_rwlock_unlock(&o->gate);
	return made;
}

/*
 * Gate is held for reading when it returns 0. One that is another process's is
 * taken first, or that waits for who may wait.
 */
static int enter_to_read(struct overlay *o, struct error *err)
{
	int r = check_begun(o, err);

	if (r < 0)
		return r;
	if (atomic_load(&o->standby)) {
		r = may_wait() ? overlay_make(o, err) : -EAGAIN;
		if (r < 0)
			return r;
	}
	return rdlock_or_again(&o->gate);
}

int overlay_check_made(struct overlay *o, struct error *err)
{
	return overlay_is_made(o)
		       ? 0
		       : error_set(err, -ENOENT, 0,
				   "%s is not there: nothing has been written "
				   "to the overlay",
				   o->path ? o->path : "its file");
}

const char *overlay_path(const struct overlay *o)
{
	return o->path;
}

bool overlay_is_pulled(struct overlay *o)
{
	bool is;

	pthread_rwlock_rdlock(&o->gate);
	is = o->file && o->file->s->pulling;
	pthread_rwlock_unlock(&o->gate);
	return is;
}

/* Swap and gate are held: nobody else is here. */
static int make_pulled(struct overlay *o, const char *from, uint64_t bytes,
		       bool held, struct error *err)
{
	const struct overlay_new n = { .bytes = bytes,
				       .base_name = from,
				       .base_format = "raw",
				       .pulling = true,
				       .pull_held = held };
	int r;

	if (o->file)
		return o->file->s->pulling
			       ? 0
			       : error_set(err, -EEXIST, 0,
					   "%s is there already", o->path);
	r = overlay_create(o->path, &n, err);
	if (r >= 0)
		r = qcow2_file_open(o->path, o->plan->base, NULL,
				    &o->plan->options, &o->gate, &o->file, err);
	else
		return r;
	if (r < 0) {
		unlink(o->path); /* it is ours, and nobody's */
		return r;
	}
	o->bytes = bytes;
	atomic_store(&o->held, held);
	plan_free(TAKE_PTR(o->plan));
	return 0;
}

int overlay_make_pulled(struct overlay *o, const char *from, bool held,
			struct error *err)
{
	struct open_options options = { .format = "raw" };
	CLEANUP(image_unrefp) struct image *afar = NULL;
	int r;

	if (!o->path)
		return error_set(err, -ENOTSUP, 0, "is a temporary overlay");
	r = overlay_is_pulled(o) ? 0 : image_open(from, &options, &afar, err);
	if (r < 0)
		return r;
	pthread_rwlock_wrlock(&o->swap);
	pthread_rwlock_wrlock(&o->gate);
	r = make_pulled(o, from, afar ? afar->bytes : 0, held, err);
	pthread_rwlock_unlock(&o->gate);
	pthread_rwlock_unlock(&o->swap);
	return r;
}

/* Gate is held for reading when it returns 0, and there is a file. */
static int enter_to_change(struct overlay *o, struct error *err)
{
	int r = check_begun(o, err);

	if (r < 0)
		return r;
	pthread_rwlock_rdlock(&o->gate);
	if (o->file)
		return 0;
	pthread_rwlock_unlock(&o->gate);
	r = overlay_make(o, err);
	if (r >= 0)
		pthread_rwlock_rdlock(&o->gate);
	return r;
}

int overlay_open_temp(const char *folder, struct image *base,
		      const struct overlay_options *options,
		      struct overlay **ret, struct error *err)
{
	struct overlay *o = overlay_new(NULL, options);
	int r;

	if (!o)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = qcow2_file_open_temp(folder, base, options, &o->gate, &o->file,
				 err);
	return opened(o, r, ret);
}

struct overlay *overlay_ref(struct overlay *o)
{
	atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
	return o;
}

void overlay_unref(struct overlay *o)
{
	if (!o ||
	    atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) > 1)
		return;
	/* What cannot be made durable now was not promised. */
	if (o->path && o->file)
		flush_last(o->file, NULL);
	overlay_free(o);
}

void overlay_unrefp(struct overlay **o)
{
	overlay_unref(*o);
}

uint64_t overlay_bytes(const struct overlay *o)
{
	return atomic_load_explicit(&o->bytes, memory_order_relaxed);
}

uint64_t overlay_unit_bytes(const struct overlay *o)
{
	return o->unit_bytes;
}

int overlay_read(struct overlay *o, void *buf, size_t len, uint64_t off,
		 struct error *err)
{
	return overlay_read_sparse(o, buf, len, off, NULL, err);
}

int overlay_read_sparse(struct overlay *o, void *buf, size_t len, uint64_t off,
			struct zero_runs *zeroes, struct error *err)
{
	bool keep;
	int r = enter_to_read(o, err);

	if (r < 0)
		return r;
	/* What is kept is all in the buffer. */
	keep = o->file && o->file->s->pulling;
	if (keep && zeroes) {
		zeroes->n = 0;
		zeroes = NULL;
	}
	r = o->file ? qcow2_file_read(o->file, buf, len, off, zeroes, err)
		    : image_read_sparse(o->plan->base, buf, len, off, zeroes,
					err);
	pthread_rwlock_unlock(&o->gate);
	if (r >= 0 && keep && may_wait() && overlay_keep_read(o, buf, len, off))
		overlay_flush(o, NULL);
	return r;
}

/* A walk of the base, under an overlay that has no file yet. */
struct below {
	int (*each)(void *opaque, uint64_t off, const struct extent *e);
	void *opaque;
};

static int tell_below(void *opaque, uint64_t off, const struct extent *e)
{
	const struct below *b = opaque;
	struct extent deeper = *e;

	deeper.depth++;
	return b->each(b->opaque, off, &deeper);
}

int overlay_walk(struct overlay *o, uint64_t off, uint64_t len,
		 int (*each)(void *opaque, uint64_t off,
			     const struct extent *e),
		 void *opaque, uint64_t *ret_end, struct error *err)
{
	struct below b = { each, opaque };
	int r = enter_to_read(o, err);

	if (r < 0)
		return r;
	r = o->file ? qcow2_file_walk(o->file, off, len, each, opaque, ret_end,
				      err)
		    : image_walk(o->plan->base, off, len, tell_below, &b,
				 ret_end, err);
	pthread_rwlock_unlock(&o->gate);
	return r;
}

int overlay_walk_changes(struct overlay *o, struct image *from, uint64_t off,
			 uint64_t len,
			 int (*each)(void *opaque, uint64_t off, uint64_t len,
				     enum change change),
			 void *opaque, uint64_t *ret_end, struct error *err)
{
	int r = enter_to_read(o, err);

	if (r < 0)
		return r;
	if (o->file) {
		r = qcow2_file_walk_changes(o->file, from, off, len, each,
					    opaque, ret_end, err);
	} else {
		/* It has no snapshots, and nothing of its own. */
		*ret_end = off + len;
		r = each(opaque, off, len, CHANGE_NONE);
	}
	pthread_rwlock_unlock(&o->gate);
	return r;
}

/* Says in front of @err's message whose file it is about. */
static int blame_file(const struct overlay *o, int code, struct error *err)
{
	if (o->path)
		error_prefix(err, "%s", o->path);
	else
		error_prefix(err, "temporary overlay in %s",
			     new_file_temp_folder());
	return code;
}

int overlay_flush(struct overlay *o, struct error *err)
{
	int r;

	pthread_rwlock_rdlock(&o->swap);
	r = o->file ? qcow2_file_flush(o->file, err) : 0;
	pthread_rwlock_unlock(&o->swap);
	return r < 0 ? blame_file(o, r, err) : r;
}

/* Ends a request that changed something, and with it the hold on gate. */
static int finish(struct overlay *o, bool durable, int r, struct error *err)
{
	bool full = r >= 0 && !durable && qcow2_file_is_full(o->file);

	pthread_rwlock_unlock(&o->gate);
	if (r < 0)
		return blame_file(o, r, err);
	return durable || full ? overlay_flush(o, err) : r;
}

int overlay_write(struct overlay *o, const void *buf, size_t len, uint64_t off,
		  bool durable, struct error *err)
{
	int r = enter_to_change(o, err);

	if (r < 0)
		return r;
	return finish(o, durable, qcow2_file_write(o->file, buf, len, off, err),
		      err);
}

int overlay_zero(struct overlay *o, uint64_t off, uint64_t len,
		 unsigned int flags, struct error *err)
{
	int r = enter_to_change(o, err);

	if (r < 0)
		return r;
	return finish(o, flags & OVERLAY_DURABLE,
		      qcow2_file_zero(o->file, off, len, flags, err), err);
}

int overlay_trim(struct overlay *o, uint64_t off, uint64_t len, bool durable,
		 struct error *err)
{
	int r = enter_to_change(o, err);

	if (r < 0)
		return r;
	return finish(o, durable, qcow2_file_trim(o->file, off, len, err), err);
}

void overlay_get_stats(struct overlay *o, struct overlay_stats *ret)
{
	*ret = (struct overlay_stats){ 0 };
	pthread_rwlock_rdlock(&o->swap);
	if (o->file) {
		ret->flushes = atomic_load(&o->file->n_flushes);
		ret->syncs = atomic_load(&o->file->n_syncs);
		source_measure(o->file->src, &ret->file_bytes, &ret->room_bytes,
			       NULL);
	}
	pthread_rwlock_unlock(&o->swap);
}

/* ---- the chain ---- */

int overlay_take_chain(struct overlay *o, struct error *err)
{
	int r = overlay_check_made(o, err);

	if (r < 0)
		return r;
	if (!pthread_mutex_trylock(&o->chain))
		return 0;
	return error_set(
		err, -EBUSY, 0,
		"the overlay's snapshots are being changed by somebody "
		"else");
}

void overlay_leave_chain(struct overlay *o)
{
	pthread_mutex_unlock(&o->chain);
}

int overlay_resize(struct overlay *o, uint64_t bytes, struct error *err)
{
	int r = overlay_take_chain(o, err);

	if (r >= 0 && o->file->s->pulling) {
		overlay_leave_chain(o);
		return error_set(err, -EBUSY, 0,
				 "the overlay is not whole yet: it is being "
				 "pulled");
	}
	if (r < 0)
		return r;
	pthread_rwlock_wrlock(&o->swap);
	r = qcow2_file_flush(o->file, err);
	pthread_rwlock_wrlock(&o->gate);
	if (r >= 0)
		r = qcow2_grow(o->file, bytes, err);
	if (r >= 0)
		atomic_store(&o->bytes, bytes);
	pthread_rwlock_unlock(&o->gate);
	pthread_rwlock_unlock(&o->swap);
	overlay_leave_chain(o);
	return r;
}

const struct image *overlay_base(const struct overlay *o)
{
	return o->file->base;
}
