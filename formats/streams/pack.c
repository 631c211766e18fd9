/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The layout is in packed.h. Each thread packs the blocks of its chunk into memory
 * of its own; when the chunk's turn comes it is told where they go, and what has
 * none but zeroes before it is written: packed once, and again and again. The
 * table grows in a file without a name, as a disk's can be larger than memory.
 *
 * Of the disk's digest: SHA-256 over the SHA-256 of all blocks, so that all
 * threads work at it, and zeroes cost 32 bytes a block.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "formats/codec/codec-lib.h"
#include "formats/codec/encoder.h"
#include "formats/codec/openssl.h"
#include "formats/new-file.h"
#include "formats/streams/pack.h"
#include "formats/streams/xxh.h"
#include "iouring/batch.h"
#include "iouring/util.h"

#define GROWN(bytes)	 ((bytes) + (bytes) / 128 + 64)
#define LZ4_HEADER_BYTES 15U
#define LZ4_FRAME_MAGIC	 0x184d2204U
#define LZ4_AS_IT_IS	 (1U << 31)
#define LZ4_HC_LEVEL	 3 /* and above */
#define LZ4_LEVEL_MAX	 12
#define DIGEST_BYTES	 FOOTER_DIGEST_BYTES
#define RUN_BYTES	 (1U << 20) /* of zeroes, packed, written at once */
#define ENTRIES_MAX	 (UINT32_MAX / PACKED_PAGE_BYTES * PACKED_PAGE_ENTRIES - 1)

/* A block, packed. */
struct piece {
	uint32_t at; /* in the thread's memory: with what is before it */
	uint32_t whole; /* bytes, with what is before and behind */
	uint32_t before; /* the packed data */
	uint32_t bytes; /* of the packed data */
	uint32_t kind;
	uint64_t sum;
	uint8_t digest[DIGEST_BYTES];
};

/* A thread's. */
struct packer {
	struct encoder *encoder; /* zstd's */
	uint8_t *out;
	size_t used;
	struct piece *pieces;
	size_t n;
	uint64_t off; /* in the file, once placed */
};

struct pack {
	struct copy_sink sink;
	struct source *dst;
	enum packed_codec codec;
	int level;
	uint32_t block_bytes;
	uint64_t bytes, blocks;
	uint64_t at; /* in the file: what is before is somebody's */
	uint64_t placed; /* blocks */
	EVP_MD *sha256;
	EVP_MD_CTX *digest;
	uint8_t *table; /* of its own file, mapped: PACKED_ENTRY_BYTES each */
	size_t table_bytes;
	uint8_t *zeroes; /* a block of them */
	struct packer zero; /* the same, packed */
	uint8_t *run; /* as many of it as fit in RUN_BYTES */
	size_t run_blocks;
};

int pack_level_max(enum packed_codec codec)
{
	return codec == PACKED_ZSTD ? encoder_level_max(CODEC_ZSTD)
				    : LZ4_LEVEL_MAX;
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

static void put64(uint8_t *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof(v));
}

/* ---- a block ---- */

/* LZ4's: size, data. Sums of blocks are left out: lz4 1.9.4 takes the frame to be
 * four bytes longer then, and misses ours behind it. */
static int pack_lz4(struct pack *p, const uint8_t *in, uint32_t len,
		    uint8_t *out, struct piece *ret)
{
	char *to = (char *)out + 4;
	int room = (int)len - 1, n;

	n = p->level >= LZ4_HC_LEVEL ? lz4.compress_HC((const char *)in, to,
						       (int)len, room, p->level)
				     : lz4.compress_default((const char *)in,
							    to, (int)len, room);
	ret->kind = n > 0 ? PACKED_PACKED : PACKED_AS_IT_IS;
	if (n <= 0) {
		memcpy(to, in, len);
		n = (int)len;
	}
	ret->before = 4;
	ret->bytes = (uint32_t)n;
	ret->whole = 4 + ret->bytes;
	put32(out,
	      ret->bytes | (ret->kind == PACKED_PACKED ? 0 : LZ4_AS_IT_IS));
	return 0;
}

