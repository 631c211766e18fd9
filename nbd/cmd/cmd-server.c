/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * platter server: what platter serve runs and starts again, on sockets that it
 * keeps (sd_listen_fds(3)). It can be run by systemd alone, too.
 */
#include <errno.h>

#include "nbd/cmd/cmd.h"
#include "nbd/server/listen-inherited.h"
#include "nbd/server/server.h"

#define PER_CLIENT_DEFAULT 16U
#define PER_CLIENT_MAX	   1024U

static const char help[] =
	"usage: platter server [options] [KEY=VALUE...]\n"
	"\n"
	"Serves NBD on sockets that its parent hands on (LISTEN_FDS): platter serve\n"
	"does, and starts it again when it dies.\n"
	"\n"
	"  -l, --listen PLACE   ... or here, as platter serve has it\n"
	"  -t, --threads N      requests of one client that may wait at a time\n"
	"      --pidfile PATH   written when it serves\n"
	"      --tls MODE       off, on or require, with the next three as\n"
	"      --tls-certificates DIR, --tls-psk FILE, --tls-verify-peer,\n"
	"      --tls-access FILE\n"
	"                       platter serve has them\n"
	"  -h, --help\n"
	"\n"
	"KEY=VALUE are parameters as nbdkit-platter-plugin(1) has them.\n";

static const struct option options[] = {
	{ "listen", required_argument, NULL, 'l' },
	{ "threads", required_argument, NULL, 't' },
	{ "pidfile", required_argument, NULL, 'P' },
	{ "tls", required_argument, NULL, 'T' },
	{ "tls-certificates", required_argument, NULL, 'C' },
	{ "tls-psk", required_argument, NULL, 'K' },
	{ "tls-verify-peer", no_argument, NULL, 'V' },
	{ "tls-access", required_argument, NULL, 'A' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static bool parse_threads(const char *text, unsigned int *ret)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	*ret = (unsigned int)n;
	return *text >= '0' && *text <= '9' && !*end && !errno && n &&
	       n <= PER_CLIENT_MAX;
}

static bool parse_tls(const char *text, struct tls_options *ret)
{
	ret->required = !strcmp(text, "require");
	ret->offered = ret->required || !strcmp(text, "on");
	return ret->offered || !strcmp(text, "off");
}

/* Returns as cmd_option(). */
static int take_option(const struct cmd *cmd, int opt, struct server_options *o)
{
	switch (opt) {
	case 't':
		if (parse_threads(optarg, &o->per_client))
			return -1;
		return cmd_usage(cmd, "--threads is 1 to %u, not \"%s\"",
				 PER_CLIENT_MAX, optarg);
	case 'P':
		o->pidfile = optarg;
		return -1;
	case 'T':
		if (parse_tls(optarg, &o->tls))
			return -1;
		return cmd_usage(cmd, "--tls is off, on or require, not \"%s\"",
				 optarg);
	case 'C':
		o->tls.certificates = optarg;
		return -1;
	case 'K':
		o->tls.psk = optarg;
		return -1;
	case 'A':
		o->tls.access = optarg;
		return -1;
	case 'V':
		o->tls.verify_peer = true;
		return -1;
	case 'h':
		fputs(help, stdout);
		return STATUS_OK;
	default:
		return cmd_usage(cmd, "wrong option");
	}
}

static int run_server(int argc, char **argv)
{
	struct server_options o = { .per_client = PER_CLIENT_DEFAULT };
	struct cmd cmd = { .verb = &verb_server };
	struct listener l = { 0 };
	struct error err = { 0 };
	const char *place = NULL;
	int opt, r;

	while ((opt = getopt_long(argc, argv, "+l:t:h", options, NULL)) != -1) {
		if (opt == 'l')
			place = optarg;
		r = opt == 'l' ? -1 : take_option(&cmd, opt, &o);
		if (r >= 0)
			return r;
	}
	if (!tls_options_fit(&o.tls))
		return cmd_usage(&cmd, TLS_ACCESS_NEEDS);
	r = place ? listen_at(place, NULL, &l, &err)
		  : listen_inherited(&l, &err);
	if (!r && !place)
		r = error_set(&err, -EINVAL, 0,
			      "no socket was handed on (LISTEN_FDS): use "
			      "platter serve");
	if (r < 0)
		return cmd_fail(&err);
	o.listener = &l;
	o.params = argv + optind;
	o.n_params = (size_t)(argc - optind);
	r = server_run(&o);
	listener_done(&l);
	return r;
}

const struct verb verb_server = {
	.name = "server",
	.summary = NULL,
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_server,
};
