/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Refcounts of a file that is marked as dirty: its writer put them off and
 * never came to write them ("Header", incompatible features bit 0). They are
 * counted anew from all that refers to a cluster: the tables themselves, the
 * live state, the snapshots. Mappings are right in such a file, so nothing but
 * refcounts changes.
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/overlay/qcow2-write.h"
#include "iouring/write.h"

struct repair {
	struct qcow2_file *o;
	uint32_t *refs; /* by cluster */
	uint64_t n;
	uint8_t *table; /* an L2 table */
	struct error *err;
};

static int count(struct repair *p, uint64_t off, uint64_t bytes)
{
	uint64_t c = off >> p->o->cluster_bits, last;

	if (!bytes)
		return 0;
	last = (off + bytes - 1) >> p->o->cluster_bits;
	if (off + bytes < off || last >= p->n)
		return error_set(p->err, -EBADMSG, 0,
				 "is dirty, and what it refers to at %" PRIu64
				 " lies behind its end: repair it first "
				 "(qemu-img check -r all)",
				 off);
	for (; c <= last; c++)
		p->refs[c]++;
	return 0;
}

static int count_entry(struct repair *p, uint64_t entry)
{
	unsigned int x = 62 - (p->o->cluster_bits - 8);
	uint64_t off = entry & QCOW2_OFFSET_MASK;

	if (entry & QCOW2_COMPRESSED) {
		off = round_down(entry & ((1ULL << x) - 1), 512);
		return count(p, off,
			     (((entry & (QCOW2_COMPRESSED - 1)) >> x) + 1) *
				     512);
	}
	return off ? count(p, off, p->o->cluster_bytes) : 0;
}

/* @known: the table, where it is in memory. */
static int count_l2(struct repair *p, uint64_t off, const uint8_t *known)
{
	uint64_t step = p->o->s->l2_entry_bytes, at, v;
	const uint8_t *table = known ? known : p->table;
	int r = count(p, off, p->o->cluster_bytes);

	if (r >= 0 && !known)
		r = source_read(p->o->src, p->table, p->o->cluster_bytes, off,
				p->err);
	for (at = 0; at < p->o->cluster_bytes && r >= 0; at += step) {
		memcpy(&v, table + at, sizeof(v));
		r = count_entry(p, be64toh(v));
	}
	return r;
}

/* The live state's, of which a log may have changed some in memory. */
static int count_live(struct repair *p)
{
	const struct qcow2_file *o = p->o;
	uint64_t i, l2;
	int r = count(p, o->s->h.l1_off, o->n_l1 * sizeof(*o->l1));

	for (i = 0; i < o->n_l1 && r >= 0; i++) {
		l2 = be64toh(o->l1[i]) & QCOW2_OFFSET_MASK;
		if (l2)
			r = count_l2(p, l2, o->l2[i] ? o->l2[i]->buf : NULL);
	}
	return r;
}

/* What it was given for that, and has not used. */
static int count_ahead(struct repair *p)
{
	const struct qcow2_file *o = p->o;
	size_t i;
	int r = count(p, o->ahead << o->cluster_bits,
		      (o->ahead_end - o->ahead) << o->cluster_bits);

	for (i = 0; i < o->pool.n && r >= 0; i++)
		r = count(p, o->pool.items[i] << o->cluster_bits,
			  o->cluster_bytes);
	return r;
}

static int count_l1(struct repair *p, uint64_t off, uint64_t entries)
{
	CLEANUP(freep) uint64_t *l1 = NULL;
	size_t bytes = entries * sizeof(*l1);
	uint64_t i, l2;
	int r = count(p, off, bytes);

	if (r < 0 || !entries)
		return r;
	ANALYSER_ASSUME(bytes);
	l1 = malloc(bytes);
	if (!l1)
		return error_set(p->err, -ENOMEM, 0, "out of memory");
	r = source_read(p->o->src, l1, bytes, off, p->err);
	for (i = 0; i < entries && r >= 0; i++) {
		l2 = be64toh(l1[i]) & QCOW2_OFFSET_MASK;
		if (l2)
			r = count_l2(p, l2, NULL);
	}
	return r;
}

