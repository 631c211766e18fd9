/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "iouring/sources/nbd.h"
#include "iouring/write.h"
#include "nbd/cmd/target.h"

#define UNIT_BYTES     4096U
#define ZERO_RUN_BYTES (64U << 10) /* less is sent as it is */
#define STEP_BYTES     (256ULL << 20) /* between two looks at whether to stop */

static bool is_block_device(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISBLK(st.st_mode);
}

bool target_is_one(const char *text)
{
	return nbd_source_is_uri(text) || is_block_device(text);
}

/* ---- zeroes ---- */

/* By writing them, where there is no other way. */
static int write_zeroes(struct target *t, uint64_t off, uint64_t len,
			struct error *err)
{
	static const uint8_t zeroes[1U << 20];
	int r = 0;

	while (r >= 0 && len) {
		size_t n = (size_t)min_u64(len, sizeof(zeroes));

		r = source_write(t->device, zeroes, n, off, err);
		off += n;
		len -= n;
	}
	return r;
}

static int zero(struct target *t, uint64_t off, uint64_t len, struct error *err)
{
	int r;

	t->touched = true;
	if (t->export)
		return nbd_target_zero(t->export, off, len, err);
	r = source_zero(t->device, off, len, err);
	return r == -EOPNOTSUPP || r == -EINVAL ? write_zeroes(t, off, len, err)
						: r;
}

static int find_zero(struct target *t, uint64_t off, uint64_t len,
		     bool *ret_zero, uint64_t *ret_len, struct error *err)
{
	*ret_zero = false;
	*ret_len = len;
	return t->export ? nbd_target_find_zero(t->export, off, len, ret_zero,
						ret_len, err)
			 : 0;
}

/* What of the range does not read so already. */
static int zero_what_is_not(struct target *t, uint64_t off, uint64_t end,
			    struct error *err)
{
	uint64_t len;
	bool is;
	int r = 0;

	for (; r >= 0 && off < end; off += len) {
		r = find_zero(t, off, end - off, &is, &len, err);
		if (r >= 0 && !is)
			r = zero(t, off, len, err);
	}
	return r;
}

struct zeroing {
	struct target *t;
	uint64_t off, end; /* to be zero, not done yet; off == end: nothing */
	struct error *err;
};

/* Outwards, to what can be written: data come later. */
static int zero_run(struct zeroing *z)
{
	uint64_t align = z->t->align;
	uint64_t off = round_down(z->off, align);
	uint64_t end = min_u64(round_up(z->end, align), z->t->bytes);

	return z->off < z->end ? zero_what_is_not(z->t, off, end, z->err) : 0;
}

static int each_extent(void *opaque, uint64_t off, const struct extent *e)
{
	struct zeroing *z = opaque;
	int r = 0;

	if (e->kind == EXTENT_ZERO || e->kind == EXTENT_HOLE) {
		if (z->off == z->end)
			z->off = off;
		z->end = off + e->len;
		return 0;
	}
	r = zero_run(z);
	z->off = z->end = 0;
	return r;
}

