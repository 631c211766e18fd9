/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * LUKS1: "LUKS On-Disk Format Specification", version 1.2.3.
 *
 *   0    magic, version, cipher name, cipher mode, hash    (big endian)
 *   104  payload offset (sectors), key bytes, master key digest, salt,
 *        iterations, uuid
 *   208  8 key slots: state, iterations, salt, material offset (sectors),
 *        stripes
 *   592  end; then the key material of the slots, then the payload
 *
 * A slot's material is the master key, blown up to key bytes x stripes
 * (anti-forensic split), enciphered with PBKDF2(secret). The master key is
 * right when PBKDF2(master key) is the digest.
 *
 * Refused: LUKS2, ciphers other than AES, Serpent and Twofish, and hashes and modes that the two
 * tables below do not have.
 *
 * How much work a header may ask for. Whoever makes a header measures their
 * machine and takes the number of iterations that last a second (older
 * cryptsetup) or two (cryptsetup, qemu-img), whatever that number is; qemu
 * counts half of the work of a 64-byte key with sha256. So no constant would
 * let what a fast machine made pass and still stop a slow one from computing
 * for minutes. What is limited is therefore time: this machine's speed with
 * the header's hash is measured (some milliseconds), and a slot is tried only
 * while all attempts together stay below WORK_MSEC of it. A slot that does
 * not fit is passed over: a later, cheaper one may be the right one. That
 * lets one slot of qemu-img's or two of cryptsetup's default cost be tried on
 * a machine as fast as the maker's, and a slow machine is never held longer
 * than by WORK_MSEC.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "formats/codec/block-cipher.h"
#include "formats/cursor.h"
#include "formats/codec/luks-key.h"
#include "formats/codec/openssl.h"

#define LUKS_MAGIC	  "LUKS\xba\xbe"
#define LUKS_SECTOR_BYTES 512
#define LUKS_KEY_ENABLED  0x00ac71f3U
#define LUKS_KEY_DISABLED 0x0000deadU

/* Ours: 16384 stripes of the longest key; the specification has 4000. */
#define SPLIT_BYTES_MAX	 (1U << 20)
/* What cryptsetup reads of a key file at most. */
#define SECRET_BYTES_MAX (8U << 20)
/* Of PBKDF2, all attempts together; below the five seconds of any open. */
#define WORK_MSEC	 4500

enum {
	LUKS_MAGIC_AT = 0,
	LUKS_VERSION_AT = 6,
	LUKS_CIPHER_AT = 8,
	LUKS_MODE_AT = 40,
	LUKS_HASH_AT = 72,
	LUKS_PAYLOAD_AT = 104,
	LUKS_KEY_BYTES_AT = 108,
	LUKS_DIGEST_AT = 112,
	LUKS_DIGEST_SALT_AT = 132,
	LUKS_DIGEST_ITERATIONS_AT = 164,
	LUKS_UUID_AT = 168,
	LUKS_SLOTS_AT = 208,
	LUKS_HEADER_BYTES = 592,

	/* In a slot. */
	SLOT_STATE_AT = 0,
	SLOT_ITERATIONS_AT = 4,
	SLOT_SALT_AT = 8,
	SLOT_MATERIAL_AT = 40,
	SLOT_STRIPES_AT = 44,
	SLOT_BYTES = 48,

	N_SLOTS = 8,
	NAME_BYTES = 32,
	SALT_BYTES = 32,
	DIGEST_BYTES = 20,
	UUID_BYTES = 40,
	KEY_BYTES_MAX = 64,
};

struct luks_slot {
	uint32_t state;
	uint32_t iterations;
	uint8_t salt[SALT_BYTES];
	uint32_t material_sector; /* from the header's start */
	uint32_t stripes;
};

