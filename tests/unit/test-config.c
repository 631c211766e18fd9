/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/cache.h"
#include "nbd/config.h"
#include "tests/lib/unit.h"

static struct error err;
static struct config c;

static int set(const char *key, const char *value)
{
	error_clear(&err);
	return config_set(&c, key, value, &err);
}

START_TEST(what_is_not_set_has_its_default)
{
	struct open_options o;

	config_init(&c);
	config_open_options(&c, &o);
	ck_assert_ptr_null(c.image);
	ck_assert_ptr_null(o.format);
	ck_assert_ptr_null(o.snapshot);
	ck_assert_ptr_null(o.key);
	ck_assert(!o.direct && !o.force_parent && !o.allow.guessed);
	ck_assert_uint_eq(c.cache_bytes, 64 << 20);
	ck_assert_int_eq(c.io, ENGINE_AUTO);
	config_done(&c);
}
END_TEST

static const struct {
	const char *value;
	uint64_t bytes;
} sizes[] = {
	{ "0", 0 },	      { "1", 1 },	    { "4096", 4096 },
	{ "64k", 64 << 10 },  { "64K", 64 << 10 },  { "1M", 1 << 20 },
	{ "2G", 2ULL << 30 }, { "1T", 1ULL << 40 }, { "1024G", 1ULL << 40 },
};

START_TEST(sizes_have_suffixes)
{
	config_init(&c);
	must(set("cache", sizes[_i].value), err);
	ck_assert_uint_eq(c.cache_bytes, sizes[_i].bytes);
	config_done(&c);
}
END_TEST

static const struct {
	const char *value;
	bool direct;
} flags[] = {
	{ "true", true }, { "yes", true },    { "on", true },
	{ "1", true },	  { "false", false }, { "no", false },
	{ "off", false }, { "0", false },     { "TRUE", true },
};

START_TEST(flags_are_words)
{
	config_init(&c);
	c.direct = !flags[_i].direct;
	must(set("direct", flags[_i].value), err);
	ck_assert_int_eq(c.direct, flags[_i].direct);
	config_done(&c);
}
END_TEST

static const struct {
	const char *key, *value, *says;
} refused[] = {
	{ "cache", "", "64M" },
	{ "cache", "M", "64M" },
	{ "cache", "-1", "-1" },
	{ "cache", " 1", "64M" },
	{ "cache", "1X", "1X" },
	{ "cache", "1MM", "1MM" },
	{ "cache", "0x10", "0x10" },
	{ "cache", "2T", "1T" },
	{ "spare", "lots", "64M" },
	{ "cache", "18446744073709551616", "1T" },
	{ "cache", "17592186044416M", "1T" },
	{ "direct", "", "true" },
	{ "direct", "maybe", "maybe" },
	{ "io", "", "uring" },
	{ "io", "aio", "aio" },
	{ "diff", "Apply", "neither holes nor apply" },
	{ "overlay", "", "empty" },
	{ "overlay-scope", "server", "neither export nor connection" },
	{ "overlays", "/dev/null", "not a folder" },
	{ "overlay-max", "lots", "not a size" },
	{ "overlay-free", "-1", "not a size" },
	{ "detect", "zeroes,ones", "not of zeroes, base" },
	{ "format", "", "not supported" },
	{ "format", "vmdk\x1b", "vmdk\\x1b" },
	{ "image", "", "empty" },
	{ "export", "", "not NAME=FILE" },
	{ "export", "name", "not NAME=FILE" },
	{ "export", "name=", "not NAME=FILE" },
	{ "export", "=file", "empty" },
	{ "export", "a/b=file", "no \"/\"" },
	{ "export", "a\nb=file", "control characters" },
	{ "export", "..=file", "folder" },
	{ "export", "01234567-89AB-cdef-0123-456789abcdef=file", "store" },
	{ "key", "/no/such/file", "/no/such/file" },
	{ "key", "/dev/zero", "regular" },
	{ "key", "/", "regular" },
	{ "allow", "/no/such/folder", "/no/such/folder" },
	{ "allow", "/dev/null", "/dev/null" },
};

START_TEST(what_makes_no_sense_is_refused_and_named)
{
	config_init(&c);
	ck_assert_int_eq(set(refused[_i].key, refused[_i].value), -EINVAL);
	ck_assert_int_eq(err.code, -EINVAL);
	unit_says(&err, refused[_i].says);
	unit_says(&err, refused[_i].key);
	ck_assert_uint_eq(c.allow.n_folders, 0);
	ck_assert_uint_eq(c.cache_bytes, 64 << 20);
	config_done(&c);
}
END_TEST

START_TEST(an_unknown_parameter_is_nobodys)
{
	static const char *const unknown[] = { "",	"imag",	  "images",
					       "IMAGE", "cache ", "overlay-" };
	size_t i;

	config_init(&c);
	for (i = 0; i < ARRAY_SIZE(unknown); i++) {
		ck_assert_int_eq(set(unknown[i], "x"), -ENOENT);
		ck_assert_int_eq(err.code, 0);
	}
	config_done(&c);
}
END_TEST

START_TEST(paths_become_absolute_and_links_stay)
{
	char cwd[PATH_MAX], want[PATH_MAX + 16];

	config_init(&c);
	ck_assert_int_eq(chdir(unit_path(".")), 0);
	ck_assert_ptr_nonnull(getcwd(cwd, sizeof(cwd)));
	must(set("image", "a/disk"), err);
	snprintf(want, sizeof(want), "%s/a/disk", cwd);
	ck_assert_str_eq(c.image, want);
	ck_assert_int_eq(set("image", "other"), -EINVAL);
	unit_says(&err, "other");
	ck_assert_str_eq(c.image, want);
	config_done(&c);
	must(set("image", "/abs/link"), err);
	ck_assert_str_eq(c.image, "/abs/link");
	config_done(&c);
	must(set("image", "nbd://host/x"), err);
	ck_assert_str_eq(c.image, "nbd://host/x");
	mkdir(unit_path("folder"), 0700);
	must(set("allow", "folder"), err);
	snprintf(want, sizeof(want), "%s/folder", cwd);
	ck_assert_str_eq(c.allow.folders[0], want);
	config_done(&c);
}
END_TEST

