/* SPDX-License-Identifier: BSD-3-Clause */
/* platter pack: a disk as a stream that is read at random, by tools that unpack
 * too. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "formats/streams/pack.h"
#include "iouring/util.h"
#include "iouring/write.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/operand.h"
#include "nbd/cmd/output.h"
#include "nbd/cmd/progress.h"
#include "nbd/cmd/stop.h"

#define THREADS_MIN 4 /* reading and writing wait, too */
#define LZ4_BLOCK   (64U << 10)
#define ZSTD_BLOCK  (128U << 10)

static const char help[] =
	"usage: platter pack [options] IMAGE[@STATE]|URI FILE\n"
	"\n"
	"Packs the disk into FILE, which lz4 -d or zstd -d unpack, and which every verb\n"
	"reads at random: blocks are packed apart, and a table behind them says where\n"
	"each is, which have none but zeroes, and their sums. FILE is there when it is\n"
	"whole and synced; what fails or is interrupted leaves nothing behind.\n"
	"\n"
	"  -O, --output TYPE      lz4 or zst (default: as FILE ends, else lz4)\n"
	"      --block-size N     zst: 4K to 2M, a power of 2 (default 128K); lz4: 64K,\n"
	"                         256K or 1M (default 64K)\n"
	"      --level N          from 1, quick, to 12 (zst: 22), small\n"
	"  -j, --jobs N           threads (default: one a processor, at least 4)\n"
	"      --overwrite        replace FILE if it is there\n"
	"  -q, --quiet            show no progress\n"
	"  -f, --format NAME      the image's format (default: guess)\n"
	"  -s, --snapshot NAME    the state, if it is not said behind an @\n"
	"      --member NAME      of a container: which of its disks\n"
	"  -k, --key FILE         passphrase of an encrypted image\n"
	"      --allow X          a folder or prefix that images may refer to\n"
	"      --force parent     take a parent whose ids do not match\n"
	"      --force-share      read what another process may be writing\n"
	"      --cache-dir DIR    keeps indexes of compressed files there\n"
	"      --cache SIZE       memory for caches (default 64M)\n"
	"      --io MODE          auto, uring or sync\n"
	"      --direct           read with O_DIRECT\n"
	"      --json             for programs: sizes, and the disk's digest\n"
	"  -h, --help\n"
	"\n"
	"Exit status: 0 it is packed, 1 it failed, 2 wrong options, 128+N ended by\n"
	"signal N.\n";

struct packing {
	struct cmd cmd;
	const char *output;
	bool given; /* the type */
	enum packed_codec codec;
	uint32_t block_bytes; /* 0: not given */
	int level;
	int threads;
	bool overwrite, quiet;
	struct progress progress;
};

static int tell(void *opaque, uint64_t done_bytes)
{
	struct packing *c = opaque;

	if (stop_signal())
		return -EINTR;
	progress_tell(&c->progress, done_bytes);
	return 0;
}

