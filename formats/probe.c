/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is this file? A file that two formats claim is taken for neither:
 * somebody may have made it so that one program sees one disk and the next
 * program another.
 */
#include <errno.h>
#include <string.h>

#include "formats/format.h"

#define HEAD_BYTES (64U << 10)

static bool magic_matches(const struct magic *m, const uint8_t *head,
			  size_t head_bytes)
{
	return range_inside(m->at, m->len, head_bytes) &&
	       !memcmp(head + m->at, m->bytes, m->len);
}

static bool matches(const struct format_ops *ops, struct source *src,
		    const uint8_t *head, size_t head_bytes, bool declared)
{
	size_t i;

	/* What is an archive, too, was looked into before. */
	for (i = ops->made && !declared ? ARRAY_SIZE(ops->magic) : 0;
	     i < ARRAY_SIZE(ops->magic) && ops->magic[i].len; i++)
		if (magic_matches(&ops->magic[i], head, head_bytes))
			return true;
	/* What has an end that is not known is looked at there when it is. */
	return ops->probe && !(ops->told_behind && src->end_unknown) &&
	       ops->probe(src, head, head_bytes);
}

static bool has_magic(const struct format_ops *ops)
{
	return ops->magic[0].len || ops->probe;
}

static int read_head(struct source *src, uint8_t **ret, size_t *ret_bytes,
		     struct error *err)
{
	size_t bytes = (size_t)min_u64(src->bytes, HEAD_BYTES);
	CLEANUP(freep) uint8_t *head = malloc(HEAD_BYTES);
	int r;

	if (!head)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = source_read(src, head, bytes, 0, err);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(head);
	*ret_bytes = bytes;
	return 0;
}

static int find(struct source *src, const uint8_t *head, size_t bytes,
		const struct format_ops **ret, struct error *err)
{
	const struct format_ops *const *f, *found = NULL;

	for (f = format_table; *f; f++) {
		if (!has_magic(*f) || !matches(*f, src, head, bytes, false))
			continue;
		if (found)
			return error_set(err, -EBADMSG, 0,
					 "looks like %s and like %s: give "
					 "%s with one of the two",
					 found->name, (*f)->name,
					 AS_GIVEN("format=", "--format"));
		found = *f;
	}
	*ret = found ? found : format_by_name("raw");
	return 0;
}

int format_probe(struct source *src, const struct format_ops **ret,
		 struct error *err)
{
	CLEANUP(freep) uint8_t *head = NULL;
	size_t bytes = 0;
	int r = read_head(src, &head, &bytes, err);

	return r < 0 ? r : find(src, head, bytes, ret, err);
}

int format_of_head(const uint8_t *head, size_t head_bytes,
		   const struct format_ops **ret)
{
	struct source none = { .end_unknown = true };

	return find(&none, head, head_bytes, ret, NULL);
}

bool format_reads_forward(const uint8_t *head, size_t head_bytes)
{
	return true;
}

const char *format_of_tail(struct source *tail)
{
	const struct format_ops *const *f;
	CLEANUP(freep) uint8_t *head = NULL;
	size_t bytes = 0;

	if (read_head(tail, &head, &bytes, NULL) < 0)
		return NULL;
	for (f = format_table; *f; f++)
		if ((*f)->told_behind && (*f)->probe(tail, head, bytes))
			return (*f)->name;
	return NULL;
}

int format_matches(const struct format_ops *ops, struct source *src,
		   struct error *err)
{
	CLEANUP(freep) uint8_t *head = NULL;
	size_t bytes = 0;
	int r;

	if (!has_magic(ops))
		return 0;
	r = read_head(src, &head, &bytes, err);
	if (r < 0)
		return r;
	if (!matches(ops, src, head, bytes, true))
		return error_set(err, -EBADMSG, 0,
				 "is not %s, though declared so", ops->name);
	return 0;
}
