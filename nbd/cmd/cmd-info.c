/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * platter info: what an image is, what it holds, what it refers to. The top
 * layer is shown even when one below it is missing or refused.
 */
#include <errno.h>
#include <inttypes.h>
#include <langinfo.h>
#include <string.h>
#include <time.h>

#include "formats/history.h"
#include "formats/report.h"
#include "iouring/util.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/package.h"
#include "nbd/export-list.h"
#include "nbd/text.h"

static const char help[] =
	"usage: platter info [options] IMAGE[@STATE]|URI\n"
	"\n"
	"Shows format, sizes, snapshots, the chain of layers, and what the image\n"
	"refers to and whether that is allowed; of a container the machine that its\n"
	"OVF descriptor tells of, and all disks.\n"
	"\n"
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
	"      --json          for programs, with qemu-img info's names\n"
	"  -h, --help\n"
	"\n"
	"Exit status: 0 the whole chain can be opened (an encrypted one without its\n"
	"key too), 1 it cannot.\n";

#define SHORT_TEXT_BYTES 256 /* of a snapshot's name in the table */
#define TREE_INDENT_MAX	 20U /* deeper layers are not indented further */

static const char *layer_name(const struct cmd *c, const struct layers *ls,
			      unsigned int i)
{
	return i ? ls->layers[i]->path : c->image;
}

/* What became of the name that layer @i gives for its parent. */
static enum reference_verdict parent_verdict(const struct layers *ls,
					     unsigned int i)
{
	return i + 1 < ls->depth ? REFERENCE_OK : ls->verdict;
}

/*
 * The file that the top's parent name leads to. To be freed; NULL when there
 * is no memory.
 */
static char *full_backing_name(const struct layers *ls)
{
	const struct layer *top = ls->layers[0];
	char *ret;

	if (ls->depth > 1)
		return strdup(ls->layers[1]->path);
	if (top->parent.name[0] == '/' || ls->verdict == REFERENCE_PREFIX)
		return strdup(top->parent.name);
	if (asprintf(&ret, "%s/%s", place_text(top->place), top->parent.name) <
	    0)
		return NULL;
	return ret;
}

/* The exports of the layers below the top; NULL: it has none. */
struct layer_exports {
	char *name[CHAIN_DEPTH_MAX];
};

static int note_export(void *opaque, const struct history_state *s)
{
	struct layer_exports *exports = opaque;

	if (s->depth)
		exports->name[s->depth] = export_state_name("", s);
	return 0;
}

static void find_exports(const struct layers *ls, struct layer_exports *ret)
{
	struct chain c = { .depth = ls->depth };

	*ret = (struct layer_exports){ 0 };
	if (ls->of_state)
		return; /* exports are called from the image's top */
	memcpy(c.layers, ls->layers, ls->depth * sizeof(*c.layers));
	history_each(&c, note_export, ret, NULL);
}

static void exports_done(struct layer_exports *exports)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(exports->name); i++)
		free(exports->name[i]);
}

/* JSON */

static int print_json(const struct cmd *c, const struct layers *ls,
		      const struct container *package, struct error *err)
{
	struct layer *top = ls->layers[0];
	CLEANUP(freep) char *full = NULL;
	CLEANUP(exports_done) struct layer_exports exports;
	json_t *j = report_layer(top, c->image), *layer;
	json_t *chain = json_array(), *references = json_array();
	unsigned int i, k;
	int r;

	find_exports(ls, &exports);
	r = report_details(j, top, err);
	full = top->parent.name ? full_backing_name(ls) : NULL;
	if (full)
		json_object_set_new(j, "full-backing-filename",
				    report_text(full));
	for (i = 0; i < ls->depth; i++) {
		const struct layer *l = ls->layers[i];

		layer = report_layer(l, layer_name(c, ls, i));
		if (exports.name[i])
			json_object_set_new(layer, "export",
					    report_text(exports.name[i]));
		json_array_append_new(chain, layer);
		for (k = 0; k < l->n_files; k++)
			report_reference(references, layer_name(c, ls, i),
					 "data file", l->files[k].name,
					 REFERENCE_OK);
		if (l->parent.name)
			report_reference(references, layer_name(c, ls, i),
					 "backing file", l->parent.name,
					 parent_verdict(ls, i));
	}
	json_object_set_new(j, "chain", chain);
	json_object_set_new(j, "references", references);
	if (!ls->complete)
		json_object_set_new(j, "error", report_text(ls->reason.msg));
	if (package)
		package_json(c, package, j);
	cmd_json_print(j, JSON_INDENT(4));
	return r;
}

