/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/codec/openssl.h"
#include "glance/admit.h"
#include "glance/members.h"
#include "glance/record-rows.h"
#include "glance/sidecar.h"
#include "tests/lib/unit.h"

#define ID    "11111111-1111-4111-8111-111111111111"
#define OTHER "11111111-1111-4111-8111-111111111112"

static struct error err;
static struct store *store;
static struct index *ix;
static struct sidecars *follower;

static void begin(void)
{
	static unsigned int n;
	const char *path = unit_path("store-%d-%u", (int)getpid(), n++);

	must(openssl_load(&err), err);
	must(store_open(path, &store, &err), err);
	must(index_open(store_index_path(store), &ix, &err), err);
	must(sidecars_new(store, ix, &follower, &err), err);
}

static void end(void)
{
	index_close(ix);
	sidecars_free(follower);
	store_close(store);
}

/* ---- as text ---- */

static void fill(struct record *r)
{
	struct location l = { .url = strdup("pithos://a/b/c"),
			      .store = strdup("pithos"),
			      .metadata = strdup("{}") };

	*r = (struct record){ .status = IMAGE_ACTIVE,
			      .visibility = IMAGE_SHARED,
			      .has_size = true,
			      .size = 12345,
			      .min_disk = 7,
			      .min_ram = 9,
			      .hidden = true };
	must(record_set(&r->id, ID, &err), err);
	must(record_set(&r->name, "..\n\"/\\ \xf0\x9f\x92\xbe", &err), err);
	must(record_set(&r->owner, "project", &err), err);
	must(record_set(&r->disk_format, "qcow2", &err), err);
	must(record_set(&r->container_format, "bare", &err), err);
	must(record_set(&r->dialect, "v2", &err), err);
	must(record_set_property(r, "a", "", &err), err);
	must(record_set_property(r, "b\xc3\xa9", "\t", &err), err);
	must(record_add_tag(r, "t", &err), err);
	must(record_insert_location(r, 0, &l, &err), err);
}

static int insert(struct index_tx *tx, void *opaque, struct error *e)
{
	struct record *r = opaque;
	int code;

	r->seen_as = admit_label(r);
	code = record_insert(tx, r, e);
	return code < 0 ? code : member_add(tx, r->n, "friend", e);
}

static char *read_file(enum store_file file)
{
	static char text[65536];
	int fd = -1;
	ssize_t n;

	if (store_file_open(store, ID, file, O_RDONLY, &fd, NULL) < 0)
		return NULL;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	ck_assert_int_ge(n, 0);
	text[n] = '\0';
	return text;
}

START_TEST(what_the_index_says_is_read_back)
{
	struct record r;
	struct sidecar c = { 0 };
	struct index_tx *tx;
	struct stat st;
	char *again, text[65536];

	begin();
	fill(&r);
	must(index_write(ix, insert, &r, &err), err);
	strcpy(text, read_file(STORE_SIDECAR));
	must(sidecar_read(store, ID, STORE_SIDECAR, &c, &err), err);
	ck_assert_str_eq(c.image.name, r.name);
	ck_assert_int_eq(c.image.visibility, IMAGE_SHARED);
	ck_assert_uint_eq(c.image.size, 12345);
	ck_assert(!c.image.has_virtual_size && !c.image.checksum);
	ck_assert_str_eq(record_property(&c.image, "b\xc3\xa9"), "\t");
	ck_assert_uint_eq(c.image.n_locations, 1);
	ck_assert_uint_eq(c.n_members, 1);
	ck_assert_str_eq(c.members[0].project, "friend");
	must(store_file_stat(store, ID, STORE_SIDECAR, &st), err);
	ck_assert_int_eq(st.st_mode & 0777, 0600);
	ck_assert_int_eq((int64_t)st.st_mtim.tv_sec * 1000000 +
				 st.st_mtim.tv_nsec / 1000,
			 c.image.changed_usec);
	/* And is what the index says of it, should it be read so. */
	must(index_read(ix, &tx, &err), err);
	record_done(&r);
	must(record_load(tx, ID, &r, &err), err);
	must(sidecar_text(tx, &r, &again, &err), err);
	ck_assert_str_eq(again, text);
	index_read_end(tx);
	free(again);
	sidecar_done(&c);
	record_done(&r);
	end();
}
END_TEST

#define BODY(more)                                                              \
	"{\"platter_sidecar\": 1, \"id\": \"" ID "\", \"changed_at\": 3, "      \
	"\"status\": \"active\", \"visibility\": \"public\", \"min_disk\": 0, " \
	"\"min_ram\": 0, \"protected\": false, \"os_hidden\": false, "          \
	"\"created_at\": 1, \"updated_at\": 2, \"properties\": {}, "            \
	"\"tags\": [], \"locations\": [], \"members\": []" more "}"

static const char whole[] = BODY("");

