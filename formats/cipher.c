/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * AES over 512-byte sectors.
 *
 * An EVP_CIPHER_CTX serves one thread at a time, and making one costs an
 * allocation and a key schedule. So contexts that were made once wait in a
 * list, per direction; a call takes one, sets its IV anew for each sector,
 * and puts it back. There are never more than threads that were in here at
 * the same time.
 *
 * Refused: ciphers other than AES, AES-192 in XTS (no standard defines it),
 * ESSIV with a hash whose length is no AES key's.
 */
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "formats/cipher.h"
#include "formats/openssl.h"

#define KEY_BYTES_MAX 64
#define IV_BYTES      16

enum direction { DECRYPT, ENCRYPT, N_DIRECTIONS };

/* What one thread needs for one call. */
struct context {
	struct context *next;
	EVP_CIPHER_CTX *sector;
	EVP_CIPHER_CTX *essiv; /* NULL: the IV needs no cipher */
};

struct cipher {
	enum cipher_mode mode;
	enum cipher_iv iv;
	EVP_CIPHER *evp;
	EVP_CIPHER *essiv_evp; /* NULL: not ESSIV */
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
	openssl.EVP_CIPHER_CTX_free(x->sector);
	openssl.EVP_CIPHER_CTX_free(x->essiv);
	free(x);
}

/* Returns 0, -ENOMEM, or -EIO when OpenSSL fails. */
static int evp_context_new(EVP_CIPHER *evp, const uint8_t *key,
			   enum direction dir, EVP_CIPHER_CTX **ret)
{
	EVP_CIPHER_CTX *ctx = openssl.EVP_CIPHER_CTX_new();

	if (!ctx)
		return -ENOMEM;
	if (!openssl.EVP_CipherInit_ex2(ctx, evp, key, NULL, dir == ENCRYPT,
					NULL) ||
	    !openssl.EVP_CIPHER_CTX_set_padding(ctx, 0)) {
		openssl.EVP_CIPHER_CTX_free(ctx);
		return -EIO;
	}
	*ret = ctx;
	return 0;
}

static int context_new(struct cipher *c, enum direction dir,
		       struct context **ret)
{
	struct context *x = calloc(1, sizeof(*x));
	int r;

