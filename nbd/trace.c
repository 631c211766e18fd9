/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/trace.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "iouring/util.h"

/* Units of a recorder: as many as it has places, less a half. */
#define PLACES	  (1U << 18) /* a power of two; of 32 KiB: 4 GiB are noted */
#define UNITS_MAX (PLACES / 2)

void trace_done(struct trace *t)
{
	free(t->ranges);
	*t = (struct trace){ 0 };
}

/* ---- the file ---- */

/* One line of it, without its end. */
struct line {
	const char *at;
	size_t len;
};

/* false: there are none left. */
static bool take_line(const char **text, const char *end, struct line *ret)
{
	const char *nl;

	while (*text < end) {
		nl = memchr(*text, '\n', (size_t)(end - *text));
		*ret = (struct line){ *text,
				      (size_t)((nl ? nl : end) - *text) };
		*text = nl ? nl + 1 : end;
		if (ret->len && ret->at[ret->len - 1] == '\r')
			ret->len--;
		if (ret->len && *ret->at != '#')
			return true;
	}
	return false;
}

static bool take_number(struct line *l, uint64_t *ret)
{
	uint64_t v = 0;
	size_t i;

	for (i = 0; i < l->len && isdigit((unsigned char)l->at[i]); i++) {
		if (v > (UINT64_MAX - 9) / 10)
			return false;
		v = v * 10 + (uint64_t)(l->at[i] - '0');
	}
	l->at += i;
	l->len -= i;
	*ret = v;
	return i;
}

static bool take_word(struct line *l, const char *word)
{
	size_t len = strlen(word);

	if (l->len < len || memcmp(l->at, word, len) != 0)
		return false;
	l->at += len;
	l->len -= len;
	return true;
}

static int parse_head(const char **text, const char *end, uint64_t *ret,
		      struct error *err)
{
	struct line l;

	if (!take_line(text, end, &l) || !take_word(&l, TRACE_MAGIC) || l.len)
		return error_set(
			err, -EBADMSG, 0,
			"is no trace: its first line is not \"" TRACE_MAGIC
			"\"");
	if (!take_line(text, end, &l) || !take_word(&l, "bytes ") ||
	    !take_number(&l, ret) || l.len)
		return error_set(err, -EBADMSG, 0,
				 "is no trace: it does not say how many bytes "
				 "the disk has");
	return 0;
}

static bool parse_range(struct line *l, uint64_t bytes, struct trace_range *ret)
{
	return take_number(l, &ret->off) && take_word(l, " ") &&
	       take_number(l, &ret->len) && !l->len && ret->len &&
	       ret->off < bytes && ret->len <= bytes - ret->off;
}

static int parse_ranges(const char *text, const char *end, struct trace *t,
			struct error *err)
{
	struct line l;

	while (take_line(&text, end, &l)) {
		if (t->n == TRACE_RANGES_MAX)
			return error_set(err, -EFBIG, 0, "has over %u ranges",
					 TRACE_RANGES_MAX);
		if (!parse_range(&l, t->bytes, &t->ranges[t->n++]))
			return error_set(err, -EBADMSG, 0,
					 "range %zu is not \"OFFSET LENGTH\" "
					 "inside the disk's %" PRIu64 " bytes",
					 t->n, t->bytes);
	}
	return 0;
}

int trace_parse(const char *text, size_t len, struct trace *ret,
		struct error *err)
{
	struct trace t = { 0 };
	const char *end = text + len;
	int r = parse_head(&text, end, &t.bytes, err);

	if (r < 0)
		return r;
	t.ranges = calloc(TRACE_RANGES_MAX, sizeof(*t.ranges));
	r = t.ranges ? parse_ranges(text, end, &t, err)
		     : error_set(err, -ENOMEM, 0, "out of memory");
	if (r < 0)
		trace_done(&t);
	else
		*ret = t;
	return r;
}

void trace_write(const struct trace *t, FILE *fp)
{
	size_t i;

	fprintf(fp, TRACE_MAGIC "\nbytes %" PRIu64 "\n", t->bytes);
	for (i = 0; i < t->n; i++)
		fprintf(fp, "%" PRIu64 " %" PRIu64 "\n", t->ranges[i].off,
			t->ranges[i].len);
}

/* ---- recording ---- */

/* The units that were read: a hash of their numbers, and their order. */
struct trace_recorder {
	uint64_t bytes;
	pthread_mutex_t lock;
	uint64_t *places; /* number + 1; 0: free */
	uint64_t *units;
	size_t n;
	bool full;
};

struct trace_recorder *trace_recorder_new(uint64_t bytes)
{
	struct trace_recorder *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->bytes = bytes;
	pthread_mutex_init(&r->lock, NULL);
	r->places = calloc(PLACES, sizeof(*r->places));
	r->units = calloc(UNITS_MAX, sizeof(*r->units));
	if (r->places && r->units)
		return r;
	trace_recorder_free(r);
	return NULL;
}

void trace_recorder_free(struct trace_recorder *r)
{
	if (!r)
		return;
	pthread_mutex_destroy(&r->lock);
	free(r->places);
	free(r->units);
	free(r);
}

/* Under the lock. */
static void note_unit(struct trace_recorder *r, uint64_t unit)
{
	size_t i = (size_t)(unit * 0x9e3779b97f4a7c15ULL >> 40) % PLACES;

	while (r->places[i] && r->places[i] != unit + 1)
		i = (i + 1) % PLACES;
	if (r->places[i])
		return;
	r->full |= r->n == UNITS_MAX;
	if (r->full)
		return;
	r->places[i] = unit + 1;
	r->units[r->n++] = unit;
}

void trace_note(struct trace_recorder *r, uint64_t off, uint64_t len)
{
	uint64_t unit = off / TRACE_UNIT_BYTES;

	pthread_mutex_lock(&r->lock);
	for (; len && unit <= (off + len - 1) / TRACE_UNIT_BYTES; unit++)
		note_unit(r, unit);
	pthread_mutex_unlock(&r->lock);
}

/* Under the lock. false: there is no place for it. */
static bool add_unit(const struct trace_recorder *r, uint64_t unit,
		     struct trace *t)
{
	struct trace_range *last = t->n ? &t->ranges[t->n - 1] : NULL;
	uint64_t off = unit * TRACE_UNIT_BYTES;
	uint64_t len = min_u64(TRACE_UNIT_BYTES, r->bytes - off);

	if (last && last->off + last->len == off) {
		last->len += len;
		return true;
	}
	if (t->n == TRACE_RANGES_MAX)
		return false;
	t->ranges[t->n++] = (struct trace_range){ off, len };
	return true;
}

bool trace_take(struct trace_recorder *r, struct trace *ret, bool *ret_full)
{
	struct trace t = { .bytes = r->bytes };
	size_t i;

	t.ranges = calloc(TRACE_RANGES_MAX, sizeof(*t.ranges));
	if (!t.ranges)
		return false;
	pthread_mutex_lock(&r->lock);
	*ret_full = r->full;
	for (i = 0; i < r->n; i++)
		*ret_full |= !add_unit(r, r->units[i], &t);
	pthread_mutex_unlock(&r->lock);
	*ret = t;
	return true;
}
