/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <inttypes.h>

#include "formats/cursor.h"
#include "formats/put-be.h"
#include "formats/overlay/qcow2-header.h"
#include "iouring/write.h"

#define SECTOR_BYTES 512U

static size_t put_text(uint8_t *buf, size_t at, uint32_t type, const char *text,
		       size_t bytes)
{
	put_be32(buf, at, type);
	put_be32(buf, at + 4, (uint32_t)bytes);
	memcpy(buf + at + 8, text, bytes);
	return at + 8 + (size_t)round_up(bytes, 8);
}

/* QEMU takes no format of a longer name than its own have. */
size_t qcow2_put_format(uint8_t *buf, size_t at, const char *format)
{
	const char *made = strchr(format, ':');
	size_t bytes = made ? (size_t)(made - format) : strlen(format);

	at = put_text(buf, at, QCOW2_EXT_BACKING_FORMAT, format, bytes);
	return made ? put_text(buf, at, QCOW2_EXT_MADE, made + 1,
			       strlen(made + 1))
		    : at;
}

size_t qcow2_put_mark(uint8_t *buf, size_t at)
{
	put_be32(buf, at, QCOW2_EXT_MARK);
	put_be32(buf, at + 4, QCOW2_MARK_BYTES);
	memset(buf + at + 8, 0, QCOW2_MARK_BYTES);
	return at + 8 + QCOW2_MARK_BYTES;
}

/* ---- the backing file ---- */

/* What the header's cluster has now, and what its first sector shall have. */
struct header {
	uint8_t *old; /* a cluster */
	size_t old_bytes;
	uint8_t sector[SECTOR_BYTES];
	size_t used; /* of the sector */
	size_t mark_off; /* of the mark's data; 0: it has none */
	size_t epoch_off; /* of the epoch; 0: it has none */
	uint64_t epoch; /* that it shall have */
	bool pulling; /* shall it be that, if it is? */
	char *name, *format; /* of the backing file that it shall have */
};

/* Appends an extension, head and padding included. False: no room. */
static bool add_extension(struct header *h, uint32_t type, const uint8_t *ext,
			  size_t bytes)
{
	/* The last one ends the list. */
	if (bytes > SECTOR_BYTES - 8 - h->used)
		return false;
	if (type == QCOW2_EXT_MARK && bytes == 8 + QCOW2_MARK_BYTES)
		h->mark_off = h->used + 8;
	if (type == QCOW2_EXT_EPOCH && bytes == 8 + QCOW2_EPOCH_BYTES)
		h->epoch_off = h->used + 8;
	memcpy(h->sector + h->used, ext, bytes);
	h->used += bytes;
	return true;
}

static bool is_kept(const struct header *h, uint32_t type, bool features)
{
	switch (type) {
	case QCOW2_EXT_BACKING_FORMAT:
	case QCOW2_EXT_MADE:
		return false;
	case QCOW2_EXT_FEATURE_NAMES:
		return features;
	case QCOW2_EXT_PULL:
		return h->pulling;
	default:
		return true;
	}
}

/*
 * Takes over all extensions but for the format, which comes first, and, if
 * need be, the names of features, which are for people.
 */
static bool copy_extensions(struct header *h, const struct qcow2_file *f,
			    const char *format, bool features)
{
	struct cursor c = { .buf = h->old, .len = h->old_bytes };
	uint64_t backing = f->s->h.backing_off;
	size_t at = f->s->h.header_bytes;

	if (at > SECTOR_BYTES - 8)
		return false;
	if (backing && backing < c.len)
		c.len = (size_t)backing;
	memset(h->sector, 0, sizeof(h->sector));
	memcpy(h->sector, h->old, at);
	h->used = at;
	h->mark_off = h->epoch_off = 0;
	if (format && strlen(format) > SECTOR_BYTES - QCOW2_FORMAT_ROOM - at)
		return false;
	if (format)
		h->used = qcow2_put_format(h->sector, at, format);
	while (at < c.len && c.len - at >= 8) {
		uint32_t type = cursor_be32_at(&c, at);
		uint32_t bytes = cursor_be32_at(&c, at + 4);
		size_t whole = 8 + (size_t)round_up(bytes, 8);

		if (type == QCOW2_EXT_END)
			break;
		if (whole > c.len - at)
			return false;
		if (is_kept(h, type, features) &&
		    !add_extension(h, type, h->old + at, whole))
			return false;
		at += whole;
	}
	return true;
}

