/* SPDX-License-Identifier: BSD-3-Clause */
/* How other servers are asked, for all sources of the process that ask any. */
#ifndef IOURING_SOURCES_REMOTE_OPTIONS_H
#define IOURING_SOURCES_REMOTE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "iouring/util.h"

#define REMOTE_SECONDS_DEFAULT 30U
#define REMOTE_SECONDS_MAX     3600U

/* Strings are the caller's, and stay as long as anything is read. */
struct remote_options {
	const char *credentials; /* a file, see credentials.h; NULL: none */
	const char *ca; /* a file of certificates (PEM); NULL: the system's */
	const char *proxy; /* URL, or "none"; NULL: as the environment says */
	unsigned int seconds; /* that a read is tried for */
	void (*say)(const char *line); /* NULL: nobody listens */
};

/* Before the first source. */
void remote_configure(const struct remote_options *o);
const struct remote_options *remote_options(void);

/*
 * The process ends: nobody waits for another server any more. Any thread; see
 * http_engine_stop(), too.
 */
void remote_stop(void);
bool remote_is_stopping(void);

/* When what begins now is given up, of now_nsec(). */
uint64_t remote_deadline(void);

/* One line for who runs this. Any thread. */
void remote_say(const char *fmt, ...) PRINTF(1, 2);

#endif
