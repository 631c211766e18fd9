/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/text.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "iouring/util.h"

const char *text_bytes(char ret[TEXT_BYTES_MAX], uint64_t bytes)
{
	static const char *const units[] = { "KiB", "MiB", "GiB",
					     "TiB", "PiB", "EiB" };
	double v = (double)bytes;
	unsigned int u = 0;

	if (bytes < 1024) {
		snprintf(ret, TEXT_BYTES_MAX, "%u bytes", (unsigned int)bytes);
		return ret;
	}
	v /= 1024;
	/* 999.5 is the first that three digits would round up to 1000. */
	while (v >= 999.5 && u + 1 < ARRAY_SIZE(units)) {
		v /= 1024;
		u++;
	}
	snprintf(ret, TEXT_BYTES_MAX, "%.3g %s", v, units[u]);
	return ret;
}

char *text_percent(const char *s, const char *keep)
{
	char *ret = malloc(strlen(s) * 3 + 1);
	char *p = ret;

	if (!ret)
		return NULL;
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if ((c < 0x80 && isalnum(c)) || strchr("-._~", c) ||
		    strchr(keep, c))
			*p++ = (char)c;
		else
			p += sprintf(p, "%%%02X", c);
	}
	*p = '\0';
	return ret;
}

char *text_unpercent(const char *s)
{
	char *ret = malloc(strlen(s) + 1), *p = ret;
	char pair[3] = { 0 };

	for (; ret && *s; s++) {
		if (*s == '%' && isxdigit((unsigned char)s[1]) &&
		    isxdigit((unsigned char)s[2])) {
			memcpy(pair, s + 1, 2);
			*p++ = (char)strtoul(pair, NULL, 16);
			s += 2;
		} else {
			*p++ = *s;
		}
	}
	if (ret)
		*p = '\0';
	return ret;
}

bool text_take_number(char **p, char end, uintmax_t max, uintmax_t *ret)
{
	char *rest;

	errno = 0;
	*ret = strtoumax(*p, &rest, 10);
	if (rest == *p || *rest != end || errno || *ret > max)
		return false;
	*p = rest + 1;
	return true;
}

static bool shell_plain(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("-._/:=,+@%", *s))
			return false;
	return true;
}

void text_odd_size(uint64_t bytes, FILE *fp)
{
	unsigned int rest = (unsigned int)(bytes % 512);

	if (rest)
		fprintf(fp,
			"not a multiple of 512: served exact; clients that "
			"count sectors may leave out the last %u byte%s, or "
			"add zeroes\n",
			rest, rest == 1 ? "" : "s");
}

char *text_shell_word(const char *s)
{
	char *ret, *p;

	if (shell_plain(s))
		return strdup(s);
	ret = p = malloc(strlen(s) * 4 + 3);
	if (!ret)
		return NULL;
	*p++ = '\'';
	for (; *s; s++)
		if (*s == '\'')
			p = stpcpy(p, "'\\''");
		else
			*p++ = *s;
	*p++ = '\'';
	*p = '\0';
	return ret;
}

bool text_nbdkit_version(const char *s, unsigned int ret[3])
{
	unsigned int v[3];

	if (sscanf(s, "nbdkit %u.%u.%u", &v[0], &v[1], &v[2]) != 3)
		return false;
	memcpy(ret, v, sizeof(v));
	return true;
}

bool text_nbdkit_abortable(const unsigned int version[3])
{
	static const unsigned int mended[3] = { 1, 33, 10 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(mended); i++)
		if (version[i] != mended[i])
			return version[i] < mended[i];
	return false;
}

/* Column @i begins here; 128 bits, as a disk may have 2^63 bytes. */
static uint64_t column_off(const struct bar *b, unsigned int i)
{
	return (uint64_t)((unsigned __int128)b->bytes * i / b->columns);
}

int bar_init(struct bar *b, uint64_t bytes, unsigned int columns)
{
	*b = (struct bar){ .bytes = bytes, .columns = columns };
	b->used = calloc(columns, sizeof(*b->used));
	b->zero = calloc(columns, sizeof(*b->zero));
	b->bad = calloc(columns, sizeof(*b->bad));
	if (!b->used || !b->zero || !b->bad) {
		bar_done(b);
		return -ENOMEM;
	}
	return 0;
}

void bar_done(struct bar *b)
{
	free(b->used);
	free(b->zero);
	free(b->bad);
	*b = (struct bar){ 0 };
}

void bar_add(struct bar *b, uint64_t off, uint64_t len, const struct extent *e)
{
	uint64_t end = off + len;
	uint64_t *to, *total;
	unsigned int i;

	if (e->kind == EXTENT_DAMAGED) {
		to = b->bad;
		total = &b->bad_bytes;
	} else if (e->kind == EXTENT_ZERO && !e->absent) {
		to = b->zero;
		total = &b->zero_bytes;
	} else if (e->kind == EXTENT_DATA || e->kind == EXTENT_COMPRESSED) {
		to = b->used;
		total = &b->used_bytes;
	} else {
		return;
	}
	*total += len;

	/* At most the right column or one after it, by the rounding down. */
	i = (unsigned int)((unsigned __int128)off * b->columns / b->bytes);
	while (i > 0 && column_off(b, i) > off)
		i--;
	for (; i < b->columns && column_off(b, i) < end; i++) {
		uint64_t from = max_u64(off, column_off(b, i));
		uint64_t until = min_u64(end, column_off(b, i + 1));

		if (until > from)
			to[i] += until - from;
	}
}

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

void bar_print(const struct bar *b, bool utf8, FILE *fp)
{
	static const char *const utf8_shades[] = { "\u2591", "\u2592", "\u2593",
						   "\u2588" };
	static const char *const ascii_shades[] = { ".", "-", "+", "#" };
	const char *const *shades = utf8 ? utf8_shades : ascii_shades;
	const char *zero = utf8 ? "\u00b7" : "0";
	unsigned int i;

	fputc('[', fp);
	for (i = 0; i < b->columns; i++) {
		uint64_t bytes = column_off(b, i + 1) - column_off(b, i);
		double share = bytes ? (double)b->used[i] / (double)bytes : 0;

		if (b->bad[i])
			fputc('!', fp);
		else if (b->used[i])
			fputs(shades[share >= 1 ? 3 : (int)(share * 4)], fp);
		else if (b->zero[i])
			fputs(zero, fp);
		else
			fputc(' ', fp);
	}
	fputs("]\n", fp);

	for (i = 0; i < 4; i++)
		fputs(shades[i], fp);
	fprintf(fp, " data %.1f%%  %s zero %.1f%%  blank: unallocated %.1f%%",
		percent(b->used_bytes, b->bytes), zero,
		percent(b->zero_bytes, b->bytes),
		percent(b->bytes - b->used_bytes - b->zero_bytes - b->bad_bytes,
			b->bytes));
	if (b->bad_bytes)
		fprintf(fp, "  ! damaged %.1f%%",
			percent(b->bad_bytes, b->bytes));
	fputc('\n', fp);
}
