/* SPDX-License-Identifier: BSD-3-Clause */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/put-be.h"
#include "formats/overlay/qcow2-create.h"
#include "formats/overlay/qcow2-header.h"
#include "formats/drivers/qcow2.h"
#include "iouring/write.h"

#define HEADER_BYTES   112U /* with the compression type, padded to 8 */
#define FORMAT_MAX     64U
#define REFCOUNT_ORDER 4U
#define REFCOUNT_MAX   UINT16_MAX
#define SECTOR_BITS    9U

struct qcow2_create {
	struct qcow2_dst *dst; /* the user's */
	uint64_t bytes;
	uint32_t cluster_bits;
	enum codec codec;
	const char *base_name; /* the user's; NULL: nothing is below */
	const char *base_format;

	uint64_t *l1; /* big endian, as it is written */
	uint64_t l1_entries;
	uint64_t *l2; /* the table being filled; big endian */
	uint64_t l2_idx; /* which */
	bool l2_used; /* it maps something */

	uint16_t *refs; /* of every cluster up to next */
	uint64_t refs_room;
	uint64_t next; /* the first cluster that is free */
	uint64_t next_max; /* what a refcount table can count */
	uint64_t packed_off; /* where the next compressed piece may lie ... */
	uint64_t packed_left; /* ... and the room there, bytes */
};

static uint64_t cluster_bytes(const struct qcow2_create *q)
{
	return 1ULL << q->cluster_bits;
}

static uint64_t clusters_of(const struct qcow2_create *q, uint64_t bytes)
{
	return div_round_up(bytes, cluster_bytes(q));
}

static int put(struct qcow2_create *q, const void *buf, size_t len,
	       uint64_t off, struct error *err)
{
	return q->dst->write(q->dst, buf, len, off, err);
}

static int file_dst_write(struct qcow2_dst *d, const void *buf, size_t len,
			  uint64_t off, struct error *err)
{
	return source_write(container_of(d, struct qcow2_file_dst, dst)->src,
			    buf, len, off, err);
}

static int file_dst_end(struct qcow2_dst *d, uint64_t bytes, struct error *err)
{
	return source_truncate(container_of(d, struct qcow2_file_dst, dst)->src,
			       bytes, err);
}

void qcow2_file_dst_init(struct qcow2_file_dst *d, struct source *src)
{
	*d = (struct qcow2_file_dst){
		.dst = { .write = file_dst_write,
			 .end = file_dst_end,
			 .bytes_max = UINT64_MAX,
			 .align = 1 },
		.src = src,
	};
}

/* Neither more than refcounts can tell of, nor than there is room for. */
static int check_room(const struct qcow2_create *q, uint64_t n,
		      struct error *err)
{
	uint64_t room = q->dst->bytes_max >> q->cluster_bits;

	if (n > q->next_max - q->next)
		return error_set(err, -EFBIG, 0,
				 "the file is over the limit of %" PRIu64
				 " clusters of %" PRIu64
				 " bytes: take larger clusters",
				 q->next_max, cluster_bytes(q));
	if (q->next > room || n > room - q->next)
		return error_set(err, -ENOSPC, 0,
				 "the file needs more than the %" PRIu64
				 " bytes that there are",
				 q->dst->bytes_max);
	return 0;
}

/* @n clusters at the end, not counted yet; *ret: the first. */
static int take_clusters(struct qcow2_create *q, uint64_t n, uint64_t *ret,
			 struct error *err)
{
	uint64_t room = q->refs_room;
	uint16_t *refs;
	int r = check_room(q, n, err);

	if (r < 0)
		return r;
	while (room < q->next + n)
		room = room ? 2 * room : 1024;
	if (room > q->refs_room) {
		refs = reallocarray(q->refs, room, sizeof(*refs));
		if (!refs)
			return error_set(err, -ENOMEM, 0, "out of memory");
		memset(refs + q->refs_room, 0,
		       (room - q->refs_room) * sizeof(*refs));
		q->refs = refs;
		q->refs_room = room;
	}
	*ret = q->next;
	q->next += n;
	return 0;
}

/* The same, each referred to once; *ret_off: where the first begins. */
static int take_counted(struct qcow2_create *q, uint64_t n, uint64_t *ret_off,
			struct error *err)
{
	uint64_t idx, i;
	int r = take_clusters(q, n, &idx, err);

