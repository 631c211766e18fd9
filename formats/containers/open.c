/* SPDX-License-Identifier: BSD-3-Clause */
/* Which container is this file? */
#include <errno.h>
#include <string.h>

#include "formats/containers/package.h"
#include "formats/format.h"
#include "iouring/util.h"

#define HEAD_BYTES 4096U

static const struct container_ops *const containers[] = {
	&container_tar,
	&container_ovf,
};

/* ---- what it is ---- */

static const struct container_ops *find(const uint8_t *head, size_t bytes)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(containers); i++)
		if (containers[i]->probe(head, bytes))
			return containers[i];
	return NULL;
}

bool container_is(const uint8_t *head, size_t bytes)
{
	return find(head, bytes);
}

static bool has_gpt(const uint8_t *head, size_t bytes, size_t at)
{
	return bytes >= at + 8 && !memcmp(head + at, "EFI PART", 8);
}

/* NULL: no disk begins so. */
static const char *partitioned(const uint8_t *head, size_t bytes)
{
	if (bytes >= 512 && head[510] == 0x55 && head[511] == 0xaa)
		return "a disk with a boot sector";
	return has_gpt(head, bytes, 512) ? "a disk with a GPT" : NULL;
}

static int check_no_disk(const struct container_ops *ops, struct source *src,
			 const uint8_t *head, size_t bytes, struct error *err)
{
	const char *other = partitioned(head, bytes);
	const struct format_ops *format = NULL;
	int r = other ? 0 : format_probe(src, &format, err);

	if (r < 0)
		return r;
	if (!other && strcmp(format->name, "raw") != 0)
		other = format->name;
	if (!other)
		return 0;
	return error_set(
		err, -EBADMSG, 0, "looks like %s and like %s: give %s",
		ops->what, other,
		AS_GIVEN("format= or member=", "--format or --member"));
}

int container_open(struct source *src, struct place *place, const char *path,
		   bool chosen, struct container **ret, struct error *err)
{
	size_t bytes = (size_t)min_u64(src->bytes, HEAD_BYTES);
	const struct container_ops *ops;
	CLEANUP(container_unrefp) struct container *c = NULL;
	uint8_t head[HEAD_BYTES];
	int r = source_read(src, head, bytes, 0, err);

	*ret = NULL;
	ops = r < 0 ? NULL : find(head, bytes);
	if (!ops)
		return r;
	if (!chosen)
		r = check_no_disk(ops, src, head, bytes, err);
	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c)
		return error_set(err, -ENOMEM, 0, "out of memory");
	atomic_init(&c->refs, 1);
	c->ops = ops;
	c->src = source_ref(src);
	c->place = place_ref(place);
	c->path = strdup(path);
	r = c->path ? c->ops->list(c, err)
		    : error_set(err, -ENOMEM, 0, "out of memory");
	if (r >= 0)
		r = container_sort(c, err);
	if (r >= 0)
		r = package_join(c, err);
	if (r >= 0)
		*ret = TAKE_PTR(c);
	return r;
}
