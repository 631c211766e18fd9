/* SPDX-License-Identifier: BSD-3-Clause */
/* platter check: is the structure of an image sound? */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/report.h"
#include "formats/streams/stream.h"
#include "iouring/util.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/package.h"
#include "nbd/cmd/progress.h"

#define FINDINGS_MAX 100U /* shown without -v */

static const char help[] =
	"usage: platter check [options] IMAGE[@STATE]\n"
	"\n"
	"Looks whether the structure of an image is sound: tables in range,\n"
	"nothing used twice, reference counts, leaks. Changes nothing. Of a snapshot\n"
	"inside a file: what its own tables lead to, without leaks; of a layer: its\n"
	"file. Of a container: its files' digests in the manifest, the manifest's\n"
	"signature, and each disk. Of what is compressed: all of it is decoded, and a\n"
	"packed disk compared with its digest.\n"
	"\n"
	"      --chain         check every layer, not the top alone\n"
	"  -v, --verbose       print every finding, not the first 100 alone\n"
	"  -f, --format NAME   the image's format (default: guess)\n"
	"      --member NAME   of a container: which of its disks\n"
	"  -k, --key FILE      passphrase of an encrypted image\n"
	"      --allow X       a folder or prefix that images may refer to\n"
	"      --force parent  take a parent whose ids do not match\n"
	"      --force-share   read what another process may be writing\n"
	"      --credentials FILE, --ca FILE, --proxy URL, --remote-timeout SECONDS\n"
	"                      how images at URLs are read, see platter(1)\n"
	"      --cache-dir DIR, --cache-size SIZE\n"
	"                      keep what was read of URLs, and indexes of compressed\n"
	"                      files, in a folder\n"
	"      --cache SIZE    memory for caches (default 64M)\n"
	"      --io MODE       auto, uring or sync\n"
	"      --direct        read with O_DIRECT\n"
	"      --json          for programs, with qemu-img check's names\n"
	"  -h, --help\n"
	"\n"
	"Exit status: 0 sound, 1 could not be checked, 2 corruptions, 3 leaks\n"
	"only, 63 the format has nothing to check.\n";

struct checker {
	struct check_report report;
	bool verbose;
	uint64_t findings;
	json_t *json; /* the findings; NULL: they are printed */
};

static void say_finding(struct check_report *r, const char *line)
{
	struct checker *k = container_of(r, struct checker, report);

	if (k->findings++ >= FINDINGS_MAX && !k->verbose)
		return;
	if (k->json) {
		json_array_append_new(k->json, report_text(line));
		return;
	}
	cmd_put(stdout, line);
	putchar('\n');
}

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_summary(const struct checker *k)
{
	const struct check_report *r = &k->report;

	if (k->findings > FINDINGS_MAX && !k->verbose)
		printf("... and %" PRIu64 " more (--verbose prints them)\n",
		       k->findings - FINDINGS_MAX);
	if (!r->corruptions && !r->leaks && !r->check_errors)
		puts("No errors were found.");
	if (r->corruptions)
		printf("%" PRIu64 " corruptions: data may be wrong or "
		       "unreadable.\n",
		       r->corruptions);
	if (r->leaks)
		printf("%" PRIu64 " leaked clusters: space is wasted, no data "
		       "are harmed.\n",
		       r->leaks);
	if (r->check_errors)
		printf("%" PRIu64 " places could not be checked.\n",
		       r->check_errors);
	if (r->total_units)
		printf("%" PRIu64 " of %" PRIu64
		       " clusters allocated (%.1f%%), "
		       "%.1f%% of them fragmented, %.1f%% compressed.\n",
		       r->allocated_units, r->total_units,
		       percent(r->allocated_units, r->total_units),
		       percent(r->fragmented_units, r->allocated_units),
		       percent(r->compressed_units, r->allocated_units));
	if (r->image_end_off)
		printf("Image end offset: %" PRIu64 "\n", r->image_end_off);
}

