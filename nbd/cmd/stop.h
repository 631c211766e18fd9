/* SPDX-License-Identifier: BSD-3-Clause */
/* Signals that ask long work to stop. */
#ifndef NBD_CMD_STOP_H
#define NBD_CMD_STOP_H

/* From now on SIGINT, SIGTERM and SIGHUP are noted, and do not end the process. */
void stop_catch(void);

/* The signal that came; 0: none. */
int stop_signal(void);

#endif
