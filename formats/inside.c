/* SPDX-License-Identifier: BSD-3-Clause */
#include "formats/inside.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/containers/container.h"
#include "formats/file-lock.h"
#include "formats/rootfs/docker.h"
#include "formats/streams/stream.h"

/* The image service is handed what a stranger has packed. */
static unsigned int ratio_max(const struct open_options *options)
{
	return options->alone ? STREAM_RATIO_ALONE : STREAM_RATIO_MAX;
}

int inside_unpack(struct source **src, const char *format, bool chosen,
		  const struct open_options *options, unsigned int *depth,
		  struct error *err)
{
	const struct format_ops *ops = format ? format_by_name(format) : NULL;
	int r = 0;

	if (format && !chosen &&
	    (!ops || !strcmp(ops->name, "raw") ||
	     format_matches(ops, *src, NULL) >= 0))
		return 0;
	/* Before it is read: what is written meanwhile is no image. */
	if (options->lock && source_file(*src))
		r = file_lock_reader(*src, err);
	return r < 0 ? r
		     : stream_peel(src, format || chosen, ratio_max(options),
				   depth, err);
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
	unsigned int depth = 0;
	int r;

	for (;;) {
		CLEANUP(container_unrefp) struct container *c = NULL;

		r = inside_unpack(&f->src, *format, wanted, options, &depth,
				  err);
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
	unsigned int streams = 0;
	int r = stream_peel(&f->src, true, ratio_max(options), &streams, err);

	if (r >= 0)
		r = container_open(f->src, place_of(f, options), f->path, true,
				   ret, err);
	if (r < 0)
		error_prefix(err, "%s", f->path);
	return r;
}
