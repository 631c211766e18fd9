/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "glance/admit.h"
#include "glance/schemas.h"

static bool is_cyclades(const char *disk_format)
{
	static const char *const dumps[] = { "diskdump", "extdump",
					     "ntfsdump" };
	size_t i;

	for (i = 0; disk_format && i < ARRAY_SIZE(dumps); i++)
		if (!strcmp(disk_format, dumps[i]))
			return true;
	return false;
}

static int check_format(const char *name, const char *value, struct error *err)
{
	CLEANUP(json_decrefp)
	json_t *v = value ? json_string(value) : json_null();

	return v ? schema_check_property("image", name, v, err)
		 : error_set(err, -EINVAL, 0, "%s is not UTF-8", name);
}

int admit_formats(const struct record *r, struct error *err)
{
	int code = is_cyclades(r->disk_format)
			   ? 0
			   : check_format("disk_format", r->disk_format, err);

	return code < 0 ? code
			: check_format("container_format", r->container_format,
				       err);
}

char *admit_label(const struct record *r)
{
	char *ret;

	if (asprintf(&ret, "%s in %s", r->disk_format ? r->disk_format : "-",
		     r->container_format ? r->container_format : "-") < 0)
		return NULL;
	return ret;
}

int admit_unseen(struct record *r, struct error *err)
{
	free(r->seen_as);
	r->seen_as = admit_label(r);
	return r->seen_as ? 0 : error_set(err, -ENOMEM, 0, "out of memory");
}

static bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static bool has_data(const struct record *r)
{
	return r->status == IMAGE_ACTIVE || r->status == IMAGE_DEACTIVATED;
}

static bool same_formats(const struct record *a, const struct record *b)
{
	return same(a->disk_format, b->disk_format) &&
	       same(a->container_format, b->container_format);
}

static bool has_location(const struct record *r, const struct location *l)
{
	size_t i;

	/* What the store has was looked at when it came. */
	if (!strcmp(l->store, LOCATION_OWN))
		return true;
	for (i = 0; i < r->n_locations; i++)
		if (same(r->locations[i].url, l->url) &&
		    same(r->locations[i].store, l->store))
			return true;
	return false;
}

/* Those that were there before were looked at then. */
static bool has_new_location(const struct record *was, const struct record *r)
{
	size_t i;

	for (i = 0; i < r->n_locations; i++)
		if (!has_location(was, &r->locations[i]))
			return true;
	return was->n_locations && !r->n_locations;
}

static int check_seen(const struct record *r, struct error *err)
{
	CLEANUP(freep) char *label = admit_label(r);

	if (!label)
		return error_set(err, -ENOMEM, 0, "out of memory");
	if (r->seen_as && !strcmp(r->seen_as, label))
		return 0;
	return error_set(err, -EPERM, 0,
			 "Image %s cannot be %s as %s: its data were %s%s",
			 r->id, image_status_name(r->status), label,
			 r->seen_as ? "looked at as " : "not looked at",
			 r->seen_as ? r->seen_as : "");
}

int admit_change(const struct record *was, const struct record *r,
		 struct error *err)
{
	bool had = was && has_data(was);
	int code = was && same_formats(was, r) ? 0 : admit_formats(r, err);

	if (code < 0 || !has_data(r))
		return code;
	if (had && !r->seen_as && !same_formats(was, r))
		return error_set(err, -EPERM, 0,
				 "Attribute %s can be only replaced for a "
				 "queued image.",
				 same(was->disk_format, r->disk_format)
					 ? "container_format"
					 : "disk_format");
	if (had && same_formats(was, r) && !has_new_location(was, r) &&
	    (was->status == IMAGE_ACTIVE || r->status == IMAGE_DEACTIVATED))
		return 0;
	return check_seen(r, err);
}