struct luks_header {
	char magic[6];
	uint16_t version;
	char cipher[NAME_BYTES]; /* NUL inside, once checked; so the next two */
	char mode[NAME_BYTES];
	char hash[NAME_BYTES];
	uint32_t payload_sector; /* from the header's start */
	uint32_t key_bytes;
	uint8_t digest[DIGEST_BYTES];
	uint8_t digest_salt[SALT_BYTES];
	uint32_t digest_iterations;
	char uuid[UUID_BYTES + 1];
	struct luks_slot slots[N_SLOTS];
};

/* A header whose every field has been checked, and where it lies. */
struct luks {
	struct luks_header h;
	struct cipher_spec spec;
	EVP_MD *md;
	struct source *src; /* the caller's */
	uint64_t off; /* of the header in src */
};

/* Bytes that are gone when they go out of scope. */
struct key {
	uint8_t bytes[KEY_BYTES_MAX];
};

static void key_wipe(struct key *k)
{
	explicit_bzero(k, sizeof(*k));
}

static void luks_done(struct luks *l)
{
	if (l->md)
		openssl.EVP_MD_free(l->md);
}

static const struct {
	const char *name;
	enum cipher_mode mode;
	enum cipher_iv iv;
	const char *essiv_hash;
} luks_modes[] = {
	{ "xts-plain64", CIPHER_XTS, CIPHER_IV_PLAIN64, NULL },
	{ "xts-plain", CIPHER_XTS, CIPHER_IV_PLAIN, NULL },
	{ "cbc-essiv:sha256", CIPHER_CBC, CIPHER_IV_ESSIV, "SHA256" },
	{ "cbc-plain64", CIPHER_CBC, CIPHER_IV_PLAIN64, NULL },
	{ "cbc-plain", CIPHER_CBC, CIPHER_IV_PLAIN, NULL },
	{ "ecb", CIPHER_ECB, CIPHER_IV_NONE, NULL },
	/* qemu-img names an IV generator also where there is no IV. */
	{ "ecb-plain64", CIPHER_ECB, CIPHER_IV_NONE, NULL },
	{ "ecb-plain", CIPHER_ECB, CIPHER_IV_NONE, NULL },
};

static const struct {
	const char *name;
	const char *openssl_name;
} luks_hashes[] = {
	{ "sha1", "SHA1" },	{ "sha224", "SHA224" },
	{ "sha256", "SHA256" }, { "sha384", "SHA384" },
	{ "sha512", "SHA512" }, { "ripemd160", "RIPEMD160" },
};

static uint64_t slot_at(unsigned int slot)
{
	return LUKS_SLOTS_AT + (uint64_t)slot * SLOT_BYTES;
}

static void decode_slot(struct cursor *c, size_t at, struct luks_slot *ret)
{
	ret->state = cursor_be32_at(c, at + SLOT_STATE_AT);
	ret->iterations = cursor_be32_at(c, at + SLOT_ITERATIONS_AT);
	cursor_copy_at(c, at + SLOT_SALT_AT, ret->salt, SALT_BYTES);
	ret->material_sector = cursor_be32_at(c, at + SLOT_MATERIAL_AT);
	ret->stripes = cursor_be32_at(c, at + SLOT_STRIPES_AT);
}

static void decode_header(struct cursor *c, struct luks_header *ret)
{
	struct luks_header h = {
		.version = cursor_be16_at(c, LUKS_VERSION_AT),
		.payload_sector = cursor_be32_at(c, LUKS_PAYLOAD_AT),
		.key_bytes = cursor_be32_at(c, LUKS_KEY_BYTES_AT),
		.digest_iterations =
			cursor_be32_at(c, LUKS_DIGEST_ITERATIONS_AT),
	};
	unsigned int i;

	cursor_copy_at(c, LUKS_MAGIC_AT, h.magic, sizeof(h.magic));
	cursor_copy_at(c, LUKS_CIPHER_AT, h.cipher, NAME_BYTES);
	cursor_copy_at(c, LUKS_MODE_AT, h.mode, NAME_BYTES);
	cursor_copy_at(c, LUKS_HASH_AT, h.hash, NAME_BYTES);
	cursor_copy_at(c, LUKS_DIGEST_AT, h.digest, DIGEST_BYTES);
	cursor_copy_at(c, LUKS_DIGEST_SALT_AT, h.digest_salt, SALT_BYTES);
	cursor_copy_at(c, LUKS_UUID_AT, h.uuid, UUID_BYTES);
	for (i = 0; i < N_SLOTS; i++)
		decode_slot(c, slot_at(i), &h.slots[i]);
	*ret = h;
}

