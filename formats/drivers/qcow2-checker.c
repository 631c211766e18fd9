/* SPDX-License-Identifier: BSD-3-Clause */
/* What all parts of qcow2's checker do: count, read tables, say. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/qcow2-check-inside.h"

/* Entries of all L1 and bitmap tables: hostile ones share their clusters. */
#define CHECK_ENTRIES_MAX (64U << 20)
/* Lines; findings beyond are only counted. */
#define CHECK_LINES_MAX	  65536U

_Static_assert(USE_BITMAP < REF_MAP_USES, "uses fit");

const char *const checker_use_names[] = {
	[USE_NONE] = "nothing",
	[USE_HEADER] = "header",
	[USE_L1] = "L1 table",
	[USE_SNAPSHOT_L1] = "snapshot's L1 table",
	[USE_L2] = "L2 table",
	[USE_DATA] = "data",
	[USE_COMPRESSED] = "compressed data",
	[USE_REFTABLE] = "refcount table",
	[USE_REFBLOCK] = "refcount block",
	[USE_SNAPSHOTS] = "snapshot table",
	[USE_CRYPTO] = "crypto header",
	[USE_BITMAP_DIR] = "bitmap directory",
	[USE_BITMAP_TABLE] = "bitmap table",
	[USE_BITMAP] = "bitmap",
};

/* May a cluster be used twice in this way, its refcount being 2? */
static bool may_share(enum use use)
{
	return use == USE_SNAPSHOT_L1 || use == USE_L2 || use == USE_DATA ||
	       use == USE_COMPRESSED;
}

static void PRINTF(2, 0) say(struct checker *k, const char *fmt, va_list ap)
{
	char line[256];

	if (!k->r->say || k->lines > CHECK_LINES_MAX)
		return;
	if (k->lines++ == CHECK_LINES_MAX)
		snprintf(line, sizeof(line),
			 "more than %u lines: further findings are counted, "
			 "not told",
			 CHECK_LINES_MAX);
	else
		vsnprintf(line, sizeof(line), fmt, ap);
	k->r->say(k->r, line);
}

void checker_corruption(struct checker *k, const char *fmt, ...)
{
	va_list ap;

	k->r->corruptions++;
	va_start(ap, fmt);
	say(k, fmt, ap);
	va_end(ap);
}

void checker_error(struct checker *k, const char *fmt, ...)
{
	va_list ap;

	k->r->check_errors++;
	va_start(ap, fmt);
	say(k, fmt, ap);
	va_end(ap);
}

void checker_tell(struct checker *k, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(k, fmt, ap);
	va_end(ap);
}

int checker_failed(const struct checker *k)
{
	return k->err->code;
}

const char *checker_by_text(const struct by *by, char buf[BY_TEXT_BYTES])
{
	if (by->owner)
		snprintf(buf, BY_TEXT_BYTES,
			 "snapshot %" PRIu32 ", %s %" PRIu64, by->owner - 1,
			 by->what, by->idx);
	else
		snprintf(buf, BY_TEXT_BYTES, "%s %" PRIu64, by->what, by->idx);
	return buf;
}

int checker_count_cluster(struct checker *k, uint64_t cluster, enum use use,
			  uint32_t refs, const struct by *by,
			  enum use *ret_before)
{
	struct ref_cell c = ref_map_get(&k->refs, cluster);
	char text[BY_TEXT_BYTES];

	*ret_before = (enum use)c.use;
	if (c.use != USE_NONE && (c.use != use || !may_share(use)))
		checker_corruption(
			k,
			"%s: %s at %" PRIu64 " lies in a cluster that is in "
			"use as %s",
			checker_by_text(by, text), checker_use_names[use],
			cluster << k->s->cluster_bits,
			checker_use_names[c.use]);
	if (c.use == USE_NONE)
		c.use = use;
	/* An L2 table's count says how often its clusters count. */
	if (c.use != USE_L2 || use == USE_L2)
		c.refs = (uint32_t)min_u64((uint64_t)c.refs + refs,
					   REF_MAP_REFS_MAX);
	return ref_map_set(&k->refs, cluster, c, k->err);
}

int checker_count_range(struct checker *k, uint64_t off, uint64_t bytes,
			enum use use, uint32_t refs, const struct by *by)
{
	uint64_t cluster = off >> k->s->cluster_bits, last;
	uint64_t limit = k->l->src->bytes + k->s->cluster_bytes - 1;
	char text[BY_TEXT_BYTES];
	enum use before = USE_NONE;
	int r = 0;

	if (!bytes)
		return 0;
	if (off >= k->l->src->bytes || !range_inside(off, bytes, limit)) {
		checker_corruption(
			k,
			"%s: %s at %" PRIu64 " with %" PRIu64
			" bytes ends behind the file's end at %" PRIu64,
			checker_by_text(by, text), checker_use_names[use], off,
			bytes, k->l->src->bytes);
		return 0;
	}
	last = (off + bytes - 1) >> k->s->cluster_bits;
	k->clusters = max_u64(k->clusters, last + 1);
	for (; cluster <= last && r >= 0; cluster++)
		r = checker_count_cluster(k, cluster, use, refs, by, &before);
	return r;
}

