/* SPDX-License-Identifier: BSD-3-Clause */
#include <signal.h>
#include <stddef.h>

#include "iouring/util.h"
#include "nbd/cmd/stop.h"

/* The signal that asked to stop. */
static volatile sig_atomic_t stopped_by;

static void note_signal(int sig)
{
	stopped_by = sig;
}

void stop_catch(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = note_signal,
				.sa_flags = SA_RESTART };
	struct sigaction was;
	size_t i;

	sigemptyset(&sa.sa_mask);
	for (i = 0; i < ARRAY_SIZE(signals); i++)
		/* nohup's, for one, stays ignored. */
		if (!sigaction(signals[i], NULL, &was) &&
		    was.sa_handler != SIG_IGN)
			sigaction(signals[i], &sa, NULL);
}

int stop_signal(void)
{
	return stopped_by;
}
