/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * qcow, version 1: what came before qcow2. All big endian.
 *
 *	header | backing file name
 *	L1 table -> L2 tables -> clusters
 *
 * An L2 entry is an offset in the file, 0 where there is nothing. With bit 63
 * it is a compressed cluster: the highest bits below tell its length in
 * bytes, as many bits as an offset in a cluster has, the others its offset.
 * Streams are raw deflate. Encrypted clusters (AES-128-CBC, the key is the
 * passphrase) have the disk's sector number as the initialisation vector.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/unit-check.h"

#define QCOW_MAGIC	      0x514649fbU /* "QFI\xfb" */
#define QCOW_CLUSTER_BITS_MIN 9U
#define QCOW_CLUSTER_BITS_MAX 16U
#define QCOW_L2_BITS_MIN      6U /* 512 bytes */
#define QCOW_L2_BITS_MAX      13U
#define QCOW_L1_BYTES_MAX     (256U << 20)
#define QCOW_NAME_MAX	      1023U
#define QCOW_COMPRESSED	      (1ULL << 63)

enum { QCOW_CRYPT_NONE, QCOW_CRYPT_AES };

enum {
	QCOW_MAGIC_AT = 0,
	QCOW_VERSION_AT = 4,
	QCOW_BACKING_OFF_AT = 8,
	QCOW_BACKING_BYTES_AT = 16,
	QCOW_SIZE_AT = 24,
	QCOW_CLUSTER_BITS_AT = 32,
	QCOW_L2_BITS_AT = 33,
	QCOW_CRYPT_AT = 36,
	QCOW_L1_OFF_AT = 40,
	QCOW_HEADER_BYTES = 48,
};

struct qcow_header {
	uint32_t magic;
	uint32_t version;
	uint64_t backing_off;
	uint32_t backing_bytes;
	uint64_t size;
	uint8_t cluster_bits;
	uint8_t l2_bits;
	uint32_t crypt_method;
	uint64_t l1_off;
};

struct qcow_state {
	struct qcow_header h;
	struct source *src;
	struct cipher *cipher; /* NULL: not encrypted, or locked */
	unsigned int span_bits; /* guest bytes that an L2 table maps */
};

static int decode_header(const uint8_t *buf, size_t len,
			 struct qcow_header *ret, struct error *err)
{
	struct cursor c = { .buf = buf, .len = len };
	struct qcow_header h = {
		.magic = cursor_be32_at(&c, QCOW_MAGIC_AT),
		.version = cursor_be32_at(&c, QCOW_VERSION_AT),
		.backing_off = cursor_be64_at(&c, QCOW_BACKING_OFF_AT),
		.backing_bytes = cursor_be32_at(&c, QCOW_BACKING_BYTES_AT),
		.size = cursor_be64_at(&c, QCOW_SIZE_AT),
		.cluster_bits = cursor_u8_at(&c, QCOW_CLUSTER_BITS_AT),
		.l2_bits = cursor_u8_at(&c, QCOW_L2_BITS_AT),
		.crypt_method = cursor_be32_at(&c, QCOW_CRYPT_AT),
		.l1_off = cursor_be64_at(&c, QCOW_L1_OFF_AT),
	};

	if (c.short_read)
		return error_set(err, -EBADMSG, len,
				 "qcow header is cut off after %zu bytes", len);
	*ret = h;
	return 0;
}

static int check_kind(const struct qcow_header *h, struct error *err)
{
	if (h->magic != QCOW_MAGIC)
		return error_set(err, -EBADMSG, QCOW_MAGIC_AT,
				 "not qcow: magic 0x%08" PRIx32, h->magic);
	if (h->version != 1)
		return error_set(err, -ENOTSUP, QCOW_VERSION_AT,
				 "qcow version %" PRIu32
				 " is not supported, 1 is",
				 h->version);
	if (h->cluster_bits < QCOW_CLUSTER_BITS_MIN ||
	    h->cluster_bits > QCOW_CLUSTER_BITS_MAX)
		return error_set(err, -ENOTSUP, QCOW_CLUSTER_BITS_AT,
				 "cluster_bits %u is not in %u..%u",
				 h->cluster_bits, QCOW_CLUSTER_BITS_MIN,
				 QCOW_CLUSTER_BITS_MAX);
	if (h->l2_bits < QCOW_L2_BITS_MIN || h->l2_bits > QCOW_L2_BITS_MAX)
		return error_set(err, -ENOTSUP, QCOW_L2_BITS_AT,
				 "l2_bits %u is not in %u..%u", h->l2_bits,
				 QCOW_L2_BITS_MIN, QCOW_L2_BITS_MAX);
	if (h->crypt_method > QCOW_CRYPT_AES)
		return error_set(err, -ENOTSUP, QCOW_CRYPT_AT,
				 "encryption method %" PRIu32
				 " is not supported; 0 (none) and 1 (AES) are",
				 h->crypt_method);
	return 0;
}

