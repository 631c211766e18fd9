/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "formats/codec/openssl.h"
#include "glance/admit.h"
#include "glance/bury.h"
#include "glance/record-rows.h"
#include "glance/recover.h"
#include "glance/sidecar.h"
#include "glance/tombstone.h"
#include "tests/lib/unit.h"

#define ID    "11111111-1111-4111-8111-111111111111"
#define OTHER "11111111-1111-4111-8111-111111111112"

static struct error err;
static struct store *store;
static const struct glance_config config; /* of one store */
static struct glance g;

static const char *inside(const char *name)
{
	return unit_path("%s/%s", strrchr(store_path(store), '/') + 1, name);
}

static bool is(const char *name)
{
	struct stat st;

	return lstat(inside(name), &st) == 0;
}

static void put(const char *name, const char *text)
{
	unit_write(inside(name), text, strlen(text));
}

static void begin(void)
{
	static unsigned int n;

	must(openssl_load(&err), err);
	must(store_open(unit_path("store-%d-%u", (int)getpid(), n++), &store,
			&err),
	     err);
	mkdir(inside("images/11"), 0700);
	g = (struct glance){ .store = store, .config = &config };
}

static void open_index(void)
{
	must(index_open(store_index_path(store), &g.index, &err), err);
}

static void close_index(void)
{
	index_close(TAKE_PTR(g.index));
}

static void end(void)
{
	recover_end(&g);
	close_index();
	store_close(store);
}

/* ---- data that nobody knows ---- */

static void write_incoming(const char *text, int *ret)
{
	must(store_incoming_open(store, ID, ret, &err), err);
	ck_assert_int_eq(write(*ret, text, strlen(text)), strlen(text));
}

START_TEST(data_that_are_in_the_way_are_put_aside)
{
	int i, fd;

	begin();
	for (i = 0; i < 3; i++) {
		write_incoming("new", &fd);
		must(store_commit(store, STORE_INCOMING, ID, fd, &err), err);
		close(fd);
		put("images/11/" ID ".json", "{}");
	}
	ck_assert(is("lost+found/" ID));
	ck_assert(is("lost+found/" ID ".json"));
	ck_assert(is("lost+found/" ID ".1"));
	ck_assert(is("lost+found/" ID ".1.json"));
	ck_assert_uint_eq(store_lost_found(store), 4);
	write_incoming("new", &fd);
	must(store_stage(store, ID, fd, &err), err);
	write_incoming("new", &fd);
	must(store_stage(store, ID, fd, &err), err);
	ck_assert(is("staging/" ID));
	ck_assert(is("lost+found/" ID ".staged"));
	end();
}
END_TEST

struct seen {
	unsigned int known, strange;
};

static int see(void *opaque, const struct store_entry *e)
{
	struct seen *s = opaque;

	if (e->id)
		s->known++;
	else
		s->strange++;
	return 0;
}

START_TEST(a_name_that_is_no_id_is_none_of_the_stores)
{
	struct seen s = { 0 };

	begin();
	put("images/11/" ID, "x");
	put("images/11/" ID ".json", "x");
	put("images/11/" ID ".json.new", "x");
	put("staging/" ID, "x");
	put("images/11/" ID ".iso", "x");
	put("images/11/..json", "x"); /* hidden */
	put("images/11/22222222-1111-4111-8111-111111111111", "x");
	put("images/readme", "x");
	put("staging/" ID ".json", "x");
	must(store_each(store, see, &s, &err), err);
	ck_assert_uint_eq(s.known, 4);
	ck_assert_uint_eq(s.strange, 4);
	end();
}
END_TEST

START_TEST(what_is_half_made_goes_and_nothing_else)
{
	begin();
	put("incoming/" ID, "x");
	put("incoming/mine", "x");
	put("index.sqlite.new-journal", "x");
	put("grant.key.a1b2c3", "x");
	put("grant.key", "x");
	put("disk.qcow2", "x");
	put("images/11/" ID, "x");
	put("staging/" ID, "x");
	must(store_clean(store, &err), err);
	ck_assert(!is("incoming/" ID));
	ck_assert(!is("index.sqlite.new-journal"));
	ck_assert(!is("grant.key.a1b2c3"));
	ck_assert(is("incoming/mine") && is("grant.key"));
	ck_assert(is("disk.qcow2") && is("images/11/" ID));
	ck_assert(is("staging/" ID));
	end();
}
END_TEST