START_TEST(exports_have_names_of_their_own)
{
	char name[300];

	config_init(&c);
	ck_assert_int_eq(set("export", "a=x=y"), 0);
	ck_assert_int_eq(set("export", " b =/z"), 0);
	ck_assert_int_eq(set("export", "a=/z"), -EINVAL);
	unit_says(&err, "there are two of that name");
	ck_assert_uint_eq(c.n_exports, 2);
	ck_assert_str_eq(config_export_path(&c, " b "), "/z");
	ck_assert_ptr_null(config_export_path(&c, "b"));
	ck_assert_ptr_null(config_export_path(&c, ""));
	ck_assert_str_eq(strrchr(config_export_path(&c, "a"), '/'), "/x=y");
	memset(name, 'n', sizeof(name));
	strcpy(name + 256, "=/z");
	ck_assert_int_eq(set("export", name), -EINVAL);
	unit_says(&err, "over 255 bytes");
	config_done(&c);
}
END_TEST

START_TEST(the_key_is_what_the_file_holds)
{
	static uint8_t big[65537];
	struct open_options o;

	config_init(&c);
	unit_write(unit_path("key"), "pass\0word\n", 10);
	must(set("key", unit_path("key")), err);
	config_open_options(&c, &o);
	ck_assert_uint_eq(o.key_bytes, 10);
	ck_assert_mem_eq(o.key, "pass\0word\n", 10);
	/* The last one counts. */
	unit_write(unit_path("key"), "", 0);
	must(set("key", unit_path("key")), err);
	ck_assert_ptr_nonnull(c.key);
	ck_assert_uint_eq(c.key_bytes, 0);
	unit_write(unit_path("key"), big, sizeof(big) - 1);
	must(set("key", unit_path("key")), err);
	ck_assert_uint_eq(c.key_bytes, 65536);
	unit_write(unit_path("key"), big, sizeof(big));
	ck_assert_int_eq(set("key", unit_path("key")), -EINVAL);
	unit_says(&err, "65536");
	/* A FIFO is not waited for. */
	ck_assert_int_eq(mkfifo(unit_path("fifo"), 0600), 0);
	ck_assert_int_eq(set("key", unit_path("fifo")), -EINVAL);
	config_done(&c);
	ck_assert_ptr_null(c.key);
}
END_TEST

START_TEST(allow_may_repeat_and_its_values_are_kept)
{
	char json[] = "json:", guessed[] = "guessed", folder[] = "/";
	struct open_options o;

	config_init(&c);
	must(set("allow", json), err);
	must(set("allow", guessed), err);
	must(set("allow", folder), err);
	must(set("allow", "file:"), err);
	memset(json, 'x', sizeof(json) - 1);
	memset(folder, 'x', sizeof(folder) - 1);
	config_open_options(&c, &o);
	ck_assert(o.allow.guessed);
	ck_assert_uint_eq(o.allow.n_prefixes, 2);
	ck_assert_uint_eq(o.allow.n_folders, 1);
	ck_assert_str_eq(o.allow.prefixes[0], "json:");
	ck_assert_str_eq(o.allow.prefixes[1], "file:");
	ck_assert_str_eq(o.allow.folders[0], "/");
	config_done(&c);
}
END_TEST

START_TEST(the_last_word_on_format_snapshot_and_io_counts)
{
	struct open_options o;

	config_init(&c);
	must(set("format", "raw"), err);
	must(set("format", "qcow2"), err);
	must(set("snapshot", "a"), err);
	must(set("snapshot", "b"), err);
	must(set("io", "uring"), err);
	must(set("io", "sync"), err);
	must(set("diff", "apply"), err);
	ck_assert(c.diff_apply);
	must(set("diff", "holes"), err);
	ck_assert(!c.diff_apply);
	config_open_options(&c, &o);
	ck_assert_str_eq(o.format, "qcow2");
	ck_assert_str_eq(o.snapshot, "b");
	ck_assert_int_eq(c.io, ENGINE_SYNC);
	must(config_apply(&c, NULL, &err), err);
	ck_assert_str_eq(engine_name(), "preadv");
	config_done(&c);
}
END_TEST

START_TEST(the_help_names_every_parameter)
{
	static const char *const keys[] = { "image=", "format=", "snapshot=",
					    "key=",   "allow=",	 "cache=",
					    "io=",    "direct=" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(keys); i++)
		ck_assert_ptr_nonnull(strstr(config_help, keys[i]));
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, what_is_not_set_has_its_default);
	LOOP(tc, sizes_have_suffixes, sizes);
	LOOP(tc, flags_are_words, flags);
	LOOP(tc, what_makes_no_sense_is_refused_and_named, refused);
	tcase_add_test(tc, an_unknown_parameter_is_nobodys);
	tcase_add_test(tc, paths_become_absolute_and_links_stay);
	tcase_add_test(tc, exports_have_names_of_their_own);
	tcase_add_test(tc, the_key_is_what_the_file_holds);
	tcase_add_test(tc, allow_may_repeat_and_its_values_are_kept);
	tcase_add_test(tc, the_last_word_on_format_snapshot_and_io_counts);
	tcase_add_test(tc, the_help_names_every_parameter);
}

int main(void)
{
	return unit_main("config", add);
}
