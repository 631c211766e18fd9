/* SPDX-License-Identifier: BSD-3-Clause */
/* platter overlay: what a running server does with its overlays. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "nbd/cmd/cmd-overlay.h"
#include "nbd/cmd/control-client.h"
#include "nbd/text.h"

static const char help[] =
	"usage: platter overlay list     --control PATH\n"
	"       platter overlay stats    --control PATH\n"
	"       platter overlay create   --control PATH EXPORT\n"
	"       platter overlay snapshot --control PATH EXPORT NAME\n"
	"       platter overlay revert   --control PATH [--discard] EXPORT NAME\n"
	"       platter overlay delete   --control PATH EXPORT NAME\n"
	"       platter overlay resize   --control PATH EXPORT SIZE\n"
	"       platter overlay flush    --control PATH EXPORT\n"
	"       platter overlay fence    --control PATH EXPORT EPOCH\n"
	"       platter overlay close    --control PATH EXPORT\n"
	"\n"
	"       platter overlay recover  [options] [--discard] FILE\n"
	"       platter overlay resize   [options] FILE SIZE\n"
	"       platter overlay commit   [options] FILE\n"
	"       platter overlay rebase   [options] --base NAME FILE\n"
	"\n"
	"Asks a running server, which was started with --control PATH.\n"
	"\n"
	"list      the open exports, their clients, overlays and snapshots\n"
	"stats     what clients asked for, and how long it took\n"
	"create    makes the overlay of EXPORT, as its first write does\n"
	"snapshot  keeps the disk as it is now, while clients go on; it can be read\n"
	"          as export EXPORT@NAME, and is the file OVERLAY@NAME.qcow2\n"
	"revert    the disk is again as it was at NAME, the latest snapshot; what was\n"
	"          written since is gone. With --discard it may be an earlier one, and\n"
	"          those made since are gone too. Nobody may have the export open\n"
	"delete    the snapshot goes; the disk and the other snapshots stay as they\n"
	"          are. Copies what they need of it, while clients go on; what is\n"
	"          interrupted, the next attempt goes on with\n"
	"resize    the disk grows to SIZE; clients see it when they connect anew\n"
	"flush     makes durable what clients wrote\n"
	"fence     clients that come without an epoch (EXPORT=EPOCH), or with a lower\n"
	"          one, write no more; takes the overlay from a server that let it go\n"
	"close     shuts the connections of EXPORT, and closes its overlay's file\n"
	"\n"
	"\n"
	"Of a file that nobody has open:\n"
	"\n"
	"recover   takes over what a server that died had answered and not flushed, and\n"
	"          closes FILE, so that others may read it; a server that opens it\n"
	"          again does so, too. With --discard that is lost: the disk is what\n"
	"          it was at the last flush\n"
	"resize    the disk grows to SIZE\n"
	"commit    what FILE holds is written to the raw or qcow2 image below it, which\n"
	"          nobody else may use; FILE is empty then\n"
	"rebase    FILE is an overlay of NAME from now on (\"\": of nothing), and holds\n"
	"          what is different there, so that its disk stays as it is\n"
	"\n"
	"      --control PATH   the server's control socket\n"
	"      --discard        revert: lose the snapshots made since;\n"
	"                       recover: go on without what was not flushed\n"
	"  -b, --base NAME      rebase: named from FILE's folder\n"
	"  -F, --base-format X  rebase: its format (default: guess)\n"
	"      --unsafe         rebase: whatever is different there\n"
	"      --keep           commit: FILE stays as it is\n"
	"  -k, --key FILE       passphrase of what lies below\n"
	"      --allow X        a folder or prefix that images may refer to\n"
	"      --json           for programs\n"
	"  -q, --quiet          show no progress\n"
	"  -h, --help\n";

static void print_export(const json_t *e)
{
	const json_t *overlay = json_object_get(e, "overlay"), *name;
	char size[TEXT_BYTES_MAX];
	int connections =
		(int)json_integer_value(json_object_get(e, "connections"));
	size_t i;

	printf("\"");
	cmd_put(stdout, json_string_value(json_object_get(e, "name")));
	printf("\": %s, %d connection%s",
	       text_bytes(size, (uint64_t)json_integer_value(
					json_object_get(e, "size"))),
	       connections, connections == 1 ? "" : "s");
	if (overlay)
		printf(", overlay of %s",
		       text_bytes(size,
				  (uint64_t)json_integer_value(json_object_get(
					  overlay, "room-bytes"))));
	printf("\n");
	json_array_foreach(json_object_get(overlay, "snapshots"), i, name) {
		printf("    @");
		cmd_put(stdout, json_string_value(name));
		printf("\n");
	}
}

static void print_clients(const json_t *answer, const char *name)
{
	const json_t *c;
	size_t i;

	json_array_foreach(json_object_get(answer, "clients"), i, c) {
		const char *export =
			json_string_value(json_object_get(c, "export"));
		time_t since =
			(time_t)json_integer_value(json_object_get(c, "since"));
		char when[32] = "";
		struct tm tm;

		if (!export || strcmp(export, name) != 0)
			continue;
		if (localtime_r(&since, &tm))
			strftime(when, sizeof(when), "%F %T", &tm);
		printf("    from ");
		cmd_put(stdout, json_string_value(json_object_get(c, "peer")));
		printf(", since %s\n", when);
	}
}

static void print_list(const json_t *answer)
{
	const char *name;
	json_t *e;
	size_t i;

	json_array_foreach(json_object_get(answer, "exports"), i, e) {
		name = json_string_value(json_object_get(e, "name"));
		print_export(e);
		if (name)
			print_clients(answer, name);
	}
}

static json_int_t number(const json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

/* The least time, in us, below which @percent of the requests ended. */
static uint64_t percentile(const json_t *took, unsigned int percent)
{
	json_int_t all = 0, sum = 0;
	const json_t *n;
	size_t i;

	json_array_foreach(took, i, n) {
		all += json_integer_value(n);
	}
	json_array_foreach(took, i, n) {
		sum += json_integer_value(n);
		if (sum * 100 >= all * percent)
			return 1ULL << i;
	}
	return 0;
}