static int pack_zstd(struct packer *k, const uint8_t *in, uint32_t len,
		     uint8_t *out, struct piece *ret)
{
	size_t n = encoder_run(k->encoder, in, len, out, GROWN(len));

	ret->kind = PACKED_PACKED;
	ret->before = 0;
	ret->bytes = ret->whole = (uint32_t)n;
	return n ? 0 : -EIO;
}

static int pack_block(struct pack *p, struct packer *k, const uint8_t *in,
		      uint32_t len, struct error *err)
{
	struct piece *x = &k->pieces[k->n];
	int r;

	x->at = (uint32_t)k->used;
	r = p->codec == PACKED_LZ4 ? pack_lz4(p, in, len, k->out + k->used, x)
				   : pack_zstd(k, in, len, k->out + k->used, x);
	if (r < 0 ||
	    openssl.EVP_Digest(in, len, x->digest, NULL, p->sha256, NULL) != 1)
		return error_set(err, -EIO, 0, "a block cannot be packed");
	x->sum = xxh64(in, len);
	k->used += x->whole;
	k->n++;
	return 0;
}

/* ---- threads ---- */

static void packer_done(struct packer *k)
{
	encoder_free(k->encoder);
	free(k->out);
	free(k->pieces);
}

/* For @blocks. */
static int packer_init(struct pack *p, struct packer *k, size_t blocks,
		       struct error *err)
{
	k->out = malloc(blocks * GROWN(p->block_bytes));
	k->pieces = calloc(blocks, sizeof(*k->pieces));
	if (!k->out || !k->pieces)
		return error_set(err, -ENOMEM, 0, "out of memory");
	return p->codec == PACKED_ZSTD
		       ? encoder_new(CODEC_ZSTD, p->level, &k->encoder, err)
		       : 0;
}

static void thread_free(void *thread)
{
	if (thread)
		packer_done(thread);
	free(thread);
}

static struct pack *pack_of(struct copy_sink *s)
{
	return container_of(s, struct pack, sink);
}

static int thread_new(struct copy_sink *s, void **ret, struct error *err)
{
	struct pack *p = pack_of(s);
	struct packer *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = packer_init(p, k, COPY_CHUNK_BYTES / p->block_bytes, err);
	if (r < 0)
		thread_free(k);
	else
		*ret = k;
	return r;
}

/* A whole block of zeroes is known; no block's end lies in another chunk. */
static int prepare(struct copy_sink *s, struct copy_chunk *c, struct error *err)
{
	struct pack *p = pack_of(s);
	struct packer *k = c->thread;
	const struct piece *zero = &p->zero.pieces[0];
	size_t at, len;
	int r = 0;

	k->used = k->n = 0;
	for (at = 0; at < c->len && r >= 0; at += len) {
		len = min_size(p->block_bytes, c->len - at);
		if (len < p->block_bytes || !is_all_zero(c->buf + at, len)) {
			r = pack_block(p, k, c->buf + at, (uint32_t)len, err);
			continue;
		}
		k->pieces[k->n] = *zero;
		k->pieces[k->n++].at = (uint32_t)k->used;
		memcpy(k->out + k->used, p->zero.out, zero->whole);
		k->used += zero->whole;
	}
	return r;
}

/* ---- the file ---- */

static int write_at(struct pack *p, const void *buf, size_t len, uint64_t off,
		    struct error *err)
{
	struct batch_io io = { .src = p->dst,
			       .off = off,
			       .buf = (void *)(uintptr_t)buf,
			       .len = len,
			       .op = BATCH_WRITE };
	int r = len ? batch_run(&io, 1) : 0;

	return r < 0 ? error_set(err, r, off, "cannot be written: %s",
				 errno_text(-r))
		     : 0;
}

static int append(struct pack *p, const void *buf, size_t len,
		  struct error *err)
{
	int r = write_at(p, buf, len, p->at, err);

	p->at += len;
	return r;
}

