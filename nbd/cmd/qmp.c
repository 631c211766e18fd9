/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "iouring/util.h"
#include "nbd/cmd/qmp.h"

#define LINE_BYTES_MAX	 (16U << 20) /* an answer with all disks and chains */
#define PATIENCE_SECONDS 60
#define EVENTS_MAX	 100000U /* before one answer */

struct qmp {
	int fd;
	char *path;
	char *line; /* what came and was not taken */
	size_t len, room;
};

void qmp_close(struct qmp *q)
{
	if (!q)
		return;
	closep(&q->fd);
	free(q->path);
	free(q->line);
	free(q);
}

void qmp_closep(struct qmp **q)
{
	qmp_close(*q);
}

static int gone(const struct qmp *q, const char *why, struct error *err)
{
	return error_set(err, -EPIPE, 0, "%s: QEMU does not answer: %s",
			 q->path, why);
}

static int read_more(struct qmp *q, struct error *err)
{
	ssize_t n;
	char *grown;

	if (q->len == q->room) {
		size_t room = q->room ? 2 * q->room : 65536;

		if (room > LINE_BYTES_MAX)
			return error_set(err, -EIO, 0,
					 "%s: a line is over the limit of %u "
					 "bytes",
					 q->path, LINE_BYTES_MAX);
		grown = realloc(q->line, room);
		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		q->line = grown;
		q->room = room;
	}
	do
		n = recv(q->fd, q->line + q->len, q->room - q->len, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return gone(
			q, errno == EAGAIN ? "it is silent" : errno_text(errno),
			err);
	if (!n)
		return gone(q, "it has ended, or hung up", err);
	q->len += (size_t)n;
	return 0;
}

/* The next line, as JSON, the caller's. */
static int take_line(struct qmp *q, json_t **ret, struct error *err)
{
	size_t seen = 0, n;
	char *end = NULL;
	int r = 0;

	while (r >= 0 && !(end = q->len > seen ? memchr(q->line + seen, '\n',
							q->len - seen)
					       : NULL)) {
		seen = q->len;
		r = read_more(q, err);
	}
	if (r < 0)
		return r;
	n = (size_t)(end - q->line);
	*ret = json_loadb(q->line, n, 0, NULL);
	q->len -= n + 1;
	memmove(q->line, end + 1, q->len);
	return *ret ? 0
		    : error_set(err, -EIO, 0, "%s: what came is no QMP",
				q->path);
}

static int send_all(struct qmp *q, const char *text, struct error *err)
{
	size_t len = strlen(text);
	ssize_t n;

	while (len) {
		n = send(q->fd, text, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return gone(q, errno_text(errno), err);
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

static int send_command(struct qmp *q, const char *command, json_t *args,
			struct error *err)
{
	json_t *j = args ? json_pack("{s:s, s:O}", "execute", command,
				     "arguments", args)
			 : json_pack("{s:s}", "execute", command);
	CLEANUP(freep) char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	int r;

	json_decref(j);
	if (!text)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = send_all(q, text, err);
	return r < 0 ? r : send_all(q, "\n", err);
}

/* What the answer of @command is, or that it failed. @j: a line that is none. */
static int judge(const char *command, const json_t *j, json_t **ret_answer,
		 struct error *err)
{
	const json_t *failed = json_object_get(j, "error");
	const char *why = json_string_value(json_object_get(failed, "desc"));

	if (failed)
		return error_set(err, -EIO, 0, "QEMU: %s: %.400s", command,
				 why ? why : "failed");
	if (ret_answer)
		*ret_answer = json_incref(json_object_get(j, "return"));
	return 0;
}

int qmp_run(struct qmp *q, const char *command, json_t *args,
	    json_t **ret_answer, struct error *err)
{
	int r = send_command(q, command, args, err);
	unsigned int n;
	bool is_answer;
	json_t *j;

	json_decref(args);
	for (n = 0; r >= 0 && n < EVENTS_MAX; n++) {
		r = take_line(q, &j, err);
		if (r < 0)
			break;
		is_answer = json_object_get(j, "return") ||
			    json_object_get(j, "error");
		if (is_answer)
			r = judge(command, j, ret_answer, err);
		json_decref(j);
		if (is_answer)
			return r;
	}
	return r < 0 ? r : gone(q, "nothing but events came", err);
}

static int connect_to(struct qmp *q, struct error *err)
{
	struct timeval patience = { .tv_sec = PATIENCE_SECONDS };
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	if (strlen(q->path) >= sizeof(sa.sun_path))
		return error_set(err, -EINVAL, 0,
				 "%s: the path is over %zu bytes", q->path,
				 sizeof(sa.sun_path) - 1);
	strcpy(sa.sun_path, q->path);
	q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (q->fd < 0 || connect(q->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return error_set(err, -errno, 0, "%s: %s", q->path,
				 errno_text(errno));
	setsockopt(q->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(q->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	return 0;
}

/* "Capabilities Negotiation" */
static int greet(struct qmp *q, struct error *err)
{
	json_t *greeting = NULL;
	int r = take_line(q, &greeting, err);
	bool is_qmp = json_object_get(greeting, "QMP");

	json_decref(greeting);
	if (r < 0)
		return r;
	if (!is_qmp)
		return error_set(err, -EIO, 0, "%s: what came is no QMP",
				 q->path);
	return qmp_run(q, "qmp_capabilities", NULL, NULL, err);
}

int qmp_open(const char *path, struct qmp **ret, struct error *err)
{
	CLEANUP(qmp_closep) struct qmp *q = calloc(1, sizeof(*q));
	int r;

	if (!q)
		return error_set(err, -ENOMEM, 0, "out of memory");
	q->fd = -1;
	q->path = strdup(path);
	r = q->path ? connect_to(q, err)
		    : error_set(err, -ENOMEM, 0, "out of memory");
	if (r >= 0)
		r = greet(q, err);
	if (r >= 0)
		*ret = TAKE_PTR(q);
	return r;
}