static int check_name(const char *name, uint64_t off, const char *what,
		      struct error *err)
{
	if (!memchr(name, '\0', NAME_BYTES))
		return error_set(err, -EBADMSG, off,
				 "LUKS %s does not end within its %d bytes",
				 what, NAME_BYTES);
	return 0;
}

/* What it is, and do we have it: up to here nothing else was looked at. */
static int check_kind(struct luks *l, struct error *err)
{
	const struct luks_header *h = &l->h;
	uint64_t off = l->off;
	int r;

	if (memcmp(h->magic, LUKS_MAGIC, sizeof(h->magic)) != 0)
		return error_set(err, -EBADMSG, off + LUKS_MAGIC_AT,
				 "not a LUKS header: wrong magic");
	if (h->version == 2)
		return error_set(err, -ENOTSUP, off + LUKS_VERSION_AT,
				 "LUKS2 is not supported (LUKS1 is)");
	if (h->version != 1)
		return error_set(err, -ENOTSUP, off + LUKS_VERSION_AT,
				 "LUKS version %u is not supported (1 is)",
				 h->version);
	r = check_name(h->cipher, off + LUKS_CIPHER_AT, "cipher name", err);
	if (r == 0)
		r = check_name(h->mode, off + LUKS_MODE_AT, "cipher mode", err);
	if (r == 0)
		r = check_name(h->hash, off + LUKS_HASH_AT, "hash", err);
	return r;
}

static int find_cipher(struct luks *l, struct error *err)
{
	const struct luks_header *h = &l->h;
	size_t i;

	if (!block_cipher_known(h->cipher))
		return error_set(err, -ENOTSUP, l->off + LUKS_CIPHER_AT,
				 "LUKS cipher %s is not supported (aes, "
				 "serpent and twofish are)",
				 h->cipher);
	for (i = 0; i < ARRAY_SIZE(luks_modes); i++) {
		if (strcmp(h->mode, luks_modes[i].name) != 0)
			continue;
		l->spec = (struct cipher_spec){
			.algorithm = h->cipher,
			.mode = luks_modes[i].mode,
			.iv = luks_modes[i].iv,
			.essiv_hash = luks_modes[i].essiv_hash,
		};
		return 0;
	}
	return error_set(err, -ENOTSUP, l->off + LUKS_MODE_AT,
			 "LUKS cipher mode %s is not supported", h->mode);
}

static int find_hash(struct luks *l, struct error *err)
{
	size_t i;
	int r;

	r = openssl_load(err);
	if (r < 0)
		return r;
	for (i = 0; i < ARRAY_SIZE(luks_hashes); i++) {
		/* As the user of cryptsetup spelled it. */
		if (strcasecmp(l->h.hash, luks_hashes[i].name) != 0)
			continue;
		openssl.ERR_set_mark();
		l->md = openssl.EVP_MD_fetch(NULL, luks_hashes[i].openssl_name,
					     NULL);
		openssl.ERR_pop_to_mark();
		if (l->md)
			return 0;
	}
	return error_set(err, -ENOTSUP, l->off + LUKS_HASH_AT,
			 "LUKS hash %s is not supported", l->h.hash);
}

