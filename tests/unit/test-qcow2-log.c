/* SPDX-License-Identifier: BSD-3-Clause */
/* What was answered outlives the process, and what its log is worth. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "formats/boot-id.h"
#include "formats/cache.h"
#include "formats/overlay/overlay.h"
#include "iouring/write.h"
#include "tests/lib/qcow2-bytes.h"
#include "tests/lib/unit.h"

#define PAGE	     4096U
#define DISK_PAGES   2048U
#define DISK_BYTES   ((uint64_t)DISK_PAGES * PAGE)
#define THREADS	     4U
#define THREAD_PAGES (DISK_PAGES / THREADS)

static struct error err;
static struct image *base;
static struct overlay *ov;

static const char *top(void)
{
	return unit_path("top.qcow2");
}

static const char *log_file(void)
{
	return unit_path("top.qcow2.platter-log");
}

static void make(void)
{
	struct open_options options = { .format = "raw" };
	struct overlay_new n = { .bytes = DISK_BYTES,
				 .base_name = "base.raw",
				 .base_format = "raw" };
	uint8_t *zeroes = calloc(1, DISK_BYTES);

	ck_assert_ptr_nonnull(zeroes);
	unit_write(unit_path("base.raw"), zeroes, DISK_BYTES);
	free(zeroes);
	must(image_open(unit_path("base.raw"), &options, &base, &err), err);
	unlink(top());
	unlink(log_file());
	must(overlay_create(top(), &n, &err), err);
}

static int try_open(bool discard)
{
	struct overlay_options options = { .log = true,
					   .discard_log = discard };

	error_clear(&err);
	return overlay_open(top(), base, "base.raw", &options, &ov, &err);
}

static void done(void)
{
	overlay_unref(TAKE_PTR(ov));
	image_unref(TAKE_PTR(base));
	cache_shutdown();
	unlink(top());
	unlink(log_file());
}

static void is_sound(uint64_t leaks_allowed)
{
	struct open_options options = { .format = "qcow2", .share = true };
	struct check_report r = { 0 };
	struct layer *l;

	must(chain_open_top(top(), &options, &l, &err), err);
	must(l->ops->check(l, &r, &err), err);
	layer_unref(l);
	cache_shutdown();
	ck_assert_uint_eq(r.corruptions, 0);
	ck_assert_uint_eq(r.check_errors, 0);
	ck_assert_uint_le(r.leaks, leaks_allowed);
}

/* ---- a guest, of whom the test knows what he was told ---- */

/* What each page holds: a number, 0: zeroes. Shared with the child. */
struct told {
	atomic_uint asked[DISK_PAGES]; /* the last that was asked for */
	atomic_uint answered[DISK_PAGES];
	atomic_uint answers;
	/* Asked for, of one who died before the last. */
	unsigned int asked_before[DISK_PAGES];
};

static struct told *told;

static void fill_page(uint32_t *page, uint32_t number)
{
	uint32_t i;

	for (i = 0; i < PAGE / sizeof(*page); i++)
		page[i] = number;
}

/* Is it this one, whole? */
static bool page_is(const uint32_t *page, uint32_t number)
{
	uint32_t i;

	for (i = 0; i < PAGE / sizeof(*page); i++)
		if (page[i] != number)
			return false;
	return true;
}

struct guest {
	unsigned int seed;
	uint32_t first; /* of his pages */
	uint32_t next; /* number */
};

static uint32_t pick(struct guest *g, uint32_t below)
{
	g->seed = g->seed * 1664525U + 1013904223U;
	return (uint32_t)(((uint64_t)(g->seed >> 1) * below) >> 31);
}

