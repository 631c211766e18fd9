/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "formats/drivers/unit-check.h"

/* Lines; findings beyond are only counted. */
#define CHECK_LINES_MAX 65536U

void unit_check_done(struct unit_check *k)
{
	free(k->claims);
	k->claims = NULL;
}

PRINTF(2, 0)
static void tell_corrupt(struct check_report *r, const char *fmt, va_list ap)
{
	char line[ERROR_MSG_BYTES];

	if (r->corruptions++ >= CHECK_LINES_MAX)
		return;
	vsnprintf(line, sizeof(line), fmt, ap);
	r->say(r, line);
}

void report_corrupt(struct check_report *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell_corrupt(r, fmt, ap);
	va_end(ap);
}

void unit_check_corrupt(struct unit_check *k, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell_corrupt(k->r, fmt, ap);
	va_end(ap);
}

int unit_check_claim(struct unit_check *k, uint64_t off, uint64_t bytes)
{
	struct claim *last = k->n ? &k->claims[k->n - 1] : NULL, *grown;
	size_t room;

	if (off >= k->src->bytes || !bytes)
		return 0;
	bytes = min_u64(bytes, k->src->bytes - off);
	if (last && last->off + last->bytes == off) {
		last->bytes += bytes;
		return 0;
	}
	if (k->n == CHECK_CLAIMS_MAX)
		return error_set(k->err, -EFBIG, 0,
				 "is in more than %u pieces, which is over the "
				 "limit of check",
				 CHECK_CLAIMS_MAX);
	if (!k->claims || k->n == k->room) {
		room = k->room ? 2 * k->room : 64;
		grown = reallocarray(k->claims, room, sizeof(*grown));
		if (!grown)
			return error_set(k->err, -ENOMEM, 0, "out of memory");
		k->claims = grown;
		k->room = room;
	}
	k->claims[k->n++] = (struct claim){ .off = off, .bytes = bytes };
	return 0;
}

struct walk {
	struct unit_check *k;
	const struct unit_table *t;
};

static uint64_t unit_of(const struct walk *w, uint64_t idx)
{
	return w->t->first_unit + idx;
}

/* What of the unit is in the disk: the rest need not be in the file. */
static uint64_t used_bytes(const struct walk *w, uint64_t idx)
{
	uint64_t bytes = w->k->l->bytes, off;

	if (__builtin_mul_overflow(unit_of(w, idx), w->t->unit_bytes, &off) ||
	    off >= bytes)
		return 0;
	return min_u64(w->t->unit_bytes, bytes - off);
}

static int take_data(struct walk *w, uint64_t idx, const struct unit_place *p)
{
	struct unit_check *k = w->k;
	uint64_t before = w->t->stride - w->t->unit_bytes;
	uint64_t end = w->t->data->bytes;

	if (p->host_off >= end) {
		unit_check_corrupt(k,
				   "%s %" PRIu64 " of the disk: at %" PRIu64
				   ", behind the file's end at %" PRIu64,
				   k->unit, unit_of(w, idx), p->host_off, end);
		return 0;
	}
	if (used_bytes(w, idx) > end - p->host_off)
		unit_check_corrupt(k,
				   "%s %" PRIu64 " of the disk: at %" PRIu64
				   ", is cut off by the file's end at %" PRIu64,
				   k->unit, unit_of(w, idx), p->host_off, end);
	k->r->allocated_units++;
	if (k->prev_end && p->host_off - before != k->prev_end)
		k->r->fragmented_units++;
	k->prev_end = p->host_off + w->t->unit_bytes;
	return unit_check_claim(k, p->host_off - before, w->t->stride);
}

static int take_entry(void *opaque, uint64_t idx, const struct unit_place *p,
		      int r, const struct error *err)
{
	struct walk *w = opaque;

	if (r < 0) {
		unit_check_corrupt(w->k, "%s %" PRIu64 " of the disk: %s",
				   w->k->unit, unit_of(w, idx), err->msg);
		return 0;
	}
	/* The size is not what it was. */
	if (p->kind != EXTENT_HOLE && !used_bytes(w, idx) &&
	    !w->k->behind_is_fine)
		unit_check_corrupt(w->k,
				   "%s %" PRIu64
				   " lies behind the disk's end at %" PRIu64,
				   w->k->unit, unit_of(w, idx), w->k->l->bytes);
	if (p->kind == EXTENT_DATA)
		return take_data(w, idx, p);
	if (p->kind == EXTENT_COMPRESSED) {
		w->k->r->allocated_units++;
		w->k->r->compressed_units++;
		return unit_check_claim(w->k, p->host_off, p->comp_bytes);
	}
	return 0;
}

int unit_check_table(struct unit_check *k, const struct unit_table *t,
		     uint64_t entries)
{
	struct walk w = { .k = k, .t = t };

	if (entries > CHECK_ENTRIES_MAX - k->entries)
		return error_set(k->err, -EFBIG, 0,
				 "has more than %u table entries, which is "
				 "over the limit of check",
				 CHECK_ENTRIES_MAX);
	k->entries += entries;
	return unit_table_walk(k->l, t, entries, take_entry, &w);
}

static int by_off(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;

	return (x->off > y->off) - (x->off < y->off);
}

static void count_leak(struct unit_check *k, uint64_t off, uint64_t end)
{
	uint64_t units = end > off ? (end - off) / k->unit_bytes : 0;
	char line[128];

	if (!units)
		return;
	k->r->leaks += units;
	snprintf(line, sizeof(line),
		 "%" PRIu64 " %ss at %" PRIu64 " are leaked", units, k->unit,
		 off);
	k->r->say(k->r, line);
}

void unit_check_finish(struct unit_check *k, uint64_t data_off)
{
	uint64_t end = 0, overlap;
	size_t i;

	if (k->n)
		qsort(k->claims, k->n, sizeof(*k->claims), by_off);
	for (i = 0; i < k->n; i++) {
		const struct claim *c = &k->claims[i];

		if (c->off < end) {
			overlap = min_u64(end - c->off, c->bytes);
			unit_check_corrupt(k,
					   "%" PRIu64 " bytes at %" PRIu64
					   " are used twice",
					   overlap, c->off);
			k->r->corruptions +=
				div_round_up(overlap, k->unit_bytes) - 1;
		}
		count_leak(k, max_u64(end, data_off), c->off);
		end = max_u64(end, c->off + c->bytes);
	}
	count_leak(k, max_u64(end, data_off), k->src->bytes);
	k->r->image_end_off = end;
	k->r->total_units = div_round_up(k->l->bytes, k->unit_bytes);
}
