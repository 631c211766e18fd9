/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/overlay/overlay-pull.h"

/* Where images should be the same, so many bytes are compared ... */
#define SAMPLE_BYTES	   4096U
/* ... of each so many, or of so many parts of the disk, if that is fewer. */
#define SAMPLE_EVERY_BYTES (1U << 20)
#define SAMPLES_MAX	   256U

struct sample {
	uint64_t off;
	size_t len;
	uint8_t data[SAMPLE_BYTES];
};

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

/* ---- what the base's server says, and samples of it ---- */

/* The next is due so far behind one. */
static uint64_t sample_distance(const struct pull *p)
{
	return max_u64(SAMPLE_EVERY_BYTES, p->file->bytes / SAMPLES_MAX);
}

/* Of the base's [@off, @off + @len), somewhere else each time. */
static int take_sample(struct pull *p, uint64_t off, uint64_t len,
		       struct sample *ret, struct error *err)
{
	ret->len = (size_t)min_u64(len, SAMPLE_BYTES);
	ret->off = off + off * 0x9e3779b97f4a7c15U % (len - ret->len + 1);
	return image_read(p->file->base, ret->data, ret->len, ret->off, err);
}

int pull_check_zero(struct pull *p, uint64_t off, uint64_t len,
		    struct error *err)
{
	struct sample s;
	int r;

	if (off < p->sample_off)
		return 0;
	p->sample_off = off + sample_distance(p);
	r = take_sample(p, off, len, &s, err);
	if (r < 0 || is_all_zero(s.data, s.len))
		return r;
	return error_set(err, -EINVAL, s.off,
			 "the other server says that its disk is zero at "
			 "%" PRIu64 ", and has data there: with --diff apply "
			 "it cannot be pulled from",
			 s.off);
}

static int compare_sample(struct pull *p, uint64_t off, uint64_t len,
			  struct error *err)
{
	uint8_t here[SAMPLE_BYTES] = { 0 };
	struct sample s;
	int r = take_sample(p, off, len, &s, err);

	if (r >= 0)
		r = image_read(p->same, here, s.len, s.off, err);
	if (r < 0 || !memcmp(s.data, here, s.len))
		return r;
	return error_set(err, -EINVAL, s.off,
			 "the image here is not the one below the other "
			 "server's disk: they differ at %" PRIu64
			 " (without --base all of the disk is fetched)",
			 s.off);
}

static int compare_samples(struct pull *p, uint64_t off, uint64_t end,
			   struct error *err)
{
	uint64_t distance = sample_distance(p);
	int r = 0;

	for (off = max_u64(off, p->sample_off); off < end && r >= 0;
	     off = p->sample_off) {
		p->sample_off = off + distance;
		r = compare_sample(p, off, min_u64(distance, end - off), err);
	}
	return r;
}

int pull_is_same(struct pull *p, uint64_t off, uint64_t *len, struct error *err)
{
	struct image *base = p->file->base;
	bool below = false;
	int r;

	if (!p->same || off >= p->same->bytes || base->chain.depth != 1)
		return 0;
	/* Who cannot tell is asked for the data. */
	if (source_find_below(base->chain.layers[0]->src, off,
			      min_u64(*len, p->same->bytes - off), &below,
			      len) < 0 ||
	    !below)
		return 0;
	r = compare_samples(p, off, off + *len, err);
	return r < 0 ? r : 1;
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
