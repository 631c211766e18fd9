/* SPDX-License-Identifier: BSD-3-Clause */
/* A chain: layers, the top first, down to one without a parent. */
#ifndef FORMATS_CHAIN_H
#define FORMATS_CHAIN_H

#include <stdint.h>

#include "formats/extent.h"
#include "formats/layer.h"

struct chain {
	struct layer *layers[CHAIN_DEPTH_MAX];
	unsigned int depth; /* how many; at least 1 once open */
	uint64_t bytes; /* the top's virtual size */
};

/*
 * Opens @path and every layer below it. @ret is written on success only and
 * is the caller's to chain_done().
 */
int chain_open(const char *path, const struct open_options *options,
	       struct chain *ret, struct error *err);

/*
 * The file that the user names: a path, or a URL. @ret is written on success only
 * and is the caller's to place_file_done(); its path is for messages. What is
 * needed of @options are allow and direct.
 */
int chain_open_file(const char *path, const struct open_options *options,
		    struct place_file *ret, struct error *err);

struct container;

/* The container that it is; *ret NULL, and 0: it is none. */
int chain_open_container(const char *path, const struct open_options *options,
			 struct container **ret, struct error *err);

/* The top layer of @path alone. */
int chain_open_top(const char *path, const struct open_options *options,
		   struct layer **ret, struct error *err);

/*
 * The same as far as it goes, for people who want to see what there is: on
 * failure *ret has the layers above the one that cannot be opened (depth 0
 * when that is the top), and *ret_verdict tells what its name led to. Locked
 * layers are no failure here.
 */
int chain_open_partial(const char *path, const struct open_options *options,
		       struct chain *ret, enum reference_verdict *ret_verdict,
		       struct error *err);

/* The same as chain_open() for a top that is open already as a source (tests, fuzzers). */
int chain_open_source(struct source *src, const char *path, struct place *place,
		      const struct open_options *options, struct chain *ret,
		      struct error *err);

/*
 * The layers of @c from @depth (< c->depth) on, shared with it, as a chain of
 * its own, the caller's to chain_done().
 */
void chain_below(const struct chain *c, unsigned int depth, struct chain *ret);

/* The same, put below the layers that @ret has, which must fit in. */
void chain_add_below(const struct chain *c, unsigned int depth,
		     struct chain *ret);

/*
 * The image of @c at another snapshot, options->snapshot. Layers below that
 * are the same are shared with @c.
 */
int chain_open_snapshot(const struct chain *c,
			const struct open_options *options, struct chain *ret,
			struct error *err);

void chain_done(struct chain *c);

/*
 * Where is [@guest_off, @guest_off + @len)? Inside the chain, @len > 0.
 * Answers for the first ret->len > 0 bytes; never a HOLE: what no layer has
 * is ZERO with absent set. Costs a map of each layer down to the answer:
 * image_resolve() remembers.
 */
int chain_map(const struct chain *c, uint64_t guest_off, uint64_t len,
	      struct extent *ret, struct error *err);

#endif
