/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libgcrypt, loaded when the first image is opened that is enciphered with what
 * OpenSSL does not have.
 */
#ifndef FORMATS_CODEC_GCRYPT_LIB_H
#define FORMATS_CODEC_GCRYPT_LIB_H

#include <gcrypt.h>

#include "iouring/error.h"

/* The functions that are used; gcrypt-lib.c looks each of them up. */
struct gcrypt_api {
	__typeof__(gcry_check_version) *check_version;
	__typeof__(gcry_cipher_close) *cipher_close;
	__typeof__(gcry_cipher_decrypt) *cipher_decrypt;
	__typeof__(gcry_cipher_encrypt) *cipher_encrypt;
	__typeof__(gcry_cipher_open) *cipher_open;
	__typeof__(gcry_cipher_setiv) *cipher_setiv;
	__typeof__(gcry_cipher_setkey) *cipher_setkey;
	__typeof__(gcry_control) *control;
};

/* Only after gcrypt_load(). */
extern struct gcrypt_api gcrypt;

/* Returns 0, or -ENOTSUP when libgcrypt is not installed. Any thread. */
int gcrypt_load(struct error *err);

#endif
