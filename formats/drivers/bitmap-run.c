/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/drivers/bitmap-run.h"

#define BITMAP_CHUNK 512U

int bitmap_run(struct layer *l, struct source *src, enum bit_order order,
	       uint64_t bitmap_off, uint64_t first, uint64_t max, bool *ret_bit,
	       uint64_t *ret_run, struct error *err)
{
	unsigned int flip = order == FIRST_BIT_HIGHEST ? 7 : 0;
	uint64_t i = 0, at, from = 0, n = 0;
	uint8_t buf[BITMAP_CHUNK];
	bool bit = false, here;
	int r;

	while (i < max) {
		at = (first + i) / 8;
		if (!n || at >= from + n) {
			from = at;
			n = min_u64((first + max - 1) / 8 - at + 1,
				    sizeof(buf));
			r = layer_read_meta(l, src, buf, (size_t)n,
					    bitmap_off + at, i ? NULL : err);
			if (r < 0 && !i)
				return r;
			if (r < 0)
				break;
		}
		here = buf[at - from] >> ((first + i) % 8 ^ flip) & 1;
		if (!i)
			bit = here;
		if (here != bit)
			break;
		if ((first + i) % 8 == 0 && max - i >= 8 &&
		    buf[at - from] == (bit ? 0xff : 0))
			i += 8;
		else
			i++;
	}
	*ret_bit = bit;
	*ret_run = i;
	return 0;
}
