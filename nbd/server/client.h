/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One client of our own front end, and how its files share the work:
 *
 *	client.c	what all of them do with him
 *	loop.c		sockets and threads: when to read, write, accept, end
 *	handshake.c	bytes of the handshake to options, options to answers
 *	option.c	how an option is answered, at once or by a worker
 *	starttls.c	the option STARTTLS, and TLS's handshake
 *	contexts.c	the options about what block status tells
 *	transmission.c	bytes to requests, requests to the queue (nbd/queue.h)
 *	reply.c		what has ended to bytes
 *
 * A client belongs to one loop, and everything here is done by that loop's
 * thread, but for what a worker does with a request until it is done.
 */
#ifndef NBD_SERVER_CLIENT_H
#define NBD_SERVER_CLIENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>

#include "nbd/peer-name.h"
#include "nbd/queue.h"
#include "nbd/server/buffers.h"
#include "nbd/server/protocol.h"
#include "nbd/server/tls.h"
#include "nbd/service.h"

/* What a loop waits for. */
struct watch {
	int fd;
	void (*ready)(struct watch *w, uint32_t events);
};

enum phase {
	PHASE_FLAGS, /* the client's flags are to come */
	PHASE_OPTIONS,
	PHASE_BUSY, /* a worker is at an option: nothing is read */
	PHASE_TLS, /* STARTTLS was taken: TLS's own handshake */
	PHASE_TRANSMISSION,
	PHASE_LAST, /* nothing more is read; answers go out, then it ends */
};

/*
 * A request, or a piece of the handshake, from its coming until its answer has
 * been sent.
 */
struct nbd_request {
	struct queue_request q;
	struct client *client;
	struct nbd_request *next; /* in the client's answers */

	uint8_t cookie[8]; /* as it came */
	uint16_t command; /* enum nbd_cmd */
	size_t weight; /* of flight_bytes */
	struct zero_runs zeroes;

	/* Bytes to be sent as they are (handshake, block status); malloc()ed. */
	uint8_t *raw;
	size_t raw_n, raw_room;
	/* Of block status: the context that is asked now, and its chunk. */
	unsigned int context_idx;
	size_t chunk_at, chunk_end_max;
};

/* What block status tells a client; their ids are their places, from 1 on. */
struct contexts {
	struct context *list[CONTEXTS_MAX]; /* the connection's */
	unsigned int n;
};

/* What a client may have under way; then its socket is not read for a while. */
#define FLIGHT_REQUESTS_MAX 256U
#define FLIGHT_BYTES_MAX    (4U << 20)

/*
 * With so much under way in one loop, each may have less: a crowd that does not
 * read its answers costs this, and one request of each. All have one at any time,
 * so nobody waits for another to read.
 */
#define CROWD_BYTES	     (64U << 20)
#define FLIGHT_BYTES_CROWDED (256U << 10)

struct client {
	struct watch watch; /* the first */
	struct loop *loop;
	struct client *next, **self; /* in the loop's list */
	struct queue_user user;
	struct session_traits traits;

	enum phase phase;
	bool structured;
	bool fixed; /* he knows the fixed newstyle */
	bool no_zeroes;
	struct contexts contexts; /* that were negotiated */
	char *export; /* that was opened as user.connection */
	struct peer_names peer;
	struct handed *handed; /* NULL: he did not come by HTTP */
	struct tls_session *tls; /* NULL: he did not ask for it */
	bool secure; /* and has it */
	uint32_t tls_events; /* that its handshake waits for */
	int late_fd; /* -1, or to be closed when nobody is at work */
	uint64_t deadline_nsec; /* of the handshake */
	size_t option_bytes; /* so far */

	uint8_t *in; /* what was read and not yet understood */
	size_t in_n, in_room;
	struct nbd_request *incoming; /* a write whose data are coming */
	size_t incoming_n; /* so many are here */

	struct nbd_request *out, **out_end; /* answers, in order */
	size_t out_sent; /* bytes of the first */
	bool blocked; /* the socket takes no more for now */

