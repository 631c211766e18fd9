/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A view of untrusted bytes. Reads outside it give 0 and set short_read,
 * which the decoder looks at once, at its end.
 */
#ifndef FORMATS_CURSOR_H
#define FORMATS_CURSOR_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cursor {
	const uint8_t *buf;
	size_t len;
	bool short_read; /* sticky */
};

static inline void cursor_copy_at(struct cursor *c, size_t at, void *ret,
				  size_t bytes)
{
	if (at > c->len || bytes > c->len - at) {
		c->short_read = true;
		memset(ret, 0, bytes);
		return;
	}
	memcpy(ret, c->buf + at, bytes);
}

static inline uint8_t cursor_u8_at(struct cursor *c, size_t at)
{
	uint8_t v;

	cursor_copy_at(c, at, &v, sizeof(v));
	return v;
}

static inline uint16_t cursor_be16_at(struct cursor *c, size_t at)
{
	uint16_t v;

	cursor_copy_at(c, at, &v, sizeof(v));
	return be16toh(v);
}

static inline uint32_t cursor_be32_at(struct cursor *c, size_t at)
{
	uint32_t v;

	cursor_copy_at(c, at, &v, sizeof(v));
	return be32toh(v);
}

static inline uint64_t cursor_be64_at(struct cursor *c, size_t at)
{
	uint64_t v;

	cursor_copy_at(c, at, &v, sizeof(v));
	return be64toh(v);
}

static inline uint16_t cursor_le16_at(struct cursor *c, size_t at)
{
	uint16_t v;

	cursor_copy_at(c, at, &v, sizeof(v));
	return le16toh(v);
}

static inline uint32_t cursor_le32_at(struct cursor *c, size_t at)
{
	uint32_t v;

	cursor_copy_at(c, at, &v, sizeof(v));
	return le32toh(v);
}

static inline uint64_t cursor_le64_at(struct cursor *c, size_t at)
{
	uint64_t v;

	cursor_copy_at(c, at, &v, sizeof(v));
	return le64toh(v);
}

#endif
