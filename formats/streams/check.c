/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Is all of a stream as it was packed? Each form compares its own sums while it is
 * decoded; of a disk that platter packed its digest is compared as well.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/codec/openssl.h"
#include "formats/streams/packed.h"
#include "formats/streams/stream.h"
#include "iouring/util.h"

struct check {
	struct stream *s;
	struct stream_check *k;
	EVP_MD *sha256;
	EVP_MD_CTX *digest; /* of the disk; NULL: nobody has told it */
	struct error last; /* damage that was told */
};

static void check_done(struct check *c)
{
	if (c->digest)
		openssl.EVP_MD_CTX_free(c->digest);
	if (c->sha256)
		openssl.EVP_MD_free(c->sha256);
}

static int begin_digest(struct check *c, struct error *err)
{
	int r = openssl_load(err);

	if (r < 0)
		return r;
	c->sha256 = openssl.EVP_MD_fetch(NULL, "SHA256", NULL);
	c->digest = openssl.EVP_MD_CTX_new();
	return c->sha256 && c->digest &&
			       openssl.EVP_DigestInit_ex2(c->digest, c->sha256,
							  NULL) == 1
		       ? 0
		       : error_set(err, -ENOMEM, 0, "SHA-256 cannot be had");
}

static void add_block(struct check *c, const uint8_t *data, size_t bytes)
{
	uint8_t sum[FOOTER_DIGEST_BYTES];

	if (c->digest &&
	    openssl.EVP_Digest(data, bytes, sum, NULL, c->sha256, NULL) == 1)
		openssl.EVP_DigestUpdate(c->digest, sum, sizeof(sum));
}

static void say_damage(struct check *c, const struct error *why)
{
	/* A page of the table is one place, however many blocks it tells of. */
	if (!strcmp(why->msg, c->last.msg))
		return;
	c->last = *why;
	c->k->damaged++;
	c->k->say(c->k, why->msg);
}

/* Where each piece can be decoded for itself. Returns 1 to go on, or how it ended. */
static int check_pieces(struct check *c, struct error *err)
{
	uint64_t at, n, bytes = c->s->base.bytes;
	CLEANUP(freep) uint8_t *piece = malloc(c->s->piece_bytes);
	int r = 0;

	if (!piece)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (at = 0; at < bytes && !r; at += n) {
		struct error why = { 0 };

		n = min_u64(c->s->piece_bytes, bytes - at);
		if (stream_decode(c->s, at, piece, (size_t)n, &why) < 0)
			say_damage(c, &why);
		else
			add_block(c, piece, (size_t)n);
		r = c->k->tell(c->k, at + n, bytes);
	}
	return r;
}

static int pass_by(void *opaque, uint64_t done)
{
	struct check *c = opaque;

	return c->k->tell(c->k, done, c->s->base.bytes);
}

/* Where one begins in what was before, nothing behind damage can be read. */
static int check_whole(struct check *c, struct error *err)
{
	struct error why = { 0 };
	int r = stream_walk(c->s, pass_by, c, &why);

	if (r == -EBADMSG || r == -EIO)
		say_damage(c, &why);
	else if (r < 0)
		return error_set(err, r, 0, "%s", why.msg);
	return r > 0 ? r : 0;
}

/* Of the whole, where no block is wrong by itself. */
static void compare_digest(struct check *c, const uint8_t *told)
{
	uint8_t digest[FOOTER_DIGEST_BYTES];

	if (c->k->damaged)
		return;
	if (openssl.EVP_DigestFinal_ex(c->digest, digest, NULL) == 1 &&
	    !memcmp(digest, told, sizeof(digest))) {
		c->k->has_digest = true;
		return;
	}
	c->k->damaged++;
	c->k->say(c->k, "the disk has another digest than its table tells");
}

int stream_check(struct source *src, struct stream_check *k, struct error *err)
{
	CLEANUP(check_done)
	struct check c = { .s = container_of(src->root, struct stream, base),
			   .k = k };
	const uint8_t *told = packed_digest(c.s);
	int r = told ? begin_digest(&c, err) : 0;

	if (r < 0)
		return r;
	r = c.s->ops->find ? check_pieces(&c, err) : check_whole(&c, err);
	if (!r && told)
		compare_digest(&c, told);
	return r;
}
