/* SPDX-License-Identifier: BSD-3-Clause */
/* What the image service tells its administrator, on standard error. */
#ifndef GLANCE_LOG_H
#define GLANCE_LOG_H

#include "iouring/util.h"

/* With the ending NUL; what is longer is cut. */
#define LOG_LINE_BYTES 2048

/*
 * "platter: TEXT", one line in one write(2) whatever the text is made of:
 * control characters, and what is no UTF-8, are written as \xNN. Names of files
 * and what clients send may be put into it as they are. Any thread.
 */
void log_line(const char *fmt, ...) PRINTF(1, 2);

/* For what strangers can cause again and again. Zeroed: nothing yet. */
struct log_pace {
	uint64_t next_nsec; /* of the clock that nobody sets */
	unsigned int left_out; /* lines since the last */
};

/*
 * May a line be told now? Not more often than every LOG_PACE_SEC seconds; else
 * it is counted in @p->left_out, which the caller tells, and clears, with the
 * next. One thread at a time.
 */
#define LOG_PACE_SEC 10U
bool log_pace(struct log_pace *p);

#endif