	if (r < 0)
		return r;
	for (i = idx; i < idx + n; i++)
		q->refs[i] = 1;
	*ret_off = idx << q->cluster_bits;
	return 0;
}

static int check_size(const struct qcow2_create *q, struct error *err)
{
	if (q->l1_entries > QCOW2_L1_BYTES_MAX / sizeof(*q->l1))
		return error_set(err, -EFBIG, QCOW2_SIZE_AT,
				 "a disk of %" PRIu64 " bytes needs an L1 "
				 "table over the limit of %u bytes: take "
				 "larger clusters than %" PRIu64 " bytes",
				 q->bytes, QCOW2_L1_BYTES_MAX,
				 cluster_bytes(q));
	return 0;
}

int qcow2_create_new(struct qcow2_dst *dst, uint64_t bytes,
		     uint32_t cluster_bits, enum codec codec,
		     struct qcow2_create **ret, struct error *err)
{
	struct qcow2_create *q = calloc(1, sizeof(*q));
	uint64_t header_off;
	int r;

	if (!q)
		return error_set(err, -ENOMEM, 0, "out of memory");
	q->dst = dst;
	q->bytes = bytes;
	q->cluster_bits = cluster_bits;
	q->codec = codec;
	q->l1_entries = max_u64(
		1, div_round_up(clusters_of(q, bytes), cluster_bytes(q) / 8));
	/* A block of refcounts counts cluster / 2. */
	q->next_max = QCOW2_REFTABLE_BYTES_MAX / 8 * (cluster_bytes(q) / 2);
	r = check_size(q, err);
	if (!r) {
		q->l1 = calloc(clusters_of(q, q->l1_entries * sizeof(*q->l1)),
			       cluster_bytes(q));
		q->l2 = calloc(1, cluster_bytes(q));
		r = q->l1 && q->l2
			    ? take_counted(q, 1, &header_off, err)
			    : error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (r < 0) {
		qcow2_create_free(q);
		return r;
	}
	*ret = q;
	return 0;
}

int qcow2_create_set_base(struct qcow2_create *q, const char *name,
			  const char *format, struct error *err)
{
	size_t bytes = strlen(name), before;

	if (strlen(format) > FORMAT_MAX)
		return error_set(err, -EINVAL, 0,
				 "backing format \"%s\" is no format", format);
	before = HEADER_BYTES + QCOW2_FORMAT_ROOM + strlen(format) + 8;
	if (bytes > QCOW2_BACKING_NAME_MAX || before + bytes > cluster_bytes(q))
		return error_set(err, -EINVAL, QCOW2_BACKING_OFF_AT,
				 "the header has no room for a backing file "
				 "name of %zu bytes",
				 bytes);
	q->base_name = name;
	q->base_format = format;
	return 0;
}

void qcow2_create_free(struct qcow2_create *q)
{
	if (!q)
		return;
	free(q->l1);
	free(q->l2);
	free(q->refs);
	free(q);
}

/* The L2 table is full, or the disk is at its end. */
static int write_l2(struct qcow2_create *q, struct error *err)
{
	uint64_t off;
	int r;

	if (!q->l2_used)
		return 0;
	r = take_counted(q, 1, &off, err);
	if (r >= 0)
		r = put(q, q->l2, cluster_bytes(q), off, err);
	if (r < 0)
		return r;
	q->l1[q->l2_idx] = htobe64(off | QCOW2_COPIED);
	memset(q->l2, 0, cluster_bytes(q));
	q->l2_used = false;
	return 0;
}

/*
 * Room for @bytes in a row, at any byte: compressed clusters share the file's,
 * and each that lies in one counts as a reference ("Compressed Clusters").
 */
static int take_packed(struct qcow2_create *q, uint32_t bytes,
		       uint64_t *ret_off, struct error *err)
{
	uint64_t first = q->packed_off >> q->cluster_bits, last, idx;
	uint64_t end = q->packed_off + q->packed_left;
	int r = 0;

	if (q->packed_left && q->refs[first] == REFCOUNT_MAX)
		q->packed_left = 0;
	if (q->packed_left && q->packed_left < bytes &&
	    end != q->next << q->cluster_bits)
		q->packed_left = 0; /* what follows is another's */
	if (!q->packed_left)
		q->packed_off = q->next << q->cluster_bits;
	if (q->packed_left < bytes) {
		uint64_t n = clusters_of(q, bytes - q->packed_left);

		r = take_clusters(q, n, &idx, err);
		if (r < 0)
			return r;
		q->packed_left += n << q->cluster_bits;
	}
	first = q->packed_off >> q->cluster_bits;
	last = (q->packed_off + bytes - 1) >> q->cluster_bits;
	for (idx = first; idx <= last; idx++)
		q->refs[idx]++;
	*ret_off = q->packed_off;
	q->packed_off += bytes;
	q->packed_left -= bytes;
	return 0;
}

static int place_compressed(struct qcow2_create *q, struct qcow2_piece *p,
			    uint64_t *ret_entry, struct error *err)
{
	unsigned int shift = 62 - (q->cluster_bits - 8);
	uint64_t sectors;
	int r = take_packed(q, p->bytes, &p->host_off, err);

	if (r < 0)
		return r;
	if (p->host_off >> shift)
		return error_set(err, -EFBIG, 0,
				 "compressed data cannot lie at %" PRIu64
				 ": take smaller clusters",
				 p->host_off);
	/* How many sectors are touched beside the first. */
	sectors = ((p->host_off + p->bytes - 1) >> SECTOR_BITS) -
		  (p->host_off >> SECTOR_BITS);
	*ret_entry = QCOW2_COMPRESSED | sectors << shift | p->host_off;
	return 0;
}

static int place_whole(struct qcow2_create *q, struct qcow2_piece *p,
		       uint64_t *ret_entry, struct error *err)
{
	int r = take_counted(q, 1, &p->host_off, err);

	*ret_entry = p->host_off | QCOW2_COPIED;
	return r;
}

int qcow2_create_place(struct qcow2_create *q, uint64_t guest_off,
		       struct qcow2_piece *p, struct error *err)
{
	uint64_t per_table = cluster_bytes(q) / 8, entry;
	uint64_t cluster = guest_off >> q->cluster_bits;
	int r = 0;

