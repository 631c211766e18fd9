/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/history.h"
#include "iouring/sources/nbd.h"
#include "iouring/sources/url.h"
#include "nbd/cmd/operand.h"

static bool exists(const char *path)
{
	return !access(path, F_OK) || errno != ENOENT;
}

/* Cuts @text where its file's name ends; the state behind, or NULL. */
static char *cut_state(char *text)
{
	char *at = text;

	if (exists(text))
		return NULL;
	while ((at = strchr(at + 1, '@'))) {
		*at = '\0';
		if (exists(text))
			return at + 1;
		*at = '@';
	}
	return NULL;
}

bool operand_is_more(const char *text)
{
	CLEANUP(freep) char *path = strdup(text);

	return nbd_source_is_uri(text) ||
	       (!url_is_web(text) && path && cut_state(path));
}

/* @state: NULL or empty: the live one. */
static int open_state(const struct config *c, struct image *live,
		      const char *format, const char *state, struct image **ret,
		      struct error *err)
{
	struct open_options options;

	if (!state || !*state) {
		*ret = image_ref(live);
		return 0;
	}
	config_open_options(c, &options);
	options.format = format;
	return history_open(live, &options, state, ret, err);
}

/* Cuts "A..B" at its dots; B, or NULL: it is not of that form. */
static char *cut_dots(char *state)
{
	char *dots = state ? strstr(state, "..") : NULL;

	if (!dots || dots[2] == '.' || strstr(dots + 2, "..") ||
	    (dots == state && !dots[2]))
		return NULL;
	*dots = '\0';
	return dots + 2;
}

static int open_change(const struct config *c, struct image *live,
		       const char *format, char *from, const char *to,
		       struct operand_change *ret, struct error *err)
{
	unsigned int i;
	int r = open_state(c, live, format, from, &ret->from, err);

	if (r >= 0)
		r = open_state(c, live, format, to, &ret->to, err);
	if (r < 0)
		return r;
	for (i = 0; i < live->chain.depth; i++)
		if (live->chain.layers[i] == ret->from->chain.layers[0])
			ret->from_is_file = true;
	return 0;
}

/* *ret_path: to be freed; *ret_state: in it, or NULL. */
static int open_live(const struct config *c, const char *text,
		     const char *format, struct image **ret_live,
		     char **ret_path, char **ret_state, struct error *err)
{
	struct open_options options;
	int r = config_check_path(text, err);

	if (r < 0)
		return r;
	*ret_path = strdup(text);
	if (!*ret_path)
		return error_set(err, -ENOMEM, 0, "out of memory");
	*ret_state = url_is_web(text) ? NULL : cut_state(*ret_path);
	config_open_options(c, &options);
	options.format = format;
	return image_open(*ret_path, &options, ret_live, err);
}

static int open_any(const struct config *c, const char *text,
		    const char *format, bool may_change,
		    struct operand_change *ret, struct error *err)
{
	CLEANUP(image_unrefp) struct image *live = NULL;
	CLEANUP(freep) char *path = NULL;
	struct open_options options;
	struct error own = { 0 };
	char *state = NULL, *to;
	int r;

	if (!*text)
		return error_set(err, -EINVAL, 0, "image: the name is empty");
	if (nbd_source_is_uri(text)) {
		config_open_options(c, &options);
		options.format = format;
		return image_open(text, &options, &ret->to, err);
	}
	r = open_live(c, text, format, &live, &path, &state, err);
	if (r < 0)
		return r;
	r = open_state(c, live, format, state, &ret->to, &own);
	to = may_change && r == -ENOENT ? cut_dots(state) : NULL;
	if (to)
		return open_change(c, live, format, state, to, ret, err);
	return r < 0 ? error_set(err, r, own.off, "%s", own.msg) : 0;
}

int operand_open(const struct config *c, const char *text, const char *format,
		 struct image **ret, struct error *err)
{
	struct operand_change o = { 0 };
	int r = open_any(c, text, format, false, &o, err);

	if (r >= 0)
		*ret = o.to;
	return r;
}

int operand_open_change(const struct config *c, const char *text,
			const char *format, struct operand_change *ret,
			struct error *err)
{
	*ret = (struct operand_change){ 0 };
	return open_any(c, text, format, true, ret, err);
}

void operand_change_done(struct operand_change *o)
{
	image_unref(o->from);
	image_unref(o->to);
}
