/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * VMDK, after VMware's "Virtual Disk Format 5.0"; COWD and seSparse as files
 * of ESX have them.
 *
 * A disk is a descriptor (vmdk-descriptor.c) and extents, one behind the
 * other: flat files, sparse files, zeroes. A sparse file:
 *
 *	hosted ("KDMV")  header | descriptor | redundant directory and tables
 *			 | directory | tables | grains
 *	streamOptimized  header | descriptor | grains, each behind its sector
 *			 and size, and tables between | directory | footer (a
 *			 header that knows where the directory is) | end mark
 *	COWD             header (2048 bytes) | directory | tables | grains
 *	seSparse         header | volatile header | journal | directory |
 *			 tables | bitmaps | grains
 *
 *	guest offset:  | directory index | table index | offset in grain |
 *
 * The hosted sparse file of a disk of one file carries the descriptor itself;
 * that names the file as it was called when it was made, so in it the first
 * SPARSE extent is the file at hand. A sparse file without a descriptor is a
 * disk of its own.
 *
 * Extents of no access are zeroes: nothing tells what is behind them, and
 * their room in the disk must be kept. Devices (fullDevice, partitionedDevice,
 * raw device maps) and custom disks are refused.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "formats/cursor.h"
#include "formats/drivers/vmdk-inside.h"

/* Hosted sparse header and footer */
enum {
	HOSTED_MAGIC_AT = 0,
	HOSTED_VERSION_AT = 4,
	HOSTED_FLAGS_AT = 8,
	HOSTED_CAPACITY_AT = 12,
	HOSTED_GRAIN_AT = 20,
	HOSTED_DESCRIPTOR_OFF_AT = 28,
	HOSTED_DESCRIPTOR_SECTORS_AT = 36,
	HOSTED_TABLE_ENTRIES_AT = 44,
	HOSTED_RGD_OFF_AT = 48,
	HOSTED_GD_OFF_AT = 56,
	HOSTED_OVERHEAD_AT = 64,
	HOSTED_UNCLEAN_AT = 72,
	HOSTED_NEWLINES_AT = 73,
	HOSTED_COMPRESSION_AT = 77,
	HOSTED_HEADER_BYTES = 512,
};

#define HOSTED_MAGIC	   0x564d444bU /* "KDMV" */
#define HOSTED_VERSION_MAX 3U
#define HOSTED_ENTRIES_MAX 512U
#define GD_AT_END	   UINT64_MAX

enum {
	FLAG_NEWLINES = 1 << 0,
	FLAG_REDUNDANT = 1 << 1,
	FLAG_ZERO_ENTRIES = 1 << 2,
	FLAG_COMPRESSED = 1 << 16,
	FLAG_MARKERS = 1 << 17,
};

enum { COMPRESSION_NONE = 0, COMPRESSION_DEFLATE = 1 };

/* Markers of streamOptimized files */
enum {
	MARKER_VALUE_AT = 0,
	MARKER_SIZE_AT = 8,
	MARKER_TYPE_AT = 12, /* of metadata; a grain's stream begins here */
	MARKER_BYTES = 16,
	GRAIN_HEADER_BYTES = 12,
	MARKER_FOOTER = 3,
};

/* How far from the file's end the footer is looked for: padding follows it. */
#define FOOTER_SEARCH_BYTES (64U << 10)

/* COWD header */
enum {
	COWD_MAGIC_AT = 0,
	COWD_VERSION_AT = 4,
	COWD_FLAGS_AT = 8,
	COWD_CAPACITY_AT = 12,
	COWD_GRAIN_AT = 16,
	COWD_GD_OFF_AT = 20,
	COWD_GD_ENTRIES_AT = 24,
	COWD_PARENT_AT = 32, /* in a root: cylinders, heads, sectors */
	COWD_PARENT_BYTES = 1024,
	COWD_GEOMETRY_BYTES = 12,
	COWD_PARENT_GENERATION_AT = 1056,
	COWD_GENERATION_AT = 1060,
	COWD_UNCLEAN_AT = 1648,
	COWD_HEADER_BYTES = 2048,
};

#define COWD_MAGIC	   0x44574f43U /* "COWD" */
#define COWD_TABLE_ENTRIES 4096U

/* seSparse constant and volatile headers; all fields are 64 bits */
enum {
	SE_MAGIC_AT = 0,
	SE_VERSION_AT = 8,
	SE_CAPACITY_AT = 16,
	SE_GRAIN_AT = 24,
	SE_TABLE_SECTORS_AT = 32,
	SE_FLAGS_AT = 40,
	SE_VOLATILE_OFF_AT = 80,
	SE_JOURNAL_HEADER_OFF_AT = 96,
	SE_JOURNAL_OFF_AT = 112,
	SE_GD_OFF_AT = 128,
	SE_GD_SECTORS_AT = 136,
	SE_TABLES_OFF_AT = 144,
	SE_TABLES_SECTORS_AT = 152,
	SE_FREE_OFF_AT = 160,
	SE_BACKMAP_OFF_AT = 176,
	SE_GRAINS_OFF_AT = 192,
	SE_HEADER_BYTES = 512,
	SE_VOLATILE_MAGIC_AT = 0,
	SE_VOLATILE_REPLAY_AT = 24,
	SE_VOLATILE_BYTES = 32,
};

#define SE_MAGIC	  0x00000000cafebabeULL
#define SE_VERSION	  0x0000000200000001ULL
#define SE_VOLATILE_MAGIC 0x00000000cafecafeULL

/* seSparse entries */
#define SE_TYPE_SHIFT	   60U
#define SE_DIRECTORY_TABLE 1U
#define SE_DIRECTORY_REST  0x0fffffff00000000ULL
#define SE_GRAIN_NONE	   0U
#define SE_GRAIN_UNMAPPED  1U
#define SE_GRAIN_ZERO	   2U
#define SE_GRAIN_DATA	   3U

/* Table bytes that map() reads at once, and tables that it looks into. */
#define CHUNK_BYTES    2048U
#define MAP_TABLES_MAX 4096U

static uint64_t sectors(uint64_t n)
{
	return n * VMDK_SECTOR_BYTES;
}

/* Do @n sectors have a number of bytes? */
static bool sectors_fit(uint64_t n)
{
	return n <= INT64_MAX / VMDK_SECTOR_BYTES;
}

static int check_capacity(uint64_t n, uint64_t at, struct error *err)
{
	if (!sectors_fit(n))
		return error_set(err, -EFBIG, at,
				 "capacity of %" PRIu64
				 " sectors is over the limit of 2^63 bytes",
				 n);
	return 0;
}

/* Grain and table sizes; in sectors and entries. */
static int check_grain(uint64_t grain, uint64_t at, struct error *err)
{
	if (!grain || grain > VMDK_GRAIN_SECTORS_MAX)
		return error_set(err, -EBADMSG, at,
				 "grain of %" PRIu64 " sectors is not in 1..%u",
				 grain, VMDK_GRAIN_SECTORS_MAX);
	return 0;
}

static uint64_t table_bytes(const struct vmdk_extent *e)
{
	return (uint64_t)e->table_entries * e->entry_bytes;
}

/* What one table maps. */
static uint64_t table_span(const struct vmdk_extent *e)
{
	return e->grain_bytes * e->table_entries;
}

static uint64_t header_bytes(const struct vmdk_extent *e)
{
	return e->kind == VMDK_KIND_COWD ? COWD_HEADER_BYTES
					 : HOSTED_HEADER_BYTES;
}

static bool directory_inside(const struct vmdk_extent *e, uint64_t off)
{
	return off >= header_bytes(e) &&
	       range_inside(off, e->gd_entries * e->entry_bytes, e->src->bytes);
}