/* For people */

static void print_bytes(const char *what, uint64_t bytes)
{
	char buf[TEXT_BYTES_MAX];

	printf("%s: %s", what, text_bytes(buf, bytes));
	if (bytes >= 1024)
		printf(" (%" PRIu64 " bytes)", bytes);
	putchar('\n');
}

static void sink_print_text(struct info_sink *s, const char *key,
			    const char *value)
{
	printf("    %s: ", key);
	cmd_put(stdout, value);
	putchar('\n');
}

static void sink_print_number(struct info_sink *s, const char *key,
			      uint64_t value)
{
	printf("    %s: %" PRIu64 "\n", key, value);
}

static void sink_print_flag(struct info_sink *s, const char *key, bool value)
{
	printf("    %s: %s\n", key, value ? "yes" : "no");
}

static int print_snapshot(void *opaque, const struct snapshot *s)
{
	bool *head = opaque;
	char id[SHORT_TEXT_BYTES], name[SHORT_TEXT_BYTES];
	char size[TEXT_BYTES_MAX], vm[TEXT_BYTES_MAX], date[32], clock[32];
	uint64_t msec = s->vm_clock_nsec / 1000000;
	time_t sec = (time_t)s->date_sec;
	struct tm tm;

	if (!*head) {
		puts("snapshots:");
		printf("    %-4s %-24s %-10s %-19s %-14s %s\n", "ID", "TAG",
		       "VM_SIZE", "DATE", "VM_CLOCK", "DISK_SIZE");
		*head = true;
	}
	if (!localtime_r(&sec, &tm) ||
	    !strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm))
		strcpy(date, "-");
	snprintf(clock, sizeof(clock),
		 "%02" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64,
		 msec / 3600000, msec / 60000 % 60, msec / 1000 % 60,
		 msec % 1000);
	text_escape(id, sizeof(id), s->id);
	text_escape(name, sizeof(name), s->name);
	printf("    %-4s %-24s %-10s %-19s %-14s %s\n", id, name,
	       s->vm_state_bytes ? text_bytes(vm, s->vm_state_bytes) : "-",
	       date, clock, text_bytes(size, s->bytes));
	return 0;
}

static void print_tree(const struct cmd *c, const struct layers *ls)
{
	bool utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
	const char *branch = utf8 ? "\u2514\u2500 " : "`- ";
	const struct layer *last = ls->layers[ls->depth - 1];
	CLEANUP(exports_done) struct layer_exports exports;
	char buf[TEXT_BYTES_MAX];
	unsigned int i;

	find_exports(ls, &exports);
	puts("chain:");
	for (i = 0; i < ls->depth; i++) {
		const struct layer *l = ls->layers[i];
		unsigned int level = i < TREE_INDENT_MAX ? i : TREE_INDENT_MAX;

		printf("    %*s%s", level ? (int)(level - 1) * 3 : 0, "",
		       i ? branch : "");
		cmd_put(stdout, layer_name(c, ls, i));
		printf(" (%s%s, %s)", l->ops->name,
		       l->guessed ? ", guessed" : "",
		       text_bytes(buf, l->bytes));
		printf("%s%s\n", exports.name[i] ? ", export " : "",
		       exports.name[i] ? exports.name[i] : "");
	}
	if (!ls->complete && last->parent.name) {
		printf("    %*s%s",
		       (int)(i < TREE_INDENT_MAX ? i - 1 : TREE_INDENT_MAX) * 3,
		       "", branch);
		cmd_put(stdout, last->parent.name);
		puts(" (not opened)");
	}
}

static void print_reference(const struct cmd *c, const struct layers *ls,
			    unsigned int i, const char *kind, const char *name,
			    const char *format, enum reference_verdict verdict,
			    bool *head)
{
	if (!*head)
		puts("references:");
	*head = true;
	printf("    %s ", kind);
	cmd_put(stdout, name);
	if (format) {
		fputs(" (", stdout);
		cmd_put(stdout, format);
		putchar(')');
	}
	fputs(" of ", stdout);
	cmd_put(stdout, layer_name(c, ls, i));
	printf(": %s\n", reference_verdict_text(verdict));
}

