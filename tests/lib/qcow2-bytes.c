/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cluster 0: header, extension, backing name; then the refcount table, an
 * empty refcount block, the L1 table, the L2 tables, and what is appended.
 * Refcounts are left 0: readers do not look at them.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include <libdeflate.h>

#include "tests/lib/qcow2-bytes.h"
#include "tests/lib/unit.h"

#define HEADER_BYTES 104U

static uint64_t cluster_bytes(const struct qb *q)
{
	return 1ULL << q->cluster_bits;
}

/* @bytes of zeroes at the file's end, from a multiple of @align on. */
static uint64_t append(struct qb *q, size_t bytes, size_t align)
{
	size_t at = (size_t)round_up(q->len, align);

	while (at + bytes > q->room) {
		q->room = q->room ? 2 * q->room : 1 << 20;
		q->buf = realloc(q->buf, q->room);
		if (!q->buf)
			abort();
	}
	memset(q->buf + q->len, 0, at + bytes - q->len);
	q->len = at + bytes;
	return at;
}

void qb_put32(struct qb *q, size_t at, uint32_t v)
{
	v = htobe32(v);
	memcpy(q->buf + at, &v, sizeof(v));
}

void qb_put64(struct qb *q, size_t at, uint64_t v)
{
	v = htobe64(v);
	memcpy(q->buf + at, &v, sizeof(v));
}

static void put_names(struct qb *q, const char *backing, const char *format)
{
	size_t at = HEADER_BYTES;

	if (format) {
		qb_put32(q, at, 0xe2792acaU);
		qb_put32(q, at + 4, (uint32_t)strlen(format));
		memcpy(q->buf + at + 8, format, strlen(format));
		at += 8 + (size_t)round_up(strlen(format), 8);
	}
	at += 8; /* the end of extensions */
	if (!backing)
		return;
	qb_put64(q, 8, at);
	qb_put32(q, 16, (uint32_t)strlen(backing));
	memcpy(q->buf + at, backing, strlen(backing));
}

void qb_init(struct qb *q, uint64_t size, uint32_t cluster_bits,
	     const char *backing, const char *backing_format)
{
	uint64_t cluster = 1ULL << cluster_bits, per_table = cluster / 8;
	uint64_t tables = div_round_up(div_round_up(size, cluster), per_table);
	uint64_t l1, i;

	*q = (struct qb){ .cluster_bits = cluster_bits, .size = size };
	append(q, cluster, 1);
	qb_put32(q, 0, 0x514649fbU);
	qb_put32(q, 4, 3);
	qb_put32(q, 20, cluster_bits);
	qb_put64(q, 24, size);
	qb_put32(q, 36, (uint32_t)tables);
	qb_put64(q, 48, append(q, cluster, cluster));
	qb_put64(q, cluster, append(q, cluster, cluster));
	qb_put32(q, 56, 1);
	qb_put32(q, 96, 4);
	qb_put32(q, 100, HEADER_BYTES);
	put_names(q, backing, backing_format);
	l1 = append(q, tables * 8, cluster);
	qb_put64(q, 40, l1);
	q->l2_off = append(q, tables * cluster, cluster);
	for (i = 0; i < tables; i++)
		qb_put64(q, l1 + i * 8, (q->l2_off + i * cluster) | QB_COPIED);
}

void qb_done(struct qb *q)
{
	free(q->buf);
}

void qb_entry(struct qb *q, uint64_t idx, uint64_t entry)
{
	qb_put64(q, q->l2_off + idx * 8, entry);
}

uint64_t qb_data(struct qb *q, uint64_t idx, const void *data)
{
	uint64_t at = append(q, cluster_bytes(q), cluster_bytes(q));

	memcpy(q->buf + at, data, cluster_bytes(q));
	qb_entry(q, idx, at | QB_COPIED);
	return at;
}

uint64_t qb_compressed(struct qb *q, uint64_t idx, const void *data)
{
	struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);
	size_t room = libdeflate_deflate_compress_bound(c, cluster_bytes(q));
	uint8_t *out = malloc(room);
	size_t bytes = libdeflate_deflate_compress(c, data, cluster_bytes(q),
						   out, room);
	uint64_t at = append(q, bytes, 1);
	unsigned int x = 62 - (q->cluster_bits - 8);
	uint64_t sectors = (at + bytes - 1) / 512 - at / 512;

	memcpy(q->buf + at, out, bytes);
	qb_entry(q, idx, QB_COMPRESSED | sectors << x | at);
	libdeflate_free_compressor(c);
	free(out);
	return at;
}

void qb_fill(struct qb *q, unsigned int seed)
{
	uint64_t n = div_round_up(q->size, cluster_bytes(q)), i;
	uint8_t *data = malloc(cluster_bytes(q));

	for (i = 0; i < n; i++) {
		unit_fill(data, cluster_bytes(q), seed + (unsigned int)i);
		qb_data(q, i, data);
	}
	free(data);
}