/* Of the whole one, this becomes that; the message has the field. */
static const struct {
	const char *from, *to, *says;
} hostile[] = {
	{ "{\"platter", "[\"platter", "JSON object" },
	{ "\"platter_sidecar\": 1, ", "", "platter_sidecar" },
	{ "sidecar\": 1", "sidecar\": 2", "knows 1" },
	{ ID, OTHER, "id is another" },
	{ "\"id\": \"" ID "\", ", "", "id is missing" },
	{ "\"active\"", "\"queued\"", "status" },
	{ "\"active\"", "\"saving\"", "status" },
	{ "\"active\"", "7", "status" },
	{ "\"public\"", "\"all\"", "visibility" },
	{ "\"min_disk\": 0", "\"min_disk\": -1", "min_disk" },
	{ "\"min_ram\": 0", "\"min_ram\": 1.5", "min_ram" },
	{ "\"protected\": false", "\"protected\": 0", "protected" },
	{ "\"changed_at\": 3, ", "", "changed_at" },
	{ "\"tags\": []", "\"tags\": [1]", "tags" },
	{ "\"tags\": []", "\"tags\": {}", "tags" },
	{ "\"properties\": {}", "\"properties\": {\"a\": 1}", "properties" },
	{ "\"properties\": {}", "\"properties\": []", "properties" },
	{ "\"members\": []", "\"members\": [{}]", "member" },
	{ "\"members\": []",
	  "\"members\": [{\"member\": \"a\", \"status\": \"owner\"}]",
	  "status of a member" },
	{ "\"locations\": []",
	  "\"locations\": [{\"url\": \"file:///etc/passwd\", \"store\": "
	  "\"found\", \"metadata\": \"{}\", \"own\": false}]",
	  "store of a location" },
	{ "\"locations\": []",
	  "\"locations\": [{\"url\": \"x\", \"store\": \"file\", "
	  "\"metadata\": \"[\", \"own\": false}]",
	  "metadata" },
	{ "\"tags\": []", "\"tags\": [], \"tags\": []", "JSON" },
	{ "\"tags\": []", "\"tags\": [], \"size\": -7", "size" },
	{ "\"tags\": []", "\"tags\": [], \"size\": 99999999999999999999",
	  "JSON" },
	{ "\"tags\": []", "\"tags\": [], \"name\": \"\\u0000\"", "JSON" },
	{ "\"tags\": []", "\"tags\": [], \"name\": [\"a\"]", "name" },
	{ "\"tags\": []", "\"tags\": [], \"checksum\": \"00\"", "checksum" },
	{ "\"tags\": []", "\"tags\": [], \"os_hash_value\": \"x\"",
	  "os_hash_value" },
};

START_TEST(a_damaged_one_is_refused_by_its_field)
{
	struct sidecar c = { 0 };
	const char *at = strstr(whole, hostile[_i].from);
	char text[4096];

	ck_assert_ptr_nonnull(at);
	snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - whole), whole,
		 hostile[_i].to, at + strlen(hostile[_i].from));
	ck_assert_int_lt(sidecar_parse(text, strlen(text), ID, &c, &err), 0);
	unit_says(&err, hostile[_i].says);
	error_clear(&err);
}
END_TEST

START_TEST(a_cut_or_deep_one_is_refused_wherever_it_is_cut)
{
	struct sidecar c = { 0 };
	char deep[1024];
	size_t len;

	must(sidecar_parse(whole, strlen(whole), ID, &c, &err), err);
	sidecar_done(&c);
	for (len = 0; len < strlen(whole); len++)
		ck_assert_int_lt(sidecar_parse(whole, len, ID, &c, NULL), 0);
	memset(deep, '[', sizeof(deep));
	ck_assert_int_lt(sidecar_parse(deep, sizeof(deep), ID, &c, NULL), 0);
}
END_TEST

/* Whatever it comes to: it ends, and says what is wrong if anything is. */
START_TEST(a_flipped_bit_is_borne)
{
	struct sidecar c = { 0 };
	char text[sizeof(whole)];
	size_t bit;

	for (bit = 0; bit < 8 * strlen(whole); bit++) {
		memcpy(text, whole, sizeof(whole));
		text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
		if (sidecar_parse(text, strlen(whole), ID, &c, &err) < 0)
			ck_assert(err.code < 0 && *err.msg);
		else
			ck_assert_str_eq(c.image.id, ID);
		sidecar_done(&c);
		error_clear(&err);
	}
}
END_TEST

/* ---- in step ---- */

static int change(struct index_tx *tx, void *opaque, struct error *e)
{
	struct record r = { 0 };
	int code = record_load(tx, ID, &r, e);

	if (code >= 0)
		code = record_set(&r.name, opaque, e);
	if (code >= 0)
		code = record_update(tx, &r, e);
	record_done(&r);
	return code;
}

static int change_and_fail(struct index_tx *tx, void *opaque, struct error *e)
{
	int code = change(tx, opaque, e);

	return code < 0 ? code : error_set(e, -EPERM, 0, "no");
}

