/* SPDX-License-Identifier: BSD-3-Clause */
/* Is the structure of a VHD sound? Blocks lie apart, and leave no room. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/drivers/unit-check.h"
#include "formats/drivers/vhd-inside.h"

/* What the checker keeps: an entry of each block that is there. */
#define CHECK_BLOCKS_MAX (16U << 20)

struct blocks {
	uint32_t *list; /* sectors */
	size_t n, room;
};

static int blocks_add(struct blocks *b, uint32_t entry, struct error *err)
{
	uint32_t *grown;

	if (b->n == b->room) {
		if (b->room >= CHECK_BLOCKS_MAX)
			return error_set(err, -EFBIG, 0,
					 "more than %u blocks are too many to "
					 "be checked",
					 CHECK_BLOCKS_MAX);
		b->room = b->room ? 2 * b->room : 1024;
		grown = reallocarray(b->list, b->room, sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		b->list = grown;
	}
	b->list[b->n++] = entry;
	return 0;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void check_parts(struct layer *l, const struct blocks *b,
			struct check_report *r)
{
	const struct vhd_state *s = l->state;
	uint64_t block = s->bitmap_bytes + (uint64_t)s->d.block_bytes;
	struct part over;
	size_t i;

	for (i = 0; i < b->n; i++) {
		uint64_t off = (uint64_t)b->list[i] * SECTOR_BYTES;

		if (vhd_lies_over(l, off, &over))
			report_corrupt(r,
				       "block at %" PRIu64
				       " lies over the %s at %" PRIu64,
				       off, over.what, over.off);
		if (off + block > s->data->bytes)
			report_corrupt(r,
				       "block at %" PRIu64
				       " ends past the data's %" PRIu64
				       " bytes",
				       off, s->data->bytes);
		if (i && off - (uint64_t)b->list[i - 1] * SECTOR_BYTES < block)
			report_corrupt(
				r,
				"blocks at %" PRIu64 " and %" PRIu64 " overlap",
				(uint64_t)b->list[i - 1] * SECTOR_BYTES, off);
	}
}

static int collect_blocks(struct layer *l, uint64_t total, struct blocks *b,
			  struct check_report *r, struct error *err)
{
	const struct vhd_state *s = l->state;
	uint64_t block_sectors =
		(s->bitmap_bytes + s->d.block_bytes) / SECTOR_BYTES;
	uint32_t entries[BAT_CHUNK], previous = BAT_UNUSED;
	uint64_t idx;
	size_t n, i;
	int ret;

	for (idx = 0; idx < total; idx += n) {
		ret = vhd_read_entries(l, idx, total - idx, entries, &n, err);
		if (ret < 0)
			return ret;
		for (i = 0; i < n; i++) {
			if (entries[i] == BAT_UNUSED)
				continue;
			ret = blocks_add(b, entries[i], err);
			if (ret < 0)
				return ret;
			r->allocated_units++;
			if (previous != BAT_UNUSED &&
			    entries[i] != previous + block_sectors)
				r->fragmented_units++;
			previous = entries[i];
		}
	}
	return 0;
}

/* Blocks whose place is known and in which nothing lies are leaks. */
static void count_leaks(struct layer *l, const struct blocks *b,
			struct check_report *r)
{
	const struct vhd_state *s = l->state;
	uint64_t block = s->bitmap_bytes + (uint64_t)s->d.block_bytes;
	uint64_t end = max_u64(s->f.data_off + DYNAMIC_BYTES,
			       s->d.table_off + (uint64_t)s->d.entries * 4);
	size_t i;

	for (i = 0; i <= b->n; i++) {
		uint64_t off = i < b->n ? (uint64_t)b->list[i] * SECTOR_BYTES
					: s->data->bytes;

		if (off > end)
			r->leaks += (off - end) / block;
		end = max_u64(end, off + block);
	}
	r->image_end_off =
		b->n ? (uint64_t)b->list[b->n - 1] * SECTOR_BYTES + block
		     : end - block;
}

/* The copy of the footer at the start must be what is at the end. */
static int check_copy(struct layer *l, struct check_report *r,
		      struct error *err)
{
	const struct vhd_state *s = l->state;
	uint8_t end[FOOTER_BYTES] = { 0 }, copy[FOOTER_BYTES];
	int ret;

	if (!s->footer_bytes) {
		report_corrupt(r, "the footer at the end is lost or damaged");
		return 0;
	}
	ret = source_read(l->src, end, s->footer_bytes, s->footer_off, err);
	if (ret >= 0)
		ret = source_read(l->src, copy, sizeof(copy), 0, err);
	if (ret >= 0 && memcmp(end, copy, s->footer_bytes))
		report_corrupt(r,
			       "the footer and its copy at the start differ");
	return ret < 0 ? ret : 0;
}

int vhd_check(struct layer *l, struct check_report *r, struct error *err)
{
	const struct vhd_state *s = l->state;
	struct blocks b = { 0 };
	int ret;

	if (s->f.type == TYPE_FIXED) {
		r->image_end_off = l->src->bytes;
		return 0;
	}
	r->total_units = div_round_up(l->bytes, s->d.block_bytes);
	if (s->f.type == TYPE_DYNAMIC && !is_all_zero(s->d.parent_id, ID_BYTES))
		report_corrupt(r, "disk type is dynamic, but there is the id "
				  "of a parent");
	ret = check_copy(l, r, err);
	if (ret >= 0)
		ret = collect_blocks(l, r->total_units, &b, r, err);
	if (ret >= 0) {
		if (b.n)
			qsort(b.list, b.n, sizeof(*b.list), compare_u32);
		check_parts(l, &b, r);
		count_leaks(l, &b, r);
	}
	free(b.list);
	return ret;
}
