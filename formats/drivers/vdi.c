/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * VDI, VirtualBox's disk image. No document describes it; this is what its
 * files are (all little endian):
 *
 *	0x000  text, 0x40 signature, 0x44 version (major << 16 | minor)
 *	0x048  header: of version 0 other than of version 1
 *	       block map: a number for each block of the disk
 *	       blocks, each behind cbBlockExtra bytes of its own
 *
 * A number is the block's place among those in the file, 0xffffffff where
 * nothing was written (a differencing image shows its parent there), or
 * 0xfffffffe for zeroes (which hide the parent). Fixed images have all blocks
 * in order; that they are told apart matters to writers only.
 *
 * A parent is known by its creation id alone. Its modification id must be
 * what the child has noted, else the parent was changed since.
 *
 * Nothing in the file is checksummed. What contradicts is refused: versions
 * above 1, unknown image types, blocks that are no power of two, a number of
 * blocks that is not the disk's, a map or data that lie over what is in front
 * of them or, as in QEMU, at no sector's border, and maps that leave the file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/unit-check.h"

#define VDI_SIGNATURE	  0xbeda107fU
#define VDI_FREE	  0xffffffffU
#define VDI_ZERO	  0xfffffffeU
#define VDI_BLOCKS_MAX	  0x1fffffffU
#define VDI_BLOCK_MIN	  512U
#define VDI_SECTOR_BYTES  512U
#define VDI_UUID_BYTES	  16
#define VDI_COMMENT_BYTES 256

enum vdi_type {
	VDI_TYPE_DYNAMIC = 1,
	VDI_TYPE_FIXED = 2,
	VDI_TYPE_UNDO = 3,
	VDI_TYPE_DIFF = 4,
};

enum {
	VDI_SIGNATURE_AT = 0x40,
	VDI_VERSION_AT = 0x44,

	/* version 1 */
	VDI_HEADER_BYTES_AT = 0x48,
	VDI_TYPE_AT = 0x4c,
	VDI_COMMENT_AT = 0x54,
	VDI_MAP_OFF_AT = 0x154,
	VDI_DATA_OFF_AT = 0x158,
	VDI_DISK_BYTES_AT = 0x170,
	VDI_BLOCK_BYTES_AT = 0x178,
	VDI_EXTRA_BYTES_AT = 0x17c,
	VDI_BLOCKS_AT = 0x180,
	VDI_ALLOCATED_AT = 0x184,
	VDI_UUID_AT = 0x188,
	VDI_UUID_MODIFY_AT = 0x198,
	VDI_UUID_PARENT_AT = 0x1a8,
	VDI_UUID_PARENT_MODIFY_AT = 0x1b8,
	VDI_V1_BYTES = 0x1c8,

	/* version 0 */
	VDI0_TYPE_AT = 0x48,
	VDI0_COMMENT_AT = 0x50,
	VDI0_DISK_BYTES_AT = 0x160,
	VDI0_BLOCK_BYTES_AT = 0x168,
	VDI0_BLOCKS_AT = 0x16c,
	VDI0_ALLOCATED_AT = 0x170,
	VDI0_UUID_AT = 0x174,
	VDI0_UUID_MODIFY_AT = 0x184,
	VDI0_UUID_PARENT_AT = 0x194,
	VDI0_BYTES = 0x1a4, /* here the block map begins */
};

struct vdi_header {
	uint32_t signature;
	uint32_t version;
	uint32_t header_bytes; /* from VDI_HEADER_BYTES_AT on; version 1 */
	uint32_t type;
	uint64_t map_off;
	uint64_t data_off;
	uint64_t disk_bytes;
	uint32_t block_bytes;
	uint32_t extra_bytes; /* before each block */
	uint32_t blocks; /* entries of the map */
	uint32_t allocated; /* blocks in the file, by its own account */
	uint8_t uuid[VDI_UUID_BYTES];
	uint8_t uuid_modify[VDI_UUID_BYTES];
	uint8_t uuid_parent[VDI_UUID_BYTES];
	uint8_t uuid_parent_modify[VDI_UUID_BYTES];
	char comment[VDI_COMMENT_BYTES + 1];
};

