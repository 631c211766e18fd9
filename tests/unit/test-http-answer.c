/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "iouring/sources/http-answer.h"
#include "tests/lib/unit.h"

#define BYTES 1000U

static void take(struct http_answer *a, const char *text)
{
	const char *end;

	for (; *text; text = end) {
		end = strchr(text, '\n') + 1;
		http_answer_line(a, text, (size_t)(end - text));
	}
}

/* Asked for: 100 bytes at 100 of 1000, "v" and "d" unless it says else. */
static const struct {
	const char *headers;
	enum http_verdict verdict;
	const char *says;
} answers[] = {
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 100-199/1000\r\n"
	  "ETag: \"v\"\r\n",
	  HTTP_DATA, NULL },
	{ "HTTP/2 206\r\ncontent-range: bytes 100-100/1000\r\netag: \"v\"\r\n",
	  HTTP_DATA, NULL },
	/* The last of several answers counts. */
	{ "HTTP/1.1 100 Continue\r\nETag: \"w\"\r\n\r\n"
	  "HTTP/1.1 206 x\r\nContent-Range: bytes 100-199/1000\r\n"
	  "ETag: \"v\"\r\n",
	  HTTP_DATA, NULL },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 100-199/1000\r\n"
	  "ETag: \"w\"\r\n",
	  HTTP_CHANGED, "changed" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 100-199/1001\r\n"
	  "ETag: \"v\"\r\n",
	  HTTP_CHANGED, "changed" },
	/* One that says nothing of it may be of any. */
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 100-199/1000\r\n",
	  HTTP_CHANGED, "changed" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 100-199/1000\r\n"
	  "ETag: W/\"v\"\r\n",
	  HTTP_CHANGED, "changed" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 100-199/1000\r\n"
	  "ETag: W/\"v\"\r\nLast-Modified: d\r\n",
	  HTTP_DATA, NULL },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 101-199/1000\r\n"
	  "ETag: \"v\"\r\n",
	  HTTP_WRONG, "bytes 101-199 where 100-199" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 100-200/1000\r\n"
	  "ETag: \"v\"\r\n",
	  HTTP_WRONG, "bytes 100-200 where 100-199" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 199-100/1000\r\n", HTTP_WRONG,
	  "which bytes" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 100-1000/1000\r\n",
	  HTTP_WRONG, "which bytes" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 100-199\r\n", HTTP_WRONG,
	  "which bytes" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 1x-199/1000\r\n", HTTP_WRONG,
	  "which bytes" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 0-0/18446744073709551616\r\n",
	  HTTP_WRONG, "which bytes" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 0-0/9223372036854775808\r\n",
	  HTTP_WRONG, "which bytes" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes */1000\r\n", HTTP_WRONG,
	  "which bytes" },
	{ "HTTP/1.1 206 x\r\nContent-Range: lines 100-199/1000\r\n", HTTP_WRONG,
	  "which bytes" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 100-199/*\r\nETag: \"v\"\r\n",
	  HTTP_WRONG, "no size" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 100-199/1000\r\n"
	  "ETag: \"v\"\r\nContent-Encoding: gzip\r\n",
	  HTTP_WRONG, "encoding" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 100-199/1000\r\n"
	  "ETag: \"v\"\r\nContent-Encoding: identity\r\n",
	  HTTP_DATA, NULL },
	{ "HTTP/1.1 200 x\r\nETag: \"v\"\r\n", HTTP_WRONG, "all of it" },
	{ "HTTP/1.1 302 x\r\n", HTTP_MOVED, NULL },
	{ "HTTP/1.1 304 x\r\n", HTTP_WRONG, "304" },
	{ "HTTP/1.1 401 x\r\n", HTTP_DENIED, "denied" },
	{ "HTTP/1.1 404 x\r\n", HTTP_GONE, "no such file" },
	{ "HTTP/1.1 412 x\r\n", HTTP_CHANGED, "changed" },
	{ "HTTP/1.1 416 x\r\n", HTTP_NO_RANGE, "100-199" },
	{ "HTTP/1.1 429 x\r\n", HTTP_BUSY, "429" },
	{ "HTTP/1.1 503 x\r\n", HTTP_BUSY, "503" },
	{ "HTTP/1.1 501 x\r\n", HTTP_WRONG, "501" },
	{ "HTTP/1.1\r\n", HTTP_WRONG, "answers 0" },
};

START_TEST(only_what_was_asked_for_is_used)
{
	const struct http_want w = { .off = 100,
				     .len = 100,
				     .bytes = BYTES,
				     .etag = "\"v\"",
				     .modified = "d" };
	struct http_answer a = { 0 };
	struct error why = { 0 };

	take(&a, answers[_i].headers);
	ck_assert_msg(http_answer_judge(&a, &w, &why) == answers[_i].verdict,
		      "%s%s", answers[_i].headers, why.msg);
	if (answers[_i].says)
		unit_says(&why, answers[_i].says);
	else
		ck_assert_int_eq(why.code, 0);
}
END_TEST

static const struct {
	const char *headers;
	enum http_verdict verdict;
	uint64_t bytes;
	const char *etag, *modified;
} probes[] = {
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 0-0/1000\r\n"
	  "ETag: \"v\"\r\nLast-Modified: d\r\n",
	  HTTP_DATA, 1000, "\"v\"", "d" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 0-0/1000\r\n"
	  "ETag: W/\"v\"\r\n",
	  HTTP_DATA, 1000, "", "" },
	{ "HTTP/1.1 206 x\r\nContent-Range: bytes 0-0/1000\r\nETag: v\r\n",
	  HTTP_DATA, 1000, "", "" },
	{ "HTTP/1.1 416 x\r\nContent-Range: bytes */0\r\n", HTTP_EMPTY, 0, "",
	  "" },
	{ "HTTP/1.1 416 x\r\nContent-Range: bytes */7\r\n", HTTP_NO_RANGE, 7,
	  "", "" },
};

