/* SPDX-License-Identifier: BSD-3-Clause */
/*
 *	block of 512 bytes: name 0 (100), mode 100 (8), uid 108 (8), gid 116 (8),
 *	size 124 (12), mtime 136 (12), checksum 148 (8), type 156, link 157 (100),
 *	magic 257 ("ustar"), major 329 (8), minor 337 (8), prefix 345 (155); then
 *	the data, padded to a block; two blocks of zeroes, or the file's end, are
 *	the end
 *
 * Sparse files are stored without their holes, in four ways that say where the
 * runs of data lie (GNU tar's manual, "Storing Sparse Files"): old GNU's in the
 * header and blocks behind it, pax 0.0, 0.1 in records, pax 1.0 before the data.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/containers/tar.h"
#include "formats/meta-cache.h"
#include "iouring/util.h"

#define BLOCK		 512U
#define MODE_AT		 100U
#define UID_AT		 108U
#define GID_AT		 116U
#define SHORT_BYTES	 8U /* of all numbers but the next two */
#define MTIME_AT	 136U
#define LINK_AT		 157U
#define MAJOR_AT	 329U
#define MINOR_AT	 337U
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
	char *link;
	bool has_uid, has_gid, has_mtime;
	uint64_t uid, gid;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	struct tar_xattr *xattrs;
	size_t n_xattrs;
};

struct walk {
	struct source *src;
	int (*each)(void *opaque, struct tar_entry *e, struct error *err);
	void *opaque;
	uint64_t at;
	uint8_t head[BLOCK];
	struct extended next; /* of the next member */
	struct error *err;
};

