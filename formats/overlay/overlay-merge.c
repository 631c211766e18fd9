/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Taking a snapshot out of an overlay's chain, or putting the chain in another's
 * place. Whatever of the data below is seen through the layer above, and will not
 * be there any more, is copied there first: "pulled".
 *
 * Where that layer is the one that takes writes, it is pulled in place, some
 * at a time, and its header led past the snapshot. A crash leaves it with data
 * that the snapshot has as well. Where it is frozen itself, it stays as it
 * is, and a new file that is both takes its name, whole.
 *
 *	doomed -> pulled -> flushed -> led past (the latest) -> file removed
 *	doomed -> both written, durable -> renamed -> put in -> file removed
 *
 * Chain is held from the first to the last of it, so that changes of the chain
 * do not meet. Nobody waits for the pulling as a whole: what is to be copied is
 * looked for with gate held for reading, and each piece is looked at again and
 * written with gate held for writing, so that no write of the guest is undone;
 * the base is read before that. A write that comes between pieces needs no
 * notice: it puts data where the pull then finds some. Swap is held for writing
 * to put the new base in, with a flush of what can be flushed beside requests;
 * then gate, too, with a flush of the rest: what was pulled is durable before
 * the header leads past.
 *
 * What was pulled is not taken back when the merge is cancelled or fails: it is
 * what the guest sees anyway, and costs room. Nothing is written to a file that
 * was frozen: others may read it. Whether the base has the same is not asked of
 * what is pulled (OVERLAY_DETECT_BASE): it has, by its nature.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/difference.h"
#include "formats/file-lock.h"
#include "formats/overlay/overlay-pull.h"
#include "formats/overlay/qcow2-header.h"
#include "iouring/write.h"

/* Copied at once, of what was fetched before. */
#define AHEAD_BYTES (2U << 20)
#define ZERO_BYTES  (64U << 20)
/* Looked at at once, while they do not. */
#define LOOK_BYTES  (1ULL << 30)

/* So that those who wait do not wait for a disk, or a network, as well. */
static int read_ahead(struct pull *p, uint8_t *ahead, uint64_t off,
		      uint64_t len, struct error *err)
{
	struct image *base = p->file->base;
	uint64_t n =
		base && off < base->bytes ? min_u64(len, base->bytes - off) : 0;

	if (!ahead) {
		if (n)
			image_prefetch(base, off, n, NULL);
		return 0;
	}
	p->ahead_off = off;
	memset(ahead + n, 0, len - n);
	return n ? image_read(base, ahead, n, off, err) : 0;
}

static int pull_range(struct pull *p, uint64_t off, uint64_t len,
		      struct error *err)
{
	/* Reading ahead is for data; of zeroes much can be done at once. */
	bool zero = p->zero && p->far;
	uint64_t n;
	int r = 0;

	for (; len && r >= 0; off += n, len -= n) {
		n = min_u64(len, zero	  ? ZERO_BYTES
				 : p->far ? AHEAD_BYTES
					  : PULL_BYTES);
		if (!zero)
			r = read_ahead(p, p->far, off, n, err);
		if (r < 0)
			break;
		pthread_rwlock_wrlock(p->gate);
		r = pull_held(p, off, n, err);
		pthread_rwlock_unlock(p->gate);
		if (r >= 0 && qcow2_file_is_full(p->file))
			r = qcow2_file_flush(p->file, err);
		if (r >= 0)
			r = p->progress(p->opaque, off + n);
	}
	return r;
}

/* What a look found, or the first *len bytes of it. */
static int pull_found(struct pull *p, uint64_t off, uint64_t *len,
		      struct error *err)
{
	int r = 0;

	if (p->far)
		r = p->zero ? pull_check_zero(p, off, *len, err)
			    : pull_is_same(p, off, len, err);
	if (r == 1)
		return p->progress(p->opaque, off + *len);
	return r < 0 ? r : pull_range(p, off, *len, err);
}

static int pull_all(struct pull *p, struct error *err)
{
	uint64_t off = 0, next, found, len;
	int r = 0;

	for (; off < p->file->bytes && !r; off = next) {
		pthread_rwlock_rdlock(p->gate);
		r = pull_look(p, off, min_u64(LOOK_BYTES, p->file->bytes - off),
			      &next, err);
		pthread_rwlock_unlock(p->gate);
		found = p->off;
		len = p->len;
		if (r >= 0)
			r = p->progress(p->opaque, off);
		if (r || !len)
			continue;
		r = pull_found(p, found, &len, err);
		next = found + len;
	}
	return r;
}

