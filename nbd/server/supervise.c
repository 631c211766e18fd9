/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/server/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>

#include "iouring/util.h"
#include "nbd/server/log-writer.h"

#define LISTEN_FD_FIRST 3 /* sd_listen_fds(3) */
#define EXEC_FAILED	127

/*
 * nbdkit ends when its clients have gone; those that stay are cut off after
 * this long, or at once by a second signal.
 */
#define STOP_GRACE_MS 3000

#define QUICK_DEATH_MS 1000
#define PAUSE_FIRST_MS 50
#define PAUSE_MAX_MS   1000
#define RETRY_MS       3000U /* of one that could not even start */

/* What a server says before it is ready is kept, to be shown if it fails. */
#define HELD_MAX (64U << 10)

/* One run of the server. */
struct server {
	pid_t pid; /* 0: none is running */
	int log_fd; /* its standard error */
	int ready_fd; /* readable when it is ready */
	bool ready;
	uint64_t started_ms;
	char *held;
	size_t held_bytes;
};

struct run {
	struct supervisor *s;
	struct server server;
	int signal_fd;
	bool was_ready; /* any server so far */
	bool was_started;
	bool stopping;
	bool replacing; /* stopping, so that another program runs here */
	bool waiting; /* for due_ms, to start again */
	uint64_t due_ms; /* stopping: kill; waiting: start */
	unsigned int quick_deaths;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

unsigned int restart_pause_ms(unsigned int quick_deaths)
{
	unsigned int ms = PAUSE_FIRST_MS;

	if (quick_deaths < 2)
		return 0;
	while (quick_deaths-- > 2 && ms < PAUSE_MAX_MS)
		ms *= 2;
	return ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS;
}

const char *server_error_text(const char *line)
{
	static const char tag[] = "error: ";
	const char *p;

	if (strncmp(line, "nbdkit: ", 8))
		return NULL;
	p = strstr(line, tag);
	return p ? p + strlen(tag) : NULL;
}

static void signals_of_interest(sigset_t *ret)
{
	struct sigaction hup;

	sigemptyset(ret);
	sigaddset(ret, SIGTERM);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGQUIT);
	sigaddset(ret, SIGCHLD);
	sigaddset(ret, SIGUSR2);
	/* nohup(1) has asked to ignore it. */
	if (sigaction(SIGHUP, NULL, &hup) || hup.sa_handler != SIG_IGN)
		sigaddset(ret, SIGHUP);
}

int supervisor_hold_signals(struct error *err)
{
	sigset_t set;

	signals_of_interest(&set);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return error_set(err, -errno, 0, "cannot block signals: %s",
				 errno_text(errno));
	/* Whoever reads our output may leave before we end. */
	signal(SIGPIPE, SIG_IGN);
	/* An ignored SIGCHLD, inherited, would take the status from us. */
	signal(SIGCHLD, SIG_DFL);
	return 0;
}

/* In the child. Descriptors of ours are all above those that it is given. */
static void __attribute__((noreturn))
exec_server(const struct supervisor *s, pid_t parent, int log_fd, int ready_fd)
{
	const struct listener *l = s->listener;
	char number[16];
	sigset_t none;
	unsigned int i;
	int null_fd;

	/* Not SIGTERM: clients that stay would keep it alive. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(EXEC_FAILED);
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);

	null_fd = fd_move_high(open("/dev/null", O_RDWR | O_CLOEXEC));
	if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 ||
	    dup2(log_fd, STDOUT_FILENO) < 0 || dup2(log_fd, STDERR_FILENO) < 0)
		_exit(EXEC_FAILED);
	for (i = 0; i < l->n_fds; i++)
		if (dup2(l->fds[i], LISTEN_FD_FIRST + (int)i) < 0)
			_exit(EXEC_FAILED);
	if (dup2(ready_fd, LISTEN_FD_FIRST + (int)i) < 0)
		_exit(EXEC_FAILED);
	if (s->hand_on && s->hand_on(s->opaque, LISTEN_FD_FIRST + (int)i + 1))
		_exit(EXEC_FAILED);

	snprintf(number, sizeof(number), "%u", l->n_fds);
	setenv("LISTEN_FDS", number, 1);
	snprintf(number, sizeof(number), "%d", getpid());
	setenv("LISTEN_PID", number, 1);
	unsetenv("LISTEN_FDNAMES");
	if (s->program)
		execv(s->program, s->argv);
	else
		execvp(s->argv[0], s->argv);
	if (errno == ENOENT &&
	    !s->program) /* upstream installs it where PATH may not look */
		execv("/usr/sbin/nbdkit", s->argv);
	dprintf(STDERR_FILENO, "nbdkit: error: cannot run %s: %s\n",
		s->program ? s->program : s->argv[0], errno_text(errno));
	_exit(EXEC_FAILED);
}

