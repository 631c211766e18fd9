/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * formats/codec/luks-key.c against headers that this file makes with its own PBKDF2
 * and anti-forensic split, and against volumes that qemu-img makes.
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <check.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "formats/codec/luks-key.h"

#define SECTOR	       512U
#define HEADER_OFF     1536U /* of the header in the file */
#define MATERIAL_OFF   4096U /* of slot 0's material, from the header's start */
#define MATERIAL_STEP  4096U
#define HEADER_LEN     (MATERIAL_OFF + 8 * MATERIAL_STEP)
#define PAYLOAD_SECTOR 0x1000U
#define FILE_BYTES     (HEADER_OFF + HEADER_LEN + SECTOR)
#define STRIPES	       37U
#define SLOT_AT(i)     (208U + (i)*48U)

struct volume {
	const char *mode;
	struct cipher_spec spec;
	const char *hash; /* in the header */
	const char *openssl; /* the same for OpenSSL */
	uint32_t key_bytes;
};

static const struct volume volumes[] = {
	{ "xts-plain64",
	  { "aes", CIPHER_XTS, CIPHER_IV_PLAIN64, NULL },
	  "sha256",
	  "SHA256",
	  64 },
	{ "xts-plain",
	  { "aes", CIPHER_XTS, CIPHER_IV_PLAIN, NULL },
	  "sha1",
	  "SHA1",
	  32 },
	{ "cbc-essiv:sha256",
	  { "aes", CIPHER_CBC, CIPHER_IV_ESSIV, "SHA256" },
	  "sha1",
	  "SHA1",
	  32 },
	{ "cbc-plain64",
	  { "aes", CIPHER_CBC, CIPHER_IV_PLAIN64, NULL },
	  "sha512",
	  "SHA512",
	  24 },
	{ "cbc-plain",
	  { "aes", CIPHER_CBC, CIPHER_IV_PLAIN, NULL },
	  "sha224",
	  "SHA224",
	  16 },
	{ "ecb",
	  { "aes", CIPHER_ECB, CIPHER_IV_NONE, NULL },
	  "sha384",
	  "SHA384",
	  32 },
	{ "ecb-plain64",
	  { "aes", CIPHER_ECB, CIPHER_IV_NONE, NULL },
	  "ripemd160",
	  "RIPEMD160",
	  32 },
	{ "ecb-plain",
	  { "aes", CIPHER_ECB, CIPHER_IV_NONE, NULL },
	  "SHA256",
	  "SHA256",
	  16 },
};

static uint8_t file[FILE_BYTES];
static uint8_t *const header = file + HEADER_OFF;
static uint8_t master[64];

static void put(size_t at, uint32_t value, size_t bytes)
{
	while (bytes--) {
		header[at + bytes] = (uint8_t)value;
		value >>= 8;
	}
}

static void put_be32(size_t at, uint32_t value)
{
	put(at, value, 4);
}

static uint32_t get_be32(size_t at)
{
	uint32_t be;

	memcpy(&be, header + at, sizeof(be));
	return be32toh(be);
}

static void fill(uint8_t *buf, size_t len, unsigned int seed)
{
	size_t i;

	for (i = 0; i < len; i++) {
		seed = seed * 1103515245 + 12345;
		buf[i] = (uint8_t)(seed >> 16);
	}
}

/* RFC 8018, 5.2, word by word. */
static void derive(const char *hash, const void *secret, size_t secret_bytes,
		   const uint8_t salt[32], uint32_t iterations, uint8_t *ret,
		   size_t bytes)
{
	const EVP_MD *md = EVP_get_digestbyname(hash);
	uint8_t u[EVP_MAX_MD_SIZE], t[EVP_MAX_MD_SIZE], first[36];
	uint32_t block = 1, be, i;
	unsigned int n, j;
	size_t take;

	for (; bytes; bytes -= take, ret += take, block++) {
		be = htobe32(block);
		memcpy(first, salt, 32);
		memcpy(first + 32, &be, 4);
		ck_assert_ptr_nonnull(HMAC(md, secret, (int)secret_bytes, first,
					   sizeof(first), u, &n));
		memcpy(t, u, n);
		for (i = 1; i < iterations; i++) {
			HMAC(md, secret, (int)secret_bytes, u, n, u, &n);
			for (j = 0; j < n; j++)
				t[j] ^= u[j];
		}
		take = bytes < n ? bytes : n;
		memcpy(ret, t, take);
	}
}

