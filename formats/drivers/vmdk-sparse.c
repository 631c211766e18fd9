/* SPDX-License-Identifier: BSD-3-Clause */
/* Headers of VMDK's sparse files: hosted ("KDMV", with its footer) and COWD. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/vmdk-inside.h"

/* Hosted sparse header and footer */
enum {
	HOSTED_MAGIC_AT = 0,
	HOSTED_VERSION_AT = 4,
	HOSTED_FLAGS_AT = 8,
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
};

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

enum { MARKER_FOOTER = 3 };

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
};

/* Do @n sectors have a number of bytes? */
static bool sectors_fit(uint64_t n)
{
	return n <= INT64_MAX / VMDK_SECTOR_BYTES;
}

int vmdk_check_capacity(uint64_t n, uint64_t at, struct error *err)
{
	if (!sectors_fit(n))
		return error_set(err, -EFBIG, at,
				 "capacity of %" PRIu64
				 " sectors is over the limit of 2^63 bytes",
				 n);
	return 0;
}

/* Grain and table sizes; in sectors and entries. */
int vmdk_check_grain(uint64_t grain, uint64_t at, struct error *err)
{
	if (!grain || grain > VMDK_GRAIN_SECTORS_MAX)
		return error_set(err, -EBADMSG, at,
				 "grain of %" PRIu64 " sectors is not in 1..%u",
				 grain, VMDK_GRAIN_SECTORS_MAX);
	return 0;
}

static bool directory_inside(const struct vmdk_extent *e, uint64_t off)
{
	return off >= vmdk_header_bytes(e) &&
	       range_inside(off, e->gd_entries * e->entry_bytes, e->src->bytes);
}

/* How many directory entries; is there a directory for them? */
int vmdk_check_directory(struct vmdk_extent *e, uint64_t at, struct error *err)
{
	e->gd_entries = div_round_up(e->capacity, vmdk_table_span(e));
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
		.capacity = cursor_le64_at(&c, VMDK_HOSTED_CAPACITY_AT),
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

	if (h->magic != VMDK_HOSTED_MAGIC)
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
	r = vmdk_check_capacity(h->capacity, at + VMDK_HOSTED_CAPACITY_AT, err);
	if (r >= 0)
		r = vmdk_check_grain(h->grain, at + HOSTED_GRAIN_AT, err);
	if (r < 0)
		return r;
	if (!is_power_of_2(h->grain))
		return error_set(err, -EBADMSG, at + HOSTED_GRAIN_AT,
				 "grain of %" PRIu64
				 " sectors is not a power of two",
				 h->grain);
	if (h->compression &&
	    vmdk_sectors(h->grain) > VMDK_COMPRESSED_GRAIN_MAX)
		return error_set(err, -EFBIG, at + HOSTED_GRAIN_AT,
				 "compressed grain of %" PRIu64
				 " bytes is over the limit of %u",
				 vmdk_sectors(h->grain),
				 VMDK_COMPRESSED_GRAIN_MAX);
	if (!h->table_entries || h->table_entries > HOSTED_ENTRIES_MAX)
		return error_set(err, -EBADMSG, at + HOSTED_TABLE_ENTRIES_AT,
				 "grain table of %" PRIu32
				 " entries is not in 1..%u",
				 h->table_entries, HOSTED_ENTRIES_MAX);
	return 0;
}

bool vmdk_hosted_open_ended(const uint8_t *head, size_t head_bytes)
{
	struct cursor c = { .buf = head, .len = head_bytes };

	return cursor_le32_at(&c, HOSTED_MAGIC_AT) == VMDK_HOSTED_MAGIC &&
	       cursor_le64_at(&c, HOSTED_GD_OFF_AT) != GD_AT_END;
}

/* Is the sector at @p, with the one before it, a footer and its marker? */
static bool is_footer(const uint8_t *marker)
{
	struct cursor c = { .buf = marker, .len = 2 * VMDK_SECTOR_BYTES };

	return cursor_le32_at(&c, VMDK_MARKER_SIZE_AT) == 0 &&
	       cursor_le32_at(&c, VMDK_MARKER_TYPE_AT) == MARKER_FOOTER &&
	       cursor_le32_at(&c, VMDK_SECTOR_BYTES) == VMDK_HOSTED_MAGIC;
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
				     VMDK_HOSTED_HEADER_BYTES, ret, err);
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
			err, -EBADMSG, at + VMDK_HOSTED_CAPACITY_AT,
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

