/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Disks that platter packed, by their table: where a block is, is found by
 * arithmetic, whatever the disk's size; each block is compared with its sum, and
 * zeroes are known as such.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/codec/codec-lib.h"
#include "formats/cursor.h"
#include "formats/meta-cache.h"
#include "formats/streams/packed.h"
#include "formats/streams/xxh.h"
#include "iouring/util.h"

/* What a block may grow to that cannot be made smaller. */
#define GROWN(bytes) ((bytes) + (bytes) / 128 + 64)

#define CONTEXT_BYTES (256U << 10) /* of zstd */

/* Of packed blocks that are wanted together so much is read at once. */
#define IN_BYTES (256U << 10)

struct packed {
	enum packed_codec codec;
	uint32_t block_bytes;
	uint64_t blocks;
	uint64_t table_off;
	uint8_t digest[FOOTER_DIGEST_BYTES];
};

struct entry {
	uint64_t off;
	uint32_t bytes;
	uint32_t kind;
	uint64_t sum;
};

/* A decoder's. */
struct unpacker {
	uint64_t idx; /* of the block that comes next */
	uint8_t page[PACKED_PAGE_BYTES]; /* of the table: the one of page_idx */
	uint64_t page_idx; /* UINT64_MAX: none yet */
	uint8_t *
		in; /* blocks, packed: [in_off, in_off + in_bytes) of the file */
	uint64_t in_off;
	uint32_t in_bytes, in_room;
	uint8_t *out; /* one that is wanted in part; NULL: none yet */
	uint32_t made, given; /* bytes of it */
	ZSTD_DCtx *zstd;
};

/* ---- the footer ---- */

static int damaged(const char *what, uint64_t at, struct error *err)
{
	return error_set(err, -EBADMSG, at,
			 "a packed disk: its table, at %" PRIu64 ": %s: it can "
			 "still be unpacked by other tools",
			 at, what);
}

static uint64_t pages_of(uint64_t blocks)
{
	return div_round_up(blocks, PACKED_PAGE_ENTRIES);
}

/* Every relation that others rely on; the footer is at @at. */
static int check(const struct packed *p, uint64_t disk, uint64_t at,
		 struct error *err)
{
	if (!is_power_of_2(p->block_bytes) ||
	    p->block_bytes < PACKED_BLOCK_MIN ||
	    p->block_bytes > PACKED_BLOCK_MAX)
		return damaged("the size of blocks", at, err);
	if (!disk || disk > STREAM_BYTES_MAX ||
	    p->blocks != div_round_up(disk, p->block_bytes))
		return damaged("the number of blocks", at, err);
	if (p->table_off > at ||
	    at - p->table_off != pages_of(p->blocks) * PACKED_PAGE_BYTES)
		return damaged("where it begins", at, err);
	return 0;
}

/* The footer at @at. Returns 1, 0 when there is none, or a negative errno. */
static int read_footer(struct stream *s, uint64_t at, struct packed *ret,
		       struct error *err)
{
	uint8_t buf[FOOTER_BYTES];
	struct cursor c = { .buf = buf, .len = sizeof(buf) };
	struct packed p = { 0 };
	uint64_t disk;
	int r = source_read(s->src, buf, sizeof(buf), at, err);

	if (r < 0 || cursor_le64_at(&c, FOOTER_MAGIC_AT) != PACKED_MAGIC)
		return r;
	if (cursor_le64_at(&c, FOOTER_SUM_AT) != xxh64(buf, FOOTER_SUM_AT))
		return damaged("the sum of its footer", at, err);
	if (cursor_le32_at(&c, FOOTER_VERSION_AT) != PACKED_VERSION ||
	    cursor_le32_at(&c, FOOTER_FLAGS_AT) ||
	    cursor_le32_at(&c, FOOTER_CODEC_AT) > PACKED_ZSTD)
		return error_set(err, -ENOTSUP, at,
				 "a packed disk: its table is of another "
				 "version");
	p.codec = (enum packed_codec)cursor_le32_at(&c, FOOTER_CODEC_AT);
	p.block_bytes = cursor_le32_at(&c, FOOTER_BLOCK_AT);
	p.blocks = cursor_le64_at(&c, FOOTER_BLOCKS_AT);
	p.table_off = cursor_le64_at(&c, FOOTER_TABLE_AT);
	disk = cursor_le64_at(&c, FOOTER_DISK_AT);
	memcpy(p.digest, buf + FOOTER_DIGEST_AT, sizeof(p.digest));
	r = check(&p, disk, at, err);
	if (r < 0)
		return r;
	s->base.bytes = disk;
	*ret = p;
	return 1;
}

