/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/server.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>

#include "nbd/queue.h"
#include "nbd/server/loop.h"
#include "nbd/service.h"

static struct service service;
static struct tls_keys *tls;

/* HTTP's threads hand clients to them, and end after them. */
static pthread_mutex_t loops_lock = PTHREAD_MUTEX_INITIALIZER;
static struct loops *loops; /* NULL: not yet, or no more */

static void say(const char *line)
{
	fprintf(stderr, "platter: %s\n", line);
}

static int fail(const struct error *err)
{
	say(err->msg);
	return 1;
}

static void tell(const struct fault *f)
{
	if (f->untold)
		fprintf(stderr,
			"platter: %" PRIu64 " more like the next were not "
			"told\n",
			f->untold);
	if (f->tell)
		say(f->err.msg);
}

/* A socket whose other end a loop has, for a client who came by HTTP. */
static int connect_by_http(const char *id, const char *grant, const char *peer,
			   int *ret_fd, struct error *err)
{
	CLEANUP(freep) char *export = NULL, *text = NULL;
	int fds[2], r;

	if (asprintf(&export, "%s~%s", id, grant) < 0 ||
	    asprintf(&text, "%s by HTTP", peer) < 0)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return error_set(err, -EAGAIN, 0, "no socket: %s",
				 errno_text(errno));
	pthread_mutex_lock(&loops_lock);
	if (loops) {
		r = loops_hand(loops, fds[1], export, text, err);
	} else {
		r = error_set(err, -EAGAIN, 0, "NBD is not served now");
		close(fds[1]);
	}
	pthread_mutex_unlock(&loops_lock);
	if (r < 0)
		close(fds[0]);
	else
		*ret_fd = fds[0];
	return r;
}

static void close_by_http(int fd)
{
	close(fd);
}

static int set_params(const struct server_options *o, struct error *err)
{
	size_t i;
	int r = 0;

	for (i = 0; i < o->n_params && r >= 0; i++) {
		CLEANUP(freep) char *key = strdup(o->params[i]);
		char *value = key ? strchr(key, '=') : NULL;

		if (!key)
			return error_set(err, -ENOMEM, 0, "out of memory");
		if (!value)
			return error_set(err, -EINVAL, 0,
					 "\"%s\" is no KEY=VALUE", key);
		*value++ = '\0';
		r = service_set(&service, key, value, err);
	}
	return r;
}

static unsigned int processors(void)
{
	cpu_set_t set;
	int n = 1;

	if (!sched_getaffinity(0, sizeof(set), &set))
		n = CPU_COUNT(&set);
	return n > 0 ? (unsigned int)n : 1;
}

static void signals_of_the_end(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGTERM);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGQUIT);
	sigaddset(ret, SIGHUP);
}

static int start(const struct server_options *o, struct error *err)
{
	static const struct nbd_door door = { .connect = connect_by_http,
					      .close = close_by_http };
	struct loops_options lo = { .n = o->loops ? o->loops : processors(),
				    .listen_fds = o->listener->fds,
				    .n_listen_fds = o->listener->n_fds,
				    .service = &service,
				    .tls_required = o->tls.required,
				    .tell = tell };
	struct loops *started = NULL;
	unsigned int i;
	int r = set_params(o, err);

	if (r >= 0)
		r = tls_keys_read(&o->tls, say, &tls, err);
	lo.tls = tls;
	for (i = 0; i < o->listener->n_fds; i++)
		fcntl(o->listener->fds[i], F_SETFL, O_NONBLOCK);
	if (r >= 0)
		r = service_complete(&service, say, err);
	if (r >= 0)
		r = service_prepare(&service, &door, err);
	if (r >= 0)
		r = service_start(&service, err);
	if (r >= 0)
		r = queues_start(o->per_client, tell, err);
	if (r >= 0)
		r = loops_start(&lo, &started, err);
	pthread_mutex_lock(&loops_lock);
	loops = started;
	pthread_mutex_unlock(&loops_lock);
	return r;
}

/* Who started us waits for it. */
static int write_pid(const char *path, struct error *err)
{
	FILE *fp = path ? fopen(path, "w") : NULL;

	if (!path)
		return 0;
	if (fp)
		fprintf(fp, "%d\n", getpid());
	return fp && !fclose(fp) ? 0
				 : error_set(err, -errno, 0, "%s: %s", path,
					     errno_text(errno));
}

int server_run(const struct server_options *o)
{
	struct loops *ended;
	struct error err = { 0 };
	sigset_t set;
	int sig, status = 0;

	/* Of all threads: they are waited for below. */
	signals_of_the_end(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	service_init(&service);
	if (start(o, &err) < 0 || write_pid(o->pidfile, &err) < 0)
		status = fail(&err);
	else
		sigwait(&set, &sig);
	pthread_mutex_lock(&loops_lock);
	ended = TAKE_PTR(loops);
	pthread_mutex_unlock(&loops_lock);
	/* Whoever waits for another server, or for a stream, does not keep us. */
	service_stop_waiting();
	if (ended) {
		loops_stop(ended);
		queues_stop();
	}
	tls_keys_free(tls);
	service_stop(&service);
	service_done(&service);
	return status;
}
