/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UDIF, the disk images of macOS (.dmg). No document describes it; this is
 * what its files are (all big endian):
 *
 *	data | property list (XML) or resource fork | trailer of 512 bytes
 *
 * The trailer ("koly") says where the others are. The property list, or in
 * older files the resource fork, holds a block list ("mish") for each
 * partition: chunks, each a run of sectors with the way in which it lies in
 * the data: as it is, compressed, or not at all (zeroes). Chunks are of any
 * size, in any order.
 *
 * Chunks that overlap are refused: programs would not agree on what is there.
 * Sectors of no chunk are damage. How large the disk is the trailer says, the
 * block lists' heads, and their chunks: where the trailer alone has less than
 * the others, and these have no gap, they are believed, so that nothing is
 * lost; what disagrees otherwise is refused. Refused by name are encrypted images, images in several
 * segments, and chunks compressed with LZFSE.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/dmg-plist.h"
#include "formats/drivers/unit-check.h"

#define DMG_SECTOR_BYTES   512U
#define DMG_TRAILER_BYTES  512U
#define DMG_VERSION	   4U
#define DMG_SECTORS_MAX	   (INT64_MAX / DMG_SECTOR_BYTES)
#define DMG_CHUNK_MAX	   (64U << 20) /* compressed: it is decoded whole */
#define DMG_CHUNKS_MAX	   (1U << 20)
#define DMG_RESOURCES_MAX  (16U << 20)
#define DMG_ENCRYPTED	   "encrcdsa" /* at the start; version 2 */
#define DMG_ENCRYPTED_TAIL "cdsaencr" /* at the end; version 1 */

/* Padding to whole sectors may follow the trailer. */
#define DMG_TAIL_BYTES (2 * DMG_TRAILER_BYTES - 1)

enum {
	KOLY_MAGIC_AT = 0,
	KOLY_VERSION_AT = 4,
	KOLY_HEADER_BYTES_AT = 8,
	KOLY_DATA_OFF_AT = 24,
	KOLY_DATA_BYTES_AT = 32,
	KOLY_RSRC_OFF_AT = 40,
	KOLY_RSRC_BYTES_AT = 48,
	KOLY_SEGMENT_AT = 56,
	KOLY_SEGMENTS_AT = 60,
	KOLY_XML_OFF_AT = 216,
	KOLY_XML_BYTES_AT = 224,
	KOLY_SECTORS_AT = 492,

	RSRC_DATA_OFF_AT = 0,
	RSRC_DATA_BYTES_AT = 8,
	RSRC_HEADER_BYTES = 16,

	MISH_MAGIC_AT = 0,
	MISH_SECTOR_AT = 8,
	MISH_SECTORS_AT = 16,
	MISH_DATA_OFF_AT = 24,
	MISH_CHUNKS_AT = 200,
	MISH_HEADER_BYTES = 204,

	CHUNK_TYPE_AT = 0,
	CHUNK_SECTOR_AT = 8,
	CHUNK_SECTORS_AT = 16,
	CHUNK_OFF_AT = 24,
	CHUNK_BYTES_AT = 32,
	CHUNK_ENTRY_BYTES = 40,
};

enum chunk_type {
	CHUNK_ZERO = 0,
	CHUNK_RAW = 1,
	CHUNK_IGNORE = 2, /* what is there does not matter: zeroes */
	CHUNK_COMMENT = 0x7ffffffe,
	CHUNK_ADC = 0x80000004,
	CHUNK_ZLIB = 0x80000005,
	CHUNK_BZIP2 = 0x80000006,
	CHUNK_LZFSE = 0x80000007,
	CHUNK_LZMA = 0x80000008,
	CHUNK_LAST = 0xffffffff,
};

struct trailer {
	uint64_t at; /* of the file; the fields below are checked */
	uint64_t data_off;
	uint64_t data_bytes; /* 0: it is not told */
	uint64_t rsrc_off;
	uint64_t rsrc_bytes;
	uint32_t segment;
	uint32_t segments;
	uint64_t xml_off;
	uint64_t xml_bytes;
	uint64_t sectors;
};

