/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An export of any NBD server that is written: a copy's target. libnbd is loaded
 * when the first is opened. Ranges lie inside the export and are multiples of
 * its smallest block. Any thread; returns are 0 or a negative errno, the
 * server's own (-ENOSPC, -EPERM ...) where it gives one.
 */
#ifndef IOURING_SOURCES_NBD_TARGET_H
#define IOURING_SOURCES_NBD_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"

struct nbd_target;

/* -EROFS: it takes no writes. -ENOTSUP: libnbd is missing. */
int nbd_target_open(const char *uri, struct nbd_target **ret,
		    struct error *err);
void nbd_target_close(struct nbd_target *t); /* NULL is fine */

/* Of the export; the smallest block is a power of two. */
uint64_t nbd_target_bytes(const struct nbd_target *t);
uint32_t nbd_target_block_bytes(const struct nbd_target *t);

int nbd_target_write(struct nbd_target *t, const void *buf, size_t len,
		     uint64_t off, struct error *err);

/* Without sending zeroes, where the server can do that. */
int nbd_target_zero(struct nbd_target *t, uint64_t off, uint64_t len,
		    struct error *err);

/*
 * Does the server say that it reads zeroes at @off? The answer is for the first
 * *ret_len > 0 of @len > 0 bytes. false where it does not say.
 */
int nbd_target_find_zero(struct nbd_target *t, uint64_t off, uint64_t len,
			 bool *ret_zero, uint64_t *ret_len, struct error *err);

/* What was written is durable when it returns 0. */
int nbd_target_flush(struct nbd_target *t, struct error *err);

#endif
