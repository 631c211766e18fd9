/* SPDX-License-Identifier: BSD-3-Clause */
#include <endian.h>
#include <string.h>

#include "formats/drivers/vhdx-inside.h"
#include "iouring/util.h"
#include "tests/fuzz/expand.h"

#define VHD_BYTES_MAX (256U << 10)
#define VHDX_BYTES    (6U << 20)
#define LOG_AT	      (1U << 20)
#define LOG_WINDOW    (20U << 10)

static const struct {
	uint32_t at, bytes;
} windows[] = {
	{ 0, 8 },
	{ 64 << 10, 80 },
	{ 128 << 10, 80 },
	{ 192 << 10, 112 },
	{ 256 << 10, 112 },
	{ 2 << 20, 256 },
	{ (2 << 20) + (64 << 10), 640 },
	{ 3 << 20, 64 },
	{ (3 << 20) + (32 << 10), 16 }, /* the first chunk's bitmap's entry */
	{ 4 << 20, 512 },
	{ 5 << 20, 512 },
	{ LOG_AT + (1 << 20) - 8192, 8192 }, /* entries that wrap */
	{ LOG_AT, LOG_WINDOW },
};

static uint8_t file[VHDX_BYTES];

static void put_be32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, 4);
}

static void seal_sum(uint8_t *p, size_t len, size_t field_at)
{
	uint32_t sum = 0;
	size_t i;

	put_be32(p + field_at, 0);
	for (i = 0; i < len; i++)
		sum += p[i];
	put_be32(p + field_at, ~sum);
}

static void expand_vhd(const uint8_t **data, size_t *bytes)
{
	size_t len = min_size(*bytes, VHD_BYTES_MAX);
	uint8_t flags = len ? **data : 0;
	uint64_t at;

	len -= !!len;
	memcpy(file, *data + !!*bytes, len);
	if (len >= 512 && flags & 1)
		seal_sum(file + len - 512, 512, 64);
	if (len >= 512 && flags & 2)
		seal_sum(file, 512, 64);
	if (len >= 512 && flags & 4) {
		memcpy(&at, file + len - 512 + 16, 8);
		at = be64toh(at);
		if (range_inside(at, 1024, len))
			seal_sum(file + at, 1024, 36);
	}
	*data = file;
	*bytes = len;
}

static void seal_crc(uint8_t *p, size_t len)
{
	uint32_t crc;

	memset(p + 4, 0, 4);
	crc = htole32(vhdx_crc32c(0, p, len));
	memcpy(p + 4, &crc, 4);
}

/* Entries that lie in one piece. */
static void seal_entries(uint32_t from, uint32_t to)
{
	uint32_t at, len;

	for (at = from; at + 4096 <= to; at += 4096) {
		memcpy(&len, file + at + 8, 4);
		len = le32toh(len);
		if (!memcmp(file + at, "loge", 4) && len >= 4096 &&
		    len <= to - at)
			seal_crc(file + at, len);
	}
}

static void expand_vhdx(const uint8_t **data, size_t *bytes)
{
	const uint8_t *p = *data + !!*bytes;
	size_t left = *bytes - !!*bytes, n, i;
	uint8_t flags = *bytes ? **data : 0;

	for (i = 0; i < ARRAY_SIZE(windows); i++) {
		n = min_size(left, windows[i].bytes);
		memset(file + windows[i].at, 0, windows[i].bytes);
		memcpy(file + windows[i].at, p, n);
		p += n;
		left -= n;
	}
	for (i = 0; i < 2; i++) {
		if (flags >> i & 1)
			seal_crc(file + ((64 << 10) << i), 4096);
		if (flags >> i & 4)
			seal_crc(file + (192 << 10) + i * (64 << 10), 64 << 10);
	}
	if (flags & 16) {
		seal_entries(LOG_AT, LOG_AT + LOG_WINDOW);
		seal_entries(LOG_AT + (1 << 20) - 8192, LOG_AT + (1 << 20));
	}
	*data = file;
	*bytes = sizeof(file);
}

size_t fuzz_expand_flags(const char *format)
{
	return !strcmp(format, "vhd") || !strcmp(format, "vhdx");
}

void fuzz_expand(const char *format, const uint8_t **data, size_t *bytes)
{
	if (!strcmp(format, "vhd"))
		expand_vhd(data, bytes);
	else if (!strcmp(format, "vhdx"))
		expand_vhdx(data, bytes);
}
