/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "glance/image-fields.h"
#include "glance/locations.h"
#include "glance/meta-headers.h"
#include "glance/schemas.h"
#include "glance/time-text.h"

#define PREFIX		  "x-image-meta-"
#define PROPERTY	  "property_"
#define VALUE_BYTES_MAX	  16384U
#define PROPERTY_MAX	  128U
#define PROPERTY_NAME_MAX 255U

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decoded; a '%' that begins no byte stands for itself. */
static char *decode(const char *text)
{
	char *ret = strdup(text), *out = ret;
	int high, low;

	if (!ret)
		return NULL;
	while (*text) {
		high = *text == '%' ? digit(text[1]) : -1;
		low = high < 0 ? -1 : digit(text[2]);
		if (low < 0) {
			*out++ = *text++;
			continue;
		}
		*out++ = (char)(high * 16 + low);
		text += 3;
	}
	*out = '\0';
	return ret;
}

/* Lower case, punctuation as '_'. */
static char *normalise(const char *name)
{
	char *ret = strdup(name), *p;

	for (p = ret; ret && *p; p++)
		*p = isalnum((unsigned char)*p)
			     ? (char)tolower((unsigned char)*p)
			     : '_';
	return ret;
}

struct parsing {
	struct meta *m;
	struct error *err;
};

static int bad_value(struct parsing *p, const char *name, const char *what)
{
	return error_set(p->err, -EINVAL, 0,
			 "Invalid value of header X-Image-Meta-%s: %s", name,
			 what);
}

static int parse_number(struct parsing *p, const char *name, const char *value,
			uint64_t *ret, bool *ret_has)
{
	char *end;

	errno = 0;
	*ret = strtoull(value, &end, 10);
	if (!isdigit((unsigned char)*value) || *end || errno ||
	    *ret > INT64_MAX)
		return bad_value(p, name,
				 "a number of bytes, MB or GB is "
				 "wanted");
	*ret_has = true;
	return 0;
}

static int parse_bool(struct parsing *p, const char *name, const char *value,
		      bool *ret, bool *ret_has)
{
	static const char *const yes[] = { "true", "yes", "on", "1", "t", "y" };
	static const char *const no[] = { "false", "no", "off", "0", "f", "n" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(yes); i++) {
		if (!strcasecmp(value, yes[i]) || !strcasecmp(value, no[i])) {
			*ret = !strcasecmp(value, yes[i]);
			*ret_has = true;
			return 0;
		}
	}
	return bad_value(p, name, "true or false is wanted");
}

static int add_property(struct parsing *p, const char *name, char *value)
{
	struct meta *m = p->m;
	struct property *grown;

	/* v2 shows properties beside the fields: none passes for one. */
	if (image_name_reserved(name) || schema_image_base(name)) {
		free(value);
		return error_set(p->err, -EINVAL, 0,
				 "X-Image-Meta-Property-%.64s: the name is "
				 "reserved",
				 name);
	}
	if (!*name || strlen(name) > PROPERTY_NAME_MAX ||
	    m->n_properties == PROPERTY_MAX) {
		free(value);
		return bad_value(p, "Property",
				 "too many, or a name of no "
				 "length that fits");
	}
	grown = reallocarray(m->properties, m->n_properties + 1,
			     sizeof(*grown));
	if (grown)
		m->properties = grown;
	if (!grown || !(grown[m->n_properties].name = strdup(name))) {
		free(value);
		return error_set(p->err, -ENOMEM, 0, "out of memory");
	}
	grown[m->n_properties++].value = value;
	return 0;
}

