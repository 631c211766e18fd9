/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How far long work is, on standard error: a bar on a terminal, else a line
 * now and then.
 */
#ifndef NBD_CMD_PROGRESS_H
#define NBD_CMD_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	const char *what; /* "convert" */
	uint64_t total_bytes; /* 0: nothing is to be done */
	bool quiet;

	bool bar; /* else lines */
	bool drawn; /* the bar is on the screen */
	uint64_t began_nsec;
	uint64_t told_nsec; /* of the last line */
};

void progress_begin(struct progress *p, const char *what, uint64_t total_bytes,
		    bool quiet);
void progress_tell(struct progress *p, uint64_t done_bytes);
void progress_end(struct progress *p); /* wipes the bar */

/* "[#####     ]  50 %", without the rest of the line. @ret: @columns + 8. */
void progress_bar(char *ret, unsigned int columns, unsigned int percent);

/* The whole percents that @done is of @total; 100 when that is 0. */
unsigned int progress_percent(uint64_t done, uint64_t total);

#endif
