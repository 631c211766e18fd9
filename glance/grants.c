/* SPDX-License-Identifier: BSD-3-Clause */
/* POST /v2/images/ID/grants: the right to open it over NBD. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/glance.h"
#include "glance/image-json.h"
#include "glance/json-body.h"
#include "glance/routes.h"

struct wish {
	bool writable;
	int64_t seconds;
};

/* Without a body, to read, for an hour. False: answered. */
static bool take_wish(struct request *q, struct wish *ret)
{
	CLEANUP(json_decrefp) json_t *body = NULL;
	const json_t *mode, *seconds;

	*ret = (struct wish){ .seconds = GRANT_SEC };
	if (!q->body.len)
		return true;
	body = request_json_object(q);
	if (!body)
		return false;
	mode = json_object_get(body, "mode");
	seconds = json_object_get(body, "seconds");
	if (mode && (!json_is_string(mode) ||
		     (strcmp(json_string_value(mode), "r") != 0 &&
		      strcmp(json_string_value(mode), "w") != 0))) {
		respond_error(q, 400, "mode is \"r\", or \"w\" for overlays");
		return false;
	}
	if (seconds &&
	    (!json_is_integer(seconds) || json_integer_value(seconds) < 1 ||
	     json_integer_value(seconds) > GRANT_SEC_MAX)) {
		respond_errorf(q, 400, "seconds is 1 to %d", GRANT_SEC_MAX);
		return false;
	}
	ret->writable = mode && !strcmp(json_string_value(mode), "w");
	if (seconds)
		ret->seconds = json_integer_value(seconds);
	return true;
}

static void respond_grant(struct request *q, const char *id,
			  const struct wish *w)
{
	struct glance *g = q->app;
	int64_t expires = time_now_usec() / 1000000 + w->seconds;
	char text[GRANT_TEXT_BYTES], when[21];
	struct error err = { 0 };

	if (grant_mint(&g->grant_key, id, w->writable, expires, text, &err) <
	    0) {
		respond_failure(q, &err);
		return;
	}
	time_format(expires * 1000000, when);
	respond_json_value(
		q, 201,
		json_pack("{s:s, s:s, s:s, s:o, s:s}", "image_id", id, "mode",
			  w->writable ? "w" : "r", "grant", text, "export",
			  json_sprintf("%s~%s", id, text), "expires_at", when));
}

/* Who may read the data may have it. */
static void post_grant(struct request *q)
{
	CLEANUP(record_done) struct record image = { 0 };
	struct wish w;

	if (!take_wish(q, &w) || image_of_request(q, &image) < 0)
		return;
	if (image.status == IMAGE_DEACTIVATED && !q->who.admin)
		respond_error(q, 403,
			      "The requested image has been deactivated. Image "
			      "data download is forbidden.");
	else
		respond_grant(q, image.id, &w);
}

const struct route grant_routes[] = {
	{ HTTP_POST, "/v2/images/{}/grants", post_grant },
	{ 0 },
};
