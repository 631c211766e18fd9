/* SPDX-License-Identifier: BSD-3-Clause */
/* VMDK's seSparse files: headers, and what their entries say. */
#include <errno.h>
#include <inttypes.h>

#include "formats/cursor.h"
#include "formats/drivers/vmdk-inside.h"

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

/* What a replay would change is not in the tables yet. */
static int se_check_journal(struct vmdk_extent *e, uint64_t off_sectors,
			    struct error *err)
{
	uint8_t buf[SE_VOLATILE_BYTES];
	struct cursor c = { .buf = buf, .len = sizeof(buf) };
	int r;

	if (!vmdk_off_fits(off_sectors) ||
	    !range_inside(vmdk_sectors(off_sectors), sizeof(buf),
			  e->src->bytes))
		return error_set(err, -EBADMSG, SE_VOLATILE_OFF_AT,
				 "seSparse volatile header at sector %" PRIu64
				 " does not lie inside the file",
				 off_sectors);
	r = source_read(e->src, buf, sizeof(buf), vmdk_sectors(off_sectors),
			err);
	if (r < 0)
		return r;
	if (cursor_le64_at(&c, SE_VOLATILE_MAGIC_AT) != SE_VOLATILE_MAGIC)
		return error_set(err, -EBADMSG, vmdk_sectors(off_sectors),
				 "seSparse volatile header has a wrong magic");
	if (cursor_u8_at(&c, SE_VOLATILE_REPLAY_AT))
		return error_set(err, -ENOTSUP,
				 vmdk_sectors(off_sectors) +
					 SE_VOLATILE_REPLAY_AT,
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
	r = vmdk_check_capacity(cursor_le64_at(c, SE_CAPACITY_AT),
				SE_CAPACITY_AT, err);
	if (r >= 0)
		r = vmdk_check_grain(grain, SE_GRAIN_AT, err);
	if (r < 0)
		return r;
	if (!table || table > VMDK_TABLE_ENTRIES_MAX * 8 / VMDK_SECTOR_BYTES)
		return error_set(err, -ENOTSUP, SE_TABLE_SECTORS_AT,
				 "seSparse grain table of %" PRIu64
				 " sectors is not supported, 1 to 64 are",
				 table);
	e->capacity = e->bytes =
		vmdk_sectors(cursor_le64_at(c, SE_CAPACITY_AT));
	e->grain_bytes = vmdk_sectors(grain);
	e->entry_bytes = 8;
	e->table_entries = (uint32_t)(vmdk_sectors(table) / 8);
	e->n_tables = cursor_le64_at(c, SE_TABLES_SECTORS_AT) / table;
	return 0;
}

/* A place that a header gives in sectors, inside the file. */
static int se_place(struct vmdk_extent *e, struct cursor *c, size_t at,
		    const char *what, uint64_t *ret, struct error *err)
{
	uint64_t off = cursor_le64_at(c, at);

	if (!vmdk_off_fits(off) || vmdk_sectors(off) > e->src->bytes)
		return error_set(err, -EBADMSG, at,
				 "seSparse %s at sector %" PRIu64
				 " lie behind the file's %" PRIu64 " bytes",
				 what, off, e->src->bytes);
	*ret = vmdk_sectors(off);
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

int vmdk_se_open(struct vmdk_extent *e, const uint8_t *head, size_t len,
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
	r = vmdk_check_directory(e, SE_GD_OFF_AT, err);
	if (r < 0)
		return r;
	if (div_round_up(e->gd_entries, VMDK_SECTOR_BYTES / 8) > gd_sectors)
		return error_set(err, -EBADMSG, SE_GD_SECTORS_AT,
				 "grain directory has %" PRIu64
				 " sectors, %" PRIu64 " entries need more",
				 gd_sectors, e->gd_entries);
	return 0;
}

bool vmdk_is_sesparse(const uint8_t *head, size_t len)
{
	struct cursor c = { .buf = head, .len = len };

	return cursor_le64_at(&c, SE_MAGIC_AT) == SE_MAGIC && !c.short_read;
}

int vmdk_se_find_table(const struct vmdk_extent *e, uint64_t entry,
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
	if (n > (UINT64_MAX - e->tables_off) / vmdk_table_bytes(e))
		return error_set(err, -EBADMSG, 0,
				 "grain table %" PRIu64
				 " lies behind the file's end",
				 n);
	ret->kind = EXTENT_DATA;
	ret->off = e->tables_off + n * vmdk_table_bytes(e);
	return 0;
}

/* "3" is data; of the others only 0 lets the parent through. */
int vmdk_se_decode_entry(const struct vmdk_extent *e, uint64_t entry,
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
