/* SPDX-License-Identifier: BSD-3-Clause */
/* platter convert --all: each disk of a container, as a file in a folder. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/chain.h"
#include "formats/containers/container.h"
#include "iouring/util.h"
#include "nbd/cmd/convert.h"

struct disk {
	const char *member;
	char *file; /* without the folder */
};

struct all {
	struct convert *c;
	struct disk *disks;
	size_t n, room;
};

static void all_done(struct all *a)
{
	while (a->n)
		free(a->disks[--a->n].file);
	free(a->disks);
}

/* DISK.raw of a/DISK.vmdk; NULL: no memory. */
static char *file_name(const char *member, bool qcow2)
{
	const char *slash = strrchr(member, '/');
	const char *name = slash ? slash + 1 : member;
	const char *dot = strrchr(name, '.');
	int n = (int)(dot && dot != name ? (size_t)(dot - name) : strlen(name));
	char *ret;

	return asprintf(&ret, "%.*s.%s", n, name, qcow2 ? "qcow2" : "raw") < 0
		       ? NULL
		       : ret;
}

static int note_disk(void *opaque, const struct member *m)
{
	struct all *a = opaque;
	struct disk *grown;

	if (a->n == a->room) {
		a->room = a->room ? 2 * a->room : 8;
		grown = reallocarray(a->disks, a->room, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		a->disks = grown;
	}
	a->disks[a->n] =
		(struct disk){ m->name, file_name(m->name, a->c->qcow2) };
	return a->disks[a->n++].file ? 0 : -ENOMEM;
}

static int by_file(const void *a, const void *b)
{
	const struct disk *x = a, *y = b;

	return strcmp(x->file, y->file);
}

/* Two of one name, in different folders of the container, are refused first. */
static int check_names(struct all *a, struct error *err)
{
	size_t i;

	qsort(a->disks, a->n, sizeof(*a->disks), by_file);
	for (i = 1; i < a->n; i++)
		if (!strcmp(a->disks[i - 1].file, a->disks[i].file))
			return error_set(err, -EEXIST, 0,
					 "%s and %s would both be %s: "
					 "--member takes them one by one",
					 a->disks[i - 1].member,
					 a->disks[i].member, a->disks[i].file);
	return 0;
}

static int convert_one(struct convert *c, const char *folder,
		       const struct disk *d, struct error *err)
{
	CLEANUP(freep) char *path = NULL;
	int r = config_set(&c->cmd.config, "member", d->member, err);

	if (r < 0)
		return r;
	if (asprintf(&path, "%s/%s", folder, d->file) < 0) {
		path = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	c->output = path;
	r = convert_run(c, err);
	c->output = folder;
	return r;
}

int convert_all(struct convert *c, struct error *err)
{
	CLEANUP(container_unrefp) struct container *container = NULL;
	CLEANUP(all_done) struct all a = { .c = c };
	struct open_options options;
	size_t i;
	int r;

	config_open_options(&c->cmd.config, &options);
	r = chain_open_container(c->cmd.image, &options, &container, err);
	if (r >= 0 && !container)
		r = cmd_no_container(c->cmd.image,
				     ", whose disks --all would be", err);
	if (r >= 0 && container_each_disk(container, note_disk, &a) < 0)
		r = error_set(err, -ENOMEM, 0, "out of memory");
	if (r >= 0 && !a.n)
		r = error_set(err, -ENOENT, 0, "%s: has no disk", c->cmd.image);
	if (r >= 0)
		r = check_names(&a, err);
	if (r >= 0 && mkdir(c->output, 0777) < 0 && errno != EEXIST)
		r = error_set(err, -errno, 0, "%s: %s", c->output,
			      errno_text(errno));
	for (i = 0; i < a.n && r >= 0; i++)
		r = convert_one(c, c->output, &a.disks[i], err);
	return r;
}