struct chunk {
	uint64_t sector; /* of the disk */
	uint64_t sectors; /* > 0; compressed: at most DMG_CHUNK_MAX bytes */
	uint64_t host_off; /* what the table says: checked when mapped */
	uint64_t host_bytes;
	uint32_t type; /* enum chunk_type: none that is not served */
};

struct dmg_state {
	struct trailer t;
	struct chunk *chunks; /* ascending, not overlapping */
	size_t n_chunks, room;
	unsigned int lists;
	uint64_t lists_end; /* by their heads, sectors */
};

static bool is_trailer(const uint8_t *buf)
{
	struct cursor c = { .buf = buf, .len = DMG_TRAILER_BYTES };

	return !memcmp(buf, "koly", 4) &&
	       cursor_be32_at(&c, KOLY_VERSION_AT) == DMG_VERSION &&
	       cursor_be32_at(&c, KOLY_HEADER_BYTES_AT) == DMG_TRAILER_BYTES;
}

/* The last trailer in the file's tail; false: there is none. */
static bool find_trailer(struct source *src, uint8_t *ret, uint64_t *ret_at)
{
	uint8_t tail[DMG_TAIL_BYTES];
	size_t len = (size_t)min_u64(sizeof(tail), src->bytes), at;

	if (len < DMG_TRAILER_BYTES ||
	    source_read(src, tail, len, src->bytes - len, NULL) < 0)
		return false;
	for (at = len - DMG_TRAILER_BYTES + 1; at--;) {
		if (!is_trailer(tail + at))
			continue;
		memcpy(ret, tail + at, DMG_TRAILER_BYTES);
		*ret_at = src->bytes - len + at;
		return true;
	}
	return false;
}

static bool is_encrypted(struct source *src)
{
	uint8_t head[8] = { 0 }, tail[8] = { 0 };

	return src->bytes >= sizeof(head) &&
	       !source_read(src, head, sizeof(head), 0, NULL) &&
	       !source_read(src, tail, sizeof(tail), src->bytes - sizeof(tail),
			    NULL) &&
	       (!memcmp(head, DMG_ENCRYPTED, sizeof(head)) ||
		!memcmp(tail, DMG_ENCRYPTED_TAIL, sizeof(tail)));
}

static bool dmg_probe(struct source *src, const uint8_t *head,
		      size_t head_bytes)
{
	uint8_t buf[DMG_TRAILER_BYTES];
	uint64_t at;

	return is_encrypted(src) || find_trailer(src, buf, &at);
}

static struct trailer decode_trailer(const uint8_t *buf, uint64_t at)
{
	struct cursor c = { .buf = buf, .len = DMG_TRAILER_BYTES };

	return (struct trailer){
		.at = at,
		.data_off = cursor_be64_at(&c, KOLY_DATA_OFF_AT),
		.data_bytes = cursor_be64_at(&c, KOLY_DATA_BYTES_AT),
		.rsrc_off = cursor_be64_at(&c, KOLY_RSRC_OFF_AT),
		.rsrc_bytes = cursor_be64_at(&c, KOLY_RSRC_BYTES_AT),
		.segment = cursor_be32_at(&c, KOLY_SEGMENT_AT),
		.segments = cursor_be32_at(&c, KOLY_SEGMENTS_AT),
		.xml_off = cursor_be64_at(&c, KOLY_XML_OFF_AT),
		.xml_bytes = cursor_be64_at(&c, KOLY_XML_BYTES_AT),
		.sectors = cursor_be64_at(&c, KOLY_SECTORS_AT),
	};
}

/* Data end where the tables begin, or the trailer. */
static uint64_t tables_off(const struct trailer *t)
{
	return min_u64(t->xml_bytes ? t->xml_off : t->rsrc_off, t->at);
}