/* ---- a start ---- */

START_TEST(no_index_beside_data_is_refused_with_the_ways_out)
{
	static const char *const data[] = { "images/11/" ID, "staging/" ID,
					    "images/11/" ID ".json" };

	begin();
	put(data[_i / 2], "x");
	if (_i % 2)
		put("index.sqlite", "");
	ck_assert_int_eq(recover_check(store, &err), -EUCLEAN);
	unit_says(&err, "platter index restore --store ");
	unit_says(&err, "platter index rebuild --store ");
	ck_assert(is(data[_i / 2]));
	ck_assert(is("index.sqlite") == (_i % 2));
	error_clear(&err);
	end();
}
END_TEST

START_TEST(an_index_without_images_beside_data_is_refused)
{
	begin();
	must(recover_check(store, &err), err);
	put("images/11/" ID, "x");
	ck_assert_int_eq(recover_check(store, &err), -EUCLEAN);
	unit_says(&err, "no image");
	error_clear(&err);
	end();
}
END_TEST

START_TEST(what_is_no_index_is_refused_with_the_ways_out)
{
	char junk[8192];

	begin();
	unit_fill(junk, sizeof(junk), 1);
	unit_write(inside("index.sqlite"), junk, sizeof(junk));
	ck_assert_int_eq(recover_check(store, &err), -EUCLEAN);
	unit_says(&err, "platter index rebuild --store ");
	error_clear(&err);
	end();
}
END_TEST

/* What the index has of an image, and what lies there, before a start. */
struct scene {
	const char *status; /* NULL: no image */
	const char *tombstone; /* NULL: none */
	bool data, sidecar, staged;
	/* Afterwards. */
	const char *then;
	bool data_then, staged_then;
};

static const struct scene scenes[] = {
	/* Nothing names them: they stay, whatever the index has. */
	{ NULL, NULL, true, true, false, NULL, true, false },
	{ NULL, NULL, true, false, false, NULL, true, false },
	{ NULL, NULL, false, false, true, NULL, false, true },
	{ "queued", NULL, true, true, false, "queued", true, false },
	{ "queued", NULL, true, false, true, "queued", true, true },
	{ "saving", NULL, true, true, false, "queued", true, false },
	{ "saving", NULL, true, false, false, "queued", true, false },
	{ "killed", NULL, true, true, false, "killed", true, false },
	{ "importing", NULL, true, true, false, "queued", true, false },
	{ "active", NULL, true, true, false, "active", true, false },
	{ "active", NULL, false, false, false, "active", false, false },
	{ "active", NULL, true, true, true, "active", true, true },
	{ "deactivated", NULL, true, false, false, "deactivated", true, false },
	{ "uploading", NULL, false, false, true, "uploading", false, true },
	{ "uploading", NULL, false, false, false, "queued", false, false },
	/* Deleted: the id is never used again. */
	{ NULL, "gone", true, true, true, NULL, false, false },
	{ "active", "gone", true, true, false, "active", true, false },
	/* Data that came. */
	{ "saving", "coming", true, false, false, "queued", false, false },
	{ "queued", "coming", true, false, false, "queued", false, false },
	{ NULL, "coming", true, false, true, NULL, false, false },
	{ "uploading", "coming", false, false, true, "uploading", false, true },
	/* ... and were an image's: the index is a copy of before that. */
	{ "saving", "coming", true, true, false, "queued", true, false },
	{ NULL, "coming", true, true, false, NULL, true, false },
	{ "importing", "coming", true, true, false, "queued", true, false },
	/* Out of staging: they wait again. */
	{ "importing", "moving", true, false, false, "queued", false, true },
	{ NULL, "moving", true, false, false, NULL, false, false },
	{ "importing", "moving", true, true, false, "queued", true, false },
	{ "active", "moving", true, true, false, "active", true, false },
	/* Of an import that failed. */
	{ "importing", "staged", false, false, true, "queued", false, false },
	{ "uploading", "staged", false, false, true, "uploading", false, true },
	{ "active", "staged", true, true, true, "active", true, true },
};