static void hosted_adopt(struct vmdk_extent *e, const struct hosted_header *h)
{
	e->kind = VMDK_KIND_HOSTED;
	e->version = h->version;
	e->flags = h->flags;
	e->capacity = e->bytes = vmdk_sectors(h->capacity);
	e->grain_bytes = vmdk_sectors(h->grain);
	e->table_entries = h->table_entries;
	e->entry_bytes = 4;
	e->gd_off =
		vmdk_off_fits(h->gd_off) ? vmdk_sectors(h->gd_off) : UINT64_MAX;
	e->rgd_off = h->flags & FLAG_REDUNDANT && vmdk_off_fits(h->rgd_off)
			     ? vmdk_sectors(h->rgd_off)
			     : 0;
	e->zero_entries = h->flags & FLAG_ZERO_ENTRIES;
	e->compressed = h->compression == COMPRESSION_DEFLATE;
	e->markers = h->flags & FLAG_MARKERS;
	e->dirty = h->unclean;
	e->overhead =
		vmdk_off_fits(h->overhead) ? vmdk_sectors(h->overhead) : 0;
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
	e->descriptor_off = vmdk_off_fits(h->descriptor_off)
				    ? vmdk_sectors(h->descriptor_off)
				    : UINT64_MAX;
	e->descriptor_bytes = vmdk_off_fits(h->descriptor_sectors)
				      ? vmdk_sectors(h->descriptor_sectors)
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

int vmdk_hosted_open(struct vmdk_extent *e, const uint8_t *head, size_t len,
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
	if (h.magic == VMDK_HOSTED_MAGIC && !h.capacity && h.descriptor_off)
		return 0;
	r = hosted_check(&h, 0, err);
	if (r >= 0 && h.gd_off == GD_AT_END)
		r = hosted_take_footer(&h, e->src, err);
	if (r < 0)
		return r;
	hosted_adopt(e, &h);
	r = vmdk_check_directory(e, HOSTED_GD_OFF_AT, err);
	if (r >= 0)
		hosted_adopt_overhead(e);
	return r;
}

int vmdk_check_embedded(const struct vmdk_extent *e, struct error *err)
{
	if (e->descriptor_bytes > VMDK_DESCRIPTOR_MAX)
		return error_set(err, -EFBIG, HOSTED_DESCRIPTOR_SECTORS_AT,
				 "descriptor of %" PRIu64
				 " bytes is over the limit of %u",
				 e->descriptor_bytes, VMDK_DESCRIPTOR_MAX);
	if (!range_inside(e->descriptor_off, e->descriptor_bytes,
			  e->src->bytes))
		return error_set(err, -EBADMSG, HOSTED_DESCRIPTOR_OFF_AT,
				 "descriptor at %" PRIu64
				 " ends past the file's %" PRIu64 " bytes",
				 e->descriptor_off, e->src->bytes);
	return 0;
}

int vmdk_cowd_open(struct vmdk_extent *e, const uint8_t *head, size_t len,
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
	e->capacity = e->bytes =
		vmdk_sectors(cursor_le32_at(&c, COWD_CAPACITY_AT));
	e->gd_off = vmdk_sectors(cursor_le32_at(&c, COWD_GD_OFF_AT));
	e->dirty = cursor_le32_at(&c, COWD_UNCLEAN_AT);
	e->overhead = VMDK_COWD_HEADER_BYTES;
	if (c.short_read)
		return error_set(err, -EBADMSG, len,
				 "COWD header is cut off after %zu bytes", len);
	if (version != 1)
		return error_set(err, -ENOTSUP, COWD_VERSION_AT,
				 "COWD version %" PRIu32
				 " is not supported, 1 is",
				 version);
	r = vmdk_check_grain(grain, COWD_GRAIN_AT, err);
	if (r < 0)
		return r;
	e->grain_bytes = vmdk_sectors(grain);
	e->table_entries = VMDK_TABLE_ENTRIES_MAX;
	e->entry_bytes = 4;
	r = vmdk_check_directory(e, COWD_GD_OFF_AT, err);
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
int vmdk_cowd_take_parent(struct layer *l, const uint8_t *head, size_t len,
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

int vmdk_cowd_check_parent(const struct vmdk_state *s,
			   const struct vmdk_state *parent, struct error *err)
{
	/* ESX 2 kept its base disks as plain files. */
	if (!parent->has_generation ||
	    parent->generation == s->parent_generation)
		return 0;
	return error_set(err, -EBADMSG, COWD_PARENT_GENERATION_AT,
			 "parent's generation is %" PRIu32 ", not %" PRIu32,
			 parent->generation, s->parent_generation);
}