/* Takes @value over. Names that nobody knows are ignored, as Glance does. */
static int take(struct parsing *p, const char *name, char *value)
{
	struct meta *m = p->m;
	const struct {
		const char *name;
		char **field;
	} texts[] = {
		{ "name", &m->name },
		{ "id", &m->id },
		{ "location", &m->location },
		{ "disk_format", &m->disk_format },
		{ "container_format", &m->container_format },
		{ "checksum", &m->checksum },
		{ "owner", &m->owner },
		{ "status", &m->status },
	};
	size_t i;
	int r = 0;

	if (!strncmp(name, PROPERTY, strlen(PROPERTY)))
		return add_property(p, name + strlen(PROPERTY), value);
	for (i = 0; i < ARRAY_SIZE(texts); i++) {
		if (strcmp(texts[i].name, name) != 0)
			continue;
		free(*texts[i].field);
		*texts[i].field = value;
		return 0;
	}
	if (!strcmp(name, "size"))
		r = parse_number(p, "Size", value, &m->size, &m->has_size);
	else if (!strcmp(name, "min_ram"))
		r = parse_number(p, "Min_ram", value, &m->min_ram,
				 &m->has_min_ram);
	else if (!strcmp(name, "min_disk"))
		r = parse_number(p, "Min_disk", value, &m->min_disk,
				 &m->has_min_disk);
	else if (!strcmp(name, "is_public"))
		r = parse_bool(p, "Is_public", value, &m->is_public,
			       &m->has_public);
	else if (!strcmp(name, "protected"))
		r = parse_bool(p, "Protected", value, &m->protected_,
			       &m->has_protected);
	free(value);
	return r;
}

int meta_add(struct meta *m, const char *name, const char *value,
	     struct error *err)
{
	struct parsing parsing = { m, err }, *p = &parsing;
	CLEANUP(freep) char *key = NULL;
	char *text;

	if (!strcasecmp(name, "x-glance-registry-purge-props")) {
		p->m->purge = !strcasecmp(value, "true");
		return 0;
	}
	if (strncasecmp(name, PREFIX, strlen(PREFIX)) != 0)
		return 0;
	key = normalise(name + strlen(PREFIX));
	text = decode(value);
	if (!key || !text) {
		free(text);
		return error_set(p->err, -ENOMEM, 0, "out of memory");
	}
	if (strlen(text) > VALUE_BYTES_MAX || !uri_text_ok(text)) {
		free(text);
		return bad_value(p, key,
				 "it is too long, no UTF-8, or has "
				 "control characters");
	}
	return take(p, key, text);
}

static int see_header(void *opaque, const char *name, const char *value)
{
	struct parsing *p = opaque;

	return meta_add(p->m, name, value, p->err);
}

int meta_parse(const struct request *q, struct meta *ret, struct error *err)
{
	struct meta m = { 0 };
	struct parsing p = { &m, err };
	int r = request_for_headers(q, see_header, &p);

	if (r < 0) {
		meta_done(&m);
		return r;
	}
	*ret = m;
	return 0;
}

void meta_done(struct meta *m)
{
	size_t i;

	free(m->name);
	free(m->id);
	free(m->location);
	free(m->disk_format);
	free(m->container_format);
	free(m->checksum);
	free(m->owner);
	free(m->status);
	for (i = 0; i < m->n_properties; i++) {
		free(m->properties[i].name);
		free(m->properties[i].value);
	}
	free(m->properties);
	*m = (struct meta){ 0 };
}

static int set_text(char **field, const char *value, size_t max,
		    const char *name, struct error *err)
{
	if (!value)
		return 0;
	if (strlen(value) > max)
		return error_set(err, -EINVAL, 0,
				 "Invalid value of header X-Image-Meta-%s: "
				 "over %zu bytes",
				 name, max);
	return record_set(field, value, err);
}

static bool is_amazon(const char *format)
{
	return format && (!strcmp(format, "aki") || !strcmp(format, "ari") ||
			  !strcmp(format, "ami"));
}

int meta_match_formats(const struct meta *m, struct record *r,
		       struct error *err)
{
	const char *d = m->disk_format, *c = m->container_format;

	if (!is_amazon(d) && !is_amazon(c))
		return 0;
	if (!c)
		return record_set(&r->container_format, d, err);
	if (!d)
		return record_set(&r->disk_format, c, err);
	return !strcmp(d, c)
		       ? 0
		       : error_set(err, -EINVAL, 0,
				   "Invalid mix of disk and container formats. "
				   "When setting a disk or container format to "
				   "one of 'aki', 'ari', or 'ami', the "
				   "container and disk formats must match.");
}

