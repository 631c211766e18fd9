/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an NBD client sends, to the server of our own: the input is all that he
 * says, in one piece or in pieces of so many bytes as its first byte tells. He is
 * answered, or hung up on, and the server goes on. Built and run as fuzz-format.c
 * is.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nbd/queue.h"
#include "nbd/server/loop.h"
#include "nbd/service.h"
#include "tests/fuzz/replay.h"

#define DISK_BYTES (256U << 10)
#define WAIT_MSEC  20000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static struct service service;
static struct loops *loops;

static void tell(const struct fault *f)
{
}

static void set(const char *key, const char *value)
{
	struct error err = { 0 };

	MUST(service_set(&service, key, value, &err) >= 0, "%s", err.msg);
}

/* A disk of letters, and an overlay that takes writes; for all inputs. */
static void start(void)
{
	struct loops_options o = { .n = 1, .service = &service, .tell = tell };
	char path[] = "/tmp/platter-fuzz-XXXXXX", line[64];
	struct error err = { 0 };
	unsigned int i;
	int fd = mkstemp(path);

	MUST(fd >= 0, "no file");
	memset(line, 'x', sizeof(line));
	for (i = 0; i < DISK_BYTES / sizeof(line); i++)
		MUST(write(fd, line, sizeof(line)) == sizeof(line), "no disk");
	close(fd);
	service_init(&service);
	set("image", path);
	set("format", "raw");
	set("overlay", "temp");
	set("cache", "4M");
	MUST(service_complete(&service, NULL, &err) >= 0 &&
		     service_prepare(&service, NULL, &err) >= 0 &&
		     service_start(&service, &err) >= 0 &&
		     queues_start(4, tell, &err) >= 0 &&
		     loops_start(&o, &loops, &err) >= 0,
	     "%s", err.msg);
	unlink(path);
}

/* All that is answered from now on, until the server hangs up or says no more. */
static void listen_to(int fd, int wait_msec, bool *ret_ack, bool *ret_ended)
{
	/* Its magic, option GO, ACK, no data. */
	static const uint8_t ack[] = { 0x00, 0x03, 0xe8, 0x89, 0x04, 0x55,
				       0x65, 0xa9, 0,	 0,    0,    7,
				       0,    0,	   0,	 1 };
	static uint8_t got[1 << 20];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;

	while (poll(&p, 1, wait_msec) > 0) {
		n = recv(fd, got, sizeof(got), MSG_DONTWAIT);
		if (n <= 0) {
			*ret_ended = true;
			return;
		}
		*ret_ack = *ret_ack || memmem(got, (size_t)n, ack, sizeof(ack));
	}
}

static bool talk(const uint8_t *data, size_t bytes)
{
	size_t piece = bytes && data[0] ? data[0] : bytes, at, n;
	bool ack = false, ended = false;
	struct error err = { 0 };
	int fds[2];

	if (!loops)
		start();
	MUST(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds),
	     "no sockets");
	MUST(loops_hand(loops, fds[1], "", "fuzz", &err) >= 0, "%s", err.msg);
	for (at = 1; at < bytes && !ended; at += n) {
		n = piece < bytes - at ? piece : bytes - at;
		if (send(fds[0], data + at, n, MSG_NOSIGNAL) != (ssize_t)n)
			break; /* he was hung up on */
		listen_to(fds[0], 0, &ack, &ended);
	}
	shutdown(fds[0], SHUT_WR);
	if (!ended)
		listen_to(fds[0], WAIT_MSEC, &ack, &ended);
	MUST(ended, "the server does not end with its client");
	close(fds[0]);
	return ack;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	talk(data, bytes);
	return 0;
}

#ifndef FUZZ_LIBFUZZER
static void run(const uint8_t *data, size_t bytes, struct replay_outcome *ret)
{
	*ret = (struct replay_outcome){ .refused = !talk(data, bytes) };
	if (ret->refused)
		error_set(&ret->reason, -EPROTO, 0, "he was not let in");
}

int main(int argc, char **argv)
{
	return replay(argc, argv, run);
}
#endif
