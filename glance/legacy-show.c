/* SPDX-License-Identifier: BSD-3-Clause */
/* Images as the older dialects show them. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "glance/legacy-inside.h"
#include "glance/locations.h"
#include "glance/record-rows.h"

static const struct dialect v1 = { .name = "v1" };
static const struct dialect cyclades = { .name = "cyclades", .cyclades = true };

const struct dialect *legacy_dialect(const struct request *q)
{
	return strcmp(q->uri.segments[0], "v1") ? &cyclades : &v1;
}

void legacy_refuse(struct request *q, const struct error *err)
{
	if (err->code == -EPERM)
		respond_error(q, 405, err->msg);
	else
		respond_failure(q, err);
}

static void add_member(struct text_buf *b, const char *name, const char *value)
{
	text_addf(b, ", \"%s\": ", name);
	text_add_json(b, value);
}

static void add_number(struct text_buf *b, const char *name, uint64_t value)
{
	text_addf(b, ", \"%s\": %" PRIu64, name, value);
}

static void add_properties(struct text_buf *b, const struct record *r)
{
	size_t i;

	text_add(b, ", \"properties\": {");
	for (i = 0; i < r->n_properties; i++) {
		if (i)
			text_add(b, ", ");
		text_add_json(b, r->properties[i].name);
		text_add(b, ": ");
		text_add_json(b, r->properties[i].value);
	}
	text_add_char(b, '}');
}

static void add_detail(struct text_buf *b, const struct dialect *d,
		       const struct record *r)
{
	bool public = r->visibility == IMAGE_PUBLIC;
	char text[40];

	if (d->cyclades) {
		add_member(b, "location", location_shown(r));
		add_member(b, "is_public", public ? "True" : "False");
	} else {
		text_addf(b, ", \"is_public\": %s, \"protected\": %s",
			  public ? "true" : "false",
			  r->protected_ ? "true" : "false");
		add_number(b, "min_ram", r->min_ram);
		add_number(b, "min_disk", r->min_disk);
		text_add(b, ", \"deleted\": false");
	}
	add_member(b, "checksum", r->checksum);
	meta_time(d, r->created_usec, text);
	add_member(b, "created_at", text);
	meta_time(d, r->updated_usec, text);
	add_member(b, "updated_at", text);
	add_member(b, "deleted_at", d->cyclades ? "" : NULL);
	add_member(b, "owner", r->owner);
	add_properties(b, r);
}

void legacy_add_image(struct text_buf *b, const struct dialect *d,
		      const struct record *r, bool detail)
{
	text_add(b, "{\"id\": ");
	text_add_json(b, r->id);
	add_member(b, "name", r->name);
	add_member(b, "status", meta_status(d, r->status));
	add_member(b, "disk_format", r->disk_format);
	add_member(b, "container_format", r->container_format);
	add_number(b, "size", r->size);
	if (detail)
		add_detail(b, d, r);
	else if (!d->cyclades)
		add_member(b, "checksum", r->checksum);
	text_add_char(b, '}');
}

void legacy_respond(struct request *q, const char *id)
{
	struct glance *g = q->app;
	const struct dialect *d = legacy_dialect(q);
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	CLEANUP(record_done) struct record image = { 0 };
	struct text_buf b = { 0 };
	struct error err = { 0 };
	int r = index_read(g->index, &tx, &err);

	if (r >= 0)
		r = record_load(tx, id, &image, &err);
	if (r < 0) {
		respond_failure(q, &err);
		return;
	}
	meta_respond(q, d, &image);
	text_add(&b, "{\"image\": ");
	legacy_add_image(&b, d, &image, true);
	text_add_char(&b, '}');
	respond_json(q, 200, &b);
}
