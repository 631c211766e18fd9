/* SPDX-License-Identifier: BSD-3-Clause */
/* VHD's BAT: from an offset in the disk to its block, and its sector bitmap. */
#include <errno.h>
#include <inttypes.h>

#include "formats/drivers/bitmap-run.h"
#include "formats/drivers/vhd-inside.h"

/* BAT entries that one map() looks at. */
#define MAP_ENTRIES_MAX (64U << 10)

int vhd_read_entries(struct layer *l, uint64_t idx, uint64_t max, uint32_t *ret,
		     size_t *ret_n, struct error *err)
{
	const struct vhd_state *s = l->state;
	size_t n = (size_t)min_u64(max, BAT_CHUNK), i;
	int r;

	r = layer_read_meta(l, l->src, ret, n * 4, s->d.table_off + idx * 4,
			    err);
	if (r < 0)
		return r;
	for (i = 0; i < n; i++)
		ret[i] = be32toh(ret[i]);
	*ret_n = n;
	return 0;
}

/* How many blocks from @idx on, at most @max, are not there? At least one. */
static uint64_t unused_blocks(struct layer *l, uint64_t idx, uint64_t max)
{
	uint32_t entries[BAT_CHUNK];
	uint64_t run = 1;
	size_t n, i;

	max = min_u64(max, MAP_ENTRIES_MAX);
	while (run < max) {
		if (vhd_read_entries(l, idx + run, max - run, entries, &n,
				     NULL) < 0)
			break;
		for (i = 0; i < n; i++)
			if (entries[i] != BAT_UNUSED)
				return run + i;
		run += n;
	}
	return run;
}

bool vhd_lies_over(const struct layer *l, uint64_t off, struct part *ret)
{
	const struct vhd_state *s = l->state;
	uint64_t block = s->bitmap_bytes + (uint64_t)s->d.block_bytes;
	const struct part parts[] = {
		{ "copy of the footer", 0, FOOTER_BYTES },
		{ "dynamic header", s->f.data_off, DYNAMIC_BYTES },
		{ "BAT", s->d.table_off,
		  div_round_up(l->bytes, s->d.block_bytes) * 4 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(parts); i++)
		if (off < parts[i].off + parts[i].bytes &&
		    parts[i].off < off + block) {
			*ret = parts[i];
			return true;
		}
	return false;
}

static int map_block(struct layer *l, uint32_t entry, uint64_t in_block,
		     uint64_t len, struct extent *ret, struct error *err)
{
	const struct vhd_state *s = l->state;
	uint64_t off = (uint64_t)entry * SECTOR_BYTES;
	uint64_t first = in_block / SECTOR_BYTES, run;
	struct part over;
	bool bit;
	int r;

	if (vhd_lies_over(l, off, &over))
		return error_set(err, -EBADMSG, 0,
				 "block at %" PRIu64
				 " lies over the %s at %" PRIu64,
				 off, over.what, over.off);
	/* Without data it is damage, whichever sectors are asked for. */
	if (off >= s->data->bytes || s->bitmap_bytes >= s->data->bytes - off)
		return error_set(err, -EBADMSG, 0,
				 "data of the block at %" PRIu64
				 " lie behind the end at %" PRIu64,
				 off, s->data->bytes);
	r = bitmap_run(l, l->src, FIRST_BIT_HIGHEST, off, first,
		       (in_block + len - 1) / SECTOR_BYTES - first + 1, &bit,
		       &run, err);
	if (r < 0)
		return r;
	len = min_u64(len, run * SECTOR_BYTES - in_block % SECTOR_BYTES);
	/* Damage reaches as far as the bits that say that data are there. */
	ret->len = len;
	if (bit)
		return extent_set_data(ret, s->data, off + s->bitmap_bytes,
				       in_block, len, err);
	ret->kind = EXTENT_HOLE;
	return 0;
}

int vhd_map(struct layer *l, uint64_t guest_off, uint64_t len,
	    struct extent *ret, struct error *err)
{
	const struct vhd_state *s = l->state;
	uint64_t idx, last, in_block;
	uint32_t entry;
	size_t n;
	int r;

	if (s->f.type == TYPE_FIXED)
		return extent_set_data(ret, s->data, 0, guest_off, len, err);
	idx = guest_off >> s->block_bits;
	last = (guest_off + len - 1) >> s->block_bits;
	in_block = guest_off & (s->d.block_bytes - 1);
	r = vhd_read_entries(l, idx, 1, &entry, &n, err);
	if (r < 0)
		return r;
	if (entry != BAT_UNUSED)
		return map_block(l, entry, in_block,
				 min_u64(len, s->d.block_bytes - in_block), ret,
				 err);
	ret->kind = EXTENT_HOLE;
	ret->len = min_u64(
		len, (unused_blocks(l, idx, last - idx + 1) << s->block_bits) -
			     in_block);
	return 0;
}
