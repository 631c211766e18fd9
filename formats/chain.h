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
	uint64_t bytes;	    /* the top's virtual size */
};

/*
 * Opens @path and every layer below it. @ret is written on success only and
 * is the caller's to chain_done().
 */
int chain_open(const char *path, const struct open_options *options,
	       struct chain *ret, struct error *err);

/* The same for a top that is open already as a source (tests, fuzzers). */
int chain_open_source(struct source *src, const char *path,
		      struct folder *folder,
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
