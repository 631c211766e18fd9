/* SPDX-License-Identifier: BSD-3-Clause */
/* VHDX's headers (2.2.2), region tables (2.2.3) and items of metadata (2.6). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/vhdx-inside.h"

#define ENTRIES_MAX    2047U
#define ENTRY_BYTES    32U
#define ITEM_BYTES_MAX (1U << 20)

const uint64_t vhdx_header_offs[2] = { 64 << 10, 128 << 10 };
const uint64_t vhdx_region_offs[2] = { 192 << 10, 256 << 10 };

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

/* GUIDs as they lie in the file: the first three fields little endian. */
static const uint8_t region_guids[REGIONS][VHDX_GUID_BYTES] = {
	[REGION_BAT] = "\x66\x77\xc2\x2d\x23\xf6\x00\x42"
		       "\x9d\x64\x11\x5e\x9b\xfd\x4a\x08",
	[REGION_METADATA] = "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b"
			    "\xb8\xfe\x57\x5f\x05\x0f\x88\x6e",
};

const char *const vhdx_region_names[REGIONS] = {
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

void vhdx_format_guid(char ret[VHDX_GUID_TEXT_BYTES], const uint8_t *g)
{
	snprintf(ret, VHDX_GUID_TEXT_BYTES,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
		 "%02x%02x%02x%02x%02x%02x",
		 g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9],
		 g[10], g[11], g[12], g[13], g[14], g[15]);
}

bool vhdx_parse_guid(const char *text, uint8_t *ret)
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

bool vhdx_is_zero_guid(const uint8_t *guid)
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

