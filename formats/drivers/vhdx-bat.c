/* SPDX-License-Identifier: BSD-3-Clause */
/* VHDX's BAT: from an offset in the disk to its block, and its sector bitmap. */
#include <errno.h>
#include <inttypes.h>

#include "formats/drivers/bitmap-run.h"
#include "formats/drivers/vhdx-inside.h"

/* BAT entries that one map() looks at. */
#define MAP_ENTRIES_MAX (64U << 10)

uint64_t vhdx_payload_entry(const struct vhdx_state *s, uint64_t idx)
{
	return idx + (idx >> s->chunk_bits);
}

uint64_t vhdx_bitmap_entry(const struct vhdx_state *s, uint64_t idx)
{
	uint64_t chunk = idx >> s->chunk_bits;

	return ((chunk + 1) << s->chunk_bits) + chunk;
}

int vhdx_read_bat(struct layer *l, uint64_t at, uint64_t *ret, size_t n,
		  struct error *err)
{
	const struct vhdx_state *s = l->state;
	size_t i;
	int r;

	r = layer_read_meta(l, s->view, ret, n * 8,
			    s->regions[REGION_BAT].off + at * 8, err);
	if (r < 0)
		return r;
	for (i = 0; i < n; i++)
		ret[i] = le64toh(ret[i]);
	return 0;
}

/* What map() makes of an entry's state. */
static enum extent_kind kind_of(uint64_t entry)
{
	switch (BAT_STATE(entry)) {
	case BLOCK_NOT_PRESENT:
		return EXTENT_HOLE;
	case BLOCK_UNDEFINED:
	case BLOCK_ZERO:
	case BLOCK_UNMAPPED:
	case BLOCK_UNMAPPED_DRAFT:
		return EXTENT_ZERO;
	case BLOCK_FULLY_PRESENT:
		return EXTENT_DATA;
	default:
		return EXTENT_DAMAGED;
	}
}

static bool overlaps(const struct region *g, uint64_t off, uint64_t bytes)
{
	return off < g->off + g->bytes && g->off < off + bytes;
}

/* Does [@off, @off + @bytes) lie over what is not for blocks? NULL: no. */
static const char *lies_over(const struct vhdx_state *s, uint64_t off,
			     uint64_t bytes)
{
	struct region log = { .off = s->h.log_off, .bytes = s->h.log_bytes };
	unsigned int i;

	if (off < VHDX_MIB)
		return "headers";
	for (i = 0; i < REGIONS; i++)
		if (overlaps(&s->regions[i], off, bytes))
			return vhdx_region_names[i];
	return log.off && overlaps(&log, off, bytes) ? "log" : NULL;
}

/* Is @next, @blocks on, of one run with @first? */
static bool continues(const struct vhdx_state *s, uint64_t first, uint64_t next,
		      uint64_t blocks)
{
	uint64_t off = BAT_OFFSET(first) + (blocks << s->block_bits);

	if (kind_of(first) != kind_of(next))
		return false;
	/* Not into a block that is damage: vhdx_check_entry() says why. */
	return kind_of(first) != EXTENT_DATA ||
	       (BAT_OFFSET(next) == off && off < s->view->bytes &&
		!lies_over(s, off, s->block_bytes));
}

/*
 * How many blocks from @idx on, at most @max, are one run with the first,
 * whose entry is @first? Chunks' bitmaps stand between their entries.
 */
static uint64_t block_run(struct layer *l, uint64_t idx, uint64_t first,
			  uint64_t max)
{
	const struct vhdx_state *s = l->state;
	uint64_t entries[VHDX_BAT_CHUNK], run = 1, n, i;

	max = min_u64(max, MAP_ENTRIES_MAX);
	while (run < max) {
		/* To the chunk's end, behind which the bitmap's entry is. */
		n = (1ULL << s->chunk_bits) -
		    ((idx + run) & ((1ULL << s->chunk_bits) - 1));
		n = min_u64(min_u64(n, max - run), VHDX_BAT_CHUNK);
		if (vhdx_read_bat(l, vhdx_payload_entry(s, idx + run), entries,
				  (size_t)n, NULL) < 0)
			break;
		for (i = 0; i < n; i++)
			if (!continues(s, first, entries[i], run + i))
				return run + i;
		run += n;
	}
	return run;
}

