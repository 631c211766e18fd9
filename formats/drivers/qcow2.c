/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * qcow2, versions 2 and 3, after QEMU's docs/interop/qcow2.txt.
 *
 *	header | extensions | backing file name        (cluster 0)
 *	L1 table -> L2 tables -> data clusters
 *	refcount table -> refcount blocks              (the checker's)
 *	snapshot table -> each snapshot's own L1 table
 *
 *	guest offset:  | L1 index | L2 index | offset in cluster |
 *
 * An L2 entry is a data cluster, zeroes, compressed data (which begin and end
 * anywhere), or nothing. With extended entries each of a cluster's 32
 * subclusters is one of these by itself. With an external data file, tables
 * lie in the image and clusters in the other file.
 *
 * Dirty and corrupt images are read: the bits speak of refcounts, which a
 * reader does not need. Refused are incompatible features that are not known,
 * by name, and headers that contradict the file or each other.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/boot-id.h"
#include "formats/cursor.h"
#include "formats/drivers/qcow2.h"

/*
 * L2 entries are read so many at a time: few at first, as most runs are
 * short, more while a run goes on.
 */
#define L2_CHUNK_FIRST_BYTES 64U
#define L2_CHUNK_BYTES	     2048U

/*
 * Version 2 has extensions behind its 72 bytes, which these fields of version 3
 * cannot be: no extension, and then a length that is the other header's.
 */
static bool looks_like_3(const uint8_t *buf, size_t len)
{
	struct cursor c = { .buf = buf, .len = len };
	uint32_t bytes = cursor_be32_at(&c, QCOW2_HEADER_BYTES_AT);

	return !cursor_be32_at(&c, QCOW2_INCOMPATIBLE_AT) &&
	       !cursor_be32_at(&c, QCOW2_COMPATIBLE_AT) &&
	       !cursor_be32_at(&c, QCOW2_AUTOCLEAR_AT) &&
	       cursor_be32_at(&c, QCOW2_REFCOUNT_ORDER_AT) <=
		       QCOW2_REFCOUNT_ORDER_MAX &&
	       (bytes == QCOW2_V3_HEADER_BYTES ||
		bytes == QCOW2_V3_HEADER_BYTES + 8) &&
	       !c.short_read;
}

static int decode_header(const uint8_t *buf, size_t len,
			 struct qcow2_header *ret, struct error *err)
{
	struct cursor c = { .buf = buf, .len = len };
	struct qcow2_header h = {
		.magic = cursor_be32_at(&c, QCOW2_MAGIC_AT),
		.version = cursor_be32_at(&c, QCOW2_VERSION_AT),
		.backing_off = cursor_be64_at(&c, QCOW2_BACKING_OFF_AT),
		.backing_bytes = cursor_be32_at(&c, QCOW2_BACKING_BYTES_AT),
		.cluster_bits = cursor_be32_at(&c, QCOW2_CLUSTER_BITS_AT),
		.size = cursor_be64_at(&c, QCOW2_SIZE_AT),
		.crypt_method = cursor_be32_at(&c, QCOW2_CRYPT_AT),
		.l1_entries = cursor_be32_at(&c, QCOW2_L1_ENTRIES_AT),
		.l1_off = cursor_be64_at(&c, QCOW2_L1_OFF_AT),
		.reftable_off = cursor_be64_at(&c, QCOW2_REFTABLE_OFF_AT),
		.reftable_clusters =
			cursor_be32_at(&c, QCOW2_REFTABLE_CLUSTERS_AT),
		.snapshots = cursor_be32_at(&c, QCOW2_SNAPSHOTS_AT),
		.snapshots_off = cursor_be64_at(&c, QCOW2_SNAPSHOTS_OFF_AT),
		.refcount_order = 4,
		.header_bytes = QCOW2_V2_HEADER_BYTES,
	};

	if (h.version >= 3) {
		h.incompatible = cursor_be64_at(&c, QCOW2_INCOMPATIBLE_AT);
		h.compatible = cursor_be64_at(&c, QCOW2_COMPATIBLE_AT);
		h.autoclear = cursor_be64_at(&c, QCOW2_AUTOCLEAR_AT);
		h.refcount_order = cursor_be32_at(&c, QCOW2_REFCOUNT_ORDER_AT);
		h.header_bytes = cursor_be32_at(&c, QCOW2_HEADER_BYTES_AT);
		if (h.header_bytes > QCOW2_COMPRESSION_AT)
			h.compression = cursor_u8_at(&c, QCOW2_COMPRESSION_AT);
	} else {
		h.looks_like_3 = looks_like_3(buf, len);
	}
	if (c.short_read)
		return error_set(err, -EBADMSG, len,
				 "qcow2 header is cut off after %zu bytes",
				 len);
	*ret = h;
	return 0;
}

/* What kind of qcow2 is it? */
static int check_version(const struct qcow2_header *h, uint64_t file_bytes,
			 struct error *err)
{
	if (h->magic != QCOW2_MAGIC)
		return error_set(err, -EBADMSG, QCOW2_MAGIC_AT,
				 "not qcow2: magic 0x%08" PRIx32, h->magic);
	if (h->version != 2 && h->version != 3)
		return error_set(err, -ENOTSUP, QCOW2_VERSION_AT,
				 "qcow2 version %" PRIu32
				 " is not supported, 2 and 3 are",
				 h->version);
	if (h->cluster_bits < QCOW2_CLUSTER_BITS_MIN ||
	    h->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
		return error_set(err, -ENOTSUP, QCOW2_CLUSTER_BITS_AT,
				 "cluster_bits %" PRIu32
				 " is not in %u..%u (512 bytes to 2 MiB)",
				 h->cluster_bits, QCOW2_CLUSTER_BITS_MIN,
				 QCOW2_CLUSTER_BITS_MAX);
	if (h->version == 2 && h->looks_like_3)
		return error_set(err, -EBADMSG, QCOW2_VERSION_AT,
				 "version is 2, but the header is one of "
				 "version 3");
	if (h->version == 3 && (h->header_bytes < QCOW2_V3_HEADER_BYTES ||
				h->header_bytes > 1ULL << h->cluster_bits ||
				h->header_bytes > file_bytes))
		return error_set(err, -EBADMSG, QCOW2_HEADER_BYTES_AT,
				 "header length %" PRIu32 " is not in %d..%llu",
				 h->header_bytes, QCOW2_V3_HEADER_BYTES,
				 1ULL << h->cluster_bits);
	return 0;
}

/* Do we have all that it needs? Unknown features were refused before. */
static int check_features(const struct qcow2_header *h, struct error *err)
{
	if (h->crypt_method > QCOW2_CRYPT_LUKS)
		return error_set(err, -ENOTSUP, QCOW2_CRYPT_AT,
				 "encryption method %" PRIu32
				 " is not supported; 0 (none), 1 (AES) and 2 "
				 "(LUKS) are",
				 h->crypt_method);
	if (h->refcount_order > QCOW2_REFCOUNT_ORDER_MAX)
		return error_set(err, -EBADMSG, QCOW2_REFCOUNT_ORDER_AT,
				 "refcount order %" PRIu32
				 " is over the limit of %u",
				 h->refcount_order, QCOW2_REFCOUNT_ORDER_MAX);
	if (h->compression > QCOW2_COMPRESSION_ZSTD)
		return error_set(err, -ENOTSUP, QCOW2_COMPRESSION_AT,
				 "compression type %u is not supported; 0 "
				 "(zlib) and 1 (zstd) are",
				 h->compression);
	if (!!(h->incompatible & QCOW2_INCOMPAT_COMPRESSION) !=
	    !!h->compression)
		return error_set(err, -EBADMSG, QCOW2_COMPRESSION_AT,
				 "compression type %u contradicts the "
				 "incompatible feature bit 3",
				 h->compression);
	if (h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2 &&
	    h->cluster_bits < QCOW2_EXTL2_BITS_MIN)
		return error_set(err, -EBADMSG, QCOW2_CLUSTER_BITS_AT,
				 "cluster_bits %" PRIu32
				 " is under %u, which extended L2 entries need",
				 h->cluster_bits, QCOW2_EXTL2_BITS_MIN);
	return 0;
}

/* Does an L1 table of @entries reach to the end of a disk of @bytes? */
static int check_l1_covers(const struct qcow2_state *s, uint64_t bytes,
			   uint32_t entries, uint64_t field_at,
			   struct error *err)
{
	uint64_t need = div_round_up(bytes, s->cluster_bytes << s->l2_bits);

	if (bytes > INT64_MAX)
		return error_set(err, -EFBIG, QCOW2_SIZE_AT,
				 "virtual size %" PRIu64
				 " is over the limit of 2^63 - 1",
				 bytes);
	if (entries < need)
		return error_set(err, -EBADMSG, field_at,
				 "L1 table has %" PRIu32
				 " entries, a disk of %" PRIu64
				 " bytes needs %" PRIu64,
				 entries, bytes, need);
	return 0;
}

/* Every relation that qcow2_map() and the checker rely on. */
static int check_tables(const struct layer *l, struct error *err)
{
	const struct qcow2_state *s = l->state;
	const struct qcow2_header *h = &s->h;
	int r;

	r = qcow2_check_table(l, "L1 table", h->l1_off, h->l1_entries, 8,
			      QCOW2_L1_BYTES_MAX, QCOW2_L1_OFF_AT, err);
	if (r >= 0)
		r = check_l1_covers(s, h->size, h->l1_entries,
				    QCOW2_L1_ENTRIES_AT, err);
	if (r >= 0)
		r = qcow2_check_table(
			l, "refcount table", h->reftable_off,
			(uint64_t)h->reftable_clusters << h->cluster_bits >> 3,
			8, QCOW2_REFTABLE_BYTES_MAX, QCOW2_REFTABLE_OFF_AT,
			err);
	if (r < 0)
		return r;
	if (h->snapshots > QCOW2_SNAPSHOTS_MAX)
		return error_set(err, -EFBIG, QCOW2_SNAPSHOTS_AT,
				 "%" PRIu32
				 " snapshots are over the limit of %u",
				 h->snapshots, QCOW2_SNAPSHOTS_MAX);
	return qcow2_check_table(l, "snapshot table", h->snapshots_off,
				 h->snapshots, 40, QCOW2_SNAPSHOT_TABLE_MAX,
				 QCOW2_SNAPSHOTS_OFF_AT, err);
}

/* What the extensions say, until open() has seen all of them. */
struct names {
	char *backing;
	char *backing_format;
	char *made; /* QCOW2_EXT_MADE */
	char *data_file;
	size_t data_file_at;
};

static void names_done(struct names *n)
{
	free(n->backing);
	free(n->backing_format);
	free(n->made);
	free(n->data_file);
}

struct opening {
	struct qcow2_state s; /* first: what l->state points to */
	struct names names; /* during open() only */
};

static int take_bitmaps(struct qcow2_state *s, const uint8_t *data,
			size_t bytes)
{
	struct cursor c = { .buf = data, .len = bytes };

	/* Reading the disk needs none of it. */
	s->bitmaps = cursor_be32_at(&c, 0);
	s->bitmap_dir_bytes = cursor_be64_at(&c, 8);
	s->bitmap_dir_off = cursor_be64_at(&c, 16);
	return 0;
}

static int take_crypto(struct layer *l, const uint8_t *data, size_t bytes,
		       size_t at, struct error *err)
{
	struct cursor c = { .buf = data, .len = bytes };
	struct qcow2_state *s = l->state;

	s->crypto_off = cursor_be64_at(&c, 0);
	s->crypto_bytes = cursor_be64_at(&c, 8);
	if (c.short_read)
		return error_set(err, -EBADMSG, at,
				 "crypto header extension has %zu bytes, not "
				 "16",
				 bytes);
	return qcow2_check_table(l, "crypto header", s->crypto_off,
				 s->crypto_bytes, 1, l->src->bytes, at, err);
}

static void take_epoch(struct qcow2_state *s, const uint8_t *data, size_t bytes,
		       size_t at)
{
	struct cursor c = { .buf = data, .len = bytes };

	if (bytes != QCOW2_EPOCH_BYTES)
		return;
	s->epoch_off = at;
	s->epoch = cursor_be64_at(&c, 0);
}

static int take_extension(struct layer *l, uint32_t type, const uint8_t *data,
			  size_t bytes, size_t at, struct error *err)
{
	struct opening *o = l->state;

	switch (type) {
	case QCOW2_EXT_BACKING_FORMAT:
		free(o->names.backing_format);
		o->names.backing_format = qcow2_copy_name(
			data, bytes, "backing file format", at, err);
		return o->names.backing_format ? 0 : err->code;
	case QCOW2_EXT_MADE:
		free(o->names.made);
		o->names.made = qcow2_copy_name(
			data, bytes, "what is said of the backing file", at,
			err);
		return o->names.made ? 0 : err->code;
	case QCOW2_EXT_DATA_FILE:
		free(o->names.data_file);
		o->names.data_file = qcow2_copy_name(
			data, bytes, "external data file name", at, err);
		o->names.data_file_at = at;
		return o->names.data_file ? 0 : err->code;
	case QCOW2_EXT_CRYPTO:
		return take_crypto(l, data, bytes, at, err);
	case QCOW2_EXT_BITMAPS:
		return take_bitmaps(&o->s, data, bytes);
	case QCOW2_EXT_MARK:
		if (bytes == QCOW2_MARK_BYTES) {
			o->s.mark_off = at;
			memcpy(o->s.mark, data, bytes);
		}
		return 0;
	case QCOW2_EXT_EPOCH:
		take_epoch(&o->s, data, bytes, at);
		return 0;
	case QCOW2_EXT_PULL:
		o->s.pulling = bytes == QCOW2_PULL_BYTES;
		o->s.pull_off = at;
		o->s.pull_held = o->s.pulling && !is_all_zero(data, bytes);
		return 0;
	default:
		return 0;
	}
}

/* As layer_declare() has the two. */
static int join_format(struct opening *o, struct error *err)
{
	char *both;

	if (!o->names.made || !o->names.backing_format)
		return 0;
	if (asprintf(&both, "%s:%s", o->names.backing_format, o->names.made) <
	    0)
		return error_set(err, -ENOMEM, 0, "out of memory");
	free(o->names.backing_format);
	o->names.backing_format = both;
	return 0;
}

static int open_backing(struct layer *l, const uint8_t *buf, size_t len,
			struct error *err)
{
	struct opening *o = l->state;
	const struct qcow2_header *h = &o->s.h;

	/* qemu-img rebase makes both 0. */
	if (!h->backing_off != !h->backing_bytes)
		return error_set(err, -EBADMSG, QCOW2_BACKING_OFF_AT,
				 "backing file name of %" PRIu32
				 " bytes at %" PRIu64
				 ": one of them is 0, the other is not",
				 h->backing_bytes, h->backing_off);
	o->s.lost_backing = !h->backing_off && o->names.backing_format &&
			    *o->names.backing_format;
	if (!h->backing_off)
		return 0;
	if (h->backing_bytes > QCOW2_BACKING_NAME_MAX)
		return error_set(err, -EFBIG, QCOW2_BACKING_BYTES_AT,
				 "backing file name of %" PRIu32
				 " bytes is over the limit of %u",
				 h->backing_bytes, QCOW2_BACKING_NAME_MAX);
	if (!range_inside(h->backing_off, h->backing_bytes, len))
		return error_set(err, -EBADMSG, QCOW2_BACKING_OFF_AT,
				 "backing file name at %" PRIu64
				 " ends past the first cluster",
				 h->backing_off);
	o->names.backing =
		qcow2_copy_name(buf + h->backing_off, h->backing_bytes,
				"backing file name", h->backing_off, err);
	if (!o->names.backing || join_format(o, err) < 0)
		return err->code;
	return layer_set_parent(l, o->names.backing, o->names.backing_format,
				h->backing_off, err);
}

static int open_data_file(struct layer *l, struct error *err)
{
	struct opening *o = l->state;
	struct qcow2_state *s = &o->s;

	s->data = l->src;
	if (!(s->h.incompatible & QCOW2_INCOMPAT_DATA_FILE) &&
	    o->names.data_file)
		return error_set(err, -EBADMSG, QCOW2_INCOMPATIBLE_AT,
				 "names an external data file, but is not "
				 "marked as having one");
	if (!(s->h.incompatible & QCOW2_INCOMPAT_DATA_FILE))
		return 0;
	s->has_data_file = true;
	if (!o->names.data_file)
		return error_set(err, -EBADMSG, QCOW2_INCOMPATIBLE_AT,
				 "has an external data file, but does not name "
				 "it");
	return layer_open_file(l, o->names.data_file, "external data file",
			       o->names.data_file_at, &s->data, err);
}

/*
 * Legacy AES: the passphrase, cut or filled with zeroes to 16 bytes, is the
 * key. Nothing says whether it was the right one.
 */
static int unlock_aes(struct layer *l, struct error *err)
{
	static const struct cipher_spec spec = { .algorithm = "aes",
						 .mode = CIPHER_CBC,
						 .iv = CIPHER_IV_PLAIN64 };
	struct qcow2_state *s = l->state;
	uint8_t key[16] = { 0 };

	memcpy(key, l->options->key,
	       min_size(sizeof(key), l->options->key_bytes));
	return cipher_new(&spec, key, sizeof(key), &s->cipher, err);
}

/*
 * The key file's bytes are the passphrase; when they are not, and end in the
 * newline that an editor leaves there, those before it may be.
 */
static int unlock_luks(struct layer *l, struct error *err)
{
	struct qcow2_state *s = l->state;
	const uint8_t *key = l->options->key;
	size_t bytes = l->options->key_bytes;
	int r;

	r = luks_unlock(l->src, s->crypto_off, s->crypto_bytes, key, bytes,
			&s->luks, &s->cipher, err);
	if (r != -EACCES || !bytes || key[bytes - 1] != '\n')
		return r;
	error_clear(err);
	return luks_unlock(l->src, s->crypto_off, s->crypto_bytes, key,
			   bytes - 1, &s->luks, &s->cipher, err);
}

static int open_crypto(struct layer *l, struct error *err)
{
	struct qcow2_state *s = l->state;
	int r = 0;

	if (s->h.crypt_method == QCOW2_CRYPT_NONE)
		return 0;
	l->encrypted = true;
	l->locked = !l->options->key;
	if (s->h.crypt_method == QCOW2_CRYPT_AES)
		return l->locked ? 0 : unlock_aes(l, err);
	if (!s->crypto_bytes)
		return error_set(err, -EBADMSG, QCOW2_CRYPT_AT,
				 "is LUKS encrypted, but has no crypto header");
	if (l->locked)
		r = luks_read_info(l->src, s->crypto_off, s->crypto_bytes,
				   &s->luks, err);
	else
		r = unlock_luks(l, err);
	return r;
}

static int select_snapshot(struct layer *l, struct error *err)
{
	struct qcow2_snapshot found = { 0 };
	struct qcow2_state *s = l->state;
	int r;

	r = qcow2_find_snapshot(l, l->options->snapshot, &found, err);
	if (r < 0)
		return r;
	r = qcow2_check_table(l, "snapshot's L1 table", found.l1_off,
			      found.l1_entries, 8, QCOW2_L1_BYTES_MAX,
			      s->h.snapshots_off, err);
	if (r >= 0)
		r = check_l1_covers(s, found.bytes, found.l1_entries,
				    s->h.snapshots_off, err);
	if (r < 0)
		return r;
	s->is_another_state = true;
	s->snapshot_idx = found.idx;
	s->l1_off = found.l1_off;
	s->l1_entries = found.l1_entries;
	l->bytes = found.bytes;
	return 0;
}

static void adopt_header(struct layer *l)
{
	struct qcow2_state *s = l->state;

	s->cluster_bits = s->h.cluster_bits;
	s->cluster_bytes = 1ULL << s->cluster_bits;
	s->l2_entry_bytes =
		s->h.incompatible & QCOW2_INCOMPAT_EXTENDED_L2 ? 16 : 8;
	s->l2_bits = s->cluster_bits - (s->l2_entry_bytes == 16 ? 4 : 3);
	s->codec = s->h.compression == QCOW2_COMPRESSION_ZSTD ? CODEC_ZSTD
							      : CODEC_DEFLATE;
	s->is_shared = l->options->share;
	s->l1_off = s->h.l1_off;
	s->l1_entries = s->h.l1_entries;
	l->bytes = s->h.size;
	l->unit_bytes = s->cluster_bytes;
}

/* Reads the first cluster, or what the file has of it. */
static int read_first_cluster(struct layer *l, uint8_t **ret, size_t *ret_len,
			      struct error *err)
{
	struct opening *o = l->state;
	CLEANUP(freep) uint8_t *buf = NULL;
	uint8_t head[QCOW2_COMPRESSION_AT + 8] = { 0 };
	size_t len = (size_t)min_u64(sizeof(head), l->src->bytes);
	int r;

	r = source_read(l->src, head, len, 0, err);
	if (r >= 0)
		r = decode_header(head, len, &o->s.h, err);
	if (r >= 0)
		r = check_version(&o->s.h, l->src->bytes, err);
	if (r < 0)
		return r;
	len = (size_t)min_u64(1ULL << o->s.h.cluster_bits, l->src->bytes);
	buf = malloc(len);
	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = source_read(l->src, buf, len, 0, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(buf);
	*ret_len = len;
	return 0;
}

bool qcow2_is_left_open(const struct qcow2_state *s)
{
	uint8_t boot[BOOT_ID_BYTES];

	return !is_all_zero(s->mark, sizeof(s->mark)) && boot_id_get(boot) &&
	       !memcmp(s->mark, boot, sizeof(boot));
}

/*
 * Who only reads would be shown what the disk was at its last flush, and not
 * what its guest has been told since.
 */
static int check_closed(const struct layer *l, const struct qcow2_state *s,
			struct error *err)
{
	if (l->options->writer || l->options->share || !qcow2_is_left_open(s))
		return 0;
	return error_set(err, -EBUSY, s->mark_off,
			 "was left open by a server that died: what it had "
			 "answered since the last flush is in its log; serve "
			 "it as an overlay again, or let \"platter overlay "
			 "recover\" close it (--force-share reads the older "
			 "disk)");
}

static int open_checked(struct layer *l, struct error *err)
{
	struct opening *o = l->state;
	CLEANUP(freep) uint8_t *buf = NULL;
	size_t len = 0;
	int r;

	r = read_first_cluster(l, &buf, &len, err);
	if (r >= 0)
		r = qcow2_check_incompatible(l, buf, len, err);
	if (r >= 0)
		r = check_features(&o->s.h, err);
	if (r < 0)
		return r;
	adopt_header(l);
	r = check_tables(l, err);
	if (r >= 0)
		r = qcow2_each_extension(l, buf, len, take_extension, err);
	if (r >= 0)
		r = check_closed(l, &o->s, err);
	if (r >= 0)
		r = open_backing(l, buf, len, err);
	if (r >= 0)
		r = open_data_file(l, err);
	if (r >= 0)
		r = open_crypto(l, err);
	if (r >= 0 && l->top && l->options->snapshot)
		r = select_snapshot(l, err);
	return r;
}

static int qcow2_open(struct layer *l, struct error *err)
{
	struct opening *o = l->state;
	int r = open_checked(l, err);

	names_done(&o->names);
	o->names = (struct names){ 0 };
	return r;
}

static void qcow2_close(struct layer *l)
{
	struct qcow2_state *s = l->state;

	cipher_free(s->cipher);
}

/* Does @next, @len bytes on in guest and file, continue the run of @first? */
static bool continues(const struct qcow2_state *s,
		      const struct qcow2_answer *first,
		      const struct qcow2_answer *next, uint64_t clusters)
{
	uint64_t host_off = first->host_off + (clusters << s->cluster_bits);

	if (next->kind != first->kind)
		return false;
	if (first->kind != EXTENT_DATA)
		return first->kind != EXTENT_COMPRESSED;
	/* Not into a cluster that is damage: it begins behind the end. */
	return next->host_off == host_off && host_off < s->data->bytes;
}

/*
 * The run that begins at @guest_off: *ret_first is its first answer, the
 * result its length, at most @len. All of it is in the L2 table at @l2_off.
 */
static int find_run(struct layer *l, uint64_t l2_off, uint64_t guest_off,
		    uint64_t len, struct qcow2_answer *ret_first,
		    uint64_t *ret_len, struct error *err)
{
	const struct qcow2_state *s = l->state;
	uint64_t index_mask = (1ULL << s->l2_bits) - 1;
	uint64_t first_idx = guest_off >> s->cluster_bits & index_mask;
	uint64_t last_idx =
		(guest_off + len - 1) >> s->cluster_bits & index_mask;
	uint64_t chunk = L2_CHUNK_FIRST_BYTES / s->l2_entry_bytes;
	uint8_t buf[L2_CHUNK_BYTES];
	uint64_t from = first_idx, n = 0, run = 0, idx, at;
	const uint8_t *raw;
	struct qcow2_answer a;
	int r;

	while (run < len) {
		idx = (guest_off + run) >> s->cluster_bits & index_mask;
		if (!n || idx >= from + n) {
			from = idx;
			at = l2_off + idx * s->l2_entry_bytes;
			n = min_u64(last_idx - idx + 1, chunk);
			chunk = L2_CHUNK_BYTES / s->l2_entry_bytes;
			/* Entries before the file's end are good without
			 * those behind it. */
			if (at + s->l2_entry_bytes <= l->src->bytes)
				n = min_u64(n, (l->src->bytes - at) /
						       s->l2_entry_bytes);
			r = layer_read_meta(l, l->src, buf,
					    (size_t)n * s->l2_entry_bytes, at,
					    err);
			if (r < 0)
				return run ? 0 : r;
		}
		raw = buf + (idx - from) * s->l2_entry_bytes;
		r = qcow2_decode_entry(s, raw, guest_off + run,
				       run ? &a : ret_first, run ? NULL : err);
		if (r < 0 && !run)
			return r;
		if (run &&
		    (r < 0 || !continues(s, ret_first, &a, idx - first_idx)))
			break;
		run += min_u64(len - run,
			       qcow2_same_bytes(s, raw, guest_off + run));
		*ret_len = run;
		if (ret_first->kind == EXTENT_COMPRESSED)
			break;
	}
	return 0;
}

/* Nothing at all: as far as L1 entries are empty. */
static uint64_t empty_bytes(struct layer *l, uint64_t guest_off, uint64_t len)
{
	const struct qcow2_state *s = l->state;
	unsigned int table_bits = s->cluster_bits + s->l2_bits;
	uint64_t idx = guest_off >> table_bits;
	uint64_t last = (guest_off + len - 1) >> table_bits;
	uint64_t buf[64], n, i;

	for (idx++; idx <= last; idx += n) {
		n = min_u64(last - idx + 1, ARRAY_SIZE(buf));
		if (layer_read_meta(l, l->src, buf, (size_t)n * 8,
				    s->l1_off + idx * 8, NULL) < 0)
			n = 0;
		for (i = 0; i < n; i++)
			if (buf[i] & htobe64(QCOW2_OFFSET_MASK))
				break;
		if (i < n || !n)
			return ((idx + i) << table_bits) - guest_off;
	}
	return len;
}

/* *ret_off 0: there is no table. */
static int find_l2(const struct qcow2_state *s, uint64_t entry,
		   uint64_t *ret_off, struct error *err)
{
	uint64_t l2_off = entry & QCOW2_OFFSET_MASK;

	*ret_off = l2_off;
	if (!l2_off)
		return 0;
	if (l2_off % s->cluster_bytes)
		return error_set(err, -EBADMSG, 0,
				 "L2 table at %" PRIu64
				 " is not aligned to %" PRIu64,
				 l2_off, s->cluster_bytes);
	if (entry & QCOW2_L1_RESERVED)
		return error_set(err, -EBADMSG, 0,
				 "reserved bits are set in the L1 entry "
				 "0x%016" PRIx64,
				 entry);
	if (qcow2_lies_on_metadata(s, l2_off))
		return error_set(err, -EBADMSG, 0,
				 "L2 table at %" PRIu64 " lies on metadata",
				 l2_off);
	return 0;
}

/* Data, @in_cluster bytes behind where the cluster's begin, of @ret->len. */
static int place_data(const struct qcow2_state *s, uint64_t cluster_off,
		      uint64_t in_cluster, uint64_t guest_off,
		      struct extent *ret, struct error *err)
{
	/* qemu writes no more of the last cluster than was written. */
	int r = extent_set_ragged_data(ret, s->data, cluster_off, in_cluster,
				       ret->len, err);

	if (r < 0 || ret->kind != EXTENT_DATA || !s->cipher)
		return r;
	ret->cipher = s->cipher;
	/* LUKS counts sectors in the file, AES in the disk. */
	ret->iv_sector = (s->h.crypt_method == QCOW2_CRYPT_LUKS ? ret->host_off
								: guest_off) /
			 CIPHER_SECTOR_BYTES;
	return r;
}

static int qcow2_map(struct layer *l, uint64_t guest_off, uint64_t len,
		     struct extent *ret, struct error *err)
{
	const struct qcow2_state *s = l->state;
	unsigned int table_bits = s->cluster_bits + s->l2_bits;
	uint64_t in_cluster = guest_off & (s->cluster_bytes - 1);
	uint64_t entry = 0, l2_off, run = 0;
	struct qcow2_answer a = { 0 };
	int r;

	if (l->locked)
		return error_set(err, -EACCES, 0, "no key was given");
	r = layer_read_meta(l, l->src, &entry, sizeof(entry),
			    s->l1_off + (guest_off >> table_bits) * 8, err);
	if (r >= 0)
		r = find_l2(s, be64toh(entry), &l2_off, err);
	if (r < 0)
		return r;
	if (!l2_off) {
		ret->kind = EXTENT_HOLE;
		ret->len = empty_bytes(l, guest_off, len);
		return 0;
	}
	len = min_u64(len, (1ULL << table_bits) -
				   (guest_off & ((1ULL << table_bits) - 1)));
	r = find_run(l, l2_off, guest_off, len, &a, &run, err);
	if (r < 0)
		return r;
	ret->kind = (uint8_t)a.kind;
	ret->len = run;
	if (a.kind == EXTENT_DATA)
		return place_data(s, a.host_off, in_cluster, guest_off, ret,
				  err);
	if (a.kind == EXTENT_COMPRESSED) {
		ret->src = s->data;
		ret->host_off = a.host_off;
		ret->comp_bytes = a.comp_bytes;
		ret->unit_bytes = (uint32_t)s->cluster_bytes;
		ret->unit_off = (uint32_t)in_cluster;
		ret->codec = (uint8_t)s->codec;
	}
	return 0;
}

/* Keys as `qemu-img info --output=json` has them under format-specific. */
static void qcow2_info(struct layer *l, struct info_sink *sink)
{
	const struct qcow2_state *s = l->state;
	const struct qcow2_header *h = &s->h;

	sink->text(sink, "compat", h->version == 2 ? "0.10" : "1.1");
	sink->text(sink, "compression-type",
		   h->compression == QCOW2_COMPRESSION_ZSTD ? "zstd" : "zlib");
	sink->number(sink, "refcount-bits", 1ULL << h->refcount_order);
	if (h->version >= 3) {
		sink->flag(sink, "lazy-refcounts",
			   h->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS);
		sink->flag(sink, "corrupt",
			   h->incompatible & QCOW2_INCOMPAT_CORRUPT);
		sink->flag(sink, "dirty",
			   h->incompatible & QCOW2_INCOMPAT_DIRTY);
		sink->flag(sink, "extended-l2", s->l2_entry_bytes == 16);
	}
	if (s->has_data_file) {
		sink->text(sink, "data-file", l->files[0].name);
		sink->flag(sink, "data-file-raw",
			   h->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW);
	}
	if (s->bitmaps)
		sink->number(sink, "bitmaps", s->bitmaps);
	if (h->crypt_method == QCOW2_CRYPT_AES) {
		sink->text(sink, "encrypt-format", "aes");
	} else if (h->crypt_method == QCOW2_CRYPT_LUKS) {
		sink->text(sink, "encrypt-format", "luks");
		sink->text(sink, "encrypt-cipher", s->luks.cipher);
		sink->text(sink, "encrypt-hash", s->luks.hash);
		sink->text(sink, "encrypt-uuid", s->luks.uuid);
		sink->number(sink, "encrypt-slots", s->luks.slots);
	}
}

/* Version 1 has the same magic, but is another format: qcow. */
static bool qcow2_probe(struct source *src, const uint8_t *head,
			size_t head_bytes)
{
	struct cursor c = { .buf = head, .len = head_bytes };

	return cursor_be32_at(&c, QCOW2_MAGIC_AT) == QCOW2_MAGIC &&
	       cursor_be32_at(&c, QCOW2_VERSION_AT) != 1;
}

const struct format_ops qcow2_format = {
	.name = "qcow2",
	.glance_name = "qcow2",
	.probe = qcow2_probe,
	.open_ended = format_reads_forward,
	.state_bytes = sizeof(struct opening),
	.open = qcow2_open,
	.close = qcow2_close,
	.map = qcow2_map,
	.snapshots = qcow2_snapshots,
	.bitmaps = qcow2_bitmaps,
	.map_bitmap = qcow2_map_bitmap,
	.info = qcow2_info,
	.check = qcow2_check,
};