static void diffuse(const char *hash, uint8_t *d, size_t bytes)
{
	const EVP_MD *md = EVP_get_digestbyname(hash);
	size_t n = (size_t)EVP_MD_get_size(md), at, take;
	uint8_t in[4 + 64], out[EVP_MAX_MD_SIZE];
	uint32_t be;

	for (at = 0; at < bytes; at += take) {
		take = bytes - at < n ? bytes - at : n;
		be = htobe32((uint32_t)(at / n));
		memcpy(in, &be, 4);
		memcpy(in + 4, d + at, take);
		ck_assert_int_eq(EVP_Digest(in, 4 + take, out, NULL, md, NULL),
				 1);
		memcpy(d + at, out, take);
	}
}

/* All stripes but the last are random, the last makes the key of them. */
static void split(const char *hash, const uint8_t *key, size_t bytes,
		  uint32_t stripes, uint8_t *ret)
{
	uint8_t d[64] = { 0 };
	uint32_t i;
	size_t j;

	fill(ret, bytes * stripes, 77);
	for (i = 0; i + 1 < stripes; i++) {
		for (j = 0; j < bytes; j++)
			d[j] ^= ret[i * bytes + j];
		diffuse(hash, d, bytes);
	}
	for (j = 0; j < bytes; j++)
		ret[i * bytes + j] = d[j] ^ key[j];
}

static void add_slot(const struct volume *v, unsigned int i, const void *secret,
		     size_t secret_bytes, uint32_t iterations)
{
	size_t at = SLOT_AT(i), off = MATERIAL_OFF + i * MATERIAL_STEP;
	uint8_t derived[64], *salt = header + at + 8;
	struct cipher *c = NULL;
	struct error err = { 0 };

	put_be32(at, 0x00ac71f3);
	put_be32(at + 4, iterations);
	fill(salt, 32, 100 + i);
	put_be32(at + 40, (uint32_t)(off / SECTOR));
	put_be32(at + 44, STRIPES);
	derive(v->openssl, secret, secret_bytes, salt, iterations, derived,
	       v->key_bytes);
	split(v->openssl, master, v->key_bytes, STRIPES, header + off);
	ck_assert_msg(cipher_new(&v->spec, derived, v->key_bytes, &c, &err) ==
			      0,
		      "%s", err.msg);
	ck_assert_int_eq(cipher_encrypt(c, 0, header + off, MATERIAL_STEP), 0);
	cipher_free(c);
}

/* Slot 1 opens with "second", slot 3 with "fourth"; the others are unused. */
static void make_header(const struct volume *v)
{
	unsigned int i;

	memset(file, 0xee, sizeof(file));
	memset(header, 0, SLOT_AT(8));
	fill(master, sizeof(master), 42);
	memcpy(header, "LUKS\xba\xbe", 6);
	put(6, 1, 2);
	strcpy((char *)header + 8, "aes");
	strcpy((char *)header + 40, v->mode);
	strcpy((char *)header + 72, v->hash);
	put_be32(104, PAYLOAD_SECTOR);
	put_be32(108, v->key_bytes);
	fill(header + 132, 32, 43);
	put_be32(164, 11);
	derive(v->openssl, master, v->key_bytes, header + 132, 11, header + 112,
	       20);
	strcpy((char *)header + 168, "0b0f9c9e-1a5b-4e4f-8b57-5d1f3c2a7d10");
	for (i = 0; i < 8; i++)
		put_be32(SLOT_AT(i), 0x0000dead);
	add_slot(v, 1, "second", 6, 13);
	add_slot(v, 3, "fourth", 6, 17);
}