static void decode_v0(struct cursor *c, struct vdi_header *h)
{
	h->type = cursor_le32_at(c, VDI0_TYPE_AT);
	h->disk_bytes = cursor_le64_at(c, VDI0_DISK_BYTES_AT);
	h->block_bytes = cursor_le32_at(c, VDI0_BLOCK_BYTES_AT);
	h->blocks = cursor_le32_at(c, VDI0_BLOCKS_AT);
	h->allocated = cursor_le32_at(c, VDI0_ALLOCATED_AT);
	h->map_off = VDI0_BYTES;
	h->data_off = VDI0_BYTES + (uint64_t)h->blocks * 4;
	cursor_copy_at(c, VDI0_UUID_AT, h->uuid, VDI_UUID_BYTES);
	cursor_copy_at(c, VDI0_UUID_MODIFY_AT, h->uuid_modify, VDI_UUID_BYTES);
	cursor_copy_at(c, VDI0_UUID_PARENT_AT, h->uuid_parent, VDI_UUID_BYTES);
	cursor_copy_at(c, VDI0_COMMENT_AT, h->comment, VDI_COMMENT_BYTES);
}

static void decode_v1(struct cursor *c, struct vdi_header *h)
{
	h->header_bytes = cursor_le32_at(c, VDI_HEADER_BYTES_AT);
	h->type = cursor_le32_at(c, VDI_TYPE_AT);
	h->map_off = cursor_le32_at(c, VDI_MAP_OFF_AT);
	h->data_off = cursor_le32_at(c, VDI_DATA_OFF_AT);
	h->disk_bytes = cursor_le64_at(c, VDI_DISK_BYTES_AT);
	h->block_bytes = cursor_le32_at(c, VDI_BLOCK_BYTES_AT);
	h->extra_bytes = cursor_le32_at(c, VDI_EXTRA_BYTES_AT);
	h->blocks = cursor_le32_at(c, VDI_BLOCKS_AT);
	h->allocated = cursor_le32_at(c, VDI_ALLOCATED_AT);
	cursor_copy_at(c, VDI_UUID_AT, h->uuid, VDI_UUID_BYTES);
	cursor_copy_at(c, VDI_UUID_MODIFY_AT, h->uuid_modify, VDI_UUID_BYTES);
	cursor_copy_at(c, VDI_UUID_PARENT_AT, h->uuid_parent, VDI_UUID_BYTES);
	cursor_copy_at(c, VDI_UUID_PARENT_MODIFY_AT, h->uuid_parent_modify,
		       VDI_UUID_BYTES);
	cursor_copy_at(c, VDI_COMMENT_AT, h->comment, VDI_COMMENT_BYTES);
}

static uint32_t version_major(const struct vdi_header *h)
{
	return h->version >> 16;
}

static int decode_header(const uint8_t *buf, size_t len, struct vdi_header *ret,
			 struct error *err)
{
	struct cursor c = { .buf = buf, .len = len };
	struct vdi_header h = {
		.signature = cursor_le32_at(&c, VDI_SIGNATURE_AT),
		.version = cursor_le32_at(&c, VDI_VERSION_AT),
	};

	if (version_major(&h) == 0)
		decode_v0(&c, &h);
	else
		decode_v1(&c, &h);
	if (c.short_read)
		return error_set(err, -EBADMSG, len,
				 "VDI header is cut off after %zu bytes", len);
	*ret = h;
	return 0;
}

