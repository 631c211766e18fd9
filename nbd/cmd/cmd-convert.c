/* SPDX-License-Identifier: BSD-3-Clause */
/* platter convert: an image, a snapshot or a layer as a file of its own. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "formats/codec/encoder.h"
#include "iouring/util.h"
#include "nbd/cmd/convert.h"
#include "nbd/cmd/stop.h"
#include "nbd/cmd/stream.h"
#include "nbd/cmd/target.h"

#define THREADS_MIN 4U /* reading and writing wait, too */

static const char help[] =
	"usage: platter convert [options] IMAGE[@STATE]|URI|- FILE|-\n"
	"       platter convert [options] [-B FILE] IMAGE[@STATE]|IMAGE@A..B FILE\n"
	"       platter convert [options] --all CONTAINER FOLDER\n"
	"\n"
	"Copies the disk to FILE, sparse, by several threads at once. FILE is there\n"
	"when it is whole and synced; a copy that fails or is interrupted leaves\n"
	"nothing behind. STATE: a snapshot, or a layer by its file's name; URI: an NBD\n"
	"export. - is standard input, of any format, or output, which is raw; a file of\n"
	"that name is ./-\n"
	"\n"
	"  -O, --output FORMAT    raw or qcow2 (default raw; an increment is qcow2)\n"
	"  -B, --base FILE        write an increment: what is not as in FILE, which is\n"
	"                         named as its backing file, from FILE's folder. Of A..B\n"
	"                         what has changed from state A, and FILE has A; not\n"
	"                         needed where A is a layer\n"
	"  -F, --base-format NAME its format (default: guess)\n"
	"  -c, --compress         compress clusters (qcow2), with zlib\n"
	"      --compression TYPE zlib or zstd; compresses\n"
	"      --level N          from 1, quick, to 9 (zstd: 22), small\n"
	"      --cluster-size N   of qcow2: 512 to 2M, a power of 2 (default 64K)\n"
	"  -j, --jobs N           threads (default: one a processor, at least 4)\n"
	"      --overwrite        replace FILE if it is there\n"
	"  -n, --existing         write onto FILE, a block device or the URI of an NBD\n"
	"                         export, which keeps its size: the disk, or with\n"
	"                         -O qcow2 a file of it\n"
	"  -q, --quiet            show no progress\n"
	"  -f, --format NAME      the image's format (default: guess)\n"
	"  -s, --snapshot NAME    the state, if it is not said behind an @\n"
	"      --member NAME      of a container: which of its disks\n"
	"      --all              all of them, as FOLDER/DISK.raw or .qcow2\n"
	"  -k, --key FILE         passphrase of an encrypted image\n"
	"      --allow X          a folder or prefix that images may refer to\n"
	"      --force parent     take a parent whose ids do not match\n"
	"      --force-share      read what another process may be writing\n"
	"      --credentials FILE, --ca FILE, --proxy URL, --remote-timeout SECONDS\n"
	"                      how images at URLs are read, see platter(1)\n"
	"      --cache-dir DIR, --cache-size SIZE\n"
	"                      keep what was read of URLs, and indexes of compressed\n"
	"                      files, in a folder\n"
	"      --cache SIZE       memory for caches (default 64M)\n"
	"      --io MODE          auto, uring or sync\n"
	"      --direct           read with O_DIRECT\n"
	"      --json             when done, print sizes as one JSON object\n"
	"  -h, --help\n"
	"\n"
	"Exit status: 0 done, 1 failed, 2 wrong command line, 128 + N ended by\n"
	"signal N.\n";

enum {
	OPT_COMPRESSION = CMD_VERB,
	OPT_LEVEL,
	OPT_CLUSTER_SIZE,
	OPT_OVERWRITE,
	OPT_ALL,
};

