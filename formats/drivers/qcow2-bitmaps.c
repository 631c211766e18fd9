/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * "Bitmaps" of qcow2: which parts of the disk were changed since a bitmap was
 * begun, for backups.
 *
 *	directory: an entry for each bitmap -> its table -> clusters of bits
 *
 * A table entry without an offset stands for a cluster of bits that are all 0, or
 * all 1. Bits behind the disk's end are not looked at.
 *
 * Who cannot tell says nothing: a bitmap is offered only where all says that it is
 * right. The autoclear bit falls when a program writes that does not know of
 * bitmaps; IN_USE is set while one writes that does, and stays so if it dies;
 * and they are of the live state, not of a snapshot. Damage is an error of the
 * bitmap, and none of the disk.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/qcow2.h"

/* Bits are read so many bytes at a time. */
#define BITS_BYTES 512U

/* A directory entry, decoded. */
struct entry {
	struct bitmap bitmap;
	uint32_t flags;
	uint8_t type;
	uint32_t name_bytes, extra_bytes;
	uint64_t bytes; /* with its padding */
};

static void decode_entry(const uint8_t *raw, struct entry *ret)
{
	struct cursor c = { .buf = raw, .len = QCOW2_BITMAP_ENTRY_BYTES };
	struct entry e = {
		.bitmap.table_off =
			cursor_be64_at(&c, QCOW2_BITMAP_TABLE_OFF_AT),
		.bitmap.table_entries =
			cursor_be32_at(&c, QCOW2_BITMAP_TABLE_ENTRIES_AT),
		.bitmap.granularity_bits =
			cursor_u8_at(&c, QCOW2_BITMAP_GRANULARITY_BITS_AT),
		.flags = cursor_be32_at(&c, QCOW2_BITMAP_FLAGS_AT),
		.type = cursor_u8_at(&c, QCOW2_BITMAP_TYPE_AT),
		.name_bytes = cursor_be16_at(&c, QCOW2_BITMAP_NAME_BYTES_AT),
		.extra_bytes = cursor_be32_at(&c, QCOW2_BITMAP_EXTRA_BYTES_AT),
	};

	e.bytes = round_up(QCOW2_BITMAP_ENTRY_BYTES + (uint64_t)e.extra_bytes +
				   e.name_bytes,
			   8);
	*ret = e;
}

/* So that the directory's own words can be relied on; @at: of the entry. */
static int check_entry(const struct qcow2_state *s, const struct entry *e,
		       uint64_t at, struct error *err)
{
	if (e->bytes > s->bitmap_dir_bytes - at)
		return error_set(err, -EBADMSG, s->bitmap_dir_off + at,
				 "bitmap directory entry of %" PRIu64
				 " bytes ends behind the directory's %" PRIu64,
				 e->bytes, s->bitmap_dir_bytes);
	if (!e->name_bytes || e->name_bytes > QCOW2_BITMAP_NAME_MAX)
		return error_set(
			err, -EBADMSG,
			s->bitmap_dir_off + at + QCOW2_BITMAP_NAME_BYTES_AT,
			"bitmap's name has %" PRIu32 " bytes, not 1 to %u",
			e->name_bytes, QCOW2_BITMAP_NAME_MAX);
	return 0;
}

/* Is what its entry says of it what we know, and does it tell the truth? */
static bool is_of_use(const struct entry *e)
{
	uint32_t bits = e->bitmap.granularity_bits;

	return e->type == QCOW2_BITMAP_DIRTY &&
	       !(e->flags & ~(uint32_t)QCOW2_BITMAP_FLAGS_KNOWN) &&
	       !(e->flags & QCOW2_BITMAP_IN_USE) &&
	       (!e->extra_bytes || e->flags & QCOW2_BITMAP_EXTRA_COMPATIBLE) &&
	       bits >= QCOW2_GRANULARITY_BITS_MIN &&
	       bits <= QCOW2_GRANULARITY_BITS_MAX;
}

/* Guest bytes that one table entry is for, as a power of two. */
static unsigned int entry_bits(const struct qcow2_state *s,
			       const struct bitmap *b)
{
	return s->cluster_bits + 3 + b->granularity_bits;
}

/* Does the table cover the disk, and nothing else? */
static bool has_its_table(struct layer *l, const struct bitmap *b)
{
	const struct qcow2_state *s = l->state;
	unsigned int bits = entry_bits(s, b);
	uint64_t wanted =
		(l->bytes >> bits) + ((l->bytes & ((1ULL << bits) - 1)) != 0);

	return b->table_entries == wanted &&
	       qcow2_check_table(l, "bitmap table", b->table_off, wanted, 8,
				 l->src->bytes, 0, NULL) == 0;
}