/* Room for the name in the header's cluster, apart from the old one. 0: none */
static size_t name_place(const struct header *h, const struct qcow2_file *f,
			 size_t bytes)
{
	uint64_t old = f->s->h.backing_off, end = old + f->s->h.backing_bytes;
	size_t at;

	for (at = SECTOR_BYTES; at + bytes <= h->old_bytes; at += SECTOR_BYTES)
		if (!old || at + bytes <= old || at >= end)
			return at;
	return 0;
}

/* In the sector itself, or somewhere behind it, before it counts. */
static int place_name(struct header *h, struct qcow2_file *f, const char *name,
		      struct error *err)
{
	size_t bytes = name ? strlen(name) : 0, at = 0;
	int r = 0;

	if (bytes && bytes <= SECTOR_BYTES - h->used) {
		at = h->used;
		memcpy(h->sector + at, name, bytes);
	} else if (bytes) {
		at = name_place(h, f, bytes);
		if (!at)
			return error_set(err, -ENOTSUP, QCOW2_BACKING_OFF_AT,
					 "the header has no room for a backing "
					 "file name of %zu bytes",
					 bytes);
		r = source_write(f->src, name, bytes, at, err);
		if (r >= 0)
			r = disk_sync(f, err);
	}
	put_be64(h->sector, QCOW2_BACKING_OFF_AT, at);
	put_be32(h->sector, QCOW2_BACKING_BYTES_AT, (uint32_t)bytes);
	return r;
}

/* What the reader's own state says of the header. */
static struct qcow2_header *known_header(struct qcow2_file *f)
{
	struct qcow2_state *s = f->top->state;

	return &s->h;
}

/* Room for the epoch, where there is none and it is not 0. */
static int add_epoch(struct header *h, struct error *err)
{
	uint8_t ext[8 + QCOW2_EPOCH_BYTES];

	if (h->epoch_off || !h->epoch)
		return 0;
	put_be32(ext, 0, QCOW2_EXT_EPOCH);
	put_be32(ext, 4, QCOW2_EPOCH_BYTES);
	put_be64(ext, 8, h->epoch);
	return add_extension(h, QCOW2_EXT_EPOCH, ext, sizeof(ext))
		       ? 0
		       : error_set(err, -ENOTSUP, 0,
				   "the header has no room for an epoch");
}

/* What is known of the header once it is written. */
static void adopt(struct qcow2_file *f, struct header *h)
{
	struct parent_ref *parent = &f->top->parent;
	struct cursor c = { .buf = h->sector, .len = sizeof(h->sector) };
	struct qcow2_state *s = f->top->state;

	known_header(f)->backing_off = cursor_be64_at(&c, QCOW2_BACKING_OFF_AT);
	known_header(f)->backing_bytes =
		cursor_be32_at(&c, QCOW2_BACKING_BYTES_AT);
	s->mark_off = h->mark_off;
	s->epoch_off = h->epoch_off;
	s->epoch = h->epoch;
	s->pulling = s->pulling && h->pulling;
	/* For who writes it again. */
	free(parent->name);
	free(parent->format);
	parent->name = TAKE_PTR(h->name);
	parent->format = TAKE_PTR(h->format);
}

