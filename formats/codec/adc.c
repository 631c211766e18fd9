/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A stream of three kinds of items, told apart by the first byte's high bits:
 *
 *	1nnnnnnn            n + 1 bytes follow as they are
 *	00nnnndd dddddddd   copy n + 3 bytes from d + 1 bytes before
 *	01nnnnnn d (16 bit) copy n + 4 bytes from d + 1 bytes before
 */
#include <string.h>

#include "formats/codec/adc.h"
#include "iouring/util.h"

struct item {
	size_t bytes; /* of the item itself */
	size_t len; /* of what it stands for */
	size_t distance; /* how far back it lies; 0: in the stream */
};

/* false: the stream ends within the item. */
static bool take_item(const uint8_t *in, size_t left, struct item *ret)
{
	uint8_t b = left ? in[0] : 0;

	if (b & 0x80)
		*ret = (struct item){ .bytes = 1, .len = (b & 0x7fU) + 1 };
	else if (b & 0x40 && left >= 3)
		*ret = (struct item){ .bytes = 3,
				      .len = (b & 0x3fU) + 4,
				      .distance = (in[1] << 8U | in[2]) + 1U };
	else if (!(b & 0x40) && left >= 2)
		*ret = (struct item){ .bytes = 2,
				      .len = (b >> 2U) + 3U,
				      .distance =
					      ((b & 3U) << 8U | in[1]) + 1U };
	else
		return false;
	return true;
}

bool adc_decode(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
	const uint8_t *end = in + in_len;
	size_t done = 0, n, i;
	struct item item;

	while (done < out_len) {
		if (!take_item(in, (size_t)(end - in), &item))
			return false;
		in += item.bytes;
		n = min_size(item.len, out_len - done);
		if (!item.distance) {
			if ((size_t)(end - in) < n)
				return false;
			memcpy(out + done, in, n);
			in += n;
		} else if (item.distance > done) {
			return false;
		}
		/* Copies may overlap what they make. */
		for (i = 0; item.distance && i < n; i++)
			out[done + i] = out[done + i - item.distance];
		done += n;
	}
	return true;
}