static int check_trailer(const struct trailer *t, struct error *err)
{
	if (t->segments > 1)
		return error_set(err, -ENOTSUP, t->at + KOLY_SEGMENTS_AT,
				 "is segment %" PRIu32 " of %" PRIu32
				 " of a split image, which is not supported: "
				 "join it with hdiutil convert",
				 t->segment, t->segments);
	if (t->sectors > DMG_SECTORS_MAX)
		return error_set(err, -EFBIG, t->at + KOLY_SECTORS_AT,
				 "virtual size of %" PRIu64
				 " sectors is over the limit of %" PRIu64,
				 t->sectors, (uint64_t)DMG_SECTORS_MAX);
	if (t->data_off &&
	    !range_inside(t->data_off, t->data_bytes, tables_off(t)))
		return error_set(err, -EBADMSG, t->at + KOLY_DATA_OFF_AT,
				 "data fork at %" PRIu64 " with %" PRIu64
				 " bytes does not lie before the tables at "
				 "%" PRIu64,
				 t->data_off, t->data_bytes, tables_off(t));
	if (!t->xml_bytes && !t->rsrc_bytes)
		return error_set(err, -EBADMSG, t->at + KOLY_XML_BYTES_AT,
				 "has neither a property list nor a resource "
				 "fork");
	if (t->xml_bytes > DMG_PLIST_MAX)
		return error_set(err, -EFBIG, t->at + KOLY_XML_BYTES_AT,
				 "property list of %" PRIu64
				 " bytes is over the limit of %u",
				 t->xml_bytes, DMG_PLIST_MAX);
	if (!range_inside(t->xml_off, t->xml_bytes, t->at))
		return error_set(err, -EBADMSG, t->at + KOLY_XML_OFF_AT,
				 "property list at %" PRIu64 " with %" PRIu64
				 " bytes does not lie before the trailer at "
				 "%" PRIu64,
				 t->xml_off, t->xml_bytes, t->at);
	if (t->xml_bytes)
		return 0;
	if (t->rsrc_bytes > DMG_RESOURCES_MAX)
		return error_set(err, -EFBIG, t->at + KOLY_RSRC_BYTES_AT,
				 "resource fork of %" PRIu64
				 " bytes is over the limit of %u",
				 t->rsrc_bytes, DMG_RESOURCES_MAX);
	if (!range_inside(t->rsrc_off, t->rsrc_bytes, t->at))
		return error_set(err, -EBADMSG, t->at + KOLY_RSRC_OFF_AT,
				 "resource fork at %" PRIu64 " with %" PRIu64
				 " bytes does not lie before the trailer at "
				 "%" PRIu64,
				 t->rsrc_off, t->rsrc_bytes, t->at);
	return 0;
}

/* How the chunks of a kind are decoded; NULL: they are not. */
static const struct packing {
	uint32_t type;
	enum codec codec;
} packings[] = {
	{ CHUNK_ADC, CODEC_ADC },
	{ CHUNK_ZLIB, CODEC_ZLIB },
	{ CHUNK_BZIP2, CODEC_BZIP2 },
	{ CHUNK_LZMA, CODEC_XZ },
};

static const struct packing *packing_of(uint32_t type)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(packings); i++)
		if (packings[i].type == type)
			return &packings[i];
	return NULL;
}

static int check_chunk(const struct chunk *k, struct error *err)
{
	const struct packing *p = packing_of(k->type);

	if (k->type == CHUNK_LZFSE)
		return error_set(err, -ENOTSUP, 0,
				 "chunk at sector %" PRIu64
				 " is compressed with LZFSE, which is not "
				 "supported: convert to UDZO with hdiutil",
				 k->sector);
	if (k->type > CHUNK_IGNORE && !p)
		return error_set(err, -ENOTSUP, 0,
				 "chunk at sector %" PRIu64
				 " is of the type 0x%08" PRIx32
				 ", which is not supported",
				 k->sector, k->type);
	if (k->sector > DMG_SECTORS_MAX ||
	    k->sectors > DMG_SECTORS_MAX - k->sector)
		return error_set(err, -EFBIG, 0,
				 "chunk of %" PRIu64 " sectors at %" PRIu64
				 " is over the limit of %" PRIu64,
				 k->sectors, k->sector,
				 (uint64_t)DMG_SECTORS_MAX);
	if (!p)
		return 0;
	if (k->sectors > DMG_CHUNK_MAX / DMG_SECTOR_BYTES)
		return error_set(err, -EFBIG, 0,
				 "compressed chunk of %" PRIu64
				 " sectors at %" PRIu64
				 " is over the limit of %u",
				 k->sectors, k->sector,
				 DMG_CHUNK_MAX / DMG_SECTOR_BYTES);
	return codec_need(p->codec, err);
}

