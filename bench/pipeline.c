/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An NBD client that keeps a queue full: it sends as many requests as have been
 * answered with one write, and takes all answers that have come with one read.
 * What it costs per request is little, so that the server's cost shows.
 *
 *	pipeline SOCKET DEPTH SECONDS [BLOCK-BYTES]
 *
 * Reads blocks at random from the default export at a unix socket, and prints
 * {"requests": N, "seconds": S}.
 */
#include <endian.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MAX   1024U
#define BLOCK_MAX   65536U
#define REQUEST	    28U
#define REPLY	    16U
#define IN_BYTES    (1U << 20)
#define OUT_BYTES   (DEPTH_MAX * REQUEST)
#define READ_MAGIC  0x25609513U
#define REPLY_MAGIC 0x67446698U

static uint8_t in[IN_BYTES], out[OUT_BYTES];
static uint64_t disk_bytes;
static uint32_t block = 4096;

static void __attribute__((noreturn)) fail(const char *what)
{
	fprintf(stderr, "pipeline: %s\n", what);
	exit(1);
}

static void put_all(int fd, const void *data, size_t n)
{
	const uint8_t *p = data;
	ssize_t done;

	for (; n; n -= (size_t)done, p += done) {
		done = write(fd, p, n);
		if (done < 0 && errno == EINTR)
			done = 0;
		if (done < 0)
			fail("the server hung up");
	}
}

static void get_all(int fd, void *data, size_t n)
{
	if (recv(fd, data, n, MSG_WAITALL) != (ssize_t)n)
		fail("the server hung up");
}

static uint64_t be64_at(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

static uint32_t be32_at(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static void put_be32_at(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof(v));
}

static void put_be64_at(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof(v));
}

/* Option EXPORT_NAME with an empty name: simple replies, no padding. */
static int join(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	uint8_t b[20];

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		fail("nobody listens");
	get_all(fd, b, 18);
	if (memcmp(b, "NBDMAGICIHAVEOPT", 16) != 0)
		fail("that is no NBD server");
	put_be32_at(b, 3);
	memcpy(b + 4, "IHAVEOPT", 8);
	put_be32_at(b + 12, 1);
	put_be32_at(b + 16, 0);
	put_all(fd, b, 20);
	get_all(fd, b, 10);
	disk_bytes = be64_at(b);
	if (disk_bytes < block)
		fail("the disk is too small");
	return fd;
}

static uint64_t next_random(void)
{
	static uint64_t x = 88172645463325252ULL;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static void ask(int fd, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		uint8_t *r = out + (size_t)i * REQUEST;

		memset(r, 0, REQUEST);
		put_be32_at(r, READ_MAGIC);
		put_be64_at(r + 16,
			    next_random() % (disk_bytes / block) * block);
		put_be32_at(r + 24, block);
	}
	put_all(fd, out, (size_t)n * REQUEST);
}

/* How many answers have come; what is not whole stays in front. */
static unsigned int take(int fd, size_t *have)
{
	ssize_t got = recv(fd, in + *have, sizeof(in) - *have, 0);
	size_t at = 0;
	unsigned int n = 0;

	if (got <= 0)
		fail("the server hung up");
	*have += (size_t)got;
	for (; *have - at >= REPLY + block; at += REPLY + block, n++)
		if (be32_at(in + at) != REPLY_MAGIC || be32_at(in + at + 4))
			fail("a read failed");
	memmove(in, in + at, *have - at);
	*have -= at;
	return n;
}

/*
 * Takes what has been asked for and says farewell: nbdkit 1.32 does not outlive
 * a client that hangs up with answers owed to it.
 */
static void leave(int fd, unsigned int owed, size_t *have)
{
	uint8_t *r = out;

	while (owed)
		owed -= take(fd, have);
	memset(r, 0, REQUEST);
	put_be32_at(r, READ_MAGIC);
	r[7] = 2; /* NBD_CMD_DISC */
	put_all(fd, r, REQUEST);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	unsigned long depth = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
	double seconds = argc > 3 ? strtod(argv[3], NULL) : 0, began, took;
	uint64_t n = 0;
	size_t have = 0;
	unsigned int done;
	int fd;

	if (argc > 4)
		block = (uint32_t)strtoul(argv[4], NULL, 10);
	if (argc < 4 || !depth || depth > DEPTH_MAX || seconds <= 0 || !block ||
	    block > BLOCK_MAX)
		fail("pipeline SOCKET DEPTH (1..1024) SECONDS [BLOCK-BYTES "
		     "(1..65536)]");
	fd = join(argv[1]);
	ask(fd, (unsigned int)depth);
	began = now();
	do {
		done = take(fd, &have);
		n += done;
		if (done)
			ask(fd, done);
		took = now() - began;
	} while (took < seconds);
	leave(fd, (unsigned int)depth, &have);
	printf("{\"requests\": %llu, \"seconds\": %.6f}\n",
	       (unsigned long long)n, took);
	close(fd);
	return 0;
}