/* How many directory entries; is there a directory for them? */
static int check_directory(struct vmdk_extent *e, uint64_t at,
			   struct error *err)
{
	e->gd_entries = div_round_up(e->capacity, table_span(e));
	if (e->gd_entries > VMDK_GD_ENTRIES_MAX)
		return error_set(err, -EFBIG, at,
				 "grain directory of %" PRIu64
				 " entries is over the limit of %u",
				 e->gd_entries, VMDK_GD_ENTRIES_MAX);
	if (!e->gd_entries)
		return 0;
	if (e->rgd_off && !directory_inside(e, e->rgd_off))
		e->rgd_off = 0;
	e->gd_lost = !directory_inside(e, e->gd_off);
	if (e->gd_lost && !e->rgd_off)
		return error_set(err, -EBADMSG, at,
				 "grain directory at %" PRIu64 " with %" PRIu64
				 " entries does not lie inside the file's "
				 "%" PRIu64 " bytes",
				 e->gd_off, e->gd_entries, e->src->bytes);
	return 0;
}

struct hosted_header {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint64_t capacity;
	uint64_t grain;
	uint64_t descriptor_off;
	uint64_t descriptor_sectors;
	uint32_t table_entries;
	uint64_t rgd_off;
	uint64_t gd_off;
	uint64_t overhead;
	uint8_t unclean;
	uint8_t newlines[4];
	uint16_t compression;
};

static int hosted_decode(const uint8_t *buf, size_t len,
			 struct hosted_header *ret, struct error *err)
{
	struct cursor c = { .buf = buf, .len = len };
	struct hosted_header h = {
		.magic = cursor_le32_at(&c, HOSTED_MAGIC_AT),
		.version = cursor_le32_at(&c, HOSTED_VERSION_AT),
		.flags = cursor_le32_at(&c, HOSTED_FLAGS_AT),
		.capacity = cursor_le64_at(&c, HOSTED_CAPACITY_AT),
		.grain = cursor_le64_at(&c, HOSTED_GRAIN_AT),
		.descriptor_off = cursor_le64_at(&c, HOSTED_DESCRIPTOR_OFF_AT),
		.descriptor_sectors =
			cursor_le64_at(&c, HOSTED_DESCRIPTOR_SECTORS_AT),
		.table_entries = cursor_le32_at(&c, HOSTED_TABLE_ENTRIES_AT),
		.rgd_off = cursor_le64_at(&c, HOSTED_RGD_OFF_AT),
		.gd_off = cursor_le64_at(&c, HOSTED_GD_OFF_AT),
		.overhead = cursor_le64_at(&c, HOSTED_OVERHEAD_AT),
		.unclean = cursor_u8_at(&c, HOSTED_UNCLEAN_AT),
		.compression = cursor_le16_at(&c, HOSTED_COMPRESSION_AT),
	};

	cursor_copy_at(&c, HOSTED_NEWLINES_AT, h.newlines, 4);
	if (c.short_read)
		return error_set(err, -EBADMSG, len,
				 "sparse extent header is cut off after %zu "
				 "bytes",
				 len);
	*ret = h;
	return 0;
}

/* "\n \r\n" as a transfer that converts line ends leaves it. */
static bool newlines_converted(const struct hosted_header *h)
{
	return h->flags & FLAG_NEWLINES &&
	       (!memcmp(h->newlines, "\r\n \r", 4) ||
		!memcmp(h->newlines, "\n \n", 3));
}

/* @at: where in the file the header lies, for messages. */
static int hosted_check(const struct hosted_header *h, uint64_t at,
			struct error *err)
{
	int r;

	if (h->magic != HOSTED_MAGIC)
		return error_set(err, -EBADMSG, at + HOSTED_MAGIC_AT,
				 "not a sparse extent: magic 0x%08" PRIx32,
				 h->magic);
	if (!h->version || h->version > HOSTED_VERSION_MAX)
		return error_set(err, -ENOTSUP, at + HOSTED_VERSION_AT,
				 "sparse extent version %" PRIu32
				 " is not supported, 1 to %u are",
				 h->version, HOSTED_VERSION_MAX);
	if (newlines_converted(h))
		return error_set(err, -EBADMSG, at + HOSTED_NEWLINES_AT,
				 "was damaged by a transfer that converted "
				 "its line ends: transfer it as binary");
	if (h->compression > COMPRESSION_DEFLATE)
		return error_set(err, -ENOTSUP, at + HOSTED_COMPRESSION_AT,
				 "compression %u is not supported; 0 (none) "
				 "and 1 (deflate) are",
				 h->compression);
	if (h->flags & FLAG_COMPRESSED && !h->compression)
		return error_set(err, -EBADMSG, at + HOSTED_COMPRESSION_AT,
				 "grains are compressed, but by no method");
	r = check_capacity(h->capacity, at + HOSTED_CAPACITY_AT, err);
	if (r >= 0)
		r = check_grain(h->grain, at + HOSTED_GRAIN_AT, err);
	if (r < 0)
		return r;
	if (!is_power_of_2(h->grain))
		return error_set(err, -EBADMSG, at + HOSTED_GRAIN_AT,
				 "grain of %" PRIu64
				 " sectors is not a power of two",
				 h->grain);
	if (h->compression && sectors(h->grain) > VMDK_COMPRESSED_GRAIN_MAX)
		return error_set(err, -EFBIG, at + HOSTED_GRAIN_AT,
				 "compressed grain of %" PRIu64
				 " bytes is over the limit of %u",
				 sectors(h->grain), VMDK_COMPRESSED_GRAIN_MAX);
	if (!h->table_entries || h->table_entries > HOSTED_ENTRIES_MAX)
		return error_set(err, -EBADMSG, at + HOSTED_TABLE_ENTRIES_AT,
				 "grain table of %" PRIu32
				 " entries is not in 1..%u",
				 h->table_entries, HOSTED_ENTRIES_MAX);
	return 0;
}

/* Is the sector at @p, with the one before it, a footer and its marker? */
static bool is_footer(const uint8_t *marker)
{
	struct cursor c = { .buf = marker, .len = 2 * VMDK_SECTOR_BYTES };

	return cursor_le32_at(&c, MARKER_SIZE_AT) == 0 &&
	       cursor_le32_at(&c, MARKER_TYPE_AT) == MARKER_FOOTER &&
	       cursor_le32_at(&c, VMDK_SECTOR_BYTES) == HOSTED_MAGIC;
}

/*
 * "Stream-Optimized Compressed Sparse Extents": footer marker, footer, end
 * mark are the last three sectors. Padding of whatever length may follow.
 */
static int find_footer(struct source *src, struct hosted_header *ret,
		       uint64_t *ret_at, struct error *err)
{
	uint64_t end = round_down(src->bytes, VMDK_SECTOR_BYTES);
	size_t len = (size_t)min_u64(end, FOOTER_SEARCH_BYTES), at;
	CLEANUP(freep) uint8_t *buf = malloc(FOOTER_SEARCH_BYTES);
	int r;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = source_read(src, buf, len, end - len, err);
	if (r < 0)
		return r;
	for (at = len; at >= 2 * VMDK_SECTOR_BYTES; at -= VMDK_SECTOR_BYTES) {
		const uint8_t *marker = buf + at - 2 * VMDK_SECTOR_BYTES;

		if (!is_footer(marker))
			continue;
		*ret_at = end - len + at - VMDK_SECTOR_BYTES;
		return hosted_decode(marker + VMDK_SECTOR_BYTES,
				     HOSTED_HEADER_BYTES, ret, err);
	}
	return error_set(err, -EBADMSG, HOSTED_GD_OFF_AT,
			 "grain directory is behind the data, but there is no "
			 "footer that tells where: the file's end is missing");
}

static int hosted_take_footer(struct hosted_header *h, struct source *src,
			      struct error *err)
{
	struct hosted_header footer;
	uint64_t at = 0;
	int r;

