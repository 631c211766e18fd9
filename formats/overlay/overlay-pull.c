/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdlib.h>

#include "formats/overlay/overlay-pull.h"

/* Is it from one of the layers that go? */
static bool must_pull(const struct pull *p, uint64_t off,
		      const struct extent *e)
{
	if (p->all)
		return e->depth || e->absent;
	if (e->absent)
		/* Behind the end of a shorter layer, what lies below shows. */
		return off >= p->shorter && off < p->lower;
	return e->depth && e->depth <= p->layers;
}

/* Joins neighbours of one kind; 1: that was all. */
static int find(void *opaque, uint64_t off, const struct extent *e)
{
	struct pull *p = opaque;
	bool zero = p->as_zeroes || e->kind == EXTENT_ZERO ||
		    e->kind == EXTENT_HOLE;

	if (!must_pull(p, off, e))
		return p->len ? 1 : 0;
	if (p->len && (zero != p->zero || p->off + p->len != off))
		return 1;
	if (!p->len) {
		p->off = off;
		p->zero = zero;
	}
	p->len += e->len;
	return 0;
}

int pull_look(struct pull *p, uint64_t off, uint64_t len, uint64_t *ret_end,
	      struct error *err)
{
	int r;

	p->len = 0;
	r = qcow2_file_walk(p->file, off, len, find, p, ret_end, err);
	if (r >= 0 && p->len)
		*ret_end = p->off + p->len;
	return r < 0 ? r : 0;
}

/*
 * What is below is the very data. Gate is held for writing: nobody else looks
 * at the options.
 */
static int write_all_the_same(struct pull *p, const uint8_t *buf,
			      struct error *err)
{
	unsigned int *detect = &p->file->options.detect, was = *detect;
	int r;

	*detect &= ~(unsigned int)OVERLAY_DETECT_BASE;
	r = qcow2_file_write(p->file, buf, p->len, p->off, err);
	*detect = was;
	return r;
}

/* Data of the base, found by a look. Gate is held for writing. */
static int pull_data_held(struct pull *p, struct error *err)
{
	int r;

	if (p->ahead)
		return write_all_the_same(p, p->ahead + (p->off - p->ahead_off),
					  err);
	if (!p->buf && !(p->buf = malloc(PULL_BYTES)))
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = qcow2_file_read(p->file, p->buf, p->len, p->off, NULL, err);
	return r < 0 ? r : write_all_the_same(p, p->buf, err);
}

int pull_held(struct pull *p, uint64_t off, uint64_t len, struct error *err)
{
	uint64_t end = off + len, next;
	int r = 0;

	for (; off < end && r >= 0; off = next) {
		r = pull_look(p, off, end - off, &next, err);
		if (r < 0 || !p->len)
			continue;
		r = p->zero ? qcow2_file_zero(p->file, p->off, p->len,
					      OVERLAY_MAY_TRIM, err)
			    : pull_data_held(p, err);
	}
	return r;
}

bool overlay_keep_read(struct overlay *o, const void *buf, size_t len,
		       uint64_t off)
{
	struct pull p = { .all = true, .ahead = buf, .ahead_off = off };
	uint64_t unit = o->unit_bytes, first = round_up(off, unit), next;
	uint64_t end = (off + len) & ~(unit - 1);
	bool full;

	if (first >= end)
		return false;
	pthread_rwlock_rdlock(&o->gate);
	p.file = o->file;
	if (pull_look(&p, first, end - first, &next, NULL) < 0)
		p.len = 0;
	pthread_rwlock_unlock(&o->gate);
	if (!p.len)
		return false;
	pthread_rwlock_wrlock(&o->gate);
	p.file = o->file;
	if (p.file->s->pulling)
		pull_held(&p, first, end - first, NULL);
	full = qcow2_file_is_full(p.file);
	pthread_rwlock_unlock(&o->gate);
	return full;
}
