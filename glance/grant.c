/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "formats/openssl.h"
#include "glance/grant.h"
#include "iouring/util.h"
#include "iouring/write.h"

#define MAC_BYTES 32U

/* ---- the key ---- */

static int fail(const char *path, struct error *err)
{
	return error_set(err, -errno, 0, "%s: %s", path, errno_text(errno));
}

static int read_key(const char *path, struct grant_key *ret, struct error *err)
{
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? -ENOENT : fail(path, err);
	n = read(fd, ret->bytes, sizeof(ret->bytes));
	if (n < 0)
		return fail(path, err);
	if (n != sizeof(ret->bytes))
		return error_set(err, -EBADMSG, 0,
				 "%s: has %zd bytes, a key has %zu: remove it, "
				 "and grants end",
				 path, n, sizeof(ret->bytes));
	return 0;
}

/* Whole or not at all: of two servers that begin at once one's is kept. */
static int make_key(const char *path, struct error *err)
{
	CLEANUP(freep) char *temp = NULL;
	struct grant_key k;
	int fd = -1, r = 0;

	if (asprintf(&temp, "%s.XXXXXX", path) < 0) {
		temp = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (openssl.RAND_bytes(k.bytes, sizeof(k.bytes)) != 1)
		return error_set(err, -EIO, 0, "no random numbers");
	fd = mkostemp(temp, O_CLOEXEC); /* 0600 */
	if (fd < 0)
		return fail(temp, err);
	if (write(fd, k.bytes, sizeof(k.bytes)) != sizeof(k.bytes) ||
	    fsync(fd) < 0 || (link(temp, path) < 0 && errno != EEXIST))
		r = fail(path, err);
	openssl.OPENSSL_cleanse(&k, sizeof(k));
	close(fd);
	unlink(temp);
	return r < 0 ? r : sync_folder_of(path, err);
}

int grant_key_open(const char *path, struct grant_key *ret, struct error *err)
{
	int r = openssl_load(err);

	if (r >= 0)
		r = read_key(path, ret, err);
	if (r != -ENOENT)
		return r;
	r = make_key(path, err);
	return r < 0 ? r : read_key(path, ret, err);
}

/* ---- grants ---- */

static bool compute(const struct grant_key *k, const char *image, bool writable,
		    int64_t expires, uint8_t ret[MAC_BYTES])
{
	unsigned int len = MAC_BYTES;
	EVP_MD *md = openssl.EVP_MD_fetch(NULL, "SHA256", NULL);
	char text[128];
	bool ok;
	int n = snprintf(text, sizeof(text),
			 "platter grant 1\n%s\n%c\n%" PRId64, image,
			 writable ? 'w' : 'r', expires);

	ok = md && n > 0 && (size_t)n < sizeof(text) &&
	     openssl.HMAC(md, k->bytes, sizeof(k->bytes), (const uint8_t *)text,
			  (size_t)n, ret, &len);
	openssl.EVP_MD_free(md);
	return ok;
}

static int format(const struct grant_key *k, const char *image, bool writable,
		  int64_t expires, char ret[GRANT_TEXT_BYTES])
{
	uint8_t mac[MAC_BYTES];
	size_t at, i;

	if (expires < 0 || !compute(k, image, writable, expires, mac))
		return -EIO;
	at = (size_t)snprintf(ret, GRANT_TEXT_BYTES, "%c%" PRIx64 "-",
			      writable ? 'w' : 'r', (uint64_t)expires);
	for (i = 0; i < MAC_BYTES; i++, at += 2)
		snprintf(ret + at, GRANT_TEXT_BYTES - at, "%02x", mac[i]);
	return 0;
}

int grant_mint(const struct grant_key *k, const char *image, bool writable,
	       int64_t expires, char ret[GRANT_TEXT_BYTES], struct error *err)
{
	int r = format(k, image, writable, expires, ret);

	return r < 0 ? error_set(err, r, 0, "no grant can be made") : 0;
}

/* "rHEX-..." */
static bool parse(const char *text, bool *ret_writable, int64_t *ret_expires)
{
	size_t digits = 0;
	uint64_t v = 0;

	if (*text != 'r' && *text != 'w')
		return false;
	*ret_writable = *text++ == 'w';
	for (; isxdigit((unsigned char)*text); text++) {
		int c = tolower((unsigned char)*text);

		if (++digits > 15)
			return false;
		v = v << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
	}
	*ret_expires = (int64_t)v;
	return digits && *text == '-';
}

bool grant_holds(const struct grant_key *k, const char *text, const char *image,
		 bool writable, int64_t now)
{
	char wanted[GRANT_TEXT_BYTES];
	int64_t expires;
	bool may_write;
	size_t len;

	if (!parse(text, &may_write, &expires) ||
	    format(k, image, may_write, expires, wanted) < 0)
		return false;
	len = strlen(wanted);
	return strlen(text) == len &&
	       !openssl.CRYPTO_memcmp(text, wanted, len) && now <= expires &&
	       (may_write || !writable);
}
