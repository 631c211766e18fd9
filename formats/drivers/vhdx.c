/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * VHDX, after [MS-VHDX] (version 20180912). Everything is little endian.
 *
 *	0         file type identifier
 *	64 KiB    header 1		128 KiB   header 2
 *	192 KiB   region table 1	256 KiB   region table 2
 *	1 MiB ..  log, BAT, metadata, blocks, in any order, by whole MiB
 *
 * The BAT has an entry for each payload block and, behind those of a chunk
 * (2^23 sectors), one for the chunk's sector bitmap, in every file. A bitmap's
 * least significant bit is the first sector.
 *
 *	NOT_PRESENT		the parent has it
 *	UNDEFINED ZERO UNMAPPED	zeroes, whatever the parent has
 *	FULLY_PRESENT		data
 *	PARTIALLY_PRESENT	by the bitmap: data, or the parent has it
 *
 * State 5 is what UNMAPPED was in drafts of the format.
 *
 * One good header and one good region table are enough. What the log still
 * has to write is put in front of the file in memory (vhdx-log.c), and all
 * that is read here is read through that. A differencing disk knows its
 * parent by the GUID of the parent's last write of data.
 *
 * Refused are other versions, unknown regions and metadata that are required,
 * a log that cannot be replayed, and tables that contradict the file or each
 * other.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "formats/cursor.h"
#include "formats/drivers/unit-check.h"
#include "formats/drivers/vhdx-inside.h"
#include "formats/drivers/win-name.h"

#define VHDX_BYTES_MAX	    (64ULL << 40)
#define BLOCK_BYTES_MIN	    (1U << 20)
#define BLOCK_BYTES_MAX	    (256U << 20)
#define CHUNK_SECTORS	    (1ULL << 23)
#define TABLE_BYTES	    (64U << 10) /* of regions; of metadata */
#define ENTRIES_MAX	    2047U
#define ENTRY_BYTES	    32U
#define ITEM_BYTES_MAX	    (1U << 20)
#define LOCATOR_BYTES_MAX   (256U << 10)
#define LOCATOR_ENTRY_BYTES 12U

/* BAT entries that one map() looks at, and how many between two reads. */
#define MAP_ENTRIES_MAX (64U << 10)
#define BAT_CHUNK	256U
#define BITMAP_CHUNK	512U

/* What the checker keeps: a number for each block that is there. */
#define CHECK_BLOCKS_MAX (16U << 20)

static const uint64_t header_offs[] = { 64 << 10, 128 << 10 };
static const uint64_t region_offs[] = { 192 << 10, 256 << 10 };

/* 2.2.2 */
enum {
	HEAD_CHECKSUM_AT = 4,
	HEAD_SEQUENCE_AT = 8,
	HEAD_DATA_GUID_AT = 32,
	HEAD_LOG_GUID_AT = 48,
	HEAD_LOG_VERSION_AT = 64,
	HEAD_VERSION_AT = 66,
	HEAD_LOG_BYTES_AT = 68,
	HEAD_LOG_OFF_AT = 72,
};

/* 2.2.3 */
enum {
	REGIONS_CHECKSUM_AT = 4,
	REGIONS_COUNT_AT = 8,
	REGIONS_AT = 16,
	REGION_OFF_AT = 16,
	REGION_BYTES_AT = 24,
	REGION_REQUIRED_AT = 28,
};

/* 2.6.1 */
enum {
	META_COUNT_AT = 10,
	META_AT = 32,
	META_OFF_AT = 16,
	META_BYTES_AT = 20,
	META_FLAGS_AT = 24,
	META_USER = 1 << 0,
	META_REQUIRED = 1 << 2,
};

/* 2.6.2.6 */
enum {
	LOCATOR_COUNT_AT = 18,
	LOCATOR_AT = 20,
	LOCATOR_KEY_OFF_AT = 0,
	LOCATOR_VALUE_OFF_AT = 4,
	LOCATOR_KEY_BYTES_AT = 8,
	LOCATOR_VALUE_BYTES_AT = 10,
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

extern const struct format_ops vhdx_format;

/* GUIDs as they lie in the file: the first three fields little endian. */
static const uint8_t region_guids[REGIONS][VHDX_GUID_BYTES] = {
	[REGION_BAT] = "\x66\x77\xc2\x2d\x23\xf6\x00\x42"
		       "\x9d\x64\x11\x5e\x9b\xfd\x4a\x08",
	[REGION_METADATA] = "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b"
			    "\xb8\xfe\x57\x5f\x05\x0f\x88\x6e",
};

static const char *const region_names[REGIONS] = {
	[REGION_BAT] = "BAT",
	[REGION_METADATA] = "metadata region",
};

static const struct {
	const uint8_t guid[VHDX_GUID_BYTES];
	const char *name;
	uint32_t bytes; /* 0: as long as it is */
	bool needed;
} items[ITEMS] = {
	[ITEM_FILE_PARAMETERS] = { "\x37\x67\xa1\xca\x36\xfa\x43\x4d"
				   "\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b",
				   "file parameters", 8, true },
	[ITEM_DISK_BYTES] = { "\x24\x42\xa5\x2f\x1b\xcd\x76\x48"
			      "\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8",
			      "virtual disk size", 8, true },
	[ITEM_DISK_ID] = { "\xab\x12\xca\xbe\xe6\xb2\x23\x45"
			   "\x93\xef\xc3\x09\xe0\x00\xc7\x46",
			   "virtual disk id", 16, false },
	[ITEM_LOGICAL_SECTOR] = { "\x1d\xbf\x41\x81\x6f\xa9\x09\x47"
				  "\xba\x47\xf2\x33\xa8\xfa\xab\x5f",
				  "logical sector size", 4, true },
	[ITEM_PHYSICAL_SECTOR] = { "\xc7\x48\xa3\xcd\x5d\x44\x71\x44"
				   "\x9c\xc9\xe9\x88\x52\x51\xc5\x56",
				   "physical sector size", 4, false },
	[ITEM_PARENT_LOCATOR] = { "\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45"
				  "\xab\xf7\xd3\xd8\x48\x34\xab\x0c",
				  "parent locator", 0, false },
};

static const uint8_t locator_type[VHDX_GUID_BYTES] =
	"\xb7\xef\x4a\xb0\x9e\xd1\x81\x4a\xb7\x89\x25\xb8\xe9\x44\x59\x13";

#define GUID_TEXT_BYTES 37

static void format_guid(char ret[GUID_TEXT_BYTES], const uint8_t *g)
{
	snprintf(ret, GUID_TEXT_BYTES,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
		 "%02x%02x%02x%02x%02x%02x",
		 g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9],
		 g[10], g[11], g[12], g[13], g[14], g[15]);
}