/* Sets p->shorter and p->lower: layer @at of @c is the lowest that goes. */
static void measure(struct pull *p, const struct chain *c, unsigned int at)
{
	p->shorter = c->layers[at]->bytes;
	p->lower = at + 1 < c->depth ? c->layers[at + 1]->bytes : 0;
}

/* The layers of @img from @depth on; *ret NULL: there are none. */
static int image_below(struct image *img, unsigned int depth,
		       struct image **ret, struct error *err)
{
	struct chain c;

	*ret = NULL;
	if (depth >= img->chain.depth)
		return 0;
	chain_below(&img->chain, depth, &c);
	return image_from_chain(&c, ret, err);
}

/* ---- the latest snapshot, into what takes writes ---- */

/* Swap and gate are held for writing. */
static int lead_past(struct overlay *o, const struct parent_ref *parent,
		     struct error *err)
{
	struct image *base;
	int r = image_below(o->file->base, 1, &base, err);

	if (r < 0)
		return r;
	o->file->gate_held = true;
	r = flush_run(o->file, err);
	o->file->gate_held = false;
	if (r >= 0)
		r = qcow2_set_base(o->file, base ? parent->name : NULL,
				   parent->format, err);
	if (r < 0) {
		image_unref(base);
		return r;
	}
	image_unref(o->file->base);
	o->file->base = base;
	return 0;
}

static int merge_latest(struct overlay *o, struct pull *p, struct error *err)
{
	int r;

	p->file = o->file;
	p->gate = &o->gate;
	p->layers = 1;
	measure(p, &o->file->base->chain, 0);
	r = pull_all(p, err);
	if (r)
		return r;
	pthread_rwlock_wrlock(&o->swap);
	/* Most of it, while requests go on. */
	r = qcow2_file_flush(o->file, err);
	pthread_rwlock_wrlock(&o->gate);
	if (r >= 0)
		r = lead_past(o, &o->file->base->chain.layers[0]->parent, err);
	pthread_rwlock_unlock(&o->gate);
	pthread_rwlock_unlock(&o->swap);
	return r;
}

/* ---- an older one, with the frozen layer above it ---- */

/* Writes what @file and the layer below it are together to @temp. */
static int write_both(struct overlay *o, struct image *both, const char *temp,
		      const struct pull *how, struct error *err)
{
	pthread_rwlock_t gate = PTHREAD_RWLOCK_INITIALIZER;
	struct pull p = *how;
	struct overlay_options options = { .open.direct = o->direct,
					   .free_min = o->free_min };
	int r = qcow2_file_open(temp, both, NULL, &options, &gate, &p.file,
				err);

	if (r < 0)
		return r;
	p.gate = &gate;
	p.layers = 2;
	measure(&p, &both->chain, 1);
	r = pull_all(&p, err);
	if (!r)
		r = flush_last(p.file, err);
	free(p.buf);
	qcow2_file_close(p.file);
	return r;
}

static int create_both(struct overlay *o, struct image *both, const char *temp,
		       struct pull *p, struct error *err)
{
	const struct parent_ref *below = &both->chain.layers[1]->parent;
	struct overlay_new n = { .bytes = both->bytes };
	int r;

	if (both->chain.depth > 2) {
		n.base_name = below->name;
		n.base_format = below->format;
	}
	unlink(temp); /* of an attempt that a crash ended */
	r = overlay_create(temp, &n, err);
	if (r >= 0)
		r = write_both(o, both, temp, p, err);
	return r;
}

/* The chain below @o with the file @path in the place of layer @at and the next. */
static int open_shorter(struct overlay *o, unsigned int at, const char *path,
			struct image **ret, struct error *err)
{
	const struct chain *old = &o->file->base->chain;
	struct open_options options = { .format = "qcow2",
					.direct = o->direct };
	struct chain c = { 0 };
	int r;

	for (; c.depth < at; c.depth++)
		c.layers[c.depth] = layer_ref(old->layers[c.depth]);
	r = chain_open_top(path, &options, &c.layers[at], err);
	if (r < 0) {
		chain_done(&c);
		return r;
	}
	c.depth++;
	chain_add_below(old, at + 2, &c);
	c.bytes = c.layers[0]->bytes;
	return image_from_chain(&c, ret, err);
}

