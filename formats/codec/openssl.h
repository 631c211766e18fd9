/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * OpenSSL's libcrypto, loaded when the first encrypted image is opened, or by the
 * image service.
 */
#ifndef FORMATS_CODEC_OPENSSL_H
#define FORMATS_CODEC_OPENSSL_H

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "iouring/error.h"

/* The functions that are used; openssl.c looks each of them up. */
struct openssl_api {
	__typeof__(BIO_free) *BIO_free;
	__typeof__(BIO_new_mem_buf) *BIO_new_mem_buf;
	__typeof__(CRYPTO_memcmp) *CRYPTO_memcmp;
	__typeof__(ERR_clear_error) *ERR_clear_error;
	__typeof__(ERR_pop_to_mark) *ERR_pop_to_mark;
	__typeof__(ERR_set_mark) *ERR_set_mark;
	__typeof__(EVP_CIPHER_CTX_free) *EVP_CIPHER_CTX_free;
	__typeof__(EVP_CIPHER_CTX_new) *EVP_CIPHER_CTX_new;
	__typeof__(EVP_CIPHER_CTX_set_padding) *EVP_CIPHER_CTX_set_padding;
	__typeof__(EVP_CIPHER_fetch) *EVP_CIPHER_fetch;
	__typeof__(EVP_CIPHER_free) *EVP_CIPHER_free;
	__typeof__(EVP_CipherInit_ex2) *EVP_CipherInit_ex2;
	__typeof__(EVP_CipherUpdate) *EVP_CipherUpdate;
	__typeof__(EVP_DecodeBlock) *EVP_DecodeBlock;
	__typeof__(EVP_Digest) *EVP_Digest;
	__typeof__(EVP_DigestFinal_ex) *EVP_DigestFinal_ex;
	__typeof__(EVP_DigestInit_ex2) *EVP_DigestInit_ex2;
	__typeof__(EVP_DigestUpdate) *EVP_DigestUpdate;
	__typeof__(EVP_DigestVerifyFinal) *EVP_DigestVerifyFinal;
	__typeof__(EVP_DigestVerifyInit_ex) *EVP_DigestVerifyInit_ex;
	__typeof__(EVP_DigestVerifyUpdate) *EVP_DigestVerifyUpdate;
	__typeof__(EVP_MD_CTX_free) *EVP_MD_CTX_free;
	__typeof__(EVP_MD_CTX_new) *EVP_MD_CTX_new;
	__typeof__(EVP_MD_fetch) *EVP_MD_fetch;
	__typeof__(EVP_MD_free) *EVP_MD_free;
	__typeof__(EVP_MD_get_size) *EVP_MD_get_size;
	__typeof__(EVP_PKEY_CTX_set_rsa_padding) *EVP_PKEY_CTX_set_rsa_padding;
	__typeof__(EVP_PKEY_CTX_set_rsa_pss_saltlen)
		*EVP_PKEY_CTX_set_rsa_pss_saltlen;
	__typeof__(EVP_PKEY_get_group_name) *EVP_PKEY_get_group_name;
	__typeof__(EVP_PKEY_is_a) *EVP_PKEY_is_a;
	__typeof__(HMAC) *HMAC;
	__typeof__(OPENSSL_cleanse) *OPENSSL_cleanse;
	__typeof__(PEM_read_bio_X509) *PEM_read_bio_X509;
	__typeof__(PKCS5_PBKDF2_HMAC) *PKCS5_PBKDF2_HMAC;
	__typeof__(RAND_bytes) *RAND_bytes;
	__typeof__(X509_NAME_oneline) *X509_NAME_oneline;
	__typeof__(X509_cmp_current_time) *X509_cmp_current_time;
	__typeof__(X509_free) *X509_free;
	__typeof__(X509_get0_notAfter) *X509_get0_notAfter;
	__typeof__(X509_get0_notBefore) *X509_get0_notBefore;
	__typeof__(X509_get0_pubkey) *X509_get0_pubkey;
	__typeof__(X509_get_subject_name) *X509_get_subject_name;
	__typeof__(d2i_X509) *d2i_X509;
};

/* Only after openssl_load(). */
extern struct openssl_api openssl;

/* Returns 0, or -ENOTSUP when OpenSSL is not installed. Any thread. */
int openssl_load(struct error *err);

#endif