/* With or without braces. */
static bool parse_guid(const char *text, uint8_t *ret)
{
	static const uint8_t places[] = { 3, 2, 1,  0,	5,  4,	7,  6,
					  8, 9, 10, 11, 12, 13, 14, 15 };
	size_t i, braces = *text == '{';
	unsigned int v;
	const char *p = text + braces;

	for (i = 0; i < VHDX_GUID_BYTES; i++) {
		char pair[3] = { p[0], p[0] ? p[1] : '\0', '\0' };

		if (strspn(pair, "0123456789abcdefABCDEF") != 2)
			return false;
		sscanf(pair, "%x", &v);
		ret[places[i]] = (uint8_t)v;
		p += 2;
		if ((i == 3 || i == 5 || i == 7 || i == 9) && *p++ != '-')
			return false;
	}
	return braces ? !strcmp(p, "}") : !*p;
}

static bool is_zero_guid(const uint8_t *guid)
{
	static const uint8_t zero[VHDX_GUID_BYTES];

	return !memcmp(guid, zero, sizeof(zero));
}

/* CRC-32C of @len bytes, the field itself taken as 0. */
static bool checksum_is_right(const uint8_t *buf, size_t len, size_t field_at)
{
	static const uint8_t zero[4];
	struct cursor c = { .buf = buf, .len = len };
	uint32_t crc = vhdx_crc32c(0, buf, field_at);

	crc = vhdx_crc32c(crc, zero, sizeof(zero));
	crc = vhdx_crc32c(crc, buf + field_at + 4, len - field_at - 4);
	return crc == cursor_le32_at(&c, field_at);
}

/* False: no sound header lies at @at. */
static bool decode_header(const uint8_t *buf, uint64_t at,
			  struct vhdx_header *ret)
{
	struct cursor c = { .buf = buf, .len = VHDX_SECTOR_BYTES };
	struct vhdx_header h = {
		.sequence = cursor_le64_at(&c, HEAD_SEQUENCE_AT),
		.log_version = cursor_le16_at(&c, HEAD_LOG_VERSION_AT),
		.version = cursor_le16_at(&c, HEAD_VERSION_AT),
		.log_bytes = cursor_le32_at(&c, HEAD_LOG_BYTES_AT),
		.log_off = cursor_le64_at(&c, HEAD_LOG_OFF_AT),
		.at = at,
	};

	if (memcmp(buf, "head", 4) ||
	    !checksum_is_right(buf, VHDX_SECTOR_BYTES, HEAD_CHECKSUM_AT))
		return false;
	cursor_copy_at(&c, HEAD_DATA_GUID_AT, h.data_guid, VHDX_GUID_BYTES);
	cursor_copy_at(&c, HEAD_LOG_GUID_AT, h.log_guid, VHDX_GUID_BYTES);
	*ret = h;
	return true;
}

/* 2.2.2: the sound header with the higher number is the current one. */
static int find_header(struct source *src, struct vhdx_header *ret,
		       struct error *err)
{
	uint8_t bufs[2][VHDX_SECTOR_BYTES];
	struct vhdx_header h[2];
	bool good[2] = { false, false };
	unsigned int i;
	int r;

	for (i = 0; i < 2; i++) {
		if (!range_inside(header_offs[i], VHDX_SECTOR_BYTES,
				  src->bytes))
			continue;
		r = source_read(src, bufs[i], VHDX_SECTOR_BYTES, header_offs[i],
				err);
		if (r < 0)
			return r;
		good[i] = decode_header(bufs[i], header_offs[i], &h[i]);
	}
	if (!good[0] && !good[1])
		return error_set(err, -EBADMSG, header_offs[0],
				 "neither header is sound (signature, "
				 "checksum)");
	if (good[0] && good[1] && h[0].sequence == h[1].sequence &&
	    memcmp(bufs[0], bufs[1], VHDX_SECTOR_BYTES))
		return error_set(err, -EBADMSG,
				 header_offs[0] + HEAD_SEQUENCE_AT,
				 "two different headers have the sequence "
				 "number %" PRIu64,
				 h[0].sequence);
	i = !good[0] || (good[1] && h[1].sequence > h[0].sequence);
	*ret = h[i];
	return 0;
}

static int check_header(const struct vhdx_header *h, uint64_t file_bytes,
			struct error *err)
{
	if (h->version != 1)
		return error_set(err, -ENOTSUP, h->at + HEAD_VERSION_AT,
				 "VHDX version %u is not supported, 1 is",
				 h->version);
	if (is_zero_guid(h->log_guid))
		return 0;
	if (h->log_version)
		return error_set(err, -ENOTSUP, h->at + HEAD_LOG_VERSION_AT,
				 "log version %u is not supported, 0 is",
				 h->log_version);
	if (!h->log_bytes || h->log_bytes % VHDX_MIB)
		return error_set(err, -EBADMSG, h->at + HEAD_LOG_BYTES_AT,
				 "log of %" PRIu32 " bytes is not whole MiB",
				 h->log_bytes);
	if (h->log_off < VHDX_MIB || h->log_off % VHDX_MIB ||
	    !range_inside(h->log_off, h->log_bytes, file_bytes))
		return error_set(err, -EBADMSG, h->at + HEAD_LOG_OFF_AT,
				 "log at %" PRIu64 " of %" PRIu32
				 " bytes is not at a whole MiB inside the "
				 "file's %" PRIu64 " bytes",
				 h->log_off, h->log_bytes, file_bytes);
	return 0;
}

/* The region table at @at, if it is sound; else 0. */
static int read_region_table(struct source *view, uint64_t at, uint8_t *buf,
			     struct error *err)
{
	int r;

	if (!range_inside(at, TABLE_BYTES, view->bytes))
		return 0;
	r = source_read(view, buf, TABLE_BYTES, at, err);
	if (r < 0)
		return r;
	return !memcmp(buf, "regi", 4) &&
	       checksum_is_right(buf, TABLE_BYTES, REGIONS_CHECKSUM_AT);
}

