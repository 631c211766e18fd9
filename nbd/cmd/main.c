/* SPDX-License-Identifier: BSD-3-Clause */
/* The platter command. */
#include <ctype.h>
#include <errno.h>
#include <locale.h>
#include <stdarg.h>
#include <string.h>

#include "formats/cache.h"
#include "formats/codec/codec.h"
#include "formats/place.h"
#include "iouring/sources/url.h"
#include "iouring/util.h"
#include "nbd/cmd/cmd.h"
#include "nbd/cmd/habits.h"

static const struct verb *const verbs[] = {
	&verb_serve,   &verb_info,    &verb_map,     &verb_check,
	&verb_diff,    &verb_convert, &verb_create,  &verb_measure,
	&verb_attach,  &verb_detach,  &verb_list,    &verb_pack,
	&verb_cache,   &verb_trace,   &verb_overlay, &verb_warm,
	&verb_migrate, &verb_image,   &verb_index,   &verb_names,
	&verb_server
};

void cmd_init(struct cmd *c, const struct verb *verb)
{
	*c = (struct cmd){ .verb = verb };
	config_init(&c->config);
}

void cmd_done(struct cmd *c)
{
	size_t i;

	for (i = 0; i < c->n_params; i++)
		free(c->params[i]);
	free(c->params);
	free(c->shown);
	config_done(&c->config);
}

void cmd_say(const char *line)
{
	fprintf(stderr, "platter: %s\n", line);
}

void cmd_remark(const struct layer *l, const char *name)
{
	if (!l->remark)
		return;
	fputs("platter: ", stderr);
	cmd_put(stderr, place_is_url(name) ? l->path : name);
	fprintf(stderr, " %s\n", l->remark);
}

int cmd_fail(const struct error *err)
{
	fflush(stdout); /* what was found before comes first */
	cmd_say(err->msg);
	return STATUS_FAILED;
}

