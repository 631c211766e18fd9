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
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/qcow2.h"

/* Reference counts and the list of L2 tables; more is refused. */
#define CHECK_BYTES_MAX	   (192U << 20)
/* Entries of all L1 and bitmap tables: hostile ones share their clusters. */
#define CHECK_ENTRIES_MAX  (64U << 20)
/* Lines; findings beyond are only counted. */
#define CHECK_LINES_MAX	   65536U
/* Tables are read in pieces of this size. */
#define CHECK_PIECE_BYTES  (64U << 10)
/* Refcounts that stored_refcount() keeps at hand. */
#define CHECK_WINDOW_BYTES 512U

#define L1_RESERVED	  0x7f000000000001ffULL
#define L2_RESERVED	  0x3f000000000001feULL
#define REFTABLE_RESERVED 0x00000000000001ffULL
#define BITMAP_RESERVED	  0xff000000000001feULL
/* In our copy of the refcount table: its block is compared elsewhere. */
#define REFTABLE_TWICE	  1ULL

/* What a cluster of the file is used for. 4 bits. */
enum use {
	USE_NONE,
	USE_HEADER,
	USE_L1,
	USE_SNAPSHOT_L1,
	USE_L2,
	USE_DATA,
	USE_COMPRESSED,
	USE_REFTABLE,
	USE_REFBLOCK,
	USE_SNAPSHOTS,
	USE_CRYPTO,
	USE_BITMAP_DIR,
	USE_BITMAP_TABLE,
	USE_BITMAP,
};

