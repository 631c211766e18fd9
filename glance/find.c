/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/find.h"
#include "glance/image-json.h"
#include "glance/inspect.h"
#include "glance/locations.h"
#include "glance/record-rows.h"
#include "glance/time-text.h"

void glance_image_done(struct glance_image *i)
{
	free(i->id);
	free(i->project);
	free(i->path);
	closep(&i->fd);
}

static int no_export(const struct glance_wish *w, const char *why,
		     struct error *err)
{
	return error_set(err, -ENOENT, 0, "there is no export \"%.64s\": %s",
			 w->name, why);
}

/* By its grant, as things are now. */
static int judge_grant(const struct glance *g, struct index_tx *tx,
		       const struct glance_wish *w, const struct record *image,
		       struct grant *ret, struct error *err)
{
	int64_t now = time_now_usec() / 1000000;
	struct identity who;
	int r;

	if (!grant_open(&g->grant_key, w->grant, image->id, now, ret) ||
	    !grant_covers(ret, w->overlay) ||
	    (w->project && strcmp(w->project, ret->project) != 0))
		return no_export(
			w, "its grant is for something else, or too old", err);
	who = (struct identity){ .project = *ret->project ? ret->project : NULL,
				 .admin = ret->admin };
	r = image_may_see(tx, &who, image, err);
	return r ? r
		 : no_export(w, "its grant's project does not see it any more",
			     err);
}

/* May @w open @image? *ret: in whose name space its overlay is, or NULL. */
static int judge(const struct glance *g, struct index_tx *tx,
		 const struct glance_wish *w, const struct record *image,
		 char **ret, struct error *err)
{
	const char *project = w->project;
	struct grant grant;
	int r = 0;

	if (w->grant && !w->by_operator) {
		r = judge_grant(g, tx, w, image, &grant, err);
		project = grant.project;
	} else if (!w->by_operator && glance_asks(g)) {
		project = NULL;
		if (image->visibility != IMAGE_PUBLIC)
			r = no_export(w,
				      "no image has that id, or that name "
				      "alone",
				      err);
		else if (w->overlay)
			r = no_export(w, "an overlay of it takes a grant", err);
	}
	if (r < 0)
		return r;
	*ret = project && *project ? strdup(project) : NULL;
	return project && *project && !*ret
		       ? error_set(err, -ENOMEM, 0, "out of memory")
		       : 0;
}

/* Of those that @w may open alone: others may call theirs the same. */
static int find_by_name(const struct glance *g, struct index_tx *tx,
			const struct glance_wish *w, int64_t *ret,
			struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int found = 0;
	int r = index_sql(tx,
			  "SELECT n FROM images WHERE name_key = ?1 AND status "
			  "= 'active' AND (?2 OR visibility = 'public')",
			  &st, err);

	if (r < 0)
		return r;
	index_bind_text(st, 1, w->name);
	sqlite.bind_int64(st, 2, w->grant || w->by_operator || !glance_asks(g));
	while (found < 2 && (r = index_step(st, err)) == 1) {
		CLEANUP(record_done) struct record image = { 0 };
		CLEANUP(freep) char *project = NULL;
		int64_t n = sqlite.column_int64(st, 0);

		r = record_load_n(tx, n, &image, err);
		if (r < 0)
			return r;
		r = judge(g, tx, w, &image, &project, NULL);
		if (r < 0 && r != -ENOENT)
			return error_set(err, r, 0, "the index cannot be read");
		if (r < 0)
			continue;
		*ret = n;
		found++;
	}
	if (r < 0 && r != -ENOENT)
		return r;
	return found == 1 ? 0
			  : no_export(w,
				      "no image has that id, or that name "
				      "alone",
				      err);
}

static int load_by_name(const struct glance *g, struct index_tx *tx,
			const struct glance_wish *w, struct record *ret,
			struct error *err)
{
	int64_t n = 0;
	int r;

	if (record_id_ok(w->name))
		return record_load(tx, w->name, ret, err);
	r = find_by_name(g, tx, w, &n, err);
	return r < 0 ? r : record_load_n(tx, n, ret, err);
}

static struct glance_image take_image(struct glance_image *i)
{
	struct glance_image ret = *i;

	*i = (struct glance_image){ .fd = -1 };
	return ret;
}

int glance_find_image(struct glance *g, const struct glance_wish *w,
		      struct glance_image *ret, struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	CLEANUP(glance_image_done) struct glance_image i = { .fd = -1 };
	struct open_options options;
	bool is_disk;
	int r = index_read(g->index, &tx, err);

	if (r >= 0)
		r = load_by_name(g, tx, w, &image, err);
	if (r >= 0)
		r = judge(g, tx, w, &image, &i.project, err);
	if (r < 0)
		return r;
	is_disk = inspect_disk(&image, &options);
	i.format = options.format;
	i.contained = options.contained;
	if (image.status != IMAGE_ACTIVE || !is_disk)
		return error_set(
			err, -ENOENT, 0,
			"there is no export \"%.64s\": image %s is "
			"%s, its disk_format %s, its container_format %s",
			w->name, image.id, image_status_name(image.status),
			image.disk_format ? image.disk_format : "unknown",
			image.container_format ? image.container_format
					       : "unknown");
	r = location_open(g, &image, &i.fd, &i.path, err);
	if (r < 0)
		return r;
	i.id = strdup(image.id);
	if (!i.id)
		return error_set(err, -ENOMEM, 0, "out of memory");
	*ret = take_image(&i);
	return 0;
}

int glance_each_image(struct glance *g, unsigned int max,
		      int (*each)(void *opaque, const char *id,
				  const char *name),
		      void *opaque)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_read(g->index, &tx, NULL);

	if (r >= 0)
		r = index_sql(tx,
			      "SELECT id, name_key FROM images WHERE status = "
			      "'active' AND (?1 OR visibility = 'public') "
			      "ORDER BY created_at LIMIT ?2",
			      &st, NULL);
	if (r < 0)
		return r;
	sqlite.bind_int64(st, 1, !glance_asks(g));
	sqlite.bind_int64(st, 2, max);
	while ((r = index_step(st, NULL)) == 1) {
		r = each(opaque, index_text(st, 0), index_text(st, 1));
		if (r)
			return r;
	}
	return r;
}