	r = find_footer(src, &footer, &at, err);
	if (r >= 0)
		r = hosted_check(&footer, at, err);
	if (r < 0)
		return r;
	if (footer.gd_off == GD_AT_END)
		return error_set(err, -EBADMSG, at + HOSTED_GD_OFF_AT,
				 "footer says that the grain directory's place "
				 "is in a footer");
	if (h->capacity &&
	    (h->capacity != footer.capacity || h->grain != footer.grain ||
	     h->table_entries != footer.table_entries))
		return error_set(
			err, -EBADMSG, at + HOSTED_CAPACITY_AT,
			"footer has %" PRIu64 " sectors in grains of "
			"%" PRIu64 " and tables of %" PRIu32
			", the header %" PRIu64 ", %" PRIu64 " and %" PRIu32,
			footer.capacity, footer.grain, footer.table_entries,
			h->capacity, h->grain, h->table_entries);
	/* The descriptor is where the header says. */
	footer.descriptor_off = h->descriptor_off;
	footer.descriptor_sectors = h->descriptor_sectors;
	*h = footer;
	return 0;
}

static bool off_fits(uint64_t sector)
{
	return sector <= UINT64_MAX / VMDK_SECTOR_BYTES;
}

static void hosted_adopt(struct vmdk_extent *e, const struct hosted_header *h)
{
	e->kind = VMDK_KIND_HOSTED;
	e->version = h->version;
	e->flags = h->flags;
	e->capacity = e->bytes = sectors(h->capacity);
	e->grain_bytes = sectors(h->grain);
	e->table_entries = h->table_entries;
	e->entry_bytes = 4;
	e->gd_off = off_fits(h->gd_off) ? sectors(h->gd_off) : UINT64_MAX;
	e->rgd_off = h->flags & FLAG_REDUNDANT && off_fits(h->rgd_off)
			     ? sectors(h->rgd_off)
			     : 0;
	e->zero_entries = h->flags & FLAG_ZERO_ENTRIES;
	e->compressed = h->compression == COMPRESSION_DEFLATE;
	e->markers = h->flags & FLAG_MARKERS;
	e->dirty = h->unclean;
	e->overhead = off_fits(h->overhead) ? sectors(h->overhead) : 0;
}

/* The place of the descriptor, checked when it is read. */
static int hosted_adopt_descriptor(struct vmdk_extent *e,
				   const struct hosted_header *h,
				   struct error *err)
{
	if (!h->descriptor_off && h->descriptor_sectors)
		return error_set(err, -EBADMSG, HOSTED_DESCRIPTOR_OFF_AT,
				 "descriptor of %" PRIu64
				 " sectors has no place",
				 h->descriptor_sectors);
	if (!h->descriptor_off)
		return 0;
	e->descriptor_off = off_fits(h->descriptor_off)
				    ? sectors(h->descriptor_off)
				    : UINT64_MAX;
	e->descriptor_bytes = off_fits(h->descriptor_sectors)
				      ? sectors(h->descriptor_sectors)
				      : UINT64_MAX;
	return 0;
}

/*
 * "overHead" is the room of all metadata, which writers of uncompressed
 * extents lay out in advance: in front of it tables, behind it grains. Only
 * where it is so for directories and descriptor it is believed.
 */
static void hosted_adopt_overhead(struct vmdk_extent *e)
{
	uint64_t gd_bytes = e->gd_entries * e->entry_bytes;

	if (e->compressed || e->overhead > e->src->bytes)
		return;
	if (e->gd_lost || !range_inside(e->gd_off, gd_bytes, e->overhead))
		return;
	if (e->rgd_off && !range_inside(e->rgd_off, gd_bytes, e->overhead))
		return;
	if (e->descriptor_off &&
	    !range_inside(e->descriptor_off, e->descriptor_bytes, e->overhead))
		return;
	e->grains_from = e->overhead;
}

static int hosted_open(struct vmdk_extent *e, const uint8_t *head, size_t len,
		       struct error *err)
{
	struct hosted_header h;
	int r;

	r = hosted_decode(head, len, &h, err);
	if (r < 0)
		return r;
	r = hosted_adopt_descriptor(e, &h, err);
	if (r < 0)
		return r;
	/* Only an envelope of the descriptor: the disk is elsewhere. */
	if (h.magic == HOSTED_MAGIC && !h.capacity && h.descriptor_off)
		return 0;
	r = hosted_check(&h, 0, err);
	if (r >= 0 && h.gd_off == GD_AT_END)
		r = hosted_take_footer(&h, e->src, err);
	if (r < 0)
		return r;
	hosted_adopt(e, &h);
	r = check_directory(e, HOSTED_GD_OFF_AT, err);
	if (r >= 0)
		hosted_adopt_overhead(e);
	return r;
}

static int cowd_open(struct vmdk_extent *e, const uint8_t *head, size_t len,
		     struct error *err)
{
	struct cursor c = { .buf = head, .len = len };
	uint32_t version = cursor_le32_at(&c, COWD_VERSION_AT);
	uint32_t grain = cursor_le32_at(&c, COWD_GRAIN_AT);
	uint32_t entries = cursor_le32_at(&c, COWD_GD_ENTRIES_AT);
	int r;

	e->kind = VMDK_KIND_COWD;
	e->version = version;
	e->flags = cursor_le32_at(&c, COWD_FLAGS_AT);
	e->capacity = e->bytes = sectors(cursor_le32_at(&c, COWD_CAPACITY_AT));
	e->gd_off = sectors(cursor_le32_at(&c, COWD_GD_OFF_AT));
	e->dirty = cursor_le32_at(&c, COWD_UNCLEAN_AT);
	e->overhead = COWD_HEADER_BYTES;
	if (c.short_read)
		return error_set(err, -EBADMSG, len,
				 "COWD header is cut off after %zu bytes", len);
	if (version != 1)
		return error_set(err, -ENOTSUP, COWD_VERSION_AT,
				 "COWD version %" PRIu32
				 " is not supported, 1 is",
				 version);
	r = check_grain(grain, COWD_GRAIN_AT, err);
	if (r < 0)
		return r;
	e->grain_bytes = sectors(grain);
	e->table_entries = COWD_TABLE_ENTRIES;
	e->entry_bytes = 4;
	r = check_directory(e, COWD_GD_OFF_AT, err);
	if (r < 0)
		return r;
	if (entries != e->gd_entries)
		return error_set(err, -EBADMSG, COWD_GD_ENTRIES_AT,
				 "grain directory has %" PRIu32
				 " entries, a disk of %" PRIu64
				 " bytes needs %" PRIu64,
				 entries, e->capacity, e->gd_entries);
	return 0;
}

/* What a replay would change is not in the tables yet. */
static int se_check_journal(struct vmdk_extent *e, uint64_t off_sectors,
			    struct error *err)
{
	uint8_t buf[SE_VOLATILE_BYTES];
	struct cursor c = { .buf = buf, .len = sizeof(buf) };
	int r;

	if (!off_fits(off_sectors) ||
	    !range_inside(sectors(off_sectors), sizeof(buf), e->src->bytes))
		return error_set(err, -EBADMSG, SE_VOLATILE_OFF_AT,
				 "seSparse volatile header at sector %" PRIu64
				 " does not lie inside the file",
				 off_sectors);
	r = source_read(e->src, buf, sizeof(buf), sectors(off_sectors), err);
	if (r < 0)
		return r;
	if (cursor_le64_at(&c, SE_VOLATILE_MAGIC_AT) != SE_VOLATILE_MAGIC)
		return error_set(err, -EBADMSG, sectors(off_sectors),
				 "seSparse volatile header has a wrong magic");
	if (cursor_u8_at(&c, SE_VOLATILE_REPLAY_AT))
		return error_set(err, -ENOTSUP,
				 sectors(off_sectors) + SE_VOLATILE_REPLAY_AT,
				 "seSparse journal was not replayed, which is "
				 "not supported: let ESXi open the disk once");
	return 0;
}

/* Constant header: what it is, what of it we have, and its sizes. */
static int se_check_header(struct cursor *c, struct vmdk_extent *e,
			   struct error *err)
{
	uint64_t grain = cursor_le64_at(c, SE_GRAIN_AT);
	uint64_t table = cursor_le64_at(c, SE_TABLE_SECTORS_AT);
	int r;