/* Where zstd's own table begins; the file's end, where there is none. */
static int seek_table_at(struct stream *s, uint64_t *ret, struct error *err)
{
	uint8_t buf[SEEK_FOOTER_BYTES];
	struct cursor c = { .buf = buf, .len = sizeof(buf) };
	uint64_t bytes;
	int r = 0;

	*ret = s->src->bytes;
	if (*ret < sizeof(buf))
		return 0;
	r = source_read(s->src, buf, sizeof(buf), *ret - sizeof(buf), err);
	if (r < 0 || cursor_le32_at(&c, 5) != SEEK_MAGIC)
		return r;
	bytes = 8 + SEEK_FOOTER_BYTES +
		(uint64_t)cursor_le32_at(&c, 0) *
			(cursor_u8_at(&c, 4) & SEEK_HAS_SUMS ? 12 : 8);
	if (bytes <= *ret)
		*ret -= bytes;
	return 0;
}

/* ---- entries ---- */

/* The page of block @idx, to @page of PACKED_PAGE_BYTES. */
static int read_page(struct stream *s, uint64_t idx, uint8_t *page,
		     struct error *err)
{
	const struct packed *p = s->form;
	uint64_t at =
		p->table_off + idx / PACKED_PAGE_ENTRIES * PACKED_PAGE_BYTES;
	struct cursor c = { .buf = page, .len = PACKED_PAGE_BYTES };
	int r = meta_cache_read(s->src, page, PACKED_PAGE_BYTES, at, err);

	if (r >= 0 && cursor_le64_at(&c, PACKED_PAGE_SUM_AT) !=
			      xxh64(page, PACKED_PAGE_SUM_AT))
		r = damaged("the sum of a page", at, err);
	return r;
}

static struct entry entry_in(const uint8_t *page, uint64_t idx)
{
	size_t at = (size_t)(idx % PACKED_PAGE_ENTRIES) * PACKED_ENTRY_BYTES;
	struct cursor c = { .buf = page + at, .len = PACKED_ENTRY_BYTES };

	return (struct entry){ .off = cursor_le64_at(&c, PACKED_OFF_AT),
			       .bytes = cursor_le32_at(&c, PACKED_BYTES_AT),
			       .kind = cursor_le32_at(&c, PACKED_KIND_AT),
			       .sum = cursor_le64_at(&c, PACKED_SUM_AT) };
}

/* Of the block, unpacked: the last may be shorter. */
static uint32_t bytes_of(const struct stream *s, uint64_t idx)
{
	const struct packed *p = s->form;

	return (uint32_t)min_u64(p->block_bytes,
				 s->base.bytes - idx * p->block_bytes);
}

/* What is read of a wrong one is not the file's. */
static bool is_sound(const struct stream *s, uint64_t idx,
		     const struct entry *e)
{
	const struct packed *p = s->form;

	return e->kind <= PACKED_AS_IT_IS &&
	       (e->kind != PACKED_AS_IT_IS || e->bytes == bytes_of(s, idx)) &&
	       e->bytes <= GROWN(p->block_bytes) &&
	       range_inside(e->off, e->bytes, p->table_off);
}

static int find_entry(struct stream *s, struct unpacker *u, struct entry *ret,
		      struct error *err)
{
	const struct packed *p = s->form;
	uint64_t page = u->idx / PACKED_PAGE_ENTRIES;
	int r = 0;

