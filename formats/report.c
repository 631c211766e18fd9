/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/report.h"
#include "iouring/util.h"

json_t *report_text(const char *text)
{
	json_t *j = json_string(text);
	struct error escaped = { 0 };

	if (j)
		return j;
	error_set(&escaped, -EBADMSG, 0, "%s", text);
	j = json_string(escaped.msg);
	return j ? j : json_null();
}

static void json_set_text(json_t *j, const char *key, const char *value)
{
	json_object_set_new(j, key, report_text(value));
}

static void json_set_number(json_t *j, const char *key, uint64_t value)
{
	json_object_set_new(j, key, json_integer((json_int_t)value));
}

static void json_set_flag(json_t *j, const char *key, bool value)
{
	json_object_set_new(j, key, json_boolean(value));
}

struct json_sink {
	struct info_sink sink;
	json_t *data;
};

static void sink_json_text(struct info_sink *s, const char *key,
			   const char *value)
{
	json_set_text(container_of(s, struct json_sink, sink)->data, key,
		      value);
}

static void sink_json_number(struct info_sink *s, const char *key,
			     uint64_t value)
{
	json_set_number(container_of(s, struct json_sink, sink)->data, key,
			value);
}

static void sink_json_flag(struct info_sink *s, const char *key, bool value)
{
	json_set_flag(container_of(s, struct json_sink, sink)->data, key,
		      value);
}

static json_t *json_specific(struct layer *l)
{
	struct json_sink s = {
		.sink = { .text = sink_json_text,
			  .number = sink_json_number,
			  .flag = sink_json_flag },
		.data = json_object(),
	};

	if (l->ops->info)
		l->ops->info(l, &s.sink);
	return s.data;
}

static int json_add_snapshot(void *opaque, const struct snapshot *s)
{
	json_t *j = json_object();

	json_set_text(j, "id", s->id);
	json_set_text(j, "name", s->name);
	json_set_number(j, "vm-state-size", s->vm_state_bytes);
	json_set_number(j, "date-sec", s->date_sec);
	json_set_number(j, "date-nsec", s->date_nsec);
	json_set_number(j, "vm-clock-sec", s->vm_clock_nsec / 1000000000);
	json_set_number(j, "vm-clock-nsec", s->vm_clock_nsec % 1000000000);
	json_set_number(j, "virtual-size", s->bytes);
	json_array_append_new(opaque, j);
	return 0;
}

json_t *report_layer(const struct layer *l, const char *name)
{
	json_t *j = json_object();
	uint64_t bytes;

	json_set_text(j, "filename", name);
	json_set_text(j, "format", l->ops->name);
	json_set_flag(j, "format-guessed", l->guessed);
	json_set_number(j, "virtual-size", l->bytes);
	if (layer_disk_bytes(l, &bytes))
		json_set_number(j, "actual-size", bytes);
	if (l->unit_bytes)
		json_set_number(j, "cluster-size", l->unit_bytes);
	json_set_flag(j, "encrypted", l->encrypted);
	return j;
}

static int add_snapshots(json_t *to, struct layer *l, struct error *err)
{
	json_t *all = json_array();
	int r = layer_snapshots(l, json_add_snapshot, all, err);

	if (json_array_size(all))
		json_object_set(to, "snapshots", all);
	json_decref(all);
	return r;
}

int report_details(json_t *to, struct layer *l, struct error *err)
{
	json_t *data = json_specific(l), *specific;
	int r;

	if (l->ops->glance_name)
		json_set_text(to, "glance-disk-format", l->ops->glance_name);
	json_set_flag(to, "dirty-flag",
		      json_is_true(json_object_get(data, "dirty")));
	if (l->parent.name)
		json_set_text(to, "backing-filename", l->parent.name);
	if (l->parent.format)
		json_set_text(to, "backing-filename-format", l->parent.format);
	r = add_snapshots(to, l, err);
	if (json_object_size(data)) {
		specific = json_object();
		json_set_text(specific, "type", l->ops->name);
		json_object_set(specific, "data", data);
		json_object_set_new(to, "format-specific", specific);
	}
	json_decref(data);
	return r;
}

void report_reference(json_t *to, const char *by, const char *kind,
		      const char *name, enum reference_verdict verdict)
{
	json_t *j = json_object();

	json_set_text(j, "kind", kind);
	json_set_text(j, "filename", name);
	json_set_text(j, "referenced-by", by);
	json_set_text(j, "verdict", reference_verdict_text(verdict));
	json_set_flag(j, "allowed", verdict == REFERENCE_OK);
	json_array_append_new(to, j);
}
