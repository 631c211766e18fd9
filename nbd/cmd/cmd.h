/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The platter command: what its verbs share.
 *
 * A verb is one file, cmd-<verb>.c. It parses its options, opens what it
 * needs, prints to standard output, and returns the exit status. Failures
 * are printed once, by cmd_fail().
 */
#ifndef NBD_CMD_CMD_H
#define NBD_CMD_CMD_H

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "formats/layer.h"
#include "iouring/error.h"
#include "nbd/config.h"

enum {
	STATUS_OK = 0,
	STATUS_FAILED = 1,
	STATUS_USAGE = 2,

	/* platter check, as qemu-img check */
	STATUS_CORRUPT = 2,
	STATUS_LEAKS = 3,
	STATUS_NO_CHECK = 63,
};

struct verb {
	const char *name;
	const char *summary; /* for `platter --help`; NULL: it is not there */
	const char *help; /* for `platter VERB --help` */
	int usage_status; /* exit status after a wrong option */
	int (*run)(int argc, char **argv);
};

extern const struct verb verb_serve, verb_info, verb_map, verb_check, verb_diff,
	verb_convert, verb_create, verb_measure, verb_attach, verb_detach,
	verb_list, verb_pack, verb_cache, verb_trace, verb_overlay,
	verb_migrate, verb_warm, verb_image, verb_index, verb_names,
	verb_server;

/* What the options that all verbs have came to. */
struct cmd {
	const struct verb *verb;
	struct config config;
	char **params; /* "KEY=VALUE", as nbdkit wants them, without image= */
	size_t n_params;
	const char *image; /* as it was given, without secrets;
			      config.image is absolute */
	char *shown; /* what it points to, if it is a URL */
	bool json;
};

void cmd_init(struct cmd *c, const struct verb *verb);
void cmd_done(struct cmd *c);

/* For getopt_long(): the options that cmd_option() takes. */
#define CMD_SHORT_OPTIONS ":f:k:h"
#define CMD_REMOTE_OPTIONS                                                    \
	{ "credentials", required_argument, NULL, CMD_CREDENTIALS },          \
		{ "ca", required_argument, NULL, CMD_CA },                    \
		{ "proxy", required_argument, NULL, CMD_PROXY },              \
		{ "cache-dir", required_argument, NULL, CMD_CACHE_DIR },      \
		{ "cache-size", required_argument, NULL, CMD_CACHE_SIZE },    \
	{                                                                     \
		"remote-timeout", required_argument, NULL, CMD_REMOTE_TIMEOUT \
	}
#define CMD_LONG_OPTIONS                                           \
	{ "format", required_argument, NULL, 'f' },                \
		{ "key", required_argument, NULL, 'k' },           \
		{ "allow", required_argument, NULL, CMD_ALLOW },   \
		{ "member", required_argument, NULL, CMD_MEMBER }, \
		{ "force", required_argument, NULL, CMD_FORCE },   \
		{ "force-share", no_argument, NULL, CMD_SHARE },   \
		CMD_REMOTE_OPTIONS,                                \
		{ "cache", required_argument, NULL, CMD_CACHE },   \
		{ "io", required_argument, NULL, CMD_IO },         \
		{ "direct", no_argument, NULL, CMD_DIRECT },       \
		{ "json", no_argument, NULL, CMD_JSON },           \
	{                                                          \
		"help", no_argument, NULL, 'h'                     \
	}

enum {
	CMD_ALLOW = 256,
	CMD_FORCE,
	CMD_SHARE,
	CMD_CREDENTIALS,
	CMD_CA,
	CMD_PROXY,
	CMD_REMOTE_TIMEOUT,
	CMD_CACHE_DIR,
	CMD_CACHE_SIZE,
	CMD_CACHE,
	CMD_IO,
	CMD_DIRECT,
	CMD_JSON,
	CMD_MEMBER,
	CMD_VERB, /* a verb's own values begin here */
};

/*
 * Does what @opt, just returned by getopt_long(), asks, also when it is
 * '?' or ':'. Returns -1 to go on, or the exit status with which to end.
 */
int cmd_option(struct cmd *c, int opt, char **argv);

/* Sets parameter @key, here and for nbdkit. Returns as cmd_option(). */
int cmd_param(struct cmd *c, const char *key, const char *value);

/*
 * After the options: takes the one operand, the image, and hands cache and
 * I/O settings to the rooms below. Returns as cmd_option().
 */
int cmd_image(struct cmd *c, int argc, char **argv);

/* Prints "platter: MESSAGE" and returns STATUS_FAILED. */
int cmd_fail(const struct error *err);

/* Prints a mistake in the command line, with where help is. */
int cmd_usage(const struct cmd *c, const char *fmt, ...) PRINTF(2, 3);

struct layer;

/* Prints the layer's remark, if there is one, of the image that the user called
 * @name. */
void cmd_remark(const struct layer *l, const char *name);

/* Sets c->image, and config.image to it. Returns as config_set(). */
int cmd_take_image(struct cmd *c, const char *image, struct error *err);

/* -EINVAL: @path, shown without its secrets, is no container, @whose. */
int cmd_no_container(const char *path, const char *whose, struct error *err);

/* "platter: LINE" on standard error. */
void cmd_say(const char *line);

/* Prints @text with control characters and what is not UTF-8 as \xNN. */
void cmd_put(FILE *fp, const char *text);

/* Prints @j, with a newline, and drops it. @flags: jansson's. */
void cmd_json_print(json_t *j, size_t flags);

/*
 * The layers of an image that can be opened, the top first: what info and
 * check show of an image of which a lower layer is missing or refused.
 */
struct layers {
	struct layer *layers[CHAIN_DEPTH_MAX];
	unsigned int depth;
	bool complete; /* down to one without a parent */
	bool of_state; /* these are not an image's own layers from its top, but
			  those of a state of it, or of an export */
	struct error reason; /* why the next one is not there */
	enum reference_verdict verdict; /* of the name it has */
};

/*
 * Opens the top, and with @chain what lies below it as far as possible; of
 * IMAGE@STATE, see operand.h, or an export only the whole. Returns 0 or, when not even the top can be opened, a negative errno.
 */
int layers_open(const struct cmd *c, bool chain, struct layers *ret,
		struct error *err);
void layers_done(struct layers *l);

/* main.c: the names of those that people are told of, one a line. */
void cmd_print_verbs(void);

#endif