	if (page != u->page_idx) {
		u->page_idx = UINT64_MAX;
		r = read_page(s, u->idx, u->page, err);
	}
	if (r < 0)
		return r;
	u->page_idx = page;
	*ret = entry_in(u->page, u->idx);
	return is_sound(s, u->idx, ret)
		       ? 0
		       : damaged("an entry", p->table_off, err);
}

static int find_hole(struct stream *s, uint64_t off, uint64_t len,
		     bool *ret_hole, uint64_t *ret_len)
{
	const struct packed *p = s->form;
	uint64_t idx = off / p->block_bytes, end = off + len, at;
	uint8_t page[PACKED_PAGE_BYTES];
	int r = read_page(s, idx, page, NULL);

	*ret_hole = r >= 0 && entry_in(page, idx).kind == PACKED_ZEROES;
	/* As far as the page tells; who reads a wrong one is told. */
	do
		at = ++idx * p->block_bytes;
	while (r >= 0 && at < end && idx % PACKED_PAGE_ENTRIES &&
	       (entry_in(page, idx).kind == PACKED_ZEROES) == *ret_hole);
	*ret_len = min_u64(at, end) - off;
	return 0;
}

/* ---- blocks ---- */

static int find(struct stream *s, uint64_t out, struct checkpoint *ret,
		struct error *err)
{
	const struct packed *p = s->form;

	*ret = (struct checkpoint){ .in = out / p->block_bytes,
				    .out = round_down(out, p->block_bytes) };
	return 0;
}

static uint32_t in_room(const struct packed *p)
{
	return (uint32_t)max_u64(GROWN(p->block_bytes), IN_BYTES);
}

static int start(struct decoder *d, const struct checkpoint *from,
		 struct error *err)
{
	const struct packed *p = d->s->form;
	struct unpacker *u = d->state;

	if (!u) {
		u = d->state = calloc(1, sizeof(*u));
		if (!u)
			return error_set(err, -ENOMEM, 0, "out of memory");
		u->page_idx = UINT64_MAX;
		u->in_room = in_room(p);
		u->in = malloc(u->in_room);
		if (p->codec == PACKED_ZSTD)
			u->zstd = zstd.createDCtx();
		if (!u->in || (p->codec == PACKED_ZSTD && !u->zstd))
			return error_set(err, -ENOMEM, 0, "out of memory");
	}
	u->idx = from->in;
	u->made = u->given = 0;
	return 0;
}

static bool unpack(const struct packed *p, struct unpacker *u,
		   const struct entry *e, uint8_t *out, uint32_t bytes)
{
	const uint8_t *in = u->in;

	if (e->kind != PACKED_ZEROES && e->bytes)
		in += e->off - u->in_off;
	switch ((enum packed_kind)e->kind) {
	case PACKED_ZEROES:
		memset(out, 0, bytes);
		return true;
	case PACKED_AS_IT_IS:
		memcpy(out, in, bytes);
		return true;
	case PACKED_PACKED:
		break;
	}
	if (p->codec == PACKED_ZSTD)
		return zstd.decompressDCtx(u->zstd, out, bytes, in, e->bytes) ==
		       bytes;
	return lz4.decompress_safe((const char *)in, (char *)out, (int)e->bytes,
				   (int)bytes) == (int)bytes;
}

/* Behind @e, which is block u->idx, those of @want bytes of the disk that lie behind
 * it in the file as well: where the last that has room ends. */
static uint64_t end_of_run(const struct stream *s, const struct unpacker *u,
			   const struct entry *e, size_t want)
{
	const struct packed *p = s->form;
	uint64_t end = e->off + e->bytes, idx = u->idx;
	struct entry next;

	for (; want > p->block_bytes; want -= p->block_bytes) {
		if (++idx == p->blocks || idx % PACKED_PAGE_ENTRIES == 0)
			break;
		next = entry_in(u->page, idx);
		if (next.kind == PACKED_ZEROES)
			continue;
		if (!is_sound(s, idx, &next) || next.off != end ||
		    end + next.bytes - e->off > u->in_room)
			break;
		end += next.bytes;
	}
	return end;
}

