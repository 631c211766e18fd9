/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "glance/grant.h"
#include "tests/lib/unit.h"

#define IMAGE "11111111-1111-4111-8111-111111111111"
#define OTHER "11111111-1111-4111-8111-111111111112"
#define NOW   1800000000

static struct error err;
static struct grant_key key;

static void make(bool writable, char *ret)
{
	unlink(unit_path("key"));
	must(grant_key_open(unit_path("key"), &key, &err), err);
	must(grant_mint(&key, IMAGE, writable, NOW, ret, &err), err);
}

START_TEST(a_grant_holds_for_what_it_says)
{
	char text[GRANT_TEXT_BYTES];

	make(_i, text);
	ck_assert_int_eq(*text, _i ? 'w' : 'r');
	ck_assert(grant_holds(&key, text, IMAGE, false, NOW));
	ck_assert_int_eq(grant_holds(&key, text, IMAGE, true, NOW), _i);
	ck_assert(!grant_holds(&key, text, OTHER, false, NOW));
	ck_assert(!grant_holds(&key, text, IMAGE, false, NOW + 1));
}
END_TEST

START_TEST(any_other_text_is_none)
{
	static const char *const texts[] = {
		"",    "r",   "r-",	    "w6b49d200",
		"x1-", "r-1", "r6b49d200-", "rffffffffffffffffffff-00"
	};
	char text[GRANT_TEXT_BYTES], bad[GRANT_TEXT_BYTES + 8];
	size_t i;

	make(false, text);
	for (i = 0; i < strlen(text); i++) {
		strcpy(bad, text);
		bad[i] = bad[i] == '1' ? '2' : '1';
		ck_assert_msg(!grant_holds(&key, bad, IMAGE, false, 0),
			      "byte %zu", i);
	}
	for (i = 0; i < strlen(text); i++) {
		strcpy(bad, text);
		bad[i] = '\0';
		ck_assert(!grant_holds(&key, bad, IMAGE, false, 0));
	}
	strcpy(bad, text);
	strcat(bad, "0");
	ck_assert(!grant_holds(&key, bad, IMAGE, false, 0));
	for (i = 0; i < ARRAY_SIZE(texts); i++)
		ck_assert(!grant_holds(&key, texts[i], IMAGE, false, 0));
}
END_TEST

START_TEST(the_key_stays_until_it_is_removed)
{
	char text[GRANT_TEXT_BYTES];
	struct grant_key again;
	struct stat st;

	make(false, text);
	ck_assert_int_eq(stat(unit_path("key"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0600);
	must(grant_key_open(unit_path("key"), &again, &err), err);
	ck_assert(grant_holds(&again, text, IMAGE, false, NOW));
	unlink(unit_path("key"));
	must(grant_key_open(unit_path("key"), &again, &err), err);
	ck_assert(!grant_holds(&again, text, IMAGE, false, NOW));
	ck_assert_int_eq(truncate(unit_path("key"), 5), 0);
	ck_assert_int_eq(grant_key_open(unit_path("key"), &again, &err),
			 -EBADMSG);
	error_clear(&err);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, a_grant_holds_for_what_it_says, 0, 2);
	tcase_add_test(tc, any_other_text_is_none);
	tcase_add_test(tc, the_key_stays_until_it_is_removed);
}

int main(void)
{
	return unit_main("grant", add);
}
