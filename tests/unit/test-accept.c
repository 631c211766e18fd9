/* SPDX-License-Identifier: BSD-3-Clause */
#include "glance/http/accept.h"
#include "tests/lib/unit.h"

/* As webob, which answers for Glance, has it. */
static const struct {
	const char *header; /* NULL: absent */
	enum accept_kind kind;
} headers[] = {
	{ NULL, ACCEPT_TEXT },
	{ "", ACCEPT_TEXT },
	{ "*/*", ACCEPT_HTML },
	{ "text/*", ACCEPT_HTML },
	{ "text/plain", ACCEPT_TEXT },
	{ "image/png", ACCEPT_TEXT },
	{ "application/json", ACCEPT_JSON },
	{ "Application/JSON", ACCEPT_JSON },
	{ "application/*;q=0.1", ACCEPT_JSON },
	{ "text/html, application/json", ACCEPT_HTML },
	{ "application/json, text/html", ACCEPT_HTML },
	{ "text/html;q=0.5,application/json", ACCEPT_JSON },
	{ "text/html ; q=0.5 , application/json ; q=0.501", ACCEPT_JSON },
	{ "application/json;q=0.9, */*;q=0.1", ACCEPT_JSON },
	{ "application/json;q=0.1, */*", ACCEPT_HTML },
	{ "text/html;q=0, */*", ACCEPT_JSON },
	{ "*/*, text/html;q=0", ACCEPT_JSON },
	{ "text/html;q=0, application/json;q=0", ACCEPT_TEXT },
	/* One with parameters is another type. */
	{ "text/html;level=1", ACCEPT_TEXT },
	{ "text/html;v=\"a,\\\"b\", application/json", ACCEPT_JSON },
	/* What cannot be understood */
	{ "json", ACCEPT_HTML },
	{ "application/json x", ACCEPT_HTML },
	{ "application/json;q=2", ACCEPT_HTML },
	{ "application/json;q", ACCEPT_HTML },
	{ "application/json;v=\"a", ACCEPT_HTML },
	{ "application/json;v=\"\\", ACCEPT_HTML },
	{ "application/", ACCEPT_HTML },
	{ "/json", ACCEPT_HTML },
};

START_TEST(a_refusal_is_of_the_kind_that_is_asked_for)
{
	ck_assert_msg(accept_refusal(headers[_i].header) == headers[_i].kind,
		      "%s", headers[_i].header ? headers[_i].header : "(none)");
}
END_TEST

static void add(TCase *tc)
{
	LOOP(tc, a_refusal_is_of_the_kind_that_is_asked_for, headers);
}

int main(void)
{
	return unit_main("accept", add);
}
