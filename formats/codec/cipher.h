/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sector ciphers of encrypted images: a key that is unlocked, and how the
 * initialisation vector of a sector is made.
 */
#ifndef FORMATS_CODEC_CIPHER_H
#define FORMATS_CODEC_CIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"

#define CIPHER_SECTOR_BYTES 512U

struct cipher;

enum cipher_mode { CIPHER_XTS, CIPHER_CBC, CIPHER_ECB };

enum cipher_iv {
	CIPHER_IV_NONE, /* ECB */
	CIPHER_IV_PLAIN, /* sector number, 32 bits, little endian */
	CIPHER_IV_PLAIN64, /* sector number, 64 bits, little endian */
	CIPHER_IV_ESSIV, /* sector number enciphered with the key's hash */
};

struct cipher_spec {
	const char *algorithm; /* "aes", "serpent", "twofish" */
	enum cipher_mode mode;
	enum cipher_iv iv;
	const char *essiv_hash; /* CIPHER_IV_ESSIV: OpenSSL's digest name */
};

/*
 * Makes a cipher for sectors. @key has @key_bytes bytes (16, 24, 32; XTS: 32
 * or 64), which are copied and wiped by cipher_free(). What the libraries do
 * not have is -ENOTSUP, a wrong length -EBADMSG.
 */
int cipher_new(const struct cipher_spec *spec, const uint8_t *key,
	       size_t key_bytes, struct cipher **ret, struct error *err);
void cipher_free(struct cipher *c); /* NULL is fine */
void cipher_freep(struct cipher **c);

/* Do both decipher alike, key and all? Either may be NULL: no cipher. */
bool cipher_same(const struct cipher *a, const struct cipher *b);

/*
 * Deciphers @len bytes (a multiple of CIPHER_SECTOR_BYTES) in place, the
 * first sector under the IV of @iv_sector, each next under the next. Any
 * number of threads at once. Returns 0, -ENOMEM, or -EIO when the library fails.
 */
int cipher_decrypt(struct cipher *c, uint64_t iv_sector, uint8_t *buf,
		   size_t len);

/* The same in the other direction: for tests and for writers. */
int cipher_encrypt(struct cipher *c, uint64_t iv_sector, uint8_t *buf,
		   size_t len);

#endif