static void ask(struct guest *g)
{
	static _Thread_local uint32_t buf[32 * PAGE / sizeof(uint32_t)];
	uint32_t n = 1 + pick(g, pick(g, 8) ? 3 : 32), i, number;
	uint32_t first = g->first + pick(g, THREAD_PAGES - n + 1);
	unsigned int what = pick(g, 16);
	uint64_t off = (uint64_t)first * PAGE, len = (uint64_t)n * PAGE;
	struct error why = { 0 };
	int r;

	if (!what) {
		r = overlay_flush(ov, &why);
	} else {
		number = what < 4 ? 0 : g->next++;
		for (i = 0; i < n; i++) {
			atomic_store(&told->asked[first + i], number);
			fill_page(buf + i * PAGE / sizeof(*buf), number);
		}
		r = what < 3
			    ? overlay_zero(ov, off, len, OVERLAY_MAY_TRIM, &why)
		    : what == 3
			    ? overlay_trim(ov, off, len, false, &why)
			    : overlay_write(ov, buf, len, off, what == 4, &why);
		for (i = 0; i < n && r >= 0; i++)
			atomic_store(&told->answered[first + i], number);
	}
	if (r < 0) {
		fprintf(stderr, "the guest is told: %s\n", why.msg);
		_exit(3);
	}
	atomic_fetch_add(&told->answers, 1);
}

static void *be_a_guest(void *opaque)
{
	for (;;)
		ask(opaque);
	return NULL;
}

static void __attribute__((noreturn)) serve_guests(unsigned int seed)
{
	static struct guest guests[THREADS];
	pthread_t t[THREADS];
	unsigned int i;

	if (try_open(false) < 0) {
		fprintf(stderr, "cannot be opened: %s\n", err.msg);
		_exit(2);
	}
	for (i = 0; i < THREADS; i++) {
		guests[i] = (struct guest){ .seed = seed * 31 + i,
					    .first = i * THREAD_PAGES,
					    .next = seed * 100000 + 1 };
		pthread_create(&t[i], NULL, be_a_guest, &guests[i]);
	}
	for (;;)
		pause();
}

static void compare(unsigned int round)
{
	static uint32_t page[PAGE / sizeof(uint32_t)];
	unsigned int i, answered, asked;

	for (i = 0; i < DISK_PAGES; i++) {
		must(overlay_read(ov, page, PAGE, (uint64_t)i * PAGE, &err),
		     err);
		answered = atomic_load(&told->answered[i]);
		asked = atomic_load(&told->asked[i]);
		if (!page_is(page, answered) && !page_is(page, asked) &&
		    !page_is(page, told->asked_before[i]))
			ck_abort_msg("round %u: page %u has %u, %u was "
				     "answered, %u asked for",
				     round, i, page[0], answered, asked);
		/* What he finds is what he goes on with. */
		answered = page[0];
		atomic_store(&told->answered[i], answered);
		atomic_store(&told->asked[i], answered);
		told->asked_before[i] = answered;
	}
}

static void kill_one(unsigned int round)
{
	unsigned int answers = atomic_load(&told->answers);
	unsigned int last = answers + 1 + round * 7919 % 100;
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (!pid)
		serve_guests(round + 1);
	while (atomic_load(&told->answers) < last) {
		ck_assert_msg(!waitpid(pid, &status, WNOHANG),
			      "the guest ended with %d", WEXITSTATUS(status));
		usleep(200);
	}
	kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFSIGNALED(status), "the guest ended with %d",
		      WEXITSTATUS(status));
}

START_TEST(a_killed_process_takes_no_answer_along)
{
	unsigned int kills = unit_rounds(25), i, page;

	told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(told, MAP_FAILED);
	make();
	for (i = 0; i < kills; i++) {
		kill_one(i);
		is_sound(UINT64_MAX);
		/* Sometimes twice before anybody looks. */
		if (i % 3 == 2) {
			for (page = 0; page < DISK_PAGES; page++)
				told->asked_before[page] =
					atomic_load(&told->asked[page]);
			continue;
		}
		must(try_open(false), err);
		compare(i);
		overlay_unref(TAKE_PTR(ov));
		is_sound(0);
		ck_assert_int_ne(access(log_file(), F_OK), 0);
	}
	ck_assert_uint_gt(atomic_load(&told->answers), kills);
	done();
	munmap(told, sizeof(*told));
}
END_TEST