static int pipe_high(int ret[2])
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	ret[0] = fd_move_high(fds[0]);
	ret[1] = fd_move_high(fds[1]);
	if (ret[0] < 0 || ret[1] < 0) {
		closep(&ret[0]);
		closep(&ret[1]);
		return -EMFILE;
	}
	fcntl(ret[0], F_SETFL, O_NONBLOCK);
	return 0;
}

static int start_server(const struct supervisor *s, struct server *ret)
{
	int log_pipe[2] = { -1, -1 }, ready_pipe[2] = { -1, -1 }, r;
	pid_t parent = getpid(), pid;

	r = pipe_high(log_pipe);
	if (r < 0)
		return r;
	r = pipe_high(ready_pipe);
	if (r < 0) {
		close(log_pipe[0]);
		close(log_pipe[1]);
		return r;
	}
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		exec_server(s, parent, log_pipe[1], ready_pipe[1]);
	r = -errno;
	close(log_pipe[1]);
	close(ready_pipe[1]);
	if (pid < 0) {
		close(log_pipe[0]);
		close(ready_pipe[0]);
		return r;
	}
	*ret = (struct server){ .pid = pid,
				.log_fd = log_pipe[0],
				.ready_fd = ready_pipe[0],
				.started_ms = now_ms() };
	return 0;
}

/* The server's own lines, as they are, from now on. */
static void release_held(struct server *sv)
{
	log_write(sv->held, sv->held_bytes);
	free(sv->held);
	sv->held = NULL;
	sv->held_bytes = 0;
}

static void take_log(struct server *sv, bool hold)
{
	char buf[4096];
	ssize_t n;

	while (sv->log_fd >= 0) {
		n = read(sv->log_fd, buf, sizeof(buf));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			close(TAKE_FD(sv->log_fd));
			return;
		}
		if (hold && !sv->held)
			sv->held = malloc(HELD_MAX + 1);
		if (hold && sv->held &&
		    (size_t)n <= HELD_MAX - sv->held_bytes) {
			memcpy(sv->held + sv->held_bytes, buf, (size_t)n);
			sv->held_bytes += (size_t)n;
			continue;
		}
		release_held(sv);
		log_write(buf, (size_t)n);
	}
}

/*
 * Why a server could not start: its errors once each, as ours, without what
 * nbdkit says of its manual; or all that it said, when none is an error.
 */
static void print_held(struct server *sv)
{
	const char *last = "";
	char *line, *next;
	bool errors;

	if (!sv->held_bytes)
		return;
	sv->held[sv->held_bytes] = '\0';
	errors = strstr(sv->held, "nbdkit: ") && strstr(sv->held, "error: ");
	for (line = sv->held; *line; line = next) {
		const char *text;

		next = line + strcspn(line, "\n");
		if (*next)
			*next++ = '\0';
		text = server_error_text(line);
		if (!strcmp(line, last))
			continue;
		last = line;
		if (text)
			log_printf("platter: %s\n", text);
		else if (!errors)
			log_printf("%s\n", line);
	}
}