static void forget(struct extended *x)
{
	size_t i;

	free(x->name);
	free(x->link);
	free(x->runs.all);
	for (i = 0; i < x->n_xattrs; i++) {
		free(x->xattrs[i].name);
		free(x->xattrs[i].value);
	}
	free(x->xattrs);
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

/* Of base 8 or, with the first bit, of base 256; at most INT64_MAX. @n >= 8. */
static bool take_number(const uint8_t *p, size_t n, uint64_t *ret)
{
	uint64_t v = 0;
	size_t i;

	if (!(p[0] & 0x80))
		return take_octal(p, n, ret);
	v = p[0] & 0x7f;
	for (i = 1; i < n; i++) {
		if (v > INT64_MAX >> 8)
			return false;
		v = v << 8 | p[i];
	}
	*ret = v;
	return true;
}

static bool take_size(const uint8_t *p, uint64_t *ret)
{
	return take_number(p, SIZE_BYTES, ret);
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

bool tar_probe(const uint8_t *head, size_t bytes)
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

/* ---- owners, times, attributes ---- */

static bool add_xattr(struct extended *x, const char *name, size_t name_n,
		      const char *value, size_t n)
{
	struct tar_xattr *grown;

	if (!name_n || memchr(name, 0, name_n) || x->n_xattrs == TAR_XATTRS_MAX)
		return false;
	grown = reallocarray(x->xattrs, x->n_xattrs + 1, sizeof(*grown));
	if (!grown)
		return false;
	x->xattrs = grown;
	grown += x->n_xattrs++;
	*grown = (struct tar_xattr){ .name = strndup(name, name_n),
				     .value = malloc(n + 1),
				     .bytes = n };
	if (grown->value)
		memcpy(grown->value, value, n);
	return grown->name && grown->value;
}

/* "-1.25": seconds, rounded down, and what is left. */
static bool take_time(struct extended *x, const char *p, size_t n)
{
	bool negative = n && *p == '-';
	const char *dot = memchr(p, '.', n);
	size_t whole = dot ? (size_t)(dot - p) : n, i;
	uint32_t unit = 100000000;
	uint64_t sec;

	if (!take_decimal(p + negative, whole - negative, &sec))
		return false;
	for (i = whole + 1; i < n; i++, unit /= 10) {
		if (p[i] < '0' || p[i] > '9')
			return false;
		x->mtime_nsec += (uint32_t)(p[i] - '0') * unit;
	}
	x->has_mtime = true;
	x->mtime_sec = negative ? -(int64_t)sec : (int64_t)sec;
	if (negative && x->mtime_nsec) {
		x->mtime_sec--;
		x->mtime_nsec = 1000000000 - x->mtime_nsec;
	}
	return true;
}

static bool take_owner_record(struct extended *x, const char *key, size_t key_n,
			      const char *value, size_t value_n)
{
	static const char xattr[] = "SCHILY.xattr.";
	const size_t xattr_n = sizeof(xattr) - 1;

	if (is_key(key, key_n, "linkpath")) {
		free(x->link);
		x->link = memchr(value, 0, value_n) ? NULL
						    : strndup(value, value_n);
		return x->link;
	}
	if (is_key(key, key_n, "mtime"))
		return take_time(x, value, value_n);
	if (key_n > xattr_n && !memcmp(key, xattr, xattr_n))
		return add_xattr(x, key + xattr_n, key_n - xattr_n, value,
				 value_n);
	if (is_key(key, key_n, "uid")) {
		x->has_uid = true;
		return take_decimal(value, value_n, &x->uid);
	}
	if (!is_key(key, key_n, "gid"))
		return true;
	x->has_gid = true;
	return take_decimal(value, value_n, &x->gid);
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
		return take_owner_record(x, p, key_n, value, value_n);
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

/* The data of an 'x', 'L' or 'K' header, @bytes behind it. */
static int take_extended(struct walk *w, uint8_t type, uint64_t bytes)
{
	CLEANUP(freep) char *data = NULL;
	int r;

	if (bytes > EXTENDED_MAX)
		return damaged(w, "an extended one has more than 1 MiB");
	data = calloc(1, (size_t)bytes + 1);
	if (!data)
		return error_set(w->err, -ENOMEM, 0, "out of memory");
	r = meta_cache_read(w->src, data, (size_t)bytes, w->at + BLOCK, w->err);
	if (r < 0)
		return r;
	if (type == 'L' || type == 'K') {
		char **to = type == 'L' ? &w->next.name : &w->next.link;

		free(*to);
		*to = strdup(data);
		return *to ? 0 : error_set(w->err, -ENOMEM, 0, "out of memory");
	}
	return take_records(&w->next, data, (size_t)bytes)
		       ? 0
		       : damaged(w, "a wrong record of pax");
}

/* What the header says beside name and size; false: a number is none. */
static bool take_owner(const struct walk *w, struct tar_entry *e)
{
	const struct extended *x = &w->next;
	uint64_t mode = 0, uid = 0, gid = 0, mtime = 0, major = 0, minor = 0;
	bool ok = take_number(w->head + MODE_AT, SHORT_BYTES, &mode) &&
		  take_number(w->head + UID_AT, SHORT_BYTES, &uid) &&
		  take_number(w->head + GID_AT, SHORT_BYTES, &gid) &&
		  take_number(w->head + MTIME_AT, SIZE_BYTES, &mtime);

	if (e->type == TAR_CHAR_DEVICE || e->type == TAR_BLOCK_DEVICE)
		ok = ok &&
		     take_number(w->head + MAJOR_AT, SHORT_BYTES, &major) &&
		     take_number(w->head + MINOR_AT, SHORT_BYTES, &minor);
	uid = x->has_uid ? x->uid : uid;
	gid = x->has_gid ? x->gid : gid;
	e->mode = (uint32_t)mode & 07777;
	e->uid = (uint32_t)uid;
	e->gid = (uint32_t)gid;
	e->major = (uint32_t)major;
	e->minor = (uint32_t)minor;
	e->mtime_sec = x->has_mtime ? x->mtime_sec : (int64_t)mtime;
	e->mtime_nsec = x->mtime_nsec;
	return ok && uid <= UINT32_MAX && gid <= UINT32_MAX &&
	       major <= UINT32_MAX && minor <= UINT32_MAX;
}

/* Of the header alone. To be freed. */
static char *head_link(const uint8_t *head)
{
	return strndup((const char *)head + LINK_AT,
		       field_bytes(head + LINK_AT, NAME_BYTES));
}

/* With what is known of it; its type and data are set. */
static int tell(struct walk *w, struct tar_entry *e)
{
	struct extended *x = &w->next;
	bool is_link = e->type == TAR_HARD_LINK || e->type == TAR_SYMLINK;
	int r;

	if (!x->name)
		x->name = head_name(w->head);
	if (is_link && !x->link)
		x->link = head_link(w->head);
	if (!x->name || (is_link && !x->link))
		return error_set(w->err, -ENOMEM, 0, "out of memory");
	e->name = x->name;
	e->link = is_link ? x->link : NULL;
	e->xattrs = x->xattrs;
	e->n_xattrs = x->n_xattrs;
	e->has_owner = take_owner(w, e); /* who makes files of them asks */
	r = w->each(w->opaque, e, w->err);
	x->xattrs = e->xattrs; /* unless they were taken */
	x->n_xattrs = e->n_xattrs;
	return r;
}

static int tell_file(struct walk *w, uint64_t bytes)
{
	struct tar_entry e = { .type = TAR_FILE,
			       .off = w->at + BLOCK,
			       .bytes = bytes };

	return tell(w, &e);
}

static int tell_other(struct walk *w, uint8_t type)
{
	struct tar_entry e = { .type = (enum tar_type)type };

	return tell(w, &e);
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
		r = meta_cache_read(w->src, block, BLOCK, w->at + *ret_bytes,
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
			r = meta_cache_read(w->src, t->block, BLOCK, t->at,
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
static int tell_sparse(struct walk *w, uint64_t bytes, bool old,
		       uint64_t *ret_map)
{
	struct extended *x = &w->next;
	struct tar_entry e = { .type = TAR_FILE, .sparse = true };
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
	rest = w->src->bytes - w->at - BLOCK;
	if (*ret_map > rest || bytes > rest - *ret_map || before > bytes ||
	    !place_runs(x, w->at + BLOCK + *ret_map + before, bytes - before))
		return damaged(w, "its sparse map does not fit its data");
	e.off = w->at + BLOCK;
	e.bytes = x->real_bytes;
	e.runs = TAKE_PTR(x->runs.all);
	e.n_runs = x->runs.n;
	r = tell(w, &e);
	free(e.runs);
	return r;
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
	rest = w->src->bytes - w->at - BLOCK;
	if (bytes > rest)
		return damaged(w, "its member ends behind the file's end");
	switch (type) {
	case 'x':
	case 'L':
	case 'K':
		r = take_extended(w, type, bytes);
		break;
	case 'g':
		break;
	case 'M':
		return damaged(w, "it goes on from another volume");
	case 0:
	case '0':
	case '7':
	case 'S':
		r = type == 'S' || w->next.sparse
			    ? tell_sparse(w, bytes, type == 'S', &map)
			    : tell_file(w, bytes);
		forget(&w->next);
		break;
	default:
		r = type >= TAR_HARD_LINK && type <= TAR_FIFO
			    ? tell_other(w, type)
			    : 0;
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

int tar_each(struct source *src,
	     int (*each)(void *opaque, struct tar_entry *e, struct error *err),
	     void *opaque, struct error *err)
{
	struct walk w = {
		.src = src, .each = each, .opaque = opaque, .err = err
	};
	int r = 0;

	while (!r && src->bytes - w.at >= BLOCK) {
		r = meta_cache_read(src, w.head, BLOCK, w.at, err);
		if (r < 0 || is_zero(w.head))
			break;
		r = take_header(&w);
	}
	forget(&w.next);
	return r;
}
