/* SPDX-License-Identifier: BSD-3-Clause */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "iouring/batch.h"
#include "iouring/sources/disk-cache.h"
#include "iouring/sources/kept-file.h"
#include "iouring/write.h"
#include "tests/lib/delay-source.h"
#include "tests/lib/unit.h"

#define CHUNK	  KEPT_CHUNK_BYTES
#define CHUNKS	  24U
#define BYTES	  (CHUNKS * CHUNK - 1000)
#define EVENT_SEC 30U

static uint8_t *data;
static char folder[256], said[4096];
static pthread_mutex_t said_lock = PTHREAD_MUTEX_INITIALIZER;
static struct error err;

static void say(const char *line)
{
	pthread_mutex_lock(&said_lock);
	snprintf(said + strlen(said), sizeof(said) - strlen(said), "%s\n",
		 line);
	pthread_mutex_unlock(&said_lock);
}

static void start(uint64_t bytes)
{
	if (!data) {
		data = malloc(BYTES);
		ck_assert_ptr_nonnull(data);
		unit_fill(data, BYTES, 1);
	}
	snprintf(folder, sizeof(folder), "%s", unit_path("cache-%d", getpid()));
	said[0] = '\0';
	must(disk_cache_configure(folder, bytes, say, &err), err);
}

/* *@ret_far: what is behind the cache, as long as that lives. */
static struct source *open_version(const char *version,
				   struct delay_source **ret_far)
{
	struct delay_source *d = delay_source_new(data, BYTES, 1);
	struct source *s = &d->base;

	d->name = "http://h/x";
	d->version = version;
	disk_cache_over(&s);
	*ret_far = d;
	return s;
}

static void check(struct source *s, uint64_t off, size_t len)
{
	uint8_t *buf = malloc(len);

	ck_assert_ptr_nonnull(buf);
	must(source_read(s, buf, len, off, &err), err);
	ck_assert_msg(!memcmp(buf, data + off, len), "other bytes at %llu",
		      (unsigned long long)off);
	free(buf);
}

/* The path of the one object's file. */
static const char *file_path(const char *end)
{
	const struct source_identity id = { .kind = SOURCE_OBJECT,
					    .name = "http://h/x",
					    .version = "\"1\"",
					    .bytes = BYTES };
	char name[KEPT_NAME_BYTES];

	kept_name(&id, name);
	return unit_path("%s/objects/%s.%s", strrchr(folder, '/') + 1, name,
			 end);
}

START_TEST(what_was_read_once_is_on_the_disk)
{
	struct delay_source *far;
	struct source *s;
	unsigned int i, reads;

	start(1ULL << 30);
	s = open_version("\"1\"", &far);
	ck_assert_ptr_ne(s, &far->base);
	ck_assert_uint_eq(s->bytes, BYTES);
	for (i = 0; i < 3; i++) {
		check(s, CHUNK - 5, 10);
		check(s, BYTES - 1, 1);
		check(s, 4 * CHUNK, 3 * CHUNK);
	}
	reads = atomic_load(&far->reads);
	ck_assert_uint_eq(reads, 2 + 1 + 3);
	source_unref(s);
	s = open_version("\"1\"", &far);
	check(s, 0, 7);
	check(s, 4 * CHUNK, 3 * CHUNK);
	ck_assert_uint_eq(atomic_load(&far->reads), 0);
	check(s, 0, BYTES);
	check(s, 0, BYTES);
	ck_assert_uint_eq(atomic_load(&far->reads), CHUNKS - 6);
	source_unref(s);
	ck_assert_str_eq(said, "");
}
END_TEST

START_TEST(what_will_be_read_can_be_fetched_before)
{
	struct delay_source *far;
	struct source *s;

	start(1ULL << 30);
	s = open_version("\"1\"", &far);
	check(s, 2 * CHUNK, 10);
	source_prefetch(s, CHUNK + 5, 3 * CHUNK);
	source_prefetch(s, CHUNK + 5, 3 * CHUNK);
	source_prefetch(s, BYTES - 1, 1);
	source_prefetch(s, 0, 0);
	ck_assert_uint_eq(atomic_load(&far->reads), 5);
	check(s, CHUNK, 4 * CHUNK);
	ck_assert_uint_eq(atomic_load(&far->reads), 5);
	far->bad_end = BYTES;
	far->bad_code = -EIO;
	source_prefetch(s, 10 * CHUNK, 5 * CHUNK);
	far->bad_end = 0;
	check(s, 10 * CHUNK, 5 * CHUNK);
	source_unref(s);
}
END_TEST

