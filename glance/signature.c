/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/codec/openssl.h"
#include "glance/http/text-buf.h"
#include "glance/signature.h"
#include "iouring/util.h"

#define CERTIFICATE_BYTES_MAX 65536
#define READ_BYTES	      (1U << 20)

enum { SIGNATURE, HASH, KEY, CERTIFICATE, PROPERTIES };

static const char *const properties[PROPERTIES] = {
	[SIGNATURE] = "img_signature",
	[HASH] = "img_signature_hash_method",
	[KEY] = "img_signature_key_type",
	[CERTIFICATE] = "img_signature_certificate_uuid",
};

static const struct {
	const char *name; /* in the property */
	const char *openssl;
} hashes[] = {
	{ "SHA-224", "SHA2-224" },
	{ "SHA-256", "SHA2-256" },
	{ "SHA-384", "SHA2-384" },
	{ "SHA-512", "SHA2-512" },
};

static const struct {
	const char *name; /* in the property */
	const char *openssl;
	const char *group; /* of a curve */
} keys[] = {
	{ "RSA-PSS", "RSA", NULL },
	{ "DSA", "DSA", NULL },
	{ "ECC_SECT571K1", "EC", "sect571k1" },
	{ "ECC_SECT409K1", "EC", "sect409k1" },
	{ "ECC_SECT571R1", "EC", "sect571r1" },
	{ "ECC_SECT409R1", "EC", "sect409r1" },
	{ "ECC_SECP521R1", "EC", "secp521r1" },
	{ "ECC_SECP384R1", "EC", "secp384r1" },
};

bool signature_is_on(const struct record *r)
{
	size_t i;

	for (i = 0; i < PROPERTIES; i++)
		if (!record_property(r, properties[i]))
			return false;
	return true;
}

char *signature_text(const struct record *r)
{
	struct text_buf b = { 0 };
	size_t i;

	text_add(&b, "");
	for (i = 0; i < PROPERTIES && signature_is_on(r); i++) {
		text_add_json(&b, record_property(r, properties[i]));
		text_add_char(&b, '\n');
	}
	return text_buf_take(&b);
}

/* ---- what is given ---- */

/* As Python does: what is no digit is passed over. */
static int decode(const char *text, uint8_t **ret, size_t *ret_bytes,
		  struct error *err)
{
	size_t len = strlen(text), n = 0, pad = 0;
	CLEANUP(freep) char *digits = malloc(len + 1);
	CLEANUP(freep) uint8_t *out = malloc(len + 4);
	int bytes;

	if (!digits || !out)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (; *text; text++) {
		if (*text == '=')
			pad++;
		if (strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ"
			   "abcdefghijklmnopqrstuvwxyz0123456789+/=",
			   *text))
			digits[n++] = *text;
	}
	digits[n] = '\0';
	bytes = n && n % 4 == 0 && pad < 3
			? openssl.EVP_DecodeBlock(out, (uint8_t *)digits,
						  (int)n)
			: -1;
	if (bytes < (int)pad)
		return error_set(err, -EINVAL, 0,
				 "The signature data was not properly encoded "
				 "using base64");
	*ret_bytes = (size_t)bytes - pad;
	*ret = TAKE_PTR(out);
	return 0;
}

static const char *hash_of(const struct record *r, struct error *err)
{
	const char *name = record_property(r, properties[HASH]);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(hashes); i++)
		if (!strcmp(hashes[i].name, name))
			return hashes[i].openssl;
	error_set(err, -EINVAL, 0, "Invalid signature hash method: %.64s",
		  name);
	return NULL;
}

/* ---- the certificate ---- */

static int read_certificate(const struct folder *f, const char *id, char *buf,
			    size_t *ret, struct error *err)
{
	CLEANUP(closep) int fd = -1;
	char name[48];
	ssize_t n = -1;

	snprintf(name, sizeof(name), "%.36s.pem", id);
	if (f && record_id_ok(id))
		fd = folder_open_file(f, name);
	if (fd >= 0)
		n = pread(fd, buf, CERTIFICATE_BYTES_MAX, 0);
	if (n <= 0)
		return error_set(err, -EINVAL, 0,
				 "Certificate not found with ID: %.64s%s", id,
				 f ? ""
				   : " (signature-certificates= is not "
				     "set)");
	*ret = (size_t)n;
	return 0;
}

static X509 *parse_certificate(const char *buf, size_t len)
{
	const unsigned char *der = (const unsigned char *)buf;
	BIO *bio = openssl.BIO_new_mem_buf(buf, (int)len);
	X509 *c = bio ? openssl.PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;

	openssl.BIO_free(bio);
	return c ? c : openssl.d2i_X509(NULL, &der, (long)len);
}

static int check_time(const X509 *c, const char *id, struct error *err)
{
	if (openssl.X509_cmp_current_time(openssl.X509_get0_notBefore(c)) >= 0)
		return error_set(err, -EINVAL, 0,
				 "Certificate %.64s is not valid yet", id);
	if (openssl.X509_cmp_current_time(openssl.X509_get0_notAfter(c)) <= 0)
		return error_set(err, -EINVAL, 0,
				 "Certificate %.64s is not valid any more", id);
	return 0;
}

