/* SPDX-License-Identifier: BSD-3-Clause */
/* platter attach and detach. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "iouring/sources/nbd.h"
#include "iouring/util.h"
#include "nbd/cmd/attach.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/qemu-options.h"

static const char attach_help[] =
	"usage: platter attach [options] IMAGE|URI [/dev/nbdN]\n"
	"\n"
	"Makes a disk a block device, with its partitions, and prints which: a free one\n"
	"where none is named. An image is served by a platter serve of its own, read-only\n"
	"unless there is an overlay; URI is nbd[s]:// or nbd[s]+unix://. A server that is\n"
	"started anew within a minute is connected to again, meanwhile I/O waits. Wants\n"
	"qemu-nbd, the module nbd, and root.\n"
	"\n"
	"      --overlay FILE   take writes into this qcow2 file\n"
	"      --snapshot NAME  a snapshot inside the image\n"
	"      --read-only      an export that takes writes, too\n"
	"      --tls-certificates DIR  keys for nbds: ca-cert.pem, client-cert.pem and\n"
	"                       client-key.pem\n"
	"  -f, --format NAME    the image's format (default: guess)\n"
	"      --member NAME    of a container: which of its disks\n"
	"  -k, --key FILE       passphrase of an encrypted image\n"
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
	"      --json           print it as JSON\n"
	"  -h, --help\n";

static const char detach_help[] =
	"usage: platter detach /dev/nbdN\n"
	"\n"
	"Ends what platter attach began, when nothing of it is mounted: all that was\n"
	"written is with the server, and the server of an image has ended.\n"
	"\n"
	"  -h, --help\n";

#define TLS_ID "platter-tls" /* as qemu-nbd calls the keys */

struct attach {
	struct cmd cmd;
	const char *certificates; /* a folder of keys; NULL: none */
	bool read_only;
	bool named; /* the device */
	unsigned int device;
};

/* The parameters that were given, as options of platter serve. To be freed. */
static char **serve_options(const struct attach *a)
{
	char **ret = calloc(a->cmd.n_params + 1, sizeof(*ret));
	size_t i;

	for (i = 0; ret && i < a->cmd.n_params; i++) {
		const char *param = a->cmd.params[i];

		if (!strcmp(param, "direct=true"))
			ret[i] = strdup("--direct");
		else if (asprintf(&ret[i], "--%s", param) < 0)
			ret[i] = NULL;
	}
	return ret;
}

static void options_free(char ***options)
{
	size_t i;

	for (i = 0; *options && (*options)[i]; i++)
		free((*options)[i]);
	free(*options);
}

static int attach_image(const struct attach *a, unsigned int n,
			struct error *err)
{
	CLEANUP(options_free) char **options = serve_options(a);
	CLEANUP(freep) char *server = NULL;
	struct attach_server s;
	bool writable = a->cmd.config.overlay || a->cmd.config.overlay_temp;
	int r;

	attach_server_paths(n, &s);
	server = qemu_options("unix", s.socket, 0, "");
	if (!options || !server)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = attach_server_begin(&s, options, a->cmd.config.image, err);
	if (r < 0)
		return r;
	r = attach_connect(n, server, NULL, !writable || a->read_only, err);
	if (r < 0)
		attach_server_end(&s);
	return r;
}

static int attach_uri(const struct attach *a, unsigned int n, struct error *err)
{
	CLEANUP(freep)
	char *folder = a->certificates ? realpath(a->certificates, NULL) : NULL;
	CLEANUP(freep) char *keys = folder ? qemu_keys(TLS_ID, folder) : NULL;
	CLEANUP(freep) char *server = NULL;
	int r;

	if (a->certificates && !folder)
		return error_set(err, -errno, 0, "%s: %s", a->certificates,
				 errno_text(errno));
	if (folder && !keys)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = qemu_options_of_uri(a->cmd.image, keys ? TLS_ID : NULL, &server,
				err);
	return r < 0 ? r : attach_connect(n, server, keys, a->read_only, err);
}

/* -EBUSY: it is taken, or was meanwhile. */
static int attach_to(const struct attach *a, unsigned int n, struct error *err)
{
	CLEANUP(closep) int lock = -1;
	int r = attach_lock(n, &lock, err);

	if (r < 0)
		return r;
	if (attach_is_used(n))
		return error_set(err, -EBUSY, 0, "/dev/nbd%u is in use", n);
	r = nbd_source_is_uri(a->cmd.image) ? attach_uri(a, n, err)
					    : attach_image(a, n, err);
	if (r >= 0)
		attach_scan(n);
	return r;
}

/* The first that is free. */
static int attach_anywhere(struct attach *a, struct error *err)
{
	unsigned int n;
	int r;

	for (n = 0; n < ATTACH_DEVICES_MAX && attach_is_there(n); n++) {
		r = attach_to(a, n, err);
		if (r >= 0)
			a->device = n;
		/* Whoever does not use our lock may have been quicker. */
		if (r >= 0 || (r != -EBUSY && !attach_is_used(n)))
			return r;
		error_clear(err);
	}
	return n ? error_set(err, -EBUSY, 0,
			     "all of /dev/nbd0 to /dev/nbd%u are in use", n - 1)
		 : error_set(err, -ENODEV, 0,
			     "the kernel has no /dev/nbd0: load the module nbd "
			     "(modprobe nbd)");
}

