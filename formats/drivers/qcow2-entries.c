/* SPDX-License-Identifier: BSD-3-Clause */
/* Where qcow2's tables may be, and what an L2 entry says. */
#include <errno.h>
#include <inttypes.h>

#include "formats/cursor.h"
#include "formats/drivers/qcow2.h"

int qcow2_check_table(const struct layer *l, const char *what, uint64_t off,
		      uint64_t entries, uint32_t entry_bytes,
		      uint64_t max_bytes, uint64_t field_at, struct error *err)
{
	const struct qcow2_state *s = l->state;

	if (off % s->cluster_bytes)
		return error_set(err, -EBADMSG, field_at,
				 "%s at %" PRIu64
				 " is not aligned to clusters of %" PRIu64,
				 what, off, s->cluster_bytes);
	if (entries > max_bytes / entry_bytes)
		return error_set(err, -EFBIG, field_at,
				 "%s of %" PRIu64 " entries is over the limit "
				 "of %" PRIu64,
				 what, entries, max_bytes / entry_bytes);
	if (!range_inside(off, entries * entry_bytes, l->src->bytes))
		return error_set(err, -EBADMSG, field_at,
				 "%s at %" PRIu64 " with %" PRIu64
				 " entries ends past the file's %" PRIu64
				 " bytes",
				 what, off, entries, l->src->bytes);
	return 0;
}

/* "Compressed Clusters Descriptor" */
static int decode_compressed(const struct qcow2_state *s, uint64_t entry,
			     struct qcow2_answer *ret, struct error *err)
{
	unsigned int x = 62 - (s->cluster_bits - 8);
	uint64_t off = entry & ((1ULL << x) - 1);
	uint64_t sectors = (entry & (QCOW2_COMPRESSED - 1)) >> x;
	uint64_t bytes = (sectors + 1) * 512 - off % 512;

	if (s->has_data_file)
		return error_set(err, -EBADMSG, 0,
				 "compressed cluster in an image with an "
				 "external data file");
	if (off >= s->data->bytes)
		return error_set(err, -EBADMSG, 0,
				 "compressed data at %" PRIu64
				 " lie behind the file's end at %" PRIu64,
				 off, s->data->bytes);
	ret->kind = EXTENT_COMPRESSED;
	ret->host_off = off;
	/* The last sector need not be whole at the file's end. */
	ret->comp_bytes = (uint32_t)min_u64(bytes, s->data->bytes - off);
	return 0;
}

/* Header, L1 table, refcount table: no cluster and no L2 table lie there. */
bool qcow2_lies_on_metadata(const struct qcow2_state *s, uint64_t off)
{
	return off < s->cluster_bytes ||
	       (off >= s->l1_off && off - s->l1_off < s->l1_entries * 8ULL) ||
	       (off >= s->h.reftable_off && (off - s->h.reftable_off) >>
						    s->cluster_bits <
						    s->h.reftable_clusters);
}

static int check_cluster_off(const struct qcow2_state *s, uint64_t host_off,
			     uint64_t guest_cluster, struct error *err)
{
	if (host_off % s->cluster_bytes)
		return error_set(err, -EBADMSG, 0,
				 "cluster at %" PRIu64
				 " is not aligned to %" PRIu64,
				 host_off, s->cluster_bytes);
	/* All are aligned to clusters, so beginnings will do. */
	if (!s->has_data_file && qcow2_lies_on_metadata(s, host_off))
		return error_set(err, -EBADMSG, 0,
				 "cluster at %" PRIu64 " lies on metadata",
				 host_off);
	if (s->h.autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW &&
	    s->has_data_file && host_off != guest_cluster)
		return error_set(err, -EBADMSG, 0,
				 "raw external data file has guest cluster "
				 "%" PRIu64 " at %" PRIu64,
				 guest_cluster, host_off);
	return 0;
}

/* "Standard Cluster Descriptor" */
static int decode_standard(const struct qcow2_state *s, uint64_t entry,
			   uint64_t guest_cluster, struct qcow2_answer *ret,
			   struct error *err)
{
	uint64_t host_off = entry & QCOW2_OFFSET_MASK;
	/* 0 is a place like any other where clusters have a file's whole. */
	bool allocated = host_off || (s->has_data_file && entry & QCOW2_COPIED);