static int check_key_bytes(const struct luks *l, struct error *err)
{
	uint32_t bytes = l->h.key_bytes;
	bool xts = l->spec.mode == CIPHER_XTS;

	if (xts && bytes == 48)
		return error_set(err, -ENOTSUP, l->off + LUKS_KEY_BYTES_AT,
				 "LUKS cipher %s-192 with mode %s is not "
				 "supported (%s-128 and %s-256 are)",
				 l->h.cipher, l->h.mode, l->h.cipher,
				 l->h.cipher);
	if (xts ? bytes != 32 && bytes != 64
		: bytes != 16 && bytes != 24 && bytes != 32)
		return error_set(err, -EBADMSG, l->off + LUKS_KEY_BYTES_AT,
				 "LUKS key of %" PRIu32 " bytes; %s-%s has %s",
				 bytes, l->h.cipher, l->h.mode,
				 xts ? "32 or 64" : "16, 24 or 32");
	return 0;
}

/* @len: see luks_read_info(). key_bytes has been checked. */
static int check_slot(const struct luks *l, unsigned int slot, uint64_t len,
		      struct error *err)
{
	const struct luks_slot *s = &l->h.slots[slot];
	uint64_t at = l->off + slot_at(slot);
	uint64_t material = (uint64_t)s->material_sector * LUKS_SECTOR_BYTES;
	uint64_t split = (uint64_t)l->h.key_bytes * s->stripes;

	if (s->state == LUKS_KEY_DISABLED)
		return 0;
	if (s->state != LUKS_KEY_ENABLED)
		return error_set(err, -EBADMSG, at + SLOT_STATE_AT,
				 "LUKS key slot %u: state 0x%08" PRIx32
				 " is neither enabled nor disabled",
				 slot, s->state);
	if (s->iterations == 0)
		return error_set(err, -EBADMSG, at + SLOT_ITERATIONS_AT,
				 "LUKS key slot %u: 0 iterations", slot);
	if (s->stripes == 0)
		return error_set(err, -EBADMSG, at + SLOT_STRIPES_AT,
				 "LUKS key slot %u: 0 stripes", slot);
	if (split > SPLIT_BYTES_MAX)
		return error_set(
			err, -EFBIG, at + SLOT_STRIPES_AT,
			"LUKS key slot %u: %" PRIu32 " stripes of %" PRIu32
			" bytes exceed %u bytes",
			slot, s->stripes, l->h.key_bytes, SPLIT_BYTES_MAX);
	if (!range_inside(material, round_up(split, LUKS_SECTOR_BYTES), len))
		return error_set(err, -EBADMSG, at + SLOT_MATERIAL_AT,
				 "LUKS key slot %u: %" PRIu64
				 " bytes of key material at %" PRIu64
				 " end past the header's %" PRIu64 " bytes",
				 slot, split, material, len);
	return 0;
}

/* Every relation that unlocking relies on. */
static int check_header(struct luks *l, uint64_t len, struct error *err)
{
	unsigned int i;
	int r;

	r = check_kind(l, err);
	if (r == 0)
		r = find_cipher(l, err);
	if (r == 0)
		r = find_hash(l, err);
	if (r == 0)
		r = check_key_bytes(l, err);
	if (r < 0)
		return r;
	if (l->h.digest_iterations == 0)
		return error_set(err, -EBADMSG,
				 l->off + LUKS_DIGEST_ITERATIONS_AT,
				 "LUKS master key digest: 0 iterations");
	for (i = 0; i < N_SLOTS && r == 0; i++)
		r = check_slot(l, i, len, err);
	return r;
}

/* @ret is zeroed before, and the caller's to luks_done() also on failure. */
static int luks_load(struct source *src, uint64_t off, uint64_t len,
		     struct luks *ret, struct error *err)
{
	uint8_t buf[LUKS_HEADER_BYTES];
	struct cursor c = { .buf = buf, .len = sizeof(buf) };
	int r;