/* Takes what it knows of one entry of the region table. */
static int take_region(struct vhdx_state *s, struct cursor *c, uint64_t table,
		       uint32_t i, struct region *ret, struct error *err)
{
	size_t at = REGIONS_AT + (size_t)i * ENTRY_BYTES;
	struct region g = {
		.off = cursor_le64_at(c, at + REGION_OFF_AT),
		.bytes = cursor_le32_at(c, at + REGION_BYTES_AT),
		.at = table + at,
	};
	uint8_t guid[VHDX_GUID_BYTES];
	char text[GUID_TEXT_BYTES];
	unsigned int k;

	cursor_copy_at(c, at, guid, sizeof(guid));
	if (g.off < VHDX_MIB || g.off % VHDX_MIB || !g.bytes ||
	    g.bytes % VHDX_MIB || g.off > INT64_MAX)
		return error_set(err, -EBADMSG, g.at + REGION_OFF_AT,
				 "region %" PRIu32 " at %" PRIu64 " of %" PRIu64
				 " bytes is not of whole MiB "
				 "from 1 MiB on",
				 i, g.off, g.bytes);
	*ret = g;
	for (k = 0; k < REGIONS; k++) {
		if (memcmp(guid, region_guids[k], sizeof(guid)))
			continue;
		if (s->regions[k].bytes)
			return error_set(err, -EBADMSG, g.at,
					 "there are two entries for the %s",
					 region_names[k]);
		s->regions[k] = g;
		return 0;
	}
	format_guid(text, guid);
	if (cursor_le32_at(c, at + REGION_REQUIRED_AT) & 1)
		return error_set(err, -ENOTSUP, g.at,
				 "region %s is required, but not known", text);
	return 0;
}

static int compare_regions(const void *a, const void *b)
{
	const struct region *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

/* @n regions and, behind them, the log. */
static int check_overlaps(struct region *g, size_t n, struct error *err)
{
	size_t i;

	qsort(g, n, sizeof(*g), compare_regions);
	for (i = 1; i < n; i++)
		if (g[i].off - g[i - 1].off < g[i - 1].bytes)
			return error_set(err, -EBADMSG, g[i].at,
					 "regions or log at %" PRIu64
					 " and %" PRIu64 " overlap",
					 g[i - 1].off, g[i].off);
	return 0;
}

static int take_regions(struct vhdx_state *s, const uint8_t *buf,
			uint64_t table, struct region *all, struct error *err)
{
	struct cursor c = { .buf = buf, .len = TABLE_BYTES };
	uint32_t n = cursor_le32_at(&c, REGIONS_COUNT_AT), i, k;
	int r;

	if (n > ENTRIES_MAX)
		return error_set(err, -EFBIG, table + REGIONS_COUNT_AT,
				 "%" PRIu32 " regions are over the limit of %u",
				 n, ENTRIES_MAX);
	for (i = 0; i < n; i++) {
		r = take_region(s, &c, table, i, &all[i], err);
		if (r < 0)
			return r;
	}
	for (k = 0; k < REGIONS; k++)
		if (!s->regions[k].bytes)
			return error_set(err, -EBADMSG, table, "there is no %s",
					 region_names[k]);
	if (s->h.log_bytes && s->h.log_off)
		all[i++] = (struct region){ .off = s->h.log_off,
					    .bytes = s->h.log_bytes,
					    .at = s->h.at + HEAD_LOG_OFF_AT };
	return check_overlaps(all, i, err);
}

/* 2.2.3: either table will do. */
static int open_regions(struct vhdx_state *s, struct error *err)
{
	CLEANUP(freep) uint8_t *buf = malloc(TABLE_BYTES);
	CLEANUP(freep)
	struct region *all = calloc(ENTRIES_MAX + 1, sizeof(*all));
	unsigned int i;
	int r = 0;

	if (!buf || !all)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < ARRAY_SIZE(region_offs); i++) {
		r = read_region_table(s->view, region_offs[i], buf, err);
		if (r < 0)
			return r;
		if (r)
			return take_regions(s, buf, region_offs[i], all, err);
	}
	return error_set(err, -EBADMSG, region_offs[0],
			 "neither region table is sound (signature, checksum)");
}

/* Takes one entry of the metadata table; @at: in the table. */
static int take_item(struct vhdx_state *s, struct cursor *c, size_t at,
		     struct error *err)
{
	const struct region *g = &s->regions[REGION_METADATA];
	uint32_t off = cursor_le32_at(c, at + META_OFF_AT);
	uint32_t bytes = cursor_le32_at(c, at + META_BYTES_AT);
	uint32_t flags = cursor_le32_at(c, at + META_FLAGS_AT);
	uint8_t guid[VHDX_GUID_BYTES];
	char text[GUID_TEXT_BYTES];
	unsigned int k;

	cursor_copy_at(c, at, guid, sizeof(guid));
	format_guid(text, guid);
	if (bytes > ITEM_BYTES_MAX)
		return error_set(err, -EFBIG, g->off + at + META_BYTES_AT,
				 "metadata item %s has %" PRIu32
				 " bytes, the limit is %u",
				 text, bytes, ITEM_BYTES_MAX);
	if (bytes && (off < TABLE_BYTES || !range_inside(off, bytes, g->bytes)))
		return error_set(err, -EBADMSG, g->off + at + META_OFF_AT,
				 "metadata item %s at %" PRIu32
				 " does not lie between the table and the "
				 "region's end at %" PRIu64,
				 text, off, g->bytes);
	for (k = 0; k < ITEMS && !(flags & META_USER); k++) {
		if (memcmp(guid, items[k].guid, sizeof(guid)))
			continue;
		if (s->items[k].present)
			return error_set(err, -EBADMSG, g->off + at,
					 "there are two items %s",
					 items[k].name);
		s->items[k] = (struct item){ .off = g->off + off,
					     .bytes = bytes,
					     .present = true };
		return 0;
	}
	if (flags & META_REQUIRED)
		return error_set(err, -ENOTSUP, g->off + at,
				 "metadata item %s is required, but not known",
				 text);
	return 0;
}

/* Items do not share bytes: what tells one would be told by another. */
static int check_item_overlaps(const struct vhdx_state *s, struct error *err)
{
	unsigned int i, k;

	for (i = 0; i < ITEMS; i++)
		for (k = 0; k < i; k++) {
			const struct item *a = &s->items[i], *b = &s->items[k];

			if (a->off < b->off + b->bytes &&
			    b->off < a->off + a->bytes)
				return error_set(err, -EBADMSG, a->off,
						 "metadata items %s and %s "
						 "overlap at %" PRIu64,
						 items[k].name, items[i].name,
						 max_u64(a->off, b->off));
		}
	return 0;
}

