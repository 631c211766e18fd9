/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <string.h>

#include "iouring/util.h"
#include "nbd/text.h"
#include "tests/lib/unit.h"

static const struct {
	uint64_t bytes;
	const char *text;
} sizes[] = {
	{ 0, "0 bytes" },
	{ 1023, "1023 bytes" },
	{ 1024, "1 KiB" },
	{ 65536, "64 KiB" },
	{ 1023 * 1024, "0.999 MiB" }, /* never "1e+03 KiB" */
	{ 3758096384, "3.5 GiB" },
	{ 1ULL << 46, "64 TiB" },
	{ UINT64_MAX, "16 EiB" },
};

START_TEST(sizes_have_three_digits_and_a_unit)
{
	char buf[TEXT_BYTES_MAX];

	ck_assert_str_eq(text_bytes(buf, sizes[_i].bytes), sizes[_i].text);
}
END_TEST

START_TEST(a_size_that_is_no_whole_sectors_is_told)
{
	char *out = NULL;
	size_t bytes = 0;
	FILE *fp = open_memstream(&out, &bytes);

	text_odd_size(0, fp);
	text_odd_size(1024, fp);
	fflush(fp);
	ck_assert_str_eq(out, "");
	text_odd_size(1025, fp);
	fclose(fp);
	ck_assert_ptr_nonnull(strstr(out, "multiple of 512"));
	ck_assert_ptr_nonnull(strstr(out, "last 1 byte,"));
	free(out);
}
END_TEST

START_TEST(what_a_uri_cannot_hold_is_encoded)
{
	char *s = text_percent("a b/@\xc3\xa9%,&?", "/");

	ck_assert_str_eq(s, "a%20b/%40%C3%A9%25%2C%26%3F");
	free(s);
}
END_TEST

static const struct {
	const char *text, *word;
} words[] = {
	{ "", "''" },
	{ "nbd://127.0.0.1:10809/@a%20b", "nbd://127.0.0.1:10809/@a%20b" },
	{ "nbd+unix:///?socket=/s", "'nbd+unix:///?socket=/s'" },
	{ "it's", "'it'\\''s'" },
	{ "$(id)\n", "'$(id)\n'" },
	{ "\xc3\xa9", "'\xc3\xa9'" },
};

START_TEST(a_word_stays_one_word_in_a_shell)
{
	char *s = text_shell_word(words[_i].text);

	ck_assert_str_eq(s, words[_i].word);
	free(s);
}
END_TEST

static const struct {
	const char *line;
	bool known, abortable;
} versions[] = {
	{ "nbdkit 1.32.5", true, true },
	{ "nbdkit 1.33.9\n", true, true },
	{ "nbdkit 1.33.10", true, false },
	{ "nbdkit 1.34.0 (fedora)", true, false },
	{ "nbdkit 2.0.0", true, false },
	{ "nbdkit 1.x", false, false },
	{ "", false, false },
};

START_TEST(an_nbdkit_that_a_client_can_abort_is_known)
{
	unsigned int v[3];

	ck_assert(text_nbdkit_version(versions[_i].line, v) ==
		  versions[_i].known);
	if (versions[_i].known)
		ck_assert(text_nbdkit_abortable(v) == versions[_i].abortable);
}
END_TEST

static uint64_t sum(const uint64_t *columns, unsigned int n)
{
	uint64_t ret = 0;

	while (n)
		ret += columns[--n];
	return ret;
}

static const struct {
	uint64_t bytes;
	unsigned int columns;
} bars[] = {
	{ 1, 78 },	 { 10, 3 },	    { 77, 78 },
	{ 1 << 20, 78 }, { INT64_MAX, 78 }, { INT64_MAX, 1 },
};

/* Every byte falls into one column, and no column holds more than it spans. */
START_TEST(a_bar_loses_no_byte)
{
	const struct extent kinds[] = {
		{ .kind = EXTENT_DATA },
		{ .kind = EXTENT_ZERO },
		{ .kind = EXTENT_COMPRESSED },
		{ .kind = EXTENT_DAMAGED },
		{ .kind = EXTENT_ZERO, .absent = true },
	};
	uint64_t bytes = bars[_i].bytes, off, len, told = 0;
	unsigned int n = bars[_i].columns, i;
	struct bar b;

	ck_assert_int_eq(bar_init(&b, bytes, n), 0);
	for (off = 0, i = 0; off < bytes; off += len, i++) {
		len = min_u64(bytes / 1009 + i % 3 + 1, bytes - off);
		bar_add(&b, off, len, &kinds[i % ARRAY_SIZE(kinds)]);
		if (i % ARRAY_SIZE(kinds) != 4)
			told += len;
	}
	ck_assert_uint_eq(b.used_bytes, sum(b.used, n));
	ck_assert_uint_eq(b.zero_bytes, sum(b.zero, n));
	ck_assert_uint_eq(b.bad_bytes, sum(b.bad, n));
	ck_assert_uint_eq(b.used_bytes + b.zero_bytes + b.bad_bytes, told);
	for (i = 0; i < n; i++)
		ck_assert_uint_le(b.used[i] + b.zero[i] + b.bad[i],
				  div_round_up(bytes, n));
	bar_done(&b);
}
END_TEST

START_TEST(a_bar_shows_shares)
{
	struct extent data = { .kind = EXTENT_DATA };
	struct extent zero = { .kind = EXTENT_ZERO };
	struct extent bad = { .kind = EXTENT_DAMAGED };
	char *out;
	size_t len;
	struct bar b;
	FILE *fp = open_memstream(&out, &len);

	ck_assert_int_eq(bar_init(&b, 800, 8), 0);
	bar_add(&b, 0, 201, &data); /* two whole ones and a hundredth */
	bar_add(&b, 300, 60, &data);
	bar_add(&b, 360, 140, &zero);
	bar_add(&b, 500, 70, &data);
	bar_add(&b, 700, 1, &bad);
	bar_print(&b, false, fp);
	fclose(fp);
	ck_assert_str_eq(out, "[##.+0+ !]\n"
			      ".-+# data 41.4%  0 zero 17.5%  "
			      "blank: unallocated 41.0%  ! damaged 0.1%\n");
	free(out);
	bar_done(&b);
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, sizes_have_three_digits_and_a_unit, sizes);
	tcase_add_test(tc, a_size_that_is_no_whole_sectors_is_told);
	tcase_add_test(tc, what_a_uri_cannot_hold_is_encoded);
	LOOP(tc, a_word_stays_one_word_in_a_shell, words);
	LOOP(tc, an_nbdkit_that_a_client_can_abort_is_known, versions);
	LOOP(tc, a_bar_loses_no_byte, bars);
	tcase_add_test(tc, a_bar_shows_shares);
}

int main(void)
{
	return unit_main("text", add);
}
