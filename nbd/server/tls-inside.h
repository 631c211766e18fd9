/* SPDX-License-Identifier: BSD-3-Clause */
/* What tls.c and tls-keys.c share. */
#ifndef NBD_SERVER_TLS_INSIDE_H
#define NBD_SERVER_TLS_INSIDE_H

#include "nbd/server/tls-access.h"
#include "nbd/server/tls-library.h"
#include "nbd/server/tls.h"

#define TLS_PEER_BYTES 256U

/* What SSL_get_ex_data(ssl, 0) points to, in every session. */
struct tls_peer {
	const struct tls_keys *keys;
	char name[TLS_PEER_BYTES]; /* of who has proved it; escaped */
};

/* NULL: there are no rules. */
const struct tls_access *tls_keys_access(const struct tls_keys *k);

SSL_CTX *tls_keys_context(const struct tls_keys *k);

/* What OpenSSL says of this thread's last error. */
const char *tls_reason(void);

#endif
