/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "iouring/batch.h"
#include "iouring/sources/http-ends.h"

#define KEPT_MAX 64U /* objects whose ends are in memory */

struct http_ends {
	uint64_t bytes; /* of the object */
	size_t head_bytes, tail_bytes;
	uint8_t *data; /* head, then tail; NULL: gone */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct http_ends *kept[KEPT_MAX]; /* in a ring; the oldest is at next */
static size_t next_kept;

static void keep(struct http_ends *e)
{
	pthread_mutex_lock(&lock);
	if (kept[next_kept])
		free(TAKE_PTR(kept[next_kept]->data));
	kept[next_kept] = e;
	next_kept = (next_kept + 1) % KEPT_MAX;
	pthread_mutex_unlock(&lock);
}

void http_ends_free(struct http_ends *e)
{
	size_t i;

	if (!e)
		return;
	pthread_mutex_lock(&lock);
	for (i = 0; i < KEPT_MAX; i++)
		if (kept[i] == e)
			kept[i] = NULL;
	pthread_mutex_unlock(&lock);
	free(e->data);
	free(e);
}

int http_ends_load(struct source *s, struct http_ends **ret, struct error *err)
{
	struct http_ends *e = calloc(1, sizeof(*e));
	struct batch_io ios[2];
	int r;

	if (!e)
		return error_set(err, -ENOMEM, 0, "out of memory");
	e->bytes = s->bytes;
	e->head_bytes = (size_t)min_u64(s->bytes, HTTP_HEAD_BYTES);
	e->tail_bytes =
		(size_t)min_u64(s->bytes - e->head_bytes, HTTP_TAIL_BYTES);
	e->data = malloc(e->head_bytes + e->tail_bytes + 1);
	ios[0] = (struct batch_io){ .src = s,
				    .buf = e->data,
				    .len = e->head_bytes };
	ios[1] = (struct batch_io){ .src = s,
				    .off = s->bytes - e->tail_bytes,
				    .buf = e->data + e->head_bytes,
				    .len = e->tail_bytes };
	r = e->data ? batch_run(ios, !!e->head_bytes + !!e->tail_bytes)
		    : -ENOMEM;
	if (r < 0) {
		http_ends_free(e);
		return error_set(err, r, 0,
				 "its beginning or its end cannot be read: %s",
				 errno_text(-r));
	}
	keep(e);
	*ret = e;
	return 0;
}

bool http_ends_copy(struct http_ends *e, void *buf, size_t len, uint64_t off)
{
	uint64_t tail = e->bytes - e->tail_bytes;
	const uint8_t *from = NULL;

	pthread_mutex_lock(&lock);
	if (!e->data)
		;
	else if (range_inside(off, len, e->head_bytes))
		from = e->data + off;
	else if (off >= tail)
		from = e->data + e->head_bytes + (off - tail);
	if (from)
		memcpy(buf, from, len);
	pthread_mutex_unlock(&lock);
	return from;
}