START_TEST(another_version_is_another_object)
{
	struct delay_source *far;
	struct source *s;

	start(1ULL << 30);
	s = open_version("\"1\"", &far);
	check(s, 0, 10);
	source_unref(s);
	data[3] ^= 1;
	s = open_version("\"2\"", &far);
	check(s, 0, 10);
	source_unref(s);
	data[3] ^= 1;
	s = open_version("\"1\"", &far);
	check(s, 0, 10);
	ck_assert_uint_eq(atomic_load(&far->reads), 0);
	source_unref(s);
}
END_TEST

START_TEST(what_cannot_be_told_apart_is_not_kept)
{
	struct delay_source *far;
	struct source *s;

	start(1ULL << 30);
	s = open_version(NULL, &far);
	ck_assert_ptr_eq(s, &far->base);
	source_unref(s);
}
END_TEST

START_TEST(a_batch_misses_in_one_round_trip)
{
	struct delay_source *far;
	struct source *s;
	struct batch_io ios[CHUNKS];
	uint8_t buf[CHUNKS][16];
	unsigned int i;

	start(1ULL << 30);
	s = open_version("\"1\"", &far);
	far->delay_nsec = 50000000;
	check(s, 5 * CHUNK, 1);
	atomic_store(&far->waits, 0);
	for (i = 0; i < CHUNKS; i++)
		ios[i] = (struct batch_io){ .src = s,
					    .off = (CHUNKS - 1 - i) * CHUNK,
					    .buf = buf[i],
					    .len = 16 };
	ck_assert_int_eq(batch_run(ios, CHUNKS), 0);
	for (i = 0; i < CHUNKS; i++)
		ck_assert(!memcmp(buf[i], data + (CHUNKS - 1 - i) * CHUNK, 16));
	ck_assert_uint_le(atomic_load(&far->waits), 2);
	ck_assert_uint_eq(atomic_load(&far->reads), CHUNKS);
	source_unref(s);
}
END_TEST

static struct source *shared;

static void read_all_of_it(unsigned int number)
{
	unsigned int i;

	for (i = 0; i < CHUNKS; i++)
		check(shared, (i + number) % CHUNKS * CHUNK + number, 5000);
}

START_TEST(a_chunk_is_fetched_once_however_many_ask)
{
	struct delay_source *far, *other;
	struct source *s;

	start(1ULL << 30);
	shared = open_version("\"1\"", &far);
	s = open_version("\"1\"", &other); /* by two exports */
	unit_threads(8, read_all_of_it);
	check(s, 0, BYTES);
	ck_assert_uint_eq(atomic_load(&far->reads), CHUNKS);
	ck_assert_uint_eq(atomic_load(&other->reads), 0);
	source_unref(s);
	source_unref(shared);
}
END_TEST

START_TEST(errors_are_those_of_the_range)
{
	struct delay_source *far;
	struct source *s;
	uint8_t byte;

	start(1ULL << 30);
	s = open_version("\"1\"", &far);
	far->bad_off = 3 * CHUNK + 9;
	far->bad_end = 3 * CHUNK + 10;
	far->bad_code = -EIO;
	far->bad_late = true;
	ck_assert_int_eq(source_read(s, &byte, 1, 3 * CHUNK, &err), -EIO);
	error_clear(&err);
	check(s, 2 * CHUNK, CHUNK);
	check(s, 4 * CHUNK, CHUNK);
	far->bad_end = 0;
	check(s, 3 * CHUNK, CHUNK);
	source_unref(s);
}
END_TEST

