/* SPDX-License-Identifier: BSD-3-Clause */
/* platter serve: the nbdkit that it runs. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#include "iouring/util.h"
#include "nbd/cmd/serve.h"
#include "nbd/text.h"

/* Reads what `nbdkit --version` prints. Returns 0 or a negative errno. */
static int run_nbdkit_version(char *ret, size_t bytes)
{
	char *argv[] = { "nbdkit", "--version", NULL };
	posix_spawn_file_actions_t actions;
	size_t got = 0;
	int fds[2], r;
	ssize_t n;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
	r = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	if (r == ENOENT)
		r = posix_spawn(&pid, "/usr/sbin/nbdkit", &actions, NULL, argv,
				environ);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	while (!r && got < bytes - 1) {
		n = read(fds[0], ret + got, bytes - 1 - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	ret[got] = '\0';
	close(fds[0]);
	if (!r)
		waitpid(pid, NULL, 0);
	return -r;
}

void serve_look_at_nbdkit(struct serve *s)
{
	unsigned int v[3];
	char line[128];

	if (run_nbdkit_version(line, sizeof(line)) < 0 ||
	    !text_nbdkit_version(line, v))
		return;
	snprintf(s->nbdkit, sizeof(s->nbdkit), "%u.%u.%u", v[0], v[1], v[2]);
	s->abortable = text_nbdkit_abortable(v);
}

void serve_warn_of_nbdkit(const struct serve *s)
{
	/* TLS connections are not affected. */
	if (!s->abortable || serve_needs_tls(s))
		return;
	fprintf(stderr,
		"platter: nbdkit %s can be aborted by a client that queues "
		"reads and hangs up (mended in 1.33.10): %s; for untrusted "
		"networks use --tls=require\n",
		s->nbdkit,
		s->once ? "it is not restarted, as --once says"
			: "it is supervised, and restarted at once");
}

/*
 * The one that was built with this command, when that was not installed; else
 * the one that nbdkit finds by itself.
 */
char *serve_find_plugin(const struct serve *s)
{
	CLEANUP(freep) char *exe = realpath("/proc/self/exe", NULL);
	char *slash = exe ? strrchr(exe, '/') : NULL;
	char *path;

	if (s->plugin)
		return strdup(s->plugin);
	if (!slash || asprintf(&path, "%.*s/nbdkit-platter-plugin.so",
			       (int)(slash - exe), exe) < 0)
		return strdup("platter");
	if (!access(path, R_OK))
		return path;
	free(path);
	return strdup("platter");
}

static bool is_one_of(const char *arg, const char *const *names)
{
	for (; *names; names++) {
		size_t len = strlen(*names);

		if (!strncmp(arg, *names, len) &&
		    (!arg[len] || arg[len] == '=' || (*names)[1] != '-'))
			return true;
	}
	return false;
}

bool serve_is_debugging(const struct serve *s)
{
	static const char *const names[] = { "-v", "--verbose", "-D", "--debug",
					     NULL };
	int i;

	for (i = 0; i < s->n_extra; i++)
		if (is_one_of(s->extra[i], names))
			return true;
	return false;
}

/* What would take the server out of the supervisor's hands. */
int serve_check_extra(const struct serve *s)
{
	static const char *const listening[] = {
		"-U", "--unix",	  "-p",	   "--port",  "-i", "--ip-addr",
		"-s", "--single", "--run", "--vsock", NULL
	};
	static const char *const process[] = { "-P",	 "--pidfile", "-u",
					       "--user", "-g",	      "--group",
					       NULL };
	int i;

	for (i = 0; i < s->n_extra; i++) {
		if (is_one_of(s->extra[i], listening))
			return cmd_usage(&s->cmd,
					 "nbdkit's option %s: the sockets are "
					 "made by platter",
					 s->extra[i]);
		if (is_one_of(s->extra[i], process))
			return cmd_usage(&s->cmd,
					 "nbdkit's option %s: the process is "
					 "watched by platter; run platter "
					 "itself as the user that is to serve",
					 s->extra[i]);
	}
	return -1;
}
