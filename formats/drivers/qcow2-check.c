/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Is the structure of a qcow2 image sound? Counts how often every cluster of
 * the file is referred to and compares that with the refcounts that the file
 * stores ("Host cluster management").
 *
 *	1  header, refcount table and blocks
 *	2  L1 tables, the live one and every snapshot's: which L2 tables
 *	3  snapshot table, crypto header, bitmaps
 *	4  each L2 table once, however many L1 entries lead to it: its
 *	   clusters have that many references each
 *	5  stored refcounts against references
 *
 * Verdicts are those of qemu-img check, but for these, which are findings
 * here: two uses of a cluster that exclude each other (refcount 2 does not
 * make it right), tables and clusters that qcow2_map() cannot read (an L2
 * table that the end of the file cuts, a cluster behind the end of the
 * external data file, one at the wrong place of a raw one, zero clusters in
 * version 2), a snapshot's L1 table that does not reach its disk's end, and
 * the bitmap feature bit without bitmaps. Refcount blocks that are not in the
 * file are corruptions, as all that they should count is.
 *
 * Cost: time goes with the tables that lie in the file, not with what they
 * claim; holes are skipped, no table is walked twice. Memory goes with the
 * clusters in use, a byte each, up to CHECK_BYTES_MAX.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/qcow2-check-inside.h"

/* Reference counts and the list of L2 tables; more is refused. */
#define CHECK_BYTES_MAX (192U << 20)

#define L1_RESERVED	  0x7f000000000001ffULL
#define REFTABLE_RESERVED 0x00000000000001ffULL
/* In our copy of the refcount table: its block is compared elsewhere. */
#define REFTABLE_TWICE	  1ULL

/* --- refcount table and blocks --- */

/*
 * Counts the block of entry @i; what is wrong is 0 from here on, and counts
 * as refcounts of 0.
 */
static int check_refblock(struct checker *k, uint64_t i)
{
	uint64_t entry = k->reftable[i], off = entry & QCOW2_REFTABLE_MASK;
	struct by by = { "refcount table entry", i, 0 };
	enum use before = USE_NONE;
	int r;

	k->reftable[i] = 0;
	if (!entry)
		return 0;
	if (entry & REFTABLE_RESERVED) {
		checker_corruption(k,
				   "refcount table entry %" PRIu64
				   ": reserved bits 0x%" PRIx64 " are set",
				   i, (uint64_t)(entry & REFTABLE_RESERVED));
		return 0;
	}
	if (off % k->s->cluster_bytes) {
		checker_corruption(k,
				   "refcount table entry %" PRIu64
				   ": block at %" PRIu64
				   " is not aligned to %" PRIu64,
				   i, off, k->s->cluster_bytes);
		return 0;
	}
	if (off >= k->l->src->bytes) {
		checker_corruption(k,
				   "refcount table entry %" PRIu64
				   ": block at %" PRIu64
				   " lies behind the file's end at %" PRIu64,
				   i, off, k->l->src->bytes);
		return 0;
	}
	r = checker_count_cluster(k, off >> k->s->cluster_bits, USE_REFBLOCK, 1,
				  &by, &before);
	/* One that was met before is not read twice. */
	k->reftable[i] = off | (before == USE_REFBLOCK ? REFTABLE_TWICE : 0);
	return r;
}

static int check_reftable(struct checker *k)
{
	const struct qcow2_header *h = &k->s->h;
	struct by by = { "header, refcount table of clusters",
			 h->reftable_clusters, 0 };
	size_t bytes = (size_t)h->reftable_clusters << h->cluster_bits;
	uint64_t i;
	int r;

	if (!bytes)
		return 0;
	r = checker_count_range(k, h->reftable_off, bytes, USE_REFTABLE, 1,
				&by);
	if (r < 0)
		return r;
	k->reftable = ref_map_calloc(&k->refs, 1, bytes, k->err);
	if (!k->reftable)
		return checker_failed(k);
	r = source_read(k->l->src, k->reftable, bytes, h->reftable_off, k->err);
	if (r < 0)
		return r;
	k->reftable_entries = bytes / sizeof(*k->reftable);
	for (i = 0; i < k->reftable_entries; i++)
		k->reftable[i] = be64toh(k->reftable[i]);
	for (i = 0; i < k->reftable_entries && r >= 0; i++)
		r = check_refblock(k, i);
	return r;
}

