/* SPDX-License-Identifier: BSD-3-Clause */
/* What the VHDX driver's files share. */
#ifndef FORMATS_DRIVERS_VHDX_INSIDE_H
#define FORMATS_DRIVERS_VHDX_INSIDE_H

#include <stdbool.h>
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

/* 2.5.1 */
enum {
	BLOCK_NOT_PRESENT = 0,
	BLOCK_UNDEFINED = 1,
	BLOCK_ZERO = 2,
	BLOCK_UNMAPPED = 3,
	BLOCK_UNMAPPED_DRAFT = 5,
	BLOCK_FULLY_PRESENT = 6,
	BLOCK_PARTIALLY_PRESENT = 7,
};
#define BAT_STATE(entry)    ((unsigned int)((entry)&7))
#define BAT_RESERVED(entry) ((entry) & (VHDX_MIB - 8))
#define BAT_OFFSET(entry)   ((entry) & ~(VHDX_MIB - 1))

struct region {
	uint64_t off;
	uint64_t bytes; /* 0: there is none */
	uint64_t at; /* of its entry */
};

struct item {
	uint64_t off; /* in the file */
	uint32_t bytes;
	bool present;
};

enum { REGION_BAT, REGION_METADATA, REGIONS };

enum {
	ITEM_FILE_PARAMETERS,
	ITEM_DISK_BYTES,
	ITEM_DISK_ID,
	ITEM_LOGICAL_SECTOR,
	ITEM_PHYSICAL_SECTOR,
	ITEM_PARENT_LOCATOR,
	ITEMS,
};

struct vhdx_state {
	struct source *view; /* the file, with the log's updates; counted */
	struct vhdx_header h;
	bool replayed;
	struct region regions[REGIONS];
	struct item items[ITEMS];
	uint32_t block_bits;
	uint64_t block_bytes;
	uint32_t sector_bytes;
	uint32_t physical_bytes;
	uint32_t chunk_bits; /* payload blocks in a chunk */
	uint64_t blocks;
	uint8_t disk_id[VHDX_GUID_BYTES];
	bool leave_allocated;
	bool has_parent;
	uint8_t linkage[2][VHDX_GUID_BYTES];
	unsigned int linkages;
};

/* ---- vhdx-log.c ---- */

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

/* ---- vhdx-regions.c: headers, regions, items of metadata ---- */

#define VHDX_TABLE_BYTES     (64U << 10) /* of regions; of metadata */
#define VHDX_GUID_TEXT_BYTES 37

/* 2.2.3 */
enum {
	VHDX_REGIONS_CHECKSUM_AT = 4,
	VHDX_REGIONS_COUNT_AT = 8,
	VHDX_REGIONS_AT = 16,
	VHDX_REGION_OFF_AT = 16,
	VHDX_REGION_BYTES_AT = 24,
	VHDX_REGION_REQUIRED_AT = 28,
};

extern const uint64_t vhdx_header_offs[2], vhdx_region_offs[2];
extern const char *const vhdx_region_names[REGIONS];

/* GUIDs as they lie in the file: the first three fields little endian. */
void vhdx_format_guid(char ret[VHDX_GUID_TEXT_BYTES], const uint8_t *g);

/* With or without braces. False: it is none. */
bool vhdx_parse_guid(const char *text, uint8_t *ret);

bool vhdx_is_zero_guid(const uint8_t *guid);

/* False: no sound header lies at @at. */
bool vhdx_decode_header(const uint8_t *buf, uint64_t at,
			struct vhdx_header *ret);

/* 2.2.2: the sound header with the higher number is the current one. */
int vhdx_find_header(struct source *src, struct vhdx_header *ret,
		     struct error *err);

/* Do we support it, and does its log lie in the file? */
int vhdx_check_header(const struct vhdx_header *h, uint64_t file_bytes,
		      struct error *err);

/*
 * The region table at @at, VHDX_TABLE_BYTES of it. 1: it is sound; 0: it is not;
 * or an error.
 */
int vhdx_read_region_table(struct source *view, uint64_t at, uint8_t *buf,
			   struct error *err);

/* 2.2.3: s->regions, inside each other nowhere. Either table will do. */
int vhdx_open_regions(struct vhdx_state *s, struct error *err);

/* 2.6.1: s->items. */
int vhdx_open_metadata(struct vhdx_state *s, struct error *err);

/* Reads item @k, at most @len bytes; absent ones are left alone. */
int vhdx_read_item(struct layer *l, unsigned int k, void *buf, size_t len,
		   struct error *err);

/* ---- vhdx-bat.c: from an offset to its block ---- */

#define VHDX_BAT_CHUNK 256U /* entries between two reads */

/* Where in the BAT the entry of payload block @idx is. */
uint64_t vhdx_payload_entry(const struct vhdx_state *s, uint64_t idx);

/* ... and that of the bitmap of its chunk. */
uint64_t vhdx_bitmap_entry(const struct vhdx_state *s, uint64_t idx);

/* @n BAT entries from @at on. */
int vhdx_read_bat(struct layer *l, uint64_t at, uint64_t *ret, size_t n,
		  struct error *err);

/* Where block @idx's part of its chunk's bitmap is. */
int vhdx_find_bitmap(struct layer *l, uint64_t idx, uint64_t *ret,
		     struct error *err);

/* Is a payload block's state known, and its place one where blocks may be? */
int vhdx_check_entry(const struct vhdx_state *s, uint64_t entry,
		     struct error *err);

/* format_ops.map */
int vhdx_map(struct layer *l, uint64_t guest_off, uint64_t len,
	     struct extent *ret, struct error *err);

/* ---- vhdx-check.c ---- */

/* format_ops.check */
int vhdx_check(struct layer *l, struct check_report *r, struct error *err);

#endif
