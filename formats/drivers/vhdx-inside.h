/* SPDX-License-Identifier: BSD-3-Clause */
/* What the VHDX driver and its log replay share. */
#ifndef FORMATS_DRIVERS_VHDX_INSIDE_H
#define FORMATS_DRIVERS_VHDX_INSIDE_H

#include <stdint.h>

#include "formats/extent.h"
#include "formats/layer.h"

#define VHDX_MIB	  ((uint64_t)1 << 20)
#define VHDX_GUID_BYTES	  16U
#define VHDX_SECTOR_BYTES 4096U /* of headers, log, and what is logged */

/* [MS-VHDX] 2.2.2 */
struct vhdx_header {
	uint64_t sequence;
	uint8_t data_guid[VHDX_GUID_BYTES]; /* DataWriteGuid */
	uint8_t log_guid[VHDX_GUID_BYTES]; /* all 0: the log is empty */
	uint16_t log_version;
	uint16_t version;
	uint32_t log_bytes;
	uint64_t log_off;
	uint64_t at; /* where in the file it was found */
};

/* A running CRC-32C; begin with 0. */
uint32_t vhdx_crc32c(uint32_t crc, const void *buf, size_t len);

/*
 * Replays the log of @h into memory: *ret_view, a counted source, is the file
 * as it would be afterwards. The file itself is not written. @h->log_off and
 * log_bytes were checked to lie inside @file and to be whole MiB.
 */
int vhdx_log_replay(struct source *file, const struct vhdx_header *h,
		    struct source **ret_view, struct error *err);

/*
 * extent_set_data() for a view of @file: as much of it as possible is told to
 * lie in @file itself, which the ring can read. @view may be @file.
 */
int vhdx_view_extent(struct extent *e, struct source *view, struct source *file,
		     uint64_t unit_off, uint64_t in_unit, uint64_t len,
		     struct error *err);

#endif
