/* SPDX-License-Identifier: BSD-3-Clause */
/* The engine's queue, without a socket or a protocol. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "nbd/queue.h"
#include "nbd/service.h"
#include "tests/lib/unit.h"

#define DISK_BYTES (4U << 20)
#define MANY	   400U

static uint8_t disk[DISK_BYTES];
static struct service service;
static struct queue *queue;
static struct queue_user user;
static struct error err;
static unsigned int n_done, n_told;
static struct fault last_fault;
static pthread_mutex_t told_lock = PTHREAD_MUTEX_INITIALIZER;

static void tell(const struct fault *f)
{
	pthread_mutex_lock(&told_lock);
	last_fault = *f;
	n_told++;
	pthread_mutex_unlock(&told_lock);
}

static void set(const char *key, const char *value)
{
	must(service_set(&service, key, value, &err), err);
}

static void begin_with(const char *key, const char *value,
		       unsigned int per_user)
{
	struct fault f;

	unit_fill(disk, sizeof(disk), 3);
	unit_write(unit_path("disk"), disk, sizeof(disk));
	service_init(&service);
	set("image", unit_path("disk"));
	set("format", "raw");
	if (key)
		set(key, value);
	must(service_complete(&service, NULL, &err), err);
	must(service_prepare(&service, NULL, &err), err);
	must(service_start(&service, &err), err);
	must(queues_start(per_user, tell, &err), err);
	must(queue_new(&queue, &err), err);
	user = (struct queue_user){ .queue = queue };
	ck_assert_msg(session_open(&service.config, "",
				   &(struct peer){ "me", "me" },
				   &user.connection, &f) == 0,
		      "%s", f.err.msg);
	n_done = n_told = 0;
}

static void begin(bool overlay, unsigned int per_user)
{
	begin_with(overlay ? "overlay" : NULL, "temp", per_user);
}

static void end(void)
{
	connection_close(user.connection);
	queues_stop();
	queue_free(queue);
	service_stop(&service);
	service_done(&service);
}

static void count(struct queue_request *r)
{
	n_done++;
}

/* Until @n have been told of, by the queue's descriptor. */
static void reap(unsigned int n)
{
	struct pollfd p = { .fd = queue_fd(queue), .events = POLLIN };

	while (n_done < n) {
		ck_assert_int_eq(poll(&p, 1, 60000), 1);
		queue_reap(queue);
	}
	ck_assert_uint_eq(n_done, n);
}

static void run(struct queue_request *r)
{
	unsigned int before = n_done;

	r->done = count;
	if (queue_submit(&user, r))
		return;
	queue_push(queue);
	reap(before + 1);
}

START_TEST(reads_bring_what_is_there)
{
	static uint8_t got[MANY][8192];
	static struct queue_request r[MANY];
	unsigned int i, later = 0;

	begin(false, 3);
	for (i = 0; i < MANY; i++) {
		r[i] = (struct queue_request){ .op = QUEUE_READ,
					       .buf = got[i],
					       .len = 8192,
					       .off = i * 10007,
					       .done = count };
		later += !queue_submit(&user, &r[i]);
	}
	queue_push(queue);
	reap(later);
	for (i = 0; i < MANY; i++) {
		ck_assert_int_eq(r[i].wire, 0);
		ck_assert_mem_eq(got[i], disk + i * 10007, 8192);
	}
	end();
}
END_TEST

#define PAGES 64U

/* Past the page cache, each has to be waited for: by the ring, but for the first. */
static void begin_pages(uint8_t got[PAGES][4096], struct queue_request *r)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++) {
		r[i] = (struct queue_request){ .op = QUEUE_READ,
					       .buf = got[i],
					       .len = 4096,
					       .off = i * 5 * 4096,
					       .done = count };
		ck_assert(!queue_submit(&user, &r[i]));
	}
	queue_push(queue);
}

START_TEST(what_is_on_the_disk_comes_without_workers)
{
	static uint8_t got[PAGES][4096] __attribute__((aligned(4096)));
	static struct queue_request r[PAGES];
	unsigned int i;

	begin_with("direct", "true", PAGES);
	begin_pages(got, r);
	if (!engine_probe())
		ck_assert_uint_le(user.at_work, 1);
	reap(PAGES);
	for (i = 0; i < PAGES; i++) {
		ck_assert_int_eq(r[i].wire, 0);
		ck_assert_mem_eq(got[i], disk + i * 5 * 4096, 4096);
	}
	end();
}
END_TEST

