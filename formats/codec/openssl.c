/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>

#include "formats/codec/openssl.h"
#include "iouring/library.h"

struct openssl_api openssl;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool loaded;

#define SYMBOL(name)                          \
	{                                     \
#name, (void **)&openssl.name \
	}

static const struct library_symbol symbols[] = {
	SYMBOL(BIO_free),
	SYMBOL(BIO_new_mem_buf),
	SYMBOL(CRYPTO_memcmp),
	SYMBOL(ERR_clear_error),
	SYMBOL(ERR_pop_to_mark),
	SYMBOL(ERR_set_mark),
	SYMBOL(EVP_CIPHER_CTX_free),
	SYMBOL(EVP_CIPHER_CTX_new),
	SYMBOL(EVP_CIPHER_CTX_set_padding),
	SYMBOL(EVP_CIPHER_fetch),
	SYMBOL(EVP_CIPHER_free),
	SYMBOL(EVP_CipherInit_ex2),
	SYMBOL(EVP_CipherUpdate),
	SYMBOL(EVP_DecodeBlock),
	SYMBOL(EVP_Digest),
	SYMBOL(EVP_DigestFinal_ex),
	SYMBOL(EVP_DigestInit_ex2),
	SYMBOL(EVP_DigestUpdate),
	SYMBOL(EVP_DigestVerifyFinal),
	SYMBOL(EVP_DigestVerifyInit_ex),
	SYMBOL(EVP_DigestVerifyUpdate),
	SYMBOL(EVP_MD_CTX_free),
	SYMBOL(EVP_MD_CTX_new),
	SYMBOL(EVP_MD_fetch),
	SYMBOL(EVP_MD_free),
	SYMBOL(EVP_MD_get_size),
	SYMBOL(EVP_PKEY_CTX_set_rsa_padding),
	SYMBOL(EVP_PKEY_CTX_set_rsa_pss_saltlen),
	SYMBOL(EVP_PKEY_get_group_name),
	SYMBOL(EVP_PKEY_is_a),
	SYMBOL(HMAC),
	SYMBOL(OPENSSL_cleanse),
	SYMBOL(PEM_read_bio_X509),
	SYMBOL(PKCS5_PBKDF2_HMAC),
	SYMBOL(RAND_bytes),
	SYMBOL(X509_NAME_oneline),
	SYMBOL(X509_cmp_current_time),
	SYMBOL(X509_free),
	SYMBOL(X509_get0_notAfter),
	SYMBOL(X509_get0_notBefore),
	SYMBOL(X509_get0_pubkey),
	SYMBOL(X509_get_subject_name),
	SYMBOL(d2i_X509),
};

_Static_assert(sizeof(openssl) == ARRAY_SIZE(symbols) * sizeof(void *),
	       "all are looked up");

static void load(void)
{
	loaded = library_load("libcrypto.so.3", symbols, ARRAY_SIZE(symbols));
}

int openssl_load(struct error *err)
{
	pthread_once(&once, load);
	if (!loaded)
		return error_set(err, -ENOTSUP, 0,
				 "OpenSSL 3 is needed, and not installed");
	return 0;
}