/* The entry at @at of the directory; tells @each of it if it is of use. */
static int take_entry(struct layer *l, uint64_t at, uint64_t *ret_bytes,
		      int (*each)(void *opaque, const struct bitmap *b),
		      void *opaque, struct error *err)
{
	const struct qcow2_state *s = l->state;
	uint8_t raw[QCOW2_BITMAP_ENTRY_BYTES];
	char name[QCOW2_BITMAP_NAME_MAX + 1];
	struct entry e;
	int r;

	if (sizeof(raw) > s->bitmap_dir_bytes - at)
		return error_set(err, -EBADMSG, s->bitmap_dir_off + at,
				 "bitmap directory ends after %" PRIu64
				 " bytes, inside an entry",
				 s->bitmap_dir_bytes);
	r = layer_read_meta(l, l->src, raw, sizeof(raw), s->bitmap_dir_off + at,
			    err);
	if (r < 0)
		return r;
	decode_entry(raw, &e);
	r = check_entry(s, &e, at, err);
	if (r < 0)
		return r;
	*ret_bytes = e.bytes;
	if (!is_of_use(&e) || !has_its_table(l, &e.bitmap))
		return 0;
	r = layer_read_meta(
		l, l->src, name, e.name_bytes,
		s->bitmap_dir_off + at + sizeof(raw) + e.extra_bytes, err);
	if (r < 0)
		return r;
	if (memchr(name, 0, e.name_bytes))
		return 0;
	name[e.name_bytes] = '\0';
	e.bitmap.name = name;
	return each(opaque, &e.bitmap);
}

static int check_directory(struct layer *l, struct error *err)
{
	const struct qcow2_state *s = l->state;

	if (s->bitmaps > QCOW2_BITMAPS_MAX)
		return error_set(err, -EFBIG, 0,
				 "%" PRIu32 " bitmaps are over the limit of %u",
				 s->bitmaps, QCOW2_BITMAPS_MAX);
	return qcow2_check_table(l, "bitmap directory", s->bitmap_dir_off,
				 s->bitmap_dir_bytes, 1, QCOW2_BITMAP_DIR_MAX,
				 0, err);
}

int qcow2_bitmaps(struct layer *l,
		  int (*each)(void *opaque, const struct bitmap *b),
		  void *opaque, struct error *err)
{
	const struct qcow2_state *s = l->state;
	uint64_t at = 0, bytes = 0;
	uint32_t i;
	int r;

	if (s->h.version < 3 || !(s->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS) ||
	    !s->bitmaps || s->is_another_state || s->is_shared)
		return 0;
	r = check_directory(l, err);
	for (i = 0; i < s->bitmaps && !r; i++) {
		r = take_entry(l, at, &bytes, each, opaque, err);
		at += bytes;
	}
	return r;
}

/* The run of bits like the first, of [@bit, @bit + @n). */
static int find_bits(struct layer *l, uint64_t cluster_off, uint64_t bit,
		     uint64_t n, bool *ret_set, uint64_t *ret_n,
		     struct error *err)
{
	uint64_t first = bit, end = bit + n;
	uint8_t bytes[BITS_BYTES], same;
	size_t len, i;
	int r;

	len = (size_t)min_u64(sizeof(bytes), (end + 7) / 8 - bit / 8);
	r = layer_read_meta(l, l->src, bytes, len, cluster_off + bit / 8, err);
	if (r < 0)
		return r;
	*ret_set = bytes[0] >> bit % 8 & 1;
	same = *ret_set ? 0xff : 0;
	end = min_u64(end, (bit / 8 + len) * 8);
	while (bit < end) {
		i = bit / 8 - first / 8;
		if (bit % 8 == 0 && bytes[i] == same && end - bit >= 8)
			bit += 8;
		else if ((bytes[i] >> bit % 8 & 1) == *ret_set)
			bit++;
		else
			break;
	}
	*ret_n = bit - first;
	return 0;
}

static int check_table_entry(const struct qcow2_state *s, uint64_t entry,
			     uint64_t at, struct error *err)
{
	uint64_t off = entry & QCOW2_OFFSET_MASK;

	if (entry & QCOW2_BITMAP_RESERVED ||
	    (off && entry & QCOW2_BITMAP_ALL_SET) || off % s->cluster_bytes)
		return error_set(err, -EBADMSG, at,
				 "bitmap table entry is wrong: 0x%016" PRIx64,
				 entry);
	return 0;
}

int qcow2_map_bitmap(struct layer *l, const struct bitmap *b,
		     uint64_t guest_off, uint64_t len, bool *ret_set,
		     uint64_t *ret_len, struct error *err)
{
	const struct qcow2_state *s = l->state;
	unsigned int bits = entry_bits(s, b), shift = b->granularity_bits;
	uint64_t in_entry = guest_off & ((1ULL << bits) - 1);
	uint64_t entry_at = b->table_off + (guest_off >> bits) * 8;
	uint64_t entry, last, n;
	int r;

	r = layer_read_meta(l, l->src, &entry, sizeof(entry), entry_at, err);
	entry = be64toh(entry);
	if (r >= 0)
		r = check_table_entry(s, entry, entry_at, err);
	if (r < 0)
		return r;
	len = min_u64(len, (1ULL << bits) - in_entry);
	if (!(entry & QCOW2_OFFSET_MASK)) {
		*ret_set = entry & QCOW2_BITMAP_ALL_SET;
		*ret_len = len;
		return 0;
	}
	last = (in_entry + len - 1) >> shift;
	r = find_bits(l, entry & QCOW2_OFFSET_MASK, in_entry >> shift,
		      last + 1 - (in_entry >> shift), ret_set, &n, err);
	if (r >= 0)
		*ret_len = min_u64(len, (((in_entry >> shift) + n) << shift) -
						in_entry);
	return r;
}