	if (cursor_le64_at(c, SE_VERSION_AT) != SE_VERSION)
		return error_set(err, -ENOTSUP, SE_VERSION_AT,
				 "seSparse version 0x%016" PRIx64
				 " is not supported, 2.1 is",
				 cursor_le64_at(c, SE_VERSION_AT));
	if (cursor_le64_at(c, SE_FLAGS_AT))
		return error_set(err, -ENOTSUP, SE_FLAGS_AT,
				 "seSparse flags 0x%" PRIx64
				 " are not supported",
				 cursor_le64_at(c, SE_FLAGS_AT));
	r = check_capacity(cursor_le64_at(c, SE_CAPACITY_AT), SE_CAPACITY_AT,
			   err);
	if (r >= 0)
		r = check_grain(grain, SE_GRAIN_AT, err);
	if (r < 0)
		return r;
	if (!table || table > COWD_TABLE_ENTRIES * 8 / VMDK_SECTOR_BYTES)
		return error_set(err, -ENOTSUP, SE_TABLE_SECTORS_AT,
				 "seSparse grain table of %" PRIu64
				 " sectors is not supported, 1 to 64 are",
				 table);
	e->capacity = e->bytes = sectors(cursor_le64_at(c, SE_CAPACITY_AT));
	e->grain_bytes = sectors(grain);
	e->entry_bytes = 8;
	e->table_entries = (uint32_t)(sectors(table) / 8);
	e->n_tables = cursor_le64_at(c, SE_TABLES_SECTORS_AT) / table;
	return 0;
}

/* A place that a header gives in sectors, inside the file. */
static int se_place(struct vmdk_extent *e, struct cursor *c, size_t at,
		    const char *what, uint64_t *ret, struct error *err)
{
	uint64_t off = cursor_le64_at(c, at);

	if (!off_fits(off) || sectors(off) > e->src->bytes)
		return error_set(err, -EBADMSG, at,
				 "seSparse %s at sector %" PRIu64
				 " lie behind the file's %" PRIu64 " bytes",
				 what, off, e->src->bytes);
	*ret = sectors(off);
	return 0;
}

/*
 * Directory and tables lie over nothing else: a place that lost a bit would
 * show a disk of holes.
 */
static int se_check_areas(struct cursor *c, struct error *err)
{
	static const struct {
		const char *what;
		size_t at; /* of the place; behind it is the size */
	} areas[] = {
		{ "grain directory", SE_GD_OFF_AT },
		{ "grain tables", SE_TABLES_OFF_AT },
		{ "volatile header", SE_VOLATILE_OFF_AT },
		{ "journal header", SE_JOURNAL_HEADER_OFF_AT },
		{ "journal", SE_JOURNAL_OFF_AT },
		{ "free bitmap", SE_FREE_OFF_AT },
		{ "back map", SE_BACKMAP_OFF_AT },
		{ "grains", SE_GRAINS_OFF_AT },
	};
	size_t i, k;

	for (i = 0; i < 2; i++)
		for (k = i + 1; k < ARRAY_SIZE(areas); k++) {
			uint64_t a = cursor_le64_at(c, areas[i].at);
			uint64_t a_n = cursor_le64_at(c, areas[i].at + 8);
			uint64_t b = cursor_le64_at(c, areas[k].at);
			uint64_t b_n = cursor_le64_at(c, areas[k].at + 8);

			if (!a || (a < b ? b - a < a_n : a - b < b_n))
				return error_set(
					err, -EBADMSG, areas[i].at,
					"seSparse %s at sector %" PRIu64
					" and %s at %" PRIu64 " overlap",
					areas[i].what, a, areas[k].what, b);
		}
	return 0;
}

static int se_open(struct vmdk_extent *e, const uint8_t *head, size_t len,
		   struct error *err)
{
	struct cursor c = { .buf = head,
			    .len = min_size(len, SE_HEADER_BYTES) };
	uint64_t gd_sectors;
	int r;

	if (c.len < SE_HEADER_BYTES)
		return error_set(err, -EBADMSG, len,
				 "seSparse header is cut off after %zu bytes",
				 len);
	r = se_check_header(&c, e, err);
	if (r >= 0)
		r = se_check_journal(e, cursor_le64_at(&c, SE_VOLATILE_OFF_AT),
				     err);
	if (r >= 0)
		r = se_place(e, &c, SE_GD_OFF_AT, "grain directory", &e->gd_off,
			     err);
	if (r >= 0)
		r = se_place(e, &c, SE_TABLES_OFF_AT, "grain tables",
			     &e->tables_off, err);
	if (r >= 0)
		r = se_place(e, &c, SE_GRAINS_OFF_AT, "grains", &e->grains_off,
			     err);
	if (r < 0)
		return r;
	r = se_check_areas(&c, err);
	if (r < 0)
		return r;
	gd_sectors = cursor_le64_at(&c, SE_GD_SECTORS_AT);
	e->kind = VMDK_KIND_SESPARSE;
	e->version = 2;
	e->overhead = e->grains_off;
	r = check_directory(e, SE_GD_OFF_AT, err);
	if (r < 0)
		return r;
	if (div_round_up(e->gd_entries, VMDK_SECTOR_BYTES / 8) > gd_sectors)
		return error_set(err, -EBADMSG, SE_GD_SECTORS_AT,
				 "grain directory has %" PRIu64
				 " sectors, %" PRIu64 " entries need more",
				 gd_sectors, e->gd_entries);
	return 0;
}

static bool is_sesparse(const uint8_t *head, size_t len)
{
	struct cursor c = { .buf = head, .len = len };

	return cursor_le64_at(&c, SE_MAGIC_AT) == SE_MAGIC && !c.short_read;
}

static uint32_t magic_of(const uint8_t *head, size_t len)
{
	struct cursor c = { .buf = head, .len = len };

	return cursor_le32_at(&c, 0);
}

/* @head: the first bytes of e->src, as many as the longest header has. */
static int sparse_open(struct vmdk_extent *e, const uint8_t *head, size_t len,
		       struct error *err)
{
	if (magic_of(head, len) == HOSTED_MAGIC)
		return hosted_open(e, head, len, err);
	if (magic_of(head, len) == COWD_MAGIC)
		return cowd_open(e, head, len, err);
	if (is_sesparse(head, len))
		return se_open(e, head, len, err);
	return error_set(err, -EBADMSG, 0,
			 "is not a sparse extent: magic 0x%08" PRIx32,
			 magic_of(head, len));
}

static int read_head(struct source *src, uint8_t *ret, size_t *ret_len,
		     struct error *err)
{
	*ret_len = (size_t)min_u64(src->bytes, COWD_HEADER_BYTES);
	return source_read(src, ret, *ret_len, 0, err);
}

/* The sparse file at hand: with a descriptor, or with none. */
static bool is_sparse_file(const uint8_t *head, size_t len)
{
	return magic_of(head, len) == HOSTED_MAGIC ||
	       magic_of(head, len) == COWD_MAGIC || is_sesparse(head, len);
}

static int read_text(struct layer *l, uint64_t at, size_t len,
		     struct error *err)
{
	struct vmdk_state *s = l->state;
	char *text = malloc(len + 1);
	int r;

	if (!text)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = source_read(l->src, text, len, at, err);
	if (r < 0) {
		free(text);
		return r;
	}
	return vmdk_descriptor_parse(&s->d, text, len, at, err);
}

/* The descriptor inside the sparse file @e. */
static int read_embedded(struct layer *l, const struct vmdk_extent *e,
			 struct error *err)
{
	if (e->descriptor_bytes > VMDK_DESCRIPTOR_MAX)
		return error_set(err, -EFBIG, HOSTED_DESCRIPTOR_SECTORS_AT,
				 "descriptor of %" PRIu64
				 " bytes is over the limit of %u",
				 e->descriptor_bytes, VMDK_DESCRIPTOR_MAX);
	if (!range_inside(e->descriptor_off, e->descriptor_bytes,
			  l->src->bytes))
		return error_set(err, -EBADMSG, HOSTED_DESCRIPTOR_OFF_AT,
				 "descriptor at %" PRIu64
				 " ends past the file's %" PRIu64 " bytes",
				 e->descriptor_off, l->src->bytes);
	return read_text(l, e->descriptor_off, (size_t)e->descriptor_bytes,
			 err);
}

