/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include "iouring/error.h"
#include "iouring/sources/remote-options.h"

static struct remote_options options = { .seconds = REMOTE_SECONDS_DEFAULT };
static atomic_bool stopping;

void remote_configure(const struct remote_options *o)
{
	options = *o;
}

const struct remote_options *remote_options(void)
{
	return &options;
}

void remote_stop(void)
{
	atomic_store(&stopping, true);
}

bool remote_is_stopping(void)
{
	return atomic_load(&stopping);
}

uint64_t remote_deadline(void)
{
	return now_nsec() + options.seconds * 1000000000ULL;
}

void remote_say(const char *fmt, ...)
{
	char line[ERROR_MSG_BYTES], safe[ERROR_MSG_BYTES];
	va_list ap;

	if (!options.say)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	text_escape(safe, sizeof(safe), line);
	options.say(safe);
}
