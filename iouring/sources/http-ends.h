/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The beginnings and ends of objects that were opened last, in memory: whoever
 * finds out what an image is reads there in many small pieces, and each would cost
 * a round trip.
 */
#ifndef IOURING_SOURCES_HTTP_ENDS_H
#define IOURING_SOURCES_HTTP_ENDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/source.h"

#define HTTP_HEAD_BYTES (128U << 10)
#define HTTP_TAIL_BYTES (64U << 10)

struct http_ends;

/* Reads those of @s, both at once. *ret is of use to the others only. */
int http_ends_load(struct source *s, struct http_ends **ret, struct error *err);

/* Copies [@off, @off + @len), if they have it. */
bool http_ends_copy(struct http_ends *e, void *buf, size_t len, uint64_t off);

void http_ends_free(struct http_ends *e); /* NULL is fine */

#endif
