/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "formats/cursor.h"
#include "formats/streams/stream.h"
#include "formats/streams/xxh.h"
#include "iouring/util.h"

static uint64_t cost(const struct stream_index *x, const struct checkpoint *ck)
{
	return sizeof(*ck) + (x->kept ? 0 : ck->window_bytes);
}

static void drop_window(const struct stream_index *x, struct checkpoint *ck)
{
	if (!x->kept)
		free(ck->window);
}

/* Of two neighbours at least one goes, if it may: twice as far apart. */
static void thin(struct stream_index *x)
{
	size_t i, n = 1;

	x->spacing = max_u64(2 * x->spacing, STREAM_PIECE_BYTES);
	for (i = 1; i < x->n; i++) {
		struct checkpoint *ck = &x->list[i];

		if (ck->state & CHECKPOINT_STAYS ||
		    ck->out - x->list[n - 1].out >= x->spacing) {
			x->list[n++] = *ck;
			continue;
		}
		x->bytes -= cost(x, ck);
		drop_window(x, ck);
	}
	x->n = n;
}

/* Whatever becomes of it, its window is the list's or gone. */
static int add(struct stream_index *x, struct checkpoint *ck, struct error *err)
{
	struct checkpoint *grown;
	uint64_t spacing;

	/* Room is for a power of two of them. */
	if (!(x->n & (x->n - 1))) {
		grown = reallocarray(x->list, x->n ? 2 * x->n : 1,
				     sizeof(*grown));
		if (!grown) {
			drop_window(x, ck);
			return error_set(err, -ENOMEM, 0, "out of memory");
		}
		x->list = grown;
	}
	ANALYSER_ASSUME(x->list);
	x->list[x->n++] = *ck;
	x->bytes += cost(x, ck);
	while (x->bytes > STREAM_INDEX_BYTES_MAX) {
		spacing = x->spacing;
		thin(x);
		if (spacing > STREAM_BYTES_MAX)
			return error_set(err, -EFBIG, ck->in,
					 "its index takes more than %u bytes "
					 "of memory",
					 STREAM_INDEX_BYTES_MAX);
	}
	return 0;
}

int stream_index_add(struct stream_index *x, const struct checkpoint *ck,
		     struct error *err)
{
	const struct checkpoint *last = x->n ? &x->list[x->n - 1] : NULL;
	struct checkpoint own = *ck;

	if (last && !(ck->state & CHECKPOINT_STAYS) &&
	    ck->out - last->out < x->spacing) {
		drop_window(x, &own);
		return 0;
	}
	return add(x, &own, err);
}

size_t stream_index_find(const struct stream_index *x, uint64_t out)
{
	size_t low = 0, high = x->n, middle;

	while (high - low > 1) {
		middle = low + (high - low) / 2;
		if (x->list[middle].out <= out)
			low = middle;
		else
			high = middle;
	}
	return low;
}

uint8_t *stream_index_window(struct stream_index *x,
			     const struct checkpoint *ck)
{
	size_t bytes = ck->window_bytes + sizeof(uint64_t);
	CLEANUP(freep) uint8_t *buf = malloc(bytes);
	struct cursor c = { .buf = buf, .len = bytes };

	if (!buf)
		return NULL;
	if (pread(x->kept_fd, buf, bytes, (off_t)ck->kept_at) ==
		    (ssize_t)bytes &&
	    cursor_le64_at(&c, ck->window_bytes) ==
		    xxh64(buf, ck->window_bytes))
		return TAKE_PTR(buf);
	atomic_store(&x->wrong, true);
	return NULL;
}

void stream_index_done(struct stream_index *x)
{
	size_t i;

	for (i = 0; i < x->n; i++)
		drop_window(x, &x->list[i]);
	if (x->kept)
		close(x->kept_fd);
	free(x->list);
	*x = (struct stream_index){ 0 };
}
