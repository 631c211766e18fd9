/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Parts of other sources put together to one, zeroes between them: a file that an
 * archive has without its holes, one that was cut into several.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "iouring/source.h"
#include "iouring/sources/pieces.h"

struct pieces_source {
	struct source base;
	size_t n;
	struct piece all[]; /* in the order of at, none of no bytes */
};

static void pieces_free(struct source *s)
{
	struct pieces_source *p = container_of(s, struct pieces_source, base);
	size_t i;

	for (i = 0; i < p->n; i++)
		source_unref(p->all[i].src);
	free(p);
}

/* The first that ends behind @off; all.n: there is none. */
static size_t find(const struct pieces_source *p, uint64_t off)
{
	size_t low = 0, high = p->n, middle;

	while (low < high) {
		middle = low + (high - low) / 2;
		if (p->all[middle].at + p->all[middle].len > off)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* The piece at @off, or NULL: a gap; for *ret_len of @len bytes. */
static const struct piece *look_up(const struct pieces_source *p, uint64_t off,
				   uint64_t len, uint64_t *ret_len)
{
	const struct piece *piece = p->all + find(p, off);

	if (piece == p->all + p->n)
		*ret_len = len;
	else if (piece->at > off)
		*ret_len = min_u64(len, piece->at - off);
	else
		*ret_len = min_u64(len, piece->at + piece->len - off);
	return piece == p->all + p->n || piece->at > off ? NULL : piece;
}

static ssize_t pieces_pread(struct source *s, void *buf, size_t len,
			    uint64_t off)
{
	struct pieces_source *p = container_of(s, struct pieces_source, base);
	uint64_t n = 0;
	const struct piece *piece = look_up(p, off, len, &n);
	int r = 0;

	if (piece)
		r = source_read(piece->src, buf, (size_t)n,
				piece->off + (off - piece->at), NULL);
	else
		memset(buf, 0, (size_t)n);
	return r < 0 ? r : (ssize_t)n;
}

static int pieces_find_hole(struct source *s, uint64_t off, uint64_t len,
			    bool *ret_hole, uint64_t *ret_len)
{
	struct pieces_source *p = container_of(s, struct pieces_source, base);
	const struct piece *piece = look_up(p, off, len, ret_len);

	*ret_hole = !piece;
	return piece ? source_find_hole(piece->src,
					piece->off + (off - piece->at),
					*ret_len, ret_hole, ret_len)
		     : 0;
}

static void pieces_prefetch(struct source *s, uint64_t off, uint64_t len)
{
	struct pieces_source *p = container_of(s, struct pieces_source, base);
	const struct piece *piece;
	uint64_t n = 0;

	for (; len; off += n, len -= n) {
		piece = look_up(p, off, len, &n);
		if (piece)
			source_prefetch(piece->src,
					piece->off + (off - piece->at), n);
	}
}

static const struct source_ops pieces_ops = {
	.name = "pieces",
	.pread = pieces_pread,
	.nested = true,
	.find_hole = pieces_find_hole,
	.prefetch = pieces_prefetch,
	.free = pieces_free,
};

int pieces_source_new(const struct piece *pieces, size_t n, uint64_t bytes,
		      struct source **ret, struct error *err)
{
	struct pieces_source *p = calloc(1, sizeof(*p) + n * sizeof(p->all[0]));
	uint64_t end = 0;
	size_t i;

	if (!p)
		return error_set(err, -ENOMEM, 0, "out of memory");
	source_init(&p->base, &pieces_ops, bytes);
	for (i = 0; i < n; i++) {
		const struct piece *x = &pieces[i];

		if (x->at < end || !range_inside(x->at, x->len, bytes) ||
		    !range_inside(x->off, x->len, x->src->bytes)) {
			source_unref(&p->base);
			return error_set(err, -EBADMSG, x->at,
					 "%" PRIu64 " bytes at %" PRIu64
					 " are no piece of %" PRIu64,
					 x->len, x->at, bytes);
		}
		end = x->at + x->len;
		if (!x->len)
			continue;
		p->all[p->n] = *x;
		p->all[p->n++].src = source_ref(x->src);
	}
	*ret = &p->base;
	return 0;
}