/* ---- what a log is worth ---- */

static void write_pages(uint32_t number, uint32_t first, uint32_t n,
			bool durable)
{
	uint32_t page[PAGE / sizeof(uint32_t)], i;

	fill_page(page, number);
	for (i = 0; i < n; i++)
		must(overlay_write(ov, page, PAGE, (uint64_t)(first + i) * PAGE,
				   durable, &err),
		     err);
}

static void has(uint32_t number, uint32_t first)
{
	uint32_t page[PAGE / sizeof(uint32_t)];

	must(overlay_read(ov, page, PAGE, (uint64_t)first * PAGE, &err), err);
	ck_assert_uint_eq(page[0], number);
	ck_assert(page_is(page, number));
}

/* 1 is flushed, in page 0; 2 is answered, in pages 64 to 164 of others. */
static int answer_and_die(void *opaque)
{
	must(try_open(false), err);
	write_pages(1, 0, 1, true);
	write_pages(2, 64, 100, false);
	_exit(0);
}

static void leave_open(void)
{
	make();
	unit_in_child(answer_and_die, NULL);
	ck_assert_int_eq(access(log_file(), F_OK), 0);
}

static void is_refused(const char *says)
{
	ck_assert_int_eq(try_open(false), -EIO);
	unit_says(&err, says);
	/* And it stays so. */
	ck_assert_int_eq(try_open(false), -EIO);
	must(try_open(true), err);
	has(1, 0);
	has(0, 64);
	write_pages(3, 64, 1, false);
	done();
}

START_TEST(a_log_is_done_again_and_gone)
{
	leave_open();
	must(try_open(false), err);
	has(1, 0);
	has(2, 64);
	has(2, 163);
	has(0, 164);
	ck_assert_int_ne(access(log_file(), F_OK), 0);
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	done();
}
END_TEST

START_TEST(a_lost_log_is_refused)
{
	leave_open();
	unlink(log_file());
	is_refused("its log is not there");
}
END_TEST

/* A file that is moved does not find it. */
START_TEST(a_log_that_stayed_behind_is_refused)
{
	leave_open();
	ck_assert_int_eq(rename(log_file(), unit_path("other")), 0);
	ck_assert_int_eq(try_open(false), -EIO);
	ck_assert_int_eq(rename(unit_path("other"), log_file()), 0);
	must(try_open(false), err);
	has(2, 100);
	done();
}
END_TEST

static const struct {
	off_t at;
	const char *says;
} damage[] = {
	{ 3, "its log is damaged" }, /* magic */
	{ 50, "its log is damaged" }, /* head */
	{ 4096 + 8, "its log is damaged" }, /* the first record of a half */
	{ 4096 + (1 << 30) + 32 * 7 + 9, "its log is damaged" },
	{ 4096 + (1 << 30) + 24, "its log is damaged" }, /* a generation */
};

