/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Block ciphers in a mode, of whichever library has them: AES of OpenSSL,
 * Serpent and Twofish of libgcrypt. All of them have blocks of 16 bytes and keys
 * of 16, 24 or 32.
 */
#ifndef FORMATS_CODEC_BLOCK_CIPHER_H
#define FORMATS_CODEC_BLOCK_CIPHER_H

#include "formats/codec/cipher.h"
#include "formats/codec/gcrypt-lib.h"
#include "formats/codec/openssl.h"

#define BLOCK_CIPHER_BYTES 16U

/* Shared by all threads once it was found. */
struct block_cipher {
	EVP_CIPHER *evp; /* NULL: libgcrypt's */
	int algorithm; /* libgcrypt's numbers */
	int mode;
	size_t key_bytes; /* XTS: of both keys */
};

/* Is there a cipher of this name at all? */
bool block_cipher_known(const char *algorithm);

/*
 * Finds @algorithm with a key of @key_bytes. What is not to be had is
 * -ENOTSUP, a wrong length -EBADMSG. After openssl_load().
 */
int block_cipher_find(const char *algorithm, enum cipher_mode mode,
		      size_t key_bytes, struct block_cipher *ret,
		      struct error *err);
void block_cipher_done(struct block_cipher *b); /* zeroed is fine */

/* A key made ready in one direction, for one thread at a time. */
struct schedule {
	EVP_CIPHER_CTX *evp;
	gcry_cipher_hd_t gcry;
	bool encrypt;
};

/* Returns 0, -ENOMEM, or -EIO when the library fails. */
int schedule_init(struct schedule *s, const struct block_cipher *b,
		  const uint8_t *key, bool encrypt);
void schedule_done(struct schedule *s); /* zeroed is fine */

/* In place. @iv: BLOCK_CIPHER_BYTES; NULL: the mode has none. */
bool schedule_crypt(struct schedule *s, const uint8_t *iv, uint8_t *buf,
		    size_t len);

#endif
