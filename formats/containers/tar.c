/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tar: POSIX.1-1988 ustar, pax (POSIX.1-2001) and GNU's long names and sizes of
 * base 256. Only headers are read; a member's bytes are a window.
 *
 *	block of 512 bytes: name 0 (100), size 124 (12), checksum 148 (8),
 *	type 156, magic 257 ("ustar"), prefix 345 (155); then the data, padded
 *	to a block; two blocks of zeroes, or the file's end, are the end
 *
 * Sparse files of GNU tar are listed, and cannot be read.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/containers/container.h"
#include "formats/meta-cache.h"
#include "iouring/util.h"

#define BLOCK	     512U
#define SIZE_AT	     124U
#define SIZE_BYTES   12U
#define SUM_AT	     148U
#define SUM_BYTES    8U
#define TYPE_AT	     156U
#define MAGIC_AT     257U
#define PREFIX_AT    345U
#define NAME_BYTES   100U
#define PREFIX_BYTES 155U
#define EXTENDED_MAX (1U << 20) /* bytes of a pax header, or of a long name */
#define SPARSE	     "is stored as a sparse file, which cannot be served in place"

/* What headers before a member's own say of it. */
struct extended {
	char *name; /* NULL: nothing */
	bool has_bytes;
	uint64_t bytes;
	bool sparse;
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
	if (key_n > 11 && !memcmp(p, "GNU.sparse.", 11))
		x->sparse = true;
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

static int add_member(struct walk *w, uint64_t bytes, bool sparse)
{
	CLEANUP(freep)
	char *name = w->next.name ? TAKE_PTR(w->next.name) : head_name(w->head);

	if (!name)
		return error_set(w->err, -ENOMEM, 0, "out of memory");
	return container_add(w->c, name, w->at + BLOCK, bytes,
			     sparse || w->next.sparse ? SPARSE : NULL, w->err);
}

/* Does a header of this type have data behind it? Links, devices, folders do not. */
static bool has_data(uint8_t type)
{
	return type < '1' || type > '6';
}

/* An old GNU sparse member's map may go on in blocks behind its header. */
static int skip_sparse_map(struct walk *w)
{
	bool more = w->head[482];
	int r = 0;

	while (more && r >= 0) {
		w->at += BLOCK;
		r = meta_cache_read(w->c->src, w->head, BLOCK, w->at, w->err);
		more = r >= 0 && w->head[504];
	}
	return r;
}

/* The header at w->at, and where the next one is. */
static int take_header(struct walk *w)
{
	uint8_t type = w->head[TYPE_AT];
	uint64_t bytes, rest;
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
		r = add_member(w, bytes, type == 'S');
		if (r >= 0 && type == 'S')
			r = skip_sparse_map(w);
		forget(&w->next);
		break;
	default:
		forget(&w->next);
		break;
	}
	/* A sparse member's map is inside the file, but its data need not be. */
	rest = w->c->src->bytes - w->at - BLOCK;
	w->at += BLOCK + min_u64(round_up(bytes, BLOCK), rest);
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
