/* SPDX-License-Identifier: BSD-3-Clause */
/* platter create: an empty raw or qcow2 file, over another image if need be. */
#include <errno.h>
#include <string.h>

#include "formats/overlay/overlay.h"
#include "iouring/util.h"
#include "iouring/write.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/output.h"
#include "nbd/overlays.h"

static const char help[] =
	"usage: platter create [options] FILE [SIZE]\n"
	"\n"
	"Makes FILE, an empty disk of SIZE bytes (suffixes K, M, G and T are powers of\n"
	"1024): qcow2 with subclusters of 4 KiB, or raw and sparse. A file that is there\n"
	"already stays as it is.\n"
	"\n"
	"  -O, --output FORMAT    raw or qcow2 (default qcow2)\n"
	"  -b, --base NAME        the image that FILE is an overlay of, named from\n"
	"                         FILE's folder; SIZE may be left out then\n"
	"  -F, --base-format NAME its format (default: guess)\n"
	"      --preallocation X  off; metadata: qcow2's tables; falloc: the file\n"
	"                         system's room, too; full: and zeroes written\n"
	"  -k, --key FILE         passphrase of the base\n"
	"      --allow X          a folder or prefix that it may refer to\n"
	"  -h, --help\n";

enum { OPT_PREALLOCATION = CMD_VERB };

struct create {
	struct cmd cmd;
	bool raw;
	enum overlay_preallocation preallocation;
	const char *base, *base_format;
	uint64_t bytes;
	bool sized;
};

static int make_raw(const struct create *c, const char *path, struct error *err)
{
	CLEANUP(output_done) struct output out = { 0 };
	int r = output_begin(&out, path, false, err);

	if (r >= 0)
		r = source_truncate(out.dst, c->bytes, err);
	if (r >= 0)
		r = overlay_preallocate(out.dst, 0, c->bytes, c->preallocation,
					err);
	if (r < 0 && out.dst)
		error_prefix(err, "%s", path);
	return r < 0 ? r : output_commit(&out, err);
}

static int make_qcow2(const struct create *c, const char *path,
		      struct error *err)
{
	struct overlay_new n = { .bytes = c->bytes,
				 .preallocation = c->preallocation };
	CLEANUP(image_unrefp) struct image *base = NULL;
	CLEANUP(freep) char *base_path = NULL;
	CLEANUP(freep) char *base_name = NULL;
	char format[LAYER_FORMAT_BYTES];
	struct open_options options;
	int r;

	if (c->base) {
		config_open_options(&c->cmd.config, &options);
		options.format = c->base_format;
		base_path = output_beside(path, c->base);
		r = base_path ? image_open(base_path, &options, &base, err)
			      : error_set(err, -ENOMEM, 0, "out of memory");
		if (r >= 0)
			r = overlays_base_name(base, c->base, &base_name, err);
		if (r >= 0)
			r = overlays_base_format(base, format, err);
		if (r < 0)
			return r;
		n.base_name = base_name;
		n.base_format = format;
		if (!c->sized)
			n.bytes = base->bytes;
	}
	return overlay_create(path, &n, err);
}

static int take_preallocation(struct create *c)
{
	static const char *const names[] = {
		[OVERLAY_PREALLOCATE_OFF] = "off",
		[OVERLAY_PREALLOCATE_METADATA] = "metadata",
		[OVERLAY_PREALLOCATE_FALLOC] = "falloc",
		[OVERLAY_PREALLOCATE_FULL] = "full",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(optarg, names[i]) != 0)
			continue;
		c->preallocation = (enum overlay_preallocation)i;
		return -1;
	}
	return cmd_usage(&c->cmd,
			 "--preallocation: \"%s\" is none of off, metadata, "
			 "falloc and full",
			 optarg);
}

static int take_option(struct create *c, int opt, char **argv)
{
	switch (opt) {
	case 'O':
		c->raw = !strcmp(optarg, "raw");
		if (!c->raw && strcmp(optarg, "qcow2") != 0)
			return cmd_usage(&c->cmd,
					 "--output: \"%s\" is neither raw nor "
					 "qcow2",
					 optarg);
		return -1;
	case 'b':
		c->base = optarg;
		return -1;
	case 'F':
		c->base_format = optarg;
		return -1;
	case OPT_PREALLOCATION:
		return take_preallocation(c);
	default:
		return cmd_option(&c->cmd, opt, argv);
	}
}

/* Returns as cmd_option(). */
static int parse(struct create *c, int argc, char **argv)
{
	static const struct option options[] = {
		CMD_LONG_OPTIONS,
		{ "output", required_argument, NULL, 'O' },
		{ "base", required_argument, NULL, 'b' },
		{ "base-format", required_argument, NULL, 'F' },
		{ "preallocation", required_argument, NULL, OPT_PREALLOCATION },
		{ 0 },
	};
	int opt, status;

	while ((opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS "O:b:F:",
				  options, NULL)) != -1) {
		status = take_option(c, opt, argv);
		if (status >= 0)
			return status;
	}
	if (argc - optind < 1 || argc - optind > 2)
		return cmd_usage(&c->cmd, "a file and its size are wanted");
	c->sized = argc - optind == 2;
	if (c->sized &&
	    (!config_size(argv[optind + 1], &c->bytes) || c->bytes > INT64_MAX))
		return cmd_usage(&c->cmd, "\"%s\" is no size",
				 argv[optind + 1]);
	if (!c->sized && !c->base)
		return cmd_usage(&c->cmd, "how large? the size is missing");
	if (c->raw && c->base)
		return cmd_usage(&c->cmd, "a raw file has no base: "
					  "--output qcow2");
	if (c->raw && c->preallocation == OVERLAY_PREALLOCATE_METADATA)
		return cmd_usage(&c->cmd,
				 "--preallocation: raw has no "
				 "metadata; falloc and full are there");
	return -1;
}

static int run_create(int argc, char **argv)
{
	struct error err = { 0 };
	struct create c = { 0 };
	int status, r;

	cmd_init(&c.cmd, &verb_create);
	status = parse(&c, argc, argv);
	if (status < 0) {
		r = config_apply(&c.cmd.config, cmd_say, &err);
		if (r >= 0)
			r = config_check_path(argv[optind], &err);
		if (r >= 0)
			r = c.raw ? make_raw(&c, argv[optind], &err)
				  : make_qcow2(&c, argv[optind], &err);
		status = r < 0 ? cmd_fail(&err) : STATUS_OK;
	}
	cmd_done(&c.cmd);
	return status;
}

const struct verb verb_create = {
	.name = "create",
	.summary = "make an empty disk, or an overlay",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_create,
};