START_TEST(a_damaged_log_is_refused)
{
	uint8_t byte;
	int fd;

	leave_open();
	fd = open(log_file(), O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(pread(fd, &byte, 1, damage[_i].at), 1);
	byte ^= 1;
	ck_assert_int_eq(pwrite(fd, &byte, 1, damage[_i].at), 1);
	close(fd);
	is_refused(damage[_i].says);
}
END_TEST

static const off_t lengths[] = { 0,	4096,	 8192,
				 12288, 1000000, 4096 + (1 << 30) + 32 };

START_TEST(a_log_that_was_cut_is_refused)
{
	leave_open();
	ck_assert_int_eq(truncate(log_file(), lengths[_i]), 0);
	is_refused("its log is damaged");
}
END_TEST

/* What was flushed, and what was not, are in two halves: either is missed. */
START_TEST(a_log_without_its_records_is_refused)
{
	static const uint8_t none[4096];
	int fd;

	leave_open();
	fd = open(log_file(), O_RDWR | O_CLOEXEC);
	if (_i != 1)
		ck_assert_int_eq(pwrite(fd, none, 4096, 4096), 4096);
	if (_i != 0)
		ck_assert_int_eq(pwrite(fd, none, 4096, 4096 + (1 << 30)),
				 4096);
	close(fd);
	is_refused("its log is damaged");
}
END_TEST

START_TEST(a_log_of_another_file_is_refused)
{
	leave_open();
	ck_assert_int_eq(rename(log_file(), unit_path("other")), 0);
	ck_assert_int_eq(rename(top(), unit_path("top.kept")), 0);
	image_unref(TAKE_PTR(base));
	leave_open();
	ck_assert_int_eq(rename(unit_path("other"), log_file()), 0);
	is_refused("another file");
	unlink(unit_path("top.kept"));
}
END_TEST

/* As a writer does who knows nothing of it. */
START_TEST(a_log_of_a_file_that_was_written_since_is_refused)
{
	uint64_t none = 0;
	int fd;

	leave_open();
	fd = open(top(), O_RDWR | O_CLOEXEC);
	/* Incompatible features: extended L2 entries, not dirty. */
	none = htobe64(1 << 4);
	ck_assert_int_eq(pwrite(fd, &none, sizeof(none), 72), sizeof(none));
	close(fd);
	is_refused("written it since");
}
END_TEST

START_TEST(after_a_power_cut_it_means_nothing)
{
	static const uint8_t other[BOOT_ID_BYTES] = { 1, 2, 3 };

	leave_open();
	boot_id_fake(other);
	must(try_open(false), err);
	has(1, 0);
	has(0, 64);
	ck_assert_int_ne(access(log_file(), F_OK), 0);
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	boot_id_fake(NULL);
	done();
}
END_TEST

START_TEST(who_only_reads_is_refused_until_it_is_closed)
{
	struct open_options options = { .format = "qcow2" };
	struct image *image;

	leave_open();
	ck_assert_int_eq(image_open(top(), &options, &image, &err), -EBUSY);
	unit_says(&err, "was left open by a server that died");
	error_clear(&err);
	options.share = true;
	must(image_open(top(), &options, &image, &err), err);
	image_unref(image);
	must(try_open(false), err);
	overlay_unref(TAKE_PTR(ov));
	options.share = false;
	must(image_open(top(), &options, &image, &err), err);
	image_unref(image);
	done();
}
END_TEST

/* A file that the user has by that name is not ours to write. */
START_TEST(a_file_in_the_way_stays)
{
	uint32_t page[PAGE / sizeof(uint32_t)] = { 0 };
	struct stat st;

	make();
	unit_write(log_file(), "mine", 4);
	must(try_open(false), err);
	ck_assert_int_eq(overlay_write(ov, page, PAGE, 0, false, &err),
			 -EEXIST);
	unit_says(&err, "platter-log");
	error_clear(&err);
	overlay_unref(TAKE_PTR(ov));
	ck_assert_int_eq(stat(log_file(), &st), 0);
	ck_assert_int_eq(st.st_size, 4);
	done();
}
END_TEST

/* ---- what is in flight ---- */

/* Of the process @pid, the descriptor by which it writes the overlay. */
static int steal_descriptor(pid_t pid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), fd, ret = -1;
	char link[64], path[4096];
	ssize_t n;

	ck_assert_int_ge(pidfd, 0);
	for (fd = 3; fd < 64 && ret < 0; fd++) {
		snprintf(link, sizeof(link), "/proc/%d/fd/%d", pid, fd);
		n = readlink(link, path, sizeof(path) - 1);
		path[n > 0 ? n : 0] = '\0';
		if (n <= 0 || !strstr(path, "top.qcow2") ||
		    strstr(path, "platter-log"))
			continue;
		ret = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
		if (ret >= 0 && (fcntl(ret, F_GETFL) & O_ACCMODE) != O_RDWR) {
			close(ret);
			ret = -1;
		}
	}
	close(pidfd);
	return ret;
}

