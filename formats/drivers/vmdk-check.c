/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Is the structure of a VMDK sound? Collects what of every sparse file is in
 * use and by what, sorts that, and looks for overlaps and for room that
 * nothing uses.
 *
 *	1  header, descriptor, directories
 *	2  tables, each once, however many directory entries lead to it
 *	3  grains; a redundant table must say what the first does
 *
 * Corruptions are what vmdk_map() cannot read, two uses of one place, and
 * redundant tables that differ. Leaks are gaps with room for a grain behind
 * the metadata of uncompressed files; compressed ones are packed as their
 * writer liked.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "formats/drivers/vmdk-inside.h"

#define CHECK_AREAS_MAX (8U << 20)
#define CHECK_LINES_MAX 65536U
#define CHECK_NAMES_MAX 1024U /* of extents, each compared with each */

enum use {
	USE_HEADER,
	USE_DESCRIPTOR,
	USE_DIRECTORY,
	USE_REDUNDANT_DIRECTORY,
	USE_TABLE,
	USE_REDUNDANT_TABLE,
	USE_GRAIN,
};

static const char *const use_names[] = {
	[USE_HEADER] = "header",
	[USE_DESCRIPTOR] = "descriptor",
	[USE_DIRECTORY] = "grain directory",
	[USE_REDUNDANT_DIRECTORY] = "redundant grain directory",
	[USE_TABLE] = "grain table",
	[USE_REDUNDANT_TABLE] = "redundant grain table",
	[USE_GRAIN] = "grain",
};

struct area {
	uint64_t off;
	uint32_t bytes;
	uint32_t use;
};

struct table_ref {
	uint64_t off;
	uint64_t second; /* the redundant one's place; 0: none to compare */
	uint64_t idx;
};

struct checker {
	struct layer *l;
	const struct vmdk_extent *e;
	struct check_report *r;
	struct area *areas;
	size_t n_areas, room;
	struct table_ref *tables;
	size_t n_tables, tables_room;
	unsigned int lines;
	uint64_t previous_end; /* of the last grain, for fragmentation */
};

static void checker_done(struct checker *c)
{
	free(c->areas);
	free(c->tables);
}