static int unlock_at(uint64_t off, uint64_t len, const void *secret,
		     size_t secret_bytes, struct luks_info *info,
		     struct cipher **ret, struct error *err)
{
	struct source *src = NULL;
	int r;

	ck_assert_int_eq(memory_source_new(file, sizeof(file), &src, err), 0);
	r = luks_unlock(src, off, len, secret, secret_bytes, info, ret, err);
	source_unref(src);
	ck_assert_int_eq(err->code, r);
	if (r < 0) {
		ck_assert_ptr_null(*ret);
		ck_assert_uint_gt(strlen(err->msg), 0);
	}
	return r;
}

static int unlock(const char *secret, struct luks_info *info,
		  struct cipher **ret, struct error *err)
{
	return unlock_at(HEADER_OFF, HEADER_LEN, secret, strlen(secret), info,
			 ret, err);
}

static int read_info(uint64_t off, uint64_t len, struct luks_info *info,
		     struct error *err)
{
	struct source *src = NULL;
	int r;

	ck_assert_int_eq(memory_source_new(file, sizeof(file), &src, err), 0);
	r = luks_read_info(src, off, len, info, err);
	source_unref(src);
	return r;
}

/* Does @c decipher what the master key enciphered? Frees it. */
static void check_opens_with_master(const struct volume *v, struct cipher *c)
{
	uint8_t plain[2 * SECTOR], buf[2 * SECTOR];
	struct cipher *own = NULL;
	struct error err = { 0 };

	fill(plain, sizeof(plain), 5);
	memcpy(buf, plain, sizeof(buf));
	ck_assert_int_eq(cipher_new(&v->spec, master, v->key_bytes, &own, &err),
			 0);
	ck_assert_int_eq(cipher_encrypt(own, 1000, buf, sizeof(buf)), 0);
	ck_assert_int_eq(cipher_decrypt(c, 1000, buf, sizeof(buf)), 0);
	ck_assert_mem_eq(buf, plain, sizeof(buf));
	cipher_free(own);
	cipher_free(c);
}

START_TEST(every_mode_and_hash_opens)
{
	const struct volume *v = &volumes[_i];
	static const char *const secrets[] = { "second", "fourth" };
	struct luks_info info;
	struct cipher *c;
	size_t i;

	make_header(v);
	for (i = 0; i < ARRAY_SIZE(secrets); i++) {
		struct error err = { 0 };

		c = NULL;
		ck_assert_msg(unlock(secrets[i], &info, &c, &err) == 0, "%s",
			      err.msg);
		check_opens_with_master(v, c);
	}
	ck_assert_uint_eq(info.key_bytes, v->key_bytes);
}
END_TEST

START_TEST(a_secret_is_any_bytes)
{
	uint8_t secret[300];
	const size_t sizes[] = { 0, 1, 64, 65, sizeof(secret) };
	size_t i;

	fill(secret, sizeof(secret), 9);
	secret[0] = 0;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct error err = { 0 };
		struct cipher *c = NULL;
		struct luks_info info;

		make_header(&volumes[0]);
		add_slot(&volumes[0], 7, secret, sizes[i], 5);
		ck_assert_msg(unlock_at(HEADER_OFF, HEADER_LEN, secret,
					sizes[i], &info, &c, &err) == 0,
			      "%zu bytes: %s", sizes[i], err.msg);
		check_opens_with_master(&volumes[0], c);
	}
}
END_TEST