/* What is it, and do we have that? */
static int check_kind(const struct vdi_header *h, struct error *err)
{
	if (h->signature != VDI_SIGNATURE)
		return error_set(err, -EBADMSG, VDI_SIGNATURE_AT,
				 "not VDI: signature 0x%08" PRIx32,
				 h->signature);
	if (version_major(h) > 1)
		return error_set(err, -ENOTSUP, VDI_VERSION_AT,
				 "VDI version %" PRIu32 ".%" PRIu32
				 " is not supported, 0 and 1 are",
				 version_major(h), h->version & 0xffff);
	if (version_major(h) == 1 &&
	    h->header_bytes < VDI_V1_BYTES - VDI_HEADER_BYTES_AT)
		return error_set(err, -EBADMSG, VDI_HEADER_BYTES_AT,
				 "header length %" PRIu32 " is under %d",
				 h->header_bytes,
				 VDI_V1_BYTES - VDI_HEADER_BYTES_AT);
	if (h->type < VDI_TYPE_DYNAMIC || h->type > VDI_TYPE_DIFF)
		return error_set(err, -ENOTSUP,
				 version_major(h) ? VDI_TYPE_AT : VDI0_TYPE_AT,
				 "image type %" PRIu32
				 " is not supported; 1 (dynamic), 2 (fixed), "
				 "3 (undo) and 4 (differencing) are",
				 h->type);
	return 0;
}

static int map_outside(const struct vdi_header *h, uint64_t field_at,
		       uint64_t file_bytes, struct error *err)
{
	return error_set(err, -EBADMSG, field_at,
			 "block map at %" PRIu64 " with %" PRIu32
			 " entries ends past the file's %" PRIu64 " bytes",
			 h->map_off, h->blocks, file_bytes);
}

/* Header, map and data follow each other; at sectors, or QEMU refuses, too. */
static int check_places(const struct vdi_header *h, uint64_t file_bytes,
			struct error *err)
{
	uint64_t map_bytes = (uint64_t)h->blocks * 4;

	if (!range_inside(h->map_off, map_bytes, file_bytes))
		return map_outside(h, VDI_MAP_OFF_AT, file_bytes, err);
	if (h->map_off % VDI_SECTOR_BYTES ||
	    h->map_off < VDI_HEADER_BYTES_AT + (uint64_t)h->header_bytes)
		return error_set(err, -EBADMSG, VDI_MAP_OFF_AT,
				 "block map at %" PRIu64
				 " is not at a sector behind the header",
				 h->map_off);
	if (h->data_off % VDI_SECTOR_BYTES ||
	    h->data_off < h->map_off + map_bytes)
		return error_set(err, -EBADMSG, VDI_DATA_OFF_AT,
				 "data at %" PRIu64
				 " are not at a sector behind the block map, "
				 "which ends at %" PRIu64,
				 h->data_off, h->map_off + map_bytes);
	return 0;
}

/* Every relation that vdi_map() relies on. */
static int check_sound(const struct vdi_header *h, uint64_t file_bytes,
		       struct error *err)
{
	bool v1 = version_major(h) == 1;

	if (!is_power_of_2(h->block_bytes) || h->block_bytes < VDI_BLOCK_MIN)
		return error_set(err, -EBADMSG,
				 v1 ? VDI_BLOCK_BYTES_AT : VDI0_BLOCK_BYTES_AT,
				 "block size %" PRIu32
				 " is not a power of two of at least %u",
				 h->block_bytes, VDI_BLOCK_MIN);
	if (h->blocks > VDI_BLOCKS_MAX)
		return error_set(err, -EFBIG,
				 v1 ? VDI_BLOCKS_AT : VDI0_BLOCKS_AT,
				 "%" PRIu32 " blocks are over the limit of %u",
				 h->blocks, VDI_BLOCKS_MAX);
	if (div_round_up(h->disk_bytes, h->block_bytes) != h->blocks)
		return error_set(err, -EBADMSG,
				 v1 ? VDI_DISK_BYTES_AT : VDI0_DISK_BYTES_AT,
				 "%" PRIu32 " blocks of %" PRIu32
				 " bytes are not the disk's %" PRIu64,
				 h->blocks, h->block_bytes, h->disk_bytes);
	if (v1)
		return check_places(h, file_bytes, err);
	if (!range_inside(h->map_off, (uint64_t)h->blocks * 4, file_bytes))
		return map_outside(h, VDI0_BLOCKS_AT, file_bytes, err);
	return 0;
}

static bool uuid_is_null(const uint8_t *uuid)
{
	static const uint8_t null[VDI_UUID_BYTES];

	return !memcmp(uuid, null, VDI_UUID_BYTES);
}

