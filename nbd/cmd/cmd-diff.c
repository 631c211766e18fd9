/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * platter diff: which ranges of two disks differ. What the images' tables
 * tell apart is not read; exit status as cmp's.
 */
#include <errno.h>
#include <inttypes.h>

#include "formats/difference.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/operand.h"
#include "nbd/text.h"

static const char help[] =
	"usage: platter diff [options] A[@STATE] B[@STATE]\n"
	"\n"
	"Prints which ranges of disk B are not as in disk A: offset, length, and\n"
	"whether B has data or zeroes there. STATE: a snapshot, or a layer by its\n"
	"file's name. Data are read only where the images' tables do not tell. A and B\n"
	"may be URIs of NBD exports, too.\n"
	"\n"
	"  -f, --format NAME    format of A (default: guess)\n"
	"  -F, --format-b NAME  format of B (default: guess)\n"
	"  -q, --quiet          the exit status alone; ends at the first difference\n"
	"  -k, --key FILE       passphrase of encrypted images\n"
	"      --allow X        a folder or prefix that images may refer to\n"
	"      --force parent   take a parent whose ids do not match\n"
	"      --force-share    read what another process may be writing\n"
	"      --credentials FILE, --ca FILE, --proxy URL, --remote-timeout SECONDS\n"
	"                      how images at URLs are read, see platter(1)\n"
	"      --cache-dir DIR, --cache-size SIZE\n"
	"                      keep what was read of URLs, and indexes of compressed\n"
	"                      files, in a folder\n"
	"      --cache SIZE     memory for caches (default 64M)\n"
	"      --io MODE        auto, uring or sync\n"
	"      --direct         read with O_DIRECT\n"
	"      --json           for programs\n"
	"  -h, --help\n"
	"\n"
	"Exit status: 0 the disks are equal, 1 they differ, 2 something failed.\n";

struct differ {
	bool json, quiet;
	uint64_t off, len; /* of a change not printed yet; 0: none */
	enum change change;
	uint64_t changed_bytes;
	uint64_t ranges;
};

static void print_change(struct differ *d)
{
	if (!d->len)
		return;
	d->ranges++;
	d->changed_bytes += d->len;
	if (d->json)
		printf("%s\n    { \"start\": %" PRIu64 ", \"length\": %" PRIu64
		       ", \"zero\": %s }",
		       d->ranges > 1 ? "," : "", d->off, d->len,
		       d->change == CHANGE_ZERO ? "true" : "false");
	else if (!d->quiet)
		printf("0x%-16" PRIx64 " 0x%-16" PRIx64 " %s\n", d->off, d->len,
		       d->change == CHANGE_ZERO ? "zero" : "data");
	d->len = 0;
}

static int each_change(void *opaque, uint64_t off, uint64_t len,
		       enum change change)
{
	struct differ *d = opaque;

	if (d->len && change == d->change && d->off + d->len == off) {
		d->len += len;
		return 0;
	}
	print_change(d);
	if (change == CHANGE_NONE)
		return ferror(stdout) ? -EIO : 0; /* main() says it */
	d->off = off;
	d->len = len;
	d->change = change;
	return d->quiet ? 1 : 0;
}

static void print_head(const struct differ *d, const struct difference *images)
{
	if (d->json)
		printf("{\n  \"a-size\": %" PRIu64 ",\n  \"b-size\": %" PRIu64
		       ",\n  \"changes\": [",
		       images->from->bytes, images->to->bytes);
	else if (!d->quiet && images->from->bytes != images->to->bytes)
		printf("sizes differ: %" PRIu64 " bytes, %" PRIu64 " bytes\n",
		       images->from->bytes, images->to->bytes);
}

static void print_tail(const struct differ *d, bool equal)
{
	char text[TEXT_BYTES_MAX];

	if (d->json)
		printf("%s],\n  \"changed-bytes\": %" PRIu64
		       ",\n  \"equal\": %s\n}\n",
		       d->ranges ? "\n  " : "", d->changed_bytes,
		       equal ? "true" : "false");
	else if (!d->quiet && d->ranges)
		printf("%" PRIu64 " bytes (%s) in %" PRIu64 " range%s\n",
		       d->changed_bytes, text_bytes(text, d->changed_bytes),
		       d->ranges, d->ranges == 1 ? "" : "s");
}

/* Returns 1 when they differ, 0, or a negative errno. */
static int compare(struct differ *d, const struct difference *images,
		   struct error *err)
{
	bool same_size = images->from->bytes == images->to->bytes;
	uint64_t off = 0;
	int r = d->quiet && !same_size;

	print_head(d, images);
	while (!r && off < images->to->bytes)
		r = difference_walk(images, off, images->to->bytes - off,
				    each_change, d, &off, err);
	print_change(d);
	if (r >= 0)
		print_tail(d, same_size && !d->ranges);
	return r < 0 ? r : !same_size || d->ranges;
}

static int run(struct cmd *c, struct differ *d, char **operands,
	       const char *format_b)
{
	CLEANUP(image_unrefp) struct image *from = NULL;
	CLEANUP(image_unrefp) struct image *to = NULL;
	struct difference images = { .compare = true };
	struct error err = { 0 };
	int r;

	r = config_apply(&c->config, cmd_say, &err);
	if (r >= 0)
		r = operand_open(&c->config, operands[0], c->config.format,
				 &from, &err);
	if (r >= 0)
		r = operand_open(&c->config, operands[1], format_b, &to, &err);
	if (r >= 0) {
		images.from = from;
		images.to = to;
		r = compare(d, &images, &err);
	}
	if (r >= 0)
		return r;
	if (!ferror(stdout))
		cmd_fail(&err);
	return STATUS_USAGE;
}

static int run_diff(int argc, char **argv)
{
	static const struct option options[] = {
		CMD_LONG_OPTIONS,
		{ "format-b", required_argument, NULL, 'F' },
		{ "quiet", no_argument, NULL, 'q' },
		{ 0 },
	};
	CLEANUP(cmd_done) struct cmd c;
	const char *format_b = NULL;
	struct differ d = { 0 };
	int opt, status;

	cmd_init(&c, &verb_diff);
	while ((opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS "F:q", options,
				  NULL)) != -1) {
		if (opt == 'F') {
			format_b = optarg;
		} else if (opt == 'q') {
			d.quiet = true;
		} else {
			status = cmd_option(&c, opt, argv);
			if (status >= 0)
				return status;
		}
	}
	if (argc - optind != 2)
		return cmd_usage(&c, "two images are compared, %d were given",
				 argc - optind);
	if (d.quiet && c.json)
		return cmd_usage(&c, "--quiet prints nothing, --json does");
	d.json = c.json;
	return run(&c, &d, argv + optind, format_b);
}

const struct verb verb_diff = {
	.name = "diff",
	.summary = "which ranges of two disks differ",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_diff,
};