START_TEST(what_the_ring_could_not_read_is_told_by_a_worker)
{
	static uint8_t got[PAGES][4096] __attribute__((aligned(4096)));
	static struct queue_request r[PAGES];
	unsigned int i;

	begin_with("direct", "true", 4);
	ck_assert_int_eq(truncate(unit_path("disk"), 4096 * 5), 0);
	begin_pages(got, r);
	reap(PAGES);
	for (i = 0; i < PAGES; i++)
		ck_assert_int_eq(r[i].wire, i ? EIO : 0);
	ck_assert_uint_eq(n_told, PAGES - 1);
	end();
}
END_TEST

START_TEST(what_was_written_is_read_and_a_flush_is_one)
{
	static uint8_t data[65536], got[65536];
	struct queue_request w = {
		.op = QUEUE_WRITE, .buf = data, .len = sizeof(data), .off = 777
	};
	struct queue_request z = { .op = QUEUE_ZERO,
				   .len = 4096,
				   .off = 8192,
				   .flags = SESSION_MAY_TRIM };
	struct queue_request f = { .op = QUEUE_FLUSH };
	struct queue_request r = {
		.op = QUEUE_READ, .buf = got, .len = sizeof(got), .off = 777
	};

	begin(true, 4);
	unit_fill(data, sizeof(data), 99);
	run(&w);
	run(&z);
	run(&f);
	run(&r);
	ck_assert_int_eq(w.wire | z.wire | f.wire | r.wire, 0);
	memset(data + 8192 - 777, 0, 4096);
	ck_assert_mem_eq(got, data, sizeof(data));
	end();
}
END_TEST

START_TEST(zeroes_are_told_and_not_written)
{
	static uint8_t got[1 << 20];
	struct zero_runs zeroes = { 0 };
	struct queue_request z = { .op = QUEUE_ZERO,
				   .len = 1 << 19,
				   .off = 1 << 18,
				   .flags = SESSION_MAY_TRIM };
	struct queue_request r = { .op = QUEUE_READ,
				   .buf = got,
				   .len = sizeof(got),
				   .zeroes = &zeroes };

	begin(true, 4);
	run(&z);
	memset(got, 0x55, sizeof(got));
	run(&r);
	ck_assert_int_eq(z.wire | r.wire, 0);
	ck_assert_uint_eq(zeroes.n, 1);
	ck_assert_uint_eq(zeroes.runs[0].off, 1 << 18);
	ck_assert_uint_eq(zeroes.runs[0].len, 1 << 19);
	ck_assert_mem_eq(got, disk, 1 << 18);
	ck_assert_uint_eq(got[1 << 18], 0x55);
	ck_assert_mem_eq(got + (3 << 18), disk + (3 << 18), 1 << 18);
	end();
}
END_TEST

START_TEST(what_fails_is_told_to_both)
{
	uint8_t data[512] = { 0 };
	struct queue_request r = { .op = QUEUE_READ,
				   .buf = data,
				   .len = sizeof(data),
				   .off = DISK_BYTES };

	begin(false, 4);
	run(&r);
	ck_assert_int_eq(r.wire, EINVAL);
	ck_assert_uint_eq(n_told, 1);
	unit_says(&last_fault.err, "are not inside the disk's");
	end();
}
END_TEST

struct told {
	unsigned int n, holes;
	uint64_t end;
};

static int note_told(void *opaque, uint64_t off, uint64_t len,
		     unsigned int state)
{
	struct told *t = opaque;

	ck_assert(!t->n || off == t->end);
	t->n++;
	t->holes += (state & CONTEXT_HOLE) != 0;
	t->end = off + len;
	return 0;
}

static bool ask(struct queue_request *r, struct told *t)
{
	*t = (struct told){ 0 };
	*r = (struct queue_request){ .op = QUEUE_EXTENTS,
				     .len = DISK_BYTES,
				     .each = note_told,
				     .opaque = t,
				     .done = count };
	return queue_submit(&user, r);
}

