/* SPDX-License-Identifier: BSD-3-Clause */
/* formats/drivers/luks.c; keys are test-luks-key.c's and diff/luks.py's. */
#include <errno.h>
#include <string.h>

#include "tests/lib/disk.h"

enum {
	MODE = 40,
	PAYLOAD = 104,
	SLOTS = 208,
	PAYLOAD_SECTOR = 8,
	FILE_BYTES = PAYLOAD_SECTOR * 512 + 10 * 512,
};

static void setup(void)
{
	unsigned int i;

	disk_new(FILE_BYTES);
	memcpy(disk_file, "LUKS\xba\xbe\0\1aes", 11);
	strcpy((char *)disk_file + MODE, "xts-plain64");
	strcpy((char *)disk_file + 72, "sha256");
	disk_be(PAYLOAD, 4, PAYLOAD_SECTOR);
	disk_be(108, 4, 64);
	disk_be(164, 4, 1000);
	for (i = 0; i < 8; i++)
		disk_be(SLOTS + 48 * i, 4, 0xdead);
}

static const struct disk_row hostile[] = {
	{ 6, 2, 2, -ENOTSUP, 6, "LUKS2 is not supported" },
	{ 8, 1, 'x', -ENOTSUP, 8, "cipher xes" },
	{ PAYLOAD, 4, 0, -ENOTSUP, PAYLOAD, "without its volume" },
	{ PAYLOAD, 4, 1, -ENOTSUP, PAYLOAD, "payload at 512" },
	{ PAYLOAD, 4, FILE_BYTES / 512 + 1, -EBADMSG, PAYLOAD, "behind" },
	{ PAYLOAD, 4, UINT32_MAX, -EBADMSG, PAYLOAD, "behind" },
};

START_TEST(open_refuses_hostile_field)
{
	disk_refuses("luks", &hostile[_i], false);
}
END_TEST

START_TEST(without_a_key_it_can_be_looked_at_but_not_read)
{
	struct extent e;
	struct layer *l = disk_must_open("luks");

	ck_assert(l->encrypted && l->locked);
	ck_assert_uint_eq(l->bytes, 10 * 512);
	ck_assert_int_eq(l->ops->map(l, 0, 1, &e, &disk_err), -EACCES);
	ck_assert_str_eq(disk_info(l, "cipher"), "aes-xts-plain64");
	ck_assert_str_eq(disk_info(l, "payload-offset"), "4096");
	layer_unref(l);
}
END_TEST

START_TEST(a_sector_that_is_cut_is_not_served)
{
	struct layer *l;

	disk_bytes -= 1;
	l = disk_must_open("luks");
	ck_assert_uint_eq(l->bytes, 9 * 512);
	layer_unref(l);
}
END_TEST

START_TEST(a_wrong_key_is_refused)
{
	static const struct open_options options = {
		.key = (const uint8_t *)"x\n",
		.key_bytes = 2,
	};
	struct layer *l;
	int r;

	l = disk_open("luks", &options, &r);
	ck_assert_int_eq(r, -EACCES);
	layer_unref(l);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, disk_done);
	LOOP(tc, open_refuses_hostile_field, hostile);
	tcase_add_test(tc, without_a_key_it_can_be_looked_at_but_not_read);
	tcase_add_test(tc, a_sector_that_is_cut_is_not_served);
	tcase_add_test(tc, a_wrong_key_is_refused);
}

int main(void)
{
	return unit_main("luks", add);
}
