/* SPDX-License-Identifier: BSD-3-Clause */
/* From an offset in a sparse extent of VMDK to its grain, table by table. */
#include <errno.h>
#include <inttypes.h>

#include "formats/cursor.h"
#include "formats/drivers/vmdk-inside.h"

/* Table bytes that map() reads at once, and tables that it looks into. */
#define CHUNK_BYTES    2048U
#define MAP_TABLES_MAX 4096U

uint64_t vmdk_table_used(const struct vmdk_extent *e, uint64_t idx)
{
	uint64_t left = e->capacity - idx * vmdk_table_span(e);

	return min_u64(e->table_entries, div_round_up(left, e->grain_bytes));
}

static bool overlaps(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
	return a < b ? b - a < a_bytes : a - b < b_bytes;
}

/*
 * Which metadata does [@off, @off + @bytes) lie over, as far as that is known
 * without looking into the directory? NULL: none.
 */
static const char *lies_over(const struct vmdk_extent *e, uint64_t off,
			     uint64_t bytes)
{
	uint64_t gd_bytes = e->gd_entries * e->entry_bytes;

	if (off < vmdk_header_bytes(e))
		return "header";
	if (e->descriptor_off &&
	    overlaps(off, bytes, e->descriptor_off, e->descriptor_bytes))
		return "descriptor";
	if (!e->gd_lost && overlaps(off, bytes, e->gd_off, gd_bytes))
		return "grain directory";
	if (e->rgd_off && overlaps(off, bytes, e->rgd_off, gd_bytes))
		return "redundant grain directory";
	return NULL;
}

static int check_table_place(const struct vmdk_extent *e, uint64_t off,
			     uint64_t bytes, struct error *err)
{
	const char *over;

	if (!range_inside(off, bytes, e->src->bytes))
		return error_set(err, -EBADMSG, off,
				 "grain table at %" PRIu64
				 " ends past the file's %" PRIu64 " bytes",
				 off, e->src->bytes);
	over = lies_over(e, off, bytes);
	if (e->grains_from && !range_inside(off, bytes, e->grains_from))
		over = "grains";
	if (over)
		return error_set(err, -EBADMSG, off,
				 "grain table at %" PRIu64 " lies over the %s",
				 off, over);
	return 0;
}

int vmdk_find_table(struct layer *l, const struct vmdk_extent *e, uint64_t idx,
		    bool second, struct vmdk_table *ret, struct error *err)
{
	uint64_t gd_off = second ? e->rgd_off : e->gd_off;
	uint8_t raw[8] = { 0 };
	struct cursor c = { .buf = raw, .len = sizeof(raw) };
	uint64_t entry;
	int r;

	r = layer_read_meta(l, e->src, raw, e->entry_bytes,
			    gd_off + idx * e->entry_bytes, err);
	if (r < 0)
		return r;
	entry = cursor_le64_at(&c, 0); /* its upper half is 0 where it is 4 */
	if (e->kind == VMDK_KIND_SESPARSE) {
		r = vmdk_se_find_table(e, entry, ret, err);
		if (r < 0)
			return r;
	} else {
		ret->kind = !entry			    ? EXTENT_HOLE
			    : entry == 1 && e->zero_entries ? EXTENT_ZERO
							    : EXTENT_DATA;
		ret->off = vmdk_sectors(entry);
	}
	if (ret->kind == EXTENT_DATA)
		return check_table_place(
			e, ret->off, vmdk_table_used(e, idx) * e->entry_bytes,
			err);
	return 0;
}

/*
 * The same, through the redundant directory where the first is damaged: not
 * in the file, with a table that is not, or with none where the other has one
 * (whoever writes two directories makes every table twice).
 */
static int find_any_table(struct layer *l, const struct vmdk_extent *e,
			  uint64_t idx, struct vmdk_table *ret,
			  struct error *err)
{
	struct error first = { 0 };
	struct vmdk_table t;
	int r;

	if (e->gd_lost)
		return vmdk_find_table(l, e, idx, true, ret, err);
	r = vmdk_find_table(l, e, idx, false, ret, &first);
	if (e->rgd_off && (r < 0 || ret->kind == EXTENT_HOLE) &&
	    !vmdk_find_table(l, e, idx, true, &t, NULL) &&
	    t.kind != EXTENT_HOLE) {
		*ret = t;
		return 0;
	}
	if (r < 0)
		error_set(err, first.code, first.off, "%s", first.msg);
	return r;
}

int vmdk_decode_entry(const struct vmdk_extent *e, const uint8_t *raw,
		      struct vmdk_grain *ret, struct error *err)
{
	struct cursor c = { .buf = raw, .len = e->entry_bytes };
	const char *over;
	uint32_t entry;

