/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The engine. Every test runs with io_uring and with preadv; where the kernel
 * does not give us a ring, the former half is preadv again, and says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "iouring/batch.h"
#include "iouring/engine.h"
#include "tests/lib/delay-source.h"
#include "tests/lib/fault-source.h"
#include "tests/lib/ring-faults.h"
#include "tests/lib/unit.h"

#define FILE_BYTES ((1U << 20) + 1234)
#define FILES	   6U
#define IOS	   300U

static const enum engine_mode modes[] = { ENGINE_AUTO, ENGINE_SYNC };

static uint8_t data[FILES][FILE_BYTES];
static struct source *files[FILES];
static struct error err;
static atomic_uint said;
static char last_said[256];

static void say(const char *line)
{
	atomic_fetch_add(&said, 1);
	snprintf(last_said, sizeof(last_said), "%s", line);
}

static struct source *make_file(unsigned int i, unsigned int flags)
{
	const char *path = unit_path("batch-%u", i);
	struct source *s = NULL;

	unit_fill(data[i % FILES], FILE_BYTES, i);
	unit_write(path, data[i % FILES], FILE_BYTES);
	must(file_source_open(path, flags, &s, &err), err);
	return s;
}

static void open_files(enum engine_mode mode, unsigned int flags)
{
	unsigned int i;

	engine_configure(mode, say);
	for (i = 0; i < FILES; i++)
		files[i] = make_file(i, flags);
}

static void close_files(void)
{
	unsigned int i;

	for (i = 0; i < FILES; i++)
		source_unref(files[i]);
}

/* Offsets, lengths and files that look random, the same for a @seed. */
struct reads {
	struct batch_io ios[IOS];
	unsigned int file[IOS];
	size_t n;
	uint8_t *buf;
};

static void reads_make(struct reads *r, size_t n, size_t max, unsigned int seed)
{
	size_t i;

	r->n = n;
	r->buf = malloc(n * (max + 8));
	ck_assert_ptr_nonnull(r->buf);
	memset(r->buf, 0xee, n * (max + 8));
	for (i = 0; i < n; i++) {
		uint32_t v[3];

		unit_fill(v, sizeof(v), seed + (unsigned int)i * 7919);
		r->file[i] = v[0] % FILES;
		r->ios[i] = (struct batch_io){
			.src = files[r->file[i]],
			.off = v[1] % FILE_BYTES,
			.buf = r->buf + i * (max + 8) + v[0] / 7 % 8,
		};
		r->ios[i].len = (size_t)min_u64(v[2] % max + 1,
						FILE_BYTES - r->ios[i].off);
	}
}

static bool reads_equal(const struct reads *r)
{
	size_t i;

	for (i = 0; i < r->n; i++)
		if (r->ios[i].ret ||
		    memcmp(r->ios[i].buf, data[r->file[i]] + r->ios[i].off,
			   r->ios[i].len))
			return false;
	return true;
}

static void reads_done(struct reads *r)
{
	free(r->buf);
}

static void read_and_compare(size_t n, size_t max, unsigned int seed)
{
	struct reads r;

	reads_make(&r, n, max, seed);
	ck_assert_int_eq(batch_run(r.ios, r.n), 0);
	ck_assert(reads_equal(&r));
	reads_done(&r);
}

START_TEST(a_batch_may_be_larger_than_the_ring)
{
	open_files(modes[_i], 0);
	printf("reading with %s\n", engine_name());
	read_and_compare(IOS, 20000, 1);
	read_and_compare(1, 100000, 2);
	read_and_compare(64, 4096, 3);
	read_and_compare(65, 4096, 4);
	ck_assert_int_eq(batch_run(NULL, 0), 0);
	close_files();
}
END_TEST

