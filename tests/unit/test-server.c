/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The server of our own, by a client that writes the protocol's bytes itself
 * (doc/proto.md of the NBD project): in one piece, byte by byte, wrong.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "formats/cursor.h"
#include "formats/put-be.h"
#include "nbd/export.h"
#include "nbd/queue.h"
#include "nbd/server/loop.h"
#include "nbd/server/protocol.h"
#include "nbd/service.h"
#include "tests/lib/unit.h"

#define DISK_BYTES (4U << 20)
#define WAIT_MSEC  60000

static uint8_t disk[DISK_BYTES];
static struct service service;
static struct loops *loops;
static struct tls_options tls;
static struct tls_keys *keys;
static struct error err;
static int listen_fd;
static atomic_uint n_told;

static void tell(const struct fault *f)
{
	atomic_fetch_add(&n_told, 1);
}

static void set(const char *key, const char *value)
{
	must(service_set(&service, key, value, &err), err);
}

static struct sockaddr_un sa = { .sun_family = AF_UNIX };

static void begin(bool overlay)
{
	struct loops_options o = { .n = 2,
				   .tls_required = tls.required,
				   .listen_fds = &listen_fd,
				   .n_listen_fds = 1,
				   .service = &service,
				   .tell = tell };

	unit_fill(disk, sizeof(disk), 3);
	unit_write(unit_path("disk"), disk, sizeof(disk));
	service_init(&service);
	set("image", unit_path("disk"));
	set("format", "raw");
	if (overlay)
		set("overlay", "temp");
	must(service_complete(&service, NULL, &err), err);
	must(service_prepare(&service, NULL, &err), err);
	must(service_start(&service, &err), err);
	must(queues_start(4, tell, &err), err);
	listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", unit_path("s"));
	unlink(sa.sun_path);
	ck_assert_int_eq(bind(listen_fd, (struct sockaddr *)&sa, sizeof(sa)),
			 0);
	ck_assert_int_eq(listen(listen_fd, 100), 0);
	must(tls_keys_read(&tls, NULL, &keys, &err), err);
	o.tls = keys;
	must(loops_start(&o, &loops, &err), err);
	atomic_store(&n_told, 0);
}

static void end(void)
{
	loops_stop(loops);
	queues_stop();
	tls_keys_free(keys);
	close(listen_fd);
	service_stop(&service);
	service_done(&service);
}

/* ---- a client ---- */

