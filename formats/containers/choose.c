/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which member is the disk? What a format's driver knows, or what is called as raw
 * disks are; the parts of a VMDK whose descriptor is a member are not disks of
 * their own, and a CD image is one where there is nothing else.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "formats/containers/package.h"
#include "formats/format.h"
#include "formats/streams/stream.h"
#include "iouring/util.h"

/* So many disks are looked for; more are told of as several. */
#define DISKS_MAX 16U

/* Members whose content may be looked at yet: called as a format's, or not. */
struct looks {
	unsigned int at_formats, at_others;
};

enum kind { KIND_OTHER, KIND_CD, KIND_DISK };

/* "disk-s001.vmdk", "disk-flat.vmdk": where the part of the name that tells so
 * begins; 0: it is no part. */
static size_t part_at(const char *name)
{
	static const char *const ends[] = { "-flat.vmdk", "-delta.vmdk",
					    "-sesparse.vmdk", "-ctk.vmdk" };
	size_t n = strlen(name), i;

	for (i = 0; i < ARRAY_SIZE(ends); i++)
		if (container_name_ends(name, ends[i]))
			return n - strlen(ends[i]);
	if (!container_name_ends(name, ".vmdk") || n < 11)
		return 0;
	name += n - 10;
	return name[0] == '-' &&
			       strchr("sf", tolower((unsigned char)name[1])) &&
			       isdigit((unsigned char)name[2]) &&
			       isdigit((unsigned char)name[3]) &&
			       isdigit((unsigned char)name[4])
		       ? n - 10
		       : 0;
}

/* "disk.vmdk.000000003": package_join() has put them together. */
static bool is_chunk(const struct container *c, const struct member *m)
{
	size_t n = strlen(m->name);
	CLEANUP(freep) char *whole = NULL;

	if (n < 11 || m->name[n - 10] != '.' ||
	    strspn(m->name + n - 9, "0123456789") != 9)
		return false;
	whole = strndup(m->name, n - 10);
	return whole && container_find(c, whole);
}

static bool is_part(const struct container *c, const struct member *m)
{
	size_t at = part_at(m->name);
	CLEANUP(freep) char *whole = NULL;

	if (is_chunk(c, m))
		return true;
	if (!at || asprintf(&whole, "%.*s.vmdk", (int)at, m->name) < 0) {
		whole = NULL;
		return false;
	}
	return container_find(c, whole);
}

/* Is it called as a disk is, "disk.vmdk.gz", and compressed so? */
static bool is_packed_disk(const struct member *m, struct source *src)
{
	static const char *const disks[] = { ".img.",	".raw.", ".dd.",
					     ".vmdk.",	".vdi.", ".vhd.",
					     ".qcow2.", ".vhdx." };
	uint8_t head[64];
	size_t n = (size_t)min_u64(src->bytes, sizeof(head)), i;
	const char *dot = strrchr(m->name, '.');

	if (!dot || source_read(src, head, n, 0, NULL) < 0 ||
	    !stream_probe(head, n))
		return false;
	for (i = 0; i < ARRAY_SIZE(disks); i++) {
		size_t len = strlen(disks[i]);

		if ((size_t)(dot + 1 - m->name) > len &&
		    !strncasecmp(dot + 1 - len, disks[i], len))
			return true;
	}
	return false;
}

/* By its content; what cannot be read is no disk that anybody could choose. */
static enum kind look(const struct container *c, const struct member *m)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	const struct format_ops *ops;

	if (container_open_member(c, m, &src, NULL) < 0 ||
	    format_probe(src, &ops, NULL) < 0)
		return KIND_OTHER;
	return strcmp(ops->name, "raw") || is_packed_disk(m, src) ? KIND_DISK
								  : KIND_OTHER;
}

static bool ends_with_one(const char *name, const char *const *ends)
{
	for (; *ends; ends++)
		if (container_name_ends(name, *ends))
			return true;
	return false;
}

static enum kind kind_of(const struct container *c, const struct member *m,
			 struct looks *left)
{
	static const char *const raw[] = { ".img", ".raw", ".dd", ".hdd",
					   NULL };
	static const char *const format[] = { ".vmdk", ".qcow2", ".qcow",
					      ".vdi",  ".vhd",	 ".vhdx",
					      ".qed",  ".dmg",	 NULL };
	static const char *const other[] = { ".ovf",  ".mf",  ".cert",	".xml",
					     ".json", ".txt", ".nvram", ".yaml",
					     ".tar",  NULL };
	unsigned int *looks;