static int check_key(const EVP_PKEY *key, const char *name, struct error *err)
{
	char group[64] = "";
	size_t i;

	for (i = 0; i < ARRAY_SIZE(keys) && strcmp(keys[i].name, name); i++)
		;
	if (i == ARRAY_SIZE(keys))
		return error_set(err, -EINVAL, 0,
				 "Invalid signature key type: %.64s", name);
	if (keys[i].group)
		openssl.EVP_PKEY_get_group_name(key, group, sizeof(group),
						NULL);
	if (!openssl.EVP_PKEY_is_a(key, keys[i].openssl) ||
	    (keys[i].group && strcmp(keys[i].group, group) != 0))
		return error_set(err, -EINVAL, 0,
				 "Invalid public key type for signature key "
				 "type: %s",
				 name);
	return 0;
}

static int open_certificate(const struct folder *f, const struct record *r,
			    X509 **ret, struct error *err)
{
	const char *id = record_property(r, properties[CERTIFICATE]);
	CLEANUP(freep) char *buf = malloc(CERTIFICATE_BYTES_MAX);
	size_t len;
	X509 *c;
	int code = buf ? read_certificate(f, id, buf, &len, err)
		       : error_set(err, -ENOMEM, 0, "out of memory");

	if (code < 0)
		return code;
	c = parse_certificate(buf, len);
	openssl.ERR_clear_error();
	if (!c)
		return error_set(err, -EINVAL, 0,
				 "Certificate %.64s is no X.509 certificate",
				 id);
	code = check_time(c, id, err);
	if (code < 0)
		openssl.X509_free(c);
	else
		*ret = c;
	return code;
}

/* ---- the data ---- */

static int add_data(EVP_MD_CTX *ctx, int fd, struct error *err)
{
	CLEANUP(freep) char *buf = malloc(READ_BYTES);
	off_t off = 0;
	ssize_t n;

	if (!buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (;;) {
		n = pread(fd, buf, READ_BYTES, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? error_set(err, -errno, 0, "the data: %s",
						 errno_text(errno))
				     : 0;
		if (openssl.EVP_DigestVerifyUpdate(ctx, buf, (size_t)n) != 1)
			return error_set(err, -ENOMEM, 0, "out of memory");
		off += n;
	}
}

/* RSA-PSS has salt as long as there is room for, and the hash in its mask. */
static bool begin(EVP_MD_CTX *ctx, const char *hash, EVP_PKEY *key)
{
	EVP_PKEY_CTX *k = NULL;

	if (openssl.EVP_DigestVerifyInit_ex(ctx, &k, hash, NULL, NULL, key,
					    NULL) != 1)
		return false;
	return !openssl.EVP_PKEY_is_a(key, "RSA") ||
	       (openssl.EVP_PKEY_CTX_set_rsa_padding(
			k, RSA_PKCS1_PSS_PADDING) == 1 &&
		openssl.EVP_PKEY_CTX_set_rsa_pss_saltlen(
			k, RSA_PSS_SALTLEN_MAX) == 1);
}

static int verify(const struct record *r, EVP_PKEY *key, int fd,
		  struct error *err)
{
	const char *hash = hash_of(r, err);
	CLEANUP(freep) uint8_t *signature = NULL;
	EVP_MD_CTX *ctx;
	size_t len = 0;
	int code = hash ? decode(record_property(r, properties[SIGNATURE]),
				 &signature, &len, err)
			: err->code;

	if (code < 0)
		return code;
	ctx = openssl.EVP_MD_CTX_new();
	if (!ctx)
		return error_set(err, -ENOMEM, 0, "out of memory");
	code = begin(ctx, hash, key)
		       ? add_data(ctx, fd, err)
		       : error_set(err, -EINVAL, 0,
				   "the certificate's key cannot be used");
	if (code >= 0 &&
	    openssl.EVP_DigestVerifyFinal(ctx, signature, len) != 1)
		code = error_set(err, -EINVAL, 0,
				 "the data are not what was signed");
	openssl.EVP_MD_CTX_free(ctx);
	openssl.ERR_clear_error();
	return code;
}

int signature_check(const struct folder *certificates, const struct record *r,
		    int fd, struct error *err)
{
	struct error why = { 0 };
	EVP_PKEY *key;
	X509 *c = NULL;
	int code;

	if (!signature_is_on(r))
		return 0;
	code = open_certificate(certificates, r, &c, &why);
	key = code >= 0 ? openssl.X509_get0_pubkey(c) : NULL;
	if (code >= 0 && !key)
		code = error_set(&why, -EINVAL, 0,
				 "the certificate's key cannot be read");
	if (code >= 0)
		code = check_key(key, record_property(r, properties[KEY]),
				 &why);
	if (code >= 0)
		code = verify(r, key, fd, &why);
	openssl.X509_free(c);
	return code < 0 ? error_set(err, code, 0,
				    "Signature verification failed for image "
				    "%s: %s",
				    r->id, why.msg)
			: 0;
}