/* Of the map and the data, at the time when nobody has them open. */
static void spoil(unsigned int how)
{
	const char *map = file_path("map"), *dat = file_path("data");
	const char *other = unit_path("other");
	int fd = open(map, O_RDWR);
	uint8_t byte = 0x55;

	ck_assert_int_ge(fd, 0);
	switch (how) {
	case 0: /* bits that nobody set */
		ck_assert_int_eq(pwrite(fd, &byte, 1, 4096), 1);
		break;
	case 1: /* another header */
		ck_assert_int_eq(pwrite(fd, &byte, 1, 17), 1);
		break;
	case 2:
		ck_assert_int_eq(ftruncate(fd, 5000), 0);
		break;
	case 3:
		ck_assert_int_eq(ftruncate(fd, 100), 0);
		break;
	case 4:
		ck_assert_int_eq(truncate(dat, BYTES - 1), 0);
		break;
	case 5:
		ck_assert_int_eq(unlink(dat), 0);
		break;
	case 6: /* links, to what is not to be written */
		unit_write(other, "safe", 4);
		ck_assert_int_eq(unlink(map), 0);
		ck_assert_int_eq(symlink(other, map), 0);
		break;
	case 7:
		unit_write(other, "safe", 4);
		ck_assert_int_eq(unlink(map), 0);
		ck_assert_int_eq(link(other, map), 0);
		break;
	case 8:
		unit_write(other, "safe", 4);
		ck_assert_int_eq(unlink(dat), 0);
		ck_assert_int_eq(symlink(other, dat), 0);
		break;
	case 9: /* that others can write */
		ck_assert_int_eq(chmod(map, 0666), 0);
		break;
	case 10:
		ck_assert_int_eq(unlink(map), 0);
		ck_assert_int_eq(mkfifo(map, 0600), 0);
		break;
	}
	close(fd);
}

START_TEST(what_is_not_as_it_should_be_is_fetched_anew)
{
	struct delay_source *far;
	struct source *s;
	char safe[5] = "";
	int fd;

	start(1ULL << 30);
	s = open_version("\"1\"", &far);
	check(s, 0, 2 * CHUNK);
	source_unref(s);
	/* What would be served if it were taken for right. */
	fd = open(file_path("data"), O_RDWR);
	ck_assert_int_eq(pwrite(fd, "wrong", 5, 0), 5);
	close(fd);
	spoil((unsigned int)_i);
	s = open_version("\"1\"", &far);
	check(s, 0, 2 * CHUNK);
	ck_assert_uint_eq(atomic_load(&far->reads), 2);
	source_unref(s);
	if (_i >= 6 && _i <= 8) {
		fd = open(unit_path("other"), O_RDONLY);
		ck_assert_int_eq(read(fd, safe, 4), 4);
		ck_assert_str_eq(safe, "safe");
		close(fd);
	}
	s = open_version("\"1\"", &far);
	check(s, 0, 2 * CHUNK);
	ck_assert_uint_eq(atomic_load(&far->reads), 0);
	source_unref(s);
}
END_TEST

static bool was_said(const char *part)
{
	bool was;

	pthread_mutex_lock(&said_lock);
	was = strstr(said, part);
	pthread_mutex_unlock(&said_lock);
	return was;
}

START_TEST(what_another_process_keeps_is_read_without)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	uint64_t end = now_nsec() + EVENT_SEC * 1000000000ULL;
	struct delay_source *far;
	struct source *s;
	unsigned int reads;
	int fd;

	start(1ULL << 30);
	s = open_version("\"1\"", &far);
	check(s, 0, CHUNK);
	source_unref(s);
	fd = open(file_path("map"), O_RDWR);
	ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &l), 0);
	s = open_version("\"1\"", &far);
	ck_assert(was_said("another process keeps copies of http://h/x"));
	check(s, 0, BYTES);
	check(s, 0, 10);
	ck_assert_uint_eq(atomic_load(&far->reads), 2);
	/* Until that one ends. */
	close(fd);
	do {
		ck_assert(now_nsec() < end);
		usleep(10000);
		reads = atomic_load(&far->reads);
		check(s, 0, 10);
	} while (atomic_load(&far->reads) != reads);
	source_unref(s);
}
END_TEST

/* ---- what reaches the disk, and in which order ---- */

/* Times are counts of events. */
static struct {
	pthread_mutex_t lock;
	unsigned int now;
	struct source *data;
	unsigned int written[CHUNKS]; /* when a chunk was written last */
	unsigned int began, synced; /* the data's last sync, and the one that is
				       under way */
	uint64_t on_disk, in_map; /* bits: synced, written */
	unsigned int wrong, punched;
	int code; /* of what is to fail, where fails is of it */
	enum write_op fails;
	atomic_bool fail;
} disk = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool is_map(const struct write_event *e)
{
	struct stat st;

	return !fstat(source_file(e->src)->fd, &st) && st.st_size != BYTES;
}