int cmd_usage(const struct cmd *c, const char *fmt, ...)
{
	struct error err = { 0 };
	char msg[ERROR_MSG_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	error_set(&err, -EINVAL, 0, "%s (see platter %s --help)", msg,
		  c->verb->name);
	cmd_fail(&err);
	return c->verb->usage_status;
}

int cmd_param(struct cmd *c, const char *key, const char *value)
{
	struct error err = { 0 };
	char **params;
	char *param;
	int r;

	r = config_set(&c->config, key, value, &err);
	if (r < 0 && r != -ENOENT) {
		cmd_fail(&err);
		return c->verb->usage_status;
	}
	params = realloc(c->params, (c->n_params + 1) * sizeof(*params));
	if (params)
		c->params = params;
	if (!params || asprintf(&param, "%s=%s", key, value) < 0) {
		error_set(&err, -ENOMEM, 0, "no memory");
		return cmd_fail(&err);
	}
	c->params[c->n_params++] = param;
	return -1;
}

/* getopt_long() does not say which long option it did not know. */
static int unknown_option(const struct cmd *c, char **argv)
{
	const char *arg = argv[optind - 1];

	const char *hint;
	char short_[3] = "-?";

	if (optopt && optopt < CMD_ALLOW && isgraph(optopt) &&
	    strncmp(arg, "--", 2)) {
		short_[1] = (char)optopt;
		arg = short_;
	} else if (optopt) {
		return cmd_usage(c, "option %.*s takes no value",
				 (int)strcspn(arg, "="), arg);
	}
	hint = habit_of_option(c->verb->name, arg);
	return cmd_usage(c, "unknown option %s%s%s", arg, hint ? ": " : "",
			 hint ? hint : "");
}

int cmd_option(struct cmd *c, int opt, char **argv)
{
	switch (opt) {
	case 'f':
		return cmd_param(c, "format", optarg);
	case 'k':
		return cmd_param(c, "key", optarg);
	case CMD_MEMBER:
		return cmd_param(c, "member", optarg);
	case CMD_ALLOW:
		return cmd_param(c, "allow", optarg);
	case CMD_FORCE:
		return cmd_param(c, "force", optarg);
	case CMD_SHARE:
		return cmd_param(c, "force", "share");
	case CMD_CREDENTIALS:
		return cmd_param(c, "credentials", optarg);
	case CMD_CA:
		return cmd_param(c, "ca", optarg);
	case CMD_PROXY:
		return cmd_param(c, "proxy", optarg);
	case CMD_REMOTE_TIMEOUT:
		return cmd_param(c, "remote-timeout", optarg);
	case CMD_CACHE_DIR:
		return cmd_param(c, "cache-dir", optarg);
	case CMD_CACHE_SIZE:
		return cmd_param(c, "cache-size", optarg);
	case CMD_CACHE:
		return cmd_param(c, "cache", optarg);
	case CMD_IO:
		return cmd_param(c, "io", optarg);
	case CMD_DIRECT:
		return cmd_param(c, "direct", "true");
	case CMD_JSON:
		c->json = true;
		return -1;
	case 'h':
		fputs(c->verb->help, stdout);
		return STATUS_OK;
	case ':':
		return cmd_usage(c, "option %s needs a value",
				 argv[optind - 1]);
	default:
		return unknown_option(c, argv);
	}
}

int cmd_take_image(struct cmd *c, const char *image, struct error *err)
{
	free(TAKE_PTR(c->shown));
	c->image = image;
	if (place_is_url(image)) {
		c->shown = url_for_people(image);
		if (!c->shown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		c->image = c->shown;
	}
	return config_set(&c->config, "image", image, err);
}

int cmd_no_container(const char *path, const char *whose, struct error *err)
{
	CLEANUP(freep)
	char *url = place_is_url(path) ? url_for_people(path) : NULL;

	return error_set(err, -EINVAL, 0, "%s: is no container%s",
			 url ? url : path, whose);
}

int cmd_image(struct cmd *c, int argc, char **argv)
{
	struct error err = { 0 };

	if (optind == argc)
		return cmd_usage(c, "no image was given");
	if (argc - optind > 1)
		return cmd_usage(c, "one image at a time: \"%s\" is too many",
				 argv[optind + 1]);
	if (cmd_take_image(c, argv[optind], &err) < 0 ||
	    config_apply(&c->config, cmd_say, &err) < 0)
		return cmd_fail(&err);
	return -1;
}

void cmd_put(FILE *fp, const char *text)
{
	size_t bytes = strlen(text) * 4 + 5;
	char *safe = malloc(bytes);

	if (!safe) {
		fputc('?', fp);
		return;
	}
	text_escape(safe, bytes, text);
	fputs(safe, fp);
	free(safe);
}

void cmd_json_print(json_t *j, size_t flags)
{
	/* In ASCII alone nothing of it can drive a terminal. */
	json_dumpf(j, stdout, flags | JSON_ENSURE_ASCII);
	putchar('\n');
	json_decref(j);
}

static void print_help(FILE *fp)
{
	size_t i;

	fputs("usage: platter VERB [options] IMAGE\n"
	      "\n"
	      "Serves stored disk images as raw NBD block devices, and looks "
	      "into them.\n"
	      "\n",
	      fp);
	for (i = 0; i < ARRAY_SIZE(verbs); i++)
		if (verbs[i]->summary)
			fprintf(fp, "  %-7s %s\n", verbs[i]->name,
				verbs[i]->summary);
	fputs("\n"
	      "  platter VERB --help   what a verb's options are\n"
	      "  platter --version\n"
	      "\n"
	      "See platter(1).\n",
	      fp);
}

void cmd_print_verbs(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(verbs); i++)
		if (verbs[i]->summary)
			puts(verbs[i]->name);
}

static const struct verb *find_verb(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(verbs[i]->name, name))
			return verbs[i];
	return NULL;
}

static int run(int argc, char **argv)
{
	struct error err = { 0 };
	const struct verb *verb;
	const char *hint;

	if (argc < 2) {
		print_help(stderr);
		return STATUS_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
	    !strcmp(argv[1], "help")) {
		verb = argc > 2 ? find_verb(argv[2]) : NULL;
		if (verb)
			fputs(verb->help, stdout);
		else
			print_help(stdout);
		return STATUS_OK;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts("platter " PLATTER_VERSION);
		return STATUS_OK;
	}
	verb = find_verb(argv[1]);
	if (!verb) {
		hint = habit_of_verb(argv[1]);
		error_set(&err, -EINVAL, 0,
			  "unknown %s %s%s%s (see platter --help)",
			  argv[1][0] == '-' ? "option" : "verb", argv[1],
			  hint ? ": " : "", hint ? hint : "");
		cmd_fail(&err);
		return STATUS_USAGE;
	}
	opterr = 0; /* cmd_option() says it */
	parameters_are_options = true;
	return verb->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	int status;

	setlocale(LC_CTYPE, "");
	status = run(argc, argv);
	cache_shutdown();
	codec_shutdown();
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "platter: cannot write the output: %s\n",
			errno_text(errno));
		if (status == STATUS_OK)
			status = STATUS_FAILED;
	}
	return status;
}
