/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A client's requests to an export, whatever front end takes them: what NBD asks
 * for, what NBD is answered (doc/proto.md of the NBD project), and no word of a
 * protocol or of who prints. A front end opens a session for each connection
 * (connection.h), calls these from any of its threads, several at once, and
 * translates; plugin.c is the one for nbdkit.
 *
 * Buffers are the caller's. Ranges lie inside the export: the front end has
 * checked them against session_size(). A request that changes something is only
 * asked for where session_is_writable().
 */
#ifndef NBD_SESSION_H
#define NBD_SESSION_H

#include "iouring/later.h"
#include "nbd/connection.h"
#include "nbd/context.h"

/* What went wrong, and whether anybody should read of it. */
struct fault {
	struct error err;
	int wire; /* positive errno that the client is told */
	bool tell; /* write a line of it; a client can have many made */
	uint64_t untold; /* how many like it were not told before this one */
};

/* What a client may ask for at once. */
#define SESSION_REQUEST_BYTES_MAX (32U << 20)

/* All of the following return 0, or -1 with @ret_fault filled. */

/* Before a client is talked to: is there anything left for one more? */
int session_admit(struct fault *ret_fault);

/* *ret is the caller's to connection_close(). */
int session_open(const struct config *c, const char *name,
		 const struct peer *peer, struct connection **ret,
		 struct fault *ret_fault);

/* Export @name is none for this client, whether it is there or not. */
int session_refuse(const char *name, struct fault *ret_fault);

/* A front end lets somebody in no further: @f->err says why. */
int session_turn_away(struct fault *f);

/* What an export is like; false: the administrator has closed it. */
struct session_traits {
	uint64_t bytes;
	bool writable; /* and flush, FUA, trim, write zeroes, fast zeroes */
	bool multi_conn;
	uint32_t block_min, block_preferred, block_max;
	char description[64];
};
bool session_traits(struct connection *c, struct session_traits *ret);

/* @flags of changes */
enum {
	SESSION_FUA = 1, /* it is durable when it has been answered */
	SESSION_MAY_TRIM = 2, /* zeroes need not take room */
	SESSION_FAST = 4, /* zeroes quickly or not at all: EOPNOTSUPP */
};

/* @zeroes: see image_read_sparse(); may be NULL. */
int session_read(struct connection *c, void *buf, uint32_t len, uint64_t off,
		 struct zero_runs *zeroes, struct fault *ret_fault);

/*
 * The same, if it can be done at once (nowait.h), or begun. SESSION_CANNOT: it
 * cannot, or it fails, and nothing has come of it: session_read() does it, or
 * says why not.
 *
 * SESSION_LATER: @later's read has begun (later.h), and the connection is in use
 * until session_read_later_ended(), which takes what the read ended with. @later
 * may be NULL: nothing is begun.
 */
enum session_try { SESSION_CANNOT, SESSION_DONE, SESSION_LATER };
struct session_later {
	struct later_read read;
	/* The session's own. */
	struct export *export;
	uint64_t began_nsec;
};
enum session_try session_try_read(struct connection *c, void *buf, uint32_t len,
				  uint64_t off, struct zero_runs *zeroes,
				  struct session_later *later);
void session_read_later_ended(struct connection *c, struct session_later *later,
			      uint32_t len, int code);
int session_write(struct connection *c, const void *buf, uint32_t len,
		  uint64_t off, unsigned int flags, struct fault *ret_fault);
int session_zero(struct connection *c, uint32_t len, uint64_t off,
		 unsigned int flags, struct fault *ret_fault);
int session_trim(struct connection *c, uint32_t len, uint64_t off,
		 unsigned int flags, struct fault *ret_fault);
int session_flush(struct connection *c, struct fault *ret_fault);

/* Has what may be read soon brought to memory. */
int session_prefetch(struct connection *c, uint32_t len, uint64_t off,
		     struct fault *ret_fault);

/* Of what block status can tell: see context_each(), context_open(). */
int session_each_context(struct connection *c,
			 int (*each)(void *opaque, const char *name),
			 void *opaque, struct fault *ret_fault);
/* *ret is the connection's; there are fewer than CONTEXTS_MAX. */
int session_open_context(struct connection *c, const char *name,
			 struct context **ret, struct fault *ret_fault);

/*
 * Calls @each with range after range from @off on, without gaps; may stop before
 * @len has been told, but not before something was. @x: what is told, one of this
 * connection's; NULL: base:allocation. @one: after the first kind. @each returns 0
 * to go on, 1 when it has had enough, or -1: then this returns 1.
 */
int session_extents(struct connection *c, const struct context *x, uint32_t len,
		    uint64_t off, bool one,
		    int (*each)(void *opaque, uint64_t off, uint64_t len,
				unsigned int state),
		    void *opaque, struct fault *ret_fault);

/* The same, if it can be done at once; see session_try_read(). */
bool session_try_extents(struct connection *c, const struct context *x,
			 uint32_t len, uint64_t off, bool one,
			 int (*each)(void *opaque, uint64_t off, uint64_t len,
				     unsigned int state),
			 void *opaque);

#endif
