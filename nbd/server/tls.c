/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/tls.h"

#include <errno.h>
#include <string.h>

#include "iouring/util.h"
#include "nbd/server/tls-inside.h"

/* The most that a record holds. */
#define RECORD_BYTES 16384U

struct tls_session {
	SSL *ssl;
	bool done; /* the handshake */
	bool broken; /* nothing more may be sent */
	bool kernel_sends;
	struct tls_peer peer;
};

struct tls_session *tls_session_new(struct tls_keys *k, int fd)
{
	struct tls_session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	tls_crypto.ERR_clear_error();
	s->peer.keys = k;
	s->ssl = tls_api.SSL_new(tls_keys_context(k));
	if (s->ssl && tls_api.SSL_set_fd(s->ssl, fd) == 1 &&
	    tls_api.SSL_set_ex_data(s->ssl, 0, &s->peer) == 1)
		return s;
	tls_session_free(s);
	return NULL;
}

void tls_session_free(struct tls_session *s)
{
	if (!s)
		return;
	tls_api.SSL_free(s->ssl);
	free(s);
}

void tls_session_end(struct tls_session *s)
{
	if (!s->done || s->broken)
		return;
	tls_crypto.ERR_clear_error();
	tls_api.SSL_shutdown(s->ssl);
}

static void name_subject(struct tls_session *s, X509 *certificate)
{
	BIO *text = tls_crypto.BIO_new(tls_crypto.BIO_s_mem());
	char *data = NULL;
	long n;

	if (!text)
		return;
	tls_crypto.X509_NAME_print_ex(
		text, tls_crypto.X509_get_subject_name(certificate), 0,
		XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB);
	n = tls_crypto.BIO_ctrl(text, BIO_CTRL_INFO, 0, (char *)&data);
	if (n > 0 && data) {
		CLEANUP(freep) char *name = strndup(data, (size_t)n);

		if (name)
			text_escape(s->peer.name, sizeof(s->peer.name), name);
	}
	tls_crypto.BIO_free(text);
}

static void handshake_done(struct tls_session *s)
{
	X509 *certificate = tls_api.SSL_get1_peer_certificate(s->ssl);

	s->done = true;
	s->kernel_sends =
		tls_crypto.BIO_ctrl(tls_api.SSL_get_wbio(s->ssl),
				    BIO_CTRL_GET_KTLS_SEND, 0, NULL) > 0;
	if (certificate)
		name_subject(s, certificate);
	tls_crypto.X509_free(certificate);
}

enum tls_step tls_handshake(struct tls_session *s, struct error *err)
{
	unsigned long code;
	int r;

	tls_crypto.ERR_clear_error();
	r = tls_api.SSL_accept(s->ssl);
	if (r == 1) {
		handshake_done(s);
		return TLS_DONE;
	}
	switch (tls_api.SSL_get_error(s->ssl, r)) {
	case SSL_ERROR_WANT_READ:
		return TLS_WANTS_READ;
	case SSL_ERROR_WANT_WRITE:
		return TLS_WANTS_WRITE;
	default:
		break;
	}
	s->broken = true;
	code = tls_crypto.ERR_peek_last_error();
	if (code)
		error_set(err, -EPROTO, 0, "TLS: %s", tls_reason());
	return TLS_FAILED;
}

const char *tls_peer(const struct tls_session *s)
{
	return s->peer.name;
}

/* A name that may have been cut could match what the whole does not. */
static bool is_whole(const char *name)
{
	return strlen(name) < TLS_PEER_BYTES - 8;
}

bool tls_may_open(const struct tls_session *s, const char *export)
{
	const struct tls_access *a = tls_keys_access(s->peer.keys);

	return !a || (is_whole(s->peer.name) &&
		      tls_access_permits(a, export, s->peer.name));
}

/* What @r, of reading or writing, means to who would call recv(2). */
static ssize_t result(struct tls_session *s, int r)
{
	switch (tls_api.SSL_get_error(s->ssl, r)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		errno = EAGAIN;
		return -1;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		break;
	}
	s->broken = true;
	errno = EPROTO;
	return -1;
}

ssize_t tls_recv(struct tls_session *s, void *buf, size_t n)
{
	int r;

	tls_crypto.ERR_clear_error();
	r = tls_api.SSL_read(s->ssl, buf, (int)min_size(n, INT32_MAX));
	return r > 0 ? r : result(s, r);
}

/* Bytes of @iov from @skip of the first on; one record of them at most. */
static size_t gather(const struct iovec *iov, size_t n, size_t skip,
		     uint8_t *ret)
{
	size_t got = 0, part;

	for (; n && got < RECORD_BYTES; n--, iov++) {
		part = min_size(iov->iov_len - skip, RECORD_BYTES - got);
		memcpy(ret + got, (const uint8_t *)iov->iov_base + skip, part);
		got += part;
		skip = 0;
	}
	return got;
}

/*
 * What was not sent must be sent first the next time: so it is, as answers are
 * sent in their order, and none is taken back.
 */
ssize_t tls_send(struct tls_session *s, const struct iovec *iov, size_t n)
{
	uint8_t record[RECORD_BYTES];
	size_t skip = 0, bytes;
	ssize_t total = 0;
	int r;

	while (n) {
		bytes = gather(iov, n, skip, record);
		tls_crypto.ERR_clear_error();
		r = tls_api.SSL_write(s->ssl, record, (int)bytes);
		if (r <= 0 && total)
			break; /* it says the same the next time */
		if (r <= 0 && !result(s, r))
			errno = EPROTO; /* he has ended, and is sent something */
		if (r <= 0)
			return -1;
		total += r;
		for (skip += (size_t)r; n && skip >= iov->iov_len; n--)
			skip -= iov++->iov_len;
	}
	return total;
}

bool tls_has_pending(struct tls_session *s)
{
	return tls_api.SSL_has_pending(s->ssl);
}

bool tls_kernel_sends(const struct tls_session *s)
{
	return s->kernel_sends;
}
