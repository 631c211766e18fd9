/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/log-writer.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "iouring/util.h"
#include "nbd/line-budget.h"

#define KEPT_BYTES	(256U << 10)
#define LINE_BYTES_MAX	4096U
#define BURST_LINES	1000U
#define LINES_A_SECOND	50U
#define LAST_WORDS_MSEC 1000

/*
 * The lines, each ended, from @first on. A line is in them whole or not at
 * all; what has come of the next lies apart until its end has.
 */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	bool running, ending, ended;
	bool all; /* there is no budget */
	int fd;
	bool by_syslog;
	char kept[KEPT_BYTES];
	size_t first, used;
	char line[LINE_BYTES_MAX];
	size_t line_used;
	struct line_budget budget;
	uint64_t no_room; /* lines, for which there was none */
} w = { .lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
	.fd = STDERR_FILENO,
	.budget = { BURST_LINES, LINES_A_SECOND } };

/* Lines, of which the last may go on with the next call. */
static void write_syslog(const char *buf, size_t len)
{
	static char line[LINE_BYTES_MAX];
	static size_t used;
	size_t i;

	for (i = 0; i < len; i++) {
		if (buf[i] != '\n' && used < sizeof(line))
			line[used++] = buf[i];
		if (buf[i] != '\n')
			continue;
		syslog(LOG_NOTICE, "%.*s", (int)used, line);
		used = 0;
	}
}

static void write_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		buf += n;
		len -= (size_t)n;
	}
}

/* Under the lock. False: there is no room for it. */
static bool keep(const char *line, size_t len)
{
	size_t at = (w.first + w.used) % KEPT_BYTES, n;

	if (len > KEPT_BYTES - w.used)
		return false;
	n = min_size(len, KEPT_BYTES - at);
	memcpy(w.kept + at, line, n);
	memcpy(w.kept, line + n, len - n);
	w.used += len;
	return true;
}

static bool is_incomplete(void)
{
	return w.no_room || w.budget.left_out;
}

/* How many lines are missing here, once there is room to say so. */
static void keep_count(void)
{
	unsigned long long n = w.no_room + w.budget.left_out;
	char text[80];
	int len;

	if (!n)
		return;
	len = snprintf(text, sizeof(text),
		       "platter: %llu line%s of the log left out here\n", n,
		       n > 1 ? "s" : "");
	if (keep(text, (size_t)len))
		w.no_room = w.budget.left_out = 0;
}

static void end_line(void)
{
	size_t len = w.line_used;

	w.line_used = 0;
	if (!w.all && !line_budget_take(&w.budget, now_nsec(), NULL))
		return;
	keep_count();
	if (is_incomplete() || !keep(w.line, len))
		w.no_room++;
}

/* A line that is too long goes on as another. */
static void add(const char *text, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++) {
		w.line[w.line_used++] = text[i];
		if (text[i] != '\n' && w.line_used == LINE_BYTES_MAX - 1)
			w.line[w.line_used++] = '\n';
		if (w.line[w.line_used - 1] == '\n')
			end_line();
	}
}

void log_write(const char *text, size_t len)
{
	bool running;

	pthread_mutex_lock(&w.lock);
	running = w.running;
	if (running) {
		add(text, len);
		pthread_cond_broadcast(&w.changed);
	}
	pthread_mutex_unlock(&w.lock);
	if (!running)
		write_all(w.fd, text, len);
}

static void *run(void *unused)
{
	char buf[LINE_BYTES_MAX];
	bool by_syslog;
	struct timespec wake;
	size_t n;

	pthread_mutex_lock(&w.lock);
	for (;;) {
		while (!w.used && !w.ending && !is_incomplete())
			pthread_cond_wait(&w.changed, &w.lock);
		/* The flood may be over: then it is told how long it was. */
		if (!w.used && !w.ending) {
			clock_gettime(CLOCK_REALTIME, &wake);
			wake.tv_sec++;
			pthread_cond_timedwait(&w.changed, &w.lock, &wake);
			if (line_budget_take(&w.budget, now_nsec(), NULL))
				keep_count();
			continue;
		}
		if (!w.used)
			keep_count();
		if (!w.used)
			break;
		n = min_size(min_size(w.used, sizeof(buf)),
			     KEPT_BYTES - w.first);
		memcpy(buf, w.kept + w.first, n);
		by_syslog = w.by_syslog;
		pthread_mutex_unlock(&w.lock);
		if (by_syslog)
			write_syslog(buf, n);
		else
			write_all(w.fd, buf, n);
		pthread_mutex_lock(&w.lock);
		w.first = (w.first + n) % KEPT_BYTES;
		w.used -= n;
	}
	w.ended = true;
	pthread_cond_broadcast(&w.changed);
	pthread_mutex_unlock(&w.lock);
	return NULL;
}

int log_writer_start(int fd, bool all, struct error *err)
{
	int r;

	w.fd = fd;
	w.all = all;
	w.ending = w.ended = false;
	r = pthread_create(&w.thread, NULL, run, NULL);
	if (r)
		return error_set(err, -r, 0, "no thread for the log: %s",
				 errno_text(r));
	w.running = true;
	return 0;
}

void log_writer_to_syslog(const char *ident)
{
	openlog(ident, LOG_PID, LOG_DAEMON);
	pthread_mutex_lock(&w.lock);
	w.by_syslog = true;
	pthread_mutex_unlock(&w.lock);
}

void log_writer_stop(void)
{
	struct timespec until;
	bool ended;

	if (!w.running)
		return;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += LAST_WORDS_MSEC / 1000;
	pthread_mutex_lock(&w.lock);
	if (w.line_used)
		add("\n", 1);
	w.ending = true;
	pthread_cond_broadcast(&w.changed);
	while (!w.ended && !pthread_cond_timedwait(&w.changed, &w.lock, &until))
		;
	ended = w.ended;
	pthread_mutex_unlock(&w.lock);
	/* One that hangs in write() ends with the process. */
	if (ended)
		pthread_join(w.thread, NULL);
	w.running = false;
}