static const char *const use_names[] = {
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

/*
 * References, by cluster number: a tree, since a sparse file has numbers up
 * to 2^54 of which few are used. A leaf's cells are a use and a count in 4
 * bits each, until a count does not fit; then the leaf has wide ones.
 */
#define LEAF_BITS  10U
#define LEAF_CELLS (1U << LEAF_BITS)
#define NODE_BITS  11U
#define NODE_SLOTS (1U << NODE_BITS)
#define LEVELS_MAX 5U /* enough for 2^64 bytes of 512-byte clusters */
#define NARROW_MAX 15U
#define REFS_MAX   ((1U << 28) - 1) /* more are counted as so many */

struct leaf {
	uint8_t *narrow; /* NULL when there are wide ones */
	uint32_t *wide;
};

struct cell {
	enum use use;
	uint32_t refs;
};

/* An L2 table, as the first L1 entry that leads to it knows it. */
struct l2_table {
	uint64_t off;
	uint32_t owner; /* 0: the live L1 table, else snapshot number + 1 */
	uint32_t l1_idx;
};

/* Clusters whose refcount is wrong in the same way, side by side. */
struct mismatch {
	uint64_t first, n;
	uint64_t stored;
	struct cell real;
};

struct checker {
	struct layer *l;
	const struct qcow2_state *s;
	struct check_report *r;
	struct error *err;
	uint64_t clusters; /* of the file, and one behind if referred to */
	bool blind; /* not all references could be read */
	uint64_t lines; /* said */
	uint64_t entries; /* of L1 and bitmap tables, read */
	uint64_t bytes; /* allocated, of CHECK_BYTES_MAX */

	void **root;
	unsigned int levels; /* of nodes; the lowest one's slots are leaves */

	uint64_t *reftable; /* host order; blocks that are no good are 0 */
	uint64_t reftable_entries;
	uint8_t window[CHECK_WINDOW_BYTES];
	uint64_t window_off; /* in the file; 0: nothing read yet */

	struct l2_table *l2;
	size_t n_l2, l2_room;

	struct mismatch run;
	uint64_t highest; /* cluster in use */
	bool any_used;

	uint8_t piece[CHECK_PIECE_BYTES];
};

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

static void PRINTF(2, 3) corruption(struct checker *k, const char *fmt, ...)
{
	va_list ap;

	k->r->corruptions++;
	va_start(ap, fmt);
	say(k, fmt, ap);
	va_end(ap);
}

static void PRINTF(2, 3) check_error(struct checker *k, const char *fmt, ...)
{
	va_list ap;

	k->r->check_errors++;
	va_start(ap, fmt);
	say(k, fmt, ap);
	va_end(ap);
}

/* Says without counting: the caller has. */
static void PRINTF(2, 3) tell(struct checker *k, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(k, fmt, ap);
	va_end(ap);
}

static int take_bytes(struct checker *k, size_t bytes)
{
	if (bytes > CHECK_BYTES_MAX - k->bytes)
		return error_set(k->err, -EFBIG, 0,
				 "checking needs more than the limit of %u MiB "
				 "of memory",
				 CHECK_BYTES_MAX >> 20);
	k->bytes += bytes;
	return 0;
}

static void *check_calloc(struct checker *k, size_t n, size_t bytes)
{
	void *p;

	if (take_bytes(k, n * bytes) < 0)
		return NULL;
	p = calloc(n, bytes);
	if (!p)
		error_set(k->err, -ENOMEM, 0, "out of memory");
	return p;
}

/* Every allocation that fails has set k->err. */
static int check_failed(const struct checker *k)
{
	return k->err->code;
}

/* A slot's index at a level; the leaves' level is 0. */
static size_t slot_idx(uint64_t cluster, unsigned int level)
{
	return cluster >> (LEAF_BITS + level * NODE_BITS) & (NODE_SLOTS - 1);
}

/* NULL: nothing there is used. */
static struct leaf *leaf_find(const struct checker *k, uint64_t cluster)
{
	void **node = k->root;
	unsigned int level = k->levels;

	while (node && level-- > 1)
		node = node[slot_idx(cluster, level)];
	return node ? node[slot_idx(cluster, 0)] : NULL;
}

static struct leaf *leaf_make(struct checker *k, uint64_t cluster)
{
	void **node = k->root, **slot;
	unsigned int level = k->levels;
	struct leaf *leaf;

	while (level-- > 1) {
		slot = &node[slot_idx(cluster, level)];
		if (!*slot)
			*slot = check_calloc(k, NODE_SLOTS, sizeof(*slot));
		if (!*slot)
			return NULL;
		node = *slot;
	}
	slot = &node[slot_idx(cluster, 0)];
	if (*slot)
		return *slot;
	leaf = check_calloc(k, 1, sizeof(*leaf));
	if (!leaf)
		return NULL;
	leaf->narrow = check_calloc(k, LEAF_CELLS, sizeof(*leaf->narrow));
	if (!leaf->narrow) {
		free(leaf);
		return NULL;
	}
	*slot = leaf;
	return leaf;
}

static struct cell leaf_get(const struct leaf *leaf, uint64_t cluster)
{
	size_t i = cluster & (LEAF_CELLS - 1);
	uint32_t v;

	if (!leaf)
		return (struct cell){ USE_NONE, 0 };
	if (leaf->wide) {
		v = leaf->wide[i];
		return (struct cell){ (enum use)(v >> 28), v & REFS_MAX };
	}
	v = leaf->narrow[i];
	return (struct cell){ (enum use)(v >> 4), v & NARROW_MAX };
}

static int leaf_widen(struct checker *k, struct leaf *leaf)
{
	uint32_t *wide = check_calloc(k, LEAF_CELLS, sizeof(*wide));
	size_t i;

	if (!wide)
		return check_failed(k);
	for (i = 0; i < LEAF_CELLS; i++) {
		struct cell c = leaf_get(leaf, i);

		wide[i] = (uint32_t)c.use << 28 | c.refs;
	}
	leaf->wide = wide;
	free(TAKE_PTR(leaf->narrow));
	k->bytes -= LEAF_CELLS * sizeof(*leaf->narrow);
	return 0;
}

static int leaf_set(struct checker *k, struct leaf *leaf, uint64_t cluster,
		    struct cell c)
{
	size_t i = cluster & (LEAF_CELLS - 1);
	int r;

	if (!leaf->wide && c.refs > NARROW_MAX) {
		r = leaf_widen(k, leaf);
		if (r < 0)
			return r;
	}
	if (leaf->wide)
		leaf->wide[i] = (uint32_t)c.use << 28 | c.refs;
	else
		leaf->narrow[i] = (uint8_t)(c.use << 4 | c.refs);
	return 0;
}

/* The first used leaf's first cluster at or behind @cluster, else @end. */
static uint64_t next_used(const struct checker *k, uint64_t cluster,
			  uint64_t end)
{
	while (cluster < end) {
		unsigned int level = k->levels - 1;
		void **node = k->root;

		while (node[slot_idx(cluster, level)]) {
			if (!level)
				return cluster;
			node = node[slot_idx(cluster, level--)];
		}
		/* Nothing in this slot: on to where the next one begins. */
		cluster = (cluster >> (LEAF_BITS + level * NODE_BITS)) + 1;
		cluster <<= LEAF_BITS + level * NODE_BITS;
	}
	return end;
}

/* Four levels at most: the depth is ours, not the file's. */
static void node_free(void **node, unsigned int levels)
{
	size_t i;

	for (i = 0; node && i < NODE_SLOTS; i++) {
		struct leaf *leaf = node[i];

		if (levels > 1) {
			node_free(node[i], levels - 1);
		} else if (leaf) {
			free(leaf->narrow);
			free(leaf->wide);
			free(leaf);
		}
	}
	free(node);
}

/* Who refers to something: for messages. */
struct by {
	const char *what; /* "L1 entry", "guest cluster" */
	uint64_t idx;
	uint32_t owner; /* see struct l2_table */
};

#define BY_TEXT_BYTES 96

static const char *by_text(const struct by *by, char buf[BY_TEXT_BYTES])
{
	if (by->owner)
		snprintf(buf, BY_TEXT_BYTES,
			 "snapshot %" PRIu32 ", %s %" PRIu64, by->owner - 1,
			 by->what, by->idx);
	else
		snprintf(buf, BY_TEXT_BYTES, "%s %" PRIu64, by->what, by->idx);
	return buf;
}

/* *ret_before: what the cluster was used for until now. */
static int count_cluster(struct checker *k, uint64_t cluster, enum use use,
			 uint32_t refs, const struct by *by,
			 enum use *ret_before)
{
	struct leaf *leaf = leaf_make(k, cluster);
	char text[BY_TEXT_BYTES];
	struct cell c;

	if (!leaf)
		return check_failed(k);
	c = leaf_get(leaf, cluster);
	*ret_before = c.use;
	if (c.use != USE_NONE && (c.use != use || !may_share(use)))
		corruption(k,
			   "%s: %s at %" PRIu64 " lies in a cluster that is in "
			   "use as %s",
			   by_text(by, text), use_names[use],
			   cluster << k->s->cluster_bits, use_names[c.use]);
	if (c.use == USE_NONE)
		c.use = use;
	/* An L2 table's count says how often its clusters count. */
	if (c.use != USE_L2 || use == USE_L2)
		c.refs = (uint32_t)min_u64((uint64_t)c.refs + refs, REFS_MAX);
	return leaf_set(k, leaf, cluster, c);
}

/*
 * Counts @refs references of @by to every cluster that [@off, @off + @bytes)
 * touches, or finds that it is not in the file. The file's end may cut the
 * last cluster, and compressed data name more sectors than they fill: less
 * than a cluster behind the end is fine.
 */
static int count_range(struct checker *k, uint64_t off, uint64_t bytes,
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
		corruption(k,
			   "%s: %s at %" PRIu64 " with %" PRIu64
			   " bytes ends behind the file's end at %" PRIu64,
			   by_text(by, text), use_names[use], off, bytes,
			   k->l->src->bytes);
		return 0;
	}
	last = (off + bytes - 1) >> k->s->cluster_bits;
	k->clusters = max_u64(k->clusters, last + 1);
	for (; cluster <= last && r >= 0; cluster++)
		r = count_cluster(k, cluster, use, refs, by, &before);
	return r;
}