/* 2.6.1 */
static int open_metadata(struct vhdx_state *s, struct error *err)
{
	const struct region *g = &s->regions[REGION_METADATA];
	CLEANUP(freep) uint8_t *buf = malloc(TABLE_BYTES);
	struct cursor c = { .buf = buf, .len = TABLE_BYTES };
	uint32_t n, i;
	int r;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (!range_inside(g->off, TABLE_BYTES, s->view->bytes))
		return error_set(err, -EBADMSG, g->at + REGION_OFF_AT,
				 "metadata region at %" PRIu64
				 " ends past the file's %" PRIu64 " bytes",
				 g->off, s->view->bytes);
	r = source_read(s->view, buf, TABLE_BYTES, g->off, err);
	if (r < 0)
		return r;
	if (memcmp(buf, "metadata", 8))
		return error_set(err, -EBADMSG, g->off,
				 "there is no metadata table at %" PRIu64,
				 g->off);
	n = cursor_le16_at(&c, META_COUNT_AT);
	if (n > ENTRIES_MAX)
		return error_set(err, -EFBIG, g->off + META_COUNT_AT,
				 "%" PRIu32
				 " metadata items are over the limit of %u",
				 n, ENTRIES_MAX);
	for (i = 0; i < n; i++) {
		r = take_item(s, &c, META_AT + (size_t)i * ENTRY_BYTES, err);
		if (r < 0)
			return r;
	}
	for (i = 0; i < ITEMS; i++)
		if (items[i].needed && !s->items[i].present)
			return error_set(err, -EBADMSG, g->off,
					 "there is no metadata item %s",
					 items[i].name);
	return check_item_overlaps(s, err);
}

/* Reads item @k, at most @len bytes; absent ones are left alone. */
static int read_item(struct layer *l, unsigned int k, void *buf, size_t len,
		     struct error *err)
{
	const struct vhdx_state *s = l->state;
	const struct item *it = &s->items[k];

	if (!it->present)
		return 0;
	if (items[k].bytes && it->bytes != items[k].bytes)
		return error_set(err, -EBADMSG, it->off,
				 "metadata item %s has %" PRIu32
				 " bytes, not %" PRIu32,
				 items[k].name, it->bytes, items[k].bytes);
	return layer_read_meta(l, s->view, buf, len, it->off, err);
}

static int read_u32_item(struct layer *l, unsigned int k, uint32_t *ret,
			 struct error *err)
{
	uint32_t v = 0;
	int r = read_item(l, k, &v, sizeof(v), err);

	*ret = le32toh(v);
	return r;
}

static int check_sizes(const struct layer *l, struct error *err)
{
	const struct vhdx_state *s = l->state;

	if (!is_power_of_2(s->block_bytes) ||
	    s->block_bytes < BLOCK_BYTES_MIN ||
	    s->block_bytes > BLOCK_BYTES_MAX)
		return error_set(err, -EBADMSG,
				 s->items[ITEM_FILE_PARAMETERS].off,
				 "block size %" PRIu64
				 " is not a power of two from 1 to 256 MiB",
				 s->block_bytes);
	if (s->sector_bytes != 512 && s->sector_bytes != 4096)
		return error_set(err, -EBADMSG,
				 s->items[ITEM_LOGICAL_SECTOR].off,
				 "logical sector size %" PRIu32
				 " is neither 512 nor 4096",
				 s->sector_bytes);
	if (!l->bytes)
		return error_set(err, -EBADMSG, s->items[ITEM_DISK_BYTES].off,
				 "virtual size is 0");
	if (l->bytes > VHDX_BYTES_MAX)
		return error_set(err, -EFBIG, s->items[ITEM_DISK_BYTES].off,
				 "virtual size %" PRIu64
				 " is over the limit of %llu",
				 l->bytes, VHDX_BYTES_MAX);
	if (l->bytes % s->sector_bytes)
		return error_set(err, -EBADMSG, s->items[ITEM_DISK_BYTES].off,
				 "virtual size %" PRIu64
				 " is not whole sectors of %" PRIu32,
				 l->bytes, s->sector_bytes);
	return 0;
}

/* 2.6.2.1 to 2.6.2.5 */
static int open_items(struct layer *l, struct error *err)
{
	struct vhdx_state *s = l->state;
	uint32_t params[2] = { 0 };
	uint64_t bytes = 0;
	int r;

	r = read_item(l, ITEM_FILE_PARAMETERS, params, sizeof(params), err);
	if (r >= 0)
		r = read_item(l, ITEM_DISK_BYTES, &bytes, sizeof(bytes), err);
	if (r >= 0)
		r = read_item(l, ITEM_DISK_ID, s->disk_id, sizeof(s->disk_id),
			      err);
	if (r >= 0)
		r = read_u32_item(l, ITEM_LOGICAL_SECTOR, &s->sector_bytes,
				  err);
	if (r >= 0)
		r = read_u32_item(l, ITEM_PHYSICAL_SECTOR, &s->physical_bytes,
				  err);
	if (r < 0)
		return r;
	s->block_bytes = le32toh(params[0]);
	s->leave_allocated = le32toh(params[1]) & 1;
	s->has_parent = le32toh(params[1]) >> 1 & 1;
	l->bytes = le64toh(bytes);
	return check_sizes(l, err);
}

/* Where in the BAT the entry of payload block @idx is. */
static uint64_t payload_entry(const struct vhdx_state *s, uint64_t idx)
{
	return idx + (idx >> s->chunk_bits);
}

/* ... and that of the bitmap of its chunk. */
static uint64_t bitmap_entry(const struct vhdx_state *s, uint64_t idx)
{
	uint64_t chunk = idx >> s->chunk_bits;

	return ((chunk + 1) << s->chunk_bits) + chunk;
}

/* 2.5: every relation that vhdx_map() relies on. */
static int check_bat(struct layer *l, struct error *err)
{
	struct vhdx_state *s = l->state;
	const struct region *g = &s->regions[REGION_BAT];
	uint64_t need;

	l->unit_bytes = s->block_bytes;
	s->block_bits = (uint32_t)__builtin_ctzll(s->block_bytes);
	s->chunk_bits = (uint32_t)__builtin_ctzll(
		CHUNK_SECTORS * s->sector_bytes / s->block_bytes);
	s->blocks = div_round_up(l->bytes, s->block_bytes);
	if (!s->blocks)
		return 0;
	need = 1 + (s->has_parent ? bitmap_entry(s, s->blocks - 1)
				  : payload_entry(s, s->blocks - 1));
	if (need > g->bytes / 8)
		return error_set(err, -EBADMSG, g->at + REGION_BYTES_AT,
				 "BAT has room for %" PRIu64
				 " entries, a disk of %" PRIu64
				 " bytes needs %" PRIu64,
				 g->bytes / 8, l->bytes, need);
	if (!range_inside(g->off, need * 8, s->view->bytes))
		return error_set(err, -EBADMSG, g->at + REGION_OFF_AT,
				 "BAT at %" PRIu64 " with %" PRIu64
				 " entries ends past the file's %" PRIu64
				 " bytes",
				 g->off, need, s->view->bytes);
	return 0;
}

/* A piece of the locator as text; NULL: it lies outside, or is none. */
static char *locator_text(const uint8_t *buf, size_t len, uint32_t off,
			  uint16_t bytes)
{
	return range_inside(off, bytes, len)
		       ? win_name_from_utf16(buf + off, bytes, false)
		       : NULL;
}