/* Layer @at, of the file @path, and the next become one. */
static int merge_older(struct overlay *o, unsigned int at, const char *path,
		       struct pull *p, struct error *err)
{
	CLEANUP(image_unrefp) struct image *both = NULL;
	CLEANUP(freep) char *temp = NULL;
	struct image *shorter;
	int r;

	if (asprintf(&temp, "%s.new", path) < 0) {
		temp = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	r = image_below(o->file->base, at, &both, err);
	ANALYSER_ASSUME(r < 0 || both);
	if (r >= 0)
		r = create_both(o, both, temp, p, err);
	if (!r && rename(temp, path) < 0)
		r = error_set(err, -errno, 0, "%s: %s", path,
			      errno_text(errno));
	if (r) {
		unlink(temp);
		return r;
	}
	/* Before the layer below may go. */
	r = sync_folder_of(path, err);
	if (r >= 0)
		r = open_shorter(o, at, path, &shorter, err);
	if (r < 0)
		return r;
	pthread_rwlock_wrlock(&o->swap);
	pthread_rwlock_wrlock(&o->gate);
	image_unref(o->file->base);
	o->file->base = shorter;
	pthread_rwlock_unlock(&o->gate);
	pthread_rwlock_unlock(&o->swap);
	return 0;
}

/* ---- both ---- */

static int merge(struct overlay *o, const char *name, struct pull *p,
		 struct error *err)
{
	int at = overlay_find_frozen(o, name), r;
	CLEANUP(freep) char *path = NULL;

	if (at < 0)
		return 0; /* merged already, but for its file */
	if (!at)
		return merge_latest(o, p, err);
	path = overlay_layer_path(o, (unsigned int)at - 1);
	if (!path)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = merge_older(o, (unsigned int)at - 1, path, p, err);
	return r;
}

int overlay_delete(struct overlay *o, const char *name,
		   int (*progress)(void *opaque, uint64_t done_bytes),
		   void *opaque, struct error *err)
{
	struct pull p = { .progress = progress, .opaque = opaque };
	CLEANUP(source_unrefp) struct source *frozen = NULL;
	CLEANUP(freep) char *path = NULL;
	int r = overlay_snapshot_path(o, name, &path, err);

	if (r >= 0)
		r = overlay_lock_frozen(path, name, &frozen, err);
	if (r >= 0)
		r = overlay_take_chain(o, err);
	if (r < 0)
		return r;
	r = overlay_doom(o, path, err);
	if (r >= 0)
		r = merge(o, name, &p, err);
	free(p.buf);
	if (!r)
		r = overlay_remove_frozen(path, err);
	/* Of one that stays, too. */
	overlay_spare(path);
	overlay_leave_chain(o);
	return r;
}

/* ---- all of a base that is far ---- */

/* It has all of the disk: what is afar is let go. Swap and gate are held. */
static int detach(struct overlay *o, const struct overlay_pull_to *to,
		  struct error *err)
{
	int r;

