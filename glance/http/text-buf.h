/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Text that grows: answers, JSON, SQL. A failure (no memory, over the
 * maximum) sticks, so that it need be checked once, at the end.
 */
#ifndef GLANCE_HTTP_TEXT_BUF_H
#define GLANCE_HTTP_TEXT_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/util.h"

struct text_buf {
	char *text; /* NUL behind @len bytes; NULL: nothing yet */
	size_t len;
	size_t room;
	size_t max; /* bytes; 0: TEXT_BUF_MAX */
	bool failed;
};

#define TEXT_BUF_MAX (64U << 20)

void text_buf_done(struct text_buf *b);

/* Hands the text over, "" where there is none; NULL after a failure. */
char *text_buf_take(struct text_buf *b);

void text_add_bytes(struct text_buf *b, const void *bytes, size_t len);
void text_add(struct text_buf *b, const char *text);
void text_add_char(struct text_buf *b, char c);
void text_addf(struct text_buf *b, const char *fmt, ...) PRINTF(2, 3);
void text_add_u64(struct text_buf *b, uint64_t v);

/* A JSON string with its quotes, ASCII only; NULL: null. @text is UTF-8. */
void text_add_json(struct text_buf *b, const char *text);

/* As part of a path or a query: all but unreserved characters as %XX. */
void text_add_percent(struct text_buf *b, const char *text);

#endif