/* Every relation that qcow_map() relies on. */
static int check_sound(const struct qcow_state *s, uint64_t file_bytes,
		       struct error *err)
{
	const struct qcow_header *h = &s->h;
	uint64_t entries = div_round_up(h->size, 1ULL << s->span_bits);

	if (h->size > INT64_MAX || entries > QCOW_L1_BYTES_MAX / 8)
		return error_set(err, -EFBIG, QCOW_SIZE_AT,
				 "virtual size %" PRIu64
				 " needs an L1 table over the limit of %u "
				 "bytes",
				 h->size, QCOW_L1_BYTES_MAX);
	if (h->l1_off < QCOW_HEADER_BYTES || h->l1_off % 8)
		return error_set(
			err, -EBADMSG, QCOW_L1_OFF_AT,
			"L1 table at %" PRIu64
			" is not behind the header, at a multiple of 8",
			h->l1_off);
	if (!range_inside(h->l1_off, entries * 8, file_bytes))
		return error_set(err, -EBADMSG, QCOW_L1_OFF_AT,
				 "L1 table at %" PRIu64 " with %" PRIu64
				 " entries ends past the file's %" PRIu64
				 " bytes",
				 h->l1_off, entries, file_bytes);
	return 0;
}

static int open_backing(struct layer *l, struct error *err)
{
	const struct qcow_state *s = l->state;
	const struct qcow_header *h = &s->h;
	char name[QCOW_NAME_MAX + 1] = "";
	int r;

	if (!h->backing_off != !h->backing_bytes)
		return error_set(err, -EBADMSG, QCOW_BACKING_OFF_AT,
				 "backing file name of %" PRIu32
				 " bytes at %" PRIu64
				 ": one of them is 0, the other is not",
				 h->backing_bytes, h->backing_off);
	if (!h->backing_off)
		return 0;
	if (h->backing_bytes > QCOW_NAME_MAX)
		return error_set(err, -EFBIG, QCOW_BACKING_BYTES_AT,
				 "backing file name of %" PRIu32
				 " bytes is over the limit of %u",
				 h->backing_bytes, QCOW_NAME_MAX);
	if (!range_inside(h->backing_off, h->backing_bytes, l->src->bytes))
		return error_set(err, -EBADMSG, QCOW_BACKING_OFF_AT,
				 "backing file name at %" PRIu64
				 " ends past the file's %" PRIu64 " bytes",
				 h->backing_off, l->src->bytes);
	r = layer_read_meta(l, l->src, name, h->backing_bytes, h->backing_off,
			    err);
	if (r < 0)
		return r;
	if (memchr(name, 0, h->backing_bytes))
		return error_set(err, -EBADMSG, h->backing_off,
				 "backing file name holds a NUL byte");
	return layer_set_parent(l, name, NULL, h->backing_off, err);
}

/*
 * The passphrase, cut or filled with zeroes to 16 bytes, is the key. Nothing
 * says whether it was the right one.
 */
static int open_crypto(struct layer *l, struct error *err)
{
	static const struct cipher_spec spec = { .algorithm = "aes",
						 .mode = CIPHER_CBC,
						 .iv = CIPHER_IV_PLAIN64 };
	struct qcow_state *s = l->state;
	uint8_t key[16] = { 0 };

	if (s->h.crypt_method == QCOW_CRYPT_NONE)
		return 0;
	l->encrypted = true;
	l->locked = !l->options->key;
	if (l->locked)
		return 0;
	memcpy(key, l->options->key,
	       min_size(sizeof(key), l->options->key_bytes));
	return cipher_new(&spec, key, sizeof(key), &s->cipher, err);
}

