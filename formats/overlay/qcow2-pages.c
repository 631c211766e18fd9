/* SPDX-License-Identifier: BSD-3-Clause */
/* Clusters of metadata in memory, page by page; lists of clusters. */
#include <errno.h>

#include "formats/overlay/qcow2-write.h"

struct page_set *page_set_new(const struct qcow2_file *o, uint64_t host_off)
{
	struct page_set *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->host_off = host_off;
	p->buf = calloc(1, o->cluster_bytes);
	if (!p->buf) {
		free(p);
		return NULL;
	}
	return p;
}

void page_set_free(struct page_set *p)
{
	if (!p)
		return;
	free(p->buf);
	free(p);
}

void page_dirty(const struct qcow2_file *o, struct page_set *p, uint64_t at)
{
	uint64_t page = at / o->page_bytes;

	p->dirty = true;
	p->dirty_pages[page / 64] |= 1ULL << page % 64;
}

void page_clean(struct page_set *p)
{
	p->dirty = false;
	memset(p->dirty_pages, 0, sizeof(p->dirty_pages));
}

int list_add(struct cluster_list *l, uint64_t cluster, struct error *err)
{
	uint64_t *grown;
	size_t room;

	if (l->n == l->room) {
		room = l->room ? 2 * l->room : 16;
		grown = realloc(l->items, room * sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		l->items = grown;
		l->room = room;
	}
	l->items[l->n++] = cluster;
	return 0;
}

void page_dirty_all(const struct qcow2_file *o, struct page_set *p)
{
	uint64_t at;

	for (at = 0; at < o->cluster_bytes; at += o->page_bytes)
		page_dirty(o, p, at);
}
