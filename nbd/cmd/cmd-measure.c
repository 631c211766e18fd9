/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * platter measure: how large a file convert writes at most. The figures are
 * qemu-img measure's: of qcow2 the metadata of a disk that is full, whatever is
 * in it, and the clusters that have data.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/overlay/qcow2-create.h"
#include "iouring/util.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/measure.h"
#include "nbd/cmd/operand.h"
#include "nbd/text.h"

static const char help[] =
	"usage: platter measure [options] IMAGE[@STATE]|URI\n"
	"       platter measure [options] --size SIZE\n"
	"\n"
	"Prints how many bytes a copy by platter convert needs, and how many it would\n"
	"if all of the disk had data.\n"
	"\n"
	"  -O, --output FORMAT    raw or qcow2 (default raw)\n"
	"      --size SIZE        of an empty disk\n"
	"      --cluster-size N   of qcow2: 512 to 2M, a power of 2 (default 64K)\n"
	"  -f, --format NAME      the image's format (default: guess)\n"
	"      --member NAME      of a container: which of its disks\n"
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
	"      --json             for programs, with qemu-img measure's names\n"
	"  -h, --help\n";

struct measure {
	struct cmd cmd;
	bool qcow2;
	uint32_t cluster_bits; /* 0: not given */
	bool sized;
	uint64_t bytes; /* of the disk */
};

static void print_sizes(const struct measure *m, uint64_t required,
			uint64_t full)
{
	char text[TEXT_BYTES_MAX];
	json_t *j;

	if (m->cmd.json) {
		j = json_object();
		json_object_set_new(j, "required",
				    json_integer((json_int_t)required));
		json_object_set_new(j, "fully-allocated",
				    json_integer((json_int_t)full));
		cmd_json_print(j, JSON_INDENT(4));
		return;
	}
	printf("required size: %" PRIu64 " (%s)\n", required,
	       text_bytes(text, required));
	printf("fully allocated size: %" PRIu64 " (%s)\n", full,
	       text_bytes(text, full));
}

static int measure(struct measure *m, struct error *err)
{
	CLEANUP(image_unrefp) struct image *img = NULL;
	uint64_t full, data;
	int r = 0;

	if (!m->sized) {
		r = operand_open(&m->cmd.config, m->cmd.image,
				 m->cmd.config.format, &img, err);
		if (r < 0)
			return r;
		m->bytes = img->bytes;
	}
	if (!m->qcow2) {
		/* A sparse file ends there as well. */
		m->bytes = m->sized ? round_up(m->bytes, 512) : m->bytes;
		print_sizes(m, m->bytes, m->bytes);
		return 0;
	}
	r = measure_qcow2(m->bytes, m->cluster_bits, img, &full, &data, err);
	if (r >= 0)
		print_sizes(m,
			    full - round_up(m->bytes, 1ULL << m->cluster_bits) +
				    data,
			    full);
	return r;
}

enum { OPT_SIZE = CMD_VERB, OPT_CLUSTER_SIZE };

static int take_option(struct measure *m, int opt, char **argv)
{
	uint64_t bytes;

	switch (opt) {
	case 'O':
		m->qcow2 = !strcmp(optarg, "qcow2");
		if (!m->qcow2 && strcmp(optarg, "raw") != 0)
			return cmd_usage(&m->cmd,
					 "--output: \"%s\" is neither raw nor "
					 "qcow2",
					 optarg);
		return -1;
	case OPT_SIZE:
		m->sized = true;
		if (!config_size(optarg, &m->bytes) || m->bytes > INT64_MAX)
			return cmd_usage(&m->cmd, "--size: \"%s\" is no size",
					 optarg);
		return -1;
	case OPT_CLUSTER_SIZE:
		if (!config_size(optarg, &bytes) || !is_power_of_2(bytes) ||
		    bytes < 512 || bytes > 2 << 20)
			return cmd_usage(&m->cmd,
					 "--cluster-size: \"%s\" is not a "
					 "power of 2 from 512 to 2M",
					 optarg);
		m->cluster_bits = (uint32_t)__builtin_ctzll(bytes);
		return -1;
	default:
		return cmd_option(&m->cmd, opt, argv);
	}
}

/* Returns as cmd_option(). */
static int parse(struct measure *m, int argc, char **argv)
{
	static const struct option options[] = {
		CMD_LONG_OPTIONS,
		{ "output", required_argument, NULL, 'O' },
		{ "size", required_argument, NULL, OPT_SIZE },
		{ "cluster-size", required_argument, NULL, OPT_CLUSTER_SIZE },
		{ 0 },
	};
	int opt, status;

	while ((opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS "O:", options,
				  NULL)) != -1) {
		status = take_option(m, opt, argv);
		if (status >= 0)
			return status;
	}
	if (argc - optind != !m->sized)
		return cmd_usage(&m->cmd, "an image or --size is wanted");
	if (m->cluster_bits && !m->qcow2)
		return cmd_usage(&m->cmd, "raw has no clusters: give --output "
					  "qcow2");
	if (!m->cluster_bits)
		m->cluster_bits = QCOW2_CREATE_CLUSTER_BITS;
	m->cmd.image = argv[optind];
	return -1;
}

static int run_measure(int argc, char **argv)
{
	struct measure m = { 0 };
	struct error err = { 0 };
	int status, r;

	cmd_init(&m.cmd, &verb_measure);
	status = parse(&m, argc, argv);
	if (status < 0) {
		r = config_apply(&m.cmd.config, cmd_say, &err);
		if (r >= 0)
			r = measure(&m, &err);
		status = r < 0 ? cmd_fail(&err) : STATUS_OK;
	}
	cmd_done(&m.cmd);
	return status;
}

const struct verb verb_measure = {
	.name = "measure",
	.summary = "how large a copy of a disk will be",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_measure,
};
