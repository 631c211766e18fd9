/* SPDX-License-Identifier: BSD-3-Clause */
#include "nbd/cmd/habits.h"

#include <stddef.h>
#include <string.h>

#include "iouring/util.h"

const char *habit_of_verb(const char *name)
{
	static const struct {
		const char *name, *hint;
	} verbs[] = {
		{ "compare", "platter diff compares two disks" },
		{ "resize", "platter overlay resize makes an overlay longer" },
		{ "snapshot", "platter overlay snapshot makes one of an "
			      "overlay; platter info lists those of an image" },
		{ "commit", "platter overlay commit" },
		{ "rebase", "platter overlay rebase" },
		{ "dd", "platter convert copies a whole disk" },
		{ "amend", "platter changes no image; platter convert makes "
			   "another one" },
		{ "bitmap", "platter changes no image; an overlay's snapshots "
			    "are checkpoints" },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(verbs[i].name, name))
			return verbs[i].hint;
	return NULL;
}

const char *habit_of_option(const char *verb, const char *arg)
{
	static const struct {
		const char *option;
		const char *verb; /* NULL: any */
		const char *hint;
	} options[] = {
		{ "--output", NULL, "--json prints JSON" },
		{ "-U", NULL,
		  "--force-share reads what another process may "
		  "be writing" },
		{ "-l", "convert", "--snapshot NAME, or IMAGE@NAME" },
		{ "-l", NULL, "platter info lists snapshots" },
		{ "-o", "create",
		  "--base and --base-format are options of "
		  "their own" },
		{ "-o", NULL,
		  "--compression, --level and --cluster-size are "
		  "options of their own" },
		{ "-b", "convert",
		  "-B FILE writes what is not as in FILE; platter create "
		  "--base FILE makes an overlay" },
		{ "-p", NULL, "progress is shown on a terminal" },
		{ "-q", NULL, "--quiet" },
		{ "-m", NULL, "--jobs N" },
		{ "-c", "serve", "platter attach makes it a block device" },
		{ "-r", "serve", "images are served read-only" },
		{ "-e", "serve", "--max-connections N" },
		{ "--shared", "serve", "--max-connections N" },
		{ "-k", "serve", "--unix PATH listens on a socket" },
		{ "-x", "serve", "--export NAME=FILE" },
		{ "--export-name", "serve", "--export NAME=FILE" },
		{ "-t", "serve", "it serves until it is ended; --threads N" },
		{ "--persistent", "serve", "it serves until it is ended" },
		{ "--read-only", "serve", "images are served read-only" },
		{ "--tls-creds", "serve",
		  "--tls-certificates DIR or --tls-psk "
		  "FILE" },
		{ "--object", NULL, "--key FILE has the passphrase" },
		{ "--image-opts", NULL, "--format NAME says the format" },
	};
	size_t i, len = strcspn(arg, "=");

	for (i = 0; i < ARRAY_SIZE(options); i++) {
		const char *of = options[i].verb;

		if (strlen(options[i].option) == len &&
		    !strncmp(options[i].option, arg, len) &&
		    (!of || !strcmp(of, verb)))
			return options[i].hint;
	}
	return NULL;
}
