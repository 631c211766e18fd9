/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * formats/codec/cipher.c against published vectors: IEEE 1619 for XTS, NIST
 * SP 800-38A for CBC and ECB.
 */
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <check.h>
#include <openssl/evp.h>

#include "formats/codec/cipher.h"

#define SECTOR CIPHER_SECTOR_BYTES

static size_t unhex(const char *hex, uint8_t *ret)
{
	size_t n = strlen(hex) / 2, i;
	unsigned int byte;

	for (i = 0; i < n; i++) {
		ck_assert_int_eq(sscanf(hex + 2 * i, "%2x", &byte), 1);
		ret[i] = (uint8_t)byte;
	}
	return n;
}

static struct cipher *must_make(const struct cipher_spec *spec,
				const uint8_t *key, size_t key_bytes)
{
	struct cipher *c = NULL;
	struct error err = { 0 };

	ck_assert_msg(cipher_new(spec, key, key_bytes, &c, &err) == 0, "%s",
		      err.msg);
	return c;
}

static void fill(uint8_t *buf, size_t len, unsigned int seed)
{
	size_t i;

	for (i = 0; i < len; i++) {
		seed = seed * 1103515245 + 12345;
		buf[i] = (uint8_t)(seed >> 16);
	}
}

/* IEEE Std 1619-2007, B.1; the second one's plaintext is the first's text. */
static const char xts_vector_4[] =
	"27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
	"c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412"
	"328063fd2aab53e5ea1e0a9f332500a5df9487d07a5c92cc512c8866c7e860ce"
	"93fdf166a24912b422976146ae20ce846bb7dc9ba94a767aaef20c0d61ad0265"
	"5ea92dc4c4e41a8952c651d33174be51a10c421110e6d81588ede82103a252d8"
	"a750e8768defffed9122810aaeb99f9172af82b604dc4b8e51bcb08235a6f434"
	"1332e4ca60482a4ba1a03b3e65008fc5da76b70bf1690db4eae29c5f1badd03c"
	"5ccf2a55d705ddcd86d449511ceb7ec30bf12b1fa35b913f9f747a8afd1b130e"
	"94bff94effd01a91735ca1726acd0b197c4e5b03393697e126826fb6bbde8ecc"
	"1e08298516e2c9ed03ff3c1b7860f6de76d4cecd94c8119855ef5297ca67e9f3"
	"e7ff72b1e99785ca0a7e7720c5b36dc6d72cac9574c8cbbc2f801e23e56fd344"
	"b07f22154beba0f08ce8891e643ed995c94d9a69c9f1b5f499027a78572aeebd"
	"74d20cc39881c213ee770b1010e4bea718846977ae119f7a023ab58cca0ad752"
	"afe656bb3c17256a9f6e9bf19fdd5a38fc82bbe872c5539edb609ef4f79c203e"
	"bb140f2e583cb2ad15b4aa5b655016a8449277dbd477ef2c8d6c017db738b18d"
	"eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568";
static const char xts_vector_5[] =
	"264d3ca8512194fec312c8c9891f279fefdd608d0c027b60483a3fa811d65ee5"
	"9d52d9e40ec5672d81532b38b6b089ce951f0f9c35590b8b978d175213f329bb"
	"1c2fd30f2f7f30492a61a532a79f51d36f5e31a7c9a12c286082ff7d2394d18f"
	"783e1a8e72c722caaaa52d8f065657d2631fd25bfd8e5baad6e527d763517501"
	"c68c5edc3cdd55435c532d7125c8614deed9adaa3acade5888b87bef641c4c99"
	"4c8091b5bcd387f3963fb5bc37aa922fbfe3df4e5b915e6eb514717bdd2a7407"
	"9a5073f5c4bfd46adf7d282e7a393a52579d11a028da4d9cd9c77124f9648ee3"
	"83b1ac763930e7162a8d37f350b2f74b8472cf09902063c6b32e8c2d9290cefb"
	"d7346d1c779a0df50edcde4531da07b099c638e83a755944df2aef1aa31752fd"
	"323dcb710fb4bfbb9d22b925bc3577e1b8949e729a90bbafeacf7f7879e7b114"
	"7e28ba0bae940db795a61b15ecf4df8db07b824bb062802cc98a9545bb2aaeed"
	"77cb3fc6db15dcd7d80d7d5bc406c4970a3478ada8899b329198eb61c193fb62"
	"75aa8ca340344a75a862aebe92eee1ce032fd950b47d7704a3876923b4ad6284"
	"4bf4a09c4dbe8b4397184b7471360c9564880aedddb9baa4af2e75394b08cd32"
	"ff479c57a07d3eab5d54de5f9738b8d27f27a9f0ab11799d7b7ffefb2704c95c"
	"6ad12c39f1e867a4b7b1d7818a4b753dfd2a89ccb45e001a03a867b187f225dd";
