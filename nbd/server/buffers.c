/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/buffers.h"

#include <stdlib.h>
#include <string.h>

#include "iouring/util.h"

#define SMALLEST 4096U

/* What a loop keeps; beyond it, memory goes back. */
#define KEPT_BYTES (16U << 20)

static unsigned int class_of(size_t bytes)
{
	unsigned int class = 0;

	while ((size_t)SMALLEST << class < bytes)
		class ++;
	return class;
}

void *buffer_take(struct buffers *b, size_t bytes)
{
	unsigned int class = class_of(bytes);
	size_t room = (size_t)SMALLEST << class;
	void *data = b->free[class];

	if (data) {
		memcpy(&b->free[class], data, sizeof(void *));
		b->free_bytes -= room;
	} else if (posix_memalign(&data, SMALLEST, room)) {
		return NULL;
	}
	b->used_bytes += room;
	return data;
}

void buffer_give(struct buffers *b, void *data, size_t bytes)
{
	unsigned int class = class_of(bytes);
	size_t room = (size_t)SMALLEST << class;

	if (!data)
		return;
	b->used_bytes -= room;
	if (b->free_bytes + room > KEPT_BYTES) {
		free(data);
		return;
	}
	memcpy(data, &b->free[class], sizeof(void *));
	b->free[class] = data;
	b->free_bytes += room;
}

void buffers_done(struct buffers *b)
{
	unsigned int i;
	void *data;

	for (i = 0; i < BUFFER_CLASSES; i++)
		while ((data = b->free[i])) {
			memcpy(&b->free[i], data, sizeof(void *));
			free(data);
		}
}
