/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A block cipher over 512-byte sectors.
 *
 * A schedule serves one thread at a time, and making one costs an
 * allocation and a key schedule. So contexts that were made once wait in a
 * list, per direction; a call takes one, sets its IV anew for each sector,
 * and puts it back. There are never more than threads that were in here at
 * the same time.
 *
 * Refused: ESSIV with a hash whose length is no key's.
 */
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "formats/codec/block-cipher.h"

#define KEY_BYTES_MAX 64

enum direction { DECRYPT, ENCRYPT, N_DIRECTIONS };

/* What one thread needs for one call. */
struct context {
	struct context *next;
	struct schedule sector;
	struct schedule essiv; /* zeroed: the IV needs no cipher */
};

struct cipher {
	enum cipher_mode mode;
	enum cipher_iv iv;
	struct block_cipher block;
	struct block_cipher essiv; /* as @block; with CIPHER_IV_ESSIV */
	uint8_t key[KEY_BYTES_MAX];
	size_t key_bytes;
	uint8_t essiv_key[EVP_MAX_MD_SIZE];

	pthread_mutex_t lock; /* idle */
	struct context *idle[N_DIRECTIONS];
};

static void context_free(struct context *x)
{
	if (!x)
		return;
	schedule_done(&x->sector);
	schedule_done(&x->essiv);
	free(x);
}

static int context_new(struct cipher *c, enum direction dir,
		       struct context **ret)
{
	struct context *x = calloc(1, sizeof(*x));
	int r;

	if (!x)
		return -ENOMEM;
	r = schedule_init(&x->sector, &c->block, c->key, dir == ENCRYPT);
	if (r == 0 && c->iv == CIPHER_IV_ESSIV)
		r = schedule_init(&x->essiv, &c->essiv, c->essiv_key, true);
	if (r < 0) {
		context_free(x);
		return r;
	}
	*ret = x;
	return 0;
}

static int context_take(struct cipher *c, enum direction dir,
			struct context **ret)
{
	struct context *x;

	pthread_mutex_lock(&c->lock);
	x = c->idle[dir];
	if (x)
		c->idle[dir] = x->next;
	pthread_mutex_unlock(&c->lock);
	if (!x)
		return context_new(c, dir, ret);
	*ret = x;
	return 0;
}

static void context_put(struct cipher *c, enum direction dir, struct context *x)
{
	pthread_mutex_lock(&c->lock);
	x->next = c->idle[dir];
	c->idle[dir] = x;
	pthread_mutex_unlock(&c->lock);
}

static int essiv_init(struct cipher *c, const struct cipher_spec *spec,
		      struct error *err)
{
	const char *hash = spec->essiv_hash;
	unsigned int bytes;
	EVP_MD *md;
	int ok;

	openssl.ERR_set_mark();
	md = openssl.EVP_MD_fetch(NULL, hash, NULL);
	openssl.ERR_pop_to_mark();
	if (!md)
		return error_set(err, -ENOTSUP, 0,
				 "OpenSSL here does not have the hash %s of "
				 "IV generator essiv",
				 hash);
	ok = openssl.EVP_Digest(c->key, c->key_bytes, c->essiv_key, &bytes, md,
				NULL);
	openssl.EVP_MD_free(md);
	if (!ok)
		return error_set(err, -EIO, 0, "OpenSSL cannot compute %s",
				 hash);
	if (block_cipher_find(spec->algorithm, CIPHER_ECB, bytes, &c->essiv,
			      NULL) < 0)
		return error_set(err, -ENOTSUP, 0,
				 "IV generator essiv: the %u bytes of hash %s "
				 "are not a key of %s that is supported",
				 bytes, hash, spec->algorithm);
	return 0;
}

static int cipher_init(struct cipher *c, const struct cipher_spec *spec,
		       const uint8_t *key, size_t key_bytes, struct error *err)
{
	struct context *x;
	int r;

	r = block_cipher_find(spec->algorithm, spec->mode, key_bytes, &c->block,
			      err);
	if (r < 0)
		return r;
	if ((spec->mode == CIPHER_ECB) != (spec->iv == CIPHER_IV_NONE) ||
	    (spec->iv == CIPHER_IV_ESSIV) != !!spec->essiv_hash)
		return error_set(err, -EINVAL, 0,
				 "cipher mode and IV generator do not fit");
	c->mode = spec->mode;
	c->iv = spec->iv;
	memcpy(c->key, key, key_bytes);
	c->key_bytes = key_bytes;
	if (spec->iv == CIPHER_IV_ESSIV) {
		r = essiv_init(c, spec, err);
		if (r < 0)
			return r;
	}
	/* The first context is made now, so that no read finds it fails. */
	r = context_new(c, DECRYPT, &x);
	if (r < 0)
		return error_set(err, r, 0, "cipher %s cannot be set up",
				 spec->algorithm);
	context_put(c, DECRYPT, x);
	return 0;
}

