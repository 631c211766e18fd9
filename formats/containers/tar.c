/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tar: POSIX.1-1988 ustar, pax (POSIX.1-2001) and GNU's long names and sizes of
 * base 256. Only headers are read; a member's bytes are a window.
 *
 *	block of 512 bytes: name 0 (100), size 124 (12), checksum 148 (8),
 *	type 156, magic 257 ("ustar"), prefix 345 (155); then the data, padded
 *	to a block; two blocks of zeroes, or the file's end, are the end
 *
 * Sparse files are stored without their holes, in four ways that say where the
 * runs of data lie (GNU tar's manual, "Storing Sparse Files"): old GNU's in the
 * header and blocks behind it, pax 0.0, 0.1 in records, pax 1.0 before the data.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/containers/container.h"
#include "formats/meta-cache.h"
#include "iouring/util.h"

#define BLOCK		 512U
#define SIZE_AT		 124U
#define SIZE_BYTES	 12U
#define SUM_AT		 148U
#define SUM_BYTES	 8U
#define TYPE_AT		 156U
#define MAGIC_AT	 257U
#define PREFIX_AT	 345U
#define NAME_BYTES	 100U
#define PREFIX_BYTES	 155U
#define EXTENDED_MAX	 (1U << 20) /* bytes of a pax header, or of a long name */
/* Old GNU's sparse map: of pairs of an offset and a length. */
#define SPARSE_AT	 386U
#define SPARSE_N	 4U
#define SPARSE_MORE_AT	 482U
#define SPARSE_BYTES_AT	 483U
#define SPARSE_NEXT_N	 21U
#define SPARSE_NEXT_MORE 504U

/* Runs of data of a sparse file, as they are found. */
struct runs {
	struct member_run *all;
	size_t n, room;
	uint64_t at; /* of one whose length is yet to come */
	bool half;
};

/* What headers before a member's own say of it. */
struct extended {
	char *name; /* NULL: nothing */
	bool has_bytes, has_real;
	uint64_t bytes, real_bytes; /* stored; with its holes */
	bool sparse;
	unsigned int sparse_major; /* 1: the map is before the data */
	struct runs runs;
};

struct walk {
	struct container *c;
	uint64_t at;
	uint8_t head[BLOCK];
	struct extended next; /* of the next member */
	struct error *err;
};

static void forget(struct extended *x)
{
	free(x->name);
	free(x->runs.all);
	*x = (struct extended){ 0 };
}

/* ---- numbers ---- */

/* Digits of base 8 between spaces and NULs; false: it is no number. */
static bool take_octal(const uint8_t *p, size_t n, uint64_t *ret)
{
	uint64_t v = 0;
	size_t i = 0;

	while (i < n && p[i] == ' ')
		i++;
	for (; i < n && p[i] >= '0' && p[i] <= '7'; i++)
		v = v << 3 | (uint64_t)(p[i] - '0');
	for (; i < n; i++)
		if (p[i] && p[i] != ' ')
			return false;
	*ret = v;
	return true;
}

/* Of base 8 or, with the first bit, of base 256; at most INT64_MAX. */
static bool take_size(const uint8_t *p, uint64_t *ret)
{
	uint64_t v = 0;
	size_t i;

	if (!(p[0] & 0x80))
		return take_octal(p, SIZE_BYTES, ret);
	for (i = 1; i < SIZE_BYTES - 8; i++)
		if (p[i])
			return false;
	for (i = SIZE_BYTES - 8; i < SIZE_BYTES; i++)
		v = v << 8 | p[i];
	*ret = v;
	return p[0] == 0x80 && v <= INT64_MAX;
}

/* The sum of all bytes, its own field as spaces; once chars had signs. */
static bool sum_is_right(const uint8_t *head)
{
	uint64_t stated;
	int64_t sum = 0, old = 0;
	size_t i;

	for (i = 0; i < BLOCK; i++) {
		bool own = i >= SUM_AT && i < SUM_AT + SUM_BYTES;

		sum += own ? ' ' : head[i];
		old += own ? ' ' : (int8_t)head[i];
	}
	return take_octal(head + SUM_AT, SUM_BYTES, &stated) &&
	       ((int64_t)stated == sum || (int64_t)stated == old);
}

static bool probe(const uint8_t *head, size_t bytes)
{
	return bytes >= BLOCK && !memcmp(head + MAGIC_AT, "ustar", 5) &&
	       sum_is_right(head);
}

/* ---- names ---- */

/* The field @p of @n bytes, which need not be ended. */
static size_t field_bytes(const uint8_t *p, size_t n)
{
	return strnlen((const char *)p, n);
}

/* Of the header alone. To be freed; NULL: no memory. */
static char *head_name(const uint8_t *head)
{
	size_t n = field_bytes(head, NAME_BYTES), prefix = 0;
	char *name;

	/* GNU's own headers, "ustar  ", have times in its place. */
	if (!memcmp(head + MAGIC_AT, "ustar\0", 6))
		prefix = field_bytes(head + PREFIX_AT, PREFIX_BYTES);
	if (asprintf(&name, "%.*s%s%.*s", (int)prefix, head + PREFIX_AT,
		     prefix ? "/" : "", (int)n, head) < 0)
		return NULL;
	return name;
}

static bool is_key(const char *key, size_t n, const char *name)
{
	return strlen(name) == n && !memcmp(key, name, n);
}

/* A number of digits, all of @n bytes. */
static bool take_decimal(const char *p, size_t n, uint64_t *ret)
{
	uint64_t v = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9' || v > INT64_MAX / 10 - 1)
			return false;
		v = v * 10 + (uint64_t)(p[i] - '0');
	}
	*ret = v;
	return n;
}