static void __attribute__((noreturn)) answer_and_wait(int ready)
{
	must(try_open(false), err);
	write_pages(2, 64, 100, false);
	ck_assert_int_eq(write(ready, ".", 1), 1);
	for (;;)
		pause();
}

static atomic_int opened; /* 1: not yet; else what try_open() gave */

static void *open_next(void *opaque)
{
	atomic_store(&opened, try_open(false));
	return NULL;
}

/*
 * A write that the kernel has not done with keeps its file open, as we do here,
 * and with that the lock: it must not land after what the next one writes.
 */
START_TEST(the_next_one_waits_for_what_is_in_flight)
{
	int ready[2], fd, i;
	pthread_t t;
	pid_t pid;
	char c;

	make();
	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	if (!pid)
		answer_and_wait(ready[1]);
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	fd = steal_descriptor(pid);
	ck_assert_int_ge(fd, 0);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	atomic_store(&opened, 1);
	pthread_create(&t, NULL, open_next, NULL);
	/* Longer than somebody alive is waited for. */
	for (i = 0; i < 100 && atomic_load(&opened) == 1; i++)
		usleep(10000);
	ck_assert_int_eq(atomic_load(&opened), 1);
	close(fd);
	pthread_join(t, NULL);
	must(atomic_load(&opened), err);
	has(2, 100);
	close(ready[0]);
	close(ready[1]);
	done();
}
END_TEST

/* ---- flushes ---- */

/* Fails what the test says of those that are due. */
struct failing {
	struct write_watcher w;
	enum write_op op;
	bool fails;
	unsigned int seen;
};

static int before(struct write_watcher *w, const struct write_event *e)
{
	struct failing *f = container_of(w, struct failing, w);

	if (e->op != f->op)
		return 0;
	f->seen++;
	return f->fails ? -EIO : 0;
}

static void after(struct write_watcher *w, const struct write_event *e,
		  int code)
{
}

static int fail_to_flush_and_die(void *opaque)
{
	struct failing f = { { before, after }, WRITE_SYNC, false, 0 };

	must(try_open(false), err);
	write_pages(1, 0, 1, true);
	write_pages(2, 64, 100, false);
	write_watch(&f.w);
	f.fails = true;
	ck_assert_int_eq(overlay_flush(ov, &err), -EIO);
	_exit(0);
}

/* Whether the disk has it, nobody knows: what it has is what counts. */
START_TEST(after_a_failed_sync_the_file_is_synced_and_nothing_done_again)
{
	struct failing f = { { before, after }, WRITE_SYNC, true, 0 };

	make();
	unit_in_child(fail_to_flush_and_die, NULL);
	write_watch(&f.w);
	ck_assert_int_eq(try_open(false), -EIO);
	ck_assert_uint_eq(f.seen, 1);
	f.fails = false;
	must(try_open(false), err);
	write_watch(NULL);
	has(1, 0);
	has(0, 64);
	write_pages(3, 300, 1, false);
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	ck_assert_int_ne(access(log_file(), F_OK), 0);
	/* And the next log is one that counts. */
	unit_in_child(fail_to_flush_and_die, NULL);
	unit_in_child(answer_and_die, NULL);
	must(try_open(false), err);
	has(2, 100);
	has(3, 300);
	done();
}
END_TEST

/* Many turns, and halves that are done with when they are written over. */
static int turn_and_die(void *opaque)
{
	unsigned int i;

	must(try_open(false), err);
	for (i = 1; i <= 9; i++) {
		write_pages(i, 100 * (i % 3), 50 + i, false);
		if (i % 4 != 3)
			must(overlay_flush(ov, &err), err);
	}
	must(overlay_zero(ov, 0, 10 * PAGE, OVERLAY_MAY_TRIM, &err), err);
	_exit(0);
}

