/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Both images are asked where their bytes lie. The same place in the same
 * file is the same data, as images do not change while they are open; it does
 * not matter in which layer, or by which of a file's tables, it was found.
 */
#include <errno.h>
#include <string.h>

#include "formats/difference.h"

/*
 * Extents that are looked at together: few at first, as a client may want to
 * know of one only, then twice as many each time.
 */
#define WINDOW_EXTENTS_FIRST 2U
#define WINDOW_EXTENTS	     128U

/* What is read at once of each side, and the longest time for one answer. */
#define COMPARE_BYTES (2U << 20)
#define WALK_NSEC     500000000ULL

/* The extents of a part of an image, from @off on. */
struct window {
	struct extent_reader *reader;
	uint64_t bytes; /* of the disk that it tells of */
	struct extent extents[WINDOW_EXTENTS];
	uint64_t off; /* of extents[i] */
	uint64_t end; /* of the last */
	size_t i, n;
	size_t room; /* how many are looked for next */
};

struct walk {
	const struct difference *d;
	struct window from, to;
	const struct source *last[2]; /* of different files, or of one? */
	bool last_same;

	int (*each)(void *opaque, uint64_t off, uint64_t len,
		    enum change change);
	void *opaque;
	uint64_t run_off, run_bytes; /* not told yet; 0 bytes: none */
	enum change run_change;
	uint64_t told_end; /* of what @each has been told */
	int r; /* what it said */

	uint8_t *buf[2]; /* COMPARE_BYTES each; NULL: not used yet */
};

static int collect(void *opaque, uint64_t off, const struct extent *e)
{
	struct window *w = opaque;

	w->extents[w->n++] = *e;
	w->end = off + e->len;
	return w->n == w->room;
}

/*
 * Makes extents[i] the one that has @off; those that are looked up for it end
 * at @limit. Behind the end of an image there is nothing.
 */
static int window_seek(struct window *w, uint64_t off, uint64_t limit,
		       struct error *err)
{
	uint64_t end;
	int r;

	while (w->i < w->n && w->off + w->extents[w->i].len <= off)
		w->off += w->extents[w->i++].len;
	if (w->i < w->n)
		return 0;
	w->off = off;
	w->i = w->n = 0;
	w->room = min_size(2 * w->room, WINDOW_EXTENTS);
	if (off >= w->bytes) {
		w->extents[w->n++] = (struct extent){ .kind = EXTENT_ZERO,
						      .len = limit - off,
						      .absent = true };
		w->end = limit;
		return 0;
	}
	r = extents_walk(w->reader, off, min_u64(limit, w->bytes) - off,
			 collect, w, &end, err);
	return r < 0 ? r : 0;
}

/* One file or export, perhaps opened twice. */
static bool same_file(const struct source *a, const struct source *b)
{
	struct source_identity x, y;

	source_identity(a, &x);
	source_identity(b, &y);
	return a->root_off == b->root_off && identity_is_same(&x, &y);
}

static bool same_source(struct walk *w, const struct source *a,
			const struct source *b)
{
	if (a == b)
		return true;
	if (a != w->last[0] || b != w->last[1]) {
		w->last[0] = a;
		w->last[1] = b;
		w->last_same = same_file(a, b);
	}
	return w->last_same;
}

static bool is_zero(const struct extent *e)
{
	return e->kind == EXTENT_ZERO || e->kind == EXTENT_HOLE;
}

/* Is what lies @in_a bytes into @a the same as what lies @in_b into @b? */
static bool same_place(struct walk *w, const struct extent *a, uint64_t in_a,
		       const struct extent *b, uint64_t in_b)
{
	if (a->kind != b->kind || !a->src || !b->src)
		return false;
	if (a->kind == EXTENT_DATA)
		return a->host_off + in_a == b->host_off + in_b &&
		       cipher_same(a->cipher, b->cipher) &&
		       (!a->cipher || extent_iv_sector(a, in_a) ==
					      extent_iv_sector(b, in_b)) &&
		       same_source(w, a->src, b->src);
	return a->kind == EXTENT_COMPRESSED && a->host_off == b->host_off &&
	       a->codec == b->codec && a->unit_bytes == b->unit_bytes &&
	       a->unit_off + in_a == b->unit_off + in_b &&
	       same_source(w, a->src, b->src);
}

static enum change classify(struct walk *w, uint64_t off)
{
	const struct extent *a = &w->from.extents[w->from.i];
	const struct extent *b = &w->to.extents[w->to.i];

