/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * VHD, after Microsoft's "Virtual Hard Disk Image Format Specification",
 * version 1.0. Everything is big endian.
 *
 *	fixed:     data | footer
 *	dynamic:   copy of footer | dynamic header | BAT | blocks | footer
 *	block:     sector bitmap, padded to 512 bytes | data
 *
 * A BAT entry is the sector at which a block begins, or all ones. In a block
 * the sectors whose bit is 0 (the most significant bit is the first sector)
 * were never written: the parent has them, and without a parent they are
 * zeroes.
 *
 * The footer may have 511 bytes, as Virtual PC before 2004 wrote it. Where
 * the end of the file is lost the copy at 0 serves. How large the disk is
 * says the current size, except in files of Virtual PC ("vpc "), which counts
 * cylinders, heads and sectors.
 *
 * A differencing disk knows its parent by unique id, and where it was by a
 * name and up to eight locators. The time stamp beside them is that of the
 * parent's last change, which copying a file does not keep; a parent that
 * was made after it is another disk all the same.
 *
 * Refused are other versions and types, checksums that are wrong, and headers
 * that contradict the file or each other.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "formats/cursor.h"
#include "formats/drivers/vhd-inside.h"
#include "formats/drivers/win-name.h"

#define FOOTER_OLD_BYTES 511U
#define VHD_BYTES_MAX	 (2040ULL << 30)
#define LOCATORS	 8U
#define CHS_MAX		 (65535ULL * 16 * 255) /* more cannot be counted */
#define MAJOR_1		 1U

/* "Hard Disk Footer Format" */
enum {
	COOKIE_AT = 0,
	VERSION_AT = 12,
	DATA_OFF_AT = 16,
	TIME_STAMP_AT = 24,
	CREATOR_AT = 28,
	CURRENT_SIZE_AT = 48,
	CYLINDERS_AT = 56,
	HEADS_AT = 58,
	SECTORS_AT = 59,
	TYPE_AT = 60,
	CHECKSUM_AT = 64,
	ID_AT = 68,
	SAVED_STATE_AT = 84,
};

/* "Dynamic Disk Header Format" */
enum {
	DYN_TABLE_OFF_AT = 16,
	DYN_VERSION_AT = 24,
	DYN_ENTRIES_AT = 28,
	DYN_BLOCK_BYTES_AT = 32,
	DYN_CHECKSUM_AT = 36,
	DYN_PARENT_ID_AT = 40,
	DYN_PARENT_TIME_AT = 56,
	DYN_PARENT_NAME_AT = 64,
	DYN_PARENT_NAME_BYTES = 512,
	DYN_LOCATORS_AT = 576,
	DYN_LOCATOR_BYTES = 24,
};

extern const struct format_ops vhd_format;

/* The ones' complement of the sum of all bytes but the field's own. */
static uint32_t checksum(const uint8_t *buf, size_t len, size_t field_at)
{
	uint32_t sum = 0;
	size_t i;

	for (i = 0; i < len; i++)
		if (i < field_at || i >= field_at + 4)
			sum += buf[i];
	return ~sum;
}

static bool has_cookie(const uint8_t *buf)
{
	return !memcmp(buf, "conectix", 8);
}

static bool footer_sum_is_right(const uint8_t *buf)
{
	struct cursor c = { .buf = buf, .len = FOOTER_BYTES };

	return cursor_be32_at(&c, CHECKSUM_AT) ==
	       checksum(buf, FOOTER_BYTES, CHECKSUM_AT);
}

/* @buf has FOOTER_BYTES. */
static struct vhd_footer decode_footer(const uint8_t *buf)
{
	struct cursor c = { .buf = buf, .len = FOOTER_BYTES };
	struct vhd_footer f = {
		.version = cursor_be32_at(&c, VERSION_AT),
		.data_off = cursor_be64_at(&c, DATA_OFF_AT),
		.time_stamp = cursor_be32_at(&c, TIME_STAMP_AT),
		.current_bytes = cursor_be64_at(&c, CURRENT_SIZE_AT),
		.cylinders = cursor_be16_at(&c, CYLINDERS_AT),
		.heads = cursor_u8_at(&c, HEADS_AT),
		.sectors = cursor_u8_at(&c, SECTORS_AT),
		.type = cursor_be32_at(&c, TYPE_AT),
		.saved_state = cursor_u8_at(&c, SAVED_STATE_AT),
	};

