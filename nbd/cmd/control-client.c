/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "iouring/util.h"
#include "nbd/cmd/control-client.h"
#include "nbd/cmd/progress.h"
#include "nbd/export-name.h"
#include "nbd/text.h"

FILE *control_connect(const char *path, struct error *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	FILE *fp = NULL;
	int fd;

	if (strlen(path) >= sizeof(sa.sun_path)) {
		error_set(err, -EINVAL, 0, "%s: the path is over %zu bytes",
			  path, sizeof(sa.sun_path) - 1);
		return NULL;
	}
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		fp = fdopen(fd, "r+");
	if (!fp) {
		error_set(err, -errno, 0, "%s: %s", path, errno_text(errno));
		closep(&fd);
	}
	return fp;
}

bool control_epoch(const char *text, uint64_t *ret)
{
	CLEANUP(freep) char *copy = strdup(text);
	char *p = copy;
	uintmax_t n;

	if (!copy || !isdigit((unsigned char)*copy) ||
	    !text_take_number(&p, '\0', EXPORT_EPOCH_MAX, &n))
		return false;
	*ret = n;
	return true;
}

/* The answer, after any lines of how far it is. NULL: there is none. */
static json_t *take_answer(FILE *fp, const char *what, struct progress *p)
{
	json_int_t done, total;
	json_t *answer;

	while ((answer = json_loadf(fp, JSON_DISABLE_EOF_CHECK, NULL)) &&
	       !json_unpack(answer, "{s:{s:I, s:I}}", "progress", "done", &done,
			    "total", &total)) {
		if (!p->total_bytes)
			progress_begin(p, what, (uint64_t)total, p->quiet);
		progress_tell(p, (uint64_t)done);
		json_decref(answer);
	}
	if (p->total_bytes)
		progress_end(p);
	return answer;
}

/* What the server says is wrong; else @answer. */
static json_t *check_answer(json_t *answer, const char *path, struct error *err)
{
	const char *why = json_string_value(json_object_get(answer, "error"));

	if (answer && !why)
		return answer;
	if (answer)
		error_set(err, -EIO, 0, "%s", why);
	else
		error_set(err, -EIO, 0, "%s: does not answer", path);
	json_decref(answer);
	return NULL;
}

/* Past @fp, which is read from: what it has in its buffer stays there. */
static void send_question(FILE *fp, json_t *ask)
{
	char *text = json_dumps(ask, JSON_COMPACT);
	size_t len = text ? strlen(text) : 0;

	if (text)
		text[len++] = '\n'; /* over the NUL */
	/* A server that has hung up is one that does not answer. */
	send(fileno(fp), text ? text : "{}\n", text ? len : 3, MSG_NOSIGNAL);
	free(text);
	json_decref(ask);
}

json_t *control_talk(FILE *fp, json_t *ask, const char *path, struct error *err)
{
	send_question(fp, ask);
	return check_answer(json_loadf(fp, JSON_DISABLE_EOF_CHECK, NULL), path,
			    err);
}

json_t *control_ask(const char *path, json_t *ask, const char *what, bool quiet,
		    struct error *err)
{
	FILE *fp = control_connect(path, err);
	struct progress p = { .quiet = quiet };
	json_t *answer;

	if (!fp) {
		json_decref(ask);
		return NULL;
	}
	send_question(fp, ask);
	answer = take_answer(fp, what, &p);
	fclose(fp);
	return check_answer(answer, path, err);
}
