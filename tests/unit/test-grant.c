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

/* As they were before there were projects. */
static const char old_grant[] = "r6b49d200-0123456789abcdef0123456789abcdef"
				"0123456789abcdef0123456789abcdef";

static struct error err;
static struct grant_key key;
static struct grant got;

static void mint(const struct grant *g, char *ret)
{
	unlink(unit_path("key"));
	must(grant_key_open(unit_path("key"), &key, &err), err);
	must(grant_mint(&key, IMAGE, g, ret, &err), err);
}

static void make(bool writable, char *ret)
{
	struct grant g = { .writable = writable,
			   .expires = NOW,
			   .project = "p1",
			   .overlay = "vm1" };

	if (!writable)
		*g.overlay = '\0';
	mint(&g, ret);
}

static bool opens(const char *text, const char *image, int64_t now)
{
	return grant_open(&key, text, image, now, &got);
}

START_TEST(a_grant_says_again_what_it_was_made_of)
{
	static const struct grant grants[] = {
		{ .expires = 0 },
		{ .expires = NOW, .project = "p1" },
		{ .expires = NOW, .admin = true },
		{ .writable = true,
		  .expires = INT64_MAX >> 4,
		  .project = "a-b/..\xc3\xa9",
		  .overlay = GRANT_ANY_OVERLAY },
		{ .writable = true,
		  .admin = true,
		  .expires = NOW,
		  .project = "0123456789abcdef0123456789abcdef",
		  .overlay = "vm-1_2.3" },
	};
	const struct grant *g = &grants[_i];
	char text[GRANT_TEXT_BYTES];

	mint(g, text);
	ck_assert(opens(text, IMAGE, g->expires));
	ck_assert_int_eq(got.writable, g->writable);
	ck_assert_int_eq(got.admin, g->admin);
	ck_assert_int_eq(got.expires, g->expires);
	ck_assert_str_eq(got.project, g->project);
	ck_assert_str_eq(got.overlay, g->overlay);
	ck_assert(!opens(text, OTHER, 0));
	ck_assert(!opens(text, IMAGE, g->expires + 1));
}
END_TEST

START_TEST(the_longest_fits)
{
	struct grant g = { .writable = true, .expires = INT64_MAX >> 4 };
	char text[GRANT_TEXT_BYTES];

	memset(g.project, 'p', GRANT_PROJECT_MAX);
	memset(g.overlay, 'o', GRANT_OVERLAY_MAX);
	mint(&g, text);
	ck_assert(opens(text, IMAGE, NOW));
	ck_assert_str_eq(got.project, g.project);
}
END_TEST

START_TEST(an_overlay_is_for_who_may_write_it)
{
	struct grant any = { .writable = true, .overlay = GRANT_ANY_OVERLAY };
	struct grant one = { .writable = true, .overlay = "vm1" };
	struct grant read = { .overlay = "vm1" }, none = { .writable = true };

	ck_assert(grant_covers(&any, NULL) && grant_covers(&any, "vm1"));
	ck_assert(grant_covers(&one, NULL) && grant_covers(&one, "vm1"));
	ck_assert(!grant_covers(&one, "vm2") && !grant_covers(&one, "*"));
	ck_assert(grant_covers(&read, NULL) && !grant_covers(&read, "vm1"));
	ck_assert(!grant_covers(&none, "vm1"));
}
END_TEST

START_TEST(any_other_text_is_none)
{
	static const char *const texts[] = {
		"",
		"r",
		"r-",
		"w6b49d200",
		"x1-",
		"r-1",
		"r6b49d200-",
		"rffffffffffffffffffff-00",
		"r6b49d200--",
		"r6b49d200---",
		"r6b49d200-7-",
		"r6b49d200-00--",
		"r6b49d200-7031-",
		old_grant,
	};
	char text[GRANT_TEXT_BYTES], bad[GRANT_TEXT_BYTES + 8];
	size_t i;

	make(_i, text);
	ck_assert(opens(text, IMAGE, 0));
	for (i = 0; i < strlen(text); i++) {
		strcpy(bad, text);
		bad[i] = bad[i] == '1' ? '2' : '1';
		ck_assert_msg(!opens(bad, IMAGE, 0), "byte %zu", i);
	}
	for (i = 0; i < strlen(text); i++) {
		strcpy(bad, text);
		bad[i] = '\0';
		ck_assert(!opens(bad, IMAGE, 0));
	}
	strcpy(bad, text);
	strcat(bad, "0");
	ck_assert(!opens(bad, IMAGE, 0));
	/* One spelling alone. */
	for (i = 0; i < ARRAY_SIZE(texts); i++)
		ck_assert_msg(!opens(texts[i], IMAGE, 0), "%s", texts[i]);
}
END_TEST

START_TEST(no_part_passes_into_another)
{
	struct grant g = { .writable = true,
			   .expires = NOW,
			   .project = "p",
			   .overlay = "1vm" };
	char text[GRANT_TEXT_BYTES], other[GRANT_TEXT_BYTES];
	char *dash;

	mint(&g, text);
	strcpy(g.project, "p1");
	strcpy(g.overlay, "vm");
	must(grant_mint(&key, IMAGE, &g, other, &err), err);
	/* Its parts with the first one's HMAC. */
	dash = strrchr(other, '-');
	strcpy(dash, strrchr(text, '-'));
	ck_assert(!opens(other, IMAGE, 0));
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
	ck_assert(grant_open(&again, text, IMAGE, NOW, &got));
	unlink(unit_path("key"));
	must(grant_key_open(unit_path("key"), &again, &err), err);
	ck_assert(!grant_open(&again, text, IMAGE, NOW, &got));
	ck_assert_int_eq(truncate(unit_path("key"), 5), 0);
	ck_assert_int_eq(grant_key_open(unit_path("key"), &again, &err),
			 -EBADMSG);
	error_clear(&err);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, a_grant_says_again_what_it_was_made_of, 0, 5);
	tcase_add_test(tc, the_longest_fits);
	tcase_add_test(tc, an_overlay_is_for_who_may_write_it);
	tcase_add_loop_test(tc, any_other_text_is_none, 0, 2);
	tcase_add_test(tc, no_part_passes_into_another);
	tcase_add_test(tc, the_key_stays_until_it_is_removed);
}

int main(void)
{
	return unit_main("grant", add);
}
