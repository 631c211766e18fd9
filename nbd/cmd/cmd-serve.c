/* SPDX-License-Identifier: BSD-3-Clause */
/* platter serve: an image as an NBD block device, by a supervised server. */
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <string.h>

#include "formats/place.h"
#include "iouring/util.h"
#include "nbd/cmd/serve.h"
#include "nbd/server/tls.h"
#include "nbd/server/listen-inherited.h"
#include "nbd/server/log-writer.h"

#define ADDRESS_DEFAULT "127.0.0.1"

/*
 * nbdkit's requests in flight for one connection. Measured with two cores: a
 * lone reader of warm data is served fastest by one thread; a queue of reads
 * by four to eight, 1.3 times as fast; with sixteen, big reads begin to lose.
 * A disk that must be waited for gives at eight 1.2 times what it does at four,
 * and a little more at sixteen: that is for O_DIRECT, where every read waits
 * (bench/compare threads).
 */
#define THREADS_DEFAULT "8"
#define THREADS_DIRECT	"16"
#define THREADS_MAX	1024

static const char help[] =
	"usage: platter serve [options] IMAGE... [-- NBDKIT OPTIONS]\n"
	"\n"
	"Serves IMAGE as a raw NBD block device until it is interrupted,\n"
	"read-only, or with an overlay that takes the writes: IMAGE itself is\n"
	"never written. Of several each is an export, called as its file is. A\n"
	"server that dies is started again at once. Where no place to listen is\n"
	"given, sockets of systemd's (LISTEN_FDS) are taken.\n"
	"\n"
	"  -U, --unix PATH      listen on a Unix socket\n"
	"  -p, --port PORT      listen on a TCP port (default 10809; 0: a free one)\n"
	"  -i, --address ADDR   ... of this address (default 127.0.0.1)\n"
	"  -l, --listen PLACE   unix:PATH, ADDR:PORT, [IPV6]:PORT or vsock:PORT\n"
	"                       (these may repeat and be combined)\n"
	"      --socket-mode MODE    of unix sockets' files, such as 660\n"
	"      --socket-owner USER   whom they are given to\n"
	"      --socket-group GROUP  ... and which group\n"
	"  -t, --threads N      requests of a connection that may wait at a time\n"
	"                       (16; nbdkit: " THREADS_DEFAULT
	", --direct " THREADS_DIRECT ")\n"
	"  -f, --format NAME    the image's format (default: guess)\n"
	"  -s, --snapshot NAME  a snapshot inside the image, by id or name\n"
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
	"      --fill on|idle|RATE   fetch all of what is open into it\n"
	"      --trace FILE     fetch first what it names, see platter trace\n"
	"      --cache SIZE     memory for caches (default 64M)\n"
	"      --io MODE        auto, uring or sync\n"
	"      --direct         read with O_DIRECT\n"
	"      --export NAME=FILE   another image, as export NAME\n"
	"      --store DIR      a folder of images, served by id or name\n"
	"      --diff MODE      what has not changed in an export \"@A..B\" is a hole\n"
	"                       (holes), or a hole that reads as zeroes (apply)\n"
	"      --overlay FILE   take writes into this qcow2 file, made if need be;\n"
	"                       \"temp\": into one that is gone at the end, for\n"
	"                       each image one\n"
	"      --overlay-scope export|connection\n"
	"                       who shares a temporary one (default: export)\n"
	"      --overlays DIR   take writes to export \"+NAME\" into DIR/NAME.qcow2\n"
	"      --overlays-create first-write|explicit\n"
	"                       when a new one is made: with its first write, or by\n"
	"                       platter overlay create alone\n"
	"      --max-connections N  clients at a time\n"
	"      --max-connections-per-address N   of one TCP address\n"
	"      --overlay-max SIZE   what an overlay may take\n"
	"      --overlay-free SIZE  what its file system keeps free\n"
	"      --detect zeroes,base  written zeroes, or what IMAGE has already,\n"
	"                       take no room\n"
	"      --control PATH   a unix socket for platter overlay\n"
	"      --tls MODE       off, on or require (default: require, when one of\n"
	"                       the next two is given)\n"
	"      --tls-certificates DIR\n"
	"      --tls-psk FILE\n"
	"      --tls-verify-peer  clients have to show a certificate\n"
	"      --tls-access FILE  which exports who may open, by what he has shown\n"
	"      --via SERVER     platter, or nbdkit with its plugin (default: platter,\n"
	"                       unless there are options of nbdkit)\n"
	"      --plugin PATH    the nbdkit plugin to run\n"
	"      --once           do not restart a server that dies\n"
	"                       (--no-supervise is the same)\n"
	"      --fork           go to the background when it serves; what is to be\n"
	"                       said later goes to syslog\n"
	"      --pid-file PATH  written when it serves, gone at the end\n"
	"      --json           when ready, print one JSON object\n"
	"  -h, --help\n"
	"\n"
	"Each parameter of nbdkit-platter-plugin(1) is an option as well: --glance,\n"
	"--auth and so on. SIGUSR2 starts a newer platter in the place of this one.\n"
	"\n"
	"NBDKIT OPTIONS are handed to nbdkit: filters and their parameters.\n";

