/* SPDX-License-Identifier: BSD-3-Clause */
/* POST /v2/images/ID/grants: the right to open it over NBD. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/glance.h"
#include "glance/image-json.h"
#include "glance/http/json-body.h"
#include "glance/routes.h"
#include "glance/http/uri.h"
#include "glance/time-text.h"

/* False: answered; else @ret is the body's text, or @otherwise. */
static bool take_text(struct request *q, const json_t *body, const char *name,
		      size_t max, const char *otherwise, char *ret)
{
	const json_t *v = json_object_get(body, name);
	const char *text = v ? json_string_value(v) : otherwise;

	if (!text || strlen(text) > max || !uri_text_ok(text)) {
		respond_errorf(q, 400, "%s is a text of at most %zu bytes",
			       name, max);
		return false;
	}
	memcpy(ret, text, strlen(text) + 1);
	return true;
}

/* Writing is for who may write in his project, and in it alone. */
static bool check_writer(struct request *q, const struct grant *g, bool named)
{
	const struct glance *app = q->app;

	if (!q->who.member && !q->who.admin)
		respond_error(q, 403,
			      "You are not authorized to write overlays.");
	else if (!*g->overlay)
		respond_error(q, 400, "overlay is a name, or \"*\" for any");
	else if (!*g->project && !named && auth_asks(app->auth))
		respond_error(q, 400,
			      "project is missing: the token is for none");
	else
		return true;
	return false;
}

static bool take_mode(struct request *q, const json_t *body, struct grant *ret)
{
	const json_t *mode = json_object_get(body, "mode");
	const json_t *seconds = json_object_get(body, "seconds");

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
	ret->expires = time_now_usec() / 1000000 +
		       (seconds ? json_integer_value(seconds) : GRANT_SEC);
	return true;
}

/* Without a body, to read, for an hour. False: answered. */
static bool take_wish(struct request *q, struct grant *ret)
{
	CLEANUP(json_decrefp) json_t *body = NULL;
	bool named;

	*ret = (struct grant){ .admin = q->who.admin };
	body = q->body.len ? request_json_object(q) : json_object();
	if (!body || !take_mode(q, body, ret))
		return false;
	named = json_object_get(body, "project");
	if (named && !q->who.admin) {
		respond_error(q, 403,
			      "You are not authorized to name a project.");
		return false;
	}
	if (!ret->writable && json_object_get(body, "overlay")) {
		respond_error(q, 400, "overlay is for mode \"w\"");
		return false;
	}
	return take_text(q, body, "project", GRANT_PROJECT_MAX,
			 q->who.project ? q->who.project : "", ret->project) &&
	       take_text(q, body, "overlay", GRANT_OVERLAY_MAX,
			 ret->writable ? GRANT_ANY_OVERLAY : "",
			 ret->overlay) &&
	       (!ret->writable || check_writer(q, ret, named));
}

static void respond_grant(struct request *q, const char *id,
			  const struct grant *w)
{
	struct glance *g = q->app;
	char text[GRANT_TEXT_BYTES], when[21];
	struct error err = { 0 };

	if (grant_mint(&g->grant_key, id, w, text, &err) < 0) {
		respond_failure(q, &err);
		return;
	}
	time_format(w->expires * 1000000, when);
	respond_json_value(
		q, 201,
		json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:s}", "image_id", id,
			  "mode", w->writable ? "w" : "r", "project",
			  w->project, "overlay", w->overlay, "grant", text,
			  "export", json_sprintf("%s~%s", id, text),
			  "expires_at", when));
}

/* Who may read the data may have it. */
static void post_grant(struct request *q)
{
	CLEANUP(record_done) struct record image = { 0 };
	struct grant w;

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