static int add_chunk(struct dmg_state *s, const struct chunk *k,
		     struct error *err)
{
	struct chunk *grown;

	if (s->n_chunks == DMG_CHUNKS_MAX)
		return error_set(err, -EFBIG, 0, "more than %u chunks",
				 DMG_CHUNKS_MAX);
	if (s->n_chunks == s->room) {
		s->room = s->room ? 2 * s->room : 256;
		grown = reallocarray(s->chunks, s->room, sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		s->chunks = grown;
	}
	s->chunks[s->n_chunks++] = *k;
	return 0;
}

/* One entry of a block list whose disk sectors and data begin where said. */
static int take_entry(struct dmg_state *s, struct cursor *c, size_t at,
		      uint64_t first_sector, uint64_t data_off,
		      struct error *err)
{
	uint64_t sector = cursor_be64_at(c, at + CHUNK_SECTOR_AT);
	uint64_t off = cursor_be64_at(c, at + CHUNK_OFF_AT);
	struct chunk k = {
		.type = cursor_be32_at(c, at + CHUNK_TYPE_AT),
		.sectors = cursor_be64_at(c, at + CHUNK_SECTORS_AT),
		.host_bytes = cursor_be64_at(c, at + CHUNK_BYTES_AT),
		/* What wraps lies behind every end. */
		.sector = sector > UINT64_MAX - first_sector
				  ? UINT64_MAX
				  : first_sector + sector,
		.host_off = off > UINT64_MAX - data_off ? UINT64_MAX
							: data_off + off,
	};
	int r;

	if (k.type == CHUNK_COMMENT || k.type == CHUNK_LAST || !k.sectors)
		return 0;
	r = check_chunk(&k, err);
	return r < 0 ? r : add_chunk(s, &k, err);
}

static int take_list(void *opaque, const uint8_t *list, size_t bytes,
		     struct error *err)
{
	struct cursor c = { .buf = list, .len = bytes };
	struct dmg_state *s = opaque;
	uint64_t first_sector = cursor_be64_at(&c, MISH_SECTOR_AT);
	uint64_t data_off = cursor_be64_at(&c, MISH_DATA_OFF_AT);
	uint64_t sectors = cursor_be64_at(&c, MISH_SECTORS_AT), end;
	uint32_t chunks = cursor_be32_at(&c, MISH_CHUNKS_AT), i;
	int r = 0;