/* The block of @e, to where unpack() finds it. */
static int read_block(struct stream *s, struct unpacker *u,
		      const struct entry *e, size_t want, struct error *err)
{
	uint64_t end = u->in_off + u->in_bytes;
	int r;

	if (e->kind == PACKED_ZEROES || !e->bytes ||
	    (e->off >= u->in_off && e->off + e->bytes <= end))
		return 0;
	end = end_of_run(s, u, e, want);
	u->in_off = e->off;
	u->in_bytes = (uint32_t)(end - e->off);
	r = source_read(s->src, u->in, u->in_bytes, e->off, err);
	if (r < 0)
		u->in_bytes = 0;
	return r;
}

/* The next block, all of it; @want bytes are, from where it begins. */
static int next_block(struct decoder *d, struct unpacker *u, uint8_t *out,
		      uint32_t bytes, size_t want, struct error *err)
{
	struct entry e;
	int r = find_entry(d->s, u, &e, err);

	if (r >= 0)
		r = read_block(d->s, u, &e, want, err);
	if (r < 0)
		return r;
	if (!unpack(d->s->form, u, &e, out, bytes) ||
	    xxh64(out, bytes) != e.sum)
		return error_set(err, -EBADMSG, e.off,
				 "a packed disk: its block %" PRIu64
				 ", at %" PRIu64 ", is damaged",
				 u->idx, e.off);
	u->idx++;
	return 0;
}

static int step(struct decoder *d, uint8_t *out, size_t len, size_t *ret,
		struct error *err)
{
	const struct packed *p = d->s->form;
	struct unpacker *u = d->state;
	uint32_t bytes;
	int r = 0;

	*ret = 0;
	if (u->made == u->given) {
		if (u->idx == p->blocks)
			return 0;
		bytes = bytes_of(d->s, u->idx);
		if (len >= bytes) {
			*ret = bytes;
			return next_block(d, u, out, bytes, len, err);
		}
		if (!u->out)
			u->out = malloc(p->block_bytes);
		r = u->out ? next_block(d, u, u->out, bytes, len, err)
			   : error_set(err, -ENOMEM, 0, "out of memory");
		if (r < 0)
			return r;
		u->made = bytes;
		u->given = 0;
	}
	*ret = min_size(len, u->made - u->given);
	memcpy(out, u->out + u->given, *ret);
	u->given += (uint32_t)*ret;
	return 0;
}

static void stop(struct decoder *d)
{
	struct unpacker *u = d->state;

	if (!u)
		return;
	if (u->zstd)
		zstd.freeDCtx(u->zstd);
	free(u->in);
	free(u->out);
	free(u);
}

static const struct stream_ops stream_packed = {
	.name = "packed",
	.what = "a packed disk",
	.find = find,
	.find_hole = find_hole,
	.start = start,
	.step = step,
	.stop = stop,
};

int packed_look(struct stream *s, enum packed_codec codec, struct error *err)
{
	struct packed p = { 0 };
	uint64_t end;
	int r = seek_table_at(s, &end, err);

	if (r < 0 || end < FOOTER_BYTES)
		return r;
	r = read_footer(s, end - FOOTER_BYTES, &p, err);
	if (r <= 0 || p.codec != codec)
		return r < 0 ? r : 0;
	s->form = malloc(sizeof(p));
	if (!s->form)
		return error_set(err, -ENOMEM, 0, "out of memory");
	memcpy(s->form, &p, sizeof(p));
	s->ops = &stream_packed;
	s->piece_bytes = p.block_bytes;
	s->decoder_bytes =
		in_room(&p) + (uint64_t)p.block_bytes + CONTEXT_BYTES;
	r = stream_check_memory(s, s->decoder_bytes, "a packed disk", err);
	return r < 0 ? r : 1;
}

const uint8_t *packed_digest(const struct stream *s)
{
	const struct packed *p = s->form;

	return s->ops == &stream_packed ? p->digest : NULL;
}