START_TEST(what_is_known_of_holes_is_told_at_once)
{
	struct queue_request r, z;
	struct told t;
	unsigned int i;

	begin(true, 4);
	ck_assert(ask(&r, &t));
	ck_assert_uint_eq(t.n, 1);
	ck_assert_uint_eq(t.end, DISK_BYTES);
	ck_assert_uint_eq(t.holes, 0);
	z = (struct queue_request){ .op = QUEUE_ZERO,
				    .len = 1 << 20,
				    .off = 1 << 20,
				    .flags = SESSION_MAY_TRIM };
	run(&z);
	n_done = 0;
	if (!ask(&r, &t))
		reap(1);
	ck_assert_int_eq(r.wire, 0);
	ck_assert_uint_eq(t.n, 3);
	ck_assert_uint_eq(t.holes, 1);
	/* What would take long is a worker's, and told once all the same. */
	for (i = 0; i < 512; i++) {
		z.off = i * 8192;
		z.len = 4096;
		run(&z);
	}
	n_done = 0;
	ck_assert(!ask(&r, &t));
	reap(1);
	ck_assert_uint_eq(t.end, DISK_BYTES);
	ck_assert_uint_ge(t.holes, 512 - 128);
	end();
}
END_TEST

static atomic_uint at_once, most;

static void linger(struct queue_request *r)
{
	unsigned int n = atomic_fetch_add(&at_once, 1) + 1, m, i;

	m = atomic_load(&most);
	while (n > m && !atomic_compare_exchange_weak(&most, &m, n))
		;
	/* Until there are two, however long the second worker takes to come. */
	for (i = 0; i < 20000 && atomic_load(&most) < 2; i++)
		usleep(1000);
	usleep(2000);
	atomic_fetch_sub(&at_once, 1);
}

START_TEST(one_user_has_so_many_at_work_and_no_more)
{
	static struct queue_request r[50];
	unsigned int i;

	begin(false, 5);
	atomic_store(&most, 0);
	for (i = 0; i < ARRAY_SIZE(r); i++) {
		r[i] = (struct queue_request){ .op = QUEUE_CALL,
					       .call = linger,
					       .done = count };
		ck_assert(!queue_submit(&user, &r[i]));
	}
	reap(ARRAY_SIZE(r));
	ck_assert_uint_le(atomic_load(&most), 5);
	ck_assert_uint_gt(atomic_load(&most), 1);
	end();
}
END_TEST

static atomic_bool let_go;

static void hang(struct queue_request *r)
{
	while (!atomic_load(&let_go))
		usleep(1000);
}

START_TEST(who_hangs_holds_up_himself_alone)
{
	static struct queue_request stuck[20];
	struct queue_user other;
	uint8_t data[512];
	struct queue_request f = { .op = QUEUE_PREFETCH,
				   .len = 512,
				   .done = count };
	unsigned int i;

	begin(false, 2);
	atomic_store(&let_go, false);
	for (i = 0; i < ARRAY_SIZE(stuck); i++) {
		stuck[i] = (struct queue_request){ .op = QUEUE_CALL,
						   .call = hang,
						   .done = count };
		ck_assert(!queue_submit(&user, &stuck[i]));
	}
	other = (struct queue_user){ .queue = queue,
				     .connection = user.connection };
	f.buf = data;
	ck_assert(!queue_submit(&other, &f));
	reap(1);
	ck_assert_int_eq(f.wire, 0);
	atomic_store(&let_go, true);
	reap(1 + ARRAY_SIZE(stuck));
	end();
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, reads_bring_what_is_there);
	tcase_add_test(tc, what_is_on_the_disk_comes_without_workers);
	tcase_add_test(tc, what_the_ring_could_not_read_is_told_by_a_worker);
	tcase_add_test(tc, what_was_written_is_read_and_a_flush_is_one);
	tcase_add_test(tc, zeroes_are_told_and_not_written);
	tcase_add_test(tc, what_fails_is_told_to_both);
	tcase_add_test(tc, what_is_known_of_holes_is_told_at_once);
	tcase_add_test(tc, one_user_has_so_many_at_work_and_no_more);
	tcase_add_test(tc, who_hangs_holds_up_himself_alone);
}

int main(void)
{
	return unit_main("queue", add);
}
