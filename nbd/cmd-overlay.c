/* SPDX-License-Identifier: BSD-3-Clause */
/* platter overlay: what a running server does with its overlays. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "nbd/cmd.h"
#include "nbd/text.h"

static const char help[] =
	"usage: platter overlay list     --control PATH\n"
	"       platter overlay snapshot --control PATH EXPORT NAME\n"
	"       platter overlay revert   --control PATH EXPORT NAME\n"
	"       platter overlay flush    --control PATH EXPORT\n"
	"\n"
	"Asks a running server, which was started with --control PATH.\n"
	"\n"
	"list      the open exports, their overlays and the snapshots of them\n"
	"snapshot  keeps the disk as it is now, while clients go on; it can be read\n"
	"          as export EXPORT@NAME, and is the file OVERLAY@NAME.qcow2\n"
	"revert    the disk is again as it was at NAME, the latest snapshot; what was\n"
	"          written since is gone. Nobody may have the export open\n"
	"flush     makes durable what clients wrote\n"
	"\n"
	"      --control PATH   the server's control socket\n"
	"      --json           for programs\n"
	"  -h, --help\n";

static FILE *connect_control(const char *path, struct error *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	FILE *fp = NULL;
	int fd;

	if (strlen(path) >= sizeof(sa.sun_path)) {
		error_set(err, -EINVAL, 0, "%s: the path is over %zu bytes",
			  path, sizeof(sa.sun_path) - 1);
		return NULL;
	}
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
		fp = fdopen(fd, "r+");
	if (!fp) {
		error_set(err, -errno, 0, "%s: %s", path, errno_text(errno));
		closep(&fd);
	}
	return fp;
}

/* Asks and takes the answer. NULL: it failed, or the server says so. */
static json_t *talk(const char *path, json_t *ask, struct error *err)
{
	FILE *fp = connect_control(path, err);
	json_t *answer = NULL;
	const char *why;

	if (fp) {
		json_dumpf(ask, fp, JSON_COMPACT);
		fputc('\n', fp);
		fflush(fp);
		answer = json_loadf(fp, JSON_DISABLE_EOF_CHECK, NULL);
		fclose(fp);
		if (!answer)
			error_set(err, -EIO, 0, "%s: does not answer", path);
	}
	json_decref(ask);
	why = json_string_value(json_object_get(answer, "error"));
	if (!why)
		return answer;
	error_set(err, -EIO, 0, "%s", why);
	json_decref(answer);
	return NULL;
}

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

static void print_list(const json_t *answer)
{
	json_t *e;
	size_t i;

	json_array_foreach(json_object_get(answer, "exports"), i, e) {
		print_export(e);
	}
}

/* The question, or NULL: these are no operands. */
static json_t *question(int n, char **operands)
{
	if (n == 1 && !strcmp(operands[0], "list"))
		return json_pack("{s:s}", "command", "list");
	if (n == 2 && !strcmp(operands[0], "flush"))
		return json_pack("{s:s, s:s}", "command", "flush", "export",
				 operands[1]);
	if (n == 3 && (!strcmp(operands[0], "snapshot") ||
		       !strcmp(operands[0], "revert")))
		return json_pack("{s:s, s:s, s:s}", "command", operands[0],
				 "export", operands[1], "name", operands[2]);
	return NULL;
}

static int run_overlay(int argc, char **argv)
{
	static const struct option options[] = {
		CMD_LONG_OPTIONS,
		{ "control", required_argument, NULL, CMD_VERB },
		{ 0 },
	};
	CLEANUP(cmd_done) struct cmd c;
	struct error err = { 0 };
	const char *control = NULL;
	json_t *ask, *answer;
	int opt, status;

	cmd_init(&c, &verb_overlay);
	while ((opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS, options,
				  NULL)) != -1) {
		if (opt == CMD_VERB) {
			control = optarg;
			continue;
		}
		status = cmd_option(&c, opt, argv);
		if (status >= 0)
			return status;
	}
	if (!control)
		return cmd_usage(&c, "which server? --control PATH is missing");
	ask = question(argc - optind, argv + optind);
	if (!ask)
		return cmd_usage(&c, "list, snapshot EXPORT NAME, revert "
				     "EXPORT NAME, or flush EXPORT is wanted");
	answer = talk(control, ask, &err);
	if (!answer)
		return cmd_fail(&err);
	if (c.json)
		cmd_json_print(json_incref(answer), JSON_INDENT(4));
	else
		print_list(answer);
	json_decref(answer);
	return STATUS_OK;
}

const struct verb verb_overlay = {
	.name = "overlay",
	.summary = "snapshots of a running server's overlays",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_overlay,
};
