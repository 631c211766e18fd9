/* SPDX-License-Identifier: BSD-3-Clause */
/* platter serve: an image as an NBD block device, by a supervised server. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#include "formats/report.h"
#include "formats/cache.h"
#include "formats/chain.h"
#include "iouring/batch.h"
#include "iouring/util.h"
#include "nbd/cmd/cmd.h"
#include "nbd/export-list.h"
#include "nbd/keep.h"
#include "nbd/server/listen-inherited.h"
#include "nbd/server/listen.h"
#include "nbd/server/supervise.h"
#include "nbd/text.h"

#define PORT_DEFAULT	10809
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

#define EXPORTS_MAX   1000U
#define EXPORTS_SHOWN 20U /* as lines; --json has all */

static const char help[] =
	"usage: platter serve [options] IMAGE [-- NBDKIT OPTIONS]\n"
	"\n"
	"Serves IMAGE as a raw NBD block device until it is interrupted,\n"
	"read-only, or with an overlay that takes the writes: IMAGE itself is\n"
	"never written. A server that dies is started again at once. Without\n"
	"--unix, --port and --address, sockets of systemd's (LISTEN_FDS) are taken.\n"
	"\n"
	"  -U, --unix PATH      listen on a Unix socket\n"
	"  -p, --port PORT      listen on a TCP port (default 10809; 0: a free one)\n"
	"  -i, --address ADDR   ... of this address (default 127.0.0.1)\n"
	"  -t, --threads N      requests in flight per connection (default " THREADS_DEFAULT
	",\n"
	"                       with --direct " THREADS_DIRECT ")\n"
	"  -f, --format NAME    the image's format (default: guess)\n"
	"  -s, --snapshot NAME  a snapshot inside the image, by id or name\n"
	"  -k, --key FILE       passphrase of an encrypted image\n"
	"      --allow X        a folder or prefix that images may refer to\n"
	"      --force parent   take a parent whose ids do not match\n"
	"      --force-share    read what another process may be writing\n"
	"      --cache SIZE     memory for caches (default 64M)\n"
	"      --io MODE        auto, uring or sync\n"
	"      --direct         read with O_DIRECT\n"
	"      --diff MODE      what has not changed in an export \"@A..B\" is a hole\n"
	"                       (holes), or a hole that reads as zeroes (apply)\n"
	"      --overlay FILE   take writes into this qcow2 file, made if need be;\n"
	"                       \"temp\": into one that is gone at the end\n"
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
	"      --via SERVER     nbdkit, or platter: a server of our own, without TLS\n"
	"                       yet (default: nbdkit)\n"
	"      --plugin PATH    the nbdkit plugin to run\n"
	"      --once           do not restart a server that dies\n"
	"                       (--no-supervise is the same)\n"
	"      --json           when ready, print one JSON object\n"
	"  -h, --help\n"
	"\n"
	"NBDKIT OPTIONS are handed to nbdkit: filters and their parameters.\n";

struct serve {
	struct cmd cmd;
	const char *unix_path;
	const char *address;
	const char *port;
	const char *threads;
	const char *tls, *tls_certificates, *tls_psk;
	const char *plugin;
	const char *via;
	bool by_nbdkit; /* else by the server of our own */
	bool once;
	char **extra; /* for nbdkit */
	int n_extra;

	struct listener listener;
	int kept[KEEP_FILES]; /* -1: nothing is */
	const char *format; /* of the top; NULL: it could not be looked at */
	uint64_t bytes;
	json_t *exports; /* name and description of each, ours first */
	bool abortable; /* this nbdkit, by a client */
	char nbdkit[32]; /* its version */
};

static bool tls_required(const struct serve *s)
{
	return s->tls && !strcmp(s->tls, "require");
}

static void serve_done(struct serve *s)
{
	listener_done(&s->listener);
	keep_done(s->kept);
	json_decref(s->exports);
	cmd_done(&s->cmd);
}

