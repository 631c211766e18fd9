/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "iouring/error.h"

bool parameters_are_options;

const char *errno_text(int code)
{
	const char *text = strerrordesc_np(code);

	return text ? text : "unknown error";
}

/*
 * Length of the UTF-8 character at @s (@len > 0), 0 if it is none or one that
 * drives a terminal (C0, DEL, C1). RFC 3629.
 */
static size_t printable_utf8(const unsigned char *s, size_t len)
{
	size_t need, i;
	uint32_t c;

	if (s[0] < 0x20 || s[0] == 0x7f)
		return 0;
	if (s[0] < 0x80)
		return 1;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	need = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (need > len)
		return 0;
	c = s[0] & (0xffU >> (need + 1));
	for (i = 1; i < need; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < 0xa0 || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff ||
	    (need == 3 && c < 0x800) || (need == 4 && c < 0x10000))
		return 0;
	return need;
}

void text_escape(char *ret, size_t ret_bytes, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t left = strlen(text), out = 0, n;

	while (left) {
		n = printable_utf8(s, left);
		if (out + (n ? n : 4) >= ret_bytes)
			break;
		if (n) {
			memcpy(ret + out, s, n);
			out += n;
		} else {
			n = 1;
			snprintf(ret + out, 5, "\\x%02x", s[0]);
			out += 4;
		}
		s += n;
		left -= n;
	}
	ret[out] = '\0';
}

static void PRINTF(2, 0)
	set_message(struct error *err, const char *fmt, va_list ap)
{
	char raw[ERROR_MSG_BYTES];

	vsnprintf(raw, sizeof(raw), fmt, ap);
	text_escape(err->msg, sizeof(err->msg), raw);
}

void error_fill(struct error *err, int code, uint64_t off, const char *fmt, ...)
{
	va_list ap;

	if (!err || err->code)
		return;
	err->code = code;
	err->off = off;
	va_start(ap, fmt);
	set_message(err, fmt, ap);
	va_end(ap);
}

void error_prefix(struct error *err, const char *fmt, ...)
{
	char prefix[ERROR_MSG_BYTES], raw[2 * ERROR_MSG_BYTES + 2];
	va_list ap;

	if (!err || !err->code)
		return;
	va_start(ap, fmt);
	vsnprintf(prefix, sizeof(prefix), fmt, ap);
	va_end(ap);
	/* What is escaped already stays as it is. */
	snprintf(raw, sizeof(raw), "%s: %s", prefix, err->msg);
	text_escape(err->msg, sizeof(err->msg), raw);
}

void error_clear(struct error *err)
{
	if (err)
		*err = (struct error){ 0 };
}
