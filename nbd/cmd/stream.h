/* SPDX-License-Identifier: BSD-3-Clause */
/* Standard input as an image, and standard output as where a disk goes. */
#ifndef NBD_CMD_STREAM_H
#define NBD_CMD_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/copy.h"
#include "nbd/cmd/output.h"

/* Is @operand standard input, or output? */
bool stream_is(const char *operand);

/*
 * Standard input as a source: the file that it is, or what comes to its end,
 * kept in @spool, for the caller to output_done() in any case. @beside: the file
 * that the spool may become, in whose folder it is kept; NULL: in TMPDIR.
 */
int stream_read(const char *beside, bool overwrite, struct output *spool,
		struct source **ret, struct error *err);

/* A sink that writes the disk in its order, zeroes included. */
struct stream_sink {
	struct copy_sink sink;
	int fd;
	uint64_t off; /* what lies before is written */
};

/* The caller's to stream_sink_done(). */
int stream_sink_init(struct stream_sink *s, struct error *err);
/* When all is copied of a disk of @bytes. */
int stream_sink_finish(struct stream_sink *s, uint64_t bytes,
		       struct error *err);
void stream_sink_done(struct stream_sink *s);

#endif
