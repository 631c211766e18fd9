/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Of some objects a digest is known. When all chunks but one are there, and that
 * one has been written, all is read and compared before the last one counts as
 * there: so a copy that says that it is whole is right, whoever died meanwhile. A
 * copy that is another one is emptied, told of, and not kept any more.
 */
#include <errno.h>
#include <string.h>

#include "iouring/sources/crypto-lib.h"
#include "iouring/sources/disk-cache-inside.h"
#include "iouring/sources/remote-options.h"
#include "iouring/write.h"

#define FAILURES 1000U /* it will not be better */

/* NULL: there is none of that name. */
static const EVP_MD *find_algorithm(const char *name)
{
	const struct crypto_lib *crypto = crypto_lib_load();

	return crypto ? crypto->get_digestbyname(name) : NULL;
}

/* ---- what is expected ---- */

static struct cached *cached_of(struct source *src)
{
	return container_of(src, struct cache_source, s)->c;
}

bool disk_cache_wants_digest(struct source *src)
{
	struct cached *c = cached_of(src);
	bool wants;

	if (!cache_is_usable(c))
		return false;
	pthread_mutex_lock(&c->lock);
	wants = !*c->digest && kept_count(&c->f) < c->f.n_chunks;
	pthread_mutex_unlock(&c->lock);
	return wants;
}

int disk_cache_expect(struct source *src, const char *algorithm,
		      const char *hex, struct error *err)
{
	struct cached *c = cached_of(src);

	if (strlen(algorithm) >= sizeof(c->algorithm) ||
	    strlen(hex) >= sizeof(c->digest) || !find_algorithm(algorithm))
		return error_set(err, -ENOTSUP, 0,
				 "its digest is of a kind that is not known "
				 "here");
	pthread_mutex_lock(&c->lock);
	if (!*c->digest) {
		memcpy(c->algorithm, algorithm, strlen(algorithm) + 1);
		memcpy(c->digest, hex, strlen(hex) + 1);
	}
	pthread_mutex_unlock(&c->lock);
	return 0;
}

/* ---- the last chunk ---- */

bool cache_count_chunk(struct cached *c, size_t chunk)
{
	bool last;

	pthread_mutex_lock(&c->lock);
	last = *c->digest && !kept_has(&c->f, chunk) &&
	       kept_count(&c->f) + 1 == c->f.n_chunks;
	if (last)
		c->last = chunk;
	else
		kept_add(&c->f, chunk);
	atomic_store(&c->unchecked, last);
	pthread_mutex_unlock(&c->lock);
	return !last;
}

/* ---- the check ---- */

static int sum_up(struct cached *c, EVP_MD_CTX *ctx, uint8_t *buf)
{
	const struct crypto_lib *crypto = crypto_lib_load();
	size_t chunk, len;
	int r = 0;

	for (chunk = 0; chunk < c->f.n_chunks && r >= 0; chunk++) {
		len = kept_chunk_bytes(&c->f, chunk);
		r = remote_is_stopping()
			    ? -ECANCELED
			    : source_read(c->f.data, buf, len,
					  (uint64_t)chunk * KEPT_CHUNK_BYTES,
					  NULL);
		if (r >= 0 && !crypto->digest_update(ctx, buf, len))
			r = -EIO;
	}
	return r;
}

/* 1: it is that; 0: it is another; else a negative errno: it is not known. */
static int compare(struct cached *c)
{
	CLEANUP(freep) uint8_t *buf = malloc(KEPT_CHUNK_BYTES);
	uint8_t sum[EVP_MAX_MD_SIZE];
	char hex[2 * EVP_MAX_MD_SIZE + 1];
	const struct crypto_lib *crypto = crypto_lib_load();
	EVP_MD_CTX *ctx = crypto->ctx_new();
	unsigned int n = 0, i;
	int r = -ENOMEM;

	if (buf && ctx &&
	    crypto->digest_init(ctx, find_algorithm(c->algorithm), NULL))
		r = sum_up(c, ctx, buf);
	if (r >= 0 && !crypto->digest_final(ctx, sum, &n))
		r = -EIO;
	crypto->ctx_free(ctx);
	for (i = 0; i < n; i++)
		snprintf(hex + 2 * i, 3, "%02x", sum[i]);
	return r < 0 ? r : n && !strcasecmp(hex, c->digest);
}

static void end_check(struct cached *c, bool is_right)
{
	pthread_mutex_lock(&c->lock);
	if (is_right)
		kept_add(&c->f, c->last);
	atomic_store(&c->unchecked, false);
	pthread_mutex_unlock(&c->lock);
}

static void empty(struct cached *c)
{
	pthread_rwlock_wrlock(&c->gate);
	kept_break(&c->f);
	pthread_rwlock_unlock(&c->gate);
	source_punch(c->f.data, 0, c->f.bytes, NULL);
	atomic_store(&c->failures, FAILURES);
	remote_say("cache-dir: %s: all of it has come, and its %s is not %s: "
		   "nothing of it is kept",
		   c->shown, c->algorithm, c->digest);
}

int cache_check(struct cached *c)
{
	unsigned int taken = atomic_load(&c->taken);
	int r;

	/* One thread; the evictor leaves it alone. */
	if (!atomic_load(&c->unchecked) || atomic_exchange(&c->checking, true))
		return 0;
	r = compare(c);
	/* What was taken away meanwhile is not what came. */
	if (r >= 0 && atomic_load(&c->taken) != taken)
		r = -EAGAIN;
	end_check(c, r == 1);
	if (!r)
		empty(c);
	atomic_store(&c->checking, false);
	return r ? 0 : -EBADMSG;
}
