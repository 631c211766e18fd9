/* SPDX-License-Identifier: BSD-3-Clause */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/meta-cache.h"
#include "formats/file-lock.h"
#include "formats/layer.h"
#include "formats/streams/stream.h"

static int choose_format(struct layer *l, const char *format, struct error *err)
{
	l->guessed = !format;
	if (!format)
		return format_probe(l->src, &l->ops, err);
	l->ops = format_by_name(format);
	if (!l->ops)
		return error_set(err, -ENOTSUP, 0,
				 "format \"%s\" is not supported", format);
	return format_matches(l->ops, l->src, err);
}

/* Of what is decoded the file that it lies in. */
static int hold_file(const struct source *src, struct error *err)
{
	src = stream_bottom(src);
	return source_file(src) ? file_lock_reader(src, err) : 0;
}

static void release_file(const struct source *src)
{
	src = stream_bottom(src);
	if (source_file(src))
		file_unlock(src);
}

int layer_declare(const struct layer *l, char ret[LAYER_FORMAT_BYTES],
		  struct error *err)
{
	char print[FORMAT_PRINT_DIGITS + 1];
	int r;

	if (!l->ops->made) {
		snprintf(ret, LAYER_FORMAT_BYTES, "%s",
			 l->ops->alias ? l->ops->alias : l->ops->name);
		return 0;
	}
	r = l->ops->print(l, print, err);
	if (r < 0) {
		error_prefix(err, "%s", l->path);
		return r;
	}
	r = snprintf(ret, LAYER_FORMAT_BYTES, "%s:%" PRIu64 ":%s", l->ops->name,
		     l->bytes, print);
	assert(r > 0 && r < (int)LAYER_FORMAT_BYTES);
	return 0;
}

int layer_check_declared(const struct layer *l, const char *format,
			 struct error *err)
{
	char is[LAYER_FORMAT_BYTES];
	int r;

	if (!format || !strchr(format, ':'))
		return 0;
	r = layer_declare(l, is, err);
	if (r < 0 || !strcmp(is, format))
		return r;
	return error_set(
		err, -ESTALE, 0,
		"the disk that is made of %s has become another: it is "
		"%s, and was %s",
		l->path, is, format);
}

/* The bytes of NAME:BYTES:PRINT; 0: it says nothing of them. */
static uint64_t declared_bytes(const char *format)
{
	const char *colon = format ? strchr(format, ':') : NULL;

	return colon ? strtoull(colon + 1, NULL, 10) : 0;
}

