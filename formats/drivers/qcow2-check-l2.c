/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2's checker: L2 tables, each once, and what they refer to. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/qcow2-check-inside.h"

#define L2_RESERVED 0x3f000000000001feULL

/* One L2 table on its way. */
struct l2_walk {
	const struct l2_table *t;
	uint32_t refs; /* L1 entries that lead to it */
	uint64_t next_off; /* where an unfragmented disk goes on; 0: anywhere */
};

/* Is the table one of the state that was asked for, and counts as its? */
static bool is_counted(const struct checker *k, const struct l2_walk *w)
{
	return k->s->is_another_state || !w->t->owner;
}

static uint64_t guest_cluster(const struct checker *k, const struct l2_walk *w,
			      uint64_t idx)
{
	return ((uint64_t)w->t->l1_idx << k->s->l2_bits) + idx;
}

/* "Compressed Clusters Descriptor" */
static int check_compressed(struct checker *k, struct l2_walk *w,
			    uint64_t entry, uint64_t bitmap,
			    const struct by *by)
{
	unsigned int x = 62 - (k->s->cluster_bits - 8);
	uint64_t off = entry & ((1ULL << x) - 1);
	uint64_t sectors = (entry & (QCOW2_COMPRESSED - 1)) >> x;
	char text[BY_TEXT_BYTES];

	if (entry & QCOW2_COPIED)
		checker_corruption(k,
				   "%s: is compressed and has the copied flag",
				   checker_by_text(by, text));
	if (k->s->has_data_file) {
		checker_corruption(
			k,
			"%s: is compressed, in an image with an external "
			"data file",
			checker_by_text(by, text));
		return 0;
	}
	if (bitmap) {
		checker_corruption(
			k,
			"%s: is compressed and has the subcluster bitmap "
			"0x%016" PRIx64,
			checker_by_text(by, text), bitmap);
		return 0;
	}
	if (is_counted(k, w)) {
		k->r->allocated_units++;
		k->r->compressed_units++;
		k->r->fragmented_units++;
	}
	return checker_count_range(k, off, (sectors + 1) * 512 - off % 512,
				   USE_COMPRESSED, w->refs, by);
}

/* Subclusters: low half allocated, high half zeroes, never both. */
static void check_subclusters(struct checker *k, bool placed, uint64_t bitmap,
			      const struct by *by)
{
	char text[BY_TEXT_BYTES];
	uint32_t both = (uint32_t)(bitmap & bitmap >> QCOW2_SUBCLUSTERS);

	if (both)
		checker_corruption(k,
				   "%s: subclusters 0x%08" PRIx32
				   " are both data and zeroes",
				   checker_by_text(by, text), both);
	else if (!placed && (uint32_t)bitmap)
		checker_corruption(k,
				   "%s: subclusters 0x%08" PRIx32
				   " have data, the cluster no place",
				   checker_by_text(by, text), (uint32_t)bitmap);
}

/* Clusters of an external data file have no refcounts, but a file's end. */
static void check_in_data_file(struct checker *k, uint64_t entry, uint64_t off,
			       uint64_t guest_off, const struct by *by)
{
	char text[BY_TEXT_BYTES];

	if (k->s->h.autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW &&
	    off != guest_off)
		checker_corruption(
			k, "%s: is at %" PRIu64 " of a raw external data file",
			checker_by_text(by, text), off);
	else if (off >= k->s->data->bytes)
		checker_corruption(
			k,
			"%s: data at %" PRIu64 " lie behind the external "
			"data file's end at %" PRIu64,
			checker_by_text(by, text), off, k->s->data->bytes);
	if (!(entry & QCOW2_COPIED))
		checker_corruption(
			k,
			"%s: copied flag is not set, as it is everywhere "
			"with an external data file",
			checker_by_text(by, text));
}

/* A cluster that has a place: data, or zeroes with room for data. */
static int check_allocated(struct checker *k, struct l2_walk *w, uint64_t entry,
			   uint64_t off, uint64_t guest_off,
			   const struct by *by)
{
	char text[BY_TEXT_BYTES];
	int r;

	if (is_counted(k, w)) {
		k->r->allocated_units++;
		if (w->next_off && off != w->next_off)
			k->r->fragmented_units++;
		w->next_off = off + k->s->cluster_bytes;
	}
	if (off % k->s->cluster_bytes) {
		checker_corruption(
			k,
			"%s: data at %" PRIu64 " are not aligned to %" PRIu64,
			checker_by_text(by, text), off, k->s->cluster_bytes);
		return 0;
	}
	if (k->s->has_data_file) {
		check_in_data_file(k, entry, off, guest_off, by);
		return 0;
	}
	r = checker_count_range(k, off, k->s->cluster_bytes, USE_DATA, w->refs,
				by);
	if (r >= 0 && !w->t->owner)
		checker_copied_bit(k, by, entry, USE_DATA, off);
	return r;
}

/* "Standard Cluster Descriptor", "Extended L2 Entries" */
static int check_l2_entry(struct checker *k, void *opaque, uint64_t idx,
			  const uint8_t *raw)
{
	bool extended = k->s->l2_entry_bytes == 16;
	struct l2_walk *w = opaque;
	uint64_t guest = guest_cluster(k, w, idx);
	struct by by = { "guest cluster", guest, w->t->owner };
	uint64_t entry = checker_be64(raw), off = entry & QCOW2_OFFSET_MASK;
	uint64_t bitmap = extended ? checker_be64(raw + 8) : 0, reserved;
	char text[BY_TEXT_BYTES];
	bool placed;

	if (entry & QCOW2_COMPRESSED)
		return check_compressed(k, w, entry, bitmap, &by);
	reserved = entry & (L2_RESERVED |
			    (extended || k->s->h.version < 3 ? QCOW2_ZERO : 0));
	if (reserved)
		checker_corruption(k, "%s: reserved bits 0x%" PRIx64 " are set",
				   checker_by_text(&by, text), reserved);
	/* 0 is a place like any other in an external data file. */
	placed = off || (k->s->has_data_file && entry & QCOW2_COPIED &&
			 (extended || !(entry & QCOW2_ZERO)));
	check_subclusters(k, placed, bitmap, &by);
	if (!placed)
		return 0;
	return check_allocated(k, w, entry, off, guest << k->s->cluster_bits,
			       &by);
}

int checker_l2_tables(struct checker *k)
{
	size_t i;
	int r = 0;

	for (i = 0; i < k->n_l2 && r >= 0; i++) {
		const struct l2_table *t = &k->l2[i];
		uint64_t cluster = t->off >> k->s->cluster_bits;
		struct l2_walk w = {
			.t = t,
			.refs = ref_map_get(&k->refs, cluster).refs,
		};

		r = checker_each_entry(
			k, "L2 table", t->off, 1ULL << k->s->l2_bits,
			k->s->l2_entry_bytes, check_l2_entry, &w);
	}
	return r;
}