/* The value of @key in the parent locator; to be freed. */
static char *locator_value(const uint8_t *buf, size_t len, const char *key,
			   uint64_t *ret_at)
{
	struct cursor c = { .buf = buf, .len = len };
	uint32_t n = cursor_le16_at(&c, LOCATOR_COUNT_AT), i, off;
	char *value = NULL;

	for (i = 0; i < n && !value; i++) {
		size_t at = LOCATOR_AT + (size_t)i * LOCATOR_ENTRY_BYTES;
		CLEANUP(freep) char *name = NULL;

		if (!range_inside(at, LOCATOR_ENTRY_BYTES, len))
			break;
		name = locator_text(
			buf, len, cursor_le32_at(&c, at + LOCATOR_KEY_OFF_AT),
			cursor_le16_at(&c, at + LOCATOR_KEY_BYTES_AT));
		if (!name || strcmp(name, key))
			continue;
		off = cursor_le32_at(&c, at + LOCATOR_VALUE_OFF_AT);
		*ret_at = off;
		value = locator_text(
			buf, len, off,
			cursor_le16_at(&c, at + LOCATOR_VALUE_BYTES_AT));
	}
	return value;
}

/* The parent's format: the specification has VHDX alone. As in VHD. */
static const char *parent_format(const struct layer *l,
				 const struct win_names *names)
{
	const char *dot = names->n ? strrchr(names->list[0].name, '.') : NULL;

	if (l->options->force_parent && dot && strcasecmp(dot, ".vhdx") &&
	    strcasecmp(dot, ".avhdx"))
		return NULL;
	return vhdx_format.name;
}

static int take_linkages(struct vhdx_state *s, const uint8_t *buf, size_t len,
			 uint64_t item_off, struct error *err)
{
	static const char *const keys[] = { "parent_linkage",
					    "parent_linkage2" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(keys); i++) {
		uint64_t at = 0;
		CLEANUP(freep)
		char *text = locator_value(buf, len, keys[i], &at);

		if (!text)
			continue;
		if (!parse_guid(text, s->linkage[s->linkages]))
			return error_set(err, -EBADMSG, item_off + at,
					 "%s \"%.40s\" is not a GUID", keys[i],
					 text);
		s->linkages++;
	}
	if (!s->linkages)
		return error_set(err, -EBADMSG, item_off,
				 "the parent locator has no parent_linkage");
	return 0;
}

static int take_locator(struct layer *l, const uint8_t *buf, size_t len,
			struct error *err)
{
	static const char *const keys[] = { "relative_path", "volume_path",
					    "absolute_win32_path" };
	struct vhdx_state *s = l->state;
	uint64_t item_off = s->items[ITEM_PARENT_LOCATOR].off;
	struct win_names names = { 0 };
	size_t i;
	int r;

	if (memcmp(buf, locator_type, VHDX_GUID_BYTES))
		return error_set(err, -ENOTSUP, item_off,
				 "parent locator is of an unknown type");
	r = take_linkages(s, buf, len, item_off, err);
	if (r < 0)
		return r;
	for (i = 0; i < ARRAY_SIZE(keys); i++) {
		uint64_t at = 0;
		char *name = locator_value(buf, len, keys[i], &at);

		if (name && !i)
			win_name_to_local(name);
		win_names_add(&names, name, item_off + at);
	}
	r = win_names_set_parent(l, &names, parent_format(l, &names), err);
	win_names_done(&names);
	return r;
}

/* 2.6.2.6 */
static int open_parent_locator(struct layer *l, struct error *err)
{
	struct vhdx_state *s = l->state;
	const struct item *it = &s->items[ITEM_PARENT_LOCATOR];
	CLEANUP(freep) uint8_t *buf = NULL;
	int r;

	/* The bit has no checksum; no writer leaves a locator behind. */
	if (!s->has_parent && it->present)
		return error_set(err, -EBADMSG,
				 s->items[ITEM_FILE_PARAMETERS].off,
				 "has a parent locator, but is not marked as "
				 "having a parent");
	if (!s->has_parent)
		return 0;
	if (!it->present || it->bytes < LOCATOR_AT)
		return error_set(err, -EBADMSG,
				 s->items[ITEM_FILE_PARAMETERS].off,
				 "has a parent, but no parent locator");
	if (it->bytes > LOCATOR_BYTES_MAX)
		return error_set(err, -EFBIG, it->off,
				 "parent locator of %" PRIu32
				 " bytes is over the limit of %u",
				 it->bytes, LOCATOR_BYTES_MAX);
	buf = malloc(it->bytes);
	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = layer_read_meta(l, s->view, buf, it->bytes, it->off, err);
	return r < 0 ? r : take_locator(l, buf, it->bytes, err);
}

static int open_view(struct layer *l, struct error *err)
{
	struct vhdx_state *s = l->state;

	if (is_zero_guid(s->h.log_guid)) {
		s->view = source_ref(l->src);
		return 0;
	}
	s->replayed = true;
	return vhdx_log_replay(l->src, &s->h, &s->view, err);
}

static int check_identifier(struct source *src, struct error *err)
{
	uint8_t buf[8] = { 0 };
	int r = source_read(src, buf, (size_t)min_u64(sizeof(buf), src->bytes),
			    0, err);

	if (r >= 0 && memcmp(buf, "vhdxfile", 8))
		return error_set(err, -EBADMSG, 0,
				 "not VHDX: no file type identifier");
	return r;
}

static int vhdx_open(struct layer *l, struct error *err)
{
	struct vhdx_state *s = l->state;
	int r;

	r = check_identifier(l->src, err);
	if (r >= 0)
		r = find_header(l->src, &s->h, err);
	if (r >= 0)
		r = check_header(&s->h, l->src->bytes, err);
	if (r >= 0)
		r = open_view(l, err);
	if (r >= 0)
		r = open_regions(s, err);
	if (r >= 0)
		r = open_metadata(s, err);
	if (r >= 0)
		r = open_items(l, err);
	if (r >= 0)
		r = check_bat(l, err);
	if (r >= 0)
		r = open_parent_locator(l, err);
	return r;
}

static void vhdx_close(struct layer *l)
{
	struct vhdx_state *s = l->state;

	source_unref(s->view);
}

static bool is_linked(const struct vhdx_state *s, const uint8_t *data_guid)
{
	unsigned int i;

	for (i = 0; i < s->linkages; i++)
		if (!memcmp(s->linkage[i], data_guid, VHDX_GUID_BYTES))
			return true;
	return false;
}

