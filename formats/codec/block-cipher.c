/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Refused: other ciphers, keys of 24 bytes in XTS (no standard defines that for
 * AES, and LUKS has it for none).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/codec/block-cipher.h"

static const struct {
	const char *name;
	int gcry[3]; /* with keys of 16, 24, 32 bytes; 0: OpenSSL has it */
} ciphers[] = {
	{ "aes", { 0 } },
	{ "serpent",
	  { GCRY_CIPHER_SERPENT128, GCRY_CIPHER_SERPENT192,
	    GCRY_CIPHER_SERPENT256 } },
	/* Twofish with 192 bits libgcrypt does not have. */
	{ "twofish", { GCRY_CIPHER_TWOFISH128, -1, GCRY_CIPHER_TWOFISH } },
};

static const struct {
	const char *evp;
	int gcry;
} modes[] = {
	[CIPHER_XTS] = { "XTS", GCRY_CIPHER_MODE_XTS },
	[CIPHER_CBC] = { "CBC", GCRY_CIPHER_MODE_CBC },
	[CIPHER_ECB] = { "ECB", GCRY_CIPHER_MODE_ECB },
};

/* Of ciphers[]; its length: none. */
static size_t find_name(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ciphers); i++)
		if (!strcmp(name, ciphers[i].name))
			break;
	return i;
}

bool block_cipher_known(const char *algorithm)
{
	return find_name(algorithm) < ARRAY_SIZE(ciphers);
}

/* 0, 1, 2 for keys of 16, 24, 32 bytes; -1: no key has this length. */
static int key_index(enum cipher_mode mode, size_t key_bytes)
{
	bool xts = mode == CIPHER_XTS;

	/* An odd XTS key has no halves. */
	if (xts && key_bytes % 2)
		return -1;
	switch (xts ? key_bytes / 2 : key_bytes) {
	case 16:
		return 0;
	case 24:
		return xts ? -1 : 1;
	case 32:
		return 2;
	default:
		return -1;
	}
}

/* What OpenSSL notes of a failure is of no use later: others share the note. */
static int fetch_evp(int key, enum cipher_mode mode, struct block_cipher *ret,
		     struct error *err)
{
	char name[32];

	snprintf(name, sizeof(name), "AES-%d-%s", 128 + key * 64,
		 modes[mode].evp);
	openssl.ERR_set_mark();
	ret->evp = openssl.EVP_CIPHER_fetch(NULL, name, NULL);
	openssl.ERR_pop_to_mark();
	if (!ret->evp)
		return error_set(err, -ENOTSUP, 0,
				 "OpenSSL here does not have %s", name);
	return 0;
}

int block_cipher_find(const char *algorithm, enum cipher_mode mode,
		      size_t key_bytes, struct block_cipher *ret,
		      struct error *err)
{
	size_t i = find_name(algorithm);
	int key = key_index(mode, key_bytes);
	int r;

	if (i == ARRAY_SIZE(ciphers))
		return error_set(err, -ENOTSUP, 0,
				 "cipher %s is not supported (aes, serpent and "
				 "twofish are)",
				 algorithm);
	if (key < 0)
		return error_set(err, -EBADMSG, 0,
				 "%s: a key of %zu bytes; it must have %s",
				 algorithm, key_bytes,
				 mode == CIPHER_XTS ? "32 or 64"
						    : "16, 24 or 32");
	*ret = (struct block_cipher){ .algorithm = ciphers[i].gcry[key],
				      .mode = modes[mode].gcry,
				      .key_bytes = key_bytes };
	if (!ret->algorithm)
		return fetch_evp(key, mode, ret, err);
	if (ret->algorithm < 0)
		return error_set(err, -ENOTSUP, 0,
				 "%s with a key of %zu bytes is not supported",
				 algorithm, key_bytes);
	r = gcrypt_load(err);
	if (r < 0)
		error_prefix(err, "cipher %s", algorithm);
	return r;
}

void block_cipher_done(struct block_cipher *b)
{
	if (b->evp)
		openssl.EVP_CIPHER_free(b->evp);
	*b = (struct block_cipher){ 0 };
}

static int evp_init(struct schedule *s, const struct block_cipher *b,
		    const uint8_t *key)
{
	s->evp = openssl.EVP_CIPHER_CTX_new();
	if (!s->evp)
		return -ENOMEM;
	if (!openssl.EVP_CipherInit_ex2(s->evp, b->evp, key, NULL, s->encrypt,
					NULL) ||
	    !openssl.EVP_CIPHER_CTX_set_padding(s->evp, 0))
		return -EIO;
	return 0;
}

static int gcry_init(struct schedule *s, const struct block_cipher *b,
		     const uint8_t *key)
{
	if (gcrypt.cipher_open(&s->gcry, b->algorithm, b->mode, 0)) {
		s->gcry = NULL;
		return -ENOMEM;
	}
	return gcrypt.cipher_setkey(s->gcry, key, b->key_bytes) ? -EIO : 0;
}

int schedule_init(struct schedule *s, const struct block_cipher *b,
		  const uint8_t *key, bool encrypt)
{
	int r;

	*s = (struct schedule){ .encrypt = encrypt };
	r = b->evp ? evp_init(s, b, key) : gcry_init(s, b, key);
	if (r < 0)
		schedule_done(s);
	return r;
}

void schedule_done(struct schedule *s)
{
	if (s->evp)
		openssl.EVP_CIPHER_CTX_free(s->evp);
	if (s->gcry)
		gcrypt.cipher_close(s->gcry);
	*s = (struct schedule){ 0 };
}

static bool evp_crypt(struct schedule *s, const uint8_t *iv, uint8_t *buf,
		      size_t len)
{
	int bytes;

	if (iv && !openssl.EVP_CipherInit_ex2(s->evp, NULL, NULL, iv, -1, NULL))
		return false;
	return openssl.EVP_CipherUpdate(s->evp, buf, &bytes, buf, (int)len) &&
	       bytes == (int)len;
}

bool schedule_crypt(struct schedule *s, const uint8_t *iv, uint8_t *buf,
		    size_t len)
{
	if (s->evp)
		return evp_crypt(s, iv, buf, len);
	if (iv && gcrypt.cipher_setiv(s->gcry, iv, BLOCK_CIPHER_BYTES))
		return false;
	return !(s->encrypt ? gcrypt.cipher_encrypt : gcrypt.cipher_decrypt)(
		s->gcry, buf, len, NULL, 0);
}
