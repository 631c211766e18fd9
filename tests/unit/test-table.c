/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * formats/table.c: what all drivers have in common. Opening costs a few reads
 * of headers: tables are looked at when they are used, however much there is
 * to be checked.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/layer.h"
#include "tests/lib/fault-source.h"
#include "tests/lib/unit.h"

static struct error err;

static uint8_t *read_file(const char *path, size_t *ret_bytes)
{
	static uint8_t buf[1 << 20];
	FILE *fp = fopen(path, "r");

	ck_assert_msg(fp != NULL, "%s", path);
	*ret_bytes = fread(buf, 1, sizeof(buf), fp);
	fclose(fp);
	return buf;
}

/* At most; with the file's first 64 KiB, by which it is recognised. */
static const struct {
	const char *format, *file;
	unsigned int calls;
	unsigned long bytes;
} opened[] = {
	{ "bochs", "bochs/valid-version-2.bochs", 2, 6160 },
	{ "cloop", "cloop/valid-plain.cloop", 2, 404 },
	{ "dmg", "dmg/valid-fork.dmg", 8, 6843 },
	{ "ploop", "ploop/valid-version-2.ploop", 3, 2640 },
	{ "qcow", "qcow/valid-plain.qcow", 2, 4679 },
	{ "qcow2", "qcow2/valid-data-zeroes-holes.qcow2", 3, 5744 },
	{ "qed", "qed/valid-plain.qed", 2, 32832 },
	{ "vdi", "vdi/valid-dynamic.vdi", 2, 3528 },
	{ "vmdk", "vmdk/valid-hosted.vmdk", 2, 29696 },
	{ "vmdk", "vmdk/valid-hosted-embedded.vmdk", 3, 31744 },
	{ "vmdk", "vmdk/valid-stream.vmdk", 3, 23552 },
	{ "vmdk", "vmdk/valid-cowd.vmdk", 2, 23552 },
	{ "vmdk", "vmdk/valid-sesparse.vmdk", 3, 47136 },
};

START_TEST(opening_reads_headers_alone)
{
	static const struct open_options options;
	const char *source = getenv("PLATTER_SOURCE");
	struct fault_source *f;
	struct folder *folder = NULL;
	struct layer *l = NULL;
	char path[4096];
	size_t bytes;
	uint8_t *data;

	ck_assert_ptr_nonnull(source);
	snprintf(path, sizeof(path), "%s/tests/corpus/%s", source,
		 opened[_i].file);
	data = read_file(path, &bytes);
	f = fault_source_new(data, bytes);
	must(folder_open(unit_path("."), &folder, &err), err);
	must(layer_open(&f->base, "NAME", folder_place(folder),
			opened[_i].format, true, &options, &l, &err),
	     err);
	ck_assert_msg(atomic_load(&f->calls) <= opened[_i].calls &&
			      atomic_load(&f->bytes) <= opened[_i].bytes,
		      "%s: %u calls, %lu bytes", opened[_i].file,
		      atomic_load(&f->calls), atomic_load(&f->bytes));
	layer_unref(l);
	folder_unref(folder);
}
END_TEST

static void add_tests(TCase *tc)
{
	LOOP(tc, opening_reads_headers_alone, opened);
}

int main(void)
{
	return unit_main("table", add_tests);
}