/*
 * What to tell of the image, looked up while nbdkit opens it, and without its
 * key. Nothing of it stays in memory. What is wrong with it nbdkit says.
 */

static int add_export(void *opaque, const char *name, const char *description)
{
	json_t *j = json_object();

	json_object_set_new(j, "name", report_text(name));
	json_object_set_new(j, "description", report_text(description));
	json_array_append_new(opaque, j);
	return 0;
}

static void look_at_image(struct serve *s)
{
	CLEANUP(chain_done) struct chain chain = { 0 };
	enum reference_verdict verdict;
	struct open_options options;

	/* A ring would stay with this process, which reads no more. */
	engine_configure(ENGINE_SYNC, NULL);
	config_open_options(&s->cmd.config, &options);
	options.key = NULL;
	options.key_bytes = 0;
	chain_open_partial(s->cmd.config.image, &options, &chain, &verdict,
			   NULL);
	if (!chain.depth)
		return;
	s->bytes = chain.bytes;
	s->format = chain.layers[0]->ops->name;
	s->exports = json_array();
	export_list(&chain, EXPORTS_MAX, add_export, s->exports);
}

/* nbdkit */

/* Reads what `nbdkit --version` prints. Returns 0 or a negative errno. */
static int run_nbdkit_version(char *ret, size_t bytes)
{
	char *argv[] = { "nbdkit", "--version", NULL };
	posix_spawn_file_actions_t actions;
	size_t got = 0;
	int fds[2], r;
	ssize_t n;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
	r = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	if (r == ENOENT)
		r = posix_spawn(&pid, "/usr/sbin/nbdkit", &actions, NULL, argv,
				environ);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	while (!r && got < bytes - 1) {
		n = read(fds[0], ret + got, bytes - 1 - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	ret[got] = '\0';
	close(fds[0]);
	if (!r)
		waitpid(pid, NULL, 0);
	return -r;
}

static void look_at_nbdkit(struct serve *s)
{
	unsigned int v[3];
	char line[128];

	if (run_nbdkit_version(line, sizeof(line)) < 0 ||
	    !text_nbdkit_version(line, v))
		return;
	snprintf(s->nbdkit, sizeof(s->nbdkit), "%u.%u.%u", v[0], v[1], v[2]);
	s->abortable = text_nbdkit_abortable(v);
}

static void look_around(void *opaque)
{
	struct serve *s = opaque;

	look_at_image(s);
	cache_shutdown();
	if (s->by_nbdkit)
		look_at_nbdkit(s);
}

static void warn_abortable(const struct serve *s)
{
	/* TLS connections are not affected. */
	if (!s->abortable || tls_required(s))
		return;
	fprintf(stderr,
		"platter: nbdkit %s can be aborted by a client that queues "
		"reads and hangs up (mended in 1.33.10): %s; for untrusted "
		"networks use --tls=require\n",
		s->nbdkit,
		s->once ? "it is not restarted, as --once says"
			: "it is supervised, and restarted at once");
}

/*
 * The plugin that was built with this command, when that was not installed;
 * else the one that nbdkit finds by itself. To be freed.
 */
static char *find_plugin(void)
{
	CLEANUP(freep) char *exe = realpath("/proc/self/exe", NULL);
	char *slash = exe ? strrchr(exe, '/') : NULL;
	char *path;

	if (!slash || asprintf(&path, "%.*s/nbdkit-platter-plugin.so",
			       (int)(slash - exe), exe) < 0)
		return strdup("platter");
	if (!access(path, R_OK))
		return path;
	free(path);
	return strdup("platter");
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

/* Ready */

/* For clients of a server that demands TLS: how to authenticate. */
static char *uri_query(const struct serve *s)
{
	CLEANUP(freep) char *path = NULL;
	CLEANUP(freep) char *safe = NULL;
	char *ret;

	if (!tls_required(s) || !s->tls_psk)
		return NULL;
	path = realpath(s->tls_psk, NULL);
	safe = path ? text_percent(path, "/") : NULL;
	if (!safe || asprintf(&ret, "tls-psk-file=%s", safe) < 0)
		return NULL;
	return ret;
}

static char *make_uri(const struct serve *s, const char *name)
{
	CLEANUP(freep) char *query = uri_query(s);

	return listener_uri(&s->listener, tls_required(s), name, query);
}

static void __attribute__((format(printf, 3, 4)))
add_line(json_t *lines, const char *name, const char *fmt, ...)
{
	char *line;
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = vasprintf(&line, fmt, ap);
	va_end(ap);
	if (r < 0)
		return;
	json_object_set_new(lines, name, report_text(line));
	free(line);
}

/* Ready-made command lines by program, for @uri. */
static json_t *client_lines(const struct serve *s, const char *uri)
{
	const struct listener *l = &s->listener;
	CLEANUP(freep) char *word = text_shell_word(uri);
	CLEANUP(freep) char *drive = NULL, *drive_word = NULL, *path = NULL;
	bool writable = s->cmd.config.overlay || s->cmd.config.overlay_temp;
	json_t *lines = json_object();

	/* Commas do not occur in it: they are encoded. */
	if (asprintf(&drive, "file=%s,format=raw,if=virtio%s", uri,
		     writable ? ",discard=unmap" : ",snapshot=on") < 0)
		drive = NULL;
	drive_word = drive ? text_shell_word(drive) : NULL;
	path = l->file.path ? text_shell_word(l->file.path) : NULL;
	if (!word || !drive_word || (l->file.path && !path))
		return lines;
	if (!tls_required(s)) { /* these do not take nbds URIs */
		add_line(lines, "qemu", "qemu-system-x86_64 -m 1G -drive %s",
			 drive_word);
		add_line(lines, "qemu-nbd", "qemu-nbd -c /dev/nbd0 %s-f raw %s",
			 writable ? "" : "-r ", word);
		if (path)
			add_line(lines, "nbd-client",
				 "nbd-client -unix %s /dev/nbd0%s", path,
				 writable ? "" : " -R");
		else
			add_line(lines, "nbd-client",
				 "nbd-client %s %u /dev/nbd0%s",
				 l->any ? "127.0.0.1" : l->address, l->port,
				 writable ? "" : " -R");
	}
	add_line(lines, "nbdcopy", "nbdcopy --progress %s disk.raw", word);
	add_line(lines, "nbdfuse",
		 "mkdir -p mnt && nbdfuse %smnt/disk.raw %s &",
		 writable ? "" : "-r ", word);
	return lines;
}

static void print_json(const struct serve *s, const char *uri, json_t *lines,
		       pid_t pid)
{
	json_t *j = json_object();

	json_object_set_new(j, "image", report_text(s->cmd.image));
	json_object_set_new(j, "format", json_string(s->format));
	json_object_set_new(j, "virtual-size",
			    json_integer((json_int_t)s->bytes));
	json_object_set_new(j, "uri", json_string(uri));
	json_object_set(j, "exports", s->exports);
	json_object_set(j, "commands", lines);
	json_object_set_new(j, "via",
			    json_string(s->by_nbdkit ? "nbdkit" : "platter"));
	if (s->by_nbdkit)
		json_object_set_new(j, "nbdkit-version",
				    json_string(s->nbdkit));
	json_object_set_new(j, "server-pid", json_integer(pid));
	json_object_set_new(j, "supervised", json_boolean(!s->once));
	cmd_json_print(j, JSON_COMPACT);
}

static void print_text(const struct serve *s, const char *uri, json_t *lines)
{
	static const struct {
		const char *program, *use;
	} uses[] = { { "qemu", "boot" },
		     { "qemu-nbd", "attach" },
		     { "nbd-client", "" },
		     { "nbdcopy", "copy" },
		     { "nbdfuse", "as a file" } };
	size_t i, n = json_array_size(s->exports);
	char size[TEXT_BYTES_MAX];

	cmd_put(stdout, s->cmd.image);
	printf(": %s, %s (%" PRIu64 " bytes)\n", s->format,
	       text_bytes(size, s->bytes), s->bytes);
	text_odd_size(s->bytes, stdout);
	printf("serving at %s\n\n", uri);
	for (i = 0; i < ARRAY_SIZE(uses); i++) {
		json_t *line = json_object_get(lines, uses[i].program);

		if (!line)
			continue;
		printf("%-11s", uses[i].use);
		cmd_put(stdout, json_string_value(line));
		putchar('\n');
	}
	if (n > 1)
		puts("\nearlier states");
	for (i = 1; i < n && i <= EXPORTS_SHOWN; i++)
		printf("           %s\n",
		       json_string_value(json_object_get(
			       json_array_get(s->exports, i), "uri")));
	if (i < n)
		printf("           ... and %zu more: see platter info\n",
		       n - i);
}

static void print_ready(void *opaque, pid_t pid)
{
	struct serve *s = opaque;
	CLEANUP(freep) char *uri = make_uri(s, "");
	json_t *lines, *export;
	size_t i;

	warn_abortable(s);
	if (!uri || !s->format)
		return;
	json_array_foreach(s->exports, i, export) {
		const char *name =
			json_string_value(json_object_get(export, "name"));
		CLEANUP(freep) char *its_uri = make_uri(s, name);

		json_object_set_new(export, "uri", json_string(its_uri));
	}
	lines = client_lines(s, uri);
	if (s->cmd.json)
		print_json(s, uri, lines, pid);
	else
		print_text(s, uri, lines);
	fflush(stdout); /* it may be a pipe that someone waits on */
	json_decref(lines);
	json_decref(s->exports);
	s->exports = NULL;
}

static int hand_on(void *opaque, int first)
{
	const struct serve *s = opaque;

	return s->kept[0] < 0 ? 0 : keep_hand_on(s->kept, first);
}

static bool is_one_of(const char *arg, const char *const *names)
{
	for (; *names; names++) {
		size_t len = strlen(*names);

		if (!strncmp(arg, *names, len) &&
		    (!arg[len] || arg[len] == '=' || (*names)[1] != '-'))
			return true;
	}
	return false;
}

/* What nbdkit says of each request is then wanted. */
static bool is_debugging(const struct serve *s)
{
	static const char *const names[] = { "-v", "--verbose", "-D", "--debug",
					     NULL };
	int i;

	for (i = 0; i < s->n_extra; i++)
		if (is_one_of(s->extra[i], names))
			return true;
	return false;
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
	if (s->by_nbdkit) {
		add_option(w, "--tls", s->tls);
		add_option(w, "--tls-certificates", s->tls_certificates);
		add_option(w, "--tls-psk", s->tls_psk);
	}
	add_option(w, "--pidfile", "");
	sup->pidfile_idx = w->n - 1;
	if (s->by_nbdkit)
		add_word(w, plugin);
}

static int start(struct serve *s)
{
	CLEANUP(freep)
	char *plugin = s->plugin ? strdup(s->plugin) : find_plugin();
	CLEANUP(freep) char *image = NULL;
	struct words w = { 0 };
	struct supervisor sup = { .listener = &s->listener,
				  .once = s->once,
				  .started = look_around,
				  .hand_on = hand_on,
				  .ready = print_ready,
				  .opaque = s };
	struct error err = { 0 };
	size_t i;
	int k, status;

	if (asprintf(&image, "image=%s", s->cmd.config.image) < 0)
		image = NULL;
	add_server(s, &w, plugin, &sup);
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
		sup.log_all = is_debugging(s);
		status = supervisor_run(&sup);
	}
	free(w.list);
	return status;
}

/* The command line */

static bool parse_number(const char *text, unsigned long max,
			 unsigned long *ret)
{
	char *end;

	errno = 0;
	*ret = strtoul(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno && *ret <= max;
}

/* What would take the server out of the supervisor's hands. */
static int check_extra(const struct serve *s)
{
	static const char *const listening[] = {
		"-U", "--unix",	  "-p",	   "--port",  "-i", "--ip-addr",
		"-s", "--single", "--run", "--vsock", NULL
	};
	static const char *const process[] = { "-P",	 "--pidfile", "-u",
					       "--user", "-g",	      "--group",
					       NULL };
	int i;

	for (i = 0; i < s->n_extra; i++) {
		if (is_one_of(s->extra[i], listening))
			return cmd_usage(&s->cmd,
					 "nbdkit's option %s: the sockets are "
					 "made by platter",
					 s->extra[i]);
		if (is_one_of(s->extra[i], process))
			return cmd_usage(&s->cmd,
					 "nbdkit's option %s: the process is "
					 "watched by platter; run platter "
					 "itself as the user that is to serve",
					 s->extra[i]);
	}
	return -1;
}

enum {
	OPT_TLS = CMD_VERB,
	OPT_TLS_CERTIFICATES,
	OPT_TLS_PSK,
	OPT_PLUGIN,
	OPT_ONCE,
	OPT_VIA,
	OPT_PARAM, /* the first of param_names */
};

/* Options that are the plugin's parameters as they are. */
static const char *const param_names[] = {
	"diff",
	"overlay",
	"overlay-scope",
	"overlays",
	"overlay-max",
	"overlay-free",
	"detect",
	"control",
	"spare",
	"overlays-create",
	"max-connections",
	"max-connections-per-address",
};

static const struct option options[] = {
	CMD_LONG_OPTIONS,
	{ "unix", required_argument, NULL, 'U' },
	{ "port", required_argument, NULL, 'p' },
	{ "address", required_argument, NULL, 'i' },
	{ "threads", required_argument, NULL, 't' },
	{ "snapshot", required_argument, NULL, 's' },
	{ "diff", required_argument, NULL, OPT_PARAM },
	{ "overlay", required_argument, NULL, OPT_PARAM + 1 },
	{ "overlay-scope", required_argument, NULL, OPT_PARAM + 2 },
	{ "overlays", required_argument, NULL, OPT_PARAM + 3 },
	{ "overlay-max", required_argument, NULL, OPT_PARAM + 4 },
	{ "overlay-free", required_argument, NULL, OPT_PARAM + 5 },
	{ "detect", required_argument, NULL, OPT_PARAM + 6 },
	{ "control", required_argument, NULL, OPT_PARAM + 7 },
	{ "spare", required_argument, NULL, OPT_PARAM + 8 },
	{ "max-connections", required_argument, NULL, OPT_PARAM + 10 },
	{ "max-connections-per-address", required_argument, NULL,
	  OPT_PARAM + 11 },
	{ "overlays-create", required_argument, NULL, OPT_PARAM + 9 },
	{ "tls", required_argument, NULL, OPT_TLS },
	{ "tls-certificates", required_argument, NULL, OPT_TLS_CERTIFICATES },
	{ "tls-psk", required_argument, NULL, OPT_TLS_PSK },
	{ "plugin", required_argument, NULL, OPT_PLUGIN },
	{ "via", required_argument, NULL, OPT_VIA },
	{ "once", no_argument, NULL, OPT_ONCE },
	{ "no-supervise", no_argument, NULL, OPT_ONCE },
	{ 0 },
};

static int take_option(struct serve *s, int opt, char **argv)
{
	switch (opt) {
	case 'U':
		s->unix_path = optarg;
		return -1;
	case 'p':
		s->port = optarg;
		return -1;
	case 'i':
		s->address = optarg;
		return -1;
	case 't':
		s->threads = optarg;
		return -1;
	case 's':
		return cmd_param(&s->cmd, "snapshot", optarg);
	case OPT_TLS:
		s->tls = optarg;
		return -1;
	case OPT_TLS_CERTIFICATES:
		s->tls_certificates = optarg;
		return -1;
	case OPT_TLS_PSK:
		s->tls_psk = optarg;
		return -1;
	case OPT_PLUGIN:
		s->plugin = optarg;
		return -1;
	case OPT_VIA:
		s->via = optarg;
		return -1;
	case OPT_ONCE:
		s->once = true;
		return -1;
	default:
		if (opt >= OPT_PARAM &&
		    opt < OPT_PARAM + (int)ARRAY_SIZE(param_names))
			return cmd_param(&s->cmd, param_names[opt - OPT_PARAM],
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

/* Returns as cmd_option(). */
static int choose_server(struct serve *s)
{
	bool needs_it = s->n_extra || s->plugin ||
			(s->tls && strcmp(s->tls, "off") != 0);

	s->by_nbdkit = !s->via || !strcmp(s->via, "nbdkit");
	if (!s->by_nbdkit && strcmp(s->via, "platter") != 0)
		return cmd_usage(&s->cmd,
				 "--via is nbdkit or platter, not \"%s\"",
				 s->via);
	if (!s->by_nbdkit && needs_it)
		return cmd_usage(&s->cmd, "TLS, --plugin and NBDKIT OPTIONS "
					  "need --via nbdkit");
	return -1;
}

/* Returns as cmd_option(). */
static int parse(struct serve *s, int argc, char **argv)
{
	unsigned long n;
	int opt, status;

	argc = cut_extra(s, argc, argv);
	while ((opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS "U:p:i:t:s:",
				  options, NULL)) != -1) {
		status = take_option(s, opt, argv);
		if (status >= 0)
			return status;
	}
	if (s->unix_path && (s->port || s->address))
		return cmd_usage(&s->cmd, "--unix excludes --port and "
					  "--address");
	if (s->threads && (!parse_number(s->threads, THREADS_MAX, &n) || !n))
		return cmd_usage(&s->cmd, "--threads is 1 to %d, not \"%s\"",
				 THREADS_MAX, s->threads);
	if (s->port && !parse_number(s->port, UINT16_MAX, &n))
		return cmd_usage(&s->cmd, "--port is 0 to %d, not \"%s\"",
				 UINT16_MAX, s->port);
	if (s->tls && strcmp(s->tls, "off") && strcmp(s->tls, "on") &&
	    !tls_required(s))
		return cmd_usage(&s->cmd,
				 "--tls is off, on or require, not \"%s\"",
				 s->tls);
	if (!s->tls && (s->tls_certificates || s->tls_psk))
		s->tls = "require";
	status = choose_server(s);
	if (status >= 0)
		return status;
	if (!s->threads)
		s->threads = s->cmd.config.direct || !s->by_nbdkit
				     ? THREADS_DIRECT
				     : THREADS_DEFAULT;
	status = check_extra(s);
	if (status >= 0)
		return status;
	return cmd_image(&s->cmd, argc, argv);
}

static int make_listener(struct serve *s, struct error *err)
{
	bool told = s->unix_path || s->address || s->port;
	int r = told ? 0 : listen_inherited(&s->listener, err);

	if (r)
		return r;
	if (s->unix_path)
		return listen_unix(s->unix_path, &s->listener, err);
	return listen_tcp(s->address ? s->address : ADDRESS_DEFAULT,
			  s->port ? (uint16_t)strtoul(s->port, NULL, 10)
				  : PORT_DEFAULT,
			  &s->listener, err);
}

static int run_serve(int argc, char **argv)
{
	CLEANUP(serve_done) struct serve s = { .kept = { -1, -1, -1 } };
	struct error err = { 0 };
	int status;

	cmd_init(&s.cmd, &verb_serve);
	status = parse(&s, argc, argv);
	if (status >= 0)
		return status;
	if (supervisor_hold_signals(&err) < 0 || make_listener(&s, &err) < 0)
		return cmd_fail(&err);
	/* A temporary overlay outlives the server that writes it. */
	if (s.cmd.config.overlay_temp && keep_open(s.kept, &err) < 0)
		return cmd_fail(&err);
	return start(&s);
}

const struct verb verb_serve = {
	.name = "serve",
	.summary = "an image as an NBD block device",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_serve,
};