PRINTF(2, 3)
static void say(struct checker *c, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (!c->r->say || c->lines++ >= CHECK_LINES_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	c->r->say(c->r, line);
}

static void corrupt(struct checker *c, const char *what, uint64_t idx,
		    const struct error *found)
{
	c->r->corruptions++;
	say(c, "%s %" PRIu64 ": %s", what, idx, found->msg);
}

/* Room for one more of @size bytes each; at most CHECK_AREAS_MAX. */
static int grow(void **array, size_t *room, size_t n, size_t size,
		struct error *err)
{
	size_t more = *room ? 2 * *room : 1024;
	void *grown;

	if (n < *room)
		return 0;
	if (n >= CHECK_AREAS_MAX)
		return error_set(err, -EFBIG, 0,
				 "more than %u grains and tables: too many to "
				 "check",
				 CHECK_AREAS_MAX);
	grown = reallocarray(*array, more, size);
	if (!grown)
		return error_set(err, -ENOMEM, 0, "out of memory");
	*array = grown;
	*room = more;
	return 0;
}

static int add_area(struct checker *c, enum use use, uint64_t off,
		    uint64_t bytes, struct error *err)
{
	void *areas = c->areas;
	int r;

	/* What the file's end cuts is in use as far as it is there. */
	if (!bytes || off >= c->e->src->bytes)
		return 0;
	r = grow(&areas, &c->room, c->n_areas, sizeof(*c->areas), err);
	c->areas = areas;
	if (r < 0)
		return r;
	c->areas[c->n_areas++] = (struct area){
		.off = off,
		.bytes = (uint32_t)min_u64(bytes, c->e->src->bytes - off),
		.use = use
	};
	return 0;
}

static int add_table(struct checker *c, const struct table_ref *t,
		     struct error *err)
{
	void *tables = c->tables;
	int r;

	r = grow(&tables, &c->tables_room, c->n_tables, sizeof(*c->tables),
		 err);
	c->tables = tables;
	if (r < 0)
		return r;
	c->tables[c->n_tables++] = *t;
	return 0;
}

static int add_headers(struct checker *c, struct error *err)
{
	const struct vmdk_extent *e = c->e;
	uint64_t gd_bytes = e->gd_entries * e->entry_bytes;
	int r;

	r = add_area(c, USE_HEADER, 0,
		     e->kind == VMDK_KIND_COWD ? 2048 : VMDK_SECTOR_BYTES, err);
	if (r >= 0 && e->descriptor_off)
		r = add_area(c, USE_DESCRIPTOR, e->descriptor_off,
			     min_u64(e->descriptor_bytes, VMDK_DESCRIPTOR_MAX),
			     err);
	if (r >= 0 && !e->gd_lost)
		r = add_area(c, USE_DIRECTORY, e->gd_off, gd_bytes, err);
	if (r >= 0 && e->rgd_off && e->rgd_off != e->gd_off)
		r = add_area(c, USE_REDUNDANT_DIRECTORY, e->rgd_off, gd_bytes,
			     err);
	if (r >= 0 && e->gd_lost && e->gd_entries) {
		c->r->corruptions++;
		say(c,
		    "grain directory at %" PRIu64
		    " is not in the file, the redundant one is used",
		    e->gd_off);
	}
	return r;
}

/* Both entries of the table @idx. */
static int visit_directory_entry(struct checker *c, uint64_t idx,
				 struct error *err)
{
	const struct vmdk_extent *e = c->e;
	struct vmdk_table first = { 0 }, second = { 0 };
	struct error found = { 0 };
	struct table_ref t;
	int r;

	r = vmdk_find_table(c->l, e, idx, e->gd_lost, &first, &found);
	if (r < 0) {
		corrupt(c, "grain directory entry", idx, &found);
		first.kind = EXTENT_HOLE;
	}
	error_clear(&found);
	if (e->rgd_off && !e->gd_lost && e->rgd_off != e->gd_off) {
		int r2 = vmdk_find_table(c->l, e, idx, true, &second, &found);

		if (r2 < 0) {
			corrupt(c, "redundant grain directory entry", idx,
				&found);
			second.kind = EXTENT_HOLE;
		} else if (r >= 0 && first.kind != second.kind) {
			c->r->corruptions++;
			say(c,
			    "grain directory entry %" PRIu64
			    ": the redundant one differs",
			    idx);
		}
	}
	t = (struct table_ref){ .off = first.off, .idx = idx };
	if (first.kind != EXTENT_DATA) {
		if (second.kind != EXTENT_DATA)
			return 0;
		t.off = second.off;
	} else if (second.kind == EXTENT_DATA && second.off != first.off) {
		t.second = second.off;
	}
	return add_table(c, &t, err);
}

static int compare_tables(const void *a, const void *b)
{
	const struct table_ref *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

/* One grain's entry. */
static int visit_entry(struct checker *c, const uint8_t *raw, uint64_t grain,
		       struct error *err)
{
	const struct vmdk_extent *e = c->e;
	struct error found = { 0 };
	struct vmdk_grain g = { 0 };
	struct vmdk_marker m;
	uint64_t bytes = e->grain_bytes;

	if (vmdk_decode_entry(e, raw, &g, &found) < 0) {
		corrupt(c, "grain", grain, &found);
		return 0;
	}
	if (g.kind != EXTENT_DATA)
		return 0;
	if (e->compressed) {
		if (vmdk_read_marker(c->l, e, grain, g.host_off, &m, &found) <
		    0) {
			corrupt(c, "grain", grain, &found);
			return 0;
		}
		bytes = e->markers ? m.host_off + m.bytes - g.host_off : 1;
		c->r->compressed_units++;
	} else if (min_u64(bytes, e->capacity - grain * e->grain_bytes) >
		   e->src->bytes - g.host_off) {
		c->r->corruptions++;
		say(c,
		    "grain %" PRIu64 " at %" PRIu64
		    " is cut off by the file's end at %" PRIu64,
		    grain, g.host_off, e->src->bytes);
	}
	c->r->allocated_units++;
	if (c->previous_end && g.host_off != c->previous_end)
		c->r->fragmented_units++;
	c->previous_end =
		e->compressed ? round_up(g.host_off + bytes, VMDK_SECTOR_BYTES)
			      : g.host_off + bytes;
	return add_area(c, USE_GRAIN, g.host_off, bytes, err);
}

static int visit_table(struct checker *c, const struct table_ref *t,
		       struct error *err)
{
	const struct vmdk_extent *e = c->e;
	uint64_t used = vmdk_table_used(e, t->idx), i, n;
	bool differs = false;
	uint8_t buf[2048], other[2048];
	int r = 0;

	for (i = 0; i < used && r >= 0; i += n) {
		uint64_t at = i * e->entry_bytes, k;

		n = min_u64(used - i, sizeof(buf) / e->entry_bytes);
		r = layer_read_meta(c->l, e->src, buf,
				    (size_t)(n * e->entry_bytes), t->off + at,
				    err);
		if (r >= 0 && t->second && !differs) {
			r = layer_read_meta(c->l, e->src, other,
					    (size_t)(n * e->entry_bytes),
					    t->second + at, err);
			differs = r >= 0 &&
				  memcmp(buf, other, n * e->entry_bytes);
		}
		for (k = 0; k < n && r >= 0; k++)
			r = visit_entry(c, buf + k * e->entry_bytes,
					t->idx * e->table_entries + i + k, err);
	}
	if (differs) {
		c->r->corruptions++;
		say(c, "grain table %" PRIu64 ": the redundant one differs",
		    t->idx);
	}
	return r;
}

static int visit_tables(struct checker *c, struct error *err)
{
	const struct vmdk_extent *e = c->e;
	uint64_t bytes = (uint64_t)e->table_entries * e->entry_bytes;
	size_t i;
	int r = 0;

	if (c->n_tables) /* else there is no array */
		qsort(c->tables, c->n_tables, sizeof(*c->tables),
		      compare_tables);
	for (i = 0; i < c->n_tables && r >= 0; i++) {
		const struct table_ref *t = &c->tables[i];

		/* The same place again: an overlap, not walked twice. */
		if (i && t->off == t[-1].off) {
			c->r->corruptions++;
			say(c,
			    "grain tables %" PRIu64 " and %" PRIu64
			    " are both at %" PRIu64,
			    t[-1].idx, t->idx, t->off);
			continue;
		}
		r = add_area(c, USE_TABLE, t->off, bytes, err);
		if (r >= 0 && t->second)
			r = add_area(c, USE_REDUNDANT_TABLE, t->second, bytes,
				     err);
		if (r >= 0)
			r = visit_table(c, t, err);
	}
	return r;
}

static int compare_areas(const void *a, const void *b)
{
	const struct area *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

/* Nothing uses these bytes: is there room for a grain? */
static void look_at_gap(struct checker *c, uint64_t off, uint64_t end)
{
	const struct vmdk_extent *e = c->e;

	if (e->compressed || !e->grain_bytes || end <= off ||
	    end - off < e->grain_bytes)
		return;
	c->r->leaks += (end - off) / e->grain_bytes;
	say(c, "nothing uses %" PRIu64 " bytes at %" PRIu64, end - off, off);
}

static void look_at_areas(struct checker *c)
{
	const struct vmdk_extent *e = c->e;
	uint64_t end = e->overhead;
	size_t i;

	if (c->n_areas)
		qsort(c->areas, c->n_areas, sizeof(*c->areas), compare_areas);
	for (i = 0; i < c->n_areas; i++) {
		const struct area *a = &c->areas[i];

		if (i && a->off < a[-1].off + a[-1].bytes) {
			c->r->corruptions++;
			say(c, "%s at %" PRIu64 " overlaps %s at %" PRIu64,
			    use_names[a->use], a->off, use_names[a[-1].use],
			    a[-1].off);
		}
		look_at_gap(c, end, a->off);
		end = max_u64(end, a->off + a->bytes);
	}
	look_at_gap(c, end, e->src->bytes);
	c->r->image_end_off = max_u64(c->r->image_end_off, end);
}

static int check_sparse(struct layer *l, const struct vmdk_extent *e,
			struct check_report *r, struct error *err)
{
	CLEANUP(checker_done) struct checker c = { .l = l, .e = e, .r = r };
	uint64_t idx;
	int code;

	r->total_units += div_round_up(e->bytes, e->grain_bytes);
	code = add_headers(&c, err);
	for (idx = 0; idx < e->gd_entries && code >= 0; idx++)
		code = visit_directory_entry(&c, idx, err);
	if (code >= 0)
		code = visit_tables(&c, err);
	if (code >= 0)
		look_at_areas(&c);
	return code;
}

/* Is the file of extent @i that of no other? */
static bool has_own_file(const struct vmdk_state *s, size_t i)
{
	size_t k;

	if (s->n_extents != s->d.n_lines || s->n_extents > CHECK_NAMES_MAX)
		return false;
	for (k = 0; k < s->d.n_lines; k++)
		if (k != i && s->d.lines[k].name &&
		    !strcmp(s->d.lines[k].name, s->d.lines[i].name))
			return false;
	return true;
}

/* Whole sectors of a flat file that its one extent lacks: a size lost them. */
static void check_flat_rest(const struct vmdk_state *s, size_t i,
			    struct checker *c)
{
	const struct vmdk_extent *e = &s->extents[i];
	uint64_t end = e->host_off + e->bytes;

	if (e->src->bytes - end < VMDK_SECTOR_BYTES || !has_own_file(s, i))
		return;
	c->r->leaks++;
	say(c,
	    "no extent has what lies behind %" PRIu64
	    " in a flat file of %" PRIu64 " bytes",
	    end, e->src->bytes);
}

static void check_flat(struct layer *l, size_t i, struct check_report *r)
{
	const struct vmdk_state *s = l->state;
	const struct vmdk_extent *e = &s->extents[i];
	struct checker c = { .l = l, .e = e, .r = r };

	if (range_inside(e->host_off, e->bytes, e->src->bytes)) {
		check_flat_rest(s, i, &c);
		return;
	}
	r->corruptions++;
	say(&c,
	    "flat extent of %" PRIu64 " bytes at %" PRIu64
	    " ends past its file's %" PRIu64 " bytes",
	    e->bytes, e->host_off, e->src->bytes);
}

/* All makers end a descriptor with its data base. */
static void check_descriptor(struct layer *l, struct check_report *r)
{
	const struct vmdk_state *s = l->state;
	struct checker c = { .l = l, .r = r };

	if (s->bare || s->d.n_ddb)
		return;
	r->corruptions++;
	say(&c, "descriptor has no disk data base: its end may be lost");
}

int vmdk_check(struct layer *l, struct check_report *r, struct error *err)
{
	const struct vmdk_state *s = l->state;
	size_t i;
	int code = 0;

	check_descriptor(l, r);
	for (i = 0; i < s->n_extents && code >= 0; i++) {
		const struct vmdk_extent *e = &s->extents[i];

		if (e->kind == VMDK_KIND_FLAT)
			check_flat(l, i, r);
		else if (e->kind != VMDK_KIND_ZERO)
			code = check_sparse(l, e, r, err);
	}
	return code;
}