static void print_json(const struct packing *c, const struct image *img,
		       uint64_t bytes, const uint8_t *digest)
{
	char text[2 * FOOTER_DIGEST_BYTES + 1];
	size_t i;

	for (i = 0; i < FOOTER_DIGEST_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
	cmd_json_print(json_pack("{s:s, s:I, s:I, s:I, s:s}", "format",
				 c->codec == PACKED_ZSTD ? "zst" : "lz4",
				 "virtual-size", (json_int_t)img->bytes,
				 "file-size", (json_int_t)bytes, "block-size",
				 (json_int_t)c->block_bytes, "digest", text),
		       JSON_COMPACT);
}

static int copy_into(struct packing *c, struct image *img, struct pack *p,
		     uint8_t *digest, struct error *err)
{
	int r;

	pack_sink(p)->name = c->output;
	progress_begin(&c->progress, "pack", img->bytes, c->quiet);
	r = copy_image(img, pack_sink(p), (unsigned int)c->threads, tell, c,
		       err);
	progress_end(&c->progress);
	if (r >= 0)
		r = pack_finish(p, digest, err);
	return r < 0 || !stop_signal() ? r : -EINTR;
}

static int pack_image(struct packing *c, struct image *img, struct error *err)
{
	CLEANUP(output_done) struct output out = { 0 };
	CLEANUP(freep) char *folder = output_beside(c->output, ".");
	uint8_t digest[FOOTER_DIGEST_BYTES];
	uint64_t bytes, room;
	struct pack *p;
	int r = folder ? output_begin(&out, c->output, c->overwrite, err)
		       : error_set(err, -ENOMEM, 0, "out of memory");

	if (r < 0)
		return r;
	r = pack_new(out.dst, img->bytes, c->codec, c->level, c->block_bytes,
		     folder, &p, err);
	if (r < 0) {
		error_prefix(err, "%s", c->output);
		return r;
	}
	r = copy_into(c, img, p, digest, err);
	pack_free(p);
	if (r >= 0)
		r = output_commit(&out, err);
	if (r < 0 || !c->cmd.json)
		return r;
	r = source_measure(out.dst, &bytes, &room, err);
	if (r >= 0)
		print_json(c, img, bytes, digest);
	return r;
}

static int run_it(struct packing *c, struct error *err)
{
	CLEANUP(image_unrefp) struct image *img = NULL;
	int r = config_apply(&c->cmd.config, cmd_say, err);

	if (r >= 0)
		r = operand_open(&c->cmd.config, c->cmd.image,
				 c->cmd.config.format, &img, err);
	if (r < 0)
		return r;
	cmd_remark(img->chain.layers[0], c->cmd.image);
	return pack_image(c, img, err);
}

/* ---- options ---- */

enum { OPT_BLOCK_SIZE = CMD_VERB, OPT_LEVEL, OPT_OVERWRITE };

static int take_output(struct packing *c)
{
	c->given = true;
	c->codec = strcmp(optarg, "lz4") ? PACKED_ZSTD : PACKED_LZ4;
	if (c->codec == PACKED_ZSTD && strcmp(optarg, "zst") != 0)
		return cmd_usage(&c->cmd,
				 "--output: \"%s\" is neither lz4 nor zst",
				 optarg);
	return -1;
}

static int take_block_size(struct packing *c)
{
	uint64_t bytes;

	if (!config_size(optarg, &bytes) || !is_power_of_2(bytes) ||
	    bytes < PACKED_BLOCK_MIN || bytes > COPY_CHUNK_BYTES)
		return cmd_usage(&c->cmd,
				 "--block-size: \"%s\" is not a power of 2 "
				 "from 4K to 2M",
				 optarg);
	c->block_bytes = (uint32_t)bytes;
	return -1;
}

static int take_number(struct packing *c, const char *what, int *ret)
{
	char *end;
	long n = strtol(optarg, &end, 10);

	if (*end || n < 1 || n > (long)COPY_THREADS_MAX)
		return cmd_usage(&c->cmd, "%s: \"%s\" is not 1 to %u", what,
				 optarg, COPY_THREADS_MAX);
	*ret = (int)n;
	return -1;
}

static int take_option(struct packing *c, int opt, char **argv)
{
	switch (opt) {
	case 'O':
		return take_output(c);
	case OPT_BLOCK_SIZE:
		return take_block_size(c);
	case OPT_LEVEL:
		return take_number(c, "--level", &c->level);
	case 'j':
		return take_number(c, "--jobs", &c->threads);
	case OPT_OVERWRITE:
		c->overwrite = true;
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

/* What FILE's name says, and what does not go together. */
static int complete(struct packing *c)
{
	const char *dot = strrchr(c->output, '.');

	if (!c->given && dot &&
	    (!strcasecmp(dot, ".zst") || !strcasecmp(dot, ".zstd")))
		c->codec = PACKED_ZSTD;
	if (!c->block_bytes)
		c->block_bytes =
			c->codec == PACKED_ZSTD ? ZSTD_BLOCK : LZ4_BLOCK;
	/* The frame's header has a digit for each. */
	if (c->codec == PACKED_LZ4 && c->block_bytes != 64U << 10 &&
	    c->block_bytes != 256U << 10 && c->block_bytes != 1U << 20)
		return cmd_usage(&c->cmd,
				 "--block-size: lz4 has 64K, 256K and 1M");
	if (c->level > pack_level_max(c->codec))
		return cmd_usage(&c->cmd, "--level: there are 1 to %d",
				 pack_level_max(c->codec));
	return -1;
}

/* Returns as cmd_option(). */
static int parse(struct packing *c, int argc, char **argv)
{
	static const struct option options[] = {
		CMD_LONG_OPTIONS,
		{ "output", required_argument, NULL, 'O' },
		{ "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
		{ "level", required_argument, NULL, OPT_LEVEL },
		{ "jobs", required_argument, NULL, 'j' },
		{ "overwrite", no_argument, NULL, OPT_OVERWRITE },
		{ "quiet", no_argument, NULL, 'q' },
		{ "snapshot", required_argument, NULL, 's' },
		{ 0 },
	};
	int opt, status;

	while ((opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS "O:j:qs:",
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
	return complete(c);
}

static int run_pack(int argc, char **argv)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	struct packing c = { .threads = n > (long)COPY_THREADS_MAX
						? (int)COPY_THREADS_MAX
						: (int)n };
	struct error err = { 0 };
	int status, r;

	if (c.threads < THREADS_MIN)
		c.threads = THREADS_MIN;
	cmd_init(&c.cmd, &verb_pack);
	status = parse(&c, argc, argv);
	if (status < 0) {
		stop_catch();
		r = run_it(&c, &err);
		status = STATUS_OK;
		if (r < 0)
			status = stop_signal() ? 128 + stop_signal()
					       : cmd_fail(&err);
	}
	cmd_done(&c.cmd);
	return status;
}

const struct verb verb_pack = {
	.name = "pack",
	.summary = "pack a disk so that it is read at random",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_pack,
};
