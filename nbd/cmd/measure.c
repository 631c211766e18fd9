/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/overlay/qcow2-create.h"
#include "iouring/util.h"
#include "nbd/cmd/measure.h"

struct counter {
	uint64_t unit;
	uint64_t bytes; /* of the clusters that have data */
	uint64_t end; /* of the last one of them */
};

/* The clusters that an extent touches; neighbours may share one. */
static int count_extent(void *opaque, uint64_t off, const struct extent *e)
{
	struct counter *c = opaque;
	uint64_t from = max_u64(round_down(off, c->unit), c->end);
	uint64_t end = round_up(off + e->len, c->unit);

	if (e->kind == EXTENT_ZERO || e->kind == EXTENT_HOLE || end <= from)
		return 0;
	c->bytes += end - from;
	c->end = end;
	return 0;
}

int measure_qcow2(uint64_t bytes, uint32_t cluster_bits, struct image *img,
		  uint64_t *ret_full, uint64_t *ret_data, struct error *err)
{
	struct counter c = { .unit = 1ULL << cluster_bits };
	uint64_t off = 0;
	int r = qcow2_create_measure(bytes, cluster_bits, ret_full, err);

	while (r >= 0 && img && off < img->bytes)
		r = image_walk(img, off, img->bytes - off, count_extent, &c,
			       &off, err);
	*ret_data = c.bytes;
	return r < 0 ? r : 0;
}
