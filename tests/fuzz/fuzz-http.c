/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What HTTP clients send, FUZZ_INPUT: "json-patch" (the body of a PATCH, applied
 * to an image), "meta-headers" (lines "NAME: VALUE" of Glance v1 and Cyclades)
 * or "query" (behind "/v2/images?", run on an index). Built and run as
 * fuzz-format.c is.
 */
#include <errno.h>
#include <string.h>

#include "formats/codec/openssl.h"
#include "glance/image-fields.h"
#include "glance/image-json.h"
#include "glance/image-list.h"
#include "glance/http/json-in.h"
#include "glance/json-patch.h"
#include "glance/locations.h"
#include "glance/meta-headers.h"
#include "glance/record-rows.h"
#include "tests/fuzz/replay.h"

#define NAME_MAX_BYTES 255U /* of a property, at least as characters */
#define PROPERTIES_MAX 128U

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A string of @data, to be freed. */
static char *text_of(const uint8_t *data, size_t bytes)
{
	char *text = malloc(bytes + 1);

	MUST(text, "no memory");
	memcpy(text, data, bytes);
	text[bytes] = '\0';
	return text;
}

static void new_image(struct record *r)
{
	char id[37];

	*r = (struct record){ .visibility = IMAGE_SHARED };
	MUST(openssl_load(NULL) >= 0, "no OpenSSL");
	record_new_id(id);
	MUST(record_set(&r->id, id, NULL) >= 0, "no memory");
}

/* Whatever was set, what is shown of it is JSON. */
static void check_image(const struct record *r)
{
	static char url[] = "nbd://h/";
	static const struct glance_config config = { .direct_url = url };
	static struct glance g = { .config = &config };
	static const struct identity who = { .admin = true };
	const struct image_view view = { &g, &who };
	struct text_buf b = { 0 };
	struct error err = { 0 };
	json_t *j = NULL;
	size_t i;

	if (!g.locations)
		MUST(location_rules_new("/", "true", NULL, &g.locations,
					&err) >= 0,
		     "%s", err.msg);
	MUST(r->n_properties <= PROPERTIES_MAX, "%zu properties",
	     r->n_properties);
	for (i = 0; i < r->n_properties; i++)
		MUST(*r->properties[i].name, "a property without a name");
	image_json_add(&b, r, &view);
	MUST(!b.failed, "the image is not shown");
	MUST(json_in_parse(b.text, b.len, &j, &err) >= 0, "%s: %s", err.msg,
	     b.text);
	json_decref(j);
	text_buf_done(&b);
}

/* ---- json-patch ---- */

static int apply(const struct patch *p, struct error *err)
{
	CLEANUP(record_done) struct record image = { 0 };
	size_t i;
	int r = 0;

	new_image(&image);
	for (i = 0; i < p->n_changes && r >= 0; i++) {
		const struct patch_change *c = &p->changes[i];

		MUST(c->name, "a change of nothing");
		MUST(c->value || c->op == PATCH_REMOVE, "a change to nothing");
		if (c->value)
			r = image_set_field(&image, c->name, c->value, err);
		else
			record_remove_property(&image, c->name);
	}
	check_image(&image);
	return r;
}

static void run_json_patch(const uint8_t *data, size_t bytes,
			   struct replay_outcome *ret)
{
	unsigned int version;

	ret->refused = true;
	for (version = 20; version <= 21; version++) {
		struct patch p = { 0 };
		struct error err = { 0 };
		int r = json_patch_parse((const char *)data, bytes, version, &p,
					 &err);

		MUST(r >= 0 || *err.msg, "a refusal without a word");
		MUST(r >= 0 || !p.changes, "something is left of a refusal");
		if (r >= 0)
			r = apply(&p, &err);
		json_patch_done(&p);
		if (r >= 0)
			ret->refused = false;
		else
			ret->reason = err;
	}
}

/* ---- meta-headers ---- */

static int add_lines(char *text, struct meta *m, struct error *err)
{
	char *line, *value, *rest = NULL;
	int r = 0;

	for (line = strtok_r(text, "\n", &rest); line && r >= 0;
	     line = strtok_r(NULL, "\n", &rest)) {
		value = strstr(line, ": ");
		if (value) {
			*value = '\0';
			value += 2;
		}
		r = meta_add(m, line, value ? value : "", err);
	}
	return r;
}

