/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdio.h>
#include <string.h>

#include "formats/codec/openssl.h"
#include "glance/digest.h"
#include "glance/token-memory.h"
#include "tests/lib/unit.h"

#define NOW   1000000
#define LATER (NOW + 60000000)

static struct token_memory *m;
static json_t *somebody;

static void begin(void)
{
	struct error err = { 0 };

	must(openssl_load(&err), err);
	m = token_memory_new();
	somebody = json_pack("{s:s}", "user", "u");
	ck_assert(m && somebody);
}

static void end(void)
{
	token_memory_free(m);
	/* Nobody else has it any more. */
	ck_assert_uint_eq(somebody->refcount, 1);
	json_decref(somebody);
}

static const char *key(unsigned int n)
{
	static char text[TOKEN_KEY_BYTES];
	struct error err = { 0 };
	char token[32];

	snprintf(token, sizeof(token), "token %u", n);
	must(digest_text(token, text, &err), err);
	return text;
}

static enum token_verdict recall(unsigned int n, bool forgive, int64_t now)
{
	json_t *who = NULL;
	enum token_verdict v =
		token_memory_recall(m, key(n), forgive, now, &who);

	ck_assert_ptr_eq(who, v == TOKEN_KNOWN ? somebody : NULL);
	json_decref(who);
	return v;
}

START_TEST(what_is_known_is_known_until_it_ends)
{
	begin();
	ck_assert_int_eq(recall(1, false, NOW), TOKEN_UNKNOWN);
	token_memory_know(m, key(1), somebody, false, LATER);
	ck_assert_int_eq(recall(1, false, LATER - 1), TOKEN_KNOWN);
	ck_assert_int_eq(recall(1, true, LATER - 1), TOKEN_KNOWN);
	ck_assert_int_eq(recall(1, false, LATER), TOKEN_UNKNOWN);
	ck_assert_int_eq(recall(2, false, NOW), TOKEN_UNKNOWN);
	end();
}
END_TEST

START_TEST(an_expired_token_is_for_who_may_forgive_it)
{
	begin();
	token_memory_know(m, key(1), somebody, true, LATER);
	ck_assert_int_eq(recall(1, true, NOW), TOKEN_KNOWN);
	ck_assert_int_eq(recall(1, false, NOW), TOKEN_DENIED);
	/* Who may not forgive asks, and is told no: others may still. */
	token_memory_deny(m, key(1), false, LATER);
	ck_assert_int_eq(recall(1, true, NOW), TOKEN_KNOWN);
	ck_assert_int_eq(recall(1, false, NOW), TOKEN_DENIED);
	token_memory_deny(m, key(1), true, LATER);
	ck_assert_int_eq(recall(1, true, NOW), TOKEN_DENIED);
	end();
}
END_TEST

START_TEST(what_is_denied_may_be_another_with_forgiveness)
{
	begin();
	token_memory_deny(m, key(1), false, LATER);
	ck_assert_int_eq(recall(1, false, LATER - 1), TOKEN_DENIED);
	ck_assert_int_eq(recall(1, true, NOW), TOKEN_UNKNOWN);
	ck_assert_int_eq(recall(1, false, LATER), TOKEN_UNKNOWN);
	token_memory_deny(m, key(2), true, LATER);
	ck_assert_int_eq(recall(2, true, NOW), TOKEN_DENIED);
	ck_assert_int_eq(recall(2, false, NOW), TOKEN_DENIED);
	end();
}
END_TEST

START_TEST(the_last_word_holds)
{
	begin();
	token_memory_deny(m, key(1), false, LATER);
	token_memory_know(m, key(1), somebody, false, LATER);
	ck_assert_int_eq(recall(1, false, NOW), TOKEN_KNOWN);
	token_memory_deny(m, key(1), false, LATER);
	ck_assert_int_eq(recall(1, false, NOW), TOKEN_DENIED);
	token_memory_know(m, key(1), somebody, false, LATER);
	token_memory_know(m, key(1), somebody, true, LATER);
	ck_assert_int_eq(recall(1, false, NOW), TOKEN_DENIED);
	end();
}
END_TEST

START_TEST(made_up_tokens_drive_out_no_others)
{
	unsigned int i;

	begin();
	for (i = 0; i < 100; i++)
		token_memory_know(m, key(i), somebody, false, LATER);
	for (i = 1000; i < 20000; i++)
		token_memory_deny(m, key(i), false, LATER);
	for (i = 0; i < 100; i++)
		ck_assert_int_eq(recall(i, false, NOW), TOKEN_KNOWN);
	ck_assert_int_eq(recall(19999, false, NOW), TOKEN_DENIED);
	end();
}
END_TEST

START_TEST(there_is_room_for_many_and_no_more)
{
	unsigned int i, n = 0;

	begin();
	for (i = 0; i < 2000; i++)
		token_memory_know(m, key(i), somebody, false, LATER + i);
	for (i = 0; i < 2000; i++)
		n += recall(i, false, NOW) == TOKEN_KNOWN;
	ck_assert_uint_ge(n, 1900);
	for (i = 2000; i < 20000; i++)
		token_memory_know(m, key(i), somebody, false, LATER + i);
	/* What would end first has gone. */
	for (i = 0, n = 0; i < 2000; i++)
		n += recall(i, false, NOW) == TOKEN_KNOWN;
	ck_assert_uint_eq(n, 0);
	ck_assert_int_eq(recall(19999, false, NOW), TOKEN_KNOWN);
	end();
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, what_is_known_is_known_until_it_ends);
	tcase_add_test(tc, an_expired_token_is_for_who_may_forgive_it);
	tcase_add_test(tc, what_is_denied_may_be_another_with_forgiveness);
	tcase_add_test(tc, the_last_word_holds);
	tcase_add_test(tc, made_up_tokens_drive_out_no_others);
	tcase_add_test(tc, there_is_room_for_many_and_no_more);
}

int main(void)
{
	return unit_main("token-memory", add);
}
