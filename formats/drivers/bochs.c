/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bochs' growing images ("Redolog", subtype "Growing"). Little endian.
 *
 *	header of 512 bytes | catalog: a number for each extent of the disk
 *	extents, each with a bitmap of its sectors before it
 *
 * A number is the extent's place among those in the file, 0xffffffff where
 * nothing was written. A bitmap has a bit for each sector, the lowest first;
 * a sector whose bit is 0 was not written. Both read as zeroes.
 *
 * Extents are powers of two, and so are catalogs as Bochs' bximage makes them.
 *
 * Refused: undoable and volatile redo logs, which belong to another image
 * that they do not name.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/unit-check.h"

#define BOCHS_MAGIC	   "Bochs Virtual HD Image"
#define BOCHS_TYPE	   "Redolog"
#define BOCHS_SUBTYPE	   "Growing"
#define BOCHS_V1	   0x00010000U
#define BOCHS_V2	   0x00020000U
#define BOCHS_SECTOR_BYTES 512U
#define BOCHS_FREE	   0xffffffffU
#define BOCHS_EXTENT_MAX   (8U << 20)
#define BOCHS_CATALOG_MAX  0x100000U

enum {
	BOCHS_TYPE_AT = 32,
	BOCHS_SUBTYPE_AT = 48,
	BOCHS_VERSION_AT = 64,
	BOCHS_HEADER_AT = 68,
	BOCHS_CATALOG_AT = 72,
	BOCHS_BITMAP_AT = 76,
	BOCHS_EXTENT_AT = 80,
	BOCHS_DISK_V1_AT = 84,
	BOCHS_DISK_V2_AT = 88,
	BOCHS_HEADER_BYTES = 512,
};

struct bochs_header {
	uint8_t type[16];
	uint8_t subtype[16];
	uint32_t version;
	uint32_t header_bytes;
	uint32_t catalog; /* entries */
	uint32_t bitmap_bytes; /* of an extent */
	uint32_t extent_bytes;
	uint64_t disk_bytes;
};

static int decode_header(const uint8_t *buf, size_t len,
			 struct bochs_header *ret, struct error *err)
{
	struct cursor c = { .buf = buf, .len = len };
	struct bochs_header h = {
		.version = cursor_le32_at(&c, BOCHS_VERSION_AT),
		.header_bytes = cursor_le32_at(&c, BOCHS_HEADER_AT),
		.catalog = cursor_le32_at(&c, BOCHS_CATALOG_AT),
		.bitmap_bytes = cursor_le32_at(&c, BOCHS_BITMAP_AT),
		.extent_bytes = cursor_le32_at(&c, BOCHS_EXTENT_AT),
	};

	cursor_copy_at(&c, BOCHS_TYPE_AT, h.type, sizeof(h.type));
	cursor_copy_at(&c, BOCHS_SUBTYPE_AT, h.subtype, sizeof(h.subtype));
	h.disk_bytes =
		cursor_le64_at(&c, h.version == BOCHS_V1 ? BOCHS_DISK_V1_AT
							 : BOCHS_DISK_V2_AT);
	if (c.short_read)
		return error_set(err, -EBADMSG, len,
				 "Bochs header is cut off after %zu bytes",
				 len);
	*ret = h;
	return 0;
}

static int check_kind(const struct bochs_header *h, struct error *err)
{
	if (memcmp(h->type, BOCHS_TYPE, sizeof(BOCHS_TYPE)))
		return error_set(err, -ENOTSUP, BOCHS_TYPE_AT,
				 "Bochs image of type %.16s is not supported, "
				 "Redolog is",
				 (const char *)h->type);
	if (memcmp(h->subtype, BOCHS_SUBTYPE, sizeof(BOCHS_SUBTYPE)))
		return error_set(err, -ENOTSUP, BOCHS_SUBTYPE_AT,
				 "Bochs image of subtype %.16s is not "
				 "supported, Growing is",
				 (const char *)h->subtype);
	if (h->version != BOCHS_V1 && h->version != BOCHS_V2)
		return error_set(err, -ENOTSUP, BOCHS_VERSION_AT,
				 "Bochs image version 0x%08" PRIx32
				 " is not supported",
				 h->version);
	return 0;
}

static uint64_t extents_needed(const struct bochs_header *h)
{
	return div_round_up(h->disk_bytes, h->extent_bytes);
}

