/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A client of an image service, ours or Glance: requests over HTTP, by
 * libcurl, and what a server says to a refusal as one line.
 */
#ifndef NBD_CMD_API_H
#define NBD_CMD_API_H

#include <jansson.h>

#include "glance/http/text-buf.h"
#include "iouring/error.h"

struct curl_lib;

struct api {
	const struct curl_lib *curl;
	void *handle; /* libcurl's; one connection is used again and again */
	char *url; /* "http://HOST:PORT", without "/v2" */
	char *socket; /* of a unix socket, or NULL */
	char *token; /* NULL: none */
	bool insists; /* no signal stops it: it tidies up */
};

struct api_options {
	const char *url; /* NULL: $PLATTER_URL, ... (platter(1)) */
	const char *token_file; /* NULL: $OS_TOKEN, $OS_AUTH_TOKEN, or none */
};

int api_open(const struct api_options *o, struct api *ret, struct error *err);
void api_done(struct api *a); /* wipes the token */

struct api_request {
	const char *method;
	const char *path; /* "/v2/images?name=x", encoded */
	const char *type; /* of the body */
	const char *body; /* NULL: none, or: */
	/* The next bytes of the body: how many, 0 at its end, or it fails. */
	ssize_t (*read)(void *opaque, void *buf, size_t len, struct error *err);
	int64_t read_bytes; /* of it; -1: is not known */
	/* Takes a good answer's body; NULL: it is text in the answer. */
	int (*write)(void *opaque, const void *data, size_t len,
		     struct error *err);
	/* Optional: the length that the server announces, before the body. */
	void (*length)(void *opaque, uint64_t bytes);
	void *opaque;
};

struct api_answer {
	long status;
	struct text_buf body;
};

/*
 * 0: the status is 2xx. A refusal is -ENOENT (404), -EACCES (401), -EPERM
 * (403), -EEXIST (409) or -EIO, "METHOD PATH: 404 Not Found: MESSAGE".
 * -EINTR: a signal asked to stop (stop.h). *ret is the caller's to
 * api_answer_done(), also on failure.
 */
int api_call(struct api *a, const struct api_request *q, struct api_answer *ret,
	     struct error *err);
void api_answer_done(struct api_answer *a);

/* The JSON of a good answer; NULL: it failed. @path as api_request.path. */
json_t *api_get(struct api *a, const char *path, struct error *err);
/* The same with a JSON body, which is dropped. @type NULL: application/json. */
json_t *api_send(struct api *a, const char *method, const char *path,
		 const char *type, json_t *body, struct error *err);
/* Without body and answer. */
int api_do(struct api *a, const char *method, const char *path,
	   struct error *err);

#endif