START_TEST(files_and_other_sources_mix)
{
	static uint8_t bytes[5000], got[3][5000];
	struct fault_source *f = fault_source_new(bytes, sizeof(bytes));
	struct source *m = NULL, *w = NULL;
	struct batch_io ios[3];

	open_files(modes[_i], 0);
	unit_fill(bytes, sizeof(bytes), 5);
	must(memory_source_new(bytes, sizeof(bytes), &m, &err), err);
	must(window_source_new(files[2], 4097, 6000, &w, &err), err);
	f->short_bytes = 37;
	f->fail_call = 3;
	f->fail_calls = 2;
	f->fail_code = _i ? -EINTR : -EAGAIN;
	ios[0] = (struct batch_io){ m, 1, got[0], 4999, 0 };
	ios[1] = (struct batch_io){ w, 1000, got[1], 5000, 0 };
	ios[2] = (struct batch_io){ &f->base, 0, got[2], 5000, 0 };
	ck_assert_int_eq(batch_run(ios, 3), 0);
	ck_assert_mem_eq(got[0], bytes + 1, 4999);
	ck_assert_mem_eq(got[1], data[2] + 5097, 5000);
	ck_assert_mem_eq(got[2], bytes, 5000);
	source_unref(m);
	source_unref(w);
	source_unref(&f->base);
	close_files();
}
END_TEST

START_TEST(a_source_that_fails_or_ends_fails_its_read_alone)
{
	static uint8_t bytes[5000], got[4][5000];
	struct fault_source *f = fault_source_new(bytes, sizeof(bytes));
	struct batch_io ios[4];

	open_files(modes[_i], 0);
	unit_fill(bytes, sizeof(bytes), 6);
	f->bad_off = 1000;
	f->bad_end = 1001;
	f->end_early = 4000;
	ios[0] = (struct batch_io){ &f->base, 0, got[0], 1000, 0 };
	ios[1] = (struct batch_io){ &f->base, 1000, got[1], 10, 0 };
	ios[2] = (struct batch_io){ &f->base, 3999, got[2], 2, 0 };
	ios[3] = (struct batch_io){ files[0], 0, got[3], 5000, 0 };
	ck_assert_int_eq(batch_run(ios, 4), -EIO);
	ck_assert_int_eq(ios[0].ret, 0);
	ck_assert_int_eq(ios[1].ret, -EIO);
	ck_assert_int_eq(ios[2].ret, -EIO);
	ck_assert_int_eq(ios[3].ret, 0);
	ck_assert_mem_eq(got[0], bytes, 1000);
	ck_assert_mem_eq(got[3], data[0], 5000);
	source_unref(&f->base);
	close_files();
}
END_TEST

START_TEST(a_file_that_shrank_is_eio_for_what_is_gone)
{
	static uint8_t got[4][8192];
	struct batch_io ios[4];
	size_t i;

	open_files(modes[_i], 0);
	ck_assert_int_eq(truncate(unit_path("batch-1"), 10000), 0);
	for (i = 0; i < 4; i++)
		ios[i] = (struct batch_io){ files[i == 3 ? 2 : 1], i * 4000,
					    got[i], 4000, 0 };
	ios[1].len = 8000; /* from inside to behind the end */
	ck_assert_int_eq(batch_run(ios, 4), -EIO);
	ck_assert_int_eq(ios[0].ret, 0);
	ck_assert_int_eq(ios[1].ret, -EIO);
	ck_assert_int_eq(ios[2].ret, -EIO);
	ck_assert_int_eq(ios[3].ret, 0);
	ck_assert_mem_eq(got[0], data[1], 4000);
	ck_assert_mem_eq(got[3], data[2] + 12000, 4000);
	/* Alone, it takes another way through the engine. */
	ck_assert_int_eq(batch_run(&ios[1], 1), -EIO);
	ck_assert_int_eq(batch_run(&ios[0], 1), 0);
	close_files();
}
END_TEST

