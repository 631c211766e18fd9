/* SPDX-License-Identifier: BSD-3-Clause */
/* formats/drivers/ploop.c: image files. Bundles: test-ploop-bundle.c, diff/ploop.py */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/chain.h"
#include "tests/lib/disk.h"

/* Clusters of 4 sectors, of which the BAT has the first. */
enum {
	CLUSTER = 2048,
	BAT = 64,
	ENTRIES = 16,
	FILE_CLUSTERS = 10,
	FILE_BYTES = FILE_CLUSTERS * CLUSTER,
	EXT = 8 * CLUSTER,
};

static void magic(unsigned int version)
{
	memcpy(disk_file,
	       version == 1 ? "WithoutFreeSpace" : "WithouFreSpacExt", 16);
}

static void entry(unsigned int idx, uint32_t value)
{
	disk_le(BAT + 4 * idx, 4, value);
}

static void setup(void)
{
	disk_new(FILE_BYTES);
	magic(2);
	disk_le(16, 4, 2);
	disk_le(28, 4, CLUSTER / 512);
	disk_le(32, 4, ENTRIES);
	disk_le(36, 8, ENTRIES * CLUSTER / 512);
	disk_le(48, 4, CLUSTER / 512);
}

static const struct disk_row hostile[] = {
	{ 16, 4, 1, -ENOTSUP, 16, "type 1" },
	{ 28, 4, 0, -EBADMSG, 28, "0 sectors" },
	{ 28, 4, INT32_MAX / 513 + 1, -EBADMSG, 28, "not in 1..4186127" },
	{ 32, 4, INT32_MAX / 4 + 1, -EFBIG, 32, "limit" },
	{ 32, 4, (FILE_BYTES - BAT) / 4 + 1, -EBADMSG, 32, "ends past" },
	{ 36, 8, INT64_MAX / 512 + 1, -EFBIG, 36, "limit" },
	{ 36, 8, UINT64_MAX, -EFBIG, 36, "limit" },
	{ 36, 8, ENTRIES *CLUSTER / 512 + 1, -EBADMSG, 32, "too short" },
	{ 32, 4, ENTRIES - 1, -EBADMSG, 32, "too short" },
	{ 48, 4, 0, -EBADMSG, 48, "do not begin at a cluster" },
	{ 48, 4, CLUSTER / 512 + 1, -EBADMSG, 48, "begin at a cluster" },
	{ 56, 8, FILE_BYTES / 512 + 1, -EBADMSG, 56, "format extension" },
	{ 56, 8, 1ULL << 63, -EBADMSG, 56, "format extension" },
};

START_TEST(open_refuses_hostile_field)
{
	disk_refuses("ploop", &hostile[_i], true);
}
END_TEST

START_TEST(open_refuses_a_header_that_is_cut_off)
{
	static const struct disk_row cut = { .code = -EBADMSG,
					     .off = 63,
					     .says = "cut off" };

	disk_bytes = 63;
	disk_refuses("ploop", &cut, true);
}
END_TEST

START_TEST(entries_of_version_2_count_clusters)
{
	struct layer *l;

	entry(1, 3);
	entry(2, 4);
	l = disk_must_open("ploop");
	ck_assert_uint_eq(l->bytes, ENTRIES * CLUSTER);
	ck_assert_uint_eq(l->unit_bytes, CLUSTER);
	disk_maps(l, 0, EXTENT_HOLE, CLUSTER, 0);
	disk_maps(l, CLUSTER + 7, EXTENT_DATA, 2 * CLUSTER - 7,
		  3 * CLUSTER + 7);
	disk_maps(l, 3 * CLUSTER, EXTENT_HOLE, 13 * CLUSTER, 0);
	layer_unref(l);
}
END_TEST