static void take_ready(struct run *run)
{
	struct server *sv = &run->server;
	char buf[64];
	ssize_t n;

	if (sv->ready_fd < 0)
		return;
	n = read(sv->ready_fd, buf, sizeof(buf));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	close(TAKE_FD(sv->ready_fd));
	if (n <= 0)
		return; /* it ended, and that is told elsewhere */
	sv->ready = true;
	take_log(sv, true);
	release_held(sv);
	if (!run->was_ready)
		run->s->ready(run->s->opaque, sv->pid);
	run->was_ready = true;
}

static void forget_server(struct server *sv)
{
	closep(&sv->log_fd);
	closep(&sv->ready_fd);
	free(sv->held);
	*sv = (struct server){ .log_fd = -1, .ready_fd = -1 };
}

/* The server was killed. Returns -1 when it is to be started again. */
static int server_killed(struct run *run, pid_t pid, int sig, uint64_t lived_ms)
{
	unsigned int pause_ms;

	if (!run->was_ready) {
		log_printf("platter: %s was killed by signal %d (%s) before it "
			   "was ready\n",
			   run->s->name, sig, strsignal(sig));
		return 1;
	}
	if (run->s->once) {
		log_printf("platter: %s (process %d) was killed by signal %d "
			   "(%s)\n",
			   run->s->name, pid, sig, strsignal(sig));
		return 128 + sig;
	}
	run->quick_deaths =
		lived_ms < QUICK_DEATH_MS ? run->quick_deaths + 1 : 0;
	pause_ms = restart_pause_ms(run->quick_deaths);
	log_printf("platter: %s (process %d) was killed by signal %d (%s): "
		   "restarting it",
		   run->s->name, pid, sig, strsignal(sig));
	if (pause_ms)
		log_printf(" in %u ms", pause_ms);
	log_printf("\n");
	run->waiting = true;
	run->due_ms = now_ms() + pause_ms;
	return -1;
}

/* The server is gone, so that another program can run in our place. */
static void replace(struct run *run)
{
	struct supervisor *s = run->s;
	struct error err = { 0 };

	s->replace(s->opaque);
	if (log_writer_start(STDERR_FILENO, s->log_all, &err) < 0)
		log_printf("platter: %s\n", err.msg);
	run->stopping = run->replacing = false;
	run->waiting = true;
	run->due_ms = now_ms();
}

/* Returns the command's exit status, or -1 to go on. */
static int server_ended(struct run *run, int wait_status)
{
	struct server *sv = &run->server;
	uint64_t lived_ms = now_ms() - sv->started_ms;
	pid_t pid = sv->pid;
	bool told, ready;
	int status;

	take_ready(run); /* it may have been ready just before */
	take_log(sv, !sv->ready);
	ready = sv->ready;
	told = sv->held_bytes > 0;
	print_held(sv);
	forget_server(sv);
	if (run->replacing) {
		replace(run);
		return -1;
	}
	if (run->stopping)
		return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 0;
	if (WIFSIGNALED(wait_status))
		return server_killed(run, pid, WTERMSIG(wait_status), lived_ms);

	/*
	 * It has said why. To start the first again would not help; a later
	 * one's reason may pass, as a full disk does, and clients wait for what
	 * is kept for them.
	 */
	status = WEXITSTATUS(wait_status);
	if (!ready && run->was_ready && !run->s->once) {
		log_printf("platter: %s cannot be started again (status %d): "
			   "trying again in %u s\n",
			   run->s->name, status, RETRY_MS / 1000);
		run->waiting = true;
		run->due_ms = now_ms() + RETRY_MS;
		return -1;
	}
	if (!ready && !told)
		log_printf("platter: %s ended before it was ready, with "
			   "status %d\n",
			   run->s->name, status);
	else if (ready && status)
		log_printf("platter: %s ended with status %d\n", run->s->name,
			   status);
	if (!ready && (!status || status == EXEC_FAILED))
		status = 1;
	return status;
}

/* Ends the server; once more: at once. */
static void stop_server(struct run *run, int sig)
{
	kill(run->server.pid, run->stopping ? SIGKILL : sig);
	if (!run->stopping)
		run->due_ms = now_ms() + STOP_GRACE_MS;
	run->stopping = true;
}

