/* SPDX-License-Identifier: BSD-3-Clause */
#include <endian.h>
#include <string.h>

#include <zlib.h>

#include "formats/gpt.h"
#include "iouring/util.h"
#include "tests/lib/unit.h"

#define HEADER_AT 512U
#define BLOCKS	  20480U

static uint8_t head[4096];

static void put(size_t at, uint64_t value, size_t bytes)
{
	value = htole64(value);
	memcpy(head + HEADER_AT + at, &value, bytes);
}

static void seal(uint32_t bytes)
{
	put(16, 0, 4);
	put(16, crc32(0, head + HEADER_AT, bytes), 4);
}

static void set_up(void)
{
	memset(head, 0, sizeof(head));
	head[510] = 0x55;
	head[511] = 0xaa;
	memcpy(head + HEADER_AT, "EFI PART\0\0\1", 12);
	put(12, 92, 4);
	put(24, 1, 8);
	put(32, BLOCKS - 1, 8);
	put(40, 34, 8);
	put(48, BLOCKS - 34, 8);
	seal(92);
}

START_TEST(the_other_copy_is_at_the_disks_end)
{
	ck_assert_uint_eq(gpt_disk_bytes(head, sizeof(head)), BLOCKS * 512ULL);
	put(12, 512, 4);
	seal(512);
	ck_assert_uint_eq(gpt_disk_bytes(head, 1024), BLOCKS * 512ULL);
}
END_TEST

/* What is told of a header that is not so is nothing. */
static const struct {
	size_t at, bytes;
	uint64_t value;
} hostile[] = {
	{ 0, 1, 'e' }, /* its name */
	{ 12, 4, 91 }, /* its size */
	{ 12, 4, 513 },		{ 12, 4, UINT32_MAX },
	{ 24, 8, 2 }, /* it is another's copy */
	{ 32, 8, BLOCKS - 34 }, /* the other copy lies in the disk */
	{ 32, 8, UINT64_MAX },	{ 32, 8, UINT64_MAX / 512 },
};

START_TEST(nothing_is_told_by_what_is_no_header)
{
	put(hostile[_i].at, hostile[_i].value, hostile[_i].bytes);
	seal(92);
	ck_assert_uint_eq(gpt_disk_bytes(head, sizeof(head)), 0);
}
END_TEST

START_TEST(nothing_is_told_by_what_has_another_sum)
{
	head[HEADER_AT + 60] ^= 1;
	ck_assert_uint_eq(gpt_disk_bytes(head, sizeof(head)), 0);
	head[HEADER_AT + 60] ^= 1;
	head[511] = 0;
	ck_assert_uint_eq(gpt_disk_bytes(head, sizeof(head)), 0);
	head[511] = 0xaa;
	ck_assert_uint_eq(gpt_disk_bytes(head, 1023), 0);
	ck_assert_uint_eq(gpt_disk_bytes(head, 0), 0);
	ck_assert_uint_eq(gpt_disk_bytes(head, 1024), BLOCKS * 512ULL);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, set_up, NULL);
	tcase_add_test(tc, the_other_copy_is_at_the_disks_end);
	LOOP(tc, nothing_is_told_by_what_is_no_header, hostile);
	tcase_add_test(tc, nothing_is_told_by_what_has_another_sum);
}

int main(void)
{
	return unit_main("gpt", add);
}