static int set_base(struct qcow2_file *f, struct header *h, const char *name,
		    const char *format, struct error *err)
{
	uint8_t mark[8 + QCOW2_MARK_BYTES];
	int r = source_read(f->src, h->old, h->old_bytes, 0, err);

	if (r < 0)
		return r;
	if (!copy_extensions(h, f, name ? format : NULL, true) &&
	    !copy_extensions(h, f, name ? format : NULL, false))
		return error_set(err, -ENOTSUP, f->s->h.header_bytes,
				 "the header's extensions leave no room for a "
				 "backing format");
	r = add_epoch(h, err);
	if (r < 0)
		return r;
	qcow2_put_mark(mark, 0);
	if (!h->mark_off)
		add_extension(h, QCOW2_EXT_MARK, mark, sizeof(mark));
	h->used += 8;
	r = place_name(h, f, name, err);
	if (r >= 0)
		r = source_write(f->src, h->sector, sizeof(h->sector), 0, err);
	if (r >= 0)
		r = disk_sync(f, err);
	if (r >= 0)
		adopt(f, h);
	return r;
}

static int change_header(struct qcow2_file *f, const char *name,
			 const char *format, uint64_t epoch, bool pulling,
			 struct error *err)
{
	struct header h = { .old_bytes = f->cluster_bytes,
			    .epoch = epoch,
			    .pulling = pulling };
	int r;

	if (name && strlen(name) > QCOW2_BACKING_NAME_MAX)
		return error_set(err, -EINVAL, 0,
				 "backing file name of %zu bytes is over the "
				 "limit of %u",
				 strlen(name), QCOW2_BACKING_NAME_MAX);
	h.old = malloc(h.old_bytes);
	h.name = name ? strdup(name) : NULL;
	h.format = name && format ? strdup(format) : NULL;
	if (h.old && (h.name || !name) && (h.format || !name || !format))
		r = set_base(f, &h, name, format, err);
	else
		r = error_set(err, -ENOMEM, 0, "out of memory");
	free(h.old);
	free(h.name);
	free(h.format);
	return r;
}

int qcow2_set_base(struct qcow2_file *f, const char *name, const char *format,
		   struct error *err)
{
	return change_header(f, name, format, f->s->epoch, true, err);
}

int qcow2_end_pull(struct qcow2_file *f, const char *name, const char *format,
		   struct error *err)
{
	return change_header(f, name, format, f->s->epoch, false, err);
}

int qcow2_begin_pull(struct qcow2_file *f, struct error *err)
{
	static const uint8_t begun[QCOW2_PULL_BYTES];
	struct qcow2_state *s = f->top->state;
	int r = source_write(f->src, begun, sizeof(begun), s->pull_off, err);

	if (r >= 0)
		r = disk_sync(f, err);
	if (r >= 0)
		s->pull_held = false;
	return r;
}

size_t qcow2_put_pull(uint8_t *buf, size_t at, bool held)
{
	put_be32(buf, at, QCOW2_EXT_PULL);
	put_be32(buf, at + 4, QCOW2_PULL_BYTES);
	put_be64(buf, at + 8, held);
	return at + 8 + QCOW2_PULL_BYTES;
}

int qcow2_set_epoch(struct qcow2_file *f, uint64_t epoch, struct error *err)
{
	const struct parent_ref *p = &f->top->parent;
	struct qcow2_state *s = f->top->state;
	uint8_t buf[QCOW2_EPOCH_BYTES];
	int r;

	if (!s->epoch_off)
		return change_header(f, p->name, p->format, epoch, true, err);
	put_be64(buf, 0, epoch);
	r = source_write(f->src, buf, sizeof(buf), s->epoch_off, err);
	if (r >= 0)
		r = disk_sync(f, err);
	if (r >= 0)
		s->epoch = epoch;
	return r;
}

int qcow2_make_room_for_mark(struct qcow2_file *f, struct error *err)
{
	const struct parent_ref *p = &f->top->parent;
	int r;

	if (f->s->mark_off)
		return 0;
	r = qcow2_set_base(f, p->name, p->format, NULL);
	/* One that is full does without. */
	if (r >= 0 || r == -ENOTSUP)
		return 0;
	return error_set(err, r, 0, "the header cannot be written: %s",
			 errno_text(-r));
}
