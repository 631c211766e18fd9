/* SPDX-License-Identifier: BSD-3-Clause */
/* platter cache: the copies of remote images on this machine's disk. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "formats/chain.h"
#include "formats/containers/container.h"
#include "formats/image.h"
#include "formats/report.h"
#include "iouring/sources/disk-cache.h"
#include "iouring/util.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/control-client.h"
#include "nbd/cmd/progress.h"
#include "nbd/cmd/stop.h"
#include "nbd/text.h"

#define LOOK_NSEC    100000000L
#define FAILURES_MAX 3U /* of an object, in a row, before it is given up */

static const char help[] =
	"usage: platter cache list [--json] --cache-dir DIR\n"
	"       platter cache warm [options] --cache-dir DIR URL\n"
	"       platter cache drop --cache-dir DIR URL|--all\n"
	"       platter cache list [--json] --control PATH\n"
	"       platter cache warm --control PATH [URL]\n"
	"\n"
	"The copies that --cache-dir keeps of images at URLs.\n"
	"\n"
	"list      what there is, how much of it, and when it was used last; of a\n"
	"          server what it has open, and whether the rest is being fetched\n"
	"warm      fetches all of an image, and of what it refers to; a server is told\n"
	"          to, and goes on serving\n"
	"drop      removes what nobody has open\n"
	"\n"
	"      --cache-dir DIR  the folder\n"
	"      --cache-size SIZE  what it may take of the disk (default 10G)\n"
	"      --fill RATE      warm: so many bytes a second at most\n"
	"      --all            drop: of all URLs\n"
	"      --control PATH   a server's control socket\n"
	"      --credentials FILE, --ca FILE, --proxy URL, --remote-timeout SECONDS\n"
	"                       how the URL is read, see platter(1)\n"
	"  -f, --format NAME    the image's format (default: guess)\n"
	"  -k, --key FILE       passphrase of an encrypted image\n"
	"      --allow X        a folder or prefix that images may refer to\n"
	"      --json           for programs\n"
	"  -q, --quiet          show no progress\n"
	"  -h, --help\n"
	"\n"
	"Exit status: 0 it is done, 1 it failed, or some is in use, 2 wrong options.\n";

struct caching {
	struct cmd cmd;
	const char *control; /* NULL: the folder */
	bool all, quiet;
};

/* ---- list ---- */

static void print_head(void)
{
	printf("%12s  %12s  %4s  %-19s  %s\n", "Bytes", "Kept", "", "Used",
	       "Image");
}

static void print_line(uint64_t bytes, uint64_t kept, const char *when,
		       const char *name)
{
	printf("%12" PRIu64 "  %12" PRIu64 "  %3u%%  %-19s  ", bytes, kept,
	       progress_percent(kept, bytes), when);
	cmd_put(stdout, name);
	putchar('\n');
}

static int print_entry(void *opaque, const struct disk_cache_entry *e)
{
	char when[32] = "";
	struct tm tm;

	if (e->in_use)
		snprintf(when, sizeof(when), "now");
	else if (localtime_r(&e->used, &tm))
		strftime(when, sizeof(when), "%F %T", &tm);
	print_line(e->bytes, e->kept_bytes, when, e->name);
	return 0;
}

static int add_entry(void *opaque, const struct disk_cache_entry *e)
{
	json_array_append_new(
		opaque,
		json_pack("{s:o, s:I, s:I, s:I, s:b}", "name",
			  report_text(e->name), "size", (json_int_t)e->bytes,
			  "kept", (json_int_t)e->kept_bytes, "used",
			  (json_int_t)e->used, "in-use", e->in_use));
	return 0;
}

static int list_folder(struct caching *c, struct error *err)
{
	json_t *list = c->cmd.json ? json_array() : NULL;
	int r;

	if (!list) {
		print_head();
		return disk_cache_list(print_entry, NULL, err);
	}
	r = disk_cache_list(add_entry, list, err);
	cmd_json_print(json_pack("{s:o}", "objects", list), JSON_INDENT(4));
	return r;
}

static const char *state_of(const json_t *o)
{
	if (!json_is_true(json_object_get(o, "mine")))
		return "another process";
	if (!json_is_true(json_object_get(o, "filling")))
		return "";
	return json_integer_value(json_object_get(o, "failures")) ? "fails"
								  : "is filled";
}

