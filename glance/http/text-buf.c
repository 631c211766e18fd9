/* SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "glance/http/text-buf.h"

void text_buf_done(struct text_buf *b)
{
	free(TAKE_PTR(b->text));
	b->len = b->room = 0;
	b->failed = false;
}

/* Room for @more bytes and a NUL. */
static bool make_room(struct text_buf *b, size_t more)
{
	size_t max = b->max ? b->max : TEXT_BUF_MAX, room = b->room;
	char *text;

	if (b->failed)
		return false;
	if (more > max - b->len) {
		b->failed = true;
		return false;
	}
	if (b->text && b->len + more < room)
		return true;
	if (!room)
		room = 256;
	while (room <= b->len + more)
		room *= 2;
	text = realloc(b->text, room);
	if (!text) {
		b->failed = true;
		return false;
	}
	b->text = text;
	b->room = room;
	return true;
}

char *text_buf_take(struct text_buf *b)
{
	char *text = NULL;

	text_add_bytes(b, "", 0);
	if (!b->failed)
		text = TAKE_PTR(b->text);
	text_buf_done(b);
	return text;
}

void text_add_bytes(struct text_buf *b, const void *bytes, size_t len)
{
	if (!make_room(b, len))
		return;
	memcpy(b->text + b->len, bytes, len);
	b->len += len;
	b->text[b->len] = '\0';
}

void text_add(struct text_buf *b, const char *text)
{
	text_add_bytes(b, text, strlen(text));
}

void text_add_char(struct text_buf *b, char c)
{
	text_add_bytes(b, &c, 1);
}

void text_addf(struct text_buf *b, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (n < 0 || !make_room(b, (size_t)n)) {
		b->failed = true;
		return;
	}
	va_start(args, fmt);
	vsnprintf(b->text + b->len, (size_t)n + 1, fmt, args);
	va_end(args);
	b->len += (size_t)n;
}

void text_add_u64(struct text_buf *b, uint64_t v)
{
	char digits[20], *p = digits + sizeof(digits);

	do
		*--p = (char)('0' + v % 10);
	while (v /= 10);
	text_add_bytes(b, p, (size_t)(digits + sizeof(digits) - p));
}

/* One character of UTF-8 at @p, which is well formed; its length to @len. */
static uint32_t utf8_char(const unsigned char *p, size_t *len)
{
	uint32_t c = *p;
	size_t i;

	*len = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
	if (*len > 1)
		c &= 0x7fU >> *len;
	for (i = 1; i < *len && p[i]; i++)
		c = c << 6 | (p[i] & 0x3fU);
	*len = i;
	return c;
}

static void add_json_escape(struct text_buf *b, uint32_t c)
{
	switch (c) {
	case '"':
		text_add_bytes(b, "\\\"", 2);
		break;
	case '\\':
		text_add_bytes(b, "\\\\", 2);
		break;
	case '\n':
		text_add_bytes(b, "\\n", 2);
		break;
	case '\r':
		text_add_bytes(b, "\\r", 2);
		break;
	case '\t':
		text_add_bytes(b, "\\t", 2);
		break;
	default:
		if (c >= 0x10000) {
			c -= 0x10000;
			text_addf(b, "\\u%04" PRIx32, 0xd800 + (c >> 10));
			c = 0xdc00 + (c & 0x3ff);
		}
		text_addf(b, "\\u%04" PRIx32, c);
	}
}

void text_add_json(struct text_buf *b, const char *text)
{
	const unsigned char *p = (const unsigned char *)text, *plain = p;

	if (!text) {
		text_add_bytes(b, "null", 4);
		return;
	}
	text_add_char(b, '"');
	while (*p) {
		size_t len;
		uint32_t c;

		if (*p >= 0x20 && *p < 0x7f && *p != '"' && *p != '\\') {
			p++;
			continue;
		}
		text_add_bytes(b, plain, (size_t)(p - plain));
		c = utf8_char(p, &len);
		add_json_escape(b, c);
		p += len;
		plain = p;
	}
	text_add_bytes(b, plain, (size_t)(p - plain));
	text_add_char(b, '"');
}

void text_add_percent(struct text_buf *b, const char *text)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "abcdefghijklmnopqrstuvwxyz"
				    "0123456789-_.~";

	for (; *text; text++) {
		if (strchr(plain, *text))
			text_add_char(b, *text);
		else
			text_addf(b, "%%%02X", (unsigned char)*text);
	}
}
