/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "formats/chain.h"
#include "glance/inspect.h"

const char *inspect_format(const char *disk_format)
{
	static const char *const blocks[] = { "raw",	 "iso",	    "ami",
					      "aki",	 "ari",	    "diskdump",
					      "extdump", "ntfsdump" };
	const struct format_ops *const *f;
	size_t i;

	for (i = 0; disk_format && i < ARRAY_SIZE(blocks); i++)
		if (!strcmp(disk_format, blocks[i]))
			return "raw";
	for (f = format_table; disk_format && *f; f++)
		if ((*f)->glance_name &&
		    !strcmp((*f)->glance_name, disk_format))
			return (*f)->name;
	return NULL;
}

/* Data that say they are blocks must not look like a format. */
static int check_blocks(const struct record *r, const char *path,
			struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	const struct format_ops *ops;
	int code = file_source_open(path, 0, &src, err);

	if (code >= 0)
		code = format_probe(src, &ops, err);
	if (code < 0)
		return code;
	if (strcmp(ops->name, "raw") != 0)
		return error_set(err, -EINVAL, 0,
				 "Image disk_format is %s, its content is %s",
				 r->disk_format, ops->name);
	return 0;
}

static int check_iso(const char *path, struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	char magic[5] = "";
	int code = file_source_open(path, 0, &src, err);

	if (code >= 0 && src->bytes >= 32769 + sizeof(magic))
		code = source_read(src, magic, sizeof(magic), 32769, err);
	if (code < 0)
		return code;
	return memcmp(magic, "CD001", 5)
		       ? error_set(err, -EINVAL, 0,
				   "Image disk_format is iso, its content is "
				   "not ISO 9660")
		       : 0;
}

static int refuse_references(const struct layer *l, struct error *err)
{
	if (l->parent.wanted)
		return error_set(err, -EINVAL, 0,
				 "Image refers to a backing file or parent%s"
				 "%.128s: only images that are whole are taken",
				 l->parent.name ? " " : "",
				 l->parent.name ? l->parent.name : "");
	if (l->n_files)
		return error_set(err, -EINVAL, 0,
				 "Image refers to another file, %.128s: only "
				 "images that are whole are taken",
				 l->files[0].name);
	return 0;
}

static int look(const struct record *r, const char *path, const char *format,
		struct inspection *ret, struct error *err)
{
	struct open_options options = { .format = format };
	struct layer *l;
	struct error why = { 0 };
	int code = chain_open_top(path, &options, &l, &why);

	if (code == -ENOMEM)
		return error_set(err, code, 0, "out of memory");
	if (code < 0) {
		/* The file's name is ours, and nobody's business. */
		const char *text = strstr(why.msg, r->id);

		text = text && strlen(text) > 38 ? text + 38 : why.msg;
		return error_set(err, -EINVAL, 0,
				 "Image content does not match disk_format "
				 "%s: %.400s",
				 r->disk_format, text);
	}
	code = refuse_references(l, err);
	if (code >= 0)
		*ret = (struct inspection){ true, l->bytes };
	layer_unref(l);
	return code;
}

int inspect_data(const struct record *r, const char *path,
		 struct inspection *ret, struct error *err)
{
	const char *format = inspect_format(r->disk_format);
	int code = 0;

	*ret = (struct inspection){ 0 };
	/* What is in a container is not looked at. */
	if (!format || !r->container_format ||
	    strcmp(r->container_format, "ova") == 0 ||
	    strcmp(r->container_format, "docker") == 0 ||
	    strcmp(r->container_format, "compressed") == 0)
		return 0;
	if (!strcmp(r->disk_format, "iso"))
		code = check_iso(path, err);
	else if (!strcmp(format, "raw"))
		code = check_blocks(r, path, err);
	return code < 0 ? code : look(r, path, format, ret, err);
}