	if (is_zero(b))
		return is_zero(a) ? CHANGE_NONE : CHANGE_ZERO;
	return same_place(w, a, off - w->from.off, b, off - w->to.off)
		       ? CHANGE_NONE
		       : CHANGE_DATA;
}

static void tell_run(struct walk *w)
{
	if (w->run_bytes && !w->r) {
		w->r = w->each(w->opaque, w->run_off, w->run_bytes,
			       w->run_change);
		w->told_end = w->run_off + w->run_bytes;
	}
	w->run_bytes = 0;
}

static void add(struct walk *w, uint64_t off, uint64_t len, enum change change)
{
	if (w->run_bytes && w->run_change == change) {
		w->run_bytes += len;
		return;
	}
	tell_run(w);
	w->run_off = off;
	w->run_bytes = len;
	w->run_change = change;
}

/* @len bytes at @off of @img, zeroes behind its end. */
static int read_side(struct image *img, uint8_t **buf, uint64_t off, size_t len,
		     struct error *err)
{
	size_t inside =
		off < img->bytes ? (size_t)min_u64(len, img->bytes - off) : 0;

	if (!*buf)
		*buf = malloc(COMPARE_BYTES);
	if (!*buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	memset(*buf + inside, 0, len - inside);
	return inside ? image_read(img, *buf, inside, off, err) : 0;
}

/* [@off, @off + @len), at most COMPARE_BYTES, is @change unless it is equal. */
static int compare(struct walk *w, uint64_t off, size_t len, enum change change,
		   struct error *err)
{
	size_t at, n;
	int r;

	r = read_side(w->d->from, &w->buf[0], off, len, err);
	if (r >= 0)
		r = read_side(w->d->to, &w->buf[1], off, len, err);
	if (r < 0)
		return r;
	for (at = 0; at < len; at += n) {
		/* Units lie in the disk, not in what is looked at. */
		n = DIFFERENCE_UNIT_BYTES - (off + at) % DIFFERENCE_UNIT_BYTES;
		n = min_size(n, len - at);
		add(w, off + at, n,
		    memcmp(w->buf[0] + at, w->buf[1] + at, n) ? change
							      : CHANGE_NONE);
	}
	return 0;
}

/* What there is to say of the extents at @off, up to @end; *ret: bytes of it. */
static int step(struct walk *w, uint64_t off, uint64_t end, uint64_t *ret,
		struct error *err)
{
	enum change change;
	uint64_t len;
	int r;

	r = window_seek(&w->to, off, end, err);
	/* Of the other nothing is wanted that is not compared now. */
	if (r >= 0)
		r = window_seek(&w->from, off, w->to.end, err);
	if (r < 0)
		return r;
	len = min_u64(w->to.off + w->to.extents[w->to.i].len,
		      w->from.off + w->from.extents[w->from.i].len);
	len = min_u64(len, end) - off;
	change = classify(w, off);
	if (change != CHANGE_NONE && w->d->compare) {
		len = min_u64(len, COMPARE_BYTES);
		r = compare(w, off, (size_t)len, change, err);
	} else {
		add(w, off, len, change);
	}
	*ret = len;
	return r;
}

int difference_walk(const struct difference *d, uint64_t off, uint64_t len,
		    int (*each)(void *opaque, uint64_t off, uint64_t len,
				enum change change),
		    void *opaque, uint64_t *ret_end, struct error *err)
{
	uint64_t end = off + len, deadline = now_nsec() + WALK_NSEC;
	struct image_reader from = image_reader(d->from), to;
	struct walk w = { .d = d,
			  .from = { &from.x, .bytes = d->from->bytes },
			  .to = { d->reader, .bytes = d->bytes },
			  .each = each,
			  .opaque = opaque,
			  .told_end = off };
	int r = 0;

	if (d->to) {
		to = image_reader(d->to);
		w.to.reader = &to.x;
		w.to.bytes = d->to->bytes;
	}
	w.from.room = w.to.room = WINDOW_EXTENTS_FIRST / 2;
	while (off < end && r >= 0 && !w.r) {
		r = step(&w, off, end, &len, err);
		off += len;
		if (now_nsec() > deadline)
			break;
	}
	if (r >= 0)
		tell_run(&w);
	free(w.buf[0]);
	free(w.buf[1]);
	*ret_end = w.told_end;
	return r < 0 ? r : w.r;
}
