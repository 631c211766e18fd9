/* SPDX-License-Identifier: BSD-3-Clause */
/* platter index status, check, restore, rebuild: a store beside its index. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/report.h"
#include "glance/rebuild.h"
#include "glance/survey.h"
#include "glance/time-text.h"
#include "glance/tombstone.h"
#include "nbd/cmd/cmd-index.h"
#include "nbd/cmd/progress.h"
#include "nbd/cmd/stop.h"
#include "nbd/text.h"

/* Of an index that is damaged all over. */
#define DAMAGE_LINES_MAX 20U

/* Nothing is made: neither a store nor an index. */
static int open_to_look(struct index_cmd *c, struct error *err)
{
	int r = store_open_look(c->folder, &c->store, err);

	return r < 0 ? r
		     : index_open_look(store_index_path(c->store), &c->index,
				       err);
}

/* ---- findings ---- */

struct listing {
	struct index_cmd *c;
	json_t *list;
	uint64_t n;
	bool damage; /* beside what the next start of a server mends */
};

static const char *words_of(enum survey_what w)
{
	static const char *const texts[SURVEY_WHATS] = {
		[SURVEY_NO_DATA] = "an image's data are missing",
		[SURVEY_SIZE] = "is not of the size that the index has",
		[SURVEY_UNKNOWN] = "the index does not know it",
		[SURVEY_STRANGE] = "is no file of a store's",
		[SURVEY_NO_SIDECAR] = "is missing; the next start of a server "
				      "writes it",
		[SURVEY_OLD_SIDECAR] = "is not what the index says; the next "
				       "start of a server writes it",
		[SURVEY_NEW_SIDECAR] = "is newer than the index; the next "
				       "start of a server brings that up to "
				       "date",
	};

	return texts[w];
}

static void add_finding(struct listing *l, const char *what, const char *file,
			const char *id, const char *text)
{
	l->n++;
	if (l->list) {
		json_array_append_new(
			l->list,
			json_pack("{s:s, s:o*, s:s*, s:o*}", "finding", what,
				  "file", file ? report_text(file) : NULL,
				  "image", id, "reason",
				  text ? report_text(text) : NULL));
		return;
	}
	printf("%-12s ", what);
	if (!file)
		file = id;
	if (file)
		cmd_put(stdout, file);
	if (text && *text) {
		fputs(file ? ": " : "", stdout);
		cmd_put(stdout, text);
	}
	putchar('\n');
}

static int list_finding(void *opaque, const struct survey_finding *f)
{
	struct listing *l = opaque;

	if (f->what != SURVEY_NO_SIDECAR && f->what != SURVEY_OLD_SIDECAR)
		l->damage = true;
	add_finding(l, survey_name(f->what), f->path, f->id, words_of(f->what));
	return 0;
}

static bool is_had(struct index_cmd *c, struct store_holder *ret)
{
	return store_holder(c->store, ret, NULL) > 0;
}

/* ---- status ---- */

struct counts {
	json_t *statuses, *tombstones;
};

static int count_statuses(struct index_tx *tx, json_t *to, struct error *err)
{
	CLEANUP(index_reset) sqlite3_stmt *st = NULL;
	int r = index_sql(tx,
			  "SELECT status, count(*) FROM images GROUP BY status "
			  "ORDER BY status",
			  &st, err);

	while (r >= 0 && (r = index_step(st, err)) == 1)
		json_object_set_new(to, index_text(st, 0),
				    json_integer(sqlite.column_int64(st, 1)));
	return r;
}

static int count_tombstone(void *opaque, enum tombstone_kind k, const char *id)
{
	const char *name = tombstone_kind_name(k);
	json_t *to = opaque;

	json_object_set_new(
		to, name,
		json_integer(json_integer_value(json_object_get(to, name)) +
			     1));
	return 0;
}

static int count_all(struct index_cmd *c, unsigned int scheme,
		     struct counts *ret, struct error *err)
{
	CLEANUP(index_read_endp) struct index_tx *tx = NULL;
	int r = index_read(c->index, &tx, err);

