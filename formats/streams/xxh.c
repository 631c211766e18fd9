/* SPDX-License-Identifier: BSD-3-Clause */
#include <endian.h>
#include <string.h>

#include "formats/streams/xxh.h"
#include "iouring/util.h"

#define A1 2654435761U
#define A2 2246822519U
#define A3 3266489917U
#define A4 668265263U
#define A5 374761393U

#define B1 11400714785074694791ULL
#define B2 14029467366897019727ULL
#define B3 1609587929392839161ULL
#define B4 9650029242287828579ULL
#define B5 2870177450012600261ULL

static uint32_t rotate32(uint32_t v, unsigned int by)
{
	return v << by | v >> (32 - by);
}

static uint64_t rotate64(uint64_t v, unsigned int by)
{
	return v << by | v >> (64 - by);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

/* ---- XXH32 ---- */

void xxh32_begin(struct xxh32 *x)
{
	*x = (struct xxh32){ .lanes = { A1 + A2, A2, 0, -A1 } };
}

static void take16(struct xxh32 *x, const uint8_t *p)
{
	unsigned int i;

	for (i = 0; i < 4; i++)
		x->lanes[i] =
			rotate32(x->lanes[i] + get32(p + 4 * i) * A2, 13) * A1;
}

void xxh32_add(struct xxh32 *x, const void *data, size_t len)
{
	const uint8_t *p = data;
	size_t have = x->bytes % 16, n;

	x->bytes += len;
	if (have) {
		n = min_size(16 - have, len);
		memcpy(x->rest + have, p, n);
		if (have + n < 16)
			return;
		take16(x, x->rest);
		p += n;
		len -= n;
	}
	for (; len >= 16; p += 16, len -= 16)
		take16(x, p);
	memcpy(x->rest, p, len);
}

uint32_t xxh32_end(const struct xxh32 *x)
{
	const uint8_t *p = x->rest;
	size_t len = x->bytes % 16;
	uint32_t h = A5;

	if (x->bytes >= 16)
		h = rotate32(x->lanes[0], 1) + rotate32(x->lanes[1], 7) +
		    rotate32(x->lanes[2], 12) + rotate32(x->lanes[3], 18);
	h += (uint32_t)x->bytes;
	for (; len >= 4; p += 4, len -= 4)
		h = rotate32(h + get32(p) * A3, 17) * A4;
	for (; len; p++, len--)
		h = rotate32(h + *p * A5, 11) * A1;
	h = (h ^ h >> 15) * A2;
	h = (h ^ h >> 13) * A3;
	return h ^ h >> 16;
}

uint32_t xxh32(const void *data, size_t len)
{
	struct xxh32 x;

	xxh32_begin(&x);
	xxh32_add(&x, data, len);
	return xxh32_end(&x);
}

/* ---- XXH64 ---- */

static uint64_t round64(uint64_t lane, uint64_t in)
{
	return rotate64(lane + in * B2, 31) * B1;
}

static uint64_t merge64(uint64_t h, uint64_t lane)
{
	return (h ^ round64(0, lane)) * B1 + B4;
}

static uint64_t finish64(uint64_t h, const uint8_t *p, size_t len)
{
	for (; len >= 8; p += 8, len -= 8)
		h = rotate64(h ^ round64(0, get64(p)), 27) * B1 + B4;
	if (len >= 4) {
		h = rotate64(h ^ get32(p) * B1, 23) * B2 + B3;
		p += 4;
		len -= 4;
	}
	for (; len; p++, len--)
		h = rotate64(h ^ *p * B5, 11) * B1;
	h = (h ^ h >> 33) * B2;
	h = (h ^ h >> 29) * B3;
	return h ^ h >> 32;
}

uint64_t xxh64(const void *data, size_t len)
{
	uint64_t a = B1 + B2, b = B2, c = 0, d = -B1, h = B5;
	const uint8_t *p = data;
	size_t left = len;

	for (; left >= 32; p += 32, left -= 32) {
		a = round64(a, get64(p));
		b = round64(b, get64(p + 8));
		c = round64(c, get64(p + 16));
		d = round64(d, get64(p + 24));
	}
	if (len >= 32) {
		h = rotate64(a, 1) + rotate64(b, 7) + rotate64(c, 12) +
		    rotate64(d, 18);
		h = merge64(merge64(merge64(merge64(h, a), b), c), d);
	}
	return finish64(h + len, p, left);
}