	ret->host_off = host_off;
	if (entry & QCOW2_ZERO && s->l2_entry_bytes == 8) {
		if (s->h.version < 3)
			return error_set(err, -EBADMSG, 0,
					 "zero cluster in a version 2 image");
		ret->kind = EXTENT_ZERO;
	} else {
		ret->kind = allocated ? EXTENT_DATA : EXTENT_HOLE;
	}
	if (entry & QCOW2_L2_RESERVED)
		return error_set(err, -EBADMSG, 0,
				 "reserved bits are set in the L2 entry "
				 "0x%016" PRIx64,
				 entry);
	return allocated ? check_cluster_off(s, host_off, guest_cluster, err)
			 : 0;
}

/*
 * "Extended L2 Entries": low half allocated, high half reads as zeroes. A
 * bitmap that contradicts itself is the whole cluster's damage, whichever
 * subcluster is asked for.
 */
static int decode_subcluster(uint64_t bitmap, unsigned int idx,
			     struct qcow2_answer *ret, struct error *err)
{
	uint32_t both = (uint32_t)(bitmap & bitmap >> QCOW2_SUBCLUSTERS);

	if (both)
		return error_set(err, -EBADMSG, 0,
				 "subclusters 0x%08" PRIx32
				 " are both data and zeroes",
				 both);
	if ((uint32_t)bitmap && ret->kind != EXTENT_DATA)
		return error_set(err, -EBADMSG, 0,
				 "subclusters 0x%08" PRIx32
				 " have data, their cluster no place",
				 (uint32_t)bitmap);
	if (bitmap >> (idx + QCOW2_SUBCLUSTERS) & 1)
		ret->kind = EXTENT_ZERO;
	else if (!(bitmap >> idx & 1))
		ret->kind = EXTENT_HOLE;
	return 0;
}

int qcow2_decode_entry(const struct qcow2_state *s, const uint8_t *raw,
		       uint64_t guest_off, struct qcow2_answer *ret,
		       struct error *err)
{
	struct cursor c = { .buf = raw, .len = s->l2_entry_bytes };
	uint64_t entry = cursor_be64_at(&c, 0);
	uint64_t in_cluster = guest_off & (s->cluster_bytes - 1);
	int r;

	*ret = (struct qcow2_answer){ 0 };
	if (entry & QCOW2_COMPRESSED)
		return decode_compressed(s, entry, ret, err);
	r = decode_standard(s, entry, guest_off - in_cluster, ret, err);
	if (r < 0 || s->l2_entry_bytes == 8)
		return r;
	return decode_subcluster(
		cursor_be64_at(&c, 8),
		(unsigned int)(in_cluster /
			       (s->cluster_bytes / QCOW2_SUBCLUSTERS)),
		ret, err);
}

/* How many of the bits of @bits from @idx on, 32 in all, are as the first. */
static uint64_t same_bits(uint32_t bits, unsigned int idx)
{
	uint32_t rest = bits >> idx;

	if (rest & 1)
		rest = ~rest;
	return min_u64(QCOW2_SUBCLUSTERS - idx,
		       rest ? (uint64_t)__builtin_ctz(rest)
			    : QCOW2_SUBCLUSTERS);
}

uint64_t qcow2_same_bytes(const struct qcow2_state *s, const uint8_t *raw,
			  uint64_t guest_off)
{
	struct cursor c = { .buf = raw, .len = s->l2_entry_bytes };
	uint64_t in_cluster = guest_off & (s->cluster_bytes - 1);
	uint64_t sub = s->cluster_bytes / QCOW2_SUBCLUSTERS, bitmap, n;
	unsigned int idx;

	if (s->l2_entry_bytes == 8 || cursor_be64_at(&c, 0) & QCOW2_COMPRESSED)
		return s->cluster_bytes - in_cluster;
	bitmap = cursor_be64_at(&c, 8);
	idx = (unsigned int)(in_cluster / sub);
	n = min_u64(same_bits((uint32_t)bitmap, idx),
		    same_bits((uint32_t)(bitmap >> QCOW2_SUBCLUSTERS), idx));
	return n * sub - in_cluster % sub;
}