	if (c.short_read || memcmp(list, "mish", 4))
		return error_set(err, -EBADMSG, 0,
				 "block list %u is cut off or has a wrong "
				 "magic",
				 s->lists);
	if (chunks > (bytes - MISH_HEADER_BYTES) / CHUNK_ENTRY_BYTES)
		return error_set(err, -EBADMSG, 0,
				 "block list %u of %zu bytes does not have "
				 "room for its %" PRIu32 " chunks",
				 s->lists, bytes, chunks);
	s->lists++;
	if (__builtin_add_overflow(first_sector, sectors, &end))
		end = UINT64_MAX;
	s->lists_end = max_u64(s->lists_end, end);
	data_off = data_off > UINT64_MAX - s->t.data_off
			   ? UINT64_MAX
			   : data_off + s->t.data_off;
	for (i = 0; i < chunks && !r; i++)
		r = take_entry(s, &c,
			       MISH_HEADER_BYTES +
				       (size_t)i * CHUNK_ENTRY_BYTES,
			       first_sector, data_off, err);
	return r;
}

/*
 * Resources, each behind its length, whatever the map of the fork says of
 * their types: those with a block list's magic are block lists.
 */
static int take_resources(struct dmg_state *s, const uint8_t *fork,
			  size_t bytes, struct error *err)
{
	struct cursor c = { .buf = fork, .len = bytes };
	uint64_t at = cursor_be32_at(&c, RSRC_DATA_OFF_AT);
	uint64_t data_bytes = cursor_be32_at(&c, RSRC_DATA_BYTES_AT), end, len;
	int r = 0;

	if (c.short_read || !range_inside(at, data_bytes, bytes))
		return error_set(err, -EBADMSG, s->t.rsrc_off,
				 "resources at %" PRIu64 " with %" PRIu64
				 " bytes do not lie inside their fork of %zu",
				 at, data_bytes, bytes);
	for (end = at + data_bytes; !r && end - at >= 4; at += len) {
		len = cursor_be32_at(&c, (size_t)at);
		at += 4;
		if (len > end - at)
			return error_set(err, -EBADMSG, s->t.rsrc_off + at - 4,
					 "resource of %" PRIu64
					 " bytes at %" PRIu64
					 " ends past the others",
					 len, s->t.rsrc_off + at);
		if (len >= 4 && !memcmp(fork + at, "mish", 4))
			r = take_list(s, fork + at, (size_t)len, err);
	}
	return r;
}

static int read_lists(struct layer *l, struct error *err)
{
	struct dmg_state *s = l->state;
	const struct trailer *t = &s->t;
	bool xml = t->xml_bytes != 0;
	size_t bytes = (size_t)(xml ? t->xml_bytes : t->rsrc_bytes);
	CLEANUP(freep) uint8_t *buf = malloc(bytes);
	int r;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = source_read(l->src, buf, bytes, xml ? t->xml_off : t->rsrc_off,
			err);
	if (r < 0)
		return r;
	return xml ? dmg_plist_each(buf, bytes, take_list, s, err)
		   : take_resources(s, buf, bytes, err);
}

static int compare_chunks(const void *a, const void *b)
{
	const struct chunk *x = a, *y = b;

	return x->sector < y->sector ? -1 : x->sector > y->sector;
}

static int sort_chunks(struct dmg_state *s, struct error *err)
{
	size_t i;

	if (s->n_chunks)
		qsort(s->chunks, s->n_chunks, sizeof(*s->chunks),
		      compare_chunks);
	for (i = 1; i < s->n_chunks; i++) {
		const struct chunk *a = &s->chunks[i - 1], *b = a + 1;

		if (b->sector - a->sector < a->sectors)
			return error_set(err, -EBADMSG, 0,
					 "chunk of %" PRIu64
					 " sectors at %" PRIu64
					 " overlaps the one at %" PRIu64,
					 a->sectors, a->sector, b->sector);
	}
	return 0;
}

/* Of the disk, in sectors. */
static uint64_t chunks_end(const struct dmg_state *s)
{
	const struct chunk *last;

	if (!s->n_chunks)
		return 0;
	last = &s->chunks[s->n_chunks - 1];
	return last->sector + last->sectors;
}

/* Are there sectors before the last chunk's that are in none? */
static bool has_gap(const struct dmg_state *s)
{
	uint64_t next = 0;
	size_t i;

	for (i = 0; i < s->n_chunks; i++) {
		if (s->chunks[i].sector != next)
			return true;
		next += s->chunks[i].sectors;
	}
	return false;
}

static int adopt_size(struct layer *l, struct error *err)
{
	const struct dmg_state *s = l->state;
	uint64_t end = chunks_end(s);

	l->bytes = end * DMG_SECTOR_BYTES;
	if (s->t.sectors == end ||
	    (s->t.sectors < end && s->lists_end == end && !has_gap(s)))
		return 0;
	return error_set(err, -EBADMSG, s->t.at + KOLY_SECTORS_AT,
			 "trailer has %" PRIu64 " sectors, the block lists' "
			 "heads have %" PRIu64 ", their chunks %" PRIu64,
			 s->t.sectors, s->lists_end, end);
}

static int dmg_open(struct layer *l, struct error *err)
{
	struct dmg_state *s = l->state;
	uint8_t buf[DMG_TRAILER_BYTES];
	uint64_t at;
	int r;

	if (is_encrypted(l->src))
		return error_set(err, -ENOTSUP, 0,
				 "is an encrypted disk image of macOS, which "
				 "is not supported: decrypt it with hdiutil "
				 "convert");
	if (!find_trailer(l->src, buf, &at))
		return error_set(err, -EBADMSG, 0,
				 "not dmg: there is no trailer at the end");
	s->t = decode_trailer(buf, at);
	r = check_trailer(&s->t, err);
	if (r >= 0)
		r = read_lists(l, err);
	if (r >= 0)
		r = sort_chunks(s, err);
	if (r < 0)
		return r;
	return adopt_size(l, err);
}

static void dmg_close(struct layer *l)
{
	struct dmg_state *s = l->state;

	free(s->chunks);
}

/* The first chunk that does not end before @sector; n_chunks: there is none. */
static size_t find_chunk(const struct dmg_state *s, uint64_t sector)
{
	size_t lo = 0, hi = s->n_chunks, mid;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		if (s->chunks[mid].sector + s->chunks[mid].sectors <= sector)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/*
 * All @len bytes from @guest_off are damaged. The first sector says why when it
 * is asked for alone.
 */
static int damaged(struct extent *ret, uint64_t guest_off, uint64_t len,
		   const struct chunk *k, struct error *err)
{
	ret->kind = EXTENT_DAMAGED;
	ret->len = len;
	if (len > DMG_SECTOR_BYTES)
		return 0;
	if (!k)
		return error_set(err, -EBADMSG, 0,
				 "sector %" PRIu64 " is in no chunk",
				 guest_off / DMG_SECTOR_BYTES);
	return error_set(err, -EBADMSG, k->host_off,
			 "chunk at %" PRIu64 " with %" PRIu64
			 " bytes does not lie inside the file, or has not the "
			 "size of its %" PRIu64 " sectors",
			 k->host_off, k->host_bytes, k->sectors);
}

/* Are the chunk's bytes in the file, and as many as its kind can have? */
static bool chunk_is_sound(const struct layer *l, const struct chunk *k)
{
	const struct dmg_state *s = l->state;
	uint64_t bytes = k->sectors * DMG_SECTOR_BYTES;

	/* Zeroes take no room: these were something else. */
	if (k->type == CHUNK_ZERO)
		return !k->host_bytes;
	if (k->type == CHUNK_IGNORE)
		return true;
	/* Tables and trailer are no data. */
	if (k->host_off < tables_off(&s->t) &&
	    k->host_bytes > tables_off(&s->t) - k->host_off)
		return false;
	if (!range_inside(k->host_off, k->host_bytes, l->src->bytes))
		return false;
	/* What does not compress grows, but not to twice its size. */
	return k->type == CHUNK_RAW
		       ? k->host_bytes == bytes
		       : k->host_bytes && k->host_bytes <= 2 * bytes;
}

static int dmg_map(struct layer *l, uint64_t guest_off, uint64_t len,
		   struct extent *ret, struct error *err)
{
	const struct dmg_state *s = l->state;
	uint64_t sector = guest_off / DMG_SECTOR_BYTES, start;
	size_t i = find_chunk(s, sector);
	const struct chunk *k = i < s->n_chunks ? &s->chunks[i] : NULL;

	if (!k || k->sector > sector) {
		if (k)
			len = min_u64(len,
				      k->sector * DMG_SECTOR_BYTES - guest_off);
		return damaged(ret, guest_off, len, NULL, err);
	}
	start = k->sector * DMG_SECTOR_BYTES;
	len = min_u64(len, start + k->sectors * DMG_SECTOR_BYTES - guest_off);
	ret->len = len;
	if (!chunk_is_sound(l, k))
		return damaged(ret, guest_off, len, k, err);
	if (k->type == CHUNK_ZERO || k->type == CHUNK_IGNORE) {
		ret->kind = EXTENT_ZERO;
		return 0;
	}
	ret->src = l->src;
	ret->host_off = k->host_off;
	if (k->type == CHUNK_RAW) {
		ret->kind = EXTENT_DATA;
		ret->host_off += guest_off - start;
		return 0;
	}
	ret->kind = EXTENT_COMPRESSED;
	ret->codec = (uint8_t)packing_of(k->type)->codec;
	ret->comp_bytes = (uint32_t)k->host_bytes;
	ret->unit_bytes = (uint32_t)(k->sectors * DMG_SECTOR_BYTES);
	ret->unit_off = (uint32_t)(guest_off - start);
	return 0;
}

static bool has_kind(const struct dmg_state *s, uint32_t type)
{
	size_t i;

	for (i = 0; i < s->n_chunks; i++)
		if (s->chunks[i].type == type)
			return true;
	return false;
}

static void dmg_info(struct layer *l, struct info_sink *sink)
{
	const struct dmg_state *s = l->state;
	char text[64] = "";
	size_t i;

	for (i = 0; i < ARRAY_SIZE(packings); i++)
		if (has_kind(s, packings[i].type))
			snprintf(text + strlen(text),
				 sizeof(text) - strlen(text), "%s%s",
				 *text ? ", " : "",
				 codec_name(packings[i].codec));
	if (*text)
		sink->text(sink, "compression", text);
	sink->number(sink, "block-lists", s->lists);
	sink->number(sink, "chunks", s->n_chunks);
	sink->text(sink, "tables-from",
		   s->t.xml_bytes ? "property list" : "resource fork");
}

/* One chunk; the one before it ends at @next. */
static int check_one(struct layer *l, struct unit_check *u,
		     const struct chunk *k, uint64_t next)
{
	struct check_report *r = u->r;

	if (k->sector > next)
		report_corrupt(
			r, "sectors %" PRIu64 " to %" PRIu64 " are in no chunk",
			next, k->sector - 1);
	if (!chunk_is_sound(l, k)) {
		report_corrupt(
			r,
			"chunk at %" PRIu64 " with %" PRIu64
			" bytes does not lie inside the file, or has not "
			"the size of its %" PRIu64 " sectors",
			k->host_off, k->host_bytes, k->sectors);
		return 0;
	}
	if (k->type == CHUNK_ZERO || k->type == CHUNK_IGNORE)
		return 0;
	r->allocated_units++;
	r->compressed_units += k->type != CHUNK_RAW;
	return unit_check_claim(u, k->host_off, k->host_bytes);
}

/* Every sector of the disk in a chunk, every chunk in the file, by itself. */
static int dmg_check(struct layer *l, struct check_report *r, struct error *err)
{
	const struct dmg_state *s = l->state;
	CLEANUP(unit_check_done)
	struct unit_check u = {
		.l = l,
		.r = r,
		.unit = "sector",
		.unit_bytes = DMG_SECTOR_BYTES,
		.src = l->src,
		.err = err,
	};
	uint64_t next = 0;
	size_t i;
	int code = 0;

	for (i = 0; i < s->n_chunks && code >= 0; i++) {
		const struct chunk *k = &s->chunks[i];

		code = check_one(l, &u, k, next);
		next = k->sector + k->sectors;
	}
	if (code < 0)
		return code;
	if (next != s->t.sectors)
		report_corrupt(r,
			       "trailer has %" PRIu64
			       " sectors, the block lists have %" PRIu64,
			       s->t.sectors, next);
	/* Between chunks may be anything. */
	unit_check_finish(&u, l->src->bytes);
	r->total_units = s->n_chunks;
	r->image_end_off = s->t.at + DMG_TRAILER_BYTES;
	return 0;
}

const struct format_ops dmg_format = {
	.name = "dmg",
	.probe = dmg_probe,
	.told_behind = true,
	.state_bytes = sizeof(struct dmg_state),
	.open = dmg_open,
	.close = dmg_close,
	.map = dmg_map,
	.info = dmg_info,
	.check = dmg_check,
};