static bool uuid_is(const uint8_t *a, const uint8_t *b)
{
	return !memcmp(a, b, VDI_UUID_BYTES);
}

/* As VBoxManage prints them: the first three fields are little endian. */
static const char *uuid_text(char ret[37], const uint8_t *u)
{
	snprintf(ret, 37,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
		 "%02x%02x%02x%02x%02x%02x",
		 u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8], u[9],
		 u[10], u[11], u[12], u[13], u[14], u[15]);
	return ret;
}

static int open_parent(struct layer *l, struct error *err)
{
	const struct vdi_header *h = l->state;
	uint64_t at =
		version_major(h) ? VDI_UUID_PARENT_AT : VDI0_UUID_PARENT_AT;

	if (!uuid_is_null(h->uuid_parent))
		return layer_set_parent_by_id(l, NULL, "vdi", at, err);
	if (h->type != VDI_TYPE_UNDO && h->type != VDI_TYPE_DIFF)
		return 0;
	return error_set(err, -EBADMSG, at,
			 "%s image does not tell its parent's id",
			 h->type == VDI_TYPE_UNDO ? "undo" : "differencing");
}

static int read_header(struct source *src, struct vdi_header *ret,
		       struct error *err)
{
	uint8_t buf[VDI_V1_BYTES];
	size_t len = (size_t)min_u64(sizeof(buf), src->bytes);
	int r = source_read(src, buf, len, 0, err);

	return r < 0 ? r : decode_header(buf, len, ret, err);
}

static int vdi_open(struct layer *l, struct error *err)
{
	struct vdi_header *h = l->state;
	int r;

	r = read_header(l->src, h, err);
	if (r >= 0)
		r = check_kind(h, err);
	if (r >= 0)
		r = check_sound(h, l->src->bytes, err);
	if (r < 0)
		return r;
	l->bytes = h->disk_bytes;
	l->unit_bytes = h->block_bytes;
	return open_parent(l, err);
}

static int vdi_check_parent(struct layer *l, struct layer *parent,
			    struct error *err)
{
	const struct vdi_header *h = l->state, *p = parent->state;
	char want[37], have[37];

	if (!uuid_is(h->uuid_parent, p->uuid))
		return error_set(err, -EBADMSG, VDI_UUID_PARENT_AT,
				 "its parent has the id %s, %s is that of %s",
				 uuid_text(want, h->uuid_parent),
				 uuid_text(have, p->uuid), parent->path);
	if (!uuid_is_null(h->uuid_parent_modify) &&
	    !uuid_is(h->uuid_parent_modify, p->uuid_modify))
		return error_set(err, -EBADMSG, VDI_UUID_PARENT_MODIFY_AT,
				 "its parent %s was modified since: "
				 "modification id %s, %s was noted",
				 parent->path, uuid_text(have, p->uuid_modify),
				 uuid_text(want, h->uuid_parent_modify));
	return 0;
}

static bool vdi_is_parent(struct layer *l, struct source *candidate)
{
	const struct vdi_header *h = l->state;
	struct vdi_header p;

	return !read_header(candidate, &p, NULL) &&
	       p.signature == VDI_SIGNATURE && uuid_is(p.uuid, h->uuid_parent);
}

static int decode_entry(const void *state, const uint8_t *raw,
			struct unit_place *ret, struct error *err)
{
	struct cursor c = { .buf = raw, .len = 4 };
	const struct vdi_header *h = state;
	uint32_t entry = cursor_le32_at(&c, 0);

	if (entry == VDI_FREE) {
		ret->kind = EXTENT_HOLE;
	} else if (entry == VDI_ZERO) {
		ret->kind = EXTENT_ZERO;
	} else if (entry >= h->blocks) {
		return error_set(err, -EBADMSG, 0,
				 "block map entry 0x%08" PRIx32
				 " is over the disk's %" PRIu32 " blocks",
				 entry, h->blocks);
	} else {
		/* Below 2^29 * 2^33 + 2^32. */
		ret->kind = EXTENT_DATA;
		ret->host_off =
			h->data_off + h->extra_bytes +
			entry * ((uint64_t)h->block_bytes + h->extra_bytes);
	}
	return 0;
}

