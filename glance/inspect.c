/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "formats/chain.h"
#include "formats/report.h"
#include "glance/admit.h"
#include "glance/inspect.h"

#define GIB	     (1ULL << 30)
#define MIN_DISK_MAX INT32_MAX /* of the API's schema */

void inspection_done(struct inspection *i)
{
	findings_free(TAKE_PTR(i->findings));
	free(TAKE_PTR(i->as));
}

void inspection_apply(struct inspection *i, struct record *r, bool min_disk)
{
	r->has_virtual_size = i->has_virtual_size;
	r->virtual_size = i->virtual_size;
	if (min_disk && !r->min_disk)
		r->min_disk = i->min_disk;
	findings_free(r->findings);
	r->findings = TAKE_PTR(i->findings);
	free(r->seen_as);
	r->seen_as = TAKE_PTR(i->as);
}

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
static int check_blocks(const struct record *r, struct source *src,
			struct error *err)
{
	const struct format_ops *ops;
	int code = format_probe(src, &ops, err);

	if (code < 0)
		return code;
	if (strcmp(ops->name, "raw") != 0)
		return error_set(err, -EINVAL, 0,
				 "Image disk_format is %s, its content is %s",
				 r->disk_format, ops->name);
	return 0;
}

static int check_iso(struct source *src, struct error *err)
{
	char magic[5] = "";
	int code = 0;

	if (src->bytes >= 32769 + sizeof(magic))
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

json_t *inspect_report(struct layer *l, const char *id,
		       const struct error *refused)
{
	json_t *j = report_layer(l, id), *references = json_array();
	struct error err = { 0 };
	size_t i;

	if (report_details(j, l, &err) < 0)
		json_object_set_new(j, "error", report_text(err.msg));
	for (i = 0; i < l->n_files; i++)
		report_reference(references, id, "data file", l->files[i].name,
				 REFERENCE_OUTSIDE);
	if (l->parent.name)
		report_reference(references, id, "backing file", l->parent.name,
				 REFERENCE_OUTSIDE);
	json_object_set_new(j, "references", references);
	json_object_set_new(j, "safe", json_boolean(!refused->code));
	if (refused->code)
		json_object_set_new(j, "reason", report_text(refused->msg));
	return j;
}

static int add_snapshot(void *opaque, const struct snapshot *s)
{
	struct findings *f = opaque;
	struct found_snapshot *list;

	if (f->n_snapshots == FINDINGS_SNAPSHOTS_MAX)
		return -EFBIG;
	list = realloc(f->snapshots, (f->n_snapshots + 1) * sizeof(*list));
	if (!list)
		return -ENOMEM;
	f->snapshots = list;
	list += f->n_snapshots++;
	*list = (struct found_snapshot){ .id = strdup(s->id),
					 .name = strdup(s->name),
					 .bytes = s->bytes,
					 .date_sec = s->date_sec };
	return list->id && list->name ? 0 : -ENOMEM;
}

/* A layer that refers to nothing is all that there is. */
static bool add_layer(struct findings *f, const struct layer *l, const char *id)
{
	f->layers = calloc(1, sizeof(*f->layers));
	if (!f->layers)
		return false;
	f->n_layers = 1;
	f->layers[0] = (struct found_layer){ .format = strdup(l->ops->name),
					     .file = strdup(id),
					     .bytes = l->bytes };
	return f->layers[0].format && f->layers[0].file;
}

/* What cannot be kept is asked of the file when somebody wants to know. */
static void fill_findings(struct findings *f, struct layer *l, const char *id)
{
	static const struct error fine;
	json_t *j;

	if (layer_snapshots(l, add_snapshot, f, NULL) < 0 ||
	    !add_layer(f, l, id))
		return;
	j = inspect_report(l, id, &fine);
	f->report = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	if (f->report && strlen(f->report) <= FINDINGS_REPORT_BYTES_MAX)
		f->format = strdup(l->ops->name);
}

/* Raw blocks are as large as their file, and need not be its guest's disk. */
static uint64_t least_disk(const struct layer *l)
{
	uint64_t gib = l->bytes / GIB + (l->bytes % GIB ? 1 : 0);

	return strcmp(l->ops->name, "raw") && gib <= MIN_DISK_MAX ? gib : 0;
}

static void take_layer(const struct record *r, struct layer *l,
		       struct inspection *ret)
{
	ret->has_virtual_size = true;
	ret->virtual_size = l->bytes;
	ret->min_disk = least_disk(l);
	fill_findings(ret->findings, l, r->id);
}

static int look(const struct record *r, struct source *src, const char *format,
		struct inspection *ret, struct error *err)
{
	struct open_options options = { .format = format,
					.src = src,
					.alone = true };
	struct layer *l;
	struct error why = { 0 };
	int code = chain_open_top(r->id, &options, &l, &why);

	if (code == -ENOMEM)
		return error_set(err, code, 0, "out of memory");
	if (code < 0) {
		/* What it calls the image is known to who reads it. */
		const char *text = why.msg;
		size_t n = strlen(r->id);

		if (!strncmp(text, r->id, n) && !strncmp(text + n, ": ", 2))
			text += n + 2;
		return error_set(err, -EINVAL, 0,
				 "Image content does not match disk_format "
				 "%s: %.400s",
				 r->disk_format, text);
	}
	code = refuse_references(l, err);
	if (code >= 0)
		take_layer(r, l, ret);
	layer_unref(l);
	return code;
}

static bool is_container(const char *container_format)
{
	static const char *const names[] = { "ova", "docker", "compressed" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(container_format, names[i]))
			return true;
	return false;
}

bool inspect_disk(const struct record *r, struct open_options *ret)
{
	*ret = (struct open_options){ .alone = true };
	if (!r->container_format)
		return false;
	ret->contained = is_container(r->container_format);
	if (!ret->contained)
		ret->format = inspect_format(r->disk_format);
	return ret->contained || ret->format;
}

int inspect_source(int fd, struct source **ret, struct error *err)
{
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	return own < 0 ? error_set(err, -errno, 0, "the data: %s",
				   errno_text(errno))
		       : file_source_adopt(own, 0, ret, err);
}

/*
 * Glance takes whatever is called a container, and so do we: of one that cannot be
 * read, or has no one disk, nothing is known.
 */
static int look_inside(const struct record *r, struct open_options *options,
		       struct inspection *ret, struct error *err)
{
	struct error why = { 0 };
	struct layer *l;
	int code = chain_open_top(r->id, options, &l, &why);

	if (code == -ENOMEM)
		return error_set(err, code, 0, "out of memory");
	if (code < 0)
		return 0;
	if (!l->parent.wanted)
		take_layer(r, l, ret);
	layer_unref(l);
	return 0;
}

/*
 * No data at all are fine, whatever they are called: Nova uploads none for a
 * snapshot of a volume.
 */
static int look_at_disk(const struct record *r, int fd, struct inspection *ret,
			struct error *err)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	struct open_options options;
	const char *format;
	int code;

	if (!inspect_disk(r, &options))
		return 0;
	code = inspect_source(fd, &src, err);
	if (code >= 0 && !src->bytes)
		return 0;
	options.src = src;
	if (code >= 0 && options.contained)
		return look_inside(r, &options, ret, err);
	format = options.format;
	if (code >= 0 && !strcmp(r->disk_format, "iso"))
		code = check_iso(src, err);
	else if (code >= 0 && !strcmp(format, "raw"))
		code = check_blocks(r, src, err);
	return code < 0 ? code : look(r, src, format, ret, err);
}

int inspect_data(const struct record *r, int fd, struct inspection *ret,
		 struct error *err)
{
	int code;

	*ret = (struct inspection){ .findings =
					    calloc(1, sizeof(*ret->findings)),
				    .as = admit_label(r) };
	if (!ret->findings || !ret->as) {
		inspection_done(ret);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	file_looks(fd, &ret->findings->looks);
	code = admit_formats(r, err);
	if (code >= 0)
		code = look_at_disk(r, fd, ret, err);
	if (code < 0)
		inspection_done(ret);
	return code;
}
