/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writes a new qcow2 file in one pass, from the disk's beginning to its end:
 * clusters one behind the other, each L2 table behind the last cluster that it
 * maps, L1 table and refcounts at the end, the header last of all.
 *
 * The user compresses, and writes clusters where they are placed; only placing
 * is done in order, by one thread at a time.
 */
#ifndef FORMATS_OVERLAY_QCOW2_CREATE_H
#define FORMATS_OVERLAY_QCOW2_CREATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/codec/codec.h"
#include "iouring/source.h"

#define QCOW2_CREATE_CLUSTER_BITS 16U /* as qemu-img's */

struct qcow2_create;

/* Where the file goes. */
struct qcow2_dst {
	/* By any thread. Pieces do not overlap. */
	int (*write)(struct qcow2_dst *d, const void *buf, size_t len,
		     uint64_t off, struct error *err);
	/* All but the header is written: the file has @bytes. */
	int (*end)(struct qcow2_dst *d, uint64_t bytes, struct error *err);
	uint64_t bytes_max; /* there is no more room; UINT64_MAX: it grows */
	uint32_t align; /* of offsets and lengths of writes: a power of two, at
			   most a cluster */
};

/* A file of file_source_open_rw(), empty, which the caller holds. */
struct qcow2_file_dst {
	struct qcow2_dst dst;
	struct source *src;
};
void qcow2_file_dst_init(struct qcow2_file_dst *d, struct source *src);

/* A cluster of the disk that is not all zeroes, or not what the base has. */
struct qcow2_piece {
	uint32_t bytes; /* compressed, and filled up to dst's align; 0: as it
			   is, a whole cluster */
	bool zero; /* of a file with a base: all zeroes, and nothing to write */
	uint64_t host_off; /* out: where to write it */
};

/*
 * @dst: the caller's; what it has need not be zeroes, and a header of an image in
 * it is the caller's to wipe before. @bytes: virtual size. @codec: of compressed
 * pieces, CODEC_DEFLATE or CODEC_ZSTD. A disk too large for its clusters is
 * -EFBIG.
 */
int qcow2_create_new(struct qcow2_dst *dst, uint64_t bytes,
		     uint32_t cluster_bits, enum codec codec,
		     struct qcow2_create **ret, struct error *err);
void qcow2_create_free(struct qcow2_create *q); /* NULL is fine */

/*
 * What is not placed is the base's: the file @name, of @format; both outlive @q.
 * A name that the header's cluster has no room for is -EINVAL.
 */
int qcow2_create_set_base(struct qcow2_create *q, const char *name,
			  const char *format, struct error *err);

/* Places the cluster at @guest_off, which lies behind all placed before. */
int qcow2_create_place(struct qcow2_create *q, uint64_t guest_off,
		       struct qcow2_piece *p, struct error *err);

/*
 * What a file of a disk of @bytes takes when every cluster has data; without
 * the round_up(@bytes) of them, what is not data. -EFBIG as qcow2_create_new().
 */
int qcow2_create_measure(uint64_t bytes, uint32_t cluster_bits, uint64_t *ret,
			 struct error *err);

/*
 * When all is written that was placed; *ret_bytes: how long the file is. Does not
 * sync.
 */
int qcow2_create_finish(struct qcow2_create *q, uint64_t *ret_bytes,
			struct error *err);

#endif