	cursor_copy_at(&c, CREATOR_AT, f.creator, 4);
	cursor_copy_at(&c, ID_AT, f.id, sizeof(f.id));
	return f;
}

/* A place where a footer may be. */
struct footer_place {
	uint64_t off;
	unsigned int bytes; /* 0: the copy at the start */
};

/*
 * Finds the footer: at the end, whole or 511 bytes long, or its copy at the
 * start; the first whose checksum is right.
 */
static int find_footer(struct source *src, uint8_t *ret,
		       struct footer_place *ret_place, struct error *err)
{
	struct footer_place places[3];
	uint64_t bad_at = UINT64_MAX;
	size_t n = 0, i;
	int r;

	if (src->bytes >= FOOTER_BYTES)
		places[n++] = (struct footer_place){ src->bytes - FOOTER_BYTES,
						     FOOTER_BYTES };
	if (src->bytes >= FOOTER_OLD_BYTES)
		places[n++] =
			(struct footer_place){ src->bytes - FOOTER_OLD_BYTES,
					       FOOTER_OLD_BYTES };
	if (src->bytes >= FOOTER_BYTES)
		places[n++] = (struct footer_place){ 0, 0 };
	for (i = 0; i < n; i++) {
		uint8_t buf[FOOTER_BYTES] = { 0 };

		r = source_read(src, buf,
				places[i].bytes ? places[i].bytes
						: FOOTER_BYTES,
				places[i].off, err);
		if (r < 0)
			return r;
		if (!has_cookie(buf))
			continue;
		if (footer_sum_is_right(buf)) {
			memcpy(ret, buf, sizeof(buf));
			*ret_place = places[i];
			return 0;
		}
		if (bad_at == UINT64_MAX)
			bad_at = places[i].off;
	}
	if (bad_at != UINT64_MAX)
		return error_set(err, -EBADMSG, bad_at + CHECKSUM_AT,
				 "the checksum of the footer at %" PRIu64
				 " is wrong, and there is no sound copy",
				 bad_at);
	return error_set(err, -EBADMSG, COOKIE_AT,
			 "not VHD: no footer at the end, no copy at the start");
}

/* The tail of a fixed disk is all that tells it from raw. */
static bool vhd_probe(struct source *src, const uint8_t *head,
		      size_t head_bytes)
{
	uint8_t buf[FOOTER_BYTES + 1] = { 0 };
	struct vhd_footer f;
	const uint8_t *p;

	if (src->bytes < FOOTER_OLD_BYTES)
		return false;
	if (src->bytes < FOOTER_BYTES) {
		if (source_read(src, buf, FOOTER_OLD_BYTES, 0, NULL) < 0)
			return false;
		p = buf;
	} else {
		if (source_read(src, buf, FOOTER_BYTES,
				src->bytes - FOOTER_BYTES, NULL) < 0)
			return false;
		p = has_cookie(buf) ? buf : buf + 1;
	}
	if (!has_cookie(p))
		return false;
	f = decode_footer(p);
	return f.version >> 16 == MAJOR_1 && f.type >= TYPE_FIXED &&
	       f.type <= TYPE_DIFFERENCING;
}

static uint64_t chs_bytes(const struct vhd_footer *f)
{
	uint64_t n = (uint64_t)f->cylinders * f->heads * f->sectors;

	return n < CHS_MAX ? n * SECTOR_BYTES : 0;
}

/* Which of the two sizes is meant? */
static bool counts_chs(const struct vhd_footer *f)
{
	return !memcmp(f->creator, "vpc ", 4) && chs_bytes(f);
}

