/* SPDX-License-Identifier: BSD-3-Clause */
/* What tests see of writes; see struct write_watcher. */
#include "iouring/engine.h"
#include "iouring/write.h"

static struct write_watcher *watcher;

void write_watch(struct write_watcher *w)
{
	watcher = w;
}

bool write_watched(void)
{
	return watcher;
}

int write_before(const struct write_event *e)
{
	return watcher ? watcher->before(watcher, e) : 0;
}

void write_after(const struct write_event *e, int code)
{
	if (watcher)
		watcher->after(watcher, e, code);
}
