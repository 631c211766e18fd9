/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What was decoded before a checkpoint, kept in few bytes: the length as 32 bits,
 * little endian, then the bytes as an LZ4 block, or, where that is not shorter or
 * the library is not installed, as they are.
 */
#include <errno.h>
#include <string.h>

#include "formats/codec/codec-lib.h"
#include "formats/cursor.h"
#include "formats/streams/stream.h"
#include "iouring/util.h"

#define LENGTH_BYTES   4U
#define WINDOW_MAX     (64U << 10)
#define SPACING_MIN    (1U << 20)
#define SHARE_OF_INDEX 256U

static int pack(const uint8_t *window, uint32_t bytes, struct checkpoint *ck,
		struct error *err)
{
	uint8_t *buf = malloc(LENGTH_BYTES + bytes);
	uint32_t le = htole32(bytes);
	uint8_t *small;
	int n = 0;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	memcpy(buf, &le, LENGTH_BYTES);
	if (bytes && codec_lib_load(LIB_LZ4))
		n = lz4.compress_default((const char *)window,
					 (char *)buf + LENGTH_BYTES, (int)bytes,
					 (int)bytes - 1);
	if (n <= 0) {
		memcpy(buf + LENGTH_BYTES, window, bytes);
		n = (int)bytes;
	}
	ck->window_bytes = LENGTH_BYTES + (uint32_t)n;
	ck->window = buf;
	small = realloc(ck->window, ck->window_bytes);
	if (small) /* else it is as it was, and longer */
		ck->window = small;
	return 0;
}

int decoder_pass_window(struct decoder *d, uint64_t in, uint32_t state,
			const uint8_t *window, uint32_t bytes,
			uint64_t *want_at, struct error *err)
{
	struct stream_index *x = &d->s->index;
	struct checkpoint ck = { .in = in, .out = d->out, .state = state };
	uint64_t last, least;
	int r;

	if (!d->noting)
		return decoder_pass(d, in, state, err);
	last = x->list[x->n - 1].out;
	if (d->out < *want_at ||
	    d->out - last < max_u64(SPACING_MIN, x->spacing))
		return 0;
	r = pack(window, bytes, &ck, err);
	if (r < 0)
		return r;
	least = last + SHARE_OF_INDEX * (uint64_t)ck.window_bytes;
	if (d->out < least) {
		*want_at = least;
		free(ck.window);
		return 0;
	}
	return decoder_note(d, &ck, err);
}

int checkpoint_window(const struct checkpoint *ck, uint8_t *ret, uint32_t room,
		      uint32_t *ret_bytes, struct error *err)
{
	struct cursor c = { .buf = ck->window, .len = ck->window_bytes };
	uint32_t bytes = cursor_le32_at(&c, 0), packed;

	if (ck->window_bytes < LENGTH_BYTES || bytes > room)
		return error_set(err, -EBADMSG, ck->in,
				 "the index has a window that is wrong");
	packed = ck->window_bytes - LENGTH_BYTES;
	*ret_bytes = bytes;
	if (packed == bytes) {
		memcpy(ret, ck->window + LENGTH_BYTES, bytes);
		return 0;
	}
	if (!codec_lib_load(LIB_LZ4) ||
	    lz4.decompress_safe((const char *)ck->window + LENGTH_BYTES,
				(char *)ret, (int)packed,
				(int)room) != (int)bytes)
		return error_set(err, -EBADMSG, ck->in,
				 "the index has a window that is wrong");
	return 0;
}