static void serve_done(struct serve *s)
{
	listener_done(&s->listener);
	keep_done(&s->kept);
	json_decref(s->exports);
	json_decref(s->images);
	closep(&s->ready_fd);
	free(s->program);
	free(s->argv);
	cmd_done(&s->cmd);
}

static void look_around(void *opaque)
{
	struct serve *s = opaque;

	serve_look(s);
	if (s->by_nbdkit)
		serve_look_at_nbdkit(s);
}

/* Words of a command line; they are not copied. */
struct words {
	char **list; /* ended by NULL */
	size_t n;
	bool failed;
};

static void add_word(struct words *w, char *word)
{
	char **list = realloc(w->list, (w->n + 2) * sizeof(*list));

	if (!list) {
		w->failed = true;
		return;
	}
	w->list = list;
	w->list[w->n++] = word;
	w->list[w->n] = NULL;
}

static void add_option(struct words *w, const char *name, const char *value)
{
	if (!value)
		return;
	add_word(w, (char *)name);
	add_word(w, (char *)value);
}

static void came_up(void *opaque, pid_t pid)
{
	struct serve *s = opaque;

	serve_warn_of_nbdkit(s);
	if (s->taken_over)
		log_printf("platter: platter " PLATTER_VERSION
			   " serves in the place of the one before\n");
	else
		serve_print_ready(s, pid);
	serve_came_up(s);
}

static bool can_be_replaced(void *opaque)
{
	return serve_can_be_replaced(opaque);
}

static void replace(void *opaque)
{
	serve_replace(opaque);
}

static int hand_on(void *opaque, int first)
{
	const struct serve *s = opaque;

	return keep_hand_on(&s->kept, first);
}

/* The server's words up to its parameters. @plugin: nbdkit's. */
static void add_server(const struct serve *s, struct words *w, char *plugin,
		       struct supervisor *sup)
{
	sup->name = s->by_nbdkit ? "nbdkit" : "the server";
	if (s->by_nbdkit) {
		add_word(w, (char *)"nbdkit");
		add_word(w, (char *)"-f");
	} else {
		sup->program = "/proc/self/exe";
		add_word(w, (char *)"platter");
		add_word(w, (char *)"server");
	}
	add_option(w, "--threads", s->threads);
	add_option(w, "--tls", s->tls);
	add_option(w, "--tls-certificates", s->tls_certificates);
	add_option(w, "--tls-psk", s->tls_psk);
	add_option(w, "--tls-access", s->tls_access);
	if (s->tls_verify_peer)
		add_word(w, (char *)"--tls-verify-peer");
	add_option(w, "--pidfile", "");
	sup->pidfile_idx = w->n - 1;
	if (s->by_nbdkit)
		add_word(w, plugin);
}

