/* SPDX-License-Identifier: BSD-3-Clause */
/* platter trace: what is read of an export, for the next one who reads it. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#include "iouring/util.h"
#include "iouring/write.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/control-client.h"
#include "nbd/cmd/output.h"
#include "nbd/cmd/stop.h"
#include "nbd/trace.h"

#define LOOK_MSEC   200
#define SECONDS_MAX 86400U

static const char help[] =
	"usage: platter trace record [options] --control PATH [EXPORT] FILE\n"
	"\n"
	"Notes what clients of a running server read of EXPORT (\"\": its first image)\n"
	"for the first time, in order, until it is interrupted, and writes that to\n"
	"FILE. Begin before a guest boots, end when it has booted. Put beside an image\n"
	"at a web server as IMAGE.trace, or given as --trace FILE, it has all of that\n"
	"fetched into --cache-dir when the image is opened.\n"
	"\n"
	"      --control PATH   the server's control socket\n"
	"      --seconds N      end by itself\n"
	"      --overwrite      replace FILE if it is there\n"
	"  -q, --quiet          say nothing\n"
	"  -h, --help\n";

struct tracing {
	struct cmd cmd;
	const char *control, *export, *file;
	unsigned int seconds; /* 0: until interrupted */
	bool overwrite, quiet;
};

/* Until the user has had enough, or the server is gone. */
static void wait_for_end(const struct tracing *c, int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };
	uint64_t end = c->seconds ? now_nsec() + c->seconds * 1000000000ULL
				  : UINT64_MAX;

	while (!stop_signal() && now_nsec() < end &&
	       poll(&p, 1, LOOK_MSEC) <= 0)
		;
}

static json_t *ask(const struct tracing *c, struct error *err)
{
	FILE *fp = control_connect(c->control, err);
	json_t *answer = NULL;

	if (!fp)
		return NULL;
	answer = control_talk(fp,
			      json_pack("{s:s, s:s}", "command", "trace",
					"export", c->export),
			      c->control, err);
	if (answer) {
		if (!c->quiet)
			fprintf(stderr, "platter: recording, until it is "
					"interrupted\n");
		json_decref(answer);
		wait_for_end(c, fileno(fp));
		answer = control_talk(fp, json_object(), c->control, err);
	}
	fclose(fp);
	return answer;
}

static int take_answer(const json_t *answer, struct trace *t)
{
	const json_t *list = json_object_get(answer, "ranges"), *pair;
	json_int_t off, len;
	size_t i;

	t->bytes =
		(uint64_t)json_integer_value(json_object_get(answer, "bytes"));
	t->ranges = calloc(json_array_size(list) + 1, sizeof(*t->ranges));
	if (!t->ranges)
		return -ENOMEM;
	json_array_foreach(list, i, pair) {
		if (!json_unpack((json_t *)(uintptr_t)pair, "[I, I]", &off,
				 &len))
			t->ranges[t->n++] =
				(struct trace_range){ (uint64_t)off,
						      (uint64_t)len };
	}
	return 0;
}

static int write_file(struct output *out, const struct trace *t,
		      struct error *err)
{
	CLEANUP(freep) char *text = NULL;
	size_t len = 0;
	FILE *fp = open_memstream(&text, &len);
	int r;

	if (!fp)
		return error_set(err, -ENOMEM, 0, "out of memory");
	trace_write(t, fp);
	if (fclose(fp))
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = source_write(out->dst, text, len, 0, err);
	return r < 0 ? r : output_commit(out, err);
}

static void tell(const struct tracing *c, const struct trace *t, bool full)
{
	uint64_t bytes = 0;
	size_t i;

	for (i = 0; i < t->n; i++)
		bytes += t->ranges[i].len;
	if (!c->quiet)
		printf("%zu ranges, %" PRIu64 " bytes of %" PRIu64 "\n", t->n,
		       bytes, t->bytes);
	if (full)
		cmd_say("there was more than a trace can have: its end is "
			"missing");
}

static int record(struct tracing *c, struct error *err)
{
	CLEANUP(output_done) struct output out = { 0 };
	CLEANUP(trace_done) struct trace t = { 0 };
	json_t *answer;
	int r = output_begin(&out, c->file, c->overwrite, err);

	/* A boot that is recorded is not lost for the file's sake. */
	if (r < 0)
		return r;
	stop_catch();
	answer = ask(c, err);
	if (!answer)
		return err->code;
	if (take_answer(answer, &t) < 0)
		r = error_set(err, -ENOMEM, 0, "out of memory");
	else
		r = write_file(&out, &t, err);
	if (r >= 0)
		tell(c, &t, json_is_true(json_object_get(answer, "full")));
	json_decref(answer);
	return r;
}

/* ---- the command line ---- */

enum { OPT_CONTROL = CMD_VERB, OPT_SECONDS, OPT_OVERWRITE };

static int take_seconds(struct tracing *c, const char *value)
{
	uint64_t n;

	if (!config_size(value, &n) || !n || n > SECONDS_MAX)
		return cmd_usage(&c->cmd,
				 "--seconds: \"%s\" is not from 1 to %u", value,
				 SECONDS_MAX);
	c->seconds = (unsigned int)n;
	return -1;
}

/* Returns as cmd_option(). */
static int take_option(struct tracing *c, int opt, char **argv)
{
	switch (opt) {
	case OPT_CONTROL:
		c->control = optarg;
		return -1;
	case OPT_SECONDS:
		return take_seconds(c, optarg);
	case OPT_OVERWRITE:
		c->overwrite = true;
		return -1;
	case 'q':
		c->quiet = true;
		return -1;
	default:
		return cmd_option(&c->cmd, opt, argv);
	}
}

static int run_words(struct tracing *c, int n, char **words)
{
	struct error err = { 0 };

	if (!c->control)
		return cmd_usage(&c->cmd,
				 "which server? --control PATH is missing");
	if (n < 2 || n > 3 || strcmp(words[0], "record") != 0)
		return cmd_usage(&c->cmd, "record [EXPORT] FILE is wanted");
	c->export = n == 3 ? words[1] : "";
	c->file = words[n - 1];
	return record(c, &err) < 0 ? cmd_fail(&err) : STATUS_OK;
}

static int run_trace(int argc, char **argv)
{
	static const struct option options[] = {
		{ "control", required_argument, NULL, OPT_CONTROL },
		{ "seconds", required_argument, NULL, OPT_SECONDS },
		{ "overwrite", no_argument, NULL, OPT_OVERWRITE },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct tracing c = { 0 };
	int opt, status = -1;

	cmd_init(&c.cmd, &verb_trace);
	while (status < 0 &&
	       (opt = getopt_long(argc, argv, ":qh", options, NULL)) != -1)
		status = take_option(&c, opt, argv);
	if (status < 0)
		status = run_words(&c, argc - optind, argv + optind);
	cmd_done(&c.cmd);
	return status;
}

const struct verb verb_trace = {
	.name = "trace",
	.summary = "what a boot reads, to be fetched before the next one",
	.help = help,
	.usage_status = STATUS_USAGE,
	.run = run_trace,
};