/* The block comes next in the file. */
static void place_piece(struct pack *p, const struct piece *x)
{
	uint8_t *e = p->table + p->placed++ * PACKED_ENTRY_BYTES;

	put64(e + PACKED_OFF_AT, p->at + x->before);
	put32(e + PACKED_BYTES_AT, x->bytes);
	put32(e + PACKED_KIND_AT, x->kind);
	put64(e + PACKED_SUM_AT, x->sum);
	openssl.EVP_DigestUpdate(p->digest, x->digest, DIGEST_BYTES);
	p->at += x->whole;
}

/* Whole blocks of zeroes, up to block @until. */
static int place_zeroes(struct pack *p, uint64_t until, struct error *err)
{
	const struct piece *zero = &p->zero.pieces[0];
	uint64_t n, i, at;
	int r = 0;

	while (r >= 0 && p->placed < until) {
		n = min_u64(until - p->placed, p->run_blocks);
		at = p->at;
		for (i = 0; i < n; i++)
			place_piece(p, zero);
		r = write_at(p, p->run, (size_t)n * zero->whole, at, err);
	}
	return r;
}

static int place(struct copy_sink *s, struct copy_chunk *c, struct error *err)
{
	struct pack *p = pack_of(s);
	struct packer *k = c->thread;
	size_t i;
	int r = place_zeroes(p, c->off / p->block_bytes, err);

	k->off = p->at;
	for (i = 0; i < k->n && r >= 0; i++)
		place_piece(p, &k->pieces[i]);
	return r;
}

static int write_chunk(struct copy_sink *s, struct copy_chunk *c,
		       struct error *err)
{
	const struct packer *k = c->thread;

	return write_at(pack_of(s), k->out, k->used, k->off, err);
}

/* ---- the beginning ---- */

static int write_lz4_header(struct pack *p, struct error *err)
{
	uint8_t h[LZ4_HEADER_BYTES] = { 0 };
	uint32_t size = ((uint32_t)__builtin_ctz(p->block_bytes) - 8) / 2;

	put32(h, LZ4_FRAME_MAGIC);
	/* Version 1, independent blocks, content size. */
	h[4] = 0x40 | 0x20 | 0x08;
	h[5] = (uint8_t)(size << 4);
	put64(h + 6, p->bytes);
	h[14] = (uint8_t)(xxh32(h + 4, 10) >> 8);
	return append(p, h, sizeof(h), err);
}

static int map_table(struct pack *p, const char *folder, struct error *err)
{
	CLEANUP(closep) int fd = -1;
	void *m;
	int r = new_file_nameless(folder, &fd, err);

	if (r < 0)
		return r;
	p->table_bytes = (size_t)(p->blocks * PACKED_ENTRY_BYTES);
	r = posix_fallocate(fd, 0, (off_t)p->table_bytes);
	if (r)
		return error_set(err, -r, 0, "no room for its table: %s",
				 errno_text(r));
	m = mmap(NULL, p->table_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		 0);
	if (m == MAP_FAILED)
		return error_set(err, -errno, 0, "its table: %s",
				 errno_text(errno));
	p->table = m;
	return 0;
}

static int make_zeroes(struct pack *p, struct error *err)
{
	const struct piece *zero;
	size_t i;
	int r;

	p->zeroes = calloc(1, p->block_bytes);
	if (!p->zeroes)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = packer_init(p, &p->zero, 1, err);
	if (r >= 0)
		r = pack_block(p, &p->zero, p->zeroes, p->block_bytes, err);
	if (r < 0)
		return r;
	zero = &p->zero.pieces[0];
	p->zero.pieces[0].kind = PACKED_ZEROES;
	p->run_blocks = RUN_BYTES / zero->whole;
	p->run = malloc(RUN_BYTES);
	if (!p->run)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < p->run_blocks; i++)
		memcpy(p->run + i * zero->whole, p->zero.out, zero->whole);
	return 0;
}