	unsigned int in_flight; /* requests without an answer that was sent */
	size_t flight_bytes;
	unsigned int at_work; /* of these, in the queue */
	unsigned int asked; /* requests so far */
	uint32_t events; /* that the loop waits for */
	bool shaking; /* counted among those in the handshake */
	bool touched;
	struct client *next_touched;
	bool broken; /* the socket is of no use any more */
	bool closing; /* a worker lets go of the export */
};

/* What a client who came by HTTP may open, and who he is. */
struct handed {
	char *export;
	char *peer;
};

#define SCRATCH_BYTES (64U << 10)
#define IOV_MAX_USED  256U
#define HEADS_BYTES   (IOV_MAX_USED * 32U)

/* A socket that listens, which all loops share. */
struct door {
	struct watch watch;
	struct loop *loop;
};

struct loop {
	int epoll_fd;
	pthread_t thread;
	bool started;
	const struct service *service;
	void (*tell)(const struct fault *f);
	struct tls_keys *tls; /* NULL: it is not offered */
	bool tls_required;
	struct queue *queue;
	struct watch queue_watch;
	struct watch wake; /* an eventfd */
	struct loops *all;
	struct door *doors;
	unsigned int n_doors;

	struct client *clients;
	struct client *touched; /* by what was done for them */
	unsigned int n_shaking; /* in the handshake */
	uint64_t looked_nsec; /* when it last thought of a client alone */
	uint64_t several_nsec; /* when one last had several requests come */
	uint64_t stop_nsec; /* it is ending, and cuts off who is left; or 0 */
	struct nbd_request *spare; /* requests that are used again */
	unsigned int n_spare;
	struct client *dead; /* to be freed when nobody is looked at */
	struct buffers buffers;

	uint8_t scratch[SCRATCH_BYTES];
	uint8_t heads[HEADS_BYTES];

	/* From other threads, under lock. */
	pthread_mutex_t lock;
	struct arrival *arrivals;
	bool stopping;
	atomic_uint n_clients; /* with those that arrive */
};

/* ---- client.c ---- */

/*
 * Who is at the other end has broken the rules, or the connection has: nothing
 * more is read or sent, and he is gone when nothing is at work for him.
 */
void client_break(struct client *c);

/* As recv(2), with MSG_DONTWAIT. */
ssize_t client_recv(struct client *c, void *buf, size_t n);

/* Something has changed from outside: goes on with what there is to do. */
void client_go_on(struct client *c);

/* A request that is used again; NULL: no memory. In flight from here on. */
struct nbd_request *request_new(struct client *c);
void request_free(struct nbd_request *r);

/* None are chosen any more. No request is under way. */
void client_drop_contexts(struct client *c);

/* Is @name what he has open? Else no context that was chosen is of it. */
bool client_has_open(const struct client *c, const char *name);

/* @n bytes more to be sent as they are. False: no memory. */
bool request_add(struct nbd_request *r, const void *data, size_t n);

/* ---- reply.c ---- */

/* The request has ended, or is a piece of the handshake: it goes out in turn. */
void reply_add(struct client *c, struct nbd_request *r);

/* Sends what there is to send and the socket takes. False: it broke. */
bool reply_send(struct client *c);

/* ---- handshake.c ---- */

/* The greeting. False: no memory. */
bool handshake_begin(struct client *c);

/*
 * Takes what it understands of [@buf, @buf + @n); returns how many bytes that
 * were, or -1: the client breaks the rules.
 */
ssize_t handshake_take(struct client *c, const uint8_t *buf, size_t n);

/* May another option be read? Who does not read the answers waits. */
bool handshake_has_room(const struct client *c);

/* ---- transmission.c ---- */

/* As handshake_take(). */
ssize_t transmission_take(struct client *c, const uint8_t *buf, size_t n);

/* All data of the write that was coming are here. */
void transmission_written(struct client *c);

/* May another request be read? */
bool transmission_has_room(const struct client *c);

#endif