/* ---- sparse files ---- */

/* False: too many, or no memory. */
static bool add_run(struct runs *r, uint64_t at, uint64_t len)
{
	struct member_run *grown;

	if (r->n == r->room) {
		if (r->n >= MEMBERS_RUNS_MAX)
			return false;
		r->room = r->room ? 2 * r->room : 16;
		grown = reallocarray(r->all, r->room, sizeof(*grown));
		if (!grown)
			return false;
		r->all = grown;
	}
	r->all[r->n++] = (struct member_run){ at, len, 0 };
	return true;
}

/* The next number of a list of offsets and lengths. */
static bool add_number(struct runs *r, uint64_t v)
{
	r->half = !r->half;
	if (!r->half)
		return add_run(r, r->at, v);
	r->at = v;
	return true;
}

/* "0,512,4096,512" */
static bool take_map(struct runs *r, const char *p, size_t n)
{
	const char *comma;
	size_t digits;
	uint64_t v;

	while (n) {
		comma = memchr(p, ',', n);
		digits = comma ? (size_t)(comma - p) : n;
		if (!take_decimal(p, digits, &v) || !add_number(r, v))
			return false;
		digits += comma ? 1 : 0;
		p += digits;
		n -= digits;
	}
	return true;
}

static bool take_sparse_record(struct extended *x, const char *key,
			       size_t key_n, const char *value, size_t value_n)
{
	uint64_t v = 0;
	bool is_number = take_decimal(value, value_n, &v);

	x->sparse = true;
	if (is_key(key, key_n, "map"))
		return take_map(&x->runs, value, value_n);
	if (is_key(key, key_n, "offset") || is_key(key, key_n, "numbytes"))
		return is_number && add_number(&x->runs, v);
	if (is_key(key, key_n, "major"))
		x->sparse_major = (unsigned int)min_u64(v, 2);
	if (!is_key(key, key_n, "size") && !is_key(key, key_n, "realsize"))
		return true;
	x->has_real = true;
	x->real_bytes = v;
	return is_number;
}

/* One record of a pax header, "KEY=VALUE". False: it is wrong. */
static bool take_record(struct extended *x, const char *p, size_t n)
{
	const char *equals = memchr(p, '=', n), *value;
	size_t key_n, value_n;

	if (!equals)
		return false;
	key_n = (size_t)(equals - p);
	value = equals + 1;
	value_n = n - key_n - 1;
	if (is_key(p, key_n, "size")) {
		x->has_bytes = true;
		return take_decimal(value, value_n, &x->bytes);
	}
	if (key_n > 11 && !memcmp(p, "GNU.sparse.", 11) &&
	    !is_key(p, key_n, "GNU.sparse.name"))
		return take_sparse_record(x, p + 11, key_n - 11, value,
					  value_n);
	x->sparse |= is_key(p, key_n, "GNU.sparse.name");
	if (!is_key(p, key_n, "path") && !is_key(p, key_n, "GNU.sparse.name"))
		return true;
	if (memchr(value, 0, value_n))
		return false;
	/* A sparse file's own name, wherever it stands. */
	if (x->name && x->sparse && is_key(p, key_n, "path"))
		return true;
	free(x->name);
	x->name = strndup(value, value_n);
	return x->name;
}

/* "LENGTH KEY=VALUE\n", the length being that of all of it. */
static bool take_records(struct extended *x, const char *p, size_t n)
{
	while (n) {
		const char *blank = memchr(p, ' ', n);
		uint64_t len;
		size_t digits;

		if (!blank)
			return false;
		digits = (size_t)(blank - p);
		if (digits > 8 || !take_decimal(p, digits, &len) || len > n ||
		    len < digits + 2 || p[len - 1] != '\n' ||
		    !take_record(x, blank + 1, (size_t)len - digits - 2))
			return false;
		p += len;
		n -= (size_t)len;
	}
	return true;
}