static int take_output(struct convert *c)
{
	c->output_given = true;
	c->qcow2 = !strcmp(optarg, "qcow2");
	if (!c->qcow2 && strcmp(optarg, "raw"))
		return cmd_usage(&c->cmd,
				 "--output: \"%s\" is neither raw nor qcow2",
				 optarg);
	return -1;
}

static int take_compression(struct convert *c)
{
	bool zstd = !strcmp(optarg, "zstd");

	if (!zstd && strcmp(optarg, "zlib"))
		return cmd_usage(&c->cmd,
				 "--compression: \"%s\" is neither zlib nor "
				 "zstd",
				 optarg);
	c->codec = zstd ? CODEC_ZSTD : CODEC_DEFLATE;
	c->compress = true;
	return -1;
}

/* A decimal number, or -1. */
static long small_number(const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);

	return *text < '0' || *text > '9' || *end || n > 1000000000 ? -1 : n;
}

static int take_cluster_size(struct convert *c)
{
	uint64_t bytes;

	if (!config_size(optarg, &bytes) || !is_power_of_2(bytes) ||
	    bytes < 512 || bytes > 2 << 20)
		return cmd_usage(&c->cmd,
				 "--cluster-size: \"%s\" is not a power of 2 "
				 "from 512 to 2M",
				 optarg);
	c->cluster_bits = (uint32_t)__builtin_ctzll(bytes);
	return -1;
}

static int take_number(struct convert *c, const char *what, long max, long *ret)
{
	*ret = small_number(optarg);
	if (*ret < 1 || *ret > max)
		return cmd_usage(&c->cmd, "%s: \"%s\" is not 1 to %ld", what,
				 optarg, max);
	return -1;
}

static int take_option(struct convert *c, int opt, char **argv)
{
	int status;
	long n = 0;

	switch (opt) {
	case 'O':
		return take_output(c);
	case 'c':
		c->compress = true;
		return -1;
	case OPT_COMPRESSION:
		return take_compression(c);
	case OPT_LEVEL:
		status = take_number(c, "--level",
				     encoder_level_max(CODEC_ZSTD), &n);
		c->level = (int)n;
		return status;
	case OPT_CLUSTER_SIZE:
		return take_cluster_size(c);
	case 'j':
		status = take_number(c, "--jobs", COPY_THREADS_MAX, &n);
		c->threads = (unsigned int)n;
		return status;
	case OPT_OVERWRITE:
		c->overwrite = true;
		return -1;
	case OPT_ALL:
		c->all = true;
		return -1;
	case 'B':
		c->base = optarg;
		c->qcow2 = c->qcow2 || !c->output_given;
		return -1;
	case 'F':
		c->base_format = optarg;
		return -1;
	case 'n':
		c->existing = true;
		return -1;
	case 'q':
		c->quiet = true;
		return -1;
	case 's':
		return cmd_param(&c->cmd, "snapshot", optarg);
	default:
		return cmd_option(&c->cmd, opt, argv);
	}
}

static int check_stream(const struct convert *c)
{
	if (c->qcow2)
		return cmd_usage(&c->cmd, "qcow2 is not written in order: to "
					  "standard output goes raw");
	if (c->cmd.json)
		return cmd_usage(&c->cmd, "--json: standard output takes the "
					  "disk");
	if (c->existing)
		return cmd_usage(&c->cmd, "-n: standard output is no disk");
	if (isatty(STDOUT_FILENO))
		return cmd_usage(&c->cmd,
				 "standard output is a terminal, which takes "
				 "no disk");
	return -1;
}

static int check_target(const struct convert *c)
{
	bool is_one = target_is_one(c->output);

	if (is_one && !c->existing)
		return cmd_usage(&c->cmd,
				 "%.200s: -n writes onto what is there",
				 c->output);
	if (!is_one && c->existing)
		return cmd_usage(&c->cmd,
				 "-n: %.200s is neither a block device nor the "
				 "URI of an NBD export; --overwrite replaces a "
				 "file",
				 c->output);
	return -1;
}