/* A line for each kind of request. */
static void print_traffic(const char *name, const json_t *traffic)
{
	char size[TEXT_BYTES_MAX];
	const char *op;
	json_t *c;

	json_object_foreach((json_t *)(uintptr_t)traffic, op, c) {
		const json_t *took = json_object_get(c, "took");

		cmd_put(stdout, name);
		printf("\t%s\t%" PRId64 "\t%s\t%" PRId64 "\t<%" PRIu64
		       " us\t<%" PRIu64 " us\n",
		       op, (int64_t)number(c, "requests"),
		       text_bytes(size, (uint64_t)number(c, "bytes")),
		       (int64_t)number(c, "errors"), percentile(took, 50),
		       percentile(took, 99));
	}
}

static void print_stats(const json_t *answer)
{
	const json_t *cache = json_object_get(answer, "cache"), *e;
	char size[TEXT_BYTES_MAX], room[TEXT_BYTES_MAX];
	const char *name;
	size_t i;

	printf("EXPORT\tOP\tREQUESTS\tBYTES\tERRORS\tHALF\t99 %%\n");
	json_array_foreach(json_object_get(answer, "exports"), i, e) {
		name = json_string_value(json_object_get(e, "name"));
		print_traffic(name && *name ? name : "\"\"",
			      json_object_get(e, "traffic"));
	}
	print_traffic("all", json_object_get(answer, "traffic"));
	printf("cache: %s, %" PRId64 " hits, %" PRId64 " misses, %" PRId64
	       " pages of tables read\n",
	       text_bytes(size, (uint64_t)number(cache, "bytes")),
	       (int64_t)number(cache, "hits"), (int64_t)number(cache, "misses"),
	       (int64_t)number(cache, "table-misses"));
	printf("requests at work: %s, %" PRId64 " waited for memory\n",
	       text_bytes(room, (uint64_t)number(cache, "room-bytes")),
	       (int64_t)number(cache, "room-waits"));
}

static void print_answer(const json_t *answer)
{
	if (json_object_get(answer, "traffic"))
		print_stats(answer);
	else
		print_list(answer);
}

/* Is @word one of @words, which ends with NULL? */
static bool is_one_of(const char *word, const char *const *words)
{
	while (*words && strcmp(word, *words) != 0)
		words++;
	return *words;
}