/* --- L1 tables --- */

static int add_l2(struct checker *k, uint64_t off, uint32_t owner,
		  uint64_t l1_idx)
{
	struct l2_table *more;
	size_t room = k->l2_room ? k->l2_room * 2 : 256;

	if (k->n_l2 == k->l2_room) {
		if (ref_map_take(&k->refs, (room - k->l2_room) * sizeof(*more),
				 k->err) < 0)
			return checker_failed(k);
		more = reallocarray(k->l2, room, sizeof(*more));
		if (!more)
			return error_set(k->err, -ENOMEM, 0, "out of memory");
		k->l2 = more;
		k->l2_room = room;
	}
	k->l2[k->n_l2++] = (struct l2_table){ .off = off,
					      .owner = owner,
					      .l1_idx = (uint32_t)l1_idx };
	return 0;
}

static int check_l1_entry(struct checker *k, void *opaque, uint64_t idx,
			  const uint8_t *raw)
{
	const uint32_t *owner = opaque;
	struct by by = { "L1 entry", idx, *owner };
	uint64_t entry = checker_be64(raw), off = entry & QCOW2_OFFSET_MASK;
	char text[BY_TEXT_BYTES];
	enum use before = USE_NONE;
	int r;

	if (entry & L1_RESERVED)
		checker_corruption(k, "%s: reserved bits 0x%" PRIx64 " are set",
				   checker_by_text(&by, text),
				   (uint64_t)(entry & L1_RESERVED));
	if (!off) {
		if (entry & QCOW2_COPIED)
			checker_corruption(
				k, "%s: has the copied flag, but no table",
				checker_by_text(&by, text));
		return 0;
	}
	if (off % k->s->cluster_bytes) {
		checker_corruption(k,
				   "%s: L2 table at %" PRIu64
				   " is not aligned to %" PRIu64,
				   checker_by_text(&by, text), off,
				   k->s->cluster_bytes);
		return 0;
	}
	if (!range_inside(off, k->s->cluster_bytes, k->l->src->bytes)) {
		checker_corruption(k,
				   "%s: L2 table at %" PRIu64
				   " ends behind the file's end at %" PRIu64,
				   checker_by_text(&by, text), off,
				   k->l->src->bytes);
		return 0;
	}
	r = checker_count_cluster(k, off >> k->s->cluster_bits, USE_L2, 1, &by,
				  &before);
	if (r < 0)
		return r;
	if (!*owner)
		checker_copied_bit(k, &by, entry, USE_L2, off);
	/* What something else owns is not read as a table. */
	return before == USE_NONE ? add_l2(k, off, *owner, idx) : 0;
}

/* @owner: see struct l2_table. The table is sound and inside the file. */
static int check_l1(struct checker *k, uint64_t off, uint32_t entries,
		    uint32_t owner)
{
	struct by by = { "L1 table of entries", entries, owner };
	int r;

	r = checker_take_entries(k, entries);
	if (r >= 0)
		r = checker_count_range(k, off, (uint64_t)entries * 8,
					owner ? USE_SNAPSHOT_L1 : USE_L1, 1,
					&by);
	if (r < 0)
		return r;
	return checker_each_entry(k, "L1 table", off, entries, 8,
				  check_l1_entry, &owner);
}

/* --- snapshots --- */

/* "Snapshots": how much extra data an entry has */
enum { SNAP_EXTRA_BYTES_AT = 36, SNAP_EXTRA_V3_BYTES = 16 };

static int check_snapshot(struct checker *k, uint32_t i,
			  const struct qcow2_snapshot *snap,
			  uint32_t extra_bytes)
{
	uint64_t need =
		div_round_up(snap->bytes, k->s->cluster_bytes << k->s->l2_bits);
	struct error err = { 0 };

	if (k->s->h.version >= 3 && extra_bytes < SNAP_EXTRA_V3_BYTES)
		checker_corruption(
			k,
			"snapshot %" PRIu32 ": %" PRIu32
			" bytes of extra data, version 3 has at least %d",
			i, extra_bytes, SNAP_EXTRA_V3_BYTES);
	if (snap->l1_entries < need)
		checker_corruption(k,
				   "snapshot %" PRIu32 ": L1 table has %" PRIu32
				   " entries, a disk of %" PRIu64
				   " bytes needs %" PRIu64,
				   i, snap->l1_entries, snap->bytes, need);
	if (qcow2_check_table(k->l, "L1 table", snap->l1_off, snap->l1_entries,
			      8, QCOW2_L1_BYTES_MAX, 0, &err) < 0) {
		checker_corruption(k, "snapshot %" PRIu32 ": %.150s", i,
				   err.msg);
		return 0;
	}
	return check_l1(k, snap->l1_off, snap->l1_entries, i + 1);
}

