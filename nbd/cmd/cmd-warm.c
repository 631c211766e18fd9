/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * platter warm: a server elsewhere fetches all of an image that it keeps copies of
 * (NBD_CMD_CACHE), before a machine's disk is moved there or boots from it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "iouring/sources/libnbd-lib.h"
#include "iouring/sources/remote-options.h"
#include "iouring/util.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/progress.h"
#include "nbd/text.h"

/* Asked for at once; what can be fetched in a moment, so that it can be told. */
#define PIECE_BYTES (8U << 20)
#define LOOK_BYTES  512U

static const char help[] =
	"usage: platter warm [options] HOST[:PORT] IMAGE\n"
	"       platter warm [options] URI\n"
	"\n"
	"The server there fetches all of its export IMAGE that it has not yet in its\n"
	"--cache-dir, and keeps it. Nothing of it comes here. IMAGE \"\" is the image that\n"
	"has no name; not an overlay (+NAME), but the image below it.\n"
	"\n"
	"URI: nbd://, nbds://, nbd+unix:// or nbds+unix://\n"
	"\n"
	"  -q, --quiet          show no progress\n"
	"  -h, --help\n"
	"\n"
	"Exit status: 0 all of it is there, 1 it failed, 2 wrong options.\n";

struct warm {
	struct cmd cmd;
	bool quiet;
	char *uri;
};

static int failed(struct error *err)
{
	int code = libnbd_api.get_errno();

	return error_set(err, code > 0 ? -code : -EIO, 0, "%s",
			 libnbd_reason());
}

/* What could not be fetched was not told of: a few bytes of it are read. */
static int fetch_piece(struct nbd_handle *h, uint64_t off, uint64_t n,
		       struct error *err)
{
	uint8_t look[LOOK_BYTES];
	size_t some = (size_t)min_u64(n, sizeof(look));

	if (libnbd_api.cache(h, n, off, 0) < 0 ||
	    libnbd_api.pread(h, look, some, off, 0) < 0)
		return failed(err);
	return 0;
}

static int fetch_all(const struct warm *w, struct nbd_handle *h,
		     struct error *err)
{
	struct progress p = { 0 };
	int64_t bytes = libnbd_api.get_size(h);
	uint64_t off, n;
	int r = 0;

	if (bytes < 0)
		return failed(err);
	if (libnbd_api.can_cache(h) != 1)
		return error_set(err, -ENOTSUP, 0,
				 "the server there fetches nothing ahead "
				 "(NBD_CMD_CACHE)");
	progress_begin(&p, "warm", (uint64_t)bytes, w->quiet);
	for (off = 0; r >= 0 && off < (uint64_t)bytes; off += n) {
		n = min_u64(PIECE_BYTES, (uint64_t)bytes - off);
		r = fetch_piece(h, off, n, err);
		progress_tell(&p, off + n);
	}
	progress_end(&p);
	return r;
}

static int warm(const struct warm *w, struct error *err)
{
	struct nbd_handle *h = NULL;
	int r;

	if (!libnbd_load())
		return error_set(err, -ENOTSUP, 0,
				 "libnbd.so.0 is missing: no server can be "
				 "asked");
	r = libnbd_connect(w->uri, remote_deadline(), &h, err);
	if (r < 0)
		return r;
	r = fetch_all(w, h, err);
	libnbd_api.close(h);
	return r;
}

/* Returns as cmd_option(). */
static int take_operands(struct warm *w, int n, char **operands)
{
	CLEANUP(freep) char *name = NULL;

	if (n < 1 || n > 2)
		return cmd_usage(&w->cmd, "a host and an image are wanted, or "
					  "a URI");
	if (n == 1 && strncmp(operands[0], "nbd", 3) != 0)
		return cmd_usage(&w->cmd, "which image of %s?", operands[0]);
	if (n == 2 && strstr(operands[0], "://"))
		return cmd_usage(&w->cmd, "the URI of the image is enough");
	if (n == 1) {
		w->uri = strdup(operands[0]);
	} else {
		name = text_percent(operands[1], "/");
		if (!name ||
		    asprintf(&w->uri, "nbd://%s/%s", operands[0], name) < 0)
			w->uri = NULL;
	}
	if (w->uri)
		return -1;
	cmd_say("out of memory");
	return STATUS_FAILED;
}

static int parse(struct warm *w, int argc, char **argv)
{
	static const struct option options[] = {
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int opt, status;

	while ((opt = getopt_long(argc, argv, ":qh", options, NULL)) != -1) {
		if (opt == 'q') {
			w->quiet = true;
			continue;
		}
		status = cmd_option(&w->cmd, opt, argv);
		if (status >= 0)
			return status;
	}
	return take_operands(w, argc - optind, argv + optind);
}

static int run_warm(int argc, char **argv)
{
	struct warm w = { 0 };
	struct error err = { 0 };
	int status;

	cmd_init(&w.cmd, &verb_warm);
	status = parse(&w, argc, argv);
	if (status < 0) {
		status = STATUS_OK;
		if (warm(&w, &err) < 0) {
			error_prefix(&err, "%s", w.uri);
			status = cmd_fail(&err);
		}
	}
	free(w.uri);
	cmd_done(&w.cmd);
	return status;
}

const struct verb verb_warm = {
	.name = "warm",
	.summary = "a server elsewhere fetches all of an image",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_warm,
};