static int before(struct write_watcher *w, const struct write_event *e)
{
	uint64_t bits;
	unsigned int i;

	pthread_mutex_lock(&disk.lock);
	disk.now++;
	if (e->op == WRITE_SYNC && !is_map(e))
		disk.began = disk.now;
	if (e->op == WRITE_DATA && is_map(e) && e->off) {
		memcpy(&bits, e->buf, 8);
		disk.in_map = le64toh(bits);
		for (i = 0; i < CHUNKS; i++)
			if (disk.in_map >> i & 1 &&
			    (!disk.written[i] || disk.written[i] > disk.synced))
				disk.wrong++;
	}
	if (e->op == WRITE_PUNCH) {
		disk.punched++;
		disk.wrong += disk.on_disk >> e->off / CHUNK & 1;
	}
	pthread_mutex_unlock(&disk.lock);
	return atomic_load(&disk.fail) && e->op == disk.fails ? disk.code : 0;
}

static void after(struct write_watcher *w, const struct write_event *e,
		  int code)
{
	pthread_mutex_lock(&disk.lock);
	disk.now++;
	if (!code && e->op == WRITE_SYNC && !is_map(e))
		disk.synced = disk.began;
	if (!code && e->op == WRITE_SYNC && is_map(e))
		disk.on_disk = disk.in_map;
	if (!code && e->op == WRITE_DATA && !is_map(e))
		disk.written[e->off / CHUNK] = disk.now;
	pthread_mutex_unlock(&disk.lock);
}

static struct write_watcher watcher = { before, after };

START_TEST(bits_reach_the_disk_after_their_data)
{
	uint64_t end = now_nsec() + EVENT_SEC * 1000000000ULL;
	struct disk_cache_counts counts;
	struct delay_source *far;
	struct source *s;
	unsigned int i;

	/* Little, so that chunks are taken away and come again. */
	start(8 * CHUNK);
	write_watch(&watcher);
	shared = s = open_version("\"1\"", &far);
	do {
		unit_threads(4, read_all_of_it);
		disk_cache_count(&counts);
		ck_assert(now_nsec() < end);
	} while (counts.evicted_bytes < 2 * BYTES);
	source_unref(s);
	write_watch(NULL);
	ck_assert_uint_eq(disk.wrong, 0);
	ck_assert_uint_gt(disk.punched, 0);
	ck_assert_uint_ne(disk.on_disk, 0);
	/* And what it says is so. */
	start(1ULL << 30);
	s = open_version("\"1\"", &far);
	for (i = 0; i < CHUNKS; i++)
		check(s, i * CHUNK, 100);
	ck_assert_uint_eq(
		atomic_load(&far->reads),
		CHUNKS - (unsigned int)__builtin_popcountll(disk.on_disk));
	source_unref(s);
	ck_assert_str_eq(said, "");
}
END_TEST

static const struct {
	enum write_op op;
	int code;
	const char *says; /* NULL: nothing */
} failures[] = {
	{ WRITE_DATA, -ENOSPC, NULL },
	{ WRITE_SYNC, -EIO, "nothing more of http://h/x is kept there" },
};

START_TEST(a_disk_that_fails_fails_no_read)
{
	struct delay_source *far;
	struct source *s;

	start(1ULL << 30);
	disk.fails = failures[_i].op;
	disk.code = failures[_i].code;
	write_watch(&watcher);
	s = open_version("\"1\"", &far);
	check(s, 0, CHUNK);
	atomic_store(&disk.fail, true);
	check(s, 0, BYTES);
	check(s, 0, BYTES);
	source_unref(s);
	write_watch(NULL);
	atomic_store(&disk.fail, false);
	ck_assert_int_eq(was_said("kept there"), failures[_i].says != NULL);
	if (failures[_i].says)
		ck_assert(was_said(failures[_i].says));
	/* What may not have reached the disk is not there. */
	s = open_version("\"1\"", &far);
	check(s, 0, BYTES);
	if (failures[_i].op == WRITE_SYNC)
		ck_assert_uint_eq(atomic_load(&far->reads), CHUNKS);
	source_unref(s);
}
END_TEST