static void print_objects(const json_t *answer)
{
	const json_t *o;
	size_t i;

	printf("%12s  %12s  %4s  %-19s  %s\n", "Bytes", "Kept", "", "",
	       "Image");
	json_array_foreach(json_object_get(answer, "objects"), i, o) {
		const char *name =
			json_string_value(json_object_get(o, "name"));

		print_line((uint64_t)json_integer_value(
				   json_object_get(o, "size")),
			   (uint64_t)json_integer_value(
				   json_object_get(o, "kept")),
			   state_of(o), name ? name : "");
	}
}

static int list_server(struct caching *c, struct error *err)
{
	json_t *answer =
		control_ask(c->control, json_pack("{s:s}", "command", "cache"),
			    "cache", true, err);

	if (!answer)
		return err->code;
	if (c->cmd.json)
		cmd_json_print(json_incref(answer), JSON_INDENT(4));
	else
		print_objects(answer);
	json_decref(answer);
	return 0;
}

/* ---- warm ---- */

struct state {
	uint64_t bytes, kept;
	unsigned int n, failures;
	bool others; /* another process keeps one */
};

static int sum_up(void *opaque, const struct disk_cache_object *o)
{
	struct state *s = opaque;

	s->n++;
	s->bytes += o->bytes;
	s->kept += o->kept_bytes;
	if (o->failures > s->failures)
		s->failures = o->failures;
	s->others |= !o->mine;
	return 0;
}

static int check_state(const struct state *s, struct error *err)
{
	if (!s->n)
		return error_set(err, -EINVAL, 0,
				 "is no image of a web server that tells its "
				 "version: nothing of it is kept");
	if (s->failures >= FAILURES_MAX)
		return error_set(err, -EIO, 0, "cannot be read");
	if (s->others)
		return error_set(
			err, -EBUSY, 0,
			"another process keeps it: --control PATH asks "
			"a server");
	if (stop_signal())
		return error_set(err, -EINTR, 0,
				 "interrupted; what was fetched is kept");
	return 0;
}

/* Until all is there. */
static int watch(struct caching *c, struct error *err)
{
	struct progress p = { 0 };
	struct state s = { 0 };
	int r;

	for (;;) {
		disk_cache_each(sum_up, &s);
		r = check_state(&s, err);
		if (!p.what)
			progress_begin(&p, "warm", s.bytes, c->quiet);
		progress_tell(&p, s.kept);
		if (r < 0 || s.kept == s.bytes)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = LOOK_NSEC }, NULL);
		s = (struct state){ 0 };
	}
	progress_end(&p);
	return r;
}

static int fetch_all(struct caching *c, struct error *err)
{
	int r = disk_cache_holds_all() ? disk_cache_start(err)
				       : error_set(err, -ENOSPC, 0,
						   "is more than --cache-size "
						   "may hold");

	if (r >= 0)
		r = watch(c, err);
	disk_cache_stop();
	return r;
}

static int warm_image(struct caching *c, struct error *err)
{
	CLEANUP(container_unrefp) struct container *archive = NULL;
	CLEANUP(image_unrefp) struct image *img = NULL;
	struct open_options options;
	int r;

	config_open_options(&c->cmd.config, &options);
	disk_cache_fill(DISK_CACHE_FILL_ON, c->cmd.config.fill_bytes_sec);
	r = image_open(c->cmd.config.image, &options, &img, err);
	if (r == -ENOTUNIQ) {
		error_clear(err);
		r = chain_open_container(c->cmd.config.image, &options,
					 &archive, err);
	}
	if (r < 0)
		return r;
	r = fetch_all(c, err);
	if (r < 0)
		error_prefix(err, "%s", c->cmd.image);
	return r;
}

static int warm_server(struct caching *c, const char *url, struct error *err)
{
	json_t *ask = json_pack("{s:s}", "command", "warm"), *answer;
	json_int_t n;

	if (url)
		json_object_set_new(ask, "name", json_string(url));
	answer = control_ask(c->control, ask, "cache", true, err);
	if (!answer)
		return err->code;
	n = json_integer_value(json_object_get(answer, "objects"));
	json_decref(answer);
	return n ? 0
		 : error_set(err, -ENOENT, 0,
			     "%s: the server has nothing open that is called "
			     "so: \"platter cache list\" has the names",
			     url ? url : c->control);
}