static int qcow_open(struct layer *l, struct error *err)
{
	struct qcow_state *s = l->state;
	uint8_t buf[QCOW_HEADER_BYTES];
	size_t len = (size_t)min_u64(sizeof(buf), l->src->bytes);
	int r;

	r = source_read(l->src, buf, len, 0, err);
	if (r >= 0)
		r = decode_header(buf, len, &s->h, err);
	if (r >= 0)
		r = check_kind(&s->h, err);
	if (r < 0)
		return r;
	s->src = l->src;
	s->span_bits = s->h.cluster_bits + s->h.l2_bits;
	r = check_sound(s, l->src->bytes, err);
	if (r < 0)
		return r;
	l->bytes = s->h.size;
	l->unit_bytes = 1ULL << s->h.cluster_bits;
	r = open_backing(l, err);
	return r < 0 ? r : open_crypto(l, err);
}

static void qcow_close(struct layer *l)
{
	struct qcow_state *s = l->state;

	cipher_free(s->cipher);
}

/* Clusters and tables are aligned to clusters, and not over header and L1. */
static int check_place(const struct qcow_state *s, const char *what,
		       uint64_t off, uint64_t bytes, struct error *err)
{
	uint64_t l1_end =
		s->h.l1_off + 8 * div_round_up(s->h.size, 1ULL << s->span_bits);

	if (off & ((1ULL << s->h.cluster_bits) - 1))
		return error_set(err, -EBADMSG, 0,
				 "%s at %" PRIu64
				 " is not aligned to clusters of %llu",
				 what, off, 1ULL << s->h.cluster_bits);
	if (off < l1_end && off + bytes > s->h.l1_off)
		return error_set(err, -EBADMSG, 0,
				 "%s at %" PRIu64
				 " lies over the L1 table at %" PRIu64,
				 what, off, s->h.l1_off);
	return 0;
}

static int decode_l1(const void *state, const uint8_t *raw,
		     struct unit_place *ret, struct error *err)
{
	struct cursor c = { .buf = raw, .len = 8 };
	const struct qcow_state *s = state;

	ret->host_off = cursor_be64_at(&c, 0);
	ret->kind = ret->host_off ? EXTENT_DATA : EXTENT_HOLE;
	return ret->host_off ? check_place(s, "L2 table", ret->host_off,
					   8ULL << s->h.l2_bits, err)
			     : 0;
}

static int decode_compressed(const struct qcow_state *s, uint64_t entry,
			     struct unit_place *ret, struct error *err)
{
	unsigned int off_bits = 63U - s->h.cluster_bits;
	uint64_t off = entry & ((1ULL << off_bits) - 1);
	uint64_t bytes = entry >> off_bits & ((1U << s->h.cluster_bits) - 1);

	if (!bytes || !range_inside(off, bytes, s->src->bytes))
		return error_set(err, -EBADMSG, 0,
				 "%" PRIu64 " compressed bytes at %" PRIu64
				 " are not inside the file's %" PRIu64,
				 bytes, off, s->src->bytes);
	ret->kind = EXTENT_COMPRESSED;
	ret->host_off = off;
	ret->comp_bytes = (uint32_t)bytes;
	return 0;
}

static int decode_l2(const void *state, const uint8_t *raw,
		     struct unit_place *ret, struct error *err)
{
	struct cursor c = { .buf = raw, .len = 8 };
	const struct qcow_state *s = state;
	uint64_t entry = cursor_be64_at(&c, 0);

	if (entry & QCOW_COMPRESSED)
		return decode_compressed(s, entry, ret, err);
	ret->kind = entry ? EXTENT_DATA : EXTENT_HOLE;
	ret->host_off = entry;
	return entry ? check_place(s, "cluster", entry,
				   1ULL << s->h.cluster_bits, err)
		     : 0;
}

static struct unit_table l1_table(const struct qcow_state *s)
{
	return (struct unit_table){
		.src = s->src,
		.off = s->h.l1_off,
		.entry_bytes = 8,
		.unit_bytes = 1ULL << s->span_bits,
		.data = s->src,
		.decode = decode_l1,
		.state = s,
	};
}

/* @idx: which one it is. */
static struct unit_table l2_table(const struct qcow_state *s, uint64_t off,
				  uint64_t idx)
{
	return (struct unit_table){
		.src = s->src,
		.off = off,
		.entry_bytes = 8,
		.first_unit = idx << s->h.l2_bits,
		.unit_bytes = 1ULL << s->h.cluster_bits,
		.stride = 1ULL << s->h.cluster_bits,
		.data = s->src,
		.decode = decode_l2,
		.state = s,
	};
}