static int load(struct pack *p, struct error *err)
{
	enum codec_lib lib = p->codec == PACKED_LZ4 ? LIB_LZ4 : LIB_ZSTD;
	int r = openssl_load(err);

	if (r < 0)
		return r;
	if (!codec_lib_load(lib))
		return error_set(err, -ENOTSUP, 0,
				 "%s is needed to write this, and not "
				 "installed",
				 codec_lib_name(lib));
	p->sha256 = openssl.EVP_MD_fetch(NULL, "SHA256", NULL);
	p->digest = openssl.EVP_MD_CTX_new();
	return p->sha256 && p->digest &&
			       openssl.EVP_DigestInit_ex2(p->digest, p->sha256,
							  NULL) == 1
		       ? 0
		       : error_set(err, -ENOTSUP, 0, "OpenSSL has no SHA-256");
}

static int check(const struct pack *p, struct error *err)
{
	uint64_t max = p->codec == PACKED_ZSTD
			       ? min_u64(SEEK_FRAMES_MAX, ENTRIES_MAX)
			       : ENTRIES_MAX;

	if (!p->bytes)
		return error_set(err, -EINVAL, 0,
				 "the disk is empty: there is nothing to pack");
	return p->blocks <= max
		       ? 0
		       : error_set(err, -EFBIG, 0,
				   "the disk has %" PRIu64 " blocks, the limit "
				   "is %" PRIu64 ": larger ones are fewer",
				   p->blocks, max);
}

static int begin(struct pack *p, const char *folder, struct error *err)
{
	int r = check(p, err);

	if (r >= 0)
		r = load(p, err);
	if (r >= 0)
		r = map_table(p, folder, err);
	if (r >= 0)
		r = make_zeroes(p, err);
	return r < 0 || p->codec != PACKED_LZ4 ? r : write_lz4_header(p, err);
}

int pack_new(struct source *dst, uint64_t bytes, enum packed_codec codec,
	     int level, uint32_t block_bytes, const char *folder,
	     struct pack **ret, struct error *err)
{
	struct pack *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return error_set(err, -ENOMEM, 0, "out of memory");
	*p = (struct pack){ .sink = { .unit_bytes = block_bytes,
				      .thread_new = thread_new,
				      .thread_free = thread_free,
				      .prepare = prepare,
				      .place = place,
				      .write = write_chunk },
			    .dst = dst,
			    .codec = codec,
			    .level = level,
			    .block_bytes = block_bytes,
			    .bytes = bytes,
			    .blocks = div_round_up(bytes, block_bytes) };
	r = begin(p, folder, err);
	if (r < 0)
		pack_free(p);
	else
		*ret = p;
	return r;
}

void pack_free(struct pack *p)
{
	if (!p)
		return;
	if (p->table)
		munmap(p->table, p->table_bytes);
	if (p->digest)
		openssl.EVP_MD_CTX_free(p->digest);
	if (p->sha256)
		openssl.EVP_MD_free(p->sha256);
	packer_done(&p->zero);
	free(p->zeroes);
	free(p->run);
	free(p);
}

struct copy_sink *pack_sink(struct pack *p)
{
	return &p->sink;
}

/* ---- the end ---- */

/* What has not come has none but zeroes; the last block may be shorter. */
static int place_rest(struct pack *p, struct error *err)
{
	uint32_t rest = (uint32_t)(p->bytes % p->block_bytes);
	struct packer k = { 0 };
	uint64_t at;
	int r = place_zeroes(p, p->bytes / p->block_bytes, err);

	if (r < 0 || p->placed == p->blocks)
		return r;
	r = packer_init(p, &k, 1, err);
	if (r >= 0)
		r = pack_block(p, &k, p->zeroes, rest, err);
	if (r >= 0) {
		k.pieces[0].kind = PACKED_ZEROES;
		at = p->at;
		place_piece(p, &k.pieces[0]);
		r = write_at(p, k.out, k.used, at, err);
	}
	packer_done(&k);
	return r;
}

