/* SPDX-License-Identifier: BSD-3-Clause */
/* platter index: a store's catalogue, beside the server or without one. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/report.h"
#include "glance/recover.h"
#include "glance/scan.h"
#include "nbd/cmd/cmd-index.h"
#include "nbd/cmd/output.h"

static const char help[] =
	"usage: platter index scan    [options] --store DIR [FOLDER]\n"
	"       platter index backup  [options] --store DIR FILE\n"
	"       platter index status  [options] --store DIR\n"
	"       platter index check   [options] --store DIR\n"
	"       platter index restore [options] --store DIR FILE\n"
	"       platter index rebuild [options] --store DIR\n"
	"\n"
	"Works on the index of an image service's store; but for restore and rebuild\n"
	"also while that runs.\n"
	"\n"
	"scan     each file beneath FOLDER (default: the store) that is an image becomes\n"
	"         one of the store's, in place; images whose files have gone are\n"
	"         deactivated until they are back\n"
	"backup   a consistent copy of the index\n"
	"status   who has the store, what is in it, and which files nobody knows\n"
	"check    is the index sound, and are the data there that it names?\n"
	"restore  FILE, a backup, becomes the index\n"
	"rebuild  an index anew, of the data and of what lies beside them\n"
	"\n"
	"      --store DIR      the store\n"
	"      --owner PROJECT  scan: whose new images are (default: nobody's)\n"
	"      --visibility X   scan: private, shared, community or public (default:\n"
	"                       private)\n"
	"      --overwrite      backup: replace FILE\n"
	"      --digests        check: read all data and compare their digests\n"
	"  -q, --quiet          check, rebuild: no progress\n"
	"      --json           for programs\n"
	"  -h, --help\n"
	"\n"
	"Exit status: 0, 1 after a failure, 2 after a wrong option; 3: check or rebuild\n"
	"found something damaged, missing, or known to nobody.\n";

enum {
	OPT_STORE = CMD_VERB,
	OPT_OWNER,
	OPT_VISIBILITY,
	OPT_OVERWRITE,
	OPT_DIGESTS,
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
		r = output_name(&out, err);
	/* What projects have is theirs to know. */
	if (r >= 0 && chmod(out.temp, 0600) < 0)
		r = error_set(err, -errno, 0, "%s: %s", file,
			      errno_text(errno));
	if (r >= 0)
		r = index_backup(c->index, out.temp, err);
	return r < 0 ? r : output_commit(&out, err);
}

/* Beside a server, which has the store's lock. */
static int scan_store(struct index_cmd *c, const char *folder)
{
	struct error err = { 0 };

	if (store_open(c->folder, &c->store, &err) < 0 ||
	    recover_open_index(c->store, &c->index, &err) < 0)
		return cmd_fail(&err);
	return index_scan(c, folder);
}

static int back_up(struct index_cmd *c, const char *file)
{
	struct error err = { 0 };

	if (store_open_look(c->folder, &c->store, &err) < 0 ||
	    index_open_look(store_index_path(c->store), &c->index, &err) < 0 ||
	    make_backup(c, file, &err) < 0)
		return cmd_fail(&err);
	return STATUS_OK;
}

enum word { SCAN, BACKUP, STATUS, CHECK, RESTORE, REBUILD, WORDS };

static const struct {
	const char *name;
	int least, most; /* operands */
	const char *wants;
} words[WORDS] = {
	[SCAN] = { "scan", 0, 1, "scan takes one FOLDER" },
	[BACKUP] = { "backup", 1, 1, "backup takes one FILE" },
	[STATUS] = { "status", 0, 0, "status takes no operand" },
	[CHECK] = { "check", 0, 0, "check takes no operand" },
	[RESTORE] = { "restore", 1, 1, "restore takes one FILE" },
	[REBUILD] = { "rebuild", 0, 0, "rebuild takes no operand" },
};

static int carry_out(struct index_cmd *c, int n, char **operands)
{
	size_t w = 0;

	while (w < WORDS && !(n && !strcmp(operands[0], words[w].name)))
		w++;
	if (w == WORDS)
		return cmd_usage(&c->cmd, "scan, backup, status, check, "
					  "restore or rebuild is wanted");
	if (n - 1 < words[w].least || n - 1 > words[w].most)
		return cmd_usage(&c->cmd, "%s", words[w].wants);
	if (!c->folder)
		return cmd_usage(&c->cmd, "--store DIR is missing");
	switch (w) {
	case SCAN:
		return scan_store(c, operands[1]);
	case BACKUP:
		return back_up(c, operands[1]);
	case STATUS:
		return index_status(c);
	case CHECK:
		return index_check(c);
	case RESTORE:
		return index_restore(c, operands[1]);
	default:
		return index_rebuild(c);
	}
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
	case OPT_DIGESTS:
		c->digests = true;
		return -1;
	case 'q':
		c->quiet = true;
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
		{ "digests", no_argument, NULL, OPT_DIGESTS },
		{ "quiet", no_argument, NULL, 'q' },
		{ "json", no_argument, NULL, CMD_JSON },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	CLEANUP(index_cmd_done)
	struct index_cmd c = { .visibility = IMAGE_PRIVATE,
			       .events = json_array() };
	int opt, status;

	cmd_init(&c.cmd, &verb_index);
	while ((opt = getopt_long(argc, argv, ":hq", options, NULL)) != -1) {
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
