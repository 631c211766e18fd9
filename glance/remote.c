/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "glance/log.h"
#include "glance/remote.h"

struct remote {
	const struct fetch_rules *rules;
	char *url;
	uint64_t off, len;
	int in, out; /* the thread writes to in, the answer is read from out */
	atomic_bool stop;
	pthread_t thread;
	bool running;
	struct error err; /* of the thread, once in is closed */
};

static int send_on(void *opaque, const void *data, size_t len,
		   struct error *err)
{
	const struct remote *r = opaque;
	const char *p = data;
	ssize_t n;

	while (len) {
		n = send(r->in, p, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_set(err, -ECANCELED, 0, "nobody reads");
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static bool is_stopped(void *opaque)
{
	struct remote *r = opaque;

	return atomic_load(&r->stop);
}

static void *run(void *opaque)
{
	struct remote *r = opaque;
	const struct fetch_sink sink = { send_on, is_stopped, r };

	if (fetch_part(r->rules, r->url, r->off, r->len, &sink, &r->err) < 0 &&
	    r->err.code != -ECANCELED)
		log_line("%s", r->err.msg);
	shutdown(r->in, SHUT_RDWR);
	return NULL;
}

static void remote_free(void *opaque)
{
	struct remote *r = opaque;

	if (!r)
		return;
	atomic_store(&r->stop, true);
	if (r->out >= 0)
		shutdown(r->out, SHUT_RDWR);
	if (r->running)
		pthread_join(r->thread, NULL);
	closep(&r->in);
	closep(&r->out);
	free(r->url);
	free(r);
}

/* They are sent in order, so that where they are need not be said. */
static int read_on(void *opaque, void *buf, size_t len, uint64_t off)
{
	const struct remote *r = opaque;
	char *p = buf;
	ssize_t n;

	while (len) {
		n = recv(r->out, p, len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int start(struct remote *r, struct error *err)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return error_set(err, -errno, 0, "a pair of sockets: %s",
				 errno_text(errno));
	r->in = fds[0];
	r->out = fds[1];
	if (pthread_create(&r->thread, NULL, run, r))
		return error_set(err, -EAGAIN, 0, "there is no thread for it");
	r->running = true;
	return 0;
}

/* Something has come, or nothing will. */
static int wait_for_first(struct remote *r, struct error *err)
{
	char byte;
	ssize_t n;

	do
		n = recv(r->out, &byte, 1, MSG_PEEK);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return 0;
	pthread_join(r->thread, NULL);
	r->running = false;
	return error_set(err, r->err.code == -ENOENT ? -ENOENT : -EIO, 0, "%s",
			 r->err.code ? r->err.msg : "nothing came");
}

int remote_open(const struct fetch_rules *rules, const char *url, uint64_t off,
		uint64_t len, struct producer *ret, struct error *err)
{
	struct remote *r = calloc(1, sizeof(*r));
	int code;

	if (!r)
		return error_set(err, -ENOMEM, 0, "out of memory");
	*r = (struct remote){ .rules = rules,
			      .url = strdup(url),
			      .off = off,
			      .len = len,
			      .in = -1,
			      .out = -1 };
	code = r->url ? start(r, err)
		      : error_set(err, -ENOMEM, 0, "out of memory");
	if (code >= 0)
		code = wait_for_first(r, err);
	if (code < 0) {
		remote_free(r);
		return code;
	}
	*ret = (struct producer){ .read = read_on,
				  .free = remote_free,
				  .opaque = r };
	return 0;
}