static const char xts_vector_10[] =
	"1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
	"5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"
	"5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0"
	"c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca"
	"2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0"
	"b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f"
	"93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec"
	"583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a"
	"84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1"
	"505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae"
	"9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29"
	"a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac"
	"6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f"
	"645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385"
	"1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa"
	"773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151";

static const char xts_key_256[] =
	"2718281828459045235360287471352631415926535897932384626433832795";
static const char xts_key_512[] =
	"2718281828459045235360287471352662497757247093699959574966967627"
	"3141592653589793238462643383279502884197169399375105820974944592";

static const struct {
	const char *key;
	uint64_t sector;
	const char *plain; /* NULL: the bytes 0 to 255, twice */
	const char *text;
} xts_vectors[] = {
	{ xts_key_256, 0, NULL, xts_vector_4 },
	{ xts_key_256, 1, xts_vector_4, xts_vector_5 },
	{ xts_key_512, 0xff, NULL, xts_vector_10 },
};

START_TEST(xts_gives_the_vectors_of_ieee_1619)
{
	const struct cipher_spec spec = { "aes", CIPHER_XTS, CIPHER_IV_PLAIN64,
					  NULL };
	uint8_t key[64], plain[SECTOR], text[SECTOR], buf[SECTOR];
	struct cipher *c;
	size_t n, i;

	n = unhex(xts_vectors[_i].key, key);
	for (i = 0; i < SECTOR; i++)
		plain[i] = (uint8_t)i;
	if (xts_vectors[_i].plain)
		ck_assert_uint_eq(unhex(xts_vectors[_i].plain, plain), SECTOR);
	ck_assert_uint_eq(unhex(xts_vectors[_i].text, text), SECTOR);

	c = must_make(&spec, key, n);
	memset(key, 0, sizeof(key)); /* c has its own copy */
	memcpy(buf, text, SECTOR);
	ck_assert_int_eq(cipher_decrypt(c, xts_vectors[_i].sector, buf, SECTOR),
			 0);
	ck_assert_mem_eq(buf, plain, SECTOR);
	ck_assert_int_eq(cipher_encrypt(c, xts_vectors[_i].sector, buf, SECTOR),
			 0);
	ck_assert_mem_eq(buf, text, SECTOR);
	cipher_free(c);
}
END_TEST

/* NIST SP 800-38A, appendix F: four blocks. */
#define NIST_BYTES 64
static const char nist_plain[] =
	"6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
	"30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";
static const char nist_iv[] = "000102030405060708090a0b0c0d0e0f";

