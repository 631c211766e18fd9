/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one thread in which libcurl carries all transfers of the process, by as many
 * connections as there are transfers, which are kept for the next ones. It is
 * started with the first holder and ends with the last; a forked child starts
 * its own.
 */
#ifndef IOURING_SOURCES_HTTP_ENGINE_H
#define IOURING_SOURCES_HTTP_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "iouring/sources/curl-lib.h"

/* Embedded by who wants something, and his until end() has been called. */
struct transfer {
	uint64_t at; /* of now_nsec(): not before */
	/*
	 * Both in the engine's thread, where nothing may be waited for. begin()
	 * says by @easy what is wanted, which it is set up for by
	 * remote_options(): proxy and certificates, http and https alone,
	 * redirects not followed; false: nothing any more, and end() is not
	 * called. end() is told how it went; it may add @t again.
	 */
	bool (*begin)(struct transfer *t, CURL *easy);
	void (*end)(struct transfer *t, CURLcode code);
	/* The engine's own. */
	CURL *easy;
	struct transfer *next;
};

/* false: there is no libcurl, or no memory. Any thread. */
bool http_engine_hold(void);
void http_engine_release(void); /* when none of its own is under way */

/* Any thread, by a holder. */
void http_engine_add(struct transfer *t);

/*
 * remote_stop(): from now on nothing is waited for, and what is under way is
 * CURLE_ABORTED_BY_CALLBACK. Any thread.
 */
void http_engine_stop(void);

#endif