	if (r >= 0)
		r = count_statuses(tx, ret->statuses, err);
	/* Those of before have none. */
	if (r >= 0 && scheme == index_scheme_known())
		r = tombstones_each(tx, count_tombstone, ret->tombstones, err);
	return r;
}

static void print_counts(const char *title, json_t *counts)
{
	const char *name;
	json_t *v;
	bool any = false;

	printf("%-12s", title);
	json_object_foreach(counts, name, v) {
		printf("%s%" JSON_INTEGER_FORMAT " %s", any ? ", " : " ",
		       json_integer_value(v), name);
		any = true;
	}
	puts(any ? "" : " none");
}

static json_t *holder_json(const struct store_holder *h)
{
	char since[21];

	time_format(h->since_sec * 1000000, since);
	return json_pack("{s:s, s:I, s:s}", "host", h->host, "process",
			 (json_int_t)h->pid, "since", since);
}

static void print_holder(const struct store_holder *h)
{
	char since[21];

	if (!h) {
		puts("in use       no");
		return;
	}
	time_format(h->since_sec * 1000000, since);
	printf("in use       by process %" PRId64 " on ", h->pid);
	cmd_put(stdout, h->host);
	printf(", since %s\n", since);
}

static void print_status(struct index_cmd *c, const struct store_holder *h,
			 unsigned int scheme, const struct counts *n,
			 const struct survey_result *s, const struct listing *l)
{
	char bytes[TEXT_BYTES_MAX];

	if (c->cmd.json) {
		cmd_json_print(
			json_pack("{s:o, s:i, s:o*, s:O, s:O, s:{s:I, s:I}, "
				  "s:i, s:O}",
				  "store", report_text(c->folder), "scheme",
				  (int)scheme, "holder",
				  h ? holder_json(h) : NULL, "images",
				  n->statuses, "tombstones", n->tombstones,
				  "data", "files", (json_int_t)s->files,
				  "bytes", (json_int_t)s->bytes, "lost-found",
				  (int)store_lost_found(c->store), "findings",
				  l->list),
			JSON_INDENT(4));
		return;
	}
	if (l->n)
		putchar('\n');
	printf("scheme       %u\n", scheme);
	print_holder(h);
	print_counts("images", n->statuses);
	print_counts("tombstones", n->tombstones);
	printf("data         %" PRIu64 " files, %s\n", s->files,
	       text_bytes(bytes, s->bytes));
	printf("lost+found   %u files\n", store_lost_found(c->store));
	printf("findings     %" PRIu64 "\n", l->n);
}

static int status(struct index_cmd *c, struct counts *n, struct listing *l,
		  struct error *err)
{
	struct store_holder h = { .pid = 0 };
	struct survey_result found;
	unsigned int scheme = 0;
	bool had;
	int r = open_to_look(c, err);

	if (r < 0)
		return r;
	had = is_had(c, &h);
	r = index_scheme(c->index, &scheme, err);
	if (r >= 0)
		r = count_all(c, scheme, n, err);
	if (r >= 0)
		r = survey(c->store, c->index, had, list_finding, l, &found,
			   err);
	if (r >= 0)
		print_status(c, had ? &h : NULL, scheme, n, &found, l);
	return r;
}

int index_status(struct index_cmd *c)
{
	struct counts n = { json_object(), json_object() };
	struct listing l = { .c = c, .list = c->cmd.json ? c->events : NULL };
	struct error err = { 0 };
	int r = status(c, &n, &l, &err);

	json_decref(n.statuses);
	json_decref(n.tombstones);
	return r < 0 ? cmd_fail(&err) : STATUS_OK;
}

/* ---- check, rebuild: long work ---- */

struct work {
	struct listing l;
	struct progress progress;
	const char *what;
	bool begun;
};

static bool is_stopped(void *opaque)
{
	return stop_signal() != 0;
}

