/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/disk.h"

uint8_t *disk_file;
size_t disk_bytes;
struct error disk_err;

void disk_new(size_t bytes)
{
	disk_done();
	disk_file = calloc(1, bytes);
	disk_bytes = bytes;
	disk_err = (struct error){ 0 };
}

void disk_done(void)
{
	free(TAKE_PTR(disk_file));
}

void disk_le(size_t at, unsigned int width, uint64_t value)
{
	ck_assert_uint_le(at + width, disk_bytes);
	while (width--) {
		disk_file[at++] = (uint8_t)value;
		value >>= 8;
	}
}

void disk_be(size_t at, unsigned int width, uint64_t value)
{
	ck_assert_uint_le(at + width, disk_bytes);
	while (width--) {
		disk_file[at + width] = (uint8_t)value;
		value >>= 8;
	}
}

struct layer *disk_open(const char *format, const struct open_options *options,
			int *ret)
{
	static const struct open_options none;
	struct layer *l = calloc(1, sizeof(*l));
	struct folder *folder = NULL;

	l->ops = format_by_name(format);
	ck_assert_ptr_nonnull(l->ops);
	l->state = calloc(1, l->ops->state_bytes);
	must(memory_source_new(disk_file, disk_bytes, &l->src, &disk_err),
	     disk_err);
	l->top = true;
	l->options = options ? options : &none;
	l->path = strdup("NAME");
	must(folder_open(unit_path("."), &folder, &disk_err), disk_err);
	l->place = folder_place(folder);
	*ret = l->ops->open(l, &disk_err);
	l->options = NULL;
	return l;
}

struct layer *disk_must_open(const char *format)
{
	int r;
	struct layer *l = disk_open(format, NULL, &r);

	must(r, disk_err);
	return l;
}

void disk_refuses(const char *format, const struct disk_row *row, bool le)
{
	struct layer *l;
	int r;

	if (row->width)
		(le ? disk_le : disk_be)(row->at, row->width, row->value);
	l = disk_open(format, NULL, &r);
	ck_assert_msg(r == row->code, "%s: %d, \"%s\"", row->says, r,
		      disk_err.msg);
	ck_assert_msg(disk_err.off == row->off, "%s: field at %" PRIu64,
		      disk_err.msg, disk_err.off);
	ck_assert_int_eq(disk_err.code, r);
	unit_says(&disk_err, row->says);
	layer_unref(l);
}

struct extent disk_map(struct layer *l, uint64_t off, uint64_t len)
{
	struct extent e = { 0 };

	must(l->ops->map(l, off, len, &e, &disk_err), disk_err);
	return e;
}

void disk_maps(struct layer *l, uint64_t off, enum extent_kind kind,
	       uint64_t len, uint64_t host_off)
{
	struct extent e = disk_map(l, off, l->bytes - off);

	ck_assert_uint_eq(e.kind, kind);
	ck_assert_uint_eq(e.len, len);
	ck_assert_uint_eq(e.host_off, host_off);
	ck_assert(!e.src || e.src == l->src);
}

void disk_is_damaged(struct layer *l, uint64_t off, const char *says)
{
	struct extent e = { 0 };
	int r;

	disk_err = (struct error){ 0 };
	r = l->ops->map(l, off, l->bytes - off, &e, &disk_err);
	ck_assert_msg(r == -EBADMSG, "%s: %d, \"%s\"", says, r, disk_err.msg);
	unit_says(&disk_err, says);
}

static void say_nothing(struct check_report *r, const char *line)
{
	ck_assert(line[0] && !strchr(line, '\n'));
}

void disk_checks(struct layer *l, uint64_t corruptions, uint64_t leaks)
{
	struct check_report report = { .say = say_nothing };

	must(l->ops->check(l, &report, &disk_err), disk_err);
	ck_assert_uint_eq(report.corruptions, corruptions);
	ck_assert_uint_eq(report.leaks, leaks);
}

struct search {
	struct info_sink sink;
	const char *key;
	char value[256];
};

static void take_text(struct info_sink *s, const char *key, const char *value)
{
	struct search *f = container_of(s, struct search, sink);

	if (!strcmp(key, f->key))
		snprintf(f->value, sizeof(f->value), "%s", value);
}

static void take_number(struct info_sink *s, const char *key, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	take_text(s, key, text);
}

static void take_flag(struct info_sink *s, const char *key, bool value)
{
	take_text(s, key, value ? "yes" : "no");
}

const char *disk_info(struct layer *l, const char *key)
{
	static struct search f;

	f = (struct search){
		.sink = { take_text, take_number, take_flag },
		.key = key,
	};
	l->ops->info(l, &f.sink);
	return f.value;
}