	if (!x)
		return -ENOMEM;
	r = evp_context_new(c->evp, c->key, dir, &x->sector);
	if (r == 0 && c->essiv_evp)
		r = evp_context_new(c->essiv_evp, c->essiv_key, ENCRYPT,
				    &x->essiv);
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

/* OpenSSL's name of AES with this key and mode; false: there is none. */
static bool aes_name(enum cipher_mode mode, size_t key_bytes, char *ret,
		     size_t ret_bytes)
{
	static const char *const modes[] = {
		[CIPHER_XTS] = "XTS",
		[CIPHER_CBC] = "CBC",
		[CIPHER_ECB] = "ECB",
	};
	size_t aes_bytes = mode == CIPHER_XTS ? key_bytes / 2 : key_bytes;

	if (aes_bytes != 16 && aes_bytes != 32 &&
	    (aes_bytes != 24 || mode == CIPHER_XTS))
		return false;
	/* An odd XTS key has no halves. */
	if (mode == CIPHER_XTS && key_bytes % 2)
		return false;
	snprintf(ret, ret_bytes, "AES-%zu-%s", aes_bytes * 8, modes[mode]);
	return true;
}

/* What OpenSSL notes of a failure is of no use later: others share the note. */
static EVP_CIPHER *fetch_cipher(const char *name)
{
	EVP_CIPHER *evp;

	openssl.ERR_set_mark();
	evp = openssl.EVP_CIPHER_fetch(NULL, name, NULL);
	openssl.ERR_pop_to_mark();
	return evp;
}

static int essiv_init(struct cipher *c, const char *hash, size_t key_bytes,
		      struct error *err)
{
	char name[32];
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
	ok = openssl.EVP_Digest(c->key, key_bytes, c->essiv_key, &bytes, md,
				NULL);
	openssl.EVP_MD_free(md);
	if (!ok)
		return error_set(err, -EIO, 0, "OpenSSL cannot compute %s",
				 hash);
	if (!aes_name(CIPHER_ECB, bytes, name, sizeof(name)))
		return error_set(err, -ENOTSUP, 0,
				 "IV generator essiv: the %u bytes of hash %s "
				 "are not an AES key (16, 24 or 32)",
				 bytes, hash);
	c->essiv_evp = fetch_cipher(name);
	if (!c->essiv_evp)
		return error_set(err, -ENOTSUP, 0,
				 "OpenSSL here does not have %s", name);
	return 0;
}

static int cipher_init(struct cipher *c, const struct cipher_spec *spec,
		       const uint8_t *key, size_t key_bytes, struct error *err)
{
	struct context *x;
	char name[32];
	int r;

	if (strcmp(spec->algorithm, "aes") != 0)
		return error_set(err, -ENOTSUP, 0,
				 "cipher %s is not supported (aes is)",
				 spec->algorithm);
	if ((spec->mode == CIPHER_ECB) != (spec->iv == CIPHER_IV_NONE) ||
	    (spec->iv == CIPHER_IV_ESSIV) != !!spec->essiv_hash)
		return error_set(err, -EINVAL, 0,
				 "cipher mode and IV generator do not fit");
	if (!aes_name(spec->mode, key_bytes, name, sizeof(name)))
		return error_set(
			err, -EBADMSG, 0,
			"aes: a key of %zu bytes; it must have %s", key_bytes,
			spec->mode == CIPHER_XTS ? "32 or 64" : "16, 24 or 32");
	c->mode = spec->mode;
	c->iv = spec->iv;
	memcpy(c->key, key, key_bytes);
	c->key_bytes = key_bytes;
	c->evp = fetch_cipher(name);
	if (!c->evp)
		return error_set(err, -ENOTSUP, 0,
				 "OpenSSL here does not have %s", name);
	if (spec->iv == CIPHER_IV_ESSIV) {
		r = essiv_init(c, spec->essiv_hash, key_bytes, err);
		if (r < 0)
			return r;
	}
	/* The first context is made now, so that no read finds it fails. */
	r = context_new(c, DECRYPT, &x);
	if (r < 0)
		return error_set(err, r, 0, "OpenSSL cannot set up %s", name);
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
	openssl.EVP_CIPHER_free(c->evp);
	openssl.EVP_CIPHER_free(c->essiv_evp);
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
	return a->mode == b->mode && a->iv == b->iv &&
	       a->key_bytes == b->key_bytes &&
	       !memcmp(a->key, b->key, a->key_bytes) &&
	       !memcmp(a->essiv_key, b->essiv_key, sizeof(a->essiv_key));
}

static bool make_iv(const struct cipher *c, struct context *x, uint64_t sector,
		    uint8_t iv[IV_BYTES])
{
	uint64_t le =
		htole64(c->iv == CIPHER_IV_PLAIN ? (uint32_t)sector : sector);
	int bytes;

	memset(iv, 0, IV_BYTES);
	memcpy(iv, &le, sizeof(le));
	return !x->essiv ||
	       openssl.EVP_CipherUpdate(x->essiv, iv, &bytes, iv, IV_BYTES);
}

static int crypt_sector(const struct cipher *c, struct context *x,
			uint64_t sector, uint8_t *buf)
{
	uint8_t iv[IV_BYTES];
	int bytes;

	if (c->iv != CIPHER_IV_NONE &&
	    (!make_iv(c, x, sector, iv) ||
	     !openssl.EVP_CipherInit_ex2(x->sector, NULL, NULL, iv, -1, NULL)))
		return -EIO;
	if (!openssl.EVP_CipherUpdate(x->sector, buf, &bytes, buf,
				      CIPHER_SECTOR_BYTES) ||
	    bytes != CIPHER_SECTOR_BYTES)
		return -EIO;
	return 0;
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