/* ---- drop ---- */

static int drop(struct caching *c, const char *url, struct error *err)
{
	unsigned int busy;
	int n = disk_cache_drop(url, &busy, err);

	if (n < 0)
		return n;
	if (!c->quiet)
		printf("%d removed\n", n);
	if (busy)
		return error_set(err, -EBUSY, 0, "%u in use", busy);
	if (!n && url)
		return error_set(err, -ENOENT, 0, "there is nothing of %s",
				 url);
	return 0;
}

/* ---- the command line ---- */

enum { OPT_CONTROL = CMD_VERB, OPT_ALL, OPT_FILL };

/* Returns as cmd_option(). */
static int take_option(struct caching *c, int opt, char **argv)
{
	switch (opt) {
	case OPT_CONTROL:
		c->control = optarg;
		return -1;
	case OPT_ALL:
		c->all = true;
		return -1;
	case OPT_FILL:
		return cmd_param(&c->cmd, "fill", optarg);
	case 'q':
		c->quiet = true;
		return -1;
	default:
		return cmd_option(&c->cmd, opt, argv);
	}
}

static int with_server(struct caching *c, int n, char **words,
		       struct error *err)
{
	if (n == 1 && !strcmp(words[0], "list"))
		return list_server(c, err);
	if (n <= 2 && !strcmp(words[0], "warm"))
		return warm_server(c, words[1], err);
	return error_set(err, -EINVAL, 0,
			 "a server is asked to list, or to warm one URL or "
			 "all that it has open");
}

static int with_folder(struct caching *c, int n, char **words,
		       struct error *err)
{
	bool warms = n == 2 && !strcmp(words[0], "warm");
	const char *folder = c->cmd.config.cache_dir;
	int r = warms ? cmd_take_image(&c->cmd, words[1], err) : 0;

	/* Only what is to be kept makes one. */
	if (!warms && access(folder, F_OK) < 0)
		return error_set(err, -errno, 0, "%s: %s", folder,
				 errno_text(errno));
	if (r >= 0)
		r = config_apply(&c->cmd.config, cmd_say, err);
	if (r < 0)
		return r;
	if (warms) {
		stop_catch();
		return warm_image(c, err);
	}
	if (n == 1 && !strcmp(words[0], "list"))
		return list_folder(c, err);
	if (n == 1 + !c->all && !strcmp(words[0], "drop"))
		return drop(c, c->all ? NULL : words[1], err);
	return error_set(err, -EINVAL, 0,
			 "list, warm URL, drop URL or drop --all is wanted");
}

static int run_words(struct caching *c, int n, char **words)
{
	struct error err = { 0 };
	int r;

	if (!n)
		return cmd_usage(&c->cmd, "list, warm or drop is wanted");
	if (!c->control == !c->cmd.config.cache_dir)
		return cmd_usage(&c->cmd, "either --cache-dir DIR or --control "
					  "PATH is wanted");
	r = c->control ? with_server(c, n, words, &err)
		       : with_folder(c, n, words, &err);
	return r < 0 ? cmd_fail(&err) : STATUS_OK;
}

static int run_cache(int argc, char **argv)
{
	static const struct option options[] = {
		CMD_LONG_OPTIONS,
		{ "control", required_argument, NULL, OPT_CONTROL },
		{ "all", no_argument, NULL, OPT_ALL },
		{ "fill", required_argument, NULL, OPT_FILL },
		{ "quiet", no_argument, NULL, 'q' },
		{ 0 },
	};
	struct caching c = { 0 };
	int opt, status = -1;

	cmd_init(&c.cmd, &verb_cache);
	while (status < 0 &&
	       (opt = getopt_long(argc, argv, CMD_SHORT_OPTIONS "q", options,
				  NULL)) != -1)
		status = take_option(&c, opt, argv);
	if (status < 0)
		status = run_words(&c, argc - optind, argv + optind);
	cmd_done(&c.cmd);
	return status;
}

const struct verb verb_cache = {
	.name = "cache",
	.summary = "the copies of remote images: list, warm, drop",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_cache,
};