START_TEST(the_first_answer_says_what_it_is)
{
	const struct http_want w = {
		.len = 1, .bytes = HTTP_SIZE_NONE, .etag = "", .modified = ""
	};
	struct http_answer a = { 0 };
	struct error why = { 0 };

	take(&a, probes[_i].headers);
	ck_assert_int_eq(http_answer_judge(&a, &w, &why), probes[_i].verdict);
	ck_assert_uint_eq(a.bytes, probes[_i].bytes);
	ck_assert_str_eq(a.etag, probes[_i].etag);
	ck_assert_str_eq(a.modified, probes[_i].modified);
}
END_TEST

static const struct {
	const char *value;
	bool no_store;
	unsigned int max_age;
} ages[] = {
	{ "max-age=60", false, 60 },
	{ "public, max-age=5, immutable", false, 5 },
	{ "no-store", true, 0 },
	{ "max-age=0", true, 0 },
	{ "max-age=x", true, 0 },
	{ "max-age=99999999999", false, INT32_MAX },
	{ "private", false, 0 },
};

START_TEST(it_is_told_how_long_an_answer_lives)
{
	struct http_answer a = { 0 };
	char line[128];
	int n = snprintf(line, sizeof(line), "Cache-Control: %s\r\n",
			 ages[_i].value);

	http_answer_line(&a, line, (size_t)n);
	ck_assert_int_eq(a.no_store, ages[_i].no_store);
	ck_assert_uint_eq(a.max_age, ages[_i].max_age);
}
END_TEST

START_TEST(headers_have_an_end)
{
	const struct http_want w = {
		.len = 1, .bytes = HTTP_SIZE_NONE, .etag = "", .modified = ""
	};
	static char line[8192];
	struct http_answer a = { 0 };
	struct error why = { 0 };
	unsigned int i;

	memset(line, 'x', sizeof(line));
	take(&a, "HTTP/1.1 206 x\r\nContent-Range: bytes 0-0/9\r\n");
	for (i = 0; i < 7; i++)
		http_answer_line(&a, line, sizeof(line));
	ck_assert_int_eq(http_answer_judge(&a, &w, &why), HTTP_DATA);
	http_answer_line(&a, line, sizeof(line));
	/* Nor do many answers help. */
	take(&a, "HTTP/1.1 206 x\r\nContent-Range: bytes 0-0/9\r\n");
	ck_assert_int_eq(http_answer_judge(&a, &w, &why), HTTP_WRONG);
	unit_says(&why, "64 KiB of headers");
}
END_TEST

START_TEST(an_etag_that_is_too_long_is_none)
{
	char line[HTTP_VERSION_BYTES + 32];
	struct http_answer a = { 0 };

	memset(line, 'x', sizeof(line));
	memcpy(line, "ETag: \"", 7);
	line[6 + HTTP_VERSION_BYTES - 2] = '"';
	http_answer_line(&a, line, 6 + HTTP_VERSION_BYTES - 1);
	ck_assert_uint_eq(strlen(a.etag), HTTP_VERSION_BYTES - 1);
	line[6 + HTTP_VERSION_BYTES - 2] = 'x';
	line[6 + HTTP_VERSION_BYTES - 1] = '"';
	http_answer_line(&a, line, 6 + HTTP_VERSION_BYTES);
	ck_assert_str_eq(a.etag, "");
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, only_what_was_asked_for_is_used, answers);
	LOOP(tc, the_first_answer_says_what_it_is, probes);
	LOOP(tc, it_is_told_how_long_an_answer_lives, ages);
	tcase_add_test(tc, headers_have_an_end);
	tcase_add_test(tc, an_etag_that_is_too_long_is_none);
}

int main(void)
{
	return unit_main("http-answer", add);
}
