/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory for what is read and written, of one loop: pieces of powers of two that
 * are kept for the next request, so that the usual one touches no fresh memory.
 */
#ifndef NBD_SERVER_BUFFERS_H
#define NBD_SERVER_BUFFERS_H

#include <stddef.h>
#include <stdint.h>

#define BUFFER_CLASSES 14U /* of 4 KiB, 8 KiB, ... 32 MiB */

struct buffers {
	void *free
		[BUFFER_CLASSES]; /* each begins with the next one's address */
	size_t free_bytes;
	size_t used_bytes;
};

/* @bytes: 1 to 32 MiB. Aligned to a page. NULL: no memory. */
void *buffer_take(struct buffers *b, size_t bytes);
void buffer_give(struct buffers *b, void *data,
		 size_t bytes); /* NULL is fine */
void buffers_done(struct buffers *b);

#endif
