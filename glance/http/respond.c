/* SPDX-License-Identifier: BSD-3-Clause */
/* Answers, as they are put together; http.c sends them. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "glance/http/accept.h"
#include "glance/http/http.h"
#include "glance/http/mhd-lib.h"
#include "glance/log.h"

const char *http_reason(unsigned int status)
{
	const char *text = mhd->get_reason_phrase_for(status);

	return text ? text : "Unknown";
}

void respond_header(struct request *q, const char *name, const char *value)
{
	struct response *r = &q->response;
	struct header *h = &r->headers[r->n_headers];

	if (r->n_headers == RESPONSE_HEADERS_MAX)
		return;
	h->name = strdup(name);
	h->value = strdup(value);
	if (h->name && h->value) {
		r->n_headers++;
		return;
	}
	free(h->name);
	free(h->value);
}

void respond_empty(struct request *q, unsigned int status)
{
	if (!q->response.status)
		q->response.status = status;
}

void respond_text(struct request *q, unsigned int status, const char *type,
		  char *text)
{
	struct response *r = &q->response;

	if (r->status) {
		free(text);
		return;
	}
	r->status = text ? status : 500;
	if (!text)
		return;
	r->text = text;
	r->text_bytes = strlen(text);
	respond_header(q, "Content-Type", type);
}

void respond_json(struct request *q, unsigned int status, struct text_buf *b)
{
	respond_text(q, status, "application/json", text_buf_take(b));
}

void respond_file(struct request *q, unsigned int status, int fd, uint64_t off,
		  uint64_t len)
{
	struct response *r = &q->response;

	if (r->status) {
		close(fd);
		return;
	}
	r->status = status;
	r->fd = fd;
	r->fd_off = off;
	r->fd_bytes = len;
}

void respond_producer(struct request *q, unsigned int status,
		      const struct producer *p, uint64_t len)
{
	struct response *r = &q->response;

	if (r->status) {
		p->free(p->opaque);
		return;
	}
	r->status = status;
	r->produced = true;
	r->producer = *p;
	r->producer_bytes = len;
}

void respond_upgrade(struct request *q, const char *protocol, upgrade_fn *fn,
		     void *opaque)
{
	struct response *r = &q->response;

	r->status = 101;
	r->upgrade = fn;
	r->upgrade_opaque = opaque;
	respond_header(q, "Upgrade", protocol);
}

static void add_html_escaped(struct text_buf *b, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '&':
			text_add(b, "&amp;");
			break;
		case '<':
			text_add(b, "&lt;");
			break;
		case '>':
			text_add(b, "&gt;");
			break;
		case '"':
			text_add(b, "&quot;");
			break;
		case '\'':
			text_add(b, "&#x27;");
			break;
		default:
			text_add_char(b, *text);
		}
	}
}

static void add_error_html(struct text_buf *b, unsigned int status,
			   const char *explanation)
{
	const char *reason = http_reason(status);

	text_addf(b,
		  "<html>\n <head>\n  <title>%u %s</title>\n </head>\n"
		  " <body>\n  <h1>%u %s</h1>\n  ",
		  status, reason, status, reason);
	add_html_escaped(b, explanation);
	text_add(b, "<br /><br />\n\n\n\n </body>\n</html>");
}

static void add_error_json(struct text_buf *b, unsigned int status,
			   const char *explanation)
{
	struct text_buf m = { 0 };

	text_add(&m, explanation);
	text_add(&m, "<br /><br />\n\n\n");
	text_add(b, "{\"message\": ");
	text_add_json(b, m.text ? m.text : "");
	text_addf(b, ", \"code\": \"%u %s\", \"title\": \"%s\"}", status,
		  http_reason(status), http_reason(status));
	text_buf_done(&m);
}

static void add_error_text(struct text_buf *b, unsigned int status,
			   const char *explanation)
{
	text_addf(b, "%u %s\n\n", status, http_reason(status));
	for (; *explanation; explanation++)
		text_add_char(b, *explanation == '\n' ? ' ' : *explanation);
	text_add(b, "\n\n   ");
}

void respond_error(struct request *q, unsigned int status,
		   const char *explanation)
{
	static const struct {
		void (*add)(struct text_buf *b, unsigned int status,
			    const char *explanation);
		const char *type;
	} kinds[] = {
		[ACCEPT_TEXT] = { add_error_text, "text/plain; charset=UTF-8" },
		[ACCEPT_HTML] = { add_error_html, "text/html; charset=UTF-8" },
		[ACCEPT_JSON] = { add_error_json, "application/json" },
	};
	enum accept_kind kind = accept_refusal(request_header(q, "Accept"));
	struct text_buf b = { 0 };

	kinds[kind].add(&b, status, explanation);
	respond_text(q, status, kinds[kind].type, text_buf_take(&b));
}

void respond_errorf(struct request *q, unsigned int status, const char *fmt,
		    ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	respond_error(q, status, text);
}

void respond_unsupported(struct request *q)
{
	const char *type = request_header(q, "Content-Type");

	respond_errorf(q, 415,
		       "The request media type %.128s is not supported by this "
		       "server.",
		       type ? type : "text/plain");
}

void respond_retry(struct request *q, const char *explanation)
{
	respond_header(q, "Retry-After", HTTP_RETRY_SEC);
	respond_error(q, 503, explanation);
}

void respond_failure(struct request *q, const struct error *err)
{
	static const struct {
		int code;
		unsigned int status;
	} statuses[] = {
		{ -EINVAL, 400 }, { -EBADMSG, 400 }, { -EACCES, 401 },
		{ -EPERM, 403 },  { -ENOENT, 404 },  { -EEXIST, 409 },
		{ -EBUSY, 409 },  { -EFBIG, 413 },   { -EDQUOT, 413 },
		{ -ENOSPC, 413 }, { -ENOTSUP, 415 }, { -ETIMEDOUT, 504 },
	};
	size_t i;

	if (err->code == -EAGAIN) {
		respond_retry(q, err->msg);
		return;
	}

	for (i = 0; i < ARRAY_SIZE(statuses); i++) {
		if (statuses[i].code == err->code) {
			respond_error(q, statuses[i].status, err->msg);
			return;
		}
	}
	/* Ours to mend: the log has it, the client need not. */
	log_line("%s: %s", q->id, err->msg);
	respond_error(q, 500,
		      "The server has either erred or is incapable of "
		      "performing the requested operation.");
}