START_TEST(a_read_that_the_kernel_refuses_fails_alone)
{
	static uint8_t got[3][4096];
	struct batch_io ios[3];
	struct source *s = calloc(1, sizeof(*s));
	struct file_source file;
	int fd;

	open_files(modes[_i], 0);
	fd = open(unit_path("batch-0"), O_WRONLY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	source_init(s, files[0]->ops, FILE_BYTES);
	file = (struct file_source){ .fd = fd, .align = 1, .id = s->id };
	s->file = &file;
	ios[0] = (struct batch_io){ files[0], 0, got[0], 4096, 0 };
	ios[1] = (struct batch_io){ s, 0, got[1], 4096, 0 };
	ios[2] = (struct batch_io){ files[1], 0, got[2], 4096, 0 };
	ck_assert_int_eq(batch_run(ios, 3), -EBADF);
	ck_assert_int_eq(ios[0].ret, 0);
	ck_assert_int_eq(ios[1].ret, -EBADF);
	ck_assert_int_eq(ios[2].ret, 0);
	ck_assert_mem_eq(got[0], data[0], 4096);
	ck_assert_mem_eq(got[2], data[1], 4096);
	close(fd);
	free(s);
	close_files();
}
END_TEST

/* Every so many-th read ends so; code 0: with half its bytes. */
static const struct {
	unsigned int every;
	int code;
	unsigned int flags;
	enum engine_mode mode;
} injected[] = {
	{ 3, 0, 0, ENGINE_AUTO },
	{ 3, 0, 0, ENGINE_SYNC },
	{ 2, -EINTR, 0, ENGINE_AUTO },
	{ 2, -EINTR, 0, ENGINE_SYNC },
	{ 2, -EAGAIN, 0, ENGINE_AUTO },
	{ 3, -EAGAIN, 0, ENGINE_SYNC },
	{ 5, 0, FILE_DIRECT, ENGINE_AUTO },
	{ 5, 0, FILE_DIRECT, ENGINE_SYNC },
	{ 2, -EAGAIN, FILE_DIRECT, ENGINE_AUTO },
};

static bool no_direct_here(void)
{
	struct source *s = NULL;
	int r;

	unit_write(unit_path("direct"), "", 0);
	r = file_source_open(unit_path("direct"), FILE_DIRECT, &s, NULL);
	source_unref(s);
	if (r)
		printf("not tested: no O_DIRECT in the temporary folder\n");
	return r;
}

START_TEST(short_and_interrupted_reads_are_continued)
{
	struct reads r;

	if (injected[_i].flags & FILE_DIRECT && no_direct_here())
		return;
	open_files(injected[_i].mode, injected[_i].flags);
	ring_faults.code = injected[_i].code;
	ring_faults.every = injected[_i].every;
	/* A direct read cut at no sector's end cannot be read on: see below. */
	reads_make(&r, 100, injected[_i].flags & FILE_DIRECT ? 200000 : 20000,
		   7);
	batch_run(r.ios, r.n);
	if (injected[_i].flags & FILE_DIRECT && !injected[_i].code) {
		size_t i;

		for (i = 0; i < r.n; i++)
			ck_assert(r.ios[i].ret == -EIO ||
				  !memcmp(r.ios[i].buf,
					  data[r.file[i]] + r.ios[i].off,
					  r.ios[i].len));
	} else {
		ck_assert(reads_equal(&r));
	}
	ck_assert_uint_gt(ring_faults.hits, 10);
	reads_done(&r);
	close_files();
}
END_TEST

START_TEST(an_error_of_the_disk_stays_with_its_read)
{
	struct reads r;
	size_t i, failed = 0;

	open_files(modes[_i], 0);
	reads_make(&r, 200, 9000, 8);
	ring_faults.code = -EIO;
	ring_faults.every = 10;
	ck_assert_int_eq(batch_run(r.ios, r.n), -EIO);
	for (i = 0; i < r.n; i++) {
		if (r.ios[i].ret == -EIO) {
			failed++;
			continue;
		}
		ck_assert_int_eq(r.ios[i].ret, 0);
		ck_assert_mem_eq(r.ios[i].buf, data[r.file[i]] + r.ios[i].off,
				 r.ios[i].len);
	}
	ck_assert_uint_eq(failed, ring_faults.hits);
	ck_assert_uint_ge(failed, 15);
	ring_faults.every = 0;
	read_and_compare(200, 9000, 8);
	reads_done(&r);
	close_files();
}
END_TEST

static const int submit_codes[] = { -EINTR, -EAGAIN, -EBUSY, -EBADR, -ENXIO };

START_TEST(a_submission_that_fails_loses_no_read)
{
	unsigned int call;

	open_files(ENGINE_AUTO, 0);
	for (call = 1; call < 6; call++) {
		ring_faults.submit_code = submit_codes[_i];
		ring_faults.submit_call =
			atomic_load(&ring_faults.submits) + call;
		read_and_compare(IOS, 9000, call);
		read_and_compare(2, 9000, call);
	}
	close_files();
}
END_TEST

START_TEST(o_direct_reads_from_anywhere_to_anywhere)
{
	static const struct {
		uint64_t off;
		size_t len, skew;
	} rows[] = {
		{ 0, 4096, 0 },
		{ 0, 4096, 1 },
		{ 1, 1, 0 },
		{ 511, 2, 3 },
		{ 4095, 4098, 512 },
		{ 12345, 200000, 7 },
		{ 8192, 300000, 0 },
		{ FILE_BYTES - 1, 1, 0 },
		{ FILE_BYTES - 1234, 1234, 0 },
		{ FILE_BYTES - 5000, 5000, 9 },
		{ (1 << 20) - 4096, 4096 + 1234, 0 },
		{ 0, FILE_BYTES, 0 },
		{ 3, FILE_BYTES - 3, 3 },
	};
	struct batch_io ios[ARRAY_SIZE(rows)];
	uint8_t *buf[ARRAY_SIZE(rows)];
	size_t i;

	if (no_direct_here())
		return;
	open_files(modes[_i], FILE_DIRECT);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		ck_assert_int_eq(posix_memalign((void **)&buf[i], 4096,
						rows[i].len + 4096),
				 0);
		memset(buf[i], 0xee, rows[i].len + 4096);
		ios[i] = (struct batch_io){ files[0], rows[i].off,
					    buf[i] + rows[i].skew, rows[i].len,
					    0 };
	}
	ck_assert_int_eq(batch_run(ios, ARRAY_SIZE(rows)), 0);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		ck_assert_mem_eq(ios[i].buf, data[0] + rows[i].off,
				 rows[i].len);
		/* Not a byte more was written. */
		ck_assert_uint_eq(buf[i][rows[i].skew + rows[i].len], 0xee);
		memset(buf[i], 0xee, rows[i].len + 4096);
		ck_assert_int_eq(batch_run(&ios[i], 1), 0);
		ck_assert_mem_eq(ios[i].buf, data[0] + rows[i].off,
				 rows[i].len);
		ck_assert_uint_eq(buf[i][rows[i].skew + rows[i].len], 0xee);
		free(buf[i]);
	}
	read_and_compare(IOS, 70000, 11);
	close_files();
}
END_TEST