int checker_take_entries(struct checker *k, uint64_t entries)
{
	if (entries > CHECK_ENTRIES_MAX - k->entries)
		return error_set(k->err, -EFBIG, 0,
				 "L1 and bitmap tables together have more than "
				 "the limit of %u entries",
				 CHECK_ENTRIES_MAX);
	k->entries += entries;
	return 0;
}

/* Are these bytes of the file a hole, and nothing to look at? */
static bool is_hole(struct checker *k, uint64_t off, uint64_t bytes)
{
	uint64_t len = 0;
	bool hole = false;

	return !source_find_hole(k->l->src, off, bytes, &hole, &len) && hole &&
	       len >= bytes;
}

int checker_read_piece(struct checker *k, const char *what, uint64_t off,
		       size_t bytes)
{
	struct error err = { 0 };

	if (is_hole(k, off, bytes))
		return 0;
	if (source_read(k->l->src, k->piece, bytes, off, &err) < 0) {
		checker_error(k, "%s: %.150s", what, err.msg);
		return 0;
	}
	return 1;
}

int checker_each_entry(struct checker *k, const char *what, uint64_t off,
		       uint64_t entries, uint32_t entry_bytes,
		       int (*each)(struct checker *k, void *opaque,
				   uint64_t idx, const uint8_t *raw),
		       void *opaque)
{
	uint64_t piece = CHECK_PIECE_BYTES / entry_bytes;
	uint64_t from, n, i;
	int r;

	for (from = 0; from < entries; from += n) {
		n = min_u64(entries - from, piece);
		if (!checker_read_piece(k, what, off + from * entry_bytes,
					(size_t)n * entry_bytes))
			continue;
		for (i = 0; i < n; i++) {
			const uint8_t *raw = k->piece + i * entry_bytes;

			if (is_all_zero(raw, entry_bytes))
				continue;
			r = each(k, opaque, from + i, raw);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

uint64_t checker_be64(const uint8_t *raw)
{
	uint64_t v;

	memcpy(&v, raw, sizeof(v));
	return be64toh(v);
}

uint64_t checker_refcount_at(const uint8_t *buf, uint64_t idx,
			     unsigned int order)
{
	unsigned int per_byte, shift;
	uint64_t v = 0;
	size_t i, bytes;

	if (order < 3) { /* the first one in the lowest bits */
		per_byte = 8U >> order;
		shift = (unsigned int)(idx % per_byte) << order;
		return buf[idx / per_byte] >> shift &
		       ((1U << (1U << order)) - 1);
	}
	bytes = 1U << (order - 3);
	for (i = 0; i < bytes; i++)
		v = v << 8 | buf[idx * bytes + i];
	return v;
}

unsigned int checker_block_bits(const struct checker *k)
{
	return k->s->cluster_bits + 3 - k->s->h.refcount_order;
}

/* What lies behind the end of the file counts as 0. */
static void load_window(struct checker *k, uint64_t off)
{
	uint64_t end = k->l->src->bytes;

	memset(k->window, 0, sizeof(k->window));
	k->window_off = off;
	if (off < end &&
	    layer_read_meta(k->l, k->l->src, k->window,
			    (size_t)min_u64(sizeof(k->window), end - off), off,
			    NULL) < 0)
		checker_error(k, "refcounts at %" PRIu64 " cannot be read",
			      off);
}

uint64_t checker_stored_refcount(struct checker *k, uint64_t cluster)
{
	unsigned int order = k->s->h.refcount_order;
	uint64_t block = cluster >> checker_block_bits(k);
	uint64_t idx = cluster & ((1ULL << checker_block_bits(k)) - 1);
	uint64_t in_block = (idx << order) / 8, off;

	if (block >= k->reftable_entries || !k->reftable[block])
		return 0;
	off = (k->reftable[block] & QCOW2_REFTABLE_MASK) +
	      round_down(in_block, CHECK_WINDOW_BYTES);
	if (off != k->window_off)
		load_window(k, off);
	return checker_refcount_at(
		k->window, idx & ((CHECK_WINDOW_BYTES * 8U >> order) - 1),
		order);
}

void checker_copied_bit(struct checker *k, const struct by *by, uint64_t entry,
			enum use use, uint64_t off)
{
	uint64_t stored = checker_stored_refcount(k, off >> k->s->cluster_bits);
	char text[BY_TEXT_BYTES];

	if (!!(entry & QCOW2_COPIED) == (stored == 1))
		return;
	checker_corruption(
		k,
		"%s: copied flag is %s, but the refcount of its %s at "
		"%" PRIu64 " is %" PRIu64,
		checker_by_text(by, text),
		entry & QCOW2_COPIED ? "set" : "not set",
		checker_use_names[use], off, stored);
}
