/* SPDX-License-Identifier: BSD-3-Clause */
/* Small qcow2 images, built in memory entry by entry. */
#ifndef TESTS_LIB_QCOW2_BYTES_H
#define TESTS_LIB_QCOW2_BYTES_H

#include <stddef.h>
#include <stdint.h>

#define QB_COMPRESSED (1ULL << 62)
#define QB_COPIED     (1ULL << 63)
#define QB_ZERO	      1ULL

struct qb {
	uint8_t *buf; /* the file */
	size_t len;
	size_t room;
	uint32_t cluster_bits;
	uint64_t size; /* virtual */
	uint64_t l2_off;
};

/*
 * A version 3 image of @size bytes, all of it unallocated. @backing and
 * @backing_format may be NULL. Its L2 tables are all there.
 */
void qb_init(struct qb *q, uint64_t size, uint32_t cluster_bits,
	     const char *backing, const char *backing_format);
void qb_done(struct qb *q);

/* Sets the L2 entry of the guest's cluster @idx. */
void qb_entry(struct qb *q, uint64_t idx, uint64_t entry);

/* Appends a cluster with @data and maps cluster @idx there; where it lies. */
uint64_t qb_data(struct qb *q, uint64_t idx, const void *data);

/* The same, compressed, from the next byte of the file on. */
uint64_t qb_compressed(struct qb *q, uint64_t idx, const void *data);

/* Clusters of data from unit_fill(@seed + idx), all of the disk. */
void qb_fill(struct qb *q, unsigned int seed);

/* A big-endian number anywhere in the file. */
void qb_put32(struct qb *q, size_t at, uint32_t v);
void qb_put64(struct qb *q, size_t at, uint64_t v);

#endif
