/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a disk is copied onto, that is there already: a block device, held
 * exclusively, or an NBD export. It keeps its size, and is never truncated. What
 * a copy that fails has written stays written.
 */
#ifndef NBD_CMD_TARGET_H
#define NBD_CMD_TARGET_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/copy.h"
#include "formats/overlay/qcow2-create.h"
#include "iouring/sources/nbd-target.h"

struct target {
	struct copy_sink sink; /* of the disk itself; or: */
	struct qcow2_dst file; /* of a qcow2 file of it */
	const char *name; /* the caller's */
	uint64_t bytes;
	uint32_t align; /* of what is written: a power of two */
	bool is_zero; /* all that the disk will cover was, at first */
	bool touched; /* something may have been written */
	struct source *device; /* one of the two */
	struct nbd_target *export;
};

/* Is @path a block device, or @text the URI of an export? */
bool target_is_one(const char *text);

/*
 * Opens @name, which must have room for @bytes, those of @what. -EBUSY: a device
 * that is mounted, or somebody else's. The caller's to target_done() in any case.
 */
int target_open(struct target *t, const char *name, uint64_t bytes,
		const char *what, struct error *err);
void target_done(struct target *t);

/*
 * Zeroes where @img has none but zeroes, unless the target reads so already.
 * @stop: asked now and then; what it returns, if not 0, ends this.
 */
int target_zero(struct target *t, struct image *img, int (*stop)(void),
		struct error *err);

/* The first @bytes are zeroes, durably: what was there is no image any more. */
int target_wipe(struct target *t, uint64_t bytes, struct error *err);

/* What was written is durable when it returns 0. */
int target_flush(struct target *t, struct error *err);

#endif