START_TEST(objects_that_were_used_longest_ago_go_first)
{
	struct timespec old[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	uint64_t end = now_nsec() + EVENT_SEC * 1000000000ULL;
	struct delay_source *far;
	struct source *s, *more;
	const char *map, *dat;

	start(20 * CHUNK);
	s = open_version("\"1\"", &far);
	check(s, 0, 10 * CHUNK);
	source_unref(s);
	map = file_path("map");
	dat = file_path("data");
	utimensat(AT_FDCWD, map, old, 0);
	s = open_version("\"2\"", &far);
	check(s, 0, 9 * CHUNK);
	source_unref(s);
	more = open_version("\"3\"", &far);
	check(more, 0, 5 * CHUNK);
	while (!access(map, F_OK) || !access(dat, F_OK)) {
		ck_assert(now_nsec() < end);
		usleep(10000);
	}
	source_unref(more);
	s = open_version("\"2\"", &far);
	check(s, 0, 9 * CHUNK);
	ck_assert_uint_eq(atomic_load(&far->reads), 0);
	source_unref(s);
}
END_TEST

static int sum_kept(void *opaque, const struct disk_cache_object *o)
{
	ck_assert_str_eq(o->name, "http://h/x");
	*(uint64_t *)opaque += o->kept_bytes;
	return 0;
}

static void await_kept(uint64_t bytes)
{
	uint64_t end = now_nsec() + EVENT_SEC * 1000000000ULL, kept;

	for (;;) {
		kept = 0;
		disk_cache_each(sum_kept, &kept);
		if (kept == bytes)
			return;
		ck_assert_msg(now_nsec() < end, "%llu bytes are kept",
			      (unsigned long long)kept);
		usleep(1000);
	}
}

START_TEST(what_is_open_is_filled_where_that_is_asked_for)
{
	struct disk_cache_counts n;
	struct delay_source *far;
	struct source *s, *two;
	uint64_t kept = 0;

	start(1ULL << 30);
	disk_cache_fill(DISK_CACHE_FILL_OFF, 0);
	must(disk_cache_start(&err), err);
	s = open_version("\"1\"", &far);
	check(s, 0, 1);
	disk_cache_each(sum_kept, &kept);
	ck_assert_uint_eq(kept, CHUNK);
	ck_assert_uint_eq(disk_cache_want("http://h/y"), 0);
	ck_assert_uint_eq(disk_cache_want("http://h/x"), 1);
	await_kept(BYTES);
	disk_cache_stop();
	ck_assert_uint_eq(atomic_load(&far->reads), CHUNKS);
	disk_cache_count(&n);
	ck_assert_uint_eq(n.behind_bytes, BYTES - CHUNK);
	check(s, 0, BYTES);
	/* Another one who has it open is filled by the same. */
	two = open_version("\"1\"", &far);
	check(two, 0, BYTES);
	ck_assert_uint_eq(atomic_load(&far->reads), 0);
	source_unref(s);
	source_unref(two);
}
END_TEST

START_TEST(what_is_closed_while_it_is_filled_is_closed)
{
	struct delay_source *far;
	unsigned int i;

	start(1ULL << 30);
	disk_cache_fill(DISK_CACHE_FILL_ON, 0);
	must(disk_cache_start(&err), err);
	for (i = 0; i < 50; i++) {
		struct source *s = open_version("\"1\"", &far);

		usleep(i * 100);
		source_unref(s);
	}
	disk_cache_stop();
	disk_cache_fill(DISK_CACHE_FILL_OFF, 0);
	disk_cache_leave(); /* nothing is open */
	ck_assert_str_eq(said, "");
}
END_TEST

START_TEST(a_range_that_fails_is_filled_later)
{
	struct delay_source *far;
	struct source *s;

	start(1ULL << 30);
	s = open_version("\"1\"", &far);
	far->bad_off = 3 * CHUNK;
	far->bad_end = 4 * CHUNK;
	far->bad_code = -EIO;
	disk_cache_fill(DISK_CACHE_FILL_ON, 0);
	must(disk_cache_start(&err), err);
	await_kept(BYTES - CHUNK);
	disk_cache_stop();
	far->bad_end = 0;
	must(disk_cache_start(&err), err);
	await_kept(BYTES);
	disk_cache_stop();
	disk_cache_fill(DISK_CACHE_FILL_OFF, 0);
	check(s, 0, BYTES);
	source_unref(s);
}
END_TEST

struct listed {
	unsigned int n;
	uint64_t kept;
	bool in_use;
};

static int list_entry(void *opaque, const struct disk_cache_entry *e)
{
	struct listed *l = opaque;

	ck_assert_str_eq(e->name, "http://h/x");
	ck_assert_uint_eq(e->bytes, BYTES);
	l->n++;
	l->kept += e->kept_bytes;
	l->in_use |= e->in_use;
	return 0;
}

START_TEST(a_folder_is_told_of_and_emptied)
{
	struct delay_source *far;
	struct source *s;
	struct listed l = { 0 };
	unsigned int busy;

	start(1ULL << 30);
	s = open_version("\"1\"", &far);
	check(s, 0, 2 * CHUNK);
	source_unref(s);
	s = open_version("\"2\"", &far);
	check(s, BYTES - 1, 1);
	source_unref(s);
	unit_write(
		unit_path("%s/objects/%032d.map", strrchr(folder, '/') + 1, 0),
		"none", 4);
	must(disk_cache_list(list_entry, &l, &err), err);
	ck_assert_uint_eq(l.n, 2);
	ck_assert_uint_eq(l.kept, 2 * CHUNK + CHUNK - 1000);
	ck_assert(!l.in_use);
	ck_assert_int_eq(disk_cache_drop("http://h/y", &busy, &err), 0);
	ck_assert_int_eq(disk_cache_drop("http://h/x", &busy, &err), 2);
	ck_assert_int_eq(disk_cache_drop(NULL, &busy, &err), 1);
	ck_assert_uint_eq(busy, 0);
}
END_TEST

START_TEST(a_folder_that_others_may_write_is_refused)
{
	const char *path = unit_path("open");

	ck_assert_int_eq(mkdir(path, 0777), 0);
	ck_assert_int_eq(chmod(path, 0777), 0);
	ck_assert_int_eq(disk_cache_configure(path, 1ULL << 30, say, &err),
			 -EPERM);
	unit_says(&err, "others may write into it");
	error_clear(&err);
	ck_assert_int_eq(chmod(path, 0755), 0);
	ck_assert_int_eq(mkdir(unit_path("open/objects"), 0755), 0);
	ck_assert_int_eq(disk_cache_configure(path, 1ULL << 30, say, &err),
			 -EPERM);
	unit_says(&err, "others may read it");
	error_clear(&err);
	unit_write(unit_path("file"), "x", 1);
	ck_assert_int_eq(
		disk_cache_configure(unit_path("file"), 1ULL << 30, say, &err),
		-ENOTDIR);
	error_clear(&err);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, what_was_read_once_is_on_the_disk);
	tcase_add_test(tc, what_will_be_read_can_be_fetched_before);
	tcase_add_test(tc, another_version_is_another_object);
	tcase_add_test(tc, what_cannot_be_told_apart_is_not_kept);
	tcase_add_test(tc, a_batch_misses_in_one_round_trip);
	tcase_add_test(tc, a_chunk_is_fetched_once_however_many_ask);
	tcase_add_test(tc, errors_are_those_of_the_range);
	tcase_add_loop_test(tc, what_is_not_as_it_should_be_is_fetched_anew, 0,
			    11);
	tcase_add_test(tc, what_another_process_keeps_is_read_without);
	tcase_add_test(tc, bits_reach_the_disk_after_their_data);
	LOOP(tc, a_disk_that_fails_fails_no_read, failures);
	tcase_add_test(tc, objects_that_were_used_longest_ago_go_first);
	tcase_add_test(tc, what_is_open_is_filled_where_that_is_asked_for);
	tcase_add_test(tc, what_is_closed_while_it_is_filled_is_closed);
	tcase_add_test(tc, a_range_that_fails_is_filled_later);
	tcase_add_test(tc, a_folder_is_told_of_and_emptied);
	tcase_add_test(tc, a_folder_that_others_may_write_is_refused);
}

int main(void)
{
	unit_need_openat2();
	return unit_main("disk-cache", add);
}