	o->file->gate_held = true;
	r = flush_run(o->file, err);
	o->file->gate_held = false;
	if (r >= 0)
		r = qcow2_end_pull(o->file, to->name, to->format, err);
	if (r < 0)
		return r;
	image_unref(o->file->base);
	o->file->base = image_ref(to->base);
	return 0;
}

static int pull_whole(struct overlay *o, struct pull *p, struct error *err)
{
	int r;

	p->file = o->file;
	p->gate = &o->gate;
	p->all = true;
	p->ahead = p->far = malloc(AHEAD_BYTES);
	r = p->far ? pull_all(p, err)
		   : error_set(err, -ENOMEM, 0, "out of memory");
	free(p->far);
	free(p->buf);
	return r;
}

/* From now on what is afar is written no more, and read. */
static int begin_pull(struct overlay *o, struct error *err)
{
	int r = 0;

	pthread_rwlock_wrlock(&o->swap);
	pthread_rwlock_wrlock(&o->gate);
	if (atomic_load(&o->held))
		r = qcow2_begin_pull(o->file, err);
	if (r >= 0)
		atomic_store(&o->held, false);
	pthread_rwlock_unlock(&o->gate);
	pthread_rwlock_unlock(&o->swap);
	return r;
}

int overlay_pull(struct overlay *o, const struct overlay_pull_to *to,
		 int (*progress)(void *opaque, uint64_t done_bytes),
		 void *opaque, struct error *err)
{
	struct pull p = { .same = to->same ? to->base : NULL,
			  .progress = progress,
			  .opaque = opaque };
	int r = overlay_take_chain(o, err);

	if (r < 0)
		return r;
	r = o->file->s->pulling
		    ? begin_pull(o, err)
		    : error_set(err, -EINVAL, 0,
				"%s is not of another server's disk, or is "
				"whole",
				o->path);
	if (r >= 0)
		r = pull_whole(o, &p, err);
	if (r) {
		overlay_leave_chain(o);
		return r;
	}
	pthread_rwlock_wrlock(&o->swap);
	r = qcow2_file_flush(o->file, err);
	pthread_rwlock_wrlock(&o->gate);
	if (r >= 0)
		r = detach(o, to, err);
	pthread_rwlock_unlock(&o->gate);
	pthread_rwlock_unlock(&o->swap);
	overlay_leave_chain(o);
	return r;
}

/* ---- another base ---- */

struct rebase {
	struct pull pull;
	struct error *err;
};

/* What is not the same below: in the first round data, in the second zeroes. */
static int pull_change(void *opaque, uint64_t off, uint64_t len,
		       enum change change)
{
	struct rebase *b = opaque;

	if (change != (b->pull.as_zeroes ? CHANGE_ZERO : CHANGE_DATA))
		return b->pull.progress(b->pull.opaque, off);
	return pull_range(&b->pull, off, len, b->err);
}

/* Pulls what is different in @from, which will be below, and @to, which is. */
static int pull_changes(struct rebase *b, struct image *from, struct image *to,
			struct error *err)
{
	struct difference d = { .from = from, .to = to, .compare = true };
	uint64_t end = min_u64(to->bytes, b->pull.file->bytes), off = 0;
	int r = 0;

	b->err = err;
	while (off < end && !r)
		r = difference_walk(&d, off, end - off, pull_change, b, &off,
				    err);
	return r;
}

/* Nothing lies below from now on. */
static int pull_data(struct rebase *b, struct error *err)
{
	struct qcow2_file *f = b->pull.file;

	b->pull.all = false;
	b->pull.layers = CHAIN_DEPTH_MAX;
	b->pull.shorter = f->base->bytes;
	return pull_all(&b->pull, err);
}

/*
 * Zeroes count as something only where the new base would show: it is there
 * by now. @old: what was.
 */
static int pull_zeroes(struct rebase *b, struct image *old, struct image *new,
		       struct error *err)
{
	uint64_t seen = old ? old->bytes : 0;
	uint64_t end = min_u64(new->bytes, b->pull.file->bytes);
	int r = 0;

	b->pull.as_zeroes = true;
	if (old)
		r = pull_changes(b, new, old, err);
	if (!r && seen < end)
		r = pull_range(&b->pull, seen, end - seen, err);
	return r;
}

static int rebase(struct rebase *b, struct image *new, struct error *err)
{
	struct qcow2_file *f = b->pull.file;
	CLEANUP(image_unrefp) struct image *old = f->base;
	int r = 0;

	b->pull.all = true;
	if (old && new)
		r = pull_changes(b, new, old, err);
	else if (old)
		r = pull_data(b, err);
	b->pull.all = true;
	f->base = new ? image_ref(new) : NULL;
	if (!r && new)
		r = pull_zeroes(b, old, new, err);
	if (r)
		return r;
	return qcow2_file_flush(f, err);
}

int overlay_rebase(struct overlay *o, struct image *base, const char *name,
		   const char *format, bool unsafe,
		   int (*progress)(void *opaque, uint64_t done_bytes),
		   void *opaque, struct error *err)
{
	struct rebase b = { .pull = { .file = o->file,
				      .gate = &o->gate,
				      .progress = progress,
				      .opaque = opaque } };
	int r = overlay_take_chain(o, err);

	if (r < 0)
		return r;
	if (!unsafe)
		r = rebase(&b, base, err);
	if (!r)
		r = qcow2_set_base(o->file, name, format, err);
	free(b.pull.buf);
	overlay_leave_chain(o);
	return r;
}