static atomic_uint unequal;

static void read_many(unsigned int number)
{
	struct reads r;
	unsigned int i;

	for (i = 0; i < 20; i++) {
		reads_make(&r, 70, 6000, number * 100 + i);
		if (batch_run(r.ios, r.n) || !reads_equal(&r))
			atomic_fetch_add(&unequal, 1);
		reads_done(&r);
	}
}

START_TEST(sixteen_threads_read_at_once)
{
	open_files(modes[_i], 0);
	unit_threads(16, read_many);
	ck_assert_uint_eq(unequal, 0);
	close_files();
}
END_TEST

START_TEST(a_thread_that_ends_frees_its_ring)
{
	unsigned int before, i;

	open_files(ENGINE_AUTO, 0);
	before = unit_open_fds();
	for (i = 0; i < 5; i++) {
		unit_threads(8, read_many);
		ck_assert_uint_eq(unit_open_fds(), before);
	}
	close_files();
}
END_TEST

static int read_in_child(void *opaque)
{
	struct reads r;
	bool ok;

	reads_make(&r, 100, 6000, 21);
	ok = !batch_run(r.ios, r.n) && reads_equal(&r);
	reads_done(&r);
	return !ok;
}

START_TEST(parent_and_child_both_read_on_after_a_fork)
{
	unsigned int i;

	open_files(modes[_i], 0);
	read_and_compare(100, 6000, 20);
	for (i = 0; i < 3; i++) {
		unit_in_child(read_in_child, NULL);
		read_and_compare(100, 6000, 22);
	}
	close_files();
}
END_TEST

