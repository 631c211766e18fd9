/* SPDX-License-Identifier: BSD-3-Clause */
/* platter list: what is in a container. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/chain.h"
#include "formats/containers/container.h"
#include "iouring/util.h"
#include "nbd/cmd/cmd.h"

static const char help[] =
	"usage: platter list [OPTIONS] IMAGE\n"
	"\n"
	"Prints the members of a container: their sizes, the format of those that are\n"
	"disks (of a raw one nothing tells), and their names, which --member takes.\n"
	"Little but headers is read.\n"
	"\n"
	"      --credentials FILE, --ca FILE, --proxy URL, --remote-timeout SECONDS\n"
	"                       how a URL is read, see platter(1)\n"
	"      --cache-dir DIR, --cache-size SIZE\n"
	"                       keep what was read of it in a folder\n"
	"      --json           for programs\n"
	"  -h, --help\n";

static const struct option options[] = { CMD_REMOTE_OPTIONS,
					 { "json", no_argument, NULL,
					   CMD_JSON },
					 { "help", no_argument, NULL, 'h' },
					 { 0 } };

static const char *content_of(const struct container *c, const struct member *m)
{
	CLEANUP(source_unrefp) struct source *src = NULL;
	const struct format_ops *ops;

	if (m->unreadable)
		return m->unreadable;
	if (container_open_member(c, m, &src, NULL) < 0 ||
	    format_probe(src, &ops, NULL) < 0)
		return "-";
	return strcmp(ops->name, "raw") ? ops->name : "-";
}

static void print_member(const struct container *c, const struct member *m)
{
	printf("%15" PRIu64 "  %-8s  ", m->bytes, content_of(c, m));
	cmd_put(stdout, m->name);
	putchar('\n');
}

static json_t *member_json(const struct container *c, const struct member *m)
{
	return json_pack("{s:s%, s:I, s:I, s:s}", "name", m->name,
			 strlen(m->name), "size", (json_int_t)m->bytes,
			 "offset", (json_int_t)m->off, "format",
			 content_of(c, m));
}

static void print_all(const struct cmd *cmd, const struct container *c)
{
	json_t *list = cmd->json ? json_array() : NULL;
	size_t i;

	if (!list)
		printf("%15s  %-8s  %s\n", "Bytes", "Format", "Member");
	for (i = 0; i < c->n; i++)
		if (list)
			json_array_append_new(list,
					      member_json(c, &c->members[i]));
		else
			print_member(c, &c->members[i]);
	if (list)
		cmd_json_print(json_pack("{s:s, s:o}", "container",
					 c->ops->name, "members", list),
			       JSON_INDENT(4));
}

static int open_it(struct cmd *c, const char *path, struct container **ret,
		   struct error *err)
{
	struct open_options open;
	int r = config_apply(&c->config, cmd_say, err);

	config_open_options(&c->config, &open);
	if (r >= 0)
		r = chain_open_container(path, &open, ret, err);
	return r < 0 || *ret ? r
			     : cmd_no_container(
				       path, ": there is nothing to list", err);
}

static int run_list(int argc, char **argv)
{
	CLEANUP(container_unrefp) struct container *c = NULL;
	struct cmd cmd;
	struct error err = { 0 };
	int opt, status = -1;

	cmd_init(&cmd, &verb_list);
	while (status < 0 &&
	       (opt = getopt_long(argc, argv, ":h", options, NULL)) != -1)
		status = cmd_option(&cmd, opt, argv);
	if (status < 0 && argc - optind != 1)
		status = cmd_usage(&cmd, "one container is listed");
	if (status < 0) {
		status = STATUS_OK;
		if (open_it(&cmd, argv[optind], &c, &err) < 0)
			status = cmd_fail(&err);
		else
			print_all(&cmd, c);
	}
	cmd_done(&cmd);
	return status;
}

const struct verb verb_list = {
	.name = "list",
	.summary = "what is in a container",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_list,
};