/* Returns the exit status, or -1 to go on. */
static int take_signal(struct run *run, int sig)
{
	struct supervisor *s = run->s;

	if (sig == SIGUSR2) {
		if (run->stopping || !run->was_ready || !s->can_be_replaced ||
		    !s->can_be_replaced(s->opaque))
			return -1;
		run->replacing = true;
		if (run->server.pid)
			stop_server(run, SIGTERM);
		else
			replace(run);
		return -1;
	}
	if (!run->server.pid)
		return 0;
	/* The end of all comes before another beginning. */
	if (run->replacing)
		run->replacing = false;
	else
		stop_server(run, sig);
	return -1;
}

static int take_signals(struct run *run)
{
	struct signalfd_siginfo si;
	int wait_status, status;

	while (read(run->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGCHLD)
			continue; /* several may be one: see below */
		status = take_signal(run, (int)si.ssi_signo);
		if (status >= 0)
			return status;
	}
	if (run->server.pid &&
	    waitpid(run->server.pid, &wait_status, WNOHANG) == run->server.pid)
		return server_ended(run, wait_status);
	return -1;
}

/* Something is due: the end of a server's grace, or the next one's start. */
static int take_time(struct run *run)
{
	int r;

	if (!(run->stopping || run->waiting) || now_ms() < run->due_ms)
		return -1;
	if (run->stopping) {
		kill(run->server.pid, SIGKILL);
		run->due_ms = UINT64_MAX;
		return -1;
	}
	r = start_server(run->s, &run->server);
	if (r < 0) {
		log_printf("platter: cannot start %s: %s%s\n", run->s->name,
			   errno_text(-r),
			   run->was_ready ? ": trying again" : "");
		if (!run->was_ready)
			return 1;
		run->due_ms = now_ms() + PAUSE_MAX_MS;
		return -1;
	}
	run->waiting = false;
	if (!run->was_started && run->s->started)
		run->s->started(run->s->opaque);
	run->was_started = true;
	return -1;
}

static int timeout_ms(const struct run *run)
{
	uint64_t now = now_ms();

	if (!(run->stopping || run->waiting) || run->due_ms == UINT64_MAX)
		return -1;
	return run->due_ms > now ? (int)(run->due_ms - now) : 0;
}

/* Returns the exit status, or -1 to go on. */
static int run_once(struct run *run)
{
	struct pollfd fds[] = {
		{ .fd = run->signal_fd, .events = POLLIN },
		{ .events = POLLIN },
		{ .events = POLLIN },
	};
	int status;

	status = take_time(run);
	if (status >= 0)
		return status;
	fds[1].fd = run->server.log_fd; /* -1: not looked at */
	fds[2].fd = run->server.ready_fd;
	if (poll(fds, ARRAY_SIZE(fds), timeout_ms(run)) < 0)
		return -1;
	if (fds[2].revents)
		take_ready(run);
	if (fds[1].revents)
		take_log(&run->server, !run->server.ready);
	return fds[0].revents ? take_signals(run) : -1;
}

int supervisor_run(struct supervisor *s)
{
	struct run run = {
		.s = s,
		.server = { .log_fd = -1, .ready_fd = -1 },
		.waiting = true, /* for the first start, which is due now */
	};
	struct error err = { 0 };
	char pidfile[32];
	sigset_t set;
	int status;

	/* /dev/fd is not there in every initramfs. */
	snprintf(pidfile, sizeof(pidfile), "/proc/self/fd/%u",
		 LISTEN_FD_FIRST + s->listener->n_fds);
	s->argv[s->pidfile_idx] = pidfile;
	signals_of_interest(&set);
	run.signal_fd =
		fd_move_high(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
	if (run.signal_fd < 0) {
		log_printf("platter: cannot wait for signals: %s\n",
			   errno_text(-run.signal_fd));
		return 1;
	}
	/* Its signals are those that are held by now. */
	if (log_writer_start(STDERR_FILENO, s->log_all, &err) < 0)
		log_printf("platter: %s\n", err.msg);
	do {
		status = run_once(&run);
	} while (status < 0);
	log_writer_stop();
	close(run.signal_fd);
	return status;
}