	if (e->kind == VMDK_KIND_SESPARSE)
		return vmdk_se_decode_entry(e, cursor_le64_at(&c, 0), ret, err);
	entry = cursor_le32_at(&c, 0);
	ret->kind = !entry			    ? EXTENT_HOLE
		    : entry == 1 && e->zero_entries ? EXTENT_ZERO
						    : EXTENT_DATA;
	ret->host_off = vmdk_sectors(entry);
	if (ret->kind != EXTENT_DATA)
		return 0;
	if (ret->host_off >= e->src->bytes)
		return error_set(err, -EBADMSG, ret->host_off,
				 "grain at %" PRIu64
				 " lies behind the file's end at %" PRIu64,
				 ret->host_off, e->src->bytes);
	if (e->grains_from) /* behind all else */
		over = ret->host_off < e->grains_from ? "metadata" : NULL;
	else
		over = lies_over(e, ret->host_off,
				 e->compressed ? VMDK_SECTOR_BYTES
					       : e->grain_bytes);
	if (over)
		return error_set(err, -EBADMSG, ret->host_off,
				 "grain at %" PRIu64 " lies over the %s",
				 ret->host_off, over);
	return 0;
}

int vmdk_read_marker(struct layer *l, const struct vmdk_extent *e,
		     uint64_t grain, uint64_t host_off, struct vmdk_marker *ret,
		     struct error *err)
{
	uint8_t raw[VMDK_GRAIN_HEADER_BYTES];
	struct cursor c = { .buf = raw, .len = sizeof(raw) };
	/* Deflate that does not shrink adds little; this is far beyond. */
	uint64_t max = 2 * e->grain_bytes + VMDK_SECTOR_BYTES;
	uint64_t sector, bytes = max;
	int r;

	if (e->markers) {
		r = layer_read_meta(l, e->src, raw, sizeof(raw), host_off, err);
		if (r < 0)
			return r;
		host_off += sizeof(raw);
		sector = cursor_le64_at(&c, VMDK_MARKER_VALUE_AT);
		bytes = cursor_le32_at(&c, VMDK_MARKER_SIZE_AT);
		if (!bytes || bytes > max)
			return error_set(err, -EBADMSG, host_off - sizeof(raw),
					 "compressed grain of %" PRIu64
					 " bytes is not in 1..%" PRIu64,
					 bytes, max);
		if (sector != grain * (e->grain_bytes / VMDK_SECTOR_BYTES))
			return error_set(
				err, -EBADMSG, host_off - sizeof(raw),
				"grain says that it is sector "
				"%" PRIu64 ", not %" PRIu64,
				sector,
				grain * (e->grain_bytes / VMDK_SECTOR_BYTES));
	}
	if (host_off >= e->src->bytes ||
	    (e->markers && bytes > e->src->bytes - host_off))
		return error_set(err, -EBADMSG, host_off,
				 "compressed grain at %" PRIu64
				 " ends behind the file's end at %" PRIu64,
				 host_off, e->src->bytes);
	ret->host_off = host_off;
	ret->bytes = (uint32_t)min_u64(bytes, e->src->bytes - host_off);
	return 0;
}

/* Entries of one table, as a walk along the grains has them at hand. */
struct walk {
	struct layer *l;
	const struct vmdk_extent *e;
	struct vmdk_table table;
	uint64_t from; /* grain of the first entry in buf */
	uint64_t n; /* for how many grains the answers hold */
	uint64_t last; /* the last grain of interest */
	uint8_t buf[CHUNK_BYTES];
};

/* Makes @w begin at @grain, which lies inside the extent. */
static int walk_load(struct walk *w, uint64_t grain, struct error *err)
{
	const struct vmdk_extent *e = w->e;
	uint64_t idx = grain / e->table_entries;
	uint64_t in_table = grain % e->table_entries;
	uint64_t left = vmdk_table_used(e, idx) - in_table;
	int r;

	w->n = 0;
	r = find_any_table(w->l, e, idx, &w->table, err);
	if (r < 0)
		return r;
	if (w->table.kind == EXTENT_DATA) {
		left = min_u64(left, sizeof(w->buf) / e->entry_bytes);
		left = min_u64(left, w->last - grain + 1);
		r = layer_read_meta(
			w->l, e->src, w->buf, (size_t)(left * e->entry_bytes),
			w->table.off + in_table * e->entry_bytes, err);
		if (r < 0)
			return r;
	}
	w->from = grain;
	w->n = left;
	return 0;
}

static int walk_get(const struct walk *w, uint64_t grain,
		    struct vmdk_grain *ret, struct error *err)
{
	*ret = (struct vmdk_grain){ .kind = w->table.kind };
	if (w->table.kind != EXTENT_DATA)
		return 0;
	return vmdk_decode_entry(
		w->e, w->buf + (grain - w->from) * w->e->entry_bytes, ret, err);
}