static int check_snapshots(struct checker *k)
{
	const struct qcow2_header *h = &k->s->h;
	struct by by = { "header, snapshots", h->snapshots, 0 };
	uint64_t at = 0;
	uint32_t i;
	int r;

	if (h->snapshots && k->s->has_data_file)
		checker_corruption(k,
				   "%" PRIu32
				   " snapshots in an image with an external "
				   "data file",
				   h->snapshots);
	for (i = 0; i < h->snapshots && at <= QCOW2_SNAPSHOT_TABLE_MAX; i++) {
		CLEANUP(qcow2_snapshot_done) struct qcow2_snapshot snap = { 0 };
		uint64_t off = h->snapshots_off + at;
		struct error err = { 0 };
		uint32_t extra = 0;

		if (qcow2_read_snapshot(k->l, off, &snap, &err) < 0 ||
		    layer_read_meta(k->l, k->l->src, &extra, sizeof(extra),
				    off + SNAP_EXTRA_BYTES_AT, &err) < 0) {
			/* Where the next one begins, nobody knows. */
			k->blind = true;
			checker_corruption(k, "snapshot %" PRIu32 ": %.150s", i,
					   err.msg);
			break;
		}
		at += snap.entry_bytes;
		r = check_snapshot(k, i, &snap, be32toh(extra));
		if (r < 0)
			return r;
	}
	if (at > QCOW2_SNAPSHOT_TABLE_MAX) {
		k->blind = true;
		checker_corruption(
			k, "snapshot table is over the limit of %u bytes",
			QCOW2_SNAPSHOT_TABLE_MAX);
	}
	at = min_u64(at, k->l->src->bytes - h->snapshots_off);
	return checker_count_range(k, h->snapshots_off, at, USE_SNAPSHOTS, 1,
				   &by);
}

/* --- stored against real --- */

static void end_run(struct checker *k)
{
	struct mismatch m = k->run;
	char text[64];

	k->run.n = 0;
	/* What seems to leak may be in use by what could not be read. */
	if (!m.n || (k->blind && m.stored > m.real.refs))
		return;
	if (m.stored > m.real.refs)
		k->r->leaks += m.n;
	else
		k->r->corruptions += m.n;
	snprintf(text, sizeof(text),
		 m.n > 1 ? "s %" PRIu64 " to %" PRIu64 : " %" PRIu64, m.first,
		 m.first + m.n - 1);
	checker_tell(k,
		     "%scluster%s at %" PRIu64 " (%s): refcount %" PRIu64
		     ", references %" PRIu32,
		     m.stored > m.real.refs ? "leaked " : "", text,
		     m.first << k->s->cluster_bits,
		     checker_use_names[m.real.use], m.stored, m.real.refs);
}

static void compare_cluster(struct checker *k, uint64_t cluster,
			    uint64_t stored, struct ref_cell real)
{
	struct mismatch *m = &k->run;

	if (!stored && !real.refs)
		return;
	if (!k->any_used || cluster > k->highest)
		k->highest = cluster;
	k->any_used = true;
	if (stored == real.refs ||
	    (real.refs == REF_MAP_REFS_MAX && stored > REF_MAP_REFS_MAX))
		return;
	if (m->n && m->first + m->n == cluster && m->stored == stored &&
	    m->real.refs == real.refs && m->real.use == real.use) {
		m->n++;
		return;
	}
	end_run(k);
	*m = (struct mismatch){ cluster, 1, stored, real };
}

/* @first to @end have no refcounts: what is used there is wrong. */
static void compare_with_nothing(struct checker *k, uint64_t first,
				 uint64_t end)
{
	uint64_t i = first, stop;

	while ((i = ref_map_next(&k->refs, i, end, &stop)) < end)
		for (; i < stop; i++)
			compare_cluster(k, i, 0, ref_map_get(&k->refs, i));
}

