/* SPDX-License-Identifier: BSD-3-Clause */
/* What goes to the disk at once, and whether it has arrived there. */
#include <errno.h>

#include "formats/overlay/qcow2-write.h"
#include "iouring/write.h"

void pieces_done(struct pieces *p)
{
	size_t i;

	for (i = 0; i < p->n; i++)
		free(p->items[i].buf);
	free(p->items);
}

int pieces_add(struct pieces *p, uint64_t host_off, const void *buf, size_t len,
	       struct error *err)
{
	struct piece *grown;
	size_t room;

	if (p->n == p->room) {
		room = p->room ? 2 * p->room : 16;
		grown = realloc(p->items, room * sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		p->items = grown;
		p->room = room;
	}
	p->items[p->n] = (struct piece){ host_off, malloc(len), len };
	if (!p->items[p->n].buf)
		return error_set(err, -ENOMEM, 0, "out of memory");
	memcpy(p->items[p->n++].buf, buf, len);
	return 0;
}

static bool page_is_dirty(const struct page_set *s, uint64_t page)
{
	return s->dirty_pages[page / 64] >> page % 64 & 1;
}

int pieces_add_dirty(const struct qcow2_file *o, const struct page_set *s,
		     struct pieces *to, struct error *err)
{
	uint64_t pages = o->cluster_bytes / o->page_bytes, i = 0, n;
	int r = 0;

	if (s->fresh)
		return pieces_add(to, s->host_off, s->buf, o->cluster_bytes,
				  err);
	while (i < pages && r >= 0) {
		for (n = 0; i + n < pages && page_is_dirty(s, i + n); n++)
			;
		if (n)
			r = pieces_add(to, s->host_off + i * o->page_bytes,
				       s->buf + i * o->page_bytes,
				       n * o->page_bytes, err);
		i += n + 1;
	}
	return r;
}

int pieces_write(struct qcow2_file *o, const struct pieces *p,
		 struct error *err)
{
	struct batch_io *ios;
	size_t i;
	int r;

	if (!p->n)
		return 0;
	ios = calloc(p->n, sizeof(*ios));
	if (!ios)
		return error_set(err, -ENOMEM, 0, "out of memory");
	for (i = 0; i < p->n; i++)
		ios[i] = (struct batch_io){ .src = o->src,
					    .off = p->items[i].host_off,
					    .buf = p->items[i].buf,
					    .len = p->items[i].len,
					    .op = BATCH_WRITE };
	r = batch_run(ios, p->n);
	free(ios);
	if (r < 0)
		return error_set(err, r, 0, "tables cannot be written: %s",
				 errno_text(-r));
	return 0;
}

int disk_check(struct qcow2_file *o, struct error *err)
{
	int r;

	pthread_mutex_lock(&o->flush_lock);
	r = o->broken;
	pthread_mutex_unlock(&o->flush_lock);
	if (r < 0)
		error_set(err, r, 0,
			  "an earlier flush failed (%s): nothing more can be "
			  "made durable, open it again",
			  errno_text(-r));
	return r;
}

void disk_break(struct qcow2_file *o, int code)
{
	pthread_mutex_lock(&o->flush_lock);
	o->broken = code;
	pthread_mutex_unlock(&o->flush_lock);
	log_spoil(o);
}

int disk_sync(struct qcow2_file *o, struct error *err)
{
	int r;

	r = disk_check(o, err);
	if (r < 0 || o->temporary)
		return r;
	atomic_fetch_add(&o->n_syncs, 1);
	r = source_sync(o->src, err);
	if (r < 0)
		disk_break(o, r); /* the kernel has forgotten what it was */
	return r;
}