START_TEST(info_needs_no_key)
{
	struct error err = { 0 };
	struct luks_info info;

	make_header(&volumes[0]);
	ck_assert_int_eq(read_info(HEADER_OFF, HEADER_LEN, &info, &err), 0);
	ck_assert_str_eq(info.cipher, "aes-xts-plain64");
	ck_assert_str_eq(info.hash, "sha256");
	ck_assert_str_eq(info.uuid, "0b0f9c9e-1a5b-4e4f-8b57-5d1f3c2a7d10");
	ck_assert_uint_eq(info.payload_bytes_off, PAYLOAD_SECTOR * SECTOR);
	ck_assert_uint_eq(info.key_bytes, 64);
	ck_assert_uint_eq(info.slots, 2);

	/* The payload may begin beyond 4 GiB; a uuid may fill its field. */
	put_be32(104, 0xffffffff);
	memset(header + 168, 'u', 40);
	ck_assert_int_eq(read_info(HEADER_OFF, HEADER_LEN, &info, &err), 0);
	ck_assert_uint_eq(info.payload_bytes_off, 0xffffffffULL * SECTOR);
	ck_assert_uint_eq(strlen(info.uuid), 40);
}
END_TEST

START_TEST(a_wrong_secret_is_eacces)
{
	static const char *const wrong[] = { "", "secon", "second ", "SECOND" };
	struct error err = { 0 };
	struct luks_info info;
	struct cipher *c = NULL;

	make_header(&volumes[0]);
	ck_assert_int_eq(unlock(wrong[_i], &info, &c, &err), -EACCES);
	ck_assert_msg(strstr(err.msg, "none of the 2 active") != NULL, "%s",
		      err.msg);
}
END_TEST

/* Each but the first alone would open with "second". */
static void no_slot(void)
{
	put_be32(SLOT_AT(1), 0x0000dead);
	put_be32(SLOT_AT(3), 0x0000dead);
}

static void spoil_digest(void)
{
	header[112 + 19] ^= 1;
}

static void spoil_digest_salt(void)
{
	header[132] ^= 1;
}

static void spoil_salt(void)
{
	header[SLOT_AT(1) + 8 + 31] ^= 1;
}

static void spoil_material(void)
{
	header[MATERIAL_OFF + MATERIAL_STEP + 36 * 64] ^= 1;
}

static void spoil_iterations(void)
{
	put_be32(SLOT_AT(1) + 4, 14);
}

static void (*const spoilers[])(void) = {
	no_slot,    spoil_digest,   spoil_digest_salt,
	spoil_salt, spoil_material, spoil_iterations,
};

START_TEST(what_the_digest_does_not_confirm_is_no_key)
{
	struct error err = { 0 };
	struct luks_info info;
	struct cipher *c = NULL;

	make_header(&volumes[0]);
	spoilers[_i]();
	ck_assert_int_eq(unlock("second", &info, &c, &err), -EACCES);
}
END_TEST