	if (!range_inside(off, len, src->bytes))
		return error_set(err, -EBADMSG, off,
				 "LUKS header of %" PRIu64 " bytes at %" PRIu64
				 " ends past the file's %" PRIu64 " bytes",
				 len, off, src->bytes);
	c.len = min_size(c.len, (size_t)min_u64(len, SIZE_MAX));
	r = source_read(src, buf, c.len, off, err);
	if (r < 0)
		return r;
	ret->src = src;
	ret->off = off;
	decode_header(&c, &ret->h);
	if (c.short_read)
		return error_set(err, -EBADMSG, off,
				 "LUKS header truncated: %zu of %d bytes",
				 c.len, LUKS_HEADER_BYTES);
	return check_header(ret, len, err);
}

static unsigned int active_slots(const struct luks_header *h)
{
	unsigned int i, n = 0;

	for (i = 0; i < N_SLOTS; i++)
		n += h->slots[i].state == LUKS_KEY_ENABLED;
	return n;
}

static void fill_info(const struct luks_header *h, struct luks_info *ret)
{
	struct luks_info info = {
		.payload_bytes_off =
			(uint64_t)h->payload_sector * LUKS_SECTOR_BYTES,
		.key_bytes = h->key_bytes,
		.slots = active_slots(h),
	};

	snprintf(info.cipher, sizeof(info.cipher), "%s-%s", h->cipher, h->mode);
	snprintf(info.hash, sizeof(info.hash), "%s", h->hash);
	snprintf(info.uuid, sizeof(info.uuid), "%s", h->uuid);
	*ret = info;
}

int luks_read_info(struct source *src, uint64_t off, uint64_t len,
		   struct luks_info *ret, struct error *err)
{
	CLEANUP(luks_done) struct luks l = { 0 };
	int r;

	r = luks_load(src, off, len, &l, err);
	if (r < 0)
		return r;
	fill_info(&l.h, ret);
	return 0;
}

/* @iterations fits an int. Returns 0 or -EIO when OpenSSL fails. */
static int pbkdf2(const EVP_MD *md, const uint8_t *secret, size_t secret_bytes,
		  const uint8_t salt[SALT_BYTES], uint32_t iterations,
		  uint8_t *ret, size_t bytes)
{
	if (!openssl.PKCS5_PBKDF2_HMAC((const char *)secret, (int)secret_bytes,
				       salt, SALT_BYTES, (int)iterations, md,
				       (int)bytes, ret))
		return -EIO;
	return 0;
}

static uint64_t thread_cpu_nsec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/*
 * How many iterations of one output block this machine does in WORK_MSEC, at
 * most INT_MAX. The fastest of some runs counts: what disturbs a measurement
 * makes it slower. CPU time, so that a busy machine refuses no more than an
 * idle one. Returns 0 or -EIO when OpenSSL fails.
 */
static int measure_budget(const EVP_MD *md, uint64_t *ret)
{
	enum { RUNS = 4, ITERATIONS = 4096 };
	static const uint8_t salt[SALT_BYTES];
	uint64_t best_nsec = UINT64_MAX, start;
	uint8_t out[DIGEST_BYTES];
	int i;

	for (i = 0; i < RUNS; i++) {
		start = thread_cpu_nsec();
		if (pbkdf2(md, salt, sizeof(salt), salt, ITERATIONS, out,
			   sizeof(out)) < 0)
			return -EIO;
		best_nsec = min_u64(best_nsec, thread_cpu_nsec() - start);
	}
	*ret = min_u64((uint64_t)WORK_MSEC * 1000000 * ITERATIONS /
			       max_u64(best_nsec, 1),
		       INT_MAX);
	return 0;
}