/* When the filter comes, and what it denies. */
static const struct {
	bool setup, after_first;
	int code;
} denied[] = {
	{ true, false, EPERM },	 { true, false, ENOSYS },
	{ false, false, EPERM }, { false, false, ENOSYS },
	{ true, true, EPERM },	 { false, true, EPERM },
};

static atomic_uint wrong;

static void read_denied(unsigned int number)
{
	if (read_in_child(NULL))
		atomic_fetch_add(&wrong, 1);
	if (strcmp(engine_name(), "preadv"))
		atomic_fetch_add(&wrong, 1);
}

static int deny_and_read(void *opaque)
{
	int i = *(int *)opaque;

	if (denied[i].after_first && read_in_child(NULL))
		return 1;
	ring_deny(denied[i].setup, denied[i].code);
	if (read_in_child(NULL) || read_in_child(NULL))
		return 2;
	unit_threads(4, read_denied);
	if (wrong)
		return 3;
	if (said != 1 || !strstr(last_said, "io_uring") ||
	    strchr(last_said, '\n'))
		return 4;
	return 0;
}

START_TEST(where_io_uring_is_denied_preadv_reads_the_same_and_it_is_said_once)
{
	open_files(ENGINE_AUTO, 0);
	unit_in_child(deny_and_read, &_i);
	close_files();
}
END_TEST

static int demand_uring(void *opaque)
{
	struct reads r;
	size_t i;
	int bad = 0;

	ring_deny(true, EPERM);
	engine_configure(ENGINE_URING, say);
	if (engine_probe() != -EPERM)
		return 1;
	reads_make(&r, 3, 6000, 23);
	if (batch_run(r.ios, r.n) != -EPERM)
		return 2;
	for (i = 0; i < r.n; i++)
		bad |= r.ios[i].ret != -EPERM;
	/* One that is alone needs no ring. */
	if (batch_run(r.ios, 1))
		return 4;
	reads_done(&r);
	return bad || said ? 3 : 0;
}

START_TEST(who_demands_io_uring_is_told_when_it_is_refused)
{
	open_files(ENGINE_AUTO, 0);
	unit_in_child(demand_uring, NULL);
	close_files();
}
END_TEST

START_TEST(a_file_opened_in_place_of_a_closed_one_reads_right)
{
	unsigned int i;
	int fd = -1;

	open_files(modes[_i], 0);
	for (i = 0; i < 200; i++) {
		unsigned int k = i % FILES;

		source_unref(files[k]);
		files[k] = make_file(i, 0);
		ck_assert(fd < 0 || i % FILES ||
			  source_file(files[k])->fd == fd);
		fd = i % FILES ? fd : source_file(files[k])->fd;
		read_and_compare(10, 5000, i);
	}
	close_files();
}
END_TEST

