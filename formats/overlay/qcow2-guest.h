/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the guest's requests share: gate is held in all of these. */
#ifndef FORMATS_OVERLAY_QCOW2_GUEST_H
#define FORMATS_OVERLAY_QCOW2_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/overlay/qcow2-write.h"

static inline uint64_t in_cluster(const struct qcow2_file *o, uint64_t off)
{
	return off & (o->cluster_bytes - 1);
}

/* The end of the disk ends a subcluster. */
static inline bool ends_sub(const struct qcow2_file *o, uint64_t off)
{
	return !(off & (o->sub_bytes - 1)) || off == o->bytes;
}

/* Bits of the subclusters that [@off, @off + @len) touches. */
static inline uint64_t sub_mask(const struct qcow2_file *o, uint64_t off,
				uint64_t len)
{
	uint64_t first = in_cluster(o, off) / o->sub_bytes;
	uint64_t last = (in_cluster(o, off) + len - 1) / o->sub_bytes;

	return ((2ULL << (last - first)) - 1) << first;
}

/* Subclusters with data, a bit each, be it in a place of ours or not. */
static inline uint64_t data_bits(const struct qcow2_file *o,
				 const struct entry *e)
{
	if (e->word & QCOW2_COMPRESSED)
		return (1ULL << o->subs) - 1;
	if (!(e->word & QCOW2_OFFSET_MASK))
		return 0;
	if (o->extended)
		return e->bitmap & 0xffffffffU;
	return e->word & QCOW2_ZERO ? 0 : 1;
}

/* ---- qcow2-lookup.c: where things lie ---- */

/* What table @t says of @off; damage is an error. Meta is held. */
int lookup_answer(const struct qcow2_file *o, const struct page_set *t,
		  uint64_t off, struct qcow2_answer *ret, struct error *err);

/* What the overlay itself has; HOLE: the base's. Damage is an extent. */
int lookup_own(struct qcow2_file *o, uint64_t off, uint64_t len,
	       struct extent *ret, struct error *err);

/* How much of [@off, @off + @len) the base has; 0: nothing at @off. */
uint64_t lookup_base_has(const struct qcow2_file *o, uint64_t off,
			 uint64_t len);

/* What the guest would read. Behind the disk's end is zero. */
int lookup_read(struct qcow2_file *o, uint8_t *buf, size_t len, uint64_t off,
		struct zero_runs *zeroes, struct error *err);
/* As overlay_walk_changes(). */
int lookup_walk_changes(struct qcow2_file *o, struct image *from, uint64_t off,
			uint64_t len,
			int (*each)(void *opaque, uint64_t off, uint64_t len,
				    enum change change),
			void *opaque, uint64_t *ret_end, struct error *err);

/* As image_walk(), the base's extents among the overlay's. */
int lookup_walk(struct qcow2_file *o, uint64_t off, uint64_t len,
		int (*each)(void *opaque, uint64_t off, const struct extent *e),
		void *opaque, uint64_t *ret_end, struct error *err);

/* ---- qcow2-rounds.c: writing ---- */

/* The stripes of the clusters that [@off, @off + @len) touches, a bit each. */
uint64_t stripes_of(const struct qcow2_file *o, uint64_t off, uint64_t len);

/* From the lowest up, so that nobody waits in a circle. */
void stripes_lock(struct qcow2_file *o, uint64_t bits, bool alone);

void stripes_unlock(struct qcow2_file *o, uint64_t bits);

/*
 * Where what the entry refers to is changed or given up: is it data at all?
 * Meta is held.
 */
int place_check(const struct qcow2_file *o, const struct entry *e,
		uint64_t guest_off, struct error *err);

/* An old place, or compressed data, that nobody will refer to. Meta is held. */
int place_free(struct qcow2_file *o, const struct entry *e, struct error *err);

/* Data of the guest, inside the disk; no stripe is held. */
int rounds_write(struct qcow2_file *o, const uint8_t *buf, uint64_t len,
		 uint64_t off, struct error *err);

/* ---- qcow2-zero.c: zeroes and trims ---- */

/* Whole subclusters; @flags as overlay_zero()'s. -EOPNOTSUPP: OVERLAY_FAST. */
int zero_subs(struct qcow2_file *o, uint64_t off, uint64_t len,
	      unsigned int flags, struct error *err);

/* The whole subclusters in a range; *ret_len 0: there are none. */
void zero_whole_subs(const struct qcow2_file *o, uint64_t off, uint64_t len,
		     uint64_t *ret_off, uint64_t *ret_len);

/* Any range inside the disk; its edges are written. No stripe is held. */
int zero_range(struct qcow2_file *o, uint64_t off, uint64_t len,
	       unsigned int flags, struct error *err);

#endif
