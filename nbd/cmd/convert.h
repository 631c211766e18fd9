/* SPDX-License-Identifier: BSD-3-Clause */
/* platter convert: what its options came to, and where the disk goes. */
#ifndef NBD_CMD_CONVERT_H
#define NBD_CMD_CONVERT_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/codec/codec.h"
#include "formats/copy.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/progress.h"

struct convert {
	struct cmd cmd;
	const char *output; /* a path, or "-" */
	bool qcow2;
	bool compress;
	enum codec codec;
	int level;
	uint32_t cluster_bits; /* 0: not given */
	unsigned int threads;
	bool overwrite;
	bool quiet;
	struct progress progress;
};

/* Copies cmd.image. Returns 0 or a negative errno: nothing is left behind. */
int convert_run(struct convert *c, struct error *err);

/* All of @img into @sink, and how far it is shown. As copy_image(). */
int convert_copy(struct convert *c, struct image *img, struct copy_sink *sink,
		 struct error *err);

/* ---- stream.c ---- */

/* Is @operand standard input, or output? */
bool stream_is(const char *operand);

/*
 * Standard input as a source of its own, for @ret->img to be opened from: the
 * file that it is, or what comes to its end, kept in @spool. @beside: the file
 * in whose folder that is kept, as it may become this file; NULL: in TMPDIR.
 */
struct output;
int stream_read(const char *beside, bool overwrite, struct output *spool,
		struct source **ret, struct error *err);

/* All of @img to standard output. */
int stream_write(struct convert *c, struct image *img, struct error *err);

#endif