int vhdx_find_bitmap(struct layer *l, uint64_t idx, uint64_t *ret,
		     struct error *err)
{
	const struct vhdx_state *s = l->state;
	uint64_t in_chunk = idx & ((1ULL << s->chunk_bits) - 1), entry, off;
	uint64_t bytes = s->block_bytes / s->sector_bytes / 8;
	int r;

	if (!s->has_parent)
		return error_set(err, -EBADMSG, 0,
				 "block is partially present, but there is no "
				 "parent");
	r = vhdx_read_bat(l, vhdx_bitmap_entry(s, idx), &entry, 1, err);
	if (r < 0)
		return r;
	if (BAT_STATE(entry) != BLOCK_FULLY_PRESENT ||
	    lies_over(s, BAT_OFFSET(entry), VHDX_MIB))
		return error_set(err, -EBADMSG, 0,
				 "block is partially present, but its chunk "
				 "has no sector bitmap (entry 0x%" PRIx64 ")",
				 entry);
	off = BAT_OFFSET(entry) + in_chunk * bytes;
	if (!range_inside(off, bytes, s->view->bytes))
		return error_set(err, -EBADMSG, 0,
				 "sector bitmap at %" PRIu64
				 " ends past the file's %" PRIu64 " bytes",
				 off, s->view->bytes);
	*ret = off;
	return 0;
}

static int map_partial(struct layer *l, uint64_t idx, uint64_t entry,
		       uint64_t in_block, uint64_t len, struct extent *ret,
		       struct error *err)
{
	const struct vhdx_state *s = l->state;
	uint64_t first = in_block / s->sector_bytes, bitmap_off, run;
	bool bit;
	int r;

	r = vhdx_find_bitmap(l, idx, &bitmap_off, err);
	if (r >= 0)
		r = bitmap_run(l, s->view, FIRST_BIT_LOWEST, bitmap_off, first,
			       (in_block + len - 1) / s->sector_bytes - first +
				       1,
			       &bit, &run, err);
	if (r < 0)
		return r;
	len = min_u64(len, run * s->sector_bytes - in_block % s->sector_bytes);
	/* Damage reaches as far as the bits that say that data are there. */
	ret->len = len;
	if (bit)
		return vhdx_view_extent(ret, s->view, l->src, BAT_OFFSET(entry),
					in_block, len, err);
	ret->kind = EXTENT_HOLE;
	return 0;
}

int vhdx_check_entry(const struct vhdx_state *s, uint64_t entry,
		     struct error *err)
{
	unsigned int state = BAT_STATE(entry);
	uint64_t off = BAT_OFFSET(entry);
	const char *over;

	if (kind_of(entry) == EXTENT_DAMAGED &&
	    state != BLOCK_PARTIALLY_PRESENT)
		return error_set(err, -EBADMSG, 0,
				 "block state %u is not known", state);
	if (state < BLOCK_FULLY_PRESENT)
		return 0;
	over = lies_over(s, off, s->block_bytes);
	if (over)
		return error_set(err, -EBADMSG, 0,
				 "block at %" PRIu64 " lies over the %s", off,
				 over);
	if (off >= s->view->bytes)
		return error_set(err, -EBADMSG, 0,
				 "block at %" PRIu64
				 " lies behind the file's end at %" PRIu64,
				 off, s->view->bytes);
	return 0;
}

int vhdx_map(struct layer *l, uint64_t guest_off, uint64_t len,
	     struct extent *ret, struct error *err)
{
	const struct vhdx_state *s = l->state;
	uint64_t idx = guest_off >> s->block_bits;
	uint64_t last = (guest_off + len - 1) >> s->block_bits;
	uint64_t in_block = guest_off & (s->block_bytes - 1);
	uint64_t entry;
	int r;

	r = vhdx_read_bat(l, vhdx_payload_entry(s, idx), &entry, 1, err);
	if (r >= 0)
		r = vhdx_check_entry(s, entry, err);
	if (r < 0)
		return r;
	if (BAT_STATE(entry) == BLOCK_PARTIALLY_PRESENT)
		return map_partial(l, idx, entry, in_block,
				   min_u64(len, s->block_bytes - in_block), ret,
				   err);
	len = min_u64(len, (block_run(l, idx, entry, last - idx + 1)
			    << s->block_bits) -
				   in_block);
	if (kind_of(entry) == EXTENT_DATA)
		return vhdx_view_extent(ret, s->view, l->src, BAT_OFFSET(entry),
					in_block, len, err);
	ret->kind = (uint8_t)kind_of(entry);
	ret->len = len;
	return 0;
}