START_TEST(more_files_than_the_ring_registers_read_right)
{
	enum { N = 150 };
	static uint8_t got[N][16];
	struct source *many[N];
	struct batch_io ios[N];
	unsigned int i;

	engine_configure(modes[_i], say);
	for (i = 0; i < N; i++) {
		uint8_t bytes[16];

		unit_fill(bytes, sizeof(bytes), i);
		unit_write(unit_path("many-%u", i), bytes, sizeof(bytes));
		must(file_source_open(unit_path("many-%u", i), 0, &many[i],
				      &err),
		     err);
		ios[i] = (struct batch_io){ many[i], 0, got[i], 16, 0 };
	}
	ck_assert_int_eq(batch_run(ios, N), 0);
	memset(got, 0, sizeof(got));
	ck_assert_int_eq(batch_run(ios, N), 0);
	for (i = 0; i < N; i++) {
		uint8_t bytes[16];

		unit_fill(bytes, sizeof(bytes), i);
		ck_assert_mem_eq(got[i], bytes, 16);
		source_unref(many[i]);
	}
}
END_TEST

START_TEST(a_direct_read_goes_on_from_an_aligned_place_or_fails)
{
	static uint8_t bounce[BOUNCE_BYTES] __attribute__((aligned(4096)));
	static uint8_t out[40000];
	struct file_source file = { .fd = -1, .align = 4096 };
	struct source s = { .bytes = 1 << 20, .file = &file };
	struct batch_io io = { &s, 5000, out, sizeof(out), 0 };
	struct piece p;

	ck_assert(!piece_cut(&p, &io, 0, NULL));
	ck_assert(piece_cut(&p, &io, 0, bounce));
	ck_assert_uint_eq(p.fd_off, 4096);
	ck_assert_uint_eq(p.skip, 904);
	ck_assert_uint_eq(p.len % 4096, 0);
	ck_assert_int_eq(piece_advance(&p, -EINTR), 0);
	ck_assert_int_eq(piece_advance(&p, -EAGAIN), 0);
	ck_assert_int_eq(piece_advance(&p, 5000), 0);
	ck_assert_uint_eq(p.got, 4096); /* the part of a sector is read again */
	ck_assert_int_eq(piece_advance(&p, 100), -EIO); /* no progress */
	ck_assert(piece_cut(&p, &io, 0, bounce));
	ck_assert_int_eq(piece_advance(&p, 0), -EIO);
	ck_assert_int_eq(piece_advance(&p, -ENODEV), -ENODEV);
}
END_TEST

#define REMOTE	 64U
#define DELAY_MS 20U

static uint8_t remote_data[2][FILE_BYTES];

static struct delay_source *make_remote(unsigned int i)
{
	unit_fill(remote_data[i], FILE_BYTES, 100 + i);
	return delay_source_new(remote_data[i], FILE_BYTES, DELAY_MS);
}

/* Every third read is remote, by way of a window every other time. */
static void mix_in(struct reads *r, struct source *remote, struct source *w)
{
	size_t i, at;

	for (i = 0; i < r->n; i += 3) {
		r->ios[i].src = i % 2 ? w : remote;
		at = (size_t)r->ios[i].off + (i % 2 ? 1000 : 0);
		if (at + r->ios[i].len > FILE_BYTES)
			r->ios[i].off -= 1000 + r->ios[i].len;
	}
}

static bool is_as_it_was(const struct batch_io *io, const uint8_t *bytes)
{
	return !io->ret &&
	       !memcmp(io->buf, bytes + io->src->root_off + io->off, io->len);
}

static bool mixed_equal(const struct reads *r)
{
	size_t i;

	for (i = 0; i < r->n; i++)
		if (!is_as_it_was(&r->ios[i],
				  i % 3 ? data[r->file[i]] : remote_data[0]))
			return false;
	return true;
}

/* How it may be with a source's places. */
static const struct {
	unsigned int places;
	bool busy;
	unsigned int waits; /* for 64 reads */
} remotes[] = {
	{ 0, false, 1 },
	{ 0, true, 1 },
	{ 30, false, 3 },
	{ 30, true, 3 },
};