static const struct {
	enum cipher_mode mode;
	enum cipher_iv iv;
	const char *key;
	const char *text;
} nist_vectors[] = {
	{ CIPHER_CBC, CIPHER_IV_PLAIN64, "2b7e151628aed2a6abf7158809cf4f3c",
	  "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
	  "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7" },
	{ CIPHER_CBC, CIPHER_IV_PLAIN64,
	  "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
	  "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a"
	  "571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd" },
	{ CIPHER_CBC, CIPHER_IV_PLAIN,
	  "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
	  "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
	  "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b" },
	{ CIPHER_ECB, CIPHER_IV_NONE, "2b7e151628aed2a6abf7158809cf4f3c",
	  "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf"
	  "43b1cd7f598ece23881b00e3ed0306887b0c785e27e8ad3f8223207104725dd4" },
	{ CIPHER_ECB, CIPHER_IV_NONE,
	  "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
	  "bd334f1d6e45f25ff712a214571fa5cc974104846d0ad3ad7734ecb3ecee4eef"
	  "ef7afd2270e2e60adce0ba2face6444e9a4b41ba738d6c72fb16691603c18e0e" },
	{ CIPHER_ECB, CIPHER_IV_NONE,
	  "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
	  "f3eed1bdb5d2a03c064b5a7e3db181f8591ccb10d410ed26dc5ba74a31362870"
	  "b6ed21b99ca6f4f9f153e7b1beafed1d23304b7a39f9f3ff067d8d8f9e24ecc7" },
};

/*
 * The vectors' IV is no sector number. Its difference to one goes into the
 * first block, which CBC adds the IV to.
 */
START_TEST(cbc_and_ecb_give_the_vectors_of_sp_800_38a)
{
	const struct cipher_spec spec = { "aes", nist_vectors[_i].mode,
					  nist_vectors[_i].iv, NULL };
	uint8_t key[32], iv[16], text[NIST_BYTES], plain[SECTOR] = { 0 };
	const uint64_t sector = 0x12345678;
	uint8_t buf[SECTOR];
	struct cipher *c;
	size_t n, i;

	n = unhex(nist_vectors[_i].key, key);
	ck_assert_uint_eq(unhex(nist_plain, plain), NIST_BYTES);
	ck_assert_uint_eq(unhex(nist_vectors[_i].text, text), NIST_BYTES);
	unhex(nist_iv, iv);
	if (spec.mode == CIPHER_CBC) {
		uint64_t le = htole64(sector);

		for (i = 0; i < sizeof(le); i++)
			plain[i] ^= ((uint8_t *)&le)[i];
		for (i = 0; i < sizeof(iv); i++)
			plain[i] ^= iv[i];
	}
	c = must_make(&spec, key, n);
	memcpy(buf, plain, SECTOR);
	ck_assert_int_eq(cipher_encrypt(c, sector, buf, SECTOR), 0);
	ck_assert_mem_eq(buf, text, NIST_BYTES);
	ck_assert_int_eq(cipher_decrypt(c, sector, buf, SECTOR), 0);
	ck_assert_mem_eq(buf, plain, SECTOR);
	cipher_free(c);
}
END_TEST

static void aes_block(const EVP_CIPHER *evp, const uint8_t *key,
		      uint8_t block[16])
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n;

	ck_assert_int_eq(EVP_EncryptInit_ex2(ctx, evp, key, NULL, NULL), 1);
	ck_assert_int_eq(EVP_EncryptUpdate(ctx, block, &n, block, 16), 1);
	EVP_CIPHER_CTX_free(ctx);
}

static const struct {
	const char *hash;
	size_t key_bytes;
} essiv_cases[] = {
	{ "SHA256", 16 },
	{ "SHA256", 32 },
	{ "MD5", 32 },
};

