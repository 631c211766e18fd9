/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "iouring/sources/glance-about.h"
#include "iouring/sources/http.h"
#include "iouring/util.h"

#define SCHEME	       "glance://"
#define TOLD_BYTES_MAX (1U << 20)

bool glance_is_image(const char *url)
{
	return !strncmp(url, SCHEME, strlen(SCHEME));
}

struct told {
	char *text;
	size_t len, max;
};

static int take(void *opaque, const void *data, size_t len)
{
	struct told *t = opaque;

	if (len > t->max - t->len)
		return -EFBIG;
	memcpy(t->text + t->len, data, len);
	t->len += len;
	return 0;
}

/* All of it, whether its server gives ranges or not. */
static int read_all(struct source *src, struct told *t, struct error *err)
{
	if (src->bytes > TOLD_BYTES_MAX)
		return error_set(err, -EFBIG, 0, "has over %u bytes",
				 TOLD_BYTES_MAX);
	t->max = (size_t)src->bytes;
	t->text = malloc(t->max + 1);
	if (!t->text)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (http_source_is_whole(src))
		return http_source_take(src, take, t, err);
	t->len = t->max;
	return source_read(src, t->text, t->len, 0, err);
}

int glance_about(const struct http_wish *image, json_t **ret, struct error *err)
{
	struct http_wish wish = *image;
	CLEANUP(source_unrefp) struct source *src = NULL;
	struct told t = { 0 };
	json_t *j = NULL;
	int r;

	wish.about = wish.may_be_whole = wish.kept = true;
	r = http_source_open(&wish, &src, err);
	if (r >= 0)
		r = read_all(src, &t, err);
	if (r >= 0)
		j = json_loadb(t.text, t.len, JSON_REJECT_DUPLICATES, NULL);
	free(t.text);
	if (r >= 0 && !json_is_object(j)) {
		json_decref(j);
		r = error_set(err, -EBADMSG, 0,
			      "what its service tells of it is no JSON object");
	}
	if (r < 0)
		error_prefix(err, "%s", image->url);
	else
		*ret = j;
	return r;
}