	if (!m->bytes || ends_with_one(m->name, other))
		return KIND_OTHER;
	if (container_name_ends(m->name, ".iso"))
		return KIND_CD;
	if (ends_with_one(m->name, raw))
		return KIND_DISK;
	looks = ends_with_one(m->name, format) ? &left->at_formats
					       : &left->at_others;
	if (!*looks)
		return KIND_OTHER;
	--*looks;
	return is_part(c, m) ? KIND_OTHER : look(c, m);
}

static int find_named(const struct container *c, const char *name,
		      const struct member **ret, struct error *err)
{
	char safe[256];

	*ret = container_find(c, name);
	if (!*ret)
		*ret = package_find(c, name);
	if (*ret)
		return 0;
	text_escape(safe, sizeof(safe), name);
	return error_set(err, -ENOENT, 0, "has no member \"%s\"", safe);
}

struct found {
	const struct member *all[DISKS_MAX];
	size_t n;
};

/* One of the same name takes the place of one before. */
static void add_found(struct found *f, const struct container *c,
		      const struct member *m)
{
	if (container_find(c, m->name) == m)
		f->all[f->n++] = m;
}

static bool is_found(const struct found *f, const struct member *m)
{
	size_t i;

	for (i = 0; i < f->n; i++)
		if (f->all[i] == m)
			return true;
	return false;
}

/* What an OVF descriptor says are disks, and is there. */
static void find_described(const struct container *c, struct found *ret)
{
	CLEANUP(ovf_done) struct ovf o = { 0 };
	const struct member *descriptor, *m;
	size_t i;

	if (package_read(c, &o, &descriptor, NULL) < 0)
		return;
	for (i = 0; i < o.n_disks && ret->n < DISKS_MAX; i++) {
		m = package_disk(c, &o, descriptor, &o.disks[i]);
		if (m && m->bytes && !is_found(ret, m))
			add_found(ret, c, m);
	}
}

/* Disks, or, if there are none, images of CDs. */
static void find_disks(const struct container *c, struct found *ret)
{
	struct found disks = { 0 }, cds = { 0 };
	struct looks left = { 256, 64 };
	size_t i;

	*ret = (struct found){ 0 };
	find_described(c, ret);
	if (ret->n)
		return;
	for (i = 0; i < c->n && disks.n < DISKS_MAX && cds.n < DISKS_MAX; i++) {
		enum kind kind = kind_of(c, &c->members[i], &left);

		if (kind != KIND_OTHER)
			add_found(kind == KIND_DISK ? &disks : &cds, c,
				  &c->members[i]);
	}
	*ret = disks.n ? disks : cds;
}

int container_each_disk(const struct container *c,
			int (*each)(void *opaque, const struct member *m),
			void *opaque)
{
	struct found f;
	size_t i;
	int r = 0;

	find_disks(c, &f);
	for (i = 0; i < f.n && !r; i++)
		r = each(opaque, f.all[i]);
	return r;
}

static void put_names(const struct found *f, char *ret, size_t ret_bytes)
{
	size_t used = 0, i;

	*ret = '\0';
	for (i = 0; i < f->n && used + 8 < ret_bytes; i++) {
		if (i)
			used = strlen(strcpy(ret + used, ", ")) + used;
		text_escape(ret + used, ret_bytes - used, f->all[i]->name);
		used += strlen(ret + used);
	}
}

int container_choose(const struct container *c, const char *name,
		     const struct member **ret, struct error *err)
{
	char names[512];
	struct found f;

	if (name)
		return find_named(c, name, ret, err);
	find_disks(c, &f);
	if (f.n == 1) {
		*ret = f.all[0];
		return 0;
	}
	put_names(&f, names, sizeof(names));
	if (f.n)
		return error_set(err, -ENOTUNIQ, 0,
				 "is %s of several disks: name one with %s: %s",
				 c->ops->what, AS_GIVEN("member=", "--member"),
				 names);
	return error_set(
		err, -EINVAL, 0,
		"is %s without a disk: %s takes one of its %zu members "
		"all the same, platter list shows them",
		c->ops->what, AS_GIVEN("member=", "--member"), c->n);
}