/* Values of 4 bytes, of 2, or a byte (repeated @bytes times). */
static const struct {
	size_t at;
	size_t bytes;
	uint32_t value;
	int code;
	size_t err_at;
	const char *names;
} hostile[] = {
	{ 5, 1, 0xbf, -EBADMSG, 0, "magic" },
	{ 0, 1, 'S', -EBADMSG, 0, "magic" }, /* LUKS2's second header */
	{ 6, 2, 0, -ENOTSUP, 6, "version 0" },
	{ 6, 2, 2, -ENOTSUP, 6, "LUKS2 is not supported" },
	{ 6, 2, 0x0100, -ENOTSUP, 6, "version 256" },
	{ 8, 32, 'a', -EBADMSG, 8, "cipher name" },
	{ 40, 32, 'a', -EBADMSG, 40, "cipher mode" },
	{ 72, 32, 'a', -EBADMSG, 72, "hash" },
	{ 8, 3, 'x', -ENOTSUP, 8, "cipher xxx is not" },
	{ 11, 1, 'x', -ENOTSUP, 8, "cipher aesx is not" },
	{ 8, 3, '\n', -ENOTSUP, 8, "cipher \\x0a\\x0a\\x0a is not" },
	{ 44, 1, 'X', -ENOTSUP, 40, "mode xts-Xlain64 is not" },
	{ 40, 1, 0, -ENOTSUP, 40, "mode  is not" },
	{ 78, 1, '0', -ENOTSUP, 72, "hash sha2560 is not" },
	{ 72, 1, 0, -ENOTSUP, 72, "hash  is not" },
	{ 108, 4, 0, -EBADMSG, 108, "key of 0 bytes" },
	{ 108, 4, 16, -EBADMSG, 108, "key of 16 bytes" },
	{ 108, 4, 65, -EBADMSG, 108, "key of 65 bytes" },
	{ 108, 4, 48, -ENOTSUP, 108, "aes-192" },
	{ 108, 4, 0xffffffff, -EBADMSG, 108, "key of 4294967295 bytes" },
	{ 164, 4, 0, -EBADMSG, 164, "digest: 0 iterations" },
	{ 164, 4, 0xffffffff, -EFBIG, 164, "digest: 4294967295" },
	{ SLOT_AT(0), 4, 0, -EBADMSG, SLOT_AT(0), "slot 0: state 0x00000000" },
	{ SLOT_AT(7), 4, 1, -EBADMSG, SLOT_AT(7), "slot 7: state 0x00000001" },
	{ SLOT_AT(3) + 4, 4, 0, -EBADMSG, SLOT_AT(3) + 4,
	  "slot 3: 0 iterations" },
	{ SLOT_AT(3) + 44, 4, 0, -EBADMSG, SLOT_AT(3) + 44,
	  "slot 3: 0 stripes" },
	{ SLOT_AT(3) + 44, 4, 16385, -EFBIG, SLOT_AT(3) + 44,
	  "slot 3: 16385 stripes" },
	{ SLOT_AT(3) + 44, 4, 0xffffffff, -EFBIG, SLOT_AT(3) + 44,
	  "slot 3: 4294967295 stripes" },
	{ SLOT_AT(3) + 44, 4, 16384, -EBADMSG, SLOT_AT(3) + 40,
	  "slot 3: 1048576 bytes" },
	{ SLOT_AT(3) + 40, 4, 0xffffffff, -EBADMSG, SLOT_AT(3) + 40,
	  "slot 3: 2368 bytes" },
	/* 2368 bytes are 5 sectors, and the last 4 of the header are left. */
	{ SLOT_AT(3) + 40, 4, HEADER_LEN / SECTOR - 4, -EBADMSG,
	  SLOT_AT(3) + 40, "end past the header's 36864 bytes" },
	{ SLOT_AT(3) + 4, 4, 0xffffffff, -EFBIG, SLOT_AT(3) + 4,
	  "slot 3: 4294967295 iterations" },
	{ SLOT_AT(3) + 4, 4, 0x7fffffff, -EFBIG, SLOT_AT(3) + 4,
	  "slot 3: 2147483647 iterations" },
};

static void put_hostile(int i)
{
	if (hostile[i].bytes == 2 || hostile[i].bytes == 4)
		put(hostile[i].at, hostile[i].value, hostile[i].bytes);
	else
		memset(header + hostile[i].at, (int)hostile[i].value,
		       hostile[i].bytes);
}

START_TEST(unlock_refuses_hostile_field)
{
	struct error err = { 0 };
	struct luks_info info;
	struct cipher *c = NULL;

	make_header(&volumes[0]);
	put_hostile(_i);
	ck_assert_int_eq(unlock("fourth", &info, &c, &err), hostile[_i].code);
	ck_assert_uint_eq(err.off, HEADER_OFF + hostile[_i].err_at);
	ck_assert_msg(strstr(err.msg, hostile[_i].names) != NULL, "%s",
		      err.msg);
}
END_TEST

/* The same without a key, but for the work that only a key makes. */
START_TEST(info_refuses_hostile_field)
{
	struct error err = { 0 };
	struct luks_info info;
	bool work = strstr(hostile[_i].names, "iterations") != NULL ||
		    hostile[_i].at == 164;

	make_header(&volumes[0]);
	put_hostile(_i);
	ck_assert_int_eq(read_info(HEADER_OFF, HEADER_LEN, &info, &err),
			 work && hostile[_i].value ? 0 : hostile[_i].code);
}
END_TEST