/* Of several disks, what is of one only. */
static int check_all(const struct convert *c)
{
	const char *of_one = c->cmd.config.member      ? "--member"
			     : c->cmd.config.snapshot  ? "--snapshot"
			     : c->base		       ? "--base"
			     : c->existing	       ? "-n"
			     : stream_is(c->output)    ? "standard output"
			     : stream_is(c->cmd.image) ? "standard input"
						       : NULL;

	return of_one ? cmd_usage(&c->cmd, "--all: %s is for one disk", of_one)
		      : -1;
}

/* What does not go together. Returns as cmd_option(). */
static int check_options(struct convert *c)
{
	if (!c->qcow2 && (c->compress || c->cluster_bits))
		return cmd_usage(&c->cmd, "raw has no clusters, and is not "
					  "compressed: give --output qcow2");
	if (c->base_format && !c->base)
		return cmd_usage(&c->cmd, "--base-format: there is no --base");
	if (c->level && !c->compress)
		return cmd_usage(&c->cmd, "--level: nothing is compressed");
	if (c->level > encoder_level_max(c->codec))
		return cmd_usage(&c->cmd, "--level: zlib has 1 to %d",
				 encoder_level_max(c->codec));
	if (c->all)
		return check_all(c);
	return stream_is(c->output) ? check_stream(c) : check_target(c);
}

static unsigned int default_threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	if (n < (long)THREADS_MIN)
		return THREADS_MIN;
	return n > (long)COPY_THREADS_MAX ? COPY_THREADS_MAX : (unsigned int)n;
}

/* Returns as cmd_option(). */
static int parse(struct convert *c, int argc, char **argv)
{
	static const struct option options[] = {
		CMD_LONG_OPTIONS,
		{ "output", required_argument, NULL, 'O' },
		{ "base", required_argument, NULL, 'B' },
		{ "base-format", required_argument, NULL, 'F' },
		{ "compress", no_argument, NULL, 'c' },
		{ "compression", required_argument, NULL, OPT_COMPRESSION },
		{ "level", required_argument, NULL, OPT_LEVEL },
		{ "cluster-size", required_argument, NULL, OPT_CLUSTER_SIZE },
		{ "jobs", required_argument, NULL, 'j' },
		{ "overwrite", no_argument, NULL, OPT_OVERWRITE },
		{ "all", no_argument, NULL, OPT_ALL },
		{ "existing", no_argument, NULL, 'n' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "snapshot", required_argument, NULL, 's' },
		{ 0 },
	};
	int opt, status;

	while ((opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS "O:B:F:cj:nqs:",
				  options, NULL)) != -1) {
		status = take_option(c, opt, argv);
		if (status >= 0)
			return status;
	}
	if (argc - optind != 2)
		return cmd_usage(
			&c->cmd, "an image and a file are wanted, %d %s given",
			argc - optind, argc - optind == 1 ? "was" : "were");
	c->cmd.image = argv[optind];
	c->output = argv[optind + 1];
	return check_options(c);
}

static int run_convert(int argc, char **argv)
{
	struct convert c = { .codec = CODEC_DEFLATE,
			     .threads = default_threads() };
	struct error err = { 0 };
	int status, r;

	cmd_init(&c.cmd, &verb_convert);
	status = parse(&c, argc, argv);
	if (status < 0) {
		stop_catch();
		r = config_apply(&c.cmd.config, cmd_say, &err);
		if (r >= 0)
			r = c.all ? convert_all(&c, &err)
				  : convert_run(&c, &err);
		status = STATUS_OK;
		if (r < 0)
			status = stop_signal() ? 128 + stop_signal()
					       : cmd_fail(&err);
	}
	cmd_done(&c.cmd);
	return status;
}

const struct verb verb_convert = {
	.name = "convert",
	.summary = "copy a disk to a raw or qcow2 file",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_convert,
};
