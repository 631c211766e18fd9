/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "formats/codec/openssl.h"
#include "glance/digest.h"
#include "iouring/util.h"

/*
 * MD5 and SHA-512 take as long as each other, and longer than all else that
 * is done with the data: of long data MD5 is taken in a lane, a thread of its
 * own that is handed copies. There are few, so that uploads by the hundred
 * take neither threads nor memory; without one both are taken by the caller.
 */
#define LANES_MAX  16
#define LANE_AFTER (4U << 20)
#define LANE_BYTES (1U << 20)
/* Digested at once; room for the next is made as often. */
#define LANE_STEP  (LANE_BYTES / 4)

struct lane {
	pthread_t thread;
	EVP_MD_CTX *ctx; /* the digest's */
	uint8_t *ring; /* LANE_BYTES */
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t cond;
	uint64_t in, out; /* bytes so far */
	bool end; /* no more will come */
	bool failed;
};

struct digest {
	EVP_MD_CTX *md5;
	EVP_MD_CTX *sha512;
	uint64_t bytes;
	struct lane *lane; /* for MD5, or NULL */
};

static atomic_uint n_lanes;

static int failed(struct error *err)
{
	return error_set(err, -EIO, 0, "OpenSSL cannot digest the data");
}

/* ---- a lane ---- */

static void *run_lane(void *opaque)
{
	struct lane *l = opaque;
	size_t at, n;
	bool ok;

	pthread_mutex_lock(&l->lock);
	for (;;) {
		while (l->in == l->out && !l->end)
			pthread_cond_wait(&l->cond, &l->lock);
		if (l->in == l->out)
			break;
		at = (size_t)(l->out % LANE_BYTES);
		n = (size_t)min_u64(min_u64(l->in - l->out, LANE_STEP),
				    LANE_BYTES - at);
		pthread_mutex_unlock(&l->lock);
		ok = openssl.EVP_DigestUpdate(l->ctx, l->ring + at, n);
		pthread_mutex_lock(&l->lock);
		l->out += n;
		l->failed |= !ok;
		pthread_cond_signal(&l->cond);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

/* NULL: it goes without. */
static struct lane *lane_new(EVP_MD_CTX *ctx)
{
	struct lane *l;

	if (atomic_fetch_add(&n_lanes, 1) >= LANES_MAX)
		goto none;
	l = calloc(1, sizeof(*l));
	if (!l)
		goto none;
	l->ctx = ctx;
	l->ring = malloc(LANE_BYTES);
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->cond, NULL);
	if (l->ring && !pthread_create(&l->thread, NULL, run_lane, l))
		return l;
	pthread_cond_destroy(&l->cond);
	pthread_mutex_destroy(&l->lock);
	free(l->ring);
	free(l);
none:
	atomic_fetch_sub(&n_lanes, 1);
	return NULL;
}

/* When all it was given is digested. */
static bool lane_end(struct lane *l)
{
	bool ok;

	pthread_mutex_lock(&l->lock);
	l->end = true;
	pthread_cond_signal(&l->cond);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	ok = !l->failed;
	pthread_cond_destroy(&l->cond);
	pthread_mutex_destroy(&l->lock);
	free(l->ring);
	free(l);
	atomic_fetch_sub(&n_lanes, 1);
	return ok;
}

/* Waits while the ring is full. Nobody else puts, so its free part is ours. */
static void lane_put(struct lane *l, const uint8_t *data, size_t len)
{
	size_t at, n;

	while (len) {
		pthread_mutex_lock(&l->lock);
		while (l->in - l->out == LANE_BYTES)
			pthread_cond_wait(&l->cond, &l->lock);
		at = (size_t)(l->in % LANE_BYTES);
		n = (size_t)min_u64(min_u64(LANE_BYTES - (l->in - l->out), len),
				    LANE_BYTES - at);
		pthread_mutex_unlock(&l->lock);
		memcpy(l->ring + at, data, n);
		pthread_mutex_lock(&l->lock);
		l->in += n;
		pthread_cond_signal(&l->cond);
		pthread_mutex_unlock(&l->lock);
		data += n;
		len -= n;
	}
}

/* ---- both ---- */

/* NULL: it cannot be had. */
static EVP_MD_CTX *start(const char *name)
{
	EVP_MD *md = openssl.EVP_MD_fetch(NULL, name, NULL);
	EVP_MD_CTX *ctx = md ? openssl.EVP_MD_CTX_new() : NULL;

	if (ctx && !openssl.EVP_DigestInit_ex2(ctx, md, NULL)) {
		openssl.EVP_MD_CTX_free(ctx);
		ctx = NULL;
	}
	openssl.EVP_MD_free(md); /* ctx has its own reference */
	return ctx;
}

int digest_new(struct digest **ret, struct error *err)
{
	struct digest *d;
	int r = openssl_load(err);

	if (r < 0)
		return r;
	d = calloc(1, sizeof(*d));
	if (!d)
		return error_set(err, -ENOMEM, 0, "out of memory");
	d->md5 = start("MD5");
	d->sha512 = start("SHA512");
	if (!d->md5 || !d->sha512) {
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
	if (d->lane)
		lane_end(d->lane);
	openssl.EVP_MD_CTX_free(d->md5);
	openssl.EVP_MD_CTX_free(d->sha512);
	free(d);
}

int digest_add(struct digest *d, const void *data, size_t len,
	       struct error *err)
{
	if (!d->lane && d->bytes < LANE_AFTER && len >= LANE_AFTER - d->bytes)
		d->lane = lane_new(d->md5);
	d->bytes += len;
	if (d->lane)
		lane_put(d->lane, data, len);
	else if (!openssl.EVP_DigestUpdate(d->md5, data, len))
		return failed(err);
	return openssl.EVP_DigestUpdate(d->sha512, data, len) ? 0 : failed(err);
}

static bool put_hex(EVP_MD_CTX *ctx, char *ret)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned int n, i;

	if (!openssl.EVP_DigestFinal_ex(ctx, sum, &n))
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
	struct lane *l = TAKE_PTR(d->lane);

	return (!l || lane_end(l)) && put_hex(d->md5, ret_md5) &&
			       put_hex(d->sha512, ret_sha512)
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
