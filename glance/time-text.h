/* SPDX-License-Identifier: BSD-3-Clause */
/* Times: microseconds, and how the API writes them. */
#ifndef GLANCE_TIME_TEXT_H
#define GLANCE_TIME_TEXT_H

#include <stdbool.h>
#include <stdint.h>

/* Microseconds since 1970, UTC. */
int64_t time_now_usec(void);
/* "2026-11-26T06:45:46Z"; @ret has room for 21 bytes. */
void time_format(int64_t usec, char *ret);
/* ISO 8601, with a zone or without (UTC). False: it is not. */
bool time_parse(const char *text, int64_t *ret_usec);

#endif
