/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The tree:
 *	in/here.raw  in/sub/deep.raw  in/fifo  in/empty-dir/  in/a<ESC>b
 *	in/to-here -> here.raw        in/to-out -> ../out/secret.raw
 *	in/to-abs -> TREE/in/here.raw in/to-sub -> sub
 *	in/to-dev -> /dev/zero        in/loop -> loop
 *	out/secret.raw                to-out-dir -> out
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/reference.h"
#include "tests/lib/unit.h"

static char tree[PATH_MAX];
static struct error err;
static struct allow allow;

static const char *in_tree(const char *name)
{
	static char paths[8][PATH_MAX + 256];
	static unsigned int next;
	char *p = paths[next++ % ARRAY_SIZE(paths)];

	snprintf(p, sizeof(paths[0]), "%s/%s", tree, name);
	return p;
}

static void link_to(const char *to, const char *name)
{
	ck_assert_int_eq(symlink(to, in_tree(name)), 0);
}

static struct folder *make_tree(void)
{
	struct folder *f = NULL;

	ck_assert_ptr_nonnull(realpath(unit_path("."), tree));
	snprintf(tree + strlen(tree), 32, "/%d", (int)getpid());
	ck_assert_int_eq(mkdir(tree, 0700), 0);
	mkdir(in_tree("in"), 0700);
	mkdir(in_tree("in/sub"), 0700);
	mkdir(in_tree("in/empty-dir"), 0700);
	mkdir(in_tree("out"), 0700);
	unit_write(in_tree("in/here.raw"), "here", 4);
	unit_write(in_tree("in/sub/deep.raw"), "deep!", 5);
	unit_write(in_tree("in/a\x1b"
			   "b"),
		   "escape", 6);
	unit_write(in_tree("out/secret.raw"), "secret", 6);
	ck_assert_int_eq(mkfifo(in_tree("in/fifo"), 0600), 0);
	link_to("here.raw", "in/to-here");
	link_to(in_tree("in/here.raw"), "in/to-abs");
	link_to("../out/secret.raw", "in/to-out");
	link_to(in_tree("out/secret.raw"), "in/to-out-abs");
	link_to("sub", "in/to-sub");
	link_to("../../in", "in/sub/up");
	link_to("/dev/zero", "in/to-dev");
	link_to("loop", "in/loop");
	link_to("/proc/self/fd/0", "in/to-magic");
	link_to("out", "to-out-dir");
	must(folder_open(in_tree("in"), &f, &err), err);
	return f;
}

static int try(struct folder *f, const char *name, enum reference_verdict *v,
	       uint64_t *ret_bytes)
{
	CLEANUP(place_file_done) struct place_file file = { 0 };
	unsigned int before = unit_open_fds();
	int r;

	error_clear(&err);
	r = place_open(folder_place(f),
		       &(struct place_ask){ .name = name,
					    .what = "backing file",
					    .allow = &allow },
		       &file, v, &err);
	ck_assert_int_eq(!r, file.src != NULL);
	ck_assert_int_eq(!r, file.place != NULL);
	ck_assert_int_eq(!r, file.path != NULL);
	ck_assert_int_eq(!r, *v == REFERENCE_OK);
	if (r)
		ck_assert_uint_eq(unit_open_fds(), before);
	if (file.src && ret_bytes)
		*ret_bytes = file.src->bytes;
	return r;
}

