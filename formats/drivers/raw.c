/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Raw: the file is the disk. Its size is served exact, whatever it is a
 * multiple of. Holes are the file system's to tell: image_walk() asks the
 * source, reads do not need to.
 */
#include "formats/layer.h"
#include "formats/drivers/raw-type.h"

static int raw_open(struct layer *l, struct error *err)
{
	l->bytes = l->src->bytes;
	if (l->guessed && l->top)
		l->remark = raw_packed(l->src);
	return 0;
}

static int raw_map(struct layer *l, uint64_t guest_off, uint64_t len,
		   struct extent *ret, struct error *err)
{
	return extent_set_data(ret, l->src, 0, guest_off, len, err);
}

static void raw_info(struct layer *l, struct info_sink *s)
{
	raw_describe(l->src, s);
}

const struct format_ops raw_format = {
	.name = "raw",
	.glance_name = "raw",
	.open = raw_open,
	.map = raw_map,
	.info = raw_info,
};