static int start(struct serve *s)
{
	CLEANUP(freep) char *plugin = serve_find_plugin(s);
	CLEANUP(freep) char *image = NULL;
	struct words w = { 0 };
	struct supervisor sup = { .listener = &s->listener,
				  .once = s->once,
				  .started = look_around,
				  .hand_on = hand_on,
				  .ready = came_up,
				  .can_be_replaced = can_be_replaced,
				  .replace = replace,
				  .opaque = s };
	struct error err = { 0 };
	size_t i;
	int k, status;

	if (asprintf(&image, "image=%s",
		     s->cmd.image ? s->cmd.config.image : "") < 0)
		image = NULL;
	add_server(s, &w, plugin, &sup);
	if (s->cmd.image)
		add_word(&w, image);
	for (i = 0; i < s->cmd.n_params; i++)
		add_word(&w, s->cmd.params[i]);
	/* nbdkit sorts options from parameters by itself. */
	for (k = 0; k < s->n_extra; k++)
		add_word(&w, s->extra[k]);
	if (w.failed || !plugin || !image) {
		error_set(&err, -ENOMEM, 0, "no memory");
		status = cmd_fail(&err);
	} else {
		sup.argv = w.list;
		sup.log_all = serve_is_debugging(s);
		status = supervisor_run(&sup);
	}
	free(w.list);
	return status;
}

/* The command line */

enum {
	OPT_TLS = CMD_VERB,
	OPT_TLS_CERTIFICATES,
	OPT_TLS_PSK,
	OPT_TLS_VERIFY_PEER,
	OPT_TLS_ACCESS,
	OPT_PLUGIN,
	OPT_ONCE,
	OPT_VIA,
	OPT_MODE,
	OPT_OWNER,
	OPT_GROUP,
	OPT_FORK,
	OPT_PID_FILE,
	OPT_PARAM, /* the first of config_key() */
};

static const struct option own_options[] = {
	CMD_LONG_OPTIONS,
	{ "unix", required_argument, NULL, 'U' },
	{ "port", required_argument, NULL, 'p' },
	{ "address", required_argument, NULL, 'i' },
	{ "listen", required_argument, NULL, 'l' },
	{ "socket-mode", required_argument, NULL, OPT_MODE },
	{ "socket-owner", required_argument, NULL, OPT_OWNER },
	{ "socket-group", required_argument, NULL, OPT_GROUP },
	{ "threads", required_argument, NULL, 't' },
	{ "snapshot", required_argument, NULL, 's' },
	{ "tls", required_argument, NULL, OPT_TLS },
	{ "tls-certificates", required_argument, NULL, OPT_TLS_CERTIFICATES },
	{ "tls-psk", required_argument, NULL, OPT_TLS_PSK },
	{ "tls-verify-peer", no_argument, NULL, OPT_TLS_VERIFY_PEER },
	{ "tls-access", required_argument, NULL, OPT_TLS_ACCESS },
	{ "plugin", required_argument, NULL, OPT_PLUGIN },
	{ "via", required_argument, NULL, OPT_VIA },
	{ "once", no_argument, NULL, OPT_ONCE },
	{ "no-supervise", no_argument, NULL, OPT_ONCE },
	{ "fork", no_argument, NULL, OPT_FORK },
	{ "pid-file", required_argument, NULL, OPT_PID_FILE },
	{ "pidfile", required_argument, NULL, OPT_PID_FILE },
};

static bool is_own(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(own_options); i++)
		if (!strcmp(own_options[i].name, name))
			return true;
	return !strcmp(name, "image"); /* that is the operand */
}

/* These, and each parameter that is none of them. To be freed. */
static struct option *all_options(void)
{
	size_t n = ARRAY_SIZE(own_options), i;
	struct option *all;

