/* SPDX-License-Identifier: BSD-3-Clause */
/* One image file of ploop: its header, BAT and format extension; see ploop.c. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/ploop-bundle.h"
#include "formats/drivers/ploop-delta.h"
#include "formats/drivers/unit-check.h"

#define PLOOP_TYPE	  2U
#define PLOOP_IN_USE	  0x746f6e59U
#define PLOOP_TRACKS_MAX  ((uint32_t)INT32_MAX / 513)
#define PLOOP_ENTRIES_MAX ((uint32_t)INT32_MAX / 4)

#define PLOOP_EXT_MAGIC	    0xab234cef23dcea87ULL
#define PLOOP_EXT_BITMAP    0x20385fae252cb34aULL
#define PLOOP_EXT_NECESSARY 1U
#define PLOOP_FEATURES_MAX  64U

enum {
	PLOOP_TYPE_AT = 16,
	PLOOP_TRACKS_AT = 28,
	PLOOP_ENTRIES_AT = 32,
	PLOOP_SECTORS_AT = 36,
	PLOOP_IN_USE_AT = 44,
	PLOOP_DATA_OFF_AT = 48,
	PLOOP_EXT_OFF_AT = 56,
	PLOOP_HEADER_BYTES = 64, /* here the BAT begins */

	/* Format Extension, and a feature in it */
	EXT_MAGIC_AT = 0,
	EXT_FEATURES_AT = 24,
	FEATURE_MAGIC_AT = 0,
	FEATURE_FLAGS_AT = 8,
	FEATURE_DATA_BYTES_AT = 16,
	FEATURE_BYTES = 24,
};

struct ploop_header {
	uint8_t magic[PLOOP_MAGIC_BYTES];
	uint32_t type;
	uint32_t tracks; /* sectors of a cluster */
	uint32_t entries;
	uint64_t sectors; /* of the disk */
	uint32_t in_use;
	uint32_t data_off; /* sectors */
	uint64_t ext_off; /* sectors; 0: there is none */
};

static int decode_header(const uint8_t *buf, size_t len,
			 struct ploop_header *ret, struct error *err)
{
	struct cursor c = { .buf = buf, .len = len };
	struct ploop_header h = {
		.type = cursor_le32_at(&c, PLOOP_TYPE_AT),
		.tracks = cursor_le32_at(&c, PLOOP_TRACKS_AT),
		.entries = cursor_le32_at(&c, PLOOP_ENTRIES_AT),
		.sectors = cursor_le64_at(&c, PLOOP_SECTORS_AT),
		.in_use = cursor_le32_at(&c, PLOOP_IN_USE_AT),
		.data_off = cursor_le32_at(&c, PLOOP_DATA_OFF_AT),
		.ext_off = cursor_le64_at(&c, PLOOP_EXT_OFF_AT),
	};

	cursor_copy_at(&c, 0, h.magic, sizeof(h.magic));
	if (c.short_read)
		return error_set(err, -EBADMSG, len,
				 "ploop header is cut off after %zu bytes",
				 len);
	*ret = h;
	return 0;
}

unsigned int delta_magic_version(const uint8_t *magic)
{
	if (!memcmp(magic, PLOOP_V1_MAGIC, PLOOP_MAGIC_BYTES))
		return 1;
	return memcmp(magic, PLOOP_V2_MAGIC, PLOOP_MAGIC_BYTES) ? 0 : 2;
}

static uint64_t disk_sectors(const struct ploop_header *h)
{
	return delta_magic_version(h->magic) == 2 ? h->sectors
						  : (uint32_t)h->sectors;
}

static uint64_t cluster_count(const struct ploop_header *h)
{
	return div_round_up(disk_sectors(h), h->tracks);
}