static int count_snapshots(struct repair *p)
{
	const struct qcow2_header *h = &p->o->s->h;
	uint64_t at = 0;
	uint32_t i;
	int r = 0;

	for (i = 0; i < h->snapshots && r >= 0; i++) {
		CLEANUP(qcow2_snapshot_done) struct qcow2_snapshot s = { 0 };

		r = qcow2_read_snapshot(p->o->top, h->snapshots_off + at, &s,
					p->err);
		if (r >= 0 && s.l1_entries > QCOW2_L1_BYTES_MAX / 8)
			r = error_set(p->err, -EFBIG, 0,
				      "snapshot's L1 table of %" PRIu32
				      " entries is over the limit of %u",
				      s.l1_entries, QCOW2_L1_BYTES_MAX / 8);
		if (r >= 0)
			r = count_l1(p, s.l1_off, s.l1_entries);
		at += s.entry_bytes;
	}
	return r < 0 || !at ? r : count(p, h->snapshots_off, at);
}

static int count_all(struct repair *p)
{
	struct qcow2_file *o = p->o;
	uint64_t i;
	int r = count(p, 0, o->cluster_bytes);

	if (r >= 0)
		r = count(p, o->rc.table_off, o->rc.n * 8);
	for (i = 0; i < o->rc.n && r >= 0; i++)
		if (o->rc.table[i])
			r = count(p, o->rc.table[i], o->cluster_bytes);
	if (r >= 0)
		r = count_live(p);
	if (r >= 0)
		r = count_ahead(p);
	return r < 0 ? r : count_snapshots(p);
}

/* What is counted behind the file's end, which was to grow. */
static int drop_behind(struct repair *p)
{
	const struct refcounts *rc = &p->o->rc;
	uint64_t c, end, has, i;
	int r = 0;

	for (i = p->n / rc->per_block; i < rc->n && r >= 0; i++) {
		end = rc->table[i] ? (i + 1) * rc->per_block : 0;
		for (c = max_u64(p->n, i * rc->per_block); c < end && r >= 0;
		     c++) {
			r = refs_get(p->o, c, &has, p->err);
			if (r >= 0 && has)
				r = refs_set(p->o, c, 0, p->err);
		}
	}
	return r;
}

static int write_refs(struct repair *p)
{
	uint64_t c, has;
	int r = 0;

	for (c = 0; c < p->n && r >= 0; c++) {
		r = refs_get(p->o, c, &has, p->err);
		if (r < 0 || has == p->refs[c])
			continue;
		r = refs_cover(p->o, c, p->err);
		if (r >= 0)
			r = refs_set(p->o, c, p->refs[c], p->err);
	}
	if (r >= 0)
		r = drop_behind(p);
	return r < 0 ? r : refs_write(p->o, p->err);
}

int repair_refcounts(struct qcow2_file *o, struct error *err)
{
	struct repair p = { .o = o, .n = o->end, .err = err };
	int r = 0;

	if (p.n > REPAIR_BYTES_MAX / sizeof(*p.refs))
		return error_set(err, -EFBIG, 0,
				 "is dirty, and too large to be repaired here: "
				 "%" PRIu64 " clusters, the limit is %llu "
				 "(qemu-img check -r all)",
				 p.n, REPAIR_BYTES_MAX / sizeof(*p.refs));
	p.refs = calloc(p.n + 1, sizeof(*p.refs));
	p.table = malloc(o->cluster_bytes);
	if (!p.refs || !p.table)
		r = error_set(err, -ENOMEM, 0, "out of memory");
	if (r >= 0)
		r = count_all(&p);
	if (r >= 0)
		r = write_refs(&p);
	free(p.refs);
	free(p.table);
	return r;
}
