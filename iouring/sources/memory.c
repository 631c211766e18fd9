/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "iouring/source.h"

struct memory_source {
	struct source base;
	const uint8_t *data;
};

static ssize_t memory_pread(struct source *s, void *buf, size_t len,
			    uint64_t off)
{
	struct memory_source *m = container_of(s, struct memory_source, base);

	memcpy(buf, m->data + off, len);
	return (ssize_t)len;
}

static const struct source_ops memory_ops = {
	.name = "memory",
	.pread = memory_pread,
};

int memory_source_new(const void *data, size_t bytes, struct source **ret,
		      struct error *err)
{
	struct memory_source *m = malloc(sizeof(*m));

	if (!m)
		return error_set(err, -ENOMEM, 0, "out of memory");
	source_init(&m->base, &memory_ops, bytes);
	m->data = data;
	*ret = &m->base;
	return 0;
}