static int attach(struct attach *a, struct error *err)
{
	if (!a->named)
		return attach_anywhere(a, err);
	if (!attach_is_there(a->device))
		return error_set(err, -ENODEV, 0,
				 "the kernel has no /dev/nbd%u (modprobe nbd "
				 "nbds_max=%u)",
				 a->device, a->device + 1);
	return attach_to(a, a->device, err);
}

/* What is attached stays when this ends, so that all paths are absolute. */
static int take_image(struct attach *a, struct error *err)
{
	int r;

	if (a->certificates && !nbd_source_is_uri(a->cmd.image))
		return error_set(err, -EINVAL, 0,
				 "--tls-certificates is for an export");
	if (nbd_source_is_uri(a->cmd.image))
		return a->cmd.n_params
			       ? error_set(err, -EINVAL, 0,
					   "%s: options of images are not for "
					   "an export",
					   a->cmd.image)
			       : 0;
	r = config_set(&a->cmd.config, "image", a->cmd.image, err);
	return r < 0 ? r : config_check(&a->cmd.config, err);
}

static int parse_attach(struct attach *a, int argc, char **argv)
{
	enum { OPT_OVERLAY = CMD_VERB, OPT_READ_ONLY, OPT_TLS };
	static const struct option options[] = {
		CMD_LONG_OPTIONS,
		{ "overlay", required_argument, NULL, OPT_OVERLAY },
		{ "snapshot", required_argument, NULL, 's' },
		{ "read-only", no_argument, NULL, OPT_READ_ONLY },
		{ "tls-certificates", required_argument, NULL, OPT_TLS },
		{ 0 },
	};
	int opt, status = -1;

	while ((opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS "s:", options,
				  NULL)) != -1) {
		if (opt == OPT_OVERLAY)
			status = cmd_param(&a->cmd, "overlay", optarg);
		else if (opt == 's')
			status = cmd_param(&a->cmd, "snapshot", optarg);
		else if (opt == OPT_READ_ONLY)
			a->read_only = true;
		else if (opt == OPT_TLS)
			a->certificates = optarg;
		else
			status = cmd_option(&a->cmd, opt, argv);
		if (status >= 0)
			return status;
	}
	if (argc - optind < 1 || argc - optind > 2)
		return cmd_usage(&a->cmd, "an image and perhaps a device are "
					  "wanted");
	a->cmd.image = argv[optind];
	a->named = argc - optind == 2;
	if (a->named && !attach_parse_device(argv[optind + 1], &a->device))
		return cmd_usage(&a->cmd, "\"%s\" is not /dev/nbdN",
				 argv[optind + 1]);
	return -1;
}

static void print_device(const struct attach *a)
{
	char path[32];
	json_t *j;

	snprintf(path, sizeof(path), "/dev/nbd%u", a->device);
	if (!a->cmd.json) {
		puts(path);
		return;
	}
	j = json_object();
	json_object_set_new(j, "device", json_string(path));
	cmd_json_print(j, JSON_COMPACT);
}

static int run_attach(int argc, char **argv)
{
	struct attach a = { 0 };
	struct error err = { 0 };
	int status, r;

	cmd_init(&a.cmd, &verb_attach);
	status = parse_attach(&a, argc, argv);
	if (status < 0) {
		r = take_image(&a, &err);
		if (r >= 0)
			r = attach(&a, &err);
		status = r < 0 ? cmd_fail(&err) : STATUS_OK;
		if (r >= 0)
			print_device(&a);
	}
	cmd_done(&a.cmd);
	return status;
}

static int detach(unsigned int n, struct error *err)
{
	CLEANUP(closep) int lock = -1;
	struct attach_server s;
	int r = attach_lock(n, &lock, err);

	if (r < 0)
		return r;
	if (attach_is_used(n))
		r = attach_disconnect(n, err);
	else
		r = error_set(err, -ENXIO, 0, "/dev/nbd%u is not attached", n);
	if (r < 0 && r != -ENXIO)
		return r;
	/* Also that of a device whose qemu-nbd was killed. */
	attach_server_paths(n, &s);
	attach_server_end(&s);
	return r;
}

static int run_detach(int argc, char **argv)
{
	static const struct option options[] = { CMD_LONG_OPTIONS, { 0 } };
	CLEANUP(cmd_done) struct cmd c;
	struct error err = { 0 };
	unsigned int n;
	int opt, status;

	cmd_init(&c, &verb_detach);
	while ((opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS, options,
				  NULL)) != -1) {
		status = cmd_option(&c, opt, argv);
		if (status >= 0)
			return status;
	}
	if (argc - optind != 1 || !attach_parse_device(argv[optind], &n))
		return cmd_usage(&c, "a device, /dev/nbdN, is wanted");
	return detach(n, &err) < 0 ? cmd_fail(&err) : STATUS_OK;
}

const struct verb verb_attach = {
	.name = "attach",
	.summary = "make a disk a block device of this machine",
	.help = attach_help,
	.usage_status = STATUS_USAGE,
	.run = run_attach,
};

const struct verb verb_detach = {
	.name = "detach",
	.summary = "end that",
	.help = detach_help,
	.usage_status = STATUS_USAGE,
	.run = run_detach,
};