int meta_apply(const struct meta *m, struct record *r, struct error *err)
{
	size_t i;
	int code = set_text(&r->name, m->name, 255, "Name", err);

	if (code >= 0)
		code = set_text(&r->disk_format, m->disk_format, 20,
				"Disk_format", err);
	if (code >= 0)
		code = set_text(&r->container_format, m->container_format, 20,
				"Container_format", err);
	if (code >= 0)
		code = set_text(&r->owner, m->owner, 255, "Owner", err);
	if (m->has_min_ram)
		r->min_ram = m->min_ram;
	if (m->has_min_disk)
		r->min_disk = m->min_disk;
	if (m->has_protected)
		r->protected_ = m->protected_;
	if (m->has_public)
		r->visibility = m->is_public ? IMAGE_PUBLIC : IMAGE_SHARED;
	if (m->purge)
		while (r->n_properties)
			record_remove_property(r, r->properties[0].name);
	for (i = 0; i < m->n_properties && code >= 0; i++)
		code = record_set_property(r, m->properties[i].name,
					   m->properties[i].value, err);
	return code;
}

const char *meta_status(const struct dialect *d, enum image_status s)
{
	return d->cyclades && s == IMAGE_ACTIVE ? "available"
						: image_status_name(s);
}

void meta_time(const struct dialect *d, int64_t usec, char *ret)
{
	char iso[21];

	time_format(usec, iso);
	iso[19] = '\0';
	if (d->cyclades)
		iso[10] = ' ';
	snprintf(ret, 40, "%s%s", iso, d->cyclades ? "" : ".000000");
}

/* X-Image-Meta-NAME, spelled as the dialect does. */
static void add(struct request *q, const struct dialect *d, const char *name,
		const char *value)
{
	struct text_buf b = { 0 };
	char full[PROPERTY_NAME_MAX + 64], *p;

	snprintf(full, sizeof(full), "X-Image-Meta-%s", name);
	for (p = full; d->cyclades && *p; p++)
		if (*p == '_')
			*p = '-';
	/* What need not be encoded is easier to read as it is. */
	for (; *value; value++) {
		unsigned char c = (unsigned char)*value;

		if (c == '%' || c < 0x20 || c >= 0x7f)
			text_addf(&b, "%%%02X", c);
		else
			text_add_char(&b, (char)c);
	}
	if (!b.failed)
		respond_header(q, full, b.text ? b.text : "");
	text_buf_done(&b);
}

static void add_number(struct request *q, const struct dialect *d,
		       const char *name, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	add(q, d, name, text);
}

static void add_time(struct request *q, const struct dialect *d,
		     const char *name, int64_t usec)
{
	char text[40];

	meta_time(d, usec, text);
	add(q, d, name, text);
}

static void add_text(struct request *q, const struct dialect *d,
		     const char *name, const char *value)
{
	if (value)
		add(q, d, name, value);
}

void meta_respond(struct request *q, const struct dialect *d,
		  const struct record *r)
{
	char property[PROPERTY_NAME_MAX + 16];
	size_t i;

	add(q, d, "Id", r->id);
	add_text(q, d, "Name", r->name);
	add(q, d, "Status", meta_status(d, r->status));
	add_text(q, d, "Disk_format", r->disk_format);
	add_text(q, d, "Container_format", r->container_format);
	add_text(q, d, "Checksum", r->checksum);
	add_text(q, d, "Owner", r->owner);
	add_number(q, d, "Size", r->size);
	add(q, d, "Is_public",
	    r->visibility == IMAGE_PUBLIC ? "True" : "False");
	add_time(q, d, "Created_at", r->created_usec);
	add_time(q, d, "Updated_at", r->updated_usec);
	add(q, d, "Deleted_at", "");
	if (location_shown(r))
		add(q, d, "Location", location_shown(r));
	if (!d->cyclades) {
		add_number(q, d, "Min_ram", r->min_ram);
		add_number(q, d, "Min_disk", r->min_disk);
		add(q, d, "Protected", r->protected_ ? "True" : "False");
		add(q, d, "Deleted", "False");
	}
	for (i = 0; i < r->n_properties; i++) {
		snprintf(property, sizeof(property), "Property-%.255s",
			 r->properties[i].name);
		add(q, d, property, r->properties[i].value);
	}
}
