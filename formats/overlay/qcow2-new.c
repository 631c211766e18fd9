/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A new file, clusters of 128 KiB and subclusters of 4 KiB (so that a guest's
 * page costs no copy, and a table of 128 KiB maps 1 GiB):
 *
 *	0  header, backing file name | refcount table | blocks of refcounts |
 *	L1 table | with preallocation: L2 tables | the disk's clusters
 *
 * A cluster that is only set aside has a place and no subcluster ("Extended L2
 * Entries"): it reads as what lies below.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "formats/drivers/qcow2.h"
#include "formats/new-file.h"
#include "formats/overlay/qcow2-header.h"
#include "formats/overlay/qcow2-new.h"
#include "formats/put-be.h"
#include "iouring/write.h"

enum { NEW_CLUSTER_BITS = 17, NEW_REFCOUNT_ORDER = 4 };
#define NEW_CLUSTER_BYTES (1U << NEW_CLUSTER_BITS)
#define NEW_TABLE_ENTRIES (NEW_CLUSTER_BYTES / 16)
#define NEW_TABLE_BYTES	  ((uint64_t)NEW_TABLE_ENTRIES << NEW_CLUSTER_BITS)
#define NEW_HEADER_BYTES  112U
#define NEW_FORMAT_MAX	  64U

/* Where everything lies, in clusters. */
struct layout {
	uint64_t reftable, reftable_n;
	uint64_t blocks, blocks_n; /* of refcounts */
	uint64_t l1, l1_entries;
	uint64_t l2, l2_n; /* 0: none yet */
	uint64_t data, data_n;
	uint64_t all;
};

static uint64_t clusters_of(uint64_t bytes)
{
	return div_round_up(bytes, NEW_CLUSTER_BYTES);
}

static struct layout lay_out(const struct overlay_new *n)
{
	struct layout l = { .reftable = 1, .reftable_n = 1, .blocks_n = 1 };
	bool placed = n->preallocation != OVERLAY_PREALLOCATE_OFF;
	uint64_t l1_n, rest, all = 0;

	l.l1_entries = div_round_up(n->bytes, NEW_TABLE_BYTES);
	l1_n = max_u64(1, clusters_of(l.l1_entries * 8));
	l.l2_n = placed ? l.l1_entries : 0;
	l.data_n = placed ? clusters_of(n->bytes) : 0;
	rest = 1 + l1_n + l.l2_n + l.data_n;
	/* Refcounts count themselves. */
	while (all != rest + l.reftable_n + l.blocks_n) {
		all = rest + l.reftable_n + l.blocks_n;
		l.blocks_n = clusters_of(all * 2);
		l.reftable_n = clusters_of(l.blocks_n * 8);
	}
	l.blocks = l.reftable + l.reftable_n;
	l.l1 = l.blocks + l.blocks_n;
	l.l2 = l.l1 + l1_n;
	l.data = l.l2 + l.l2_n;
	l.all = l.data + l.data_n;
	return l;
}

static void put_header(uint8_t *h, const struct overlay_new *n,
		       const struct layout *l)
{
	size_t name_bytes = n->base_name ? strlen(n->base_name) : 0;
	size_t at = NEW_HEADER_BYTES;

	put_be32(h, QCOW2_MAGIC_AT, QCOW2_MAGIC);
	put_be32(h, QCOW2_VERSION_AT, 3);
	put_be32(h, QCOW2_CLUSTER_BITS_AT, NEW_CLUSTER_BITS);
	put_be64(h, QCOW2_SIZE_AT, n->bytes);
	put_be32(h, QCOW2_L1_ENTRIES_AT, (uint32_t)l->l1_entries);
	put_be64(h, QCOW2_L1_OFF_AT, l->l1 << NEW_CLUSTER_BITS);
	put_be64(h, QCOW2_REFTABLE_OFF_AT, l->reftable << NEW_CLUSTER_BITS);
	put_be32(h, QCOW2_REFTABLE_CLUSTERS_AT, (uint32_t)l->reftable_n);
	put_be64(h, QCOW2_INCOMPATIBLE_AT, QCOW2_INCOMPAT_EXTENDED_L2);
	put_be32(h, QCOW2_REFCOUNT_ORDER_AT, NEW_REFCOUNT_ORDER);
	put_be32(h, QCOW2_HEADER_BYTES_AT, NEW_HEADER_BYTES);
	at = qcow2_put_mark(h, at);
	if (n->pulling)
		at = qcow2_put_pull(h, at, n->pull_held);
	if (!name_bytes)
		return;
	if (n->base_format)
		at = qcow2_put_format(h, at, n->base_format);
	at += 8; /* the end of extensions */
	put_be64(h, QCOW2_BACKING_OFF_AT, at);
	put_be32(h, QCOW2_BACKING_BYTES_AT, (uint32_t)name_bytes);
	memcpy(h + at, n->base_name, name_bytes);
}

int qcow2_new_check(const struct overlay_new *n, struct error *err)
{
	if (n->bytes > (QCOW2_L1_BYTES_MAX / 8) * NEW_TABLE_BYTES)
		return error_set(err, -EFBIG, 0,
				 "a disk of %" PRIu64
				 " bytes is over the limit of %" PRIu64,
				 n->bytes,
				 (QCOW2_L1_BYTES_MAX / 8) * NEW_TABLE_BYTES);
	if (n->base_name && strlen(n->base_name) > QCOW2_BACKING_NAME_MAX)
		return error_set(err, -EINVAL, 0,
				 "backing file name of %zu bytes is over the "
				 "limit of %u",
				 strlen(n->base_name), QCOW2_BACKING_NAME_MAX);
	if (n->base_format && strlen(n->base_format) > NEW_FORMAT_MAX)
		return error_set(err, -EINVAL, 0,
				 "backing format \"%s\" is no format",
				 n->base_format);
	return 0;
}

/* Entries of one table: @n of them, of @bytes each, from cluster @at on. */
struct table {
	uint64_t at, n;
	uint32_t bytes;
	/* What entry @i is; big endian in the first 8 or 2 of its bytes. */
	uint64_t (*entry)(const struct layout *l, uint64_t i);
};

static uint64_t reftable_entry(const struct layout *l, uint64_t i)
{
	return (l->blocks + i) << NEW_CLUSTER_BITS;
}

static uint64_t refcount(const struct layout *l, uint64_t i)
{
	return 1;
}

static uint64_t l1_entry(const struct layout *l, uint64_t i)
{
	return (l->l2 + i) << NEW_CLUSTER_BITS | QCOW2_COPIED;
}

static uint64_t l2_entry(const struct layout *l, uint64_t i)
{
	return (l->data + i) << NEW_CLUSTER_BITS | QCOW2_COPIED;
}

/* A cluster at a time, through @buf, which is one. */
static int write_table(struct source *src, const struct layout *l,
		       const struct table *t, uint8_t *buf, struct error *err)
{
	uint64_t per_cluster = NEW_CLUSTER_BYTES / t->bytes, i, k;
	int r = 0;

	for (i = 0; r >= 0 && i < t->n; i += per_cluster) {
		memset(buf, 0, NEW_CLUSTER_BYTES);
		for (k = 0; k < per_cluster && i + k < t->n; k++) {
			uint64_t entry = t->entry(l, i + k);

			if (t->bytes == 2)
				put_be16(buf, k * 2, (uint16_t)entry);
			else
				put_be64(buf, k * t->bytes, entry);
		}
		r = source_write(src, buf, NEW_CLUSTER_BYTES,
				 (t->at << NEW_CLUSTER_BITS) +
					 i / per_cluster * NEW_CLUSTER_BYTES,
				 err);
	}
	return r;
}

static int write_metadata(struct source *src, const struct overlay_new *n,
			  const struct layout *l, struct error *err)
{
	const struct table tables[] = {
		{ l->reftable, l->blocks_n, 8, reftable_entry },
		{ l->blocks, l->all, 2, refcount },
		{ l->l1, l->l2_n, 8, l1_entry },
		{ l->l2, l->data_n, 16, l2_entry },
	};
	CLEANUP(freep) uint8_t *buf = calloc(1, NEW_CLUSTER_BYTES);
	size_t i;
	int r;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	put_header(buf, n, l);
	r = source_write(src, buf, NEW_CLUSTER_BYTES, 0, err);
	for (i = 0; r >= 0 && i < ARRAY_SIZE(tables); i++)
		r = write_table(src, l, &tables[i], buf, err);
	return r;
}

int qcow2_new_write(struct source *src, const struct overlay_new *n,
		    struct error *err)
{
	struct layout l = lay_out(n);
	int r = source_truncate(src, l.all * NEW_CLUSTER_BYTES, err);

	if (r >= 0)
		r = write_metadata(src, n, &l, err);
	if (r >= 0)
		r = overlay_preallocate(src, l.data << NEW_CLUSTER_BITS,
					l.data_n << NEW_CLUSTER_BITS,
					n->preallocation, err);
	return r < 0 ? r : source_sync(src, err);
}

int overlay_preallocate(struct source *src, uint64_t off, uint64_t len,
			enum overlay_preallocation how, struct error *err)
{
	static const uint8_t zeroes[1U << 20];
	int r = 0;

	if (how == OVERLAY_PREALLOCATE_FALLOC && len)
		return source_allocate(src, off, len, err);
	if (how != OVERLAY_PREALLOCATE_FULL)
		return 0;
	while (r >= 0 && len) {
		size_t some = (size_t)min_u64(len, sizeof(zeroes));

		r = source_write(src, zeroes, some, off, err);
		off += some;
		len -= some;
	}
	return r;
}

/* It has its name when its bytes are durable. */
static int fill_and_name(struct new_file *f, const struct overlay_new *n,
			 struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	int fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 0), r;

	if (fd < 0)
		return error_set(err, -errno, 0, "%s", errno_text(errno));
	r = file_source_adopt_rw(fd, 0, &src, err);
	if (r >= 0)
		r = qcow2_new_write(src, n, err);
	return r < 0 ? r : new_file_name(f, err);
}

int overlay_create(const char *path, const struct overlay_new *n,
		   struct error *err)
{
	CLEANUP(new_file_done) struct new_file f = { .fd = -1 };
	int r = qcow2_new_check(n, err);

	if (r >= 0)
		r = new_file_begin(path, &f, err);
	if (r >= 0)
		r = fill_and_name(&f, n, err);
	if (r >= 0)
		r = sync_folder_of(path, err);
	if (r < 0)
		error_prefix(err, "%s", path);
	return r;
}