/* CBC and ESSIV by hand, block by block. */
START_TEST(essiv_keys_the_iv_with_the_hash_of_the_key)
{
	const struct cipher_spec spec = { "aes", CIPHER_CBC, CIPHER_IV_ESSIV,
					  essiv_cases[_i].hash };
	size_t key_bytes = essiv_cases[_i].key_bytes, i, b;
	const uint64_t sector = 0x1122334455667788;
	uint8_t key[32], salt[64], iv[16] = { 0 };
	uint8_t plain[SECTOR], want[SECTOR];
	uint64_t le = htole64(sector);
	unsigned int salt_bytes;
	struct cipher *c;

	fill(key, sizeof(key), 1);
	fill(plain, sizeof(plain), 2);
	ck_assert_int_eq(EVP_Digest(key, key_bytes, salt, &salt_bytes,
				    EVP_get_digestbyname(spec.essiv_hash),
				    NULL),
			 1);
	memcpy(iv, &le, sizeof(le));
	aes_block(salt_bytes == 16 ? EVP_aes_128_ecb() : EVP_aes_256_ecb(),
		  salt, iv);
	for (b = 0; b < SECTOR; b += 16) {
		for (i = 0; i < 16; i++)
			iv[i] ^= plain[b + i];
		aes_block(key_bytes == 16 ? EVP_aes_128_ecb()
					  : EVP_aes_256_ecb(),
			  key, iv);
		memcpy(want + b, iv, 16);
	}
	c = must_make(&spec, key, key_bytes);
	ck_assert_int_eq(cipher_decrypt(c, sector, want, SECTOR), 0);
	ck_assert_mem_eq(want, plain, SECTOR);
	cipher_free(c);
}
END_TEST

static const struct {
	struct cipher_spec spec;
	size_t key_bytes;
} kinds[] = {
	{ { "aes", CIPHER_XTS, CIPHER_IV_PLAIN64, NULL }, 64 },
	{ { "aes", CIPHER_XTS, CIPHER_IV_PLAIN, NULL }, 32 },
	{ { "aes", CIPHER_CBC, CIPHER_IV_ESSIV, "SHA256" }, 32 },
	{ { "aes", CIPHER_CBC, CIPHER_IV_PLAIN64, NULL }, 24 },
	{ { "aes", CIPHER_CBC, CIPHER_IV_PLAIN, NULL }, 16 },
	{ { "aes", CIPHER_ECB, CIPHER_IV_NONE, NULL }, 32 },
	{ { "serpent", CIPHER_XTS, CIPHER_IV_PLAIN64, NULL }, 64 },
	{ { "serpent", CIPHER_CBC, CIPHER_IV_ESSIV, "SHA256" }, 24 },
	{ { "twofish", CIPHER_XTS, CIPHER_IV_PLAIN, NULL }, 32 },
	{ { "twofish", CIPHER_CBC, CIPHER_IV_ESSIV, "SHA256" }, 32 },
	{ { "twofish", CIPHER_ECB, CIPHER_IV_NONE, NULL }, 16 },
};

#define RUN (9 * SECTOR)

START_TEST(many_sectors_at_once_are_each_sector_alone)
{
	uint8_t key[64], plain[RUN], run[RUN], one[RUN];
	const uint64_t first = 0xfffffffcULL; /* passes 2^32 */
	struct cipher *c;
	size_t i;

	fill(key, sizeof(key), 3);
	fill(plain, sizeof(plain), 4);
	c = must_make(&kinds[_i].spec, key, kinds[_i].key_bytes);
	memcpy(run, plain, RUN);
	memcpy(one, plain, RUN);
	ck_assert_int_eq(cipher_encrypt(c, first, run, RUN), 0);
	ck_assert_mem_ne(run, plain, RUN);
	for (i = 0; i < RUN / SECTOR; i++)
		ck_assert_int_eq(
			cipher_encrypt(c, first + i, one + i * SECTOR, SECTOR),
			0);
	ck_assert_mem_eq(run, one, RUN);
	ck_assert_int_eq(cipher_decrypt(c, first, run, RUN), 0);
	ck_assert_mem_eq(run, plain, RUN);
	ck_assert_int_eq(cipher_decrypt(c, first, run, 0), 0);
	ck_assert_int_eq(cipher_decrypt(c, first, run, SECTOR - 1), -EINVAL);
	cipher_free(c);
}
END_TEST