/* Every relation that bochs_map() relies on. */
static int check_sound(const struct bochs_header *h, uint64_t file_bytes,
		       struct error *err)
{
	if (!is_power_of_2(h->extent_bytes) ||
	    h->extent_bytes < BOCHS_SECTOR_BYTES ||
	    h->extent_bytes > BOCHS_EXTENT_MAX)
		return error_set(err, -EBADMSG, BOCHS_EXTENT_AT,
				 "extent size %" PRIu32
				 " is not a power of two in %u..%u",
				 h->extent_bytes, BOCHS_SECTOR_BYTES,
				 BOCHS_EXTENT_MAX);
	if (h->bitmap_bytes !=
	    div_round_up(h->extent_bytes, 8 * BOCHS_SECTOR_BYTES))
		return error_set(err, -EBADMSG, BOCHS_BITMAP_AT,
				 "bitmap of %" PRIu32
				 " bytes does not fit extents of %" PRIu32,
				 h->bitmap_bytes, h->extent_bytes);
	if (h->header_bytes != BOCHS_HEADER_BYTES)
		return error_set(err, -EBADMSG, BOCHS_HEADER_AT,
				 "header of %" PRIu32 " bytes has not %d",
				 h->header_bytes, BOCHS_HEADER_BYTES);
	if (h->catalog > BOCHS_CATALOG_MAX)
		return error_set(err, -EFBIG, BOCHS_CATALOG_AT,
				 "catalog of %" PRIu32
				 " entries is over the limit of %u",
				 h->catalog, BOCHS_CATALOG_MAX);
	if (!range_inside(h->header_bytes, (uint64_t)h->catalog * 4,
			  file_bytes))
		return error_set(err, -EBADMSG, BOCHS_CATALOG_AT,
				 "catalog at %" PRIu32 " with %" PRIu32
				 " entries ends past the file's %" PRIu64
				 " bytes",
				 h->header_bytes, h->catalog, file_bytes);
	if (extents_needed(h) > h->catalog)
		return error_set(err, -EBADMSG,
				 h->version == BOCHS_V1 ? BOCHS_DISK_V1_AT
							: BOCHS_DISK_V2_AT,
				 "%" PRIu32 " extents of %" PRIu32
				 " bytes do not cover the disk's %" PRIu64,
				 h->catalog, h->extent_bytes, h->disk_bytes);
	return 0;
}

/*
 * Data begin behind the catalog: with one entry more or less they would be other
 * data. Bochs doubles it until it suffices; of what others make, those that the
 * disk does not need must lead nowhere.
 */
static int check_length(const struct layer *l, const struct bochs_header *h,
			struct error *err)
{
	uint64_t i, n = extents_needed(h);
	uint32_t entries[512];
	size_t k, len;
	int r;

	if (is_power_of_2(h->catalog))
		return 0;
	for (i = n; i < h->catalog; i += len) {
		len = (size_t)min_u64(ARRAY_SIZE(entries), h->catalog - i);
		r = source_read(l->src, entries, len * sizeof(*entries),
				BOCHS_HEADER_BYTES + i * sizeof(*entries), err);
		if (r < 0)
			return r;
		for (k = 0; k < len; k++)
			if (entries[k] != UINT32_MAX)
				return error_set(
					err, -EBADMSG, BOCHS_CATALOG_AT,
					"catalog of %" PRIu32
					" entries is not of a power of two, "
					"nor empty behind the %" PRIu64
					" that the disk has",
					h->catalog, n);
	}
	return 0;
}

static int bochs_open(struct layer *l, struct error *err)
{
	struct bochs_header *h = l->state;
	uint8_t buf[BOCHS_HEADER_BYTES];
	size_t len = (size_t)min_u64(sizeof(buf), l->src->bytes);
	int r;

	r = source_read(l->src, buf, len, 0, err);
	if (r >= 0)
		r = decode_header(buf, len, h, err);
	if (r >= 0)
		r = check_kind(h, err);
	if (r >= 0)
		r = check_sound(h, l->src->bytes, err);
	if (r >= 0)
		r = check_length(l, h, err);
	if (r < 0)
		return r;
	l->bytes = h->disk_bytes;
	l->unit_bytes = h->extent_bytes;
	return 0;
}

static uint64_t stored_bitmap_bytes(const struct bochs_header *h)
{
	return round_up(h->bitmap_bytes, BOCHS_SECTOR_BYTES);
}

/* Where the bitmap of the file's extent @entry is; below 2^32 * 2^24. */
static uint64_t extent_off(const struct bochs_header *h, uint32_t entry)
{
	return h->header_bytes + (uint64_t)h->catalog * 4 +
	       entry * (stored_bitmap_bytes(h) + h->extent_bytes);
}

