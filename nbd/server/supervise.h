/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs a server on sockets that are not its own, and again when it dies.
 *
 * A client may be able to abort the server (nbdkit before 1.33.10), and a
 * fault of ours in a decoder may. The others' connections break then, but the
 * listening sockets stay: who connects meanwhile waits in the backlog and is
 * served by the next server.
 */
#ifndef NBD_SERVER_SUPERVISE_H
#define NBD_SERVER_SUPERVISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "iouring/error.h"
#include "nbd/server/listen.h"

struct supervisor {
	const struct listener *listener;
	bool once; /* do not restart */
	bool log_all; /* what the server says is wanted whole: it debugs */

	const char *name; /* what messages call it */
	const char *program; /* NULL: argv[0], looked for in PATH */

	/*
	 * The command, ended by NULL. argv[pidfile_idx] is set to where the
	 * server reports that it is ready.
	 */
	char **argv;
	size_t pidfile_idx;

	/* Optional: called once, while the first server gets ready. */
	void (*started)(void *opaque);

	/*
	 * Optional: called in each child, to hand on descriptors from @first on.
	 * Non-zero: it could not.
	 */
	int (*hand_on)(void *opaque, int first);

	/*
	 * Optional: on SIGUSR2 a newer program is to run in the place of this
	 * one. Can it be? Then the server is ended, and replace() called, which
	 * returns if it failed: another server is started then.
	 */
	bool (*can_be_replaced)(void *opaque);
	void (*replace)(void *opaque);

	/* Told when the first server is ready. */
	void (*ready)(void *opaque, pid_t pid);
	void *opaque;
};

/*
 * From here on SIGTERM, SIGINT, SIGQUIT, SIGHUP and SIGUSR2 wait for supervisor_run(),
 * so that nothing ends without its clean-up. Returns 0 or a negative errno.
 */
int supervisor_hold_signals(struct error *err);

/* Returns the command's exit status when all is over. */
int supervisor_run(struct supervisor *s);

/*
 * How long to wait before the next start when this many servers in a row have
 * died in their first second: at once, until it becomes a habit.
 */
unsigned int restart_pause_ms(unsigned int quick_deaths);

/* "nbdkit: error: TEXT" is TEXT; NULL: not such a line. */
const char *server_error_text(const char *line);

#endif
