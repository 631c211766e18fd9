/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory for libraries that allocate anew for each stream: reserved once, handed
 * out from its beginning for each, and kept. What a stream frees on its way is not
 * handed out again; one that so comes to want more than there is gets it from
 * malloc().
 */
#ifndef FORMATS_CODEC_CODEC_SCRATCH_H
#define FORMATS_CODEC_CODEC_SCRATCH_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "iouring/util.h"

/* xz's at most (XZ_MEMORY_MAX), and more than bzip2's. Touched as needed. */
#define SCRATCH_BYTES (68U << 20)
#define SCRATCH_ALIGN 64U

struct codec_scratch {
	uint8_t *memory; /* NULL: none yet */
	size_t used;
};

/* All that was handed out is free. Returns @s. */
static inline struct codec_scratch *scratch_begin(struct codec_scratch *s)
{
	s->used = 0;
	return s;
}

/* As calloc(), but what is in it is anything. NULL: no memory. */
static inline void *scratch_alloc(struct codec_scratch *s, size_t items,
				  size_t bytes)
{
	uint8_t *p;
	void *m;

	if (!s->memory) {
		m = mmap(NULL, SCRATCH_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (m == MAP_FAILED)
			return NULL;
		s->memory = m;
	}
	if (bytes && items > (SCRATCH_BYTES - s->used) / bytes)
		return reallocarray(NULL, items, bytes);
	p = s->memory + s->used;
	s->used += min_size((size_t)round_up(items * bytes, SCRATCH_ALIGN),
			    SCRATCH_BYTES - s->used);
	return p;
}

/* NULL is fine. */
static inline void scratch_free(const struct codec_scratch *s, void *p)
{
	if (s->memory && (uint8_t *)p >= s->memory &&
	    (uint8_t *)p < s->memory + SCRATCH_BYTES)
		return;
	free(p);
}

static inline void scratch_done(struct codec_scratch *s)
{
	if (s->memory)
		munmap(s->memory, SCRATCH_BYTES);
}

#endif