int cipher_new(const struct cipher_spec *spec, const uint8_t *key,
	       size_t key_bytes, struct cipher **ret, struct error *err)
{
	CLEANUP(cipher_freep) struct cipher *c = NULL;
	int r;

	r = openssl_load(err);
	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c)
		return error_set(err, -ENOMEM, 0, "out of memory");
	pthread_mutex_init(&c->lock, NULL);
	r = cipher_init(c, spec, key, key_bytes, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(c);
	return 0;
}

void cipher_free(struct cipher *c)
{
	struct context *x;
	int dir;

	if (!c)
		return;
	for (dir = 0; dir < N_DIRECTIONS; dir++) {
		while ((x = c->idle[dir])) {
			c->idle[dir] = x->next;
			context_free(x);
		}
	}
	block_cipher_done(&c->block);
	block_cipher_done(&c->essiv);
	pthread_mutex_destroy(&c->lock);
	explicit_bzero(c, sizeof(*c));
	free(c);
}

void cipher_freep(struct cipher **c)
{
	cipher_free(*c);
}

bool cipher_same(const struct cipher *a, const struct cipher *b)
{
	if (a == b || !a || !b)
		return a == b;
	return a->block.algorithm == b->block.algorithm && a->mode == b->mode &&
	       a->iv == b->iv && a->key_bytes == b->key_bytes &&
	       !memcmp(a->key, b->key, a->key_bytes) &&
	       !memcmp(a->essiv_key, b->essiv_key, sizeof(a->essiv_key));
}

static bool make_iv(const struct cipher *c, struct context *x, uint64_t sector,
		    uint8_t iv[BLOCK_CIPHER_BYTES])
{
	uint64_t le =
		htole64(c->iv == CIPHER_IV_PLAIN ? (uint32_t)sector : sector);

	memset(iv, 0, BLOCK_CIPHER_BYTES);
	memcpy(iv, &le, sizeof(le));
	return c->iv != CIPHER_IV_ESSIV ||
	       schedule_crypt(&x->essiv, NULL, iv, BLOCK_CIPHER_BYTES);
}

static int crypt_sector(const struct cipher *c, struct context *x,
			uint64_t sector, uint8_t *buf)
{
	uint8_t iv[BLOCK_CIPHER_BYTES];
	bool plain = c->iv == CIPHER_IV_NONE;

	if (!plain && !make_iv(c, x, sector, iv))
		return -EIO;
	return schedule_crypt(&x->sector, plain ? NULL : iv, buf,
			      CIPHER_SECTOR_BYTES)
		       ? 0
		       : -EIO;
}

static int crypt_sectors(struct cipher *c, enum direction dir,
			 uint64_t iv_sector, uint8_t *buf, size_t len)
{
	struct context *x;
	int r;

	if (len % CIPHER_SECTOR_BYTES)
		return -EINVAL;
	r = context_take(c, dir, &x);
	for (; r == 0 && len; len -= CIPHER_SECTOR_BYTES) {
		r = crypt_sector(c, x, iv_sector++, buf);
		buf += CIPHER_SECTOR_BYTES;
		if (r < 0) {
			/* Its state is unknown now. */
			context_free(x);
			openssl.ERR_clear_error();
			return r;
		}
	}
	if (r == 0)
		context_put(c, dir, x);
	return r;
}

int cipher_decrypt(struct cipher *c, uint64_t iv_sector, uint8_t *buf,
		   size_t len)
{
	return crypt_sectors(c, DECRYPT, iv_sector, buf, len);
}

int cipher_encrypt(struct cipher *c, uint64_t iv_sector, uint8_t *buf,
		   size_t len)
{
	return crypt_sectors(c, ENCRYPT, iv_sector, buf, len);
}