START_TEST(entries_of_version_1_count_sectors)
{
	struct layer *l;

	magic(1);
	disk_le(28, 4, 3); /* no power of two */
	disk_le(36, 8, 0xffffffff00000000 + ENTRIES * 3);
	entry(0, 2);
	entry(1, 5);
	entry(2, 9);
	l = disk_must_open("ploop");
	ck_assert_uint_eq(l->bytes, ENTRIES * 1536);
	ck_assert_uint_eq(l->unit_bytes, 0);
	disk_maps(l, 100, EXTENT_DATA, 2 * 1536 - 100, 1024 + 100);
	disk_maps(l, 2 * 1536, EXTENT_DATA, 1536, 9 * 512);
	layer_unref(l);
}
END_TEST

START_TEST(wrong_entries_are_damage)
{
	struct layer *l;

	entry(0, FILE_CLUSTERS);
	entry(1, UINT32_MAX);
	l = disk_must_open("ploop");
	disk_is_damaged(l, 0, "behind the file's end");
	disk_is_damaged(l, CLUSTER, "behind the file's end");
	disk_checks(l, 2, FILE_CLUSTERS - 1);
	layer_unref(l);
	magic(1);
	disk_le(32, 4, 200);
	entry(0, 1);
	l = disk_must_open("ploop");
	disk_is_damaged(l, 0, "in front of the data at 864");
	layer_unref(l);
}
END_TEST

START_TEST(a_cluster_that_the_end_cuts_is_damage_behind_it)
{
	struct layer *l;

	entry(0, FILE_CLUSTERS - 1);
	disk_bytes -= CLUSTER - 700;
	l = disk_must_open("ploop");
	disk_maps(l, 0, EXTENT_DATA, 700, (FILE_CLUSTERS - 1) * CLUSTER);
	disk_is_damaged(l, 700, "behind the file's end");
	disk_checks(l, 1, FILE_CLUSTERS - 2);
	layer_unref(l);
}
END_TEST

START_TEST(a_bat_that_is_too_long_is_found)
{
	struct layer *l;

	disk_le(36, 8, (ENTRIES - 1) * CLUSTER / 512);
	entry(ENTRIES - 1, 1); /* and a cluster behind the disk's end */
	l = disk_must_open("ploop");
	disk_checks(l, 2, FILE_CLUSTERS - 2);
	layer_unref(l);
}
END_TEST

START_TEST(an_image_in_use_is_read_and_its_extension_not)
{
	struct layer *l;

	disk_le(44, 4, 0x746f6e59);
	disk_le(56, 8, UINT64_MAX);
	entry(0, 1);
	l = disk_must_open("ploop");
	disk_maps(l, 0, EXTENT_DATA, CLUSTER, CLUSTER);
	ck_assert_str_eq(disk_info(l, "dirty"), "yes");
	ck_assert_str_eq(disk_info(l, "bitmaps"), "");
	disk_checks(l, 1, FILE_CLUSTERS - 2);
	layer_unref(l);
}
END_TEST

static void feature(size_t at, uint64_t id, uint64_t flags, uint32_t bytes)
{
	disk_le(at, 8, id);
	disk_le(at + 8, 8, flags);
	disk_le(at + 16, 4, bytes);
}

START_TEST(format_extensions_are_told)
{
	struct layer *l;

	disk_le(56, 8, EXT / 512);
	disk_le(EXT, 8, 0xab234cef23dcea87);
	feature(EXT + 24, 0x20385fae252cb34a, 1, 31);
	feature(EXT + 24 + 24 + 32, 4711, 1, 0);
	l = disk_must_open("ploop");
	ck_assert_str_eq(disk_info(l, "bitmaps"), "1");
	ck_assert_str_eq(disk_info(l, "unknown-extensions"), "1");
	ck_assert_str_eq(disk_info(l, "unknown-extensions-necessary"), "yes");
	ck_assert_str_eq(disk_info(l, "extension-damaged"), "no");
	disk_checks(l, 0, 0);
	layer_unref(l);
	feature(EXT + 24, 4711, 0, UINT32_MAX);
	l = disk_must_open("ploop");
	ck_assert_str_eq(disk_info(l, "unknown-extensions-necessary"), "no");
	ck_assert_str_eq(disk_info(l, "extension-damaged"), "yes");
	layer_unref(l);
	disk_le(EXT, 8, 0);
	l = disk_must_open("ploop");
	disk_checks(l, 1, 0);
	layer_unref(l);
}
END_TEST

