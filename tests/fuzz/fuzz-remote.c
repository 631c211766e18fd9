/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What other servers send and what names them, FUZZ_INPUT: "http-answer" (an
 * answer's headers), "url", or "trace" (nbd/trace.h). Built and run as fuzz-format.c
 * is.
 */
#include <stdio.h>
#include <string.h>

#include "iouring/sources/http-answer.h"
#include "iouring/sources/object-store.h"
#include "nbd/trace.h"
#include "tests/fuzz/replay.h"

/* A string of @data, to be freed. */
static char *text_of(const uint8_t *data, size_t bytes)
{
	char *text = malloc(bytes + 1);

	MUST(text, "no memory");
	memcpy(text, data, bytes);
	text[bytes] = '\0';
	return text;
}

/* ---- http-answer; true: some of it would be used ---- */

static bool judge(const struct http_answer *a, const struct http_want *w)
{
	struct error why = { 0 };
	enum http_verdict v = http_answer_judge(a, w, &why);

	if (v != HTTP_DATA) {
		MUST(v == HTTP_EMPTY || v == HTTP_MOVED || why.code < 0,
		     "verdict %d without a reason", (int)v);
		return v == HTTP_EMPTY || v == HTTP_WHOLE;
	}
	MUST(a->status == 206 && !a->encoded, "status %u", a->status);
	MUST(a->first == w->off && a->first <= a->last &&
		     a->last - a->first < w->len,
	     "bytes that were not asked for");
	MUST(a->last < a->bytes && a->bytes <= INT64_MAX, "past the end");
	MUST(w->bytes == HTTP_SIZE_NONE || w->bytes == a->bytes,
	     "another size");
	return true;
}

static bool try_answer(const char *text)
{
	static const struct http_want wants[] = {
		{ 0, 1, HTTP_SIZE_NONE, "", "" },
		{ 0, 1, 1000, "\"1\"", "" },
		{ 100, 50, 1000, "", "Mon" },
		{ UINT64_MAX / 2, 1, UINT64_MAX / 2 + 1, "", "" },
	};
	struct http_answer a = { 0 };
	bool used = false;
	size_t i, len;

	for (; *text; text += len) {
		len = strcspn(text, "\n");
		len += text[len] == '\n';
		http_answer_line(&a, text, len);
	}
	MUST(strnlen(a.etag, HTTP_VERSION_BYTES) < HTTP_VERSION_BYTES &&
		     strnlen(a.modified, HTTP_VERSION_BYTES) <
			     HTTP_VERSION_BYTES,
	     "a version without an end");
	for (i = 0; i < ARRAY_SIZE(wants); i++)
		used |= judge(&a, &wants[i]);
	return used;
}

/* ---- url ---- */

static struct url parsed(const char *text)
{
	struct error err = { 0 };
	struct url u;

	MUST(url_parse(text, &u, &err) >= 0, "%s: %s", text, err.msg);
	return u;
}

static void check_resolved(const struct url *u, bool about)
{
	static char endpoint[] = "http://h:81/v1/";
	const struct credentials c = { .endpoint = endpoint };
	CLEANUP(url_done) struct url to = { 0 }, again = { 0 };
	CLEANUP(freep) char *text = NULL;
	struct error err = { 0 };

	if (object_store_resolve(u, &c, about, &to, &err) < 0)
		return;
	text = url_text(&to);
	again = parsed(text);
	MUST(!strcmp(again.host, "h") && again.port == 81 && !again.query,
	     "%s leads elsewhere", text);
	MUST(!strncmp(again.path, "/v1/", 4), "%s: another folder", text);
}

/* "URL" or "URL NAME", which is beside it. True: it is, and can be. */
static bool try_url(char *text)
{
	CLEANUP(url_done) struct url u = { 0 }, again = { 0 };
	CLEANUP(url_done) struct url beside = { 0 }, named = { 0 };
	CLEANUP(freep) char *asked = NULL;
	CLEANUP(freep) char *people = NULL;
	CLEANUP(freep) char *name = NULL;
	CLEANUP(freep) char *joined = NULL;
	char *space = strchr(text, ' ');
	struct error err = { 0 };

	if (space)
		*space = '\0';
	people = url_for_people(text);
	MUST(people, "no memory");
	if (url_parse(text, &u, &err) < 0)
		return false;
	asked = url_text(&u);
	again = parsed(asked);
	MUST(url_is_same_origin(&u, &again) && !strcmp(u.path, again.path),
	     "%s is not %s", asked, text);
	name = url_name(&u);
	named = parsed(name);
	MUST(url_is_same_origin(&u, &named) && !named.login, "%s is called %s",
	     text, name);
	if (url_is_store(asked)) {
		check_resolved(&u, false);
		check_resolved(&u, true);
	}
	if (!space)
		return true;
	if (url_join(&u, space + 1, &joined) < 0)
		return false;
	beside = parsed(joined);
	*(strrchr(again.path, '/') + 1) = '\0';
	MUST(url_is_same_origin(&u, &beside) &&
		     !strncmp(beside.path, again.path, strlen(again.path)),
	     "%s is not beside %s", joined, text);
	return true;
}

/* ---- trace ---- */

static bool try_trace(const char *text, size_t bytes)
{
	CLEANUP(trace_done) struct trace t = { 0 }, again = { 0 };
	CLEANUP(freep) char *out = NULL;
	struct error err = { 0 };
	size_t len, i;
	FILE *fp;

	if (trace_parse(text, bytes, &t, &err) < 0)
		return false;
	for (i = 0; i < t.n; i++)
		MUST(t.ranges[i].len && t.ranges[i].off < t.bytes &&
			     t.ranges[i].len <= t.bytes - t.ranges[i].off,
		     "range %zu lies outside", i);
	fp = open_memstream(&out, &len);
	MUST(fp, "no memory");
	trace_write(&t, fp);
	fclose(fp);
	MUST(trace_parse(out, len, &again, &err) >= 0, "%s", err.msg);
	MUST(again.bytes == t.bytes && again.n == t.n &&
		     (!t.n ||
		      !memcmp(again.ranges, t.ranges, t.n * sizeof(*t.ranges))),
	     "it is written as another one");
	return true;
}

static void run(const uint8_t *data, size_t bytes, struct replay_outcome *ret)
{
	char *text = text_of(data, bytes);

	*ret = (struct replay_outcome){ 0 };
	if (!strcmp(FUZZ_INPUT, "http-answer"))
		ret->refused = !try_answer(text);
	else if (!strcmp(FUZZ_INPUT, "url"))
		ret->refused = !try_url(text);
	else
		ret->refused = !try_trace(text, bytes);
	free(text);
}

FUZZ_ENTRY(run)
