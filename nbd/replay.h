/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Replays traces (trace.h): when an image is opened, what its trace names is
 * fetched into cache-dir=, in that order, by few reads at a time. The trace is a
 * file of the user's (trace=), or lies beside the image and is called as it is,
 * with ".trace" behind it. Of an image of Glance's it is another image, which a
 * property of the first names: its owner alone can say so. An image of which nothing can be kept has no use for one.
 * What is wrong with a trace is told, and the image is served all the same.
 */
#ifndef NBD_REPLAY_H
#define NBD_REPLAY_H

#include "formats/image.h"

/* Before the first image. @say: for lines. */
void replay_configure(void (*say)(const char *line));

/*
 * Has the trace of @img, which the user calls @path, replayed: @trace, or NULL: the
 * file beside it. Takes a reference to @img while it is at it. Does not wait: before
 * replay_start() it is noted.
 */
void replay_add(struct image *img, const char *path, const char *trace);

/* No fork comes any more: threads do. */
void replay_start(void);

/* They end, having waited for what they are at; see http_engine_stop(). */
void replay_stop(void);

/* How much was asked for so far, of the disks: for metrics. */
uint64_t replay_bytes(void);

#endif