START_TEST(check_counts_what_is_used_twice_and_what_is_not)
{
	struct layer *l;

	entry(0, 1);
	entry(1, 2);
	l = disk_must_open("ploop");
	disk_checks(l, 0, FILE_CLUSTERS - 3);
	layer_unref(l);
	entry(2, 1);
	l = disk_must_open("ploop");
	disk_checks(l, 1, FILE_CLUSTERS - 3);
	layer_unref(l);
}
END_TEST

START_TEST(an_image_alone_has_no_snapshots)
{
	static const struct open_options options = { .snapshot = "x" };
	struct layer *l;
	int r;

	l = disk_open("ploop", &options, &r);
	ck_assert_int_eq(r, -ENOENT);
	unit_says(&disk_err, "DiskDescriptor.xml");
	layer_unref(l);
}
END_TEST

#define BASE "{11111111-2222-3333-4444-555555555555}"
#define TOP  "{5fbaabe3-6958-40ff-92a7-860e329aab41}"

/* Two deltas in a folder; the base has cluster 1, the top 0. */
static void write_bundle(const char *descriptor)
{
	entry(0, 1);
	memset(disk_file + CLUSTER, 'T', CLUSTER);
	unit_write(unit_path("top.hds"), disk_file, disk_bytes);
	entry(0, 0);
	entry(1, 1);
	memset(disk_file + CLUSTER, 'B', CLUSTER);
	unit_write(unit_path("base.hds"), disk_file, disk_bytes);
	unit_write(unit_path("DiskDescriptor.xml"), descriptor,
		   strlen(descriptor));
}

static const char descriptor[] =
	"<Parallels_disk_image><Disk_Parameters><Disk_size>64</Disk_size>"
	"</Disk_Parameters><StorageData><Storage><Start>0</Start>"
	"<End>64</End>"
	"<Image><GUID>" TOP "</GUID><Type>Compressed</Type>"
	"<File>/elsewhere/top.hds</File></Image>"
	"<Image><GUID>" BASE "</GUID><Type>Compressed</Type>"
	"<File>base.hds</File></Image></Storage></StorageData>"
	"<Snapshots><Shot><GUID>" TOP "</GUID><ParentGUID>" BASE
	"</ParentGUID></Shot><Shot><GUID>" BASE "</GUID><ParentGUID>"
	"{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot>"
	"</Snapshots></Parallels_disk_image>";

/* What of the descriptor is other, by which way it is opened then. */
static const struct {
	const char *old, *new, *says;
} wrong_descriptors[] = {
	{ "<Start>0<", "<Start>8<", "no storage has the sectors 0 to 8" },
	{ "size>64<", "size>65<", "Disk_size is 65 sectors, the storages" },
	{ "size>64<", "size>24<", "Disk_size is 24 sectors, the storages" },
	{ "Shot><GUID>{5fba", "Shot><GUID>{4fba", "no Shot tells what" },
	{ "ParentGUID>{1", "ParentGUID>{2", "there is no image" },
};

START_TEST(a_descriptor_that_lost_something_is_refused)
{
	static const struct open_options options;
	const char *old = wrong_descriptors[_i].old;
	const char *at = strstr(descriptor, old);
	char text[sizeof(descriptor) + 16];
	struct chain c;

	unit_need_openat2();
	ck_assert_ptr_nonnull(at);
	snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - descriptor),
		 descriptor, wrong_descriptors[_i].new, at + strlen(old));
	write_bundle(text);
	ck_assert_int_eq(chain_open(unit_path("DiskDescriptor.xml"), &options,
				    &c, &disk_err),
			 -EBADMSG);
	unit_says(&disk_err, wrong_descriptors[_i].says);
}
END_TEST