/* ---- headers ---- */

static int damaged(const struct walk *w, const char *what)
{
	return error_set(w->err, -EBADMSG, w->at, "tar header: %s", what);
}

/* The data of an 'x' or 'L' header, @bytes behind it. */
static int take_extended(struct walk *w, uint8_t type, uint64_t bytes)
{
	CLEANUP(freep) char *data = NULL;
	int r;

	if (bytes > EXTENDED_MAX)
		return damaged(w, "an extended one has more than 1 MiB");
	data = calloc(1, (size_t)bytes + 1);
	if (!data)
		return error_set(w->err, -ENOMEM, 0, "out of memory");
	r = meta_cache_read(w->c->src, data, (size_t)bytes, w->at + BLOCK,
			    w->err);
	if (r < 0)
		return r;
	if (type == 'L') {
		free(w->next.name);
		w->next.name = strdup(data);
		return w->next.name
			       ? 0
			       : error_set(w->err, -ENOMEM, 0, "out of memory");
	}
	return take_records(&w->next, data, (size_t)bytes)
		       ? 0
		       : damaged(w, "a wrong record of pax");
}

static int add_member(struct walk *w, uint64_t bytes)
{
	CLEANUP(freep)
	char *name = w->next.name ? TAKE_PTR(w->next.name) : head_name(w->head);

	if (!name)
		return error_set(w->err, -ENOMEM, 0, "out of memory");
	return container_add(w->c,
			     &(struct member){ .name = name,
					       .off = w->at + BLOCK,
					       .bytes = bytes },
			     w->err);
}

/* A pair of old GNU's map; an empty one ends it, which *ret_end says. */
static bool take_old_run(struct runs *r, const uint8_t *p, bool *ret_end)
{
	uint64_t at, len;

	*ret_end = !p[0];
	return *ret_end ||
	       (take_size(p, &at) && take_size(p + SIZE_BYTES, &len) &&
		add_run(r, at, len));
}

static bool take_old_runs(struct runs *r, const uint8_t *p, size_t n)
{
	bool end = false, ok = true;

	for (; ok && !end && n; n--, p += 2 * SIZE_BYTES)
		ok = take_old_run(r, p, &end);
	return ok;
}

/* In the header, and in blocks behind it, of which *ret_bytes are. */
static int take_old_map(struct walk *w, uint64_t *ret_bytes)
{
	struct extended *x = &w->next;
	bool more = w->head[SPARSE_MORE_AT];
	uint8_t block[BLOCK];
	int r = 0;

	x->has_real = true;
	if (!take_size(w->head + SPARSE_BYTES_AT, &x->real_bytes) ||
	    !take_old_runs(&x->runs, w->head + SPARSE_AT, SPARSE_N))
		return damaged(w, "its sparse map is wrong");
	for (*ret_bytes = 0; more && r >= 0; more = block[SPARSE_NEXT_MORE]) {
		*ret_bytes += BLOCK;
		r = meta_cache_read(w->c->src, block, BLOCK, w->at + *ret_bytes,
				    w->err);
		if (r >= 0 && !take_old_runs(&x->runs, block, SPARSE_NEXT_N))
			return damaged(w, "its sparse map is wrong");
	}
	return r;
}

/* Of pax 1.0's map, a character at a time. */
struct map_text {
	uint64_t at, end; /* in the container */
	uint8_t block[BLOCK];
	size_t used;
};

/* A line's number. */
static int take_line(struct walk *w, struct map_text *t, uint64_t *ret)
{
	char digits[24];
	size_t n = 0;
	int r = 0;

	for (;;) {
		if (t->used == BLOCK) {
			if (t->end - t->at < BLOCK)
				break;
			r = meta_cache_read(w->c->src, t->block, BLOCK, t->at,
					    w->err);
			if (r < 0)
				return r;
			t->at += BLOCK;
			t->used = 0;
		}
		if (t->block[t->used] == '\n' || n == sizeof(digits))
			break;
		digits[n++] = (char)t->block[t->used++];
	}
	t->used += t->used < BLOCK;
	return take_decimal(digits, n, ret)
		       ? 0
		       : damaged(w, "its sparse map is wrong");
}

