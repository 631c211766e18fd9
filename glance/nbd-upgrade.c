/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * GET /v2/images/ID/nbd with "Connection: Upgrade" and "Upgrade: nbd": what
 * follows the answer is NBD, as if the client had connected to the server's
 * own port and could open nothing but this image.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "glance/glance.h"
#include "glance/image-json.h"
#include "glance/inspect.h"
#include "glance/routes.h"
#include "glance/http/tunnel.h"
#include "glance/time-text.h"

/* Belongs to the request until it is upgraded, then to the tunnel. */
struct nbd_way {
	struct glance *g;
	int fd; /* to the server's NBD; -1: the tunnel has it */
};

struct nbd_ends {
	struct glance *g;
	struct upgraded client;
	int fd;
};

/* Is @word one of a list with commas? Any case. */
static bool lists(const char *list, const char *word)
{
	size_t len, want = strlen(word);

	while (list && *list) {
		list += strspn(list, ", \t");
		len = strcspn(list, ",");
		while (len && strchr(" \t", list[len - 1]))
			len--;
		if (len == want && !strncasecmp(list, word, len))
			return true;
		list += strcspn(list, ",");
	}
	return false;
}

static void free_way(void *opaque)
{
	struct nbd_way *w = opaque;

	if (w->fd >= 0) {
		w->g->nbd.close(w->fd);
		tunnel_give_back(w->g->tunnels);
	}
	free(w);
}

static void close_ends(void *opaque)
{
	struct nbd_ends *e = opaque;

	e->g->nbd.close(e->fd);
	http_upgraded_close(&e->client);
	free(e);
}

/* A client that has gone without a word is found out, however long it slept. */
static void tune(int fd)
{
	int one = 1;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void begin_tunnel(void *opaque, const struct upgraded *u)
{
	struct nbd_way *w = opaque;
	struct nbd_ends *e = malloc(sizeof(*e));

	if (!e) {
		http_upgraded_close(u);
		return;
	}
	*e = (struct nbd_ends){ .g = w->g, .client = *u, .fd = TAKE_FD(w->fd) };
	tune(u->fd);
	tunnel_start(w->g->tunnels,
		     &(struct tunnel_ends){ .near = u->fd,
					    .far = e->fd,
					    .close = close_ends,
					    .opaque = e },
		     u->extra, u->extra_bytes);
}

/* As for the data (data.c), with 409 where those would be empty. */
static bool may_be_read(struct request *q, const struct record *image)
{
	struct open_options options;

	if (image->status == IMAGE_DEACTIVATED)
		respond_error(q, 403,
			      "The requested image has been deactivated. Image "
			      "data download is forbidden.");
	else if (image->status != IMAGE_ACTIVE)
		respond_errorf(q, 409, "Image %s is %s: it has no data",
			       image->id, image_status_name(image->status));
	else if (!inspect_disk(image, &options))
		respond_errorf(q, 400, "Image %s cannot be read as a disk",
			       image->id);
	else
		return true;
	return false;
}

static int connect_nbd(struct request *q, const struct record *image,
		       struct nbd_way *w, struct error *err)
{
	struct glance *g = q->app;
	struct grant right = { .admin = q->who.admin,
			       .expires =
				       time_now_usec() / 1000000 + GRANT_SEC };
	char grant[GRANT_TEXT_BYTES], peer[64];
	int r;

	if (!g->nbd.connect)
		return error_set(err, -EAGAIN, 0,
				 "this server does not serve NBD");
	if (q->who.project)
		snprintf(right.project, sizeof(right.project), "%s",
			 q->who.project);
	r = grant_mint(&g->grant_key, image->id, &right, grant, err);
	if (r < 0)
		return r;
	r = tunnel_reserve(g->tunnels, err);
	if (r < 0)
		return r;
	request_peer(q, peer, sizeof(peer));
	r = g->nbd.connect(image->id, grant, peer, &w->fd, err);
	if (r < 0)
		tunnel_give_back(g->tunnels);
	return r;
}

static void upgrade(struct request *q, const struct record *image)
{
	struct nbd_way *w = malloc(sizeof(*w));
	struct error err = { 0 };

	if (!w) {
		respond_empty(q, 500);
		return;
	}
	*w = (struct nbd_way){ .g = q->app, .fd = -1 };
	q->state = w;
	q->state_free = free_way;
	if (connect_nbd(q, image, w, &err) < 0) {
		if (err.code == -EAGAIN)
			respond_header(q, "Retry-After", "10");
		respond_failure(q, &err);
		return;
	}
	respond_upgrade(q, "nbd", begin_tunnel, w);
}

static void get_nbd(struct request *q)
{
	CLEANUP(record_done) struct record image = { 0 };

	if (image_of_request(q, &image) < 0 || !may_be_read(q, &image))
		return;
	if (q->method == HTTP_GET && q->may_upgrade &&
	    lists(request_header(q, "Connection"), "upgrade") &&
	    lists(request_header(q, "Upgrade"), "nbd")) {
		upgrade(q, &image);
		return;
	}
	respond_header(q, "Upgrade", "nbd");
	respond_error(q, 426,
		      "NBD is spoken here: ask with HTTP/1.1, Connection: "
		      "Upgrade and Upgrade: nbd.");
}

const struct route nbd_routes[] = {
	{ HTTP_GET, "/v2/images/{}/nbd", get_nbd },
	{ 0 },
};