/* '@' stands for the tree. */
static const struct {
	const char *name;
	enum reference_verdict verdict;
	int code; /* 0: opened */
	uint64_t bytes;
} names[] = {
	{ "here.raw", REFERENCE_OK, 0, 4 },
	{ "./here.raw", REFERENCE_OK, 0, 4 },
	{ "sub/deep.raw", REFERENCE_OK, 0, 5 },
	{ "sub/../here.raw", REFERENCE_OK, 0, 4 },
	{ "../in/here.raw", REFERENCE_OK, 0, 4 },
	{ "sub/../../in/sub/deep.raw", REFERENCE_OK, 0, 5 },
	{ "@/in/here.raw", REFERENCE_OK, 0, 4 },
	{ "@/in//sub/./deep.raw", REFERENCE_OK, 0, 5 },
	{ "@/out/../in/here.raw", REFERENCE_OK, 0, 4 },
	{ "to-here", REFERENCE_OK, 0, 4 },
	{ "to-abs", REFERENCE_OK, 0, 4 },
	{ "to-sub/deep.raw", REFERENCE_OK, 0, 5 },
	{ "sub/up/here.raw", REFERENCE_OK, 0, 4 },
	{ "to-out", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "to-out-abs", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "../out/secret.raw", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "../out/none.raw", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "../out", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "@/out/secret.raw", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "@/in/../out/secret.raw", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "@/inside.raw", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "/etc/passwd", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "/dev/zero", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "/proc/self/mem", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "to-dev", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "to-magic", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "loop", REFERENCE_OUTSIDE, -EPERM, 0 },
	{ "fifo", REFERENCE_SPECIAL, -EPERM, 0 },
	{ "sub", REFERENCE_SPECIAL, -EPERM, 0 },
	{ ".", REFERENCE_SPECIAL, -EPERM, 0 },
	{ "empty-dir", REFERENCE_SPECIAL, -EPERM, 0 },
	{ "none.raw", REFERENCE_MISSING, -ENOENT, 0 },
	{ "here.raw/x", REFERENCE_MISSING, -ENOENT, 0 },
	{ "@/in/none.raw", REFERENCE_MISSING, -ENOENT, 0 },
	{ "", REFERENCE_FAILED, -EINVAL, 0 },
};

START_TEST(a_name_is_opened_when_it_resolves_beneath_the_folder)
{
	CLEANUP(folder_unrefp) struct folder *f = make_tree();
	const char *name = names[_i].name;
	enum reference_verdict v;
	uint64_t bytes = 0;

	if (*name == '@')
		name = in_tree(name + 2);
	ck_assert_int_eq(try(f, name, &v, &bytes), names[_i].code);
	ck_assert_int_eq(v, names[_i].verdict);
	ck_assert_uint_eq(bytes, names[_i].bytes);
	if (names[_i].code) {
		unit_says(&err, "backing file");
		ck_assert_int_eq(err.code, names[_i].code);
		ck_assert_ptr_null(strstr(err.msg, "secret"));
	}
	ck_assert_uint_gt(strlen(reference_verdict_text(v)), 1);
}
END_TEST

START_TEST(what_is_outside_is_refused_in_the_same_words_whether_it_exists)
{
	static const char *const pairs[][2] = {
		{ "../out/secret.raw", "../out/none.raw" },
		{ "/etc/passwd", "/etc/no-such-file" },
		{ "/dev/zero", "/no/such/folder/at/all" },
		{ "../out", "../no-such-folder" },
	};
	CLEANUP(folder_unrefp) struct folder *f = make_tree();
	enum reference_verdict v, w;
	char first[ERROR_MSG_BYTES];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(pairs); i++) {
		ck_assert_int_eq(try(f, pairs[i][0], &v, NULL), -EPERM);
		strcpy(first, err.msg);
		ck_assert_int_eq(try(f, pairs[i][1], &w, NULL), -EPERM);
		ck_assert_str_eq(err.msg, first);
		ck_assert_int_eq(v, w);
	}
}
END_TEST