static json_t *json_report(const struct checker *k, const struct layer *l,
			   const char *path)
{
	const struct check_report *r = &k->report;
	json_t *j = json_object();

	json_object_set_new(j, "filename", report_text(path));
	json_object_set_new(j, "format", json_string(l->ops->name));
#define SET(name, value) json_object_set_new(j, name, json_integer(value))
	SET("check-errors", (json_int_t)r->check_errors);
	SET("corruptions", (json_int_t)r->corruptions);
	SET("leaks", (json_int_t)r->leaks);
	SET("image-end-offset", (json_int_t)r->image_end_off);
	SET("total-clusters", (json_int_t)r->total_units);
	SET("allocated-clusters", (json_int_t)r->allocated_units);
	SET("fragmented-clusters", (json_int_t)r->fragmented_units);
	SET("compressed-clusters", (json_int_t)r->compressed_units);
	SET("findings-total", (json_int_t)k->findings);
#undef SET
	json_object_set(j, "findings", k->json);
	return j;
}

/* ---- what is compressed ---- */

struct stream_checker {
	struct stream_check check;
	struct checker *k;
	struct progress progress;
};

static void say_damage(struct stream_check *c, const char *line)
{
	struct stream_checker *s =
		container_of(c, struct stream_checker, check);

	s->k->report.corruptions++;
	say_finding(&s->k->report, line);
}

static int tell_decoded(struct stream_check *c, uint64_t done, uint64_t total)
{
	struct stream_checker *s =
		container_of(c, struct stream_checker, check);

	if (!s->progress.total_bytes)
		progress_begin(&s->progress, "check", total, false);
	progress_tell(&s->progress, done);
	return 0;
}

static int check_stream(struct checker *k, struct source *src,
			struct error *err)
{
	struct stream_checker s = { .check = { say_damage, tell_decoded },
				    .k = k };
	int r = stream_check(src, &s.check, err);

	if (s.progress.total_bytes)
		progress_end(&s.progress);
	if (!r && !s.check.damaged && !k->json)
		puts(s.check.has_digest ? "All of it is decoded, and the disk "
					  "has the digest that it tells."
					: "All of it is decoded.");
	return r;
}

/* ---- layers ---- */

/* Returns the exit status that this layer alone would have. */
static int check_layer(const struct cmd *c, struct layer *l, bool verbose,
		       const char *path, json_t **ret_json)
{
	struct checker k = { .report.say = say_finding, .verbose = verbose };
	struct error err = { 0 };
	int r;

	if (!l->ops->check && !source_is_stream(l->src)) {
		error_set(&err, -ENOTSUP, 0,
			  "%s: format %s has no structure to check", path,
			  l->ops->name);
		cmd_fail(&err);
		return STATUS_NO_CHECK;
	}
	if (c->json)
		k.json = json_array();
	r = source_is_stream(l->src) ? check_stream(&k, l->src, &err) : 0;
	if (r >= 0 && l->ops->check)
		r = l->ops->check(l, &k.report, &err);
	if (r < 0) {
		error_prefix(&err, "%s", path);
		cmd_fail(&err);
	} else if (c->json) {
		*ret_json = json_report(&k, l, path);
	} else {
		print_summary(&k);
	}
	json_decref(k.json);
	if (r < 0 || k.report.check_errors)
		return STATUS_FAILED;
	if (k.report.corruptions)
		return STATUS_CORRUPT;
	return k.report.leaks ? STATUS_LEAKS : STATUS_OK;
}

/* Of two layers' exit statuses, the one to end with. */
static int worse(int a, int b)
{
	static const int order[] = { STATUS_OK, STATUS_LEAKS, STATUS_CORRUPT,
				     STATUS_FAILED };
	size_t i, at_a = 0, at_b = 0;

	for (i = 0; i < ARRAY_SIZE(order); i++) {
		if (order[i] == a)
			at_a = i;
		if (order[i] == b)
			at_b = i;
	}
	return order[at_a > at_b ? at_a : at_b];
}

static int check_top(const struct cmd *c, struct layers *ls, bool verbose)
{
	json_t *j = NULL;
	int status;

	status = check_layer(c, ls->layers[0], verbose, c->image, &j);
	if (j)
		cmd_json_print(j, JSON_INDENT(4));
	return status;
}

/* ---- containers ---- */

struct package_checker {
	struct cmd *cmd;
	bool verbose;
	int status; /* of what was checked */
	json_t *disks; /* NULL: they are printed */
};