static int check_footer(const struct vhd_state *s, struct error *err)
{
	const struct vhd_footer *f = &s->f;
	uint64_t bytes = counts_chs(f) ? chs_bytes(f) : f->current_bytes;

	if (f->version >> 16 != MAJOR_1)
		return error_set(err, -ENOTSUP, s->footer_off + VERSION_AT,
				 "VHD version %u.%u is not supported, 1.x is",
				 f->version >> 16, f->version & 0xffff);
	if (f->type < TYPE_FIXED || f->type > TYPE_DIFFERENCING)
		return error_set(err, -ENOTSUP, s->footer_off + TYPE_AT,
				 "disk type %" PRIu32
				 " is not supported; 2 (fixed), 3 (dynamic) "
				 "and 4 (differencing) are",
				 f->type);
	if (f->type == TYPE_FIXED && !s->footer_bytes)
		return error_set(err, -EBADMSG, s->footer_off + TYPE_AT,
				 "a fixed disk without a footer at its end");
	if (bytes > VHD_BYTES_MAX)
		return error_set(err, -EFBIG, s->footer_off + CURRENT_SIZE_AT,
				 "virtual size %" PRIu64
				 " is over the limit of %llu",
				 bytes, VHD_BYTES_MAX);
	if (f->type == TYPE_FIXED && bytes > s->footer_off)
		return error_set(err, -EBADMSG, s->footer_off + CURRENT_SIZE_AT,
				 "virtual size %" PRIu64 " is more than the "
				 "%" PRIu64 " bytes in front of the footer",
				 bytes, s->footer_off);
	return 0;
}

static int read_dynamic(struct layer *l, uint8_t *buf, struct error *err)
{
	struct vhd_state *s = l->state;
	struct cursor c = { .buf = buf, .len = DYNAMIC_BYTES };
	uint64_t at = s->f.data_off;
	int r;

	if (!range_inside(at, DYNAMIC_BYTES, l->src->bytes))
		return error_set(err, -EBADMSG, s->footer_off + DATA_OFF_AT,
				 "dynamic header at %" PRIu64
				 " ends past the file's %" PRIu64 " bytes",
				 at, l->src->bytes);
	r = source_read(l->src, buf, DYNAMIC_BYTES, at, err);
	if (r < 0)
		return r;
	if (memcmp(buf, "cxsparse", 8))
		return error_set(err, -EBADMSG, at,
				 "there is no dynamic header at %" PRIu64, at);
	if (cursor_be32_at(&c, DYN_CHECKSUM_AT) !=
	    checksum(buf, DYNAMIC_BYTES, DYN_CHECKSUM_AT))
		return error_set(
			err, -EBADMSG, at + DYN_CHECKSUM_AT,
			"the checksum of the dynamic header at %" PRIu64
			" is wrong",
			at);
	s->d = (struct vhd_dynamic){
		.table_off = cursor_be64_at(&c, DYN_TABLE_OFF_AT),
		.version = cursor_be32_at(&c, DYN_VERSION_AT),
		.entries = cursor_be32_at(&c, DYN_ENTRIES_AT),
		.block_bytes = cursor_be32_at(&c, DYN_BLOCK_BYTES_AT),
		.parent_time = cursor_be32_at(&c, DYN_PARENT_TIME_AT),
	};
	cursor_copy_at(&c, DYN_PARENT_ID_AT, s->d.parent_id, ID_BYTES);
	return 0;
}

