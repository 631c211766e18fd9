/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "formats/drivers/unit-table.h"

/* Entries that are looked at between two reads of the table. */
#define CHUNK_BYTES   2048U
/* One answer looks at no more: image_walk() joins what is longer. */
#define RUN_UNITS_MAX (256U << 10)

/* A piece of a table at hand. */
struct piece {
	uint8_t buf[CHUNK_BYTES];
	uint64_t from; /* index of its first entry */
	uint64_t n;
};

/* Makes entry @idx part of @p; of those up to @last as many as there are. */
static int piece_load(struct layer *l, const struct unit_table *t,
		      struct piece *p, uint64_t idx, uint64_t last,
		      struct error *err)
{
	uint64_t at = t->off + idx * t->entry_bytes;
	int r;

	if (idx >= p->from && idx - p->from < p->n)
		return 0;
	p->from = idx;
	p->n = min_u64(last - idx + 1, CHUNK_BYTES / t->entry_bytes);
	/* Entries before the file's end are good without those behind it. */
	if (range_inside(at, t->entry_bytes, t->src->bytes))
		p->n = min_u64(p->n, (t->src->bytes - at) / t->entry_bytes);
	r = layer_read_meta(l, t->src, p->buf, (size_t)(p->n * t->entry_bytes),
			    at, err);
	if (r < 0)
		p->n = 0;
	return r;
}

static int decode_at(struct layer *l, const struct unit_table *t,
		     struct piece *p, uint64_t idx, uint64_t last,
		     struct unit_place *ret, struct error *err)
{
	int r = piece_load(l, t, p, idx, last, err);

	if (r < 0)
		return r;
	*ret = (struct unit_place){ 0 };
	return t->decode(t->state, p->buf + (idx - p->from) * t->entry_bytes,
			 ret, err);
}

/* Does @next, @units on, continue the run of @first? */
static bool continues(const struct unit_table *t,
		      const struct unit_place *first,
		      const struct unit_place *next, uint64_t units)
{
	if (next->kind != first->kind)
		return false;
	if (first->kind != EXTENT_DATA)
		return first->kind != EXTENT_COMPRESSED;
	/* Not into a unit that is damage: it begins behind the end. */
	return t->stride == t->unit_bytes && next->host_off > first->host_off &&
	       (next->host_off - first->host_off) / t->stride == units &&
	       !((next->host_off - first->host_off) % t->stride) &&
	       next->host_off < t->data->bytes;
}

int unit_table_find(struct layer *l, const struct unit_table *t, uint64_t off,
		    uint64_t len, struct unit_place *ret, uint64_t *ret_len,
		    struct error *err)
{
	uint64_t idx = off / t->unit_bytes, first_idx = idx;
	uint64_t last = (off + len - 1) / t->unit_bytes;
	uint64_t run = t->unit_bytes - off % t->unit_bytes;
	struct unit_place first, next;
	struct piece p;
	int r;

	p.from = p.n = 0;
	r = decode_at(l, t, &p, idx, last, &first, err);
	if (r < 0)
		return r;
	while (run < len && idx - first_idx < RUN_UNITS_MAX &&
	       !decode_at(l, t, &p, ++idx, last, &next, NULL) &&
	       continues(t, &first, &next, idx - first_idx))
		run += t->unit_bytes;
	*ret = first;
	*ret_len = min_u64(run, len);
	return 0;
}

int unit_table_map(struct layer *l, const struct unit_table *t, uint64_t off,
		   uint64_t len, struct extent *ret, struct error *err)
{
	struct unit_place p = { 0 };
	uint64_t run = 0;
	int r = unit_table_find(l, t, off, len, &p, &run, err);

	if (r < 0)
		return r;
	if (p.kind == EXTENT_DATA)
		return extent_set_data(ret, t->data, p.host_off,
				       off % t->unit_bytes, run, err);
	*ret = (struct extent){ .kind = (uint8_t)p.kind, .len = run };
	if (p.kind == EXTENT_COMPRESSED) {
		ret->src = t->data;
		ret->host_off = p.host_off;
		ret->comp_bytes = p.comp_bytes;
		ret->unit_bytes = (uint32_t)t->unit_bytes;
		ret->unit_off = (uint32_t)(off % t->unit_bytes);
	}
	return 0;
}

int unit_table_walk(struct layer *l, const struct unit_table *t,
		    uint64_t entries,
		    int (*each)(void *opaque, uint64_t idx,
				const struct unit_place *p, int r,
				const struct error *err),
		    void *opaque)
{
	struct error err = { 0 };
	struct piece p;
	uint64_t idx;
	int r;

	p.from = p.n = 0;
	for (idx = 0; idx < entries; idx++) {
		struct unit_place place = { 0 };

		error_clear(&err);
		r = decode_at(l, t, &p, idx, entries - 1, &place, &err);
		r = each(opaque, idx, &place, r, &err);
		if (r)
			return r;
	}
	return 0;
}