static int add_friend(struct index_tx *tx, void *opaque, struct error *e)
{
	struct record r = { 0 };
	int code = record_load(tx, ID, &r, e);

	if (code >= 0)
		code = member_add(tx, r.n, opaque, e);
	record_done(&r);
	return code;
}

static int delete (struct index_tx *tx, void *opaque, struct error *e)
{
	struct record r = { 0 };
	int code = record_load(tx, ID, &r, e);

	if (code >= 0)
		code = record_delete(tx, &r, e);
	record_done(&r);
	return code;
}

static char nowhere[] = "never", once[] = "once", friend_b[] = "b";

START_TEST(it_follows_each_commit_and_no_failure)
{
	struct record r;

	begin();
	fill(&r);
	must(index_write(ix, insert, &r, &err), err);
	must(index_write(ix, change, once, &err), err);
	ck_assert_ptr_nonnull(strstr(read_file(STORE_SIDECAR), "\"once\""));
	ck_assert_int_eq(index_write(ix, change_and_fail, nowhere, &err),
			 -EPERM);
	error_clear(&err);
	ck_assert_ptr_null(strstr(read_file(STORE_SIDECAR), "never"));
	ck_assert(!store_file_is(store, ID, STORE_SIDECAR_NEW));
	/* A member changes what others see, and no updated_at. */
	must(index_write(ix, add_friend, friend_b, &err), err);
	ck_assert_ptr_nonnull(strstr(read_file(STORE_SIDECAR), "\"b\""));
	must(index_write(ix, delete, NULL, &err), err);
	ck_assert(!store_file_is(store, ID, STORE_SIDECAR));
	ck_assert(!store_file_is(store, ID, STORE_SIDECAR_NEW));
	record_done(&r);
	end();
}
END_TEST

START_TEST(a_change_fails_where_it_cannot_be_written)
{
	struct index_tx *tx;
	struct record r;
	char path[512];

	begin();
	fill(&r);
	must(index_write(ix, insert, &r, &err), err);
	record_done(&r);
	/* Not even root writes to a folder. */
	snprintf(path, sizeof(path), "%s/images/11/" ID ".json.new",
		 store_path(store));
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_lt(index_write(ix, change, once, &err), 0);
	unit_says(&err, ID);
	error_clear(&err);
	must(index_read(ix, &tx, &err), err);
	must(record_load(tx, ID, &r, &err), err);
	ck_assert_str_ne(r.name, "once");
	index_read_end(tx);
	record_done(&r);
	ck_assert_int_eq(rmdir(path), 0);
	must(index_write(ix, change, once, &err), err);
	end();
}
END_TEST

static int queue(struct index_tx *tx, void *opaque, struct error *e)
{
	return record_insert(tx, opaque, e);
}

START_TEST(what_has_no_data_has_none)
{
	struct record r;

	begin();
	fill(&r);
	r.status = IMAGE_QUEUED;
	must(index_write(ix, queue, &r, &err), err);
	must(index_write(ix, change, once, &err), err);
	ck_assert(!store_file_is(store, ID, STORE_SIDECAR));
	record_done(&r);
	end();
}
END_TEST

struct application {
	struct sidecar *c;
	bool trusted;
};

static int apply(struct index_tx *tx, void *opaque, struct error *e)
{
	const struct application *a = opaque;

	return sidecar_apply(tx, a->c, a->trusted, e);
}

START_TEST(one_that_is_not_trusted_shows_nothing_to_others)
{
	struct sidecar c = { 0 };
	struct application a = { &c, _i };
	struct index_tx *tx;
	struct record r;

	begin();
	fill(&r);
	must(index_write(ix, insert, &r, &err), err);
	record_done(&r);
	must(sidecar_read(store, ID, STORE_SIDECAR, &c, &err), err);
	index_follow(ix, NULL);
	must(index_write(ix, delete, NULL, &err), err);
	must(index_write(ix, apply, &a, &err), err);
	must(index_read(ix, &tx, &err), err);
	must(record_load(tx, ID, &r, &err), err);
	ck_assert_str_eq(r.owner, "project");
	ck_assert_int_eq(r.visibility, _i ? IMAGE_SHARED : IMAGE_PRIVATE);
	ck_assert_int_eq(record_is_member(tx, r.n, "friend", NULL, &err), _i);
	index_read_end(tx);
	record_done(&r);
	sidecar_done(&c);
	end();
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, what_the_index_says_is_read_back);
	LOOP(tc, a_damaged_one_is_refused_by_its_field, hostile);
	tcase_add_test(tc, a_cut_or_deep_one_is_refused_wherever_it_is_cut);
	tcase_add_test(tc, a_flipped_bit_is_borne);
	tcase_add_test(tc, it_follows_each_commit_and_no_failure);
	tcase_add_test(tc, a_change_fails_where_it_cannot_be_written);
	tcase_add_test(tc, what_has_no_data_has_none);
	tcase_add_loop_test(tc, one_that_is_not_trusted_shows_nothing_to_others,
			    0, 2);
}

int main(void)
{
	return unit_main("sidecar", add);
}