/* Whose disks have files that are disks by themselves. */
static int check_create_type(const struct vmdk_descriptor *d, struct error *err)
{
	static const char *const served[] = {
		"monolithicSparse",
		"monolithicFlat",
		"twoGbMaxExtentSparse",
		"twoGbMaxExtentFlat",
		"2GbMaxExtentSparse",
		"2GbMaxExtentFlat",
		"streamOptimized",
		"vmfs",
		"vmfsSparse",
		"vmfsThin",
		"vmfsPreallocated",
		"vmfsEagerZeroedThick",
		"seSparse",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(served); i++)
		if (!strcasecmp(served[i], d->create_type))
			return 0;
	return error_set(err, -ENOTSUP, d->create_type_at,
			 "createType \"%s\" is not supported: disks of files "
			 "are, devices and custom disks are not",
			 d->create_type);
}

static int open_named(struct layer *l, const struct vmdk_line *line,
		      struct source **ret, struct error *err)
{
	const struct vmdk_state *s = l->state;
	CLEANUP(freep) char *utf8 = vmdk_name_to_utf8(&s->d, line->name);

	if (utf8 && !layer_open_file(l, utf8, "extent", line->at, ret, NULL))
		return 0;
	return layer_open_file(l, line->name, "extent", line->at, ret, err);
}

/* Extents that lie in one file, one behind the other, share its source. */
static struct source *previous_source(const struct layer *l,
				      const struct vmdk_line *line,
				      const struct vmdk_line *lines,
				      const struct vmdk_extent *e)
{
	if (line > lines && line[-1].name && e[-1].src && e[-1].src != l->src &&
	    !strcmp(line[-1].name, line->name))
		return e[-1].src;
	return NULL;
}

static int open_sparse_line(struct layer *l, const struct vmdk_line *line,
			    struct vmdk_extent *e, struct error *err)
{
	uint8_t head[COWD_HEADER_BYTES];
	size_t len;
	int r;

	r = read_head(e->src, head, &len, err);
	if (r >= 0)
		r = sparse_open(e, head, len, err);
	if (r >= 0 && !e->grain_bytes)
		r = error_set(err, -EBADMSG, HOSTED_CAPACITY_AT,
			      "sparse extent has no capacity");
	if (r >= 0 &&
	    (line->type == VMDK_SESPARSE) != (e->kind == VMDK_KIND_SESPARSE))
		r = error_set(err, -EBADMSG, line->at,
			      "is declared %s, but is not of that kind",
			      vmdk_type_name(line->type));
	if (r < 0)
		error_prefix(err, "extent \"%s\"", line->name);
	return r;
}

/*
 * The size is in the line and in the header, where some writers round it up to
 * whole grains. Sets e->bytes to what the line says; @alone: the header has
 * the last word.
 */
static int fit_sparse(struct vmdk_extent *e, const struct vmdk_line *line,
		      bool alone, struct error *err)
{
	uint64_t bytes = sectors(line->sectors);

	if (e->capacity != bytes &&
	    e->capacity != round_up(bytes, e->grain_bytes))
		return error_set(err, -EBADMSG, line->at,
				 "extent \"%s\" has %" PRIu64
				 " bytes, the descriptor wants %" PRIu64,
				 line->name, e->capacity, bytes);
	if (!alone)
		e->bytes = bytes;
	return 0;
}

static int open_line(struct layer *l, const struct vmdk_line *line,
		     struct vmdk_extent *e, struct error *err)
{
	const struct vmdk_state *s = l->state;
	int r = 0;

	e->bytes = sectors(line->sectors);
	if (line->type == VMDK_ZERO || line->access == VMDK_NOACCESS) {
		e->kind = VMDK_KIND_ZERO;
		e->noaccess = line->access == VMDK_NOACCESS;
		return 0;
	}
	e->src = previous_source(l, line, s->d.lines, e);
	if (!e->src)
		r = open_named(l, line, &e->src, err);
	if (r < 0)
		return r;
	if (line->type != VMDK_FLAT && line->type != VMDK_VMFS) {
		r = open_sparse_line(l, line, e, err);
		return r < 0 ? r : fit_sparse(e, line, s->d.n_lines == 1, err);
	}
	if (!off_fits(line->offset))
		return error_set(err, -EBADMSG, line->at,
				 "extent's offset of %" PRIu64
				 " sectors is over the limit of 2^64 bytes",
				 line->offset);
	e->kind = VMDK_KIND_FLAT;
	e->host_off = sectors(line->offset);
	/* A file may have been cut, which is damage behind its end; a wrong
	 * place would move all that is read. */
	if (line->offset && !range_inside(e->host_off, e->bytes, e->src->bytes))
		return error_set(
			err, -EBADMSG, line->at,
			"extent \"%s\" of %" PRIu64 " bytes at %" PRIu64
			" ends past its file's %" PRIu64 " bytes",
			line->name, e->bytes, e->host_off, e->src->bytes);
	return 0;
}

/* The first SPARSE line of an embedded descriptor: the file at hand. */
static bool is_self(const struct vmdk_line *line,
		    const struct vmdk_extent *self, bool taken)
{
	return self && !taken && line->access != VMDK_NOACCESS &&
	       (line->type == VMDK_SPARSE || line->type == VMDK_VMFSSPARSE);
}

static int add_bytes(struct layer *l, const struct vmdk_line *line,
		     struct vmdk_extent *e, struct error *err)
{
	e->guest_off = l->bytes;
	if (e->bytes > INT64_MAX - l->bytes)
		return error_set(err, -EFBIG, line->at,
				 "the extents' sum is over the limit of 2^63 "
				 "bytes");
	l->bytes += e->bytes;
	return 0;
}

/* @self: the open file of an embedded descriptor, or NULL. */
static int open_lines(struct layer *l, const struct vmdk_extent *self,
		      struct error *err)
{
	struct vmdk_state *s = l->state;
	bool taken = false;
	size_t i;
	int r;

	s->extents = calloc(s->d.n_lines + 1, sizeof(*s->extents));
	if (!s->extents)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < s->d.n_lines; i++) {
		const struct vmdk_line *line = &s->d.lines[i];
		struct vmdk_extent *e = &s->extents[i];

		r = check_capacity(line->sectors, line->at, err);
		if (r < 0)
			return r;
		if (is_self(line, self, taken)) {
			*e = *self;
			taken = true;
			r = fit_sparse(e, line, s->d.n_lines == 1, err);
		} else {
			r = open_line(l, line, e, err);
		}
		if (r >= 0)
			r = add_bytes(l, line, e, err);
		if (r < 0)
			return r;
		s->n_extents++;
	}
	return 0;
}

/* One extent, the file itself. */
static int open_bare(struct layer *l, const struct vmdk_extent *self,
		     struct error *err)
{
	struct vmdk_state *s = l->state;

	s->extents = malloc(sizeof(*s->extents));
	if (!s->extents)
		return error_set(err, -ENOMEM, 0, "out of memory");
	s->extents[0] = *self;
	s->n_extents = 1;
	l->bytes = self->bytes;
	return 0;
}

/* Behind a root's geometry, where a name would go on, is nothing. */
static int check_no_parent(const char *name, struct error *err)
{
	size_t i;

	for (i = COWD_GEOMETRY_BYTES; i < COWD_PARENT_BYTES; i++)
		if (name[i])
			return error_set(err, -EBADMSG, COWD_PARENT_AT,
					 "parent's name is damaged");
	return 0;
}

/*
 * The name and generations in a COWD header. The geometry of a root lies in
 * the same place: too short to be a name.
 */
static int take_cowd_parent(struct layer *l, const uint8_t *head, size_t len,
			    struct error *err)
{
	struct cursor c = { .buf = head, .len = len };
	struct vmdk_state *s = l->state;
	char name[COWD_PARENT_BYTES + 1] = { 0 };

