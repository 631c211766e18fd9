/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "formats/codec/openssl.h"
#include "formats/containers/manifest.h"
#include "formats/containers/package.h"
#include "iouring/util.h"

#define READ_BYTES     (1U << 20)
#define LINE_MAX_BYTES 8192U

static const struct algorithm {
	const char *name; /* as it is written, without '-' */
	const char *openssl;
	size_t bytes;
} algorithms[] = {
	{ "SHA1", "SHA1", 20 },
	{ "SHA256", "SHA256", 32 },
	{ "SHA384", "SHA384", 48 },
	{ "SHA512", "SHA512", 64 },
};

/* One line. */
struct line {
	const struct algorithm *algorithm;
	char name[MEMBER_NAME_MAX + 1];
	uint8_t value[4096]; /* a digest, or a signature */
	size_t value_bytes;
};

struct checking {
	const struct container *c;
	const struct member *manifest;
	struct manifest_report *report;
	uint8_t *buf; /* of READ_BYTES */
	uint64_t done_bytes;
};

static PRINTF(3, 4) void say(struct manifest_report *r, bool well,
			     const char *fmt, ...)
{
	char line[MEMBER_NAME_MAX + 256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	r->wrong += !well;
	r->say(r, well, line);
}

/* ---- lines ---- */

static const struct algorithm *find_algorithm(const char *s, size_t n)
{
	char tight[16];
	size_t used = 0, i;

	for (i = 0; i < n && used + 1 < sizeof(tight); i++)
		if (s[i] != '-' && s[i] != ' ')
			tight[used++] = s[i];
	tight[used] = '\0';
	for (i = 0; i < ARRAY_SIZE(algorithms); i++)
		if (!strcasecmp(tight, algorithms[i].name))
			return &algorithms[i];
	return NULL;
}

static int hex(char c)
{
	if (isdigit((unsigned char)c))
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Pairs of digits, all of @n. */
static bool take_hex(struct line *l, const char *s, size_t n)
{
	size_t i;

	memset(l->value, 0, sizeof(l->value));
	l->value_bytes = n / 2;
	if (!n || n % 2 || l->value_bytes > sizeof(l->value))
		return false;
	for (i = 0; i < n; i++) {
		if (hex(s[i]) < 0)
			return false;
		l->value[i / 2] = (uint8_t)(l->value[i / 2] << 4 | hex(s[i]));
	}
	return true;
}

/* "SHA256 (NAME) = HEX", without the line's end. */
static bool take_line(const char *s, size_t n, struct line *ret)
{
	const char *open = memchr(s, '(', n), *close = memrchr(s, ')', n);
	const char *equals =
		close ? memchr(close, '=', (size_t)(s + n - close)) : NULL;

	if (!open || !equals || close < open ||
	    (size_t)(close - open - 1) > MEMBER_NAME_MAX)
		return false;
	ret->algorithm = find_algorithm(s, (size_t)(open - s));
	memcpy(ret->name, open + 1, (size_t)(close - open - 1));
	ret->name[close - open - 1] = '\0';
	n -= (size_t)(equals + 1 - s);
	for (s = equals + 1; n && *s == ' '; s++)
		n--;
	return take_hex(ret, s, n);
}

/* Its end, and where the next one begins. */
static size_t line_bytes(const char *s, size_t n, size_t *ret_used)
{
	const char *end = memchr(s, '\n', n);
	size_t len = end ? (size_t)(end - s) : n;

	*ret_used = len + (end != NULL);
	while (len && isspace((unsigned char)s[len - 1]))
		len--;
	return len;
}

/* ---- digests ---- */

static int digest_source(struct checking *k, struct source *src, EVP_MD_CTX *md,
			 struct error *err)
{
	uint64_t off;
	size_t n;
	int r = 0;

	for (off = 0; off < src->bytes && r >= 0; off += n) {
		n = (size_t)min_u64(READ_BYTES, src->bytes - off);
		r = source_read(src, k->buf, n, off, err);
		if (r >= 0 && !openssl.EVP_DigestUpdate(md, k->buf, n))
			r = error_set(err, -EIO, 0, "OpenSSL has no digest");
		k->done_bytes += n;
		k->report->tell(k->report, k->done_bytes);
	}
	return r;
}

/* @ret: of @a's bytes. */
static int digest_member(struct checking *k, const struct member *m,
			 const struct algorithm *a, uint8_t *ret,
			 struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	EVP_MD *type = openssl.EVP_MD_fetch(NULL, a->openssl, NULL);
	EVP_MD_CTX *md = type ? openssl.EVP_MD_CTX_new() : NULL;
	int r = md && openssl.EVP_DigestInit_ex2(md, type, NULL)
			? 0
			: error_set(err, -ENOTSUP, 0, "OpenSSL has no %s",
				    a->openssl);

	if (r >= 0)
		r = container_open_member(k->c, m, &src, err);
	if (r >= 0)
		r = digest_source(k, src, md, err);
	if (r >= 0 && !openssl.EVP_DigestFinal_ex(md, ret, NULL))
		r = error_set(err, -EIO, 0, "OpenSSL has no digest");
	openssl.EVP_MD_CTX_free(md);
	openssl.EVP_MD_free(type);
	return r;
}

static void check_file(struct checking *k, const struct line *l,
		       const struct member *m)
{
	struct manifest_report *report = k->report;
	uint8_t digest[EVP_MAX_MD_SIZE];
	struct error err = { 0 };

	if (!l->algorithm || l->value_bytes != l->algorithm->bytes)
		say(report, false,
		    "%s: the manifest's digest is of no kind that is known",
		    l->name);
	else if (digest_member(k, m, l->algorithm, digest, &err) < 0)
		say(report, false, "%s: cannot be read: %s", l->name, err.msg);
	else if (memcmp(digest, l->value, l->value_bytes) != 0)
		say(report, false, "%s: its %s is not that of the manifest",
		    l->name, l->algorithm->openssl);
	else {
		report->files++;
		say(report, true, "%s: its %s is that of the manifest", l->name,
		    l->algorithm->openssl);
	}
}

static const struct member *named(const struct checking *k,
				  const struct line *l)
{
	return container_find_beside(k->c, k->manifest, l->name);
}

/* Calls check_file() of each line, or, with @count, sums the files' bytes. */
static void each_line(struct checking *k, const char *text, size_t n,
		      bool count)
{
	CLEANUP(freep) struct line *l = malloc(sizeof(*l));
	const struct member *m;
	size_t len, used;

	for (; l && n; text += used, n -= used) {
		len = line_bytes(text, n, &used);
		if (!len)
			continue;
		if (!take_line(text, len, l)) {
			if (!count)
				say(k->report, false,
				    "%s: a line is no digest of a file",
				    k->manifest->name);
			continue;
		}
		m = named(k, l);
		if (count)
			k->report->total_bytes += m ? m->bytes : 0;
		else if (m)
			check_file(k, l, m);
		else
			say(k->report, false, "%s: is not there", l->name);
	}
}

/* ---- the signature ---- */

static bool is_signed_by(const struct line *l, X509 *cert, const char *text,
			 size_t bytes)
{
	EVP_MD_CTX *md = openssl.EVP_MD_CTX_new();
	bool ok = md && l->algorithm &&
		  openssl.EVP_DigestVerifyInit_ex(
			  md, NULL, l->algorithm->openssl, NULL, NULL,
			  openssl.X509_get0_pubkey(cert), NULL) == 1 &&
		  openssl.EVP_DigestVerifyUpdate(md, text, bytes) == 1 &&
		  openssl.EVP_DigestVerifyFinal(md, l->value, l->value_bytes) ==
			  1;

	openssl.ERR_clear_error();
	openssl.EVP_MD_CTX_free(md);
	return ok;
}

static void check_certificate(struct checking *k, const char *name,
			      const struct line *l, X509 *cert,
			      const char *text, size_t bytes)
{
	char subject[512] = "", safe[1024];

	openssl.X509_NAME_oneline(openssl.X509_get_subject_name(cert), subject,
				  sizeof(subject));
	text_escape(safe, sizeof(safe), subject);
	if (!is_signed_by(l, cert, text, bytes))
		say(k->report, false,
		    "%s: its signature is not that of the manifest", name);
	else if (openssl.X509_cmp_current_time(
			 openssl.X509_get0_notAfter(cert)) <= 0)
		say(k->report, false,
		    "%s: the manifest is signed by %s, whose certificate has "
		    "expired",
		    name, safe);
	else
		say(k->report, true,
		    "%s: the manifest is signed by %s (who vouches for that "
		    "name is not looked at)",
		    name, safe);
}

/* @cert: the file; @text: the manifest. */
static void check_signature(struct checking *k, const char *name,
			    const char *cert, size_t cert_bytes,
			    const char *text, size_t bytes)
{
	CLEANUP(freep) struct line *l = calloc(1, sizeof(*l));
	BIO *bio = openssl.BIO_new_mem_buf(cert, (int)cert_bytes);
	X509 *x = bio ? openssl.PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	size_t used, len = line_bytes(cert, cert_bytes, &used);

	openssl.ERR_clear_error();
	openssl.BIO_free(bio);
	if (!l || !x || !take_line(cert, len, l))
		say(k->report, false, "%s: is no signature with a certificate",
		    name);
	else
		check_certificate(k, name, l, x, text, bytes);
	openssl.X509_free(x);
}

/* ---- all of it ---- */

/* To be freed. */
static int read_member(const struct container *c, const struct member *m,
		       char **ret, struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	char *text = NULL;
	int r = container_open_member(c, m, &src, err);

	if (r >= 0 && src->bytes > MANIFEST_BYTES_MAX)
		r = error_set(err, -EFBIG, 0,
			      "%" PRIu64 " bytes are over the limit of %u",
			      src->bytes, MANIFEST_BYTES_MAX);
	if (r >= 0)
		text = malloc((size_t)src->bytes + 1);
	if (r >= 0 && !text)
		r = error_set(err, -ENOMEM, 0, "out of memory");
	if (r >= 0)
		r = source_read(src, text, (size_t)src->bytes, 0, err);
	if (r < 0) {
		error_prefix(err, "%s", m->name);
		free(text);
		return r;
	}
	*ret = text;
	return 0;
}

int manifest_check(const struct container *c, struct manifest_report *report,
		   struct error *err)
{
	struct checking k = { .c = c, .report = report };
	const struct member *cert = package_file(c, ".cert");
	CLEANUP(freep) uint8_t *buf = malloc(READ_BYTES);
	CLEANUP(freep) char *text = NULL;
	CLEANUP(freep) char *signature = NULL;
	int r = openssl_load(err);

	k.buf = buf;
	k.manifest = package_file(c, ".mf");
	if (r < 0 || !k.manifest)
		return r;
	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	report->has_manifest = true;
	r = read_member(c, k.manifest, &text, err);
	if (r >= 0 && cert)
		r = read_member(c, cert, &signature, err);
	if (r < 0)
		return r;
	each_line(&k, text, (size_t)k.manifest->bytes, true);
	each_line(&k, text, (size_t)k.manifest->bytes, false);
	if (cert)
		check_signature(&k, cert->name, signature, (size_t)cert->bytes,
				text, (size_t)k.manifest->bytes);
	return 0;
}