static int vhdx_check_parent(struct layer *l, struct layer *parent,
			     struct error *err)
{
	const struct vhdx_state *s = l->state, *p = parent->state;
	uint64_t at = s->items[ITEM_PARENT_LOCATOR].off;
	char want[GUID_TEXT_BYTES], is[GUID_TEXT_BYTES];

	if (parent->ops != &vhdx_format)
		return error_set(err, -EBADMSG, at,
				 "parent %s is %s, not VHDX, and has no "
				 "DataWriteGuid: force=parent takes it all the "
				 "same",
				 parent->path, parent->ops->name);
	if (is_linked(s, p->h.data_guid))
		return 0;
	format_guid(want, s->linkage[0]);
	format_guid(is, p->h.data_guid);
	return error_set(err, -EBADMSG, at,
			 "parent %s has the DataWriteGuid %s, not %s: "
			 "force=parent takes it all the same",
			 parent->path, is, want);
}

static bool vhdx_is_parent(struct layer *l, struct source *candidate)
{
	struct vhdx_header h;

	return !check_identifier(candidate, NULL) &&
	       !find_header(candidate, &h, NULL) &&
	       is_linked(l->state, h.data_guid);
}

/* @n BAT entries from @at on. */
static int read_bat(struct layer *l, uint64_t at, uint64_t *ret, size_t n,
		    struct error *err)
{
	const struct vhdx_state *s = l->state;
	size_t i;
	int r;

	r = layer_read_meta(l, s->view, ret, n * 8,
			    s->regions[REGION_BAT].off + at * 8, err);
	if (r < 0)
		return r;
	for (i = 0; i < n; i++)
		ret[i] = le64toh(ret[i]);
	return 0;
}

/* What map() makes of an entry's state. */
static enum extent_kind kind_of(uint64_t entry)
{
	switch (BAT_STATE(entry)) {
	case BLOCK_NOT_PRESENT:
		return EXTENT_HOLE;
	case BLOCK_UNDEFINED:
	case BLOCK_ZERO:
	case BLOCK_UNMAPPED:
	case BLOCK_UNMAPPED_DRAFT:
		return EXTENT_ZERO;
	case BLOCK_FULLY_PRESENT:
		return EXTENT_DATA;
	default:
		return EXTENT_DAMAGED;
	}
}

static bool overlaps(const struct region *g, uint64_t off, uint64_t bytes)
{
	return off < g->off + g->bytes && g->off < off + bytes;
}

/* Does [@off, @off + @bytes) lie over what is not for blocks? NULL: no. */
static const char *lies_over(const struct vhdx_state *s, uint64_t off,
			     uint64_t bytes)
{
	struct region log = { .off = s->h.log_off, .bytes = s->h.log_bytes };
	unsigned int i;

	if (off < VHDX_MIB)
		return "headers";
	for (i = 0; i < REGIONS; i++)
		if (overlaps(&s->regions[i], off, bytes))
			return region_names[i];
	return log.off && overlaps(&log, off, bytes) ? "log" : NULL;
}

/* Is @next, @blocks on, of one run with @first? */
static bool continues(const struct vhdx_state *s, uint64_t first, uint64_t next,
		      uint64_t blocks)
{
	uint64_t off = BAT_OFFSET(first) + (blocks << s->block_bits);

	if (kind_of(first) != kind_of(next))
		return false;
	/* Not into a block that is damage: check_entry() says why. */
	return kind_of(first) != EXTENT_DATA ||
	       (BAT_OFFSET(next) == off && off < s->view->bytes &&
		!lies_over(s, off, s->block_bytes));
}

/*
 * How many blocks from @idx on, at most @max, are one run with the first,
 * whose entry is @first? Chunks' bitmaps stand between their entries.
 */
static uint64_t block_run(struct layer *l, uint64_t idx, uint64_t first,
			  uint64_t max)
{
	const struct vhdx_state *s = l->state;
	uint64_t entries[BAT_CHUNK], run = 1, n, i;

	max = min_u64(max, MAP_ENTRIES_MAX);
	while (run < max) {
		/* To the chunk's end, behind which the bitmap's entry is. */
		n = (1ULL << s->chunk_bits) -
		    ((idx + run) & ((1ULL << s->chunk_bits) - 1));
		n = min_u64(min_u64(n, max - run), BAT_CHUNK);
		if (read_bat(l, payload_entry(s, idx + run), entries, (size_t)n,
			     NULL) < 0)
			break;
		for (i = 0; i < n; i++)
			if (!continues(s, first, entries[i], run + i))
				return run + i;
		run += n;
	}
	return run;
}

/*
 * The run of sectors like the first in the bitmap at @bitmap_off: sets what
 * their bit is, returns how many they are, at most @max.
 */
static int sector_run(struct layer *l, uint64_t bitmap_off, uint64_t first,
		      uint64_t max, bool *ret_bit, uint64_t *ret_run,
		      struct error *err)
{
	const struct vhdx_state *s = l->state;
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
			r = layer_read_meta(l, s->view, buf, (size_t)n,
					    bitmap_off + at, i ? NULL : err);
			if (r < 0 && !i)
				return r;
			if (r < 0)
				break;
		}
		here = buf[at - from] >> ((first + i) % 8) & 1;
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

/* Where block @idx's part of its chunk's bitmap is. */
static int find_bitmap(struct layer *l, uint64_t idx, uint64_t *ret,
		       struct error *err)
{
	const struct vhdx_state *s = l->state;
	uint64_t in_chunk = idx & ((1ULL << s->chunk_bits) - 1), entry, off;
	uint64_t bytes = s->block_bytes / s->sector_bytes / 8;
	int r;

	if (!s->has_parent)
		return error_set(err, -EBADMSG, 0,
				 "block is partially present, but there is no "
				 "parent");
	r = read_bat(l, bitmap_entry(s, idx), &entry, 1, err);
	if (r < 0)
		return r;
	if (BAT_STATE(entry) != BLOCK_FULLY_PRESENT ||
	    lies_over(s, BAT_OFFSET(entry), VHDX_MIB))
		return error_set(err, -EBADMSG, 0,
				 "block is partially present, but its chunk "
				 "has no sector bitmap (entry 0x%" PRIx64 ")",
				 entry);
	off = BAT_OFFSET(entry) + in_chunk * bytes;
	if (!range_inside(off, bytes, s->view->bytes))
		return error_set(err, -EBADMSG, 0,
				 "sector bitmap at %" PRIu64
				 " ends past the file's %" PRIu64 " bytes",
				 off, s->view->bytes);
	*ret = off;
	return 0;
}

static int map_partial(struct layer *l, uint64_t idx, uint64_t entry,
		       uint64_t in_block, uint64_t len, struct extent *ret,
		       struct error *err)
{
	const struct vhdx_state *s = l->state;
	uint64_t first = in_block / s->sector_bytes, bitmap_off, run;
	bool bit;
	int r;

