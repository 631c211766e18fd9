/* SPDX-License-Identifier: BSD-3-Clause */
/* formats/drivers/raw-type.c */
#include <string.h>

#include "tests/lib/disk.h"

#define BYTES (80U << 10)

static void setup(void)
{
	disk_new(BYTES);
}

static const char *content(void)
{
	static char text[256];
	struct layer *l = disk_must_open("raw");

	strcpy(text, disk_info(l, "content"));
	layer_unref(l);
	return text;
}

static const char *told(const char *key)
{
	static char text[256];
	struct layer *l = disk_must_open("raw");

	strcpy(text, disk_info(l, key));
	layer_unref(l);
	return text;
}

static void put(size_t at, const char *bytes)
{
	memcpy(disk_file + at, bytes, strlen(bytes));
}

START_TEST(nothing_is_recognised_in_zeroes_and_in_nothing)
{
	ck_assert_str_eq(content(), "not recognised");
	disk_bytes = 0;
	ck_assert_str_eq(content(), "not recognised");
}
END_TEST

static const struct {
	size_t at;
	const char *bytes;
	const char *content;
} rows[] = {
	{ 0, "XFSB", "XFS file system" },
	{ 0x10040, "_BHRfS_M", "btrfs file system" },
	{ 0x400, "\xe2\xe1\xf5\xe0", "EROFS file system" },
	{ 0x400, "\x10\x20\xf5\xf2", "F2FS file system" },
	{ 0, "hsqs", "squashfs file system" },
	{ 4086, "SWAPSPACE2", "swap space" },
	{ 0x218, "LVM2 001", "LVM2 physical volume" },
	{ 0x38, "ARM\x64", "Linux kernel (arm64 Image)" },
	{ 0, "070701", "initial RAM disk (cpio)" },
	{ 257, "ustar", "tar archive (an OVA, perhaps)" },
	{ 0, "PK\x03\x04", "zip archive" },
	{ 0, "\x1f\x8b\x08", "gzip stream (an initial RAM disk, perhaps)" },
	{ 0x438, "\x53\xef", "ext2 file system" },
	{ 512, "EFI PART", "GPT partition table" },
};

START_TEST(kinds_are_known_by_their_bytes)
{
	put(rows[_i].at, rows[_i].bytes);
	ck_assert_str_eq(content(), rows[_i].content);
	disk_bytes = rows[_i].at + strlen(rows[_i].bytes) - 1;
	ck_assert_str_eq(content(), "not recognised");
}
END_TEST

START_TEST(an_iso_has_a_volume_name_and_may_boot)
{
	put(32769, "CD001");
	put(32768 + 40, "DEBIAN 12                       x");
	ck_assert_str_eq(content(), "ISO 9660 file system");
	ck_assert_str_eq(told("volume"), "DEBIAN 12");
	ck_assert_str_eq(told("el-torito"), "no");
	put(34817, "CD001");
	put(34816 + 7, "EL TORITO SPECIFICATION");
	ck_assert_str_eq(told("el-torito"), "yes");
	put(510, "\x55\xaa"); /* and it is a hybrid */
	put(450, "\x83");
	ck_assert_str_eq(content(),
			 "ISO 9660 file system, MBR partition table");
	ck_assert_str_eq(told("partitions"), "1");
	disk_file[34816] = 255; /* the end of the list */
	ck_assert_str_eq(told("el-torito"), "no");
}
END_TEST

START_TEST(a_boot_sector_alone_is_no_partition_table)
{
	put(510, "\x55\xaa");
	ck_assert_str_eq(content(), "not recognised");
	put(446, "\x01"); /* no status */
	put(450, "\x83");
	ck_assert_str_eq(content(), "not recognised");
	put(446, "\x80");
	ck_assert_str_eq(content(), "MBR partition table");
	put(82, "FAT32   ");
	ck_assert_str_eq(content(), "FAT file system");
	put(3, "NTFS    ");
	ck_assert_str_eq(content(), "NTFS file system");
}
END_TEST

START_TEST(partitions_of_a_gpt_are_counted)
{
	put(512, "EFI PART");
	disk_le(512 + 72, 8, 2);
	disk_le(512 + 80, 4, 128);
	disk_le(512 + 84, 4, 128);
	put(1024, "type");
	put(1024 + 3 * 128, "type");
	ck_assert_str_eq(told("partitions"), "2");
	disk_le(512 + 72, 8, UINT64_MAX); /* nowhere */
	ck_assert_str_eq(told("partitions"), "");
}
END_TEST

START_TEST(a_kernel_tells_its_version)
{
	put(510, "\x55\xaa");
	put(0x202, "HdrS");
	disk_le(0x20e, 2, 0x1000);
	put(0x1200, "6.1.0-test (somebody)\n");
	ck_assert_str_eq(content(), "Linux kernel (bzImage)");
	ck_assert_str_eq(told("kernel-version"), "6.1.0-test (somebody)");
	disk_le(0x20e, 2, 0xffff);
	ck_assert_str_eq(told("kernel-version"), "");
}
END_TEST

START_TEST(ext_is_2_3_or_4_and_has_a_label)
{
	put(0x438, "\x53\xef");
	put(0x478, "root");
	ck_assert_str_eq(told("label"), "root");
	disk_le(0x45c, 4, 4);
	ck_assert_str_eq(content(), "ext3 file system");
	disk_le(0x460, 4, 0x40);
	ck_assert_str_eq(content(), "ext4 file system");
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, disk_done);
	tcase_add_test(tc, nothing_is_recognised_in_zeroes_and_in_nothing);
	LOOP(tc, kinds_are_known_by_their_bytes, rows);
	tcase_add_test(tc, an_iso_has_a_volume_name_and_may_boot);
	tcase_add_test(tc, a_boot_sector_alone_is_no_partition_table);
	tcase_add_test(tc, partitions_of_a_gpt_are_counted);
	tcase_add_test(tc, a_kernel_tells_its_version);
	tcase_add_test(tc, ext_is_2_3_or_4_and_has_a_label);
}

int main(void)
{
	return unit_main("raw-type", add);
}