static int find_all_zero(struct target *t, uint64_t bytes, struct error *err)
{
	uint64_t off, len;
	int r;

	t->is_zero = true;
	bytes = min_u64(round_up(bytes, t->align), t->bytes);
	for (off = 0; t->is_zero && off < bytes; off += len) {
		r = find_zero(t, off, bytes - off, &t->is_zero, &len, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* One step: *off is where it ended. */
static int zero_step(struct target *t, struct image *img, uint64_t *off,
		     struct error *err)
{
	struct zeroing z = { .t = t, .err = err };
	uint64_t len = min_u64(img->bytes - *off, STEP_BYTES);
	int r = image_walk(img, *off, len, each_extent, &z, off, err);

	return r < 0 ? r : zero_run(&z);
}

int target_zero(struct target *t, struct image *img, int (*stop)(void),
		struct error *err)
{
	uint64_t off = 0;
	int r = find_all_zero(t, img->bytes, err);

	while (r >= 0 && !t->is_zero && off < img->bytes) {
		r = zero_step(t, img, &off, err);
		if (stop())
			return -EINTR;
	}
	if (r < 0)
		error_prefix(err, "%s", t->name);
	return r;
}

/* ---- data ---- */

static int put(struct target *t, const uint8_t *buf, size_t len, uint64_t off,
	       struct error *err)
{
	return t->export ? nbd_target_write(t->export, buf, len, off, err)
			 : source_write(t->device, buf, len, off, err);
}

/* Zeroes that @len bytes of the chunk are. */
static int put_zeroes(struct target *t, const uint8_t *buf, size_t len,
		      uint64_t off, struct error *err)
{
	if (t->is_zero)
		return 0;
	return t->export && len >= ZERO_RUN_BYTES ? zero(t, off, len, err)
						  : put(t, buf, len, off, err);
}

/* The disk's end is filled up with zeroes to what can be written. */
static int target_write(struct copy_sink *s, struct copy_chunk *c,
			struct error *err)
{
	struct target *t = container_of(s, struct target, sink);
	size_t at, len;
	bool zeroes;
	int r = 0;

	t->touched = true;
	c->len = (size_t)min_u64(round_up(c->len, t->align), t->bytes - c->off);
	for (at = 0; at < c->len && r >= 0; at += len) {
		len = copy_chunk_run(c, at, s->unit_bytes, &zeroes);
		r = zeroes ? put_zeroes(t, c->buf + at, len, c->off + at, err)
			   : put(t, c->buf + at, len, c->off + at, err);
	}
	return r;
}

int target_flush(struct target *t, struct error *err)
{
	int r = t->export ? nbd_target_flush(t->export, err)
			  : source_sync(t->device, err);

	if (r < 0)
		error_prefix(err, "%s", t->name);
	return r;
}

int target_wipe(struct target *t, uint64_t bytes, struct error *err)
{
	int r = zero(t, 0, min_u64(bytes, t->bytes), err);

	if (r >= 0)
		return target_flush(t, err);
	error_prefix(err, "%s", t->name);
	return r;
}

/* ---- a qcow2 file ---- */

static int file_write(struct qcow2_dst *d, const void *buf, size_t len,
		      uint64_t off, struct error *err)
{
	struct target *t = container_of(d, struct target, file);

	t->touched = true;
	return put(t, buf, len, off, err);
}

/* What the header tells of is there before it is. */
static int file_end(struct qcow2_dst *d, uint64_t bytes, struct error *err)
{
	struct target *t = container_of(d, struct target, file);

	return t->export ? nbd_target_flush(t->export, err)
			 : source_sync(t->device, err);
}

/* ---- open ---- */

static int open_device(struct target *t, struct error *err)
{
	int fd = open(t->name,
		      O_RDWR | O_EXCL | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int sector = 512, is_fixed = 0, r;

	if (fd < 0 && errno == EBUSY)
		return error_set(err, -EBUSY, 0,
				 "is in use: mounted, a part of another "
				 "device, or being written");
	if (fd < 0)
		return error_set(err, -errno, 0,
				 "cannot be opened for writing: %s",
				 errno_text(errno));
	if (!ioctl(fd, BLKSSZGET, &sector) && sector > 0)
		t->align = (uint32_t)sector;
	r = file_source_adopt_rw(fd, FILE_BLOCK_DEVICE, &t->device, err);
	if (r < 0)
		return r;
	t->bytes = t->device->bytes;
	/* Linux opens such a one for writing, too, and refuses the writes. */
	if (!ioctl(fd, BLKROGET, &is_fixed) && is_fixed)
		return error_set(err, -EROFS, 0, "takes no writes");
	return 0;
}

static int open_export(struct target *t, struct error *err)
{
	int r = nbd_target_open(t->name, &t->export, err);

	if (r < 0)
		return r;
	t->bytes = nbd_target_bytes(t->export);
	t->align = nbd_target_block_bytes(t->export);
	return 0;
}

int target_open(struct target *t, const char *name, uint64_t bytes,
		const char *what, struct error *err)
{
	int r;

	*t = (struct target){ .name = name, .align = 512 };
	r = nbd_source_is_uri(name) ? open_export(t, err) : open_device(t, err);
	if (r >= 0 && t->bytes < bytes)
		r = error_set(err, -ENOSPC, 0,
			      "has %" PRIu64 " bytes, %s %" PRIu64, t->bytes,
			      what, bytes);
	if (r >= 0 && (!is_power_of_2(t->align) || t->align > COPY_CHUNK_BYTES))
		r = error_set(err, -ENOTSUP, 0,
			      "is written in blocks of %" PRIu32 " bytes",
			      t->align);
	if (r < 0) {
		error_prefix(err, "%s", name);
		return r;
	}
	t->sink = (struct copy_sink){
		.unit_bytes = t->align > UNIT_BYTES ? t->align : UNIT_BYTES,
		.name = name,
		.write = target_write,
	};
	t->file = (struct qcow2_dst){
		.write = file_write,
		.end = file_end,
		.bytes_max = t->bytes,
		/* The page cache cares for a device's sectors. */
		.align = t->export ? t->align : 1,
	};
	return 0;
}

void target_done(struct target *t)
{
	source_unref(t->device);
	nbd_target_close(t->export);
	*t = (struct target){ 0 };
}