START_TEST(ciphers_are_the_same_when_all_of_them_is)
{
	uint8_t key[64];
	struct cipher *a, *b;
	size_t i;

	fill(key, sizeof(key), 3);
	a = must_make(&kinds[_i].spec, key, kinds[_i].key_bytes);
	ck_assert(!cipher_same(a, NULL) && !cipher_same(NULL, a));
	ck_assert(cipher_same(a, a) && cipher_same(NULL, NULL));
	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		b = must_make(&kinds[i].spec, key, kinds[i].key_bytes);
		ck_assert_int_eq(cipher_same(a, b), i == (size_t)_i);
		cipher_free(b);
	}
	key[kinds[_i].key_bytes - 1] ^= 1;
	b = must_make(&kinds[_i].spec, key, kinds[_i].key_bytes);
	ck_assert(!cipher_same(a, b));
	cipher_free(a);
	cipher_free(b);
}
END_TEST

/* 32 bits of plain are those of plain64 only below 2^32. */
START_TEST(plain_counts_32_bits_and_plain64_all)
{
	uint8_t key[32], low[SECTOR], high[SECTOR], high64[SECTOR];
	struct cipher_spec spec = { "aes", CIPHER_XTS, CIPHER_IV_PLAIN, NULL };
	struct cipher *c;

	fill(key, sizeof(key), 5);
	fill(low, SECTOR, 6);
	memcpy(high, low, SECTOR);
	memcpy(high64, low, SECTOR);
	c = must_make(&spec, key, sizeof(key));
	ck_assert_int_eq(cipher_decrypt(c, 7, low, SECTOR), 0);
	ck_assert_int_eq(cipher_decrypt(c, 0x100000007, high, SECTOR), 0);
	cipher_free(c);
	ck_assert_mem_eq(low, high, SECTOR);

	spec.iv = CIPHER_IV_PLAIN64;
	c = must_make(&spec, key, sizeof(key));
	ck_assert_int_eq(cipher_decrypt(c, 0x100000007, high64, SECTOR), 0);
	cipher_free(c);
	ck_assert_mem_ne(low, high64, SECTOR);
}
END_TEST

#define N_THREADS 8

struct job {
	struct cipher *c;
	const uint8_t *text, *plain;
	int bad;
};

static void *decrypt_often(void *opaque)
{
	struct job *j = opaque;
	uint8_t buf[RUN];
	size_t at;
	int i;

	for (i = 0; i < 400; i++) {
		at = (size_t)i % (RUN / SECTOR) * SECTOR;
		memcpy(buf, j->text, RUN);
		if (cipher_decrypt(j->c, 100 + at / SECTOR, buf + at,
				   RUN - at) < 0 ||
		    memcmp(buf + at, j->plain + at, RUN - at) != 0)
			j->bad++;
		if (cipher_encrypt(j->c, 100 + at / SECTOR, buf + at,
				   RUN - at) < 0 ||
		    memcmp(buf, j->text, RUN) != 0)
			j->bad++;
	}
	return NULL;
}

START_TEST(many_threads_share_a_cipher)
{
	uint8_t key[64], plain[RUN], text[RUN];
	struct job jobs[N_THREADS];
	pthread_t threads[N_THREADS];
	struct cipher *c;
	int i;

	fill(key, sizeof(key), 7);
	fill(plain, RUN, 8);
	memcpy(text, plain, RUN);
	c = must_make(&kinds[_i].spec, key, kinds[_i].key_bytes);
	ck_assert_int_eq(cipher_encrypt(c, 100, text, RUN), 0);
	for (i = 0; i < N_THREADS; i++) {
		jobs[i] = (struct job){ c, text, plain, 0 };
		ck_assert_int_eq(pthread_create(&threads[i], NULL,
						decrypt_often, &jobs[i]),
				 0);
	}
	for (i = 0; i < N_THREADS; i++) {
		pthread_join(threads[i], NULL);
		ck_assert_int_eq(jobs[i].bad, 0);
	}
	cipher_free(c);
}
END_TEST