static void tell_progress(void *opaque, uint64_t done_bytes, uint64_t all_bytes)
{
	struct work *w = opaque;

	if (!w->begun)
		progress_begin(&w->progress, w->what, all_bytes, w->l.c->quiet);
	w->begun = true;
	progress_tell(&w->progress, done_bytes);
}

static void tell_event(void *opaque, enum rebuild_event e, const char *id,
		       const char *why)
{
	struct work *w = opaque;

	if (w->begun)
		progress_end(&w->progress);
	if (e != REBUILD_UPDATED)
		w->l.damage = true;
	/* Of an image, or a file whose name is no id. */
	if (record_id_ok(id))
		add_finding(&w->l, rebuild_event_name(e), NULL, id, why);
	else
		add_finding(&w->l, rebuild_event_name(e), id, NULL, why);
}

static struct rebuild_options options_of(struct work *w)
{
	return (struct rebuild_options){ tell_event, tell_progress, is_stopped,
					 w };
}

static int ended_badly(const struct error *err)
{
	return stop_signal() ? 128 + stop_signal() : cmd_fail(err);
}

static void list_damage(void *opaque, const char *text)
{
	struct work *w = opaque;

	add_finding(&w->l, "index", NULL, NULL, text);
}

static int check(struct work *w, struct survey_result *found,
		 struct rebuild_result *compared, struct error *err)
{
	const struct rebuild_options o = options_of(w);
	struct index_cmd *c = w->l.c;
	struct store_holder h;
	int r = open_to_look(c, err);

	if (r >= 0)
		r = index_integrity(c->index, DAMAGE_LINES_MAX, list_damage, w,
				    err);
	w->l.damage = r > 0;
	if (r >= 0)
		r = survey(c->store, c->index, is_had(c, &h), list_finding,
			   &w->l, found, err);
	if (r >= 0 && c->digests)
		r = rebuild_compare(c->store, c->index, &o, compared, err);
	if (w->begun)
		progress_end(&w->progress);
	return r;
}

int index_check(struct index_cmd *c)
{
	struct work w = { .l = { .c = c,
				 .list = c->cmd.json ? c->events : NULL },
			  .what = "check" };
	struct rebuild_result compared = { .no_data = 0 };
	struct survey_result found = { .images = 0 };
	struct error err = { 0 };
	char bytes[TEXT_BYTES_MAX];
	uint64_t equal;

	stop_catch();
	if (check(&w, &found, &compared, &err) < 0)
		return ended_badly(&err);
	equal = compared.events[REBUILD_KEPT];
	if (c->cmd.json)
		cmd_json_print(json_pack("{s:I, s:I, s:I, s:I, s:O}", "images",
					 (json_int_t)found.images, "files",
					 (json_int_t)found.files, "bytes",
					 (json_int_t)found.bytes, "compared",
					 (json_int_t)equal, "findings",
					 c->events),
			       JSON_INDENT(4));
	else {
		printf("%" PRIu64 " images, %" PRIu64 " files of data, %s",
		       found.images, found.files,
		       text_bytes(bytes, found.bytes));
		if (c->digests)
			printf(", %" PRIu64 " digests as they were", equal);
		printf("; %" PRIu64 " findings\n", w.l.n);
	}
	return w.l.damage ? STATUS_FINDINGS : STATUS_OK;
}

/* ---- another index ---- */

/* The store, ours alone; none is made. */
static int take_store(struct index_cmd *c, struct error *err)
{
	int r = access(c->folder, F_OK) < 0
			? error_set(err, -errno, 0, "store: %s: %s", c->folder,
				    errno_text(errno))
			: store_open(c->folder, &c->store, err);

	if (r >= 0)
		r = store_lock(c->store, err);
	return r < 0 ? r : store_clean(c->store, err);
}

static json_t *text_or_null(const char *text)
{
	return *text ? report_text(text) : json_null();
}