/* Every relation that vhd_map() relies on. */
static int check_dynamic(const struct layer *l, struct error *err)
{
	const struct vhd_state *s = l->state;
	const struct vhd_dynamic *d = &s->d;
	uint64_t at = s->f.data_off, need;

	if (d->version >> 16 != MAJOR_1)
		return error_set(err, -ENOTSUP, at + DYN_VERSION_AT,
				 "dynamic header version %u.%u is not "
				 "supported, 1.x is",
				 d->version >> 16, d->version & 0xffff);
	if (!is_power_of_2(d->block_bytes) || d->block_bytes < SECTOR_BYTES)
		return error_set(err, -EBADMSG, at + DYN_BLOCK_BYTES_AT,
				 "block size %" PRIu32
				 " is not a power of two of at least %u",
				 d->block_bytes, SECTOR_BYTES);
	need = div_round_up(l->bytes, d->block_bytes);
	if (d->entries < need)
		return error_set(err, -EBADMSG, at + DYN_ENTRIES_AT,
				 "BAT has %" PRIu32
				 " entries, a disk of %" PRIu64
				 " bytes needs %" PRIu64,
				 d->entries, l->bytes, need);
	if (!range_inside(d->table_off, need * 4, l->src->bytes))
		return error_set(err, -EBADMSG, at + DYN_TABLE_OFF_AT,
				 "BAT at %" PRIu64 " with %" PRIu64
				 " entries ends past the file's %" PRIu64
				 " bytes",
				 d->table_off, need, l->src->bytes);
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*
 * MacX: a file URL in UTF-8. The host, if any, is this machine's; some write
 * a relative path there. NULL: is none. To be freed.
 */
static char *name_from_url(const uint8_t *buf, size_t bytes)
{
	char *url = strndup((const char *)buf, bytes), *from, *to;

	if (!url || strncasecmp(url, "file://", 7)) {
		free(url);
		return NULL;
	}
	from = url + 7;
	if (!strncasecmp(from, "localhost/", 10))
		from += 9;
	for (to = url; *from; to++) {
		int high = *from == '%' ? hex_digit(from[1]) : -1;
		int low = high >= 0 ? hex_digit(from[2]) : -1;

		if (low > 0 || (low == 0 && high > 0)) {
			*to = (char)(high << 4 | low);
			from += 3;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
	return url;
}

/* The name in a locator of kind @kind; NULL: there is none. */
static char *locator_name(struct layer *l, const uint8_t *buf, const char *kind,
			  uint64_t *ret_at)
{
	struct cursor c = { .buf = buf, .len = DYNAMIC_BYTES };
	CLEANUP(freep) uint8_t *data = NULL;
	char *name = NULL;
	unsigned int i;

	for (i = 0; i < LOCATORS && !name; i++) {
		size_t at = DYN_LOCATORS_AT + i * DYN_LOCATOR_BYTES;
		uint32_t bytes = cursor_be32_at(&c, at + 8);
		uint64_t off = cursor_be64_at(&c, at + 16);

		if (memcmp(buf + at, kind, 4) || !bytes ||
		    bytes > WIN_NAME_BYTES_MAX ||
		    !range_inside(off, bytes, l->src->bytes))
			continue;
		free(data);
		data = malloc(bytes);
		if (!data || source_read(l->src, data, bytes, off, NULL) < 0)
			continue;
		*ret_at = off;
		name = memcmp(kind, "MacX", 4)
			       ? win_name_from_utf16(data, bytes, false)
			       : name_from_url(data, bytes);
		if (name && !memcmp(kind, "W2ru", 4))
			win_name_to_local(name);
	}
	return name;
}

/*
 * The parent's format: the specification has VHD alone. Who forces a parent
 * may have another one, which its name tells; it is guessed then.
 */
static const char *parent_format(const struct layer *l,
				 const struct win_names *names)
{
	const char *dot = names->n ? strrchr(names->list[0].name, '.') : NULL;

	if (l->options->force_parent && dot && strcasecmp(dot, ".vhd") &&
	    strcasecmp(dot, ".avhd"))
		return NULL;
	return vhd_format.name;
}

/* "Dynamic Disk Header Format", parent locator entries */
static int open_parent_names(struct layer *l, const uint8_t *buf,
			     struct error *err)
{
	static const char *const kinds[] = { "W2ru", "MacX", "W2ku" };
	const struct vhd_state *s = l->state;
	struct win_names names = { 0 };
	size_t i;
	int r;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		uint64_t at = 0;
		char *name = locator_name(l, buf, kinds[i], &at);

		win_names_add(&names, name, at);
	}
	win_names_add(&names,
		      win_name_from_utf16(buf + DYN_PARENT_NAME_AT,
					  DYN_PARENT_NAME_BYTES, true),
		      s->f.data_off + DYN_PARENT_NAME_AT);
	r = win_names_set_parent(l, &names, parent_format(l, &names), err);
	win_names_done(&names);
	return r;
}

static int open_dynamic(struct layer *l, struct error *err)
{
	struct vhd_state *s = l->state;
	uint8_t buf[DYNAMIC_BYTES];
	int r = read_dynamic(l, buf, err);

	if (r >= 0)
		r = check_dynamic(l, err);
	if (r < 0)
		return r;
	l->unit_bytes = s->d.block_bytes;
	s->block_bits = (unsigned int)__builtin_ctz(s->d.block_bytes);
	s->bitmap_bytes = (uint32_t)round_up(
		div_round_up(s->d.block_bytes / SECTOR_BYTES, 8), SECTOR_BYTES);
	if (s->f.type == TYPE_DIFFERENCING)
		r = open_parent_names(l, buf, err);
	return r;
}

static int vhd_open(struct layer *l, struct error *err)
{
	struct vhd_state *s = l->state;
	uint8_t buf[FOOTER_BYTES];
	struct footer_place place;
	int r;

	r = find_footer(l->src, buf, &place, err);
	if (r < 0)
		return r;
	s->f = decode_footer(buf);
	s->footer_off = place.off;
	s->footer_bytes = place.bytes;
	r = check_footer(s, err);
	if (r < 0)
		return r;
	l->bytes = counts_chs(&s->f) ? chs_bytes(&s->f) : s->f.current_bytes;
	r = window_source_new(l->src, 0,
			      place.bytes ? place.off : l->src->bytes, &s->data,
			      err);
	if (r < 0 || s->f.type == TYPE_FIXED)
		return r;
	return open_dynamic(l, err);
}

static void vhd_close(struct layer *l)
{
	struct vhd_state *s = l->state;

	source_unref(s->data);
}

static void format_id(char ret[37], const uint8_t *id)
{
	snprintf(ret, 37,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
		 "%02x%02x%02x%02x%02x%02x",
		 id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7], id[8],
		 id[9], id[10], id[11], id[12], id[13], id[14], id[15]);
}

static int vhd_check_parent(struct layer *l, struct layer *parent,
			    struct error *err)
{
	const struct vhd_state *s = l->state, *p = parent->state;
	uint64_t at = s->f.data_off;
	char want[37], is[37];

	if (parent->ops != &vhd_format)
		return error_set(err, -EBADMSG, at + DYN_PARENT_ID_AT,
				 "parent %s is %s, not VHD, and has no unique "
				 "id",
				 parent->path, parent->ops->name);
	format_id(want, s->d.parent_id);
	format_id(is, p->f.id);
	if (memcmp(s->d.parent_id, p->f.id, ID_BYTES))
		return error_set(err, -EBADMSG, at + DYN_PARENT_ID_AT,
				 "parent %s has the unique id %s, not %s",
				 parent->path, is, want);
	if (s->d.parent_time && p->f.time_stamp > s->d.parent_time)
		return error_set(err, -EBADMSG, at + DYN_PARENT_TIME_AT,
				 "parent %s has the time stamp %" PRIu32
				 ", later than %" PRIu32 "",
				 parent->path, p->f.time_stamp,
				 s->d.parent_time);
	return 0;
}

static bool vhd_is_parent(struct layer *l, struct source *candidate)
{
	const struct vhd_state *s = l->state;
	uint8_t buf[FOOTER_BYTES];
	struct footer_place place;
	struct vhd_footer f;

	if (find_footer(candidate, buf, &place, NULL) < 0)
		return false;
	f = decode_footer(buf);
	return !memcmp(f.id, s->d.parent_id, ID_BYTES);
}

static void vhd_info(struct layer *l, struct info_sink *sink)
{
	static const char *const types[] = {
		[TYPE_FIXED] = "fixed",
		[TYPE_DYNAMIC] = "dynamic",
		[TYPE_DIFFERENCING] = "differencing",
	};
	const struct vhd_state *s = l->state;
	char id[37];

	sink->text(sink, "subformat", types[s->f.type]);
	sink->text(sink, "creator", s->f.creator);
	format_id(id, s->f.id);
	sink->text(sink, "unique-id", id);
	sink->text(sink, "size-from",
		   counts_chs(&s->f) ? "geometry" : "current size");
	sink->number(sink, "current-size", s->f.current_bytes);
	sink->number(sink, "geometry-size", chs_bytes(&s->f));
	sink->text(sink, "footer",
		   s->footer_bytes == FOOTER_BYTES ? "end"
		   : s->footer_bytes		   ? "end, 511 bytes"
						   : "copy at the start");
	sink->flag(sink, "saved-state", s->f.saved_state);
	if (s->f.type == TYPE_DIFFERENCING) {
		format_id(id, s->d.parent_id);
		sink->text(sink, "parent-unique-id", id);
	}
}

const struct format_ops vhd_format = {
	.name = "vhd",
	.alias = "vpc",
	.glance_name = "vhd",
	.magic = { { COOKIE_AT, 8, "conectix" } },
	.probe = vhd_probe,
	.told_behind = true,
	.state_bytes = sizeof(struct vhd_state),
	.open = vhd_open,
	.check_parent = vhd_check_parent,
	.is_parent = vhd_is_parent,
	.close = vhd_close,
	.map = vhd_map,
	.info = vhd_info,
	.check = vhd_check,
};