/* @first to @end against the refcounts in k->piece. */
static void compare_with_piece(struct checker *k, uint64_t first, uint64_t end)
{
	unsigned int order = k->s->h.refcount_order;
	uint64_t i;

	for (i = first; i < end; i++)
		compare_cluster(k, i,
				checker_refcount_at(k->piece, i - first, order),
				ref_map_get(&k->refs, i));
}

/* The refcount block at @off, which is for @first to @end. */
static void compare_block(struct checker *k, uint64_t off, uint64_t first,
			  uint64_t end)
{
	unsigned int order = k->s->h.refcount_order;
	uint64_t per_piece = CHECK_PIECE_BYTES * 8ULL >> order;
	uint64_t n, bytes, have;

	for (; first < end; first += n, off += bytes) {
		n = min_u64(end - first, per_piece);
		bytes = div_round_up(n << order, 8);
		have = off < k->l->src->bytes
			       ? min_u64(bytes, k->l->src->bytes - off)
			       : 0;
		memset(k->piece + have, 0, (size_t)(bytes - have));
		if (have &&
		    checker_read_piece(k, "refcount block", off,
				       (size_t)have) &&
		    !is_all_zero(k->piece, (size_t)have))
			compare_with_piece(k, first, first + n);
		else
			compare_with_nothing(k, first, first + n);
	}
}

static void compare_refcounts(struct checker *k)
{
	uint64_t per_block = 1ULL << checker_block_bits(k);
	uint64_t i, first, end;

	for (i = 0; i < k->reftable_entries; i++) {
		first = i * per_block;
		if (first >= k->clusters)
			break;
		end = min_u64(first + per_block, k->clusters);
		if (k->reftable[i] & REFTABLE_TWICE)
			continue;
		if (k->reftable[i])
			compare_block(k, k->reftable[i], first, end);
		else
			compare_with_nothing(k, first, end);
	}
	compare_with_nothing(k, i * per_block, k->clusters);
	end_run(k);
	k->r->image_end_off =
		k->any_used ? (k->highest + 1) << k->s->cluster_bits : 0;
}

/* What the tables lead to of the one state that the layer was opened at. */
static int check_references(struct checker *k)
{
	int r;

	if (!k->s->is_another_state) {
		r = check_l1(k, k->s->h.l1_off, k->s->h.l1_entries, 0);
		return r < 0 ? r : check_snapshots(k);
	}
	/* What others refer to seems to leak, and may have any use. */
	k->blind = true;
	return check_l1(k, k->s->l1_off, k->s->l1_entries,
			k->s->snapshot_idx + 1);
}

static int check_all(struct checker *k)
{
	const struct qcow2_header *h = &k->s->h;
	struct by header = { "header", 0, 0 };
	int r;

	/* Who takes a backing file away takes its format, too. */
	if (k->s->lost_backing)
		checker_corruption(
			k, "there is a backing format, but no backing file");
	r = checker_count_range(k, 0, h->header_bytes, USE_HEADER, 1, &header);
	if (r >= 0)
		r = check_reftable(k);
	if (r >= 0)
		r = check_references(k);
	if (r >= 0)
		r = checker_count_range(k, k->s->crypto_off, k->s->crypto_bytes,
					USE_CRYPTO, 1, &header);
	if (r >= 0)
		r = checker_bitmaps(k);
	if (r >= 0)
		r = checker_l2_tables(k);
	if (r >= 0)
		compare_refcounts(k);
	return r;
}

static void checker_free(struct checker *k)
{
	ref_map_done(&k->refs);
	free(k->reftable);
	free(k->l2);
	free(k);
}

int qcow2_check(struct layer *l, struct check_report *r, struct error *err)
{
	const struct qcow2_state *s = l->state;
	struct error own = { 0 };
	struct checker *k = calloc(1, sizeof(*k));
	int ret;

	if (!k)
		return error_set(err, -ENOMEM, 0, "out of memory");
	k->l = l;
	k->s = s;
	k->r = r;
	k->err = &own;
	k->clusters = div_round_up(l->src->bytes, s->cluster_bytes);
	r->total_units = div_round_up(l->bytes, s->cluster_bytes);
	ret = ref_map_init(&k->refs, k->clusters + 1, CHECK_BYTES_MAX, k->err);
	if (ret >= 0)
		ret = check_all(k);
	checker_free(k);
	if (ret < 0)
		error_set(err, own.code, own.off, "%s", own.msg);
	return ret;
}
