/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How options are answered: at once, or when a worker has done what takes time;
 * then the client is PHASE_BUSY meanwhile, and his next option waits.
 */
#ifndef NBD_SERVER_OPTION_H
#define NBD_SERVER_OPTION_H

#include "nbd/server/client.h"

/* One that is being answered. */
struct option {
	enum nbd_opt number;
	const uint8_t *data;
	size_t n;
};

/* A piece of the handshake, to be sent. False: no memory, and it ends. */
bool option_say(struct client *c, const void *data, size_t n);
bool option_answer(struct client *c, enum nbd_opt opt, uint32_t type,
		   const void *data, size_t n);
bool option_answer_text(struct client *c, enum nbd_opt opt, uint32_t type,
			const char *text);

/* A job for a worker. */
struct option_job {
	/* Set by who starts it: */
	char *name; /* of the export, to be freed; NULL: no memory */
	bool reopen; /* what is open is let go of, and @name is opened */
	bool close; /* what is open is let go of */
	struct nbd_request *list; /* answers that it makes; or NULL */
	void (*call)(struct option_job *j); /* in a worker */
	/* In the client's own thread, when it has been done; false: it ends. */
	bool (*then)(struct option_job *j);

	/* For these two: */
	struct client *client;
	struct option option;
	struct connection *connection; /* NULL: none is open */
	struct contexts contexts; /* out: that were opened */
	bool failed;
	int why; /* negative errno of an export that could not be opened */
	bool too_big;
	int result;

	/* Its own: */
	struct queue_request q;
	struct queue_user user;
	uint8_t *data; /* of the option */
	uint64_t began_nsec;
	struct connection *old;
};

/* Starts what @start says, of which it takes over name and list. As above. */
bool option_start_job(struct client *c, const struct option *o,
		      const struct option_job *start);

/* In a worker: tells what an administrator should read of. */
void option_tell(const struct option_job *j, const struct fault *f);

#endif
