/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The store's folder is followed: when something in it changes, all of it is
 * scanned again, a moment later, which costs a look at each file. So no event
 * can be lost, and it does not matter in which order they come.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "glance/log.h"
#include "glance/scan.h"
#include "iouring/util.h"

/* A scan waits for so long after a change, and not longer after the first. */
#define SETTLE_MSEC 200
#define DUE_MSEC    2000

#define EVENTS                                                                \
	(IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE |           \
	 IN_CREATE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ATTRIB | IN_ONLYDIR | \
	 IN_EXCL_UNLINK)

struct scanner {
	struct index *ix;
	char *store;
	int inotify;
	int stop; /* an eventfd; readable: the end */
	bool running;
	pthread_t thread;
	struct error said; /* the last failure, which is told once */
};

static void watch_folder(void *opaque, const char *path)
{
	const struct scanner *s = opaque;

	/* A limit of the kernel's costs only what follows from it. */
	inotify_add_watch(s->inotify, path, EVENTS);
}

static void say(void *opaque, enum scan_event e, const char *path,
		const char *id, const char *why)
{
	if (id)
		log_line("store: %s: image %s is %s", path, id,
			 scan_event_name(e));
}

static void scan_store(struct scanner *s)
{
	const struct scan_options o = { .store = s->store,
					.visibility = IMAGE_PRIVATE,
					.tell = say,
					.folder = watch_folder,
					.opaque = s };
	struct scan_result result;
	struct error err = { 0 };

	if (scan(s->ix, s->store, &o, &result, &err) < 0 &&
	    strcmp(err.msg, s->said.msg) != 0)
		log_line("store: %s", err.msg);
	s->said = err;
}

/* The index is written all the time; a new file is looked at once closed. */
static bool matters(const struct inotify_event *e)
{
	const char *name = e->len ? e->name : "";

	if (*name == '.' || !strncmp(name, "index.sqlite", 12) ||
	    !strcmp(name, "lock") || !strcmp(name, "lock.clock"))
		return false;
	return !(e->mask & (IN_CREATE | IN_ATTRIB)) || e->mask & IN_ISDIR;
}

/* Takes what has come. Does any of it matter? */
static bool take_events(const struct scanner *s)
{
	_Alignas(struct inotify_event) char buf[4096];
	bool any = false;
	ssize_t n, at;

	while ((n = read(s->inotify, buf, sizeof(buf))) > 0) {
		for (at = 0; at < n;) {
			const struct inotify_event *e = (void *)(buf + at);

			any = any || matters(e);
			at += (ssize_t)(sizeof(*e) + e->len);
		}
	}
	return any;
}

/* When to scan, in milliseconds of now_ms(); 0: there is no need. */
struct due {
	int64_t settled, latest;
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void set_due(struct due *d)
{
	int64_t now = now_ms();

	d->settled = now + SETTLE_MSEC;
	if (!d->latest)
		d->latest = now + DUE_MSEC;
}

/* For poll(). */
static int msec_until(const struct due *d)
{
	int64_t at = d->settled < d->latest ? d->settled : d->latest;
	int64_t left = at - now_ms();

	if (!d->latest)
		return -1;
	return left < 0 ? 0 : (int)left;
}

static void *follow(void *opaque)
{
	struct scanner *s = opaque;
	struct pollfd fds[] = { { .fd = s->inotify, .events = POLLIN },
				{ .fd = s->stop, .events = POLLIN } };
	struct due due = { 0 };

	for (;;) {
		poll(fds, 2, msec_until(&due));
		if (fds[1].revents)
			return NULL;
		if (fds[0].revents && take_events(s))
			set_due(&due);
		if (!msec_until(&due)) {
			due = (struct due){ 0 };
			scan_store(s);
		}
	}
}

int scanner_start(struct index *ix, const char *store, struct scanner **ret,
		  struct error *err)
{
	struct scanner *s = calloc(1, sizeof(*s));
	int r = 0;

	if (!s)
		return error_set(err, -ENOMEM, 0, "out of memory");
	s->ix = ix;
	s->store = strdup(store);
	s->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	s->stop = eventfd(0, EFD_CLOEXEC);
	if (!s->store || s->stop < 0)
		r = error_set(err, -errno, 0, "store: %s", errno_text(errno));
	if (r >= 0) {
		scan_store(s);
		/* Where the kernel has no more of them, nothing is followed. */
		if (s->inotify >= 0)
			s->running =
				!pthread_create(&s->thread, NULL, follow, s);
	}
	if (r < 0) {
		scanner_stop(s);
		return r;
	}
	*ret = s;
	return 0;
}

void scanner_stop(struct scanner *s)
{
	const uint64_t one = 1;

	if (!s)
		return;
	if (s->running && write(s->stop, &one, sizeof(one)) == sizeof(one))
		pthread_join(s->thread, NULL);
	closep(&s->inotify);
	closep(&s->stop);
	free(s->store);
	free(s);
}