/* Every relation that ploop_map() relies on. */
static int check_header(const struct ploop_header *h, uint64_t file_bytes,
			struct error *err)
{
	if (!delta_magic_version(h->magic))
		return error_set(err, -EBADMSG, 0,
				 "is no ploop image: wrong signature");
	if (h->type != PLOOP_TYPE)
		return error_set(err, -ENOTSUP, PLOOP_TYPE_AT,
				 "ploop image type %" PRIu32
				 " is not supported, %u is",
				 h->type, PLOOP_TYPE);
	if (!h->tracks || h->tracks > PLOOP_TRACKS_MAX)
		return error_set(err, -EBADMSG, PLOOP_TRACKS_AT,
				 "cluster size of %" PRIu32
				 " sectors is not in 1..%" PRIu32,
				 h->tracks, PLOOP_TRACKS_MAX);
	if (h->entries > PLOOP_ENTRIES_MAX)
		return error_set(err, -EFBIG, PLOOP_ENTRIES_AT,
				 "BAT of %" PRIu32
				 " entries is over the limit of %" PRIu32,
				 h->entries, PLOOP_ENTRIES_MAX);
	if (!range_inside(PLOOP_HEADER_BYTES, (uint64_t)h->entries * 4,
			  file_bytes))
		return error_set(err, -EBADMSG, PLOOP_ENTRIES_AT,
				 "BAT of %" PRIu32
				 " entries ends past the file's %" PRIu64
				 " bytes",
				 h->entries, file_bytes);
	if (delta_magic_version(h->magic) == 2 &&
	    h->sectors > BUNDLE_SECTORS_MAX)
		return error_set(err, -EFBIG, PLOOP_SECTORS_AT,
				 "virtual size of %" PRIu64
				 " sectors is over the limit of %" PRIu64,
				 h->sectors, (uint64_t)BUNDLE_SECTORS_MAX);
	if (cluster_count(h) > h->entries)
		return error_set(err, -EBADMSG, PLOOP_ENTRIES_AT,
				 "BAT of %" PRIu32
				 " entries is too short for a disk of %" PRIu64
				 " sectors in clusters of %" PRIu32,
				 h->entries, disk_sectors(h), h->tracks);
	/* "data_off": not 0, and whole clusters. */
	if (delta_magic_version(h->magic) == 2 &&
	    (!h->data_off || h->data_off % h->tracks))
		return error_set(err, -EBADMSG, PLOOP_DATA_OFF_AT,
				 "data at sector %" PRIu32
				 " do not begin at a cluster of %" PRIu32
				 " sectors",
				 h->data_off, h->tracks);
	if (h->in_use != PLOOP_IN_USE &&
	    h->ext_off > file_bytes / PLOOP_SECTOR_BYTES)
		return error_set(err, -EBADMSG, PLOOP_EXT_OFF_AT,
				 "format extension at sector %" PRIu64
				 " lies behind the file's end at %" PRIu64,
				 h->ext_off, file_bytes);
	return 0;
}

int delta_open(struct source *src, struct delta *ret, struct error *err)
{
	uint8_t buf[PLOOP_HEADER_BYTES];
	size_t len = (size_t)min_u64(sizeof(buf), src->bytes);
	struct ploop_header h;
	int r;

	r = source_read(src, buf, len, 0, err);
	if (r >= 0)
		r = decode_header(buf, len, &h, err);
	if (r >= 0)
		r = check_header(&h, src->bytes, err);
	if (r < 0)
		return r;
	*ret = (struct delta){
		.src = src,
		.version = delta_magic_version(h.magic),
		.cluster_bytes = (uint64_t)h.tracks * PLOOP_SECTOR_BYTES,
		.entry_unit = PLOOP_SECTOR_BYTES,
		.entries = h.entries,
		.bytes = disk_sectors(&h) * PLOOP_SECTOR_BYTES,
		.data_off = h.data_off * (uint64_t)PLOOP_SECTOR_BYTES,
		.in_use = h.in_use == PLOOP_IN_USE,
	};
	if (ret->version == 2)
		ret->entry_unit = ret->cluster_bytes;
	/* What a writer that died has left there is stale. */
	if (!ret->in_use)
		ret->ext_off = h.ext_off * PLOOP_SECTOR_BYTES;
	return 0;
}

/* Old files of version 1 tell no place of their data, or a wrong one. */
static uint64_t clusters_from(const struct delta *d)
{
	uint64_t bat_end = PLOOP_HEADER_BYTES + d->entries * 4;

	return d->version == 2 ? max_u64(bat_end, d->data_off) : bat_end;
}

static int decode_entry(const void *state, const uint8_t *raw,
			struct unit_place *ret, struct error *err)
{
	struct cursor c = { .buf = raw, .len = 4 };
	const struct delta *d = state;
	uint32_t entry = cursor_le32_at(&c, 0);

	/* Below 2^32 * 2^31. */
	ret->host_off = entry * d->entry_unit;
	ret->kind = entry ? EXTENT_DATA : EXTENT_HOLE;
	if (entry && ret->host_off < clusters_from(d))
		return error_set(err, -EBADMSG, 0,
				 "BAT entry %" PRIu32
				 " leads in front of the data at %" PRIu64,
				 entry, clusters_from(d));
	return 0;
}

