/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket of a server: a unix socket on which whoever may open it
 * (its file's permissions, 0600) asks and is answered in lines of JSON.
 *
 *	{"command": "list"}
 *		-> {"exports": [{"name": "+vm1", "connections": 1, "size": ...,
 *		    "overlay": {"file-bytes": ..., "room-bytes": ...,
 *		    "flushes": ..., "syncs": ..., "epoch": 2, "pulling": false,
 *		    "snapshots": ["monday"]}}],
 *		    "clients": [{"export": "+vm1", "peer": "pid 4711",
 *		    "since": SECONDS, "requests": UNDER_WAY, "epoch": 2}]}
 *	{"command": "stats"}
 *		-> {"traffic": OPS, "exports": [{"name": ..., "traffic": OPS}],
 *		    "cache": {...}}; OPS: "read", "write" ... with "requests",
 *		    "errors", "bytes", "usec", and "took": how many took less
 *		    than 1, 2, 4, 8 ... us; the last counts all others
 *	{"command": "snapshot", "export": "+vm1", "name": "monday"} -> {}
 *	{"command": "revert", "export": "+vm1", "name": "monday"} -> {}
 *	{"command": "revert", "export": "+vm1", "name": "monday", "discard": true} -> {}
 *	{"command": "delete", "export": "+vm1", "name": "monday"}
 *		-> {"progress": {"done": ..., "total": ...}} now and then, then {}
 *	{"command": "resize", "export": "+vm1", "size": BYTES} -> {}
 *	{"command": "flush", "export": "+vm1"} -> {}
 *	{"command": "fence", "export": "+vm1", "epoch": 2} -> {}: clients of lower
 *		epochs write no more, see connection_fence()
 *	{"command": "pull", "export": "+vm1", "from": "nbd://HOST/+vm1",
 *	 "rate": BYTES}: makes it, with "from", see overlay_make_pulled(), and
 *		fetches all of it, so many bytes a second at most; with "prepare":
 *		true makes it, to be read when it is asked for without
 *		-> {"progress": ...} now and then, then {}
 *	{"command": "close", "export": "+vm1"} -> {"connections": 2}
 *	{"command": "cache"}
 *		-> {"objects": [{"name": URL, "size": ..., "kept": BYTES, "mine":
 *		    false where another process keeps it, "filling": ...,
 *		    "failures": IN_A_ROW}]}: what is open of cache-dir=
 *	{"command": "warm"} -> {"objects": HOW_MANY}, filled from now on
 *	{"command": "warm", "name": URL} -> {"objects": 1}
 *	{"command": "trace", "export": ""} -> {"recording": {}}, and when another
 *		line comes {"bytes": SIZE, "full": whether there was more,
 *		"ranges": [[OFFSET, LENGTH], ...]} of what was read meanwhile,
 *		see trace.h
 *	whatever fails -> {"error": "why"}
 */
#ifndef NBD_CONTROL_H
#define NBD_CONTROL_H

#include "nbd/config.h"

struct control;

/*
 * Listens on @path; a socket that nobody listens on any more is replaced. The
 * thread that answers starts with control_start(), after a fork.
 */
int control_listen(const char *path, struct control **ret, struct error *err);
int control_start(struct control *k, const struct config *c, struct error *err);
int control_listen_fd(const struct control *k);
void control_free(struct control *k); /* stops; NULL is fine */

#endif