static int join(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static void put(int fd, const void *data, size_t n)
{
	ck_assert_int_eq(send(fd, data, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* Exactly @n bytes. */
static void get(int fd, void *ret, size_t n)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint8_t *at = ret;
	ssize_t got;

	for (; n; n -= (size_t)got, at += got) {
		ck_assert_int_eq(poll(&p, 1, WAIT_MSEC), 1);
		got = recv(fd, at, n, 0);
		ck_assert_int_gt(got, 0);
	}
}

/* The server has nothing more to say, and hangs up. */
static void is_ended(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char rest[4096];
	ssize_t n;

	do {
		ck_assert_int_eq(poll(&p, 1, WAIT_MSEC), 1);
		n = recv(fd, rest, sizeof(rest), 0);
	} while (n > 0);
	close(fd);
}

static size_t put_option(uint8_t *b, uint32_t number, const void *data,
			 uint32_t n)
{
	put_be64(b, 0, NBD_OPT_MAGIC);
	put_be32(b, 8, number);
	put_be32(b, 12, n);
	if (n)
		memcpy(b + 16, data, n);
	return 16 + n;
}

/* What @number is answered; its data, of at most 64 bytes, at @ret. */
static uint32_t get_answer(int fd, uint32_t number, uint8_t *ret, uint32_t *n)
{
	uint8_t head[20];
	struct cursor c = { .buf = head, .len = sizeof(head) };

	get(fd, head, sizeof(head));
	ck_assert_uint_eq(cursor_be64_at(&c, 0), NBD_REP_MAGIC);
	ck_assert_uint_eq(cursor_be32_at(&c, 8), number);
	*n = cursor_be32_at(&c, 16);
	ck_assert_uint_le(*n, 64);
	get(fd, ret, *n);
	return cursor_be32_at(&c, 12);
}

static uint32_t ask(int fd, uint32_t number, const void *data, uint32_t n)
{
	uint8_t b[512], got[64];
	uint32_t got_n;

	put(fd, b, put_option(b, number, data, n));
	return get_answer(fd, number, got, &got_n);
}

static void greet(int fd)
{
	uint8_t b[18], flags[4];

	get(fd, b, sizeof(b));
	ck_assert_mem_eq(b, "NBDMAGICIHAVEOPT", 16);
	put_be32(flags, 0, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	put(fd, flags, sizeof(flags));
}

/* GO to the default export. */
static void go(int fd)
{
	static const uint8_t no_name[6];
	uint8_t b[64], got[64];
	struct cursor c = { .buf = got, .len = sizeof(got) };
	uint32_t n;

	put(fd, b, put_option(b, NBD_OPT_GO, no_name, sizeof(no_name)));
	ck_assert_uint_eq(get_answer(fd, NBD_OPT_GO, got, &n), NBD_REP_INFO);
	ck_assert_uint_eq(n, 12);
	ck_assert_uint_eq(cursor_be16_at(&c, 0), NBD_INFO_EXPORT);
	ck_assert_uint_eq(cursor_be64_at(&c, 2), DISK_BYTES);
	ck_assert_uint_eq(get_answer(fd, NBD_OPT_GO, got, &n), NBD_REP_ACK);
}

static int join_and_go(bool structured)
{
	int fd = join();

	greet(fd);
	if (structured)
		ck_assert_uint_eq(ask(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0),
				  NBD_REP_ACK);
	go(fd);
	return fd;
}

static void put_request(uint8_t *b, uint16_t flags, uint16_t command,
			uint64_t cookie, uint64_t off, uint32_t len)
{
	put_be32(b, 0, NBD_REQUEST_MAGIC);
	put_be16(b, 4, flags);
	put_be16(b, 6, command);
	put_be64(b, 8, cookie);
	put_be64(b, 16, off);
	put_be32(b, 24, len);
}

static void request(int fd, uint16_t flags, uint16_t command, uint64_t cookie,
		    uint64_t off, uint32_t len)
{
	uint8_t b[NBD_REQUEST_BYTES];

	put_request(b, flags, command, cookie, off, len);
	put(fd, b, sizeof(b));
}

/* A simple answer: its error, and whose it is. */
static uint32_t simple(int fd, uint64_t *ret_cookie)
{
	uint8_t b[NBD_SIMPLE_REPLY_BYTES];
	struct cursor c = { .buf = b, .len = sizeof(b) };

	get(fd, b, sizeof(b));
	ck_assert_uint_eq(cursor_be32_at(&c, 0), NBD_SIMPLE_REPLY_MAGIC);
	*ret_cookie = cursor_be64_at(&c, 8);
	return cursor_be32_at(&c, 4);
}

/* The error that one request alone is answered with. */
static uint32_t simple_error(int fd, uint16_t flags, uint16_t command,
			     uint64_t off, uint32_t len)
{
	uint64_t cookie;
	uint32_t code;

	request(fd, flags, command, 4711, off, len);
	code = simple(fd, &cookie);
	ck_assert_uint_eq(cookie, 4711);
	return code;
}

static void serves(int fd)
{
	uint8_t got[512];

	ck_assert_uint_eq(simple_error(fd, 0, NBD_CMD_READ, 5000, 512), 0);
	get(fd, got, sizeof(got));
	ck_assert_mem_eq(got, disk + 5000, sizeof(got));
}

/* ---- what it must do ---- */

START_TEST(many_reads_at_once_are_all_answered)
{
	enum { N = 3000 };
	static uint8_t all[N * NBD_REQUEST_BYTES], got[4096];
	static bool seen[N];
	uint64_t cookie;
	unsigned int i;
	int fd;

	begin(false);
	fd = join_and_go(false);
	for (i = 0; i < N; i++)
		put_request(all + i * NBD_REQUEST_BYTES, 0, NBD_CMD_READ, i,
			    i * 1000, 1 + i % 4096);
	put(fd, all, sizeof(all));
	for (i = 0; i < N; i++) {
		ck_assert_uint_eq(simple(fd, &cookie), 0);
		ck_assert_uint_lt(cookie, N);
		ck_assert(!seen[cookie]);
		seen[cookie] = true;
		get(fd, got, 1 + cookie % 4096);
		ck_assert_mem_eq(got, disk + cookie * 1000, 1 + cookie % 4096);
	}
	close(fd);
	end();
}
END_TEST

START_TEST(bytes_may_come_one_by_one)
{
	static const uint8_t no_name[6];
	uint8_t b[256], data[700], got[700];
	size_t n, i;
	uint64_t cookie;
	int fd;

	begin(true);
	fd = join();
	get(fd, b, 18);
	put_be32(b, 0, NBD_FLAG_FIXED_NEWSTYLE);
	n = 4 + put_option(b + 4, NBD_OPT_GO, no_name, sizeof(no_name));
	for (i = 0; i < n; i++)
		put(fd, b + i, 1);
	get(fd, b, 20 + 12 + 20);
	unit_fill(data, sizeof(data), 5);
	put_request(b, 0, NBD_CMD_WRITE, 1, 100, sizeof(data));
	for (i = 0; i < NBD_REQUEST_BYTES; i++)
		put(fd, b + i, 1);
	for (i = 0; i < sizeof(data); i++)
		put(fd, data + i, 1);
	ck_assert_uint_eq(simple(fd, &cookie), 0);
	ck_assert_uint_eq(simple_error(fd, 0, NBD_CMD_READ, 100, sizeof(data)),
			  0);
	get(fd, got, sizeof(got));
	ck_assert_mem_eq(got, data, sizeof(data));
	close(fd);
	end();
}
END_TEST

START_TEST(everything_may_come_in_one_piece)
{
	static const uint8_t no_name[6];
	uint8_t b[256], got[512];
	size_t n = 4;
	uint64_t cookie;
	int fd;

	begin(false);
	fd = join();
	put_be32(b, 0, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	n += put_option(b + n, NBD_OPT_GO, no_name, sizeof(no_name));
	put_request(b + n, 0, NBD_CMD_READ, 9, 5000, 512);
	n += NBD_REQUEST_BYTES;
	put_request(b + n, 0, NBD_CMD_DISC, 0, 0, 0);
	n += NBD_REQUEST_BYTES;
	put(fd, b, n);
	get(fd, b, 18 + 20 + 12 + 20);
	ck_assert_uint_eq(simple(fd, &cookie), 0);
	get(fd, got, sizeof(got));
	ck_assert_mem_eq(got, disk + 5000, sizeof(got));
	is_ended(fd);
	end();
}
END_TEST

/* One chunk's head; its data follow. */
static uint16_t chunk(int fd, uint16_t *ret_flags, uint32_t *ret_n)
{
	uint8_t b[NBD_CHUNK_BYTES];
	struct cursor c = { .buf = b, .len = sizeof(b) };

	get(fd, b, sizeof(b));
	ck_assert_uint_eq(cursor_be32_at(&c, 0), NBD_CHUNK_MAGIC);
	*ret_flags = cursor_be16_at(&c, 4);
	*ret_n = cursor_be32_at(&c, 16);
	return cursor_be16_at(&c, 6);
}

START_TEST(holes_are_told_where_the_client_can_be_told)
{
	static uint8_t got[1 << 20];
	uint16_t flags;
	uint32_t n;
	uint64_t cookie;
	struct cursor c = { .buf = got, .len = sizeof(got) };
	int fd;

	begin(true);
	fd = join_and_go(true);
	request(fd, 0, NBD_CMD_WRITE_ZEROES, 1, 65536, 131072);
	ck_assert_uint_eq(simple(fd, &cookie), 0);
	request(fd, 0, NBD_CMD_READ, 2, 0, 1 << 20);
	ck_assert_uint_eq(chunk(fd, &flags, &n), NBD_REPLY_TYPE_OFFSET_DATA);
	ck_assert_uint_eq(flags, 0);
	ck_assert_uint_eq(n, 8 + 65536);
	get(fd, got, n);
	ck_assert_mem_eq(got + 8, disk, 65536);
	ck_assert_uint_eq(chunk(fd, &flags, &n), NBD_REPLY_TYPE_OFFSET_HOLE);
	ck_assert_uint_eq(flags, 0);
	get(fd, got, 12);
	ck_assert_uint_eq(cursor_be64_at(&c, 0), 65536);
	ck_assert_uint_eq(cursor_be32_at(&c, 8), 131072);
	ck_assert_uint_eq(chunk(fd, &flags, &n), NBD_REPLY_TYPE_OFFSET_DATA);
	ck_assert_uint_eq(flags, NBD_REPLY_FLAG_DONE);
	get(fd, got, n);
	ck_assert_mem_eq(got + 8, disk + 196608, n - 8);
	/* Nor is it told who does not want it: all is one piece. */
	request(fd, NBD_CMD_FLAG_DF, NBD_CMD_READ, 3, 0, 1 << 19);
	ck_assert_uint_eq(chunk(fd, &flags, &n), NBD_REPLY_TYPE_OFFSET_DATA);
	ck_assert_uint_eq(n, 8 + (1 << 19));
	get(fd, got, n);
	ck_assert(is_all_zero(got + 8 + 65536, 131072));
	/* What fails is one error. */
	request(fd, 0, NBD_CMD_READ, 4, DISK_BYTES, 512);
	ck_assert_uint_eq(chunk(fd, &flags, &n), NBD_REPLY_TYPE_ERROR);
	ck_assert_uint_eq(flags, NBD_REPLY_FLAG_DONE);
	get(fd, got, n);
	ck_assert_uint_eq(cursor_be32_at(&c, 0), NBD_EINVAL);
	close(fd);
	end();
}
END_TEST

static const struct {
	bool overlay;
	uint16_t flags, command;
	uint64_t off;
	uint32_t len, code;
} refused[] = {
	{ false, 0, NBD_CMD_READ, DISK_BYTES, 1, NBD_EINVAL },
	{ false, 0, NBD_CMD_READ, UINT64_MAX, 512, NBD_EINVAL },
	{ false, 0, NBD_CMD_READ, DISK_BYTES - 511, 512, NBD_EINVAL },
	{ false, 0, NBD_CMD_READ, 0, 0, NBD_EINVAL },
	{ false, NBD_CMD_FLAG_FUA, NBD_CMD_READ, 0, 512, NBD_EINVAL },
	{ false, 0, 99, 0, 512, NBD_EINVAL },
	{ false, 0, NBD_CMD_TRIM, 0, 512, NBD_EPERM },
	{ false, 0, NBD_CMD_WRITE_ZEROES, 0, 512, NBD_EPERM },
	{ false, 0, NBD_CMD_FLUSH, 0, 0, NBD_EINVAL },
	{ false, 0, NBD_CMD_BLOCK_STATUS, 0, 512, NBD_EINVAL },
	{ true, 0, NBD_CMD_TRIM, DISK_BYTES, 512, NBD_EINVAL },
	{ true, 0, NBD_CMD_WRITE_ZEROES, DISK_BYTES, 512, NBD_ENOSPC },
	{ true, 0, NBD_CMD_FLUSH, 512, 0, NBD_EINVAL },
	{ true, 0, NBD_CMD_FLUSH, 0, 512, NBD_EINVAL },
	{ true, NBD_CMD_FLAG_DF, NBD_CMD_TRIM, 0, 512, NBD_EINVAL },
};

START_TEST(what_is_wrong_is_refused_and_serving_goes_on)
{
	int fd;

	begin(refused[_i].overlay);
	fd = join_and_go(false);
	ck_assert_uint_eq(simple_error(fd, refused[_i].flags,
				       refused[_i].command, refused[_i].off,
				       refused[_i].len),
			  refused[_i].code);
	serves(fd);
	close(fd);
	end();
}
END_TEST

START_TEST(a_write_that_is_refused_has_its_data_skipped)
{
	uint8_t data[3000] = { 1 };
	uint64_t cookie;
	int fd;

	begin(false);
	fd = join_and_go(false);
	request(fd, 0, NBD_CMD_WRITE, 1, 0, sizeof(data));
	put(fd, data, sizeof(data));
	ck_assert_uint_eq(simple(fd, &cookie), NBD_EPERM);
	serves(fd);
	close(fd);
	end();
}
END_TEST

START_TEST(who_breaks_the_rules_is_alone_with_it)
{
	uint8_t b[64], good[NBD_REQUEST_BYTES];
	int honest, fd;

	begin(true);
	honest = join_and_go(false);
	/* A wrong magic in a request. */
	fd = join_and_go(false);
	put_request(good, 0, NBD_CMD_READ, 1, 0, 512);
	good[0] ^= 1;
	put(fd, good, sizeof(good));
	is_ended(fd);
	/* A write of more than anybody takes. */
	fd = join_and_go(false);
	request(fd, 0, NBD_CMD_WRITE, 1, 0, 1U << 31);
	is_ended(fd);
	/* Flags that there are not. */
	fd = join();
	get(fd, b, 18);
	put_be32(b, 0, 0xffff0000);
	put(fd, b, 4);
	is_ended(fd);
	/* An option's magic, and an option without an end. */
	fd = join();
	greet(fd);
	put_be64(b, 0, 1);
	put_be64(b, 8, 0);
	put(fd, b, 16);
	is_ended(fd);
	fd = join();
	greet(fd);
	put_be64(b, 0, NBD_OPT_MAGIC);
	put_be32(b, 8, NBD_OPT_GO);
	put_be32(b, 12, UINT32_MAX);
	put(fd, b, 16);
	is_ended(fd);
	serves(honest);
	close(honest);
	end();
}
END_TEST

START_TEST(options_that_are_wrong_are_refused_by_name)
{
	uint8_t b[64] = { 0 };
	int fd;

	begin(false);
	fd = join();
	greet(fd);
	ck_assert_uint_eq(ask(fd, 999, NULL, 0), NBD_REP_ERR_UNSUP);
	ck_assert_uint_eq(ask(fd, NBD_OPT_STARTTLS, NULL, 0),
			  NBD_REP_ERR_UNSUP);
	ck_assert_uint_eq(ask(fd, NBD_OPT_STRUCTURED_REPLY, "x", 1),
			  NBD_REP_ERR_INVALID);
	ck_assert_uint_eq(ask(fd, NBD_OPT_SET_META_CONTEXT, b, 8),
			  NBD_REP_ERR_INVALID);
	put_be32(b, 0, 4000); /* a name longer than its option */
	ck_assert_uint_eq(ask(fd, NBD_OPT_GO, b, 6), NBD_REP_ERR_INVALID);
	put_be32(b, 0, 2);
	memcpy(b + 4, "no", 2);
	put_be16(b, 6, 0);
	ck_assert_uint_eq(ask(fd, NBD_OPT_GO, b, 8), NBD_REP_ERR_UNKNOWN);
	ck_assert_uint_eq(ask(fd, NBD_OPT_INFO, b, 8), NBD_REP_ERR_UNKNOWN);
	go(fd);
	serves(fd);
	close(fd);
	end();
}
END_TEST

START_TEST(who_does_not_read_does_not_take_all_memory)
{
	static uint8_t all[200 * NBD_REQUEST_BYTES];
	unsigned int i, k;
	int idle[10], fd;

	begin(false);
	for (i = 0; i < 200; i++)
		put_request(all + i * NBD_REQUEST_BYTES, 0, NBD_CMD_READ, i, 0,
			    1 << 20);
	for (k = 0; k < ARRAY_SIZE(idle); k++) {
		idle[k] = join_and_go(false);
		put(idle[k], all, sizeof(all));
	}
	fd = join_and_go(false);
	for (i = 0; i < 100; i++)
		serves(fd);
	for (k = 0; k < ARRAY_SIZE(idle); k++)
		close(idle[k]);
	serves(fd);
	close(fd);
	end();
}
END_TEST

START_TEST(clients_come_and_go_in_the_middle_of_anything)
{
	uint8_t b[256];
	unsigned int i;
	int fd;

	begin(true);
	put_request(b, 0, NBD_CMD_WRITE, 1, 0, 100);
	for (i = 0; i < 200; i++) {
		fd = i % 2 ? join_and_go(i % 3) : join();
		if (i % 2)
			put(fd, b, i % 100);
		if (i % 7 == 0)
			request(fd, 0, NBD_CMD_FLUSH, 1, 0, 0);
		close(fd);
	}
	fd = join_and_go(false);
	serves(fd);
	close(fd);
	end();
}
END_TEST

START_TEST(who_leaves_in_the_handshake_leaves_nothing_open)
{
	static const uint8_t no_name[6];
	uint8_t b[64];
	unsigned int i;
	size_t n;
	int fd;

	begin(false);
	for (i = 0; i < 100; i++) {
		fd = join();
		greet(fd);
		ck_assert_uint_eq(
			ask(fd, NBD_OPT_INFO, no_name, sizeof(no_name)),
			NBD_REP_INFO);
		n = put_option(b, NBD_OPT_LIST, NULL, 0);
		put(fd, b, n);
		close(fd);
	}
	for (i = 0;
	     i < WAIT_MSEC && export_connections(service.standing[0]) > 1; i++)
		usleep(1000);
	ck_assert_uint_eq(export_connections(service.standing[0]), 1);
	end();
}
END_TEST

/* ---- TLS, up to where it begins ---- */

static void begin_tls(bool required)
{
	static const char line[] = "vm1:00112233445566778899aabbccddeeff\n";
	const char *path = unit_path("keys");

	unit_write(path, line, sizeof(line) - 1);
	chmod(path, 0600);
	signal(SIGPIPE, SIG_IGN); /* as server.c does */
	tls = (struct tls_options){ .offered = true,
				    .required = required,
				    .psk = path };
	begin(false);
}

static const uint32_t all_options[] = {
	NBD_OPT_LIST,
	NBD_OPT_INFO,
	NBD_OPT_GO,
	NBD_OPT_STRUCTURED_REPLY,
	NBD_OPT_LIST_META_CONTEXT,
	NBD_OPT_SET_META_CONTEXT,
	999,
};

START_TEST(before_tls_that_is_required_nothing_is_answered)
{
	static const uint8_t no_name[6];
	uint8_t b[64];
	size_t i;
	int fd;

	begin_tls(true);
	fd = join();
	greet(fd);
	for (i = 0; i < ARRAY_SIZE(all_options); i++)
		ck_assert_uint_eq(ask(fd, all_options[i], no_name, 6),
				  NBD_REP_ERR_TLS_REQD);
	ck_assert_uint_eq(ask(fd, NBD_OPT_STARTTLS, no_name, 6),
			  NBD_REP_ERR_INVALID);
	ck_assert_uint_eq(ask(fd, NBD_OPT_ABORT, NULL, 0), NBD_REP_ACK);
	is_ended(fd);
	/* This one has no word for it. */
	fd = join();
	greet(fd);
	put(fd, b, put_option(b, NBD_OPT_EXPORT_NAME, NULL, 0));
	is_ended(fd);
	/* Nor is a request. */
	fd = join();
	greet(fd);
	request(fd, 0, NBD_CMD_READ, 1, 0, 512);
	is_ended(fd);
	end();
}
END_TEST

/* With an export open before, and without. */
static void start_tls(int fd, bool opened)
{
	static const uint8_t no_name[6];
	uint8_t got[64];
	uint32_t n;

	greet(fd);
	if (!opened)
		return;
	ck_assert_uint_eq(ask(fd, NBD_OPT_INFO, no_name, 6), NBD_REP_INFO);
	ck_assert_uint_eq(get_answer(fd, NBD_OPT_INFO, got, &n), NBD_REP_ACK);
}

START_TEST(bytes_behind_starttls_end_the_client)
{
	uint8_t b[64];
	size_t n;
	int fd, opened, behind;

	begin_tls(false);
	for (opened = 0; opened < 2; opened++) {
		for (behind = 0; behind < 3; behind++) {
			fd = join();
			start_tls(fd, opened);
			n = put_option(b, NBD_OPT_STARTTLS, NULL, 0);
			if (behind == 1)
				b[n++] = 22;
			else if (behind == 2)
				n += put_option(b + n, NBD_OPT_LIST, NULL, 0);
			put(fd, b, n);
			if (behind) {
				/* Not even an answer, that might let TLS begin. */
				ck_assert_int_eq(recv(fd, b, 1, 0), 0);
			} else {
				n = put_option(b, NBD_OPT_LIST, NULL, 0);
				put(fd, b, n); /* which is not TLS */
			}
			is_ended(fd);
		}
	}
	fd = join_and_go(false);
	serves(fd);
	close(fd);
	end();
}
END_TEST

/* A ClientHello's first bytes, and then nothing, or nonsense. */
START_TEST(who_begins_tls_and_stays_away_is_alone_with_it)
{
	static const uint8_t hello[] = { 22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3 };
	static uint8_t nonsense[8192];
	int stuck[60], honest, fd;
	unsigned int i;

	begin_tls(false);
	honest = join_and_go(false);
	for (i = 0; i < ARRAY_SIZE(stuck); i++) {
		stuck[i] = join();
		greet(stuck[i]);
		ck_assert_uint_eq(ask(stuck[i], NBD_OPT_STARTTLS, NULL, 0),
				  NBD_REP_ACK);
		put(stuck[i], hello, 1 + i % sizeof(hello));
		serves(honest);
	}
	unit_fill(nonsense, sizeof(nonsense), 9);
	for (i = 0; i < 20; i++) {
		fd = join();
		greet(fd);
		ck_assert_uint_eq(ask(fd, NBD_OPT_STARTTLS, NULL, 0),
				  NBD_REP_ACK);
		memcpy(nonsense, hello, i % (sizeof(hello) + 1));
		/* It may be gone in the middle. */
		send(fd, nonsense, sizeof(nonsense), MSG_NOSIGNAL);
		shutdown(fd, SHUT_WR);
		serves(honest);
		close(fd);
	}
	for (i = 0; i < ARRAY_SIZE(stuck); i += 2)
		close(stuck[i]);
	serves(honest);
	close(honest);
	end(); /* with half of them still there */
	for (i = 1; i < ARRAY_SIZE(stuck); i += 2)
		close(stuck[i]);
}
END_TEST

static void many(unsigned int number)
{
	uint8_t got[4096];
	unsigned int i;
	uint64_t off;
	int fd = join_and_go(false);

	for (i = 0; i < 200; i++) {
		off = (i * 7919 + number * 104729) % (DISK_BYTES - 4096);
		ck_assert_uint_eq(simple_error(fd, 0, NBD_CMD_READ, off, 4096),
				  0);
		get(fd, got, sizeof(got));
		ck_assert_mem_eq(got, disk + off, sizeof(got));
	}
	close(fd);
}

START_TEST(many_clients_are_served_beside_each_other)
{
	begin(false);
	unit_threads(20, many);
	end();
}
END_TEST

static atomic_bool others_are_served;

/* Two who never stop asking, one for each loop; then others. */
static void ask_on_or_come_later(unsigned int number)
{
	int fd = join_and_go(false), i, other;

	if (number < 2) {
		while (!atomic_load(&others_are_served))
			serves(fd);
		close(fd);
		return;
	}
	/* Long enough for both to be waited for in recv(2). */
	for (i = 0; i < 300; i++)
		serves(fd);
	for (i = 0; i < 10; i++) {
		close(fd);
		usleep(20000);
		other = join_and_go(false);
		serves(other);
		fd = other;
	}
	close(fd);
	atomic_store(&others_are_served, true);
}

START_TEST(who_never_stops_asking_does_not_keep_others_out)
{
	begin(false);
	atomic_store(&others_are_served, false);
	unit_threads(3, ask_on_or_come_later);
	end();
}
END_TEST

START_TEST(one_who_asks_when_the_server_ends_is_let_go_of)
{
	struct timespec began, ended;
	int fd, i;

	begin(false);
	fd = join_and_go(false);
	for (i = 0; i < 300; i++)
		serves(fd);
	clock_gettime(CLOCK_MONOTONIC, &began);
	end();
	clock_gettime(CLOCK_MONOTONIC, &ended);
	ck_assert_int_lt(ended.tv_sec - began.tv_sec, 20);
	is_ended(fd);
}
END_TEST

START_TEST(a_server_that_ends_answers_what_it_has_begun)
{
	int fd;

	begin(false);
	fd = join_and_go(false);
	serves(fd);
	end();
	is_ended(fd);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, many_reads_at_once_are_all_answered);
	tcase_add_test(tc, bytes_may_come_one_by_one);
	tcase_add_test(tc, everything_may_come_in_one_piece);
	tcase_add_test(tc, holes_are_told_where_the_client_can_be_told);
	LOOP(tc, what_is_wrong_is_refused_and_serving_goes_on, refused);
	tcase_add_test(tc, a_write_that_is_refused_has_its_data_skipped);
	tcase_add_test(tc, who_breaks_the_rules_is_alone_with_it);
	tcase_add_test(tc, options_that_are_wrong_are_refused_by_name);
	tcase_add_test(tc, who_does_not_read_does_not_take_all_memory);
	tcase_add_test(tc, clients_come_and_go_in_the_middle_of_anything);
	tcase_add_test(tc, who_leaves_in_the_handshake_leaves_nothing_open);
	tcase_add_test(tc, before_tls_that_is_required_nothing_is_answered);
	tcase_add_test(tc, bytes_behind_starttls_end_the_client);
	tcase_add_test(tc, who_begins_tls_and_stays_away_is_alone_with_it);
	tcase_add_test(tc, many_clients_are_served_beside_each_other);
	tcase_add_test(tc, who_never_stops_asking_does_not_keep_others_out);
	tcase_add_test(tc, one_who_asks_when_the_server_ends_is_let_go_of);
	tcase_add_test(tc, a_server_that_ends_answers_what_it_has_begun);
}

int main(void)
{
	return unit_main("server", add);
}
