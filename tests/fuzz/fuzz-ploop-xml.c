/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The documents of a ploop bundle, FUZZ_INPUT: "ploop-descriptor"
 * (DiskDescriptor.xml) or "ploop-snapshots" (Snapshots.xml, of a disk with the
 * shots below). Built and run as fuzz-format.c is.
 */
#include <errno.h>
#include <string.h>

#include "formats/drivers/ploop-bundle.h"
#include "tests/fuzz/replay.h"

#define FILE_NAME_MAX 1023U

static void check_refusal(int r, const struct error *err)
{
	MUST(r <= 0 && r == err->code, "gave %d, its error has %d", r,
	     err->code);
	MUST(!r || err->msg[0], "a refusal without a reason");
	MUST(!strpbrk(err->msg, "\n\r\033"), "control bytes in: %s", err->msg);
}

static void check_guid(const struct guid *g)
{
	struct guid again;

	MUST(guid_parse(&again, g->text) && guid_equal(g, &again),
	     "a GUID that is none: %s", g->text);
}

static void check_storage(const struct bundle_storage *s)
{
	size_t i;

	MUST(s->start <= s->end && s->end <= BUNDLE_SECTORS_MAX,
	     "a storage of no sectors");
	MUST(s->n_images && s->n_images <= BUNDLE_IMAGES_MAX, "%zu images",
	     s->n_images);
	for (i = 0; i < s->n_images; i++) {
		const struct bundle_image *image = &s->images[i];
		size_t len = image->file ? strlen(image->file) : 0;

		check_guid(&image->guid);
		MUST(len && len <= FILE_NAME_MAX, "a name of %zu bytes", len);
		MUST(bundle_image(s, &image->guid) == image,
		     "two images of one GUID");
	}
}

/* What ploop.c relies on. */
static void check_bundle(const struct bundle *b)
{
	size_t i, k;

	MUST(b->disk_sectors <= BUNDLE_SECTORS_MAX, "a disk too large");
	MUST(b->n_storages && b->n_storages <= BUNDLE_STORAGES_MAX,
	     "%zu storages", b->n_storages);
	for (i = 0; i < b->n_storages; i++) {
		check_storage(&b->storages[i]);
		MUST(!i || b->storages[i - 1].end <= b->storages[i].start,
		     "storages overlap");
	}
	check_guid(&b->top);
	MUST(b->n_shots <= BUNDLE_SHOTS_MAX, "%zu shots", b->n_shots);
	for (i = 0; i < b->n_shots; i++) {
		struct guid parent = bundle_parent(b, &b->shots[i].guid);

		check_guid(&b->shots[i].guid);
		MUST(guid_equal(&parent, &b->shots[i].parent),
		     "two shots of one GUID");
		if (parent.text[0])
			check_guid(&parent);
		for (k = 0; k < i; k++)
			MUST(!guid_equal(&b->shots[i].guid, &b->shots[k].guid),
			     "two shots of one GUID");
	}
}

static void run_descriptor(const uint8_t *data, size_t bytes,
			   struct replay_outcome *ret)
{
	struct bundle b = { 0 };
	int r = bundle_parse(data, bytes, &b, &ret->reason);

	check_refusal(r, &ret->reason);
	ret->refused = r < 0;
	/* Who is no such document by its head need not be one. */
	bundle_probe(data, bytes);
	if (!r)
		check_bundle(&b);
	bundle_done(&b);
}

/* Two shots, one upon the other. */
static void open_disk(struct bundle *ret)
{
	static const char xml[] =
		"<Parallels_disk_image><Disk_Parameters>"
		"<Disk_size>9</Disk_size></Disk_Parameters><StorageData>"
		"<Storage><Start>0</Start><End>9</End><Image>"
		"<GUID>{aaaaaaaa-0000-0000-0000-000000000001}</GUID>"
		"<Type>Plain</Type><File>a</File></Image></Storage>"
		"</StorageData><Snapshots>"
		"<Shot><GUID>{aaaaaaaa-0000-0000-0000-000000000001}</GUID>"
		"<ParentGUID>{bbbbbbbb-0000-0000-0000-000000000002}"
		"</ParentGUID></Shot>"
		"<Shot><GUID>{bbbbbbbb-0000-0000-0000-000000000002}</GUID>"
		"<ParentGUID>{00000000-0000-0000-0000-000000000000}"
		"</ParentGUID></Shot>"
		"</Snapshots></Parallels_disk_image>";
	struct error err = { 0 };

	MUST(bundle_parse((const uint8_t *)xml, sizeof(xml) - 1, ret, &err) ==
		     0,
	     "%s", err.msg);
}

static void run_snapshots(const uint8_t *data, size_t bytes,
			  struct replay_outcome *ret)
{
	struct bundle b = { 0 };
	struct error err = { 0 };
	char *names[2];
	size_t i;
	int r;

	open_disk(&b);
	r = bundle_parse_names(data, bytes, &b, &ret->reason);
	check_refusal(r, &ret->reason);
	ret->refused = r < 0;
	check_bundle(&b);
	MUST(b.n_shots == 2, "names have made %zu shots", b.n_shots);
	for (i = 0; i < 2; i++)
		names[i] = b.shots[i].name;
	/* Who is asked again has no other answer; a first name stays. */
	MUST(bundle_parse_names(data, bytes, &b, &err) == r, "%s", err.msg);
	for (i = 0; i < 2; i++)
		MUST(!names[i] || b.shots[i].name == names[i], "another name");
	bundle_done(&b);
}

static void run(const uint8_t *data, size_t bytes, struct replay_outcome *ret)
{
	*ret = (struct replay_outcome){ 0 };
	if (!strcmp(FUZZ_INPUT, "ploop-descriptor"))
		run_descriptor(data, bytes, ret);
	else
		run_snapshots(data, bytes, ret);
}

FUZZ_ENTRY(run)