START_TEST(remote_reads_of_a_batch_cost_one_round_trip)
{
	struct delay_source *d = make_remote(0);
	struct source *w = NULL;
	struct reads r;
	uint64_t began;

	open_files(modes[_i % 2], 0);
	d->places = remotes[_i / 2].places;
	d->busy = remotes[_i / 2].busy;
	must(window_source_new(&d->base, 1000, FILE_BYTES - 1000, &w, &err),
	     err);
	reads_make(&r, 3 * REMOTE, 4096, 31);
	mix_in(&r, &d->base, w);
	began = now_nsec();
	ck_assert_int_eq(batch_run(r.ios, r.n), 0);
	/* One by one they would take 64 times as long. */
	ck_assert_uint_lt(now_nsec() - began,
			  REMOTE / 4 * DELAY_MS * 1000000ULL);
	ck_assert(mixed_equal(&r));
	ck_assert_uint_eq(d->reads, REMOTE);
	ck_assert_uint_le(d->waits, remotes[_i / 2].waits);
	ck_assert_uint_eq(d->in_flight, 0);
	ck_assert_uint_eq(d->in_flight_max, d->places ? d->places : REMOTE);
	reads_done(&r);
	source_unref(w);
	source_unref(&d->base);
	close_files();
}
END_TEST

START_TEST(two_remote_sources_wait_at_the_same_time)
{
	struct delay_source *d[2] = { make_remote(0), make_remote(1) };
	struct batch_io ios[8];
	uint8_t out[8][1000];
	size_t i;

	for (i = 0; i < 8; i++)
		ios[i] = (struct batch_io){ &d[i % 2]->base, i * 5000, out[i],
					    1000 };
	d[0]->delay_nsec *= 10;
	ck_assert_int_eq(batch_run(ios, 8), 0);
	for (i = 0; i < 8; i++)
		ck_assert(is_as_it_was(&ios[i], remote_data[i % 2]));
	ck_assert_uint_le(d[0]->waits, 1);
	ck_assert_uint_eq(d[1]->waits, 0); /* it had all come by then */
	ck_assert_int_eq(batch_run(&ios[1], 1), 0);
	ck_assert_uint_le(d[1]->waits, 1);
	source_unref(&d[0]->base);
	source_unref(&d[1]->base);
}
END_TEST

START_TEST(a_remote_read_that_fails_at_its_start_fails_alone)
{
	struct delay_source *d = make_remote(0);
	struct reads r;
	size_t i, bad = 0;

	open_files(modes[_i], 0);
	d->bad_end = FILE_BYTES / 2;
	d->bad_code = -ENETDOWN;
	reads_make(&r, 3 * REMOTE, 4096, 32);
	mix_in(&r, &d->base, &d->base);
	ck_assert_int_eq(batch_run(r.ios, r.n), -ENETDOWN);
	for (i = 0; i < r.n; i++) {
		bool fails = i % 3 == 0 && r.ios[i].off < d->bad_end;

		if (fails)
			ck_assert_int_eq(r.ios[i].ret, -ENETDOWN);
		else
			ck_assert(is_as_it_was(&r.ios[i],
					       i % 3 ? data[r.file[i]]
						     : remote_data[0]));
		bad += fails;
	}
	ck_assert_uint_gt(bad, 5);
	ck_assert_uint_eq(d->reads, REMOTE - bad);
	ck_assert_uint_eq(d->in_flight, 0);
	reads_done(&r);
	source_unref(&d->base);
	close_files();
}
END_TEST

/* Reads another source, as what decodes one does. */
struct nested {
	struct source base;
	struct source *of;
	struct delay_source *none_of; /* may be in flight */
	unsigned int depth; /* seen */
};

