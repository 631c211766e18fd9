/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "iouring/sources/s3-sign.h"
#include "tests/lib/unit.h"

static struct error err;

/* "Signature Calculations for the Authorization Header", Amazon's examples. */
#define KEYS "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#define THEN 1369353600 /* 20130524T000000Z */

static const struct {
	const char *url, *signature;
} signed_as[] = {
	{ "https://examplebucket.s3.amazonaws.com/?lifecycle",
	  "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543" },
	{ "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J",
	  "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7" },
	{ "https://examplebucket.s3.amazonaws.com/?prefix=J&max-keys=2",
	  "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7" },
};

START_TEST(examples_are_signed_as_they_are)
{
	CLEANUP(url_done) struct url u = { 0 };
	CLEANUP(freep) char *text = NULL;
	struct s3_signature s;

	must(s3_sign_load(&err), err);
	must(url_parse(signed_as[_i].url, &u, &err), err);
	ck_assert_int_eq(s3_sign(&u, KEYS, "us-east-1", THEN, &s), 0);
	text = s.authorization;
	ck_assert_str_eq(s.date, "20130524T000000Z");
	ck_assert_ptr_nonnull(strstr(
		text, "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/"
		      "aws4_request,SignedHeaders=host;x-amz-content-sha256;"
		      "x-amz-date,"));
	ck_assert_str_eq(strstr(text, "Signature=") + 10,
			 signed_as[_i].signature);
}
END_TEST

static const struct {
	const char *keys, *access, *session;
} keys[] = {
	{ "a:b", "Credential=a/", NULL },
	{ "a:b:", "Credential=a/", NULL },
	{ "a:b:c:d", "Credential=a/", "c:d" },
	{ "a%3Ab%3:c", "Credential=a:b%3/", NULL },
	{ "", NULL, NULL },
	{ "a", NULL, NULL },
	{ ":a", NULL, NULL },
	{ "a:", NULL, NULL },
};

START_TEST(keys_are_taken_apart)
{
	CLEANUP(url_done) struct url u = { 0 };
	struct s3_signature s = { 0 };
	int r;

	must(s3_sign_load(&err), err);
	must(url_parse("http://h/", &u, &err), err);
	r = s3_sign(&u, keys[_i].keys, "r", THEN, &s);
	ck_assert_int_eq(r, keys[_i].access ? 0 : -EINVAL);
	ck_assert_pstr_eq(s3_session(keys[_i].keys), keys[_i].session);
	if (!r)
		ck_assert_ptr_nonnull(strstr(s.authorization, keys[_i].access));
	free(s.authorization);
}
END_TEST

static const struct {
	const char *path, *sent;
} paths[] = {
	{ "/", "/" },
	{ "/a/b-c_d.e~f", "/a/b-c_d.e~f" },
	{ "/a+b=c&d@e", "/a%2Bb%3Dc%26d%40e" },
	{ "/%61%2f%7e%c3%a9", "/a/~%C3%A9" },
	{ "/100%", "/100%25" },
	{ "/%2", "/%252" },
	{ "/%zz", "/%25zz" },
	{ "/%00", "/%00" },
};

START_TEST(a_path_is_sent_as_it_is_signed)
{
	CLEANUP(freep) char *path = s3_path(paths[_i].path);

	ck_assert_str_eq(path, paths[_i].sent);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, examples_are_signed_as_they_are, 0,
			    ARRAY_SIZE(signed_as));
	tcase_add_loop_test(tc, keys_are_taken_apart, 0, ARRAY_SIZE(keys));
	tcase_add_loop_test(tc, a_path_is_sent_as_it_is_signed, 0,
			    ARRAY_SIZE(paths));
}

int main(void)
{
	return unit_main("s3-sign", add);
}
