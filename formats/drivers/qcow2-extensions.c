/* SPDX-License-Identifier: BSD-3-Clause */
/* "Header extensions" of qcow2, and the names that they have for features. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/cursor.h"
#include "formats/drivers/qcow2.h"

/* Where the header's cluster ends, or the extensions before that. */
static size_t extensions_end(const struct qcow2_header *h, size_t len)
{
	if (h->backing_off && h->backing_off < len)
		return (size_t)h->backing_off;
	return len;
}

int qcow2_each_extension(struct layer *l, const uint8_t *buf, size_t len,
			 int (*each)(struct layer *l, uint32_t type,
				     const uint8_t *data, size_t bytes,
				     size_t at, struct error *err),
			 struct error *err)
{
	const struct qcow2_state *s = l->state;
	struct cursor c = { .buf = buf, .len = extensions_end(&s->h, len) };
	size_t at = s->h.header_bytes;
	int r;

	while (at < c.len && c.len - at >= 8) {
		uint32_t type = cursor_be32_at(&c, at);
		uint32_t bytes = cursor_be32_at(&c, at + 4);

		if (type == QCOW2_EXT_END)
			return 0;
		at += 8;
		if (bytes > c.len - at)
			return error_set(err, -EBADMSG, at - 4,
					 "header extension 0x%08" PRIx32
					 " of %" PRIu32
					 " bytes ends past the header at %zu",
					 type, bytes, c.len);
		r = each(l, type, buf + at, bytes, at, err);
		if (r)
			return r;
		at += (size_t)round_up(bytes, 8);
	}
	return 0;
}

char *qcow2_copy_name(const uint8_t *data, size_t bytes, const char *what,
		      uint64_t at, struct error *err)
{
	char *name = NULL;

	if (memchr(data, 0, bytes))
		error_set(err, -EBADMSG, at, "%s holds a NUL byte", what);
	else if (!(name = strndup((const char *)data, bytes)))
		error_set(err, -ENOMEM, 0, "out of memory");
	return name;
}

/* "Feature name table": 48 bytes each: type, bit, name padded with zeroes. */
static const uint8_t *feature_name(const uint8_t *table, size_t bytes,
				   unsigned int bit)
{
	size_t at;

	for (at = 0; at + 48 <= bytes; at += 48)
		if (table[at] == 0 && table[at + 1] == bit)
			return table + at + 2;
	return NULL;
}

static int name_unknown(struct layer *l, uint32_t type, const uint8_t *data,
			size_t bytes, size_t at, struct error *err)
{
	const struct qcow2_state *s = l->state;
	uint64_t unknown = s->h.incompatible & ~(uint64_t)QCOW2_INCOMPAT_KNOWN;
	char list[256] = "";
	size_t used = 0;
	unsigned int bit;

	if (type != QCOW2_EXT_FEATURE_NAMES)
		return 0;
	for (bit = 0; bit < 64 && used < sizeof(list) - 80; bit++) {
		const uint8_t *name;

		if (!(unknown >> bit & 1))
			continue;
		name = feature_name(data, bytes, bit);
		used += (size_t)snprintf(list + used, sizeof(list) - used,
					 "%s%.46s (bit %u)", used ? ", " : "",
					 name ? (const char *)name : "unnamed",
					 bit);
	}
	return error_set(err, -ENOTSUP, QCOW2_INCOMPATIBLE_AT,
			 "incompatible features that are not supported: %s",
			 list);
}

int qcow2_check_incompatible(struct layer *l, const uint8_t *buf, size_t len,
			     struct error *err)
{
	const struct qcow2_state *s = l->state;
	uint64_t unknown = s->h.incompatible & ~(uint64_t)QCOW2_INCOMPAT_KNOWN;
	int r;

	if (!unknown)
		return 0;
	r = qcow2_each_extension(l, buf, len, name_unknown, err);
	if (r)
		return r;
	return error_set(err, -ENOTSUP, QCOW2_INCOMPATIBLE_AT,
			 "incompatible features that are not supported: bits "
			 "0x%" PRIx64,
			 unknown);
}
