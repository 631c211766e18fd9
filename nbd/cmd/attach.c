/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * platter attach and detach: a disk as /dev/nbdN. The kernel's client is fed by
 * qemu-nbd, which connects again when the server has been started anew;
 * nbd-client does not. An image is served by a platter serve of its own, which
 * is found again, to be ended, by the file of its pid:
 *
 *	/run/platter-attach/nbdN.pid    /run/platter-attach/nbdN.sock
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "iouring/util.h"
#include "nbd/cmd/attach.h"

#define RUN_FOLDER   "/run/platter-attach"
#define DETACH_TRIES 100U /* ten a second */

bool attach_parse_device(const char *text, unsigned int *ret)
{
	char again[32];
	unsigned int n;

	if (sscanf(text, "/dev/nbd%u", &n) != 1 || n >= ATTACH_DEVICES_MAX)
		return false;
	snprintf(again, sizeof(again), "/dev/nbd%u", n);
	*ret = n;
	return !strcmp(text, again);
}

bool attach_is_used(unsigned int n)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/nbd%u/pid", n);
	return !access(path, F_OK);
}

bool attach_is_there(unsigned int n)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/nbd%u", n);
	return !access(path, F_OK);
}

int attach_lock(unsigned int n, int *ret, struct error *err)
{
	char path[64];
	int fd;

	if (mkdir(RUN_FOLDER, 0700) < 0 && errno != EEXIST)
		return error_set(err, -errno, 0, "%s: %s", RUN_FOLDER,
				 errno_text(errno));
	snprintf(path, sizeof(path), RUN_FOLDER "/nbd%u.lock", n);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_set(err, -errno, 0, "%s: %s", path,
				 errno_text(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		close(fd);
		return error_set(err, -EBUSY, 0,
				 "/dev/nbd%u is in use: it is being attached "
				 "or detached",
				 n);
	}
	*ret = fd;
	return 0;
}

int attach_run(const char *const argv[], struct error *err)
{
	posix_spawn_file_actions_t actions;
	int status = -1, r;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null",
					 O_WRONLY, 0);
	r = posix_spawnp(&pid, argv[0], &actions, NULL,
			 (char *const *)(uintptr_t)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (r)
		return error_set(err, -r, 0, "%s: %s", argv[0], errno_text(r));
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status ? error_set(err, -EIO, 0, "%s failed", argv[0]) : 0;
}

/* ---- the server of an image ---- */

void attach_server_paths(unsigned int n, struct attach_server *ret)
{
	snprintf(ret->socket, sizeof(ret->socket), RUN_FOLDER "/nbd%u.sock", n);
	snprintf(ret->pid_file, sizeof(ret->pid_file), RUN_FOLDER "/nbd%u.pid",
		 n);
}

/* Its pid, when the process of the file is still the one that wrote it. */
static pid_t server_pid(const struct attach_server *s)
{
	char path[64], line[4096] = "";
	FILE *fp = fopen(s->pid_file, "re");
	size_t n;
	int pid = 0;

	if (!fp)
		return 0;
	if (fscanf(fp, "%d", &pid) != 1 || pid <= 1)
		pid = 0;
	fclose(fp);
	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	fp = pid ? fopen(path, "re") : NULL;
	if (!fp)
		return 0;
	n = fread(line, 1, sizeof(line) - 1, fp);
	fclose(fp);
	/* Of its arguments one is the socket, which no other process has. */
	return memmem(line, n, s->socket, strlen(s->socket) + 1) ? pid : 0;
}

void attach_server_end(const struct attach_server *s)
{
	pid_t pid = server_pid(s);
	unsigned int tries;

	if (pid)
		kill(pid, SIGTERM);
	for (tries = 0; pid && tries < DETACH_TRIES && !kill(pid, 0); tries++)
		usleep(100000);
	unlink(s->pid_file);
	unlink(s->socket);
}

int attach_server_begin(const struct attach_server *s, char *const *options,
			const char *image, struct error *err)
{
	size_t n = 0, i = 0;
	const char **argv;
	int r;

	while (options[n])
		n++;
	argv = calloc(n + 10, sizeof(*argv));
	if (!argv)
		return error_set(err, -ENOMEM, 0, "out of memory");
	attach_server_end(s); /* that of somebody who was killed */
	argv[i++] = "/proc/self/exe";
	argv[i++] = "serve";
	argv[i++] = "--fork";
	argv[i++] = "--pid-file";
	argv[i++] = s->pid_file;
	argv[i++] = "--unix";
	argv[i++] = s->socket;
	memcpy(argv + i, options, n * sizeof(*argv));
	argv[i + n] = image;
	r = attach_run(argv, err);
	free(argv);
	return r;
}

/* ---- the device ---- */

int attach_connect(unsigned int n, const char *server, const char *keys,
		   bool read_only, struct error *err)
{
	CLEANUP(freep) char *device = NULL;
	const char *argv[10] = { "qemu-nbd", "-c" };
	size_t i = 2;

	if (asprintf(&device, "/dev/nbd%u", n) < 0) {
		device = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	argv[i++] = device;
	if (read_only)
		argv[i++] = "-r";
	if (keys) {
		argv[i++] = "--object";
		argv[i++] = keys;
	}
	argv[i++] = "--image-opts";
	argv[i] = server;
	return attach_run(argv, err);
}

void attach_scan(unsigned int n)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/nbd%u", n);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	ioctl(fd, BLKRRPART);
	close(fd);
}

int attach_disconnect(unsigned int n, struct error *err)
{
	char path[32];
	const char *const argv[] = { "qemu-nbd", "-d", path, NULL };
	unsigned int tries;
	int fd, r;

	snprintf(path, sizeof(path), "/dev/nbd%u", n);
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (fd < 0)
		return error_set(err, -errno, 0, "%s: %s", path,
				 errno == EBUSY ? "is in use: mounted, or a "
						  "part of another device"
						: errno_text(errno));
	close(fd);
	r = attach_run(argv, err);
	for (tries = 0; r >= 0 && attach_is_used(n); tries++) {
		if (tries == DETACH_TRIES)
			return error_set(err, -EBUSY, 0,
					 "%s: does not come free", path);
		usleep(100000);
	}
	return r;
}