static int write_pages(struct pack *p, struct error *err)
{
	uint64_t i, n;
	int r = 0;

	for (i = 0; i < p->blocks && r >= 0; i += n) {
		uint8_t page[PACKED_PAGE_BYTES] = { 0 };

		n = min_u64(PACKED_PAGE_ENTRIES, p->blocks - i);
		memcpy(page, p->table + i * PACKED_ENTRY_BYTES,
		       (size_t)n * PACKED_ENTRY_BYTES);
		put64(page + PACKED_PAGE_SUM_AT,
		      xxh64(page, PACKED_PAGE_SUM_AT));
		r = append(p, page, sizeof(page), err);
	}
	return r;
}

static int write_table(struct pack *p, const uint8_t *digest, struct error *err)
{
	uint64_t pages = div_round_up(p->blocks, PACKED_PAGE_ENTRIES), table;
	uint8_t head[8], f[FOOTER_BYTES] = { 0 };
	int r;

	put32(head, PACKED_FRAME);
	put32(head + 4, (uint32_t)(pages * PACKED_PAGE_BYTES + FOOTER_BYTES));
	r = append(p, head, sizeof(head), err);
	table = p->at;
	if (r >= 0)
		r = write_pages(p, err);
	put64(f + FOOTER_MAGIC_AT, PACKED_MAGIC);
	put32(f + FOOTER_VERSION_AT, PACKED_VERSION);
	put32(f + FOOTER_CODEC_AT, p->codec);
	put32(f + FOOTER_BLOCK_AT, p->block_bytes);
	put64(f + FOOTER_DISK_AT, p->bytes);
	put64(f + FOOTER_BLOCKS_AT, p->blocks);
	put64(f + FOOTER_TABLE_AT, table);
	memcpy(f + FOOTER_DIGEST_AT, digest, DIGEST_BYTES);
	put64(f + FOOTER_SUM_AT, xxh64(f, FOOTER_SUM_AT));
	return r < 0 ? r : append(p, f, sizeof(f), err);
}

/* zstd's own, of the same blocks. */
static int write_seek_table(struct pack *p, struct error *err)
{
	uint8_t buf[SEEK_ENTRY_BYTES * 1024];
	uint64_t i;
	size_t n = 8;
	int r = 0;

	put32(buf, SEEK_FRAME);
	put32(buf + 4,
	      (uint32_t)(p->blocks * SEEK_ENTRY_BYTES + SEEK_FOOTER_BYTES));
	for (i = 0; i < p->blocks && r >= 0; i++) {
		const uint8_t *e = p->table + i * PACKED_ENTRY_BYTES;

		memcpy(buf + n, e + PACKED_BYTES_AT, 4);
		put32(buf + n + 4,
		      (uint32_t)min_u64(p->block_bytes,
					p->bytes - i * p->block_bytes));
		memcpy(buf + n + 8, e + PACKED_SUM_AT, 4);
		n += SEEK_ENTRY_BYTES;
		if (n + SEEK_ENTRY_BYTES <= sizeof(buf))
			continue;
		r = append(p, buf, n, err);
		n = 0;
	}
	put32(buf + n, (uint32_t)p->blocks);
	buf[n + 4] = SEEK_HAS_SUMS;
	put32(buf + n + 5, SEEK_MAGIC);
	return r < 0 ? r : append(p, buf, n + SEEK_FOOTER_BYTES, err);
}

int pack_finish(struct pack *p, uint8_t ret[FOOTER_DIGEST_BYTES],
		struct error *err)
{
	static const uint8_t end_mark[4];
	int r = place_rest(p, err);

	if (r >= 0 && p->codec == PACKED_LZ4)
		r = append(p, end_mark, sizeof(end_mark), err);
	if (r >= 0 && openssl.EVP_DigestFinal_ex(p->digest, ret, NULL) != 1)
		r = error_set(err, -EIO, 0, "no digest");
	if (r >= 0)
		r = write_table(p, ret, err);
	return r < 0 || p->codec != PACKED_ZSTD ? r : write_seek_table(p, err);
}
