/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef IOURING_SOURCES_PIECES_H
#define IOURING_SOURCES_PIECES_H

#include "iouring/source.h"

/* [@off, @off + @len) of @src lies at @at. */
struct piece {
	uint64_t at, len;
	struct source *src;
	uint64_t off;
};

/*
 * A source of @bytes that is put together of @n pieces, zeroes where there is
 * none; holds references to their sources. They are in the order of where they
 * lie, and do not overlap; else, and where one reaches out of its source, it is
 * -EBADMSG.
 */
int pieces_source_new(const struct piece *pieces, size_t n, uint64_t bytes,
		      struct source **ret, struct error *err);

#endif
