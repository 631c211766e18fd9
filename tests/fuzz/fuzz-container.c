/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A container from its bytes: its members, what a choice says, the place of each.
 * Built and run as fuzz-format.c is.
 */
#include <errno.h>
#include <string.h>

#include "formats/containers/manifest.h"
#include "formats/containers/package.h"
#include "formats/reference.h"
#include "iouring/util.h"
#include "tests/fuzz/replay.h"

/* Of many members, these are looked at closely. */
#define CLOSELY 64U

static void check_refusal(int r, const struct error *err)
{
	MUST(r <= 0 && r == err->code, "gave %d, its error has %d", r,
	     err->code);
	MUST(!r || err->msg[0], "a refusal without a reason");
	MUST(!strpbrk(err->msg, "\n\r\033"), "control bytes in: %s", err->msg);
}

/* Bytes that a member says it has must be the container's, in their place. */
static void check_bytes(const struct container *c, const struct member *m,
			const uint8_t *data)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	struct error err = { 0 };
	uint8_t some[512];
	size_t n = (size_t)min_u64(m->bytes, sizeof(some));
	int r = container_open_member(c, m, &src, &err);

	check_refusal(r, &err);
	MUST(m->unreadable || r == 0, "a member that cannot be opened: %s",
	     err.msg);
	if (r < 0)
		return;
	MUST(src->bytes == m->bytes, "another size");
	MUST(source_read(src, some, n, 0, &err) == 0, "%s", err.msg);
	MUST(m->sparse || !memcmp(some, data + m->off, n), "other bytes");
}

static int count(void *opaque, const char *name)
{
	unsigned int *n = opaque;

	MUST(*name && !strchr(name, '/'), "a name in another folder: %s", name);
	return ++*n == CLOSELY;
}

static void check_place(struct container *c, const struct member *m)
{
	static const char *const names[] = { "a",  "../a", "/a", "../../../a",
					     "./", "",	   "..", "x/../y" };
	CLEANUP(place_unrefp)
	struct place *p = m->outside ? NULL : container_place(c, m);
	struct allow allow = { 0 };
	unsigned int n = 0;
	size_t i;

	MUST(p || m->outside, "no place");
	if (!p)
		return;
	place_for_each(p, count, &n);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		struct place_file f = { 0 };
		struct error err = { 0 };
		int r = place_open(p,
				   &(struct place_ask){ .name = names[i],
							.what = "extent",
							.allow = &allow },
				   &f, NULL, &err);

		check_refusal(r, &err);
		if (!r)
			place_file_done(&f);
	}
}

static void check_members(struct container *c, const uint8_t *data,
			  size_t bytes)
{
	const struct member *m;
	struct error err = { 0 };
	size_t i;
	int r;

	for (i = 0; i < c->n; i++) {
		m = &c->members[i];
		MUST(*m->name && strlen(m->name) <= MEMBER_NAME_MAX, "a name");
		MUST(m->unreadable || m->sparse || m->outside ||
			     range_inside(m->off, m->bytes, bytes),
		     "a member outside of the container");
		if (i >= CLOSELY)
			continue;
		MUST(!strcmp(container_find(c, m->name)->name, m->name),
		     "a member that is not found");
		check_bytes(c, m, data);
		check_place(c, m);
	}
	r = container_choose(c, NULL, &m, &err);
	check_refusal(r, &err);
	MUST(r || m->bytes, "an empty disk was chosen");
}

static void say_nothing(struct manifest_report *r, bool well, const char *line)
{
	MUST(*line, "an empty finding");
}

static void tell_nothing(struct manifest_report *r, uint64_t done_bytes)
{
	MUST(done_bytes <= r->total_bytes, "more than there is");
}

static void check_package(const struct container *c)
{
	struct manifest_report report = { .say = say_nothing,
					  .tell = tell_nothing };
	const struct member *descriptor;
	struct error err = { 0 };
	struct ovf o;
	int r = package_read(c, &o, &descriptor, &err);

	check_refusal(r, &err);
	MUST(!r || !o.n_disks, "a refusal that leaves something");
	ovf_done(&o);
	error_clear(&err);
	r = manifest_check(c, &report, &err);
	check_refusal(r, &err);
}

static void run(const uint8_t *data, size_t bytes, struct replay_outcome *ret)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	CLEANUP(container_unrefp) struct container *c = NULL;
	struct error err = { 0 };
	int r;

	*ret = (struct replay_outcome){ 0 };
	MUST(memory_source_new(data, bytes, &src, &err) == 0, "%s", err.msg);
	r = container_open(src, NULL, "NAME", true, &c, &ret->reason);
	check_refusal(r, &ret->reason);
	ret->refused = r < 0 || !c;
	if (!c)
		return;
	check_members(c, data, bytes);
	check_package(c);
}

FUZZ_ENTRY(run)