	r = find_bitmap(l, idx, &bitmap_off, err);
	if (r >= 0)
		r = sector_run(l, bitmap_off, first,
			       (in_block + len - 1) / s->sector_bytes - first +
				       1,
			       &bit, &run, err);
	if (r < 0)
		return r;
	len = min_u64(len, run * s->sector_bytes - in_block % s->sector_bytes);
	/* Damage reaches as far as the bits that say that data are there. */
	ret->len = len;
	if (bit)
		return vhdx_view_extent(ret, s->view, l->src, BAT_OFFSET(entry),
					in_block, len, err);
	ret->kind = EXTENT_HOLE;
	return 0;
}

static int check_entry(const struct vhdx_state *s, uint64_t entry,
		       struct error *err)
{
	unsigned int state = BAT_STATE(entry);
	uint64_t off = BAT_OFFSET(entry);
	const char *over;

	if (kind_of(entry) == EXTENT_DAMAGED &&
	    state != BLOCK_PARTIALLY_PRESENT)
		return error_set(err, -EBADMSG, 0,
				 "block state %u is not known", state);
	if (state < BLOCK_FULLY_PRESENT)
		return 0;
	over = lies_over(s, off, s->block_bytes);
	if (over)
		return error_set(err, -EBADMSG, 0,
				 "block at %" PRIu64 " lies over the %s", off,
				 over);
	if (off >= s->view->bytes)
		return error_set(err, -EBADMSG, 0,
				 "block at %" PRIu64
				 " lies behind the file's end at %" PRIu64,
				 off, s->view->bytes);
	return 0;
}

static int vhdx_map(struct layer *l, uint64_t guest_off, uint64_t len,
		    struct extent *ret, struct error *err)
{
	const struct vhdx_state *s = l->state;
	uint64_t idx = guest_off >> s->block_bits;
	uint64_t last = (guest_off + len - 1) >> s->block_bits;
	uint64_t in_block = guest_off & (s->block_bytes - 1);
	uint64_t entry;
	int r;

	r = read_bat(l, payload_entry(s, idx), &entry, 1, err);
	if (r >= 0)
		r = check_entry(s, entry, err);
	if (r < 0)
		return r;
	if (BAT_STATE(entry) == BLOCK_PARTIALLY_PRESENT)
		return map_partial(l, idx, entry, in_block,
				   min_u64(len, s->block_bytes - in_block), ret,
				   err);
	len = min_u64(len, (block_run(l, idx, entry, last - idx + 1)
			    << s->block_bits) -
				   in_block);
	if (kind_of(entry) == EXTENT_DATA)
		return vhdx_view_extent(ret, s->view, l->src, BAT_OFFSET(entry),
					in_block, len, err);
	ret->kind = (uint8_t)kind_of(entry);
	ret->len = len;
	return 0;
}

static void info_guid(struct info_sink *sink, const char *key,
		      const uint8_t *guid)
{
	char text[GUID_TEXT_BYTES];

	format_guid(text, guid);
	sink->text(sink, key, text);
}

static void vhdx_info(struct layer *l, struct info_sink *sink)
{
	const struct vhdx_state *s = l->state;

	sink->text(sink, "subformat",
		   s->has_parent	? "differencing"
		   : s->leave_allocated ? "fixed"
					: "dynamic");
	sink->number(sink, "block-size", s->block_bytes);
	sink->number(sink, "logical-sector-size", s->sector_bytes);
	if (s->physical_bytes)
		sink->number(sink, "physical-sector-size", s->physical_bytes);
	info_guid(sink, "data-write-guid", s->h.data_guid);
	if (s->items[ITEM_DISK_ID].present)
		info_guid(sink, "virtual-disk-id", s->disk_id);
	sink->number(sink, "log-size", s->h.log_bytes);
	sink->flag(sink, "log-replayed-in-memory", s->replayed);
	if (s->linkages)
		info_guid(sink, "parent-linkage", s->linkage[0]);
	if (s->linkages > 1)
		info_guid(sink, "parent-linkage2", s->linkage[1]);
}

/* A used range, in MiB. */
struct used {
	uint64_t mib;
	uint32_t mibs;
};

struct checker {
	struct check_report *r;
	struct used *list;
	size_t n, room;
	uint64_t previous; /* offset of the block before, 0: none */
};

static int use(struct checker *k, uint64_t off, uint64_t bytes,
	       struct error *err)
{
	struct used *grown;