	for (i = 0; config_key(i); i++)
		;
	all = calloc(n + i + 1, sizeof(*all));
	if (!all)
		return NULL;
	memcpy(all, own_options, sizeof(own_options));
	for (i = 0; config_key(i); i++)
		if (!is_own(config_key(i)))
			all[n++] = (struct option){ config_key(i),
						    required_argument, NULL,
						    OPT_PARAM + (int)i };
	return all;
}

static int add_place(struct serve *s, bool is_path)
{
	if (s->n_places == LISTEN_FDS_MAX)
		return cmd_usage(&s->cmd, "there are over %u places to listen",
				 LISTEN_FDS_MAX);
	s->places[s->n_places++] = (struct serve_place){ is_path, optarg };
	return -1;
}

static int set_mode(struct serve *s)
{
	char *end;
	unsigned long n = strtoul(optarg, &end, 8);

	if (*optarg < '0' || *optarg > '7' || *end || n > 0777)
		return cmd_usage(&s->cmd,
				 "--socket-mode is octal, 0 to 777, not \"%s\"",
				 optarg);
	s->rights.mode = (mode_t)n;
	s->has_rights = true;
	return -1;
}

static bool parse_number(const char *text, unsigned long max,
			 unsigned long *ret)
{
	char *end;

	errno = 0;
	*ret = strtoul(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno && *ret <= max;
}

/* A name, or a number. */
static bool find_id(const char *text, bool is_user, unsigned int *ret)
{
	const struct passwd *pw = is_user ? getpwnam(text) : NULL;
	const struct group *gr = is_user ? NULL : getgrnam(text);
	unsigned long n;

	if (pw || gr) {
		*ret = pw ? pw->pw_uid : gr->gr_gid;
		return true;
	}
	if (!parse_number(text, UINT32_MAX - 1, &n))
		return false;
	*ret = (unsigned int)n;
	return true;
}

static int set_owner(struct serve *s, bool is_user)
{
	if (!find_id(optarg, is_user,
		     is_user ? &s->rights.uid : &s->rights.gid))
		return cmd_usage(&s->cmd, "--socket-%s: there is no %s \"%s\"",
				 is_user ? "owner" : "group",
				 is_user ? "user" : "group", optarg);
	s->has_rights = true;
	return -1;
}

/* Is it one of those that are words, and no more? */
static bool take_word(struct serve *s, int opt)
{
	const struct {
		int opt;
		const char **field;
	} words[] = {
		{ 'p', &s->port },
		{ 'i', &s->address },
		{ 't', &s->threads },
		{ OPT_TLS, &s->tls },
		{ OPT_TLS_CERTIFICATES, &s->tls_certificates },
		{ OPT_TLS_PSK, &s->tls_psk },
		{ OPT_TLS_ACCESS, &s->tls_access },
		{ OPT_PLUGIN, &s->plugin },
		{ OPT_VIA, &s->via },
		{ OPT_PID_FILE, &s->pid_file },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(words); i++)
		if (words[i].opt == opt) {
			*words[i].field = optarg;
			return true;
		}
	return false;
}

static int take_option(struct serve *s, int opt, char **argv)
{
	if (take_word(s, opt))
		return -1;
	switch (opt) {
	case 'U':
		return add_place(s, true);
	case 'l':
		return add_place(s, false);
	case 's':
		return cmd_param(&s->cmd, "snapshot", optarg);
	case OPT_MODE:
		return set_mode(s);
	case OPT_OWNER:
		return set_owner(s, true);
	case OPT_GROUP:
		return set_owner(s, false);
	case OPT_TLS_VERIFY_PEER:
		s->tls_verify_peer = true;
		return -1;
	case OPT_ONCE:
		s->once = true;
		return -1;
	case OPT_FORK:
		s->fork = true;
		return -1;
	default:
		if (opt >= OPT_PARAM)
			return cmd_param(&s->cmd,
					 config_key((size_t)(opt - OPT_PARAM)),
					 optarg);
		return cmd_option(&s->cmd, opt, argv);
	}
}

/* Takes everything behind "--" away from getopt_long(). */
static int cut_extra(struct serve *s, int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--"))
			continue;
		s->extra = argv + i + 1;
		s->n_extra = argc - i - 1;
		argv[i] = NULL;
		return i;
	}
	return argc;
}