static struct unit_table block_map(struct layer *l)
{
	const struct vdi_header *h = l->state;

	return (struct unit_table){
		.src = l->src,
		.off = h->map_off,
		.entry_bytes = 4,
		.unit_bytes = h->block_bytes,
		.stride = (uint64_t)h->block_bytes + h->extra_bytes,
		.data = l->src,
		.decode = decode_entry,
		.state = h,
	};
}

static int vdi_map(struct layer *l, uint64_t guest_off, uint64_t len,
		   struct extent *ret, struct error *err)
{
	struct unit_table map = block_map(l);

	return unit_table_map(l, &map, guest_off, len, ret, err);
}

static void vdi_info(struct layer *l, struct info_sink *s)
{
	static const char *const types[] = {
		[VDI_TYPE_DYNAMIC] = "dynamic",
		[VDI_TYPE_FIXED] = "fixed",
		[VDI_TYPE_UNDO] = "undo",
		[VDI_TYPE_DIFF] = "differencing",
	};
	const struct vdi_header *h = l->state;
	char text[37];

	snprintf(text, sizeof(text), "%" PRIu32 ".%" PRIu32, version_major(h),
		 h->version & 0xffff);
	s->text(s, "version", text);
	s->text(s, "type", types[h->type]);
	s->number(s, "blocks", h->blocks);
	s->number(s, "blocks-allocated", h->allocated);
	if (h->extra_bytes)
		s->number(s, "block-extra-bytes", h->extra_bytes);
	s->text(s, "uuid", uuid_text(text, h->uuid));
	s->text(s, "uuid-modify", uuid_text(text, h->uuid_modify));
	if (!uuid_is_null(h->uuid_parent))
		s->text(s, "uuid-parent", uuid_text(text, h->uuid_parent));
	if (h->comment[0])
		s->text(s, "comment", h->comment);
}

static int vdi_check(struct layer *l, struct check_report *r, struct error *err)
{
	const struct vdi_header *h = l->state;
	struct unit_table map = block_map(l);
	CLEANUP(unit_check_done)
	struct unit_check k = {
		.l = l,
		.r = r,
		.unit = "block",
		.unit_bytes = map.stride,
		.src = l->src,
		.err = err,
	};
	int code;

	code = unit_check_claim(&k, 0,
				version_major(h) ? VDI_V1_BYTES : VDI0_BYTES);
	if (code >= 0)
		code = unit_check_claim(&k, h->map_off,
					(uint64_t)h->blocks * 4);
	if (code >= 0)
		code = unit_check_table(&k, &map, h->blocks);
	if (code < 0)
		return code;
	if (r->allocated_units != h->allocated)
		unit_check_corrupt(&k,
				   "header counts %" PRIu32
				   " allocated blocks, the map has %" PRIu64,
				   h->allocated, r->allocated_units);
	if (!uuid_is_null(h->uuid_parent) && h->type != VDI_TYPE_UNDO &&
	    h->type != VDI_TYPE_DIFF)
		unit_check_corrupt(
			&k, "image type is %" PRIu32 ", but there is a parent",
			h->type);
	unit_check_finish(&k, h->data_off);
	/* Blocks lie side by side, up to the end. */
	if (l->src->bytes > h->data_off &&
	    (l->src->bytes - h->data_off) % map.stride)
		unit_check_corrupt(&k,
				   "the file's end at %" PRIu64
				   " is not the end of a block",
				   l->src->bytes);
	return 0;
}

const struct format_ops vdi_format = {
	.name = "vdi",
	.glance_name = "vdi",
	.magic = { { VDI_SIGNATURE_AT, 4, "\x7f\x10\xda\xbe" } },
	.open_ended = format_reads_forward,
	.state_bytes = sizeof(struct vdi_header),
	.open = vdi_open,
	.check_parent = vdi_check_parent,
	.is_parent = vdi_is_parent,
	.map = vdi_map,
	.info = vdi_info,
	.check = vdi_check,
};
