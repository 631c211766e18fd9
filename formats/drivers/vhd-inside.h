/* SPDX-License-Identifier: BSD-3-Clause */
/* What the VHD driver's files share. */
#ifndef FORMATS_DRIVERS_VHD_INSIDE_H
#define FORMATS_DRIVERS_VHD_INSIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/layer.h"

#define SECTOR_BYTES  512U
#define FOOTER_BYTES  512U
#define DYNAMIC_BYTES 1024U
#define BAT_UNUSED    0xffffffffU
#define ID_BYTES      16U
#define BAT_CHUNK     128U /* entries between two reads */

enum {
	TYPE_FIXED = 2,
	TYPE_DYNAMIC = 3,
	TYPE_DIFFERENCING = 4,
};

struct vhd_footer {
	uint32_t version;
	uint64_t data_off;
	uint32_t time_stamp; /* seconds since 2000 */
	char creator[5];
	uint64_t current_bytes;
	uint16_t cylinders;
	uint8_t heads;
	uint8_t sectors;
	uint32_t type;
	uint8_t id[ID_BYTES];
	uint8_t saved_state;
};

struct vhd_dynamic {
	uint64_t table_off;
	uint32_t version;
	uint32_t entries;
	uint32_t block_bytes;
	uint8_t parent_id[ID_BYTES];
	uint32_t parent_time;
};

struct vhd_state {
	struct vhd_footer f;
	uint64_t footer_off;
	unsigned int footer_bytes; /* 0: it is lost, this is the copy */
	struct vhd_dynamic d; /* not in fixed disks */
	unsigned int block_bits;
	uint32_t bitmap_bytes;
	struct source *data; /* the file without the footer at its end */
};

/* ---- vhd-bat.c: from an offset to its block ---- */

/* A part of the file beside the blocks. */
struct part {
	const char *what;
	uint64_t off, bytes;
};

/* BAT entries from @idx on, at most @max and a chunk of them. */
int vhd_read_entries(struct layer *l, uint64_t idx, uint64_t max, uint32_t *ret,
		     size_t *ret_n, struct error *err);

/* Does the block at @off lie over one, which no block may? */
bool vhd_lies_over(const struct layer *l, uint64_t off, struct part *ret);

/* format_ops.map of a disk that is not fixed */
int vhd_map(struct layer *l, uint64_t guest_off, uint64_t len,
	    struct extent *ret, struct error *err);

/* ---- vhd-check.c ---- */

/* format_ops.check */
int vhd_check(struct layer *l, struct check_report *r, struct error *err);

#endif