	if (k->n == k->room) {
		if (k->room >= CHECK_BLOCKS_MAX)
			return error_set(err, -EFBIG, 0,
					 "more than %u blocks are too many to "
					 "be checked",
					 CHECK_BLOCKS_MAX);
		k->room = k->room ? 2 * k->room : 1024;
		grown = reallocarray(k->list, k->room, sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		k->list = grown;
	}
	k->list[k->n++] =
		(struct used){ off / VHDX_MIB, (uint32_t)(bytes / VHDX_MIB) };
	return 0;
}

/* A payload block that says it is there. */
static int check_payload(struct layer *l, struct checker *k, uint64_t idx,
			 uint64_t entry, struct error *err)
{
	const struct vhdx_state *s = l->state;
	uint64_t off = BAT_OFFSET(entry), bitmap_off;
	struct error why = { 0 };

	if (check_entry(s, entry, &why) < 0 ||
	    (BAT_STATE(entry) == BLOCK_PARTIALLY_PRESENT &&
	     find_bitmap(l, idx, &bitmap_off, &why) < 0)) {
		report_corrupt(k->r, "block %" PRIu64 ": %.100s", idx, why.msg);
		return 0;
	}
	if (BAT_RESERVED(entry))
		report_corrupt(
			k->r,
			"block %" PRIu64
			": reserved bits are set in its entry 0x%" PRIx64,
			idx, entry);
	/* Reserved, and Hyper-V refuses it; but qemu before 2.3 wrote these. */
	if (BAT_STATE(entry) == BLOCK_ZERO && off)
		report_corrupt(k->r,
			       "block %" PRIu64
			       " of zeroes has a place, %" PRIu64,
			       idx, off);
	if (BAT_STATE(entry) < BLOCK_FULLY_PRESENT)
		return 0;
	if (min_u64(s->block_bytes, l->bytes - (idx << s->block_bits)) >
	    s->view->bytes - off)
		report_corrupt(k->r,
			       "block %" PRIu64 " at %" PRIu64
			       " ends past the file's %" PRIu64 " bytes",
			       idx, off, s->view->bytes);
	k->r->allocated_units++;
	if (k->previous && off != k->previous + s->block_bytes)
		k->r->fragmented_units++;
	k->previous = off;
	return use(k, off, s->block_bytes, err);
}

static int check_bitmap(struct layer *l, struct checker *k, uint64_t chunk,
			uint64_t entry, struct error *err)
{
	const struct vhdx_state *s = l->state;
	unsigned int state = BAT_STATE(entry);
	uint64_t off = BAT_OFFSET(entry);

	if (state == BLOCK_NOT_PRESENT)
		return 0;
	if (state != BLOCK_FULLY_PRESENT) {
		report_corrupt(k->r,
			       "sector bitmap of chunk %" PRIu64
			       " has the state %u, which is not known",
			       chunk, state);
		return 0;
	}
	if (off < VHDX_MIB || !range_inside(off, VHDX_MIB, s->view->bytes)) {
		report_corrupt(k->r,
			       "sector bitmap of chunk %" PRIu64 " at %" PRIu64
			       " does not lie inside the file",
			       chunk, off);
		return 0;
	}
	return use(k, off, VHDX_MIB, err);
}

/* How many BAT entries from @at on lie in a hole of the file: all zero. */
static uint64_t empty_entries(struct layer *l, uint64_t at, uint64_t max)
{
	const struct vhdx_state *s = l->state;
	uint64_t off = s->regions[REGION_BAT].off + at * 8, len;
	bool hole;

	if (s->view != l->src ||
	    source_find_hole(l->src, off, max * 8, &hole, &len) < 0 || !hole)
		return 0;
	return len / 8;
}

static int check_entries(struct layer *l, struct checker *k, struct error *err)
{
	const struct vhdx_state *s = l->state;
	uint64_t total, per = (1ULL << s->chunk_bits) + 1;
	uint64_t entries[BAT_CHUNK], at, n, i;
	int r;

	/* What is behind the disk's must be empty. */
	total = s->regions[REGION_BAT].bytes / 8;
	if (s->view->bytes > s->regions[REGION_BAT].off)
		total = min_u64(total,
				(s->view->bytes - s->regions[REGION_BAT].off) /
					8);
	for (at = 0; at < total; at += n) {
		n = empty_entries(l, at, total - at);
		if (n)
			continue;
		n = min_u64(total - at, BAT_CHUNK);
		r = read_bat(l, at, entries, (size_t)n, err);
		for (i = 0; i < n && r >= 0; i++) {
			uint64_t chunk = (at + i) / per, in = (at + i) % per;
			uint64_t idx = (chunk << s->chunk_bits) + in;

			if (in == per - 1)
				r = check_bitmap(l, k, chunk, entries[i], err);
			else if (idx < s->blocks)
				r = check_payload(l, k, idx, entries[i], err);
			else if (BAT_STATE(entries[i]) >= BLOCK_FULLY_PRESENT)
				report_corrupt(k->r,
					       "block %" PRIu64
					       " lies behind the disk's end at "
					       "%" PRIu64,
					       idx, l->bytes);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static int compare_used(const void *a, const void *b)
{
	const struct used *x = a, *y = b;

	return x->mib < y->mib ? -1 : x->mib > y->mib;
}

/*
 * Nothing may lie over anything. What is between is no leak: a writer may
 * keep room in advance, and blocks that were unmapped leave theirs.
 */
static void check_uses(struct checker *k)
{
	uint64_t end = 1;
	size_t i;

	if (k->n)
		qsort(k->list, k->n, sizeof(*k->list), compare_used);
	for (i = 0; i < k->n; i++) {
		const struct used *u = &k->list[i];

		if (u->mib < end)
			report_corrupt(k->r,
				       "what lies at %" PRIu64
				       " overlaps what ends at %" PRIu64,
				       u->mib * VHDX_MIB, end * VHDX_MIB);
		end = max_u64(end, u->mib + u->mibs);
	}
	k->r->image_end_off = end * VHDX_MIB;
}

/* 2.2.2: of two, the other is from an earlier change, or was never written. */
static int check_header_copy(struct source *src, uint64_t at,
			     struct check_report *r, struct error *err)
{
	uint8_t buf[VHDX_SECTOR_BYTES];
	static const uint8_t never[VHDX_SECTOR_BYTES];
	struct vhdx_header h;
	int ret;

	if (!range_inside(at, sizeof(buf), src->bytes))
		return 0;
	ret = source_read(src, buf, sizeof(buf), at, err);
	if (ret < 0)
		return ret;
	if (!decode_header(buf, at, &h) && memcmp(buf, never, sizeof(buf)))
		report_corrupt(r, "header at %" PRIu64 " is damaged", at);
	return 0;
}

/* Either will do to read, but both should be there. */
static int check_copies(struct layer *l, struct check_report *r,
			struct error *err)
{
	const struct vhdx_state *s = l->state;
	CLEANUP(freep) uint8_t *buf = calloc(1, TABLE_BYTES);
	uint32_t sum[2];
	bool good = true;
	unsigned int i;
	int ret;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < 2; i++) {
		ret = read_region_table(s->view, region_offs[i], buf, err);
		if (ret < 0)
			return ret;
		if (!ret)
			report_corrupt(r,
				       "region table at %" PRIu64 " is damaged",
				       region_offs[i]);
		sum[i] = vhdx_crc32c(0, buf, TABLE_BYTES);
		good = good && ret;
		ret = check_header_copy(l->src, header_offs[i], r, err);
		if (ret < 0)
			return ret;
	}
	if (good && sum[0] != sum[1])
		report_corrupt(r, "the two region tables differ");
	return 0;
}

static int vhdx_check(struct layer *l, struct check_report *r,
		      struct error *err)
{
	const struct vhdx_state *s = l->state;
	struct checker k = { .r = r };
	unsigned int i;
	int ret;

	r->total_units = s->blocks;
	ret = check_copies(l, r, err);
	if (ret >= 0)
		ret = check_entries(l, &k, err);
	for (i = 0; i < REGIONS && ret >= 0; i++)
		ret = use(&k, s->regions[i].off, s->regions[i].bytes, err);
	if (ret >= 0 && s->h.log_bytes && s->h.log_off)
		ret = use(&k, s->h.log_off, s->h.log_bytes, err);
	if (ret >= 0)
		check_uses(&k);
	free(k.list);
	return ret;
}

const struct format_ops vhdx_format = {
	.name = "vhdx",
	.glance_name = "vhdx",
	.magic = { { 0, 8, "vhdxfile" } },
	.state_bytes = sizeof(struct vhdx_state),
	.open = vhdx_open,
	.check_parent = vhdx_check_parent,
	.is_parent = vhdx_is_parent,
	.close = vhdx_close,
	.map = vhdx_map,
	.info = vhdx_info,
	.check = vhdx_check,
};
