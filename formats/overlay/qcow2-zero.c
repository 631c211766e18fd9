/* SPDX-License-Identifier: BSD-3-Clause */
/* Zeroes and trims of an overlay's guest, by whole subclusters where it can be. */
#include <errno.h>
#include <inttypes.h>

#include "formats/overlay/qcow2-guest.h"

static int write_zeroes(struct qcow2_file *o, uint64_t off, uint64_t len,
			struct error *err)
{
	uint64_t room = min_u64(len, 1U << 20), n;
	uint8_t *buf;
	int r;

	ANALYSER_ASSUME(room > 0);
	buf = calloc(1, room);
	r = buf ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
	for (; len && r >= 0; off += n, len -= n) {
		n = min_u64(len, room);
		r = rounds_write(o, buf, n, off, err);
	}
	free(buf);
	return r;
}

static int add_punch(struct qcow2_file *o, uint64_t off, uint64_t len,
		     struct error *err)
{
	struct punch_list *l = &o->punches;
	struct punch *grown;
	size_t room;

	if (l->n == l->room) {
		room = l->room ? 2 * l->room : 16;
		grown = realloc(l->items, room * sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		l->items = grown;
		l->room = room;
	}
	l->items[l->n++] =
		(struct punch){ .guest_off = round_down(off, o->cluster_bytes),
				.in_cluster = in_cluster(o, off),
				.bytes = round_up(len, o->sub_bytes) };
	return 0;
}

static int zero_extended(struct qcow2_file *o, struct page_set *t, uint64_t off,
			 uint64_t len, bool trim, struct entry e,
			 struct error *err)
{
	uint64_t bits = sub_mask(o, off, len), had = data_bits(o, &e) & bits;
	struct entry new = e;
	int r = 0;

	if (e.word & QCOW2_COMPRESSED)
		new = (struct entry){ 0 };
	new.bitmap = (new.bitmap & ~bits) | bits << QCOW2_SUBCLUSTERS;
	if (!(new.bitmap & 0xffffffffU) && (trim || !entry_place(&e))) {
		new.word = 0;
		r = place_free(o, &e, err);
	} else if (trim && had) {
		r = add_punch(o, off, len, err);
	}
	if (r >= 0)
		entry_set(o, t, off, new);
	return r;
}

static int zero_standard(struct qcow2_file *o, struct page_set *t, uint64_t off,
			 bool trim, struct entry e, struct error *err)
{
	int r = 0;

	if (!trim && entry_place(&e)) {
		e.word |= QCOW2_ZERO;
	} else {
		r = place_free(o, &e, err);
		e.word = QCOW2_ZERO;
	}
	if (r >= 0)
		entry_set(o, t, off, e);
	return r;
}

/* 1: it must be done by writing. Meta is held, and the cluster ours alone. */
static int zero_cluster_locked(struct qcow2_file *o, uint64_t off, uint64_t len,
			       bool trim, struct error *err)
{
	uint64_t bits = sub_mask(o, off, len);
	struct qcow2_answer a;
	struct page_set *t;
	struct entry e;
	int r = table_get(o, off, &t, err);

	if (r < 0)
		return r;
	r = t ? lookup_answer(o, t, off, &a, err) : 0;
	if (r < 0)
		return r;
	e = entry_get(o, t, off);
	r = place_check(o, &e, off, err);
	if (r < 0)
		return r;
	/* Where nothing lies below, nothing need be said. */
	if (!(data_bits(o, &e) & bits) &&
	    !lookup_base_has(o, round_down(off, o->cluster_bytes), 1))
		return 0;
	if (o->s->h.version < 3)
		return 1;
	/* A place that is not ours goes as a whole or not at all. */
	if (e.word && !entry_place(&e) && o->extended &&
	    bits != (1ULL << o->subs) - 1)
		return 1;
	r = table_get_writable(o, off, &t, err);
	if (r < 0)
		return r;
	return o->extended ? zero_extended(o, t, off, len, trim, e, err)
			   : zero_standard(o, t, off, trim, e, err);
}

/* Subclusters of one cluster. Gate is held. */
static int zero_cluster(struct qcow2_file *o, uint64_t off, uint64_t len,
			unsigned int flags, struct error *err)
{
	uint64_t stripe = stripes_of(o, off, len);
	int r;

	stripes_lock(o, stripe, true);
	pthread_mutex_lock(&o->meta);
	r = zero_cluster_locked(o, off, len, flags & OVERLAY_MAY_TRIM, err);
	tables_trim(o);
	pthread_mutex_unlock(&o->meta);
	stripes_unlock(o, stripe);
	if (r != 1)
		return r;
	if (flags & OVERLAY_FAST)
		return error_set(err, -EOPNOTSUPP, 0,
				 "zeroes would have to be written");
	return write_zeroes(o, off, len, err);
}

int zero_subs(struct qcow2_file *o, uint64_t off, uint64_t len,
	      unsigned int flags, struct error *err)
{
	uint64_t n;
	int r = 0;

	for (; len && r >= 0; off += n, len -= n) {
		n = min_u64(len, o->cluster_bytes - in_cluster(o, off));
		r = zero_cluster(o, off, n, flags, err);
	}
	return r;
}

void zero_whole_subs(const struct qcow2_file *o, uint64_t off, uint64_t len,
		     uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t first = round_up(off, o->sub_bytes), end = off + len;

	if (!ends_sub(o, end))
		end = round_down(end, o->sub_bytes);
	*ret_off = first;
	*ret_len = first < end ? end - first : 0;
}

int zero_range(struct qcow2_file *o, uint64_t off, uint64_t len,
	       unsigned int flags, struct error *err)
{
	uint64_t whole, n, end = off + len;
	int r;

	zero_whole_subs(o, off, len, &whole, &n);
	if (!n)
		return write_zeroes(o, off, len, err);
	r = whole > off ? write_zeroes(o, off, whole - off, err) : 0;
	if (r >= 0)
		r = zero_subs(o, whole, n, flags, err);
	if (r >= 0 && whole + n < end)
		r = write_zeroes(o, whole + n, end - whole - n, err);
	return r;
}
