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
#include "formats/drivers/vhdx-inside.h"
#include "formats/drivers/win-name.h"

#define VHDX_BYTES_MAX	    (64ULL << 40)
#define BLOCK_BYTES_MIN	    (1U << 20)
#define BLOCK_BYTES_MAX	    (256U << 20)
#define CHUNK_SECTORS	    (1ULL << 23)
#define LOCATOR_BYTES_MAX   (256U << 10)
#define LOCATOR_ENTRY_BYTES 12U

/* 2.6.2.6 */
enum {
	LOCATOR_COUNT_AT = 18,
	LOCATOR_AT = 20,
	LOCATOR_KEY_OFF_AT = 0,
	LOCATOR_VALUE_OFF_AT = 4,
	LOCATOR_KEY_BYTES_AT = 8,
	LOCATOR_VALUE_BYTES_AT = 10,
};

extern const struct format_ops vhdx_format;

static const uint8_t locator_type[VHDX_GUID_BYTES] =
	"\xb7\xef\x4a\xb0\x9e\xd1\x81\x4a\xb7\x89\x25\xb8\xe9\x44\x59\x13";

static int read_u32_item(struct layer *l, unsigned int k, uint32_t *ret,
			 struct error *err)
{
	uint32_t v = 0;
	int r = vhdx_read_item(l, k, &v, sizeof(v), err);

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

	r = vhdx_read_item(l, ITEM_FILE_PARAMETERS, params, sizeof(params),
			   err);
	if (r >= 0)
		r = vhdx_read_item(l, ITEM_DISK_BYTES, &bytes, sizeof(bytes),
				   err);
	if (r >= 0)
		r = vhdx_read_item(l, ITEM_DISK_ID, s->disk_id,
				   sizeof(s->disk_id), err);
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
	need = 1 + (s->has_parent ? vhdx_bitmap_entry(s, s->blocks - 1)
				  : vhdx_payload_entry(s, s->blocks - 1));
	if (need > g->bytes / 8)
		return error_set(err, -EBADMSG, g->at + VHDX_REGION_BYTES_AT,
				 "BAT has room for %" PRIu64
				 " entries, a disk of %" PRIu64
				 " bytes needs %" PRIu64,
				 g->bytes / 8, l->bytes, need);
	if (!range_inside(g->off, need * 8, s->view->bytes))
		return error_set(err, -EBADMSG, g->at + VHDX_REGION_OFF_AT,
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
		if (!vhdx_parse_guid(text, s->linkage[s->linkages]))
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

	if (vhdx_is_zero_guid(s->h.log_guid)) {
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
		r = vhdx_find_header(l->src, &s->h, err);
	if (r >= 0)
		r = vhdx_check_header(&s->h, l->src->bytes, err);
	if (r >= 0)
		r = open_view(l, err);
	if (r >= 0)
		r = vhdx_open_regions(s, err);
	if (r >= 0)
		r = vhdx_open_metadata(s, err);
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
	char want[VHDX_GUID_TEXT_BYTES], is[VHDX_GUID_TEXT_BYTES];

	if (parent->ops != &vhdx_format)
		return error_set(err, -EBADMSG, at,
				 "parent %s is %s, not VHDX, and has no "
				 "DataWriteGuid",
				 parent->path, parent->ops->name);
	if (is_linked(s, p->h.data_guid))
		return 0;
	vhdx_format_guid(want, s->linkage[0]);
	vhdx_format_guid(is, p->h.data_guid);
	return error_set(err, -EBADMSG, at,
			 "parent %s has the DataWriteGuid %s, not %s",
			 parent->path, is, want);
}

static bool vhdx_is_parent(struct layer *l, struct source *candidate)
{
	struct vhdx_header h;

	return !check_identifier(candidate, NULL) &&
	       !vhdx_find_header(candidate, &h, NULL) &&
	       is_linked(l->state, h.data_guid);
}

static void info_guid(struct info_sink *sink, const char *key,
		      const uint8_t *guid)
{
	char text[VHDX_GUID_TEXT_BYTES];

	vhdx_format_guid(text, guid);
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

const struct format_ops vhdx_format = {
	.name = "vhdx",
	.glance_name = "vhdx",
	.magic = { { 0, 8, "vhdxfile" } },
	.open_ended = format_reads_forward,
	.state_bytes = sizeof(struct vhdx_state),
	.open = vhdx_open,
	.check_parent = vhdx_check_parent,
	.is_parent = vhdx_is_parent,
	.close = vhdx_close,
	.map = vhdx_map,
	.info = vhdx_info,
	.check = vhdx_check,
};