/* A raw disk is no failure of the package. */
static int check_member(void *opaque, const struct member *m)
{
	struct package_checker *k = opaque;
	CLEANUP(layers_done) struct layers ls = { 0 };
	struct error err = { 0 };
	json_t *j = NULL;

	if (config_set(&k->cmd->config, "member", m->name, &err) < 0 ||
	    layers_open(k->cmd, false, &ls, &err) < 0) {
		cmd_fail(&err);
		k->status = STATUS_FAILED;
		return 0;
	}
	if (!ls.layers[0]->ops->check)
		return 0;
	if (!k->disks) {
		cmd_put(stdout, m->name);
		printf(" (%s):\n", ls.layers[0]->ops->name);
	}
	k->status = worse(k->status, check_layer(k->cmd, ls.layers[0],
						 k->verbose, m->name, &j));
	if (j)
		json_array_append_new(k->disks, j);
	return 0;
}

/* Its files against the manifest, and the structure of each of its disks. */
static int check_package(struct cmd *c, const struct container *package,
			 bool verbose)
{
	struct package_checker k = { .cmd = c, .verbose = verbose };
	json_t *findings = c->json ? json_array() : NULL;

	k.disks = c->json ? json_array() : NULL;
	k.status = package_check(package, verbose, findings);
	container_each_disk(package, check_member, &k);
	if (c->json)
		cmd_json_print(json_pack("{s:o, s:o, s:o}", "filename",
					 report_text(c->image), "manifest",
					 findings, "disks", k.disks),
			       JSON_INDENT(4));
	return k.status;
}

static int check_all(const struct cmd *c, struct layers *ls, bool verbose)
{
	json_t *all = c->json ? json_array() : NULL;
	unsigned int i, checked = 0;
	int status = STATUS_OK;

	for (i = 0; i < ls->depth; i++) {
		struct layer *l = ls->layers[i];
		const char *path = i ? l->path : c->image;
		json_t *j = NULL;

		/* A raw base is no failure of the chain above it. */
		if (!l->ops->check && (checked || i + 1 < ls->depth))
			continue;
		if (!c->json) {
			cmd_put(stdout, path);
			printf(" (%s):\n", l->ops->name);
		}
		status = checked ? worse(status,
					 check_layer(c, l, verbose, path, &j))
				 : check_layer(c, l, verbose, path, &j);
		checked++;
		if (j)
			json_array_append_new(all, j);
	}
	if (all)
		cmd_json_print(all, JSON_INDENT(4));
	if (!ls->complete) {
		cmd_fail(&ls->reason);
		status = STATUS_FAILED;
	}
	return status;
}

static int run_check(int argc, char **argv)
{
	enum { OPT_CHAIN = CMD_VERB };
	static const struct option options[] = {
		CMD_LONG_OPTIONS,
		{ "chain", no_argument, NULL, OPT_CHAIN },
		{ "verbose", no_argument, NULL, 'v' },
		{ 0 },
	};
	CLEANUP(cmd_done) struct cmd c;
	CLEANUP(layers_done) struct layers ls = { 0 };
	CLEANUP(container_unrefp) struct container *package = NULL;
	bool chain = false, verbose = false;
	struct error err = { 0 };
	int opt, status, r;

	cmd_init(&c, &verb_check);
	while ((opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS "v", options,
				  NULL)) != -1) {
		switch (opt) {
		case OPT_CHAIN:
			chain = true;
			break;
		case 'v':
			verbose = true;
			break;
		default:
			status = cmd_option(&c, opt, argv);
			if (status >= 0)
				return status;
		}
	}
	status = cmd_image(&c, argc, argv);
	if (status >= 0)
		return status;
	r = layers_open(&c, chain, &ls, &err);
	if (!c.config.member && !c.config.format)
		package_of(&c, r, &ls, &package);
	if (package)
		return check_package(&c, package, verbose);
	if (r < 0)
		return cmd_fail(&err);
	return chain ? check_all(&c, &ls, verbose)
		     : check_top(&c, &ls, verbose);
}

const struct verb verb_check = {
	.name = "check",
	.summary = "is the structure of an image sound?",
	.help = help,
	/* 2 says that the image is corrupt */
	.usage_status = STATUS_FAILED,
	.run = run_check,
};
