/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/url-place.h"
#include "iouring/sources/disk-cache.h"
#include "iouring/sources/glance-about.h"
#include "iouring/sources/http.h"
#include "iouring/sources/nbd.h"
#include "iouring/sources/remote-options.h"

/* The folder at a web server in which an image lies. */
struct web_place {
	struct place place;
	struct url url; /* of the image */
	bool named; /* by the user: so are we to its server */
	char *text; /* for messages */
};

static const struct place_ops web_ops;

static void web_free(struct place *p)
{
	struct web_place *w = container_of(p, struct web_place, place);

	url_done(&w->url);
	free(w->text);
	free(w);
}

static const char *web_text(const struct place *p)
{
	return container_of(p, struct web_place, place)->text;
}

static int web_place_new(const char *url, const char *login, bool named,
			 struct place **ret, struct error *err)
{
	struct web_place *w = calloc(1, sizeof(*w));
	int r = w ? url_parse(url, &w->url, err)
		  : error_set(err, -ENOMEM, 0, "out of memory");

	if (r < 0) {
		free(w);
		return r;
	}
	place_init(&w->place, &web_ops);
	w->named = named;
	w->text = url_for_people(url);
	if (w->text && strrchr(w->text, '/'))
		*strrchr(w->text, '/') = '\0';
	if (login && !w->url.login)
		w->url.login = strdup(login);
	if (!w->text || (login && !w->url.login)) {
		place_unref(&w->place);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	*ret = &w->place;
	return 0;
}

/* What it must be when all of it has come. What tells no digest is not checked. */
static void expect_digest(const struct http_wish *wish, struct source *src)
{
	struct error err = { 0 };
	const char *algorithm, *hex;
	json_t *about = NULL;
	int r = 0;

	if (!glance_is_image(wish->url) || !disk_cache_is_over(src) ||
	    !disk_cache_wants_digest(src))
		return;
	r = glance_about(wish, &about, &err);
	algorithm = json_string_value(json_object_get(about, "os_hash_algo"));
	hex = json_string_value(json_object_get(about, "os_hash_value"));
	if (r >= 0 && algorithm && hex)
		r = disk_cache_expect(src, algorithm, hex, &err);
	if (r < 0)
		remote_say("%s: what comes of it is not checked", err.msg);
	json_decref(about);
}

/* The cache over *src; all of it, where its server gives no ranges. */
static int keep(const struct http_wish *wish, struct source **src,
		struct error *err)
{
	bool whole = http_source_is_whole(*src);

	disk_cache_over(src);
	expect_digest(wish, *src);
	if (!whole)
		return 0;
	return disk_cache_is_over(*src)
		       ? disk_cache_keep_whole(*src, http_source_take, err)
		       : error_set(err, -EIO, 0,
				   "its server gives no ranges, and it cannot "
				   "be kept");
}

static int open_web(const struct http_wish *wish, struct place_file *ret,
		    struct error *err)
{
	struct place_file f = { .path = url_for_people(wish->url) };
	int r;

	if (!f.path)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = http_source_open(wish, &f.src, err);
	if (r >= 0)
		r = keep(wish, &f.src, err);
	if (r >= 0)
		r = web_place_new(wish->url, wish->login, wish->named, &f.place,
				  err);
	if (r < 0) {
		error_prefix(err, "%s", f.path);
		place_file_done(&f);
		return r;
	}
	*ret = f;
	return 0;
}

static enum reference_verdict verdict_of(int code)
{
	return code == -ENOENT ? REFERENCE_MISSING
	       : code < 0      ? REFERENCE_FAILED
			       : REFERENCE_OK;
}

/* What lies in the folder, or beneath it, is the image's own. */
static int open_beside(struct place *p, const struct place_ask *ask,
		       struct place_file *ret,
		       enum reference_verdict *ret_verdict, struct error *err)
{
	const struct web_place *w = container_of(p, struct web_place, place);
	CLEANUP(freep) char *url = NULL;
	int r = url_join(&w->url, ask->name, &url);

	if (r == -EXDEV) {
		*ret_verdict = REFERENCE_OUTSIDE;
		return error_set(err, -EPERM, 0,
				 "%s lies outside the image's folder %s",
				 ask->what, w->text);
	}
	if (r < 0)
		r = error_set(err, r, 0, "out of memory");
	else
		r = open_web(
			&(struct http_wish){ .url = url,
					     .login = w->url.login,
					     .named = w->named,
					     .may_be_whole = disk_cache_is_on(),
					     .kept = disk_cache_is_on(),
					     .allowed = ask->allow->urls,
					     .n_allowed = ask->allow->n_urls },
			ret, err);
	if (r < 0)
		error_prefix(err, "%s", ask->what);
	*ret_verdict = verdict_of(r);
	return r;
}

static const struct place_ops web_ops = {
	.open = open_beside,
	.text = web_text,
	.free = web_free,
};

bool url_place_knows(const char *name)
{
	return url_is_web(name) || nbd_source_is_uri(name);
}

const char *url_place_format(const char *url)
{
	return nbd_source_is_uri(url) ? "raw" : NULL;
}

/* An export has nothing beside it. */
static int open_export(const char *uri, struct place_file *ret,
		       struct error *err)
{
	struct place_file f = { 0 };
	int r = nbd_source_open(uri, &f.src, err);

	if (r < 0)
		return r;
	f.path = strdup(uri);
	if (!f.path) {
		place_file_done(&f);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	*ret = f;
	return 0;
}

int url_place_open(const char *url, bool named, const struct allow *allow,
		   struct place_file *ret, struct error *err)
{
	CLEANUP(freep) char *people = url_for_people(url);

	if (!people)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (!named && !allow_has_url(allow, url))
		return error_set(err, -EPERM, 0,
				 "%s: is not permitted: %s, with the URL or "
				 "what it begins with, permits it",
				 people, AS_GIVEN("allow=URL", "--allow URL"));
	if (nbd_source_is_uri(url))
		return open_export(url, ret, err);
	return open_web(&(struct http_wish){ .url = url,
					     .named = named,
					     .may_be_whole = disk_cache_is_on(),
					     .kept = disk_cache_is_on(),
					     .allowed = allow->urls,
					     .n_allowed = allow->n_urls },
			ret, err);
}
