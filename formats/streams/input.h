/* SPDX-License-Identifier: BSD-3-Clause */
/* The bytes of a stream in their order, through a buffer that grows as need be. */
#ifndef FORMATS_STREAMS_INPUT_H
#define FORMATS_STREAMS_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"
#include "iouring/source.h"

#define STREAM_IN_BYTES (128U << 10)

struct stream_in {
	struct source *src; /* whose counts it is */
	uint64_t end; /* of the stream in @src */
	uint64_t off; /* of buf[pos] in it */
	uint8_t *buf;
	size_t room, pos, len; /* buf[pos .. len) is there */
};

/* Goes on at @off, which may be the end. */
void stream_in_seek(struct stream_in *in, uint64_t off);
void stream_in_done(struct stream_in *in);

/*
 * Has at least @want bytes in the buffer, less where the stream ends: so many
 * are at stream_in_at(). 0 or a negative errno.
 */
int stream_in_need(struct stream_in *in, size_t want, struct error *err);

static inline size_t stream_in_have(const struct stream_in *in)
{
	return in->len - in->pos;
}

static inline const uint8_t *stream_in_at(const struct stream_in *in)
{
	return in->buf + in->pos;
}

/* @n of those that are there are done with. */
static inline void stream_in_take(struct stream_in *in, size_t n)
{
	in->pos += n;
	in->off += n;
}

static inline bool stream_in_ended(const struct stream_in *in)
{
	return in->off == in->end;
}

/* A frame that zstd and LZ4 pass by: its magic, its size (4), anything. */
static inline bool stream_is_skippable(uint32_t magic)
{
	return (magic & ~0xfU) == 0x184d2a50;
}

/* Where what follows such frames begins; @bytes, where it is not there. */
size_t stream_skippable(const uint8_t *head, size_t bytes);

#endif
