/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The pass by which a stream becomes known that no table tells of: a thread
 * decodes all of it once, and notes where decoding can begin. Where something in the stream
 * tells its size, it is read meanwhile: who wants what has not come by yet waits for that
 * alone, and is handed it as it comes by.
 *
 * What was told need not be so. What lies behind the stream's end, or behind
 * damage, is -EIO; of what a wrong sum is told, all that it is the sum of.
 */
#ifndef FORMATS_STREAMS_PASS_H
#define FORMATS_STREAMS_PASS_H

#include "formats/streams/kept.h"
#include "formats/streams/stream.h"

/* s->pass begins. @key: of the index that is kept at its end; NULL: none is. */
int pass_begin(struct stream *s, const struct kept_key *key, struct error *err);

/*
 * Waits until STREAM_HEAD_BYTES have come by, or all. Returns how many of them there
 * are, to be read by stream_decode(); 0: it has failed already.
 */
size_t pass_head(struct stream *s);

/* s->base.bytes is what was told: it is compared when the pass ends. @sure: see
 * stream_options. */
void pass_go_on(struct stream *s, bool sure);

/* Nothing tells it: waits for the end, sets s->base.bytes, and s->pass is gone. */
int pass_finish(struct stream *s, struct error *err);

/* Ends it, wherever it is; nobody reads @s. Any pass, and none. */
void pass_end(struct stream *s);

/*
 * Before [@off, @off + @len) is decoded. Returns 0: it may be; 1: @buf has it; -EIO:
 * it cannot be read; -ECANCELED: who waits has gone (engine_gone), or all is to
 * end.
 */
int pass_await(struct stream *s, uint64_t off, void *buf, size_t len);

/* Could it be decoded now? 0, -EAGAIN: not yet, or -EIO, and why. */
int pass_look(struct stream *s, uint64_t off, uint64_t len, struct error *err);

/* What of s->base.bytes can be read, as far as is known by now. */
uint64_t pass_readable(const struct stream *s);

/* Whoever waits for one does so no more, and all of them end. */
void passes_stop(void);
void passes_start(void); /* again */

#endif
