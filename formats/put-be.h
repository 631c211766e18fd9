/* SPDX-License-Identifier: BSD-3-Clause */
/* Big-endian numbers into bytes that are ours; cursor.h reads others'. */
#ifndef FORMATS_PUT_BE_H
#define FORMATS_PUT_BE_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void put_be16(uint8_t *buf, size_t at, uint16_t v)
{
	v = htobe16(v);
	memcpy(buf + at, &v, sizeof(v));
}

static inline void put_be32(uint8_t *buf, size_t at, uint32_t v)
{
	v = htobe32(v);
	memcpy(buf + at, &v, sizeof(v));
}

static inline void put_be64(uint8_t *buf, size_t at, uint64_t v)
{
	v = htobe64(v);
	memcpy(buf + at, &v, sizeof(v));
}

#endif
