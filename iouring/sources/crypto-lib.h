/* SPDX-License-Identifier: BSD-3-Clause */
/* What remote sources use of libcrypto, loaded when it is first needed. */
#ifndef IOURING_SOURCES_CRYPTO_LIB_H
#define IOURING_SOURCES_CRYPTO_LIB_H

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

struct crypto_lib {
	__typeof__(SHA256) *sha256;
	__typeof__(HMAC) *hmac;
	__typeof__(EVP_sha256) *evp_sha256;
	__typeof__(EVP_get_digestbyname) *get_digestbyname;
	__typeof__(EVP_MD_CTX_new) *ctx_new;
	__typeof__(EVP_MD_CTX_free) *ctx_free;
	__typeof__(EVP_DigestInit_ex) *digest_init;
	__typeof__(EVP_DigestUpdate) *digest_update;
	__typeof__(EVP_DigestFinal_ex) *digest_final;
};

/* NULL: it is not installed. Any thread. */
const struct crypto_lib *crypto_lib_load(void);

#endif
