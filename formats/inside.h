/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a file holds that is no disk itself: streams, containers, images of
 * containers, in each other.
 */
#ifndef FORMATS_INSIDE_H
#define FORMATS_INSIDE_H

#include "formats/layer.h"
#include "formats/place.h"

struct container;

/*
 * Of a stream that nobody declared to be raw, what is in it: *src, the caller's, is
 * replaced, and *depth raised. What was declared to be of another format, and is,
 * is that. @path: for messages.
 */
int inside_unpack(struct source **src, const char *format,
		  const struct open_options *options, const char *path,
		  unsigned int *depth, struct error *err);

/*
 * What nobody declared, or has a member that was named, may be a container, or a
 * stream, and what is in it again: @f becomes the disk's file at last, and *format,
 * that which was declared, what is known of it. Messages are without @f's path.
 */
int inside_find(struct place_file *f, const struct open_options *options,
		const char **format, struct error *err);

/* The container that @f is; *ret NULL, and 0: it is none. */
int inside_container(struct place_file *f, const struct open_options *options,
		     struct container **ret, struct error *err);

#endif