/* How many sectors from @first on, of @n, have the first one's bit. */
static int bitmap_run(struct layer *l, uint64_t bitmap_off, uint32_t first,
		      uint32_t n, bool *ret_set, uint32_t *ret_run,
		      struct error *err)
{
	uint8_t byte = 0;
	uint32_t i;
	int r;

	for (i = 0; i < n; i++) {
		uint32_t sector = first + i;
		bool set;

		if (!i || sector % 8 == 0) {
			r = layer_read_meta(l, l->src, &byte, 1,
					    bitmap_off + sector / 8,
					    i ? NULL : err);
			if (r < 0 && !i)
				return r;
			if (r < 0)
				break;
		}
		set = byte >> sector % 8 & 1;
		if (i && set != *ret_set)
			break;
		*ret_set = set;
	}
	*ret_run = i;
	return 0;
}

static int bochs_map(struct layer *l, uint64_t guest_off, uint64_t len,
		     struct extent *ret, struct error *err)
{
	const struct bochs_header *h = l->state;
	uint64_t in_extent = guest_off % h->extent_bytes, off, bitmap;
	uint32_t first = (uint32_t)(in_extent / BOCHS_SECTOR_BYTES);
	uint64_t head = guest_off % BOCHS_SECTOR_BYTES;
	uint32_t run = 0, entry;
	bool set = false;
	int r;

	len = min_u64(len, h->extent_bytes - in_extent);
	r = layer_read_meta(l, l->src, &entry, sizeof(entry),
			    h->header_bytes + guest_off / h->extent_bytes * 4,
			    err);
	if (r < 0)
		return r;
	entry = le32toh(entry);
	*ret = (struct extent){ .kind = EXTENT_HOLE, .len = len };
	if (entry == BOCHS_FREE)
		return 0;
	bitmap = stored_bitmap_bytes(h);
	off = extent_off(h, entry);
	/* The whole extent's damage, whatever of it is asked for. */
	if (off + bitmap >= l->src->bytes)
		return error_set(err, -EBADMSG, off,
				 "extent at %" PRIu64
				 " lies behind the file's end at %" PRIu64,
				 off, l->src->bytes);
	r = bitmap_run(l, off, first,
		       (uint32_t)div_round_up(head + len, BOCHS_SECTOR_BYTES),
		       &set, &run, err);
	if (r < 0)
		return r;
	ret->len = min_u64(len, (uint64_t)run * BOCHS_SECTOR_BYTES - head);
	if (!set)
		return 0;
	return extent_set_data(ret, l->src, off + bitmap, in_extent, ret->len,
			       err);
}

static void bochs_info(struct layer *l, struct info_sink *s)
{
	const struct bochs_header *h = l->state;

	s->number(s, "version", h->version >> 16);
	s->number(s, "extents", h->catalog);
}

static int decode_entry(const void *state, const uint8_t *raw,
			struct unit_place *ret, struct error *err)
{
	struct cursor c = { .buf = raw, .len = 4 };
	const struct bochs_header *h = state;
	uint32_t entry = cursor_le32_at(&c, 0);

	ret->kind = entry == BOCHS_FREE ? EXTENT_HOLE : EXTENT_DATA;
	ret->host_off = extent_off(h, entry) + stored_bitmap_bytes(h);
	return 0;
}

static int bochs_check(struct layer *l, struct check_report *r,
		       struct error *err)
{
	const struct bochs_header *h = l->state;
	struct unit_table catalog = {
		.src = l->src,
		.off = h->header_bytes,
		.entry_bytes = 4,
		.unit_bytes = h->extent_bytes,
		.stride = stored_bitmap_bytes(h) + h->extent_bytes,
		.data = l->src,
		.decode = decode_entry,
		.state = h,
	};
	CLEANUP(unit_check_done)
	struct unit_check k = {
		.l = l,
		.r = r,
		.unit = "extent",
		.unit_bytes = catalog.stride,
		.src = l->src,
		.err = err,
	};
	int code;

	code = unit_check_claim(&k, 0, extent_off(h, 0));
	if (code >= 0)
		code = unit_check_table(&k, &catalog, h->catalog);
	if (code < 0)
		return code;
	unit_check_finish(&k, extent_off(h, 0));
	return 0;
}

const struct format_ops bochs_format = {
	.name = "bochs",
	.magic = { { 0, sizeof(BOCHS_MAGIC), BOCHS_MAGIC } },
	.state_bytes = sizeof(struct bochs_header),
	.open = bochs_open,
	.map = bochs_map,
	.info = bochs_info,
	.check = bochs_check,
};