START_TEST(a_disabled_slot_is_not_looked_at)
{
	struct error err = { 0 };
	struct luks_info info;
	struct cipher *c = NULL;

	make_header(&volumes[0]);
	memset(header + SLOT_AT(0) + 4, 0xff, 44);
	ck_assert_msg(unlock("second", &info, &c, &err) == 0, "%s", err.msg);
	check_opens_with_master(&volumes[0], c);
}
END_TEST

START_TEST(key_material_may_end_where_the_header_does)
{
	struct error err = { 0 };
	struct luks_info info;
	struct cipher *c = NULL;
	uint32_t sector = HEADER_LEN / SECTOR - 5;

	make_header(&volumes[0]);
	memmove(header + (size_t)sector * SECTOR,
		header + MATERIAL_OFF + 3 * MATERIAL_STEP, 5 * SECTOR);
	put_be32(SLOT_AT(3) + 40, sector);
	ck_assert_msg(unlock("fourth", &info, &c, &err) == 0, "%s", err.msg);
	check_opens_with_master(&volumes[0], c);

	/* It is whole sectors, though the stripes do not fill the last. */
	c = NULL;
	ck_assert_int_eq(unlock_at(HEADER_OFF, HEADER_LEN - 1, "fourth", 6,
				   &info, &c, &err),
			 -EBADMSG);
}
END_TEST

static const struct {
	uint64_t off, len;
	const char *names;
} ranges[] = {
	{ HEADER_OFF, 0, "truncated: 0 of" },
	{ HEADER_OFF, 1, "truncated: 1 of" },
	{ HEADER_OFF, 591, "truncated: 591 of" },
	{ HEADER_OFF, 592, "slot 1: 2368 bytes of key material" },
	{ HEADER_OFF, FILE_BYTES - HEADER_OFF + 1, "past the file's" },
	{ HEADER_OFF, UINT64_MAX, "past the file's" },
	{ HEADER_OFF, UINT64_MAX - HEADER_OFF + 1, "past the file's" },
	{ FILE_BYTES + 1, 0, "past the file's" },
	{ UINT64_MAX, 592, "past the file's" },
};

START_TEST(a_range_without_a_header_is_damage)
{
	struct error err = { 0 };
	struct luks_info info;
	struct cipher *c = NULL;

	make_header(&volumes[0]);
	ck_assert_int_eq(unlock_at(ranges[_i].off, ranges[_i].len, "second", 6,
				   &info, &c, &err),
			 -EBADMSG);
	ck_assert_msg(strstr(err.msg, ranges[_i].names) != NULL, "%s", err.msg);
}
END_TEST

START_TEST(a_secret_has_a_maximum)
{
	const size_t max = 8 << 20;
	uint8_t *secret = calloc(1, max + 1);
	struct error err = { 0 };
	struct luks_info info;
	struct cipher *c = NULL;

	make_header(&volumes[0]);
	ck_assert_int_eq(unlock_at(HEADER_OFF, HEADER_LEN, secret, max + 1,
				   &info, &c, &err),
			 -EINVAL);
	error_clear(&err);
	ck_assert_int_eq(
		unlock_at(HEADER_OFF, HEADER_LEN, secret, max, &info, &c, &err),
		-EACCES);
	free(secret);
}
END_TEST

START_TEST(a_slot_over_the_limit_does_not_hide_a_cheap_one)
{
	struct error err = { 0 };
	struct luks_info info;
	struct cipher *c = NULL;

	make_header(&volumes[0]);
	put_be32(SLOT_AT(1) + 4, 0x7fffffff);
	ck_assert_msg(unlock("fourth", &info, &c, &err) == 0, "%s", err.msg);
	check_opens_with_master(&volumes[0], c);

	/* A wrong secret may have been that slot's: it is not called wrong. */
	c = NULL;
	ck_assert_int_eq(unlock("second", &info, &c, &err), -EFBIG);
	ck_assert_uint_eq(err.off, HEADER_OFF + SLOT_AT(1) + 4);
}
END_TEST

