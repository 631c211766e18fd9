/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2's checker: "Bitmaps". */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/qcow2-check-inside.h"

/* A table entry: a cluster of bits; or all of them 0, or 1. */
static int check_bitmap_entry(struct checker *k, void *opaque, uint64_t idx,
			      const uint8_t *raw)
{
	const uint64_t *bitmap = opaque;
	uint64_t entry = checker_be64(raw), off = entry & QCOW2_OFFSET_MASK;
	struct by by = { "bitmap", *bitmap, 0 };

	if (entry & QCOW2_BITMAP_RESERVED || (off && entry & 1) ||
	    off % k->s->cluster_bytes) {
		checker_corruption(k,
				   "bitmap %" PRIu64 ": table entry %" PRIu64
				   " is wrong: 0x%016" PRIx64,
				   *bitmap, idx, entry);
		return 0;
	}
	if (!off)
		return 0;
	return checker_count_range(k, off, k->s->cluster_bytes, USE_BITMAP, 1,
				   &by);
}

static int check_bitmap(struct checker *k, uint64_t idx, struct cursor *c)
{
	uint64_t off = cursor_be64_at(c, QCOW2_BITMAP_TABLE_OFF_AT);
	uint32_t entries = cursor_be32_at(c, QCOW2_BITMAP_TABLE_ENTRIES_AT);
	uint32_t flags = cursor_be32_at(c, QCOW2_BITMAP_FLAGS_AT);
	uint8_t type = cursor_u8_at(c, QCOW2_BITMAP_TYPE_AT);
	struct by by = { "bitmap", idx, 0 };
	struct error err = { 0 };
	int r;

	if (flags & ~(uint32_t)QCOW2_BITMAP_FLAGS_KNOWN ||
	    type != QCOW2_BITMAP_DIRTY)
		checker_corruption(k,
				   "bitmap %" PRIu64 ": flags 0x%" PRIx32
				   " or type %u are not known",
				   idx, flags, type);
	if (qcow2_check_table(k->l, "table", off, entries, 8, k->l->src->bytes,
			      0, &err) < 0) {
		checker_corruption(k, "bitmap %" PRIu64 ": %.150s", idx,
				   err.msg);
		return 0;
	}
	r = checker_take_entries(k, entries);
	if (r >= 0)
		r = checker_count_range(k, off, (uint64_t)entries * 8,
					USE_BITMAP_TABLE, 1, &by);
	if (r < 0)
		return r;
	return checker_each_entry(k, "bitmap table", off, entries, 8,
				  check_bitmap_entry, &idx);
}

static int walk_bitmap_dir(struct checker *k, uint64_t dir_bytes)
{
	uint64_t at = 0, i;
	int r;

	for (i = 0; i < k->s->bitmaps; i++) {
		uint8_t head[QCOW2_BITMAP_ENTRY_BYTES];
		struct cursor c = { .buf = head, .len = sizeof(head) };
		uint64_t bytes = QCOW2_BITMAP_ENTRY_BYTES;
		struct error err = { 0 };

		if (range_inside(at, bytes, dir_bytes)) {
			if (layer_read_meta(k->l, k->l->src, head, sizeof(head),
					    k->s->bitmap_dir_off + at,
					    &err) < 0) {
				checker_error(k, "bitmap %" PRIu64 ": %.150s",
					      i, err.msg);
				return 0;
			}
			bytes += cursor_be16_at(&c, QCOW2_BITMAP_NAME_BYTES_AT);
			bytes +=
				cursor_be32_at(&c, QCOW2_BITMAP_EXTRA_BYTES_AT);
			bytes = round_up(bytes, 8);
		}
		if (!range_inside(at, bytes, dir_bytes)) {
			k->blind = true;
			checker_corruption(
				k,
				"bitmap %" PRIu64 ": directory entry at "
				"%" PRIu64 " ends behind the directory's "
				"%" PRIu64 " bytes",
				i, at, dir_bytes);
			return 0;
		}
		at += bytes;
		r = check_bitmap(k, i, &c);
		if (r < 0)
			return r;
	}
	return 0;
}

int checker_bitmaps(struct checker *k)
{
	const struct qcow2_state *s = k->s;
	struct by by = { "bitmaps extension, bitmaps", s->bitmaps, 0 };
	struct error err = { 0 };
	int r;

	if (s->h.version < 3 || !(s->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
		return 0;
	if (!s->bitmaps) {
		checker_corruption(
			k, "autoclear feature bit 0 says that there are "
			   "bitmaps, but there are none");
		return 0;
	}
	if (s->bitmaps > QCOW2_BITMAPS_MAX) {
		checker_corruption(
			k, "%" PRIu32 " bitmaps are over the limit of %u",
			s->bitmaps, QCOW2_BITMAPS_MAX);
		return 0;
	}
	if (qcow2_check_table(k->l, "bitmap directory", s->bitmap_dir_off,
			      s->bitmap_dir_bytes, 1, k->l->src->bytes, 0,
			      &err) < 0) {
		checker_corruption(k, "%.150s", err.msg);
		return 0;
	}
	r = checker_take_entries(k, s->bitmap_dir_bytes /
					    QCOW2_BITMAP_ENTRY_BYTES);
	if (r >= 0)
		r = checker_count_range(k, s->bitmap_dir_off,
					s->bitmap_dir_bytes, USE_BITMAP_DIR, 1,
					&by);
	if (r < 0)
		return r;
	return walk_bitmap_dir(k, s->bitmap_dir_bytes);
}
