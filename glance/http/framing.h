/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where does a request end? Whoever stands between a client and us must not
 * have another opinion (RFC 9112 6.3, 11.2), so all that two servers read
 * differently is refused: lengths that contradict each other, names that are
 * no tokens, lines that end in LF alone, folded ones, control characters.
 */
#ifndef GLANCE_HTTP_FRAMING_H
#define GLANCE_HTTP_FRAMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iouring/error.h"

/* Zeroed, but for .version, it is ready for framing_header(). */
struct framing {
	const char *version; /* "HTTP/1.1" */
	unsigned int lengths, encodings, hosts; /* headers */
	bool chunked;
	const char *length;

	/*
	 * libmicrohttpd leaves names and values where they came, and writes
	 * NULs over what ends them: the next name is expected at @next. NULL:
	 * nothing is known of where they are.
	 */
	const char *next;
};

/* Looks at a header, in the order they came. */
int framing_header(struct framing *f, const char *name, const char *value,
		   struct error *err);

/* Behind a line's text at @text are its CR and LF. */
const char *framing_behind(const char *text);

/*
 * After the last header. @end: where the body begins; NULL: not known.
 * *ret_has: there is a Content-Length, *ret_bytes.
 */
int framing_end(const struct framing *f, const char *end, bool *ret_has,
		uint64_t *ret_bytes, struct error *err);

#endif
