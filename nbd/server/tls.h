/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * TLS for a client: what send(2) and recv(2) are without. Versions 1.2 and 1.3,
 * ciphers with forward secrecy that authenticate what they encrypt. A session is
 * its client's, and used by one thread at a time; nothing here waits.
 */
#ifndef NBD_SERVER_TLS_H
#define NBD_SERVER_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "iouring/error.h"

/* As platter serve's options, and nbdkit's, of the same names. */
struct tls_options {
	bool offered, required; /* --tls on; require: both */
	const char *certificates; /* a folder; NULL: where nbdkit looks */
	const char *psk; /* a file; NULL: certificates */
	const char *access; /* a file, see tls-access.h; NULL: no rules */
	bool verify_peer;
};

/* Rules are of no use where somebody is let in who has shown nothing. */
#define TLS_ACCESS_NEEDS \
	"--tls-access needs --tls require, and --tls-verify-peer or --tls-psk"
bool tls_options_fit(const struct tls_options *o);

/* The server's keys. */
struct tls_keys;

/*
 * Reads them. *ret NULL, and 0: TLS is not offered. @say is handed what an
 * administrator should know.
 */
int tls_keys_read(const struct tls_options *o, void (*say)(const char *line),
		  struct tls_keys **ret, struct error *err);
void tls_keys_free(struct tls_keys *k); /* NULL is fine */

struct tls_session;

/* On @fd, which is the caller's and does not block. NULL: no memory. */
struct tls_session *tls_session_new(struct tls_keys *k, int fd);

/* NULL is fine. */
void tls_session_free(struct tls_session *s);

/* Tells the other end that nothing more comes, if the socket takes it now. */
void tls_session_end(struct tls_session *s);

enum tls_step {
	TLS_DONE,
	TLS_WANTS_READ, /* go on when the socket can be read */
	TLS_WANTS_WRITE, /* or written */
	TLS_FAILED,
};

/* Goes on with the handshake; any thread. @err: TLS_FAILED's reason, if any. */
enum tls_step tls_handshake(struct tls_session *s, struct error *err);

/*
 * Who proved to be at the other end: a certificate's subject (RFC 4514), or a
 * key's identity; "": nobody had to.
 */
const char *tls_peer(const struct tls_session *s);

/* Do the rules permit him to open @export? */
bool tls_may_open(const struct tls_session *s, const char *export);

/* As recv(2) and sendmsg(2), with EAGAIN; EPROTO: TLS was broken. */
ssize_t tls_recv(struct tls_session *s, void *buf, size_t n);
ssize_t tls_send(struct tls_session *s, const struct iovec *iov, size_t n);

/* Is something here that the socket does not tell of any more? */
bool tls_has_pending(struct tls_session *s);

/* The kernel encrypts: bytes are to be sent as without TLS. */
bool tls_kernel_sends(const struct tls_session *s);

#endif