/* Specification 2.4: the hash of each block of @d, with its number. */
static int af_diffuse(EVP_MD_CTX *ctx, const EVP_MD *md, uint8_t *d,
		      size_t bytes)
{
	size_t block_bytes = (size_t)openssl.EVP_MD_get_size(md), n;
	CLEANUP(key_wipe) struct key out; /* EVP_MAX_MD_SIZE bytes */
	uint32_t number = 0, be;

	_Static_assert(sizeof(out.bytes) >= EVP_MAX_MD_SIZE, "any digest fits");
	for (; bytes; d += n, bytes -= n) {
		n = min_size(block_bytes, bytes);
		be = htobe32(number++);
		if (!openssl.EVP_DigestInit_ex2(ctx, md, NULL) ||
		    !openssl.EVP_DigestUpdate(ctx, &be, sizeof(be)) ||
		    !openssl.EVP_DigestUpdate(ctx, d, n) ||
		    !openssl.EVP_DigestFinal_ex(ctx, out.bytes, NULL))
			return -EIO;
		memcpy(d, out.bytes, n);
	}
	return 0;
}

/* Specification 2.4: @stripes (> 0) stripes of @bytes make one key. */
static int af_merge(const EVP_MD *md, const uint8_t *split, size_t bytes,
		    uint32_t stripes, struct key *ret)
{
	EVP_MD_CTX *ctx = openssl.EVP_MD_CTX_new();
	CLEANUP(key_wipe) struct key d = { 0 };
	uint32_t i;
	size_t j;
	int r = 0;

	if (!ctx)
		return -ENOMEM;
	for (i = 0; i < stripes && r == 0; i++) {
		for (j = 0; j < bytes; j++)
			d.bytes[j] ^= *split++;
		if (i + 1 < stripes)
			r = af_diffuse(ctx, md, d.bytes, bytes);
	}
	openssl.EVP_MD_CTX_free(ctx);
	if (r == 0)
		*ret = d;
	return r;
}

/* Reads the slot's material and makes of it what is the master key if @key,
 * derived from the secret, is this slot's. */
static int merge_material(const struct luks *l, const struct luks_slot *s,
			  const struct key *key, struct key *ret,
			  struct error *err)
{
	CLEANUP(cipher_freep) struct cipher *cipher = NULL;
	CLEANUP(freep) uint8_t *split = NULL;
	size_t bytes = round_up((uint64_t)l->h.key_bytes * s->stripes,
				LUKS_SECTOR_BYTES);
	int r;

	split = malloc(bytes);
	if (!split)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = source_read(
		l->src, split, bytes,
		l->off + (uint64_t)s->material_sector * LUKS_SECTOR_BYTES, err);
	if (r < 0)
		return r;
	r = cipher_new(&l->spec, key->bytes, l->h.key_bytes, &cipher, err);
	if (r < 0)
		return r;
	/* Enciphered as a disk of its own: its first sector is sector 0. */
	r = cipher_decrypt(cipher, 0, split, bytes);
	if (r == 0)
		r = af_merge(l->md, split, l->h.key_bytes, s->stripes, ret);
	explicit_bzero(split, bytes);
	if (r < 0)
		return error_set(err, r, 0,
				 "OpenSSL cannot decipher LUKS key material");
	return 0;
}

/* Returns 1 and the master key, 0 when the secret is not this slot's. */
static int try_slot(const struct luks *l, const struct luks_slot *s,
		    const uint8_t *secret, size_t secret_bytes, struct key *ret,
		    struct error *err)
{
	CLEANUP(key_wipe) struct key derived = { 0 };
	CLEANUP(key_wipe) struct key master = { 0 };
	const struct luks_header *h = &l->h;
	uint8_t digest[DIGEST_BYTES];
	int r;

	r = pbkdf2(l->md, secret, secret_bytes, s->salt, s->iterations,
		   derived.bytes, h->key_bytes);
	if (r < 0)
		return error_set(err, r, 0, "OpenSSL cannot compute PBKDF2");
	r = merge_material(l, s, &derived, &master, err);
	if (r < 0)
		return r;
	r = pbkdf2(l->md, master.bytes, h->key_bytes, h->digest_salt,
		   h->digest_iterations, digest, DIGEST_BYTES);
	if (r < 0)
		return error_set(err, r, 0, "OpenSSL cannot compute PBKDF2");
	if (openssl.CRYPTO_memcmp(digest, h->digest, DIGEST_BYTES) != 0)
		return 0;
	*ret = master;
	return 1;
}