static double cpu_sec(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Iterations that take this machine @sec for a key of 64 bytes with SHA-1. */
static uint32_t iterations_for(double sec)
{
	static const uint8_t salt[32];
	uint8_t out[64];
	double best = 1e9, start, took;
	int i;

	for (i = 0; i < 5; i++) {
		start = cpu_sec();
		ck_assert_int_eq(PKCS5_PBKDF2_HMAC("s", 1, salt, 32, 5000,
						   EVP_sha1(), 64, out),
				 1);
		took = cpu_sec() - start;
		best = took < best ? took : best;
	}
	return (uint32_t)(sec * 5000 / best);
}

/* Eight slots of 1.7 seconds: each alone is in order, two fit. */
START_TEST(the_work_of_all_slots_together_is_limited)
{
	struct volume v = volumes[0];
	uint32_t iterations = iterations_for(1.7);
	struct error err = { 0 };
	struct luks_info info;
	struct cipher *c = NULL;
	unsigned int i;
	double start;

	v.hash = "sha1";
	v.openssl = "SHA1";
	make_header(&v);
	for (i = 0; i < 8; i++) {
		add_slot(&v, i, "some", 4, 1);
		put_be32(SLOT_AT(i) + 4, iterations);
	}
	ck_assert_uint_eq(get_be32(SLOT_AT(7) + 4), iterations);
	start = cpu_sec();
	ck_assert_int_eq(unlock("wrong", &info, &c, &err), -EFBIG);
	start = cpu_sec() - start;
	ck_assert_msg(start > 1.5 && start < 7, "took %f s", start);
	ck_assert_msg(strstr(err.msg, " left of what ") != NULL, "%s", err.msg);
}
END_TEST

/* Volumes by qemu-img; 7.2 aborts when it is asked for aes-192. */
static const struct {
	const char *options;
	const char *cipher;
	uint32_t key_bytes;
} by_qemu[] = {
	{ "cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64,"
	  "hash-alg=sha256",
	  "aes-xts-plain64", 64 },
	{ "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,"
	  "ivgen-hash-alg=sha256,hash-alg=sha512",
	  "aes-cbc-essiv:sha256", 32 },
	{ "cipher-alg=aes-256,cipher-mode=ecb,ivgen-alg=plain64,"
	  "hash-alg=ripemd160",
	  "aes-ecb-plain64", 32 },
};

#define QEMU_PAYLOAD (1U << 20)
static char qemu_dir[] = "/tmp/test-luks-key-XXXXXX";

static bool have_qemu_img(void)
{
	return system("qemu-img --version >/dev/null 2>&1") == 0;
}

static void make_dir(void)
{
	ck_assert_ptr_nonnull(mkdtemp(qemu_dir));
}

static void remove_dir(void)
{
	char command[256];

	snprintf(command, sizeof(command), "rm -rf '%s'", qemu_dir);
	ck_assert_int_eq(system(command), 0);
}

static void write_file(const char *path, const uint8_t *data, size_t bytes)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(data, 1, bytes, f), bytes);
	ck_assert_int_eq(fclose(f), 0);
}

/* Fails now and then by itself: it measures the CPU for too short a time. */
static void must_convert(const char *options, const char *from, const char *to)
{
	char command[1024];
	int i;

	snprintf(command, sizeof(command),
		 "qemu-img convert -f raw -O luks "
		 "--object secret,id=s,data=of-qemu "
		 "-o key-secret=s,iter-time=100,%s '%s' '%s'",
		 options, from, to);
	for (i = 0; i < 100; i++) {
		if (system(command) == 0)
			return;
		usleep(20000); /* another place between two ticks */
	}
	ck_abort_msg("%s", command);
}

