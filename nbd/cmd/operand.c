/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "formats/history.h"
#include "iouring/sources/nbd.h"
#include "nbd/cmd/operand.h"

static bool exists(const char *path)
{
	return !access(path, F_OK) || errno != ENOENT;
}

/* Cuts @text where its file's name ends; the state behind, or NULL. */
static const char *cut_state(char *text)
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

	return nbd_source_is_uri(text) || (path && cut_state(path));
}

/* Its disk is what the server says it is. */
static int open_export(const char *uri, const char *format,
		       const struct open_options *options, struct image **ret,
		       struct error *err)
{
	struct open_options raw = *options;
	struct source *src;
	struct chain chain;
	int r;

	if (format && strcmp(format, "raw") != 0)
		return error_set(err, -EINVAL, 0,
				 "%s: an export is raw, not %s", uri, format);
	raw.format = "raw";
	r = nbd_source_open(uri, &src, err);
	if (r >= 0)
		r = chain_open_source(src, uri, NULL, &raw, &chain, err);
	return r < 0 ? r : image_from_chain(&chain, ret, err);
}

int operand_open(const struct config *c, const char *text, const char *format,
		 struct image **ret, struct error *err)
{
	CLEANUP(image_unrefp) struct image *live = NULL;
	CLEANUP(freep) char *path = NULL;
	struct open_options options;
	const char *state;
	int r;

	if (!*text)
		return error_set(err, -EINVAL, 0, "image: the name is empty");
	if (nbd_source_is_uri(text)) {
		config_open_options(c, &options);
		return open_export(text, format, &options, ret, err);
	}
	r = config_check_path(text, err);
	if (r < 0)
		return r;
	path = strdup(text);
	if (!path)
		return error_set(err, -ENOMEM, 0, "out of memory");
	config_open_options(c, &options);
	options.format = format;
	state = cut_state(path);
	r = image_open(path, &options, &live, err);
	if (r < 0)
		return r;
	if (state)
		return history_open(live, &options, state, ret, err);
	*ret = TAKE_PTR(live);
	return 0;
}