	if (cluster / per_table != q->l2_idx)
		r = write_l2(q, err);
	if (r >= 0 && p->zero)
		entry = QCOW2_ZERO;
	else if (r >= 0)
		r = p->bytes ? place_compressed(q, p, &entry, err)
			     : place_whole(q, p, &entry, err);
	if (r < 0)
		return r;
	q->l2_idx = cluster / per_table;
	q->l2[cluster % per_table] = htobe64(entry);
	q->l2_used = true;
	return 0;
}

static int write_l1(struct qcow2_create *q, uint64_t *ret_off,
		    struct error *err)
{
	uint64_t n = clusters_of(q, q->l1_entries * sizeof(*q->l1));
	int r = take_counted(q, n, ret_off, err);

	return r < 0 ? r : put(q, q->l1, n << q->cluster_bits, *ret_off, err);
}

/* The block of refcounts at @off, of the clusters from @first on. */
static int write_refcount_block(struct qcow2_create *q, uint64_t first,
				uint64_t off, struct error *err)
{
	CLEANUP(freep) uint16_t *block = calloc(1, cluster_bytes(q));
	uint64_t n = min_u64(q->next - first, cluster_bytes(q) / 2), i;

	if (!block)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < n; i++)
		block[i] = htobe16(q->refs[first + i]);
	return put(q, block, cluster_bytes(q), off, err);
}

/* Where refcounts lie, and how much of it there is. */
struct refcount_place {
	uint64_t table_off;
	uint64_t table_clusters;
	uint64_t blocks_off;
	uint64_t blocks;
};

/* Refcounts of @clusters, which count themselves, too. */
static void count_refcounts(const struct qcow2_create *q, uint64_t clusters,
			    struct refcount_place *n)
{
	uint64_t per_block = cluster_bytes(q) / 2, all = 0;

	n->table_clusters = n->blocks = 1;
	while (clusters + n->blocks + n->table_clusters != all) {
		all = clusters + n->blocks + n->table_clusters;
		n->blocks = div_round_up(all, per_block);
		n->table_clusters = clusters_of(q, n->blocks * 8);
	}
}

int qcow2_create_measure(uint64_t bytes, uint32_t cluster_bits, uint64_t *ret,
			 struct error *err)
{
	struct qcow2_create q = { .bytes = bytes,
				  .cluster_bits = cluster_bits };
	uint64_t per_table = cluster_bytes(&q) / 8, data, all;
	struct refcount_place rc;
	int r;