static int set_scene(struct index_tx *tx, void *opaque, struct error *e)
{
	const struct scene *s = opaque;
	struct record r = { .visibility = IMAGE_SHARED };
	enum tombstone_kind k;
	int code = record_set(&r.id, s->status ? ID : OTHER, e);

	/* There is always an image: an index without is another matter. */
	if (s->status)
		ck_assert(image_status_by_name(s->status, &r.status));
	r.seen_as = admit_label(&r);
	if (code >= 0)
		code = record_insert(tx, &r, e);
	for (k = 0; k < TOMBSTONE_KINDS && code >= 0; k++)
		if (s->tombstone &&
		    !strcmp(s->tombstone, tombstone_kind_name(k)))
			code = tombstone_add(tx, k, ID, e);
	record_done(&r);
	return code;
}

static int count(void *opaque, enum tombstone_kind k, const char *id)
{
	(*(unsigned int *)opaque)++;
	return 0;
}

START_TEST(a_start_removes_what_a_tombstone_names_and_nothing_else)
{
	struct scene s = scenes[_i];
	struct record r = { 0 };
	struct index_tx *tx;
	unsigned int left = 0;
	int code;

	begin();
	open_index();
	must(index_write(g.index, set_scene, &s, &err), err);
	if (s.data)
		put("images/11/" ID, "data");
	if (s.sidecar)
		put("images/11/" ID ".json", "{}");
	if (s.staged)
		put("staging/" ID, "data");
	close_index();
	must(recover_check(store, &err), err);
	open_index();
	must(recover(&g, &err), err);
	must(index_read(g.index, &tx, &err), err);
	code = record_load(tx, ID, &r, &err);
	ck_assert_int_eq(code, s.then ? 0 : -ENOENT);
	if (s.then)
		ck_assert_str_eq(image_status_name(r.status), s.then);
	error_clear(&err);
	must(tombstones_each(tx, count, &left, &err), err);
	ck_assert_uint_eq(left, 0);
	index_read_end(tx);
	record_done(&r);
	ck_assert_int_eq(is("images/11/" ID), s.data_then);
	ck_assert_int_eq(is("staging/" ID), s.staged_then);
	/* What has data has a sidecar from now on. */
	if (s.then &&
	    (!strcmp(s.then, "active") || !strcmp(s.then, "deactivated")))
		ck_assert(is("images/11/" ID ".json"));
	if (s.then && !strcmp(s.then, "uploading"))
		ck_assert(r.size == 4 || !r.has_size);
	end();
}
END_TEST

static int add_image(struct index_tx *tx, void *opaque, struct error *e)
{
	struct record r = { .status = IMAGE_ACTIVE };
	int code = record_set(&r.id, ID, e);

	r.seen_as = admit_label(&r);
	if (code >= 0)
		code = record_insert(tx, &r, e);
	record_done(&r);
	return code;
}

static int remove_image(struct index_tx *tx, void *opaque, struct error *e)
{
	struct record r = { 0 };
	int code = record_load(tx, ID, &r, e);

	if (code >= 0)
		code = record_delete(tx, &r, e);
	record_done(&r);
	return code;
}

static void delete_and_die(bool bury)
{
	open_index();
	must(recover(&g, &err), err);
	must(index_write(g.index, add_image, NULL, &err), err);
	put("images/11/" ID, "data");
	must(index_write(g.index, remove_image, NULL, &err), err);
	if (bury)
		glance_bury(&g, ID);
	kill(getpid(), SIGKILL);
}

START_TEST(a_deletion_that_was_cut_short_is_carried_out)
{
	pid_t pid;

	begin();
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid)
		delete_and_die(_i);
	waitpid(pid, NULL, 0);
	ck_assert_int_eq(is("images/11/" ID), !_i);
	must(recover_check(store, &err), err);
	open_index();
	must(recover(&g, &err), err);
	ck_assert(!is("images/11/" ID) && !is("images/11/" ID ".json"));
	end();
}
END_TEST

