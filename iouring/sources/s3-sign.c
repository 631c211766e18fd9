/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iouring/sources/crypto-lib.h"
#include "iouring/sources/s3-sign.h"
#include "iouring/util.h"

#define SUM_BYTES	 32U
#define PARAMS_MAX	 64U
#define ACCESS_BYTES_MAX 256
#define SIGNED		 "host;x-amz-content-sha256;x-amz-date"

static const struct crypto_lib *crypto;

static void load(void)
{
	crypto = crypto_lib_load();
}

int s3_sign_load(struct error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return crypto ? 0
		      : error_set(err, -ENOTSUP, 0,
				  "libcrypto.so.3 is missing: requests to S3 "
				  "cannot be signed");
}

static void put_hex(char ret[2 * SUM_BYTES + 1], const uint8_t sum[SUM_BYTES])
{
	size_t i;

	for (i = 0; i < SUM_BYTES; i++)
		snprintf(ret + 2 * i, 3, "%02x", sum[i]);
}

static void keyed(const void *key, size_t key_len, const char *text,
		  uint8_t ret[SUM_BYTES])
{
	unsigned int len;

	crypto->hmac(crypto->evp_sha256(), key, (int)key_len,
		     (const uint8_t *)text, strlen(text), ret, &len);
}

/* ---- what is signed ---- */

static int hex(char c)
{
	return isdigit((unsigned char)c) ? c - '0'
	       : isxdigit((unsigned char)c)
		       ? tolower((unsigned char)c) - 'a' + 10
		       : -1;
}

/* The byte at *@at, where %XX is one; *@at is its last character then. */
static char take_byte(const char **at)
{
	const char *p = *at;

	if (*p != '%' || hex(p[1]) < 0 || hex(p[2]) < 0)
		return *p;
	*at += 2;
	return (char)(hex(p[1]) * 16 + hex(p[2]));
}

char *s3_path(const char *path)
{
	char *ret = malloc(strlen(path) * 3 + 1), *to = ret;
	unsigned char c;

	for (; ret && *path; path++) {
		c = (unsigned char)take_byte(&path);
		if (c && (isalnum(c) || strchr("-._~/", c)))
			*to++ = (char)c;
		else
			to += sprintf(to, "%%%02X", c);
	}
	if (ret)
		*to = '\0';
	return ret;
}

static int compare_params(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* "a=1&b=" of "b&a=1", as it is encoded already. To be freed; NULL: it cannot. */
static char *sorted_query(const char *query)
{
	CLEANUP(freep) char *copy = strdup(query ? query : "");
	char *ret = calloc(1, strlen(query ? query : "") + PARAMS_MAX + 1);
	char *params[PARAMS_MAX], *p, *rest = NULL;
	size_t n = 0, i;

	for (p = copy ? strtok_r(copy, "&", &rest) : NULL; p && n < PARAMS_MAX;
	     p = strtok_r(NULL, "&", &rest))
		params[n++] = p;
	if (!copy || !ret || p) {
		free(ret);
		return NULL;
	}
	qsort(params, n, sizeof(char *), compare_params);
	for (i = 0; i < n; i++) {
		strcat(ret, i ? "&" : "");
		strcat(ret, params[i]);
		strcat(ret, strchr(params[i], '=') ? "" : "=");
	}
	return ret;
}

static void host_of(const struct url *u, char *ret, size_t room)
{
	bool own = u->port == (strcmp(u->scheme, "https") ? 80U : 443U);

	if (own)
		snprintf(ret, room, "%s", u->host);
	else
		snprintf(ret, room, "%s:%u", u->host, u->port);
}

/* The sum of the canonical request, in hex. */
static int sum_request(const struct url *u, const char *date,
		       char ret[2 * SUM_BYTES + 1])
{
	CLEANUP(freep) char *query = sorted_query(u->query);
	CLEANUP(freep) char *text = NULL;
	uint8_t sum[SUM_BYTES];
	char host[512];

	host_of(u, host, sizeof(host));
	if (!query || asprintf(&text,
			       "GET\n%s\n%s\nhost:%s\n"
			       "x-amz-content-sha256:" S3_EMPTY_SHA256 "\n"
			       "x-amz-date:%s\n\n" SIGNED "\n" S3_EMPTY_SHA256,
			       u->path, query, host, date) < 0) {
		text = NULL;
		return -ENOMEM;
	}
	crypto->sha256((const uint8_t *)text, strlen(text), sum);
	put_hex(ret, sum);
	return 0;
}

/* ---- by whom ---- */

/* "ACCESS:SECRET[:SESSION]" */
struct keys {
	char access[ACCESS_BYTES_MAX]; /* decoded */
	int secret_len;
	const char *secret;
};

static bool split(const char *keys, struct keys *ret)
{
	const char *colon = strchr(keys, ':');
	char *to = ret->access;

	if (!colon || colon == keys || !colon[1] ||
	    colon - keys >= ACCESS_BYTES_MAX)
		return false;
	for (; keys < colon; keys++)
		*to++ = take_byte(&keys);
	*to = '\0';
	ret->secret = colon + 1;
	ret->secret_len = (int)strcspn(colon + 1, ":");
	return true;
}

const char *s3_session(const char *keys)
{
	const char *colon = strchr(keys, ':');

	colon = colon ? strchr(colon + 1, ':') : NULL;
	return colon && colon[1] ? colon + 1 : NULL;
}

/* The key of one day, region and service. */
static int day_key(const struct keys *k, const char *day, const char *region,
		   uint8_t ret[SUM_BYTES])
{
	uint8_t a[SUM_BYTES], b[SUM_BYTES];
	char *first;

	if (asprintf(&first, "AWS4%.*s", k->secret_len, k->secret) < 0)
		return -ENOMEM;
	keyed(first, strlen(first), day, a);
	explicit_bzero(first, strlen(first));
	free(first);
	keyed(a, SUM_BYTES, region, b);
	keyed(b, SUM_BYTES, "s3", a);
	keyed(a, SUM_BYTES, "aws4_request", ret);
	explicit_bzero(a, sizeof(a));
	explicit_bzero(b, sizeof(b));
	return 0;
}

int s3_sign(const struct url *u, const char *keys, const char *region,
	    time_t now, struct s3_signature *ret)
{
	CLEANUP(freep) char *text = NULL;
	uint8_t key[SUM_BYTES], sum[SUM_BYTES];
	char day[9], hashed[2 * SUM_BYTES + 1], signature[2 * SUM_BYTES + 1];
	struct tm tm;
	struct keys k;
	int r;

	if (!split(keys, &k) || !gmtime_r(&now, &tm))
		return -EINVAL;
	strftime(ret->date, sizeof(ret->date), "%Y%m%dT%H%M%SZ", &tm);
	strftime(day, sizeof(day), "%Y%m%d", &tm);
	r = sum_request(u, ret->date, hashed);
	if (r < 0)
		return r;
	if (asprintf(&text, "AWS4-HMAC-SHA256\n%s\n%s/%s/s3/aws4_request\n%s",
		     ret->date, day, region, hashed) < 0) {
		text = NULL;
		return -ENOMEM;
	}
	r = day_key(&k, day, region, key);
	if (r < 0)
		return r;
	keyed(key, SUM_BYTES, text, sum);
	explicit_bzero(key, sizeof(key));
	put_hex(signature, sum);
	return asprintf(&ret->authorization,
			"AWS4-HMAC-SHA256 Credential=%s/%s/%s/s3/"
			"aws4_request,SignedHeaders=" SIGNED ",Signature=%s",
			k.access, day, region, signature) < 0
		       ? -ENOMEM
		       : 0;
}
