/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include <openssl/evp.h>

#include "glance/digest.h"

struct digest {
	EVP_MD_CTX *md5;
	EVP_MD_CTX *sha512;
};

static int failed(struct error *err)
{
	return error_set(err, -EIO, 0, "OpenSSL cannot digest the data");
}

int digest_new(struct digest **ret, struct error *err)
{
	struct digest *d = calloc(1, sizeof(*d));

	if (!d)
		return error_set(err, -ENOMEM, 0, "out of memory");
	d->md5 = EVP_MD_CTX_new();
	d->sha512 = EVP_MD_CTX_new();
	if (!d->md5 || !d->sha512 ||
	    !EVP_DigestInit_ex(d->md5, EVP_md5(), NULL) ||
	    !EVP_DigestInit_ex(d->sha512, EVP_sha512(), NULL)) {
		digest_free(d);
		return failed(err);
	}
	*ret = d;
	return 0;
}

void digest_free(struct digest *d)
{
	if (!d)
		return;
	EVP_MD_CTX_free(d->md5);
	EVP_MD_CTX_free(d->sha512);
	free(d);
}

int digest_add(struct digest *d, const void *data, size_t len,
	       struct error *err)
{
	if (!EVP_DigestUpdate(d->md5, data, len) ||
	    !EVP_DigestUpdate(d->sha512, data, len))
		return failed(err);
	return 0;
}

static bool put_hex(EVP_MD_CTX *ctx, char *ret)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned int n, i;

	if (!EVP_DigestFinal_ex(ctx, sum, &n))
		return false;
	for (i = 0; i < n; i++) {
		ret[2 * i] = digits[sum[i] >> 4];
		ret[2 * i + 1] = digits[sum[i] & 15];
	}
	ret[2 * n] = '\0';
	return true;
}

int digest_end(struct digest *d, char ret_md5[33], char ret_sha512[129],
	       struct error *err)
{
	return put_hex(d->md5, ret_md5) && put_hex(d->sha512, ret_sha512)
		       ? 0
		       : failed(err);
}

int digest_text(const char *text, char ret_sha512[129], struct error *err)
{
	char md5[33];
	struct digest *d;
	int r = digest_new(&d, err);

	if (r < 0)
		return r;
	r = digest_add(d, text, strlen(text), err);
	if (r >= 0)
		r = digest_end(d, md5, ret_sha512, err);
	digest_free(d);
	return r;
}