static void print_references(const struct cmd *c, const struct layers *ls)
{
	bool head = false;
	unsigned int i, k;

	for (i = 0; i < ls->depth; i++) {
		const struct layer *l = ls->layers[i];

		for (k = 0; k < l->n_files; k++)
			print_reference(c, ls, i, "data file", l->files[k].name,
					NULL, REFERENCE_OK, &head);
		if (l->parent.name)
			print_reference(c, ls, i, "backing file",
					l->parent.name, l->parent.format,
					parent_verdict(ls, i), &head);
	}
}

static int print_text(const struct cmd *c, const struct layers *ls,
		      struct error *err)
{
	struct info_sink sink = { .text = sink_print_text,
				  .number = sink_print_number,
				  .flag = sink_print_flag };
	struct layer *top = ls->layers[0];
	bool head = false;
	uint64_t bytes;
	int r;

	fputs("image: ", stdout);
	cmd_put(stdout, c->image);
	printf("\nformat: %s%s\n", top->ops->name,
	       top->guessed ? " (guessed)" : "");
	if (top->ops->glance_name)
		printf("glance disk_format: %s\n", top->ops->glance_name);
	print_bytes("virtual size", top->bytes);
	text_odd_size(top->bytes, stdout);
	if (layer_disk_bytes(top, &bytes))
		print_bytes("disk size", bytes);
	if (top->unit_bytes)
		print_bytes("cluster size", top->unit_bytes);
	printf("encrypted: %s%s\n", top->encrypted ? "yes" : "no",
	       top->locked ? " (no key was given)" : "");
	if (top->ops->info) {
		printf("%s:\n", top->ops->name);
		top->ops->info(top, &sink);
	}
	r = layer_snapshots(top, print_snapshot, &head, err);
	print_tree(c, ls);
	print_references(c, ls);
	return r;
}

/* What somebody is writing is looked at all the same, and that is told. */
static int open_layers(struct cmd *c, struct layers *ret, struct error *err)
{
	char line[ERROR_MSG_BYTES + 64];
	int r = layers_open(c, true, ret, err);

	if ((r < 0 ? r : ret->reason.code) != -EBUSY)
		return r;
	snprintf(line, sizeof(line), "warning: %s: this may be half of it",
		 ret->reason.msg);
	cmd_say(line);
	layers_done(ret);
	error_clear(err);
	c->config.force_share = true;
	return layers_open(c, true, ret, err);
}

/* No one of its disks was asked for: all are shown. */
static void show_package(const struct cmd *c, const struct container *package)
{
	json_t *j;

	if (!c->json) {
		fputs("image: ", stdout);
		cmd_put(stdout, c->image);
		putchar('\n');
		package_print(c, package);
		return;
	}
	j = json_pack("{s:o}", "filename", report_text(c->image));
	package_json(c, package, j);
	cmd_json_print(j, JSON_INDENT(4));
}

static int show_image(const struct cmd *c, const struct layers *ls,
		      const struct container *package)
{
	struct error err = { 0 };
	int r = c->json ? print_json(c, ls, package, &err)
			: print_text(c, ls, &err);

	if (!c->json && package)
		package_print(c, package);
	if (r < 0)
		cmd_fail(&err);
	if (ls->complete)
		return r < 0 ? STATUS_FAILED : STATUS_OK;
	return cmd_fail(&ls->reason);
}

static int run_info(int argc, char **argv)
{
	static const struct option options[] = { CMD_LONG_OPTIONS, { 0 } };
	CLEANUP(cmd_done) struct cmd c;
	CLEANUP(layers_done) struct layers ls = { 0 };
	CLEANUP(container_unrefp) struct container *package = NULL;
	struct error err = { 0 };
	int opt, status, r;

	cmd_init(&c, &verb_info);
	while ((opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS, options,
				  NULL)) != -1) {
		status = cmd_option(&c, opt, argv);
		if (status >= 0)
			return status;
	}
	status = cmd_image(&c, argc, argv);
	if (status >= 0)
		return status;
	r = open_layers(&c, &ls, &err);
	if (!c.config.format || c.config.member)
		package_of(&c, r, &ls, &package);
	if (r < 0 && package && !c.config.member)
		show_package(&c, package);
	if (r == -ENOTUNIQ && package)
		return STATUS_OK;
	return r < 0 ? cmd_fail(&err) : show_image(&c, &ls, package);
}

const struct verb verb_info = {
	.name = "info",
	.summary = "what an image is, what it holds and refers to",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_info,
};
