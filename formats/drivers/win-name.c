/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <endian.h>
#include <string.h>
#include <strings.h>

#include "formats/drivers/win-name.h"

static uint16_t unit_at(const uint8_t *buf, size_t i, bool big_endian)
{
	uint16_t v;

	memcpy(&v, buf + 2 * i, sizeof(v));
	return big_endian ? be16toh(v) : le16toh(v);
}

/* Writes at most 4 bytes; returns how many. */
static size_t put_utf8(char *to, uint32_t c)
{
	if (c < 0x80) {
		to[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		to[0] = (char)(0xc0 | c >> 6);
		to[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		to[0] = (char)(0xe0 | c >> 12);
		to[1] = (char)(0x80 | (c >> 6 & 0x3f));
		to[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	to[0] = (char)(0xf0 | c >> 18);
	to[1] = (char)(0x80 | (c >> 12 & 0x3f));
	to[2] = (char)(0x80 | (c >> 6 & 0x3f));
	to[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

char *win_name_from_utf16(const uint8_t *buf, size_t bytes, bool big_endian)
{
	size_t units = bytes / 2, i, used = 0;
	CLEANUP(freep) char *name = NULL;

	if (bytes > WIN_NAME_BYTES_MAX)
		return NULL;
	/* A unit makes at most 3 bytes, a pair of them 4. */
	name = malloc(3 * units + 1);
	for (i = 0; name && i < units; i++) {
		uint32_t c = unit_at(buf, i, big_endian), low;

		if (!c)
			break;
		if (c >= 0xd800 && c < 0xe000) {
			low = i + 1 < units ? unit_at(buf, i + 1, big_endian)
					    : 0;
			if (c >= 0xdc00 || low < 0xdc00 || low >= 0xe000)
				return NULL;
			c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
			i++;
		}
		used += put_utf8(name + used, c);
	}
	if (!used)
		return NULL;
	name[used] = '\0';
	return TAKE_PTR(name);
}

void win_name_to_local(char *name)
{
	char *p;

	if (name[0] == '\\' || name[0] == '/' ||
	    (isalpha((unsigned char)name[0]) && name[1] == ':'))
		return;
	for (p = name; *p; p++)
		if (*p == '\\')
			*p = '/';
}

void win_names_add(struct win_names *n, char *name, uint64_t at)
{
	if (!name || !*name || n->n == ARRAY_SIZE(n->list)) {
		free(name);
		return;
	}
	n->list[n->n].name = name;
	n->list[n->n++].at = at;
}

void win_names_done(struct win_names *n)
{
	while (n->n)
		free(n->list[--n->n].name);
}

static bool leads_to_file(struct layer *l, const char *name)
{
	CLEANUP(place_file_done) struct place_file file = { 0 };

	return *name &&
	       !place_open(l->place,
			   &(struct place_ask){ .name = name,
						.what = "parent",
						.allow = &l->options->allow },
			   &file, NULL, NULL);
}

static const char *base_name(const char *name)
{
	const char *base = name, *p;

	for (p = name; *p; p++)
		if (*p == '/' || *p == '\\')
			base = p + 1;
	return base;
}

int win_names_set_parent(struct layer *l, const struct win_names *n,
			 const char *format, struct error *err)
{
	/* Where nothing may be followed nothing is looked for either. */
	bool look = n->n > 1 && l->place && !l->options->alone &&
		    (l->top || !l->guessed || l->options->allow.guessed);
	size_t i, chosen = 0;

	if (!n->n)
		return layer_set_parent_by_id(l, NULL, format, 0, err);
	for (i = 0; look && i < n->n; i++)
		if (leads_to_file(l, n->list[i].name) ||
		    leads_to_file(l, base_name(n->list[i].name))) {
			chosen = i;
			break;
		}
	return layer_set_parent_by_id(l, n->list[chosen].name, format,
				      n->list[chosen].at, err);
}
