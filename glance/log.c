/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "glance/log.h"
#include "iouring/error.h"

static void put(const char *line, size_t len)
{
	ssize_t n;

	while (len) {
		n = write(STDERR_FILENO, line, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		line += n;
		len -= (size_t)n;
	}
}

void log_line(const char *fmt, ...)
{
	static const char tag[] = "platter: ";
	char text[LOG_LINE_BYTES], line[LOG_LINE_BYTES];
	size_t at = sizeof(tag) - 1;
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	memcpy(line, tag, at);
	text_escape(line + at, sizeof(line) - at - 1, text);
	at += strlen(line + at);
	line[at++] = '\n';
	put(line, at);
}

bool log_pace(struct log_pace *p)
{
	uint64_t now = now_nsec();

	if (now < p->next_nsec) {
		p->left_out++;
		return false;
	}
	p->next_nsec = now + LOG_PACE_SEC * 1000000000ULL;
	return true;
}
