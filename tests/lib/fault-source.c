/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "tests/lib/fault-source.h"

static ssize_t fault_pread(struct source *s, void *buf, size_t len,
			   uint64_t off)
{
	struct fault_source *f = container_of(s, struct fault_source, base);
	unsigned int call = atomic_fetch_add(&f->calls, 1) + 1;
	unsigned int fails = f->fail_calls ? f->fail_calls : 1;

	if (f->fail_call && call >= f->fail_call && call - f->fail_call < fails)
		return f->fail_code;
	if (off < f->bad_end && off + len > f->bad_off)
		return -EIO;
	if (f->short_bytes)
		len = min_size(len, f->short_bytes);
	if (f->end_early && off + len > f->end_early)
		len = off < f->end_early ? (size_t)(f->end_early - off) : 0;
	memcpy(buf, f->data + off, len);
	atomic_fetch_add(&f->bytes, len);
	return (ssize_t)len;
}

static const struct source_ops fault_ops = {
	.name = "fault",
	.pread = fault_pread,
};

struct fault_source *fault_source_new(const void *data, size_t bytes)
{
	struct fault_source *f = calloc(1, sizeof(*f));

	if (!f)
		abort();
	source_init(&f->base, &fault_ops, bytes);
	f->data = data;
	return f;
}
