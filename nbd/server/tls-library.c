/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/tls-library.h"

#include <errno.h>

#include "iouring/library.h"
#include "iouring/util.h"

struct tls_api tls_api;
struct tls_crypto_api tls_crypto;

#define SSL_SYMBOL(name)                      \
	{                                     \
#name, (void **)&tls_api.name \
	}
#define CRYPTO_SYMBOL(name)                      \
	{                                        \
#name, (void **)&tls_crypto.name \
	}

static const struct library_symbol ssl_symbols[] = {
	SSL_SYMBOL(SSL_CTX_check_private_key),
	SSL_SYMBOL(SSL_CTX_ctrl),
	SSL_SYMBOL(SSL_CTX_free),
	SSL_SYMBOL(SSL_CTX_get_cert_store),
	SSL_SYMBOL(SSL_CTX_load_verify_file),
	SSL_SYMBOL(SSL_CTX_new),
	SSL_SYMBOL(SSL_CTX_set_cipher_list),
	SSL_SYMBOL(SSL_CTX_set_ciphersuites),
	SSL_SYMBOL(SSL_CTX_set_client_CA_list),
	SSL_SYMBOL(SSL_CTX_set_default_passwd_cb),
	SSL_SYMBOL(SSL_CTX_set_default_read_buffer_len),
	SSL_SYMBOL(SSL_CTX_set_num_tickets),
	SSL_SYMBOL(SSL_CTX_set_options),
	SSL_SYMBOL(SSL_CTX_set_psk_server_callback),
	SSL_SYMBOL(SSL_CTX_set_verify),
	SSL_SYMBOL(SSL_CTX_use_PrivateKey_file),
	SSL_SYMBOL(SSL_CTX_use_certificate_chain_file),
	SSL_SYMBOL(SSL_accept),
	SSL_SYMBOL(SSL_free),
	SSL_SYMBOL(SSL_get1_peer_certificate),
	SSL_SYMBOL(SSL_get_error),
	SSL_SYMBOL(SSL_get_ex_data),
	SSL_SYMBOL(SSL_get_wbio),
	SSL_SYMBOL(SSL_has_pending),
	SSL_SYMBOL(SSL_load_client_CA_file),
	SSL_SYMBOL(SSL_new),
	SSL_SYMBOL(SSL_read),
	SSL_SYMBOL(SSL_set_ex_data),
	SSL_SYMBOL(SSL_set_fd),
	SSL_SYMBOL(SSL_shutdown),
	SSL_SYMBOL(SSL_write),
	SSL_SYMBOL(TLS_server_method),
};

static const struct library_symbol crypto_symbols[] = {
	CRYPTO_SYMBOL(BIO_ctrl),
	CRYPTO_SYMBOL(BIO_free),
	CRYPTO_SYMBOL(BIO_new),
	CRYPTO_SYMBOL(BIO_s_mem),
	CRYPTO_SYMBOL(ERR_clear_error),
	CRYPTO_SYMBOL(ERR_peek_last_error),
	CRYPTO_SYMBOL(ERR_reason_error_string),
	CRYPTO_SYMBOL(OPENSSL_cleanse),
	CRYPTO_SYMBOL(X509_LOOKUP_file),
	CRYPTO_SYMBOL(X509_NAME_print_ex),
	CRYPTO_SYMBOL(X509_STORE_add_lookup),
	CRYPTO_SYMBOL(X509_STORE_set_flags),
	CRYPTO_SYMBOL(X509_free),
	CRYPTO_SYMBOL(X509_get_subject_name),
	CRYPTO_SYMBOL(X509_load_crl_file),
};

_Static_assert(sizeof(tls_api) == ARRAY_SIZE(ssl_symbols) * sizeof(void *) &&
		       sizeof(tls_crypto) ==
			       ARRAY_SIZE(crypto_symbols) * sizeof(void *),
	       "all are looked up");

int tls_library_load(struct error *err)
{
	if (library_load("libssl.so.3", ssl_symbols, ARRAY_SIZE(ssl_symbols)) &&
	    library_load("libcrypto.so.3", crypto_symbols,
			 ARRAY_SIZE(crypto_symbols)))
		return 0;
	return error_set(err, -ENOTSUP, 0,
			 "TLS needs OpenSSL 3 (libssl), which is not "
			 "installed");
}