/* A link in the store: nothing behind it is read, written or removed. */
START_TEST(no_link_in_the_store_is_followed)
{
	struct error why = { 0 };
	struct seen s = { 0 };
	struct stat st;
	int fd = -1;

	begin();
	ck_assert_int_eq(rmdir(inside("images/11")), 0);
	mkdir(unit_path("elsewhere"), 0700);
	unit_write(unit_path("elsewhere/" ID), "out", 3);
	unit_write(unit_path("elsewhere/" ID ".json"), "out", 3);
	ck_assert_int_eq(symlink(unit_path("elsewhere"), inside("images/11")),
			 0);
	ck_assert_int_eq(store_data_open(store, ID, &fd, &why), -ELOOP);
	unit_says(&why, "symbolic link");
	ck_assert_int_eq(
		store_file_open(store, ID, STORE_SIDECAR, O_RDONLY, &fd, NULL),
		-ELOOP);
	ck_assert_int_eq(store_file_open(store, ID, STORE_SIDECAR_NEW,
					 O_WRONLY | O_CREAT, &fd, NULL),
			 -ELOOP);
	ck_assert_int_eq(store_file_stat(store, ID, STORE_DATA, &st), -ELOOP);
	ck_assert_int_eq(store_file_rename(store, ID, STORE_SIDECAR,
					   STORE_SIDECAR_NEW, true),
			 -ELOOP);
	write_incoming("new", &fd);
	ck_assert_int_lt(store_commit(store, STORE_INCOMING, ID, fd, NULL), 0);
	close(fd);
	store_remove(store, ID);
	must(store_each(store, see, &s, &err), err);
	ck_assert_uint_eq(s.known + s.strange, 1);
	ck_assert_int_eq(stat(unit_path("elsewhere/" ID), &st), 0);
	ck_assert_int_eq(st.st_size, 3);
	ck_assert_int_eq(stat(unit_path("elsewhere/" ID ".json"), &st), 0);
	store_close(store);
}
END_TEST

START_TEST(a_file_of_the_store_is_regular)
{
	int fd = -1;

	begin();
	ck_assert_int_eq(mkfifo(inside("images/11/" ID), 0600), 0);
	ck_assert_int_eq(store_data_open(store, ID, &fd, NULL), -EBADF);
	unlink(inside("images/11/" ID));
	put("images/11/" OTHER, "x");
	ck_assert_int_eq(symlink(OTHER, inside("images/11/" ID)), 0);
	ck_assert_int_eq(store_data_open(store, ID, &fd, NULL), -ELOOP);
	store_close(store);
}
END_TEST

START_TEST(a_store_whose_folders_are_links_is_refused)
{
	struct store *s = NULL;
	struct error why = { 0 };

	mkdir(unit_path("linked"), 0700);
	mkdir(unit_path("afar"), 0700);
	ck_assert_int_eq(symlink("../afar", unit_path("linked/images")), 0);
	ck_assert_int_eq(store_open(unit_path("linked"), &s, &why), -ELOOP);
	unit_says(&why, "images: is, or lies behind, a symbolic link");
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, no_link_in_the_store_is_followed);
	tcase_add_test(tc, a_file_of_the_store_is_regular);
	tcase_add_test(tc, a_store_whose_folders_are_links_is_refused);
	tcase_add_test(tc, data_that_are_in_the_way_are_put_aside);
	tcase_add_test(tc, a_name_that_is_no_id_is_none_of_the_stores);
	tcase_add_test(tc, what_is_half_made_goes_and_nothing_else);
	tcase_add_loop_test(
		tc, no_index_beside_data_is_refused_with_the_ways_out, 0, 6);
	tcase_add_test(tc, an_index_without_images_beside_data_is_refused);
	tcase_add_test(tc, what_is_no_index_is_refused_with_the_ways_out);
	LOOP(tc, a_start_removes_what_a_tombstone_names_and_nothing_else,
	     scenes);
	tcase_add_loop_test(tc, a_deletion_that_was_cut_short_is_carried_out, 0,
			    2);
}

int main(void)
{
	return unit_main("store", add);
}