START_TEST(an_allowed_folder_is_open_and_nothing_beside_it)
{
	CLEANUP(folder_unrefp) struct folder *f = make_tree();
	enum reference_verdict v;
	uint64_t bytes = 0;

	/* By its name, or by that of a link to it. */
	must(allow_add(&allow, in_tree(_i ? "to-out-dir" : "out"), &err), err);
	must(try(f, "../out/secret.raw", &v, &bytes), err);
	ck_assert_uint_eq(bytes, 6);
	must(try(f, in_tree("out/secret.raw"), &v, NULL), err);
	must(try(f, in_tree("to-out-dir/secret.raw"), &v, NULL), err);
	must(try(f, "to-out", &v, NULL), err);
	must(try(f, "to-out-abs", &v, NULL), err);
	must(try(f, "here.raw", &v, NULL), err);
	ck_assert_int_eq(try(f, in_tree("out/none.raw"), &v, NULL), -ENOENT);
	ck_assert_int_eq(v, REFERENCE_MISSING);
	ck_assert_int_eq(try(f, "/etc/passwd", &v, NULL), -EPERM);
	ck_assert_int_eq(try(f, in_tree("outside"), &v, NULL), -EPERM);
	ck_assert_int_eq(try(f, "to-dev", &v, NULL), -EPERM);
	allow_done(&allow);
}
END_TEST

START_TEST(an_allowed_folder_does_not_lead_out_of_itself)
{
	CLEANUP(folder_unrefp) struct folder *f = make_tree();
	enum reference_verdict v;

	link_to("/etc/passwd", "out/away");
	ck_assert_int_eq(mkfifo(in_tree("out/fifo"), 0600), 0);
	must(allow_add(&allow, in_tree("out"), &err), err);
	ck_assert_int_eq(try(f, in_tree("out/away"), &v, NULL), -EPERM);
	ck_assert_int_eq(v, REFERENCE_OUTSIDE);
	ck_assert_int_eq(try(f, in_tree("out/../out/away"), &v, NULL), -EPERM);
	ck_assert_int_eq(try(f, in_tree("out/fifo"), &v, NULL), -EPERM);
	ck_assert_int_eq(v, REFERENCE_SPECIAL);
	allow_done(&allow);
}
END_TEST

START_TEST(all_may_be_allowed)
{
	CLEANUP(folder_unrefp) struct folder *f = make_tree();
	enum reference_verdict v;

	must(allow_add(&allow, "/", &err), err);
	must(try(f, "/etc/passwd", &v, NULL), err);
	ck_assert_int_eq(try(f, "/dev/zero", &v, NULL), -EPERM);
	ck_assert_int_eq(v, REFERENCE_SPECIAL);
	allow_done(&allow);
}
END_TEST

START_TEST(allow_takes_folders_prefixes_and_guessed_and_nothing_else)
{
	CLEANUP(folder_unrefp) struct folder *f = make_tree();

	ck_assert_ptr_nonnull(f);
	must(allow_add(&allow, "guessed", &err), err);
	must(allow_add(&allow, "json:", &err), err);
	must(allow_add(&allow, tree, &err), err);
	ck_assert(allow.guessed);
	ck_assert_uint_eq(allow.n_prefixes, 1);
	ck_assert_uint_eq(allow.n_folders, 1);
	ck_assert_int_eq(allow_add(&allow, "/no/such/folder", &err), -EINVAL);
	unit_says(&err, "/no/such/folder");
	ck_assert_int_eq(allow_add(&allow, in_tree("in/here.raw"), NULL),
			 -EINVAL);
	ck_assert_int_eq(allow_add(&allow, "", NULL), -EINVAL);
	ck_assert_uint_eq(allow.n_folders, 1);
	allow_done(&allow);
	ck_assert(!allow.guessed && !allow.n_prefixes && !allow.n_folders);
}
END_TEST

START_TEST(a_name_cannot_forge_a_line)
{
	CLEANUP(folder_unrefp) struct folder *f = make_tree();
	enum reference_verdict v;
	const char *c;

	must(try(f,
		 "a\x1b"
		 "b",
		 &v, NULL),
	     err);
	ck_assert_int_eq(try(f, "no\nerror: \x1b[2Jfile\xff", &v, NULL),
			 -ENOENT);
	unit_says(&err, "no\\x0aerror: \\x1b[2Jfile\\xff");
	for (c = err.msg; *c; c++)
		ck_assert((unsigned char)*c >= 0x20);
}
END_TEST

