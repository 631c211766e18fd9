/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Traces: which ranges of a disk are read first, in their order, so that who opens
 * its image later has them fetched before they are asked for. A trace is of the
 * disk, not of the file that it is in: it stays right when the image is converted.
 *
 * The file is text. Its first line is "platter-trace 1", the next that is no
 * comment "bytes SIZE", the disk's; each other one is a range, "OFFSET LENGTH", in
 * bytes and decimal digits. Empty lines, and those that begin with '#', are
 * comments.
 */
#ifndef NBD_TRACE_H
#define NBD_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "iouring/error.h"

#define TRACE_MAGIC	     "platter-trace 1"
#define TRACE_FILE_BYTES_MAX (2U << 20)
#define TRACE_RANGES_MAX     65536U
#define TRACE_UNIT_BYTES     32768U /* what a recorder tells apart */

struct trace_range {
	uint64_t off, len; /* len > 0 */
};

struct trace {
	uint64_t bytes; /* of the disk */
	struct trace_range *ranges; /* inside it */
	size_t n;
};

void trace_done(struct trace *t);

/*
 * Takes a file's text; @ret is the caller's to trace_done(), and written on success
 * only. -EBADMSG: it is none. -EFBIG: it has more ranges than may be.
 */
int trace_parse(const char *text, size_t len, struct trace *ret,
		struct error *err);

/* Writes it. What fails, ferror() tells. */
void trace_write(const struct trace *t, FILE *fp);

/* ---- recording; any thread ---- */

struct trace_recorder;

/* Of a disk of @bytes; NULL: there is no memory. */
struct trace_recorder *trace_recorder_new(uint64_t bytes);
void trace_recorder_free(struct trace_recorder *r); /* NULL is fine */

/* [@off, @off + @len) was read. */
void trace_note(struct trace_recorder *r, uint64_t off, uint64_t len);

/*
 * What was read for the first time since it was made, in order; neighbours are one
 * range. @ret is the caller's to trace_done(). *ret_full: there was more, which is
 * not in it. false: no memory.
 */
bool trace_take(struct trace_recorder *r, struct trace *ret, bool *ret_full);

#endif