START_TEST(a_top_delta_that_is_smaller_than_its_storage_is_refused)
{
	static const struct open_options options;
	struct chain c;

	unit_need_openat2();
	disk_le(36, 8, 63);
	write_bundle(descriptor);
	ck_assert_int_eq(chain_open(unit_path("DiskDescriptor.xml"), &options,
				    &c, &disk_err),
			 -EBADMSG);
	unit_says(&disk_err, "a storage has 64 sectors, its top image 63");
}
END_TEST

static int count_snapshot(void *opaque, const struct snapshot *s)
{
	unsigned int *n = opaque;

	ck_assert_str_eq(s->id, BASE);
	++*n;
	return 0;
}

START_TEST(a_delta_finds_the_descriptor_beside_it)
{
	static const char *const ways[] = { "top.hds", "DiskDescriptor.xml" };
	struct open_options options = { 0 };
	struct chain c;
	struct extent e;
	unsigned int i, n = 0;

	unit_need_openat2();
	write_bundle(descriptor);
	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		must(chain_open(unit_path("%s", ways[i]), &options, &c,
				&disk_err),
		     disk_err);
		ck_assert_uint_eq(c.depth, 2);
		ck_assert_uint_eq(c.bytes, 64 * 512);
		must(chain_map(&c, 0, 64 * 512, &e, &disk_err), disk_err);
		ck_assert_uint_eq(e.depth, 0);
		ck_assert_uint_eq(e.host_off, CLUSTER);
		must(chain_map(&c, CLUSTER, CLUSTER, &e, &disk_err), disk_err);
		ck_assert_uint_eq(e.depth, 1);
		must(c.layers[0]->ops->snapshots(c.layers[0], count_snapshot,
						 &n, &disk_err),
		     disk_err);
		ck_assert_uint_eq(n, i + 1);
		chain_done(&c);
	}
	options.snapshot = BASE;
	must(chain_open(unit_path("top.hds"), &options, &c, &disk_err),
	     disk_err);
	ck_assert_uint_eq(c.depth, 1);
	must(chain_map(&c, 0, 64 * 512, &e, &disk_err), disk_err);
	ck_assert(e.absent);
	chain_done(&c);
	options.snapshot = "{11111111-2222-3333-4444-555555555556}";
	ck_assert_int_eq(
		chain_open(unit_path("top.hds"), &options, &c, &disk_err),
		-ENOENT);
	unit_says(&disk_err, "no snapshot");
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_checked_fixture(tc, setup, disk_done);
	LOOP(tc, open_refuses_hostile_field, hostile);
	tcase_add_test(tc, open_refuses_a_header_that_is_cut_off);
	tcase_add_test(tc, entries_of_version_2_count_clusters);
	tcase_add_test(tc, entries_of_version_1_count_sectors);
	tcase_add_test(tc, wrong_entries_are_damage);
	tcase_add_test(tc, a_cluster_that_the_end_cuts_is_damage_behind_it);
	tcase_add_test(tc, a_bat_that_is_too_long_is_found);
	tcase_add_test(tc, an_image_in_use_is_read_and_its_extension_not);
	tcase_add_test(tc, format_extensions_are_told);
	tcase_add_test(tc, check_counts_what_is_used_twice_and_what_is_not);
	tcase_add_test(tc, an_image_alone_has_no_snapshots);
	LOOP(tc, a_descriptor_that_lost_something_is_refused,
	     wrong_descriptors);
	tcase_add_test(tc,
		       a_top_delta_that_is_smaller_than_its_storage_is_refused);
	tcase_add_test(tc, a_delta_finds_the_descriptor_beside_it);
}

int main(void)
{
	return unit_main("ploop", add);
}