START_TEST(turns_are_done_again_in_their_order)
{
	make();
	unit_in_child(turn_and_die, NULL);
	must(try_open(false), err);
	has(0, 9);
	has(9, 10);
	has(9, 58);
	has(7, 100);
	has(8, 257);
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	done();
}
END_TEST

/* One that nobody flushes is flushed when its log is long enough. */
START_TEST(a_long_log_is_flushed)
{
	uint32_t page[PAGE / sizeof(uint32_t)];
	struct failing f = { { before, after }, WRITE_SYNC, false, 0 };
	struct stat st;
	unsigned int i;

	make();
	must(try_open(false), err);
	fill_page(page, 1);
	write_watch(&f.w);
	for (i = 0; i < 200000 && f.seen < 3; i++)
		must(i % 2 ? overlay_zero(ov, 0, PAGE, OVERLAY_MAY_TRIM, &err)
			   : overlay_write(ov, page, PAGE, 0, false, &err),
		     err);
	write_watch(NULL);
	ck_assert_uint_ge(f.seen, 3);
	ck_assert_int_eq(stat(log_file(), &st), 0);
	ck_assert_int_le(st.st_blocks * 512, 5 << 20);
	overlay_unref(TAKE_PTR(ov));
	is_sound(0);
	done();
}
END_TEST

/* ---- temporary ones ---- */

static struct overlay_kept kept;

static int open_kept(void)
{
	struct overlay_options options = { .log = true, .kept = &kept };

	return overlay_open_temp(unit_path("."), base, &options, &ov, &err);
}

static int answer_in_memory_and_die(void *opaque)
{
	unsigned int *n = opaque;

	must(open_kept(), err);
	if (*n)
		has(*n, 64);
	write_pages(*n + 1, 64, 100, false);
	write_pages(7, 600, 1, *n == 2);
	_exit(0);
}

START_TEST(a_temporary_one_that_is_kept_outlives_the_process)
{
	unsigned int i;

	make();
	kept.fd = open(unit_path("k"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	kept.log_fd = open(unit_path("l"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	for (i = 0; i < 5; i++)
		unit_in_child(answer_in_memory_and_die, &i);
	must(open_kept(), err);
	has(5, 64);
	has(5, 163);
	has(7, 600);
	has(0, 0);
	close(kept.fd);
	close(kept.log_fd);
	unlink(unit_path("k"));
	unlink(unit_path("l"));
	done();
}
END_TEST

static void add(TCase *tc)
{
	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, a_log_is_done_again_and_gone);
	tcase_add_test(tc, a_lost_log_is_refused);
	tcase_add_test(tc, a_log_that_stayed_behind_is_refused);
	LOOP(tc, a_damaged_log_is_refused, damage);
	LOOP(tc, a_log_that_was_cut_is_refused, lengths);
	tcase_add_loop_test(tc, a_log_without_its_records_is_refused, 0, 3);
	tcase_add_test(tc, a_log_of_another_file_is_refused);
	tcase_add_test(tc, a_log_of_a_file_that_was_written_since_is_refused);
	tcase_add_test(tc, after_a_power_cut_it_means_nothing);
	tcase_add_test(tc, who_only_reads_is_refused_until_it_is_closed);
	tcase_add_test(tc, a_file_in_the_way_stays);
	tcase_add_test(tc, the_next_one_waits_for_what_is_in_flight);
	tcase_add_test(
		tc,
		after_a_failed_sync_the_file_is_synced_and_nothing_done_again);
	tcase_add_test(tc, turns_are_done_again_in_their_order);
	tcase_add_test(tc, a_long_log_is_flushed);
	tcase_add_test(tc, a_temporary_one_that_is_kept_outlives_the_process);
	tcase_add_test(tc, a_killed_process_takes_no_answer_along);
}

int main(void)
{
	return unit_main("qcow2-log", add);
}