/* What the redundant tables say of a grain of which the first say rubbish. */
static int second_opinion(const struct walk *w, uint64_t grain,
			  struct vmdk_grain *ret)
{
	const struct vmdk_extent *e = w->e;
	struct vmdk_table t;
	uint8_t raw[8];
	int r;

	if (!e->rgd_off)
		return -EBADMSG;
	r = vmdk_find_table(w->l, e, grain / e->table_entries, true, &t, NULL);
	if (r < 0 || t.kind != EXTENT_DATA)
		return -EBADMSG;
	r = layer_read_meta(w->l, e->src, raw, e->entry_bytes,
			    t.off + grain % e->table_entries * e->entry_bytes,
			    NULL);
	if (r < 0 || vmdk_decode_entry(e, raw, ret, NULL) < 0)
		return -EBADMSG;
	/* Nothing at all contradicts the first without being better. */
	return ret->kind == EXTENT_HOLE ? -EBADMSG : 0;
}

/* The first grain; the run of the others goes by the first tables alone. */
static int walk_first(struct walk *w, uint64_t grain, struct vmdk_grain *ret,
		      struct error *err)
{
	struct error first = { 0 };
	int r;

	r = walk_load(w, grain, err);
	if (r < 0)
		return r;
	r = walk_get(w, grain, ret, &first);
	if (r < 0 && !second_opinion(w, grain, ret))
		r = 0;
	if (r < 0)
		error_set(err, first.code, first.off, "%s", first.msg);
	return r;
}

/* How many bytes from @in on have the answer @first, at most @len. */
static uint64_t run_bytes(struct walk *w, uint64_t in, uint64_t len,
			  const struct vmdk_grain *first)
{
	const struct vmdk_extent *e = w->e;
	uint64_t start = in / e->grain_bytes, grain = start, run;
	unsigned int tables = 0;
	struct vmdk_grain g;

	for (;;) {
		grain++;
		run = grain * e->grain_bytes - in;
		if (run >= len)
			return len;
		if (grain >= w->from + w->n && (++tables > MAP_TABLES_MAX ||
						walk_load(w, grain, NULL) < 0))
			return run;
		/* A table that is not there is one step. */
		if (w->table.kind != EXTENT_DATA &&
		    w->table.kind == first->kind) {
			grain = w->from + w->n - 1;
			continue;
		}
		if (walk_get(w, grain, &g, NULL) < 0 || g.kind != first->kind)
			return run;
		if (g.kind == EXTENT_DATA &&
		    g.host_off !=
			    first->host_off + (grain - start) * e->grain_bytes)
			return run;
	}
}

/* [@in, @in + @len) of the extent lies in the compressed grain at @host_off. */
static int map_compressed(struct layer *l, const struct vmdk_extent *e,
			  uint64_t in, uint64_t len, uint64_t host_off,
			  struct extent *ret, struct error *err)
{
	uint64_t grain = in / e->grain_bytes, in_grain = in % e->grain_bytes;
	struct vmdk_marker m;
	int r;

	r = vmdk_read_marker(l, e, grain, host_off, &m, err);
	if (r < 0)
		return r;
	ret->kind = EXTENT_COMPRESSED;
	ret->src = e->src;
	ret->host_off = m.host_off;
	ret->comp_bytes = m.bytes;
	ret->codec = CODEC_ZLIB;
	/* Some writers cut the last grain at the disk's end. */
	ret->unit_bytes = (uint32_t)min_u64(
		e->grain_bytes, e->capacity - grain * e->grain_bytes);
	ret->unit_off = (uint32_t)in_grain;
	ret->len = min_u64(len, ret->unit_bytes - in_grain);
	return 0;
}

int vmdk_map_sparse(struct layer *l, const struct vmdk_extent *e, uint64_t in,
		    uint64_t len, struct extent *ret, struct error *err)
{
	struct walk w = { .l = l,
			  .e = e,
			  .last = (in + len - 1) / e->grain_bytes };
	struct vmdk_grain g;
	int r;

	r = walk_first(&w, in / e->grain_bytes, &g, err);
	if (r < 0)
		return r;
	if (g.kind == EXTENT_DATA && e->compressed)
		return map_compressed(l, e, in, len, g.host_off, ret, err);
	ret->kind = (uint8_t)g.kind;
	ret->len = run_bytes(&w, in, len, &g);
	if (g.kind != EXTENT_DATA)
		return 0;
	return extent_set_data(ret, e->src, g.host_off, in % e->grain_bytes,
			       ret->len, err);
}
