/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "nbd/trace.h"
#include "tests/lib/unit.h"

#define HEAD "platter-trace 1\nbytes 1000000\n"
#define UNIT TRACE_UNIT_BYTES

static struct error err;

START_TEST(a_file_is_read_as_it_was_written)
{
	CLEANUP(trace_done) struct trace t = { 0 };
	CLEANUP(freep) char *text = NULL;
	size_t len;
	FILE *fp = open_memstream(&text, &len);
	static const char file[] =
		"# of a boot\nplatter-trace 1\r\n\nbytes 1000000\n"
		"0 1\n999999 1\n#\n512 4096";

	must(trace_parse(file, strlen(file), &t, &err), err);
	ck_assert_uint_eq(t.bytes, 1000000);
	ck_assert_uint_eq(t.n, 3);
	ck_assert_uint_eq(t.ranges[2].off, 512);
	ck_assert_uint_eq(t.ranges[2].len, 4096);
	trace_write(&t, fp);
	fclose(fp);
	ck_assert_str_eq(text, HEAD "0 1\n999999 1\n512 4096\n");
}
END_TEST

static const char *const bad[] = {
	"",
	"\n#\n",
	"platter-trace 2\nbytes 1\n",
	"platter-trace 1x\nbytes 1\n",
	"platter-trace 1\n",
	"platter-trace 1\n0 1\n",
	"platter-trace 1\nbytes \n",
	"platter-trace 1\nbytes -1\n",
	"platter-trace 1\nbytes 1 \n",
	"platter-trace 1\nbytes 18446744073709551616\n",
	HEAD "0\n",
	HEAD "0 \n",
	HEAD "0 0\n",
	HEAD "0  1\n",
	HEAD "0 1 1\n",
	HEAD " 0 1\n",
	HEAD "-1 1\n",
	HEAD "1000000 1\n",
	HEAD "999999 2\n",
	HEAD "1 18446744073709551615\n",
};

START_TEST(what_is_no_trace_is_refused)
{
	struct trace t;

	ck_assert_int_eq(trace_parse(bad[_i], strlen(bad[_i]), &t, &err),
			 -EBADMSG);
}
END_TEST

START_TEST(a_file_of_too_many_ranges_is_refused)
{
	const size_t head = strlen(HEAD);
	CLEANUP(trace_done) struct trace t = { 0 };
	CLEANUP(freep) char *text = malloc(head + 4 * (TRACE_RANGES_MAX + 1));
	size_t i;

	ck_assert_ptr_nonnull(text);
	memcpy(text, HEAD, head);
	for (i = 0; i <= TRACE_RANGES_MAX; i++)
		memcpy(text + head + 4 * i, "7 1\n", 4);
	ck_assert_int_eq(trace_parse(text, head + 4 * i, &t, &err), -EFBIG);
	must(trace_parse(text, head + 4 * (i - 1), &t, &err), err);
	ck_assert_uint_eq(t.n, TRACE_RANGES_MAX);
}
END_TEST

START_TEST(what_is_read_first_is_recorded_once_in_order)
{
	struct trace_recorder *r = trace_recorder_new(10 * UNIT + 5);
	CLEANUP(trace_done) struct trace t = { 0 };
	bool full;

	ck_assert_ptr_nonnull(r);
	trace_note(r, 5 * UNIT + 1, 2);
	trace_note(r, 6 * UNIT - 1, 2);
	trace_note(r, 0, 0);
	trace_note(r, 10 * UNIT + 4, 1);
	trace_note(r, 5 * UNIT, UNIT);
	trace_note(r, 4 * UNIT, 4 * UNIT);
	ck_assert(trace_take(r, &t, &full));
	trace_recorder_free(r);
	ck_assert(!full);
	ck_assert_uint_eq(t.bytes, 10 * UNIT + 5);
	ck_assert_uint_eq(t.n, 4);
	ck_assert_uint_eq(t.ranges[0].off, 5 * UNIT);
	ck_assert_uint_eq(t.ranges[0].len, 2 * UNIT);
	ck_assert_uint_eq(t.ranges[1].off, 10 * UNIT);
	ck_assert_uint_eq(t.ranges[1].len, 5);
	ck_assert_uint_eq(t.ranges[2].off, 4 * UNIT);
	ck_assert_uint_eq(t.ranges[3].off, 7 * UNIT);
	ck_assert_uint_eq(t.ranges[3].len, UNIT);
}
END_TEST

START_TEST(a_recorder_says_when_it_is_full)
{
	const uint64_t n = 1 << 17;
	struct trace_recorder *r = trace_recorder_new((n + 9) * 2 * UNIT);
	CLEANUP(trace_done) struct trace t = { 0 };
	bool full;
	uint64_t i;

	ck_assert_ptr_nonnull(r);
	for (i = 0; i < n + 9; i++)
		trace_note(r, i * 2 * UNIT, 1);
	ck_assert(trace_take(r, &t, &full));
	trace_recorder_free(r);
	ck_assert(full);
	ck_assert_uint_eq(t.n, TRACE_RANGES_MAX);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, a_file_is_read_as_it_was_written);
	tcase_add_loop_test(tc, what_is_no_trace_is_refused, 0,
			    ARRAY_SIZE(bad));
	tcase_add_test(tc, a_file_of_too_many_ranges_is_refused);
	tcase_add_test(tc, what_is_read_first_is_recorded_once_in_order);
	tcase_add_test(tc, a_recorder_says_when_it_is_full);
}

int main(void)
{
	return unit_main("trace", add);
}
