/* SPDX-License-Identifier: BSD-3-Clause */
/* Is the structure of a VHDX sound? What lies in it lies apart. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/drivers/unit-check.h"
#include "formats/drivers/vhdx-inside.h"

/* What the checker keeps: a number for each block that is there. */
#define CHECK_BLOCKS_MAX (16U << 20)

/* A used range, in MiB. */
struct used {
	uint64_t mib;
	uint32_t mibs;
};

struct checker {
	struct check_report *r;
	struct used *list;
	size_t n, room;
	uint64_t previous; /* offset of the block before, 0: none */
};

static int use(struct checker *k, uint64_t off, uint64_t bytes,
	       struct error *err)
{
	struct used *grown;

	if (k->n == k->room) {
		if (k->room >= CHECK_BLOCKS_MAX)
			return error_set(err, -EFBIG, 0,
					 "more than %u blocks are too many to "
					 "be checked",
					 CHECK_BLOCKS_MAX);
		k->room = k->room ? 2 * k->room : 1024;
		grown = reallocarray(k->list, k->room, sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		k->list = grown;
	}
	k->list[k->n++] =
		(struct used){ off / VHDX_MIB, (uint32_t)(bytes / VHDX_MIB) };
	return 0;
}

/* A payload block that says it is there. */
static int check_payload(struct layer *l, struct checker *k, uint64_t idx,
			 uint64_t entry, struct error *err)
{
	const struct vhdx_state *s = l->state;
	uint64_t off = BAT_OFFSET(entry), bitmap_off;
	struct error why = { 0 };

	if (vhdx_check_entry(s, entry, &why) < 0 ||
	    (BAT_STATE(entry) == BLOCK_PARTIALLY_PRESENT &&
	     vhdx_find_bitmap(l, idx, &bitmap_off, &why) < 0)) {
		report_corrupt(k->r, "block %" PRIu64 ": %.100s", idx, why.msg);
		return 0;
	}
	if (BAT_RESERVED(entry))
		report_corrupt(
			k->r,
			"block %" PRIu64
			": reserved bits are set in its entry 0x%" PRIx64,
			idx, entry);
	/* Reserved, and Hyper-V refuses it; but qemu before 2.3 wrote these. */
	if (BAT_STATE(entry) == BLOCK_ZERO && off)
		report_corrupt(k->r,
			       "block %" PRIu64
			       " of zeroes has a place, %" PRIu64,
			       idx, off);
	if (BAT_STATE(entry) < BLOCK_FULLY_PRESENT)
		return 0;
	if (min_u64(s->block_bytes, l->bytes - (idx << s->block_bits)) >
	    s->view->bytes - off)
		report_corrupt(k->r,
			       "block %" PRIu64 " at %" PRIu64
			       " ends past the file's %" PRIu64 " bytes",
			       idx, off, s->view->bytes);
	k->r->allocated_units++;
	if (k->previous && off != k->previous + s->block_bytes)
		k->r->fragmented_units++;
	k->previous = off;
	return use(k, off, s->block_bytes, err);
}

static int check_bitmap(struct layer *l, struct checker *k, uint64_t chunk,
			uint64_t entry, struct error *err)
{
	const struct vhdx_state *s = l->state;
	unsigned int state = BAT_STATE(entry);
	uint64_t off = BAT_OFFSET(entry);

	if (state == BLOCK_NOT_PRESENT)
		return 0;
	if (state != BLOCK_FULLY_PRESENT) {
		report_corrupt(k->r,
			       "sector bitmap of chunk %" PRIu64
			       " has the state %u, which is not known",
			       chunk, state);
		return 0;
	}
	if (off < VHDX_MIB || !range_inside(off, VHDX_MIB, s->view->bytes)) {
		report_corrupt(k->r,
			       "sector bitmap of chunk %" PRIu64 " at %" PRIu64
			       " does not lie inside the file",
			       chunk, off);
		return 0;
	}
	return use(k, off, VHDX_MIB, err);
}

/* How many BAT entries from @at on lie in a hole of the file: all zero. */
static uint64_t empty_entries(struct layer *l, uint64_t at, uint64_t max)
{
	const struct vhdx_state *s = l->state;
	uint64_t off = s->regions[REGION_BAT].off + at * 8, len;
	bool hole;

	if (s->view != l->src ||
	    source_find_hole(l->src, off, max * 8, &hole, &len) < 0 || !hole)
		return 0;
	return len / 8;
}

static int check_entries(struct layer *l, struct checker *k, struct error *err)
{
	const struct vhdx_state *s = l->state;
	uint64_t total, per = (1ULL << s->chunk_bits) + 1;
	uint64_t entries[VHDX_BAT_CHUNK], at, n, i;
	int r;

	/* What is behind the disk's must be empty. */
	total = s->regions[REGION_BAT].bytes / 8;
	if (s->view->bytes > s->regions[REGION_BAT].off)
		total = min_u64(total,
				(s->view->bytes - s->regions[REGION_BAT].off) /
					8);
	for (at = 0; at < total; at += n) {
		n = empty_entries(l, at, total - at);
		if (n)
			continue;
		n = min_u64(total - at, VHDX_BAT_CHUNK);
		r = vhdx_read_bat(l, at, entries, (size_t)n, err);
		for (i = 0; i < n && r >= 0; i++) {
			uint64_t chunk = (at + i) / per, in = (at + i) % per;
			uint64_t idx = (chunk << s->chunk_bits) + in;

			if (in == per - 1)
				r = check_bitmap(l, k, chunk, entries[i], err);
			else if (idx < s->blocks)
				r = check_payload(l, k, idx, entries[i], err);
			else if (BAT_STATE(entries[i]) >= BLOCK_FULLY_PRESENT)
				report_corrupt(k->r,
					       "block %" PRIu64
					       " lies behind the disk's end at "
					       "%" PRIu64,
					       idx, l->bytes);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static int compare_used(const void *a, const void *b)
{
	const struct used *x = a, *y = b;

	return x->mib < y->mib ? -1 : x->mib > y->mib;
}

/*
 * Nothing may lie over anything. What is between is no leak: a writer may
 * keep room in advance, and blocks that were unmapped leave theirs.
 */
static void check_uses(struct checker *k)
{
	uint64_t end = 1;
	size_t i;

	if (k->n)
		qsort(k->list, k->n, sizeof(*k->list), compare_used);
	for (i = 0; i < k->n; i++) {
		const struct used *u = &k->list[i];

		if (u->mib < end)
			report_corrupt(k->r,
				       "what lies at %" PRIu64
				       " overlaps what ends at %" PRIu64,
				       u->mib * VHDX_MIB, end * VHDX_MIB);
		end = max_u64(end, u->mib + u->mibs);
	}
	k->r->image_end_off = end * VHDX_MIB;
}

/* 2.2.2: of two, the other is from an earlier change, or was never written. */
static int check_header_copy(struct source *src, uint64_t at,
			     struct check_report *r, struct error *err)
{
	uint8_t buf[VHDX_SECTOR_BYTES];
	static const uint8_t never[VHDX_SECTOR_BYTES];
	struct vhdx_header h;
	int ret;

	if (!range_inside(at, sizeof(buf), src->bytes))
		return 0;
	ret = source_read(src, buf, sizeof(buf), at, err);
	if (ret < 0)
		return ret;
	if (!vhdx_decode_header(buf, at, &h) && memcmp(buf, never, sizeof(buf)))
		report_corrupt(r, "header at %" PRIu64 " is damaged", at);
	return 0;
}

/* Either will do to read, but both should be there. */
static int check_copies(struct layer *l, struct check_report *r,
			struct error *err)
{
	const struct vhdx_state *s = l->state;
	CLEANUP(freep) uint8_t *buf = calloc(1, VHDX_TABLE_BYTES);
	uint32_t sum[2];
	bool good = true;
	unsigned int i;
	int ret;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < 2; i++) {
		ret = vhdx_read_region_table(s->view, vhdx_region_offs[i], buf,
					     err);
		if (ret < 0)
			return ret;
		if (!ret)
			report_corrupt(r,
				       "region table at %" PRIu64 " is damaged",
				       vhdx_region_offs[i]);
		sum[i] = vhdx_crc32c(0, buf, VHDX_TABLE_BYTES);
		good = good && ret;
		ret = check_header_copy(l->src, vhdx_header_offs[i], r, err);
		if (ret < 0)
			return ret;
	}
	if (good && sum[0] != sum[1])
		report_corrupt(r, "the two region tables differ");
	return 0;
}

int vhdx_check(struct layer *l, struct check_report *r, struct error *err)
{
	const struct vhdx_state *s = l->state;
	struct checker k = { .r = r };
	unsigned int i;
	int ret;

	r->total_units = s->blocks;
	ret = check_copies(l, r, err);
	if (ret >= 0)
		ret = check_entries(l, &k, err);
	for (i = 0; i < REGIONS && ret >= 0; i++)
		ret = use(&k, s->regions[i].off, s->regions[i].bytes, err);
	if (ret >= 0 && s->h.log_bytes && s->h.log_off)
		ret = use(&k, s->h.log_off, s->h.log_bytes, err);
	if (ret >= 0)
		check_uses(&k);
	free(k.list);
	return ret;
}