static int take_options(struct serve *s, int argc, char **argv)
{
	CLEANUP(freep) struct option *options = all_options();
	int opt, status = -1;

	if (!options)
		return STATUS_FAILED;
	while (status < 0 &&
	       (opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS "U:p:i:l:t:s:",
				  options, NULL)) != -1)
		status = take_option(s, opt, argv);
	return status;
}

/* Returns as cmd_option(). */
static int choose_server(struct serve *s)
{
	bool needs_it = s->n_extra || s->plugin;

	s->by_nbdkit = s->via ? !strcmp(s->via, "nbdkit") : needs_it;
	if (!s->by_nbdkit && s->via && strcmp(s->via, "platter") != 0)
		return cmd_usage(&s->cmd,
				 "--via is nbdkit or platter, not \"%s\"",
				 s->via);
	if (!s->by_nbdkit && needs_it)
		return cmd_usage(&s->cmd, "--plugin and NBDKIT OPTIONS need "
					  "--via nbdkit");
	if (s->by_nbdkit && s->tls_access)
		return cmd_usage(&s->cmd, "--tls-access needs --via platter");
	if (!s->threads)
		s->threads = s->cmd.config.direct || !s->by_nbdkit
				     ? THREADS_DIRECT
				     : THREADS_DEFAULT;
	return -1;
}

/* Returns as cmd_option(). */
static int check_access(struct serve *s)
{
	const struct tls_options o = {
		.required = s->tls && !strcmp(s->tls, "require"),
		.psk = s->tls_psk,
		.access = s->tls_access,
		.verify_peer = s->tls_verify_peer,
	};

	if (!tls_options_fit(&o))
		return cmd_usage(&s->cmd, TLS_ACCESS_NEEDS);
	return -1;
}

/* Returns as cmd_option(). */
static int check_options(struct serve *s)
{
	unsigned long n;

	if (s->threads && (!parse_number(s->threads, THREADS_MAX, &n) || !n))
		return cmd_usage(&s->cmd, "--threads is 1 to %d, not \"%s\"",
				 THREADS_MAX, s->threads);
	if (s->port && !parse_number(s->port, UINT16_MAX, &n))
		return cmd_usage(&s->cmd, "--port is 0 to %d, not \"%s\"",
				 UINT16_MAX, s->port);
	if (s->tls && strcmp(s->tls, "off") && strcmp(s->tls, "on") &&
	    !serve_needs_tls(s))
		return cmd_usage(&s->cmd,
				 "--tls is off, on or require, not \"%s\"",
				 s->tls);
	if (!s->tls &&
	    (s->tls_certificates || s->tls_psk || s->tls_verify_peer))
		s->tls = "require";
	return check_access(s);
}

/* One of several is an export, called as its file. */
static int add_image(struct serve *s, const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	CLEANUP(freep) char *param = NULL;

	if (place_is_url(path) || strchr(name, '=') || !*name)
		return cmd_usage(&s->cmd,
				 "\"%s\" gives no name to an export: use "
				 "--export NAME=FILE",
				 path);
	if (asprintf(&param, "%s=%s", name, path) < 0) {
		param = NULL;
		return STATUS_FAILED;
	}
	return cmd_param(&s->cmd, "export", param);
}