	s->has_generation = true;
	s->generation = cursor_le32_at(&c, COWD_GENERATION_AT);
	s->parent_generation = cursor_le32_at(&c, COWD_PARENT_GENERATION_AT);
	cursor_copy_at(&c, COWD_PARENT_AT, name, COWD_PARENT_BYTES);
	if (strlen(name) < 5)
		return check_no_parent(name, err);
	return layer_set_parent_by_id(l, name, NULL, COWD_PARENT_AT, err);
}

/* parentCID says whether there is a parent, the hint where. */
static int take_parent(struct layer *l, struct error *err)
{
	const struct vmdk_state *s = l->state;
	const struct vmdk_descriptor *d = &s->d;
	CLEANUP(freep) char *utf8 = NULL;

	if (d->parent_cid == VMDK_NO_PARENT)
		return 0;
	if (!d->parent_hint || !*d->parent_hint)
		return error_set(err, -EBADMSG, d->parent_hint_at,
				 "is a delta of the disk with CID %08" PRIx32
				 ", but does not name it",
				 d->parent_cid);
	utf8 = vmdk_name_to_utf8(d, d->parent_hint);
	return layer_set_parent_by_id(l, utf8 ? utf8 : d->parent_hint, "vmdk",
				      d->parent_hint_at, err);
}

/* The largest power of two that all borders of grains are multiples of. */
static uint64_t common_unit(const struct vmdk_state *s)
{
	uint64_t borders = 0;
	size_t i;

	for (i = 0; i < s->n_extents; i++)
		if (s->extents[i].grain_bytes)
			borders |= s->extents[i].grain_bytes |
				   s->extents[i].guest_off;
	return borders & -borders;
}

static int open_descriptor(struct layer *l, const struct vmdk_extent *self,
			   struct error *err)
{
	struct vmdk_state *s = l->state;
	int r;

	r = vmdk_descriptor_check(&s->d, err);
	if (r >= 0)
		r = check_create_type(&s->d, err);
	if (r < 0)
		return r;
	if (!s->d.n_lines)
		r = error_set(err, -EBADMSG, 0, "descriptor has no extents");
	else
		r = open_lines(l, self, err);
	return r < 0 ? r : take_parent(l, err);
}

static int open_file(struct layer *l, struct error *err)
{
	struct vmdk_state *s = l->state;
	struct vmdk_extent self = { .src = l->src };
	uint8_t head[COWD_HEADER_BYTES];
	size_t len;
	int r;

	r = read_head(l->src, head, &len, err);
	if (r < 0)
		return r;
	if (!is_sparse_file(head, len)) {
		if (l->src->bytes > VMDK_DESCRIPTOR_MAX)
			return error_set(err, -EFBIG, 0,
					 "descriptor of %" PRIu64
					 " bytes is over the limit of %u",
					 l->src->bytes, VMDK_DESCRIPTOR_MAX);
		r = read_text(l, 0, (size_t)l->src->bytes, err);
		return r < 0 ? r : open_descriptor(l, NULL, err);
	}
	r = sparse_open(&self, head, len, err);
	if (r < 0)
		return r;
	if (self.descriptor_off) {
		r = read_embedded(l, &self, err);
		return r < 0 ? r
			     : open_descriptor(
				       l, self.grain_bytes ? &self : NULL, err);
	}
	s->bare = true;
	r = open_bare(l, &self, err);
	if (r >= 0 && self.kind == VMDK_KIND_COWD)
		r = take_cowd_parent(l, head, len, err);
	return r;
}

static int vmdk_open(struct layer *l, struct error *err)
{
	int r = open_file(l, err);

	if (r >= 0)
		l->unit_bytes = common_unit(l->state);
	return r;
}

static void vmdk_close(struct layer *l)
{
	struct vmdk_state *s = l->state;

	vmdk_descriptor_done(&s->d);
	free(s->extents);
}

static bool vmdk_probe(struct source *src, const uint8_t *head,
		       size_t head_bytes)
{
	return vmdk_is_descriptor(head, head_bytes);
}

static int vmdk_check_parent(struct layer *l, struct layer *parent,
			     struct error *err)
{
	const struct vmdk_state *s = l->state, *p = parent->state;

	if (s->bare) {
		/* ESX 2 kept its base disks as plain files. */
		if (parent->ops != l->ops || !p->has_generation ||
		    p->generation == s->parent_generation)
			return 0;
		return error_set(err, -EBADMSG, COWD_PARENT_GENERATION_AT,
				 "parent's generation is %" PRIu32
				 ", not %" PRIu32,
				 p->generation, s->parent_generation);
	}
	if (!p->d.has_cid)
		return error_set(err, -EBADMSG, s->d.parent_hint_at,
				 "parent has no CID, %08" PRIx32
				 " is wanted: force=parent takes it all the "
				 "same",
				 s->d.parent_cid);
	if (p->d.cid != s->d.parent_cid)
		return error_set(err, -EBADMSG, s->d.parent_hint_at,
				 "parent's CID is %08" PRIx32 ", not %08" PRIx32
				 ": it was changed since; force=parent takes "
				 "it all the same",
				 p->d.cid, s->d.parent_cid);
	return 0;
}

uint64_t vmdk_table_used(const struct vmdk_extent *e, uint64_t idx)
{
	uint64_t left = e->capacity - idx * table_span(e);

	return min_u64(e->table_entries, div_round_up(left, e->grain_bytes));
}

static int se_find_table(const struct vmdk_extent *e, uint64_t entry,
			 struct vmdk_table *ret, struct error *err)
{
	uint64_t n = entry & UINT32_MAX;

	ret->kind = EXTENT_HOLE;
	if (!entry)
		return 0;
	if (entry >> SE_TYPE_SHIFT != SE_DIRECTORY_TABLE ||
	    entry & SE_DIRECTORY_REST)
		return error_set(err, -EBADMSG, 0,
				 "grain directory entry 0x%016" PRIx64
				 " is not of a known type",
				 entry);
	if (n >= e->n_tables)
		return error_set(err, -EBADMSG, 0,
				 "grain table %" PRIu64
				 " is not among the %" PRIu64 " that there are",
				 n, e->n_tables);
	if (n > (UINT64_MAX - e->tables_off) / table_bytes(e))
		return error_set(err, -EBADMSG, 0,
				 "grain table %" PRIu64
				 " lies behind the file's end",
				 n);
	ret->kind = EXTENT_DATA;
	ret->off = e->tables_off + n * table_bytes(e);
	return 0;
}

static bool overlaps(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
	return a < b ? b - a < a_bytes : a - b < b_bytes;
}

/*
 * Which metadata does [@off, @off + @bytes) lie over, as far as that is known
 * without looking into the directory? NULL: none.
 */
static const char *lies_over(const struct vmdk_extent *e, uint64_t off,
			     uint64_t bytes)
{
	uint64_t gd_bytes = e->gd_entries * e->entry_bytes;

	if (off < header_bytes(e))
		return "header";
	if (e->descriptor_off &&
	    overlaps(off, bytes, e->descriptor_off, e->descriptor_bytes))
		return "descriptor";
	if (!e->gd_lost && overlaps(off, bytes, e->gd_off, gd_bytes))
		return "grain directory";
	if (e->rgd_off && overlaps(off, bytes, e->rgd_off, gd_bytes))
		return "redundant grain directory";
	return NULL;
}

static int check_table_place(const struct vmdk_extent *e, uint64_t off,
			     uint64_t bytes, struct error *err)
{
	const char *over;

	if (!range_inside(off, bytes, e->src->bytes))
		return error_set(err, -EBADMSG, off,
				 "grain table at %" PRIu64
				 " ends past the file's %" PRIu64 " bytes",
				 off, e->src->bytes);
	over = lies_over(e, off, bytes);
	if (e->grains_from && !range_inside(off, bytes, e->grains_from))
		over = "grains";
	if (over)
		return error_set(err, -EBADMSG, off,
				 "grain table at %" PRIu64 " lies over the %s",
				 off, over);
	return 0;
}

