/* SPDX-License-Identifier: BSD-3-Clause */
/* platter serve: its process: behind, named by a file, and replaced. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#include "iouring/util.h"
#include "nbd/cmd/serve.h"
#include "nbd/server/listen-inherited.h"
#include "nbd/server/log-writer.h"
#include "nbd/text.h"

/* ---- behind ---- */

/* The parent of what goes on: until that is ready, or has ended. */
static int wait_for(pid_t pid, int fd)
{
	int status;
	ssize_t n;
	char c;

	do {
		n = read(fd, &c, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 1)
		return STATUS_OK;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return STATUS_FAILED;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int serve_go_behind(struct serve *s)
{
	struct error err = { 0 };
	int fds[2], status;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0) {
		error_set(&err, -errno, 0, "--fork: %s", errno_text(errno));
		return cmd_fail(&err);
	}
	fflush(NULL);
	pid = fork();
	if (!pid) {
		close(fds[0]);
		s->ready_fd = fd_move_high(fds[1]);
		setsid();
		return -1;
	}
	close(fds[1]);
	if (pid < 0) {
		error_set(&err, -errno, 0, "--fork: %s", errno_text(errno));
		status = cmd_fail(&err);
	} else {
		status = wait_for(pid, fds[0]);
	}
	close(fds[0]);
	return status;
}

static void write_pid(struct serve *s)
{
	CLEANUP(closep)
	int fd = open(s->pid_file,
		      O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
		      0644);

	if (fd < 0 || dprintf(fd, "%d\n", getpid()) < 0)
		log_printf("platter: --pid-file: %s: %s\n", s->pid_file,
			   errno_text(errno));
	else
		s->has_pid_file = true;
}

/* Nobody reads what it prints from here on. */
static void leave_terminal(void)
{
	CLEANUP(closep) int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	fflush(NULL);
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
}

void serve_came_up(struct serve *s)
{
	if (s->pid_file)
		write_pid(s);
	if (s->ready_fd < 0)
		return;
	log_writer_to_syslog("platter");
	leave_terminal();
	if (write(s->ready_fd, "", 1) < 0)
		log_printf("platter: --fork: %s\n", errno_text(errno));
	close(TAKE_FD(s->ready_fd));
}

void serve_went_down(const struct serve *s)
{
	if (s->has_pid_file)
		unlink(s->pid_file);
}

/* ---- replaced ---- */

/*
 * A newer one of this command runs in our place: the process stays the same,
 * with the sockets on which clients wait meanwhile, and the temporary overlay.
 * This variable says which descriptors those are:
 *
 *	PID:HOW-MANY:KEPT:KEPT ...:BEHIND:SOCKETS
 *
 * with the sockets as listener_write() has them. TRIAL: it only says whether it
 * takes its options.
 */
#define VARIABLE "PLATTER_TAKE_OVER"
#define TRIAL	 "trial"

/* The newer one looks at our options, and ends. */
static int run_trial(struct serve *s, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	int r;

	if (setenv(VARIABLE, TRIAL, 1) < 0)
		return errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null",
					 O_WRONLY, 0);
	r = posix_spawn(ret, s->program, &actions, NULL, s->argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	unsetenv(VARIABLE);
	return r;
}

bool serve_can_be_replaced(struct serve *s)
{
	int r, status = -1;
	pid_t pid = -1;

	r = run_trial(s, &pid);
	while (!r && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!r && !status)
		return true;
	log_printf("platter: SIGUSR2: %s %s (%s): it goes on as it was\n",
		   s->program,
		   r ? "cannot be run" : "does not take these options",
		   r ? errno_text(r) : "it failed");
	return false;
}

static bool name_what_stays(const struct serve *s)
{
	CLEANUP(freep) char *text = NULL;
	size_t bytes;
	FILE *fp = open_memstream(&text, &bytes);
	size_t i;

	if (!fp)
		return false;
	fprintf(fp, "%d:", getpid());
	fprintf(fp, "%zu:", s->kept.n);
	for (i = 0; i < s->kept.n; i++)
		fprintf(fp, "%d:", s->kept.fds[i]);
	fprintf(fp, "%d:", s->fork);
	listener_write(&s->listener, fp);
	return !fclose(fp) && !setenv(VARIABLE, text, 1);
}

/* Of what stays: it is not closed with this program, or is. */
static void keep_open_over_exec(const struct serve *s, bool stays)
{
	int flags = stays ? 0 : FD_CLOEXEC;
	size_t i;

	for (i = 0; i < s->listener.n_fds; i++)
		fcntl(s->listener.fds[i], F_SETFD, flags);
	for (i = 0; i < s->kept.n; i++)
		fcntl(s->kept.fds[i], F_SETFD, flags);
}

void serve_replace(struct serve *s)
{
	log_writer_stop(); /* what it has is written before this ends */
	keep_open_over_exec(s, true);
	if (name_what_stays(s))
		execv(s->program, s->argv);
	unsetenv(VARIABLE);
	keep_open_over_exec(s, false);
	log_printf("platter: SIGUSR2: %s cannot be run (%s): it goes on as it "
		   "was\n",
		   s->program, errno_text(errno));
}

static bool take_kept(struct serve *s, char **text)
{
	int fds[KEEP_FILES_MAX];
	uintmax_t n, fd;
	size_t i;

	if (!text_take_number(text, ':', ARRAY_SIZE(fds), &n))
		return false;
	for (i = 0; i < n; i++) {
		if (!text_take_number(text, ':', INT_MAX, &fd))
			return false;
		fds[i] = (int)fd;
	}
	return keep_adopt(fds, (size_t)n, &s->kept, NULL) >= 0;
}

static bool take_text(struct serve *s, char *text)
{
	uintmax_t pid, behind;

	if (!text_take_number(&text, ':', INT_MAX, &pid) ||
	    (pid_t)pid != getpid() || !take_kept(s, &text))
		return false;
	if (!text_take_number(&text, ':', 1, &behind))
		return false;
	if (behind)
		log_writer_to_syslog("platter");
	return listener_read(&s->listener, text);
}

bool serve_is_trial(void)
{
	const char *value = getenv(VARIABLE);

	return value && !strcmp(value, TRIAL);
}

bool serve_is_taking_over(void)
{
	return getenv(VARIABLE);
}

int serve_take_over(struct serve *s, struct error *err)
{
	const char *left = getenv(VARIABLE);
	CLEANUP(freep) char *text = left ? strdup(left) : NULL;

	unsetenv(VARIABLE);
	if (!text)
		return 0;
	if (!take_text(s, text))
		return error_set(err, -EINVAL, 0,
				 "%s: this is not what a platter serve of "
				 "before has left",
				 VARIABLE);
	keep_open_over_exec(s, false);
	s->taken_over = true;
	s->has_pid_file = s->pid_file;
	return 1;
}