static int qcow_map(struct layer *l, uint64_t guest_off, uint64_t len,
		    struct extent *ret, struct error *err)
{
	const struct qcow_state *s = l->state;
	struct unit_table l1 = l1_table(s), l2;
	uint64_t span = 1ULL << s->span_bits, in_span = guest_off % span;
	struct unit_place p = { 0 };
	uint64_t run = 0;
	int r;

	if (l->locked)
		return error_set(err, -EACCES, 0, "no key was given");
	r = unit_table_find(l, &l1, guest_off, len, &p, &run, err);
	if (r < 0)
		return r;
	if (p.kind == EXTENT_HOLE) {
		*ret = (struct extent){ .kind = EXTENT_HOLE, .len = run };
		return 0;
	}
	if (p.host_off > l->src->bytes)
		return error_set(err, -EBADMSG, 0,
				 "L2 table at %" PRIu64
				 " lies behind the file's end at %" PRIu64,
				 p.host_off, l->src->bytes);
	l2 = l2_table(s, p.host_off, guest_off >> s->span_bits);
	r = unit_table_map(l, &l2, in_span, min_u64(len, span - in_span), ret,
			   err);
	if (r < 0)
		return r;
	ret->codec = CODEC_DEFLATE;
	if (ret->kind == EXTENT_DATA && s->cipher) {
		ret->cipher = s->cipher;
		ret->iv_sector = guest_off / CIPHER_SECTOR_BYTES;
	}
	return 0;
}

static void qcow_info(struct layer *l, struct info_sink *sink)
{
	const struct qcow_state *s = l->state;

	sink->number(sink, "l2-entries", 1ULL << s->h.l2_bits);
	if (s->h.crypt_method == QCOW_CRYPT_AES)
		sink->text(sink, "encrypt-format", "aes");
}

struct l1_walk {
	struct unit_check *k;
	const struct qcow_state *s;
};

static int check_l1_entry(void *opaque, uint64_t idx,
			  const struct unit_place *p, int r,
			  const struct error *err)
{
	struct l1_walk *w = opaque;
	struct unit_table l2 = l2_table(w->s, p->host_off, idx);

	if (r < 0 ||
	    (p->kind == EXTENT_DATA && p->host_off >= w->s->src->bytes)) {
		unit_check_corrupt(w->k, "L1 entry %" PRIu64 ": %s", idx,
				   r < 0 ? err->msg
					 : "L2 table behind the file's end");
		return 0;
	}
	if (p->kind != EXTENT_DATA)
		return 0;
	r = unit_check_claim(w->k, p->host_off, 8ULL << w->s->h.l2_bits);
	return r < 0 ? r : unit_check_table(w->k, &l2, 1ULL << w->s->h.l2_bits);
}

/* No leaks: streams of any length lie between clusters, and gaps with them. */
static int qcow_check(struct layer *l, struct check_report *r,
		      struct error *err)
{
	const struct qcow_state *s = l->state;
	struct unit_table l1 = l1_table(s);
	uint64_t entries = div_round_up(l->bytes, 1ULL << s->span_bits);
	CLEANUP(unit_check_done)
	struct unit_check k = {
		.l = l,
		.r = r,
		.unit = "cluster",
		.unit_bytes = l->unit_bytes,
		.src = l->src,
		.behind_is_fine = true, /* qemu-img convert rounds up */
		.err = err,
	};
	struct l1_walk w = { .k = &k, .s = s };
	int code;

	code = unit_check_claim(&k, 0, QCOW_HEADER_BYTES);
	if (code >= 0)
		code = unit_check_claim(&k, s->h.l1_off, entries * 8);
	if (code >= 0)
		code = unit_table_walk(l, &l1, entries, check_l1_entry, &w);
	if (code < 0)
		return code;
	unit_check_finish(&k, l->src->bytes);
	return 0;
}

const struct format_ops qcow_format = {
	.name = "qcow",
	.magic = { { QCOW_MAGIC_AT, 8, "QFI\xfb\0\0\0\1" } },
	.state_bytes = sizeof(struct qcow_state),
	.open = qcow_open,
	.close = qcow_close,
	.map = qcow_map,
	.info = qcow_info,
	.check = qcow_check,
};