static int take_images(struct serve *s, int argc, char **argv)
{
	struct error err = { 0 };
	int i, n = argc - optind, status = -1;

	if (n == 1) {
		if (cmd_take_image(&s->cmd, argv[optind], &err) < 0)
			return cmd_fail(&err);
	}
	for (i = optind; n > 1 && i < argc && status < 0; i++)
		status = add_image(s, argv[i]);
	if (status >= 0)
		return status;
	if (!n && !s->cmd.config.n_exports && !s->cmd.config.glance.store)
		return cmd_usage(&s->cmd, "no image was given");
	if (config_check(&s->cmd.config, &err) < 0)
		return cmd_usage(&s->cmd, "%s", err.msg);
	return config_apply(&s->cmd.config, cmd_say, &err) < 0 ? cmd_fail(&err)
							       : -1;
}

/* Returns as cmd_option(). */
static int parse(struct serve *s, int argc, char **argv)
{
	int status;

	argc = cut_extra(s, argc, argv);
	status = take_options(s, argc, argv);
	if (status < 0)
		status = check_options(s);
	if (status < 0)
		status = choose_server(s);
	if (status < 0)
		status = serve_check_extra(s);
	return status < 0 ? take_images(s, argc, argv) : status;
}

static int listen_there(struct serve *s, const struct serve_place *p,
			struct error *err)
{
	const struct socket_rights *rights = s->has_rights ? &s->rights : NULL;

	return p->is_path ? listen_unix(p->text, rights, &s->listener, err)
			  : listen_at(p->text, rights, &s->listener, err);
}

static int make_listener(struct serve *s, struct error *err)
{
	bool by_tcp = s->address || s->port;
	unsigned int i;
	int r = 0;

	if (!by_tcp && !s->n_places) {
		r = listen_inherited(&s->listener, err);
		by_tcp = !r;
	}
	for (i = 0; i < s->n_places && r >= 0; i++)
		r = listen_there(s, &s->places[i], err);
	if (r >= 0 && by_tcp)
		r = listen_tcp(s->address ? s->address : ADDRESS_DEFAULT,
			       s->port ? (uint16_t)strtoul(s->port, NULL, 10)
				       : LISTEN_PORT_DEFAULT,
			       &s->listener, err);
	return r;
}

/* What outlives each server: sockets, and what it writes without a name. */
static int make_lasting(struct serve *s, struct error *err)
{
	int r = serve_take_over(s, err);

	if (r)
		return r;
	r = make_listener(s, err);
	/* A temporary overlay outlives the server that writes it. */
	if (r >= 0 && s->cmd.config.overlay_temp)
		r = keep_open(config_overlays(&s->cmd.config), &s->kept, err);
	return r;
}

/* For one that is to run in our place: getopt_long() and we move words. */
static bool note_command(struct serve *s, int argc, char **argv)
{
	int i;

	s->program = realpath("/proc/self/exe", NULL);
	s->argv = calloc((size_t)argc + 2, sizeof(*s->argv));
	if (!s->program || !s->argv)
		return false;
	s->argv[0] = (char *)"platter";
	for (i = 0; i < argc; i++)
		s->argv[i + 1] = argv[i];
	return true;
}

static int run_serve(int argc, char **argv)
{
	CLEANUP(serve_done)
	struct serve s = { .rights = { 0600, (uid_t)-1, (gid_t)-1 },
			   .ready_fd = -1 };
	struct error err = { 0 };
	int status;

	cmd_init(&s.cmd, &verb_serve);
	if (!note_command(&s, argc, argv))
		return STATUS_FAILED;
	status = parse(&s, argc, argv);
	if (status < 0 && serve_is_trial())
		return STATUS_OK;
	if (status < 0 && s.fork && !serve_is_taking_over())
		status = serve_go_behind(&s);
	if (status >= 0)
		return status;
	if (supervisor_hold_signals(&err) < 0 || make_lasting(&s, &err) < 0)
		return cmd_fail(&err);
	status = start(&s);
	serve_went_down(&s);
	return status;
}

const struct verb verb_serve = {
	.name = "serve",
	.summary = "images as NBD block devices",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_serve,
};