START_TEST(a_name_that_is_too_long_is_refused)
{
	CLEANUP(folder_unrefp) struct folder *f = make_tree();
	enum reference_verdict v;
	char name[8192];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	ck_assert_int_lt(try(f, name, &v, NULL), 0);
	name[4095] = '\0';
	ck_assert_int_lt(try(f, name, &v, NULL), 0);
	name[300] = '\0';
	ck_assert_int_lt(try(f, name, &v, NULL), 0);
	ck_assert_int_eq(v, REFERENCE_FAILED);
}
END_TEST

START_TEST(references_of_a_reference_start_in_its_own_folder)
{
	CLEANUP(folder_unrefp) struct folder *f = make_tree();
	CLEANUP(place_file_done) struct place_file file = { 0 };
	struct place_file none;

	must(place_open(folder_place(f),
			&(struct place_ask){ .name = "to-sub/deep.raw",
					     .what = "x",
					     .allow = &allow },
			&file, NULL, &err),
	     err);
	ck_assert_str_eq(place_text(file.place), in_tree("in/sub"));
	ck_assert_str_eq(file.path, in_tree("in/sub/deep.raw"));
	/* What was beneath the first folder is not beneath this one. */
	ck_assert_int_eq(place_open(file.place,
				    &(struct place_ask){ .name = "../here.raw",
							 .what = "x",
							 .allow = &allow },
				    &none, NULL, NULL),
			 -EPERM);
}
END_TEST

START_TEST(a_folder_that_is_moved_is_still_the_one_that_was_opened)
{
	CLEANUP(folder_unrefp) struct folder *f = make_tree();
	enum reference_verdict v;

	ck_assert_int_eq(rename(in_tree("in"), in_tree("moved")), 0);
	ck_assert_int_eq(symlink("out", in_tree("in")), 0);
	must(try(f, "here.raw", &v, NULL), err);
	ck_assert_int_eq(try(f, "secret.raw", &v, NULL), -ENOENT);
}
END_TEST

START_TEST(a_file_knows_its_folder)
{
	CLEANUP(folder_unrefp) struct folder *f = make_tree();
	CLEANUP(folder_unrefp) struct folder *a = NULL;
	CLEANUP(folder_unrefp) struct folder *b = NULL;
	CLEANUP(folder_unrefp) struct folder *c = NULL;

	ck_assert_ptr_nonnull(f);
	must(folder_of_file(in_tree("in/here.raw"), &a, &err), err);
	ck_assert_str_eq(folder_path(a), in_tree("in"));
	must(folder_of_file("/passwd", &b, &err), err);
	ck_assert_str_eq(folder_path(b), "/");
	ck_assert_int_eq(chdir(in_tree("in/sub")), 0);
	must(folder_of_file("deep.raw", &c, &err), err);
	ck_assert_str_eq(folder_path(c), in_tree("in/sub"));
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, a_name_is_opened_when_it_resolves_beneath_the_folder, names);
	tcase_add_test(
		tc,
		what_is_outside_is_refused_in_the_same_words_whether_it_exists);
	tcase_add_loop_test(tc, an_allowed_folder_is_open_and_nothing_beside_it,
			    0, 2);
	tcase_add_test(tc, an_allowed_folder_does_not_lead_out_of_itself);
	tcase_add_test(tc, all_may_be_allowed);
	tcase_add_test(
		tc, allow_takes_folders_prefixes_and_guessed_and_nothing_else);
	tcase_add_test(tc, a_name_cannot_forge_a_line);
	tcase_add_test(tc, a_name_that_is_too_long_is_refused);
	tcase_add_test(tc, references_of_a_reference_start_in_its_own_folder);
	tcase_add_test(tc,
		       a_folder_that_is_moved_is_still_the_one_that_was_opened);
	tcase_add_test(tc, a_file_knows_its_folder);
}

int main(void)
{
	unit_need_openat2();
	return unit_main("reference", add);
}
