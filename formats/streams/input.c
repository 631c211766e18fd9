/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/streams/input.h"
#include "iouring/util.h"

void stream_in_seek(struct stream_in *in, uint64_t off)
{
	uint64_t begin = in->off - in->pos;

	if (in->buf && off >= begin && off - begin <= in->len) {
		in->pos = (size_t)(off - begin);
	} else {
		in->pos = in->len = 0;
	}
	in->off = off;
}

void stream_in_done(struct stream_in *in)
{
	free(TAKE_PTR(in->buf));
}

static int grow(struct stream_in *in, size_t want, struct error *err)
{
	size_t room = in->room ? in->room : STREAM_IN_BYTES;
	uint8_t *buf;

	while (room < want)
		room *= 2;
	if (room == in->room)
		return 0;
	buf = realloc(in->buf, room);
	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	in->buf = buf;
	in->room = room;
	return 0;
}

int stream_in_need(struct stream_in *in, size_t want, struct error *err)
{
	size_t have = stream_in_have(in), more;
	int r;

	if (have >= want || in->off + have == in->end)
		return 0;
	r = grow(in, want, err);
	if (r < 0)
		return r;
	memmove(in->buf, in->buf + in->pos, have);
	in->pos = 0;
	in->len = have;
	more = (size_t)min_u64(in->room - have, in->end - in->off - have);
	r = source_read(in->src, in->buf + have, more, in->off + have, err);
	if (r >= 0)
		in->len += more;
	return r;
}

size_t stream_skippable(const uint8_t *head, size_t bytes)
{
	struct cursor c = { .buf = head, .len = bytes };
	uint64_t at = 0;

	while (at + 8 <= bytes &&
	       stream_is_skippable(cursor_le32_at(&c, (size_t)at)))
		at += 8ULL + cursor_le32_at(&c, (size_t)at + 4);
	return (size_t)min_u64(at, bytes);
}