/* The question, or NULL: these are no operands. */
static json_t *question(int n, char **operands)
{
	static const char *const alone[] = { "list", "stats", NULL };
	static const char *const of_export[] = { "create", "flush", "close",
						 NULL };
	static const char *const of_snapshot[] = { "snapshot", "revert",
						   "delete", NULL };
	uint64_t bytes, epoch;

	if (n == 1 && is_one_of(operands[0], alone))
		return json_pack("{s:s}", "command", operands[0]);
	if (n == 2 && is_one_of(operands[0], of_export))
		return json_pack("{s:s, s:s}", "command", operands[0], "export",
				 operands[1]);
	if (n == 3 && is_one_of(operands[0], of_snapshot))
		return json_pack("{s:s, s:s, s:s}", "command", operands[0],
				 "export", operands[1], "name", operands[2]);
	if (n == 3 && !strcmp(operands[0], "resize") &&
	    config_size(operands[2], &bytes) && bytes <= INT64_MAX)
		return json_pack("{s:s, s:s, s:I}", "command", "resize",
				 "export", operands[1], "size",
				 (json_int_t)bytes);
	if (n == 3 && !strcmp(operands[0], "fence") &&
	    control_epoch(operands[2], &epoch))
		return json_pack("{s:s, s:s, s:I}", "command", "fence",
				 "export", operands[1], "epoch",
				 (json_int_t)epoch);
	return NULL;
}

enum { OPT_CONTROL = CMD_VERB, OPT_UNSAFE, OPT_KEEP, OPT_DISCARD };

/* Returns as cmd_option(). */
static int take_option(struct cmd *c, struct overlay_file_options *file,
		       int opt, char **argv)
{
	switch (opt) {
	case 'q':
		file->quiet = true;
		return -1;
	case 'b':
		file->base = optarg;
		return -1;
	case 'F':
		file->base_format = optarg;
		return -1;
	case OPT_UNSAFE:
		file->unsafe = true;
		return -1;
	case OPT_KEEP:
		file->keep = true;
		return -1;
	default:
		return cmd_option(c, opt, argv);
	}
}

static int run_overlay(int argc, char **argv)
{
	static const struct option options[] = {
		CMD_LONG_OPTIONS,
		{ "control", required_argument, NULL, OPT_CONTROL },
		{ "base", required_argument, NULL, 'b' },
		{ "base-format", required_argument, NULL, 'F' },
		{ "unsafe", no_argument, NULL, OPT_UNSAFE },
		{ "keep", no_argument, NULL, OPT_KEEP },
		{ "discard", no_argument, NULL, OPT_DISCARD },
		{ "quiet", no_argument, NULL, 'q' },
		{ 0 },
	};
	CLEANUP(cmd_done) struct cmd c;
	struct error err = { 0 };
	struct overlay_file_options file = { 0 };
	const char *control = NULL;
	json_t *ask, *answer;
	bool discard = false;
	int opt, status;

	cmd_init(&c, &verb_overlay);
	while ((opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS "qb:F:",
				  options, NULL)) != -1) {
		if (opt == OPT_CONTROL) {
			control = optarg;
			continue;
		}
		if (opt == OPT_DISCARD) {
			discard = file.discard = true;
			continue;
		}
		status = take_option(&c, &file, opt, argv);
		if (status >= 0)
			return status;
	}
	if (!control && overlay_file_knows(argc - optind, argv + optind))
		return overlay_file_run(&c, &file, argc - optind,
					argv + optind);
	if (!control)
		return cmd_usage(&c, "which server? --control PATH is missing");
	ask = question(argc - optind, argv + optind);
	if (!ask)
		return cmd_usage(&c, "list, stats, snapshot|revert|delete "
				     "EXPORT NAME, resize EXPORT SIZE, fence "
				     "EXPORT EPOCH, or create|flush|close "
				     "EXPORT is wanted");
	if (discard)
		json_object_set_new(ask, "discard", json_true());
	answer =
		control_ask(control, ask, "delete", file.quiet || c.json, &err);
	if (!answer)
		return cmd_fail(&err);
	if (c.json)
		cmd_json_print(json_incref(answer), JSON_INDENT(4));
	else
		print_answer(answer);
	json_decref(answer);
	return STATUS_OK;
}

const struct verb verb_overlay = {
	.name = "overlay",
	.summary = "overlays, and a running server's snapshots of them",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_overlay,
};