static struct unit_table bat(const struct delta *d)
{
	return (struct unit_table){
		.src = d->src,
		.off = PLOOP_HEADER_BYTES,
		.entry_bytes = 4,
		.unit_bytes = d->cluster_bytes,
		.stride = d->cluster_bytes,
		.data = d->src,
		.decode = decode_entry,
		.state = d,
	};
}

int delta_map(struct layer *l, const struct delta *d, uint64_t off,
	      uint64_t len, struct extent *ret, struct error *err)
{
	uint64_t mapped = d->entries * d->cluster_bytes;
	struct unit_table t = bat(d);

	*ret = (struct extent){ .kind = EXTENT_HOLE, .len = len };
	if (!d->src || off >= mapped)
		return 0;
	return unit_table_map(l, &t, off, min_u64(len, mapped - off), ret, err);
}

struct features {
	uint64_t bitmaps;
	uint64_t unknown;
	bool necessary; /* an unknown one: the image may not be written */
	bool damaged;
};

/* "Format Extension": 24 bytes, then features until one that is all zero. */
static void read_features(struct layer *l, const struct delta *d,
			  struct features *ret)
{
	uint64_t at = d->ext_off + EXT_FEATURES_AT;
	uint64_t end = min_u64(d->ext_off + d->cluster_bytes, d->src->bytes);
	uint8_t buf[FEATURE_BYTES] = { 0 };
	struct cursor c = { .buf = buf, .len = sizeof(buf) };
	unsigned int n;

	*ret = (struct features){ 0 };
	if (layer_read_meta(l, d->src, buf, 8, d->ext_off, NULL) < 0 ||
	    cursor_le64_at(&c, EXT_MAGIC_AT) != PLOOP_EXT_MAGIC)
		ret->damaged = true;
	for (n = 0; !ret->damaged && n < PLOOP_FEATURES_MAX; n++) {
		uint64_t magic, bytes;

		ret->damaged = at > end || end - at < FEATURE_BYTES ||
			       layer_read_meta(l, d->src, buf, sizeof(buf), at,
					       NULL) < 0;
		magic = cursor_le64_at(&c, FEATURE_MAGIC_AT);
		if (ret->damaged || !magic)
			return;
		bytes = cursor_le32_at(&c, FEATURE_DATA_BYTES_AT);
		if (magic == PLOOP_EXT_BITMAP) {
			ret->bitmaps++;
		} else {
			ret->unknown++;
			if (cursor_le64_at(&c, FEATURE_FLAGS_AT) &
			    PLOOP_EXT_NECESSARY)
				ret->necessary = true;
		}
		at += FEATURE_BYTES + round_up(bytes, 8);
	}
}

void delta_info(struct layer *l, const struct delta *d, struct info_sink *sink)
{
	struct features f;

	if (!d->src || !d->ext_off)
		return;
	read_features(l, d, &f);
	sink->number(sink, "bitmaps", f.bitmaps);
	sink->number(sink, "unknown-extensions", f.unknown);
	sink->flag(sink, "unknown-extensions-necessary", f.necessary);
	sink->flag(sink, "extension-damaged", f.damaged);
}

int delta_check(struct layer *l, const struct delta *d, struct check_report *r,
		struct error *err)
{
	struct unit_table t = bat(d);
	uint64_t bat_bytes = PLOOP_HEADER_BYTES + d->entries * 4;
	struct features f = { 0 };
	CLEANUP(unit_check_done)
	struct unit_check k = {
		.l = l,
		.r = r,
		.unit = "cluster",
		.unit_bytes = d->cluster_bytes,
		.src = d->src,
		.err = err,
	};
	int code;

	code = unit_check_claim(&k, 0, bat_bytes);
	if (code >= 0)
		code = unit_check_table(&k, &t, d->entries);
	if (code < 0)
		return code;
	if (d->ext_off)
		read_features(l, d, &f);
	if (f.damaged)
		unit_check_corrupt(&k,
				   "format extension at %" PRIu64 " is damaged",
				   d->ext_off);
	if (d->in_use)
		unit_check_corrupt(&k, "image is marked as in use: it was not "
				       "closed");
	if (d->entries > div_round_up(d->bytes, d->cluster_bytes))
		unit_check_corrupt(&k,
				   "BAT has %" PRIu64
				   " entries, a disk of %" PRIu64
				   " bytes needs fewer",
				   d->entries, d->bytes);
	/* Clusters of an extension are not counted: no leaks where one is. */
	unit_check_finish(&k, d->ext_off ? d->src->bytes
					 : max_u64(d->data_off, bat_bytes));
	return 0;
}
