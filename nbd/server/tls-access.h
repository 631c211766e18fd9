/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which exports who proved to be somebody by TLS may open. The file has lines
 *
 *	EXPORT PEER
 *
 * of two patterns (glob(7), where * and ? match "/", too): the export's name as a
 * client says it, without blanks, or "" for the default one; and, up to the line's
 * end, the certificate's subject or the key's identity as messages show them. An
 * empty line or one that begins with # says nothing. What no line permits is refused.
 */
#ifndef NBD_SERVER_TLS_ACCESS_H
#define NBD_SERVER_TLS_ACCESS_H

#include <stdbool.h>

#include "iouring/error.h"

struct tls_access;

/* Returns 0 or a negative errno; *ret is the caller's to free. */
int tls_access_read(const char *path, struct tls_access **ret,
		    struct error *err);
void tls_access_free(struct tls_access *a); /* NULL is fine */

/* Any thread. @peer "": nobody proved to be there, and may open nothing. */
bool tls_access_permits(const struct tls_access *a, const char *export,
			const char *peer);

#endif