/* The first blocks of the @bytes that are stored, of which *ret_bytes are. */
static int take_map_before(struct walk *w, uint64_t bytes, uint64_t *ret_bytes)
{
	struct map_text t = { .at = w->at + BLOCK,
			      .end = w->at + BLOCK + bytes,
			      .used = BLOCK };
	uint64_t n = 0, i, v = 0;
	int r = take_line(w, &t, &n);

	if (r >= 0 && n > MEMBERS_RUNS_MAX)
		return damaged(w, "its sparse map has too many runs");
	for (i = 0; i < 2 * n && r >= 0; i++) {
		r = take_line(w, &t, &v);
		if (r >= 0 && !add_number(&w->next.runs, v))
			r = error_set(w->err, -ENOMEM, 0, "out of memory");
	}
	*ret_bytes = t.at - w->at - BLOCK;
	return r;
}

/* Where the runs lie: one behind the other, from @off on, in @bytes. */
static bool place_runs(struct extended *x, uint64_t off, uint64_t bytes)
{
	uint64_t end = 0, left = bytes;
	size_t i;

	for (i = 0; i < x->runs.n; i++) {
		struct member_run *r = &x->runs.all[i];

		if (r->at < end || r->len > left ||
		    !range_inside(r->at, r->len, x->real_bytes))
			return false;
		r->off = off + (bytes - left);
		left -= r->len;
		end = r->at + r->len;
	}
	return !x->runs.half && x->has_real;
}

/* @bytes: stored, maps before the data among them; *ret_map: those that are not. */
static int add_sparse(struct walk *w, uint64_t bytes, bool old,
		      uint64_t *ret_map)
{
	struct extended *x = &w->next;
	CLEANUP(freep) char *name = NULL;
	uint64_t before = 0, rest;
	int r = 0;

	*ret_map = 0;
	if (old)
		r = take_old_map(w, ret_map);
	else if (x->sparse_major == 1)
		r = take_map_before(w, bytes, &before);
	else if (x->sparse_major > 1)
		r = error_set(w->err, -ENOTSUP, w->at,
			      "tar header: sparse files of a version that is "
			      "not known");
	if (r < 0)
		return r;
	rest = w->c->src->bytes - w->at - BLOCK;
	if (*ret_map > rest || bytes > rest - *ret_map || before > bytes ||
	    !place_runs(x, w->at + BLOCK + *ret_map + before, bytes - before))
		return damaged(w, "its sparse map does not fit its data");
	name = x->name ? TAKE_PTR(x->name) : head_name(w->head);
	if (!name)
		return error_set(w->err, -ENOMEM, 0, "out of memory");
	return container_add(w->c,
			     &(struct member){ .name = name,
					       .off = w->at + BLOCK,
					       .bytes = x->real_bytes,
					       .runs = TAKE_PTR(x->runs.all),
					       .n_runs = x->runs.n,
					       .sparse = true },
			     w->err);
}

/* Does a header of this type have data behind it? Links, devices, folders do not. */
static bool has_data(uint8_t type)
{
	return type < '1' || type > '6';
}

/* The header at w->at, and where the next one is. */
static int take_header(struct walk *w)
{
	uint8_t type = w->head[TYPE_AT];
	uint64_t bytes, rest, map = 0;
	int r = 0;

	if (!sum_is_right(w->head))
		return damaged(w, "its checksum is wrong");
	if (!take_size(w->head + SIZE_AT, &bytes))
		return damaged(w, "its size is no number");
	if (type != 'x' && type != 'L' && type != 'K' && type != 'g' &&
	    w->next.has_bytes)
		bytes = w->next.bytes;
	if (!has_data(type))
		bytes = 0;
	rest = w->c->src->bytes - w->at - BLOCK;
	if (bytes > rest)
		return damaged(w, "its member ends behind the file's end");
	switch (type) {
	case 'x':
	case 'L':
		r = take_extended(w, type, bytes);
		break;
	case 'g':
	case 'K':
		break;
	case 'M':
		return damaged(w, "it goes on from another volume");
	case 0:
	case '0':
	case '7':
	case 'S':
		r = type == 'S' || w->next.sparse
			    ? add_sparse(w, bytes, type == 'S', &map)
			    : add_member(w, bytes);
		forget(&w->next);
		break;
	default:
		forget(&w->next);
		break;
	}
	w->at += BLOCK + min_u64(map + round_up(bytes, BLOCK), rest);
	return r;
}

static bool is_zero(const uint8_t *block)
{
	return !block[0] && !memcmp(block, block + 1, BLOCK - 1);
}

static int list(struct container *c, struct error *err)
{
	struct walk w = { .c = c, .err = err };
	int r = 0;

	while (r >= 0 && c->src->bytes - w.at >= BLOCK) {
		r = meta_cache_read(c->src, w.head, BLOCK, w.at, err);
		if (r < 0 || is_zero(w.head))
			break;
		r = take_header(&w);
	}
	forget(&w.next);
	return r;
}

const struct container_ops container_tar = {
	.name = "tar",
	.what = "a tar archive",
	.probe = probe,
	.list = list,
};
