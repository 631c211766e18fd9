/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * GET /healthcheck: what a load balancer asks, answered as oslo.middleware
 * does, with reasons of our own. An operator takes the server out by making a
 * file.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "glance/glance.h"
#include "glance/routes.h"

#define REASONS_MAX 3

/* Why we should be asked nothing; 0: we may. */
struct health {
	const char *reasons[REASONS_MAX];
	size_t n;
};

static bool index_answers(struct glance *g)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;

	return index_read(g->index, &tx, NULL) >= 0 &&
	       index_sql(tx, "SELECT n FROM images LIMIT 1", &st, NULL) >= 0 &&
	       index_step(st, NULL) >= 0;
}

static struct health look(struct glance *g)
{
	const char *file = g->config->health_disable;
	struct health h = { 0 };

	if (file && !access(file, F_OK))
		h.reasons[h.n++] = "DISABLED BY FILE";
	if (!index_answers(g))
		h.reasons[h.n++] = "INDEX DOES NOT ANSWER";
	if (access(g->config->store, W_OK | X_OK) < 0)
		h.reasons[h.n++] = "STORE CANNOT BE WRITTEN";
	return h;
}

static void add_json(struct text_buf *b, const struct health *h)
{
	size_t i;

	text_add(b, "{\n    \"detailed\": false,\n    \"reasons\": [");
	for (i = 0; i < (h->n ? h->n : 1); i++) {
		text_add(b, i ? ",\n        " : "\n        ");
		text_add_json(b, h->n ? h->reasons[i] : "OK");
	}
	text_add(b, "\n    ]\n}");
}

static void add_html(struct text_buf *b, const struct health *h)
{
	size_t i;

	text_addf(b,
		  "<HTML>\n<HEAD><TITLE>Healthcheck Status</TITLE></HEAD>\n"
		  "<BODY>\n<H2>Result of %zu check%s:</H2>\n"
		  "<TABLE bgcolor=\"#ffffff\" border=\"1\">\n<TBODY>\n"
		  "<TR>\n<TH>\nReason\n</TH>\n</TR>\n",
		  h->n ? h->n : (size_t)1, h->n > 1 ? "s" : "");
	for (i = 0; i < (h->n ? h->n : 1); i++)
		text_addf(b, "<TR>\n    <TD>%s</TD>\n</TR>\n",
			  h->n ? h->reasons[i] : "OK");
	text_add(b, "</TBODY>\n</TABLE>\n<HR></HR>\n\n</BODY>\n</HTML>");
}

static void add_text(struct text_buf *b, const struct health *h)
{
	size_t i;

	for (i = 0; i < h->n; i++)
		text_addf(b, "%s%s", i ? "\n" : "", h->reasons[i]);
	if (!h->n)
		text_add(b, "OK");
}

/* Text, unless another kind that there is stands first. */
static const char *wanted_type(const struct request *q)
{
	static const char *const types[] = { "text/plain", "text/html",
					     "application/json" };
	const char *accept = request_header(q, "Accept"), *found = NULL, *p;
	const char *ret = types[0];
	size_t i;

	for (i = 0; accept && i < ARRAY_SIZE(types); i++) {
		p = strstr(accept, types[i]);
		if (!p || (found && p > found))
			continue;
		found = p;
		ret = types[i];
	}
	return ret;
}

static void get_health(struct request *q)
{
	const struct health h = look(q->app);
	const char *type = wanted_type(q);
	struct text_buf b = { 0 };

	if (q->method == HTTP_HEAD) {
		respond_empty(q, h.n ? 503 : 204);
		return;
	}
	if (!strcmp(type, "application/json"))
		add_json(&b, &h);
	else if (!strcmp(type, "text/html"))
		add_html(&b, &h);
	else
		add_text(&b, &h);
	respond_text(q, h.n ? 503 : 200,
		     !strcmp(type, "application/json")
			     ? type
			     : (!strcmp(type, "text/html")
					? "text/html; charset=UTF-8"
					: "text/plain; charset=UTF-8"),
		     text_buf_take(&b));
}

const struct route health_routes[] = {
	{ HTTP_GET, "/healthcheck", get_health, NULL,
	  ROUTE_PUBLIC | ROUTE_ANY_VERSION },
	{ 0 },
};
