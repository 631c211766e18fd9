/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/inside.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/containers/container.h"
#include "formats/file-lock.h"
#include "formats/gpt.h"
#include "formats/rootfs/docker.h"
#include "formats/streams/stream.h"

/* The image service is handed what a stranger has packed. */
static unsigned int ratio_max(const struct open_options *options)
{
	return options->alone ? STREAM_RATIO_ALONE : STREAM_RATIO_MAX;
}

/* What is to be unpacked. */
struct unpacking {
	const struct open_options *options;
	const struct format_ops *format; /* declared; NULL: guess */
	uint64_t bytes; /* of the raw disk in it; 0: nobody said */
};

/*
 * stream_options.told: a format that says what it needs of its file, the user's
 * word, a partition table, what the stream itself says. Where the last two are
 * both there they are the same, or there is more in it than the disk.
 */
static uint64_t told_bytes(void *opaque, const uint8_t *head, size_t bytes,
			   uint64_t hint, unsigned int bits)
{
	const struct unpacking *u = opaque;
	const struct format_ops *ops;
	uint64_t told;

	if (stream_probe(head, bytes) || container_is(head, bytes) ||
	    format_of_head(head, bytes, &ops) < 0 ||
	    (u->format && u->format != ops))
		return 0;
	if (strcmp(ops->name, "raw") != 0)
		return ops->open_ended && ops->open_ended(head, bytes)
			       ? STREAM_OPEN_ENDED
			       : 0;
	if (u->bytes)
		return u->bytes;
	told = gpt_disk_bytes(head, bytes);
	if (!told && bits == 64)
		told = hint;
	return bits && (told ^ hint) << (64 - bits) ? 0 : told;
}

static int unpack(struct source **src, struct unpacking *u, bool sure,
		  const char *path, unsigned int *depth, struct error *err)
{
	return stream_peel(
		src,
		&(struct stream_options){
			.sure = sure,
			.ratio_max = ratio_max(u->options),
			.told = u->options->while_decoded ? told_bytes : NULL,
			.opaque = u,
			.path = path },
		depth, err);
}

static int unpack_unless_declared(struct source **src, const char *format,
				  bool chosen, struct unpacking *u,
				  const char *path, unsigned int *depth,
				  struct error *err)
{
	const struct format_ops *ops = format ? format_by_name(format) : NULL;
	const struct open_options *options = u->options;
	int r = 0;

	if (format && !chosen &&
	    (!ops || !strcmp(ops->name, "raw") ||
	     format_matches(ops, *src, NULL) >= 0))
		return 0;
	/* Before it is read: what is written meanwhile is no image. */
	if (options->lock && source_file(*src))
		r = file_lock_reader(*src, err);
	u->format = ops;
	return r < 0 ? r : unpack(src, u, format || chosen, path, depth, err);
}

int inside_unpack(struct source **src, const char *format,
		  const struct open_options *options, const char *path,
		  unsigned int *depth, struct error *err)
{
	struct unpacking u = { .options = options };

	return unpack_unless_declared(src, format, false, &u, path, depth, err);
}

/* Where the container that @f is lies; of what is alone, nowhere. */
static struct place *place_of(const struct place_file *f,
			      const struct open_options *options)
{
	return options->alone && !place_is_inner(f->place) ? NULL : f->place;
}

/* Replaces @f by the member of @c that is wanted. */
static int take_member(struct place_file *f, struct container *c,
		       const char *name, struct error *err)
{
	CLEANUP(place_file_done) struct place_file in = { 0 };
	const struct member *m = NULL;
	int r = container_choose(c, name, &m, err);

	if (r < 0)
		return r;
	if (asprintf(&in.path, "%s/%s",
		     m->outside ? place_text(c->place) : c->path,
		     m->name) < 0) {
		in.path = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	r = container_open_member(c, m, &in.src, err);
	if (r < 0) {
		error_prefix(err, "%s", m->name);
		return r;
	}
	in.place = container_place(c, m);
	if (!in.place)
		return error_set(err, -ENOMEM, 0, "out of memory");
	place_file_done(f);
	*f = place_file_take(&in);
	return 0;
}

/* One step into @c. Returns 1: there is no further one. */
static int go_into(struct place_file *f, struct container *c,
		   const char *member, const char **format, struct error *err)
{
	int r = docker_is(c, false) ? 1 : take_member(f, c, member, err);

	if (r == -EINVAL && docker_is(c, true)) {
		error_clear(err);
		r = 1;
	}
	if (r == 1)
		*format = DOCKER_FORMAT;
	return r;
}

int inside_find(struct place_file *f, const struct open_options *options,
		const char **format, struct error *err)
{
	const char *member = options->member;
	bool wanted = member || options->contained;
	struct unpacking u = { .options = options,
			       .bytes = options->said_bytes };
	unsigned int depth = 0;
	int r;

	for (;;) {
		CLEANUP(container_unrefp) struct container *c = NULL;

		r = unpack_unless_declared(&f->src, *format, wanted, &u,
					   f->path, &depth, err);
		if (r < 0 || (*format && !wanted))
			return r;
		r = container_open(f->src, place_of(f, options), f->path,
				   member, &c, err);
		if (r >= 0 && !c && (member || (wanted && !depth)))
			r = error_set(err, -EINVAL, 0,
				      "is no container, so it has no members");
		if (r >= 0 && c && ++depth > STREAM_DEPTH_MAX)
			r = error_set(err, -EFBIG, 0,
				      "over %u streams and containers in each "
				      "other, which is the limit",
				      STREAM_DEPTH_MAX);
		if (r >= 0 && c)
			r = go_into(f, c, member, format, err);
		if (r || !c)
			return r < 0 ? r : 0;
		member = NULL;
		wanted = false;
	}
}

int inside_container(struct place_file *f, const struct open_options *options,
		     struct container **ret, struct error *err)
{
	struct open_options all = *options;
	struct unpacking u = { .options = &all };
	unsigned int streams = 0;
	int r;

	/* Of all members it is told. */
	all.while_decoded = false;
	r = unpack(&f->src, &u, true, f->path, &streams, err);

	if (r >= 0)
		r = container_open(f->src, place_of(f, options), f->path, true,
				   ret, err);
	if (r < 0)
		error_prefix(err, "%s", f->path);
	return r;
}
