/* SPDX-License-Identifier: BSD-3-Clause */
/* OpenSSL's libssl, loaded when TLS is wanted (iouring/library.h). */
#ifndef NBD_SERVER_TLS_LIBRARY_H
#define NBD_SERVER_TLS_LIBRARY_H

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "iouring/error.h"

#define TLS_FN(name) __typeof__(name) *name

struct tls_api {
	TLS_FN(SSL_CTX_check_private_key);
	TLS_FN(SSL_CTX_ctrl);
	TLS_FN(SSL_CTX_free);
	TLS_FN(SSL_CTX_get_cert_store);
	TLS_FN(SSL_CTX_load_verify_file);
	TLS_FN(SSL_CTX_new);
	TLS_FN(SSL_CTX_set_cipher_list);
	TLS_FN(SSL_CTX_set_ciphersuites);
	TLS_FN(SSL_CTX_set_client_CA_list);
	TLS_FN(SSL_CTX_set_default_passwd_cb);
	TLS_FN(SSL_CTX_set_default_read_buffer_len);
	TLS_FN(SSL_CTX_set_num_tickets);
	TLS_FN(SSL_CTX_set_options);
	TLS_FN(SSL_CTX_set_psk_server_callback);
	TLS_FN(SSL_CTX_set_verify);
	TLS_FN(SSL_CTX_use_PrivateKey_file);
	TLS_FN(SSL_CTX_use_certificate_chain_file);
	TLS_FN(SSL_accept);
	TLS_FN(SSL_free);
	TLS_FN(SSL_get1_peer_certificate);
	TLS_FN(SSL_get_error);
	TLS_FN(SSL_get_ex_data);
	TLS_FN(SSL_get_wbio);
	TLS_FN(SSL_has_pending);
	TLS_FN(SSL_load_client_CA_file);
	TLS_FN(SSL_new);
	TLS_FN(SSL_read);
	TLS_FN(SSL_set_ex_data);
	TLS_FN(SSL_set_fd);
	TLS_FN(SSL_shutdown);
	TLS_FN(SSL_write);
	TLS_FN(TLS_server_method);
};

/* Of libcrypto. */
struct tls_crypto_api {
	TLS_FN(BIO_ctrl);
	TLS_FN(BIO_free);
	TLS_FN(BIO_new);
	TLS_FN(BIO_s_mem);
	TLS_FN(ERR_clear_error);
	TLS_FN(ERR_peek_last_error);
	TLS_FN(ERR_reason_error_string);
	TLS_FN(OPENSSL_cleanse);
	TLS_FN(X509_LOOKUP_file);
	TLS_FN(X509_NAME_print_ex);
	TLS_FN(X509_STORE_add_lookup);
	TLS_FN(X509_STORE_set_flags);
	TLS_FN(X509_free);
	TLS_FN(X509_get_subject_name);
	TLS_FN(X509_load_crl_file);
};

extern struct tls_api tls_api;
extern struct tls_crypto_api tls_crypto;

/* Once, before any of them is called. -ENOTSUP: it is not installed. */
int tls_library_load(struct error *err);

#endif