static const struct {
	struct cipher_spec spec;
	size_t key_bytes;
	int code;
	const char *names; /* what the message must say */
} refused[] = {
	{ { "camellia", CIPHER_XTS, CIPHER_IV_PLAIN64, NULL },
	  64,
	  -ENOTSUP,
	  "camellia is not supported (aes, serpent and twofish are)" },
	{ { "twofish", CIPHER_CBC, CIPHER_IV_PLAIN64, NULL },
	  24,
	  -ENOTSUP,
	  "twofish with a key of 24 bytes" },
	{ { "serpent", CIPHER_XTS, CIPHER_IV_PLAIN64, NULL },
	  48,
	  -EBADMSG,
	  "serpent: a key of 48 bytes" },
	{ { "aes", CIPHER_XTS, CIPHER_IV_PLAIN64, NULL }, 0, -EBADMSG, "0" },
	{ { "aes", CIPHER_XTS, CIPHER_IV_PLAIN64, NULL }, 16, -EBADMSG, "16" },
	{ { "aes", CIPHER_XTS, CIPHER_IV_PLAIN64, NULL }, 33, -EBADMSG, "33" },
	{ { "aes", CIPHER_XTS, CIPHER_IV_PLAIN64, NULL }, 48, -EBADMSG, "48" },
	{ { "aes", CIPHER_CBC, CIPHER_IV_PLAIN64, NULL }, 64, -EBADMSG, "64" },
	{ { "aes", CIPHER_CBC, CIPHER_IV_PLAIN64, NULL }, 17, -EBADMSG, "17" },
	{ { "aes", CIPHER_ECB, CIPHER_IV_NONE, NULL }, 15, -EBADMSG, "15" },
	{ { "aes", CIPHER_ECB, CIPHER_IV_PLAIN, NULL }, 16, -EINVAL, "mode" },
	{ { "aes", CIPHER_CBC, CIPHER_IV_NONE, NULL }, 16, -EINVAL, "mode" },
	{ { "aes", CIPHER_CBC, CIPHER_IV_ESSIV, NULL }, 16, -EINVAL, "IV" },
	{ { "aes", CIPHER_CBC, CIPHER_IV_PLAIN, "SHA256" }, 16, -EINVAL, "IV" },
	{ { "aes", CIPHER_CBC, CIPHER_IV_ESSIV, "SHA1" },
	  16,
	  -ENOTSUP,
	  "SHA1" },
	{ { "aes", CIPHER_CBC, CIPHER_IV_ESSIV, "SHA512" },
	  16,
	  -ENOTSUP,
	  "SHA512" },
	{ { "aes", CIPHER_CBC, CIPHER_IV_ESSIV, "tiger" },
	  16,
	  -ENOTSUP,
	  "tiger" },
};

START_TEST(what_does_not_fit_is_refused_by_name)
{
	struct cipher *c = NULL;
	struct error err = { 0 };
	uint8_t key[64];

	fill(key, sizeof(key), 9);
	ck_assert_int_eq(cipher_new(&refused[_i].spec, key,
				    refused[_i].key_bytes, &c, &err),
			 refused[_i].code);
	ck_assert_ptr_null(c);
	ck_assert_msg(strstr(err.msg, refused[_i].names) != NULL, "%s",
		      err.msg);
}
END_TEST

#define LOOP(tc, test, rows) \
	tcase_add_loop_test(tc, test, 0, (int)ARRAY_SIZE(rows))

int main(void)
{
	Suite *s = suite_create("cipher");
	TCase *tc = tcase_create("cipher");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	LOOP(tc, xts_gives_the_vectors_of_ieee_1619, xts_vectors);
	LOOP(tc, cbc_and_ecb_give_the_vectors_of_sp_800_38a, nist_vectors);
	LOOP(tc, essiv_keys_the_iv_with_the_hash_of_the_key, essiv_cases);
	LOOP(tc, many_sectors_at_once_are_each_sector_alone, kinds);
	LOOP(tc, ciphers_are_the_same_when_all_of_them_is, kinds);
	tcase_add_test(tc, plain_counts_32_bits_and_plain64_all);
	LOOP(tc, many_threads_share_a_cipher, kinds);
	LOOP(tc, what_does_not_fit_is_refused_by_name, refused);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
