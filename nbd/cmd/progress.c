/* SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "iouring/util.h"
#include "nbd/cmd/progress.h"
#include "nbd/text.h"

#define BAR_COLUMNS 40U
#define LINE_NSEC   10000000000ULL /* from one line to the next */

unsigned int progress_percent(uint64_t done, uint64_t total)
{
	if (done >= total)
		return 100;
	/* Does not overflow; below 100 the division by 100 loses little. */
	return total < UINT64_MAX / 100 ? (unsigned int)(done * 100 / total)
					: (unsigned int)(done / (total / 100));
}

void progress_bar(char *ret, unsigned int columns, unsigned int percent)
{
	unsigned int full = columns * percent / 100;

	ret[0] = '[';
	memset(ret + 1, '#', full);
	memset(ret + 1 + full, ' ', columns - full);
	snprintf(ret + 1 + columns, 8, "] %3u%%", percent);
}

void progress_begin(struct progress *p, const char *what, uint64_t total_bytes,
		    bool quiet)
{
	*p = (struct progress){
		.what = what,
		.total_bytes = total_bytes,
		.quiet = quiet,
		.bar = isatty(STDERR_FILENO) == 1,
		.began_nsec = now_nsec(),
	};
	p->told_nsec = p->began_nsec;
}

void progress_tell(struct progress *p, uint64_t done_bytes)
{
	unsigned int percent = progress_percent(done_bytes, p->total_bytes);
	uint64_t now = now_nsec(), msec = (now - p->began_nsec) / 1000000;
	char bar[BAR_COLUMNS + 9], done[TEXT_BYTES_MAX], rate[TEXT_BYTES_MAX];

	if (p->quiet || (!p->bar && now - p->told_nsec < LINE_NSEC))
		return;
	text_bytes(done, done_bytes);
	text_bytes(rate, msec ? done_bytes / msec * 1000 : 0);
	if (p->bar) {
		progress_bar(bar, BAR_COLUMNS, percent);
		/* Wipes what is left of a longer line. */
		fprintf(stderr, "\r%s %s %s, %s/s\033[K", p->what, bar, done,
			rate);
	} else {
		fprintf(stderr, "platter: %s: %u%%, %s, %s/s\n", p->what,
			percent, done, rate);
	}
	fflush(stderr);
	p->drawn = p->bar;
	p->told_nsec = now;
}

void progress_end(struct progress *p)
{
	if (p->drawn)
		fputs("\r\033[K", stderr);
	p->drawn = false;
}