bool vhdx_decode_header(const uint8_t *buf, uint64_t at,
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

int vhdx_find_header(struct source *src, struct vhdx_header *ret,
		     struct error *err)
{
	uint8_t bufs[2][VHDX_SECTOR_BYTES];
	struct vhdx_header h[2];
	bool good[2] = { false, false };
	unsigned int i;
	int r;

	for (i = 0; i < 2; i++) {
		if (!range_inside(vhdx_header_offs[i], VHDX_SECTOR_BYTES,
				  src->bytes))
			continue;
		r = source_read(src, bufs[i], VHDX_SECTOR_BYTES,
				vhdx_header_offs[i], err);
		if (r < 0)
			return r;
		good[i] =
			vhdx_decode_header(bufs[i], vhdx_header_offs[i], &h[i]);
	}
	if (!good[0] && !good[1])
		return error_set(err, -EBADMSG, vhdx_header_offs[0],
				 "neither header is sound (signature, "
				 "checksum)");
	if (good[0] && good[1] && h[0].sequence == h[1].sequence &&
	    memcmp(bufs[0], bufs[1], VHDX_SECTOR_BYTES))
		return error_set(err, -EBADMSG,
				 vhdx_header_offs[0] + HEAD_SEQUENCE_AT,
				 "two different headers have the sequence "
				 "number %" PRIu64,
				 h[0].sequence);
	i = !good[0] || (good[1] && h[1].sequence > h[0].sequence);
	*ret = h[i];
	return 0;
}

int vhdx_check_header(const struct vhdx_header *h, uint64_t file_bytes,
		      struct error *err)
{
	if (h->version != 1)
		return error_set(err, -ENOTSUP, h->at + HEAD_VERSION_AT,
				 "VHDX version %u is not supported, 1 is",
				 h->version);
	if (vhdx_is_zero_guid(h->log_guid))
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

int vhdx_read_region_table(struct source *view, uint64_t at, uint8_t *buf,
			   struct error *err)
{
	int r;

	if (!range_inside(at, VHDX_TABLE_BYTES, view->bytes))
		return 0;
	r = source_read(view, buf, VHDX_TABLE_BYTES, at, err);
	if (r < 0)
		return r;
	return !memcmp(buf, "regi", 4) &&
	       checksum_is_right(buf, VHDX_TABLE_BYTES,
				 VHDX_REGIONS_CHECKSUM_AT);
}

/* Takes what it knows of one entry of the region table. */
static int take_region(struct vhdx_state *s, struct cursor *c, uint64_t table,
		       uint32_t i, struct region *ret, struct error *err)
{
	size_t at = VHDX_REGIONS_AT + (size_t)i * ENTRY_BYTES;
	struct region g = {
		.off = cursor_le64_at(c, at + VHDX_REGION_OFF_AT),
		.bytes = cursor_le32_at(c, at + VHDX_REGION_BYTES_AT),
		.at = table + at,
	};
	uint8_t guid[VHDX_GUID_BYTES];
	char text[VHDX_GUID_TEXT_BYTES];
	unsigned int k;

	cursor_copy_at(c, at, guid, sizeof(guid));
	if (g.off < VHDX_MIB || g.off % VHDX_MIB || !g.bytes ||
	    g.bytes % VHDX_MIB || g.off > INT64_MAX)
		return error_set(err, -EBADMSG, g.at + VHDX_REGION_OFF_AT,
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
					 vhdx_region_names[k]);
		s->regions[k] = g;
		return 0;
	}
	vhdx_format_guid(text, guid);
	if (cursor_le32_at(c, at + VHDX_REGION_REQUIRED_AT) & 1)
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
	struct cursor c = { .buf = buf, .len = VHDX_TABLE_BYTES };
	uint32_t n = cursor_le32_at(&c, VHDX_REGIONS_COUNT_AT), i, k;
	int r;

	if (n > ENTRIES_MAX)
		return error_set(err, -EFBIG, table + VHDX_REGIONS_COUNT_AT,
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
					 vhdx_region_names[k]);
	if (s->h.log_bytes && s->h.log_off)
		all[i++] = (struct region){ .off = s->h.log_off,
					    .bytes = s->h.log_bytes,
					    .at = s->h.at + HEAD_LOG_OFF_AT };
	return check_overlaps(all, i, err);
}

int vhdx_open_regions(struct vhdx_state *s, struct error *err)
{
	CLEANUP(freep) uint8_t *buf = malloc(VHDX_TABLE_BYTES);
	CLEANUP(freep)
	struct region *all = calloc(ENTRIES_MAX + 1, sizeof(*all));
	unsigned int i;
	int r = 0;

	if (!buf || !all)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < ARRAY_SIZE(vhdx_region_offs); i++) {
		r = vhdx_read_region_table(s->view, vhdx_region_offs[i], buf,
					   err);
		if (r < 0)
			return r;
		if (r)
			return take_regions(s, buf, vhdx_region_offs[i], all,
					    err);
	}
	return error_set(err, -EBADMSG, vhdx_region_offs[0],
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
	char text[VHDX_GUID_TEXT_BYTES];
	unsigned int k;

	cursor_copy_at(c, at, guid, sizeof(guid));
	vhdx_format_guid(text, guid);
	if (bytes > ITEM_BYTES_MAX)
		return error_set(err, -EFBIG, g->off + at + META_BYTES_AT,
				 "metadata item %s has %" PRIu32
				 " bytes, the limit is %u",
				 text, bytes, ITEM_BYTES_MAX);
	if (bytes &&
	    (off < VHDX_TABLE_BYTES || !range_inside(off, bytes, g->bytes)))
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

int vhdx_open_metadata(struct vhdx_state *s, struct error *err)
{
	const struct region *g = &s->regions[REGION_METADATA];
	CLEANUP(freep) uint8_t *buf = malloc(VHDX_TABLE_BYTES);
	struct cursor c = { .buf = buf, .len = VHDX_TABLE_BYTES };
	uint32_t n, i;
	int r;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (!range_inside(g->off, VHDX_TABLE_BYTES, s->view->bytes))
		return error_set(err, -EBADMSG, g->at + VHDX_REGION_OFF_AT,
				 "metadata region at %" PRIu64
				 " ends past the file's %" PRIu64 " bytes",
				 g->off, s->view->bytes);
	r = source_read(s->view, buf, VHDX_TABLE_BYTES, g->off, err);
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

int vhdx_read_item(struct layer *l, unsigned int k, void *buf, size_t len,
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
