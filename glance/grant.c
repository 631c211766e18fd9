/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "formats/codec/openssl.h"
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

static char *put_hex(char *at, const char *bytes, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++, at += 2)
		sprintf(at, "%02x", (uint8_t)bytes[i]);
	return at;
}

/* All but the HMAC; the end of it. */
static char *put_wish(char *at, const struct grant *g)
{
	*at++ = g->writable ? (g->admin ? 'W' : 'w') : (g->admin ? 'R' : 'r');
	at += sprintf(at, "%" PRIx64 "-", (uint64_t)g->expires);
	at = put_hex(at, g->project, strlen(g->project));
	*at++ = '-';
	at = put_hex(at, g->overlay, strlen(g->overlay));
	*at++ = '-';
	*at = '\0';
	return at;
}

static bool compute(const struct grant_key *k, const char *image,
		    const char *wish, uint8_t ret[MAC_BYTES])
{
	unsigned int len = MAC_BYTES;
	EVP_MD *md = openssl.EVP_MD_fetch(NULL, "SHA256", NULL);
	char text[GRANT_TEXT_BYTES + 128];
	bool ok;
	int n = snprintf(text, sizeof(text), "platter grant 2\n%s\n%s", image,
			 wish);

	ok = md && n > 0 && (size_t)n < sizeof(text) &&
	     openssl.HMAC(md, k->bytes, sizeof(k->bytes), (const uint8_t *)text,
			  (size_t)n, ret, &len);
	openssl.EVP_MD_free(md);
	return ok;
}

static int format(const struct grant_key *k, const char *image,
		  const struct grant *g, char ret[GRANT_TEXT_BYTES])
{
	uint8_t mac[MAC_BYTES];
	char *end;

	if (g->expires < 0)
		return -EINVAL;
	end = put_wish(ret, g);
	if (!compute(k, image, ret, mac))
		return -EIO;
	*put_hex(end, (const char *)mac, sizeof(mac)) = '\0';
	return 0;
}

int grant_mint(const struct grant_key *k, const char *image,
	       const struct grant *g, char ret[GRANT_TEXT_BYTES],
	       struct error *err)
{
	int r = format(k, image, g, ret);

	return r < 0 ? error_set(err, r, 0, "no grant can be made") : 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Hexadecimal bytes up to a '-', which is passed; none of them is 0. */
static bool take_hex(const char **text, char *ret, size_t max)
{
	const char *s = *text;
	size_t n = 0;

	for (; hex_digit(s[0]) >= 0 && hex_digit(s[1]) >= 0; s += 2) {
		if (n == max || !strncmp(s, "00", 2))
			return false;
		ret[n++] = (char)(hex_digit(s[0]) << 4 | hex_digit(s[1]));
	}
	ret[n] = '\0';
	*text = s + 1;
	return *s == '-';
}

static bool take_expiry(const char **text, int64_t *ret)
{
	const char *s = *text;
	uint64_t v = 0;

	for (; hex_digit(*s) >= 0 && s - *text < 15; s++)
		v = v << 4 | (uint64_t)hex_digit(*s);
	*ret = (int64_t)v;
	*text = s + 1;
	return *s == '-';
}

static bool parse(const char *text, struct grant *ret)
{
	if (!*text || !strchr("rRwW", *text))
		return false;
	ret->writable = strchr("wW", *text);
	ret->admin = strchr("RW", *text);
	text++;
	return take_expiry(&text, &ret->expires) &&
	       take_hex(&text, ret->project, GRANT_PROJECT_MAX) &&
	       take_hex(&text, ret->overlay, GRANT_OVERLAY_MAX);
}

bool grant_open(const struct grant_key *k, const char *text, const char *image,
		int64_t now, struct grant *ret)
{
	char wanted[GRANT_TEXT_BYTES];
	struct grant g = { 0 };
	size_t len;

	if (!parse(text, &g) || format(k, image, &g, wanted) < 0)
		return false;
	len = strlen(wanted);
	if (strlen(text) != len || openssl.CRYPTO_memcmp(text, wanted, len) ||
	    now > g.expires)
		return false;
	*ret = g;
	return true;
}

bool grant_covers(const struct grant *g, const char *overlay)
{
	return !overlay ||
	       (g->writable && (!strcmp(g->overlay, GRANT_ANY_OVERLAY) ||
				!strcmp(g->overlay, overlay)));
}