static void print_rebuild(struct work *w, const struct rebuild_result *r)
{
	uint64_t n = r->events[REBUILD_MADE] + r->events[REBUILD_UNPROVEN] +
		     r->events[REBUILD_BARE];
	json_t *events;
	size_t i;

	if (w->l.c->cmd.json) {
		events = json_object();
		for (i = 0; i < REBUILD_EVENTS; i++)
			json_object_set_new(
				events,
				rebuild_event_name((enum rebuild_event)i),
				json_integer((json_int_t)r->events[i]));
		cmd_json_print(json_pack("{s:o, s:I, s:o, s:o, s:O}", "images",
					 events, "no-data",
					 (json_int_t)r->no_data, "replaced",
					 text_or_null(r->replaced), "unused",
					 text_or_null(r->unused), "findings",
					 w->l.c->events),
			       JSON_INDENT(4));
		return;
	}
	if (*r->unused) {
		fputs("of the index that was: nothing: ", stdout);
		cmd_put(stdout, r->unused);
		putchar('\n');
	}
	printf("%" PRIu64 " images made (%" PRIu64 " of them private for want "
	       "of proof), %" PRIu64 " brought up to date, %" PRIu64
	       " as they were; %" PRIu64 " out of use, %" PRIu64
	       " without data\n",
	       n, n - r->events[REBUILD_MADE], r->events[REBUILD_UPDATED],
	       r->events[REBUILD_KEPT],
	       r->events[REBUILD_MISMATCH] + r->events[REBUILD_UNREADABLE],
	       r->no_data);
	if (*r->replaced)
		printf("the index that was is %s\n", r->replaced);
}

int index_rebuild(struct index_cmd *c)
{
	struct work w = { .l = { .c = c,
				 .list = c->cmd.json ? c->events : NULL },
			  .what = "rebuild" };
	const struct rebuild_options o = options_of(&w);
	struct rebuild_result result = { .no_data = 0 };
	struct error err = { 0 };
	int r;

	stop_catch();
	r = take_store(c, &err);
	if (r >= 0)
		r = rebuild(c->store, &o, &result, &err);
	if (w.begun)
		progress_end(&w.progress);
	if (r < 0)
		return ended_badly(&err);
	print_rebuild(&w, &result);
	return w.l.damage || result.no_data ? STATUS_FINDINGS : STATUS_OK;
}

static int restore(struct index_cmd *c, const char *file, struct listing *l,
		   struct rebuild_result *ret, struct survey_result *found,
		   struct error *err)
{
	int r = take_store(c, err);

	if (r >= 0)
		r = rebuild_restore(c->store, file, ret, err);
	if (r >= 0)
		r = index_open_look(store_index_path(c->store), &c->index, err);
	return r < 0 ? r
		     : survey(c->store, c->index, false, list_finding, l, found,
			      err);
}

int index_restore(struct index_cmd *c, const char *file)
{
	struct listing l = { .c = c, .list = c->cmd.json ? c->events : NULL };
	struct rebuild_result result;
	struct survey_result found;
	struct error err = { 0 };

	if (restore(c, file, &l, &result, &found, &err) < 0)
		return cmd_fail(&err);
	if (c->cmd.json) {
		cmd_json_print(
			json_pack("{s:I, s:I, s:I, s:o, s:O}", "images",
				  (json_int_t)found.images, "unknown",
				  (json_int_t)found.findings[SURVEY_UNKNOWN],
				  "no-data",
				  (json_int_t)found.findings[SURVEY_NO_DATA],
				  "replaced", text_or_null(result.replaced),
				  "findings", c->events),
			JSON_INDENT(4));
		return STATUS_OK;
	}
	printf("%" PRIu64 " images; %" PRIu64 " files that it does not know, "
	       "%" PRIu64 " images without data\n",
	       found.images, found.findings[SURVEY_UNKNOWN],
	       found.findings[SURVEY_NO_DATA]);
	if (found.findings[SURVEY_UNKNOWN])
		puts("platter index rebuild makes images of what it does not "
		     "know");
	if (*result.replaced)
		printf("the index that was is %s\n", result.replaced);
	return STATUS_OK;
}