	data = clusters_of(&q, bytes);
	q.l1_entries = div_round_up(data, per_table);
	r = check_size(&q, err);
	if (r < 0)
		return r;
	/* The header, and as many L2 tables as the L1 table has entries. */
	all = 1 + clusters_of(&q, q.l1_entries * 8) + q.l1_entries + data;
	count_refcounts(&q, all, &rc);
	*ret = (all + rc.blocks + rc.table_clusters) << cluster_bits;
	return 0;
}

static int take_refcounts(struct qcow2_create *q, struct refcount_place *ret,
			  struct error *err)
{
	struct refcount_place n = { 0 };
	int r;

	count_refcounts(q, q->next, &n);
	r = take_counted(q, n.table_clusters, &n.table_off, err);
	if (r >= 0)
		r = take_counted(q, n.blocks, &n.blocks_off, err);
	if (r >= 0)
		*ret = n;
	return r;
}

static int write_refcounts(struct qcow2_create *q, struct refcount_place *ret,
			   struct error *err)
{
	CLEANUP(freep) uint64_t *table = NULL;
	uint64_t i;
	size_t bytes;
	int r = take_refcounts(q, ret, err);

	if (r < 0)
		return r;
	bytes = ret->table_clusters << q->cluster_bits;
	table = calloc(1, bytes);
	if (!table)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < ret->blocks && r >= 0; i++) {
		uint64_t off = ret->blocks_off + (i << q->cluster_bits);

		table[i] = htobe64(off);
		r = write_refcount_block(q, i * (cluster_bytes(q) / 2), off,
					 err);
	}
	if (r >= 0)
		r = put(q, table, bytes, ret->table_off, err);
	return r;
}

/* Extensions, their end, and the name. */
static void put_base(const struct qcow2_create *q, uint8_t *h)
{
	size_t bytes = q->base_name ? strlen(q->base_name) : 0, at;

	if (!bytes)
		return;
	at = qcow2_put_format(h, HEADER_BYTES, q->base_format) + 8;
	put_be64(h, QCOW2_BACKING_OFF_AT, at);
	put_be32(h, QCOW2_BACKING_BYTES_AT, (uint32_t)bytes);
	memcpy(h + at, q->base_name, bytes);
}

static int write_header(struct qcow2_create *q, uint64_t l1_off,
			const struct refcount_place *rc, struct error *err)
{
	CLEANUP(freep) uint8_t *h = calloc(1, cluster_bytes(q));
	bool zstd = q->codec == CODEC_ZSTD;

	if (!h)
		return error_set(err, -ENOMEM, 0, "out of memory");
	put_be32(h, QCOW2_MAGIC_AT, QCOW2_MAGIC);
	put_be32(h, QCOW2_VERSION_AT, 3);
	put_be32(h, QCOW2_CLUSTER_BITS_AT, q->cluster_bits);
	put_be64(h, QCOW2_SIZE_AT, q->bytes);
	put_be32(h, QCOW2_L1_ENTRIES_AT, (uint32_t)q->l1_entries);
	put_be64(h, QCOW2_L1_OFF_AT, l1_off);
	put_be64(h, QCOW2_REFTABLE_OFF_AT, rc->table_off);
	put_be32(h, QCOW2_REFTABLE_CLUSTERS_AT, (uint32_t)rc->table_clusters);
	put_be64(h, QCOW2_INCOMPATIBLE_AT,
		 zstd ? QCOW2_INCOMPAT_COMPRESSION : 0);
	put_be32(h, QCOW2_REFCOUNT_ORDER_AT, REFCOUNT_ORDER);
	put_be32(h, QCOW2_HEADER_BYTES_AT, HEADER_BYTES);
	h[QCOW2_COMPRESSION_AT] =
		zstd ? QCOW2_COMPRESSION_ZSTD : QCOW2_COMPRESSION_ZLIB;
	put_base(q, h);
	return put(q, h, cluster_bytes(q), 0, err);
}

int qcow2_create_finish(struct qcow2_create *q, uint64_t *ret_bytes,
			struct error *err)
{
	struct refcount_place rc;
	uint64_t l1_off;
	int r = write_l2(q, err);

	if (r >= 0)
		r = write_l1(q, &l1_off, err);
	if (r >= 0)
		r = write_refcounts(q, &rc, err);
	*ret_bytes = q->next << q->cluster_bits;
	if (r >= 0)
		r = q->dst->end(q->dst, *ret_bytes, err);
	return r < 0 ? r : write_header(q, l1_off, &rc, err);
}