static void run_meta_headers(const uint8_t *data, size_t bytes,
			     struct replay_outcome *ret)
{
	CLEANUP(freep) char *text = text_of(data, bytes);
	CLEANUP(meta_done) struct meta m = { 0 };
	CLEANUP(record_done) struct record image = { 0 };
	int r = add_lines(text, &m, &ret->reason);
	size_t i;

	for (i = 0; i < m.n_properties; i++) {
		MUST(strlen(m.properties[i].name) <= NAME_MAX_BYTES,
		     "a long name");
		MUST(uri_text_ok(m.properties[i].value),
		     "a value that is none");
	}
	new_image(&image);
	if (r >= 0)
		r = meta_apply(&m, &image, &ret->reason);
	check_image(&image);
	ret->refused = r < 0;
}

/* ---- query ---- */

static int add_image(struct index_tx *tx, void *opaque, struct error *err)
{
	CLEANUP(record_done) struct record image = { 0 };

	new_image(&image);
	return record_insert(tx, &image, err);
}

static char index_folder[] = "/tmp/fuzz-index-XXXXXX";
static char index_file[sizeof(index_folder) + 6];
static struct index *the_index;

/* With two images. */
static struct index *an_index(void)
{
	struct error err = { 0 };
	int i;

	if (the_index)
		return the_index;
	MUST(mkdtemp(index_folder), "mkdtemp: %s", errno_text(errno));
	snprintf(index_file, sizeof(index_file), "%s/index", index_folder);
	MUST(index_open(index_file, &the_index, &err) == 0, "%s", err.msg);
	for (i = 0; i < 2; i++)
		MUST(index_write(the_index, add_image, NULL, &err) >= 0, "%s",
		     err.msg);
	return the_index;
}

#ifndef FUZZ_LIBFUZZER
static void forget_index(void)
{
	if (!the_index)
		return;
	index_close(the_index);
	unlink(index_file);
	rmdir(index_folder);
}
#endif

static int count(void *opaque, const struct record *r)
{
	check_image(r);
	++*(unsigned int *)opaque;
	return 0;
}

static void run_query(const uint8_t *data, size_t bytes,
		      struct replay_outcome *ret)
{
	static const char path[] = "/v2/images?";
	const struct identity who = { .project = (char *)"p", .member = true };
	CLEANUP(freep) char *text = malloc(sizeof(path) + bytes);
	CLEANUP(uri_done) struct uri u = { 0 };
	CLEANUP(image_list_done) struct image_list list = { 0 };
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	unsigned int n = 0;
	int r;

	MUST(text, "no memory");
	memcpy(text, path, sizeof(path) - 1);
	memcpy(text + sizeof(path) - 1, data, bytes);
	text[sizeof(path) - 1 + bytes] = '\0';
	r = uri_parse(text, &u, &ret->reason);
	if (r >= 0)
		r = image_list_parse_v2(&u, &who, &list, &ret->reason);
	if (r >= 0) {
		MUST(index_read(an_index(), &tx, NULL) == 0, "no index");
		r = image_list_run(tx, &list, count, &n, &ret->reason);
		MUST(r >= 0 || r == -EINVAL, "SQL: %s", ret->reason.msg);
		MUST(n <= 2, "%u images of 2", n);
	}
	ret->refused = r < 0;
}

static void run(const uint8_t *data, size_t bytes, struct replay_outcome *ret)
{
	*ret = (struct replay_outcome){ 0 };
	if (!strcmp(FUZZ_INPUT, "json-patch"))
		run_json_patch(data, bytes, ret);
	else if (!strcmp(FUZZ_INPUT, "meta-headers"))
		run_meta_headers(data, bytes, ret);
	else
		run_query(data, bytes, ret);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct replay_outcome o;

	run(data, bytes, &o);
	return 0;
}

#ifndef FUZZ_LIBFUZZER
int main(int argc, char **argv)
{
	int status = replay(argc, argv, run);

	forget_index();
	return status;
}
#endif
