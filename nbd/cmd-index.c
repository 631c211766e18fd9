/* SPDX-License-Identifier: BSD-3-Clause */
/* platter index: a store's catalogue, beside the server or without one. */
#include <errno.h>
#include <string.h>

#include "formats/report.h"
#include "glance/index.h"
#include "glance/scan.h"
#include "glance/store.h"
#include "nbd/cmd.h"
#include "nbd/output.h"

static const char help[] =
	"usage: platter index scan   [options] --store DIR [FOLDER]\n"
	"       platter index backup [options] --store DIR FILE\n"
	"\n"
	"Works on the index of an image service's store, also while that runs.\n"
	"\n"
	"scan    each file beneath FOLDER (default: the store) that is an image becomes\n"
	"        one of the store's, in place; images whose files have gone are\n"
	"        deactivated until they are back\n"
	"backup  a consistent copy of the index\n"
	"\n"
	"      --store DIR      the store\n"
	"      --owner PROJECT  scan: whose new images are (default: nobody's)\n"
	"      --visibility X   scan: private, shared, community or public (default:\n"
	"                       private)\n"
	"      --overwrite      backup: replace FILE\n"
	"      --json           for programs\n"
	"  -h, --help\n";

enum {
	OPT_STORE = CMD_VERB,
	OPT_OWNER,
	OPT_VISIBILITY,
	OPT_OVERWRITE,
};

struct index_cmd {
	struct cmd cmd;
	struct store *store;
	struct index *index;
	const char *folder; /* of the store */
	const char *owner;
	enum image_visibility visibility;
	bool overwrite;
	json_t *events; /* of scan, for --json */
};

static void tell(void *opaque, enum scan_event e, const char *path,
		 const char *id, const char *why)
{
	struct index_cmd *c = opaque;

	if (c->cmd.json) {
		json_array_append_new(c->events,
				      json_pack("{s:s, s:o, s:s?, s:o*}",
						"event", scan_event_name(e),
						"file", report_text(path), "id",
						id, "reason",
						why ? report_text(why) : NULL));
		return;
	}
	printf("%-8s ", scan_event_name(e));
	if (id)
		printf("%s ", id);
	cmd_put(stdout, path);
	if (why && *why) {
		fputs(": ", stdout);
		cmd_put(stdout, why);
	}
	putchar('\n');
}

static int index_scan(struct index_cmd *c, const char *folder)
{
	const struct scan_options o = { .store = c->folder,
					.owner = c->owner,
					.visibility = c->visibility,
					.tell = tell,
					.opaque = c };
	struct scan_result result;
	struct error err = { 0 };

	if (scan(c->index, folder ? folder : c->folder, &o, &result, &err) < 0)
		return cmd_fail(&err);
	if (c->cmd.json)
		cmd_json_print(json_pack("{s:i, s:O}", "known", result.known,
					 "events", c->events),
			       JSON_INDENT(4));
	else
		printf("%u new, %u changed, %u gone, %u back, %u refused, %u "
		       "as they were\n",
		       result.events[SCAN_NEW], result.events[SCAN_CHANGED],
		       result.events[SCAN_GONE], result.events[SCAN_BACK],
		       result.events[SCAN_REFUSED], result.known);
	return STATUS_OK;
}

static int make_backup(struct index_cmd *c, const char *file, struct error *err)
{
	CLEANUP(output_done) struct output out = { 0 };
	int r = output_begin(&out, file, c->overwrite, err);

	if (r >= 0)
		r = index_backup(c->index, out.temp, err);
	return r < 0 ? r : output_commit(&out, err);
}

static int open_store(struct index_cmd *c, bool make, struct error *err)
{
	CLEANUP(freep) char *path = NULL;
	int r;

	if (asprintf(&path, "%s/index.sqlite", c->folder) < 0) {
		path = NULL;
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	if (!make && access(path, F_OK) < 0)
		return error_set(err, -errno, 0, "%s: %s", path,
				 errno_text(errno));
	r = make ? store_open(c->folder, &c->store, err) : 0;
	return r < 0 ? r : index_open(path, &c->index, err);
}

static int carry_out(struct index_cmd *c, int n, char **operands)
{
	bool is_scan = n && !strcmp(operands[0], "scan");
	struct error err = { 0 };

	if (!is_scan && !(n && !strcmp(operands[0], "backup")))
		return cmd_usage(&c->cmd, "scan or backup is wanted");
	if (is_scan ? n > 2 : n != 2)
		return cmd_usage(&c->cmd, is_scan ? "scan takes one FOLDER"
						  : "backup takes one FILE");
	if (!c->folder)
		return cmd_usage(&c->cmd, "--store DIR is missing");
	if (open_store(c, is_scan, &err) < 0)
		return cmd_fail(&err);
	if (is_scan)
		return index_scan(c, operands[1]);
	return make_backup(c, operands[1], &err) < 0 ? cmd_fail(&err)
						     : STATUS_OK;
}

static int take_option(struct index_cmd *c, int opt, char **argv)
{
	switch (opt) {
	case OPT_STORE:
		c->folder = optarg;
		return -1;
	case OPT_OWNER:
		c->owner = optarg;
		return -1;
	case OPT_VISIBILITY:
		return image_visibility_by_name(optarg, &c->visibility)
			       ? -1
			       : cmd_usage(&c->cmd,
					   "--visibility: \"%s\" is none",
					   optarg);
	case OPT_OVERWRITE:
		c->overwrite = true;
		return -1;
	default:
		return cmd_option(&c->cmd, opt, argv);
	}
}

static void index_cmd_done(struct index_cmd *c)
{
	index_close(c->index);
	store_close(c->store);
	json_decref(c->events);
	cmd_done(&c->cmd);
}

static int run_index(int argc, char **argv)
{
	static const struct option options[] = {
		{ "store", required_argument, NULL, OPT_STORE },
		{ "owner", required_argument, NULL, OPT_OWNER },
		{ "visibility", required_argument, NULL, OPT_VISIBILITY },
		{ "overwrite", no_argument, NULL, OPT_OVERWRITE },
		{ "json", no_argument, NULL, CMD_JSON },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	CLEANUP(index_cmd_done)
	struct index_cmd c = { .visibility = IMAGE_PRIVATE,
			       .events = json_array() };
	int opt, status;

	cmd_init(&c.cmd, &verb_index);
	while ((opt = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		status = take_option(&c, opt, argv);
		if (status >= 0)
			return status;
	}
	return carry_out(&c, argc - optind, argv + optind);
}

const struct verb verb_index = {
	.name = "index",
	.summary = "the catalogue of an image service's store",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_index,
};