static ssize_t nested_pread(struct source *s, void *buf, size_t len,
			    uint64_t off)
{
	struct nested *n = container_of(s, struct nested, base);
	int r;

	n->depth = batch_depth();
	if (n->none_of->in_flight)
		return -EDEADLK;
	r = source_read(n->of, buf, len, off, NULL);
	return r < 0 ? r : (ssize_t)len;
}

static const struct source_ops nested_ops = {
	.name = "nested",
	.pread = nested_pread,
	.nested = true,
};

START_TEST(nested_sources_are_read_when_nothing_is_in_flight)
{
	struct delay_source *d = make_remote(0);
	struct nested inner = { .of = &d->base, .none_of = d };
	struct nested outer = { .of = &inner.base, .none_of = d };
	struct batch_io ios[5];
	uint8_t out[5][1000];
	size_t i;

	open_files(modes[_i], 0);
	source_init(&inner.base, &nested_ops, FILE_BYTES);
	source_init(&outer.base, &nested_ops, FILE_BYTES);
	for (i = 0; i < 5; i++)
		ios[i] = (struct batch_io){ i == 1   ? files[0]
					    : i == 2 ? &inner.base
					    : i == 0 ? &outer.base
						     : &d->base,
					    i * 7000, out[i], 1000 };
	d->busy = _i; /* also when some of it comes late */
	ck_assert_int_eq(batch_run(ios, 5), 0);
	for (i = 0; i < 5; i++)
		ck_assert(is_as_it_was(&ios[i],
				       i == 1 ? data[0] : remote_data[0]));
	/* The inner one was read last by the batch, then at depth 1. */
	ck_assert_uint_eq(outer.depth, 1);
	ck_assert_uint_eq(inner.depth, 1);
	ck_assert_int_eq(batch_run(ios, 1), 0);
	ck_assert_uint_eq(inner.depth, 2);
	ck_assert_uint_eq(batch_depth(), 0);
	source_unref(&d->base);
	close_files();
}
END_TEST

#define BOTH(tc, test) LOOP(tc, test, modes)

static void add(TCase *tc)
{
	BOTH(tc, a_batch_may_be_larger_than_the_ring);
	BOTH(tc, files_and_other_sources_mix);
	BOTH(tc, a_source_that_fails_or_ends_fails_its_read_alone);
	BOTH(tc, a_file_that_shrank_is_eio_for_what_is_gone);
	BOTH(tc, a_read_that_the_kernel_refuses_fails_alone);
	LOOP(tc, short_and_interrupted_reads_are_continued, injected);
	BOTH(tc, an_error_of_the_disk_stays_with_its_read);
	LOOP(tc, a_submission_that_fails_loses_no_read, submit_codes);
	BOTH(tc, o_direct_reads_from_anywhere_to_anywhere);
	BOTH(tc, sixteen_threads_read_at_once);
	tcase_add_test(tc, a_thread_that_ends_frees_its_ring);
	BOTH(tc, parent_and_child_both_read_on_after_a_fork);
	LOOP(tc,
	     where_io_uring_is_denied_preadv_reads_the_same_and_it_is_said_once,
	     denied);
	tcase_add_test(tc, who_demands_io_uring_is_told_when_it_is_refused);
	BOTH(tc, a_file_opened_in_place_of_a_closed_one_reads_right);
	BOTH(tc, more_files_than_the_ring_registers_read_right);
	tcase_add_loop_test(tc, remote_reads_of_a_batch_cost_one_round_trip, 0,
			    2 * (int)ARRAY_SIZE(remotes));
	tcase_add_test(tc, two_remote_sources_wait_at_the_same_time);
	BOTH(tc, a_remote_read_that_fails_at_its_start_fails_alone);
	BOTH(tc, nested_sources_are_read_when_nothing_is_in_flight);
	tcase_add_test(tc,
		       a_direct_read_goes_on_from_an_aligned_place_or_fails);
}

int main(void)
{
	return unit_main("batch", add);
}