static int open_driver(struct layer *l, const char *format, struct error *err)
{
	int r = 0;

	source_identity(stream_bottom(l->src), &l->identity);
	/* Before it is read: what is written meanwhile is no image. */
	if (l->options->lock)
		r = hold_file(l->src, err);
	if (r >= 0)
		r = choose_format(l, format, err);
	if (r < 0)
		return r;
	if (l->ops->state_bytes) {
		l->state = calloc(1, l->ops->state_bytes);
		if (!l->state)
			return error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (l->options->snapshot && l->top && !l->ops->snapshots)
		return error_set(err, -ENOENT, 0,
				 "snapshot \"%s\": %s images have none",
				 l->options->snapshot, l->ops->name);
	r = l->ops->open(l, err);
	return r < 0 ? r : layer_check_declared(l, format, err);
}

int layer_open(struct source *src, const char *path, struct place *place,
	       const char *format, bool top, const struct open_options *options,
	       struct layer **ret, struct error *err)
{
	CLEANUP(layer_unrefp) struct layer *l = calloc(1, sizeof(*l));
	struct open_options own = *options;
	struct error unheard = { 0 };
	int r;

	/* Drivers may rely on somebody listening. */
	if (!err)
		err = &unheard;
	if (!l) {
		source_unref(src);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	atomic_init(&l->refs, 1);
	l->src = src;
	l->place = place_ref(place);
	l->top = top;
	if (!top || declared_bytes(format))
		own.said_bytes = declared_bytes(format);
	l->options = &own;
	l->path = strdup(path);
	r = l->path ? open_driver(l, format, err)
		    : error_set(err, -ENOMEM, 0, "out of memory");
	l->options = NULL;
	if (r < 0) {
		error_prefix(err, "%s", path);
		return r;
	}
	if (options->lock)
		r = layer_hold(l, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(l);
	return 0;
}

struct layer *layer_ref(struct layer *l)
{
	atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
	return l;
}

void layer_unref(struct layer *l)
{
	unsigned int i;

	if (!l ||
	    atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) > 1)
		return;
	if (l->state && l->ops->close)
		l->ops->close(l);
	for (i = 0; i < l->n_files; i++) {
		source_unref(l->files[i].src);
		free(l->files[i].name);
	}
	free(l->files);
	free(l->parent.name);
	free(l->parent.format);
	free(l->state);
	source_unref(l->src);
	place_unref(l->place);
	free(l->path);
	free(l);
}

static int hold_source(const struct source *src, const char *name,
		       struct error *err)
{
	int r = hold_file(src, err);

	if (r < 0)
		error_prefix(err, "%s", name);
	return r;
}

/* The image file, then the others that its data lie in. */
static int hold_all(struct layer *l, struct error *err)
{
	int r = hold_source(l->src, l->path, err);
	unsigned int i;

	for (i = 0; i < l->n_files && r >= 0; i++)
		r = hold_source(l->files[i].src, l->files[i].name, err);
	return r;
}

int layer_hold(struct layer *l, struct error *err)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	int r = 0;

	pthread_mutex_lock(&lock);
	if (!l->held) {
		r = hold_all(l, err);
		l->held = r >= 0;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

void layer_release(struct layer *l)
{
	unsigned int i;

	release_file(l->src);
	for (i = 0; i < l->n_files; i++)
		release_file(l->files[i].src);
	l->held = false;
}

void layer_unrefp(struct layer **l)
{
	layer_unref(*l);
}

/*
 * A lower layer whose format nobody declared may be anything that its writer
 * chose, a machine's own disk for one: what it refers to is not followed.
 */
static int check_may_refer(struct layer *l, const char *what, uint64_t at,
			   struct error *err)
{
	if (l->top || !l->guessed || l->options->allow.guessed)
		return 0;
	return error_set(err, -EPERM, at,
			 "format %s was guessed, so its %s is not followed: "
			 "declare the format in the image above, or give %s",
			 l->ops->name, what,
			 AS_GIVEN("allow=guessed", "--allow guessed"));
}

int layer_set_parent(struct layer *l, const char *name, const char *format,
		     uint64_t name_at, struct error *err)
{
	int r = check_may_refer(l, "backing file", name_at, err);

	if (r < 0)
		return r;
	l->parent.wanted = true;
	l->parent.name = name ? strdup(name) : NULL;
	l->parent.format = format ? strdup(format) : NULL;
	l->parent.name_at = name_at;
	if ((name && !l->parent.name) || (format && !l->parent.format))
		return error_set(err, -ENOMEM, 0, "out of memory");
	return 0;
}

int layer_set_parent_by_id(struct layer *l, const char *name,
			   const char *format, uint64_t name_at,
			   struct error *err)
{
	l->parent.stale_ok = true;
	return layer_set_parent(l, name, format, name_at, err);
}

int options_check_alone(const struct open_options *o, const struct place *place,
			const char *what, uint64_t at, struct error *err)
{
	return o->alone && !place_is_inner(place)
		       ? error_set(err, -EPERM, at,
				   "refers to another file: its %s is not "
				   "followed",
				   what)
		       : 0;
}

int layer_open_file(struct layer *l, const char *name, const char *what,
		    uint64_t name_at, struct source **ret, struct error *err)
{
	CLEANUP(place_file_done) struct place_file found = { 0 };
	struct data_file *files, *f;
	int r;

	r = check_may_refer(l, what, name_at, err);
	if (r >= 0)
		r = options_check_alone(l->options, l->place, what, name_at,
					err);
	if (r < 0)
		return r;
	files = reallocarray(l->files, l->n_files + 1, sizeof(*files));
	if (!files)
		return error_set(err, -ENOMEM, 0, "out of memory");
	l->files = files;
	f = &files[l->n_files];
	*f = (struct data_file){ .name = strdup(name) };
	if (!f->name)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = place_open(l->place,
		       &(struct place_ask){ .name = name,
					    .what = what,
					    .allow = &l->options->allow,
					    .direct = l->options->direct },
		       &found, NULL, err);
	if (r < 0) {
		free(f->name);
		return r;
	}
	f->src = TAKE_PTR(found.src);
	l->n_files++;
	*ret = f->src;
	return 0;
}

int layer_read_meta(struct layer *l, struct source *src, void *buf, size_t len,
		    uint64_t off, struct error *err)
{
	return meta_cache_read(src, buf, len, off, err);
}

static int behind_end(const struct source *src, uint64_t off, struct error *err)
{
	return error_set(err, -EBADMSG, off,
			 "data at %" PRIu64
			 " lie behind the file's end at %" PRIu64,
			 off, src->bytes);
}

int extent_set_data(struct extent *e, struct source *src, uint64_t unit_off,
		    uint64_t in_unit, uint64_t len, struct error *err)
{
	uint64_t here;

	if (unit_off >= src->bytes)
		return behind_end(src, unit_off, err);
	here = src->bytes - unit_off;
	if (in_unit >= here)
		return behind_end(src, unit_off + in_unit, err);
	*e = (struct extent){ .kind = EXTENT_DATA,
			      .src = src,
			      .host_off = unit_off + in_unit,
			      .len = min_u64(len, here - in_unit) };
	return 0;
}

int extent_set_ragged_data(struct extent *e, struct source *src,
			   uint64_t unit_off, uint64_t in_unit, uint64_t len,
			   struct error *err)
{
	if (unit_off >= src->bytes || in_unit < src->bytes - unit_off)
		return extent_set_data(e, src, unit_off, in_unit, len, err);
	*e = (struct extent){ .kind = EXTENT_ZERO, .len = len };
	return 0;
}

/* How far damage at @guest_off reaches: to the end of its unit. */
static uint64_t damaged_bytes(const struct layer *l, uint64_t guest_off,
			      uint64_t len)
{
	uint64_t unit = l->unit_bytes ? l->unit_bytes : 512;

	return min_u64(len, unit - guest_off % unit);
}

/* What every answer must be; a driver that breaks this is wrong. */
static bool sound(const struct extent *e, uint64_t len)
{
	if (!e->len || e->len > len)
		return false;
	switch (e->kind) {
	case EXTENT_DATA:
		return e->src &&
		       range_inside(e->host_off, e->len, e->src->bytes);
	case EXTENT_COMPRESSED:
		return e->src && e->comp_bytes &&
		       range_inside(e->host_off, e->comp_bytes,
				    e->src->bytes) &&
		       range_inside(e->unit_off, e->len, e->unit_bytes);
	default:
		return true;
	}
}

void layer_blame(const struct layer *l, const struct source *src,
		 uint64_t guest_off, struct error *err)
{
	const char *file = NULL;
	unsigned int i;

	for (i = 0; i < l->n_files && !file; i++)
		if (l->files[i].src == src)
			file = l->files[i].name;
	if (file)
		error_prefix(err, "%s: \"%s\": guest offset %" PRIu64, l->path,
			     file, guest_off);
	else
		error_prefix(err, "%s: guest offset %" PRIu64, l->path,
			     guest_off);
}

int layer_map(struct layer *l, uint64_t guest_off, uint64_t len,
	      struct extent *ret, struct error *err)
{
	struct error own = { 0 };
	int r;

	*ret = (struct extent){ 0 };
	r = l->ops->map(l, guest_off, len, ret, &own);
	if (!r && !sound(ret, len)) {
		*ret = (struct extent){ 0 };
		r = error_set(&own, -EBADMSG, 0,
			      "%s driver's answer is unsound", l->ops->name);
	}
	if (!r)
		return 0;
	if (err) {
		layer_blame(l, NULL, guest_off, &own);
		error_set(err, own.code, own.off, "%s", own.msg);
	}
	if (r != -EBADMSG && r != -EIO)
		return r;
	if (ret->len)
		len = min_u64(len, ret->len);
	*ret = (struct extent){ .kind = EXTENT_DAMAGED,
				.len = damaged_bytes(l, guest_off, len) };
	return 0;
}

bool layer_is_member(const struct layer *l)
{
	return l->src->root != l->src || place_is_inner(l->place) ||
	       source_is_stream(l->src);
}

bool layer_disk_bytes(const struct layer *l, uint64_t *ret)
{
	const struct source *bottom = stream_bottom(l->src);
	const struct file_source *file = source_file(bottom);
	struct stat st;

	if (!file || fstat(file->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	if (bottom->root != bottom) {
		*ret = bottom->bytes;
		return true;
	}
	*ret = (uint64_t)st.st_blocks * 512;
	return true;
}

int layer_bitmaps(struct layer *l,
		  int (*each)(void *opaque, const struct bitmap *b),
		  void *opaque, struct error *err)
{
	int r;

	if (!l->ops->bitmaps)
		return 0;
	r = l->ops->bitmaps(l, each, opaque, err);
	if (r < 0)
		error_prefix(err, "%s", l->path);
	return r;
}

int layer_map_bitmap(struct layer *l, const struct bitmap *b,
		     uint64_t guest_off, uint64_t len, bool *ret_set,
		     uint64_t *ret_len, struct error *err)
{
	int r = l->ops->map_bitmap(l, b, guest_off, len, ret_set, ret_len, err);

	if (r < 0)
		error_prefix(err, "%s", l->path);
	return r;
}

int layer_snapshots(struct layer *l,
		    int (*each)(void *opaque, const struct snapshot *s),
		    void *opaque, struct error *err)
{
	int r;

	if (!l->ops->snapshots)
		return 0;
	r = l->ops->snapshots(l, each, opaque, err);
	if (r < 0)
		error_prefix(err, "%s", l->path);
	return r;
}