int vmdk_find_table(struct layer *l, const struct vmdk_extent *e, uint64_t idx,
		    bool second, struct vmdk_table *ret, struct error *err)
{
	uint64_t gd_off = second ? e->rgd_off : e->gd_off;
	uint8_t raw[8] = { 0 };
	struct cursor c = { .buf = raw, .len = sizeof(raw) };
	uint64_t entry;
	int r;

	r = layer_read_meta(l, e->src, raw, e->entry_bytes,
			    gd_off + idx * e->entry_bytes, err);
	if (r < 0)
		return r;
	entry = cursor_le64_at(&c, 0); /* its upper half is 0 where it is 4 */
	if (e->kind == VMDK_KIND_SESPARSE) {
		r = se_find_table(e, entry, ret, err);
		if (r < 0)
			return r;
	} else {
		ret->kind = !entry			    ? EXTENT_HOLE
			    : entry == 1 && e->zero_entries ? EXTENT_ZERO
							    : EXTENT_DATA;
		ret->off = sectors(entry);
	}
	if (ret->kind == EXTENT_DATA)
		return check_table_place(
			e, ret->off, vmdk_table_used(e, idx) * e->entry_bytes,
			err);
	return 0;
}

/*
 * The same, through the redundant directory where the first is damaged: not
 * in the file, with a table that is not, or with none where the other has one
 * (whoever writes two directories makes every table twice).
 */
static int find_any_table(struct layer *l, const struct vmdk_extent *e,
			  uint64_t idx, struct vmdk_table *ret,
			  struct error *err)
{
	struct error first = { 0 };
	struct vmdk_table t;
	int r;

	if (e->gd_lost)
		return vmdk_find_table(l, e, idx, true, ret, err);
	r = vmdk_find_table(l, e, idx, false, ret, &first);
	if (e->rgd_off && (r < 0 || ret->kind == EXTENT_HOLE) &&
	    !vmdk_find_table(l, e, idx, true, &t, NULL) &&
	    t.kind != EXTENT_HOLE) {
		*ret = t;
		return 0;
	}
	if (r < 0)
		error_set(err, first.code, first.off, "%s", first.msg);
	return r;
}

/* "3" is data; of the others only 0 lets the parent through. */
static int se_decode_entry(const struct vmdk_extent *e, uint64_t entry,
			   struct vmdk_grain *ret, struct error *err)
{
	uint64_t n = (entry >> 48 & 0xfff) | (entry & 0xffffffffffffULL) << 12;

	switch (entry >> SE_TYPE_SHIFT) {
	case SE_GRAIN_NONE:
		if (entry)
			break;
		ret->kind = EXTENT_HOLE;
		return 0;
	case SE_GRAIN_UNMAPPED:
	case SE_GRAIN_ZERO:
		ret->kind = EXTENT_ZERO;
		return 0;
	case SE_GRAIN_DATA:
		if (n >=
		    div_round_up(e->src->bytes - e->grains_off, e->grain_bytes))
			return error_set(err, -EBADMSG, 0,
					 "grain %" PRIu64
					 " lies behind the file's end at "
					 "%" PRIu64,
					 n, e->src->bytes);
		ret->kind = EXTENT_DATA;
		ret->host_off = e->grains_off + n * e->grain_bytes;
		return 0;
	}
	return error_set(err, -EBADMSG, 0,
			 "grain table entry 0x%016" PRIx64
			 " is not of a known type",
			 entry);
}

int vmdk_decode_entry(const struct vmdk_extent *e, const uint8_t *raw,
		      struct vmdk_grain *ret, struct error *err)
{
	struct cursor c = { .buf = raw, .len = e->entry_bytes };
	const char *over;
	uint32_t entry;

	if (e->kind == VMDK_KIND_SESPARSE)
		return se_decode_entry(e, cursor_le64_at(&c, 0), ret, err);
	entry = cursor_le32_at(&c, 0);
	ret->kind = !entry			    ? EXTENT_HOLE
		    : entry == 1 && e->zero_entries ? EXTENT_ZERO
						    : EXTENT_DATA;
	ret->host_off = sectors(entry);
	if (ret->kind != EXTENT_DATA)
		return 0;
	if (ret->host_off >= e->src->bytes)
		return error_set(err, -EBADMSG, ret->host_off,
				 "grain at %" PRIu64
				 " lies behind the file's end at %" PRIu64,
				 ret->host_off, e->src->bytes);
	if (e->grains_from) /* behind all else */
		over = ret->host_off < e->grains_from ? "metadata" : NULL;
	else
		over = lies_over(e, ret->host_off,
				 e->compressed ? VMDK_SECTOR_BYTES
					       : e->grain_bytes);
	if (over)
		return error_set(err, -EBADMSG, ret->host_off,
				 "grain at %" PRIu64 " lies over the %s",
				 ret->host_off, over);
	return 0;
}

int vmdk_read_marker(struct layer *l, const struct vmdk_extent *e,
		     uint64_t grain, uint64_t host_off, struct vmdk_marker *ret,
		     struct error *err)
{
	uint8_t raw[GRAIN_HEADER_BYTES];
	struct cursor c = { .buf = raw, .len = sizeof(raw) };
	/* Deflate that does not shrink adds little; this is far beyond. */
	uint64_t max = 2 * e->grain_bytes + VMDK_SECTOR_BYTES;
	uint64_t sector, bytes = max;
	int r;

	if (e->markers) {
		r = layer_read_meta(l, e->src, raw, sizeof(raw), host_off, err);
		if (r < 0)
			return r;
		host_off += sizeof(raw);
		sector = cursor_le64_at(&c, MARKER_VALUE_AT);
		bytes = cursor_le32_at(&c, MARKER_SIZE_AT);
		if (!bytes || bytes > max)
			return error_set(err, -EBADMSG, host_off - sizeof(raw),
					 "compressed grain of %" PRIu64
					 " bytes is not in 1..%" PRIu64,
					 bytes, max);
		if (sector != grain * (e->grain_bytes / VMDK_SECTOR_BYTES))
			return error_set(
				err, -EBADMSG, host_off - sizeof(raw),
				"grain says that it is sector "
				"%" PRIu64 ", not %" PRIu64,
				sector,
				grain * (e->grain_bytes / VMDK_SECTOR_BYTES));
	}
	if (host_off >= e->src->bytes ||
	    (e->markers && bytes > e->src->bytes - host_off))
		return error_set(err, -EBADMSG, host_off,
				 "compressed grain at %" PRIu64
				 " ends behind the file's end at %" PRIu64,
				 host_off, e->src->bytes);
	ret->host_off = host_off;
	ret->bytes = (uint32_t)min_u64(bytes, e->src->bytes - host_off);
	return 0;
}

/* Entries of one table, as a walk along the grains has them at hand. */
struct walk {
	struct layer *l;
	const struct vmdk_extent *e;
	struct vmdk_table table;
	uint64_t from; /* grain of the first entry in buf */
	uint64_t n; /* for how many grains the answers hold */
	uint64_t last; /* the last grain of interest */
	uint8_t buf[CHUNK_BYTES];
};

/* Makes @w begin at @grain, which lies inside the extent. */
static int walk_load(struct walk *w, uint64_t grain, struct error *err)
{
	const struct vmdk_extent *e = w->e;
	uint64_t idx = grain / e->table_entries;
	uint64_t in_table = grain % e->table_entries;
	uint64_t left = vmdk_table_used(e, idx) - in_table;
	int r;

	w->n = 0;
	r = find_any_table(w->l, e, idx, &w->table, err);
	if (r < 0)
		return r;
	if (w->table.kind == EXTENT_DATA) {
		left = min_u64(left, sizeof(w->buf) / e->entry_bytes);
		left = min_u64(left, w->last - grain + 1);
		r = layer_read_meta(
			w->l, e->src, w->buf, (size_t)(left * e->entry_bytes),
			w->table.off + in_table * e->entry_bytes, err);
		if (r < 0)
			return r;
	}
	w->from = grain;
	w->n = left;
	return 0;
}

static int walk_get(const struct walk *w, uint64_t grain,
		    struct vmdk_grain *ret, struct error *err)
{
	*ret = (struct vmdk_grain){ .kind = w->table.kind };
	if (w->table.kind != EXTENT_DATA)
		return 0;
	return vmdk_decode_entry(
		w->e, w->buf + (grain - w->from) * w->e->entry_bytes, ret, err);
}