START_TEST(a_volume_of_qemu_img_opens)
{
	static uint8_t plain[QEMU_PAYLOAD], buf[QEMU_PAYLOAD];
	char from[128], to[128];
	struct source *src = NULL;
	struct error err = { 0 };
	struct luks_info info;
	struct cipher *c = NULL;
	int tries, r = -EFBIG;

	snprintf(from, sizeof(from), "%s/plain-%d", qemu_dir, _i);
	snprintf(to, sizeof(to), "%s/luks-%d", qemu_dir, _i);
	fill(plain, sizeof(plain), 1234);
	write_file(from, plain, sizeof(plain));

	/* What it measures may also be many times too fast. */
	for (tries = 0; tries < 20 && r == -EFBIG; tries++) {
		source_unref(src);
		error_clear(&err);
		must_convert(by_qemu[_i].options, from, to);
		ck_assert_msg(file_source_open(to, 0, &src, &err) == 0, "%s",
			      err.msg);
		r = luks_unlock(src, 0, src->bytes, (const uint8_t *)"of-quma",
				7, &info, &c, &err);
	}
	ck_assert_int_eq(r, -EACCES);
	error_clear(&err);
	ck_assert_msg(luks_unlock(src, 0, src->bytes,
				  (const uint8_t *)"of-qemu", 7, &info, &c,
				  &err) == 0,
		      "%s", err.msg);
	ck_assert_str_eq(info.cipher, by_qemu[_i].cipher);
	ck_assert_uint_eq(info.key_bytes, by_qemu[_i].key_bytes);
	ck_assert_uint_eq(info.slots, 1);
	ck_assert_uint_eq(info.payload_bytes_off + QEMU_PAYLOAD, src->bytes);
	ck_assert_int_eq(source_read(src, buf, sizeof(buf),
				     info.payload_bytes_off, &err),
			 0);
	ck_assert_mem_ne(buf, plain, sizeof(buf));
	ck_assert_int_eq(cipher_decrypt(c, 0, buf, sizeof(buf)), 0);
	ck_assert_mem_eq(buf, plain, sizeof(buf));
	cipher_free(c);
	source_unref(src);
}
END_TEST

#define LOOP(tc, test, rows) \
	tcase_add_loop_test(tc, test, 0, (int)ARRAY_SIZE(rows))

static Suite *make_suite(bool with_qemu)
{
	Suite *s = suite_create("luks-key");
	TCase *tc = tcase_create("headers");

	tcase_set_timeout(tc, 120);
	LOOP(tc, every_mode_and_hash_opens, volumes);
	tcase_add_test(tc, a_secret_is_any_bytes);
	tcase_add_test(tc, info_needs_no_key);
	tcase_add_loop_test(tc, a_wrong_secret_is_eacces, 0, 4);
	LOOP(tc, what_the_digest_does_not_confirm_is_no_key, spoilers);
	LOOP(tc, unlock_refuses_hostile_field, hostile);
	LOOP(tc, info_refuses_hostile_field, hostile);
	tcase_add_test(tc, a_disabled_slot_is_not_looked_at);
	tcase_add_test(tc, key_material_may_end_where_the_header_does);
	LOOP(tc, a_range_without_a_header_is_damage, ranges);
	tcase_add_test(tc, a_secret_has_a_maximum);
	tcase_add_test(tc, a_slot_over_the_limit_does_not_hide_a_cheap_one);
	tcase_add_test(tc, the_work_of_all_slots_together_is_limited);
	suite_add_tcase(s, tc);

	if (!with_qemu)
		return s;
	tc = tcase_create("qemu-img");
	tcase_set_timeout(tc, 120);
	tcase_add_unchecked_fixture(tc, make_dir, remove_dir);
	LOOP(tc, a_volume_of_qemu_img_opens, by_qemu);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	bool with_qemu = have_qemu_img();
	SRunner *sr = srunner_create(make_suite(with_qemu));
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	if (failed)
		return EXIT_FAILURE;
	if (!with_qemu) {
		fprintf(stderr, "skipped: the volumes of qemu-img, "
				"which is not there\n");
		return 77;
	}
	return EXIT_SUCCESS;
}