/* Hostile tables overlap each other; all together have a limit. */
static int take_entries(struct checker *k, uint64_t entries)
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

/*
 * A piece of a table, into k->piece. Returns 1 when it is there, 0 when there
 * is nothing to look at: a hole, or it could not be read.
 */
static int read_piece(struct checker *k, const char *what, uint64_t off,
		      size_t bytes)
{
	struct error err = { 0 };

	if (is_hole(k, off, bytes))
		return 0;
	if (source_read(k->l->src, k->piece, bytes, off, &err) < 0) {
		check_error(k, "%s: %.150s", what, err.msg);
		return 0;
	}
	return 1;
}

static bool all_zero(const uint8_t *p, size_t bytes)
{
	return !p[0] && !memcmp(p, p + 1, bytes - 1);
}

/*
 * Calls @each with every entry that is not 0, until one fails. The table is
 * inside the file. @each leaves k->piece alone.
 */
static int for_each_entry(struct checker *k, const char *what, uint64_t off,
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
		if (!read_piece(k, what, off + from * entry_bytes,
				(size_t)n * entry_bytes))
			continue;
		for (i = 0; i < n; i++) {
			const uint8_t *raw = k->piece + i * entry_bytes;

			if (all_zero(raw, entry_bytes))
				continue;
			r = each(k, opaque, from + i, raw);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static uint64_t be64_of(const uint8_t *raw)
{
	uint64_t v;

	memcpy(&v, raw, sizeof(v));
	return be64toh(v);
}

/* --- stored refcounts --- */

/* The refcount of the entry @idx of a refcount block, or part of one. */
static uint64_t refcount_at(const uint8_t *buf, uint64_t idx,
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

/* Clusters that a refcount block is for, as a power of two. */
static unsigned int block_bits(const struct checker *k)
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
		check_error(k, "refcounts at %" PRIu64 " cannot be read", off);
}

static uint64_t stored_refcount(struct checker *k, uint64_t cluster)
{
	unsigned int order = k->s->h.refcount_order;
	uint64_t block = cluster >> block_bits(k);
	uint64_t idx = cluster & ((1ULL << block_bits(k)) - 1);
	uint64_t in_block = (idx << order) / 8, off;

	if (block >= k->reftable_entries || !k->reftable[block])
		return 0;
	off = (k->reftable[block] & QCOW2_REFTABLE_MASK) +
	      round_down(in_block, CHECK_WINDOW_BYTES);
	if (off != k->window_off)
		load_window(k, off);
	return refcount_at(k->window,
			   idx & ((CHECK_WINDOW_BYTES * 8U >> order) - 1),
			   order);
}

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
		corruption(k,
			   "refcount table entry %" PRIu64
			   ": reserved bits 0x%" PRIx64 " are set",
			   i, (uint64_t)(entry & REFTABLE_RESERVED));
		return 0;
	}
	if (off % k->s->cluster_bytes) {
		corruption(k,
			   "refcount table entry %" PRIu64 ": block at %" PRIu64
			   " is not aligned to %" PRIu64,
			   i, off, k->s->cluster_bytes);
		return 0;
	}
	if (off >= k->l->src->bytes) {
		corruption(k,
			   "refcount table entry %" PRIu64 ": block at %" PRIu64
			   " lies behind the file's end at %" PRIu64,
			   i, off, k->l->src->bytes);
		return 0;
	}
	r = count_cluster(k, off >> k->s->cluster_bits, USE_REFBLOCK, 1, &by,
			  &before);
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
	r = count_range(k, h->reftable_off, bytes, USE_REFTABLE, 1, &by);
	if (r < 0)
		return r;
	k->reftable = check_calloc(k, 1, bytes);
	if (!k->reftable)
		return check_failed(k);
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
		if (take_bytes(k, (room - k->l2_room) * sizeof(*more)) < 0)
			return check_failed(k);
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

/*
 * "Bit 63: 0 for a cluster that is unused, compressed or requires COW, 1 if
 * its refcount is exactly one"; in the live state only.
 */
static void check_copied(struct checker *k, const struct by *by, uint64_t entry,
			 enum use use, uint64_t off)
{
	uint64_t stored = stored_refcount(k, off >> k->s->cluster_bits);
	char text[BY_TEXT_BYTES];

	if (!!(entry & QCOW2_COPIED) == (stored == 1))
		return;
	corruption(k,
		   "%s: copied flag is %s, but the refcount of its %s at "
		   "%" PRIu64 " is %" PRIu64,
		   by_text(by, text), entry & QCOW2_COPIED ? "set" : "not set",
		   use_names[use], off, stored);
}

static int check_l1_entry(struct checker *k, void *opaque, uint64_t idx,
			  const uint8_t *raw)
{
	const uint32_t *owner = opaque;
	struct by by = { "L1 entry", idx, *owner };
	uint64_t entry = be64_of(raw), off = entry & QCOW2_OFFSET_MASK;
	char text[BY_TEXT_BYTES];
	enum use before = USE_NONE;
	int r;

	if (entry & L1_RESERVED)
		corruption(k, "%s: reserved bits 0x%" PRIx64 " are set",
			   by_text(&by, text), (uint64_t)(entry & L1_RESERVED));
	if (!off) {
		if (entry & QCOW2_COPIED)
			corruption(k, "%s: has the copied flag, but no table",
				   by_text(&by, text));
		return 0;
	}
	if (off % k->s->cluster_bytes) {
		corruption(k,
			   "%s: L2 table at %" PRIu64
			   " is not aligned to %" PRIu64,
			   by_text(&by, text), off, k->s->cluster_bytes);
		return 0;
	}
	if (!range_inside(off, k->s->cluster_bytes, k->l->src->bytes)) {
		corruption(k,
			   "%s: L2 table at %" PRIu64
			   " ends behind the file's end at %" PRIu64,
			   by_text(&by, text), off, k->l->src->bytes);
		return 0;
	}
	r = count_cluster(k, off >> k->s->cluster_bits, USE_L2, 1, &by,
			  &before);
	if (r < 0)
		return r;
	if (!*owner)
		check_copied(k, &by, entry, USE_L2, off);
	/* What something else owns is not read as a table. */
	return before == USE_NONE ? add_l2(k, off, *owner, idx) : 0;
}

/* @owner: see struct l2_table. The table is sound and inside the file. */
static int check_l1(struct checker *k, uint64_t off, uint32_t entries,
		    uint32_t owner)
{
	struct by by = { "L1 table of entries", entries, owner };
	int r;

	r = take_entries(k, entries);
	if (r >= 0)
		r = count_range(k, off, (uint64_t)entries * 8,
				owner ? USE_SNAPSHOT_L1 : USE_L1, 1, &by);
	if (r < 0)
		return r;
	return for_each_entry(k, "L1 table", off, entries, 8, check_l1_entry,
			      &owner);
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
		corruption(k,
			   "snapshot %" PRIu32 ": %" PRIu32
			   " bytes of extra data, version 3 has at least %d",
			   i, extra_bytes, SNAP_EXTRA_V3_BYTES);
	if (snap->l1_entries < need)
		corruption(k,
			   "snapshot %" PRIu32 ": L1 table has %" PRIu32
			   " entries, a disk of %" PRIu64
			   " bytes needs %" PRIu64,
			   i, snap->l1_entries, snap->bytes, need);
	if (qcow2_check_table(k->l, "L1 table", snap->l1_off, snap->l1_entries,
			      8, QCOW2_L1_BYTES_MAX, 0, &err) < 0) {
		corruption(k, "snapshot %" PRIu32 ": %.150s", i, err.msg);
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
		corruption(k,
			   "%" PRIu32 " snapshots in an image with an external "
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
			corruption(k, "snapshot %" PRIu32 ": %.150s", i,
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
		corruption(k, "snapshot table is over the limit of %u bytes",
			   QCOW2_SNAPSHOT_TABLE_MAX);
	}
	at = min_u64(at, k->l->src->bytes - h->snapshots_off);
	return count_range(k, h->snapshots_off, at, USE_SNAPSHOTS, 1, &by);
}

/* --- bitmaps --- */

/* "Bitmaps": the fixed part of a directory entry */
enum {
	BITMAP_TABLE_OFF_AT = 0,
	BITMAP_TABLE_ENTRIES_AT = 8,
	BITMAP_FLAGS_AT = 12,
	BITMAP_TYPE_AT = 16,
	BITMAP_NAME_BYTES_AT = 18,
	BITMAP_EXTRA_BYTES_AT = 20,
	BITMAP_ENTRY_BYTES = 24,

	BITMAP_FLAGS_KNOWN = 7, /* in use, auto, extra data compatible */
	BITMAP_DIRTY = 1, /* the only type */
};

/* A table entry: a cluster of bits; or all of them 0, or 1. */
static int check_bitmap_entry(struct checker *k, void *opaque, uint64_t idx,
			      const uint8_t *raw)
{
	const uint64_t *bitmap = opaque;
	uint64_t entry = be64_of(raw), off = entry & QCOW2_OFFSET_MASK;
	struct by by = { "bitmap", *bitmap, 0 };

	if (entry & BITMAP_RESERVED || (off && entry & 1) ||
	    off % k->s->cluster_bytes) {
		corruption(k,
			   "bitmap %" PRIu64 ": table entry %" PRIu64
			   " is wrong: 0x%016" PRIx64,
			   *bitmap, idx, entry);
		return 0;
	}
	if (!off)
		return 0;
	return count_range(k, off, k->s->cluster_bytes, USE_BITMAP, 1, &by);
}

static int check_bitmap(struct checker *k, uint64_t idx, struct cursor *c)
{
	uint64_t off = cursor_be64_at(c, BITMAP_TABLE_OFF_AT);
	uint32_t entries = cursor_be32_at(c, BITMAP_TABLE_ENTRIES_AT);
	uint32_t flags = cursor_be32_at(c, BITMAP_FLAGS_AT);
	uint8_t type = cursor_u8_at(c, BITMAP_TYPE_AT);
	struct by by = { "bitmap", idx, 0 };
	struct error err = { 0 };
	int r;

	if (flags & ~(uint32_t)BITMAP_FLAGS_KNOWN || type != BITMAP_DIRTY)
		corruption(k,
			   "bitmap %" PRIu64 ": flags 0x%" PRIx32
			   " or type %u are not known",
			   idx, flags, type);
	if (qcow2_check_table(k->l, "table", off, entries, 8, k->l->src->bytes,
			      0, &err) < 0) {
		corruption(k, "bitmap %" PRIu64 ": %.150s", idx, err.msg);
		return 0;
	}
	r = take_entries(k, entries);
	if (r >= 0)
		r = count_range(k, off, (uint64_t)entries * 8, USE_BITMAP_TABLE,
				1, &by);
	if (r < 0)
		return r;
	return for_each_entry(k, "bitmap table", off, entries, 8,
			      check_bitmap_entry, &idx);
}

static int walk_bitmap_dir(struct checker *k, uint64_t dir_bytes)
{
	uint64_t at = 0, i;
	int r;

	for (i = 0; i < k->s->bitmaps; i++) {
		uint8_t head[BITMAP_ENTRY_BYTES];
		struct cursor c = { .buf = head, .len = sizeof(head) };
		uint64_t bytes = BITMAP_ENTRY_BYTES;
		struct error err = { 0 };

		if (range_inside(at, bytes, dir_bytes)) {
			if (layer_read_meta(k->l, k->l->src, head, sizeof(head),
					    k->s->bitmap_dir_off + at,
					    &err) < 0) {
				check_error(k, "bitmap %" PRIu64 ": %.150s", i,
					    err.msg);
				return 0;
			}
			bytes += cursor_be16_at(&c, BITMAP_NAME_BYTES_AT);
			bytes += cursor_be32_at(&c, BITMAP_EXTRA_BYTES_AT);
			bytes = round_up(bytes, 8);
		}
		if (!range_inside(at, bytes, dir_bytes)) {
			k->blind = true;
			corruption(k,
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

/*
 * "If the Bitmaps extension is present but this bit is unset, the bitmaps
 * extension data must be considered inconsistent": its clusters are leaks.
 */
static int check_bitmaps(struct checker *k)
{
	const struct qcow2_state *s = k->s;
	struct by by = { "bitmaps extension, bitmaps", s->bitmaps, 0 };
	struct error err = { 0 };
	int r;

	if (s->h.version < 3 || !(s->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
		return 0;
	if (!s->bitmaps) {
		corruption(k, "autoclear feature bit 0 says that there are "
			      "bitmaps, but there are none");
		return 0;
	}
	if (s->bitmaps > QCOW2_BITMAPS_MAX) {
		corruption(k, "%" PRIu32 " bitmaps are over the limit of %u",
			   s->bitmaps, QCOW2_BITMAPS_MAX);
		return 0;
	}
	if (qcow2_check_table(k->l, "bitmap directory", s->bitmap_dir_off,
			      s->bitmap_dir_bytes, 1, k->l->src->bytes, 0,
			      &err) < 0) {
		corruption(k, "%.150s", err.msg);
		return 0;
	}
	r = take_entries(k, s->bitmap_dir_bytes / BITMAP_ENTRY_BYTES);
	if (r >= 0)
		r = count_range(k, s->bitmap_dir_off, s->bitmap_dir_bytes,
				USE_BITMAP_DIR, 1, &by);
	if (r < 0)
		return r;
	return walk_bitmap_dir(k, s->bitmap_dir_bytes);
}

/* --- L2 tables --- */

/* One L2 table on its way. */
struct l2_walk {
	const struct l2_table *t;
	uint32_t refs; /* L1 entries that lead to it */
	uint64_t next_off; /* where an unfragmented disk goes on; 0: anywhere */
};

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
		corruption(k, "%s: is compressed and has the copied flag",
			   by_text(by, text));
	if (k->s->has_data_file) {
		corruption(k,
			   "%s: is compressed, in an image with an external "
			   "data file",
			   by_text(by, text));
		return 0;
	}
	if (bitmap) {
		corruption(k,
			   "%s: is compressed and has the subcluster bitmap "
			   "0x%016" PRIx64,
			   by_text(by, text), bitmap);
		return 0;
	}
	if (!w->t->owner) {
		k->r->allocated_units++;
		k->r->compressed_units++;
		k->r->fragmented_units++;
	}
	return count_range(k, off, (sectors + 1) * 512 - off % 512,
			   USE_COMPRESSED, w->refs, by);
}

/* Subclusters: low half allocated, high half zeroes, never both. */
static void check_subclusters(struct checker *k, bool placed, uint64_t bitmap,
			      const struct by *by)
{
	char text[BY_TEXT_BYTES];
	uint32_t both = (uint32_t)(bitmap & bitmap >> QCOW2_SUBCLUSTERS);

	if (both)
		corruption(k,
			   "%s: subclusters 0x%08" PRIx32
			   " are both data and zeroes",
			   by_text(by, text), both);
	else if (!placed && (uint32_t)bitmap)
		corruption(k,
			   "%s: subclusters 0x%08" PRIx32
			   " have data, the cluster no place",
			   by_text(by, text), (uint32_t)bitmap);
}

/* Clusters of an external data file have no refcounts, but a file's end. */
static void check_in_data_file(struct checker *k, uint64_t entry, uint64_t off,
			       uint64_t guest_off, const struct by *by)
{
	char text[BY_TEXT_BYTES];

	if (k->s->h.autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW &&
	    off != guest_off)
		corruption(k,
			   "%s: is at %" PRIu64 " of a raw external data file",
			   by_text(by, text), off);
	else if (off >= k->s->data->bytes)
		corruption(k,
			   "%s: data at %" PRIu64 " lie behind the external "
			   "data file's end at %" PRIu64,
			   by_text(by, text), off, k->s->data->bytes);
	if (!(entry & QCOW2_COPIED))
		corruption(k,
			   "%s: copied flag is not set, as it is everywhere "
			   "with an external data file",
			   by_text(by, text));
}

/* A cluster that has a place: data, or zeroes with room for data. */
static int check_allocated(struct checker *k, struct l2_walk *w, uint64_t entry,
			   uint64_t off, uint64_t guest_off,
			   const struct by *by)
{
	char text[BY_TEXT_BYTES];
	int r;

	if (!w->t->owner) {
		k->r->allocated_units++;
		if (w->next_off && off != w->next_off)
			k->r->fragmented_units++;
		w->next_off = off + k->s->cluster_bytes;
	}
	if (off % k->s->cluster_bytes) {
		corruption(k,
			   "%s: data at %" PRIu64
			   " are not aligned to %" PRIu64,
			   by_text(by, text), off, k->s->cluster_bytes);
		return 0;
	}
	if (k->s->has_data_file) {
		check_in_data_file(k, entry, off, guest_off, by);
		return 0;
	}
	r = count_range(k, off, k->s->cluster_bytes, USE_DATA, w->refs, by);
	if (r >= 0 && !w->t->owner)
		check_copied(k, by, entry, USE_DATA, off);
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
	uint64_t entry = be64_of(raw), off = entry & QCOW2_OFFSET_MASK;
	uint64_t bitmap = extended ? be64_of(raw + 8) : 0, reserved;
	char text[BY_TEXT_BYTES];
	bool placed;

	if (entry & QCOW2_COMPRESSED)
		return check_compressed(k, w, entry, bitmap, &by);
	reserved = entry & (L2_RESERVED |
			    (extended || k->s->h.version < 3 ? QCOW2_ZERO : 0));
	if (reserved)
		corruption(k, "%s: reserved bits 0x%" PRIx64 " are set",
			   by_text(&by, text), reserved);
	/* 0 is a place like any other in an external data file. */
	placed = off || (k->s->has_data_file && entry & QCOW2_COPIED &&
			 (extended || !(entry & QCOW2_ZERO)));
	check_subclusters(k, placed, bitmap, &by);
	if (!placed)
		return 0;
	return check_allocated(k, w, entry, off, guest << k->s->cluster_bits,
			       &by);
}

/* All references to the tables have been counted before. */
static int check_l2_tables(struct checker *k)
{
	size_t i;
	int r = 0;

	for (i = 0; i < k->n_l2 && r >= 0; i++) {
		const struct l2_table *t = &k->l2[i];
		uint64_t cluster = t->off >> k->s->cluster_bits;
		struct l2_walk w = {
			.t = t,
			.refs = leaf_get(leaf_find(k, cluster), cluster).refs,
		};

		r = for_each_entry(k, "L2 table", t->off, 1ULL << k->s->l2_bits,
				   k->s->l2_entry_bytes, check_l2_entry, &w);
	}
	return r;
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
	tell(k,
	     "%scluster%s at %" PRIu64 " (%s): refcount %" PRIu64
	     ", references %" PRIu32,
	     m.stored > m.real.refs ? "leaked " : "", text,
	     m.first << k->s->cluster_bits, use_names[m.real.use], m.stored,
	     m.real.refs);
}

static void compare_cluster(struct checker *k, uint64_t cluster,
			    uint64_t stored, struct cell real)
{
	struct mismatch *m = &k->run;

	if (!stored && !real.refs)
		return;
	if (!k->any_used || cluster > k->highest)
		k->highest = cluster;
	k->any_used = true;
	if (stored == real.refs || (real.refs == REFS_MAX && stored > REFS_MAX))
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
	uint64_t cluster = first;

	while ((cluster = next_used(k, cluster, end)) < end) {
		const struct leaf *leaf = leaf_find(k, cluster);
		uint64_t stop = min_u64(end, round_down(cluster, LEAF_CELLS) +
						     LEAF_CELLS);

		for (; cluster < stop; cluster++)
			compare_cluster(k, cluster, 0, leaf_get(leaf, cluster));
	}
}

/* @first to @end against the refcounts in k->piece. */
static void compare_with_piece(struct checker *k, uint64_t first, uint64_t end)
{
	unsigned int order = k->s->h.refcount_order;
	const struct leaf *leaf = NULL;
	uint64_t i;

	for (i = first; i < end; i++) {
		if (i == first || !(i & (LEAF_CELLS - 1)))
			leaf = leaf_find(k, i);
		compare_cluster(k, i, refcount_at(k->piece, i - first, order),
				leaf_get(leaf, i));
	}
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
		    read_piece(k, "refcount block", off, (size_t)have) &&
		    !all_zero(k->piece, (size_t)have))
			compare_with_piece(k, first, first + n);
		else
			compare_with_nothing(k, first, first + n);
	}
}

static void compare_refcounts(struct checker *k)
{
	uint64_t per_block = 1ULL << block_bits(k);
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

static int check_all(struct checker *k)
{
	const struct qcow2_header *h = &k->s->h;
	struct by header = { "header", 0, 0 };
	int r;

	/* Who takes a backing file away takes its format, too. */
	if (k->s->lost_backing)
		corruption(k, "there is a backing format, but no backing file");
	r = count_range(k, 0, h->header_bytes, USE_HEADER, 1, &header);
	if (r >= 0)
		r = check_reftable(k);
	if (r >= 0)
		r = check_l1(k, h->l1_off, h->l1_entries, 0);
	if (r >= 0)
		r = check_snapshots(k);
	if (r >= 0)
		r = count_range(k, k->s->crypto_off, k->s->crypto_bytes,
				USE_CRYPTO, 1, &header);
	if (r >= 0)
		r = check_bitmaps(k);
	if (r >= 0)
		r = check_l2_tables(k);
	if (r >= 0)
		compare_refcounts(k);
	return r;
}

static void checker_free(struct checker *k)
{
	node_free(k->root, k->levels);
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
	k->levels = 1;
	while (k->levels < LEVELS_MAX &&
	       (k->clusters + 1) >> (LEAF_BITS + k->levels * NODE_BITS))
		k->levels++;
	r->total_units = div_round_up(s->h.size, s->cluster_bytes);
	k->root = check_calloc(k, NODE_SLOTS, sizeof(*k->root));
	ret = k->root ? check_all(k) : own.code;
	checker_free(k);
	if (ret < 0)
		error_set(err, own.code, own.off, "%s", own.msg);
	return ret;
}
