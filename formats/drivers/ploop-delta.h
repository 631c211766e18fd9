/* SPDX-License-Identifier: BSD-3-Clause */
/* One image file of ploop: a delta, of a disk or of a part of one. */
#ifndef FORMATS_DRIVERS_PLOOP_DELTA_H
#define FORMATS_DRIVERS_PLOOP_DELTA_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/layer.h"

#define PLOOP_V1_MAGIC	   "WithoutFreeSpace"
#define PLOOP_V2_MAGIC	   "WithouFreSpacExt"
#define PLOOP_MAGIC_BYTES  16U
#define PLOOP_SECTOR_BYTES 512U

/* One expandable image file. */
struct delta {
	struct source *src; /* the layer's; NULL: there is none here */
	unsigned int version;
	uint64_t cluster_bytes;
	uint64_t entry_unit; /* bytes that a BAT entry counts */
	uint64_t entries;
	uint64_t bytes; /* of the disk, as its header has it */
	uint64_t data_off; /* bytes; version 1: a claim */
	uint64_t ext_off; /* bytes; 0: none that can be believed */
	bool in_use;
};

/* 1 or 2; 0: neither. */
unsigned int delta_magic_version(const uint8_t *magic);

/* Reads and checks the header of @src, which is the layer's. */
int delta_open(struct source *src, struct delta *ret, struct error *err);

/*
 * A lower delta may be of a time when the disk was smaller: there is nothing
 * behind its BAT. The top's covers the disk: check_storages().
 */
int delta_map(struct layer *l, const struct delta *d, uint64_t off,
	      uint64_t len, struct extent *ret, struct error *err);

/* What its format extension holds, if it has one. */
void delta_info(struct layer *l, const struct delta *d, struct info_sink *sink);

/* One image file of the layer. */
int delta_check(struct layer *l, const struct delta *d, struct check_report *r,
		struct error *err);

#endif