/*
 * Takes the slot's work off @budget. No room for it: -EFBIG, which @err tells
 * of the first such slot.
 */
static int spend(const struct luks *l, unsigned int slot, uint64_t *budget,
		 struct error *err)
{
	const struct luks_header *h = &l->h;
	const struct luks_slot *s = &h->slots[slot];
	uint64_t md_bytes = (uint64_t)openssl.EVP_MD_get_size(l->md);
	uint64_t blocks = div_round_up(h->key_bytes, md_bytes);
	uint64_t digest =
		h->digest_iterations * div_round_up(DIGEST_BYTES, md_bytes);
	uint64_t left;

	if (digest > *budget)
		return error_set(
			err, -EFBIG, l->off + LUKS_DIGEST_ITERATIONS_AT,
			"LUKS master key digest: %" PRIu32
			" iterations of %s exceed the %" PRIu64
			" that this machine does in %d ms",
			h->digest_iterations, h->hash, *budget, WORK_MSEC);
	left = (*budget - digest) / blocks;
	if (s->iterations > left)
		return error_set(err, -EFBIG,
				 l->off + slot_at(slot) + SLOT_ITERATIONS_AT,
				 "LUKS key slot %u: %" PRIu32
				 " iterations of %s exceed the %" PRIu64
				 " left of what this machine does in %d ms;"
				 " make the slot anew with a lower iter-time",
				 slot, s->iterations, h->hash, left, WORK_MSEC);
	*budget -= digest + s->iterations * blocks;
	return 0;
}

static int find_master_key(const struct luks *l, const uint8_t *secret,
			   size_t secret_bytes, struct key *ret,
			   struct error *err)
{
	struct error too_dear = { 0 };
	uint64_t budget = 0;
	unsigned int i;
	int r;

	if (measure_budget(l->md, &budget) < 0)
		return error_set(err, -EIO, 0, "OpenSSL cannot compute PBKDF2");
	for (i = 0; i < N_SLOTS; i++) {
		if (l->h.slots[i].state != LUKS_KEY_ENABLED)
			continue;
		if (spend(l, i, &budget, &too_dear) < 0)
			continue;
		r = try_slot(l, &l->h.slots[i], secret, secret_bytes, ret, err);
		if (r != 0)
			return r < 0 ? r : 0;
	}
	if (too_dear.code)
		return error_set(err, too_dear.code, too_dear.off, "%s",
				 too_dear.msg);
	return error_set(err, -EACCES, l->off + LUKS_SLOTS_AT,
			 "wrong key: it opens none of the %u active LUKS key "
			 "slots",
			 active_slots(&l->h));
}

int luks_unlock(struct source *src, uint64_t off, uint64_t len,
		const uint8_t *secret, size_t secret_bytes,
		struct luks_info *ret_info, struct cipher **ret,
		struct error *err)
{
	CLEANUP(luks_done) struct luks l = { 0 };
	CLEANUP(key_wipe) struct key master = { 0 };
	int r;

	if (secret_bytes > SECRET_BYTES_MAX)
		return error_set(err, -EINVAL, 0,
				 "key of %zu bytes exceeds %u bytes",
				 secret_bytes, SECRET_BYTES_MAX);
	r = luks_load(src, off, len, &l, err);
	if (r < 0)
		return r;
	r = find_master_key(&l, secret, secret_bytes, &master, err);
	if (r < 0)
		return r;
	r = cipher_new(&l.spec, master.bytes, l.h.key_bytes, ret, err);
	if (r < 0)
		return r;
	fill_info(&l.h, ret_info);
	return 0;
}