/* What the redundant tables say of a grain of which the first say rubbish. */
static int second_opinion(const struct walk *w, uint64_t grain,
			  struct vmdk_grain *ret)
{
	const struct vmdk_extent *e = w->e;
	struct vmdk_table t;
	uint8_t raw[8];
	int r;

	if (!e->rgd_off)
		return -EBADMSG;
	r = vmdk_find_table(w->l, e, grain / e->table_entries, true, &t, NULL);
	if (r < 0 || t.kind != EXTENT_DATA)
		return -EBADMSG;
	r = layer_read_meta(w->l, e->src, raw, e->entry_bytes,
			    t.off + grain % e->table_entries * e->entry_bytes,
			    NULL);
	if (r < 0 || vmdk_decode_entry(e, raw, ret, NULL) < 0)
		return -EBADMSG;
	/* Nothing at all contradicts the first without being better. */
	return ret->kind == EXTENT_HOLE ? -EBADMSG : 0;
}

/* The first grain; the run of the others goes by the first tables alone. */
static int walk_first(struct walk *w, uint64_t grain, struct vmdk_grain *ret,
		      struct error *err)
{
	struct error first = { 0 };
	int r;

	r = walk_load(w, grain, err);
	if (r < 0)
		return r;
	r = walk_get(w, grain, ret, &first);
	if (r < 0 && !second_opinion(w, grain, ret))
		r = 0;
	if (r < 0)
		error_set(err, first.code, first.off, "%s", first.msg);
	return r;
}

/* How many bytes from @in on have the answer @first, at most @len. */
static uint64_t run_bytes(struct walk *w, uint64_t in, uint64_t len,
			  const struct vmdk_grain *first)
{
	const struct vmdk_extent *e = w->e;
	uint64_t start = in / e->grain_bytes, grain = start, run;
	unsigned int tables = 0;
	struct vmdk_grain g;

	for (;;) {
		grain++;
		run = grain * e->grain_bytes - in;
		if (run >= len)
			return len;
		if (grain >= w->from + w->n && (++tables > MAP_TABLES_MAX ||
						walk_load(w, grain, NULL) < 0))
			return run;
		/* A table that is not there is one step. */
		if (w->table.kind != EXTENT_DATA &&
		    w->table.kind == first->kind) {
			grain = w->from + w->n - 1;
			continue;
		}
		if (walk_get(w, grain, &g, NULL) < 0 || g.kind != first->kind)
			return run;
		if (g.kind == EXTENT_DATA &&
		    g.host_off !=
			    first->host_off + (grain - start) * e->grain_bytes)
			return run;
	}
}

/* [@in, @in + @len) of the extent lies in the compressed grain at @host_off. */
static int map_compressed(struct layer *l, const struct vmdk_extent *e,
			  uint64_t in, uint64_t len, uint64_t host_off,
			  struct extent *ret, struct error *err)
{
	uint64_t grain = in / e->grain_bytes, in_grain = in % e->grain_bytes;
	struct vmdk_marker m;
	int r;

	r = vmdk_read_marker(l, e, grain, host_off, &m, err);
	if (r < 0)
		return r;
	ret->kind = EXTENT_COMPRESSED;
	ret->src = e->src;
	ret->host_off = m.host_off;
	ret->comp_bytes = m.bytes;
	ret->codec = CODEC_ZLIB;
	/* Some writers cut the last grain at the disk's end. */
	ret->unit_bytes = (uint32_t)min_u64(
		e->grain_bytes, e->capacity - grain * e->grain_bytes);
	ret->unit_off = (uint32_t)in_grain;
	ret->len = min_u64(len, ret->unit_bytes - in_grain);
	return 0;
}

static int map_sparse(struct layer *l, const struct vmdk_extent *e, uint64_t in,
		      uint64_t len, struct extent *ret, struct error *err)
{
	struct walk w = { .l = l,
			  .e = e,
			  .last = (in + len - 1) / e->grain_bytes };
	struct vmdk_grain g;
	int r;

	r = walk_first(&w, in / e->grain_bytes, &g, err);
	if (r < 0)
		return r;
	if (g.kind == EXTENT_DATA && e->compressed)
		return map_compressed(l, e, in, len, g.host_off, ret, err);
	ret->kind = (uint8_t)g.kind;
	ret->len = run_bytes(&w, in, len, &g);
	if (g.kind != EXTENT_DATA)
		return 0;
	return extent_set_data(ret, e->src, g.host_off, in % e->grain_bytes,
			       ret->len, err);
}

/* A flat file may be cut off: what lies behind its end cannot be read. */
static int map_flat(const struct vmdk_extent *e, uint64_t in, uint64_t len,
		    struct extent *ret, struct error *err)
{
	struct error found = { 0 };
	int r = extent_set_data(ret, e->src, e->host_off, in, len, &found);

	if (r >= 0)
		return r;
	ret->kind = EXTENT_DAMAGED;
	ret->len = len;
	/* One sector: who asks wants to hear why. */
	return len > VMDK_SECTOR_BYTES
		       ? 0
		       : error_set(err, found.code, found.off,
				   "flat extent: %s", found.msg);
}

/* The extent that has @guest_off, which lies inside the disk. */
static const struct vmdk_extent *find_extent(const struct vmdk_state *s,
					     uint64_t guest_off)
{
	size_t low = 0, high = s->n_extents;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (s->extents[mid].guest_off <= guest_off)
			low = mid;
		else
			high = mid;
	}
	return &s->extents[low];
}

static int vmdk_map(struct layer *l, uint64_t guest_off, uint64_t len,
		    struct extent *ret, struct error *err)
{
	const struct vmdk_extent *e = find_extent(l->state, guest_off);
	uint64_t in = guest_off - e->guest_off;

	len = min_u64(len, e->bytes - in);
	switch (e->kind) {
	case VMDK_KIND_ZERO:
		ret->kind = EXTENT_ZERO;
		ret->len = len;
		return 0;
	case VMDK_KIND_FLAT:
		return map_flat(e, in, len, ret, err);
	default:
		return map_sparse(l, e, in, len, ret, err);
	}
}

static void info_sparse(const struct vmdk_state *s, struct info_sink *sink)
{
	const struct vmdk_extent *e = &s->extents[0];

	if (!s->n_extents || !e->grain_bytes)
		return;
	sink->number(sink, "sparse-version", e->version);
	sink->flag(sink, "compressed", e->compressed);
	sink->flag(sink, "dirty", e->dirty);
}

/* Keys as `qemu-img info --output=json` has them under format-specific. */
static void vmdk_info(struct layer *l, struct info_sink *sink)
{
	const struct vmdk_state *s = l->state;
	size_t i;

	if (s->d.create_type)
		sink->text(sink, "create-type", s->d.create_type);
	if (!s->bare) {
		sink->number(sink, "cid", s->d.cid);
		sink->number(sink, "parent-cid", s->d.parent_cid);
	}
	sink->number(sink, "extents", s->n_extents);
	if (s->d.encoding)
		sink->text(sink, "encoding", s->d.encoding);
	info_sparse(s, sink);
	for (i = 0; i < s->d.n_ddb; i++) {
		char key[128];

		text_escape(key, sizeof(key), s->d.ddb[i].key);
		sink->text(sink, key, s->d.ddb[i].value);
	}
}

const struct format_ops vmdk_format = {
	.name = "vmdk",
	.glance_name = "vmdk",
	.magic = { { HOSTED_MAGIC_AT, 4, "KDMV" },
		   { COWD_MAGIC_AT, 4, "COWD" },
		   { SE_MAGIC_AT, 8, "\xbe\xba\xfe\xca\0\0\0\0" } },
	.probe = vmdk_probe,
	.state_bytes = sizeof(struct vmdk_state),
	.open = vmdk_open,
	.check_parent = vmdk_check_parent,
	.close = vmdk_close,
	.map = vmdk_map,
	.info = vmdk_info,
	.check = vmdk_check,
};
