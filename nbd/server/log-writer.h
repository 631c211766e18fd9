/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lines for the standard error, from who must not wait for its reader: a
 * terminal that was stopped, a full pipe. A thread writes them; what it cannot
 * keep up with is left out, and it says how many lines those were. It writes
 * only so many lines a second for long, whoever makes them.
 */
#ifndef NBD_SERVER_LOG_WRITER_H
#define NBD_SERVER_LOG_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "iouring/error.h"

/*
 * Starts the thread. Signals that are blocked now are blocked in it. A writer
 * is there once at a time. @all: as many lines as there are. Returns 0 or a
 * negative errno.
 */
int log_writer_start(int fd, bool all, struct error *err);

/* Lines or parts of such; never waits. Before the start it writes itself. */
void log_write(const char *text, size_t len);

/*
 * As printf(), up to LOG_TEXT_MAX bytes. (A macro, since clang's analyser takes
 * va_list for uninitialized in a file that is built more than once.)
 */
#define LOG_TEXT_MAX 4096U
#define log_printf(...)                                                        \
	do {                                                                   \
		char log_text_[LOG_TEXT_MAX];                                  \
		const int log_len_ =                                           \
			snprintf(log_text_, sizeof(log_text_), __VA_ARGS__);   \
                                                                               \
		if (log_len_ > 0)                                              \
			log_write(log_text_, min_size((size_t)log_len_,        \
						      sizeof(log_text_) - 1)); \
	} while (0)

/* From now on lines go to syslog(3), as those of @ident, which stays. */
void log_writer_to_syslog(const char *ident);

/* Writes what is left, for a moment at most, and ends the thread. */
void log_writer_stop(void);

#endif
