/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * platter names WHAT: what the code knows the names of, one a line. Not for
 * people: completion asks it, and tests compare with it what manuals say.
 */
#include <stdio.h>
#include <string.h>

#include "formats/format.h"
#include "nbd/cmd/cmd.h"

static void print_formats(void)
{
	const struct format_ops *const *f;

	for (f = format_table; *f; f++)
		puts((*f)->name);
}

static void print_parameters(void)
{
	size_t i;

	for (i = 0; config_key(i); i++)
		puts(config_key(i));
}

static int run_names(int argc, char **argv)
{
	static const struct {
		const char *what;
		void (*print)(void);
	} lists[] = {
		{ "formats", print_formats },
		{ "parameters", print_parameters },
		{ "verbs", cmd_print_verbs },
	};
	struct cmd c;
	size_t i;
	int status;

	for (i = 0; argc == 2 && i < ARRAY_SIZE(lists); i++)
		if (!strcmp(argv[1], lists[i].what)) {
			lists[i].print();
			return STATUS_OK;
		}
	cmd_init(&c, &verb_names);
	status = cmd_usage(&c, "one of formats, parameters, verbs is wanted");
	cmd_done(&c);
	return status;
}

const struct verb verb_names = {
	.name = "names",
	.help = "usage: platter names formats|parameters|verbs\n",
	.usage_status = STATUS_USAGE,
	.run = run_names,
};
